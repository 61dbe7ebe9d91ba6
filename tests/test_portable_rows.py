"""The steps of the portable sums: what is said to be exact is, and the rest is as small as argued."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from edge_support import NO_FLOAT64, STRICT
from test_portable_sums import exact, fractions_of, values

from clipcore._portable_powers import Precision, accumulator, power_below
from clipcore._portable_sums import (
    PLAIN_ERROR,
    ROW,
    _chained_sum,
    _fewer,
    _moduli,
    _modulus,
    _plain,
    _root,
    _row_sums,
    _split,
    measure_groups,
    pair_sum,
)

RNG = np.random.default_rng(20261201)
Array = np.ndarray[Any, np.dtype[Any]]

PRECISIONS = {
    "float64": accumulator(STRICT.put(np.ones(1, np.float32))),
    "float32": accumulator(NO_FLOAT64.put(np.ones(1, np.float32))),
}
each_dtype = pytest.mark.parametrize("dtype", PRECISIONS)
each_sum = pytest.mark.parametrize("order", [1, 2])
# The largest part of the largest of its row that a tail is, where no addition is carried to the next power.
TAIL = {("float64", 2): 2.0**-22, ("float32", 2): 2.0**-9, ("float64", 1): 2.0**-44, ("float32", 1): 2.0**-19}


def total(x: Any) -> Fraction:
    return sum(fractions_of(x), Fraction(0))


def spacing(x: Fraction) -> Fraction:
    """The largest power of two that the number is a multiple of."""
    return Fraction(x.numerator & -x.numerator, x.denominator)


class Sequential:
    """NumPy whose sums add one element after the other, and tell what they were given."""

    def __init__(self) -> None:
        self.summed: list[Array] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def sum(self, x: Array, axis: int) -> Array:
        self.summed.append(x)
        return np.add.accumulate(x, axis=axis)[..., -1] if x.shape[axis] else np.sum(x, axis=axis)


def magnitudes(dtype: str, precision: Precision, order: int) -> dict[str, Array]:
    """Rows that a cut into heads and tails could fail on, one after the other."""
    kind, row = np.dtype(dtype).type, precision.row
    ulp = float(np.finfo(dtype).eps)
    below = float(np.nextafter(kind(1), kind(0)))
    grid = ulp * (precision.anchor if order == 2 else 2 * row)  # of the heads of a row whose largest is 1
    half = 1 + grid * (0.5 - 2 * ulp / grid)

    def led(first: float, others: float) -> Array:
        return np.array(([first] + [others] * (row - 1)) * 3)

    found = {
        "all just below a power of two": np.full(3 * row, below),
        "one just below a power of two": led(below, 0.3),
        "a power of two and much just below it": led(1, below),
        "the largest tails": np.full(3 * row, half),
        "the smallest tails": np.full(3 * row, 1 + grid * (0.5 + 2 * ulp / grid)),
        "ties": np.full(3 * row, 1 + grid / 2),
        "the largest tails beside a larger element": led(half, 0.2 + (half - 1)),
        "one huge and many tiny": led(1, 2.0**-40),
        "one huge and tails alone": led(1, grid * (0.5 - ulp)),
        "one huge and ties alone": led(1, grid / 2),
        "zeros": np.zeros(2 * row),
        "any": RNG.uniform(0, 1, 5 * row + row // 2 + 1),
        "of any exponent": np.exp2(RNG.uniform(-30, 0, 4 * row)),
    }
    for length in (1, 2, row - 1, row, row + 1, 2 * row - 1):
        found[f"{length} of them"] = RNG.uniform(0.5, 1, length)
    return {name: x.astype(dtype) for name, x in found.items()}


@each_sum
@each_dtype
def test_heads_of_a_row_add_up_exactly_in_any_order_and_tails_are_small(dtype: str, order: int) -> None:
    precision = PRECISIONS[dtype]
    for name, x in magnitudes(dtype, precision, order).items():
        xp = Sequential()
        _row_sums(xp, x, order, precision)
        start = 0
        for heads, tails in zip(xp.summed[::2], xp.summed[1::2], strict=True):
            assert heads.shape[-1] <= precision.row
            for head_row, tail_row in zip(heads, tails, strict=True):
                m = fractions_of(x[start : start + heads.shape[-1]])
                start += heads.shape[-1]
                powers, rests = fractions_of(head_row), fractions_of(tail_row)
                for size, power, rest in zip(m, powers, rests, strict=True):
                    head = power
                    if order == 2:
                        head = Fraction(math.isqrt(power.numerator), math.isqrt(power.denominator))
                        assert head**2 == power, name
                    tail = size - head
                    assert abs(tail) <= max(m) * Fraction(TAIL[dtype, order]) * Fraction(17, 16), name
                    wanted = tail * (size + head) if order == 2 else tail
                    assert (
                        abs(rest - wanted)
                        <= abs(wanted) * Fraction(precision.unit_roundoff) * (order - 1) * 3
                    )
                # No partial sum, in whatever order, needs more bits than the accumulator has.
                unit = min((spacing(power) for power in powers if power), default=Fraction(1))
                assert sum(powers) <= unit / Fraction(precision.unit_roundoff), name
        assert start == x.size


@each_sum
@each_dtype
def test_sums_of_rows_are_within_the_error_they_claim(dtype: str, order: int) -> None:
    precision = PRECISIONS[dtype]
    for name, x in magnitudes(dtype, precision, order).items():
        for arranged in (x, x[::-1], np.sort(x), RNG.permutation(x)):
            hi, lo = pair_sum(*_row_sums(Sequential(), arranged, order, precision))
            wanted = sum((m**order for m in fractions_of(x)), Fraction(0))
            # That of a sum of squares is twice that of its root.
            allowed = wanted * Fraction(precision.unit_roundoff) * order / 4
            assert abs(Fraction(float(hi)) + Fraction(float(lo)) - wanted) <= allowed, name


@each_dtype
def test_rows_below_the_normal_range_lose_no_more_than_it_holds(dtype: str) -> None:
    precision, least = PRECISIONS[dtype], np.finfo(dtype).smallest_subnormal
    x = (least * RNG.integers(0, 1000, 3 * precision.row + 1)).astype(dtype)
    hi, lo = pair_sum(*_row_sums(np, x, 1, precision))
    assert (Fraction(float(hi)) + Fraction(float(lo))) == total(x)
    hi, lo = pair_sum(*_row_sums(np, x, 2, precision))
    assert 0 <= float(hi) + float(lo) <= x.size * least


@each_dtype
@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("kind", ["real", "imaginary", "complex"])
def test_norms_of_hostile_rows_are_within_the_error_they_claim(kind: str, order: Any, dtype: str) -> None:
    machine = STRICT if dtype == "float64" else NO_FLOAT64
    wide = {"float64": "complex128", "float32": "complex64"}[dtype]
    for name, x in magnitudes(dtype, PRECISIONS[dtype], 1 if order == 1 else 2).items():
        real = {"real": x, "imaginary": np.zeros_like(x), "complex": RNG.permutation(x)}[kind]
        leaf = x if kind == "real" else (real + 1j * x).astype(wide)
        groups = measure_groups([machine.put(leaf)], order, None, None)
        (found,), wanted = values(machine, groups), exact([leaf], order)
        assert abs(found - wanted) <= wanted * Fraction(groups.error), name


@each_dtype
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_a_change_of_scale_by_a_power_of_two_changes_no_bit_of_a_norm(order: Any, dtype: str) -> None:
    machine = STRICT if dtype == "float64" else NO_FLOAT64
    x = RNG.uniform(0.5, 3.9, 100).astype(dtype)
    significands = set()
    for exponent in range(-1000, 1020, 97) if dtype == "float64" else range(-120, 126, 7):
        leaf = np.ldexp(x, exponent).astype(dtype)
        groups = measure_groups([machine.put(leaf)], order, None, None)
        hi, lo = (float(machine.get(part)) for part in (groups.hi, groups.lo))
        significands.add((math.frexp(hi)[0], math.ldexp(lo, -math.frexp(hi)[1])))
    assert len(significands) == 1


@each_dtype
def test_the_power_of_two_below_a_size_is_no_smaller_than_the_smallest_normal(dtype: str) -> None:
    kind, info = np.dtype(dtype).type, np.finfo(dtype)
    least, top = math.frexp(float(info.smallest_normal))[1] - 1, math.frexp(float(info.max))[1]
    for exponent in range(least, top):
        for significand in (1.0, 1.5, float(np.nextafter(kind(2), kind(1)))):
            value = np.asarray(math.ldexp(significand, exponent), dtype)
            assert float(power_below(np, value, PRECISIONS[dtype])) == math.ldexp(1.0, exponent)
    for small in (0.0, info.smallest_subnormal, np.nextafter(info.smallest_normal, kind(0))):
        assert power_below(np, np.asarray(small, dtype), PRECISIONS[dtype]) == info.smallest_normal


@dataclass
class Chain:
    """An array of which only the shape is known, and how many additions led to an element at most."""

    shape: tuple[int, ...]
    additions: int = 0

    def __getitem__(self, key: Any) -> Chain:
        return Chain((*self.shape[:-1], len(range(*key[1].indices(self.shape[-1])))), self.additions)


class Chains:
    """The functions of a namespace that a plain sum takes."""

    @staticmethod
    def reshape(x: Chain, shape: tuple[int, ...]) -> Chain:
        assert math.prod(shape) == math.prod(x.shape)
        return Chain(shape, x.additions)

    @staticmethod
    def sum(x: Chain, axis: int) -> Chain:
        assert axis == -1
        return Chain(x.shape[:-1], x.additions + max(0, x.shape[-1] - 1))

    @staticmethod
    def concat(parts: list[Chain], axis: int) -> Chain:
        assert axis == -1
        length = sum(part.shape[-1] for part in parts)
        return Chain((*parts[0].shape[:-1], length), max(part.additions for part in parts))


def test_no_element_is_added_so_often_that_a_plain_sum_errs_by_more_than_it_claims() -> None:
    lengths = [2**31, 2**31 - 1, *(ROW**k + extra for k in range(1, 6) for extra in (-1, 0, 1, ROW - 1))]
    lengths += [sum((ROW - 1) * ROW**k for k in range(5)), ROW**5 + ROW - 1, *range(3 * ROW)]
    lengths += RNG.integers(2**31, size=2000).tolist()
    # A modulus takes 1.5 roundings more, a sum of two squares one.
    most = PLAIN_ERROR * 2.0**53 - 2
    for length in lengths:
        result: Any = _chained_sum(Chains, Chain((2, length)))
        assert result.shape == (2,)
        assert result.additions <= most
    assert PLAIN_ERROR <= 2.0**-44  # what the contract allows


@pytest.mark.parametrize("length", [0, 1, ROW - 1, ROW, ROW + 1, 2 * ROW, ROW**2 + ROW - 1, ROW**3 + 1])
def test_a_plain_sum_takes_every_element_once_and_a_row_at_most_at_a_time(length: int) -> None:
    xp = Sequential()
    x = RNG.integers(0, 1000, (2, length)).astype(np.float64)
    assert _chained_sum(xp, x).tolist() == [int(row.sum()) for row in x.astype(np.int64)]
    assert all(part.shape[-1] <= ROW for part in xp.summed)


@each_sum
@pytest.mark.parametrize("value", [1.1, 1.7, 2 - 2.0**-23])
@pytest.mark.parametrize("count", [2**20, ROW**3 + ROW**2 + ROW - 1])
def test_a_million_equal_elements_added_one_after_the_other(count: int, value: float, order: Any) -> None:
    number = np.float32(value)
    for leaves, length in ((1, count), (2**14, count // 2**14)):
        rows = [[np.full(length, number, np.float64)]] * leaves
        hi, lo, *_ = _plain(Sequential(), rows, order)
        wanted = leaves * length * Fraction(float(number)) ** order
        error = Fraction(PLAIN_ERROR) * order  # that of a sum of squares is twice that of its root
        assert abs(Fraction(float(hi)) + Fraction(float(lo)) - wanted) <= wanted * error


def mantissas(dtype: str) -> Array:
    """Numbers that split badly: ties, carries into the next power of two, ones in all places."""
    kind, digits = np.dtype(dtype).type, np.finfo(dtype).nmant + 1
    middle = 2.0 ** -(digits // 2)
    special = [1.0, 1.5, 2 - middle, 2 - middle / 2, 2 - middle / 4]
    special += [1 + k * middle for k in (0.25, 0.5, 1, 1.5, 2, 3)]
    near = [np.nextafter(kind(x), kind(side)) for x in special for side in (0, 4)]
    x = np.array([*special, *near, np.nextafter(kind(2), kind(1))], dtype)
    return np.concatenate([x, RNG.uniform(1, 2, 200).astype(dtype)])


@each_dtype
def test_products_of_high_parts_are_exact_so_that_fusing_changes_nothing(dtype: str) -> None:
    x = mantissas(dtype)
    x = np.concatenate([x, np.sqrt(x), x * np.dtype(dtype).type(2.0**-30), np.zeros(1, dtype)])
    high, low = _split(x, PRECISIONS[dtype])
    for number, one, other, square, mixed in zip(
        *map(fractions_of, (x, high, low, high * high, 2 * high * low)), strict=True
    ):
        assert one + other == number
        assert abs(other) <= 2 * number / Fraction(PRECISIONS[dtype].half)
        # A carry leaves one bit more: low * low alone, a product of tails, may be rounded.
        assert (square, mixed) == (one * one, 2 * one * other)


def pairs(dtype: str) -> tuple[Array, Array]:
    """Numbers hi + lo with lo up to half a spacing, of odd and even exponents."""
    hi = np.concatenate([mantissas(dtype), 2 * mantissas(dtype)])
    lo = np.spacing(hi) / 2 * RNG.choice([-1.0, -0.7, 0.0, 0.3, 1.0], hi.size)
    return hi, lo.astype(dtype)


@each_dtype
def test_the_root_of_a_sum_is_a_sum_of_twice_the_precision(dtype: str) -> None:
    hi, lo = pairs(dtype)
    u = Fraction(PRECISIONS[dtype].unit_roundoff)
    for *number, root, rest in zip(hi, lo, *_root(np, hi, lo, PRECISIONS[dtype]), strict=True):
        # (1 + e)**2 is 1 + 2 e and next to nothing.
        assert abs(total([root, rest]) ** 2 / total(number) - 1) <= 12 * u * u
    zero = np.zeros(1, dtype)
    assert [part.tolist() for part in _root(np, zero, zero, PRECISIONS[dtype])] == [[0.0], [0.0]]


def largest_tails(dtype: str) -> Array:
    """Numbers that leave as much as can be when they are cut to half their bits."""
    half = 2.0 ** -((np.finfo(dtype).nmant + 1) // 2)
    steps = np.arange(-8, 9) * float(np.finfo(dtype).eps)
    return np.concatenate([1 + half + steps, 1 + half / 2 + steps, 1 + 3 * half + steps]).astype(dtype)


@each_dtype
def test_moduli_are_sums_that_err_by_the_roundings_of_tails_alone(dtype: str) -> None:
    precision = PRECISIONS[dtype]
    a = np.concatenate([largest_tails(dtype), mantissas(dtype)])
    for b in (a, -a, a[::-1], np.zeros_like(a), a * np.dtype(dtype).type(2.0**-20)):
        # A tail is 2 / half of its number, those of both 4 / half of the square; four roundings, a root.
        allowed = 8 * Fraction(precision.unit_roundoff) / Fraction(precision.half)
        hi, lo = _moduli(np, a, b, precision)
        assert (np.abs(lo) <= np.spacing(hi) / 2).all()
        for real, imag, *found in zip(*map(fractions_of, (a, b, hi, lo)), strict=True):
            assert abs(sum(found) ** 2 / (real**2 + imag**2) - 1) <= 2 * allowed + allowed**2
    zero = np.zeros(2, dtype)
    assert [part.tolist() for part in _moduli(np, zero, zero, precision)] == [[0.0, 0.0]] * 2


def test_rounded_moduli_err_by_less_than_two_roundings_and_are_zero_of_zeros() -> None:
    a = np.concatenate([mantissas("float32"), mantissas("float32")]).astype(np.float64)
    b = RNG.permutation(a)
    for real, imag, found in zip(*map(fractions_of, (a, b, _modulus(np, a, b))), strict=True):
        assert abs(found**2 / (real**2 + imag**2) - 1) <= Fraction(4, 2**53)
    assert _modulus(np, np.array([0.0, -0.0, math.nan]), np.array([-0.0, 0.0, 0.0]))[:2].tolist() == [
        0.0,
        0.0,
    ]


class Flushed(np.ndarray[Any, Any]):
    """An array of a library that puts zero wherever a result is below the normal range."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Flushed) else x for x in inputs]
        return flushed(getattr(ufunc, method)(*plain, **keywords))


