"""The portable engine at its limits: scales, limits as arrays, norms given, signs of zero, other ranks."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from edge_support import NO_FLOAT64, STRICT, Machine, bits
from test_engines import flaws
from test_portable_sums import Float32ByDefault

import clipcore as cc
from clipcore import _portable
from clipcore._norm_clip import Request
from clipcore._portable_powers import accumulator
from clipcore._portable_sums import Groups, measure_groups
from clipcore._reduce import BITS, PIECES

RNG = np.random.default_rng(20261128)
each_machine = pytest.mark.parametrize("machine", [STRICT, NO_FLOAT64], ids=str)

EXPONENTS = {
    (STRICT, "float64"): [-1070, -1022, -970, -700, -401, -300, 0, 299, 480, 600, 1000],
    (STRICT, "float32"): [-146, -126, -100, 0, 120],
    (STRICT, "complex128"): [-1060, -420, 0, 485, 1000],
    (NO_FLOAT64, "float32"): [-146, -126, -110, -60, -48, -47, -24, 0, 24, 49, 51, 97, 120],
    (NO_FLOAT64, "complex64"): [-140, -50, 0, 52, 115],
}
CASES = [(*key, exponent) for key, exponents in EXPONENTS.items() for exponent in exponents]
SHARES = [2.0**-1000, 2.0**-300, 2.0**-50, 1e-5, 0.3, 0.7072, 1 - 2.0**-20, 1 - 2.0**-48, 1 + 2.0**-48]


def drawn(size: int, dtype: str, exponent: int) -> Any:
    x = RNG.uniform(0.6, 1, size) * RNG.choice([-1.0, 1.0], size)
    if dtype.startswith("complex"):
        x = x + 1j * RNG.uniform(-1, 1, size)
    return (x * 2.0**exponent).astype(dtype)


@pytest.mark.parametrize(("machine", "dtype", "exponent"), CASES, ids=str)
def test_trees_of_every_size_keep_the_laws_under_every_limit(
    machine: Machine, dtype: str, exponent: int
) -> None:
    leaves = [drawn(2, dtype, exponent), np.zeros(1, dtype)]
    for order in (1, 2, math.inf):
        norm = float(cc.global_norm([x.astype("complex128") for x in leaves], ord=order))
        for limit in (norm * share for share in SHARES):
            if machine.has_float64 or limit >= 2.0**-126:
                assert list(flaws(machine, leaves, limit, order)) == [], (order, limit)


@each_machine
def test_a_limit_that_is_an_array_does_what_the_number_does(machine: Machine) -> None:
    x = np.array([[3.0, -4.0], [0.0, -0.0]], np.float32)
    for value in (0.0, -0.0, 0.3, 4.9, 5.0, 7.0, math.inf):
        for dtype in ("float32", "float64") if machine.has_float64 else ("float32",):
            number = float(np.dtype(dtype).type(value))
            want = machine.run(cc.clip_by_l2_norm, x, abs(number))
            assert bits(machine.run(cc.clip_by_l2_norm, x, np.array(value, dtype))) == bits(want)
    for value in (-1.0, -1e-30, math.nan, -math.inf):
        result = machine.run(cc.clip_by_l2_norm, x, np.array(value, np.float32))
        assert np.isnan(result).all()
        z = machine.run(cc.clip_by_l2_norm, x.astype(np.complex64), np.array(value, np.float32))
        assert np.isnan(z.real).all()
        assert np.isnan(z.imag).all()


def groups_of(machine: Machine, norm: Any) -> Groups:
    return measure_groups([machine.put(np.asarray([norm], np.float32))], 2, None, None)


@each_machine
def test_a_limit_is_held_in_two_parts(machine: Machine) -> None:
    groups = groups_of(machine, 1.0)
    for number in (0.0, 0.1, 1 + 2.0**-30, 1e30 / 3):
        limit = _portable._limit(number, groups)
        assert limit.hi.dtype == limit.lo.dtype == groups.hi.dtype
        assert limit.hi.device == limit.lo.device == limit.valid.device == groups.hi.device
        exact = Fraction(float(limit.hi)) + Fraction(float(limit.lo))
        assert abs(exact - Fraction(number)) <= Fraction(number) / 2**48
        assert bool(limit.valid)
    beyond = _portable._limit(math.inf if machine.has_float64 else 1e300, groups)
    assert (float(beyond.hi), float(beyond.lo), bool(beyond.valid)) == (math.inf, 0.0, True)
    given = _portable._limit(machine.put(np.array(0.75, np.float32)), groups)
    assert given.hi.dtype == given.lo.dtype == groups.hi.dtype
    assert (float(given.hi), float(given.lo), bool(given.valid)) == (0.75, 0.0, True)


@each_machine
def test_a_limit_between_two_floats_decides_on_either_side(machine: Machine) -> None:
    for exponent in (-60, 0, 60):
        x = np.ldexp(np.array([3.0, -4.0], np.float32), exponent)
        norm, tiny = math.ldexp(5.0, exponent), math.ldexp(1.0, exponent - 40)
        assert bits(machine.run(cc.clip_by_l2_norm, x, norm + tiny)) == bits(x)
        assert bits(machine.run(cc.clip_by_l2_norm, x, norm)) == bits(x)
        assert np.all(np.abs(machine.run(cc.clip_by_l2_norm, x, norm - tiny)) < np.abs(x))


def test_a_limit_is_not_in_the_default_dtype_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = groups_of(STRICT, 1.0)
    monkeypatch.setattr("clipcore._portable.namespace_of", lambda x: Float32ByDefault())
    limit = _portable._limit(0.1, groups)
    assert limit.hi.dtype == limit.lo.dtype == groups.hi.dtype
    assert float(limit.hi) == 0.1


@each_machine
def test_a_norm_is_both_parts_rounded_and_infinite_only_beyond_the_dtype(machine: Machine) -> None:
    groups = groups_of(machine, 1.0)
    largest = float(np.finfo(np.float64 if machine.has_float64 else np.float32).max)
    u = groups.precision.unit_roundoff
    one = groups.hi
    for hi, lo, scale, norm in (
        (1.0, 1.5 * u, 1.0, 1 + 2 * u),
        (1.0, -0.75 * u, 1.0, 1 - u),
        (largest, 0.0, 1.0, largest),
        (largest / 2, 0.0, 0.5, largest),
        (1.0, 0.0, 1 / groups.precision.step, groups.precision.step),
        (largest / 2, 0.0, 0.25, math.inf),
        (1.0, 0.0, groups.precision.step, 1 / groups.precision.step),
    ):
        found = _portable._norm(groups._replace(hi=one * hi, lo=one * lo, scale=one * scale), one, None)
        assert float(found) == norm
        assert found.shape == ()


@each_machine
def test_a_norm_given_scales_by_it_and_is_returned(machine: Machine) -> None:
    x = [np.array([3.0, -4.0], np.float32), np.array([-0.0], np.float32)]
    for norm in (2.0, np.array(2.0, np.float32)):
        given = machine.put(norm) if isinstance(norm, np.ndarray) else norm
        with machine.serving():
            clipped, returned = cc.clip_by_global_norm(machine.put(x), 1.0, norm=given)
        clipped, returned = machine.get(clipped), machine.get(returned)
        for element, after in zip([3.0, -4.0], clipped[0].tolist(), strict=True):
            assert abs(element) / 2 * (1 - 2.0**-20) < abs(after) <= abs(element) / 2
            assert after * element > 0
        assert bits(clipped[1]) == bits(x[1])
        assert float(returned) == 2.0
        assert str(returned.dtype) == ("float64" if machine.has_float64 else "float32")


@each_machine
@pytest.mark.parametrize("order", [1, 2])
def test_pieces_for_other_ranks_lie_on_grids_that_4096_of_them_cannot_leave(
    order: int, machine: Machine
) -> None:
    sent = []

    def all_reduce(array: Any, op: str) -> Any:
        if op == "sum":
            sent.append([float(array[k]) for k in range(PIECES)])
        return array

    for exponent in (-90, -47, -1, 0, 1, 60):
        for _ in range(5):
            x = drawn(5, "float64" if machine.has_float64 else "float32", exponent)
            measure_groups([machine.put(x)], order, None, all_reduce)
    bits = BITS["float64" if machine.has_float64 else "float32"]
    for pieces in sent:
        assert 1 / 16 - 2.0**-bits <= pieces[0] <= 1
        for k, piece in enumerate(pieces, 1):
            assert (piece * 2.0 ** (bits * k)).is_integer()
            assert abs(piece) <= 2.0 ** (bits * (1 - k))
    assert 4096 * 2.0**bits <= 1 / accumulator(machine.put(x)).unit_roundoff
    assert any(second for _, second, *_ in sent)


@each_machine
def test_zeros_keep_their_signs_in_real_and_imaginary_parts(machine: Machine) -> None:
    parts = [0.0, -0.0, 3.0, -3.0]
    z = np.array([complex(a, b) for a in parts for b in parts], np.complex64)
    clipped = machine.run(cc.clip_by_l2_norm, z, 1.0)
    for found, want in ((clipped.real, z.real), (clipped.imag, z.imag)):
        assert np.array_equal(np.signbit(found), np.signbit(want))
        assert np.array_equal(found == 0, want == 0)


@each_machine
def test_slices_with_nan_or_infinity_are_filled_and_the_others_left(machine: Machine) -> None:
    rows = np.array([[1.0, math.nan], [math.inf, 2.0], [3.0, 4.0], [0.25, 0.5]], np.float32)
    for dtype in (np.float32, np.complex64):
        x = rows.astype(dtype)
        for policy, fill in (("propagate", math.nan), ("zero", 0.0)):
            clipped = machine.run(cc.clip_by_l2_norm, x, 1.0, axis=1, nonfinite=policy)
            assert np.array_equal(clipped[:2].real, np.full((2, 2), fill), equal_nan=True)
            assert np.array_equal(
                clipped[:2].imag, np.full((2, 2), fill if dtype is np.complex64 else 0), equal_nan=True
            )
            assert np.all((clipped[2].real > 0) & (clipped[2].real < x[2].real))
            assert bits(clipped[3]) == bits(x[3])
        unlimited = machine.run(cc.clip_by_l2_norm, x, math.inf, axis=1)
        assert bits(unlimited) == bits(x)
        zeroed = machine.run(cc.clip_by_l2_norm, x, math.inf, axis=1, nonfinite="zero")
        assert not zeroed[:2].any()
        assert bits(zeroed[2:]) == bits(x[2:])


def test_a_request_by_a_rank_without_a_norm_measures() -> None:
    x = STRICT.put(np.array([3.0, 4.0]))
    assert float(_portable._groups([x], Request("f", 2)).hi) == 5.0
    assert float(_portable._groups([x], Request("f", 2, norm=7.0)).hi) == 7.0
