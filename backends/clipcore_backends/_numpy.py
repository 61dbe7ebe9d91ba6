"""The NumPy engine: in blocks that stay in the cache, exact where floating point cannot tell."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcore_backends import _numpy_exact
from clipcore_backends._formats import COMPONENT, FORMATS, Format
from clipcore_backends._numpy_sums import (
    BLOCK,
    NARROW_ERROR,
    NEUTRAL_SHIFT,
    WIDE_ERROR,
    narrow_sums,
    wide_sums,
)
from clipcore_backends._protocol import Multiplier, Order, Sum

__all__ = ["NumpyEngine", "components"]

Array = NDArray[Any]
Box = tuple[Any, ...]


class NumpyEngine:
    """Measure, scale and clamp NumPy arrays."""

    def measure(self, leaves: list[Array], order: Order, axis: tuple[int, ...] | None) -> Sum:
        """Return the accurate sum of ``|x|**order`` over all leaves, or over `axis` of the one leaf."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return _tree_sum(leaves, order) if axis is None else _axis_sums(leaves[0], order, axis)

    def exceeds(self, leaves: list[Array], order: Order, limit: float) -> bool:
        """Decide without rounding whether the norm of all leaves together is above `limit`."""
        return _numpy_exact.exceeds(
            ((block, leaf.dtype.kind == "c") for leaf in leaves for block in _flat_blocks(leaf)), order, limit
        )

    def scale(self, leaf: Array, multiplier: Multiplier, out: Array) -> None:
        """Write `leaf` times `multiplier` to `out`; nothing below the normal range is rounded up."""
        x, result = components(leaf), components(out)
        with np.errstate(all="ignore"):
            if isinstance(multiplier.value, float):
                (_multiply if multiplier.ample else _multiply_truncating)(x, multiplier, result)
                return
            if x.ndim > leaf.ndim:
                multiplier = Multiplier(*(field[..., np.newaxis] for field in multiplier))
            for chosen, multiply in (
                (multiplier.ample, _multiply),
                (~multiplier.ample, _multiply_truncating),
            ):
                chosen = multiplier.clipped & chosen
                if chosen.any():
                    multiply(x, multiplier._replace(clipped=chosen), result)

    def clamp(self, leaf: Array, lower: Array | None, upper: Array | None, out: Array) -> None:
        """Write `leaf`, cut to bounds of its own dtype, to `out`; NaN where an element or bound is NaN."""
        bounds = [bound for bound in (lower, upper) if bound is not None]
        with np.errstate(invalid="ignore"):
            # np.clip may turn one zero into the other where a bound is zero.
            if len(bounds) == 2 and leaf.dtype.kind in "iuf" and all(b.ndim == 0 and b for b in bounds):
                np.clip(leaf, lower, upper, out=out)
                return
            for box in boxes(leaf.shape):
                block = leaf[box]
                if lower is not None:
                    low = np.broadcast_to(lower, leaf.shape)[box]
                    block = np.where(~(block >= low) & (block == block), low, block)
                if upper is not None:
                    high = np.broadcast_to(upper, leaf.shape)[box]
                    block = np.where(~(block <= high) & (block == block), high, block)
                out[box] = block

    def number(self, value: float, leaf: Array) -> Array:
        """Return a number as a 0-d array of the leaf's dtype."""
        return np.asarray(value).astype(leaf.dtype)

    def round_array(self, bound: Array, leaf: Array, *, up: bool) -> Array:
        """Cast an array bound to the leaf's dtype in the direction that keeps it."""
        with np.errstate(all="ignore"):
            cast = bound.astype(leaf.dtype.newbyteorder("="))
            if leaf.dtype.kind in "iu":
                info = np.iinfo(leaf.dtype)
                cast[bound < info.min] = info.min
                cast[bound > info.max] = info.max
                return cast
            if bound.dtype.kind not in "iu":
                # What rounding leaves has no more bits than the bound had.
                beyond = (np.less if up else np.greater)(cast.astype(bound.dtype), bound)
            else:
                # Integers are compared as integers: float64 does not hold all of them.
                limit = 2.0 ** (8 * bound.dtype.itemsize - (bound.dtype.kind == "i"))
                wide = cast.astype(np.float64)
                within = (wide >= -limit) & (wide < limit)
                back = np.where(within, cast, 0).astype(bound.dtype)
                inner, outer = (np.less, wide < 0) if up else (np.greater, wide > 0)
                beyond = np.where(within, inner(back, bound), outer)
            towards = np.asarray(math.inf if up else -math.inf).astype(cast.dtype)
            return np.where(beyond, np.nextafter(cast, towards), cast)


def components(x: Array) -> Array:
    """View complex numbers as pairs of real ones along a new last axis; real arrays pass."""
    if x.dtype.kind != "c":
        return x
    real = x.real
    shape, strides = (*x.shape, 2), (*x.strides, real.dtype.itemsize)
    return np.lib.stride_tricks.as_strided(real, shape, strides)


def format_of(x: Array) -> Format:
    """Return the floating-point format of the components of `x`."""
    return _format_of(x.dtype)


@cache
def _format_of(dtype: np.dtype[Any]) -> Format:
    return FORMATS[COMPONENT[dtype.name]]


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


def _memory_order(x: Array) -> Array:
    """View `x` with its axes in the order of memory, flat where that is a view."""
    x = x.transpose(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
    x = x[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)]
    return x.reshape(-1) if x.flags.c_contiguous else x


