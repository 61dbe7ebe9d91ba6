"""From a norm and a limit to one number per group: the only home of the laws' arithmetic.

Let F = C / ‖x‖, the ideal factor, be known to a relative error e, and u be the unit
roundoff of a leaf. The leaf is multiplied by a number f of its own precision and rounded
once, so that each element of the result is at most ``(1 + u) * f`` times that of x. With

    f <= F * (1 - m),   m = u * (1 + 1/64) + e

the norm of the result is at most C (law 1). What this costs: m, the rounding of f down to
its grid, one more rounding of each element. A grid of p bits is coarsest, 2u, just above a
power of two; there the leaf is divided by a number just below one instead, whose grid is
finest, so that never more than ``sqrt(2) * u`` is lost. The sum, below 3.9 u, is law 3.

The part ``u / 64`` of m pays for elements that are rounded up below the normal range,
where rounding is not relative to the element any more. Where the limit is too small for
that (not `ample`), an engine cuts such elements towards zero instead.

Numbers that need more than one float64 are unevaluated sums hi + lo, ``|lo| <= ulp(hi)``,
times ``2**exponent``: no finite input is out of range, and a change of scale by a power of
two changes nothing but the exponent (law 6).
"""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from clipcore_backends._formats import Format
from clipcore_backends._protocol import Array, Multiplier, Order, Sum

__all__ = [
    "Decision",
    "Norm",
    "decide",
    "multiplier",
    "norm_of",
    "product",
    "subnormal_slack",
    "to_float",
    "two_sum",
]

# The same arithmetic on one group, as Python floats, and on an array with one entry a group.
_SCALAR: Any = SimpleNamespace(
    sqrt=math.sqrt,
    frexp=math.frexp,
    ldexp=math.ldexp,
    floor=math.floor,
    ceil=math.ceil,
    minimum=min,
    maximum=max,
    where=lambda condition, yes, no: yes if condition else no,
)


def _namespace(number: Array) -> Any:
    return np if isinstance(number, (np.ndarray, np.generic)) else _SCALAR


class Norm(NamedTuple):
    """The norms of finite groups, ``(hi + lo) * 2**exponent``."""

    hi: Array
    lo: Array
    exponent: Array
    error: float
    """A bound on the relative error."""


class Decision(NamedTuple):
    """How limits and norms compare, and the ideal factors C / ‖x‖."""

    excess: Array
    """C / ‖x‖ - 1, rounded; 1 for a zero norm. Negative where the group is to be clipped."""
    certain: Array
    """Whether the sign of `excess` is beyond doubt."""
    factor: Norm


