"""MLX."""

from __future__ import annotations

import importlib
from typing import Any

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import (
    FLOATING,
    INTEGERS,
    ReadyMade,
    check_leaves,
    check_number,
    check_tree,
)

__all__ = ["SUBJECTS"]


def _clip_grad_norm() -> Subject:
    """Return mlx.optimizers.clip_grad_norm."""
    clip = importlib.import_module("mlx.optimizers").clip_grad_norm

    def call(tree: Any, max_norm: Any) -> Any:
        check_tree(tree)
        check_leaves(tree)
        check_number(max_norm)
        return clip(tree, max_norm)

    return Subject(call, "mlx.core")


def _clip() -> Subject:
    """Return mlx.core.clip; it takes one bound or two."""
    clip = importlib.import_module("mlx.core").clip

    def call(x: Any, lower: Any, upper: Any) -> Any:
        if lower is None and upper is None:
            raise NotOffered("at least one bound")
        return clip(x, lower, upper)

    return Subject(call, "mlx.core")


SUBJECTS = (
    ReadyMade(
        name="mlx.clip_grad_norm",
        operation="clip_by_global_norm",
        definition="torch",
        needs=("mlx",),
        distribution="mlx",
        build=_clip_grad_norm,
        note="`mlx.optimizers.clip_grad_norm(tree, max_norm)`.",
        dtypes=(*FLOATING, "complex64"),
    ),
    ReadyMade(
        name="mlx.clip",
        operation="clip_by_value",
        definition="contract",
        needs=("mlx",),
        distribution="mlx",
        build=_clip,
        note="`mlx.core.clip(x, lower, upper)`.",
        dtypes=(*FLOATING, *INTEGERS),
    ),
)
