"""Norms in integers, for the rare case that floating point cannot tell which side of a limit they are on."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._protocol import Order

__all__ = ["exceeds"]

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

_HALF = 27

# 2**-_BASE divides the square of every finite float64.
_BASE = 2 * (1074 + 53)


def exceeds(blocks: Iterable[tuple[Doubles, bool]], order: Order, limit: float) -> bool:
    """Decide without rounding whether a norm is above a limit.

    Parameters
    ----------
    blocks : iterable of (array, bool)
        The finite elements of the group in float64, and whether the last axis holds real
        and imaginary parts.
    order : 1, 2 or inf
    limit : float
    """
    bound = Fraction(limit)
    if order == 2:
        return Fraction(sum(_squares(block) for block, _ in blocks), 1 << _BASE) > bound**2
    if order == 1:
        return _absolute_sum_exceeds(blocks, bound)
    return any(
        any(square > bound**2 for square, _ in _square_moduli(block))
        if is_complex
        else np.abs(block).max() > limit
        for block, is_complex in blocks
    )


def _integers(block: Doubles) -> tuple[Integers, Integers]:
    """Return integers of 53 bits and exponents: the magnitudes are ``integer * 2**exponent``."""
    mantissas, exponents = np.frexp(np.abs(block).reshape(-1))
    return np.ldexp(mantissas, 53).astype(np.int64), exponents.astype(np.int64) - 53


def _total(values: Integers, exponents: Integers) -> int:
    """Return the sum of ``values * 2**(exponents + _BASE)``, for values below 2**54."""
    start = int(exponents.min())
    total = 0
    for shift, halves in ((0, values & ((1 << _HALF) - 1)), (_HALF, values >> _HALF)):
        # float64 adds these integers exactly: no sum in a block reaches 2**53.
        sums = np.bincount(exponents - start, weights=halves)
        total += sum(int(sums[i]) << int(i + start + shift + _BASE) for i in np.flatnonzero(sums))
    return total


def _squares(block: Doubles) -> int:
    """Return the sum of the squares, times ``2**_BASE``."""
    values, exponents = _integers(block)
    high, low = values >> _HALF, values & ((1 << _HALF) - 1)
    return (
        _total(high * high, 2 * (exponents + _HALF))
        + _total(high * low, 2 * exponents + _HALF + 1)
        + _total(low * low, 2 * exponents)
    )


def _square_moduli(block: Doubles) -> Iterator[tuple[Fraction, int]]:
    """Yield each squared modulus that occurs among complex numbers, and how often."""
    pairs, counts = np.unique(np.abs(block).reshape(-1, 2), axis=0, return_counts=True)
    for (real, imag), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        yield Fraction(real) ** 2 + Fraction(imag) ** 2, count


def _absolute_sum_exceeds(blocks: Iterable[tuple[Doubles, bool]], bound: Fraction) -> bool:
    rational = Fraction(0)
    roots: list[tuple[Fraction, int]] = []
    for block, is_complex in blocks:
        if not is_complex:
            rational += Fraction(_total(*_integers(block)), 1 << _BASE)
            continue
        for square, count in _square_moduli(block):
            root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
            if root**2 == square:
                rational += count * root
            else:
                roots.append((square, count))
    # A sum of square roots is rational only if each of them is, so it never equals what is
    # left of the bound, and enough bits tell which side it is on.
    bits = 64
    while roots:
        below = rational + sum(count * _root_below(square, bits) for square, count in roots)
        if below > bound:
            return True
        width = sum(count * Fraction(1, 1 << bits) for _, count in roots)
        if below + width <= bound:
            return False
        bits *= 2
    return rational > bound


def _root_below(square: Fraction, bits: int) -> Fraction:
    """Return the square root, rounded down to ``bits`` binary places."""
    return Fraction(math.isqrt((square.numerator << (2 * bits)) // square.denominator), 1 << bits)
