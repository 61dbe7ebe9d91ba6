"""The checks of arguments and their sentences: function, argument, value received, what to do."""

import math
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from numbers import Real
from typing import Any, get_args

import numpy as np
from clipcore_backends._formats import COMPONENT, FORMATS

from clipcore._dispatch import is_array, library_of
from clipcore._messages import shown
from clipcore._trees import Flat
from clipcore._typing import Array, Axis, Nonfinite

__all__ = [
    "check_axis",
    "check_choice",
    "check_floating",
    "check_limit",
    "check_nonfinite",
    "dtype_name",
    "is_nan",
    "is_number",
    "offenders",
]

# What a library has but cannot compare.
_UNORDERED = {"torch": ("uint16", "uint32", "uint64")}

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_POLICIES = get_args(Nonfinite)
_REALS = frozenset([*_INTEGERS, *FORMATS])


def dtype_name(dtype: Any) -> str:
    """Return the plain name of any library's dtype, as in ``"float32"``."""
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else _last_word(str(dtype))


@cache
def _numpy_name(dtype: np.dtype[Any]) -> str:
    return dtype.name


def _last_word(text: str) -> str:
    return text.rstrip("'>").rpartition(".")[2].rpartition("'")[2]


def is_number(value: object) -> bool:
    """Tell a real number, of Python or NumPy, from anything else; a bool is none."""
    if isinstance(value, np.generic):
        return value.dtype.kind in "iuf" or value.dtype.name == "bfloat16"
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)


def is_nan(value: Any) -> bool:
    """Tell whether a real number is NaN."""
    return value.is_nan() if isinstance(value, Decimal) else bool(value != value)


def check_floating(function: str, flat: Flat) -> None:
    """Raise TypeError unless all leaves have a norm: dense floating-point and complex ones."""
    if flat.library == "sparse":
        raise TypeError(
            f"{function}: {flat.name(0)} is a sparse array, which has no norms here; give x.data, which has "
            "the same norm where fill_value is 0, or x.todense()"
        )
    for dtype in dict.fromkeys([leaf.dtype for leaf in flat.leaves]):
        if dtype_name(dtype) not in COMPONENT:
            index = [leaf.dtype for leaf in flat.leaves].index(dtype)
            raise TypeError(
                f"{function}: {flat.name(index)} has dtype {dtype_name(dtype)}; norms are taken of "
                f"{', '.join(COMPONENT)}: convert it first"
            )


def check_real(function: str, name: Callable[[], str], leaf: Array) -> None:
    """Raise TypeError unless a leaf's values have an order: integers and real floating-point numbers."""
    dtype, library = dtype_name(leaf.dtype), library_of(leaf)
    if dtype not in _REALS:
        raise TypeError(
            f"{function}: {name()} has dtype {dtype}; "
            "bounds are for integers, float16, bfloat16, float32 and float64: convert it first"
        )
    if dtype in _UNORDERED.get(library, ()):
        raise TypeError(
            f"{function}: {name()} has dtype {dtype}, which {library} cannot compare; "
            "convert it to int64 first"
        )


def check_choice(function: str, argument: str, value: object, choices: tuple[Any, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, np.number)) or value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{function}: {argument} is {shown(value)}; choose one of {listed}")


def check_nonfinite(function: str, value: object) -> None:
    """Raise ValueError unless `value` names a policy for NaN and infinity."""
    check_choice(function, "nonfinite", value, _POLICIES)


def as_number(function: str, argument: str, value: Any) -> float | None:
    """Return a Python or NumPy number as float, None for a 0-d array of another library.

    Raises
    ------
    TypeError
        For what is not one real number.
    ValueError
        For arrays with dimensions, and numbers that no float can hold.
    """
    given = value

    def told(what: str) -> str:
        return f"{function}: {argument} is {shown(given)}{what}"

    if is_array(value) and not isinstance(value, np.generic):
        if value.ndim:
            raise ValueError(told(f", an array of shape {tuple(value.shape)}; give one number"))
        name = dtype_name(value.dtype)
        if library_of(value) != "numpy":
            if name not in (*_INTEGERS, *FORMATS):
                raise TypeError(told(f" of dtype {name}; give a real number"))
            return None
        value = value[()]
    if not is_number(value):
        raise TypeError(told(f" of type {type(value).__name__}; give a real number"))
    if is_nan(value):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number) and number != value:
        raise ValueError(told(", which no float can hold; give a number within 1.8e308 or an infinity"))
    return number


def check_limit(function: str, max_norm: Any, leaves: list[Array]) -> float | Array:
    """Return the limit as float, or as the 0-d array of the leaves' library that it is."""
    if type(max_norm) is float and max_norm > 0:
        return max_norm
    if max_norm is None:
        raise TypeError(
            f"{function}: max_norm is None; give a number, or leave the call out to switch clipping off"
        )
    limit = as_number(function, "max_norm", max_norm)
    if limit is None:
        check_library(function, "max_norm", max_norm, leaves)
        return max_norm
    if math.isnan(limit) or limit < 0:
        raise ValueError(f"{function}: max_norm is {shown(max_norm)}; give a number that is zero or positive")
    return abs(limit)


def check_library(function: str, argument: str, value: Array, leaves: list[Array]) -> None:
    """Raise TypeError unless an array argument is of the leaves' library."""
    if leaves and library_of(value) != library_of(leaves[0]):
        raise TypeError(
            f"{function}: {argument} is an array of {library_of(value)} and the leaves are of "
            f"{library_of(leaves[0])}; convert one of them"
        )


def check_axis(function: str, axis: Axis, ndim: int) -> tuple[int, ...] | None:
    """Return the axes as non-negative numbers, None where all are reduced."""
    if axis is None:
        return None
    entries = axis if isinstance(axis, tuple) else (axis,)
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)):
            raise TypeError(f"{function}: axis is {shown(axis)}; give an int, a tuple of ints, or None")
        if not -ndim <= entry < ndim:
            raise ValueError(f"{function}: axis is {shown(axis)}, but x.ndim is {ndim}; give axes that x has")
    axes = tuple(int(entry) % ndim for entry in entries)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{function}: axis is {shown(axis)}; name each axis once")
    return axes


def offenders(function: str, flat: Flat, finite: list[bool], norm: object = None) -> str:
    """Return the sentence that names the leaves with NaN or infinity in them."""
    names = [flat.name(index) for index, good in enumerate(finite) if not good]
    if norm is not None:
        names = [f"norm, which is {shown(norm)}"]
    where = ", ".join(names) or "a leaf of another rank"
    return f"{function}: NaN or infinity in {where}; mend it, or choose nonfinite='propagate' or 'zero'"
