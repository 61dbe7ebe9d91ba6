"""Bounds as values of a leaf's own dtype, rounded so that they hold as given: upper down, lower up."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from clipcore_backends._formats import FORMATS

from clipcore._checks import check_library, dtype_name, is_nan, is_number
from clipcore._dispatch import constant, is_array
from clipcore._messages import shown
from clipcore._typing import Array, Bound

__all__ = ["check_array_bound", "check_bounds", "is_array_bound", "round_bounds"]


def is_array_bound(bound: Bound) -> bool:
    """Tell an array, 0-d ones included, from a number; a NumPy scalar is a number."""
    if bound is None or type(bound) in (int, float):
        return False
    return is_array(bound) and not isinstance(bound, np.generic)


def check_bounds(function: str, lower: Bound, upper: Bound) -> None:
    """Check the bounds as far as no leaf is needed.

    Raises
    ------
    TypeError
        If a bound is no number, no array, and not None.
    ValueError
        If a number is NaN, or the lower one above the upper one.
    """
    if type(lower) is type(upper) is float and lower <= upper:
        return
    for argument, bound in (("lower", lower), ("upper", upper)):
        if bound is None or is_array_bound(bound):
            continue
        if not is_number(bound):
            raise TypeError(
                f"{function}: {argument} is {shown(bound)} of type {type(bound).__name__}; "
                "give a real number, an array, or None for no bound"
            )
        if is_nan(bound):
            raise ValueError(f"{function}: {argument} is {shown(bound)}; give a number, or None for no bound")
    numbers = (
        lower is not None and upper is not None and not is_array_bound(lower) and not is_array_bound(upper)
    )
    if numbers and _cross(lower, upper):
        raise ValueError(
            f"{function}: lower is {shown(lower)} and upper is {shown(upper)}; give a lower bound "
            "that is not above the upper one"
        )


def check_array_bound(function: str, argument: str, bound: Array, name: str, leaf: Array) -> None:
    """Check an array bound against the leaf that it is for.

    Raises
    ------
    TypeError
        If it is of another library, or its dtype has no order or is floating for integers.
    ValueError
        If it does not broadcast to the leaf's shape.
    """
    check_library(function, argument, bound, [leaf])
    kind = dtype_name(bound.dtype)
    integer = kind.lstrip("u").startswith("int")
    long = isinstance(bound, np.ndarray) and bound.dtype.type is np.longdouble
    if not (integer or kind in FORMATS or long):
        raise TypeError(
            f"{function}: {argument} is an array of dtype {kind}; give one of integers or real numbers"
        )
    if not integer and dtype_name(leaf.dtype) not in FORMATS:
        raise TypeError(
            f"{function}: {argument} is an array of dtype {kind}, {name} one of {dtype_name(leaf.dtype)}; "
            "give integers a bound of integers, or a number"
        )
    shape, target = tuple(bound.shape), tuple(leaf.shape)
    fits = len(shape) <= len(target) and all(
        have in (1, want) for have, want in zip(reversed(shape), reversed(target), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{function}: {argument} has shape {shape}, which does not broadcast to the shape {target} "
            f"of {name}; give one that does"
        )


def round_bounds(
    function: str, lower: Bound, upper: Bound, dtype: Any
) -> tuple[float | int | None, float | int | None]:
    """Return the numbers among the bounds as numbers of a dtype, None where there is none.

    Raises
    ------
    ValueError
        If no value of the dtype is within the bounds.
    """
    name = dtype_name(dtype)
    low = None if lower is None or is_array_bound(lower) else _rounded(_round_lower, function, lower, name)
    high = None if upper is None or is_array_bound(upper) else _rounded(_round_upper, function, upper, name)
    if low is not None and high is not None and low > high:
        raise ValueError(
            f"{function}: lower is {shown(lower)} and upper is {shown(upper)}, and no {name} lies between; "
            "give bounds that are further apart"
        )
    return low, high


@constant
def _rounded(rounding: Callable[..., Any], function: str, bound: Bound, name: str) -> float | int | None:
    """Round a number; a training loop asks for the same one at every step."""
    plain = type(bound) in (int, float) and bound  # no zero: there are two, which are equal
    answer: float | int | None = (_known if plain else _asked)(rounding, function, bound, name)
    return answer


def _asked(rounding: Callable[..., Any], *arguments: Any) -> Any:
    return rounding(*arguments)


_known = lru_cache(maxsize=256, typed=True)(_asked)


def _round_upper(function: str, bound: Bound, name: str) -> float | int | None:
    value, low, high = _exact(bound), *_range(name)
    if value == math.inf:
        return None
    if value < low:
        raise ValueError(
            f"{function}: upper is {shown(bound)}, below every finite {name}; give a larger bound"
        )
    if name not in FORMATS:
        return None if value > high else math.floor(value)
    if value > high:
        return high
    return _floor(Fraction(value), name) if value else float(bound)


def _round_lower(function: str, bound: Bound, name: str) -> float | int | None:
    value, low, high = _exact(bound), *_range(name)
    if value == -math.inf:
        return None
    if value > high:
        raise ValueError(
            f"{function}: lower is {shown(bound)}, above every finite {name}; give a smaller bound"
        )
    if name not in FORMATS:
        return None if value < low else math.ceil(value)
    if value < low:
        return low
    return -_floor(-Fraction(value), name) if value else float(bound)


@constant
def _cross(lower: Bound, upper: Bound) -> bool:
    if type(lower) is float and type(upper) is float:
        return lower > upper
    return _exact(lower) > _exact(upper)


def _exact(bound: Bound) -> Fraction | float:
    """Return a number as a fraction, infinities as floats."""
    if bound in (math.inf, -math.inf):
        return float(bound)
    if isinstance(bound, np.floating):
        return Fraction(*bound.as_integer_ratio())
    return Fraction(bound.item() if isinstance(bound, np.generic) else bound)


def _range(name: str) -> tuple[float, float]:
    if name in FORMATS:
        return -FORMATS[name].largest, FORMATS[name].largest
    info = np.iinfo(name)
    return int(info.min), int(info.max)


def _floor(value: Fraction, name: str) -> float:
    """Round down to a finite number of a format."""
    facts = FORMATS[name]
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    step = Fraction(2) ** max(exponent - facts.precision + 1, facts.smallest)
    return float(math.floor(value / step) * step)
