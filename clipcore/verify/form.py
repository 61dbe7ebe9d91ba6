"""The laws that need no norm: form, and the value clips, whose result is known to the bit.

Trees are walked here by a few lines of their own, so that the library's way of flattening them is not judged
by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from clipcore.verify.formats import Array, cast_bound, nan_components, order_keys, patterns
from clipcore.verify.laws import Violation, has_subnormals, same_bits

__all__ = [
    "Path",
    "among_subnormals",
    "children",
    "form",
    "leaves",
    "rebuild",
    "value_laws",
    "walk",
]

Path = tuple[Any, ...]


def walk(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield (path, leaf) of a nested dict, list, tuple or namedtuple; `None` is no leaf."""
    for key, child in children(tree):
        yield from walk(child, (*path, key))
    if tree is not None and not isinstance(tree, dict | list | tuple):
        yield path, tree


def children(tree: Any) -> list[tuple[Any, Any]]:
    """Return the (key, child) pairs of a container, in its own order; none for a leaf."""
    if isinstance(tree, dict):
        return list(tree.items())
    return list(enumerate(tree)) if isinstance(tree, list | tuple) else []


def leaves(tree: Any) -> list[Array]:
    """Return the leaves of a tree as arrays."""
    return [np.asarray(leaf) for _, leaf in walk(tree)]


def rebuild(tree: Any, replacements: Iterator[Any]) -> Any:
    """Return the tree with its leaves replaced, in the order of `walk`."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: rebuild(child, replacements) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        rebuilt = [rebuild(child, replacements) for child in tree]
        return type(tree)(*rebuilt) if hasattr(tree, "_fields") else type(tree)(rebuilt)
    return next(replacements)


def form(tree: Any, result: Any, path: Path = ()) -> Violation | None:
    """Law 9: same containers, keys and their order, dtype, byte order and shape."""
    where = f"leaf {path}" if path else ""
    if tree is None or children(tree) or isinstance(tree, dict | list | tuple):
        if type(tree) is not type(result):
            return Violation("form", "another container came back", where, type(tree), type(result))
        keys, got = ([key for key, _ in children(each)] for each in (tree, result))
        if keys != got:
            return Violation("form", "other keys, or another order of them, came back", where, keys, got)
        pairs = zip(children(tree), children(result), strict=True)
        found = (form(child, other, (*path, key)) for (key, child), (_, other) in pairs)
        return next((violation for violation in found if violation), None)
    if not isinstance(result, np.ndarray):
        return Violation("form", "a leaf came back as another type", where, np.ndarray, type(result))
    before, after = (tree.dtype, tree.shape), (result.dtype, result.shape)
    if before != after:
        return Violation("form", "a leaf came back with another dtype or shape", where, before, after)
    return None


def value_laws(x: Array, lower: Any, upper: Any, result: Array) -> Violation | None:
    """Laws 1 to 3 for one leaf of a value or weight clip, which leave nothing open.

    Parameters
    ----------
    x : numpy.ndarray
        Floating or integer leaf.
    lower, upper : number, numpy.ndarray or None
        The bounds as given; of crossing ones the upper wins.
    result : numpy.ndarray
        What came back, of the dtype and shape of x.
    """
    if lower is None and upper is None:
        return same_bits("identity", "without bounds the result is a copy", [x], [result])
    low, high = _bound_array(lower, x, "lower"), _bound_array(upper, x, "upper")
    number = ~nan_components(x) & ~nan_components(low) & ~nan_components(high)
    got, least, most = order_keys(result), order_keys(low), order_keys(high)
    expected = np.minimum(np.maximum(order_keys(x), least), most)
    same = patterns(x) == patterns(result)
    for law, message, wrong in (
        ("edges", "NaN, in the input or as a bound, must stay NaN", ~number & ~nan_components(result)),
        ("range", "a number became NaN", number & nan_components(result)),
        ("bound", "an element is above its upper bound", number & (got > most)),
        ("bound", "an element is below its lower bound", number & (got < np.minimum(least, most))),
        (
            "identity",
            "an element within its bounds was changed",
            number & (expected == order_keys(x)) & ~same,
        ),
        ("tightness", "an element outside its bounds did not become the bound", number & (got != expected)),
    ):
        if wrong.any():
            index = int(np.argmax(wrong))
            values = [str(array.reshape(-1)[index]) for array in (x, low, high, result)]
            return Violation(
                law, message, f"element {index}", f"{values[0]} cut to [{values[1]}, {values[2]}]", values[3]
            )
    return None


def among_subnormals(x: Array, lower: Any, upper: Any) -> bool:
    """Return whether an element or a bound of a value clip is subnormal."""
    if x.dtype.kind in "iu":
        return False
    given = [_bound_array(bound, x, "lower") for bound in (lower, upper) if bound is not None]
    return any(has_subnormals(each) for each in (x, *given))


def _bound_array(bound: Any, x: Array, side: Any) -> Array:
    """Return a bound cast so that it still holds, spread over x's shape; the widest for `None`."""
    if bound is None:
        bound = float("-inf") if side == "lower" else float("inf")
    return np.broadcast_to(cast_bound(bound, x.dtype, side), x.shape)
