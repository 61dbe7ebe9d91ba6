"""Slow exact clips of the zoo, in integers: the real result, rounded towards zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from zoo_bases import BFLOAT16, Array, Arrays, by_components, components, copied, native, poisoned

UNIT = 1074  # everything is counted in 2**-1074
EXTRA = 400  # more bits for the moduli of complex numbers
LAYOUT = {"float16": (11, -24), "bfloat16": (8, -133), "float32": (24, -149), "float64": (53, -1074)}

# quanta, index of the leaf's element, exponent of the quantum -> quanta
Adjust = Callable[[int, int, int], int]


def whole(value: float) -> int:
    top, bottom = value.as_integer_ratio()
    return top << (UNIT - bottom.bit_length() + 1)


def wholes(x: Array) -> list[int]:
    parts = abs(components(x))
    kinds, places = np.unique(parts, return_inverse=True)
    table = [whole(v) for v in kinds.tolist()]
    return [table[i] for i in places.ravel().tolist()]


def _moduli(x: Array) -> list[int]:
    parts = wholes(x)
    if x.dtype.kind != "c":
        return [part << EXTRA for part in parts]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [_root_up((a * a + b * b) << (2 * EXTRA)) for a, b in pairs]


def _root_up(square: int) -> int:
    return math.isqrt(square - 1) + 1 if square else 0


def exact_square(arrays: Arrays) -> int:
    return sum(part * part for x in arrays for part in wholes(x))


def exact_sum(arrays: Arrays) -> int:
    """The L1 norm in 2**-(UNIT + EXTRA), for complex leaves rounded up."""
    return sum(part for x in arrays for part in _moduli(x))


def exact_max(arrays: Arrays) -> int:
    return max((part for x in arrays for part in _moduli(x)), default=0)


def exact_norm(arrays: Arrays, order: float) -> Array:
    """The norm rounded to nearest."""
    parts = [components(x) for x in arrays]
    if any(np.isnan(p).any() for p in parts):
        return np.array(np.nan)
    if any(np.isinf(p).any() for p in parts):
        return np.array(np.inf)
    if order == 2:
        size = Fraction(math.isqrt(exact_square(arrays) << 256), 1 << (UNIT + 128))
    else:
        size = Fraction((exact_sum if order == 1 else exact_max)(arrays), 1 << (UNIT + EXTRA))
    try:
        return np.array(float(size))
    except OverflowError:
        return np.array(np.inf)


def _factor(arrays: Arrays, limit: float, order: float) -> Callable[[int], int] | None:
    """What turns a component into the clipped one, both in UNIT and rounded down."""
    bound = whole(limit)
    if order == 2:
        square = exact_square(arrays)
        if square <= bound * bound:
            return None
        return lambda part: math.isqrt(part * part * bound * bound // square)
    total = (exact_sum if order == 1 else exact_max)(arrays)
    if total <= bound << EXTRA:
        return None
    return lambda part: (part * bound << EXTRA) // total


def _rounded(x: Array, shrink: Callable[[int], int], adjust: Adjust | None) -> Array:
    kind = "bfloat16" if native(x.dtype) == BFLOAT16 else np.dtype(native(x.dtype)).name
    digits, lowest = LAYOUT[kind]
    cache: dict[int, int] = {}
    made = []
    for index, part in enumerate(wholes(x)):
        size = cache.get(part)
        if size is None:
            size = cache[part] = shrink(part)
        drop = max(size.bit_length() - digits, UNIT + lowest)
        quanta = size >> drop
        if adjust is not None and quanta:
            quanta = adjust(quanta, index, drop - UNIT)
        made.append(math.ldexp(quanta, drop - UNIT))
    signed: Array = np.copysign(np.array(made).reshape(x.shape), x.astype(np.float64))
    return signed.astype(native(x.dtype))


def exact_group(arrays: Arrays, limit: float, order: float, adjust: Adjust | None = None) -> list[Array]:
    if limit == math.inf:
        return [copied(x) for x in arrays]
    spoilt = poisoned(arrays)
    if spoilt is not None:
        return spoilt
    shrink = _factor(arrays, limit, order)
    if shrink is None:
        return [copied(x) for x in arrays]
    return [by_components(lambda real: _rounded(real, shrink, adjust), x) for x in arrays]
