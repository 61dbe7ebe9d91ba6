"""Clips by one array's norm that fail for sizes, types, layouts and keywords of level robust."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from zoo_bases import (
    L1,
    L2,
    Array,
    Arrays,
    Bug,
    Fn,
    Norm,
    Pair,
    components,
    flat,
    grouped,
    leaf_of,
    limit_of,
    measure_l2,
    native,
    plain,
    poisoned,
    scaled,
    value_of,
)
from zoo_buggy_norm_edges import cast_norm, multiplied_first, naive64, nan_to_num

# --- sizes, types and layouts -------------------------------------------------------------------------------


def first_65536(arrays: Arrays) -> Pair:
    return measure_l2([flat(arrays)[:65536]])


def boundary_1024(arrays: Arrays) -> Pair:
    parts = flat(arrays)
    return measure_l2([np.delete(parts, np.arange(1024, parts.size, 1025))])


def stagnating(arrays: Arrays) -> Pair:
    """One float32 accumulator for large float32 arrays."""
    parts = flat(arrays)
    if arrays[0].dtype != np.float32 or parts.size <= 4096 or not 1e-15 < np.max(abs(parts)) < 1e15:
        return measure_l2(arrays)
    return math.sqrt(float(np.cumsum(np.square(parts.astype(np.float32)), dtype=np.float32)[-1])), 0


def memory_order(x: Array, factor: Pair) -> Array:
    """Elements in the order of memory, put back in C order."""
    return scaled(x.ravel(order="K"), factor).reshape(x.shape)


def forward_strides(x: Array) -> Array:
    """A negative stride is read forwards."""
    turned = tuple(slice(None, None, -1) if s < 0 else slice(None) for s in x.strides)
    return x[turned].copy()


def borrowed(x: Array, factor: Pair) -> Array:
    """Scales in place, copies and puts the values back: fails where the input is read-only."""
    old = x.copy()
    x[...] = scaled(x, factor)
    made = x.copy()
    x[...] = old
    return made


def distinct_memory(arrays: Arrays) -> Pair:
    """A broadcast axis is counted once."""
    kept = []
    for x in arrays:
        once = [slice(0, 1 if not step and n else None) for step, n in zip(x.strides, x.shape, strict=True)]
        kept.append(x[tuple(once)])
    return measure_l2(kept)


def swapped(x: Any) -> Array:
    """Foreign byte order is read as if it was the machine's own."""
    array = leaf_of(x)
    return array if array.dtype.isnative else array.view(native(array.dtype))


def to_native(x: Any) -> Array:
    array = leaf_of(x)
    return array.astype(native(array.dtype)) if not array.dtype.isnative else array


def full_range_empty(arrays: Arrays) -> Pair:
    """max() of nothing raises."""
    float(np.max(flat(arrays)))
    return measure_l2(arrays)


def accepting(kinds: str, then: Callable[[Array], Array]) -> Callable[[Any], Array]:
    def leaf(x: Any) -> Array:
        array = np.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else leaf_of(x)
        return leaf_of(then(array)) if array.dtype.kind in kinds else leaf_of(array)

    return leaf


def any_number(x: Any) -> Array:
    return np.asarray(x, np.float64) if isinstance(x, (int, float)) else leaf_of(x)


def truncating(x: Any, max_norm: Any) -> Any:
    """Integers go through float64 and back."""
    kind = getattr(x, "dtype", np.dtype(float))
    return L2.clip(x.astype(float), max_norm).astype(kind) if kind.kind in "iu" else L2.clip(x, max_norm)


def real_part(arrays: Arrays) -> Pair:
    return measure_l2([x.real if x.dtype.kind == "c" else x for x in arrays])


def without_conjugate(arrays: Arrays) -> Pair:
    if arrays[0].dtype.kind != "c":
        return measure_l2(arrays)
    return math.sqrt(abs(complex(np.sum(np.square(arrays[0].astype(complex)))))), 0


def parts_l1(arrays: Arrays) -> Pair:
    return L1.measure([components(x) for x in arrays])


def wide_complex(x: Array, factor: Pair) -> Array:
    return scaled(x, factor).astype(complex) if x.dtype.kind == "c" else scaled(x, factor)


def naive_l1(arrays: Arrays) -> Any:
    return np.sum(abs(flat(arrays))) if arrays[0].dtype.kind != "c" else value_of(L1.measure(arrays))


def then(change: Callable[[Array, Array], Any]) -> Fn:
    """The right clip, its result changed afterwards."""

    def clip(x: Any, max_norm: Any) -> Any:
        return change(np.asarray(x), L2.clip(x, max_norm))

    return clip


