"""The portable engine: measure, decide and scale in pure array API, with no look at a value.

It serves every library without an engine of its own, traced, lazy and on any device. It
differs from the NumPy engine where that looks: it does not settle exactly on which side of
the limit a norm is that floating point cannot tell, and it takes one step off every element
that falls below the normal range instead of asking whether the limit is ample.

Numbers are compared by order, not for equality: Paddle calls all numbers within 1e-8 equal.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from clipcore_backends._formats import COMPONENT, FORMATS, Format

from clipcore._checks import dtype_name, offenders
from clipcore._dispatch import bring, constant, copy, device_of, is_traced, namespace_of
from clipcore._portable_powers import Precision
from clipcore._portable_sums import Groups, components, given_groups, measure_groups
from clipcore._trees import Flat
from clipcore._typing import Array

__all__ = ["clamp", "clip", "measure", "number", "round_array", "round_to"]


class _Limit(NamedTuple):
    """A limit as an unevaluated sum in the accumulator's dtype."""

    hi: Array
    lo: Array
    valid: Array
    """False where an array holds a limit that is negative or NaN."""


class _Factor(NamedTuple):
    """What elements are multiplied by: ``value``, between two multiplications by ``guard``."""

    value: Array
    guard: Array


def measure(flat: Flat, request: Any) -> Array:
    """Return the norms of a tree, or of the groups of its one leaf."""
    return _norm(_groups(flat.leaves, request), flat.leaves[0], request.axis)


def clip(flat: Flat, limit: float | Array, request: Any) -> tuple[list[Array], Array]:
    """Return the clipped leaves and the norm before."""
    leaves = flat.leaves
    groups = _groups(leaves, request)
    xp = namespace_of(groups.hi)
    broken = groups.has_nan | groups.has_infinity
    if request.nonfinite == "raise":
        _raise_if_any(broken, flat, request)
    bound = _limit(limit, groups)
    finite = bound.hi < math.inf
    # Norms that are scaled up are far below 1: a larger limit need not follow them.
    far = (groups.scale > 1) & (bound.hi > 1)
    limit_hi = xp.where(far, xp.ones_like(bound.hi), bound.hi)
    limit_lo = xp.where(far, xp.zeros_like(bound.lo), bound.lo)
    above = limit_hi * groups.scale - groups.hi < groups.lo - limit_lo * groups.scale
    clipped = above & finite & ~broken
    if request.nonfinite == "zero":
        refilled, fill = broken, 0.0
    else:
        refilled, fill = broken & finite, math.nan
    results = []
    factors: dict[str, _Factor] = {}
    for leaf in leaves:
        name = dtype_name(leaf.dtype)
        if name not in factors:
            factors[name] = _factor(xp, groups, bound, clipped, FORMATS[COMPONENT[name]])
        factor = _Factor(*(bring(part, leaf) for part in factors[name]))
        scales, fills, valid = (bring(part, leaf) for part in (clipped, refilled, bound.valid))
        parts = []
        for part in components(leaf):
            scaled = _scaled(xp, xp.where(scales, part, xp.zeros_like(part)), factor, groups.precision)
            scaled = xp.where(fills, xp.full_like(part, fill), scaled)
            parts.append(xp.where(valid, scaled, xp.full_like(part, math.nan)))
        result = parts[0] if len(parts) == 1 else _complex(xp, parts[0], parts[1], leaf.dtype)
        results.append(_like(xp.where(scales | fills | ~valid, result, leaf), leaf))
    return results, _norm(groups, leaves[0], request.axis)


def _groups(leaves: list[Array], request: Any) -> Groups:
    if request.norm is not None:
        return given_groups(request.norm, leaves[0])
    return measure_groups(leaves, request.order, request.axis, request.all_reduce)


def _norm(groups: Groups, leaf: Array, axis: tuple[int, ...] | None) -> Array:
    xp = namespace_of(groups.hi)
    norm, one = groups.hi + groups.lo, xp.ones_like(groups.hi)
    beyond = norm > FORMATS[dtype_name(groups.precision.dtype)].largest * xp.minimum(groups.scale, one)
    norm = xp.where(beyond, xp.zeros_like(norm), norm) / groups.scale
    norm = xp.where(groups.has_infinity | beyond, xp.full_like(norm, math.inf), norm)
    norm = xp.where(groups.has_nan, xp.full_like(norm, math.nan), norm)
    kept = () if axis is None else tuple(n for k, n in enumerate(leaf.shape) if k not in axis)
    return xp.reshape(norm, kept)


