"""The oracle against what was computed without it: `decimal`, Python's integers and floats, NumPy's finfo."""

from __future__ import annotations

import decimal
import itertools
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import COMPLEX, FLOATING, INTEGERS

from clipcore.verify.exact import (
    compare_norm,
    exact_norm,
    factor_bounds,
    ideal,
    norm_bounds,
    ulp,
    ulps_away,
)
from clipcore.verify.formats import (
    Array,
    Side,
    cast_bound,
    exact_values,
    format_of,
    from_patterns,
    is_finite,
    nan_components,
    order_keys,
    patterns,
)

F16, BF16, F32, F64 = FLOATING
ALL_16 = np.arange(1 << 16, dtype=np.uint16)

finite = st.floats(allow_nan=False, allow_infinity=False)


def as_fractions(x: Array) -> list[Fraction]:
    """The components by way of Python's floats, which hold every one of them exactly."""
    parts = x.reshape(-1).view(x.real.dtype) if x.dtype.kind == "c" else x.reshape(-1)
    return [Fraction(float(value)) for value in parts]


def widened(x: Array) -> Array:
    """A 16-bit array as float64; only bfloat16's NaN warn about being one."""
    with np.errstate(invalid="ignore"):
        return x.astype(np.float64)


# --- formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX], ids=str)
def test_format_facts_are_those_of_finfo(dtype: np.dtype[Any]) -> None:
    form = format_of(dtype)
    finfo: Any = ml_dtypes.finfo if dtype == BF16 else np.finfo
    info = finfo(dtype)
    assert form.roundoff == Fraction(float(info.eps)) / 2
    assert form.smallest_normal == Fraction(float(info.smallest_normal))
    assert form.smallest_subnormal == Fraction(float(info.smallest_subnormal))
    assert form.largest == Fraction(float(info.max))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_every_16_bit_pattern_is_read_exactly(dtype: np.dtype[Any]) -> None:
    x = ALL_16.view(dtype)
    for value, expected in zip(exact_values(x), widened(x).tolist(), strict=True):
        assert value == expected or (math.isnan(expected) and math.isnan(value))
    assert np.array_equal(nan_components(x), np.isnan(widened(x)))


@given(st.lists(finite, max_size=5))
def test_float64_is_read_exactly_in_any_layout(values: list[float]) -> None:
    expected = [Fraction(value) for value in values]
    x = np.array(values, dtype=np.float64)
    for same in (x, x.astype(">f8"), np.repeat(x, 3)[::3], x[::-1].copy()[::-1]):
        assert exact_values(same) == expected
    assert exact_values(x.view(np.int64).astype(">i8")) == [Fraction(int(n)) for n in x.view(np.int64)]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_complex_components_are_read_in_turn(values: list[float]) -> None:
    x = np.array([complex(*values[:2]), complex(*values[2:])], dtype=np.complex64)
    assert exact_values(x) == exact_values(x.astype(">c8")) == [Fraction(value) for value in values]


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_order_keys_order_the_values(dtype: np.dtype[Any]) -> None:
    x = ALL_16.view(dtype)
    x = x[~np.isnan(widened(x))]
    wide, keys = x.astype(np.float64), order_keys(x)
    order = np.argsort(keys, kind="stable")
    assert np.array_equal(np.diff(wide[order]) > 0, np.diff(keys[order]) > 0)
    assert np.all(np.diff(wide[order]) >= 0)


