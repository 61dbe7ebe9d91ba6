"""The decision in integers, against fractions: on which side of a limit a norm is that floats cannot tell."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._numpy_exact import exceeds

Block = np.ndarray[Any, np.dtype[np.float64]]

RNG = np.random.default_rng(20261121)
MAGNITUDES = [
    pytest.param(lambda n: np.ones(n), id="equal"),
    pytest.param(lambda n: RNG.standard_normal(n), id="normal"),
    pytest.param(lambda n: RNG.standard_normal(n) * 2.0 ** RNG.integers(-500, 400, n), id="huge and tiny"),
    pytest.param(lambda n: RNG.integers(1, 2**53, n) * 2.0**-1074, id="from subnormals on"),
    pytest.param(lambda n: RNG.integers(-(2**24), 2**24, n) * 2.0**-149, id="float32"),
    pytest.param(
        lambda n: np.where(RNG.random(n) < 0.5, 0.0, -(2.0 ** RNG.integers(0, 30, n))), id="powers and zeros"
    ),
]


def blocks_of(draw: Any, sizes: tuple[int, ...]) -> list[tuple[Block, bool]]:
    return [(draw(size).reshape(1, size), False) for size in sizes]


def around(value: float) -> list[float]:
    return [math.nextafter(value, 0.0), value, math.nextafter(value, math.inf)]


@pytest.mark.parametrize("draw", MAGNITUDES)
@pytest.mark.parametrize("sizes", [(1,), (3,), (2, 5), (40, 1, 7)])
def test_sums_of_squares_and_of_magnitudes(draw: Any, sizes: tuple[int, ...]) -> None:
    blocks = blocks_of(draw, sizes)
    values = [abs(Fraction(value)) for block, _ in blocks for value in block.ravel().tolist()]
    square, total, largest = sum(value**2 for value in values), sum(values), max(values)
    root = Fraction(math.isqrt(square.numerator * square.denominator << 400), square.denominator << 200)
    for limit in around(float(root)):
        assert exceeds(blocks, 2, limit) is (square > Fraction(limit) ** 2)
    for limit in around(float(total)):
        assert exceeds(blocks, 1, limit) is (total > Fraction(limit))
    for limit in around(float(largest)):
        assert bool(exceeds(blocks, math.inf, limit)) is (largest > Fraction(limit))


def test_real_and_complex_blocks_together() -> None:
    blocks = [(np.array([[2.0, -0.5]]), False), (np.array([[[3.0, -4.0], [0.0, 1.5]]]), True)]
    blocks += [(np.array([[-0.25]]), False)]
    for limit, total in ((9.25, 9.25), (9.0, 9.25), (9.5, 9.25)):
        assert exceeds(blocks, 1, limit) is (total > limit)
    for limit in around(5.0):
        assert bool(exceeds(blocks, math.inf, limit)) is (limit < 5)
    square = Fraction(4 + 0.25 + 9 + 16 + 2.25 + 0.0625)
    for limit in around(math.sqrt(31.5625)):
        assert exceeds(blocks, 2, limit) is (square > Fraction(limit) ** 2)


def digits(square: Fraction) -> Fraction:
    """The square root, rounded down to 400 binary places."""
    return Fraction(math.isqrt((square.numerator << 800) // square.denominator), 1 << 400)


@pytest.mark.parametrize("scale", [2.0**-300, 2.0**-40, 1.0, 2.0**300])
@pytest.mark.parametrize("size", [1, 2, 9])
def test_sums_of_moduli_that_no_fraction_equals(scale: float, size: int) -> None:
    pairs = RNG.standard_normal((1, size, 2)) * scale
    pairs = np.concatenate([pairs, pairs[:, :1], np.array([[[3 * scale, 4 * scale]]])], axis=1)
    squares = [Fraction(re) ** 2 + Fraction(im) ** 2 for re, im in pairs[0].tolist()]
    low = sum(map(digits, squares))
    for limit in [*around(float(low)), float(low) / 2, float(low) * 2]:
        assert low + Fraction(len(squares), 1 << 400) < Fraction(limit) or low > Fraction(limit)
        assert exceeds([(pairs[:, :1], True), (pairs[:, 1:], True)], 1, limit) is (low > Fraction(limit))
    largest = max(squares)
    for limit in around(float(digits(largest))):
        assert bool(exceeds([(pairs, True)], math.inf, limit)) is (largest > Fraction(limit) ** 2)


@pytest.mark.parametrize("count", [1, 3])
def test_sums_of_moduli_that_are_fractions_may_equal_the_limit(count: int) -> None:
    pairs = np.array([[[0.75, 1.0], [5.0, 12.0], [0.0, 0.0], [-8.0, 15.0]] * count])
    total = count * (1.25 + 13 + 17)
    assert exceeds([(pairs, True)], 1, total) is False
    assert exceeds([(pairs, True)], 1, math.nextafter(total, 0.0)) is True


def test_a_full_block_of_the_largest_significands_adds_up() -> None:
    block = np.full((1, 1 << 15), float(2**53 - 1))
    total = (2**53 - 1) << 15
    assert exceeds([(block, False)], 1, float(total)) is (total > Fraction(float(total)))
    limit = float((2**53 - 1) * math.sqrt(2.0**15))
    for near in around(limit):
        assert exceeds([(block, False)], 2, near) is (Fraction(near) ** 2 < (2**53 - 1) ** 2 << 15)
