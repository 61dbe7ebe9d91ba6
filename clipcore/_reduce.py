"""One norm over many machines: what the ranks exchange through a caller's ``all_reduce``.

Two calls, the same on every rank and every engine, so that a rank without leaves can join
with NumPy. The first ("max") carries a size, the square root of the local norm, and
whether infinity or NaN is there; from it all ranks take a common unit. The second carries
the local sum in that unit, cut to pieces on grids so coarse that the pieces of up to 4096
ranks add up exactly, in any order: every rank gets the same bits, however shards are
drawn. For ``ord=inf`` the second is a maximum.
"""

import math

import numpy as np
from clipcore_backends._protocol import Order, Sum

from clipcore._decide import norm_of
from clipcore._typing import AllReduce

__all__ = ["all_ranks"]

_GRIDS = (40, 80)


def all_ranks(total: Sum, order: Order, all_reduce: AllReduce) -> Sum:
    """Return the sum over all ranks of one group's NumPy sum."""
    finite = math.isfinite(total.hi)
    local = total if finite else Sum(0.0, 0.0, 0, total.error)
    flags = (float(math.isinf(total.hi)), float(math.isnan(total.hi)))
    size, has_infinity, has_nan = _numbers(all_reduce, [_root_of_norm(local, order), *flags], "max")
    power = 2 if order == 2 else 1
    _, exponent = math.frexp(size)
    unit = 2 * power * exponent
    hi, lo = (math.ldexp(part, local.exponent - unit) for part in (local.hi, local.lo))
    if order == math.inf:
        (hi,) = _numbers(all_reduce, [hi + lo], "max")
        lo = 0.0
    else:
        pieces = []
        for grid in _GRIDS:
            piece = math.ldexp(math.floor(math.ldexp(hi, grid)), -grid)
            pieces.append(piece)
            hi, lo = hi - piece + lo, 0.0
        pieces = _numbers(all_reduce, [*pieces, hi], "sum")
        hi = math.fsum(pieces)
        lo = math.fsum([*pieces, -hi])
    if has_nan or has_infinity:
        return Sum(math.nan if has_nan else math.inf, 0.0, 0, 0.0)
    return Sum(hi, lo, unit, total.error)


def _root_of_norm(total: Sum, order: Order) -> float:
    """Return the square root of the norm, which no finite input takes out of range."""
    norm = norm_of(total, order)
    odd = norm.exponent % 2
    return math.ldexp(math.sqrt(math.ldexp(norm.hi, odd)), (norm.exponent - odd) // 2)


def _numbers(all_reduce: AllReduce, numbers: list[float], op: str) -> list[float]:
    return [float(number) for number in all_reduce(np.array(numbers), op=op)]
