"""One norm over many machines: what the ranks exchange through a caller's ``all_reduce``.

Two calls, the same on every rank and every engine, so that a rank without leaves can join
with NumPy. The first ("max") carries a size, the square root of the local norm, and
whether infinity or NaN is there; from it all ranks take a common unit, above every local
sum. The second carries the local sum in that unit, cut to `PIECES` pieces of b bits each,
where b is `BITS` of the dtype: the k-th is a multiple of ``2**(-b * k)``, at most 2**b times
it. For ``ord=inf`` the second is a maximum.

In a dtype of p bits the pieces of up to ``2**(p - b)`` ranks (2**31 in float64, 2**14 in
float32) add up without a rounding, in any order and along any tree: every rank gets the
same bits, however shards are drawn. What is below the last piece is dropped. That is less
than ``2**(-b * PIECES)`` for each rank, where the sum of all is at least 1/16.
"""

import math

import numpy as np
from clipcore_backends._protocol import Order, Sum

from clipcore._checks import dtype_name
from clipcore._decide import norm_of, two_sum
from clipcore._dispatch import namespace_of
from clipcore._portable_powers import Precision, power_above, scale_for
from clipcore._typing import AllReduce, Array

__all__ = ["BITS", "PIECES", "all_ranks", "traced_all_ranks"]

PIECES = 5
BITS = {"float64": 22, "float32": 10}


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
        for k in range(1, PIECES + 1):
            step = BITS["float64"] * k
            pieces.append(math.ldexp(math.floor(math.ldexp(hi, step)), -step))
            hi, lo = two_sum(hi - pieces[-1], lo)
        pieces = _numbers(all_reduce, pieces, "sum")
        hi, lo = pieces[0], 0.0
        for piece in pieces[1:]:
            hi, rest = two_sum(hi, piece)
            lo += rest
        hi, lo = two_sum(hi, lo)
    if has_nan or has_infinity:
        return Sum(math.nan if has_nan else math.inf, 0.0, 0, 0.0)
    return Sum(hi, lo, unit, total.error)


def traced_all_ranks(
    hi: Array,
    lo: Array,
    scale: Array,
    has_nan: Array,
    has_infinity: Array,
    order: Order,
    precision: Precision,
    all_reduce: AllReduce,
) -> tuple[Array, Array, Array, Array, Array]:
    """Exchange one group's sum as `all_ranks` does, in the same units, with no look at a value."""
    xp, dtype = namespace_of(hi), precision.dtype
    root = xp.sqrt(xp.sqrt(hi)) if order == 2 else xp.sqrt(hi)
    flags = [xp.astype(has_infinity, dtype), xp.astype(has_nan, dtype)]
    sizes = all_reduce(xp.stack([root / xp.sqrt(scale), *flags]), op="max")
    unit = power_above(xp, sizes[0], dtype)
    times = 2 if order == 2 else 1
    # By products, since XLA turns a / b / b to a / (b * b), which may be out of range.
    inverse = xp.ones_like(unit) / (unit * xp.sqrt(scale))
    for _ in range(times):
        hi, lo = (part * inverse * inverse for part in (hi, lo))
    if order == math.inf:
        hi = all_reduce(xp.stack([hi]), op="max")[0]
        lo = xp.zeros_like(hi)
    else:
        pieces = []
        for k in range(1, PIECES + 1):
            steps = 2.0 ** (BITS[dtype_name(dtype)] * k)
            pieces.append(xp.floor(hi * steps) / steps)
            hi, lo = two_sum(hi - pieces[-1], lo)
        sums = all_reduce(xp.stack(pieces), op="sum")
        hi, lo = sums[0], xp.zeros_like(sums[0])
        for k in range(1, PIECES):
            hi, rest = two_sum(hi, sums[k])
            lo = lo + rest
        hi, lo = two_sum(hi, lo)
    # The unit is about the square root of the norm, whose square may be out of range.
    large, small = math.sqrt(precision.large), math.sqrt(precision.small)
    scale = scale_for(xp, xp.where(sizes[0] > 0, unit, xp.zeros_like(unit)), large, small, precision.step)
    for _ in range(times):
        hi, lo = ((part * unit) * scale * unit for part in (hi, lo))
    return hi, lo, scale, sizes[2] > 0, sizes[1] > 0


def _root_of_norm(total: Sum, order: Order) -> float:
    """Return the square root of the norm, which no finite input takes out of range."""
    norm = norm_of(total, order)
    odd = norm.exponent % 2
    return math.ldexp(math.sqrt(math.ldexp(norm.hi, odd)), (norm.exponent - odd) // 2)


def _numbers(all_reduce: AllReduce, numbers: list[float], op: str) -> list[float]:
    return [float(number) for number in all_reduce(np.array(numbers), op=op)]
