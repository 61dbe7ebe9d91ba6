"""Implementations that each break one law: what people write, and what goes wrong in careful code.

Every mutant is listed with the law that must catch it, why, and the dtype to try it with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import reference
from reference import COMPLEX, FLOATING, REFERENCE

from clipcore.verify.form import leaves, rebuild
from clipcore.verify.formats import Array, cast_bound, from_patterns, magnitudes, patterns

Clip = Callable[..., Any]
Mutant = tuple[str, str, np.dtype[Any], Clip]
F16, BF16, F32, F64 = FLOATING
C64, C128 = COMPLEX
I32 = np.dtype(np.int32)

EXACT, EXACT_L1 = REFERENCE["clip_by_l2_norm"], REFERENCE["clip_by_l1_norm"]
EXACT_TREE, MEASURE, CUT = (REFERENCE[name] for name in ("clip_by_global_norm", "l2_norm", "clip_by_value"))


def quiet(clip: Clip) -> Clip:
    """The same without NumPy's warnings, which would end the call."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        with np.errstate(all="ignore"):
            return clip(*arguments, **keywords)

    return call


def after(change: Callable[[Array, Array, float], Any]) -> Clip:
    """The exact L2 clip, its result changed by `change(input, result, limit)`."""

    def clip(x: Array, max_norm: float, *, axis: Any = None) -> Any:
        return change(x, EXACT(x, max_norm, axis=axis), max_norm)

    return quiet(clip)


def after_clipping(change: Callable[[Array], Array]) -> Clip:
    """The exact L2 clip, changed only where it clips."""
    return after(lambda x, y, _: y if y.tobytes() == np.ascontiguousarray(x).tobytes() else change(y))


def by_norm(factor: Callable[[Any, float], Any]) -> Clip:
    """The usual formula x · factor(‖x‖, C), computed by NumPy in float64 or the dtype of x."""

    def clip(x: Array, max_norm: float, *, axis: Any = None) -> Array:
        wide = x if x.dtype.kind == "c" or x.dtype.itemsize > 4 else x.astype(np.float64)
        norm = np.sqrt((np.abs(wide) ** 2).sum(axis=axis, keepdims=True))
        return np.asarray(wide * factor(norm, max_norm)).astype(x.dtype).reshape(x.shape)

    return quiet(clip)


def global_after(change: Callable[[Any, Any], tuple[Any, Any]]) -> Clip:
    """The exact global clip, with tree and norm changed."""

    def clip(tree: Any, max_norm: float, *, ord: float = 2) -> tuple[Any, Any]:  # noqa: A002
        return change(*EXACT_TREE(tree, max_norm, ord=ord))

    return quiet(clip)


def moved(y: Array, steps: int) -> Array:
    """Components far from zero moved by units in the last place, away from zero if `steps` is positive."""
    pattern = patterns(y)
    far = magnitudes(y) >= 1 << (pattern.dtype.itemsize * 8 - 5)
    step = np.array(steps).astype(pattern.dtype)  # modulo 2**bits
    return from_patterns(np.where(far, pattern + step, pattern), y.dtype).reshape(y.shape)


def halved_first(y: Array) -> Array:
    y = np.atleast_1d(y).copy()
    y[..., :1] = y[..., :1] / 2
    return y.reshape(np.shape(y))


def flipped_largest(y: Array) -> Array:
    y = y.copy()
    if y.size:
        index = np.unravel_index(np.argmax(np.abs(y)), y.shape)
        y[index] = -y[index]
    return y


def written(x: Array, y: Array, _: float) -> Array:
    if x.flags.writeable and x.size:
        x.reshape(-1)[...] = 0  # reaches x only where it is contiguous
    return y


def counting() -> Clip:
    """A clip that remembers how often it was called, and clips every second time a little further."""
    calls: Iterator[int] = iter(range(10**9))
    return after(lambda _x, y, _c: moved(y, -2) if next(calls) % 2 and y.dtype == F32 else y)


def multiplied_first(x: Array, max_norm: float, *, axis: Any = None) -> Array:
    norm = np.asarray(MEASURE(x, axis=axis), np.float64)
    if axis is not None:
        norm = np.expand_dims(norm.reshape(np.zeros(x.shape, bool).any(axis=axis).shape), axis)
    return np.asarray(np.where(norm > max_norm, x * max_norm / norm, x)).astype(x.dtype)


def leaf_by_leaf(tree: Any, max_norm: float, *, ord: float = 2) -> tuple[Any, Any]:  # noqa: A002
    clipped = (reference.clip_group([x], max_norm, ord)[0] for x in leaves(tree))
    return rebuild(tree, clipped), reference.norm_of(leaves(tree), ord)


def order_ignored(tree: Any, max_norm: float, *, ord: float = 2) -> tuple[Any, Any]:  # noqa: A002
    return EXACT_TREE(tree, max_norm, ord=1)[0], reference.norm_of(leaves(tree), ord)


def without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: without_none(child) for key, child in tree.items()}
    return [child for child in tree if child is not None] if isinstance(tree, list) else tree


