"""jax.numpy."""

from __future__ import annotations

import importlib
from typing import Any, Final

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import FLOATING, INTEGERS, ReadyMade

__all__ = ["COMPILING", "SUBJECTS", "enable_float64"]

COMPILING: Final = 60.0  # seconds that a call may take: the first of every shape and dtype compiles


def enable_float64() -> None:
    """Switch on jax_enable_x64, without which JAX has no float64."""
    importlib.import_module("jax").config.update("jax_enable_x64", True)


def _clip() -> Subject:
    """Return jax.numpy.clip."""
    enable_float64()
    return Subject(importlib.import_module("jax.numpy").clip, "jax.numpy", timeout=COMPILING)


def _norm() -> Subject:
    """Return jax.numpy.linalg.norm; it takes one axis or two."""
    enable_float64()
    jnp = importlib.import_module("jax.numpy")

    def norm(x: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
        if isinstance(axis, tuple) and len(axis) not in (1, 2):
            raise NotOffered("only one axis or two")
        return jnp.linalg.norm(x, axis=axis)

    return Subject(norm, "jax.numpy", timeout=COMPILING)


SUBJECTS = (
    ReadyMade(
        name="jax.numpy.clip",
        operation="clip_by_value",
        definition="contract",
        needs=("jax",),
        distribution="jax",
        build=_clip,
        note="`jax.numpy.clip(x, lower, upper)`, with jax_enable_x64 switched on.",
        dtypes=(*FLOATING, *INTEGERS),
    ),
    ReadyMade(
        name="jax.numpy.linalg.norm",
        operation="l2_norm",
        definition="contract",
        needs=("jax",),
        distribution="jax",
        build=_norm,
        note="`jax.numpy.linalg.norm(x, axis=axis)`, with jax_enable_x64 switched on.",
        dtypes=(*FLOATING, "complex64", "complex128"),
    ),
)
