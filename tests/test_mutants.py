"""The testers tested: every law catches an implementation that breaks it, and accuses no correct one."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from mutants import C64, C128, F16, F32, F64, MUTANTS, Clip, moved
from reference import COMPLEX, FLOATING, INTEGERS, REFERENCE

from clipcore.verify.cases import cases
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import value_laws
from clipcore.verify.formats import Array
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, judge
from clipcore.verify.laws import (
    Group,
    bound,
    direction,
    identity,
    norm_accuracy,
    scale,
    scaled_by,
    scales,
    tightness,
)

TRIED = 150


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [(operation, dtype) for operation in (*NORM_CLIPS, *NORMS) for dtype in (*FLOATING, *COMPLEX)]
    + [(operation, dtype) for operation in VALUE_CLIPS for dtype in (*FLOATING, *INTEGERS)],
    ids=str,
)
def test_the_exact_implementations_are_not_accused(operation: str, dtype: np.dtype[Any]) -> None:
    accused = [(str(case), judge(REFERENCE[operation], case)) for case in cases(operation, dtype, 2, 60)]
    assert [pair for pair in accused if pair[1]] == []


@pytest.mark.parametrize(
    ("operation", "law", "dtype", "mutant"),
    [
        pytest.param(operation, law, dtype, mutant, id=f"{operation}, {law}: {what}")
        for operation, listed in MUTANTS.items()
        for law, what, dtype, mutant in listed
    ],
)
def test_a_mutant_is_caught_by_the_law_it_breaks(
    operation: str, law: str, dtype: np.dtype[Any], mutant: Clip
) -> None:
    assert any(
        law == violation.law
        for case in cases(operation, dtype, 0, TRIED)
        for violation in judge(mutant, case)
    )


def test_every_law_has_a_mutant() -> None:
    named = {law for listed in MUTANTS.values() for law, *_ in listed}
    clips = {"bound", "identity", "tightness", "direction", "idempotence", "scale", "range"}
    assert named == clips | {"norm", "edges", "form", "call"}


def test_what_a_mutant_wrote_is_restored() -> None:
    x = np.array([3.0, 4.0])

    def clip(x: Array, _limit: float) -> Array:
        x *= 2
        return x.copy()

    found = judge(clip, Case("clip_by_l2_norm", "", x, (5.0,)))
    assert {"form", "identity"} <= {violation.law for violation in found}
    assert x.tolist() == [3, 4]


# --- where exactly each law begins -----------------------------------------------------------------------

X = np.array([3.0, 4.0, -0.0])


def clipped(result: Array, limit: float, x: Array = X, slack: Fraction = Fraction(0)) -> Group:
    return Group((x.astype(result.dtype),), (result,), limit, 2, slack)


def test_bound_begins_one_ulp_above_the_limit() -> None:
    assert bound(clipped(np.array([0.6, 0.0, 0.8]) * 0 + [0, 2.5, -0.0], 2.5)) is None
    assert bound(clipped(np.array([0, math.nextafter(2.5, 3), -0.0]), 2.5)) is not None
    assert bound(clipped(np.array([0, math.nextafter(2.5, 3), -0.0]), 2.5, slack=Fraction(1, 2**44))) is None
    assert bound(clipped(np.array([0, 2.5 * (1 + 2**-43), -0.0]), 2.5, slack=Fraction(1, 2**44))) is not None


def test_identity_ends_at_the_exact_norm() -> None:
    other = X * 0.5
    assert identity(clipped(other, 5.0)) is not None
    assert identity(clipped(other, math.nextafter(5.0, 0))) is None
    assert identity(clipped(other, 5.0, slack=Fraction(1, 2**44))) is None
    assert identity(clipped(other, 5.001, slack=Fraction(1, 2**44))) is not None
    assert identity(clipped(X + 0.0, 5.0)) is not None  # −0.0 became 0.0


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_tightness_allows_four_roundoffs(dtype: np.dtype[Any]) -> None:
    one = np.array([1, 0], dtype)  # below 1 the numbers are u apart
    assert tightness(clipped(moved(one, -4), 1.0, np.array([8.0, 0.0]))) is None
    assert tightness(clipped(moved(one, -5), 1.0, np.array([8.0, 0.0]))) is not None


def test_tightness_asks_nothing_where_a_component_is_lost_among_subnormals() -> None:
    x = np.array([8.0, 2.0**-13], F16)
    zero = np.zeros(2, F16)
    assert tightness(Group((x,), (zero,), 1.0)) is None
    assert tightness(Group((np.array([8.0, 1.0], F16),), (zero,), 1.0)) is not None
    assert tightness(Group((x,), (zero,), 8.0)) is not None  # here 2^-13 · C/‖x‖ is still normal


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("steps", [-5, -4, 0, 4, 5])
def test_direction_allows_four_ulp(dtype: np.dtype[Any], steps: int) -> None:
    result = moved(np.array([1.5, 0], dtype), steps)
    assert (direction(clipped(result, 1.5, np.array([8.0, 0.0]))) is None) == (abs(steps) <= 4)


def test_direction_counts_smallest_subnormals_among_subnormals() -> None:
    x = np.array([2.0**-15, 2.0])
    for steps, kept in ((4, True), (5, False)):
        result = np.array([2.0**-15 / 4 + steps * 2.0**-24, 0.5], F16)
        assert (direction(clipped(result, 0.5 * (1 + 2.0**-33), x)) is None) == kept


def test_direction_refuses_growth_and_signs_even_within_four_ulp() -> None:
    limit = math.nextafter(5.0, 0)
    x = np.array([3.0, 4.0, 0.0])
    for index, value in ((0, math.nextafter(3, 4)), (2, -0.0), (2, 5e-324), (0, -3.0)):
        result = x.copy()
        result[index] = value
        assert direction(clipped(result, limit, x)) is not None
    assert direction(clipped(x, limit, x)) is None


@pytest.mark.parametrize(("dtype", "allowed"), [(F16, 0), (F32, 0), (F64, 1), (C64, 0), (C128, 1)], ids=str)
def test_scale_allows_one_ulp_only_for_doubles(dtype: np.dtype[Any], allowed: int) -> None:
    group = clipped(np.array([1.25, 0]).astype(dtype), 1.25, np.array([8.0, 0.0]))
    assert scales(group, 3)
    for steps in (0, 1, 2):
        scaled = moved(scaled_by(group.results[0], 3), steps)
        assert (scale(group, 3, [scaled]) is None) == (steps <= allowed)


def test_scale_is_not_asked_where_something_leaves_the_normal_range() -> None:
    group = clipped(np.array([1.25, 0], F16), 1.25, np.array([8.0, 0.0]))
    assert [power for power in range(-20, 20) if scales(group, power)] == list(range(-14, 13))


def test_scaling_is_exact() -> None:
    for dtype in (*FLOATING, *COMPLEX):
        x, eighth = (np.array([1.5, -0.0, 3, 0]).astype(real_dtype(dtype)) / n for n in (1, 8))
        assert scaled_by(x.view(dtype), -3).tobytes() == eighth.tobytes()


def real_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.zeros(0, dtype).real.dtype


@pytest.mark.parametrize(
    ("x", "allowed"),
    [
        (np.array([3.0, 4.0]), 2.0**-50),  # 1 ulp of 5
        (np.array([3.0, 4.0], np.float32), 5 * 2.0**-44),
        (np.array([3e-323, 4e-323]), 4 * 5e-324),
    ],
    ids=["float64", "float32", "subnormal"],
)
def test_the_norm_may_be_off_by_its_epsilon(x: Array, allowed: float) -> None:
    exact = float(exact_norm([x], 2).bounds()[0])
    for sign in (1, -1):
        assert norm_accuracy([x], 2, np.array(exact + sign * allowed)) is None
        beyond = math.nextafter(exact + sign * allowed, sign * math.inf)
        assert norm_accuracy([x], 2, np.array(beyond)) is not None


def test_a_norm_beyond_the_range_is_inf_and_no_other() -> None:
    x = [np.array([1.7e308, 1.7e308])]
    assert norm_accuracy(x, 2, np.array(np.inf)) is None
    for wrong in (1.7976931348623157e308, np.nan, 0.0):
        assert norm_accuracy(x, 2, np.array(wrong)) is not None
    assert norm_accuracy([x[0][:1]], 2, np.array(np.inf)) is not None
    assert norm_accuracy([np.zeros(3)], 2, np.array(5e-324)) is not None


@pytest.mark.parametrize(
    ("result", "law"),
    [
        ([0.5, 1.0, -1.0, math.nan, -0.0], None),
        ([0.5, 1.0000001, -1.0, math.nan, -0.0], "bound"),
        ([0.5, 1.0, -1.5, math.nan, -0.0], "bound"),
        ([0.5, 0.9, -1.0, math.nan, -0.0], "tightness"),
        ([0.4, 1.0, -1.0, math.nan, -0.0], "identity"),
        ([0.5, 1.0, -1.0, math.nan, 0.0], "identity"),
        ([0.5, 1.0, -1.0, 1.0, -0.0], "edges"),
        ([0.5, math.nan, -1.0, math.nan, -0.0], "range"),
    ],
)
def test_each_value_law_names_its_own_fault(result: list[float], law: str | None) -> None:
    x = np.array([0.5, 2.0, -math.inf, math.nan, -0.0])
    found = value_laws(x, -1, 1, np.array(result))
    assert (found.law if found else None) == law


def test_scaling_is_not_asked_for_where_a_norm_with_an_error_may_be_decided_either_way() -> None:
    x = (np.array([3.0, 4.0]),)
    near, slack = math.nextafter(5.0, 0), Fraction(2) ** -44
    assert not Group(x, x, near).at_boundary
    assert Group(x, x, near, slack=slack).at_boundary
    assert Group(x, x, 5.0 * (1 + 2.0**-45), slack=slack).at_boundary
    assert not Group(x, x, 5.0 * (1 + 2.0**-43), slack=slack).at_boundary
    assert not Group(x, x, 5.0 * (1 - 2.0**-43), slack=slack).at_boundary
    assert not Group(x, x, math.inf, slack=slack).at_boundary