def numpy_norm(x: Array, *, axis: Any = None) -> Array:
    return np.asarray(np.sqrt(np.sum(np.abs(x) ** 2, axis=axis)), np.float64)


def over_all_axes(x: Array, *, axis: Any = None) -> Array:
    shape = np.zeros(x.shape, bool).any(axis=axis).shape
    return np.full(shape, reference.norm_of([np.asarray(x)], 2))


def nearest(x: Array, lower: Any, upper: Any) -> Any:
    low, high = (None if bound is None else np.asarray(bound).astype(x.dtype) for bound in (lower, upper))
    return CUT(x, low, high)


def lower_last(x: Array, lower: Any, upper: Any) -> Any:
    return CUT(CUT(x, None, upper), lower, None)


def shrunk(x: Array, lower: Any, upper: Any) -> Any:
    y = CUT(x, lower, upper)
    return np.asarray(np.where((y != x) & (y > 1), y * 0.99, y))


def one_below(x: Array, lower: Any, upper: Any) -> Any:
    if not isinstance(upper, float) or math.isinf(upper):
        return CUT(x, lower, upper)
    return CUT(x, lower, np.nextafter(cast_bound(upper, x.dtype, "upper"), x.dtype.type(-np.inf)))


def half_way(x: Array, lower: Any, upper: Any) -> Any:
    return CUT(x, lower, upper) if upper != 1 else np.asarray(np.where(x > 1, (x + 1) / 2, x))


NORM_MUTANTS: list[Mutant] = [
    ("bound", "the factor rounded to nearest", F64, by_norm(lambda n, c: np.minimum(1, c / n))),
    ("bound", "the product rounded to nearest", F32, by_norm(lambda n, c: np.minimum(1, c / n))),
    ("bound", "a result 2 ulp up", F32, after_clipping(lambda y: moved(y, 2))),
    (
        "bound",
        "the limit rounded up to float16",
        F16,
        after(lambda x, _, c: EXACT(x, float(np.float16(c * 1.001)))),
    ),
    ("bound", "no clipping", BF16, after(lambda x, _y, _c: np.array(x))),
    ("bound", "the real parts' norm", C64, after(lambda x, _y, c: x * min(1, c / np.linalg.norm(x.real)))),
    ("identity", "10^-6 in the denominator", F64, by_norm(lambda n, c: np.minimum(1, c / (n + 1e-6)))),
    ("identity", "clipping at C(1 − 2^-50)", F64, after(lambda x, _, c: EXACT(x, c * (1 - 2.0**-50)))),
    ("identity", "zeros lose their sign", F32, after(lambda _x, y, _c: y + 0)),
    (
        "identity",
        "subnormals flushed",
        F32,
        after(lambda _x, y, _c: np.where(np.abs(y) < 2.0**-126, y * 0, y)),
    ),
    ("identity", "a NaN replaced though C is infinite", F64, after(lambda _x, y, _c: np.nan_to_num(y))),
    ("identity", "always x·C/‖x‖", F64, by_norm(lambda n, c: np.where(n > 0, c / n, 1))),
    ("tightness", "10^-6 in the denominator", F32, by_norm(lambda n, c: np.minimum(1, c / (n + 1e-6)))),
    ("tightness", "a factor of 1 − 2^-9", F16, after_clipping(lambda y: y * np.float16(1 - 2**-9))),
    ("tightness", "5 ulp down", F64, after_clipping(lambda y: moved(y, -5))),
    ("tightness", "all zero", C128, after_clipping(lambda y: y * 0)),
    ("tightness", "L1 instead of L2", F32, lambda x, c, *, axis=None: EXACT_L1(x, c, axis=axis)),
    ("direction", "one element halved", F64, after_clipping(halved_first)),
    ("direction", "cut by value", F32, after(lambda x, _y, c: np.clip(x, -c, c).astype(x.dtype))),
    ("direction", "the largest changes its sign", F16, after(lambda _x, y, _c: flipped_largest(y))),
    ("direction", "zeros lose their sign", F64, after_clipping(lambda y: y + 0)),
    ("direction", "complex times complex", C64, after_clipping(lambda y: y * np.complex64(1))),
    ("direction", "5 ulp down", F32, after_clipping(lambda y: moved(y, -5))),
    ("direction", "conjugated", C128, after_clipping(np.conj)),
    ("direction", "reversed", F32, after_clipping(lambda y: np.flip(y).copy())),
    ("idempotence", "always one ulp less", F32, after(lambda _x, y, _c: moved(y, -1))),
    ("idempotence", "depends on what came before", F32, counting()),
    ("idempotence", "the factor rounded to nearest", F64, by_norm(lambda n, c: np.minimum(1, c / n))),
    ("scale", "10^-6 in the denominator", F32, by_norm(lambda n, c: np.minimum(1, c / (n + 1e-6)))),
    (
        "scale",
        "another rounding for small limits",
        F32,
        after(lambda _x, y, c: moved(y, -2) if c < 0.9 else y),
    ),
    (
        "scale",
        "another rounding for small limits",
        F64,
        after(lambda _x, y, c: moved(y, -2) if c < 0.9 else y),
    ),
    ("range", "x·C before the division", F64, quiet(multiplied_first)),
    (
        "edges",
        "NaN and inf left in place",
        F32,
        after(lambda x, y, _c: y if np.all(np.isfinite(x)) else np.array(x)),
    ),
    (
        "edges",
        "zero without being asked",
        F64,
        after(lambda _x, y, c: y if c == math.inf else np.nan_to_num(y)),
    ),
    ("form", "a wider dtype", F16, after(lambda _x, y, _c: y.astype(np.float32))),
    ("form", "native byte order", F64, after(lambda _x, y, _c: y.astype(y.dtype.newbyteorder("=")))),
    ("form", "a scalar for a 0-d array", F32, after(lambda _x, y, _c: y[()])),
    ("form", "a list", F32, after(lambda _x, y, _c: y.tolist())),
    ("form", "flat", F32, after(lambda _x, y, _c: y.reshape(-1))),
    ("form", "the input itself", F32, after(lambda x, y, _c: np.asarray(x) if np.array_equal(x, y) else y)),
    ("form", "the input is written", F64, after(written)),
    ("call", "an empty array raises", F32, after(lambda x, y, _c: (np.max(np.abs(x)), y)[1])),
]

