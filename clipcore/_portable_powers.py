"""Powers of two in pure array API, and the precision that norms are summed in."""

import math
from typing import Any, NamedTuple

from clipcore_backends._formats import FORMATS

from clipcore._checks import dtype_name
from clipcore._dispatch import device_of, namespace_of
from clipcore._typing import Array

__all__ = ["Precision", "accumulator", "power_above", "power_below", "scale_for"]


class Precision(NamedTuple):
    """The dtype in which norms are summed, and the window in which its squares are safe."""

    dtype: Any
    unit_roundoff: float
    half: float
    """Multiplies a number so far that adding both rounds the number to half its bits."""
    row: int
    """Elements whose heads add up without a rounding."""
    anchor: float
    """How many times its largest element is added to a row and taken away, for sums of squares."""
    large: float
    small: float
    step: float
    """Brings anything outside the window into it: multiply by it, or by its inverse."""
    guarded: float
    """Factors below this one are applied in steps."""


def accumulator(x: Array) -> Precision:
    """Return float64 where library and device have it, else float32."""
    dtypes = namespace_of(x).__array_namespace_info__().dtypes(device=device_of(x), kind=None)
    if "float64" in dtypes:
        powers = (2.0**480, 2.0**-400, 2.0**600, 2.0**-960)
        return Precision(dtypes["float64"], 2.0**-53, 2.0**27, 256, 2.0**31, *powers)
    powers = (2.0**50, 2.0**-47, 2.0**96, 2.0**-100)
    return Precision(dtypes["float32"], 2.0**-24, 2.0**12, 16, 2.0**15, *powers)


def power_below(xp: Any, value: Array, precision: Precision) -> Array:
    """Return the largest power of two not above a number, for zeros and subnormals the smallest normal."""
    top = FORMATS[dtype_name(precision.dtype)].top
    power = xp.full_like(value, 2.0 ** (top - 1))
    for step in (top - 2, *(2**k for k in reversed(range(top.bit_length() - 1)))):
        power = xp.where(value < power * 2.0 ** (1 - step), power * 2.0**-step, power)
    return power


def scale_for(xp: Any, size: Array, large: float, small: float, step: float) -> Array:
    """Return the power of two that brings a positive size into the window."""
    one = xp.ones_like(size)
    down = (size > large) & (size < math.inf)
    up = (size < small) & (size > 0)
    return xp.where(down, one / step, xp.where(up, one * step, one))


def power_above(xp: Any, value: Array, dtype: Any) -> Array:
    """Return the least power of two above a positive number, as ``math.frexp`` finds it."""
    wide = dtype_name(dtype) == "float64"
    power = xp.ones_like(value) * 2.0 ** (-540 if wide else -76)
    for step in (*((512, 256, 128) if wide else ()), 64, 32, 32, 16, 8, 4, 2, 1):
        power = xp.where(value >= power * 2.0**step, power * 2.0**step, power)
    return 2 * power
