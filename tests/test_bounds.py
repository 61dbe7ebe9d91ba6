"""Scalar bounds as values of a dtype: the nearest one on the side that keeps the bound."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from clipcore_backends._formats import FORMATS
from clipcore_backends._numpy import NumpyEngine
from edge_support import STRICT

import clipcore as cc
from clipcore import _bounds, _portable
from clipcore._bounds import round_bounds

DTYPES = [np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
BOUNDS = [
    Fraction(1, 3),
    Fraction(2, 3),
    Fraction(4, 3),
    Fraction(10**5, 7),
    Fraction(3, 10**5),
    Fraction(1, 10**9),
]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype.name))


def value_of(number: Any) -> Fraction:
    return Fraction(float(number))


@each_dtype
@pytest.mark.parametrize("bound", [*BOUNDS, *(-bound for bound in BOUNDS)], ids=str)
def test_a_bound_becomes_the_nearest_value_of_the_dtype_on_its_own_side(dtype: Any, bound: Fraction) -> None:
    for lower, upper, sign in ((None, bound, 1), (bound, None, -1)):
        low, high = round_bounds("f", lower, upper, dtype)
        number = high if sign > 0 else low
        stored = np.asarray(number).astype(dtype)
        assert value_of(stored) == value_of(number)
        assert sign * value_of(stored) <= sign * bound
        towards = np.asarray(sign * math.inf).astype(dtype)
        assert sign * value_of(np.nextafter(stored, towards)) > sign * bound


@each_dtype
def test_a_bound_at_the_end_of_the_range_is_still_within_it(dtype: Any) -> None:
    largest = FORMATS[dtype.name].largest
    x = np.array([1.0, -2.0]).astype(dtype)
    assert cc.clip_by_value(x, largest, None).astype(np.float64).tolist() == [largest, largest]
    assert cc.clip_by_value(x, None, -largest).astype(np.float64).tolist() == [-largest, -largest]
    beyond = Fraction(largest) * (1 + Fraction(1, 10**6))
    with pytest.raises(ValueError, match=f"above every finite {dtype.name}"):
        cc.clip_by_value(x, beyond, None)
    with pytest.raises(ValueError, match=f"below every finite {dtype.name}"):
        cc.clip_by_value(x, None, -beyond)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_an_integer_bound_at_the_end_of_the_range_is_still_within_it(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([1, 2], dtype)
    assert cc.clip_by_value(x, int(info.max), None).tolist() == [info.max] * 2
    assert cc.clip_by_value(x, None, int(info.min)).tolist() == [info.min] * 2
    assert cc.clip_by_value(x, int(info.min), int(info.max)).tolist() == [1, 2]


@each_dtype
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_what_a_bound_of_zero_cuts_gets_the_sign_of_that_zero(dtype: Any, zero: float) -> None:
    x = np.array([2.0, -2.0]).astype(dtype)
    above, below = cc.clip_by_value(x, None, zero), cc.clip_by_value(x, zero, None)
    assert above.astype(np.float64).tobytes() == np.array([zero, -2.0]).tobytes()
    assert below.astype(np.float64).tobytes() == np.array([2.0, zero]).tobytes()


def on_strict_arrays(bound: Any, leaf: Any, *, up: bool) -> Any:
    return STRICT.get(_portable.round_array(STRICT.put(bound), STRICT.put(leaf), up=up))


ROUNDINGS = [NumpyEngine().round_array, _portable.round_array, on_strict_arrays]
# bfloat16 is no dtype of NumPy's own namespace, and float16 none of the array API.
KINDS = [DTYPES, [DTYPES[0], *DTYPES[2:]], DTYPES[2:]]
PAIRS = [
    pytest.param(round_array, dtype, id=f"{name}-{dtype.name}")
    for name, round_array, dtypes in zip(("numpy", "portable", "strict"), ROUNDINGS, KINDS, strict=True)
    for dtype in dtypes
]


def beyond(x: Any, sign: int) -> Any:
    """The next values of the dtype, upwards or downwards."""
    with np.errstate(all="ignore"):
        return np.nextafter(x, np.asarray(sign * math.inf).astype(x.dtype))


def around(*sizes: int) -> list[int]:
    return [sign * (size + step) for size in sizes for step in (-3, -2, -1, 0, 1, 2, 3) for sign in (1, -1)]


@pytest.mark.parametrize(("round_array", "dtype"), PAIRS)
@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_arrays_of_integers_become_the_nearest_values_on_their_own_side(
    kind: str, round_array: Any, dtype: Any
) -> None:
    info = np.iinfo(kind)
    sizes = (0, 2**8, 2**11, 65504, 65520, 2**24, 2**31, 2**53, 2**62, 2**63, int(info.max))
    bounds = sorted({each for each in around(*sizes) if info.min <= each <= info.max})
    for up, sign in ((True, -1), (False, 1)):
        rounded = round_array(np.array(bounds, kind), np.zeros(1, dtype), up=up)
        assert rounded.dtype == dtype
        following = beyond(rounded, sign)
        for bound, found, after in zip(bounds, rounded, following, strict=True):
            assert sign * float(found) <= sign * bound
            assert float(after) * sign > bound * sign


@pytest.mark.parametrize(("round_array", "dtype"), PAIRS)
@pytest.mark.parametrize("kind", DTYPES, ids=lambda dtype: str(dtype.name))
def test_arrays_of_floats_become_the_nearest_values_on_their_own_side(
    kind: Any, round_array: Any, dtype: Any
) -> None:
    kinds = KINDS[ROUNDINGS.index(round_array)]
    kind = kind if kind in kinds else kinds[0]
    facts = FORMATS[kind.name]
    exponents = [facts.smallest, facts.smallest + 3, -25, -24, -14, 0, 15, facts.top - 1]
    sizes = [
        math.ldexp(mantissa, exponent) for exponent in exponents for mantissa in (1, 1.25, 1.3, 1.7, 1.99)
    ]
    bounds = np.array([sign * size for size in [*sizes, 0.0] for sign in (1, -1)]).astype(kind)
    for up, sign in ((True, -1), (False, 1)):
        rounded = round_array(bounds, np.zeros(1, dtype), up=up)
        assert rounded.dtype == dtype
        following = beyond(rounded, sign)
        for bound, found, after in zip(bounds.tolist(), rounded, following, strict=True):
            assert sign * float(found) <= sign * float(bound)
            assert sign * float(after) > sign * float(bound) or float(found) == float(bound)


@pytest.mark.parametrize("round_array", ROUNDINGS, ids=["numpy", "portable", "strict"])
@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "uint64"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_arrays_of_integers_are_cut_to_the_range_of_integers(dtype: str, kind: str, round_array: Any) -> None:
    have, want = np.iinfo(kind), np.iinfo(dtype)
    ends = (0, 5, int(have.min), int(have.max), int(want.min), int(want.max))
    bounds = sorted({end + k for end in ends for k in (-1, 0, 1) if have.min <= end + k <= have.max})
    rounded = round_array(np.array(bounds, kind), np.zeros(1, dtype), up=True)
    assert rounded.dtype == dtype
    assert rounded.tolist() == [min(max(bound, want.min), want.max) for bound in bounds]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_zero_within_array_bounds_keeps_its_sign(dtype: str, zero: float) -> None:
    x = np.full(67, -zero, dtype)
    for lower, upper in ((zero, 1.0), (-1.0, zero), (zero, zero)):
        ends = np.full(67, lower, dtype), np.full(67, upper, dtype)
        assert cc.clip_by_value(x, *ends).tobytes() == x.tobytes()
        assert cc.clip_by_value(x, lower, upper).tobytes() == x.tobytes()


def test_a_number_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    floor = _bounds._floor

    def counted(*arguments: Any) -> float:
        asked.append(arguments)
        return floor(*arguments)

    monkeypatch.setattr(_bounds, "_floor", counted)
    results = [round_bounds("f", -0.12345678, 0.12345678, "float32") for _ in range(3)]
    assert results == [results[0]] * 3
    assert len(asked) == 2


@pytest.mark.parametrize("first", [0.0, -0.0])
def test_what_is_remembered_is_neither_the_other_zero_nor_another_type(first: float) -> None:
    for zero in (first, -first, first):
        assert str(round_bounds("f", zero, None, "float32")[0]) == str(zero)
    large = 2**53 + 1
    assert round_bounds("f", None, large, "int64")[1] == large
    assert round_bounds("f", None, float(large), "int64")[1] == 2**53
    for _ in range(2):  # an error is not remembered
        with pytest.raises(ValueError, match="below every finite float16"):
            round_bounds("f", None, -1e6, "float16")
