"""Norms in pure array API: each a sum hi + lo, of elements that a power of two keeps in range."""

import math
from typing import Any, NamedTuple

import array_api_compat
from clipcore_backends._protocol import Order

from clipcore._checks import dtype_name
from clipcore._decide import product
from clipcore._dispatch import namespace_of
from clipcore._typing import AllReduce, Array

__all__ = ["Groups", "Precision", "components", "given_groups", "measure_groups"]


class Precision(NamedTuple):
    """The dtype in which norms are summed, and the window in which its squares are safe."""

    dtype: Any
    unit_roundoff: float
    splitter: float
    large: float
    small: float
    step: float
    """Brings anything outside the window into it: multiply by it, or by its inverse."""
    guarded: float
    """Factors below this one are applied in steps."""


class Groups(NamedTuple):
    """The norms of groups, ``(hi + lo) / scale``, of a shape that broadcasts against the leaf."""

    hi: Array
    lo: Array
    scale: Array
    has_nan: Array
    has_infinity: Array
    precision: Precision
    error: float
    """A bound on the relative error of hi + lo."""


def accumulator(x: Array) -> Precision:
    """Return float64 where library and device have it, else float32."""
    xp, device = namespace_of(x), array_api_compat.device(x)
    dtypes = xp.__array_namespace_info__().dtypes(device=device)
    if "float64" in dtypes:
        return Precision(dtypes["float64"], 2.0**-53, 2.0**27 + 1, 2.0**480, 2.0**-400, 2.0**600, 2.0**-960)
    return Precision(dtypes["float32"], 2.0**-24, 2.0**12 + 1, 2.0**50, 2.0**-47, 2.0**96, 2.0**-100)


def components(x: Array) -> list[Array]:
    """Return the real arrays that an array consists of: itself, or real and imaginary parts."""
    xp = namespace_of(x)
    return [xp.real(x), xp.imag(x)] if xp.isdtype(x.dtype, "complex floating") else [x]


def measure_groups(
    leaves: list[Array], order: Order, axis: tuple[int, ...] | None, all_reduce: AllReduce | None
) -> Groups:
    """Return the norm of all leaves together, or those of the groups of the one leaf along `axis`."""
    precision = accumulator(leaves[0])
    xp, dtype = namespace_of(leaves[0]), precision.dtype
    shape = (
        tuple(1 if k in axis else length for k, length in enumerate(leaves[0].shape))
        if axis is not None
        else ()
    )
    zero = xp.zeros(shape, dtype=dtype, device=array_api_compat.device(leaves[0]))
    filled = [[xp.astype(part, dtype) for part in components(leaf)] for leaf in leaves if 0 not in leaf.shape]
    largest = zero
    for part in (part for parts in filled for part in parts):
        largest = xp.maximum(largest, xp.max(xp.abs(part), axis=axis, keepdims=axis is not None))
    scale = _scale_for(xp, largest, precision.large, precision.small, precision.step)
    has_nan, has_infinity = xp.isnan(largest), xp.isinf(largest)
    broken = has_nan | has_infinity
    hi, lo = zero, zero
    for parts in filled:
        scaled = [xp.where(broken, xp.zeros_like(part), part) * scale for part in parts]
        more, more_lo = _leaf_sum(scaled, order, axis, shape, precision)
        if order == math.inf:
            lo = xp.where(more > hi, more_lo, xp.where(more < hi, lo, xp.maximum(lo, more_lo)))
            hi = xp.maximum(hi, more)
        else:
            hi, rest = two_sum(hi, more)
            lo = lo + more_lo + rest
    if all_reduce is not None:
        hi, lo, scale, has_nan, has_infinity = _all_ranks(
            hi, lo, scale, has_nan, has_infinity, order, precision, all_reduce
        )
    if order == 2:
        hi, lo = _root(xp, hi, lo, precision)
    return Groups(hi, lo, scale, has_nan, has_infinity, precision, precision.unit_roundoff / 8)


def given_groups(norm: Any, like: Array) -> Groups:
    """Return a norm that the caller measured."""
    precision = accumulator(like)
    xp, device = namespace_of(like), array_api_compat.device(like)
    if isinstance(norm, float):
        value = xp.asarray(norm, dtype=precision.dtype, device=device)
    else:
        value = xp.astype(norm, precision.dtype)
    has_nan, has_infinity = xp.isnan(value), xp.isinf(value)
    value = xp.where(has_nan | has_infinity, xp.zeros_like(value), value)
    scale = _scale_for(xp, value, precision.large, precision.small, precision.step)
    return Groups(value * scale, value * 0, scale, has_nan, has_infinity, precision, precision.unit_roundoff)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, rounded, and what the rounding left out (Knuth)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _scale_for(xp: Any, size: Array, large: float, small: float, step: float) -> Array:
    """Return the power of two that brings a positive size into the window."""
    one = xp.ones_like(size)
    down = (size > large) & (size < math.inf)
    up = (size < small) & (size > 0)
    return xp.where(down, one / step, xp.where(up, one * step, one))


