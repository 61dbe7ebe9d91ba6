"""Clips by one array's norm that multiply, write or group wrongly for ordinary inputs (level rounded)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from zoo_bases import (
    L1,
    L2,
    Array,
    Bug,
    Norm,
    Pair,
    flat,
    grouped,
    leaf_of,
    limit_of,
    measure_l2,
    native,
    plain,
    scaled,
    value_of,
)
from zoo_buggy_norm import own_dtype_l1, sequential32, spectral, tiny_is_zero

# --- the product ------------------------------------------------------------------------------------------


def multiplied_first(x: Array, max_norm: Any) -> Array:
    """TensorFlow's t·c / max(n, c): moves elements inside, overflows in float16."""
    limit, norm = limit_of(max_norm), value_of(measure_l2([x]))
    kind = x.dtype.type
    with np.errstate(all="ignore"):
        return np.asarray(x * kind(limit) / kind(max(norm, limit))) if limit < math.inf else x.copy()


def by_steps(steps: int) -> Any:
    """A result that is some ulp above the right one."""

    def apply(x: Array, factor: Pair) -> Array:
        made = scaled(x, factor).astype(native(x.dtype))
        away = np.copysign(np.ones(x.shape), made.astype(np.float64)) * np.inf
        for _ in range(steps):
            made = np.where(made == 0, made, np.nextafter(made, away.astype(made.dtype)))
        return made.astype(x.dtype)

    return apply


def zero_to_nan(x: Array, factor: Pair) -> Array:
    """x/|x| · |x|·f."""
    made = scaled(x, factor)
    return np.where(x == 0, np.array(np.nan, native(x.dtype)), made).astype(x.dtype)


def tail_left(x: Array, factor: Pair) -> Array:
    result = np.array(x, order="C")
    whole = x.size // 8 * 8 if x.size >= 8 else x.size
    result.reshape(-1)[:whole] = scaled(x, factor).reshape(-1)[:whole]
    return result


def first_left(x: Array, factor: Pair) -> Array:
    result = scaled(x, factor)
    result.reshape(-1)[:1] = x.reshape(-1)[:1]
    return result


def in_place(x: Array, factor: Pair) -> Array:
    x[...] = scaled(x, factor)
    return x.copy()


def always_in_place(x: Array, max_norm: Any) -> Array:
    x[...] = L2.clip(x, max_norm)
    return x


APPLIED = [
    ("6 ulp too large", by_steps(6), "results 5 to 10 ulp off"),
    ("zero elements become NaN", zero_to_nan, "tensorflow#22048"),
    ("tail of n % 8 not scaled", tail_left, "SIMD tail"),
    ("first element not scaled", first_left, "common mistake"),
    ("sign lost", lambda x, f: abs(scaled(x, f)), "common mistake"),
    ("sign flipped", lambda x, f: -scaled(x, f), "pytorch#31367"),
    ("input written when clipped", in_place, "pytorch#46849"),
    ("flat result", lambda x, f: scaled(x, f).ravel(), "common mistake"),
    ("transposed result", lambda x, f: scaled(x, f).T, "common mistake"),
    ("float64 result", lambda x, f: x.astype(np.float64) * np.float64(value_of(f)), "numpy#24976"),
    ("float32 result", lambda x, f: scaled(x, f).astype(np.float32), "keras D21"),
    ("a list", lambda x, f: scaled(x, f).tolist(), "common mistake"),
    ("a masked array", lambda x, f: np.ma.asarray(scaled(x, f)), "common mistake"),
]

# --- whole functions ----------------------------------------------------------------------------------------


def elementwise(x: Array, max_norm: float) -> Array:
    return np.clip(x, -x.dtype.type(max_norm), x.dtype.type(max_norm))


def per_row(x: Array, max_norm: float) -> Array:
    return grouped(lambda part: L2.clip(part, max_norm), x, -1)


def axis_ignored(x: Array, max_norm: float, *, axis: Any = None) -> Any:  # noqa: ARG001
    return L2.clip(x, max_norm)


def axis_not_kept(x: Array, max_norm: float, *, axis: Any = None) -> Array:
    """Without keepdims: right for axis 0, for squares silently wrong otherwise."""
    if axis is None:
        return np.asarray(L2.clip(x, max_norm))
    norm = np.sqrt(np.sum(np.square(x.astype(np.float64)), axis=axis))
    factor = np.minimum(1.0, max_norm / np.where(norm > 0, norm, 1.0))
    return np.asarray(x * factor).astype(x.dtype)


