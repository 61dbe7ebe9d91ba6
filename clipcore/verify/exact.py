"""The oracle: exact rational arithmetic on the bits of arrays.

Every finite floating-point number is an integer times a power of two, and Python's integers are exact.
So the sum of a million squares is a number, not an estimate, and "is this norm at most C?" has an answer.
NumPy is used to read bit patterns and to add integers that cannot overflow; no floating-point operation
decides anything.

A norm is held as the sum of square roots that it is (`Norm`).  Roots of perfect squares are rational and
summed as such; the others are irrational, and a sum of irrational positive square roots is never rational.
Comparing it with a rational limit by enclosures of growing precision therefore always ends.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from clipcore.verify.formats import (
    Array,
    Real,
    format_of,
    is_complex,
    is_finite,
    magnitudes,
    patterns,
    power_of_two,
    without_sign,
)

__all__ = [
    "Factor",
    "Norm",
    "compare_norm",
    "exact_norm",
    "factor_bounds",
    "ideal",
    "norm_bounds",
    "ulp",
    "ulps_away",
]

_CHUNK = 1 << 20  # elements unpacked at a time, so that 2^27 elements need no multiple of their own memory
_LIMB = 26  # bits summed together; 2^33 limbs of at most 30 bits fit an int64
_UNIT = -1074  # every finite component of every format is an integer multiple of 2**_UNIT


@dataclass(frozen=True)
class Norm:
    """An exact norm: 2**unit · (rational + Σ countᵢ·√radicandᵢ), no radicand a perfect square.

    Attributes
    ----------
    unit : int
        Exponent of the power of two that everything is a multiple of.
    rational : int
        The rational part.
    surds : dict
        How often each radicand occurs.
    """

    unit: int
    rational: int
    surds: dict[int, int]

    def _enclose(self, extra: int) -> tuple[int, int]:
        """Return integers enclosing the norm in units of 2**(unit − extra)."""
        low = (self.rational << extra) + sum(
            count * math.isqrt(radicand << (2 * extra)) for radicand, count in self.surds.items()
        )
        return low, low + sum(self.surds.values())

    def _extra(self, bits: int) -> int:
        """Return how many bits below the unit give the sum of roots `bits` correct leading bits."""
        if not self.surds:
            return 0
        missing = bits + sum(self.surds.values()).bit_length() - (max(self.surds).bit_length() - 1) // 2
        return max(0, missing)

    def compare(self, limit: Real) -> int:
        """Return −1, 0 or 1: the norm is below, at or above `limit`, exactly."""
        if limit == math.inf:
            return -1
        target = Fraction(limit) / power_of_two(self.unit)
        extra = self._extra(64)
        while True:
            low, high = self._enclose(extra)
            scaled, low, high = target.numerator << extra, low * target.denominator, high * target.denominator
            if not self.surds:
                return (low > scaled) - (low < scaled)
            if low >= scaled:
                return 1
            if high <= scaled:
                return -1
            extra = 2 * extra + 64

    def bounds(self, bits: int = 120) -> tuple[Fraction, Fraction]:
        """Return an enclosure at most 2**−bits of the norm wide; a point where the norm is rational."""
        extra = self._extra(bits)
        low, high = self._enclose(extra)
        scale = power_of_two(self.unit - extra)
        return low * scale, high * scale


def _limbs(mantissa: Array, power: int) -> list[Array]:
    """Return mantissa**power in pieces of about 26 bits, the lowest first."""
    low, high = mantissa & ((1 << _LIMB) - 1), mantissa >> _LIMB
    if power == 1:
        return [low, high]
    corner, middle, top = low * low, 2 * low * high, high * high
    mask = (1 << _LIMB) - 1
    return [
        corner & mask,
        (corner >> _LIMB) + (middle & mask),
        (middle >> _LIMB) + (top & mask),
        top >> _LIMB,
    ]


def _power_sum(x: Array, power: int) -> int:
    """Return the sum of |component|**power in units of 2**(power · _UNIT)."""
    form = format_of(x.dtype)
    hidden = 1 << (form.precision - 1)
    flat = patterns(x)
    totals = np.zeros((4, form.exponent_fields), dtype=np.int64)
    for start in range(0, flat.size, _CHUNK):
        magnitude = without_sign(flat[start : start + _CHUNK], form)
        field, fraction = magnitude >> (form.precision - 1), magnitude & (hidden - 1)
        mantissa = np.where(field > 0, fraction | hidden, fraction)
        shift = np.maximum(field - 1, 0)
        for limb, part in enumerate(_limbs(mantissa, power)):
            np.add.at(totals[limb], shift, part)
    total = sum(
        int(totals[limb, shift]) << (_LIMB * int(limb) + power * int(shift))
        for limb, shift in zip(*np.nonzero(totals), strict=True)
    )
    return total << (power * (form.lowest - _UNIT))


def _squared_moduli(x: Array) -> tuple[int, Counter[int]]:
    """Return (unit, how often each |element|² occurs in units of 4**unit) of a leaf."""
    form = format_of(x.dtype)
    counts = Counter(zip(*[iter(magnitudes(x).tolist())] * (2 if is_complex(x.dtype) else 1), strict=True))
    integers = {pair: [form.integer(part) for part in pair] for pair in counts}
    nonzero = [part for pair in integers.values() for part in pair if part]
    common = min(((part & -part).bit_length() - 1 for part in nonzero), default=0)
    squares: Counter[int] = Counter()
    for pair, parts in integers.items():
        squares[sum((part >> common) ** 2 for part in parts)] += counts[pair]
    return form.lowest + common, squares


def exact_norm(leaves: Sequence[Array], order: float) -> Norm:
    """Return the exact norm of all elements of all leaves together.

    Parameters
    ----------
    leaves : sequence of numpy.ndarray
        Floating or complex arrays of any shape, all finite.
    order : {1, 2, inf}
        Which norm; of complex elements the modulus counts.

    Returns
    -------
    Norm
        The norm, without rounding.

    Raises
    ------
    ValueError
        Where an element is NaN or infinite, or the order is another.
    """
    if not is_finite(leaves):
        raise ValueError("the exact norm of leaves holding NaN or inf is not a real number")
    if order == 2:
        return _norm_of_squares(_UNIT, Counter([sum(_power_sum(x, 2) for x in leaves)]))
    if order == 1 and not any(is_complex(x.dtype) for x in leaves):
        return Norm(_UNIT, sum(_power_sum(x, 1) for x in leaves), {})
    if order not in (1, math.inf):
        raise ValueError(f"the order of a norm is 1, 2 or inf, not {order}")
    parts = [_squared_moduli(x) for x in (_largest_only(leaves) if order == math.inf else leaves)]
    unit = min((unit for unit, _ in parts), default=0)
    squares: Counter[int] = Counter()
    for own_unit, counts in parts:
        for square, count in counts.items():
            squares[square << (2 * (own_unit - unit))] += count
    return _norm_of_squares(unit, Counter([max(squares, default=0)]) if order == math.inf else squares)


def _largest_only(leaves: Sequence[Array]) -> list[Array]:
    """Return each real leaf cut to one element of largest magnitude, to spare a Python loop over all."""
    return [
        x if is_complex(x.dtype) or not x.size else x.reshape(-1)[[int(np.argmax(magnitudes(x)))]]
        for x in leaves
    ]


def _norm_of_squares(unit: int, squares: Counter[int]) -> Norm:
    """Return the norm Σ count·√square, perfect squares taken out of the roots."""
    rational, surds = 0, {}
    for square, count in squares.items():
        root = math.isqrt(square)
        if root * root == square:
            rational += count * root
        else:
            surds[square] = count
    return Norm(unit, rational, surds)


def compare_norm(leaves: Sequence[Array], limit: Real, order: float) -> int:
    """Return −1, 0 or 1 as the exact norm is below, at or above `limit`."""
    return exact_norm(leaves, order).compare(limit)


def norm_bounds(leaves: Sequence[Array], order: float, bits: int = 120) -> tuple[Fraction, Fraction]:
    """Return a lower and an upper bound of the exact norm, at most 2**−bits of it apart."""
    return exact_norm(leaves, order).bounds(bits)


# --- ideal results ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Factor:
    """An enclosure of min(1, C/‖x‖): low/2**scale ≤ factor ≤ high/2**scale.

    Attributes
    ----------
    low, high : int
        The two ends; equal where the factor is 1 or 0.
    scale : int
        Number of bits behind the point.
    """

    low: int
    high: int
    scale: int

    def ideal(self, value: Fraction) -> tuple[Fraction, Fraction]:
        """Return an enclosure of value · factor."""
        ends = value * self.low / (1 << self.scale), value * self.high / (1 << self.scale)
        return min(ends), max(ends)


def factor_bounds(limit: Real, norm: Norm, bits: int = 100) -> Factor:
    """Return min(1, limit/norm) enclosed to a relative width of about 2**−bits."""
    if norm.compare(limit) <= 0:
        return Factor(1, 1, 0)
    low, high = norm.bounds(bits + 4)
    below, above = Fraction(limit) / high, Fraction(limit) / low
    scale = bits + 4 + max(0, below.denominator.bit_length() - below.numerator.bit_length())
    return Factor(math.floor(below * (1 << scale)), math.ceil(above * (1 << scale)), scale)


def ideal(x: Array, limit: Real, norm: Norm) -> list[tuple[Fraction, Fraction]]:
    """Return an enclosure of component · min(1, limit/norm) for every component of a finite array."""
    factor, form = factor_bounds(limit, norm), format_of(x.dtype)
    return [factor.ideal(form.value(pattern)) for pattern in patterns(x).tolist()]


def ulp(value: Fraction, dtype: np.dtype[Any]) -> Fraction:
    """Return the spacing of the dtype at an exact value, at least its smallest subnormal."""
    form = format_of(dtype)
    integer = (abs(value.numerator) << -form.lowest) // value.denominator
    return (1 << max(0, integer.bit_length() - form.precision)) * form.smallest_subnormal


def ulps_away(got: Fraction, low: Fraction, high: Fraction, dtype: np.dtype[Any]) -> Fraction:
    """Return how far `got` is, at least, from a value enclosed by [low, high], in ulp of that value."""
    distance = max(low - got, got - high, Fraction(0))
    return distance / max(ulp(low, dtype), ulp(high, dtype))