def _leaf_sum(
    parts: list[Array],
    order: Order,
    axis: tuple[int, ...] | None,
    shape: tuple[int, ...],
    precision: Precision,
) -> tuple[Array, Array]:
    """Return the sum over one leaf of the magnitudes, their squares, or their maximum."""
    xp = namespace_of(parts[0])
    if order == 2:
        sums = [pair_sum(*product(part, part, precision.splitter), axis) for part in parts]
        hi, rest = sums[0] if len(sums) == 1 else two_sum(sums[0][0], sums[1][0])
        lo = rest if len(sums) == 1 else rest + sums[0][1] + sums[1][1]
        return xp.reshape(hi, shape), xp.reshape(lo, shape)
    if len(parts) == 2:
        hi, lo = _moduli(xp, parts[0], parts[1], precision)
    else:
        hi, lo = xp.abs(parts[0]), xp.zeros_like(parts[0])
    if order == 1:
        hi, lo = pair_sum(hi, lo, axis)
        return xp.reshape(hi, shape), xp.reshape(lo, shape)
    largest = xp.max(hi)
    return largest, xp.max(xp.where(hi == largest, lo, xp.full_like(lo, -math.inf)))


def _moduli(xp: Any, real: Array, imag: Array, precision: Precision) -> tuple[Array, Array]:
    """Return the moduli of complex numbers, each as a sum."""
    a, a_rest = product(real, real, precision.splitter)
    b, b_rest = product(imag, imag, precision.splitter)
    squares, rest = two_sum(a, b)
    return two_sum(*_root(xp, squares, rest + a_rest + b_rest, precision))


def pair_sum(hi: Array, lo: Array, axis: tuple[int, ...] | None) -> tuple[Array, Array]:
    """Sum hi + lo along axes, by halves, keeping what every addition leaves out."""
    xp = namespace_of(hi)
    axes = tuple(range(hi.ndim)) if axis is None else axis
    kept = tuple(k for k in range(hi.ndim) if k not in axes)
    shape = tuple(hi.shape[k] for k in kept)
    length = math.prod(hi.shape[k] for k in axes)
    hi, lo = (xp.reshape(xp.permute_dims(part, (*kept, *axes)), (*shape, length)) for part in (hi, lo))
    while length > 1:
        half = length // 2
        low = lo[..., :half] + lo[..., half : 2 * half]
        total, rest = two_sum(hi[..., :half], hi[..., half : 2 * half])
        low = low + rest
        if length % 2:
            total = xp.concat([total, hi[..., 2 * half :]], axis=-1)
            low = xp.concat([low, lo[..., 2 * half :]], axis=-1)
        hi, lo, length = total, low, length - half
    return two_sum(hi[..., 0], lo[..., 0])


def _root(xp: Any, hi: Array, lo: Array, precision: Precision) -> tuple[Array, Array]:
    """Return the square root of hi + lo, again as a sum."""
    positive = hi > 0
    root = xp.sqrt(xp.where(positive, hi, xp.ones_like(hi)))
    square, rest = product(root, root, precision.splitter)
    correction = ((hi - square) - rest + lo) / (2 * root)
    zero = xp.zeros_like(hi)
    return xp.where(positive, root, zero), xp.where(positive, correction, zero)


def _all_ranks(
    hi: Array,
    lo: Array,
    scale: Array,
    has_nan: Array,
    has_infinity: Array,
    order: Order,
    precision: Precision,
    all_reduce: AllReduce,
) -> tuple[Array, Array, Array, Array, Array]:
    """Exchange one group's sum as `clipcore._reduce` does, in the same units."""
    xp, dtype = namespace_of(hi), precision.dtype
    root = xp.sqrt(xp.sqrt(hi)) if order == 2 else xp.sqrt(hi)
    flags = [xp.astype(has_infinity, dtype), xp.astype(has_nan, dtype)]
    sizes = all_reduce(xp.stack([root / xp.sqrt(scale), *flags]), op="max")
    unit = _power_above(xp, sizes[0], dtype)
    times = 2 if order == 2 else 1
    # The root of the scaled unit: neither its powers nor what they divide leave the range.
    root = unit * xp.sqrt(scale)
    for _ in range(times):
        hi, lo = (part / root / root for part in (hi, lo))
    if order == math.inf:
        hi, lo = all_reduce(xp.stack([hi]), op="max")[0], xp.zeros_like(hi)
    else:
        pieces = []
        for grid in (2.0**40, 2.0**80) if precision.splitter > 2.0**20 else (2.0**12, 2.0**24):
            pieces.append(xp.floor(hi * grid) / grid)
            hi, lo = hi - pieces[-1] + lo, xp.zeros_like(lo)
        sums = all_reduce(xp.stack([*pieces, hi]), op="sum")
        hi, rest = two_sum(sums[0], sums[1])
        hi, more = two_sum(hi, sums[2])
        lo = rest + more
    # The unit is about the square root of the norm, whose square may be out of range.
    large, small = math.sqrt(precision.large), math.sqrt(precision.small)
    scale = _scale_for(xp, xp.where(sizes[0] > 0, unit, xp.zeros_like(unit)), large, small, precision.step)
    for _ in range(times):
        hi, lo = ((part * unit) * scale * unit for part in (hi, lo))
    return hi, lo, scale, sizes[2] > 0, sizes[1] > 0


def _power_above(xp: Any, value: Array, dtype: Any) -> Array:
    """Return the least power of two above a positive number, as ``math.frexp`` finds it."""
    wide = dtype_name(dtype) == "float64"
    power = xp.ones_like(value) * 2.0 ** (-540 if wide else -76)
    for step in (*((512, 256, 128) if wide else ()), 64, 32, 32, 16, 8, 4, 2, 1):
        power = xp.where(value >= power * 2.0**step, power * 2.0**step, power)
    return 2 * power
