"""The edge table on `max_norm`, `norm`, `ord`, `axis`, `nonfinite`: every refusal with its sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import array_api_strict as strict
import ml_dtypes
import numpy as np
import pytest
from edge_support import BOTH, MACHINES, NUMPY, STRICT, Machine, bits, both, error_of, same_bits

import clipcore as cc

NORM_CLIPS: list[Any] = [cc.clip_by_l1_norm, cc.clip_by_l2_norm, cc.clip_by_global_norm]
NORMS: list[Any] = [cc.l1_norm, cc.l2_norm, cc.global_norm]
X = np.array([3.0, -4.0])

each_clip = pytest.mark.parametrize("clip", NORM_CLIPS, ids=lambda f: str(f.__name__))
each_norm = pytest.mark.parametrize("measure", NORMS, ids=lambda f: str(f.__name__))

NO_FLOAT = "which no float can hold; give a number within 1.8e308 or an infinity"
POSITIVE = "give a number that is zero or positive"
REAL = "give a real number"

NOT_A_LIMIT = {
    "None": (None, TypeError, "None; give a number, or leave the call out to switch clipping off"),
    "True": (True, TypeError, f"True of type bool; {REAL}"),
    "numpy-bool": (np.False_, TypeError, f"np.False_ of type bool; {REAL}"),
    "0-d-bool": (np.array(True), TypeError, f"array(True) of type bool; {REAL}"),
    "complex": (1j, TypeError, f"1j of type complex; {REAL}"),
    "complex64": (np.complex64(1), TypeError, f"np.complex64(1+0j) of type complex64; {REAL}"),
    "0-d-complex": (np.array(1j), TypeError, f"array(0.+1.j) of type complex128; {REAL}"),
    "str": ("1", TypeError, f"'1' of type str; {REAL}"),
    "numpy-str": (np.str_("1"), TypeError, f"np.str_('1') of type str_; {REAL}"),
    "bytes": (b"1", TypeError, f"b'1' of type bytes; {REAL}"),
    "list": ([1.0], TypeError, f"[1.0] of type list; {REAL}"),
    "timedelta": (np.timedelta64(1, "s"), TypeError, f"np.timedelta64(1,'s') of type timedelta64; {REAL}"),
    "0-d-None": (np.array(None), TypeError, f"array(None, dtype=object) of type NoneType; {REAL}"),
    "1-d": (np.array([1.0]), ValueError, "array([1.]), an array of shape (1,); give one number"),
    "empty": (np.ones(0), ValueError, "array([], dtype=float64), an array of shape (0,); give one number"),
    "strict-1-d": (
        strict.asarray([1.0]),
        ValueError,
        "Array([1.], dtype=array_api_strict.float64), an array of shape (1,); give one number",
    ),
    "strict-bool": (
        strict.asarray(True),
        TypeError,
        f"Array(True, dtype=array_api_strict.bool) of dtype bool; {REAL}",
    ),
    "strict-complex": (
        strict.asarray(2j),
        TypeError,
        f"Array(0.+2.j, dtype=array_api_strict.complex128) of dtype complex128; {REAL}",
    ),
    "10**400": (10**400, ValueError, f"1{'0' * 56}..., {NO_FLOAT}"),
    "-10**400": (-(10**400), ValueError, f"-1{'0' * 55}..., {NO_FLOAT}"),
    "10**5000": (10**5000, ValueError, f"an int of 16610 bits, {NO_FLOAT}"),
    "Fraction(10**400)": (Fraction(10**400), ValueError, f"Fraction(1{'0' * 47}..., {NO_FLOAT}"),
    "Fraction(10**5000)": (Fraction(10**5000), ValueError, f"Fraction, {NO_FLOAT}"),
    "Decimal-1e400": (Decimal("1e400"), ValueError, f"Decimal('1E+400'), {NO_FLOAT}"),
}
NEGATIVE = {
    "-1": (-1, "-1"),
    "-1e-320": (-1e-320, "-1e-320"),
    "-inf": (-math.inf, "-inf"),
    "nan": (math.nan, "nan"),
    "Decimal-NaN": (Decimal("NaN"), "Decimal('NaN')"),
    "Decimal-sNaN": (Decimal("sNaN"), "Decimal('sNaN')"),
    "Fraction": (Fraction(-1, 2), "Fraction(-1, 2)"),
    "float32": (np.float32(-1), "np.float32(-1.0)"),
    "bfloat16": (ml_dtypes.bfloat16(-2), "-2"),
    "int64": (np.int64(-1), "np.int64(-1)"),
    "0-d": (np.array(-1.0), "array(-1.)"),
    "0-d-nan": (np.array(math.nan), "array(nan)"),
}
POSITIVE_ONES = {
    "int": 2,
    "Fraction": Fraction(2),
    "Decimal": Decimal(2),
    "float32": np.float32(2),
    "bfloat16": ml_dtypes.bfloat16(2),
    "uint8": np.uint8(2),
    "float8": ml_dtypes.float8_e5m2(2),
    "longdouble": np.longdouble(2),
    "0-d": np.array(2.0),
    "0-d-int": np.array(2),
    "0-d-big-endian": np.array(2, ">f4"),
    "0-d-object": np.array(Fraction(2)),
    "0-d-bfloat16": np.array(2, ml_dtypes.bfloat16),
}


def table(cases: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


def tried(machine: Machine, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What a call with `out` raises, and whether input and `out` still have their bits."""
    x, out = machine.put(X), machine.put(X * 7)
    found = error_of(lambda: function(x, *arguments, out=out, **keywords))
    return *found, machine.bits([x, out]) == bits([X, X * 7])


