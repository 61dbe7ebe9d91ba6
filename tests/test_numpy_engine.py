"""The NumPy engine alone: blocks, boxes, views of complex numbers, and the caller's error settings."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from clipcore_backends import _numpy_measure
from clipcore_backends._numpy import NumpyEngine
from clipcore_backends._numpy_pieces import _memory_order, boxes, components, flat_blocks
from clipcore_backends._numpy_sums import BLOCK
from clipcore_backends._protocol import Sum
from edge_support import bits

import clipcore as cc

RNG = np.random.default_rng(20261126)

EXTREMES = [
    np.array([[1e308, -1e308, 1e-320], [5e-324, 0.0, -0.0]]),
    np.array([[1e300, 1.0, 1e-300], [3.0, 4.0, 1e-310]]),
    np.array([[3e38, 1e-40, 2.0], [1e-45, 1.0, -0.0]], np.float32),
    np.array([[6e4, 6e-8, 1.0], [1.0, -3.0, 1e-3]], np.float16),
    np.array([[1e300 + 1e-310j, 5e-324j], [3 + 4j, 1e308 + 1e308j]]),
    np.array([[math.nan, 1.0], [math.inf, -math.inf], [2.0, 3.0]]),
    np.array([[1.7e308, math.nan], [-1.7e308, math.inf]]),
]
CALLS = [
    *(
        lambda x, c=c, axis=axis: cc.clip_by_l1_norm(x, c, axis=axis)
        for c in (1e-310, 1.0, 1e9)
        for axis in (None, 1)
    ),
    *(
        lambda x, c=c, axis=axis: cc.clip_by_l2_norm(x, c, axis=axis)
        for c in (1e-310, 1.0, 1e9)
        for axis in (None, 1)
    ),
    *(lambda x, p=p: cc.clip_by_global_norm([x], 1e-9, ord=p) for p in (1, 2, math.inf)),
    lambda x: cc.l1_norm(x, axis=0),
    lambda x: cc.l2_norm(x, axis=0),
]


@pytest.mark.parametrize("x", EXTREMES, ids=lambda x: f"{x.dtype}-{x.flat[0]}")
@pytest.mark.parametrize("call", CALLS)
def test_error_settings_of_the_caller_change_nothing(x: Any, call: Any) -> None:
    with np.errstate(all="ignore"):
        want = call(x)
    with np.errstate(all="raise"):
        assert bits(call(x)) == bits(want)


def test_error_settings_of_the_caller_change_no_bound() -> None:
    x = np.array([1e-40, math.nan, 1e30], np.float32)
    lower, upper = np.array([1e-320, 1.0, -1e300]), np.array([1e300, math.nan, 5e-324])
    with np.errstate(all="raise"):
        clipped = cc.clip_by_value(x, lower, upper)
    assert clipped.tolist()[::2] == [np.float32(1e-40), 0.0]
    assert math.isnan(clipped[1])


@pytest.mark.parametrize("most", [1, 2, 5, 64, 100, 10**6])
@pytest.mark.parametrize(
    "shape", [(), (0,), (7,), (5, 0, 2), (3, 2), (40, 3), (3, 40), (8, 8, 8), (2, 9, 1, 5)]
)
def test_boxes_hold_every_element_once_and_no_more_than_asked(shape: tuple[int, ...], most: int) -> None:
    counts = np.zeros(shape, int)
    for box in boxes(shape, most):
        assert counts[box].size <= most
        counts[box] += 1
    assert (counts == 1).all()


def test_boxes_are_few_and_cut_along_the_longest_axis() -> None:
    assert list(boxes((100, 2), 50)) == [
        (slice(start, start + 25), slice(0, 2), ...) for start in (0, 25, 50, 75)
    ]
    assert list(boxes((2, 100), 50)) == [
        (slice(0, 2), slice(start, start + 25), ...) for start in (0, 25, 50, 75)
    ]
    assert len(list(boxes((64, 64), 512))) == 8


BASE = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("x", "flat"),
    [
        (BASE, True),
        (BASE.transpose(2, 0, 1), True),
        (BASE[::-1, :, ::-1], True),
        (BASE[::-1].transpose(1, 2, 0), True),
        (BASE[:, ::2], False),
        (BASE[:, :, ::-2].transpose(2, 1, 0), False),
        (BASE[1], True),
    ],
)
def test_arrays_are_read_in_the_order_of_memory_without_a_copy(x: Any, flat: bool) -> None:
    ordered = _memory_order(x)
    assert np.shares_memory(ordered, BASE)
    assert sorted(ordered.ravel().tolist()) == sorted(x.ravel().tolist())
    assert ordered.ravel().tolist() == sorted(ordered.ravel().tolist())
    assert ordered.ndim == (1 if flat else x.ndim)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("size", [0, 1, BLOCK // 2, BLOCK // 2 + 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_blocks_hold_every_component_once_and_no_more_than_fit(size: int, dtype: str) -> None:
    x = (np.arange(size) - 5 + (0.5j * np.arange(size) if dtype.startswith("complex") else 0)).astype(dtype)
    blocks = list(flat_blocks(x))
    assert all(0 < block.size <= BLOCK and block.dtype == np.float64 and len(block) == 1 for block in blocks)
    assert np.array_equal(
        np.concatenate([np.zeros(0), *(block.ravel() for block in blocks)]), components(x).ravel()
    )
    odd = np.zeros((3, size), dtype)[::-1, ::-2]
    assert sum(block.size for block in flat_blocks(odd)) == components(odd).size


def exact_sum(values: list[float]) -> Fraction:
    """The sum of numbers to twice their precision."""
    hi = math.fsum(values)
    return Fraction(hi) + Fraction(math.fsum([*values, -hi]))


def is_within_its_error(found: Sum, place: Any, wanted: Fraction) -> bool:
    hi, lo, exponent = (np.asarray(part)[place] for part in found[:3])
    value = (Fraction(float(hi)) + Fraction(float(lo))) * Fraction(2) ** int(exponent)
    return bool(abs(value - wanted) <= wanted * Fraction(found.error))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", [(4, 9, 1000), (70000, 1), (1, 2, 40000)])
def test_sums_of_many_blocks_are_within_the_error_they_claim(
    shape: tuple[int, ...], order: int, dtype: str
) -> None:
    # Significands of 20 bits: their squares are float64 numbers.
    x = RNG.integers(-(2**20), 2**20, shape).astype(dtype)
    if dtype == "float64":
        x *= np.exp2(np.linspace(-480, 490, math.prod(shape)) // 120 * 120).reshape(shape)
    powers = np.abs(x.astype(np.float64)) ** order
    engine = NumpyEngine()
    whole = engine.measure([x, x[:0]], order, None)
    assert is_within_its_error(whole, (), exact_sum(powers.ravel().tolist()))
    for axis in [(len(shape) - 1,), (0,), tuple(range(len(shape)))]:
        sums = engine.measure([x], order, axis)
        groups = np.moveaxis(powers, axis, range(-len(axis), 0))
        places = list(np.ndindex(groups.shape[: len(shape) - len(axis)]))
        for place in places[:: 1 + len(places) // 50]:
            assert is_within_its_error(sums, place, exact_sum(groups[place].ravel().tolist()))


def test_what_adding_blocks_leaves_out_is_kept() -> None:
    x = RNG.uniform(0.5, 2, (9, 70000))
    # What is exact in the sum of a small block is not in the sum with a large one.
    x[:, 35000:] *= 2.0**20
    sums = NumpyEngine().measure([x], 1, (1,))
    for place in range(9):
        assert is_within_its_error(sums, place, exact_sum(x[place].tolist()))


@pytest.mark.parametrize("dtype", ["complex64", "float64"])
@pytest.mark.parametrize("shape", [(2, BLOCK), (3, 2 * BLOCK + 1), (40, BLOCK // 8), (2, 3, 7, BLOCK // 7)])
def test_rows_of_blocks_hold_no_more_components_than_add_up_exactly(
    dtype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, rows = [], []
    name = "wide_sums" if dtype == "complex64" else "narrow_sums"
    block_sums = getattr(_numpy_measure, name)

    def watched(block: Any, *arguments: Any) -> Any:
        sizes.append(block.size)
        rows.append(block[0].size)
        return block_sums(block, *arguments)

    monkeypatch.setattr(_numpy_measure, name, watched)
    NumpyEngine().measure([np.ones(shape, dtype)], 1, tuple(range(1, len(shape))))
    assert sum(sizes) == math.prod(shape) * (2 if dtype == "complex64" else 1)
    assert max(rows) <= BLOCK


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_components_are_a_view_that_can_be_written_where_the_array_can(dtype: str) -> None:
    x = np.array([[1 + 2j, 3 - 4j], [5j, -6.0]], dtype)
    for view in (x, x.T, x[::-1], x[:, 1], x[0, 0, ...]):
        parts = components(view)
        assert parts.shape == (*view.shape, 2)
        assert np.array_equal(parts[..., 0], view.real)
        assert np.array_equal(parts[..., 1], view.imag)
        assert np.shares_memory(parts, x)
    components(x.T)[1, 0] = (7.0, 8.0)
    assert x[0, 1] == 7 + 8j
    x.flags.writeable = False
    assert not components(x).flags.writeable
