"""The norm's error does not grow with the number of elements: judged against exact sums of millions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends._numpy_measure import axis_sums
from clipcore_backends._numpy_sums import BLOCK
from reference import COMPLEX, FLOATING

import clipcore
from clipcore.verify.formats import Array
from clipcore.verify.laws import norm_accuracy

Dtype = np.dtype[Any]
NORMS: dict[float, Callable[[Array], Array]] = {1: clipcore.l1_norm, 2: clipcore.l2_norm}
SEED = 11
CHUNK = 1 << 22


def constant(size: int, dtype: Dtype) -> Array:
    """Equal elements: every addition to a running sum rounds the same way, so errors pile up."""
    return np.full(size, 1.1, dtype)


def normal(size: int, dtype: Dtype) -> Array:
    """Normally distributed elements, made in chunks so that float64 never exists beside the whole."""
    rng, x = np.random.default_rng(SEED), np.empty(size, dtype)
    parts = x.view(x.real.dtype) if dtype.kind == "c" else x
    for start in range(0, parts.size, CHUNK):
        parts[start : start + CHUNK] = rng.standard_normal(min(CHUNK, parts.size - start))
    return x


def mixture(size: int, dtype: Dtype) -> Array:
    """Elements over many binades, the smallest first: small terms count only together."""
    x = np.sort(np.exp2(np.random.default_rng(SEED).uniform(-14, 10, size)))
    return x.astype(dtype)


def huge_first(size: int, dtype: Dtype) -> Array:
    """One huge element, then so many small ones that together they matter though each alone rounds away."""
    x = np.full(size, 2.0**-12)
    x[0] = 2.0**15
    return x.astype(dtype)


def far_apart(size: int, dtype: Dtype) -> Array:
    """Squares that overflow beside squares that underflow, and equal elements between."""
    info = np.finfo(dtype)
    x = np.full(size, 1.1, dtype)
    x[::3], x[1::3] = info.max / 8 / size, info.smallest_normal
    return x


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make", [constant, normal, mixture, huge_first])
@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX[:1]], ids=str)
def test_a_million_elements(order: float, make: Callable[[int, Dtype], Array], dtype: Dtype) -> None:
    size = 1 << 20
    if order == 1 and dtype.kind == "c":
        size //= 16  # each modulus is a root of its own, and the oracle takes them one by one
    x = make(size, dtype)
    assert norm_accuracy([x], order, NORMS[order](x)) is None
    halves = [x[: size // 3], {"rest": x[size // 3 :].reshape(1, -1)}]
    assert norm_accuracy([x], order, clipcore.global_norm(halves, ord=order)) is None


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dtype", FLOATING[2:], ids=str)
def test_the_whole_range_at_once(order: float, dtype: Dtype) -> None:
    x = far_apart(1 << 18, dtype)
    assert norm_accuracy([x], order, NORMS[order](x)) is None


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dtype", FLOATING[2:], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_long_axes(order: float, dtype: Dtype, axis: int) -> None:
    x = normal(5 << 18, dtype).reshape((1 << 18, 5) if axis == 0 else (5, 1 << 18))
    norms = (clipcore.l1_norm if order == 1 else clipcore.l2_norm)(x, axis=axis)
    assert [norm_accuracy([np.take(x, i, 1 - axis)], order, norms[i : i + 1]) for i in range(5)] == [None] * 5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATING[2:], ids=str)
@pytest.mark.parametrize("make", [constant, normal])
@pytest.mark.parametrize("exponent", range(21, 28))
def test_up_to_134_million_elements(exponent: int, make: Callable[[int, Dtype], Array], dtype: Dtype) -> None:
    x = make(1 << exponent, dtype)
    for order, norm in NORMS.items():
        assert norm_accuracy([x], order, norm(x)) is None


def test_what_many_boxes_leave_over_is_not_rounded_away() -> None:
    block = np.full(BLOCK, 2.0**-8 + 0.49 * 2.0**-19)  # of each, half a bit is below the heads
    block[0] = np.nextafter(1.0, 0.0)
    count = 4096
    total = axis_sums(np.broadcast_to(block, (count, BLOCK)), 2, (0, 1))
    values, times = np.unique(block, return_counts=True)
    exact = count * sum(int(k) * Fraction(float(x)) ** 2 for x, k in zip(values, times, strict=True))
    measured = Fraction(float(total.hi)) + Fraction(float(total.lo))
    assert abs(measured - exact) < exact * Fraction(2) ** -70
