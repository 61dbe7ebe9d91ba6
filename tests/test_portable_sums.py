"""The portable sums: within the error they claim, for every accumulator, scale and layout, over ranks too."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from clipcore_backends._numpy import NumpyEngine
from edge_support import NO_FLOAT64, STRICT, Machine

from clipcore._decide import two_sum
from clipcore._portable_powers import accumulator, power_above, scale_for
from clipcore._portable_sums import (
    PLAIN_ERROR,
    Groups,
    _groups_first,
    _largest,
    _largest_pair,
    _magnitudes,
    components,
    given_groups,
    measure_groups,
    pair_sum,
)
from clipcore._reduce import BITS, PIECES, all_ranks

RNG = np.random.default_rng(20261127)
Array = np.ndarray[Any, np.dtype[Any]]

MACHINES = [STRICT, NO_FLOAT64]
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=str)
each_order = pytest.mark.parametrize("order", [1, 2, math.inf])
# The largest magnitude is asked for of whole trees only.
each_sum = pytest.mark.parametrize("order", [1, 2])


def fractions_of(x: Any) -> list[Fraction]:
    return [Fraction(float(value)) for value in np.ravel(x)]


def exact(leaves: list[Array], order: float) -> Fraction:
    """The norm to a relative error of 2**-120."""

    def root(square: Fraction) -> Fraction:
        if not square:
            return square
        shift = 2 * max(0, 130 - (square.numerator.bit_length() - square.denominator.bit_length()) // 2)
        return Fraction(math.isqrt((square.numerator << shift) // square.denominator), 1 << (shift // 2))

    squares = []
    for x in leaves:
        pairs = zip(fractions_of(x.real), fractions_of(x.imag), strict=True)
        squares += [real**2 + imag**2 for real, imag in pairs]
    if order == 2:
        return root(sum(squares, Fraction(0)))
    moduli = [root(square) for square in squares]
    return sum(moduli, Fraction(0)) if order == 1 else max(moduli, default=Fraction(0))


def values(machine: Machine, groups: Groups) -> list[Fraction]:
    """What each group's three numbers say the norm is."""
    parts = (fractions_of(machine.get(part)) for part in (groups.hi, groups.lo))
    scale = fractions_of(np.broadcast_to(machine.get(groups.scale), machine.get(groups.hi).shape))
    return [(hi + lo) / by for hi, lo, by in zip(*parts, scale, strict=True)]


def drawn(shape: tuple[int, ...], dtype: str, exponent: int) -> Array:
    x = RNG.uniform(0.5, 2, shape) * RNG.choice([-1.0, 1.0], shape)
    if dtype.startswith("complex"):
        x = x + 1j * RNG.uniform(-2, 2, shape)
    return np.asarray(np.ldexp(1.0, exponent) * x.astype(dtype)).astype(dtype)


def scales(machine: Machine) -> list[int]:
    return [-1000, -401, -399, 0, 479, 481, 1000] if machine.has_float64 else [-120, -48, -46, 0, 49, 51, 110]


