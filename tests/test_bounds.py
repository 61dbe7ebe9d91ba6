"""Scalar bounds as values of a dtype: the nearest one on the side that keeps the bound."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from clipcore_backends._formats import FORMATS

import clipcore as cc
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
