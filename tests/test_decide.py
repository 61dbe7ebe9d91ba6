"""From norm and limit to a number: what `clipcore._decide` promises, in fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._formats import FORMATS
from clipcore_backends._protocol import Multiplier, Sum

from clipcore._decide import (
    _SCALAR,
    _round,
    decide,
    multiplier,
    norm_of,
    product,
    subnormal_slack,
    to_float,
)

RNG = np.random.default_rng(20261123)
ERROR = 2.0**-54.8
BITS = {"float16": 13, "bfloat16": 16, "float32": 24, "float64": 53}


def fraction(hi: Any, lo: Any, exponent: Any) -> Fraction:
    return (Fraction(float(hi)) + Fraction(float(lo))) * Fraction(2) ** int(exponent)


def drawn(exponent: int) -> Sum:
    hi = float(RNG.uniform(0.5, 2))
    return Sum(hi, hi * float(RNG.uniform(-(2.0**-54), 2.0**-54)), exponent, ERROR)


@pytest.mark.parametrize("exponent", [-2148, -1201, -1, 0, 1, 2, 1200, 2047])
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_a_norm_is_the_root_of_its_sum_to_a_hundred_bits(order: float, exponent: int) -> None:
    for total in (drawn(exponent) for _ in range(50)):
        norm = norm_of(total, order)
        found, wanted = (
            fraction(norm.hi, norm.lo, norm.exponent),
            fraction(total.hi, total.lo, total.exponent),
        )
        if order == 2:
            found = found**2
        assert abs(found - wanted) <= wanted / 2**100
        rounded = to_float(norm)
        if wanted ** (1 if order == 2 else 2) < Fraction(2) ** 2044 and found > Fraction(1, 2**1000):
            assert rounded == float(norm.hi + norm.lo) * 2.0**norm.exponent


def test_a_norm_beyond_float64_is_infinity() -> None:
    assert to_float(norm_of(Sum(0.75, 0.0, 1030, ERROR), 1)) == math.inf
    with np.errstate(over="ignore"):
        assert to_float(norm_of(Sum(np.array([0.75]), np.zeros(1), np.array([1030]), ERROR), 1)) == math.inf


def test_a_product_is_exact_in_two_parts() -> None:
    for a, b in RNG.uniform(0.25, 4, (200, 2)).tolist():
        high, low = product(a, b)
        assert high == a * b
        assert Fraction(high) + Fraction(low) == Fraction(a) * Fraction(b)
    a32, b32 = RNG.uniform(0.25, 4, (2, 200)).astype(np.float32)
    high, low = product(a32, b32, 2.0**12 + 1)
    assert low.dtype == np.float32
    assert (high.astype(np.float64) + low.astype(np.float64) == a32.astype(np.float64) * b32).all()


@pytest.mark.parametrize(
    ("ratio", "excess_sign", "certain"),
    [
        (1 - 2.0**-53, -1, False), (1 - 2.0**-54, 0, False), (1.0, 0, False), (1 + 2.0**-52, 1, True),
        (1 - 2.0**-52, -1, True), (0.5, -1, True), (2.0, 1, True),
        (2.0**-900, -1, True), (2.0**900, 1, True), (0.0, -1, True),
    ],
)  # fmt: skip
def test_only_a_clear_difference_is_certain(ratio: float, excess_sign: int, certain: bool) -> None:
    norm = norm_of(Sum(0.75, 0.0, 4, 2.0**-52.5), 1)
    decision = decide(norm, 12.0 * ratio)
    assert decision.certain is certain
    if excess_sign:
        assert math.copysign(1, decision.excess) == excess_sign


def test_a_zero_norm_is_inside_every_limit() -> None:
    for limit in (0.0, 5e-324, 1.0):
        decision = decide(norm_of(Sum(0.0, 0.0, 0, ERROR), 2), limit)
        assert decision.excess > 0
        assert decision.certain


def check(number: Multiplier, name: str, factor: Fraction, error: float) -> None:
    facts, bits = FORMATS[name], BITS[name]
    u = Fraction(1, 2**facts.precision)
    value = Fraction(float(number.value)) * Fraction(2) ** int(number.exponent)
    lowered = factor * (1 - u * (1 + Fraction(1, 64)) - Fraction(error))
    coarsest = Fraction(1, 2 ** (bits - 1))
    if number.divide:
        assert bits == facts.precision
        value = 1 / value
    if bits == facts.precision:
        # Steps are never above the square root of two, with a hair for the square root's own rounding.
        coarsest = coarsest * 70711 / 100000
    mantissa, _ = math.frexp(float(number.value))
    assert (mantissa * 2**bits).is_integer()
    assert lowered * (1 - coarsest) <= value <= lowered * (1 + Fraction(1, 2**100))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("exponent", [-900, -3, 0, 1, 700])
def test_the_number_is_the_largest_of_its_bits_below_the_lowered_factor(name: str, exponent: int) -> None:
    limits = [
        *RNG.uniform(0.01, 0.9, 100),
        0.5,
        0.25,
        math.sqrt(0.5),
        math.nextafter(math.sqrt(0.5), 0),
        0.7072,
    ]
    totals = [drawn(exponent) for _ in limits]
    norms = [norm_of(total, 1) for total in totals]
    for total, norm, share in zip(totals, norms, limits, strict=True):
        limit = math.ldexp(float(share), exponent)
        number = multiplier(decide(norm, limit), limit, 0.0, FORMATS[name])
        check(number, name, Fraction(limit) / fraction(total.hi, total.lo, total.exponent), ERROR + 2.0**-100)


def test_arrays_of_groups_get_the_numbers_of_each_alone() -> None:
    singles = [drawn(0) for _ in range(64)]
    together = Sum(
        np.array([each.hi for each in singles]),
        np.array([each.lo for each in singles]),
        np.zeros(64, int),
        ERROR,
    )
    for name, limit in (("float32", 0.6), ("float64", 0.45)):
        numbers = multiplier(decide(norm_of(together, 2), limit), limit, 0.0, FORMATS[name])
        for index, single in enumerate(singles):
            alone = multiplier(decide(norm_of(single, 2), limit), limit, 0.0, FORMATS[name])
            assert tuple(field[index] for field in numbers) == tuple(alone)


def test_only_groups_above_the_limit_are_clipped() -> None:
    norms = norm_of(Sum(np.array([0.75, 0.76, 0.74, 0.5]), np.zeros(4), np.zeros(4, int), ERROR), 1)
    number = multiplier(decide(norms, 0.75), 0.75, 0.0, FORMATS["float64"])
    assert number.clipped.tolist() == [False, True, False, False]


@pytest.mark.parametrize(("lo", "down", "up"), [(-1e-20, 0.5, 0.75), (0.0, 0.75, 0.75), (1e-20, 0.75, 1.0)])
def test_rounding_in_one_direction_counts_the_second_part(lo: float, down: float, up: float) -> None:
    assert _round(_SCALAR, 0.75, lo, 2, up=False) == down
    assert _round(_SCALAR, 0.75, lo, 2, up=True) == up


def test_a_limit_of_zero_multiplies_by_zero() -> None:
    number = multiplier(decide(norm_of(drawn(0), 2), 0.0), 0.0, 1e9, FORMATS["float32"])
    assert (number.value, number.divide, number.clipped, number.ample) == (0.0, False, True, True)


@pytest.mark.parametrize(("order", "count"), [(1, 100.0), (2, 10.0), (math.inf, 1.0)])
def test_a_limit_is_ample_from_64_u_of_what_subnormals_can_add(order: float, count: float) -> None:
    u = 2.0**-24
    slack = subnormal_slack(order, 100, u)
    assert slack == 64 * count / u
    least = slack * 2.0**-149
    for limit, ample in ((least, True), (math.nextafter(least, 0.0), False)):
        decision = decide(norm_of(Sum(2 * least, 0.0, 0, ERROR), 1), limit)
        assert multiplier(decision, limit, slack, FORMATS["float32"]).ample is ample


@pytest.mark.parametrize(("name", "reach"), [("float64", 1000), ("float32", 100), ("bfloat16", 100)])
def test_a_factor_far_below_one_is_not_left_to_the_leafs_own_arithmetic(name: str, reach: int) -> None:
    for exponent, ample in ((-reach + 2, True), (-reach - 2, False)):
        decision = decide(norm_of(Sum(1.0, 0.0, 0, ERROR), 1), 2.0**exponent)
        assert multiplier(decision, 2.0**exponent, 0.0, FORMATS[name]).ample is ample
