"""The edge table of the norm clips: zeros, empties, NaN and infinity, limits of zero and infinity, dtypes."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import array_api_strict as strict
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
    both,
    error_of,
    same_bits,
)

import clipcore as cc

CLIPS = {1: cc.clip_by_l1_norm, 2: cc.clip_by_l2_norm}
NORMS = {1: cc.l1_norm, 2: cc.l2_norm}
NORM_CLIPS: list[Any] = [*CLIPS.values(), cc.clip_by_global_norm]
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
MEND = "mend it, or choose nonfinite='propagate' or 'zero'"

each_clip = pytest.mark.parametrize("clip", NORM_CLIPS, ids=lambda f: str(f.__name__))
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=str)


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def serves(machine: Machine, dtype: str) -> bool:
    """Tell whether a machine has a dtype: array-api-strict has no 16-bit floats, np.isdtype no bfloat16."""
    return dtype not in {NUMPY: (), PORTABLE: ("bfloat16",), STRICT: ("float16", "bfloat16")}[machine]


def only(result: Any) -> Array:
    """The clipped array, of what any norm clip returns."""
    array: Array = result[0] if isinstance(result, tuple) else result
    return array


on_dtypes = pytest.mark.parametrize(
    ("machine", "dtype"),
    [pytest.param(m, d, id=f"{m}-{d}") for m, d in product(MACHINES, DTYPES) if serves(m, d)],
)


@on_dtypes
@each_clip
@pytest.mark.parametrize("limit", [0, 1.0, math.inf])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0)], ids=str)
def test_zeros_and_empty_leaves_come_back_with_norm_zero(
    machine: Machine, dtype: str, clip: Any, limit: float, shape: tuple[int, ...]
) -> None:
    x = (-np.zeros(shape)).astype(dtype_of(dtype))
    result = machine.run(clip, x, limit)
    assert bits(only(result)) == bits(x)
    if isinstance(result, tuple):
        assert bits(result[1]) == bits(np.array(0.0))
    for measure in (cc.l1_norm, cc.l2_norm, cc.global_norm):
        assert bits(machine.run(measure, x)) == bits(np.array(0.0))


@each_machine
@pytest.mark.parametrize("order", CLIPS)
def test_groups_of_no_elements_have_norm_zero(machine: Machine, order: int) -> None:
    for shape, axis, groups in [
        ((0, 3), 0, (3,)),
        ((3, 0), 0, (0,)),
        ((2, 0, 3), (1, 2), (2,)),
        ((0,), (), (0,)),
    ]:
        x = np.zeros(shape, np.float32)
        assert bits(machine.run(NORMS[order], x, axis=axis)) == bits(np.zeros(groups))
        assert bits(machine.run(CLIPS[order], x, 1.0, axis=axis)) == bits(x)


@on_dtypes
@each_clip
def test_a_limit_of_zero_gives_zeros_each_with_its_sign(machine: Machine, dtype: str, clip: Any) -> None:
    kind = dtype_of(dtype)
    x = np.array([3, -2, 0.0, -0.0, 1e-30, -1e-30, 6e4, -6e4]).astype(
        kind.char.lower() if kind.kind == "c" else kind
    )
    want = np.copysign(np.zeros_like(x), x).view(kind)
    assert bits(only(machine.run(clip, x.view(kind), 0))) == bits(want)
    assert bits(only(machine.run(clip, x.view(kind), -0.0))) == bits(want)


ODD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@on_dtypes
@each_clip
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("limit", [0, 1.0, 1e300])
def test_nan_and_infinity_anywhere_make_the_group_nan_zeros_or_an_error(
    machine: Machine, dtype: str, clip: Any, odd: float, limit: float
) -> None:
    kind = dtype_of(dtype)
    for place in range(6):
        numbers = np.array([1.0, -2.0, 0.0, 3.0, -0.0, 5.0])
        numbers[place] = odd
        x = numbers.astype(kind.char.lower() if kind.kind == "c" else kind).view(kind)
        norm = math.nan if math.isnan(odd) else math.inf
        spread = machine.run(clip, x, limit)
        parts = only(spread).view(x.real.dtype)
        assert only(spread).dtype == kind
        assert np.isnan(parts).all()
        zeros = machine.run(clip, x, limit, nonfinite="zero")
        assert bits(only(zeros)) == bits(np.zeros_like(x))
        for result in (spread, zeros):
            assert not isinstance(result, tuple) or np.array_equal(result[1], norm, equal_nan=True)
        name = "tree" if clip is cc.clip_by_global_norm else "x"
        here, out = machine.put(x), machine.put(np.ones_like(x))
        with machine.serving():
            found = error_of(lambda: clip(here, limit, nonfinite="raise", out=out))  # noqa: B023
        assert found == (FloatingPointError, f"{clip.__name__}: NaN or infinity in {name}; {MEND}")
        assert machine.bits([here, out]) == bits([x, np.ones_like(x)])


@both
def test_nan_goes_before_infinity_in_the_norm(machine: Machine) -> None:
    for x in ([math.inf, math.nan], [math.nan, -math.inf, 1.0]):
        for measure in (cc.l1_norm, cc.l2_norm, cc.global_norm):
            assert np.isnan(machine.run(measure, np.array(x)))
        for order in (1, 2, math.inf):
            leaves = [np.array([value]) for value in x]
            assert np.isnan(machine.run(cc.global_norm, leaves, ord=order))
            assert np.isnan(machine.run(cc.clip_by_global_norm, leaves, 1.0, ord=order)[1])
    assert machine.run(cc.global_norm, np.array([complex(0, math.inf), 1])) == math.inf
    assert np.isnan(machine.run(cc.global_norm, np.array([complex(math.nan, math.inf), 1])))


@each_machine
@pytest.mark.parametrize("order", CLIPS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_group_along_an_axis_is_broken_by_itself(machine: Machine, order: int, dtype: str) -> None:
    x = np.array([[1, 3, 0, 2], [math.nan, 1, 1, 1], [1, math.inf, 1, 1], [0.25, 0, 0, 0]]).astype(dtype)
    alone = machine.run(CLIPS[order], x[0], 1.0)
    norms = machine.run(NORMS[order], x, axis=1)
    assert np.array_equal(norms[1:], [math.nan, math.inf, 0.25], equal_nan=True)
    spread = machine.run(CLIPS[order], x, 1.0, axis=1)
    assert bits(spread[0]) == bits(alone)
    assert np.isnan(spread[1:3].view(x.real.dtype)).all()
    assert bits(spread[3]) == bits(x[3])
    zeros = machine.run(CLIPS[order], x, 1.0, axis=1, nonfinite="zero")
    assert bits(zeros) == bits(np.stack([alone, 0 * x[0], 0 * x[0], x[3]]))
    unlimited = machine.run(CLIPS[order], x, math.inf, axis=1)
    assert bits(unlimited) == bits(x)
    zeros = machine.run(CLIPS[order], x, math.inf, axis=1, nonfinite="zero")
    assert bits(zeros) == bits(np.stack([x[0], 0 * x[0], 0 * x[0], x[3]]))
    with machine.serving():
        found = error_of(lambda: CLIPS[order](machine.put(x), 1.0, axis=1, nonfinite="raise"))
    assert found == (FloatingPointError, f"{CLIPS[order].__name__}: NaN or infinity in x; {MEND}")


@on_dtypes
@each_clip
def test_an_infinite_limit_changes_nothing_not_even_nan(machine: Machine, dtype: str, clip: Any) -> None:
    kind = dtype_of(dtype)
    x = np.array([3, math.nan, -math.inf, -0.0, 1e-7, 2]).astype(
        kind.char.lower() if kind.kind == "c" else kind
    )
    assert bits(only(machine.run(clip, x.view(kind), math.inf))) == bits(x.view(kind))
    zeros = only(machine.run(clip, x.view(kind), math.inf, nonfinite="zero"))
    assert bits(zeros) == bits(np.zeros_like(x).view(kind))
    with machine.serving():
        error, _ = error_of(lambda: clip(machine.put(x.view(kind)), math.inf, nonfinite="raise"))
    assert error is FloatingPointError


@each_clip
def test_a_limit_beyond_float32_is_infinite_where_there_is_no_float64(clip: Any) -> None:
    x = np.array([math.nan, 3e38, 3e38], np.float32)
    for limit in (2.0**128, 1e300, math.inf):
        assert bits(only(NO_FLOAT64.run(clip, x, limit))) == bits(x)
    assert np.isnan(only(NO_FLOAT64.run(clip, x, 3.4e38))).all()


@each_machine
@each_clip
def test_arguments_are_checked_before_nan_is_found(machine: Machine, clip: Any) -> None:
    x = machine.put(np.array([math.nan]))
    with machine.serving():
        error, message = error_of(lambda: clip(x, -1, nonfinite="raise"))
        assert (error, message.partition(";")[0]) == (ValueError, f"{clip.__name__}: max_norm is -1")
        error, message = error_of(lambda: clip(x, 1.0, nonfinite="raise", out=machine.put(np.ones(2))))
        assert (error, message.partition(" (")[0]) == (ValueError, f"{clip.__name__}: out has shape")


@each_machine
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_every_broken_leaf_is_named_by_its_path(machine: Machine, order: float) -> None:
    good, bad = np.ones(2, np.float32), np.array([1, -math.inf])
    tree = machine.put({"a": [good, bad], "b": (None, {"c": bad, 3: good})})
    before = machine.bits(tree)
    with machine.serving():
        found = error_of(lambda: cc.clip_by_global_norm(tree, 1.0, ord=order, nonfinite="raise", out=tree))
    assert found == (
        FloatingPointError,
        f"clip_by_global_norm: NaN or infinity in tree['a'][1], tree['b'][1]['c']; {MEND}",
    )
    assert machine.bits(tree) == before


@each_machine
@pytest.mark.parametrize("norm", [math.nan, math.inf], ids=str)
def test_a_norm_given_that_is_not_finite_counts_as_a_broken_group(machine: Machine, norm: float) -> None:
    x = np.array([3.0, -4.0])
    result, returned = machine.run(cc.clip_by_global_norm, x, 1.0, norm=norm)
    assert np.isnan(result).all()
    assert np.array_equal(returned, norm, equal_nan=True)
    zeros, _ = machine.run(cc.clip_by_global_norm, x, 1.0, norm=norm, nonfinite="zero")
    assert bits(zeros) == bits(np.zeros(2))
    with machine.serving():
        found = error_of(lambda: cc.clip_by_global_norm(machine.put(x), 1.0, norm=norm, nonfinite="raise"))
    assert found == (
        FloatingPointError,
        f"clip_by_global_norm: NaN or infinity in norm, which is {norm}; {MEND}",
    )
    assert bits(machine.run(cc.clip_by_global_norm, x, math.inf, norm=norm)[0]) == bits(x)


@each_machine
def test_with_a_norm_given_leaves_are_not_inspected(machine: Machine) -> None:
    x = np.array([math.nan, 2.0, -math.inf])
    result, norm = machine.run(cc.clip_by_global_norm, x, 1.0, norm=4.0, nonfinite="raise")
    assert np.isnan(result[0])
    assert 0.5 - 2.0**-51 <= result[1] <= 0.5
    assert result[2] == -math.inf
    assert bits(norm) == bits(np.array(4.0))
    for zero in (0, 0.0, -0.0):
        assert bits(machine.run(cc.clip_by_global_norm, x, 1.0, norm=zero)[0]) == bits(x)


def test_a_norm_may_be_a_0d_array_of_the_leaves_library() -> None:
    x = np.array([3.0, -4.0])
    for norm in (strict.asarray(10.0), strict.asarray(10), strict.asarray(10.0, dtype=strict.float32)):
        got = STRICT.run(cc.clip_by_global_norm, x, 1.0, norm=norm)
        assert same_bits(got, STRICT.run(cc.clip_by_global_norm, x, 1.0, norm=10.0))


@both
def test_the_norm_of_complex_elements_is_that_of_their_moduli(machine: Machine) -> None:
    x = np.array([3 + 4j, 0, 5 - 12j, -0.0 + 8j])
    for order, norm in ((1, 26), (2, math.sqrt(25 + 169 + 64)), (math.inf, 13)):
        assert machine.run(cc.global_norm, x, ord=order) == norm
    assert machine.run(cc.l1_norm, x.astype(np.complex64)) == 26


@both
@pytest.mark.parametrize("scalar", [np.float32(3), np.float64(-3), np.complex64(-3j)], ids=repr)
@each_clip
def test_a_0d_array_comes_back_as_one(machine: Machine, scalar: Any, clip: Any) -> None:
    result = only(machine.run(clip, np.asarray(scalar), 5.0))
    assert bits(result) == bits(np.asarray(scalar))
    assert only(machine.run(clip, np.asarray(scalar), 1.0)).shape == ()


@each_clip
def test_a_numpy_scalar_comes_back_as_a_0d_array(clip: Any) -> None:
    for scalar in (np.float16(3), ml_dtypes.bfloat16(3), np.float32(3), np.float64(3), np.complex64(3)):
        result = only(clip(scalar, 5.0))
        assert isinstance(result, np.ndarray)
        assert bits(result) == bits(np.asarray(scalar))


NOT_FLOATING = {
    "int64": np.ones(2, np.int64),
    "uint8": np.ones(2, np.uint8),
    "bool": np.ones(2, bool),
    "object": np.ones(2, object),
    "str32": np.array(["a"]),
    "bytes8": np.array([b"a"]),
    "datetime64[D]": np.array(["2020"], "M8[D]"),
    "timedelta64[s]": np.ones(2, "m8[s]"),
    "void32": np.zeros(2, [("field", "f4")]),
    "float8_e5m2": np.ones(2, ml_dtypes.float8_e5m2),
}


@pytest.mark.parametrize("function", [*NORM_CLIPS, *NORMS.values(), cc.global_norm], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("dtype", "x"), NOT_FLOATING.items(), ids=NOT_FLOATING)
def test_leaves_that_are_not_floating_have_no_norm(function: Any, dtype: str, x: Array) -> None:
    name = "tree" if "global" in function.__name__ else "x"
    arguments = (1.0,) if function in NORM_CLIPS else ()
    message = (
        f"{function.__name__}: {name} has dtype {dtype}; norms are taken of float16, bfloat16, float32, "
        "float64, complex64, complex128: convert it first"
    )
    assert error_of(lambda: function(x, *arguments)) == (TypeError, message)
    if dtype in ("int64", "uint8", "bool"):
        assert error_of(lambda: function(STRICT.put(x), *arguments)) == (TypeError, message)


@each_clip
@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">c8", ">c16"])
def test_the_byte_order_stays(clip: Any, dtype: str) -> None:
    x = np.array([30, -40, 0.0], dtype)
    for limit in (1.0, 1e3, 0):
        result, native = only(clip(x, limit)), only(clip(x.astype(x.dtype.newbyteorder("=")), limit))
        assert result.dtype == x.dtype
        assert bits(result.astype(native.dtype)) == bits(native)


@both
def test_mixed_dtypes_share_one_norm_and_keep_their_own(machine: Machine) -> None:
    tree = [np.array([3.0], np.float32), np.array([[4.0]]), np.array(12 + 0j, np.complex64), np.zeros(0)]
    result, norm = machine.run(cc.clip_by_global_norm, tree, 6.5)
    assert norm == 13
    assert [leaf.dtype for leaf in result] == [leaf.dtype for leaf in tree]
    for got, leaf in zip(result, tree, strict=True):
        assert np.all(np.abs(got - leaf / 2) <= 2.0**-22 * np.abs(leaf))


def test_nothing_warns_on_a_library_that_computes_with_numpy() -> None:
    values = [0.0, 5e-324, 1e-300, 1.0, 1e300, 1.7e308, math.inf, math.nan]
    for dtype, clip in product(["float32", "float64", "complex64", "complex128"], NORM_CLIPS):
        with np.errstate(all="ignore"):
            xs = [np.array([value, -1.0]).astype(dtype) for value in values]
        for x, limit in product(xs, [0, 5e-324, 1e-300, 1.0, 1e300, math.inf]):
            result = only(STRICT.run(clip, x, limit))
            assert np.isfinite(result).all() == np.isfinite(x).all()


@each_machine
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("axis", [(0, 1), (1, -2)])
@pytest.mark.parametrize("odd", [*ODD.values(), 1e200, 1.0])
def test_along_all_axes_is_as_without_an_axis(
    odd: float, axis: tuple[int, ...], order: int, machine: Machine
) -> None:
    x = np.ones((2, 3))
    x[1, 1] = odd
    clip, norm = CLIPS[order], NORMS[order]
    for nonfinite, limit in product(("propagate", "zero"), (0, 1.0, math.inf)):
        along, whole = (machine.run(clip, x, limit, axis=each, nonfinite=nonfinite) for each in (axis, None))
        assert same_bits(along, whole)
    assert same_bits(machine.run(norm, x, axis=axis), machine.run(norm, x))
    line = x[1]
    assert same_bits(machine.run(clip, line, 1.0, axis=0), machine.run(clip, line, 1.0))
