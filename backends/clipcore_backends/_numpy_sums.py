"""Accurate sums of ``|x|`` and ``|x|**2`` over blocks of a NumPy array.

Components of 32 bits or less are widened to float64, where their squares are exact, and
added in rows short enough that the worst case of any order of addition stays below
`WIDE_ERROR`. For float64 that is not enough. There each value is split into a head h on a
grid so coarse that all sums of heads (of their squares) are exact, and a small tail:

    x = h + t,  x**2 = h**2 + t * (x + h)

Blocks whose largest element is extreme are first brought near 1 by a power of two, so
nothing over- or underflows.

The sums are taken in the memory that a block lies in, and in scratch of its size, so that no
block asks for memory.
"""

import numpy as np
from numpy.typing import NDArray

from clipcore_backends._protocol import Order

__all__ = [
    "AT_ONCE",
    "BLOCK",
    "NARROW_ERROR",
    "NEUTRAL_SHIFT",
    "ROW",
    "WIDE_BLOCK",
    "WIDE_ERROR",
    "narrow_sums",
    "wide_sums",
]

Doubles = NDArray[np.float64]

BLOCK = 1 << 15
"""Components a block: of so many the heads add up exactly."""

ROW = 256
"""Elements that any one dot product or plain sum may chain."""

NEUTRAL_SHIFT = 600
"""Blocks with extreme values are multiplied by ``2**NEUTRAL_SHIFT`` or its inverse."""

AT_ONCE = 4
"""Blocks that are summed at once, each as a row: with less to do, threads wait for each other."""

WIDE_BLOCK = 1 << 18
"""Components a block without scratch: for the same reason so large."""

# ROW additions of unit roundoff 2^-53, then NumPy's pairwise sum, which chains 128 and their
# halvings, the roundings of a modulus and of the merge added: below 2^-44, the contract's
# bound for the norm of 32-bit components.
WIDE_ERROR = 2.0**-44.3

# The tail's sum errs by (ROW + BLOCK / ROW) * 2^-53 * sum |t * (x + h)|, with
# |t| <= 2^-19 * max, |x + h| <= 3 * |x| and max * sum |x| <= (1 + sqrt(BLOCK)) / 2 * norm^2: by
# 2^-55.3. Numba adds the tails of 32 blocks, at most 2^-10.9, with two additions each.
NARROW_ERROR = 2.0**-54.8


def _row_sum(products: Doubles) -> Doubles:
    """Sum the last axis, pairwise."""
    return np.asarray(np.add.reduce(products, axis=-1))


def _row_dot(a: Doubles, b: Doubles) -> Doubles:
    """Dot products along the last axis that chain at most `ROW` additions."""
    length = a.shape[-1]
    if length <= ROW:
        return np.asarray(np.vecdot(a, b))
    whole = length - length % ROW
    parts = (*a.shape[:-1], whole // ROW, ROW)
    if whole == length:
        rows = a.reshape(parts)
        return _row_sum(np.vecdot(rows, rows if b is a else b.reshape(parts)))
    total = _row_sum(np.vecdot(a[..., :whole].reshape(parts), b[..., :whole].reshape(parts)))
    return np.asarray(total + np.vecdot(a[..., whole:], b[..., whole:]))


def wide_sums(block: Doubles, order: Order, is_complex: bool) -> Doubles:
    """Sum each row of a float64 block whose components have 32 significant bits or less.

    Parameters
    ----------
    block : array, shape (groups, elements), or (groups, elements, 2) for complex numbers
        What it holds is lost.
    order : 1, 2 or inf
    is_complex : bool
        Whether the last axis holds real and imaginary parts.
    """
    if order == 2:
        flat = block.reshape(len(block), -1)
        return _row_dot(flat, flat)
    moduli = np.sqrt(np.vecdot(block, block)) if is_complex else np.abs(block, out=block)
    if order == 1:
        return _row_sum(moduli)
    return np.asarray(np.max(moduli, axis=-1))


def narrow_sums(
    block: Doubles, scratch: Doubles, order: Order, is_complex: bool
) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
    """Sum each row of a float64 block, accurately: head, tail and the shift by which it was scaled.

    Parameters are those of `wide_sums`, and flat `scratch` of the block's size or more. The sum
    is ``(head + tail) * 2**(-order * shift)``.
    """
    elements = tuple(range(1, block.ndim))
    largest = np.maximum(np.max(block, axis=elements), -np.min(block, axis=elements))
    shift = np.where(largest > 2.0**480, -NEUTRAL_SHIFT, np.where(largest < 2.0**-400, NEUTRAL_SHIFT, 0))
    if shift[largest > 0].any():
        np.ldexp(block, shift.reshape(-1, *(1,) * (block.ndim - 1)), out=block)
    _, top = np.frexp(np.ldexp(largest, shift))
    top = np.where(np.isfinite(largest), top, 0)[:, np.newaxis]
    if order == 2:
        head, tail = _squares(block.reshape(len(block), -1), scratch, top)
    elif not is_complex:
        head, tail = _magnitudes(np.abs(block, out=block), scratch, top, order)
    else:
        moduli, corrections = _moduli(block[..., 0], block[..., 1])
        head, tail = _magnitudes(moduli, scratch, top + 1, order)
        if order == 1:
            tail = tail + _row_sum(corrections)
        else:
            tail = np.max(np.where(moduli == head[:, np.newaxis], corrections, -np.inf), axis=-1)
    return head, tail, shift


def _split(values: Doubles, scratch: Doubles, grid: NDArray[np.int64]) -> tuple[Doubles, Doubles]:
    """Split values into multiples of ``2**grid``, in scratch, and exact remainders, in their own place."""
    anchor = np.ldexp(1.5, grid + 52)
    head = np.add(values, anchor, out=scratch[: values.size].reshape(values.shape))
    head -= anchor
    values -= head
    return head, values


def _squares(block: Doubles, scratch: Doubles, top: NDArray[np.int64]) -> tuple[Doubles, Doubles]:
    # h has 19 bits below the largest element, so BLOCK squares of it add up in 53.
    head, tail = _split(block, scratch, top - 19)
    total = _row_dot(head, head)
    head += head
    head += tail  # x + h, rounded once
    return total, _row_dot(tail, head)


def _magnitudes(
    values: Doubles, scratch: Doubles, top: NDArray[np.int64], order: Order
) -> tuple[Doubles, Doubles]:
    if order != 1:
        return np.max(values, axis=-1), np.zeros(len(values))
    head, tail = _split(values, scratch, top - 37)
    return _row_sum(head), _row_sum(tail)


def _square_error(x: Doubles, square: Doubles) -> Doubles:
    """Return what `square`, the rounded x * x, leaves out (Dekker's product)."""
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    low = x - high
    return ((high * high - square) + 2 * high * low) + low * low


def _moduli(real: Doubles, imag: Doubles) -> tuple[Doubles, Doubles]:
    """Return the moduli of complex numbers, each as its nearest float64 and a correction."""
    a, b = real * real, imag * imag
    large, small = np.maximum(a, b), np.minimum(a, b)
    total = large + small
    rest = (large - total) + small + _square_error(real, a) + _square_error(imag, b)
    root = np.sqrt(total)
    rest += (total - root * root) - _square_error(root, root * root)
    rest = np.where(np.isfinite(root), rest / np.where(root > 0, 2 * root, 1), 0)
    modulus = root + rest
    return modulus, (root - modulus) + rest
