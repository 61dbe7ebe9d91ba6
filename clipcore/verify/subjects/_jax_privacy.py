"""JAX-Privacy's clip_pytree."""

from __future__ import annotations

import importlib
from typing import Any

from clipcore.verify.subject import Subject
from clipcore.verify.subjects._jax import COMPILING, enable_float64
from clipcore.verify.subjects._ready_made import FLOATING, ReadyMade, check_number, check_tree

__all__ = ["SUBJECTS"]


def _clip_pytree() -> Subject:
    """Return jax_privacy.clipping.clip_pytree."""
    enable_float64()
    clip = importlib.import_module("jax_privacy.clipping").clip_pytree

    def call(tree: Any, max_norm: Any) -> Any:
        check_tree(tree)
        check_number(max_norm)
        return clip(tree, max_norm)

    return Subject(call, "jax.numpy", timeout=COMPILING)


SUBJECTS = (
    ReadyMade(
        name="jax_privacy.clip_pytree",
        operation="clip_by_global_norm",
        definition="jax-privacy",
        needs=("jax_privacy", "jax"),
        distribution="jax-privacy jax",
        build=_clip_pytree,
        note="`jax_privacy.clipping.clip_pytree(tree, max_norm)`, with jax_enable_x64 switched on.",
        dtypes=(*FLOATING, "complex64", "complex128"),
    ),
)
