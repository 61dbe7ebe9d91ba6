"""The sums of a block: never farther from the exact sum than the error they claim."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._numpy_sums import (
    BLOCK,
    NARROW_ERROR,
    WIDE_ERROR,
    _moduli,
    _square_error,
    narrow_sums,
    wide_sums,
)

RNG = np.random.default_rng(20261122)
LENGTHS = [1, 2, 255, 256, 257, 513, 4096]


def exact(row: Any, order: float, is_complex: bool) -> Fraction:
    """The sum, with moduli to 400 binary places below the largest element."""
    values = [Fraction(value) for value in row.reshape(-1).tolist()]
    if order == 2:
        return sum((value**2 for value in values), Fraction(0))
    if is_complex:
        squares = [re**2 + im**2 for re, im in zip(values[::2], values[1::2], strict=True)]
        values = [
            Fraction(math.isqrt((square.numerator << 4000) // square.denominator), 1 << 2000)
            for square in squares
        ]
    return max(map(abs, values)) if order == math.inf else sum(map(abs, values), Fraction(0))


def off(found: Fraction, wanted: Fraction) -> Fraction:
    return abs(found - wanted) / wanted if wanted else abs(found)


def wide(block: Any, order: Any, is_complex: bool) -> Any:
    """Sum a block that is needed again."""
    return wide_sums(block.copy(), order, is_complex)


def narrow(block: Any, order: Any, is_complex: bool) -> Any:
    """Sum a block that is needed again, in scratch that holds what it happens to."""
    return narrow_sums(block.copy(), np.full(block.size + 3, np.nan), order, is_complex)


def shaped(length: int, is_complex: bool) -> tuple[int, ...]:
    return (2, length, 2) if is_complex else (2, length)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("length", LENGTHS)
def test_sums_of_24_bit_components(length: int, order: float, is_complex: bool) -> None:
    block = RNG.standard_normal(shaped(length, is_complex)).astype(np.float32).astype(np.float64)
    for row, found in zip(block, wide(block, order, is_complex), strict=True):
        assert off(Fraction(float(found)), exact(row, order, is_complex)) <= Fraction(WIDE_ERROR)


@pytest.mark.parametrize("scale", [-1074, -1000, -540, -401, -399, -1, 0, 479, 481, 1020])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_sums_of_53_bit_components_of_any_size(order: float, is_complex: bool, scale: int) -> None:
    drawn = RNG.uniform(0.5, 2, shaped(19, is_complex)) * RNG.choice([-1.0, 1.0], shaped(19, is_complex))
    # The second row is far smaller, and has zeros and elements far smaller than itself.
    drawn[1] = np.ldexp(drawn[1], np.where(RNG.random(drawn[1].shape) < 0.3, -600, -300))
    drawn[1].reshape(-1)[:3] = 0
    block = np.ldexp(drawn, scale)
    head, tail, shift = narrow(block, order, is_complex)
    assert np.isfinite(head).all()
    assert np.isfinite(tail).all()
    for row, high, low, moved in zip(block, head, tail, shift, strict=True):
        power = 2 if order == 2 else 1
        found = (Fraction(float(high)) + Fraction(float(low))) / Fraction(2) ** (power * int(moved))
        assert off(found, exact(row, order, is_complex)) <= Fraction(NARROW_ERROR)


@pytest.mark.parametrize("is_complex", [False, True])
def test_a_full_block_of_heads_adds_up_exactly(is_complex: bool) -> None:
    # Multiples of 2**-19 below one are all head: the sum of their squares is exact, the tail nothing.
    components = RNG.integers(2**18, 2**19, BLOCK) / 2.0**19
    block = components.reshape(1, -1, 2) if is_complex else components.reshape(1, -1)
    head, tail, shift = narrow(block, 2, is_complex)
    assert (Fraction(float(head[0])), float(tail[0]), int(shift[0])) == (exact(components, 2, False), 0.0, 0)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("tiny", [1.0, 2.0**-19, 2.0**-20, 2.0**-21, 2.0**-30, 2.0**-60])
def test_a_full_block_of_one_large_and_many_equal_elements(tiny: float, order: float) -> None:
    block = np.full((1, BLOCK), 1.0999999999999999 * tiny)
    block[0, 7] = 1.9999999999999998
    head, tail, _ = narrow(block, order, False)
    found = Fraction(float(head[0])) + Fraction(float(tail[0]))
    assert off(found, exact(block[0], order, False)) <= Fraction(NARROW_ERROR)


@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_nan_and_infinity_show_in_the_head(order: float) -> None:
    block = np.array([[1.0, np.inf], [-np.inf, 2.0], [np.nan, np.inf], [3.0, 4.0]])
    with np.errstate(invalid="ignore"):
        for head in (narrow(block, order, False)[0], wide(block, order, False)):
            assert np.isposinf(head[:2]).all()
            assert np.isnan(head[2])
            assert np.isfinite(head[3])


@pytest.mark.parametrize("place", [0, 1, 100, BLOCK - 1])
def test_many_squares_below_half_an_ulp_of_a_large_one_are_not_lost(place: int) -> None:
    block = np.full((1, BLOCK), float(np.float32(2.0**-26.51)))
    block[0, place] = 1.0
    (found,) = wide(block, 2, False)
    assert off(Fraction(float(found)), exact(block[0], 2, False)) <= Fraction(WIDE_ERROR)


def test_what_a_rounded_square_leaves_out_is_exact() -> None:
    x = RNG.uniform(-2, 2, 2000)
    for value, error in zip(x.tolist(), _square_error(x, x * x).tolist(), strict=True):
        assert Fraction(value) ** 2 == Fraction(value * value) + Fraction(error)


def test_a_modulus_is_the_nearest_float_and_a_correction() -> None:
    real, imag = RNG.uniform(-2, 2, (2, 500))
    imag[::3] *= 2.0**-20
    for row in zip(real, imag, *_moduli(real, imag), strict=True):
        a, b, modulus, correction = (Fraction(float(part)) for part in row)
        assert abs((modulus + correction) ** 2 / (a**2 + b**2) - 1) <= Fraction(1, 2**95)
        assert abs(correction) <= Fraction(float(np.spacing(row[2]))) / 2
