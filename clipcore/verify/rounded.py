"""The cases of the level rounded: ordinary numbers, shapes and limits, aimed at what people get wrong.

Every array holds zeros and magnitudes in [2^-10, 2^10] only; limits lie between a hundredth of the norm and a
hundred norms.  Operands and results are normal numbers of the dtype, the limit and the norm among them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import AtPath, LastKey
from clipcore.verify.cases import rounded
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves
from clipcore.verify.formats import Array, cast_bound, format_of, magnitudes, order_keys
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, order_of, split
from clipcore.verify.laws import approximate

__all__ = ["bounds_fit", "is_ordinary", "rounded_cases"]

SIZES: Final = (1, 2, 3, 5, 8, 9, 16, 17, 31, 33, 64, 65, 100, 128, 129, 257, 513, 777, 1000)
RATIOS: Final = (0.5, 0.011, 0.995, 1.004, 0.1, 2.0, 0.999, 1.0019, 0.9, 1 / 3, 1.009, 0.991, 1.5, 90.0, 0.03)
BOUNDS: Final = (
    (-1, 1),
    (-0.5, 0.25),
    (0.1, 0.7),
    (-1.7, -0.3),
    (0.5, 0.5),
    (-100.0, 1000.0),
    (0, 1.5),
    (-2.0, 0),
)
Labelled = tuple[str, Any]


def rounded_cases(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], rng: np.random.Generator, extra: int
) -> Iterator[Case]:
    """Yield ordinary cases for one function and dtype, aimed ones first, then `extra` random ones.

    Parameters
    ----------
    operation : str
        Name of the public function.
    dtype : numpy.dtype
        A real floating dtype.
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
        made = _value_cases(operation, dtype, keywords, rng)
    else:
        made = itertools.chain(
            _whole(operation, dtype, keywords, rng), _along(operation, dtype, keywords, rng)
        )
    yield from (case for case in made if is_ordinary(case))
    random = _random_cases(operation, dtype, rng)
    yield from itertools.islice((case for case in random if is_ordinary(case)), extra)


# --- arrays --------------------------------------------------------------------------------------------


def _spread(rng: np.random.Generator, size: int, dtype: np.dtype[Any], decades: float = 10) -> Array:
    """Return numbers of both signs whose magnitudes are spread evenly over powers of two."""
    values = np.exp2(rng.uniform(-decades, decades, size)) * rng.choice([-1.0, 1.0], size)
    return rounded(np.clip(values, -1024, 1024), dtype)


def _normal(rng: np.random.Generator, size: int, dtype: np.dtype[Any]) -> Array:
    """Return normally distributed numbers, those near zero moved away from it."""
    values = rng.standard_normal(size)
    return rounded(np.where(np.abs(values) < 2.0**-9, 0.25, values), dtype)


def _aimed(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Labelled]:
    """Yield arrays in which a wrong norm, a lost element or a lost bit cannot hide."""

    def array(values: Any, *shape: int) -> Array:
        flat = rounded(np.asarray(values, np.float64).reshape(-1), dtype)
        return flat.reshape(shape) if shape else flat

    yield "[3, 4]", array([3, 4])
    yield "one element", array([-7.25])
    yield "one small element", array([2.0**-10])
    yield "[300] * 4", array([300.0] * 4)
    yield "signs that cancel", array([1, -1, 2, -2, 4, -4, 0.5, -0.5])
    yield "all negative", array([-1, -2.5, -3, -0.75, -8])
    yield "zeros among numbers", array([0, 3, 0, 0, -4, 0, 12, 0])
    yield "a square matrix", array([[3, 1, -2], [0, -4, 5], [2, 2, 7]], 3, 3)
    yield "a matrix of rank one", array(np.outer([1, -2, 3], [2, 1, -1, 4]), 3, 4)
    yield "three dimensions", _normal(rng, 24, dtype).reshape(2, 3, 4)
    yield "four dimensions", _normal(rng, 36, dtype).reshape(3, 1, 4, 3)
    yield "one row", _normal(rng, 6, dtype).reshape(1, 6)
    yield "one column", _normal(rng, 6, dtype).reshape(6, 1)
    yield "1000 ones", array([1.0] * 1000)
    if format_of(dtype).bits < 64:  # a plain sum in float64 may be further off than 4 ulp of a double
        yield "1000 tenths", array([0.1] * 1000)
    yield "small after large", array([1000.0] + [0.75] * 600)
    yield "large after small", array([0.75] * 600 + [1000.0])
    yield "all of 2^-10", array([2.0**-10] * 300)
    yield "all of 1000", array([1000.0] * 30)
    for size in SIZES:
        last = _normal(rng, size, dtype)
        last[-1:] = rounded([40.0], dtype)
        yield f"{size} numbers, the last the largest", last
        first = _spread(rng, size, dtype, 6)
        first[:1] = rounded([-200.0], dtype)
        yield f"{size} numbers, the first the largest", first


