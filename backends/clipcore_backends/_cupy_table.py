"""The table that tells the kernels where arrays are; it is made from shapes and strides alone."""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._formats import COMPONENT
from clipcore_backends._protocol import Array

__all__ = ["BLOCK", "CHUNK", "Seen", "Table", "kept", "look", "table_of", "team_for"]

# These are in the kernels too.
BLOCK = 256
CHUNK = 16384
_OPERANDS = 4
_FIRST, _KIND, _LENGTH, _DIM, _DIMS, _POINTERS = range(6)

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_KINDS = {name: kind for kind, name in enumerate((*COMPONENT, *_INTEGERS))}

Shape = tuple[int, ...]


class Seen(NamedTuple):
    """Arrays, with what there is to know of them but their elements; gathered once, since that takes time."""

    arrays: Sequence[Array]
    dtypes: list[Any]
    pointers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    whole: NDArray[np.bool_]
    """Whether the elements lie one after the other."""
    on_one_device: bool

    @property
    def apart(self) -> bool:
        """Whether these are blocks of memory of their own; False where that is not certain."""
        if len(self.arrays) == 1:
            return bool(self.whole[0])
        items = {dtype: dtype.itemsize for dtype in set(self.dtypes)}
        stops = self.pointers + self.sizes * _each(self.dtypes, items)
        order = np.lexsort((stops, self.pointers))
        return bool(self.whole.all() and (stops[order][:-1] <= self.pointers[order][1:]).all())


class Table(NamedTuple):
    """Where the arrays of a launch are, and how they are cut into chunks."""

    words: Array
    leaves: int
    chunks: int
    team: int


def look(arrays: Sequence[Array]) -> Seen:
    """Gather what there is to know of arrays."""
    places = [array.data for array in arrays]
    return Seen(
        arrays,
        [array.dtype for array in arrays],
        np.array([place.ptr for place in places], np.int64),
        np.array([array.size for array in arrays], np.int64),
        _whole(arrays),
        len({place.device_id for place in places}) == 1,
    )


def table_of(
    leaves: Seen, outs: Seen, bounds: Sequence[Sequence[Any]] = (), axis: Shape | None = None
) -> Table:
    """Describe leaves, and the operands that go with them element by element.

    Parameters
    ----------
    leaves, outs : Seen
    bounds : sequence of sequences
        More operands: arrays, or the address of one number (0: none).
    axis : tuple of ints or None
        What the groups of the one leaf lie along; None for leaves that are each of one group.

    Returns
    -------
    Table
        Its words are a row for each leaf with elements, then the dimensions that the rows name.
    """
    # Leaves that lie in one piece, as nearly all do, share one dimension for each dtype.
    dims = {dtype: index for index, dtype in enumerate(dict.fromkeys(leaves.dtypes))}
    steps = [[1, *[dtype.itemsize] * 2, *[0] * (_OPERANDS - 2)] for dtype in dims]
    rows = np.zeros((len(leaves.arrays), _POINTERS + _OPERANDS), np.int64)
    rows[:, _KIND] = _each(leaves.dtypes, {dtype: _kind_of(dtype) for dtype in dims})
    rows[:, _LENGTH] = leaves.sizes
    rows[:, _DIM] = _each(leaves.dtypes, dims)
    rows[:, _DIMS] = 1
    rows[:, _POINTERS], rows[:, _POINTERS + 1] = leaves.pointers, outs.pointers
    whole = leaves.whole & outs.whole if axis is None else np.zeros(len(rows), np.bool_)
    for operand, bound in enumerate(bounds, 2):
        rows[:, _POINTERS + operand] = [b if isinstance(b, int) else b.data.ptr for b in bound]
        whole &= [isinstance(b, int) for b in bound]
    for index in [] if whole.all() else np.flatnonzero(~whole & (leaves.sizes > 0)).tolist():
        leaf = leaves.arrays[index]
        others = [_strides(bound[index], leaf.ndim) for bound in bounds]
        own = _dims(leaf.shape, (leaf.strides, outs.arrays[index].strides, *others), axis)
        rows[index, _LENGTH] //= math.prod(kept(leaf.shape, axis))
        rows[index, _DIM], rows[index, _DIMS] = len(steps), len(own)
        steps += [[*row, *[0] * (1 + _OPERANDS - len(row))] for row in own]
    sizes = leaves.sizes
    if not sizes.all():
        sizes, rows = sizes[sizes > 0], rows[sizes > 0]
    lengths = rows[:, _LENGTH]
    chunks = sizes // lengths * -(-lengths // CHUNK)
    rows[:, _FIRST] = np.cumsum(chunks) - chunks
    words = np.concatenate([rows.ravel(), np.array(steps, np.int64).ravel()])
    return Table(words, len(rows), int(chunks.sum()), team_for(int(lengths.max(initial=0))))


def kept(shape: Shape, axis: Shape | None) -> Shape:
    """Return the shape of the norms."""
    return () if axis is None else tuple(size for k, size in enumerate(shape) if k not in axis)


def team_for(tasks: int) -> int:
    """Return how many threads, a power of two, share a group of so many elements."""
    return min(BLOCK, 1 << max(tasks - 1, 0).bit_length())


def _whole(arrays: Sequence[Array]) -> NDArray[np.bool_]:
    """Tell of each array whether its elements lie one after the other."""
    if arrays and hasattr(arrays[0], "_c_contiguous"):  # where `flags` would build an object for each array
        return np.array([array._c_contiguous for array in arrays], np.bool_)
    return np.array([array.flags.c_contiguous for array in arrays], np.bool_)


def _each(dtypes: list[Any], numbers: dict[Any, int]) -> NDArray[np.int64] | int:
    """Return the numbers of dtypes, or the one number of them all."""
    return next(iter(numbers.values())) if len(numbers) == 1 else np.array([numbers[d] for d in dtypes])


@cache
def _kind_of(dtype: Any) -> int:
    return _KINDS[dtype.name]


def _strides(operand: Any, ndim: int) -> Shape:
    return (0,) * ndim if isinstance(operand, int) else operand.strides


@lru_cache(4096)
def _dims(shape: Shape, strides: tuple[Shape, ...], axis: Shape | None) -> list[tuple[int, ...]]:
    """Return size and strides of the dimensions: those kept, then those reduced; as few as will do."""
    reduced = range(len(shape)) if axis is None else axis
    kept = [k for k in range(len(shape)) if k not in reduced]
    rows: list[tuple[int, ...]] = []
    for k in (*kept, *sorted(reduced, key=lambda k: -abs(strides[0][k]))):
        size, steps = shape[k], [each[k] for each in strides]
        if size == 1:
            continue
        if rows and rows[-1][1:] == tuple(step * size for step in steps):
            rows[-1] = (rows[-1][0] * size, *steps)
        else:
            rows.append((size, *steps))
    return rows or [(1, *(0 for _ in strides))]