@both
@each_clip
@table(NOT_A_LIMIT)
def test_what_is_no_limit_is_refused(machine: Machine, clip: Any, case: Any) -> None:
    value, error, sentence = case
    want = (error, f"{clip.__name__}: max_norm is {sentence}", True)
    assert tried(machine, clip, value) == want


@both
@each_clip
@table(NEGATIVE)
def test_a_limit_that_is_negative_or_nan_is_refused(machine: Machine, clip: Any, case: Any) -> None:
    value, shown = case
    assert tried(machine, clip, value) == (
        ValueError,
        f"{clip.__name__}: max_norm is {shown}; {POSITIVE}",
        True,
    )


@pytest.mark.skipif(
    np.finfo(np.longdouble).max == np.finfo(np.float64).max, reason="longdouble is float64 here"
)
def test_a_longdouble_that_no_float_holds_is_refused() -> None:
    error, message = error_of(lambda: cc.clip_by_l2_norm(X, np.longdouble("1e4000")))
    assert error is ValueError
    assert message == f"clip_by_l2_norm: max_norm is np.longdouble('1e+4000'), {NO_FLOAT}"


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@each_clip
@table(POSITIVE_ONES)
def test_any_real_number_is_a_limit_taken_as_float(machine: Machine, clip: Any, case: Any) -> None:
    assert same_bits(machine.run(lambda x: clip(x, case), X), machine.run(clip, X, 2.0))


@each_clip
@pytest.mark.parametrize("limit", [-1.0, math.nan, -math.inf, -1], ids=str)
@pytest.mark.parametrize("nonfinite", ["propagate", "zero"])
def test_a_0d_array_of_another_library_that_is_no_limit_makes_every_element_nan(
    clip: Any, limit: float, nonfinite: str
) -> None:
    for x in (X, np.array([3 - 4j, 0], np.complex64), np.zeros((2, 0)), np.array([math.nan, 1.0])):
        got = STRICT.run(clip, x, strict.asarray(limit), nonfinite=nonfinite)
        result = got[0] if isinstance(got, tuple) else got
        parts = np.stack([result.real, result.imag])[: 2 if x.dtype.kind == "c" else 1]
        assert result.dtype == x.dtype
        assert result.shape == x.shape
        assert np.isnan(parts).all()


@each_clip
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_a_0d_array_of_the_leaves_library_is_a_limit(clip: Any, dtype: str) -> None:
    limit = strict.asarray(2, dtype=getattr(strict, dtype))
    assert same_bits(STRICT.run(clip, X, limit), STRICT.run(clip, X, 2.0))
    infinite = strict.asarray(math.inf)
    got = STRICT.run(clip, np.array([math.nan, 1.0]), infinite)
    assert bits(got[0] if isinstance(got, tuple) else got) == bits(np.array([math.nan, 1.0]))


@each_clip
def test_a_limit_of_another_library_than_the_leaves_is_refused(clip: Any) -> None:
    assert tried(NUMPY, clip, strict.asarray(1.0)) == (
        TypeError,
        f"{clip.__name__}: max_norm is an array of array_api_strict and the leaves are of numpy; "
        "convert one of them",
        True,
    )


@pytest.mark.parametrize("tree", [[], {}, None, [None, ()]], ids=repr)
@pytest.mark.parametrize("limit", [0, 1.0, math.inf, strict.asarray(1.0), np.array(2)], ids=repr)
def test_an_empty_tree_comes_back_with_norm_zero_whatever_the_limit(tree: Any, limit: Any) -> None:
    result, norm = cc.clip_by_global_norm(tree, limit)
    assert result == tree
    assert bits(norm) == bits(np.array(0.0))


NOT_A_NORM = {
    "negative": (-1.5, ValueError, "norm is -1.5; give a norm, zero or positive"),
    "0-d-negative": (np.array(-1.0), ValueError, "norm is array(-1.); give a norm, zero or positive"),
    "-inf": (-math.inf, ValueError, "norm is -inf; give a norm, zero or positive"),
    "bool": (True, TypeError, f"norm is True of type bool; {REAL}"),
    "str": ("1", TypeError, f"norm is '1' of type str; {REAL}"),
    "complex": (1j, TypeError, f"norm is 1j of type complex; {REAL}"),
    "1-d": (np.ones(1), ValueError, "norm is array([1.]), an array of shape (1,); give one number"),
    "10**400": (10**400, ValueError, f"norm is 1{'0' * 56}..., {NO_FLOAT}"),
}


