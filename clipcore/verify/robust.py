"""The cases of the level robust that are judged by the formula: every number, any size, any layout.

Limits stay within 2^220 norms of the norm, so that C/‖x‖ is a normal double.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.cases import SIZES, Labelled, finite_subjects, many_equal, ordinary, rounded, value_cases
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves
from clipcore.verify.formats import Array, format_of, is_complex, is_finite, power_of_two
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, split

__all__ = ["robust_cases", "within_reach"]

CLIPPING: Final = (0.5, 2.0**-20, 0.99, 1 / 3, 2.0**-200, 0.998, 0.1)
INSIDE: Final = (1.01, 3.0, 1000.0, 1.002)
LARGE: Final = (1023, 1025, 4096, 4099, 65537)
REACH: Final = power_of_two(220)


def robust_cases(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], rng: np.random.Generator, extra: int
) -> Iterator[Case]:
    """Yield cases over the whole range of one dtype, the aimed ones, then `extra` random ones.

    Parameters
    ----------
    operation : str
        Name of the public function.
    dtype : numpy.dtype
        Of the leaves.
    keywords : frozenset of str
        The keywords that the subject takes.
    rng : numpy.random.Generator
        Where random numbers come from.
    extra : int
        Number of random cases.

    Yields
    ------
    Case
        What to call the function with.
    """
    if operation in VALUE_CLIPS:
        found = (case for case in value_cases(operation, dtype, rng) if case.keywords.keys() <= keywords)
        yield from itertools.islice(found, 120 + extra)
        for size in LARGE[-1:] if dtype.kind in "iu" else LARGE:
            x = np.where(np.arange(size) % 2, 5, 90).astype(dtype)
            yield Case(
                operation, f"{size} numbers", x if operation == "clip_by_value" else {"kernel": x}, (10, 70)
            )
        return
    for index, (label, tree, chosen) in enumerate(_subjects(operation, dtype, keywords, rng)):
        ratios = (CLIPPING[index % 7], CLIPPING[(index + 3) % 7], INSIDE[index % 4])
        yield from _limited(operation, label, tree, chosen, ratios, typed=index % 5 == 0)
    for index in range(extra):
        label, tree, chosen = _random(operation, dtype, rng)
        yield from _limited(operation, label, tree, chosen, ((*CLIPPING, *INSIDE)[index % 11],))


def _subjects(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], rng: np.random.Generator
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield finite first arguments with their keywords."""
    of_tree = operation.endswith("global_norm")
    if is_complex(dtype):
        wave = ordinary(rng, 7, dtype)
        yield "complex", [wave, wave[:2]] if of_tree else wave, {}
        wave = rounded([3, 4, 0, 0, -5, 12], dtype)
        yield "complex", [wave] if of_tree else wave, {}
        return
    for label, tree, chosen in finite_subjects(operation, dtype, rng):
        if chosen.keys() <= keywords and not _nested(tree):
            yield label, tree, chosen
    if "axis" in keywords:
        yield from _scaled_along(dtype, rng)
    single: list[Labelled] = [(f"{size} numbers", ordinary(rng, size, dtype)) for size in LARGE]
    if format_of(dtype).bits <= 32:
        single.append(("a million equal", many_equal(dtype)))
    for label, x in single:
        yield label, [x] if of_tree else x, {}
    if of_tree:
        x = ordinary(rng, 3, dtype)
        yield "an array that stands there twice", [x, x], {}
        yield (
            "mixed dtypes",
            [x, ordinary(rng, 2, np.dtype(np.float64)), ordinary(rng, 4, np.dtype(np.float16))],
            {},
        )


def _scaled_along(
    dtype: np.dtype[Any], rng: np.random.Generator
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield huge and tiny numbers in groups along an axis."""
    form = format_of(dtype)
    top = form.exponent_fields // 2 - 4
    for exponent in (top, 6 - top):
        x = ordinary(rng, 12, dtype).reshape(3, 4)
        x = x.astype(np.float64) * np.ldexp(1.0, exponent)
        for axis in (0, 1):
            yield (
                f"times 2^{exponent}, axis {axis}",
                rounded(x.reshape(-1), dtype).reshape(3, 4),
                {"axis": axis},
            )


def _nested(tree: Any) -> bool:
    """Return whether a tree is more than a list of arrays, which not every subject takes."""
    return isinstance(tree, dict) or (isinstance(tree, list) and not all(hasattr(x, "dtype") for x in tree))


def _limited(
    operation: str,
    label: str,
    tree: Any,
    keywords: dict[str, Any],
    ratios: tuple[float, ...],
    *,
    typed: bool = False,
) -> Iterator[Case]:
    """Yield a subject with limits relative to its norm, once also as NumPy scalars."""
    if operation in NORMS:
        yield Case(operation, label, tree, (), keywords)
        return
    group = leaves(tree) if "axis" not in keywords else split(tree, keywords["axis"])[:1]
    norm = exact_norm(group, float(keywords.get("ord", NORM_CLIPS[operation]))).bounds()[0]
    largest = format_of(np.dtype(np.float64)).largest
    for ratio in ratios:
        limit = float(min(norm * Fraction(ratio), largest))
        what = f"{label}; C is {ratio:.3g} of the norm"
        case = Case(operation, what, tree, (limit,), keywords, ("ratio", ratio))
        if not within_reach(case):
            continue
        yield case
        if typed and 1e-30 < limit < float(np.finfo(np.float32).max):
            for kind in (np.float32, np.float64):
                yield Case(operation, f"{label}; C a {kind.__name__}", tree, (kind(limit),), keywords)


def within_reach(case: Case) -> bool:
    """Return whether a case is finite and its limit within 2^220 norms of every norm that is not zero."""
    if not is_finite(leaves(case.tree)):
        return False
    if case.operation in NORMS:
        return True
    axis = case.keywords.get("axis")
    parts = [leaves(case.tree)] if axis is None else [[part] for part in split(case.tree, axis)]
    order = float(case.keywords.get("ord", NORM_CLIPS[case.operation]))
    limit = Fraction(float(case.arguments[0]))
    norms = [exact_norm(part, order).bounds()[0] for part in parts]
    smallest = format_of(np.dtype(np.float64)).smallest_normal
    return all(not norm or (limit >= smallest and norm / REACH <= limit <= norm * REACH) for norm in norms)


def _random(
    operation: str, dtype: np.dtype[Any], rng: np.random.Generator
) -> tuple[str, Any, dict[str, Any]]:
    """Return a random array whose numbers lie in a random part of the range."""
    form = format_of(dtype)
    size = int(rng.choice(SIZES))
    low, high = sorted(rng.integers(0, form.infinity, 2).tolist())
    parts: list[Array] = []
    for _ in range(3 if operation.endswith("global_norm") else 1):
        from_bits = rng.integers(low, high + 1, size * (2 if is_complex(dtype) else 1), dtype=np.uint64)
        signs = rng.integers(0, 2, from_bits.size, dtype=np.uint64) << np.uint64(form.bits - 1)
        raw = (from_bits | signs).astype(f"u{form.bits // 8}")
        parts.append(raw.view(dtype))
    return "random", parts if operation.endswith("global_norm") else parts[0], {}
