"""Which leaves are copied before `out` is written, and which `out` is refused: one test a kind of overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from clipcore._out import _check_writable, _overlaps_itself, _sharing, readable, same_memory
from clipcore._trees import Flat

Array = np.ndarray[Any, np.dtype[Any]]


def strided(shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """A view of a buffer that is large enough, with strides in bytes."""
    return as_strided(np.zeros(64, dtype), shape, strides)


@pytest.mark.parametrize(
    ("shape", "strides", "overlaps"),
    [
        ((3, 2), (8, 16), True),  # 0 8 16 and 16 24 32
        ((2, 3), (16, 8), True),
        ((3, 2), (16, 24), False),  # 0 16 32 and 24 40 56: woven, but apart
        ((3, 2), (16, 20), True),  # 16 and 20 are half of each other's element
        ((2,), (0,), True),
        ((2, 3), (0, 8), True),
        ((1, 3), (0, 8), False),
        ((2, 2, 2), (8, 16, 32), False),
        ((2, 2, 2), (8, 16, 24), True),  # 24 is both 8 + 16 and 24
        ((4,), (16,), False),
        ((4, 4), (8, 64), False),
    ],
)
def test_an_array_overlaps_itself_where_two_elements_share_a_byte(
    shape: tuple[int, ...], strides: tuple[int, ...], overlaps: bool
) -> None:
    x = strided(shape, strides)
    places = [sum(map(np.multiply, index, strides)) for index in np.ndindex(shape)]
    touched = [place + k for place in places for k in range(8)]
    assert (len(set(touched)) < len(touched)) is overlaps
    assert _overlaps_itself(x) is overlaps
    assert _overlaps_itself(x[::-1]) is overlaps


def test_arrays_that_share_bytes_are_found_past_empty_ones_and_neighbours() -> None:
    base, empty = np.zeros(9), np.zeros(0)
    assert _sharing([empty, base[0:3], base[3:6], empty, base[5:7], base[7:]]) == (2, 4)
    assert _sharing([empty, base[0:3], base[3:6], base[6:]]) is None
    assert _sharing([base[::2], empty, base[1::2]]) is None


def test_a_leaf_is_copied_where_another_leafs_result_would_be_written_to_it() -> None:
    base, apart = np.arange(10.0), np.zeros(2)
    for shift in (1, -1):
        leaf, out = base[3:5], base[3 + shift : 5 + shift]
        same, copied = readable([apart, leaf], [out, np.zeros(2)])
        assert same is apart
        assert not np.shares_memory(copied, base)
        assert copied.tolist() == leaf.tolist()


def test_a_leaf_is_copied_where_a_wide_leaf_begins_before_it() -> None:
    base = np.arange(10.0)
    wide, copied = readable([base, base[3:5]], [np.zeros(10), base[2:4]])
    assert not np.shares_memory(wide, base)
    assert not np.shares_memory(copied, base)
    assert wide.tolist() == base.tolist()
    assert copied.tolist() == [3.0, 4.0]


def test_a_leaf_is_not_copied_for_its_own_place_or_for_a_neighbour() -> None:
    base = np.arange(10.0)
    for leaf, out in ((base[2:4], base[2:4]), (base[2:4], base[4:6]), (base[2:4], base[0:2])):
        (read,) = readable([leaf], [out])
        assert read is leaf


def test_a_leaf_is_copied_once_for_two_results_written_to_it() -> None:
    base = np.arange(4.0)
    copied, other = readable([base, np.zeros(2)], [base[1:3], base[3:]])
    assert copied.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not np.shares_memory(copied, base)
    assert other.tolist() == [0.0, 0.0]


def test_the_same_memory_is_the_same_first_byte_and_the_same_steps() -> None:
    base = np.arange(10.0)
    assert same_memory(base, base)
    assert same_memory(base[2:4], base[2:4])
    assert not same_memory(base, base.copy())
    assert not same_memory(base[:3], base[1:4])
    assert not same_memory(base[:3], base[:6:2])


class Watched:
    """An array of a library that lets itself be written, and that says how much of it was."""

    def __init__(self, *shape: int) -> None:
        self.data = np.zeros(shape)
        self.written: list[int] = []
        self.ndim = len(shape)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __setitem__(self, key: Any, value: Array) -> None:
        self.written.append(self.data[key].size)
        self.data[key] = value


@pytest.mark.parametrize("shape", [(3,), (2, 3), ()])
def test_asking_whether_an_array_can_be_written_writes_no_element_but_a_lone_one(
    shape: tuple[int, ...],
) -> None:
    given = Watched(*shape)
    _check_writable("f", Flat(given, "out"), 0)
    assert given.written == [0 if shape else 1]