def axis_negative(x: Array, max_norm: float, *, axis: Any = None) -> Array:
    """A negative axis counts from the front."""
    plain_axis = axis if axis is None or isinstance(axis, tuple) else abs(axis) % max(x.ndim, 1)
    return grouped(lambda part: L2.clip(part, max_norm), x, plain_axis)


def axis_first_of_tuple(x: Array, max_norm: float, *, axis: Any = None) -> Array:
    first = axis[0] if isinstance(axis, tuple) and axis else axis
    return grouped(lambda part: L2.clip(part, max_norm), x, first)


def axis_kept_instead(x: Array, max_norm: float, *, axis: Any = None) -> Array:
    """The axis is read as the one that stays."""
    if axis is None:
        return np.asarray(L1.clip(x, max_norm))
    named = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    others = tuple(a for a in range(x.ndim) if a not in named)
    return grouped(lambda part: L1.clip(part, max_norm), x, others or None)


def norm_in_leaf_dtype(x: Array) -> Array:
    return np.asarray(L2.norm(x)).astype(native(x.dtype))


def norm_keeps_axis(x: Array, *, axis: Any = None) -> Array:
    """keepdims, which nobody asked for."""
    if axis is None:
        return np.asarray(L2.norm(x))
    return np.asarray(np.sqrt(np.sum(np.square(leaf_of(x).astype(np.float64)), axis=axis, keepdims=True)))


def norm_axis_ignored(x: Array, *, axis: Any = None) -> Any:  # noqa: ARG001
    return L1.norm(x)


SQUARED = Norm(plain(lambda a: value_of(measure_l2(a)) ** 2))
SIGNED = Norm(plain(lambda a: abs(math.fsum(flat(a).tolist()))))
SEQUENTIAL = Norm(plain(sequential32))
TINY = Norm(factor=tiny_is_zero)


def _functions() -> list[Bug]:
    two, one = "clip_by_l2_norm", "clip_by_l1_norm"
    return [
        Bug("elementwise clip", two, "rounded", elementwise, "ai.stackexchange 40217"),
        Bug("each row of its own", two, "rounded", per_row, "keras#474"),
        Bug("t * c / max(n, c)", two, "rounded", multiplied_first, "TensorFlow D6"),
        Bug("written in place and returned", two, "rounded", always_in_place, "pytorch clip_grad_norm_"),
        Bug("alias when inside", two, "rounded", replace(L2, keep=lambda x: x).clip, "compat PR#382"),
        Bug(
            "view when inside",
            one,
            "rounded",
            replace(L1, keep=lambda x: x[...]).clip,
            "compat PR#382",
        ),
        Bug(
            "small norms taken for zero",
            two,
            "rounded",
            TINY.clip,
            "not scale invariant",
        ),
        Bug("axis ignored", two, "rounded", axis_ignored, "tf clip_by_norm axes"),
        Bug("axis without keepdims", two, "rounded", axis_not_kept, "optax#906"),
        Bug("negative axis", two, "rounded", axis_negative, "common mistake"),
        Bug("first axis of a tuple", two, "rounded", axis_first_of_tuple, "keras#474"),
        Bug("axis that stays", one, "rounded", axis_kept_instead, "arl-eegmodels#1"),
        Bug("norm in the leaf's dtype", "l2_norm", "rounded", norm_in_leaf_dtype, "jax#39899"),
        Bug("norm keeps the axis", "l2_norm", "rounded", norm_keeps_axis),
        Bug("norm ignores axis", "l1_norm", "rounded", norm_axis_ignored),
        Bug("norm without root", "l2_norm", "rounded", SQUARED.norm, "entrenar#311"),
        Bug(
            "norm by sequential float32",
            "l2_norm",
            "rounded",
            SEQUENTIAL.norm,
            "pytorch#151761",
        ),
        Bug("norm without abs", "l1_norm", "rounded", SIGNED.norm, "Lightning PR#1523"),
        Bug("norm in own dtype", "l1_norm", "rounded", Norm(plain(own_dtype_l1)).norm, "burn#5699"),
        Bug("spectral l2_norm", "l2_norm", "rounded", Norm(plain(spectral)).norm, "numpy.linalg.norm(x, 2)"),
    ]


BUGS = [
    *(Bug(name, "clip_by_l2_norm", "rounded", Norm(apply=fn).clip, thread) for name, fn, thread in APPLIED),
    *_functions(),
]