def _trees(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Labelled]:
    """Yield lists of leaves for the global norm."""

    def array(*values: float) -> Array:
        return rounded(values, dtype)

    yield "two leaves", [array(3, 0, -4), array(0, 12)]
    yield "two leaves of equal norm", [array(3, 4), array(-4, 3)]
    yield "the first leaf small, the last large", [array(0.5, -0.25), array(1, 1), array(30, -40)]
    yield "the first leaf large, the last small", [array(300, -400), array(1, 1), array(0.5)]
    yield "equal leaves", [array(3, -4), array(3, -4)]
    yield "an array that stands there twice", [array(3, -4)] * 2
    yield "a leaf of zeros", [array(0, 0, 0), array(1, -2, 2)]
    yield "leaves of one element", [array(value) for value in (1, -2, 3, -4, 5, -6)]
    yield (
        "leaves of several shapes",
        [
            _normal(rng, 12, dtype).reshape(3, 4),
            _normal(rng, 5, dtype),
            _normal(rng, 8, dtype).reshape(2, 2, 2),
            _normal(rng, 1, dtype),
        ],
    )
    yield "thirty leaves", [_normal(rng, 7, dtype) for _ in range(30)]
    yield "one long leaf, one short", [_normal(rng, 700, dtype), array(25.0)]
    yield "one short leaf, one long", [array(-25.0), _spread(rng, 513, dtype, 4)]


# --- cases of norms ------------------------------------------------------------------------------------


def _whole(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], rng: np.random.Generator
) -> Iterator[Case]:
    """Yield cases of whole arrays, or of trees."""
    single = list(_aimed(dtype, rng))
    if not operation.endswith("global_norm"):
        yield from _limited(operation, single, {})
        return
    trees = [*_trees(dtype, rng), *((label, [x]) for label, x in single)]
    yield from _limited(operation, trees, {})
    if "ord" in keywords:
        for order in (1, math.inf, 2):
            yield from _limited(operation, trees[:14], {"ord": order})


def _limited(operation: str, subjects: list[Labelled], keywords: dict[str, Any]) -> Iterator[Case]:
    """Yield each subject with three of the limits, and with its norm itself where that is a double."""
    if operation in NORMS:
        for label, tree in subjects:
            yield Case(operation, label, tree, (), keywords)
        return
    order = float(keywords.get("ord", NORM_CLIPS[operation]))
    for index, (label, tree) in enumerate(subjects):
        exact = exact_norm(leaves(tree), order).bounds()[0]
        norm = approximate(exact)
        ratios = [RATIOS[(index + step) % len(RATIOS)] for step in (0, 5, 10)]
        for ratio in [*ratios, 1.0] if norm == exact else ratios:
            yield Case(operation, label, tree, (norm * ratio,), keywords, limit=("ratio", ratio))


