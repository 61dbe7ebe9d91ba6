"""Value and weight clips, norms given, norms over ranks: the engines are judged by exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from edge_support import (
    MACHINES,
    NO_FLOAT64,
    NUMPY,
    PORTABLE,
    STRICT,
    Array,
    Machine,
    bits,
    on_ranks,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_engines import norm_is_off, result_flaws

import clipcore as cc
from clipcore.verify.formats import cast_bound, exact_values

few = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float32", "float64"]


def exactly(x: Array, lower: Any, upper: Any) -> tuple[Array, Array]:
    """min(max(x, lower), upper) by exact numbers, NaN where a bound is, and what stays as it is."""
    result, stays = np.array(x), np.ones(x.shape, bool)
    for bound, side in ((lower, "lower"), (upper, "upper")):
        if bound is None:
            continue
        cast = np.broadcast_to(cast_bound(bound, x.dtype, side), x.shape)  # type: ignore[arg-type]
        pairs = zip(np.ndindex(x.shape), exact_values(result), exact_values(cast), strict=True)
        for index, value, limit in pairs:
            below = value < limit if side == "lower" else value > limit
            if value == value and (below or limit != limit):
                result[index], stays[index] = cast[index], False
    return result, stays


def is_exactly(got: Array, x: Array, want: tuple[Array, Array]) -> bool:
    """Tell whether what stays has its bits, and the rest its values: the sign of a zero bound is free."""
    exact, stays = want
    if got.dtype != x.dtype or got.shape != x.shape:
        return False
    replaced = (got == exact) | ((got != got) & (exact != exact))
    return bool(np.all(stays | replaced)) and got[stays].tobytes() == x[stays].tobytes()


def exact_bound(bound: Array) -> Any:
    """A 0-d bound, of longdouble as a fraction."""
    if bound.dtype.name in ("float16", "float32", "float64") or bound.dtype.kind in "iu":
        return bound
    number: Any = bound[()]
    return Fraction(*number.as_integer_ratio()) if np.isfinite(number) else float(number)


def elements(dtype: str) -> st.SearchStrategy[Any]:
    return hnp.from_dtype(np.dtype(dtype), allow_nan=True, allow_infinity=True)


@st.composite
def bounds(draw: Callable[..., Any], dtype: str) -> Any:
    """An array bound that broadcasts to (2, 3), of any dtype that may bound this one."""
    kinds = INTEGERS if dtype in INTEGERS else INTEGERS + FLOATS
    kind = draw(st.sampled_from(kinds))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 1), (2, 3)]))
    return draw(hnp.arrays(kind, shape, elements=elements(kind)))


@st.composite
def value_cases(draw: Callable[..., Any]) -> tuple[Array, Any, Any]:
    dtype = draw(st.sampled_from(INTEGERS + FLOATS))
    x = draw(hnp.arrays(dtype, (2, 3), elements=elements(dtype)))
    maybe = st.none() | bounds(dtype)
    return x, draw(maybe), draw(maybe)


@given(case=value_cases())
@few
def test_array_bounds_give_the_exact_values_on_every_engine(case: tuple[Array, Any, Any]) -> None:
    want = exactly(*case)
    for machine, clip in product(MACHINES, [cc.clip_by_value, cc.clip_weights]):
        assert is_exactly(machine.run(clip, *case), case[0], want), (machine, clip)


@given(
    dtype=st.sampled_from(INTEGERS + FLOATS),
    ends=st.tuples(*[st.none() | st.integers(-(2**66), 2**66) | st.floats(allow_nan=False)] * 2),
    data=st.data(),
)
@few
def test_scalar_bounds_give_the_exact_values_on_every_engine_or_the_same_error(
    dtype: str, ends: tuple[float | None, float | None], data: st.DataObject
) -> None:
    x = data.draw(hnp.arrays(dtype, (2, 3), elements=elements(dtype)))
    lower, upper = ends
    answers: list[Any] = []
    for machine, clip in product(MACHINES, [cc.clip_by_value, cc.clip_weights]):
        try:
            answers.append(machine.run(clip, x, lower, upper))
        except ValueError as error:
            answers.append(str(error).partition(": ")[2])
    if isinstance(answers[0], str):
        assert set(answers) == {answers[0]}
        assert hold_nothing(lower, upper, np.dtype(dtype))
    else:
        want = exactly(x, None if lower == -math.inf else lower, None if upper == math.inf else upper)
        assert all(is_exactly(answer, x, want) for answer in answers)


def hold_nothing(lower: float | None, upper: float | None, dtype: np.dtype[Any]) -> bool:
    """Tell whether no finite value of a dtype is within two bounds."""
    top = exact_values(np.array([np.iinfo(dtype).max if dtype.kind in "iu" else np.finfo(dtype).max], dtype))[
        0
    ]
    low = Fraction(-top if dtype.kind == "f" else np.iinfo(dtype).min)
    at_least = low if lower is None or lower <= low else exact_values(cast_bound(lower, dtype, "lower"))[0]
    at_most = top if upper is None or upper >= top else exact_values(cast_bound(upper, dtype, "upper"))[0]
    beyond = (lower is not None and lower > top) or (upper is not None and upper < low)
    return beyond or at_least > at_most


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS, "float16", "longdouble"])
def test_16_bit_leaves_take_array_bounds_of_any_dtype(dtype: Any, kind: str) -> None:
    x = np.array([-np.inf, -3.3, -0.0, 0.0, 1.1, 300, np.inf, np.nan]).astype(dtype)
    info: Any = np.iinfo(kind) if kind in INTEGERS else np.finfo(kind)
    ends = [info.min, info.max, 0, 1, 100]
    if kind not in INTEGERS:
        ends += [1.1, -2.2, 1e-30, -1e-30, np.nan, np.inf, -np.inf]
    for low, high in product(ends, ends):
        lower, upper = np.array(low, kind), np.array(high, kind)
        want = exactly(x, *(exact_bound(bound) for bound in (lower, upper)))
        for machine in [NUMPY] if dtype is ml_dtypes.bfloat16 or kind == "longdouble" else [NUMPY, PORTABLE]:
            assert is_exactly(machine.run(cc.clip_by_value, x, lower, upper), x, want), (machine, low, high)


@pytest.mark.parametrize("machine", [*MACHINES, NO_FLOAT64], ids=str)
@given(
    numbers=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=5),
    limit=st.floats(0, 2.0**60, width=32),
    norm=st.floats(2.0**-60, 2.0**60, width=32),
)
@few
def test_a_norm_given_is_taken_as_it_is(
    machine: Machine, numbers: list[float], limit: float, norm: float
) -> None:
    x = np.array(numbers, np.float32)
    result, returned = machine.run(cc.clip_by_global_norm, [x], limit, norm=norm)
    assert returned == norm
    assert returned.dtype == (np.float64 if machine.has_float64 else np.float32)
    if norm <= limit:
        assert bits(result) == bits([x])
        return
    slack = Fraction(2) ** (-44 if machine.has_float64 else -21)
    ulp = Fraction(2) ** -149
    for value, new in zip(x.tolist(), result[0].tolist(), strict=True):
        ideal = Fraction(value) * Fraction(limit) / Fraction(norm)
        spacing = max(ulp, Fraction(2) ** (math.frexp(float(ideal))[1] - 24))
        assert abs(Fraction(new) - ideal) <= 4 * spacing + slack * abs(ideal)
        assert abs(new) <= abs(value)
        assert math.copysign(1, new) == math.copysign(1, value)


@pytest.mark.parametrize("machine", [*MACHINES, NO_FLOAT64], ids=str)
@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("size", [1, 2.0**90, 2.0**-90], ids=["middle", "large", "small"])
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_ranks_take_one_decision_that_keeps_the_laws(
    machine: Machine, order: float, size: float, shards: int
) -> None:
    x = (np.random.default_rng(5).standard_normal(401) * size).astype(np.float32)
    parts = np.array_split(x, shards)
    limit = float(np.float32(np.max(np.abs(x)) * 0.7))

    def rank(index: int, all_reduce: Callable[..., Any]) -> Any:
        tree = [machine.put(parts[index])] if index < shards else []
        results, norm = cc.clip_by_global_norm(tree, limit, ord=order, all_reduce=all_reduce)
        again = cc.global_norm(tree, ord=order, all_reduce=all_reduce)
        return (
            machine.get(results),
            np.array(norm if isinstance(norm, np.ndarray) else np.from_dlpack(norm)),
            again,
        )

    with machine.serving():
        answers = on_ranks(shards + 1, rank)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    *ranks, (nothing, last, _) = answers
    assert nothing == []
    for _, norm, again in ranks:
        assert norm_is_off(machine, norm, [x], order) is None
        assert float(norm) == float(ranks[0][1]) == float(again)
    assert abs(float(last) - float(ranks[0][1])) <= (0 if machine.has_float64 else 2.0**-22 * float(last))
    result = [leaf for results, _, _ in ranks for leaf in results]
    everywhere = STRICT if machine is NUMPY else machine
    assert list(result_flaws(everywhere, parts, result, limit, order)) == []
    assert bits(result) != bits(parts)
