"""Norms in pure array API: each a sum hi + lo, accurate for any number of elements in any order.

Where the accumulator holds squares exactly, float64 under components of 32 bits or less,
plain sums do: none chains more than `ROW` additions at a time, so that in whatever order a
library adds, the error stays below `PLAIN_ERROR`.

Elsewhere a power of two first keeps all elements in range. Then each row of `row`
magnitudes m is cut into a head, a multiple of g = ulp(a), and a small tail:

    a = anchor * max(m),  head = (m + a) - a,  tail = m - head,  m**2 = head**2 + tail * (m + head)

Sums of heads (of their squares) are multiples of g (of g**2) below 2**p of it, p being the
accumulator's precision, so they are exact in any order; the tails are so small that their
sums need not be. Rows are added by halves, keeping what every addition leaves out.

A compiler may fuse a product and the addition that follows. It changes nothing here: every
product that is added to something is exact, or one of a tail.
"""

import math
from typing import Any, NamedTuple

from clipcore_backends._formats import COMPONENT, FORMATS
from clipcore_backends._protocol import Order

from clipcore._checks import dtype_name
from clipcore._decide import two_sum
from clipcore._dispatch import bring, device_of, namespace_of
from clipcore._portable_powers import Precision, accumulator, power_below, scale_for
from clipcore._reduce import traced_all_ranks
from clipcore._typing import AllReduce, Array

__all__ = ["Groups", "components", "given_groups", "measure_groups"]

ROW = 64
"""Elements that one plain sum chains; seven levels of such sums take 2**31 elements."""

SMALL = 1 << 14
"""Elements of a leaf that is rather copied than summed alone."""

PLAIN_ERROR = 2.0**-44.1
"""Of seven times ROW additions of unit roundoff 2**-53, the roundings of a modulus added."""


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


def _coarsest(leaves: list[Array]) -> Precision:
    """Return the accumulator that every device of the leaves has."""
    coarsest = accumulator(leaves[0])
    for leaf in leaves[1:]:
        if device_of(leaf) != device_of(leaves[0]):
            other = accumulator(leaf)
            coarsest = other if other.unit_roundoff > coarsest.unit_roundoff else coarsest
    return coarsest


def components(x: Array) -> list[Array]:
    """Return the real arrays that an array consists of: itself, or real and imaginary parts."""
    xp = namespace_of(x)
    return [xp.real(x), xp.imag(x)] if xp.isdtype(x.dtype, "complex floating") else [x]


def measure_groups(
    leaves: list[Array], order: Order, axis: tuple[int, ...] | None, all_reduce: AllReduce | None
) -> Groups:
    """Return the norm of all leaves together, or those of the groups of the one leaf along `axis`."""
    precision = _coarsest(leaves)
    xp = namespace_of(leaves[0])
    rows = [
        [_groups_first(xp, xp.astype(part, precision.dtype), axis) for part in components(leaf)]
        for leaf in leaves
    ]
    if order == 2:
        rows = [[part] for parts in rows for part in parts]
    if axis is None:
        rows = _joined(xp, rows)
    widest = max(FORMATS[COMPONENT[dtype_name(leaf.dtype)]].precision for leaf in leaves)
    if widest <= 24 and precision.unit_roundoff == 2.0**-53:
        sums, error = _plain(xp, rows, order), PLAIN_ERROR
    else:
        sums, error = _careful(xp, rows, order, precision), precision.unit_roundoff / 2
    if axis is not None:
        shape = tuple(1 if k in axis else length for k, length in enumerate(leaves[0].shape))
        sums = tuple(xp.reshape(part, shape) for part in sums)
    hi, lo, scale, ratio, has_nan, has_infinity = sums
    if all_reduce is not None:
        for _ in range(2 if order == 2 else 1):
            hi, lo = hi * ratio, lo * ratio
        hi, lo, scale, has_nan, has_infinity = traced_all_ranks(
            hi, lo, scale, has_nan, has_infinity, order, precision, all_reduce
        )
        ratio = xp.ones_like(hi)
    if order == 2:
        hi, lo = _root(xp, hi, lo, precision)
    return Groups(hi * ratio, lo * ratio, scale, has_nan, has_infinity, precision, error)