TREE_MUTANTS: list[Mutant] = [
    (
        "norm",
        "the norm after clipping",
        F32,
        global_after(lambda y, _n: (y, reference.norm_of(leaves(y), 2))),
    ),
    ("norm", "3 ulp off", F64, global_after(lambda y, n: (y, np.asarray(n * (1 + 3 * 2.0**-52))))),
    ("norm", "2^-43 off", F32, global_after(lambda y, n: (y, np.asarray(n * (1 + 2.0**-43))))),
    (
        "norm",
        "inf for NaN",
        F32,
        global_after(lambda y, n: (y, np.asarray(np.nan_to_num(n, nan=np.inf, posinf=np.inf)))),
    ),
    (
        "norm",
        "the largest double for inf",
        F64,
        global_after(lambda y, n: (y, np.asarray(np.minimum(n, 1.7e308)))),
    ),
    ("form", "a float for a norm", F32, global_after(lambda y, n: (y, float(n)))),
    ("form", "a float32 norm", F32, global_after(lambda y, n: (y, n.astype(np.float32)))),
    (
        "form",
        "a tuple for a list",
        F32,
        global_after(lambda y, n: (tuple(y) if isinstance(y, list) else y, n)),
    ),
    (
        "form",
        "sorted keys",
        F32,
        global_after(lambda y, n: (dict(sorted(y.items())) if isinstance(y, dict) else y, n)),
    ),
    ("form", "None dropped", F32, global_after(lambda y, n: (without_none(y), n))),
    ("bound", "leaf by leaf", F32, leaf_by_leaf),
    ("tightness", "L1 for every order", F64, order_ignored),
]

NORM_FUNCTION_MUTANTS: list[Mutant] = [
    ("norm", "NumPy's, in float64", F64, quiet(numpy_norm)),
    ("norm", "accumulated in float32", F32, quiet(numpy_norm)),
    ("norm", "over all axes", F32, over_all_axes),
    ("form", "a NumPy scalar", F64, lambda x, *, axis=None: MEASURE(x, axis=axis)[()]),
    (
        "call",
        "one axis only",
        F64,
        lambda x, *, axis=None: MEASURE(x, axis=None if axis is None else axis + 0),
    ),
]

VALUE_MUTANTS: list[Mutant] = [
    ("bound", "bounds rounded to nearest", F16, quiet(nearest)),
    ("bound", "lower bound ignored", F64, lambda x, _low, high: CUT(x, None, high)),
    ("bound", "upper bound ignored", np.dtype(np.int32), lambda x, low, _high: CUT(x, low, None)),
    ("bound", "the lower of crossing bounds wins", F32, lower_last),
    ("identity", "−0.0 becomes 0.0", F32, quiet(lambda x, low, high: np.asarray(CUT(x, low, high) + 0))),
    ("tightness", "cut to 99 % of the bound", F64, shrunk),
    ("tightness", "upper bound rounded one further", F16, one_below),
    (
        "range",
        "inf becomes NaN",
        F32,
        lambda x, low, high: np.where(np.isinf(x), np.nan, CUT(x, low, high)).astype(x.dtype),
    ),
    (
        "edges",
        "NaN becomes the bound",
        F32,
        lambda x, low, high: CUT(np.nan_to_num(x, nan=1e9), low, high),
    ),
    ("idempotence", "half way to the bound", F64, quiet(half_way)),
    (
        "form",
        "integers become floats",
        np.dtype(np.int32),
        lambda x, low, high: CUT(x, low, high).astype(np.float64),
    ),
    ("call", "None refused", F32, lambda x, low, high: CUT(x, low + 0, high)),
]

MUTANTS = {
    "clip_by_l2_norm": NORM_MUTANTS,
    "clip_by_global_norm": TREE_MUTANTS,
    "l2_norm": NORM_FUNCTION_MUTANTS,
    "clip_by_value": VALUE_MUTANTS,
}
