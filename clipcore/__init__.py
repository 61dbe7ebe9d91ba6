"""Clipping for machine learning whose bounds hold exactly."""

from clipcore._global_norm import clip_by_global_norm, global_norm
from clipcore._l1 import clip_by_l1_norm, l1_norm
from clipcore._l2 import clip_by_l2_norm, l2_norm
from clipcore._value import clip_by_value
from clipcore._weights import clip_weights

__all__ = [
    "clip_by_global_norm",
    "clip_by_l1_norm",
    "clip_by_l2_norm",
    "clip_by_value",
    "clip_weights",
    "global_norm",
    "l1_norm",
    "l2_norm",
]

__version__ = "0.1.0"
