"""The NumPy engine: in pieces that stay in the cache, exact where floating point cannot tell."""

import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcore_backends import _numpy_exact
from clipcore_backends._formats import COMPONENT, FORMATS, Format
from clipcore_backends._numpy_measure import axis_sums, tree_sum
from clipcore_backends._numpy_pieces import (
    PIECE,
    Box,
    boxes,
    components,
    flat_blocks,
    piece_for,
    pieces,
)
from clipcore_backends._protocol import Multiplier, Order, Sum
from clipcore_backends._threads import MOST, SMALL, in_threads

__all__ = ["NumpyEngine"]

Array = NDArray[Any]
Pair = tuple[Array, Array]
Bounds = tuple[Array | None, Array | None]
_Clamp = Callable[[Array, Array, Array | None, Array | None], None]

CACHED = 1 << 17
"""Elements a piece that is to stay in the cache from one pass over it to the next."""


class NumpyEngine:
    """Measure, scale and clamp NumPy arrays."""

    def measure(self, leaves: list[Array], order: Order, axis: tuple[int, ...] | None) -> Sum:
        """Return the accurate sum of ``|x|**order`` over all leaves, or over `axis` of the one leaf."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return tree_sum(leaves, order) if axis is None else axis_sums(leaves[0], order, axis)

    def exceeds(self, leaves: list[Array], order: Order, limit: float) -> bool:
        """Decide without rounding whether the norm of all leaves together is above `limit`."""
        blocks = ((block, leaf.dtype.kind == "c") for leaf in leaves for block in flat_blocks(leaf))
        with np.errstate(all="ignore"):
            return _numpy_exact.exceeds(blocks, order, limit)

    def empty_like(self, leaf: Array) -> Array:
        """Return a new array of the leaf's dtype and shape."""
        return np.empty_like(leaf)

    def copy(self, leaves: list[Array], outs: list[Array]) -> None:
        """Write leaves to other memory."""
        large: list[Pair] = []
        for leaf, out in zip(leaves, outs, strict=True):
            if leaf.size <= SMALL:
                np.copyto(out, leaf)
            else:
                large.append((leaf, out))
        _in_pieces(lambda x, out: np.copyto(out, x), large)

    def scale(self, leaves: list[Array], outs: list[Array], multipliers: dict[Any, Multiplier]) -> None:
        """Write leaves times the multipliers of their dtypes to `outs`.

        Nothing below the normal range is rounded up.
        """
        with np.errstate(all="ignore"):
            for dtype, multiplier in multipliers.items():
                pairs: Iterable[Pair] = zip(leaves, outs, strict=True)
                if len(multipliers) > 1:
                    pairs = ((x, out) for x, out in pairs if x.dtype == dtype)
                if not isinstance(multiplier.value, float):
                    _scale_groups(leaves[0], outs[0], multiplier)
                elif multiplier.ample:
                    _scale_wholes(pairs, multiplier, dtype)
                else:
                    for x, out in pairs:
                        _multiply_truncating(components(x), multiplier, components(out))

    def clamp(self, leaves: list[Array], outs: list[Array], bounds: list[Bounds]) -> None:
        """Write the leaves to `outs`, cut to bounds; NaN where an element or bound is NaN."""
        large: list[tuple[_Clamp, Array, Array, Array | None, Array | None]] = []
        with np.errstate(invalid="ignore"):
            for leaf, out, (lower, upper) in zip(leaves, outs, bounds, strict=True):
                clamp = _clamp_for(leaf, lower, upper)
                if leaf.size <= SMALL:
                    clamp(leaf, out, lower, upper)
                elif all(bound is None or bound.ndim == 0 for bound in (lower, upper)):
                    once = piece_for(leaf.size) if clamp is _clamp else PIECE
                    most = once if clamp in (_clamp, _clamp_at_plus_zero) else CACHED
                    large += [(clamp, *pair, lower, upper) for pair in pieces(leaf, out, most)]
                else:
                    low, high = (
                        None if bound is None else np.broadcast_to(bound, leaf.shape)
                        for bound in (lower, upper)
                    )
                    for box in boxes(leaf.shape, CACHED):
                        below = None if low is None else low[box]
                        above = None if high is None else high[box]
                        large.append((clamp, leaf[box], out[box], below, above))
            if large:
                size = sum([item[1].size for item in large])
                one_pass = all(item[0] is _clamp for item in large)
                in_threads(lambda item: item[0](*item[1:]), large, size, most=None if one_pass else MOST)

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


