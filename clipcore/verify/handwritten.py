"""The formulas most people write by hand, one for each clip: the second column of the table.

They are here to be judged, not to be used. Each is in the form found in tutorials and training loops, with
the 1e-6 in the denominator that most of them have. Only the global norm is returned in the form that the
contract asks for, a 0-d array, so that its value is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optree

__all__ = ["HANDWRITTEN"]


def clip_by_value(x: Any, lower: Any, upper: Any) -> Any:
    """Cut every element."""
    return np.clip(x, lower, upper)


def clip_by_l1_norm(x: Any, max_norm: float) -> Any:
    """Scale one array by its L1 norm."""
    norm = np.abs(x).sum()
    return x * min(1.0, max_norm / (norm + 1e-6))


def clip_by_l2_norm(x: Any, max_norm: float) -> Any:
    """Scale one array by its L2 norm."""
    norm = np.linalg.norm(x)
    return x * min(1.0, max_norm / (norm + 1e-6))


def clip_by_global_norm(tree: Any, max_norm: float) -> tuple[Any, Any]:
    """Scale all arrays by the L2 norm of all of them."""
    norm = np.sqrt(sum(np.sum(np.abs(leaf) ** 2) for leaf in optree.tree_leaves(tree)))
    factor = min(1.0, max_norm / (norm + 1e-6))
    return optree.tree_map(lambda leaf: leaf * factor, tree), np.asarray(norm, dtype=np.float64)


def clip_weights(tree: Any, lower: Any, upper: Any) -> Any:
    """Cut every element of all arrays."""
    return optree.tree_map(lambda leaf: np.clip(leaf, lower, upper), tree)


HANDWRITTEN: dict[str, Callable[..., Any]] = {
    "clip_by_global_norm": clip_by_global_norm,
    "clip_by_l1_norm": clip_by_l1_norm,
    "clip_by_l2_norm": clip_by_l2_norm,
    "clip_by_value": clip_by_value,
    "clip_weights": clip_weights,
}
