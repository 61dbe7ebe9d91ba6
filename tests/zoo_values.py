"""Value and weight clips of the zoo, good for level exact, in replaceable parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from zoo_bases import FLOATS, Array, flatten, kept_tree, native, rebuild

Bound = Callable[[Any, np.dtype[Any], int], Array | None]  # side: +1 upper, -1 lower


def top(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def directed(value: Any, dtype: np.dtype[Any], side: int) -> Array:
    """A real number as the dtype: an upper bound rounded down, a lower one up."""
    try:
        wide = float(value)
    except OverflowError:
        wide = math.inf if value > 0 else -math.inf
    with np.errstate(all="ignore"):
        near = np.array(wide).astype(native(dtype))
        while (float(near) - value if math.isinf(float(near)) else _beyond(float(near), value)) * side > 0:
            near = np.asarray(np.nextafter(near, np.array(-side * np.inf, near.dtype)))
    return near


def _beyond(near: float, value: Any) -> int:
    return int(near > value) - int(near < value)


def number_of(bound: Any) -> Any:
    """A scalar bound as a Python int or float."""
    if isinstance(bound, (bool, np.bool_, str, bytes, complex, np.complexfloating)):
        raise TypeError(f"a bound must be a real number, got {bound!r}")
    if isinstance(bound, (int, np.integer)):
        return int(bound)
    number = float(bound)
    if math.isnan(number):
        raise ValueError("a bound is NaN")
    return number


def scalar_bound(bound: Any, dtype: np.dtype[Any], side: int) -> Array | None:
    number = number_of(bound)
    if number == side * math.inf:
        return None
    if number == -side * math.inf:
        raise ValueError("an infinite bound leaves no value")
    if native(dtype) in FLOATS:
        limit = top(native(dtype))
        if number * side > limit:
            return np.array(side * limit).astype(native(dtype))
        if number * side < -limit:
            raise ValueError("a bound leaves no finite value")
        return directed(number, dtype, side)
    whole = math.floor(number) if side > 0 else math.ceil(number)
    info = np.iinfo(dtype)
    if (whole > info.max) if side > 0 else (whole < info.min):
        return None
    if not info.min <= whole <= info.max:
        raise ValueError("a bound leaves no value")
    return np.array(whole, native(dtype))


def array_bound(bound: Array, dtype: np.dtype[Any], side: int) -> Array:
    whole = bound.dtype.kind in "iu"
    if not whole and native(bound.dtype) not in FLOATS:
        raise TypeError(f"a bound of dtype {bound.dtype}")
    if native(dtype) not in FLOATS:
        if not whole:
            raise TypeError("integer arrays need integer bounds")
        info = np.iinfo(dtype)
        kept = [min(max(int(v), int(info.min)), int(info.max)) for v in bound.ravel().tolist()]
        return np.array(kept, native(dtype)).reshape(bound.shape)
    if whole:
        made = [directed(v, dtype, side) for v in bound.ravel().tolist()]
        return np.array(made, native(dtype)).reshape(bound.shape)
    wide = bound.astype(np.float64)
    with np.errstate(all="ignore"):
        near = wide.astype(native(dtype))
        wrong = (near.astype(np.float64) - wide) * side > 0
        wrong |= np.isinf(near.astype(np.float64)) & np.isfinite(wide) & (near.astype(np.float64) * side > 0)
        return np.where(wrong, np.nextafter(near, np.array(-side * np.inf, near.dtype)), near)


def bound_of(bound: Any, dtype: np.dtype[Any], side: int) -> Array | None:
    if bound is None:
        return None
    if isinstance(bound, np.ndarray):
        return array_bound(bound, dtype, side)
    return scalar_bound(bound, dtype, side)


def checked(lower: Any, upper: Any, low: Array | None, high: Array | None) -> None:
    if isinstance(lower, np.ndarray) or isinstance(upper, np.ndarray) or lower is None or upper is None:
        return
    if number_of(lower) > number_of(upper):
        raise ValueError("lower is greater than upper")
    if low is not None and high is not None and low > high:
        raise ValueError("no value lies within the bounds")


def cut(x: Array, low: Array | None, high: Array | None) -> Array:
    """min(max(x, low), high); what is inside is copied, NaN stays, a NaN bound gives NaN."""
    result = np.array(x)
    with np.errstate(all="ignore"):
        for bound, beyond in ((low, np.less), (high, np.greater)):
            if bound is not None:
                spread = np.broadcast_to(bound, x.shape)
                place = np.asarray(beyond(result, spread) | ((spread != spread) & (result == result)))
                result[place] = spread[place]
    return result


def value_leaf(x: Any) -> Array:
    if not isinstance(x, (np.ndarray, np.generic)):
        raise TypeError(f"expected an array, got {type(x).__name__}")
    array = np.asarray(x)
    if native(array.dtype) not in FLOATS and array.dtype.kind not in "iu":
        raise TypeError(f"arrays of {array.dtype} have no order to clip in")
    return array


@dataclass(frozen=True)
class Value:
    """A clip of values; every part can be replaced."""

    bound: Bound = bound_of
    check: Callable[[Any, Any, Array | None, Array | None], None] = checked
    cut: Callable[[Array, Array | None, Array | None], Any] = cut
    leaf: Callable[[Any], Array] = value_leaf

    def clip(self, x: Any, lower: Any, upper: Any) -> Any:
        array = self.leaf(x)
        low, high = self.bound(lower, array.dtype, -1), self.bound(upper, array.dtype, 1)
        self.check(lower, upper, low, high)
        return self.cut(array, low, high)

    def tree(self, tree: Any, lower: Any, upper: Any) -> Any:
        kept = kept_tree(tree)
        return rebuild(kept, iter([self.clip(x, lower, upper) for _, x in flatten(kept)]))

    def tree_where(self, tree: Any, lower: Any, upper: Any, *, where: Any = None) -> Any:
        kept = kept_tree(tree)
        leaves = [(path, self.leaf(x)) for path, x in flatten(kept)]
        made = [
            self.clip(x, lower, upper) if where is None or where(path, x) else np.array(x)
            for path, x in leaves
        ]
        return rebuild(kept, iter(made))


VALUE = Value()
