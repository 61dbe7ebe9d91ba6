"""Leaves cut into pieces that fit a cache, and small ones joined to pieces of that size."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._numpy_sums import BLOCK

__all__ = ["batches", "boxes", "components", "flat_blocks", "gathered", "pieces"]

Array = NDArray[Any]
Box = tuple[Any, ...]

PIECE = 1 << 20
"""Elements that one thread takes at a time where no float64 copy is made of them."""


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


def pieces(*arrays: Array, most: int = PIECE) -> Iterator[tuple[Array, ...]]:
    """Cut arrays of one shape, all at the same places."""
    if arrays[0].size <= most:
        yield arrays
        return
    if all(array.flags.c_contiguous for array in arrays):
        arrays = tuple(array.reshape(-1) for array in arrays)
    for box in boxes(arrays[0].shape, most):
        yield tuple(array[box] for array in arrays)


def _memory_order(x: Array) -> Array:
    """View `x` with its axes in the order of memory, flat where that is a view."""
    x = x.transpose(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
    x = x[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)]
    return x.reshape(-1) if x.flags.c_contiguous else x


def _components_in(leaf: Array) -> int:
    return 2 * leaf.size if leaf.dtype.kind == "c" else leaf.size


def batches(leaves: Iterable[Array], most: int) -> Iterator[list[Array]]:
    """Cut and join leaves, all real or all complex, to batches of at most `most` components."""
    batch: list[Array] = []
    room = most
    for leaf in leaves:
        size = _components_in(leaf)
        if size > most:
            flat = _memory_order(leaf)
            for box in boxes(flat.shape, most // 2 if leaf.dtype.kind == "c" else most):
                yield [flat[box]]
            continue
        if size > room:
            yield batch
            batch, room = [], most
        if size:
            batch.append(leaf)
            room -= size
    if batch:
        yield batch


def gathered(batch: list[Array], is_complex: bool, memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """Copy a batch to float64 memory: a view of it of shape (1, elements), complex (1, elements, 2)."""
    wide = memory[: sum([_components_in(array) for array in batch])]
    target = wide.view(np.complex128) if is_complex else wide
    if len(batch) > 1:
        np.concatenate(batch, axis=None, out=target, casting="unsafe")
    else:
        np.copyto(target.reshape(batch[0].shape), batch[0])
    return wide.reshape(1, -1, 2) if is_complex else wide.reshape(1, -1)


def flat_blocks(leaf: Array) -> Iterator[NDArray[np.float64]]:
    """Copy a leaf to float64, block by block."""
    is_complex = leaf.dtype.kind == "c"
    for batch in batches([leaf], BLOCK):
        yield gathered(batch, is_complex, np.empty(BLOCK))