def flushed(result: Any) -> Any:
    if isinstance(result, tuple | list | np.dtype):
        return result
    x = np.asarray(result).view(np.ndarray)
    if x.dtype == np.float32:
        x = np.where(np.abs(x) < np.finfo(np.float32).smallest_normal, np.float32(0), x)
    return x.view(Flushed)


class Flushing:
    """NumPy without float64 and without subnormal results, in place of the namespace of array-api-strict."""

    @staticmethod
    def dtypes(**_: Any) -> dict[str, Any]:
        return {"float32": np.dtype("float32")}

    def __array_namespace_info__(self) -> Flushing:
        return self

    def __getattr__(self, name: str) -> Any:
        function: Callable[..., Any] = getattr(np, name)
        return lambda *arguments, **keywords: flushed(function(*arguments, **keywords))

    def isdtype(self, dtype: Any, kind: Any) -> bool:
        return np.isdtype(dtype, kind)


@each_sum
@pytest.mark.parametrize("exponent", [-125, -47, -40, -37, -36, -35, 0, 50, 51, 110])
def test_squares_that_a_library_flushes_are_too_small_to_count(
    exponent: int, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcore._portable_sums.namespace_of", lambda x: Flushing())
    count = 2**16
    for gap in (8, 12, 16, 20):
        if exponent - gap < -126:  # subnormal itself
            continue
        x = np.full(count, math.ldexp(0.93, exponent - gap + 1), np.float32)
        x[0] = 2.0**exponent
        groups = measure_groups([x.view(Flushed)], order, None, None)
        found = total([groups.hi, groups.lo]) / Fraction(float(groups.scale))
        first, second = (number**order for number in fractions_of(x[:2]))
        error = Fraction(groups.error)
        assert (1 - error) ** order <= found**order / (first + (count - 1) * second) <= (1 + error) ** order


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [ROW, ROW + 1, 1000, 20_011])
def test_sums_of_rows_are_added_up_with_what_every_addition_leaves_out(dtype: str, length: int) -> None:
    precision = PRECISIONS[dtype]
    hi = np.exp2(RNG.uniform(-9, 9, length)).astype(dtype)
    lo = (hi * RNG.uniform(-0.5, 0.5, length) * precision.unit_roundoff).astype(dtype)
    fewer_hi, fewer_lo = _fewer(np, hi, lo, precision)
    assert len(fewer_hi) <= ROW
    wanted = sum(fractions_of(hi), Fraction(0)) + sum(fractions_of(lo), Fraction(0))
    found = sum(fractions_of(fewer_hi), Fraction(0)) + sum(fractions_of(fewer_lo), Fraction(0))
    assert abs(found - wanted) <= wanted * Fraction(precision.unit_roundoff) / 2**10
