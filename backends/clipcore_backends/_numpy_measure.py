"""The sums behind the norms of NumPy arrays: over whole trees, and over groups along axes."""

import math
import threading
from collections.abc import Callable
from functools import cache
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._formats import COMPONENT, FORMATS
from clipcore_backends._numpy_pieces import PIECE, batches, boxes, components, gathered
from clipcore_backends._numpy_sums import (
    BLOCK,
    NARROW_ERROR,
    NEUTRAL_SHIFT,
    WIDE_BLOCK,
    WIDE_ERROR,
    narrow_sums,
    wide_sums,
)
from clipcore_backends._protocol import Order, Sum
from clipcore_backends._threads import SMALL, in_threads

__all__ = ["axis_sums", "tree_sum"]

COMPILED_LEAST = 1 << 20
"""Elements from which on it pays to look for Numba."""

MOST = 6
"""Threads that hold a float64 block each, so that all of these stay below 16 MiB."""

Array = NDArray[Any]
Part = tuple[float, float, int]


@cache
def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Tell components of 64 bits, whose squares float64 does not hold, from smaller ones."""
    return FORMATS[COMPONENT[dtype.name]].precision == 53


def _power(order: Order) -> int:
    """Return the power of x that the sum holds."""
    return 2 if order == 2 else 1


def tree_sum(leaves: list[Array], order: Order) -> Sum:
    """Return the sum of ``|x|**order`` over all leaves."""
    dtypes = {leaf.dtype for leaf in leaves}
    # One leaf of float64 asks for the factor, and so for the whole sum, in its precision.
    narrow = any(map(_is_narrow, dtypes))
    if "c" not in {dtype.kind for dtype in dtypes}:
        parts = _parts(leaves, order, False, narrow)
    elif order == 2:
        parts = _parts([components(leaf) for leaf in leaves], order, False, narrow)
    else:
        parts = _parts([leaf for leaf in leaves if leaf.dtype.kind != "c"], order, False, narrow)
        parts += _parts([leaf for leaf in leaves if leaf.dtype.kind == "c"], order, True, narrow)
    return _total(parts, order, narrow)


def _parts(leaves: list[Array], order: Order, is_complex: bool, narrow: bool) -> list[Part]:
    """Return the sums of pieces of the leaves."""
    size = sum([leaf.size for leaf in leaves])
    if size << is_complex <= BLOCK:
        return [_batch_sum(leaves, order, is_complex, narrow, np.empty(BLOCK))] if size else []
    large = size >= COMPILED_LEAST and not narrow
    flat = [leaf.size >= BLOCK and _is_flat(leaf) for leaf in leaves] if large else []
    kernel = compiled_sum(order) if any(flat) else None
    block = BLOCK if narrow or is_complex else WIDE_BLOCK if order == 2 else WIDE_BLOCK // 2
    memory = threading.local()

    def part_sum(batch: list[Array]) -> Part:
        if kernel is not None and len(batch) == 1 and batch[0].size >= BLOCK and _is_flat(batch[0]):
            return kernel(batch[0]), 0.0, 0
        if not hasattr(memory, "block"):
            memory.block = np.empty(block)
        return _batch_sum(batch, order, is_complex, narrow, memory.block)

    items = []
    if kernel is not None:
        items = [
            piece for leaf in compress(leaves, flat) for piece in batches([leaf.ravel(order="K")], PIECE)
        ]
        leaves = [leaf for leaf, large in zip(leaves, flat, strict=True) if not large]
    # What small leaves take is the interpreter's time, which no thread shares.
    outside = (
        size if size >= SMALL * len(leaves) else sum([leaf.size for leaf in leaves if leaf.size > SMALL])
    )
    joined = list(batches(leaves, block >> is_complex))
    return in_threads(part_sum, [*items, *joined], outside, most=MOST if len(joined) > MOST else None)


def _batch_sum(batch: list[Array], order: Order, is_complex: bool, narrow: bool, memory: Array) -> Part:
    block = gathered(batch, is_complex, memory)
    if narrow:
        head, tail, shift = narrow_sums(block, order, is_complex)
        return float(head[0]), float(tail[0]), int(shift[0])
    return float(wide_sums(block, order, is_complex)[0]), 0.0, 0


@cache
def compiled_sum(order: Order) -> Callable[[Array], float] | None:
    """Return a sum compiled by Numba, where that is installed and has one."""
    try:
        from clipcore_backends import _numba
    except ImportError:
        return None
    sums: dict[Order, Callable[[Array], float]] = {1: _numba.magnitudes, 2: _numba.squares}
    return sums.get(order)


def _is_flat(leaf: Array) -> bool:
    """Tell an array that the compiled sums can read; they are for those of `BLOCK` elements or more."""
    if leaf.dtype != np.float32 or not leaf.dtype.isnative:
        return False
    return leaf.flags.forc and leaf.flags.aligned


def _total(parts: list[Part], order: Order, narrow: bool) -> Sum:
    """Add up parts ``(head + tail) * 2**(-power * shift)``, or find the largest, without a rounding."""
    error = NARROW_ERROR if narrow else WIDE_ERROR
    if len(parts) == 1 and not parts[0][1]:
        hi, lo, least = parts[0]
        return Sum(hi, lo, -_power(order) * least, error)
    broken = [head for head, _, _ in parts if not math.isfinite(head)]
    if broken:
        return Sum(math.nan if any(map(math.isnan, broken)) else math.inf, 0.0, 0, 0.0)
    least = min((shift for head, _, shift in parts if head), default=0)
    power = _power(order)
    scaled = [
        (math.ldexp(head, power * (least - shift)), math.ldexp(tail, power * (least - shift)))
        for head, tail, shift in parts
        if head
    ]
    if order == math.inf:
        hi, lo = max(scaled, default=(0.0, 0.0))
    else:
        numbers = [number for pair in scaled for number in pair]
        hi = math.fsum(numbers)
        lo = math.fsum([*numbers, -hi])
    return Sum(hi, lo, -power * least, error)


def axis_sums(leaf: Array, order: Order, axis: tuple[int, ...]) -> Sum:
    """Return the sums of ``|x|**order`` over the groups of one array along axes."""
    kept = [k for k in range(leaf.ndim) if k not in axis]
    x = leaf.transpose((*kept, *axis))
    groups = tuple(leaf.shape[k] for k in kept)
    power = _power(order)
    narrow, is_complex = _is_narrow(leaf.dtype), leaf.dtype.kind == "c"
    hi, lo, least_lo = np.zeros(groups), np.zeros(groups), np.zeros(groups)  # no rest is lost of many boxes
    shift = np.full(groups, NEUTRAL_SHIFT)
    for box in boxes(x.shape, BLOCK // 2 if is_complex else BLOCK) if leaf.size else ():
        where = box[: len(kept)]
        shape = hi[where].shape
        block = _float64_block(x[box], math.prod(shape))
        head, tail, new = (part.reshape(shape) for part in _block_sums(block, order, is_complex, narrow))
        least = np.minimum(shift[where], new)
        down, new_down = power * (least - shift[where]), power * (least - new)
        old, old_lo, old_least = (np.ldexp(part[where], down) for part in (hi, lo, least_lo))
        head, tail = np.ldexp(head, new_down), np.ldexp(tail, new_down)
        hi[where], rest = _two_sum(old, head)
        lo[where], least_rest = _two_sum(old_lo, tail + rest)
        least_lo[where] = old_least + least_rest
        shift[where] = least
    hi, lo = _two_sum(hi, np.where(np.isfinite(hi), lo + least_lo, 0))
    return Sum(hi, lo, -power * shift, NARROW_ERROR if narrow else WIDE_ERROR)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, rounded, and what the rounding left out (Knuth)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _float64_block(x: Array, groups: int) -> NDArray[np.float64]:
    """Copy a piece of a leaf to shape (groups, elements), complex (groups, elements, 2)."""
    parts = components(x)
    wide = parts.astype(np.float64, order="C", copy=False)
    return wide.reshape(groups, math.prod(x.shape) // groups, *parts.shape[x.ndim :])


def _block_sums(
    block: NDArray[np.float64], order: Order, is_complex: bool, narrow: bool
) -> tuple[Array, Array, Array]:
    """Return head, tail and shift of the sums of a block's rows."""
    if narrow:
        return narrow_sums(block, order, is_complex)
    head = wide_sums(block, order, is_complex)
    return head, np.zeros_like(head), np.zeros(head.shape, np.int64)
