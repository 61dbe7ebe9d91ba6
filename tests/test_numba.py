"""The compiled sums: within the error that the sums of NumPy claim, and used where they may be."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipcore_backends import _numpy_measure
from clipcore_backends._numpy import NumpyEngine
from clipcore_backends._numpy_measure import COMPILED_LEAST
from clipcore_backends._numpy_sums import BLOCK, NARROW_ERROR, WIDE_ERROR

import clipcore as cc

RNG = np.random.default_rng(20261124)
PIECE = 1 << 20


@pytest.fixture
def compiled(request: pytest.FixtureRequest) -> Any:
    if request.config.getoption("--require-all"):
        import clipcore_backends._numba  # noqa: F401
    else:
        pytest.importorskip("numba", reason="numba is not installed")
    from clipcore_backends import _numba

    return _numba


def exact(x: Any, order: int) -> Fraction:
    """The sum of |x|**order, exactly."""
    terms = np.abs(x.astype(np.float64))
    if order == 2 and x.dtype == np.float32:
        terms *= terms
    elif order == 2:
        high = terms * 134217729.0 - (terms * 134217729.0 - terms)  # 26 bits, which leaves as many
        low = terms - high
        terms = np.concatenate([high * high, 2 * high * low, low * low])
    numbers = terms.tolist()
    parts: list[float] = []
    while part := math.fsum([*numbers, *(-each for each in parts)]):
        parts.append(part)
    return sum(map(Fraction, parts), Fraction(0))


def hard(size: int) -> list[Any]:
    """Elements of which a long chain of additions would lose most."""
    tiny = np.full(size, 2.0**-27.1, np.float32)
    tiny[:1] = 1
    growing = np.exp2(np.linspace(-60, 60, size)).astype(np.float32)
    return [RNG.standard_normal(size).astype(np.float32), tiny, tiny[::-1].copy(), growing, -growing]


@pytest.mark.parametrize("size", [0, 1, 7, 255, 256, 257, 16_383, 16_385, PIECE])
def test_sums_err_less_than_they_claim(compiled: Any, size: int) -> None:
    for x in hard(size):
        for order, summed in ((1, compiled.magnitudes), (2, compiled.squares)):
            wanted = exact(x, order)
            assert abs(Fraction(summed(x)) - wanted) <= wanted * Fraction(WIDE_ERROR)


def hard_doubles(size: int) -> list[Any]:
    """Elements of which a tail, a rest or a chain of additions would lose most, or a head hold too much."""
    normal = RNG.standard_normal(size)
    mixed = np.full(size, 1.0999999999999999 * 2.0**-20)
    mixed[size // 2 : size // 2 + 1] = 1.9999999999999998
    growing = np.exp2(np.linspace(-60, 60, size)) * (1 + 2.0**-30)
    below_two = 2 - 2.0**-19 * RNG.random(size)
    blocks = normal * 2.0 ** RNG.integers(-12, 12, size // BLOCK + 1).repeat(BLOCK)[:size]
    extreme = [normal * 2.0**power for power in (-390, 470)]
    return [normal, mixed, growing, -growing, below_two, blocks, *extreme, 0 * normal]


@pytest.mark.parametrize("size", [0, 1, 7, 255, 257, 1000, BLOCK, 5 * BLOCK + 3, PIECE])
def test_sums_of_float64_err_less_than_they_claim(compiled: Any, size: int) -> None:
    for x in hard_doubles(size):
        for order in (1, 2):
            head, tail = compiled.narrow_sum(x, x.view(np.int64), order == 2)
            wanted = exact(x, order)
            assert abs(Fraction(head) + Fraction(tail) - wanted) <= wanted * Fraction(NARROW_ERROR)


def test_a_full_block_of_heads_adds_up_exactly(compiled: Any) -> None:
    for order, bits in ((1, 37), (2, 19)):
        x = RNG.integers(2 ** (bits - 1), 2**bits, BLOCK) / 2.0**bits
        head, tail = compiled.narrow_sum(x, x.view(np.int64), order == 2)
        assert (Fraction(head), tail) == (exact(x, order), 0)


@pytest.mark.parametrize("other", [math.nan, math.inf, -math.inf, 2.0**480, -(2.0**1023)])
def test_numpy_is_asked_where_a_block_is_to_be_scaled_or_is_not_finite(compiled: Any, other: float) -> None:
    ones = np.ones(1000)
    tiny = np.full(1000, 2.0**-401)
    subnormal = np.full(1000, 5e-324)
    for place in (0, 300, 999):
        x = ones.copy()
        x[place] = other
        for each in (x, tiny, subnormal):
            for squared in (False, True):
                assert math.isnan(compiled.narrow_sum(each, each.view(np.int64), squared)[0])


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("order", [1, 2])
def test_float64_arrays_of_any_magnitudes_are_summed_as_without_it(
    order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    normal = RNG.standard_normal(3 * PIECE + 1000)
    small, great, mixed, with_nan, with_infinity = (normal.copy() for _ in range(5))
    small[: PIECE + 3] *= 2.0**-500
    small[-BLOCK:] = 0
    great[-3 * BLOCK :] *= 2.0**490
    mixed[: 3 * BLOCK] *= 2.0**-500
    mixed[BLOCK * 6 : BLOCK * 8] = 0
    mixed[-3 * BLOCK :] *= 2.0**490
    with_nan[7], with_infinity[-7] = math.nan, -math.inf
    for each in (normal, small, great, mixed, normal * 2.0**-1020, with_nan, with_infinity):
        sums = []
        for alone in (False, True):
            with monkeypatch.context() as patched:
                if alone:
                    patched.setattr(_numpy_measure, "compiled_sum", lambda *_: None)
                sums.append(NumpyEngine().measure([each], order, None))
        one, other = sums
        if not math.isfinite(other.hi):
            assert str(one.hi) == str(other.hi)
            continue
        one_value, other_value = (
            (Fraction(each.hi) + Fraction(each.lo)) * Fraction(2) ** int(each.exponent) for each in sums
        )
        assert abs(one_value - other_value) <= 2 * other_value * Fraction(NARROW_ERROR)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_seen(compiled: Any, bad: float) -> None:
    x = np.ones(1000, np.float32)
    for place in (0, 300, 999):
        y = x.copy()
        y[place] = bad
        for summed in (compiled.magnitudes, compiled.squares):
            assert math.isnan(summed(y)) if math.isnan(bad) else summed(y) == math.inf


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_arrays_are_summed_by_them(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    compiled_sum: Any = _numpy_measure.compiled_sum

    def watched(*arguments: Any) -> Any:
        def summed(x: Any) -> Any:
            sizes.append(x.size)
            return kernel(x)

        kernel = compiled_sum(*arguments)
        return summed

    monkeypatch.setattr(_numpy_measure, "compiled_sum", watched)
    big, small = np.ones(COMPILED_LEAST, dtype), np.ones(100, dtype)
    read_only = big[: 2 * BLOCK].reshape(2, BLOCK)
    read_only.flags.writeable = False
    columns = np.asfortranarray(big.reshape(2, -1))
    unaligned = np.zeros(big.itemsize * BLOCK + 1, np.uint8)[1:].view(dtype)
    others = [columns, big[::2], big.astype(big.dtype.newbyteorder(">")), unaligned]
    for order in (1, 2):
        sizes.clear()
        total = NumpyEngine().measure([big, small, read_only, *others], order, None)
        assert sum(sizes) == 2 * big.size + read_only.size
        assert total.hi == 3 * big.size + 100 + 2 * BLOCK + big.size // 2


def test_float32_beside_float64_is_not_summed_as_float32(
    compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("squares", "magnitudes"):
        monkeypatch.delattr(compiled, name)
    _numpy_measure.compiled_sum.cache_clear()
    big = np.ones(COMPILED_LEAST, np.float32)
    for doubles in (np.ones(1), np.ones(COMPILED_LEAST)):
        assert NumpyEngine().measure([big, doubles], 2, None).hi == big.size + doubles.size


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clips_hold_their_bound_with_them_and_without(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = [(x * 1.1).astype(dtype) for x in hard(600_000) if np.abs(x).max() < 10]
    bits = 24 if dtype == "float32" else 53
    for alone in (False, True):
        if alone:
            monkeypatch.setattr(_numpy_measure, "compiled_sum", lambda *_: None)
        before = exact(np.concatenate(tree), 2)
        for limit in (1e-3, math.sqrt(before), math.nextafter(math.sqrt(before), 0)):
            clipped, norm = cc.clip_by_global_norm(tree, limit)
            after = exact(np.concatenate(clipped), 2)
            assert after <= Fraction(limit) ** 2
            assert abs(Fraction(float(norm)) ** 2 - before) <= before * Fraction(2) ** -43
            unclipped = before <= Fraction(limit) ** 2
            assert unclipped == all(map(np.array_equal, tree, clipped))
            assert unclipped or after >= (Fraction(limit) * (1 - Fraction(4, 2**bits))) ** 2


def test_where_nothing_can_be_kept_it_is_compiled_anew(compiled: Any) -> None:
    # Numba keeps nothing of code that is in no file.
    names: dict[str, Any] = {}
    exec(Path(compiled.__file__).read_text(encoding="utf-8"), names)
    assert names["squares"](np.full(9, 2, np.float32)) == 36
    assert names["magnitudes"](np.full(9, -2, np.float32)) == 18
