"""TensorFlow's clip_ops."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import FLOATING, INTEGERS, ReadyMade, check_flat

__all__ = ["SAFE_INTEGERS", "SUBJECTS", "quiet"]

_NEEDS: Final = ("tensorflow",)
# tf.clip_by_value of uint64 with an int as a bound that does not fit it can abort the process
SAFE_INTEGERS: Final = tuple(name for name in INTEGERS if name != "uint64")


def quiet() -> None:
    """Ask TensorFlow not to log what it finds on the machine; it has to be asked before it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _tensorflow() -> Any:
    """Return the package."""
    quiet()
    return importlib.import_module("tensorflow")


def _clip_by_value() -> Subject:
    """Return tf.clip_by_value; it takes two bounds."""
    tf = _tensorflow()

    def call(x: Any, lower: Any, upper: Any) -> Any:
        if lower is None or upper is None:
            raise NotOffered("only two bounds")
        return tf.clip_by_value(x, lower, upper)

    return Subject(call, "tensorflow")


def _clip_by_norm() -> Subject:
    """Return tf.clip_by_norm."""
    tf = _tensorflow()

    def call(x: Any, max_norm: Any, *, axis: Any = None) -> Any:
        return tf.clip_by_norm(x, max_norm, axes=axis)

    return Subject(call, "tensorflow")


def _clip_by_global_norm() -> Subject:
    """Return tf.clip_by_global_norm."""
    tf = _tensorflow()

    def call(tree: Any, max_norm: Any) -> Any:
        check_flat(tree, list, tuple)
        return tf.clip_by_global_norm(tree, max_norm)

    return Subject(call, "tensorflow")


def _global_norm() -> Subject:
    """Return tf.linalg.global_norm."""
    tf = _tensorflow()

    def norm(tree: Any) -> Any:
        check_flat(tree, list, tuple)
        return tf.linalg.global_norm(tree)

    return Subject(norm, "tensorflow")


SUBJECTS = (
    ReadyMade(
        name="tf.clip_by_value",
        operation="clip_by_value",
        definition="tensorflow",
        needs=_NEEDS,
        distribution="tensorflow",
        build=_clip_by_value,
        note="`tf.clip_by_value(x, lower, upper)`.",
        dtypes=(*FLOATING, *SAFE_INTEGERS),
    ),
    ReadyMade(
        name="tf.clip_by_norm",
        operation="clip_by_l2_norm",
        definition="tensorflow",
        needs=_NEEDS,
        distribution="tensorflow",
        build=_clip_by_norm,
        note="`tf.clip_by_norm(x, max_norm, axes=axis)`.",
        dtypes=FLOATING,
    ),
    ReadyMade(
        name="tf.clip_by_global_norm",
        operation="clip_by_global_norm",
        definition="tensorflow",
        needs=_NEEDS,
        distribution="tensorflow",
        build=_clip_by_global_norm,
        note="`tf.clip_by_global_norm(tensors, max_norm)`.",
        dtypes=FLOATING,
    ),
    ReadyMade(
        name="tf.linalg.global_norm",
        operation="global_norm",
        definition="contract",
        needs=_NEEDS,
        distribution="tensorflow",
        build=_global_norm,
        note="`tf.linalg.global_norm(tensors)`.",
        dtypes=FLOATING,
    ),
)