def _raise_if_any(broken: Array, flat: Flat, request: Any) -> None:
    xp = namespace_of(broken)
    if is_traced(broken) or any(is_traced(leaf) for leaf in flat.leaves):
        raise ValueError(
            f"{request.function}: nonfinite is 'raise', which must look at values, and the leaves are traced "
            "or lazy; choose 'propagate' or 'zero'"
        )
    if bool(xp.any(broken)):
        finite = [bool(xp.all(xp.isfinite(leaf))) for leaf in flat.leaves]
        raise FloatingPointError(offenders(request.function, flat, finite, request.norm))


def _limit(limit: float | Array, groups: Groups) -> _Limit:
    xp, like = namespace_of(groups.hi), groups.hi
    dtype = groups.precision.dtype
    if not isinstance(limit, float):
        hi = bring(xp.astype(limit, dtype), like)
        valid = hi >= 0
        return _Limit(xp.where(valid, xp.abs(hi), xp.zeros_like(hi)), xp.zeros_like(hi), valid)
    rounded = _rounded(limit, dtype_name(dtype))
    rest = limit - rounded if rounded < math.inf else 0.0
    return _Limit(xp.full_like(like, rounded), xp.full_like(like, rest), like == like)


@constant
def _rounded(limit: float, dtype: str) -> float:
    with np.errstate(over="ignore"):
        return float(np.asarray(limit).astype(dtype))


def _factor(xp: Any, groups: Groups, limit: _Limit, clipped: Array, leaf: Format) -> _Factor:
    """Return limit / norm, lowered so far that the result's norm, measured again, is not above the limit.

    Its own roundings cost 2.5 u, and guards let an element be rounded once more, by u / 2.
    The error of the norm counts twice: in the factor, and in the next measurement.
    """
    precision = groups.precision
    step, u = precision.step, precision.unit_roundoff
    margin = leaf.unit_roundoff * (1 + 2.0**-6) + 3 * u + 2 * groups.error
    zero, one = xp.zeros_like(groups.hi), xp.ones_like(groups.hi)
    hi, lo = xp.where(clipped, limit.hi, zero), xp.where(clipped, limit.lo, zero)
    tiny = hi < 1 / math.sqrt(step)
    lift = xp.where(tiny, one * step, one)
    hi, lo = hi * lift, lo * lift
    norm, numerator = xp.where(clipped, groups.hi, one), xp.where(hi > 0, hi, one)
    quotient = (hi / norm) * (1 - (margin + (xp.where(clipped, groups.lo, zero) / norm - lo / numerator)))
    # The factor is quotient * scale, over step where the limit is tiny. Where that is below
    # the normal range, two guards of 1 / step stand for what the value cannot hold.
    down = groups.scale < 1
    # In this order a derivative stays in range on its way back.
    both = down & tiny
    value = quotient * xp.where(both, zero, groups.scale / xp.where(both, one, lift))
    small = value < precision.guarded
    guarded = xp.where(small, quotient, zero)
    guarded = guarded * xp.where(down, one, one * step) * xp.where(tiny, one, one * step)
    return _Factor(xp.where(small, guarded, value), xp.where(small, one / step, one))


def _scaled(xp: Any, part: Array, factor: _Factor, precision: Precision) -> Array:
    """Multiply; what falls below the leaf's normal range is one step smaller before it is rounded."""
    facts = FORMATS[dtype_name(part.dtype)]
    exact = xp.astype(part, precision.dtype) * factor.guard * factor.value * factor.guard
    # Just below the smallest normal, rounding to nearest is still as fine as the margin allows for.
    # A zero goes the other way, where its derivative is the factor.
    size = xp.abs(exact)
    small = (size < facts.smallest_normal * (1 - 2.0**-7)) & (size > 0)
    tiny = xp.where(small, exact, xp.zeros_like(exact))
    smallest = 2.0**facts.smallest
    nearer = xp.where(tiny < 0, tiny + smallest, tiny - smallest)
    less = xp.where(xp.abs(tiny) <= smallest, tiny * xp.zeros_like(tiny), nearer)
    return xp.astype(xp.where(small, less, exact), part.dtype)


