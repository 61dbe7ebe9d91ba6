"""What `clipcore._norm_clip` does between measuring and scaling: decide at the boundary, given norms too."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._formats import FORMATS
from clipcore_backends._protocol import Sum
from edge_support import bits, on_ranks

import clipcore as cc
from clipcore._norm_clip import _finite

RNG = np.random.default_rng(20261124)
U = Fraction(1, 2**53)


def total(x: Any) -> Fraction:
    return sum((abs(Fraction(value)) for value in np.ravel(x).tolist()), Fraction(0))


def test_finite_groups_keep_both_parts_and_the_others_become_zero() -> None:
    groups = Sum(np.array([1.5, np.nan, np.inf]), np.array([2.0**-60, np.nan, 3.0]), np.arange(3), 0.25)
    found = _finite(groups)
    assert found.hi.tolist() == [1.5, 0.0, 0.0]
    assert found.lo.tolist() == [2.0**-60, 0.0, 0.0]
    assert found.exponent.tolist() == [0, 1, 2]
    assert found.error == 0.25
    assert _finite(Sum(1.5, 2.0**-60, 3, 0.25)) == Sum(1.5, 2.0**-60, 3, 0.25)
    for broken in (math.nan, math.inf):
        assert _finite(Sum(broken, math.nan, 3, 0.25)) == Sum(0.0, 0.0, 0, 0.25)


def test_norms_of_slices_beyond_float64_are_infinite_without_a_warning() -> None:
    x = np.array([[1.5e308, 1.5e308], [3.0, 4.0]])
    assert cc.l1_norm(x, axis=1).tolist() == [math.inf, 7.0]
    assert cc.l2_norm(x, axis=1).tolist() == [math.inf, 5.0]
    assert cc.clip_by_l2_norm(x, 10.0, axis=1)[1].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), (1, 0), -1])
def test_slices_whose_norm_is_a_hair_beside_the_limit_are_told_apart(axis: Any) -> None:
    axes = axis if isinstance(axis, tuple) else (axis,)
    shape = [3, 3, 3]
    for k in axes:
        shape[k] = 2
    x = np.zeros(shape)
    # Views with the axes of a group last.
    groups = np.moveaxis(x, axes, range(-len(axes), 0))
    places = list(np.ndindex(groups.shape[: 3 - len(axes)]))
    pairs = [(1.0, 2.0**-60), (0.5, 0.5), (1 - 2.0**-53, 2.0**-54), (1.0, 5e-324), (1 - 2.0**-53, 2.0**-53)]
    for number, place in enumerate(places):
        groups[place].flat[[0, -1]] = pairs[number % len(pairs)]
    results = np.moveaxis(cc.clip_by_l1_norm(x, 1.0, axis=axis), axes, range(-len(axes), 0))
    for place in places:
        assert (bits(groups[place]) != bits(results[place])) is (total(groups[place]) > 1)
        assert total(results[place]) <= 1


@pytest.mark.parametrize(
    ("clip", "elements", "limit", "above"),
    [
        (cc.clip_by_l1_norm, [1.0, 2.0**-60], 1.0, True),
        (cc.clip_by_l1_norm, [0.5, 0.5], 1.0, False),
        (cc.clip_by_l1_norm, [1 - 2.0**-53, 2.0**-54], 1.0, False),
        (cc.clip_by_l1_norm, [3 + 4j], 5.0, False),
        (cc.clip_by_l1_norm, [3 + 4j, 2.0**-60], 5.0, True),
        (cc.clip_by_l2_norm, [3.0, 4.0, 2.0**-30], 5.0, True),
        (cc.clip_by_l2_norm, [3.0, 4.0], 5.0, False),
        (cc.clip_by_l2_norm, [3.0, 4 - 2.0**-51, 2.0**-26], 5.0, False),
    ],
)
def test_an_array_whose_norm_is_a_hair_beside_the_limit(
    clip: Any, elements: list[complex], limit: float, above: bool
) -> None:
    x = np.array(elements)
    power = 1 if clip is cc.clip_by_l1_norm else 2
    moduli = [Fraction(5) if element == 3 + 4j else Fraction(element.real) for element in elements]
    assert (sum(modulus**power for modulus in moduli) > Fraction(limit) ** power) is above
    assert (bits(clip(x, limit)) != bits(x)) is above


def test_many_subnormal_elements_that_round_up_do_not_add_up_to_more_than_the_limit() -> None:
    size, least = 4096, Fraction(1, 2**1074)
    x = np.full(size, float((2**48 + 1) * least))
    for share in (0.6, 0.7, 0.8, 0.9):
        # Each element is to become 2**47 and a share of the smallest subnormal.
        limit = float(size * (2**47 + Fraction(share)) * least)
        for clipped in (cc.clip_by_l1_norm(x, limit), cc.clip_by_l1_norm(np.stack([x, x]), limit, axis=1)[1]):
            assert total(clipped) <= Fraction(limit)
            assert total(clipped) >= Fraction(limit) - size * least


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("start", [0.25, 0.5, 0.99, 1.0, 1.5, 2.0, 7.0])
def test_elements_about_the_smallest_normal_keep_the_bound_and_lose_little(start: float, name: str) -> None:
    facts = FORMATS[name]
    normal, least = Fraction(facts.smallest_normal), Fraction(2) ** facts.smallest
    for k in range(12):
        # Between two multiples of the smallest subnormal, where the limit can be.
        limit = float(normal * Fraction(start * (1 + k / 2**13)) + least * Fraction(k * 0.09))
        # Where the factor is a hair above the root of one half, its grid is coarsest.
        ratios = np.concatenate([1.02 + np.arange(20) / 8 * 1.0137, 1.4141 - np.arange(20) * 0.0007])
        x = (limit * ratios).astype(name).reshape(-1, 1)
        alone = np.array([cc.clip_by_l2_norm(x[k], limit) for k in range(0, 40, 9)])
        clipped = cc.clip_by_l2_norm(x, limit, axis=1)
        assert bits(alone) == bits(clipped[::9])
        for after in clipped.ravel().tolist():
            lost = (Fraction(limit) - Fraction(after)) / Fraction(limit)
            assert lost >= 0
            assert lost <= (
                Fraction(4, 2**facts.precision) if limit >= normal else 4 * least / Fraction(limit)
            )


def test_a_norm_given_that_equals_the_limit_changes_nothing() -> None:
    leaves = [np.array([3.0, -4.0]), np.array([-0.0])]
    clipped, norm = cc.clip_by_global_norm(leaves, 0.5, norm=0.5)
    assert bits(clipped) == bits(leaves)
    assert norm == 0.5
    (clipped,), _ = cc.clip_by_global_norm(leaves[:1], math.nextafter(0.5, 0), norm=0.5)
    assert np.all(np.abs(clipped) < np.abs(leaves[0]))


def test_a_norm_given_that_is_the_exact_one_rounded_keeps_the_bound() -> None:
    rounded_down = 0
    for first, second, limit in RNG.uniform(1, [1.001, 1.001, 1.0001], (1500, 3)).tolist():
        # The sum of two such numbers, where it is no float, lies half a step from the nearest ones.
        x = np.array([first, second])
        rounded_down += Fraction(first + second) < total(x)
        clipped, _ = cc.clip_by_global_norm(x, limit, ord=1, norm=first + second)
        assert total(clipped) <= Fraction(limit)
    assert rounded_down > 100


def test_a_norm_given_costs_twice_its_own_rounding_and_no_more() -> None:
    # Beside that: the margin, the grid of the factor and the rounding of the element.
    most = (2 + Fraction(65, 64) + Fraction(14143, 10000) + 1) * U
    for x in RNG.uniform(0.7066, 0.7070, 300):
        for limit in RNG.uniform(0.5001, 0.5003, 5).tolist():
            clipped, _ = cc.clip_by_global_norm(np.array([x]), limit, norm=x)
            assert Fraction(limit) * (1 - most) <= total(clipped) <= Fraction(limit)


def test_ranks_that_can_tell_and_ranks_that_cannot_take_one_decision() -> None:
    shards = [np.array([1.0, 2.0**-60]), np.array([2.0**-60]), np.array([2.0**-70])]

    def rank(index: int, all_reduce: Any) -> Any:
        return cc.clip_by_global_norm(shards[index], 1.0, ord=1, all_reduce=all_reduce)[0]

    for shard, clipped in zip(shards, on_ranks(3, rank), strict=True):
        assert np.all(clipped < shard)