@each_machine
def test_the_window_holds_the_squares_of_whatever_a_step_brings_into_it(machine: Machine) -> None:
    precision = accumulator(machine.put(np.ones(1, np.float32)))
    info = np.finfo("float64" if machine.has_float64 else "float32")
    digits = info.nmant + 1
    assert precision.unit_roundoff == 2.0**-digits
    assert precision.half == 2.0 ** ((digits + 1) // 2)
    powers = [precision.anchor, precision.large, precision.small, precision.step, precision.guarded]
    assert all(math.frexp(power)[0] == 0.5 for power in powers)
    largest, least = math.frexp(float(info.max))[1], math.frexp(float(info.smallest_subnormal))[1] - 1
    normal = math.frexp(float(info.smallest_normal))[1] - 1
    anchor, large, small, step, guarded = (math.frexp(power)[1] - 1 for power in powers)
    count = 27  # elements, as a power of two
    assert 2 * large + count < largest
    assert large + 1 + max(anchor, digits) < largest  # what is added to a row, or to a number to split it
    assert 2 * small - digits >= normal  # what a rounding of the least square leaves out
    # All squares below the normal range together, should they be flushed, beside that of the largest
    # element, which is brought to 2 at least: an eighth of the unit roundoff.
    assert normal + count <= 2 - digits - 3
    assert small <= largest - step <= large
    assert small + step <= large
    assert 2 * (least + step) >= normal  # a subnormal's square is exact
    assert least + digits < guarded <= largest - 2 * step  # normal, and so is what two guards are left of


@each_machine
@each_order
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_norms_are_within_the_error_they_claim(dtype: str, order: float, machine: Machine) -> None:
    narrow = dtype in ("float32", "complex64")
    if not narrow and not machine.has_float64:
        assert accumulator(machine.put(np.ones(1, np.float32))).unit_roundoff == 2.0**-24
        return
    for exponent in scales(NO_FLOAT64 if narrow else machine):
        for shapes in ([(1,)], [(2,), (3, 2)], [(67,), (0,), ()]):
            leaves = [drawn(shape, dtype, exponent) for shape in shapes]
            leaves[0].reshape(-1)[0] *= 2.0**-20
            groups = measure_groups([machine.put(x) for x in leaves], order, None, None)
            (found,), wanted = values(machine, groups), exact(leaves, order)
            assert abs(found - wanted) <= wanted * Fraction(groups.error)
            plain = narrow and machine.has_float64
            assert groups.error == (PLAIN_ERROR if plain else groups.precision.unit_roundoff / 2)
            assert not machine.get(groups.has_nan | groups.has_infinity)


@each_machine
@each_sum
@pytest.mark.parametrize("axis", [(0,), (1,), (2, 0), (1, 2)])
def test_norms_of_slices_are_within_the_error_they_claim(
    axis: tuple[int, ...], order: float, machine: Machine
) -> None:
    x = drawn((3, 2, 5), "float32", 0)
    x[0] *= np.float32(2.0**-100)
    x[:, 1] *= np.float32(2.0**70)
    groups = measure_groups([machine.put(x)], order, axis, None)
    kept = [1 if k in axis else n for k, n in enumerate(x.shape)]
    assert machine.get(groups.hi).shape == tuple(kept)
    moved = np.moveaxis(x, axis, range(-len(axis), 0)).reshape(-1, math.prod(x.shape[k] for k in axis))
    for found, row in zip(values(machine, groups), moved, strict=True):
        wanted = exact([row], order)
        assert abs(found - wanted) <= wanted * Fraction(groups.error)


@each_machine
@each_sum
def test_nan_and_infinity_are_flagged_and_leave_nothing_behind(order: float, machine: Machine) -> None:
    rows = np.array(
        [[1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0], [-math.inf, math.nan], [0.0, 0.0]], np.float32
    )
    groups = measure_groups([machine.put(rows)], order, (1,), None)
    assert machine.get(groups.has_nan).ravel().tolist() == [False, True, False, True, False]
    assert machine.get(groups.has_infinity).ravel().tolist() == [False, False, True, False, False]
    assert [value != 0 for value in values(machine, groups)] == [True, False, False, False, False]
    complex_rows = np.array([[complex(math.inf, math.nan)], [complex(1, -math.inf)]], np.complex64)
    groups = measure_groups([machine.put(complex_rows)], order, (1,), None)
    assert machine.get(groups.has_nan).ravel().tolist() == [True, False]
    assert machine.get(groups.has_infinity).ravel().tolist() == [False, True]


@each_machine
def test_a_norm_given_keeps_its_value_at_every_scale(machine: Machine) -> None:
    like = machine.put(np.ones(1, np.float32))
    dtype = np.float64 if machine.has_float64 else np.float32
    for exponent in scales(machine):
        number = float(dtype(math.ldexp(1.3, exponent)))
        for norm in (number, machine.put(np.asarray(number, dtype))):
            groups = given_groups(norm, like)
            assert values(machine, groups) == [Fraction(number)]
            assert groups.precision.small / 4 <= float(groups.hi) <= groups.precision.large * 4
            assert groups.error == groups.precision.unit_roundoff
            assert groups.hi.device == like.device
            assert not machine.get(groups.has_nan | groups.has_infinity)
    for number in (math.nan, math.inf):
        groups = given_groups(number, like)
        assert values(machine, groups) == [0]
        assert bool(machine.get(groups.has_nan)) is math.isnan(number)
        assert bool(machine.get(groups.has_infinity)) is math.isinf(number)


@each_machine
def test_sizes_outside_the_window_are_brought_into_it(machine: Machine) -> None:
    precision = accumulator(machine.put(np.ones(1, np.float32)))
    dtype = np.float64 if machine.has_float64 else np.float32
    info = np.finfo(dtype)
    sizes = [
        0.0,
        info.max,
        precision.large,
        precision.large * 2,
        1.0,
        precision.small,
        precision.small / 2,
        math.inf,
    ]
    x = machine.put(np.array(sizes, dtype))
    found = machine.get(
        scale_for(x.__array_namespace__(), x, precision.large, precision.small, precision.step)
    ).tolist()
    down, up = 1 / precision.step, precision.step
    assert found == [1.0, down, 1.0, down, 1.0, 1.0, up, 1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_numbers_add_up_to_their_sum_and_what_it_leaves_out(dtype: Any) -> None:
    a, b = (np.ldexp(RNG.uniform(-2, 2, 200), RNG.integers(-20, 20, 200)).astype(dtype) for _ in range(2))
    total, rest = two_sum(a, b)
    assert np.array_equal(total, a + b)
    for parts in zip(*map(fractions_of, (a, b, total, rest)), strict=True):
        assert parts[0] + parts[1] == parts[2] + parts[3]


@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13])
def test_sums_by_halves_keep_what_every_addition_leaves_out(length: int, shape: tuple[int, ...]) -> None:
    hi = np.ldexp(RNG.uniform(1, 2, (*shape, length)), RNG.integers(-8, 8, (*shape, length)))
    lo = hi * RNG.uniform(-(2.0**-54), 2.0**-54, hi.shape)
    high, low = pair_sum(hi, lo)
    assert high.shape == low.shape == shape
    rows = (part.reshape(-1, length) for part in (hi, lo))
    for head, tail, *row in zip(np.ravel(high), np.ravel(low), *rows, strict=True):
        wanted = sum((sum(fractions_of(part), Fraction(0)) for part in row), Fraction(0))
        assert abs(Fraction(float(head)) + Fraction(float(tail)) - wanted) <= wanted / 2**95
        assert abs(tail) <= np.spacing(head) / 2


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 4)])
@pytest.mark.parametrize("axis", [None, (), (0,), (1,), (2, 0), (0, 1, 2)])
def test_the_elements_of_each_group_go_to_the_last_axis(
    axis: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    x = np.arange(float(math.prod(shape))).reshape(shape)
    reduced = (0, 1, 2) if axis is None else axis
    kept = [k for k in range(3) if k not in reduced]
    found = _groups_first(np, x, axis)
    assert found.shape[:-1] == tuple(shape[k] for k in kept)
    assert found.size == x.size
    if found.size:
        for where in np.ndindex(*found.shape[:-1]):
            index: list[Any] = [slice(None)] * 3
            for k, position in zip(kept, where, strict=True):
                index[k] = position
            assert sorted(found[where]) == np.sort(x[tuple(index)], axis=None).tolist()


@pytest.mark.parametrize(("name", "least", "top"), [("float64", -538, 514), ("float32", -75, 65)])
def test_the_power_of_two_above_a_size_is_the_one_that_frexp_finds(name: str, least: int, top: int) -> None:
    dtype = np.dtype(name)
    for exponent in range(least, top + 1):
        for mantissa in (1.0, 1.5, float(np.nextafter(dtype.type(2), dtype.type(1)))):
            value = np.asarray(math.ldexp(mantissa, exponent), dtype)
            assert float(power_above(np, value, dtype)) == 2.0 ** math.frexp(float(value))[1]


def alone(array: Any, **_: Any) -> Any:
    return array


@each_machine
@each_order
def test_a_rank_alone_gets_its_own_norm_back(order: float, machine: Machine) -> None:
    exponents = scales(machine) if machine.has_float64 else [-100, -48, -46, 0, 49, 51, 100]
    for exponent in exponents:
        x = drawn((9,), "float64" if machine.has_float64 else "float32", exponent)
        groups = measure_groups([machine.put(x)], order, None, alone)
        (found,), wanted = values(machine, groups), exact([x], order)
        assert abs(found - wanted) <= wanted * Fraction(groups.error)


@each_machine
@each_order
def test_ranks_tell_each_other_of_nan_and_infinity(order: float, machine: Machine) -> None:
    for elements, has_nan, has_infinity in (
        ([1.0, 0.0], False, False),
        ([1.0, math.nan], True, False),
        ([1.0, -math.inf], False, True),
    ):
        groups = measure_groups([machine.put(np.array(elements, np.float32))], order, None, alone)
        assert bool(groups.has_nan) is has_nan
        assert bool(groups.has_infinity) is has_infinity


@each_order
@pytest.mark.parametrize("exponent", [-1000, -3, 0, 1, 900])
def test_ranks_of_both_engines_exchange_the_same_numbers(exponent: int, order: float) -> None:
    x = drawn((9,), "float64", exponent)
    sent: list[list[Any]] = [[], []]

    def watch(index: int) -> Any:
        def all_reduce(array: Any, op: str) -> Any:
            sent[index].append((op, np.asarray(array).tolist()))
            return array

        return all_reduce

    all_ranks(NumpyEngine().measure([x], order, None), order, watch(0))
    measure_groups([x], order, None, watch(1))
    for (op, one), (same, other) in zip(*sent, strict=True):
        assert op == same
        assert len(one) == len(other)
        assert abs(math.fsum(one) - math.fsum(other)) <= 2.0**-50 * math.fsum(one)
        if op == "sum":
            # one step of the first grid, carried over to the second piece, and so on
            steps = [2.0 ** (-BITS["float64"] * max(k, 1)) for k in range(PIECES)]
            assert abs(one[0] - other[0]) <= steps[0]
            assert all(
                abs(a - b) <= 2 * step for a, b, step in zip(one[1:], other[1:], steps[1:], strict=True)
            )


def test_of_equal_largest_moduli_the_larger_second_part_counts() -> None:
    # Both are nearest to 5, the second lies above it.
    exactly, above = np.array([3 + 4j]), np.array([3 + 2.0**-51 + 4j])
    wanted = exact([above], math.inf)
    for leaves in ([exactly, above], [above, exactly], [np.concatenate([exactly, above, exactly])]):
        groups = measure_groups([STRICT.put(x) for x in leaves], math.inf, None, None)
        assert float(groups.hi) == 5.0
        (found,) = values(STRICT, groups)
        assert abs(found - wanted) <= wanted * Fraction(groups.error)


class Float32ByDefault:
    """array-api-strict with another default dtype."""

    def __getattr__(self, name: str) -> Any:
        return getattr(strict, name)

    def zeros(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
        return strict.zeros(shape, dtype=dtype or strict.float32, device=device)

    def asarray(self, value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        return strict.asarray(value, dtype=dtype or strict.float32, device=device)


def test_the_default_dtype_of_a_library_is_not_what_norms_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipcore._portable_sums.namespace_of", lambda x: Float32ByDefault())
    empty = measure_groups([STRICT.put(np.zeros((0, 2)))], 2, None, None)
    assert {str(part.dtype) for part in empty[:3]} == {"array_api_strict.float64"}
    assert float(given_groups(0.1, STRICT.put(np.ones(1, np.float32))).hi) == 0.1


def test_complex_numbers_are_measured_by_their_parts_and_real_ones_as_they_are() -> None:
    z, x = np.array([1 + 2j, -3j], np.complex64), np.ones(2, np.float32)
    assert [part.tolist() for part in components(z)] == [[1.0, 0.0], [2.0, -3.0]]
    (same,) = components(x)
    assert same is x


def test_magnitudes_keep_nan_and_turn_both_zeros_to_the_same() -> None:
    found = _magnitudes(np, np.array([-0.0, 0.0, -2.0, 3.0, -math.inf, math.nan]))
    assert found[:5].tolist() == [0.0, 0.0, 2.0, 3.0, math.inf]
    assert not np.signbit(found[:5]).any()
    assert np.isnan(found[5])


def test_the_largest_of_no_elements_is_zero() -> None:
    assert _largest(np, np.zeros((2, 0))).tolist() == [0.0, 0.0]
    assert _largest(np, np.zeros((0, 3))).shape == (0,)
    assert _largest(np, np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])).tolist() == [3.0, 0.0]


def test_the_largest_pair_is_that_of_the_largest_first_part_and_then_of_the_second() -> None:
    hi = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 4.0, 4.0, 4.0]])
    lo = np.array([[9.0, -2.0, -1.0, 9.0], [-3.0, 1.0, 2.0, 0.0]])
    assert [part.tolist() for part in _largest_pair(np, hi, lo)] == [[3.0, 5.0], [-1.0, -3.0]]
