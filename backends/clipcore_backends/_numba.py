"""The sums of `_numpy_sums.wide_sums` over float32 arrays, at the speed of memory: the extra ``fast``."""

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

__all__ = ["magnitudes", "squares"]

# As in _numpy_sums: a chain of additions is so short that the order inside it does not matter.
ROW = 256
ROWS = 64
"""Rows a chunk. A piece of 2**20 elements has 64 chunks: 384 additions in the longest chain."""

_Flat = types.Array(types.float32, 1, "C", readonly=True)
_ROW = types.float64(_Flat, types.intp, types.intp)
_WHOLE = types.float64(_Flat)


def _compiled(signature: Any, **options: Any) -> Any:
    """Compile, and keep the result for the next process where there is a place for it."""

    def compile_function(function: Any) -> Any:
        try:
            return njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:
            return njit(signature, nogil=True, **options)(function)

    return compile_function


# Only inside these two may additions change places, and so be done many at a time. An index
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
