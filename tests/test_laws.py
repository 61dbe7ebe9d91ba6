"""Every law, for every function and dtype, judged by exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import COMPLEX, FLOATING, INTEGERS

import clipcore
from clipcore.verify.cases import cases, ordinary
from clipcore.verify.exact import ulp
from clipcore.verify.form import value_laws
from clipcore.verify.formats import Array, cast_bound, format_of, magnitudes, order_keys, patterns
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, judge
from clipcore.verify.laws import Group, nonfinite, norm_accuracy
from clipcore.verify.strategies import arrays, nonfinite_cases, norm_cases, value_cases

Dtype = np.dtype[Any]
F16 = np.dtype(np.float16)
ALL_F16 = np.arange(1 << 16, dtype=np.uint16).view(F16)
FINITE_F16 = ALL_F16[np.isfinite(ALL_F16)]
AIMED = 300

BY_NORM = [
    pytest.param(operation, dtype, id=f"{operation}-{dtype}")
    for operation in (*NORM_CLIPS, *NORMS)
    for dtype in (*FLOATING, *COMPLEX)
]
BY_VALUE = [
    pytest.param(operation, dtype, id=f"{operation}-{dtype}")
    for operation in VALUE_CLIPS
    for dtype in (*FLOATING, *INTEGERS)
]


def verdict(case: Case) -> str:
    """What the library breaks in one case, for people to read; empty where nothing."""
    found = judge(getattr(clipcore, case.operation), case)
    return f"{case}: {found}" if found else ""


@pytest.mark.parametrize(("operation", "dtype"), [*BY_NORM, *BY_VALUE])
def test_aimed_cases_keep_every_law(operation: str, dtype: Dtype) -> None:
    assert [text for case in cases(operation, dtype, seed=1, count=AIMED) if (text := verdict(case))] == []


@pytest.mark.parametrize(("operation", "dtype"), BY_NORM)
@given(data=st.data())
def test_drawn_finite_cases_keep_every_law(operation: str, dtype: Dtype, data: st.DataObject) -> None:
    assert verdict(data.draw(norm_cases(operation, dtype))) == ""


@pytest.mark.parametrize(("operation", "dtype"), BY_NORM)
@settings(max_examples=25)
@given(data=st.data())
def test_drawn_nonfinite_cases_keep_every_law(operation: str, dtype: Dtype, data: st.DataObject) -> None:
    assert verdict(data.draw(nonfinite_cases(operation, dtype))) == ""


@pytest.mark.parametrize(("operation", "dtype"), BY_VALUE)
@given(data=st.data())
def test_drawn_value_cases_keep_every_law(operation: str, dtype: Dtype, data: st.DataObject) -> None:
    assert verdict(data.draw(value_cases(operation, dtype))) == ""


@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX], ids=str)
@pytest.mark.parametrize("operation", list(NORM_CLIPS))
def test_nonfinite_groups_become_zero_where_asked(operation: str, dtype: Dtype) -> None:
    many = operation == "clip_by_global_norm"
    for index, bad in enumerate((np.nan, np.inf, -np.inf)):
        x = ordinary(np.random.default_rng(index), 5, dtype)
        x[index] = bad
        for limit in (1.0, math.inf):
            result = getattr(clipcore, operation)([x] if many else x, limit, nonfinite="zero")
            result = result[0][0] if many else result
            assert nonfinite(Group((x,), (result,), limit), "zero") is None


@pytest.mark.parametrize("order", [1, 2, math.inf])
@given(data=st.data())
def test_norms_do_not_depend_on_order_and_grouping(order: float, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([*FLOATING, *COMPLEX]))
    x = data.draw(arrays(dtype, (data.draw(st.integers(1, 12)),)))
    permuted = x[data.draw(st.permutations(range(x.size)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, x.size), max_size=3)))
    pieces = np.split(permuted, cuts)
    for tree in ([x], pieces, {"b": pieces[0], "a": [None, *pieces[1:]]}):
        assert norm_accuracy([x], order, clipcore.global_norm(tree, ord=order)) is None


# --- every number of float16 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (0, 1),
        (-0.1, 0.1),
        (None, 1e-7),
        (-1e-9, None),
        (-math.inf, 65504),
        (-1e6, 1e6),
        (-0.0, math.inf),
        (None, None),
        (np.float64(-math.pi), np.float64(math.pi)),
    ],
)
def test_every_float16_is_clipped_by_value(lower: Any, upper: Any) -> None:
    assert value_laws(ALL_F16, lower, upper, clipcore.clip_by_value(ALL_F16, lower, upper)) is None


@pytest.mark.parametrize("operation", ["clip_by_l1_norm", "clip_by_l2_norm"])
@pytest.mark.parametrize(
    "limit", [0.0, 5e-324, 1e-7, 3e-5, 0.1, 1.0, math.pi, 1000.2, 65504.0, 65520.0, 1e300]
)
def test_every_float16_alone_is_clipped_to_the_limit(operation: str, limit: float) -> None:
    column = FINITE_F16.reshape(-1, 1)
    result = getattr(clipcore, operation)(column, limit, axis=1)
    assert clipped_alone(FINITE_F16, limit, result) == ""


def clipped_alone(x: Array, limit: float, result: Array) -> str:
    """What is wrong with the elements as groups of their own, for which ‖x‖ = |x| and x·C/‖x‖ = ±C."""
    exact, form = Fraction(limit), format_of(x.dtype)
    least = exact - 4 * ulp(exact, x.dtype)
    if exact >= form.smallest_normal:
        least = max(least, exact * (1 - 4 * form.roundoff))
    before, after = magnitudes(x), magnitudes(result)
    highest = order_keys(cast_bound(exact, x.dtype, "upper"))
    lowest = order_keys(cast_bound(max(least, Fraction(0)), x.dtype, "lower"))
    within = before <= highest
    for wrong, message in (
        (within & (patterns(x) != patterns(result)), "changed within the limit"),
        ((patterns(x) ^ patterns(result)) >> 15 != 0, "changed its sign"),
        (after > highest, "exceeds the limit"),
        (~within & (after < lowest), "clipped too far"),
    ):
        if wrong.any():
            return f"{x[int(np.argmax(wrong))]} at {limit}: {message}"
    return ""


# --- the examples that the contract names ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "norm"),
    [
        (np.array([1e30, 1e30], np.float32), math.sqrt(2) * float(np.float32(1e30))),
        (np.array([300] * 4, np.float16), 600.0),
        (np.array([1e200, 1e-200]), 1e200),
        (np.array([3e-310, 4e-310]), 5e-310),
    ],
    ids=["float32", "float16", "float64", "subnormals"],
)
def test_nothing_over_or_underflows_on_the_way(x: Array, norm: float) -> None:
    assert float(clipcore.l2_norm(x)) == pytest.approx(norm, rel=1e-14)
    for limit in (norm / 3, norm * 3):
        assert verdict(Case("clip_by_l2_norm", "law 8", x, (limit,))) == ""
