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
from clipcore_backends._numpy_sums import BLOCK, WIDE_ERROR

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
    """The sum of |x|**order, of float32 numbers: exact in float64, as is a sum in two parts."""
    powers = (np.abs(x.astype(np.float64)) ** order).tolist()
    high = math.fsum(powers)
    return Fraction(high) + Fraction(math.fsum([*powers, -high]))


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_seen(compiled: Any, bad: float) -> None:
    x = np.ones(1000, np.float32)
    for place in (0, 300, 999):
        y = x.copy()
        y[place] = bad
        for summed in (compiled.magnitudes, compiled.squares):
            assert math.isnan(summed(y)) if math.isnan(bad) else summed(y) == math.inf


def test_large_float32_arrays_are_summed_by_them(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(order: Any) -> Any:
        kernel = {1: compiled.magnitudes, 2: compiled.squares}[order]

        def summed(x: Any) -> Any:
            sizes.append(x.size)
            return kernel(x)

        return summed

    monkeypatch.setattr(_numpy_measure, "compiled_sum", watched)
    big, small = np.ones(COMPILED_LEAST, np.float32), np.ones(100, np.float32)
    read_only = big[: 2 * BLOCK].reshape(2, BLOCK)
    read_only.flags.writeable = False
    columns = np.asfortranarray(big.reshape(2, -1))
    others = [columns, big[::2], big.astype(">f4"), np.zeros(4 * BLOCK + 1, np.uint8)[1:].view(np.float32)]
    for order in (1, 2):
        sizes.clear()
        total = NumpyEngine().measure([big, small, read_only, *others], order, None)
        assert sum(sizes) == 2 * big.size + read_only.size
        assert total.hi == 3 * big.size + 100 + 2 * BLOCK + big.size // 2
    sizes.clear()
    NumpyEngine().measure([big, np.ones(1)], 2, None)
    assert not sizes  # float64 asks for more


def test_clips_hold_their_bound_with_them_and_without(
    compiled: Any,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = [x for x in hard(600_000) if np.abs(x).max() < 10]
    for alone in (False, True):
        if alone:
            monkeypatch.setattr(_numpy_measure, "compiled_sum", lambda _order: None)
        before = exact(np.concatenate(tree), 2)
        for limit in (1e-3, math.sqrt(before), math.nextafter(math.sqrt(before), 0)):
            clipped, norm = cc.clip_by_global_norm(tree, limit)
            after = exact(np.concatenate(clipped), 2)
            assert after <= Fraction(limit) ** 2
            assert abs(Fraction(float(norm)) ** 2 - before) <= before * Fraction(2) ** -43
            unclipped = before <= Fraction(limit) ** 2
            assert unclipped == all(map(np.array_equal, tree, clipped))
            assert unclipped or after >= (Fraction(limit) * (1 - Fraction(4, 2**24))) ** 2


def test_where_nothing_can_be_kept_it_is_compiled_anew(compiled: Any) -> None:
    # Numba keeps nothing of code that is in no file.
    names: dict[str, Any] = {}
    exec(Path(compiled.__file__).read_text(encoding="utf-8"), names)
    assert names["squares"](np.full(9, 2, np.float32)) == 36
    assert names["magnitudes"](np.full(9, -2, np.float32)) == 18
