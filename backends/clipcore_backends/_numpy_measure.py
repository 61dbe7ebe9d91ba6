"""The sums behind the norms of NumPy arrays: over whole trees, and over groups along axes."""

import math
import threading
from collections.abc import Callable, Iterator
from functools import cache
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._formats import COMPONENT, FORMATS
from clipcore_backends._numpy_pieces import PIECE, Box, batches, boxes, components, gathered
from clipcore_backends._numpy_sums import (
    AT_ONCE,
    BLOCK,
    NARROW_ERROR,
    NEUTRAL_SHIFT,
    ROW,
    WIDE_BLOCK,
    WIDE_ERROR,
    narrow_sums,
    wide_sums,
)
from clipcore_backends._protocol import Order, Sum
from clipcore_backends._threads import MOST, SMALL, in_threads

__all__ = ["axis_sums", "tree_sum"]

COMPILED_LEAST = 1 << 20
"""Elements from which on it pays to look for Numba."""

FEW = 1 << 12
"""Groups in a block up to which what is known of each takes far less memory than the block."""

HELD = 1 << 18
"""Groups whose sums of blocks are held at once, of 24 bytes each."""

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
        return _batch_sums(leaves, order, is_complex, narrow, np.empty((1 + narrow, BLOCK))) if size else []
    flat = [_is_flat(leaf, narrow) for leaf in leaves] if size >= COMPILED_LEAST else []
    compiled = compiled_sum(order, narrow) if any(flat) else None
    block = BLOCK if is_complex else AT_ONCE * BLOCK if narrow else WIDE_BLOCK
    memory, one_at_a_time = threading.local(), threading.Lock()

    def by_numpy(batch: list[Array]) -> list[Part]:
        if not hasattr(memory, "blocks"):
            memory.blocks = np.empty((1 + narrow, block))
        return _batch_sums(batch, order, is_complex, narrow, memory.blocks)

    def by_numba(batch: list[Array]) -> list[Part]:
        assert compiled is not None
        part = compiled(batch[0])
        if not (narrow and math.isnan(part[0])):
            return [part]
        with one_at_a_time:  # of what may be many threads
            blocks = np.empty((2, block))
            cut = batches(batch, block)
            return [part for each in cut for part in _batch_sums(each, order, False, True, blocks)]

    items = []
    if compiled is not None:
        views = [leaf.ravel(order="K") for leaf in compress(leaves, flat)]
        items = [(by_numba, piece) for view in views for piece in batches([view], PIECE)]
        leaves = [leaf for leaf, large in zip(leaves, flat, strict=True) if not large]
    # What small leaves take is the interpreter's time, which no thread shares.
    outside = (
        size if size >= SMALL * len(leaves) else sum([leaf.size for leaf in leaves if leaf.size > SMALL])
    )
    joined = [(by_numpy, batch) for batch in batches(leaves, block >> is_complex)]
    most = MOST if len(joined) > MOST else None
    sums = in_threads(lambda item: item[0](item[1]), [*items, *joined], outside, most=most)
    return [part for parts in sums for part in parts]


def _batch_sums(
    batch: list[Array], order: Order, is_complex: bool, narrow: bool, memory: Array
) -> list[Part]:
    if not narrow:
        return [(float(wide_sums(gathered(batch, is_complex, memory[0]), order, is_complex)[0]), 0.0, 0)]
    many = sum([array.size for array in batch]) << is_complex > BLOCK
    block = gathered(batch, is_complex, memory[0], BLOCK if many else ROW)
    if many:
        block = block.reshape(-1, BLOCK >> is_complex, *block.shape[2:])
    sums = narrow_sums(block, memory[1], order, is_complex)
    return list(zip(*(field.tolist() for field in sums), strict=True))


@cache
def compiled_sum(order: Order, narrow: bool) -> Callable[[Array], Part] | None:
    """Return a sum compiled by Numba, where that is installed and has one."""
    if order == math.inf:
        return None
    try:
        from clipcore_backends import _numba
    except ImportError:
        return None
    if narrow:
        return lambda x: (*_numba.narrow_sum(x, x.view(np.int64), order == 2), 0)
    number = _numba.squares if order == 2 else _numba.magnitudes
    return lambda x: (number(x), 0.0, 0)


def _is_flat(leaf: Array, narrow: bool) -> bool:
    """Tell an array that the compiled sums can read, and that is as large as they are for."""
    if leaf.size < BLOCK or leaf.dtype != (np.float64 if narrow else np.float32) or not leaf.dtype.isnative:
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
    for box, sums in _box_sums(x, len(kept), order, is_complex, narrow) if leaf.size else ():
        where = box[: len(kept)]
        head, tail, new = (part.reshape(hi[where].shape) for part in sums)
        least = np.minimum(shift[where], new)
        down, new_down = power * (least - shift[where]), power * (least - new)
        old, old_lo, old_least = (np.ldexp(part[where], down) for part in (hi, lo, least_lo))
        head, tail = np.ldexp(head, new_down), np.ldexp(tail, new_down)
        hi[where], rest = _two_sum(old, head)
        lo[where], least_rest = _two_sum(old_lo, tail + rest)
        least_lo[where] = old_least + least_rest
        shift[where] = least
    hi, lo = map(np.asarray, _two_sum(hi, np.where(np.isfinite(hi), lo + least_lo, 0)))
    return Sum(hi, lo, -power * shift, NARROW_ERROR if narrow else WIDE_ERROR)


def _box_sums(
    x: Array, kept: int, order: Order, is_complex: bool, narrow: bool
) -> Iterator[tuple[Box, tuple[Array, Array, Array]]]:
    """Cut an array whose axes from `kept` on are summed; yield each box with the sums of its groups."""
    moduli = is_complex and order != 2  # which take several times the memory of a block
    # A row is of one group, and no longer than BLOCK.
    size = AT_ONCE * BLOCK if math.prod(x.shape[kept:]) << is_complex <= BLOCK and not moduli else BLOCK
    cut = list(boxes(x.shape, size >> is_complex))
    groups = _groups_in(cut[0], kept)
    if groups > FEW:
        size = BLOCK
        cut = list(boxes(x.shape, size >> is_complex))
    memory = threading.local()

    def sums(box: Box) -> tuple[Array, Array, Array]:
        if not hasattr(memory, "blocks"):
            memory.blocks = np.empty((1 + narrow, min(size, x.size << is_complex)))
        block = _float64_block(x[box], _groups_in(box, kept), memory.blocks[0])
        if narrow:
            return narrow_sums(block, memory.blocks[1], order, is_complex)
        head = wide_sums(block, order, is_complex)
        return head, np.zeros_like(head), np.zeros(head.shape, np.int64)

    most = MOST if groups <= FEW and not moduli else 1
    run = max(1, HELD // groups)
    for start in range(0, len(cut), run):
        part = cut[start : start + run]
        yield from zip(part, in_threads(sums, part, x.size, most=most), strict=True)


def _groups_in(box: Box, kept: int) -> int:
    return math.prod(side.stop - side.start for side in box[:kept])


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, rounded, and what the rounding left out (Knuth)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _float64_block(x: Array, groups: int, memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """Copy a piece of a leaf to float64 memory: as (groups, elements), complex (groups, elements, 2)."""
    parts = components(x)
    wide = memory[: parts.size]
    np.copyto(wide.reshape(parts.shape), parts)
    return wide.reshape(groups, math.prod(x.shape) // groups, *parts.shape[x.ndim :])
