"""The portable engine: its factor is lowered as far as argued, its products are cut where it counts."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._formats import FORMATS
from edge_support import NO_FLOAT64, STRICT, Machine

import clipcore as cc
from clipcore import _portable
from clipcore._portable_powers import accumulator
from clipcore._portable_sums import Groups

RNG = np.random.default_rng(20261129)
MACHINES = {"float64": STRICT, "float32": NO_FLOAT64}


def fractions_of(x: Any) -> list[Fraction]:
    return [Fraction(float(value)) for value in np.ravel(x)]


@pytest.mark.parametrize("error", [0.125, 1.0])
@pytest.mark.parametrize("lift", [-1, 0, 1])
@pytest.mark.parametrize("leaf", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", MACHINES)
def test_the_factor_is_lowered_by_what_the_roundings_cost(
    name: str, leaf: str, lift: int, error: float
) -> None:
    dtype, facts = np.dtype(name), FORMATS[leaf]
    if facts.precision > FORMATS[name].precision:
        facts = FORMATS[name]
    precision = accumulator(MACHINES[name].put(np.ones(1, np.float32)))
    u = Fraction(precision.unit_roundoff)
    size = 200
    # Norms in the window, one step above or one below it; limits of any size not above them.
    hi = np.exp2(RNG.uniform(-20, 20, size)).astype(dtype)
    hi[::4] = np.exp2(np.floor(np.log2(hi[::4])))
    lo = (hi * precision.unit_roundoff * RNG.choice([-0.5, 1.0], size)).astype(dtype)
    scale = np.full(size, precision.step**lift, dtype)
    unscaled = hi.astype(np.float64) / precision.step**lift
    deepest = (-320 if lift <= 0 else -150) if name == "float64" else (-60 if lift <= 0 else -20)
    limit = (unscaled * np.exp2(RNG.uniform(deepest, -0.5, size))).astype(dtype)
    limit[1::4] = np.exp2(np.floor(np.log2(limit[1::4].astype(np.float64))))
    rest = (limit * precision.unit_roundoff * RNG.choice([-0.5, 1.0], size)).astype(dtype)
    no = np.zeros(size, bool)
    groups = Groups(hi, lo, scale, no, no, precision, error * precision.unit_roundoff)
    bound = _portable._Limit(limit, rest, ~no)
    factor = _portable._factor(np, groups, bound, ~no, facts)
    least = Fraction(1, 2**facts.precision) * Fraction(65, 64) + 2 * Fraction(groups.error)
    parts = (factor.value, factor.guard, limit, rest, hi, lo)
    for value, guard, c, c_rest, norm, norm_rest in zip(*map(fractions_of, parts), strict=True):
        ideal = (c + c_rest) / (norm + norm_rest) * Fraction(precision.step) ** lift
        lost = 1 - value * guard**2 / ideal
        # 3 u are set aside for roundings of at most 2.5 u.
        assert least + u / 2 <= lost <= least + 11 * u / 2


@pytest.mark.parametrize("leaf", ["float32", "float64"])
@pytest.mark.parametrize("machine", MACHINES.values(), ids=str)
@pytest.mark.parametrize("size", [0, 1, 2**13, 2**46 + 1])
def test_many_elements_below_the_normal_range_are_not_rounded_up(
    size: int, machine: Machine, leaf: str
) -> None:
    if leaf == "float64" and not machine.has_float64:
        leaf = "float32"
    facts = FORMATS[leaf]
    size = min(size, 2 ** (facts.precision - 8) + 1)
    count, least = 512, Fraction(2) ** facts.smallest
    x = np.full(count, float((2 * size + 1) * least), leaf)
    for share in (0.55, 0.6, 0.7, 0.9):
        # Each element is to become `size` and a share of the smallest subnormal.
        limit = float(count * (size + Fraction(share)) * least)
        clipped = machine.run(cc.clip_by_l1_norm, x, limit)
        total = sum(fractions_of(clipped), Fraction(0))
        assert total <= Fraction(limit) * (1 + Fraction(1, 2**44))
        assert total >= count * (size - 2) * least


@pytest.mark.parametrize("clip", [cc.clip_by_l1_norm, cc.clip_by_l2_norm])
def test_an_element_is_not_rounded_up_past_a_limit_between_two_of_its_values(clip: Any) -> None:
    x = np.array([[1.7]], np.float32)
    limits = [1 + 2.0**-24 * k / 64 for k in range(64, 129)]
    # Just below the normal range rounding to nearest is relatively coarsest: half a step of 0.992 * 2**23.
    first = math.ceil((1 - 2.0**-7) * 2**23)
    small = [
        math.ldexp(first + k + 1 - gap, -149) for k in range(4) for gap in (0, 1e-6, 1e-4, 1e-3, 0.01, 0.1)
    ]
    for values, limits_of in ((x, limits), (np.ldexp(x, -125).astype(np.float32), small)):
        for limit in limits_of:
            clipped = STRICT.run(clip, values, limit)
            assert 0 < Fraction(float(clipped[0, 0])) <= Fraction(limit) * (1 + Fraction(1, 2**44))


@pytest.mark.parametrize("machine", MACHINES.values(), ids=str)
def test_bounds_are_put_on_the_device_of_the_leaf(machine: Machine) -> None:
    leaf = machine.put(np.ones(1, np.float32))
    number = _portable.number(0.5, leaf)
    assert (number.device, number.dtype, float(number)) == (leaf.device, leaf.dtype, 0.5)
