"""Floating-point formats, and arrays read and written by their bits.

Every finite floating-point number is an integer times a power of two.  This file turns the elements of arrays
into such integers, and exact numbers back into elements; NumPy only moves bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

__all__ = [
    "Array",
    "Format",
    "Real",
    "Side",
    "cast_bound",
    "exact_component",
    "exact_values",
    "format_of",
    "from_patterns",
    "is_complex",
    "is_finite",
    "magnitudes",
    "nan_components",
    "order_keys",
    "patterns",
    "power_of_two",
    "without_sign",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Real: TypeAlias = int | float | Fraction
Side: TypeAlias = Literal["lower", "upper"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format, by its width and its precision in bits.

    Attributes
    ----------
    bits : int
        Width of one component.
    precision : int
        Bits of the significand, the hidden one included.
    """

    bits: int
    precision: int

    @cached_property
    def exponent_fields(self) -> int:
        """Number of values that the exponent field can take."""
        return 1 << (self.bits - self.precision)

    @cached_property
    def lowest(self) -> int:
        """Exponent of the smallest subnormal: finite values are integer multiples of 2**lowest."""
        return 3 - self.exponent_fields // 2 - self.precision

    @cached_property
    def infinity(self) -> int:
        """Bit pattern of +inf; patterns of larger magnitude are NaN."""
        return (self.exponent_fields - 1) << (self.precision - 1)

    @cached_property
    def roundoff(self) -> Fraction:
        """Unit roundoff u."""
        return power_of_two(-self.precision)

    @cached_property
    def smallest_subnormal(self) -> Fraction:
        """Smallest positive value."""
        return power_of_two(self.lowest)

    @cached_property
    def smallest_normal(self) -> Fraction:
        """Smallest positive value of full precision."""
        return power_of_two(self.lowest + self.precision - 1)

    @cached_property
    def largest(self) -> Fraction:
        """Largest finite value."""
        return self.value(self.infinity - 1)

    def integer(self, pattern: int) -> int:
        """Return the finite value of a bit pattern as a signed multiple of 2**lowest."""
        magnitude = pattern & ((1 << (self.bits - 1)) - 1)
        field, fraction = divmod(magnitude, 1 << (self.precision - 1))
        if field:
            fraction = (fraction | 1 << (self.precision - 1)) << (field - 1)
        return -fraction if magnitude != pattern else fraction

    def value(self, pattern: int) -> Fraction:
        """Return the exact finite value of a bit pattern."""
        return Fraction(self.integer(pattern), 1 << -self.lowest)

    def truncate(self, value: Fraction) -> tuple[int, bool]:
        """Return the pattern of the largest number not above `value` (≥ 0), and whether it equals it.

        The pattern reaches or passes that of infinity where the format has no number so large.
        """
        integer, rest = divmod(value.numerator << -self.lowest, value.denominator)
        shift = max(0, integer.bit_length() - self.precision)
        kept = integer >> shift
        return (shift << (self.precision - 1)) + kept, not rest and kept << shift == integer


_FORMATS = {
    "bfloat16": Format(16, 8),
    "float16": Format(16, 11),
    "float32": Format(32, 24),
    "float64": Format(64, 53),
    "complex64": Format(32, 24),
    "complex128": Format(64, 53),
}


def power_of_two(exponent: int) -> Fraction:
    """Return 2**exponent exactly."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def format_of(dtype: np.dtype[Any]) -> Format:
    """Return the format of a floating dtype's component; `TypeError` for any other dtype."""
    try:
        return _FORMATS[dtype.name]
    except KeyError:
        raise TypeError(f"the oracle knows {', '.join(sorted(_FORMATS))}, not {dtype.name}") from None


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Return whether elements have two components."""
    return dtype.kind == "c"


# --- reading arrays --------------------------------------------------------------------------------------


def patterns(x: Array) -> Array:
    """Return the components' bit patterns, flat in C order; complex as real, imaginary in turn."""
    unsigned = np.dtype(f"u{x.dtype.itemsize // (2 if is_complex(x.dtype) else 1)}")
    flat: Array = np.ascontiguousarray(x).reshape(-1).view(unsigned)
    return flat if x.dtype.isnative else flat.byteswap()


def from_patterns(pattern: Sequence[int] | Array, dtype: np.dtype[Any]) -> Array:
    """Return the flat array whose components have these bit patterns, in native byte order."""
    raw: Array = np.asarray(pattern, dtype=f"u{format_of(dtype).bits // 8}")
    return raw.view(dtype if dtype.isnative else dtype.newbyteorder("="))


def without_sign(pattern: Array, form: Format) -> Array:
    """Return patterns without their sign: integers in the order of the absolute values."""
    signless: Array = pattern & np.array((1 << (form.bits - 1)) - 1, dtype=pattern.dtype)
    return signless.astype(np.int64)