@both
@table(NOT_A_NORM)
def test_what_is_no_norm_is_refused(machine: Machine, case: Any) -> None:
    value, error, sentence = case
    want = (error, f"clip_by_global_norm: {sentence}", True)
    assert tried(machine, cc.clip_by_global_norm, 1.0, norm=value) == want


def test_a_norm_of_another_library_than_the_leaves_is_refused() -> None:
    assert tried(NUMPY, cc.clip_by_global_norm, 1.0, norm=strict.asarray(1.0)) == (
        TypeError,
        "clip_by_global_norm: norm is an array of array_api_strict and the leaves are of numpy; "
        "convert one of them",
        True,
    )


@both
def test_a_norm_together_with_all_reduce_is_refused(machine: Machine) -> None:
    assert tried(machine, cc.clip_by_global_norm, 1.0, norm=2, all_reduce=max) == (
        ValueError,
        "clip_by_global_norm: norm is 2 and all_reduce is given too; a norm already computed is not "
        "reduced again: leave one of the two away",
        True,
    )


@both
@pytest.mark.parametrize("function", [cc.clip_by_global_norm, cc.global_norm], ids=["clip", "norm"])
def test_an_all_reduce_that_cannot_be_called_is_refused(machine: Machine, function: Any) -> None:
    limit = (1.0,) if function is cc.clip_by_global_norm else ()
    assert error_of(lambda: function(machine.put(X), *limit, all_reduce="sum")) == (
        TypeError,
        f"{function.__name__}: all_reduce is 'sum'; "
        'give a function called as all_reduce(array, op="sum" | "max")',
    )


@both
@pytest.mark.parametrize("order", [0, 3, -math.inf, math.nan, "2", "inf", True, None, [2]], ids=repr)
def test_an_unknown_order_is_refused(machine: Machine, order: Any) -> None:
    sentence = f"ord is {order!r}; choose one of 1, 2, inf"
    want = (ValueError, f"clip_by_global_norm: {sentence}", True)
    assert tried(machine, cc.clip_by_global_norm, 1.0, ord=order) == want
    x = machine.put(X)
    assert error_of(lambda: cc.global_norm(x, ord=order)) == (ValueError, f"global_norm: {sentence}")


@both
@pytest.mark.parametrize(
    "order", [1, 2, 2.0, math.inf, np.int64(2), np.float32(math.inf), np.float64(1)], ids=repr
)
def test_an_order_may_be_any_number_equal_to_1_2_or_inf(machine: Machine, order: Any) -> None:
    assert machine.run(cc.global_norm, X, ord=order) == {1: 7, 2: 5, math.inf: 4}[float(order)]


@both
@each_clip
@pytest.mark.parametrize("policy", ["ignore", "RAISE", None, 0, ["zero"], b"zero"], ids=repr)
def test_an_unknown_policy_is_refused(machine: Machine, clip: Any, policy: Any) -> None:
    assert tried(machine, clip, 1.0, nonfinite=policy) == (
        ValueError,
        f"{clip.__name__}: nonfinite is {policy!r}; choose one of 'propagate', 'raise', 'zero'",
        True,
    )


NOT_AN_AXIS = {
    "beyond": (1, ValueError, "1, but x.ndim is 1; give axes that x has"),
    "before": ((0, -2), ValueError, "(0, -2), but x.ndim is 1; give axes that x has"),
    "twice": ((0, -1), ValueError, "(0, -1); name each axis once"),
    "float": (0.0, TypeError, "0.0; give an int, a tuple of ints, or None"),
    "bool": (False, TypeError, "False; give an int, a tuple of ints, or None"),
    "list": ([0], TypeError, "[0]; give an int, a tuple of ints, or None"),
    "str": ((0, "1"), TypeError, "(0, '1'); give an int, a tuple of ints, or None"),
}


@both
@pytest.mark.parametrize("order", [0, 1], ids=["l1", "l2"])
@table(NOT_AN_AXIS)
def test_what_is_no_axis_is_refused(machine: Machine, order: int, case: Any) -> None:
    axis, error, sentence = case
    clip, measure = NORM_CLIPS[order], NORMS[order]
    assert tried(machine, clip, 1.0, axis=axis) == (error, f"{clip.__name__}: axis is {sentence}", True)
    x = machine.put(X)
    assert error_of(lambda: measure(x, axis=axis)) == (error, f"{measure.__name__}: axis is {sentence}")


@pytest.mark.parametrize("machine", BOTH, ids=str)
def test_a_numpy_int_is_an_axis(machine: Machine) -> None:
    assert same_bits(machine.run(cc.l2_norm, np.eye(2), axis=np.int64(1)), np.array([1.0, 1.0]))
