"""Optax: gradient transformations and projections."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._jax import COMPILING, enable_float64
from clipcore.verify.subjects._ready_made import (
    FLOATING,
    INTEGERS,
    ReadyMade,
    check_tree,
    symmetric,
)

__all__ = ["SUBJECTS"]

_COMPLEX: Final = ("complex64", "complex128")


def _optax() -> Any:
    """Return the package, with float64 switched on in JAX."""
    enable_float64()
    return importlib.import_module("optax")


def _updated(transformation: Any, updates: Any, parameters: Any = None) -> Any:
    """Return what a gradient transformation makes of updates."""
    result, _ = transformation.update(updates, transformation.init(updates), parameters)
    return result


def _clip() -> Subject:
    """Return optax.clip."""
    optax = _optax()

    def call(x: Any, lower: Any, upper: Any) -> Any:
        return _updated(optax.clip(symmetric(lower, upper)), x)

    return Subject(call, "jax.numpy", timeout=COMPILING)


def _clip_by_global_norm() -> Subject:
    """Return optax.clip_by_global_norm."""
    optax = _optax()

    def call(tree: Any, max_norm: Any) -> Any:
        check_tree(tree)
        return _updated(optax.clip_by_global_norm(max_norm), tree)

    return Subject(call, "jax.numpy", timeout=COMPILING)


def _adaptive_grad_clip() -> Subject:
    """Return optax.adaptive_grad_clip of a vector, beside a parameter of norm 1."""
    optax, jnp = _optax(), importlib.import_module("jax.numpy")

    def call(x: Any, max_norm: Any) -> Any:
        if x.ndim != 1:
            raise NotOffered("only vectors: its norms are those of units")
        return _updated(optax.adaptive_grad_clip(max_norm), x, jnp.zeros_like(x).at[:1].set(1))

    return Subject(call, "jax.numpy", timeout=COMPILING)


def _projection_l2_ball() -> Subject:
    """Return optax.projections.projection_l2_ball."""
    return Subject(_optax().projections.projection_l2_ball, "jax.numpy", timeout=COMPILING)


def _projection_l1_ball() -> Subject:
    """Return optax.projections.projection_l1_ball; with jax_enable_x64 on it takes no float32."""
    project, jax = _optax().projections.projection_l1_ball, importlib.import_module("jax")

    def call(x: Any, max_norm: Any) -> Any:
        with jax.enable_x64(False):
            return project(x, max_norm)

    return Subject(call, "jax.numpy", timeout=COMPILING)


def _norm() -> Subject:
    """Return optax.tree.norm."""
    measure = _optax().tree.norm

    def norm(tree: Any, *, ord: Any = 2) -> Any:  # noqa: A002
        check_tree(tree)
        return measure(tree, ord=ord)

    return Subject(norm, "jax.numpy", timeout=COMPILING)


def _ready_made(
    name: str,
    operation: str,
    definition: str,
    build: Callable[[], Subject],
    call: str,
    dtypes: tuple[str, ...] = (*FLOATING, *_COMPLEX),
    x64: str = "on",
) -> ReadyMade:
    """Return one subject of Optax."""
    note = f"`{call}`, with jax_enable_x64 switched {x64}."
    return ReadyMade(
        f"optax.{name}", operation, definition, ("optax", "jax"), "optax jax", build, note, dtypes
    )


SUBJECTS = (
    _ready_made(
        "clip",
        "clip_by_value",
        "contract",
        _clip,
        "optax.clip(v).update(x, state)",
        (*FLOATING, *INTEGERS),
    ),
    _ready_made(
        "clip_by_global_norm",
        "clip_by_global_norm",
        "optax",
        _clip_by_global_norm,
        "optax.clip_by_global_norm(max_norm).update(tree, state)",
    ),
    _ready_made(
        "adaptive_grad_clip",
        "clip_by_l2_norm",
        "optax-agc",
        _adaptive_grad_clip,
        "optax.adaptive_grad_clip(max_norm).update(x, state, parameter)",
    ),
    _ready_made(
        "projections.projection_l2_ball",
        "clip_by_l2_norm",
        "contract",
        _projection_l2_ball,
        "optax.projections.projection_l2_ball(x, max_norm)",
    ),
    _ready_made(
        "projections.projection_l1_ball",
        "clip_by_l1_norm",
        "l1-projection",
        _projection_l1_ball,
        "optax.projections.projection_l1_ball(x, max_norm)",
        ("float32", "complex64"),
        "off",
    ),
    _ready_made("tree.norm", "global_norm", "contract", _norm, "optax.tree.norm(tree, ord=ord)"),
)
