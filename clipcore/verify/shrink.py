"""Making a failing case as small as it can be while it still fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import Drawn
from clipcore.verify.cases import limits, rounded
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves, rebuild
from clipcore.verify.formats import Array, is_complex, is_finite
from clipcore.verify.judge import NORM_CLIPS, NORMS, Case, order_of
from clipcore.verify.laws import approximate

__all__ = ["elements", "shrink"]

BUDGET: Final = 5_000_000  # elements judged, a call counting as 15 000
CALL: Final = 15_000
SINGLY: Final = 80  # elements up to which each is tried by itself


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Return the smallest case found that still fails.

    Parameters
    ----------
    case : Case
        A case that fails.
    fails : callable
        Whether a case fails in the same way, and is one that its level may try.

    Returns
    -------
    Case
        The case itself where nothing smaller fails.
    """
    budget = BUDGET
    tried: set[tuple[Any, ...]] = set()
    progress = True
    while progress and budget > 0:
        progress = False
        for candidate in _smaller(case):
            key = _key(candidate)
            if key in tried:
                continue
            tried.add(key)
            budget -= CALL + elements(candidate)
            if budget <= 0:
                break
            if fails(candidate):
                case, progress = candidate, True
                break
    return case


def elements(case: Case) -> int:
    """Return how many elements a case has."""
    return sum(np.size(x) for x in leaves(case.tree))


def _key(case: Case) -> tuple[Any, ...]:
    """Return what tells one call from another."""
    arrays = [
        (x.shape, x.strides, x.dtype.str, x.flags.writeable, hash(x.tobytes())) for x in leaves(case.tree)
    ]
    return (*arrays, repr(case.arguments), repr(case.keywords))


def _smaller(case: Case) -> Iterator[Case]:
    """Yield cases that are simpler than a case, the boldest first."""
    arrays = leaves(case.tree)
    if any(x.dtype.kind not in "fciuV" for x in arrays):
        return
    for tree in _fewer_leaves(case):
        yield from _with_tree(case, tree)
    for index, x in enumerate(arrays):
        for simpler in _simpler_arrays(case, x):
            kept = iter([*arrays[:index], simpler, *arrays[index + 1 :]])
            yield from _with_tree(case, rebuild(case.tree, kept))
    yield from _simpler_arguments(case)


def _fewer_leaves(case: Case) -> Iterator[Any]:
    """Yield trees with leaves left out."""
    tree = case.tree
    if not isinstance(tree, list) or isinstance(tree, Drawn) or len(tree) < 2:
        return
    for part in _without(len(tree)):
        yield [tree[index] for index in part]


def _without(count: int) -> Iterator[Sequence[int]]:
    """Yield index lists with one part left out: halves, quarters, and so on to single ones."""
    length = count // 2
    while length:
        for start in range(0, count, length):
            kept = [*range(start), *range(start + length, count)]
            if kept:
                yield kept
        if length == 1 or (length // 2 == 0):
            return
        length = length // 2 if count // (length // 2) <= SINGLY else 0


def _simpler_arrays(case: Case, x: Array) -> Iterator[Array]:
    """Yield arrays with fewer elements, a plainer layout, or rounder numbers."""
    plain = np.array(x, dtype=x.dtype.newbyteorder("=") if x.dtype.kind in "fciu" else x.dtype, order="C")
    if not (x.flags.c_contiguous and x.flags.writeable and x.dtype.isnative):
        yield plain
        if x.ndim == 1 and x.size > 1:
            yield from (x[: x.size // 2], x[x.size // 2 :], x[1:], x[:-1])
    axis = case.keywords.get("axis")
    if axis is None and plain.ndim > 1:
        yield plain.reshape(-1)
    if any(isinstance(bound, np.ndarray) and bound.ndim for bound in case.arguments):
        return
    if axis is None and plain.ndim == 1 and plain.size > 1:
        for kept in _without(plain.size):
            yield plain[kept]
    elif plain.ndim > 1:
        for dimension, length in enumerate(plain.shape):
            for index in range(length if length > 1 else 0):
                yield np.delete(plain, index, axis=dimension)
    if is_finite([plain]) if plain.dtype.kind not in "iu" else False:
        yield from _rounder(plain)


def _rounder(x: Array) -> Iterator[Array]:
    """Yield arrays whose numbers have shorter names."""
    flat = np.ascontiguousarray(x).reshape(-1)
    parts = (flat.view(flat.real.dtype) if is_complex(x.dtype) else flat).astype(np.float64)
    mantissas, exponents = np.frexp(parts)
    with np.errstate(all="ignore"):
        simpler = [np.sign(parts), np.round(parts)]
        simpler += [
            np.ldexp(np.round(mantissas * digits) / digits, exponents) for digits in (1, 4, 8, 16, 128)
        ]
    for made in simpler:
        if np.all(np.isfinite(made)) and not np.array_equal(made, parts):
            yield rounded(made, x.dtype).reshape(x.shape)
    for index in range(parts.size if parts.size <= SINGLY else 0):
        for value in (0.0, 1.0, *(float(made[index]) for made in simpler[1:3])):
            if math.isfinite(value) and _shorter(value, float(parts[index])):
                made = parts.copy()
                made[index] = value
                yield rounded(made, x.dtype).reshape(x.shape)


def _shorter(value: float, other: float) -> bool:
    """Return whether a number is simpler to read than another."""
    return (len(repr(abs(value))), value < 0, abs(value)) < (len(repr(abs(other))), other < 0, abs(other))


def _with_tree(case: Case, tree: Any) -> Iterator[Case]:
    """Yield the case with another tree: its limit made anew of the norm, and as it was."""
    changed = replace(case, tree=tree)
    if (
        case.operation in NORM_CLIPS
        and case.limit
        and "axis" not in case.keywords
        and is_finite(leaves(tree))
    ):
        limit = _limit_again(changed)
        if limit is not None:
            yield replace(changed, arguments=(limit, *case.arguments[1:]))
    yield changed


def _limit_again(case: Case) -> float | None:
    """Return the limit that stands to the norm as the original one did; `None` where there is none."""
    arrays, (how, what) = leaves(case.tree), case.limit
    if how == "named":
        return next((float(limit) for label, limit in limits(arrays, order_of(case)) if label == what), None)
    norm = exact_norm(arrays, order_of(case)).bounds()[0]
    limit = approximate(norm * Fraction(what))
    return limit if math.isfinite(limit) else None


def _simpler_arguments(case: Case) -> Iterator[Case]:
    """Yield the case with rounder limits or bounds."""
    for index, value in enumerate(case.arguments if case.operation not in NORMS else ()):
        if isinstance(value, np.ndarray) or value is None or isinstance(value, bool | str | complex):
            continue
        number = float(value)
        if not math.isfinite(number) or number == 0:
            continue
        mantissa, exponent = math.frexp(number)
        with np.errstate(over="ignore"):
            rounder = [1.0, *(float(np.ldexp(round(mantissa * k) / k, exponent)) for k in (2, 8, 128))]
        if abs(number) < 2.0**53:
            rounder.append(float(round(number)))
        for simpler in rounder:
            if math.isfinite(simpler) and simpler != number and _shorter(simpler, number):
                arguments = (*case.arguments[:index], simpler, *case.arguments[index + 1 :])
                yield replace(case, arguments=arguments, limit=())
    if case.keywords and set(case.keywords) <= {"ord", "where"}:
        yield replace(case, keywords={})
