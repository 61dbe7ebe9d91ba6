"""Leaves cut into pieces that fit a cache, and small ones joined to pieces of that size."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._numpy_sums import BLOCK, ROW
from clipcore_backends._threads import cores

__all__ = ["PIECE", "Box", "batches", "boxes", "components", "flat_blocks", "gathered", "piece_for", "pieces"]

Array = NDArray[Any]
Box = tuple[Any, ...]

PIECE = 1 << 20
"""Elements that one thread takes at a time where no float64 copy is made of them."""


def piece_for(size: int) -> int:
    """Return how many elements to cut at where each is touched once: every cut costs, and none pays."""
    return max(PIECE, size // (2 * cores()))


def components(x: Array) -> Array:
    """View complex numbers as pairs of real ones along a new last axis; real arrays pass."""
    if x.dtype.kind != "c":
        return x
    real = x.real
    shape, strides = (*x.shape, 2), (*x.strides, real.dtype.itemsize)
    return np.lib.stride_tricks.as_strided(real, shape, strides)


def boxes(shape: tuple[int, ...], most: int = BLOCK) -> Iterator[Box]:
    """Cut a shape into boxes of at most `most` elements, along its longest axes."""
    size = math.prod(shape)
    if size <= most:
        # The ellipsis keeps a piece of no dimensions a view.
        yield (*(slice(0, length) for length in shape), ...)
        return
    longest = max(range(len(shape)), key=shape.__getitem__)
    step = max(1, most * shape[longest] // size)
    for start in range(0, shape[longest], step):
        stop = min(start + step, shape[longest])
        for box in boxes((*shape[:longest], stop - start, *shape[longest + 1 :]), most):
            # No box is cut along one axis twice.
            yield (*box[:longest], slice(start, stop), *box[longest + 1 :])


def pieces(x: Array, out: Array, most: int = PIECE) -> Iterator[tuple[Array, Array]]:
    """Cut two arrays of one shape at the same places."""
    if x.size <= most:
        yield x, out
        return
    if x.flags.c_contiguous and out.flags.c_contiguous:
        x, out = x.reshape(-1), out.reshape(-1)
    for box in boxes(x.shape, most):
        yield x[box], out[box]


def _memory_order(x: Array) -> Array:
    """View `x` with its axes in the order of memory, flat where that is a view."""
    x = x.transpose(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
    x = x[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)]
    return x.reshape(-1) if x.flags.c_contiguous else x


def batches(leaves: Iterable[Array], most: int) -> Iterator[list[Array]]:
    """Cut and join leaves, all real or all complex, to batches of at most `most` elements."""
    batch: list[Array] = []
    room = most
    for leaf in leaves:
        size = leaf.size
        if size > most:
            flat = _memory_order(leaf)
            for box in boxes(flat.shape, most):
                yield [flat[box]]
            continue
        if size > room:
            yield batch
            batch, room = [], most
        batch.append(leaf)
        room -= size
    if room < most:
        yield batch


def gathered(
    batch: list[Array], is_complex: bool, memory: NDArray[np.float64], row: int = ROW
) -> NDArray[np.float64]:
    """Copy a batch to float64 memory: a view of it of shape (1, elements), complex (1, elements, 2).

    Zeros follow up to the end of the last row.
    """
    size = sum([array.size for array in batch]) << is_complex
    padded = -(-size // row) * row
    wide = memory[:size].view(np.complex128) if is_complex else memory[:size]
    if len(batch) > 1:
        np.concatenate(batch, axis=None, out=wide, casting="unsafe")
    else:
        np.copyto(wide.reshape(batch[0].shape), batch[0])
    memory[size:padded] = 0
    return memory[:padded].reshape((1, -1, 2) if is_complex else (1, -1))


def flat_blocks(leaf: Array) -> Iterator[NDArray[np.float64]]:
    """Copy a leaf to float64, block by block."""
    is_complex = leaf.dtype.kind == "c"
    for batch in batches([leaf], BLOCK >> is_complex):
        yield gathered(batch, is_complex, np.empty(BLOCK))[:, : batch[0].size]