def _complex(xp: Any, real: Array, imag: Array, dtype: Any) -> Array:
    """Put complex numbers together; products with 1j alone would lose signs of zeros."""
    if hasattr(xp, "complex"):  # beyond the standard: torch has it
        return xp.complex(real, imag)
    unit = xp.asarray(1j, dtype=dtype, device=device_of(real))
    number = xp.astype(xp.abs(real), dtype) + xp.astype(xp.abs(imag), dtype) * unit
    number = xp.where(xp.signbit(imag), xp.conj(number), number)
    return xp.where(xp.signbit(real), xp.negative(xp.conj(number)), number)


def number(value: float, leaf: Array) -> Array:
    """Return a number as a 0-d array like the leaf."""
    return namespace_of(leaf).asarray(value, dtype=leaf.dtype, device=device_of(leaf))


def clamp(leaf: Array, lower: Array | None, upper: Array | None) -> Array:
    """Cut a leaf to bounds of its own dtype; NaN where an element or a bound is NaN."""
    xp = namespace_of(leaf)
    result = copy(leaf)
    if lower is not None:
        result = xp.where((result >= lower) | (result != result), result, lower)
    if upper is not None:
        result = xp.where((result <= upper) | (result != result), result, upper)
    return _like(result, leaf)


def _like(result: Array, leaf: Array) -> Array:
    """Return a result in the dtype of the leaf: dask loses the order of bytes on the way."""
    return result if result.dtype == leaf.dtype else namespace_of(leaf).astype(result, leaf.dtype)


def round_array(bound: Array, leaf: Array, *, up: bool) -> Array:
    """Cast an array bound to the leaf's dtype in the direction that keeps it."""
    return round_to(namespace_of(leaf), bound, leaf.dtype, up=up)


def round_to(xp: Any, bound: Array, dtype: Any, *, up: bool) -> Array:
    """Cast an array bound to a dtype in the direction that keeps it."""
    if dtype_name(dtype) not in FORMATS:
        info = xp.iinfo(dtype)
        have = xp.iinfo(bound.dtype)
        never = xp.zeros_like(bound, dtype=xp.bool)
        low = bound < info.min if have.min < info.min else never
        high = bound > info.max if have.max > info.max else never
        result = xp.astype(xp.where(low | high, xp.zeros_like(bound), bound), dtype)
        result = xp.where(low, xp.full_like(result, info.min), result)
        return xp.where(high, xp.full_like(result, info.max), result)
    if bound.dtype == dtype:
        return bound
    low, high = _beyond(xp, bound, FORMATS[dtype_name(dtype)].largest)
    cast = xp.astype(xp.where(low | high, xp.zeros_like(bound), bound), dtype)
    if dtype_name(bound.dtype) in FORMATS:
        # What rounding leaves has no more bits than the bound had.
        back = xp.astype(cast, bound.dtype)
        wrong = back < bound if up else back > bound
    else:
        bits = xp.iinfo(bound.dtype).max.bit_length()
        limit = 2.0**bits if bits < FORMATS[dtype_name(dtype)].top else math.inf
        within = (cast >= -limit) & (cast < limit) & xp.isfinite(cast)
        back = xp.astype(xp.where(within, cast, xp.zeros_like(cast)), bound.dtype)
        wrong = xp.where(within, back < bound, cast < 0) if up else xp.where(within, back > bound, cast > 0)
    towards = xp.full_like(cast, math.inf if up else -math.inf)
    wrong = wrong & ~(low | high)
    result = xp.where(wrong, xp.nextafter(xp.where(wrong, cast, xp.ones_like(cast)), towards), cast)
    largest = xp.full_like(cast, FORMATS[dtype_name(dtype)].largest)
    result = xp.where(low, -largest if up else towards, result)
    return xp.where(high, towards if up else largest, result)


def _beyond(xp: Any, bound: Array, largest: float) -> tuple[Array, Array]:
    """Tell which finite elements are below, and which above, all finite numbers of a dtype."""
    never = xp.zeros_like(bound, dtype=xp.bool)
    if dtype_name(bound.dtype) in FORMATS:
        if FORMATS[dtype_name(bound.dtype)].largest <= largest:
            return never, never
        return (bound < -largest) & (bound > -math.inf), (bound > largest) & (bound < math.inf)
    info = xp.iinfo(bound.dtype)
    most = int(min(largest, 2.0**64))
    low = bound < -most if info.min < -most else never
    return low, bound > most if info.max > most else never
