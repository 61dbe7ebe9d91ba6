"""Neighbours of floating-point numbers by their bits, for libraries that do not tell them exactly."""

from typing import Any

__all__ = ["next_bits"]


def next_bits(where: Any, start: Any, end: Any, width: int) -> Any:
    """Return the bits of the next number after `start` in the direction of `end`.

    Both are arrays of signed integers, the bits of numbers of `width` bits that are not NaN.
    As integers the bits of positive numbers are in order, one apart from neighbour to
    neighbour. Those of negative numbers are in reverse; mirrored at those of −0.0, the lowest,
    they come to −1, −2, … in order too, and −0.0 to 0. A step that ends at 0 keeps the sign of
    its start, and zeros that are equal give `end`.
    """
    lowest = -(2 ** (width - 1))
    here, there = (where(bits < 0, lowest - bits, bits) for bits in (start, end))
    step = where(there > here, here + 1, here - 1)
    found = where((step < 0) | ((step == 0) & (start < 0)), lowest - step, step)
    return where(here == there, end, found)