def _in_pieces(work: Callable[[Array, Array], object], pairs: list[Pair]) -> None:
    """Do work that reads and writes each element once on pairs of large arrays, in threads."""
    size = sum([x.size for x, _ in pairs])
    if size:
        cut = [piece for x, out in pairs for piece in pieces(x, out, piece_for(size))]
        in_threads(lambda piece: work(*piece), cut, size)


@cache
def _format_of(dtype: np.dtype[Any]) -> Format:
    """Return the floating-point format of components."""
    return FORMATS[COMPONENT[dtype.name]]


def _clamp_for(leaf: Array, lower: Array | None, upper: Array | None) -> _Clamp:
    """Return the function that cuts pieces of a leaf to its bounds."""
    if leaf.dtype.kind == "V":
        return _clamp_bfloat16
    given = [bound for bound in (lower, upper) if bound is not None]
    if leaf.dtype.kind != "f" or all(bound.all() for bound in given):
        return _clamp
    at_minus_zero = any(np.signbit(bound[bound == 0]).any() for bound in given)
    return _clamp_at_zero if at_minus_zero or not leaf.dtype.isnative else _clamp_at_plus_zero


def _clamp(x: Array, out: Array, lower: Array | None, upper: Array | None) -> None:
    np.clip(x, lower, upper, out=out)


def _clamp_at_zero(x: Array, out: Array, lower: Array | None, upper: Array | None) -> None:
    """Cut to a bound of zero, where ``np.clip`` may turn one zero into the other."""
    zeros = x == 0
    before = x[zeros] if zeros.any() else None
    np.clip(x, lower, upper, out=out)
    if before is not None:
        after = out[zeros]
        out[zeros] = np.where(after == 0, before, after)


def _clamp_at_plus_zero(x: Array, out: Array, lower: Array | None, upper: Array | None) -> None:
    """Do the same where no bound is -0.0: then only a -0.0 may change, by its bits the lowest of integers."""
    bits = x.view(f"i{x.itemsize}")
    if not (bits.size and bits.min() == -1 << (8 * x.itemsize - 1)):
        _clamp(x, out, lower, upper)
        return
    for part, result in pieces(x, out, CACHED):
        _clamp_at_zero(part, result, lower, upper)


def _clamp_bfloat16(x: Array, out: Array, lower: Array | None, upper: Array | None) -> None:
    """Cut numbers for which there is no ``np.clip``."""
    if lower is not None:
        x = np.where(~(x >= lower) & (x == x), lower, x)
    if upper is not None:
        x = np.where(~(x <= upper) & (x == x), upper, x)
    np.copyto(out, x)


def _scale_wholes(pairs: Iterable[Pair], multiplier: Multiplier, dtype: np.dtype[Any]) -> None:
    """Scale leaves of one dtype by one number."""
    if dtype.kind == "c":
        pairs = ((components(x), components(out)) for x, out in pairs)
    # Products of 16-bit numbers with their multipliers are exact in float32.
    compute = np.float64 if _format_of(dtype).precision == 53 else np.float32
    number = compute(math.ldexp(multiplier.value, multiplier.exponent))
    ufunc = np.divide if multiplier.divide else np.multiply
    large: list[Pair] = []
    for x, out in pairs:
        if x.size <= SMALL:
            ufunc(x, number, out)
        else:
            large.append((x, out))
    _in_pieces(lambda x, out: ufunc(x, number, out), large)