@pytest.mark.parametrize("name", ["longdouble", "int32", "bool", "object"])
def test_other_dtypes_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="the oracle knows"):
        format_of(np.dtype(name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_of_nonfinite_leaves_is_refused(bad: float) -> None:
    assert not is_finite([np.ones(2), np.array([0.0, bad])])
    with pytest.raises(ValueError, match="not a real number"):
        exact_norm([np.array([1.0, bad])], 2)


# --- norms -----------------------------------------------------------------------------------------------


def compared(leaves: Sequence[Array], limit: Fraction, order: float) -> int:
    """The comparison by rational arithmetic alone: sums of squares against the square of the limit."""
    values = [abs(value) for leaf in leaves for value in as_fractions(leaf)]
    if order == 2:
        norm, limit = sum((value**2 for value in values), Fraction(0)), limit**2
    else:
        norm = sum(values, Fraction(0)) if order == 1 else max(values, default=Fraction(0))
    return (norm > limit) - (norm < limit)


@pytest.mark.parametrize("order", [1, 2, math.inf])
@given(data=st.data())
def test_real_norms_compare_as_rationals_do(order: float, data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(FLOATING), min_size=1, max_size=3))
    pattern = {dtype: st.integers(0, format_of(dtype).infinity - 1) for dtype in FLOATING}
    leaves = [from_patterns(data.draw(st.lists(pattern[dtype], max_size=4)), dtype) for dtype in dtypes]
    low, high = norm_bounds(leaves, order)
    assert compared(leaves, low, order) >= 0 >= compared(leaves, high, order)
    assert high - low <= high / 2**120
    for limit in (low, high, low * Fraction(1 - 2**-50), high * (1 + Fraction(1, 2**200)), Fraction(1)):
        assert compare_norm(leaves, limit, order) == compared(leaves, limit, order)


@pytest.mark.parametrize("order", [1, 2, math.inf])
@given(parts=st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
def test_complex_norms_enclose_those_of_decimal(order: float, parts: list[tuple[float, float]]) -> None:
    low, high = norm_bounds([np.array([complex(*pair) for pair in parts])], order)
    with decimal.localcontext(prec=60):
        squares = [Decimal(re) ** 2 + Decimal(im) ** 2 for re, im in parts]
        moduli = [square.sqrt() for square in squares]
        norm = {1: sum(moduli), 2: sum(squares, Decimal(0)).sqrt(), math.inf: max(moduli)}[order]
        middle = Decimal(low.numerator) / low.denominator
        assert abs(middle - norm) <= norm * Decimal(2) ** -115
    assert low <= high <= low * (1 + Fraction(1, 2**110))


def test_norms_at_their_limit_are_equal_to_it() -> None:
    assert compare_norm([np.array([3, 4], np.float16)], 5, 2) == 0
    assert compare_norm([np.array([3, -4], BF16), np.array([12.0])], 13, 2) == 0
    assert compare_norm([np.array([3 + 4j, 5 - 12j, -7j])], 25, 1) == 0
    assert compare_norm([np.array([8 + 15j, 1])], 17, math.inf) == 0
    assert compare_norm([np.array([0.1, 0.2])], Fraction(0.1) + Fraction(0.2), 1) == 0
    assert compare_norm([], 0, 2) == compare_norm([np.zeros(3, np.float32)], 0, 1) == 0
    assert compare_norm([np.array([5e-324])], 5e-324, 2) == 0


@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_a_hair_decides(order: float) -> None:
    hair = Fraction(1, 2**3000)
    x = [np.array([3 + 4j])]
    assert compare_norm(x, 5 - hair, order) == 1
    assert compare_norm(x, 5 + hair, order) == -1
    assert compare_norm(x, math.inf, order) == -1
    assert compare_norm(x, -1, order) == 1


def test_an_irrational_sum_is_told_from_a_limit_that_agrees_to_a_thousand_bits() -> None:
    x = np.array([1 + 1j, 1 + 2j, 3 + 4j])  # √2 + √5 + 5
    with decimal.localcontext(prec=310):
        close = Fraction(Decimal(2).sqrt() + Decimal(5).sqrt() + 5)
    assert compare_norm([x], close - Fraction(1, 10**305), 1) == 1
    assert compare_norm([x], close + Fraction(1, 10**305), 1) == -1


def test_range_of_the_double_is_no_limit() -> None:
    huge = [np.full(4, 1.7e308)]
    assert norm_bounds(huge, 2) == (2 * Fraction(1.7e308),) * 2
    assert norm_bounds(huge, 1) == (4 * Fraction(1.7e308),) * 2
    tiny = [np.full(9, 5e-324), np.zeros(2, np.float16)]
    assert norm_bounds(tiny, 2) == (3 * Fraction(5e-324),) * 2


@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX], ids=str)
def test_a_million_equal_elements_sum_exactly(dtype: np.dtype[Any]) -> None:
    count = 10**6
    x = np.full(count, 1.1).astype(dtype)
    value = as_fractions(x[:1])[0]
    assert exact_norm([x], 1).bounds() == (count * value,) * 2
    assert exact_norm([x], 2).bounds() == (1000 * value,) * 2


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_a_million_normals_sum_as_fsum_does(dtype: np.dtype[Any]) -> None:
    x = np.random.default_rng(7).standard_normal(1 << 20).astype(dtype)
    wide = x.astype(np.float64)
    assert float(norm_bounds([x], 1)[0]) == math.fsum(np.abs(wide).tolist())
    low, high = norm_bounds([x[:1000], x[1000:]], 2)
    # squares as two doubles each: a product and its error, by Dekker's splitting
    square = wide * wide
    top = wide * 134217729.0 - (wide * 134217729.0 - wide)
    rest = wide - top
    error = ((top * top - square) + 2 * top * rest) + rest * rest
    assert math.fsum([*square.tolist(), *error.tolist()]) == float((low * low + high * high) / 2)


# --- ideal results, ulp ----------------------------------------------------------------------------------


@given(
    st.lists(finite, min_size=1, max_size=4).filter(any),
    st.floats(0, 1e308, exclude_min=True),
)
def test_ideal_results_enclose_those_of_decimal(values: list[float], limit: float) -> None:
    x = np.array(values)
    enclosures = ideal(x, limit, exact_norm([x], 2))
    with decimal.localcontext(prec=60):
        norm = sum((Decimal(value) ** 2 for value in values), Decimal(0)).sqrt()
        factor = min(Decimal(1), Decimal(limit) / norm)
        for value, (low, high) in zip(values, enclosures, strict=True):
            expected = Decimal(value) * factor
            for end in (low, high):
                got = Decimal(end.numerator) / end.denominator
                assert abs(got - expected) <= abs(expected) * Decimal(2) ** -90
            assert low <= high