def given_groups(norm: Any, like: Array) -> Groups:
    """Return a norm that the caller measured."""
    precision = accumulator(like)
    xp = namespace_of(like)
    if isinstance(norm, float):
        value = xp.asarray(norm, dtype=precision.dtype, device=device_of(like))
    else:
        value = xp.astype(norm, precision.dtype)
    has_nan, has_infinity = xp.isnan(value), xp.isinf(value)
    value = xp.where(has_nan | has_infinity, xp.zeros_like(value), value)
    scale = scale_for(xp, value, precision.large, precision.small, precision.step)
    return Groups(
        value * scale, value * 0.0, scale, has_nan, has_infinity, precision, precision.unit_roundoff
    )


def _groups_first(xp: Any, x: Array, axis: tuple[int, ...] | None) -> Array:
    """Return an array with the elements of each group along its last axis, the groups along the others.

    The last axis of an array without elements is empty, even where there are no groups either.
    """
    if axis is None:
        axis = tuple(range(x.ndim))
    kept = tuple(k for k in range(x.ndim) if k not in axis)
    shape = (*(x.shape[k] for k in kept), math.prod([x.shape[k] for k in axis]))
    x = xp.permute_dims(x, (*kept, *axis))
    if 0 in shape:  # dask does not reshape what is empty
        for _ in axis:
            x = xp.sum(x, axis=-1)
        return x[..., None][..., :0]
    return xp.reshape(x, shape)


def _joined(xp: Any, rows: list[list[Array]]) -> list[list[Array]]:
    """Join small leaves of one device, since every call of a library takes its time, or is compiled."""
    if len(rows) == 1:
        return rows
    kept: list[list[Array]] = []
    small: dict[tuple[int, str], list[list[Array]]] = {}
    for parts in rows:
        if parts[0].shape[-1] > SMALL:
            kept.append(parts)
        else:
            small.setdefault((len(parts), str(device_of(parts[0]))), []).append(parts)
    for group in small.values():
        kept.append([xp.concat(list(parts), axis=-1) for parts in zip(*group, strict=True)])
    return kept


def _plain(xp: Any, rows: list[list[Array]], order: Order) -> tuple[Array, ...]:
    """Sum where all squares are exact and in range."""
    sums = xp.stack([bring(_plain_sum(xp, parts, order), rows[0][0]) for parts in rows], axis=-1)
    size = _largest(xp, sums)
    has_nan, has_infinity = xp.isnan(size), xp.isinf(size)
    zeros = xp.zeros_like(sums)
    sums = xp.where((has_nan | has_infinity)[..., None], zeros, sums)
    hi, lo = _largest_pair(xp, sums, zeros) if order == math.inf else pair_sum(sums, zeros)
    return hi, lo, xp.ones_like(hi), xp.ones_like(hi), has_nan, has_infinity


def _plain_sum(xp: Any, parts: list[Array], order: Order) -> Array:
    """Return the sum over one leaf of the magnitudes, their squares, or their maximum, rounded."""
    if order == 2:
        return _chained_sum(xp, sum(part * part for part in parts))
    sizes = _magnitudes(xp, parts[0]) if len(parts) == 1 else _modulus(xp, *parts)
    return _largest(xp, sizes) if order == math.inf else _chained_sum(xp, sizes)