def _float64_block(x: Array, groups: int) -> NDArray[np.float64]:
    """Copy a piece of a leaf to shape (groups, elements), complex (groups, elements, 2)."""
    parts = components(x)
    wide = parts.astype(np.float64, order="C", copy=False)
    return wide.reshape(groups, math.prod(x.shape) // groups, *parts.shape[x.ndim :])


def _block_size(leaf: Array) -> int:
    """Return how many elements of a leaf make a block of `BLOCK` components."""
    return BLOCK // 2 if leaf.dtype.kind == "c" else BLOCK


def _flat_blocks(leaf: Array) -> Iterator[NDArray[np.float64]]:
    most = _block_size(leaf)
    if leaf.size <= most:
        if leaf.size:
            yield _float64_block(leaf, 1)
        return
    flat = _memory_order(leaf)
    for box in boxes(flat.shape, most):
        yield _float64_block(flat[box], 1)


def _is_narrow(leaf: Array) -> bool:
    """Tell components of 64 bits, whose squares float64 does not hold, from smaller ones."""
    return format_of(leaf).precision == 53


def _block_sums(
    block: NDArray[np.float64], order: Order, is_complex: bool, narrow: bool
) -> tuple[Array, Array, Array]:
    """Return head, tail and shift of the sums of a block's rows."""
    if narrow:
        return narrow_sums(block, order, is_complex)
    head = wide_sums(block, order, is_complex)
    return head, np.zeros_like(head), np.zeros(head.shape, np.int64)


def _power(order: Order) -> int:
    """Return the power of x that the sum holds."""
    return 2 if order == 2 else 1


def _tree_sum(leaves: list[Array], order: Order) -> Sum:
    parts: list[tuple[float, float, int]] = []
    # One leaf of float64 asks for the factor, and so for the whole sum, in its precision.
    narrow = any(map(_is_narrow, leaves))
    for leaf in leaves:
        is_complex = leaf.dtype.kind == "c"
        for block in _flat_blocks(leaf):
            head, tail, shift = _block_sums(block, order, is_complex, narrow)
            parts.append((float(head[0]), float(tail[0]), int(shift[0])))
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
    return Sum(hi, lo, -power * least, NARROW_ERROR if narrow else WIDE_ERROR)


def _axis_sums(leaf: Array, order: Order, axis: tuple[int, ...]) -> Sum:
    kept = [k for k in range(leaf.ndim) if k not in axis]
    x = leaf.transpose((*kept, *axis))
    groups = tuple(leaf.shape[k] for k in kept)
    power = _power(order)
    narrow, is_complex = _is_narrow(leaf), leaf.dtype.kind == "c"
    hi, lo = np.zeros(groups), np.zeros(groups)
    shift = np.full(groups, NEUTRAL_SHIFT)
    for box in boxes(x.shape, _block_size(leaf)) if leaf.size else ():
        where = box[: len(kept)]
        shape = hi[where].shape
        block = _float64_block(x[box], math.prod(shape))
        head, tail, new = (part.reshape(shape) for part in _block_sums(block, order, is_complex, narrow))
        least = np.minimum(shift[where], new)
        down, new_down = power * (least - shift[where]), power * (least - new)
        old, old_lo = np.ldexp(hi[where], down), np.ldexp(lo[where], down)
        head, tail = np.ldexp(head, new_down), np.ldexp(tail, new_down)
        hi[where], rest = _two_sum(old, head)
        lo[where] = old_lo + tail + rest
        shift[where] = least
    hi, lo = _two_sum(hi, np.where(np.isfinite(hi), lo, 0))
    return Sum(hi, lo, -power * shift, NARROW_ERROR if narrow else WIDE_ERROR)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, rounded, and what the rounding left out (Knuth)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _multiply(x: Array, multiplier: Multiplier, out: Array) -> None:
    # Products of 16-bit numbers with their multipliers are exact in float32.
    compute = np.float64 if format_of(x).precision == 53 else np.float32
    number = np.ldexp(compute(multiplier.value), multiplier.exponent)
    if isinstance(multiplier.value, float):
        ufunc = np.divide if multiplier.divide else np.multiply
        ufunc(x, number, out=out, dtype=compute, casting="unsafe")
        return
    for ufunc, where in (
        (np.divide, multiplier.clipped & multiplier.divide),
        (np.multiply, multiplier.clipped & ~multiplier.divide),
    ):
        ufunc(x, number, out=out, dtype=compute, casting="unsafe", where=where)


def _multiply_truncating(x: Array, multiplier: Multiplier, out: Array) -> None:
    """Multiply in float64 as `_multiply` does, but cut what falls below the normal range towards zero."""
    facts = format_of(x)
    # Just below the smallest normal, rounding to nearest is still as fine as the multiplier allows for.
    coarse = 2.0 ** (facts.precision - 1) * (1 - 2.0**-7)
    fields = [np.broadcast_to(np.asarray(field), x.shape) for field in multiplier]
    for box in boxes(x.shape):
        value, exponent, divide, clipped, _ = (field[box] for field in fields)
        mantissa, shift = np.frexp(x[box].astype(np.float64))
        shift = shift + np.where(divide, -exponent, exponent)
        divisor, half = np.where(divide, value, 1), shift // 2
        # Both operands are normal, so this is rounded once, even to a subnormal.
        nearest = np.where(
            divide,
            np.ldexp(mantissa, half) / np.ldexp(divisor, half - shift),
            np.ldexp(mantissa, half) * np.ldexp(value, shift - half),
        )
        steps = np.ldexp(np.where(divide, mantissa / divisor, mantissa * value), shift - facts.smallest)
        cut = np.ldexp(np.trunc(steps), facts.smallest)
        result = np.where(np.abs(steps) < coarse, cut, nearest)
        np.copyto(out[box], result, where=clipped, casting="unsafe")