def test_the_factor_is_one_exactly_where_nothing_is_clipped() -> None:
    norm = exact_norm([np.array([3.0, 4.0])], 2)
    assert factor_bounds(5, norm).ideal(Fraction(7)) == (Fraction(7),) * 2
    low, high = factor_bounds(math.nextafter(5, 0), norm).ideal(Fraction(7))
    assert low <= high < 7
    assert factor_bounds(0, norm).ideal(Fraction(-7)) == (Fraction(0),) * 2


@given(finite)
def test_ulp_is_that_of_the_standard_library_at_doubles(value: float) -> None:
    assert ulp(Fraction(value), F64) == Fraction(math.ulp(value))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_ulp_is_the_gap_to_the_next_number_at_every_16_bit_number(dtype: np.dtype[Any]) -> None:
    form = format_of(dtype)
    numbers = as_fractions(ALL_16[: form.infinity].view(dtype))
    for value, following in itertools.pairwise(numbers):
        assert ulp(value, dtype) == ulp(-(value + following) / 2, dtype) == following - value


def test_ulp_goes_on_beyond_the_range_and_ends_at_the_smallest_subnormal() -> None:
    assert ulp(Fraction(2) ** 16, F16) == 64
    assert ulp(Fraction(1, 10**400), F64) == Fraction(5e-324)
    assert ulps_away(Fraction(3), Fraction(2), Fraction(2), F16) == 512
    assert ulps_away(Fraction(2), Fraction(1), Fraction(3), F16) == 0


# --- bounds that still hold ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_bounds_between_any_two_16_bit_numbers_round_to_the_side_that_holds(dtype: np.dtype[Any]) -> None:
    form = format_of(dtype)
    numbers = np.concatenate([ALL_16[: form.infinity].view(dtype), -ALL_16[1 : form.infinity].view(dtype)])
    numbers = np.sort(numbers.astype(np.float64))
    between = (numbers[1:] + numbers[:-1]) / 2
    assert np.array_equal(cast_bound(between, dtype, "upper").astype(np.float64), numbers[:-1])
    assert np.array_equal(cast_bound(between, dtype, "lower").astype(np.float64), numbers[1:])
    sides: tuple[Side, Side] = ("lower", "upper")
    for side in sides:
        assert np.array_equal(cast_bound(numbers, dtype, side).astype(np.float64), numbers)


@given(finite)
def test_bounds_cast_to_float32_are_the_tightest_that_hold(bound: float) -> None:
    upper, lower = float(cast_bound(bound, F32, "upper")), float(cast_bound(bound, F32, "lower"))
    assert lower >= bound or lower == float(np.finfo(F32).max)
    assert upper <= bound or upper == float(np.finfo(F32).min)
    with np.errstate(over="ignore"):
        assert upper == lower == bound or np.nextafter(np.float32(upper), np.float32(np.inf)) == lower


@pytest.mark.parametrize(
    ("bound", "side", "expected"),
    [
        (1e6, "upper", 65504),
        (-1e6, "lower", -65504),
        (-1e6, "upper", -math.inf),
        (1e6, "lower", math.inf),
        (math.inf, "upper", math.inf),
        (-math.inf, "upper", -math.inf),
        (Fraction(10) ** 400, "upper", 65504),
        (-(10**400), "lower", -65504),
        (-1e-300, "upper", -(2.0**-24)),
        (-1e-300, "lower", 0),
        (1e-300, "lower", 2.0**-24),
    ],
)
def test_bounds_at_the_ends_of_float16(bound: Fraction | float, side: Side, expected: float) -> None:
    assert float(cast_bound(bound, F16, side)) == expected


def test_a_bound_that_is_nan_stays_nan() -> None:
    for dtype in FLOATING:
        assert np.isnan(
            cast_bound(np.array([math.nan, 1.0]), dtype, "upper").astype(np.float64)
        ).tolist() == [True, False]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_bounds_of_integers_are_rounded_and_kept_in_range(dtype: np.dtype[Any]) -> None:
    info = np.iinfo(dtype)
    for bound, upper, lower in (
        (2.5, 2, 3),
        (7, 7, 7),
        (10**30, info.max, info.max),
        (-(10**30), info.min, info.min),
        (math.inf, info.max, info.max),
        (-math.inf, info.min, info.min),
    ):
        assert int(cast_bound(bound, dtype, "upper")) == upper
        assert int(cast_bound(bound, dtype, "lower")) == lower


def test_patterns_survive_the_way_there_and_back() -> None:
    for dtype in (F16, BF16):
        assert np.array_equal(patterns(from_patterns(ALL_16, dtype)), ALL_16)
    z = np.array([1 + 2j, -0.0 - 0j])
    assert np.array_equal(
        from_patterns(patterns(z.astype(">c16")), z.dtype).view(np.uint64), z.view(np.uint64)
    )