def _chained_sum(xp: Any, x: Array) -> Array:
    """Sum the last axis, `ROW` elements at a time."""
    while x.shape[-1] > ROW:
        length = x.shape[-1]
        whole = length - length % ROW
        sums = xp.sum(xp.reshape(x[..., :whole], (*x.shape[:-1], whole // ROW, ROW)), axis=-1)
        x = sums if whole == length else xp.concat([sums, x[..., whole:]], axis=-1)
    return xp.sum(x, axis=-1)


def _largest(xp: Any, x: Array) -> Array:
    """Return the largest magnitude along the last axis, zero of none."""
    return xp.sum(x, axis=-1) if 0 in x.shape else xp.max(x, axis=-1)


def _careful(xp: Any, rows: list[list[Array]], order: Order, precision: Precision) -> tuple[Array, ...]:
    """Sum where squares must be kept in range, and are longer than the accumulator.

    All elements are multiplied by the power of two that brings the largest to between 2 and
    4, so that a change of scale by a power of two changes no bit of the sums.
    """
    first = rows[0][0]
    rows = [[_magnitudes(xp, part) for part in parts] for parts in rows]
    sizes = [bring(_largest(xp, part), first) for parts in rows for part in parts]
    largest = _largest(xp, xp.stack(sizes, axis=-1))
    has_nan, has_infinity = xp.isnan(largest), xp.isinf(largest)
    scale = scale_for(xp, largest, precision.large, precision.small, precision.step)
    broken = has_nan | has_infinity
    power = power_below(xp, xp.where(broken, xp.zeros_like(largest), largest), precision)
    pairs = []
    for parts in rows:
        skipped, by = (bring(part, parts[0])[..., None] for part in (broken, 2.0 / power))
        scaled = [xp.where(skipped, xp.zeros_like(part), part) * by for part in parts]
        pairs.append([bring(part, first) for part in _leaf_sum(xp, scaled, order, precision)])
    hi, lo = (xp.concat(list(parts), axis=-1) for parts in zip(*pairs, strict=True))
    if order == math.inf:
        hi, lo = _largest_pair(xp, hi, lo)
    else:
        hi, lo = pair_sum(*_fewer(xp, hi, lo, precision))
    return hi, lo, scale, scale / (2.0 / power), has_nan, has_infinity


def _leaf_sum(xp: Any, parts: list[Array], order: Order, precision: Precision) -> tuple[Array, Array]:
    """Return sums over parts of a leaf, of the magnitudes or their squares, or one maximum of it."""
    if 0 in parts[0].shape:
        nothing = xp.sum(parts[0], axis=-1)[..., None]
        return nothing, nothing
    if order == 2:
        return _fewer(xp, *_row_sums(xp, parts[0], order, precision), precision)
    if len(parts) == 1:
        values, rest = parts[0], xp.zeros_like(parts[0])
    else:
        values, rest = _moduli(xp, parts[0], parts[1], precision)
    if order == math.inf:
        hi, lo = _largest_pair(xp, values, rest)
        return hi[..., None], lo[..., None]
    hi, lo = _row_sums(xp, values, order, precision)
    if len(parts) > 1:
        hi = xp.concat([hi, xp.zeros_like(hi[..., :1])], axis=-1)
        lo = xp.concat([lo, _chained_sum(xp, rest)[..., None]], axis=-1)
    return _fewer(xp, hi, lo, precision)


def _row_sums(xp: Any, x: Array, order: Order, precision: Precision) -> tuple[Array, Array]:
    """Sum magnitudes or their squares along the last axis, each row of them: heads and tails."""
    heads, tails = [], []
    for rows in _in_rows(xp, x, precision.row):
        anchor = xp.max(rows, axis=-1, keepdims=True) * (
            precision.anchor if order == 2 else 2.0 * precision.row
        )
        head = (rows + anchor) - anchor
        tail = rows - head
        heads.append(xp.sum(head * head if order == 2 else head, axis=-1))
        tails.append(xp.sum(tail * (rows + head) if order == 2 else tail, axis=-1))
    return xp.concat(heads, axis=-1), xp.concat(tails, axis=-1)


def _in_rows(xp: Any, x: Array, row: int) -> list[Array]:
    """Cut the last axis into rows, and a shorter one for what is left."""
    length = x.shape[-1]
    whole = length - length % row
    pieces = [(x[..., :whole], row)] if whole else []
    if whole < length:
        pieces.append((x[..., whole:], length - whole))
    return [xp.reshape(piece, (*x.shape[:-1], piece.shape[-1] // width, width)) for piece, width in pieces]


def _fewer(xp: Any, hi: Array, lo: Array, precision: Precision) -> tuple[Array, Array]:
    """Add numbers hi + lo along the last axis, row by row, until no more than `ROW` are left."""
    while hi.shape[-1] > ROW:
        rests = _in_rows(xp, lo, precision.row)
        heads, tails = [], []
        for rows, rest in zip(_in_rows(xp, hi, precision.row), rests, strict=True):
            anchor = xp.max(rows, axis=-1, keepdims=True) * (2.0 * precision.row)
            head = (rows + anchor) - anchor
            heads.append(xp.sum(head, axis=-1))
            tails.append(xp.sum((rows - head) + rest, axis=-1))
        hi, lo = two_sum(xp.concat(heads, axis=-1), xp.concat(tails, axis=-1))
    return hi, lo


def pair_sum(hi: Array, lo: Array) -> tuple[Array, Array]:
    """Sum hi + lo along the last axis, by halves, keeping what every addition leaves out."""
    xp = namespace_of(hi)
    while hi.shape[-1] > 1:
        length = hi.shape[-1]
        half = length // 2
        low = lo[..., :half] + lo[..., half : 2 * half]
        total, rest = two_sum(hi[..., :half], hi[..., half : 2 * half])
        low = low + rest
        if length % 2:
            total = xp.concat([total, hi[..., 2 * half :]], axis=-1)
            low = xp.concat([low, lo[..., 2 * half :]], axis=-1)
        hi, lo = total, low
    return two_sum(hi[..., 0], lo[..., 0])


def _largest_pair(xp: Any, hi: Array, lo: Array) -> tuple[Array, Array]:
    """Return the largest of numbers hi + lo along the last axis."""
    if 0 in hi.shape:
        return xp.sum(hi, axis=-1), xp.sum(lo, axis=-1)
    largest = xp.max(hi, axis=-1, keepdims=True)
    return largest[..., 0], xp.max(xp.where(hi >= largest, lo, xp.full_like(lo, -math.inf)), axis=-1)


def _split(x: Array, precision: Precision) -> tuple[Array, Array]:
    """Return two numbers of half the bits that add up to x."""
    anchor = x * precision.half
    high = (x + anchor) - anchor
    return high, x - high


def _moduli(xp: Any, real: Array, imag: Array, precision: Precision) -> tuple[Array, Array]:
    """Return the moduli of complex numbers, each as a sum."""
    (a, a_low), (b, b_low) = _split(real, precision), _split(imag, precision)
    squares, rest = two_sum(a * a, b * b)
    rest = rest + a_low * (real + a) + b_low * (imag + b)
    # A root corrects for a rest that is below half an ulp.
    return two_sum(*_root(xp, *two_sum(squares, rest), precision))


def _magnitudes(xp: Any, x: Array) -> Array:
    """Return magnitudes, whose derivative at zero is zero in every library."""
    size = xp.abs(x)
    return xp.where(size <= 0, xp.zeros_like(size), size)


def _modulus(xp: Any, real: Array, imag: Array) -> Array:
    """Return moduli, rounded; where one is zero, its derivative is zero too."""
    squares = real * real + imag * imag
    positive = squares > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, squares, xp.ones_like(squares))), squares)


def _root(xp: Any, hi: Array, lo: Array, precision: Precision) -> tuple[Array, Array]:
    """Return the square root of hi + lo, again as a sum."""
    positive = hi > 0
    root = xp.sqrt(xp.where(positive, hi, xp.ones_like(hi)))
    high, low = _split(root, precision)
    rest = ((hi - high * high) - 2 * high * low) - low * low
    correction = (rest + lo) / (2 * root)
    zero = xp.zeros_like(hi)
    return xp.where(positive, root, zero), xp.where(positive, correction, zero)