def _scale_groups(leaf: Array, out: Array, multiplier: Multiplier) -> None:
    """Scale the groups of one leaf that are clipped."""
    x, result = components(leaf), components(out)
    if x.ndim > leaf.ndim:
        multiplier = Multiplier(*(field[..., np.newaxis] for field in multiplier))
    ample = multiplier.clipped & multiplier.ample
    compute = np.float64 if _format_of(x.dtype).precision == 53 else np.float32
    number = np.ldexp(multiplier.value.astype(compute), multiplier.exponent)
    # A group that is not meant is multiplied, or divided, by one: a mask takes several times as long.
    steps = [
        (ufunc, np.broadcast_to(np.where(meant, number, compute(1)), x.shape))
        for ufunc, meant in (
            (np.multiply, ample & ~multiplier.divide),
            (np.divide, ample & multiplier.divide),
        )
        if meant.any()
    ]
    whole = bool(ample.all())
    clipped = np.broadcast_to(ample, x.shape)

    def scale(box: Box) -> None:
        part, target = x[box], result[box] if whole else None
        for ufunc, numbers in steps:
            part = target = ufunc(part, numbers[box], out=target, dtype=compute, casting="unsafe")
        if not whole:  # one times a subnormal is zero where these are flushed
            np.copyto(result[box], part, where=clipped[box], casting="unsafe")

    if steps:
        in_threads(scale, list(boxes(x.shape, CACHED)), x.size, most=None if whole else MOST)
    cut = multiplier.clipped & ~multiplier.ample
    if cut.any():
        _multiply_truncating(x, multiplier._replace(clipped=cut), result)


def _multiply_truncating(x: Array, multiplier: Multiplier, out: Array) -> None:
    """Multiply what is clipped in float64, but cut what falls below the normal range towards zero."""
    facts = _format_of(x.dtype)
    # Just below the smallest normal, rounding to nearest is still as fine as the multiplier allows for.
    coarse = 2.0 ** (facts.precision - 1) * (1 - 2.0**-7)
    value, exponent, divide, clipped, _ = (np.asarray(field) for field in multiplier)
    product: Callable[..., Pair]
    if facts.precision == 53:
        product, fields = _product_of_doubles, [value, exponent, divide]
    else:
        number = np.ldexp(value, exponent)
        product, fields = _product, [np.where(divide, 1, number), np.where(divide, number, 1)]
    fields = [np.broadcast_to(field, x.shape) for field in fields]
    clipped = np.broadcast_to(clipped, x.shape)

    def multiply(box: Box) -> None:
        nearest, steps = product(x[box].astype(np.float64), facts.smallest, *(field[box] for field in fields))
        cut = np.trunc(steps) * 2.0**facts.smallest
        result = np.where(np.abs(steps) < coarse, cut, nearest)
        np.copyto(out[box], result, where=clipped[box], casting="unsafe")

    in_threads(multiply, list(boxes(x.shape)), x.size, most=MOST)


def _product(x: Array, smallest: int, factor: Array, divisor: Array) -> Pair:
    """Return products of numbers far from the ends of float64, and them in units of ``2**smallest``."""
    nearest = x * factor / divisor
    return nearest, nearest * 2.0**-smallest


def _product_of_doubles(x: Array, smallest: int, value: Array, exponent: Array, divide: Array) -> Pair:
    """Return products of any float64, and them in units of ``2**smallest``."""
    mantissa, shift = np.frexp(x)
    shift = shift + np.where(divide, -exponent, exponent)
    divisor, half = np.where(divide, value, 1), shift // 2
    # Both operands are normal, so this is rounded once, even to a subnormal.
    nearest = np.where(
        divide,
        np.ldexp(mantissa, half) / np.ldexp(divisor, half - shift),
        np.ldexp(mantissa, half) * np.ldexp(value, shift - half),
    )
    return nearest, np.ldexp(np.where(divide, mantissa / divisor, mantissa * value), shift - smallest)
