"""The edge table of the value and weight clips: NaN, infinity, all kinds of bounds, refusals' sentences."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import array_api_strict as strict
import ml_dtypes
import numpy as np
import pytest
from edge_support import BOTH, MACHINES, NUMPY, PORTABLE, STRICT, Machine, bits, both, error_of, same_bits

import clipcore as cc

VALUE_CLIPS = [cc.clip_by_value, cc.clip_weights]
INF, NAN = math.inf, math.nan
FLOATS = [
    pytest.param(machine, dtype, id=f"{machine}-{np.dtype(dtype).name}")
    for machine in MACHINES
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
    if machine is NUMPY or dtype in (np.float32, np.float64) or (machine is PORTABLE and dtype is np.float16)
]
LARGEST = {"float16": 65504.0, "bfloat16": 255 * 2.0**120, "float32": (2 - 2.0**-23) * 2.0**127,
           "float64": (2 - 2.0**-52) * 2.0**1023}  # fmt: skip
INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1),
            "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}  # fmt: skip

each_clip = pytest.mark.parametrize("clip", VALUE_CLIPS, ids=lambda f: str(f.__name__))
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=str)
on_floats = pytest.mark.parametrize(("machine", "dtype"), FLOATS)
on_integers = pytest.mark.parametrize("dtype", INTEGERS)


def refused(machine: Machine, clip: Any, x: Any, lower: Any, upper: Any) -> tuple[Any, str, bool]:
    """What a call with `out` raises, its message without the function, and whether all bits are as before."""
    here, out = machine.put(x), machine.put(np.zeros_like(x))
    with machine.serving():
        error, message = error_of(lambda: clip(here, lower, upper, out=out))
    prefix = f"{clip.__name__}: "
    named = message.removeprefix(prefix) if message.startswith(prefix) else f"unnamed: {message}"
    return error, named, machine.bits([here, out]) == bits([x, np.zeros_like(x)])


@on_floats
@each_clip
def test_nan_stays_and_infinity_becomes_the_bound(machine: Machine, dtype: Any, clip: Any) -> None:
    x = np.array([NAN, -NAN, INF, -INF, 3, -3, 0.5, -0.0, 0.0]).astype(dtype)
    want = np.array([NAN, -NAN, 1, -1, 1, -1, 0.5, -0.0, 0.0]).astype(dtype)
    assert bits(machine.run(clip, x, -1, 1)) == bits(want)
    assert bits(machine.run(clip, x, np.array(-1.0), np.array(1.0))) == bits(want)


@on_floats
@each_clip
def test_without_bounds_the_result_is_a_copy(machine: Machine, dtype: Any, clip: Any) -> None:
    x = np.array([NAN, INF, -INF, -0.0, 1e-7, 7]).astype(dtype)
    assert bits(machine.run(clip, x, None, None)) == bits(x)
    here = machine.put(x)
    with machine.serving():
        copy = clip(here, None, None)
    copy[...] = 5
    assert machine.bits(here) == bits(x)


@on_floats
@each_clip
def test_zeros_within_the_bounds_keep_their_sign(machine: Machine, dtype: Any, clip: Any) -> None:
    x = np.array([-0.0, 0.0, -1.0, 2.0]).astype(dtype)
    for lower, upper in [(0, 1), (-1, 0), (0.0, 1), (-1, -0.0), (np.array(0.0), np.array(1.0))]:
        assert bits(machine.run(clip, x, lower, upper)[:2]) == bits(x[:2])


@on_floats
@each_clip
def test_an_infinite_bound_on_its_own_side_is_none(machine: Machine, dtype: Any, clip: Any) -> None:
    x = np.array([NAN, INF, -INF, 2.0]).astype(dtype)
    assert bits(machine.run(clip, x, -INF, INF)) == bits(x)
    assert bits(machine.run(clip, x, np.array(-INF), np.array(INF))) == bits(x)
    assert bits(machine.run(clip, x, Decimal("-Infinity"), np.longdouble(INF))) == bits(x)


@on_floats
@each_clip
def test_a_finite_bound_beyond_the_range_is_the_largest_value(
    machine: Machine, dtype: Any, clip: Any
) -> None:
    largest = LARGEST[np.dtype(dtype).name]
    x = np.array([INF, -INF, NAN, 2.0]).astype(dtype)
    want = np.array([largest, -largest, NAN, 2.0]).astype(dtype)
    beyond: list[Any] = [10**400, Fraction(10**400), Decimal("1e400"), Fraction(largest) + 1]
    if dtype is not np.float64:
        beyond += [1e300, np.float64(1e300)]
    for bound in beyond:
        assert bits(machine.run(clip, x, -bound, bound)) == bits(want)
    if dtype is not np.float64:
        assert bits(machine.run(clip, x, np.array(-1e300), np.array(1e300))) == bits(want)


@on_floats
@each_clip
@pytest.mark.parametrize("bound", [INF, 10**400, Decimal("1e400")], ids=["inf", "int", "Decimal"])
def test_a_bound_beyond_the_range_on_the_wrong_side_is_refused(
    machine: Machine, dtype: Any, clip: Any, bound: Any
) -> None:
    x, name = np.ones(2, dtype), np.dtype(dtype).name
    shown = repr(bound) if not isinstance(bound, int) else f"1{'0' * 56}..."
    below = repr(-bound) if not isinstance(bound, int) else f"-1{'0' * 55}..."
    assert refused(machine, clip, x, bound, None) == (
        ValueError,
        f"lower is {shown}, above every finite {name}; give a smaller bound",
        True,
    )
    assert refused(machine, clip, x, None, -bound) == (
        ValueError,
        f"upper is {below}, below every finite {name}; give a larger bound",
        True,
    )


@on_floats
def test_the_same_in_an_array_becomes_that_infinity(machine: Machine, dtype: Any) -> None:
    x = np.array([1.0, -2.0, NAN]).astype(dtype)
    for wrong in [INF] if dtype is np.float64 else [INF, 1e300]:
        low = machine.run(cc.clip_by_value, x, np.array([wrong]), None)
        assert bits(low) == bits(np.array([INF, INF, NAN]).astype(dtype))
        high = machine.run(cc.clip_by_value, x, None, np.array([-wrong]))
        assert bits(high) == bits(np.array([-INF, -INF, NAN]).astype(dtype))


@each_machine
@each_clip
def test_bounds_of_more_precision_are_rounded_so_that_they_hold(machine: Machine, clip: Any) -> None:
    # 0.1 in float64 is a little above 13421773 / 2**27 - 2**-27 and below 13421773 / 2**27.
    below, above = 13421772 * 2.0**-27, 13421773 * 2.0**-27
    x = np.array([-1, 1], np.float32)
    for bound in (0.1, np.float64(0.1), Decimal("0.1"), Fraction(1, 10), np.array(0.1)):
        assert machine.run(clip, x, None, bound)[1] == below
        assert machine.run(clip, x, bound, None)[0] == above
        assert machine.run(clip, -x, None, bound)[0] == below
    assert machine.run(clip, x, None, np.float32(0.1))[1] == np.float32(0.1)


@each_machine
@each_clip
def test_no_value_between_the_bounds_is_refused(machine: Machine, clip: Any) -> None:
    floats, integers = np.ones(2, np.float32), np.ones(2, np.int8)
    cases: list[Any] = [(floats, 0.1, 0.1), (integers, 0.4, 0.6), (floats, Fraction(1, 3), Fraction(1, 3))]
    for x, lower, upper in cases:
        assert refused(machine, clip, x, lower, upper) == (
            ValueError,
            f"lower is {lower!r} and upper is {upper!r}, and no {x.dtype.name} lies between; "
            "give bounds that are further apart",
            True,
        )


@each_machine
@each_clip
@pytest.mark.parametrize(
    ("lower", "upper"),
    [(1, -1), (1.0, np.nextafter(1, 0)), (INF, -INF), (2, Fraction(3, 2)), (10**400, 1e308)],
    ids=repr,
)
def test_scalar_bounds_that_cross_are_refused(machine: Machine, clip: Any, lower: Any, upper: Any) -> None:
    low = f"1{'0' * 56}..." if lower == 10**400 else repr(lower)
    assert refused(machine, clip, np.ones(2), lower, upper) == (
        ValueError,
        f"lower is {low} and upper is {upper!r}; give a lower bound that is not above the upper one",
        True,
    )


@each_machine
@each_clip
@pytest.mark.parametrize("nan", [NAN, np.float32(NAN), Decimal("NaN"), Decimal("sNaN")], ids=repr)
def test_a_scalar_nan_bound_is_refused(machine: Machine, clip: Any, nan: Any) -> None:
    sentence = f"is {nan!r}; give a number, or None for no bound"
    assert refused(machine, clip, np.ones(2), nan, None) == (ValueError, f"lower {sentence}", True)
    assert refused(machine, clip, np.ones(2), 0, nan) == (ValueError, f"upper {sentence}", True)


@on_floats
@each_clip
def test_where_array_bounds_cross_the_upper_holds_and_nan_spreads(
    machine: Machine, dtype: Any, clip: Any
) -> None:
    x = np.array([-5.0, 0.0, 5.0, NAN, INF]).astype(dtype)
    want = np.array([1, 1, 1, NAN, 1]).astype(dtype)
    for lower, upper in [(np.array(2.0), np.array(1.0)), (np.array([2.0]), 1), (2, np.array(1.0))]:
        assert bits(machine.run(clip, x, lower, upper)) == bits(want)
    bound = np.array([NAN, 1, NAN, NAN, 1])
    for lower, upper in [(bound, None), (None, bound), (bound, 1), (np.array(-9.0), bound)]:
        got = machine.run(clip, x, lower, upper)
        assert np.isnan(got).tolist() == [True, False, True, True, False]


@both
@on_integers
@each_clip
def test_integers_take_numbers_and_integer_arrays_as_bounds(machine: Machine, dtype: str, clip: Any) -> None:
    low, high = INTEGERS[dtype]
    x = np.array([low, 0, 1, 2, 3, high], dtype)
    cut = np.array([1, 1, 1, 2, 2, 2], dtype)
    for lower, upper in [(1, 2), (0.5, 2.5), (Fraction(1, 2), Decimal("2.9")), (np.int8(1), np.float32(2.5))]:
        assert bits(machine.run(clip, x, lower, upper)) == bits(cut)
    for kind in INTEGERS:
        assert bits(machine.run(clip, x, np.array(1, kind), np.array([2], kind))) == bits(cut)
    for far in (INF, 1e30, 10**400, high + 1):
        assert bits(machine.run(clip, x, None, far)) == bits(x)
    for far in (-INF, -1e30, -(10**400), low - 1):
        assert bits(machine.run(clip, x, far, None)) == bits(x)


@both
@on_integers
@each_clip
def test_integers_refuse_numbers_on_the_wrong_side(machine: Machine, dtype: str, clip: Any) -> None:
    low, high = INTEGERS[dtype]
    for far in (INF, 1e30, high + 1):
        assert refused(machine, clip, np.ones(2, dtype), far, None) == (
            ValueError,
            f"lower is {far!r}, above every finite {dtype}; give a smaller bound",
            True,
        )
    for far in (-INF, -1e30, low - 1):
        assert refused(machine, clip, np.ones(2, dtype), None, far) == (
            ValueError,
            f"upper is {far!r}, below every finite {dtype}; give a larger bound",
            True,
        )


@both
@on_integers
@each_clip
def test_integer_arrays_beyond_the_range_are_the_nearest_value(
    machine: Machine, dtype: str, clip: Any
) -> None:
    low, high = INTEGERS[dtype]
    x = np.array([low, 1, high], dtype)
    for kind, (least, most) in INTEGERS.items():
        raised = np.full(3, min(most, high), dtype) if most < high else np.full(3, high, dtype)
        assert bits(machine.run(clip, x, np.array(most, kind), None)) == bits(np.maximum(x, raised))
        lowered = np.full(3, max(least, low), dtype)
        assert bits(machine.run(clip, x, None, np.array(least, kind))) == bits(np.minimum(x, lowered))


@both
@each_clip
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_integers_refuse_arrays_of_floating_point(machine: Machine, clip: Any, side: str) -> None:
    x, bound = np.ones(2, np.int32), machine.put(np.array(1.0))
    pair = (bound, None) if side == "lower" else (None, bound)
    name = "x" if clip is cc.clip_by_value else "tree"
    assert refused(machine, clip, x, *pair) == (
        TypeError,
        f"{side} is an array of dtype float64, {name} one of int32; give integers a "
        "bound of integers, or a number",
        True,
    )


class Tagged(np.ndarray[Any, np.dtype[Any]]):
    """A subclass, such as numpy.matrix is."""


GIVE = "give a real number, an array, or None for no bound"
NOT_A_BOUND = {
    "bool": (True, f"True of type bool; {GIVE}"),
    "numpy-bool": (np.True_, f"np.True_ of type bool; {GIVE}"),
    "complex": (1j, f"1j of type complex; {GIVE}"),
    "str": ("1", f"'1' of type str; {GIVE}"),
    "list": ([1, 2], f"[1, 2] of type list; {GIVE}"),
    "timedelta": (np.timedelta64(1, "s"), f"np.timedelta64(1,'s') of type timedelta64; {GIVE}"),
    "subclass": (np.ones(2).view(Tagged), f"Tagged([1., 1.]) of type Tagged; {GIVE}"),
}
NOT_AN_ARRAY_BOUND = {
    "bool": (np.array(True), TypeError, "an array of dtype bool; give one of integers or real numbers"),
    "complex": (
        np.array([1j]),
        TypeError,
        "an array of dtype complex128; give one of integers or real numbers",
    ),
}


@both
@each_clip
@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("case", NOT_A_BOUND.values(), ids=NOT_A_BOUND)
def test_what_is_no_bound_is_refused(machine: Machine, clip: Any, side: str, case: Any) -> None:
    bound, sentence = case
    pair = (bound, None) if side == "lower" else (None, bound)
    assert refused(machine, clip, np.ones(2), *pair) == (TypeError, f"{side} is {sentence}", True)


@both
@each_clip
@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("case", NOT_AN_ARRAY_BOUND.values(), ids=NOT_AN_ARRAY_BOUND)
def test_arrays_without_order_are_no_bounds(machine: Machine, clip: Any, side: str, case: Any) -> None:
    bound, error, sentence = case
    pair = (machine.put(bound), None) if side == "lower" else (None, machine.put(bound))
    assert refused(machine, clip, np.ones(2), *pair) == (error, f"{side} is {sentence}", True)


@each_clip
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_masked_arrays_are_no_bounds(clip: Any, side: str) -> None:
    for bound in (np.ma.array(1.0), np.ma.array([1.0, 2.0]), np.ma.array([1.0])):
        pair = (bound, None) if side == "lower" else (None, bound)
        error, message, untouched = refused(NUMPY, clip, np.ones(2), *pair)
        assert (error, untouched) == (TypeError, True)
        assert message.startswith(f"{side} is masked_array(data=")
        assert message.endswith(f" of type MaskedArray; {GIVE}")


@both
@each_clip
@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 1)], ids=str)
def test_bounds_that_do_not_broadcast_to_the_leaf_are_refused(
    machine: Machine, clip: Any, shape: tuple[int, ...]
) -> None:
    name = "x" if clip is cc.clip_by_value else "tree"
    assert refused(machine, clip, np.ones(2), None, machine.put(np.ones(shape))) == (
        ValueError,
        f"upper has shape {shape}, which does not broadcast to the shape (2,) of {name}; give one that does",
        True,
    )


@each_clip
def test_bounds_of_another_library_are_refused(clip: Any) -> None:
    theirs = {NUMPY: strict.asarray(1.0), STRICT: np.array(1.0)}
    for machine, other in zip(BOTH, reversed(BOTH), strict=True):
        assert refused(machine, clip, np.ones(2), None, theirs[machine]) == (
            TypeError,
            f"upper is an array of {other.library} and the leaves are of {machine.library}; "
            "convert one of them",
            True,
        )


@pytest.mark.parametrize(
    "x",
    [np.ones(2, bool), np.ones(2, object), np.array(["a"]), np.array(["2020"], "M8[D]"), np.ones(2, "m8[s]"),
     np.ones(2, complex), np.ones(2, np.complex64), np.zeros(2, "f4,f4"), np.ones(2, ml_dtypes.float8_e5m2)],
    ids=lambda x: x.dtype.name,
)  # fmt: skip
@each_clip
def test_leaves_without_order_are_refused(clip: Any, x: Any) -> None:
    name = "x" if clip is cc.clip_by_value else "tree"
    sentence = (
        f"{name} has dtype {x.dtype.name}; bounds are for integers, float16, bfloat16, float32 and float64: "
        "convert it first"
    )
    for machine in BOTH if x.dtype.kind in "bc" else [NUMPY]:
        assert error_of(lambda: clip(machine.put(x), 0, 1)) == (TypeError, f"{clip.__name__}: {sentence}")  # noqa: B023


@each_clip
def test_a_numpy_scalar_comes_back_as_a_0d_array(clip: Any) -> None:
    for scalar in (np.float16(3), ml_dtypes.bfloat16(3), np.float32(3), np.uint8(3), np.int64(3)):
        result = clip(scalar, 0, 1)
        assert isinstance(result, np.ndarray)
        assert bits(result) == bits(np.array(1).astype(scalar.dtype))


@each_clip
@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i4", ">u8"])
def test_the_byte_order_stays(clip: Any, dtype: str) -> None:
    x = np.array([5, 0, 2], dtype)
    bounds: list[Any] = [2, np.array(2, ">i2"), np.array([2, 2, 2])]
    for bound in bounds:
        assert same_bits(clip(x, None, bound), np.array([2, 0, 2], dtype))
