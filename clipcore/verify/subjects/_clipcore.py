"""clipcore's own functions, on each library that they are judged on."""

from __future__ import annotations

from typing import Final

import clipcore
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._jax import COMPILING, enable_float64
from clipcore.verify.subjects._ready_made import FLOATING, INTEGERS, ReadyMade
from clipcore.verify.subjects._torch import SIGNED_AND_UINT8

__all__ = ["SUBJECTS"]

_CLIPS_BY_VALUE: Final = ("clip_by_value", "clip_weights")
_OPERATIONS: Final = (
    *_CLIPS_BY_VALUE,
    "clip_by_l1_norm",
    "clip_by_l2_norm",
    "clip_by_global_norm",
    "l1_norm",
    "l2_norm",
    "global_norm",
)
_LIBRARIES: Final = (
    ("clipcore", "numpy", "clipcore", "NumPy arrays."),
    (
        "clipcore.array-api-strict",
        "array_api_strict",
        "clipcore array-api-strict",
        "arrays of array-api-strict.",
    ),
    ("clipcore.torch", "torch", "clipcore torch", "torch tensors."),
    ("clipcore.jax", "jax", "clipcore jax", "JAX arrays, with jax_enable_x64 switched on."),
    ("clipcore.tensorflow", "tensorflow", "clipcore tensorflow", "TensorFlow tensors."),
    ("clipcore.mlx", "mlx", "clipcore mlx", "MLX arrays on the CPU."),
    ("clipcore.paddle", "paddle", "clipcore paddlepaddle", "Paddle tensors."),
    ("clipcore.cupy", "cupy", "clipcore cupy", "CuPy arrays, on an NVIDIA GPU."),
)


def _dtypes(module: str, operation: str) -> tuple[str, ...] | None:
    """Return what a library has of the dtypes that an operation takes; `None` for all."""
    by_value = operation in _CLIPS_BY_VALUE
    if module == "array_api_strict":
        return ("float32", "float64", *(INTEGERS if by_value else ("complex64", "complex128")))
    return (*FLOATING, *SIGNED_AND_UINT8) if module in ("torch", "paddle") and by_value else None


def _own(name: str, module: str, distribution: str, arrays: str, operation: str) -> ReadyMade:
    """Return the subject of one library and one operation."""

    def build() -> Subject:
        function = getattr(clipcore, operation)
        if module == "jax":
            enable_float64()
        return Subject(function, module, timeout=COMPILING if module in ("jax", "tensorflow") else 10.0)

    return ReadyMade(
        name=name,
        operation=operation,
        definition="contract",
        needs=(module,),
        distribution=distribution,
        build=build,
        note=f"`clipcore.{operation}` on {arrays}",
        dtypes=_dtypes(module, operation),
    )


SUBJECTS = tuple(_own(*library, operation) for library in _LIBRARIES for operation in _OPERATIONS)