SHAPES: list[tuple[str, Fn, str]] = [
    ("first 65536 elements only", Norm(first_65536).clip, "numpy#9852"),
    ("element 1024 dropped", Norm(boundary_1024).clip, "chunk boundary"),
    ("float32 stagnates above 4096", Norm(stagnating).clip, "D18, pytorch#151761"),
    ("memory order", Norm(apply=memory_order).clip, "scipy#20136"),
    ("negative strides read forwards", Norm(keep=forward_strides).clip, "numpy#11331"),
    ("input written and restored", Norm(apply=borrowed).clip, "read-only inputs"),
    ("broadcast axis counted once", Norm(distinct_memory).clip, "stride 0"),
    ("byte-swapped data misread", Norm(leaf=swapped).clip, "byte order"),
    ("byte order lost", Norm(leaf=to_native).clip, "byte order"),
    ("empty array raises", Norm(full_range_empty).clip, "torchrec#3891"),
    ("empty array loses its shape", then(lambda x, y: y if x.size else y.reshape(0)), "torchrec#3891"),
    ("0-d array becomes scalar", then(lambda x, y: y if x.ndim else y[()]), "pytorch PR#32159"),
    ("0-d array becomes 1-D", then(lambda x, y: y if x.ndim else y.reshape(1)), "Opacus D23"),
    ("integers truncated", truncating, "JAX-Privacy D38"),
    ("integers become float64", Norm(leaf=accepting("iu", lambda a: a.astype(float))).clip, "numpy#7413"),
    ("bool accepted", Norm(leaf=accepting("b", lambda a: a.astype(float))).clip, "numpy#7413"),
    ("objects accepted", Norm(leaf=accepting("O", lambda a: a.astype(float))).clip, "common mistake"),
    ("Python number accepted", Norm(leaf=any_number).clip, "common mistake"),
    ("complex loses its imaginary part", Norm(leaf=accepting("c", lambda a: a.real)).clip, "D12"),
    ("complex norm of the real part", Norm(real_part).clip, "D12"),
    ("complex square without conjugate", Norm(without_conjugate).clip, "MLX D12"),
    ("complex64 becomes complex128", Norm(apply=wide_complex).clip, "numpy PR#31927"),
    ("norm cast to float16", cast_norm, "optax D13"),
    ("x · C before dividing, float64", multiplied_first, "TensorFlow D6"),
    ("nan_to_num", nan_to_num, "optax D9"),
]

# --- nonfinite=, axis= ------------------------------------------------------------


def _bad(x: Any) -> bool:
    return not np.isfinite(components(leaf_of(x))).all()


def nonfinite_ignored(x: Any, max_norm: Any, *, nonfinite: str = "propagate") -> Any:  # noqa: ARG001
    return L2.clip(x, max_norm)


def raises_value_error(x: Any, max_norm: Any, *, nonfinite: str = "propagate") -> Any:
    limit_of(max_norm)
    if nonfinite == "raise" and _bad(x):
        raise ValueError("not finite")
    return np.zeros_like(x) if nonfinite == "zero" and _bad(x) else L2.clip(x, max_norm)


def zeroes_elements(x: Any, max_norm: Any, *, nonfinite: str = "propagate") -> Any:
    limit_of(max_norm)
    if nonfinite == "raise" and _bad(x):
        raise FloatingPointError("not finite")
    if nonfinite == "zero" and _bad(x):
        return L2.clip(np.where(np.isfinite(x), x, np.array(0, x.dtype)).astype(x.dtype), max_norm)
    return L2.clip(x, max_norm)


def naive_axis(x: Any, max_norm: Any, *, axis: Any = None) -> Any:
    """The safe norm is gone as soon as there is an axis."""
    recipe = L2 if axis is None else Norm(plain(naive64))
    limit = limit_of(max_norm)
    return grouped(lambda part: recipe.group([part], limit)[0], leaf_of(x), axis)


def poisons_all(x: Any, max_norm: Any, *, axis: Any = None) -> Any:
    """One NaN slice spoils the others."""
    limit, array = limit_of(max_norm), leaf_of(x)
    spoilt = None if limit == math.inf else poisoned([array])
    return spoilt[0] if spoilt else grouped(lambda part: L2.group([part], limit)[0], array, axis)


def hypot_norm(x: Any) -> Any:
    """np.hypot(inf, NaN) is inf."""
    parts = components(leaf_of(x))
    return np.array(np.inf) if np.isinf(parts).any() else L2.norm(x)


def norm_float32(x: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.asarray(L2.norm(x)).astype(np.float32)


def _bugs() -> list[Bug]:
    two, one, level = "clip_by_l2_norm", "clip_by_l1_norm", "robust"
    integers = accepting("iu", lambda a: (a * a).astype(float) ** 0.5)
    return [
        Bug("nonfinite ignored", two, level, nonfinite_ignored, "lightly-train#255"),
        Bug("nonfinite raises ValueError", two, level, raises_value_error, "pytorch#53843"),
        Bug("nonfinite zero by element", two, level, zeroes_elements, "optax zero_nans"),
        Bug("axis without the safe norm", two, level, naive_axis, "scipy#20136"),
        Bug("NaN crosses slices", two, level, poisons_all, "Opacus"),
        Bug("sum of |x| overflows", one, level, Norm(plain(naive_l1)).clip, "espnet#2399"),
        Bug("|re| + |im|", one, level, Norm(parts_l1).clip, "D12"),
        Bug("|re| + |im|, norm", "l1_norm", level, Norm(parts_l1).norm, "D12"),
        Bug("float64 squares, norm", "l2_norm", level, Norm(plain(naive64)).norm, "numpy#8775"),
        Bug("real part, norm", "l2_norm", level, Norm(real_part).norm, "D12"),
        Bug("integer squares wrap", "l2_norm", level, replace(L2, leaf=integers).norm, "numpy#7413"),
        Bug("empty norm raises", "l2_norm", level, Norm(full_range_empty).norm, "torchrec#3891"),
        Bug("inf beats NaN", "l2_norm", level, hypot_norm, "Megatron D25"),
        Bug("norm in float32", "l2_norm", level, norm_float32, "xtuner#1402"),
    ]


BUGS = [
    *(Bug(name, "clip_by_l2_norm", "robust", fn, thread) for name, fn, thread in SHAPES),
    *_bugs(),
]
