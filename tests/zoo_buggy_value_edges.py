"""Value and weight clips that are good for ordinary inputs and wrong at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import BFLOAT16, FLOATS, Array, Bug, native
from zoo_values import VALUE, Bound, Value, bound_of, cut, number_of

ONE, ALL = "clip_by_value", "clip_weights"
Limits = Array | None


def no_check(_lower: Any, _upper: Any, _low: Limits, _high: Limits) -> None:
    """Nothing is checked."""


def is_whole(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu"


# --- elements: NaN, infinities, zeros ----------------------------------------------------------


def changed(where: Callable[[Array], Any], answer: Callable[[Array, Limits, Limits], Any]) -> Any:
    """The right cut, but some elements get an answer of their own."""

    def wrong(x: Array, low: Limits, high: Limits) -> Array:
        made = cut(x, low, high)
        if is_whole(x.dtype):
            return made
        with np.errstate(all="ignore"):
            places = np.asarray(where(x))
            made[places] = np.broadcast_to(np.asarray(answer(x, low, high)).astype(native(x.dtype)), x.shape)[
                places
            ]
        return made

    return wrong


def isnan(x: Array) -> Any:
    return x != x


def upper_of(x: Array, _low: Limits, high: Limits) -> Any:
    return x if high is None else high


def lower_of(x: Array, low: Limits, _high: Limits) -> Any:
    return x if low is None else low


def tiny(x: Array) -> Any:
    least = 2.0 ** {"float16": -14, "float64": -1022}.get(native(x.dtype).name, -126)
    return (abs(x.astype(float)) < least) & (x != 0)


def lower_wins(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, None, high)
    return cut(made, low, None)


def nan_bound_ignored(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    for bound in (low, high):
        if bound is not None and not is_whole(x.dtype):
            places = np.asarray(np.broadcast_to(bound != bound, x.shape))
            made[places] = x[places]
    return made


CUTS: list[tuple[str, Any, str]] = [
    ("NaN becomes the upper bound", changed(isnan, upper_of), "tensorflow#43433"),
    ("NaN becomes the lower bound", changed(isnan, lower_of), "pytorch#16817"),
    ("NaN becomes 0", changed(isnan, lambda x, _a, _b: np.zeros(())), "optax zero_nans"),
    ("−inf passes", changed(lambda x: x == -np.inf, lambda x, _a, _b: x), "tt-metal#53861"),
    ("inf passes", changed(lambda x: x == np.inf, lambda x, _a, _b: x), "tt-metal#53861"),
    (
        "inf becomes NaN",
        changed(lambda x: abs(x) == np.inf, lambda x, _a, _b: np.full((), np.nan)),
        "common mistake",
    ),
    ("subnormals become 0", changed(tiny, lambda x, _a, _b: np.zeros(())), "XLA"),
    ("crossing arrays: lower wins", lower_wins, "numpy#15124, TensorFlow"),
    ("NaN in an array bound ignored", nan_bound_ignored, "pytorch#76795, xarray#5205"),
]

# --- bounds: checks and casts ------------------------------------------------------------------


def bound_when(wrong: Callable[[Any, np.dtype[Any], int], bool], answer: Bound) -> Bound:
    return lambda b, dtype, side: (
        answer(b, dtype, side) if wrong(b, dtype, side) else bound_of(b, dtype, side)
    )


def scalar(bound: Any) -> bool:
    return isinstance(bound, (int, float, np.floating, np.integer)) and not isinstance(bound, bool)


def none(_bound: Any, _dtype: np.dtype[Any], _side: int) -> Limits:
    return None


def nearest(bound: Any, dtype: np.dtype[Any], _side: int) -> Limits:
    with np.errstate(all="ignore"):
        return np.asarray(bound).astype(native(dtype))


def wrapped(bound: Any, dtype: np.dtype[Any], _side: int) -> Limits:
    bits = 8 * dtype.itemsize
    kept = int(bound) % (1 << bits)
    top = int(np.iinfo(dtype).max)
    return np.array(kept - (1 << bits) if kept > top else kept, native(dtype))


def saturated(bound: Any, dtype: np.dtype[Any], _side: int) -> Limits:
    info = np.iinfo(dtype)
    return np.array(min(max(math.floor(bound), int(info.min)), int(info.max)), native(dtype))


def truncated(bound: Any, dtype: np.dtype[Any], side: int) -> Limits:
    return bound_of(int(bound), dtype, side)


def outward(bound: Any, dtype: np.dtype[Any], side: int) -> Limits:
    """An upper bound rounded up, a lower one down."""
    return bound_of(math.ceil(bound) if side > 0 else math.floor(bound), dtype, side)


def fractional(b: Any, dtype: np.dtype[Any], _side: int) -> bool:
    return is_whole(dtype) and isinstance(b, (float, np.floating)) and math.isfinite(b) and float(b) != int(b)


def foreign(b: Any, dtype: np.dtype[Any], side: int) -> bool:
    """An integer bound beyond an integer dtype."""
    if not (is_whole(dtype) and scalar(b) and math.isfinite(b)):
        return False
    info = np.iinfo(dtype)
    return not info.min <= (math.floor(b) if side > 0 else math.ceil(b)) <= info.max


def harmful(b: Any, dtype: np.dtype[Any], side: int) -> bool:
    return foreign(b, dtype, side) and (b < 0 if side > 0 else b > 0)


def beyond(b: Any, dtype: np.dtype[Any], _side: int) -> bool:
    if is_whole(dtype) or not scalar(b) or not math.isfinite(b):
        return False
    with np.errstate(all="ignore"):
        return bool(np.isinf(np.array(float(b)).astype(native(dtype)).astype(float)))


def harmless(b: Any, dtype: np.dtype[Any], side: int) -> bool:
    return beyond(b, dtype, side) and b * side > 0


def wrong_side(b: Any, dtype: np.dtype[Any], side: int) -> bool:
    return scalar(b) and (b == -side * math.inf or (beyond(b, dtype, side) and b * side < 0))


def as_infinity(bound: Any, dtype: np.dtype[Any], _side: int) -> Limits:
    if is_whole(dtype):
        return np.array(np.iinfo(dtype).min if bound < 0 else np.iinfo(dtype).max, native(dtype))
    return np.array(math.copysign(math.inf, bound)).astype(native(dtype))


def float_array(b: Any, dtype: np.dtype[Any], _side: int) -> bool:
    return is_whole(dtype) and isinstance(b, np.ndarray) and native(b.dtype) in FLOATS


def cast_array(bound: Any, dtype: np.dtype[Any], side: int) -> Limits:
    return bound_of(np.asarray(bound).astype(np.int64), dtype, side)


def infinite_own_side(b: Any, _dtype: np.dtype[Any], side: int) -> bool:
    return scalar(b) and b == side * math.inf


def largest(_bound: Any, dtype: np.dtype[Any], side: int) -> Limits:
    return None if is_whole(dtype) else bound_of(side * 2 ** (1 << 12), dtype, side)


def crossed_only(lower: Any, upper: Any, _low: Limits, _high: Limits) -> None:
    """float32 in [0.1, 0.1] passes: only the bounds as given are compared."""
    if scalar(lower) and scalar(upper) and number_of(lower) > number_of(upper):
        raise ValueError("lower is greater than upper")


def arrays_too(lower: Any, upper: Any, low: Limits, high: Limits) -> None:
    """Crossing arrays are refused."""
    VALUE.check(lower, upper, low, high)
    if low is not None and high is not None and np.any(low > high):
        raise ValueError("lower is greater than upper")


def is_nan(b: Any, _dtype: np.dtype[Any], _side: int) -> bool:
    return scalar(b) and b != b


def is_bool(b: Any, _dtype: np.dtype[Any], _side: int) -> bool:
    return isinstance(b, np.ndarray) and b.dtype.kind == "b"


def harmless_array(b: Any, dtype: np.dtype[Any], _side: int) -> bool:
    return isinstance(b, np.ndarray) and is_whole(b.dtype) and is_whole(dtype) and b.dtype != dtype


BOUNDS: list[tuple[str, Value, str]] = [
    ("crossing scalars", Value(check=no_check), "numpy#18782"),
    ("no value between the bounds", Value(check=crossed_only), "contract row"),
    ("crossing arrays refused", Value(check=arrays_too), "numpy#15693"),
    ("NaN bound as none", Value(bound_when(is_nan, none), check=no_check), "pandas#40420"),
    ("uint8 bound wraps", Value(bound_when(foreign, wrapped), check=no_check), "numpy#26759"),
    ("uint8 upper −1 becomes 0", Value(bound_when(harmful, saturated), check=no_check), "array-api PR#814"),
    ("bounds 1.5 truncated", Value(bound_when(fractional, truncated)), "numpy#24976"),
    ("bounds 1.5 rounded outwards", Value(bound_when(fractional, outward)), "common mistake"),
    ("float arrays bound integers", Value(bound_when(float_array, cast_array)), "array-api#925"),
    ("bound beyond float16 as none", Value(bound_when(harmless, none)), "contract row"),
    ("bound beyond float16 as inf", Value(bound_when(harmless, as_infinity)), "tensorflow#109146"),
    (
        "bound beyond float16, wrong side",
        Value(bound_when(wrong_side, as_infinity), check=no_check),
        "contract row",
    ),
    ("infinite bound cuts inf", Value(bound_when(infinite_own_side, largest)), "contract row"),
    ("bool bounds", Value(bound_when(is_bool, nearest)), "common mistake"),
    ("integer array bounds wrap", Value(bound_when(harmless_array, nearest)), "numpy#26759"),
]

# --- level exact: an ulp or a sign -------------------------------------------------------------


def zero_unsigned(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    return np.asarray(made + np.zeros((), native(x.dtype))).astype(x.dtype)


def minimum_maximum(x: Array, low: Limits, high: Limits) -> Array:
    """A bound replaces an equal element: −0.0 in [0, 1] becomes 0.0."""
    made = np.array(x)
    if low is not None:
        made = np.where(made > low, made, np.where(isnan(made), made, low)).astype(x.dtype)
    return cut(np.asarray(made), None, high) if low is None or not np.any(isnan(low)) else cut(x, low, high)


def ordinary(b: Any, dtype: np.dtype[Any], side: int) -> bool:
    return scalar(b) and math.isfinite(b) and not is_whole(dtype) and not beyond(b, dtype, side)


def ordinary_array(b: Any, dtype: np.dtype[Any], _side: int) -> bool:
    if not isinstance(b, np.ndarray) or is_whole(dtype) or native(b.dtype) not in FLOATS:
        return False
    with np.errstate(all="ignore"):
        return bool(
            np.array_equal(np.isinf(b.astype(float)), np.isinf(b.astype(native(dtype)).astype(float)))
        )


def of_type(kind: np.dtype[Any]) -> Callable[[Any, np.dtype[Any], int], bool]:
    return lambda b, dtype, side: native(dtype) == kind and ordinary(b, dtype, side)


def only_lower(b: Any, dtype: np.dtype[Any], side: int) -> bool:
    return side < 0 and ordinary(b, dtype, side)


def careful(lower: Any, upper: Any, low: Limits, high: Limits) -> None:
    """The checks with the right bounds, whatever the cut uses."""
    sound = bound_of(lower, low.dtype, -1) if low is not None else None
    VALUE.check(lower, upper, sound, bound_of(upper, high.dtype, 1) if high is not None else None)


EXACT: list[tuple[str, str, Value, str]] = [
    ("−0.0 lost", ONE, Value(cut=zero_unsigned), "numpy PR#26280"),
    ("−0.0 at a bound of 0", ONE, Value(cut=minimum_maximum), "numpy PR#26280"),
    ("bounds rounded to nearest", ONE, Value(bound_when(ordinary, nearest), check=careful), "numpy#24976"),
    (
        "lower bound rounded to nearest",
        ONE,
        Value(bound_when(only_lower, nearest), check=careful),
        "common mistake",
    ),
    (
        "array bounds rounded to nearest",
        ONE,
        Value(bound_when(ordinary_array, nearest), check=careful),
        "common mistake",
    ),
    (
        "bfloat16 bounds rounded to nearest",
        ONE,
        Value(bound_when(of_type(BFLOAT16), nearest), check=careful),
        "jax#11014",
    ),
    ("−0.0 lost", ALL, Value(cut=zero_unsigned), "numpy PR#26280"),
    ("bounds rounded to nearest", ALL, Value(bound_when(ordinary, nearest), check=careful), "numpy#24976"),
]

BUGS = [
    *(Bug(name, ONE, "robust", Value(cut=fn).clip, thread) for name, fn, thread in CUTS),
    *(Bug(name, ONE, "robust", value.clip, thread) for name, value, thread in BOUNDS),
    *(Bug(n, op, "exact", v.clip if op == ONE else v.tree, t) for n, op, v, t in EXACT),
]