def _along(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], rng: np.random.Generator
) -> Iterator[Case]:
    """Yield cases along axes, limited so that some groups are clipped and some are not."""
    if "axis" not in keywords:
        return
    order = {**NORM_CLIPS, **NORMS}[operation]
    shapes = {
        (4, 4): (0, 1, -1, (0, 1)),
        (3, 5): (0, 1, -2),
        (2, 3, 4): (0, 1, 2, -1, (0, 2), (-1, 0), (0, 1, 2)),
    }
    for shape, axes in shapes.items():
        for axis in axes:
            x = _spread(rng, math.prod(shape), dtype, 3).reshape(shape)
            norms = sorted(exact_norm([part], order).bounds()[0] for part in split(x, axis))
            limit = approximate(norms[len(norms) // 2] * Fraction(7, 8))
            arguments = () if operation in NORMS else (limit,)
            yield Case(operation, f"axis {axis}", x, arguments, {"axis": axis})


def _random_cases(operation: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Yield random cases without end."""
    while True:
        size = int(rng.choice(SIZES))
        x = _normal(rng, size, dtype) if rng.integers(2) else _spread(rng, size, dtype)
        x[rng.random(size) < 0.05] = 0
        if operation in VALUE_CLIPS:
            low = rng.uniform(-2, 1)
            high = low + rng.uniform(0.25, 1)
            tree: Any = x if operation == "clip_by_value" else {"layer": {"kernel": x}}
            yield Case(operation, "random", tree, (float(low), float(high)))
            continue
        tree = x
        if operation.endswith("global_norm"):
            tree = [x, _spread(rng, int(rng.choice(SIZES)), dtype, 5)]
        ratio = float(rng.choice(RATIOS)) if rng.integers(2) else float(np.exp2(rng.uniform(-6.5, 6.5)))
        if operation in NORMS:
            yield Case(operation, "random", tree)
            continue
        norm = approximate(exact_norm(leaves(tree), NORM_CLIPS[operation]).bounds()[0])
        yield Case(operation, "random", tree, (norm * ratio,), {}, limit=("ratio", ratio))


def is_ordinary(case: Case) -> bool:
    """Return whether a case may be tried at this level: its numbers, its sizes, its limit."""
    arrays = leaves(case.tree)
    if not arrays or not all(1 <= x.size <= 1000 and x.ndim and _in_range(x) for x in arrays):
        return False
    if case.operation in VALUE_CLIPS:
        return bounds_fit(case)
    form = format_of(arrays[0].dtype)
    norm = exact_norm(arrays, order_of(case)).bounds()[0]
    if not form.smallest_normal <= norm <= form.largest:
        return False
    if case.operation in NORMS:
        return True
    limit = Fraction(case.arguments[0])
    sizes = np.concatenate([magnitudes(x) for x in arrays])
    least = form.value(int(sizes[sizes != 0].min())) * min(Fraction(1), limit / norm)
    normal = form.smallest_normal <= limit <= form.largest and least >= 2 * form.smallest_normal
    return normal and norm / 100 <= limit <= 100 * norm


def bounds_fit(case: Case) -> bool:
    """Return whether every leaf's dtype has a number between two scalar bounds, so that they may be given."""
    lower, upper = case.arguments
    if any(bound is None or isinstance(bound, np.ndarray) for bound in case.arguments):
        return True
    dtypes = {x.dtype for x in leaves(case.tree) if x.dtype.kind in "fiuV"}
    return all(
        order_keys(cast_bound(lower, dtype, "lower"))[0] <= order_keys(cast_bound(upper, dtype, "upper"))[0]
        for dtype in dtypes
    )


def _in_range(x: Array) -> bool:
    """Return whether every element is zero or between 2^-10 and 2^10 in size."""
    size = np.abs(x.astype(np.float64))
    return bool(np.all((size == 0) | ((size >= 2.0**-10) & (size <= 2.0**10))))


# --- cases of values -----------------------------------------------------------------------------------


def _value_cases(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], rng: np.random.Generator
) -> Iterator[Case]:
    """Yield cases of value and weight clips."""
    arrays = [x for _, x in _aimed(dtype, rng)]
    for index, x in enumerate(arrays):
        for step in (0, 3):
            lower, upper = BOUNDS[(index + step) % len(BOUNDS)]
            tree = x if operation == "clip_by_value" else _nest(x, _normal(rng, 4, dtype))
            yield Case(operation, "ordinary", tree, (lower, upper))
    large = rounded([-1024, 1024, 0.5, -3], dtype)
    for bounds in ((None, 2.0), (-2.0, None), (0, None)):
        tree = large if operation == "clip_by_value" else [large]
        yield Case(operation, "a bound that is None", tree, bounds, optional=True)
    if operation == "clip_by_value":
        yield from _array_bounds(dtype, rng)
    elif "where" in keywords:
        tree = _nest(arrays[4], arrays[0])
        chosen = [
            LastKey("kernel"),
            LastKey("bias"),
            LastKey(0),
            AtPath(("layer", "kernel")),
            AtPath(("also", 0)),
        ]
        for where in chosen:
            yield Case(operation, "where", tree, (-0.5, 0.5), {"where": where})


def _nest(x: Array, other: Array) -> dict[Any, Any]:
    """Return a tree with containers of every kind, keys out of order and a few levels."""
    deep = {"kernel": other, "a": [{"z": (other, [x])}]}
    return {"layer": {"kernel": x, "bias": other}, "also": [x[:1]], 2: {1: other, 0: x}, "end": (x, deep)}


def _array_bounds(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Yield bounds that are arrays of the dtype: of the same shape, of a row, of a column."""
    for shape, part in (
        ((4, 4), (4, 4)),
        ((4, 4), (4,)),
        ((3, 4), (3, 1)),
        ((2, 3, 4), (3, 1)),
        ((5,), (5,)),
    ):
        x = _spread(rng, math.prod(shape), dtype, 2).reshape(shape)
        middle = _normal(rng, math.prod(part), dtype).reshape(part)
        width = rounded([0.5, 2.0], dtype)
        lower = (middle - width[0]).astype(dtype)
        yield Case("clip_by_value", f"bounds of shape {part}", x, (lower, (middle + width[1]).astype(dtype)))
