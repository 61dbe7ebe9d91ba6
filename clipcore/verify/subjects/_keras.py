"""Keras 3: the clipping of its optimizers, and its constraints, on the backend that is chosen.

The backend is the one that Keras has been imported with, else the one that it would choose: by KERAS_BACKEND,
by the file keras.json, else TensorFlow.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._jax import COMPILING, enable_float64
from clipcore.verify.subjects._ready_made import (
    FLOATING,
    INTEGERS,
    ReadyMade,
    check_flat,
    check_number,
    symmetric,
)
from clipcore.verify.subjects._tensorflow import SAFE_INTEGERS, quiet
from clipcore.verify.subjects._torch import SIGNED_AND_UINT8

__all__ = ["subjects"]


def _backend() -> str:
    """Return the name of the backend, without importing Keras."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    return os.environ.get("KERAS_BACKEND") or _configured()


def _configured() -> str:
    """Return the backend that keras.json names, or Keras's default."""
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        return str(json.loads((home / "keras.json").read_text())["backend"])
    except (OSError, ValueError, LookupError, TypeError):
        return "tensorflow"


def _keras(backend: str) -> Any:
    """Return the package, its backend made ready."""
    quiet()
    if backend == "jax":
        enable_float64()
    return importlib.import_module("keras")


def _check_limit(limit: Any) -> None:
    """Refuse what no optimizer takes for a limit: None switches clipping off."""
    check_number(limit)
    if limit is None:
        raise NotOffered("None switches clipping off")


def _clipnorm(backend: str) -> Subject:
    """Return what an optimizer does with clipnorm to one gradient."""
    keras = _keras(backend)

    def call(x: Any, max_norm: Any) -> Any:
        _check_limit(max_norm)
        [clipped] = keras.optimizers.SGD(clipnorm=max_norm)._clip_gradients([x])
        return clipped

    return Subject(call, backend, timeout=COMPILING)


def _global_clipnorm(backend: str) -> Subject:
    """Return what an optimizer does with global_clipnorm to its gradients."""
    keras = _keras(backend)

    def call(tree: Any, max_norm: Any) -> Any:
        check_flat(tree, list)
        _check_limit(max_norm)
        return keras.optimizers.SGD(global_clipnorm=max_norm)._clip_gradients(tree)

    return Subject(call, backend, timeout=COMPILING)


def _clipvalue(backend: str) -> Subject:
    """Return what an optimizer does with clipvalue to one gradient."""
    keras = _keras(backend)

    def call(x: Any, lower: Any, upper: Any) -> Any:
        [clipped] = keras.optimizers.SGD(clipvalue=symmetric(lower, upper))._clip_gradients([x])
        return clipped

    return Subject(call, backend, timeout=COMPILING)


def _with_axes(x: Any, axis: int | tuple[int, ...] | None) -> int | list[int]:
    """Return axes as a constraint takes them: all of them for None."""
    if axis is None:
        return list(range(len(x.shape)))
    return axis if isinstance(axis, int) else list(axis)


def _max_norm(backend: str) -> Subject:
    """Return the constraint MaxNorm."""
    keras = _keras(backend)

    def call(x: Any, max_norm: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
        check_number(max_norm)
        return keras.constraints.MaxNorm(max_norm, axis=_with_axes(x, axis))(x)

    return Subject(call, backend, timeout=COMPILING)


def _min_max_norm(backend: str) -> Subject:
    """Return the constraint MinMaxNorm, whose smallest norm is 0 by default."""
    keras = _keras(backend)

    def call(x: Any, max_norm: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
        check_number(max_norm)
        return keras.constraints.MinMaxNorm(max_value=max_norm, axis=_with_axes(x, axis))(x)

    return Subject(call, backend, timeout=COMPILING)


def _non_neg(backend: str) -> Subject:
    """Return the constraint NonNeg."""
    keras = _keras(backend)

    def call(x: Any, lower: Any, upper: Any) -> Any:
        if upper is not None or not isinstance(lower, int | float) or lower != 0:
            raise NotOffered("only a lower bound of 0")
        return keras.constraints.NonNeg()(x)

    return Subject(call, backend, timeout=COMPILING)


_FUNCTIONS: Final = (
    ("clipnorm", "clip_by_l2_norm", "keras", _clipnorm, "`SGD(clipnorm=max_norm)._clip_gradients([x])`"),
    (
        "global_clipnorm",
        "clip_by_global_norm",
        "keras",
        _global_clipnorm,
        "`SGD(global_clipnorm=max_norm)._clip_gradients(gradients)`",
    ),
    (
        "clipvalue",
        "clip_by_value",
        "keras",
        _clipvalue,
        "`SGD(clipvalue=v)._clip_gradients([x])` for the bounds −v and v",
    ),
    ("MaxNorm", "clip_by_l2_norm", "keras-max-norm", _max_norm, "`constraints.MaxNorm(max_norm, axis)(x)`"),
    (
        "MinMaxNorm",
        "clip_by_l2_norm",
        "keras-max-norm",
        _min_max_norm,
        "`constraints.MinMaxNorm(max_value=max_norm, axis=axis)(x)`",
    ),
    ("NonNeg", "clip_by_value", "contract", _non_neg, "`constraints.NonNeg()(x)`"),
)


def subjects() -> tuple[ReadyMade, ...]:
    """Return the subjects on the chosen backend."""
    return tuple(_ready_made(_backend(), *function) for function in _FUNCTIONS)


def _ready_made(
    backend: str, name: str, operation: str, definition: str, build: Callable[[str], Subject], call: str
) -> ReadyMade:
    """Return one subject on a backend."""
    return ReadyMade(
        name=f"keras[{backend}].{name}",
        operation=operation,
        definition=definition,
        needs=("keras", backend),
        distribution=f"keras {backend}",
        build=lambda: build(backend),
        note=f"Keras' {call} on the backend {backend}.",
        dtypes=(*FLOATING, *_others(backend, name)),
    )


def _others(backend: str, name: str) -> tuple[str, ...]:
    """Return what a function takes besides real numbers of floating point."""
    if name in ("clipvalue", "NonNeg"):
        return {"torch": SIGNED_AND_UINT8, "tensorflow": SAFE_INTEGERS}.get(backend, INTEGERS)
    return ("complex64", "complex128") if backend in ("jax", "numpy") and "norm" in name else ()