def product(a: Array, b: Array, splitter: float = 2.0**27 + 1) -> tuple[Array, Array]:
    """Return a * b, rounded, and what the rounding left out (Dekker 1971).

    `splitter` is ``2**s + 1`` with s half the bits of the dtype, rounded up.
    """
    a_high, b_high = a * splitter, b * splitter
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    rounded = a * b
    return rounded, ((a_high * b_high - rounded) + a_high * b_low + a_low * b_high) + a_low * b_low


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, rounded, and what the rounding left out (Knuth)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def norm_of(total: Sum, order: Order) -> Norm:
    """Return the norm whose power `total` holds, for finite groups."""
    xp = _namespace(total.hi)
    hi, shift = xp.frexp(total.hi)
    exponent = shift + total.exponent
    lo = xp.ldexp(total.lo, -shift)
    if order != 2:
        return Norm(hi, lo, exponent, total.error)
    odd = exponent % 2
    hi, lo = xp.ldexp(hi, odd), xp.ldexp(lo, odd)
    root = xp.sqrt(hi)
    square, rest = product(root, root)
    correction = ((hi - square) - rest + lo) / xp.where(root > 0, 2 * root, 1.0)
    return Norm(root, correction, (exponent - odd) // 2, total.error)


def to_float(norm: Norm) -> Array:
    """Round norms to float64; inf where they are beyond it."""
    xp = _namespace(norm.hi)
    rounded = norm.hi + norm.lo
    if xp is np:
        return np.ldexp(rounded, norm.exponent)
    try:
        return math.ldexp(rounded, norm.exponent)
    except OverflowError:
        return math.inf


def decide(norm: Norm, limit: float) -> Decision:
    """Compare finite norms with a finite limit, as far as floating point can tell."""
    xp = _namespace(norm.hi)
    c, shift = math.frexp(limit)
    divisor = xp.where(norm.hi > 0, norm.hi, 1.0)
    quotient = c / divisor
    rounded, rest = product(quotient, divisor)
    correction = ((c - rounded) - rest - quotient * norm.lo) / divisor
    exponent = shift - norm.exponent
    near = xp.minimum(xp.maximum(exponent, -9), 9)
    excess = (xp.ldexp(quotient, near) - 1.0) + xp.ldexp(correction, near)
    error = norm.error + 2.0**-100
    excess = xp.where(norm.hi > 0, excess, 1.0)
    return Decision(excess, abs(excess) >= error, Norm(quotient, correction, exponent, error))


def multiplier(decision: Decision, limit: float, slack: float, facts: Format) -> Multiplier:
    """Round the factor down to the number that a leaf is multiplied, or divided, by.

    Parameters
    ----------
    decision : Decision
    limit : float
        The limit, finite.
    slack : float
        From this many of the leaf's smallest subnormals on the limit is ample.
    facts : Format
        Of the leaf's components.
    """
    factor = decision.factor
    xp = _namespace(factor.hi)
    margin = facts.unit_roundoff * (1 + 2.0**-6) + factor.error
    lowered = factor.lo - factor.hi * margin
    hi = factor.hi + lowered
    lo = (factor.hi - hi) + lowered
    mantissa, shift = xp.frexp(hi)
    lo = xp.ldexp(lo, -shift)
    # 16-bit numbers are multiplied in float32: as many bits as keep that product exact.
    bits = facts.precision if facts.precision >= 24 else 24 - facts.precision
    value = _round(xp, mantissa, lo, bits, up=False)
    exponent = factor.exponent + shift
    divide = (mantissa < math.sqrt(0.5)) & (mantissa > 0) & (bits == facts.precision)
    positive = xp.where(divide, mantissa, 1.0)
    inverse = 1.0 / positive
    rounded, rest = product(inverse, positive)
    correction = ((1.0 - rounded) - rest - inverse * lo) / positive
    exact = inverse + correction
    correction = (inverse - exact) + correction
    divisor = 2.0 * _round(xp, 0.5 * exact, 0.5 * correction, bits, up=True)
    reach = 1000 if facts.precision == 53 else 100
    return Multiplier(
        xp.where(divide, divisor, value),
        xp.where(divide, -exponent, exponent),
        divide,
        decision.excess < 0,
        ((exponent > -reach) & (limit >= slack * 2.0**facts.smallest)) | (limit == 0),
    )


def subnormal_slack(order: Order, size: int, finest: float) -> float:
    """Return how many times a leaf's smallest subnormal a limit must be to be ample.

    Rounding `size` elements to nearest moves each by half the smallest subnormal s at most,
    and their norm by ``s / 2`` times size (L1), its root (L2) or one (maximum). The share of
    the limit set aside for this is ``u / 64``, of the group's most precise leaf.
    """
    count = size if order == 1 else math.sqrt(size) if order == 2 else 1
    return 64 * count / finest


def _round(xp: Any, mantissa: Array, lo: Array, bits: int, *, up: bool) -> Array:
    """Round mantissa + lo, with lo below half an ulp of mantissa in [1/2, 1], to `bits` bits."""
    scaled = xp.ldexp(mantissa, bits)
    if up:
        steps = xp.ceil(scaled)
        steps = steps + xp.where((steps == scaled) & (lo > 0), 1, 0)
    else:
        steps = xp.floor(scaled)
        steps = steps - xp.where((steps == scaled) & (lo < 0), 1, 0)
    return xp.ldexp(steps * 1.0, -bits)