def magnitudes(x: Array) -> Array:
    """Return the components' patterns without their sign, flat."""
    return without_sign(patterns(x), format_of(x.dtype))


def order_keys(x: Array) -> Array:
    """Return integers in the order of a real array's values; equal for both zeros, meaningless for NaN."""
    if x.dtype.kind in "iu":
        return x.reshape(-1)
    pattern, form = patterns(x), format_of(x.dtype)
    magnitude = without_sign(pattern, form)
    return np.where(pattern >> np.array(form.bits - 1, dtype=pattern.dtype) != 0, -magnitude, magnitude)


def nan_components(x: Array) -> Array:
    """Return which components are NaN, flat."""
    if x.dtype.kind in "iu":
        return np.zeros(x.size, dtype=bool)
    return np.asarray(magnitudes(x) > format_of(x.dtype).infinity)


def is_finite(leaves: Iterable[Array]) -> bool:
    """Return whether no component of any leaf is NaN or infinite."""
    return all(bool(np.all(magnitudes(x) < format_of(x.dtype).infinity)) for x in leaves)


def exact_values(x: Array) -> list[Fraction | float]:
    """Return every component as a `Fraction`; a NaN or an infinity as that float."""
    if x.dtype.kind in "iu":
        return [Fraction(int(value)) for value in x.reshape(-1)]
    form = format_of(x.dtype)
    sign = 1 << (form.bits - 1)

    def value(pattern: int) -> Fraction | float:
        magnitude = pattern & (sign - 1)
        if magnitude < form.infinity:
            return form.value(pattern)
        if magnitude > form.infinity:
            return math.nan
        return -math.inf if pattern & sign else math.inf

    return [value(pattern) for pattern in patterns(x).tolist()]


def exact_component(x: Array, index: int) -> Fraction | float:
    """Return one component, counted flat in C order, as `exact_values` would."""
    flat = np.ascontiguousarray(x).reshape(-1)
    parts = flat.view(flat.real.dtype) if is_complex(x.dtype) else flat
    return exact_values(parts[index : index + 1])[0]


# --- bounds that still hold ------------------------------------------------------------------------------


def cast_bound(bound: Real | Array | np.generic, dtype: np.dtype[Any], side: Side) -> Array:
    """Return a bound as an array of a real dtype such that it still holds.

    An upper bound rounds down and a lower bound rounds up.  A finite bound beyond the range on its
    harmless side becomes the largest finite value; one beyond it on the other side becomes that infinity,
    and for integers the nearest value.  A NaN stays NaN.

    Parameters
    ----------
    bound : int, float, Fraction or numpy.ndarray
        The bound, of any real dtype and shape.
    dtype : numpy.dtype
        Floating or integer dtype to cast to.
    side : {"lower", "upper"}
        Which bound it is.

    Returns
    -------
    numpy.ndarray
        Array of the bound's shape in the dtype's native byte order.
    """
    values, shape = _listed(bound)
    if dtype.kind in "iu":
        cast = np.array([_cast_integer(value, np.iinfo(dtype), side) for value in values], dtype=dtype)
    else:
        form = format_of(dtype)
        cast = from_patterns([_cast_pattern(value, form, side) for value in values], dtype)
    return cast.reshape(shape)


def _listed(bound: Any) -> tuple[list[Fraction | float], tuple[int, ...]]:
    """Return a bound's exact values and its shape."""
    if isinstance(bound, np.ndarray | np.generic):
        array = np.asarray(bound)
        return exact_values(array), array.shape
    if isinstance(bound, float) and not math.isfinite(bound):
        return [bound], ()
    return [Fraction(bound)], ()


def _cast_pattern(value: Fraction | float, form: Format, side: Side) -> int:
    """Return the pattern of the tightest number of the format that a bound may become."""
    if value != value:  # NaN; math.isnan would make a float of a huge Fraction
        return form.infinity + (1 << (form.precision - 2))
    negative = value < 0
    sign = 1 << (form.bits - 1) if negative else 0
    if abs(value) == math.inf:
        return sign | form.infinity
    pattern, equal = form.truncate(abs(Fraction(value)))
    if (side == "upper") != negative:  # towards zero
        return sign | min(pattern, form.infinity - 1)
    return sign | min(pattern + (not equal), form.infinity)


def _cast_integer(value: Fraction | float, info: np.iinfo[Any], side: Side) -> int:
    """Return the tightest integer of the dtype that a bound may become."""
    low, high = int(info.min), int(info.max)
    if isinstance(value, float):  # an infinity
        return high if value > 0 else low
    return min(max(math.floor(value) if side == "upper" else math.ceil(value), low), high)
