"""The sums of `_numpy_sums` over flat arrays, at the speed of memory: the extra ``fast``.

Of float32 they are those of `wide_sums`, of float64 those of `narrow_sums`, with the same bounds of
the error.
"""

import math
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

__all__ = ["magnitudes", "narrow_sum", "squares"]

# As in _numpy_sums, of which the cache of Numba knows nothing.
BLOCK = 1 << 15
ROW = 256

ROWS = 64
"""Rows a chunk of float32. A piece of 2**20 elements has 64 chunks: 384 additions in the longest chain."""

_Flat = types.Array(types.float32, 1, "C", readonly=True)
_ROW = types.float64(_Flat, types.intp, types.intp)
_WHOLE = types.float64(_Flat)

_Doubles = types.Array(types.float64, 1, "C", readonly=True)
_Bits = types.Array(types.int64, 1, "C", readonly=True)
_Pair = types.UniTuple(types.float64, 2)
_PARTS = _Pair(types.float64, types.float64, types.boolean)
_NARROW_ROW = _Pair(_Doubles, types.intp, types.intp, types.float64, types.boolean)
_NARROW = _Pair(_Doubles, _Bits, types.boolean)
_TOP = types.int64(_Bits, types.intp, types.intp)
_ADDED = _Pair(*[types.float64] * 4)


def _compiled(signature: Any, **options: Any) -> Any:
    """Compile, and keep the result for the next process where there is a place for it."""

    def compile_function(function: Any) -> Any:
        try:
            return njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:
            return njit(signature, nogil=True, **options)(function)

    return compile_function


# Only inside the functions of a row may additions change places, and so be done many at a time. An index
# without a sign is not asked whether it counts from the end.
@_compiled(_ROW, fastmath={"reassoc", "contract"})
def _row_of_squares(x: Any, start: int, stop: int) -> float:
    total = 0.0
    for k in range(stop - start):
        wide = types.float64(x[np.uint64(start + k)])
        total += wide * wide
    return total


@_compiled(_ROW, fastmath={"reassoc", "contract"})
def _row_of_magnitudes(x: Any, start: int, stop: int) -> float:
    total = 0.0
    for k in range(stop - start):
        total += abs(types.float64(x[np.uint64(start + k)]))
    return total


@_compiled(_WHOLE)
def squares(x: NDArray[Any]) -> float:
    """Return the sum of squares of a flat float32 array of at most 2**20 elements."""
    total = 0.0
    for first in range(0, x.size, ROW * ROWS):
        chunk = 0.0
        for start in range(first, min(first + ROW * ROWS, x.size), ROW):
            chunk += _row_of_squares(x, start, min(start + ROW, x.size))
        total += chunk
    return total


@_compiled(_WHOLE)
def magnitudes(x: NDArray[Any]) -> float:
    """Return the sum of magnitudes of a flat float32 array of at most 2**20 elements."""
    total = 0.0
    for first in range(0, x.size, ROW * ROWS):
        chunk = 0.0
        for start in range(first, min(first + ROW * ROWS, x.size), ROW):
            chunk += _row_of_magnitudes(x, start, min(start + ROW, x.size))
        total += chunk
    return total


@_compiled(_TOP)
def _top(bits: Any, start: int, stop: int) -> int:
    """Return t where the largest magnitude is from 2**(t - 1) on and below 2**t; 0 where all are zero."""
    largest = np.int64(0)
    for k in range(stop - start):
        largest = max(largest, bits[np.uint64(start + k)] & np.int64(0x7FFFFFFFFFFFFFFF))
    return int(largest >> 52) - 1022 if largest else 0


@_compiled(_ADDED)
def _added(hi: float, lo: float, head: float, tail: float) -> tuple[float, float]:
    """Return the sum of two pairs; no rest of the first addition is lost (Knuth)."""
    total = hi + head
    virtual = total - hi
    return total, lo + ((hi - (total - virtual)) + (head - virtual) + tail)


# A head and a tail must not be simplified, and are computed where no rule of arithmetic may be bent.
@_compiled(_PARTS)
def _parts(x: float, anchor: float, squared: bool) -> tuple[float, float]:
    magnitude = abs(x)
    head = (magnitude + anchor) - anchor
    tail = magnitude - head
    return (head * head, tail * (magnitude + head)) if squared else (head, tail)


@_compiled(_NARROW_ROW, fastmath={"reassoc"})
def _narrow_row(x: Any, start: int, stop: int, anchor: float, squared: bool) -> tuple[float, float]:
    heads = tails = 0.0
    for k in range(stop - start):
        head, tail = _parts(x[np.uint64(start + k)], anchor, squared)
        heads += head
        tails += tail
    return heads, tails


@_compiled(_NARROW)
def narrow_sum(x: NDArray[Any], bits: NDArray[Any], squared: bool) -> tuple[float, float]:
    """Return head and tail of a sum of magnitudes, or squares, of at most 2**20 float64, given as bits too.

    NaN where `_numpy_sums.narrow_sums` has to be asked: something is not finite, or is to be scaled.
    """
    hi = lo = 0.0
    for first in range(0, x.size, BLOCK):
        last = min(first + BLOCK, x.size)
        top = _top(bits, first, last)
        if not -400 < top <= 480:
            return np.nan, np.nan
        anchor = math.ldexp(1.5, top - (19 if squared else 37) + 52)
        heads = tails = 0.0
        for start in range(first, last, ROW):
            head, tail = _narrow_row(x, start, min(start + ROW, last), anchor, squared)
            heads += head
            tails += tail
        hi, lo = _added(hi, lo, heads, tails)
    return hi, lo
