"""The edge table for clips by value and of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from clipcore.verify.calling import LastKey, named_tuple
from clipcore.verify.cases import rounded
from clipcore.verify.edges import Row
from clipcore.verify.formats import Array, cast_bound, format_of, from_patterns

__all__ = ["value_rows"]

Pair = named_tuple("Pair", ("left", "right"))


def value_rows(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], *, numpy: bool
) -> Iterator[Row]:
    """Yield the rows that one dtype is asked.

    Parameters
    ----------
    operation : str
        `clip_by_value` or `clip_weights`.
    dtype : numpy.dtype
        A real floating or an integer dtype.
    keywords : frozenset of str
        The keywords that the subject takes.
    numpy : bool
        Whether the subject takes NumPy arrays, so that what is particular to them can be asked.

    Yields
    ------
    Row
        A call and its answer.
    """
    rows = _Rows(operation, dtype)
    if dtype.kind in "iu":
        yield from rows.of_integers()
    else:
        yield from rows.of_values(numpy=numpy)
        yield from rows.of_bounds()
        yield from rows.of_out(keywords, numpy=numpy)
    yield from rows.of_leaves(numpy=numpy)
    if operation == "clip_weights":
        yield from rows.of_trees(keywords)
    else:
        yield from rows.of_arrays()


class _Rows:
    """The rows of one operation and one dtype."""

    def __init__(self, operation: str, dtype: np.dtype[Any]) -> None:
        self.operation, self.dtype = operation, dtype

    def array(self, *values: float) -> Array:
        """Return a flat array of the dtype."""
        return np.array(values, self.dtype) if self.dtype.kind in "iu" else rounded(values, self.dtype)

    def row(self, title: str, x: Any, bounds: tuple[Any, Any], expected: Any = None, **more: Any) -> Row:
        """Return a row of the table; a single array is put in a dict where the operation takes trees."""
        if self.operation == "clip_weights" and isinstance(x, np.ndarray | np.generic | str | float):
            x, expected = {"kernel": x}, {"kernel": expected}
        keywords = more.pop("keywords", {})
        return Row(
            self.operation, title, x, bounds, keywords, row=title.partition(":")[0], expected=expected, **more
        )

    def of_values(self, *, numpy: bool) -> Iterator[Row]:
        """Yield NaN, infinities, zeros, and shapes without elements or axes."""
        nan, inf = math.nan, math.inf
        x = self.array(nan, inf, -inf, 0.25, 0, 0.5, 2, -2)
        yield self.row("NaN and infinities", x, (-1, 1), self.array(nan, 1, -1, 0.25, 0, 0.5, 1, -1))
        yield self.row("both bounds None", x, (None, None), x)
        yield self.row(
            "one bound None: the lower", x, (None, 1.0), self.array(nan, 1, -inf, 0.25, 0, 0.5, 1, -2)
        )
        yield self.row(
            "one bound None: the upper", x, (-1.0, None), self.array(nan, inf, -1, 0.25, 0, 0.5, 2, -1)
        )
        yield self.row("infinite bound", x, (-inf, inf), x)
        yield self.row(
            "infinite bound: the upper", x, (-1.0, inf), self.array(nan, inf, -1, 0.25, 0, 0.5, 2, -1)
        )
        form = format_of(self.dtype)
        largest = from_patterns([form.infinity - 1], self.dtype)
        smallest = from_patterns([1, (1 << (form.bits - 1)) | 1, form.infinity - 1], self.dtype)
        yield self.row(
            "both bounds None: subnormals and the largest number", smallest, (None, None), smallest
        )
        yield self.row("subnormals inside their bounds", smallest[:2], (-1.0, 1.0), smallest[:2])
        if form.bits < 64:
            cut = np.concatenate([self.array(1), largest, self.array(nan)])
            beyond = np.concatenate([self.array(1, inf, nan)])
            yield self.row("bound beyond the range", beyond, (None, 1e300), cut)
            yield self.row("bound beyond the range: both", -beyond, (-1e300, 1e300), -cut)
        yield self.row("empty leaf", self.array(), (-1, 1), self.array())
        point = self.array(3).reshape(())
        yield self.row("0-d array", point, (-1, 1), self.array(1).reshape(()))
        yield self.row("0-d array: inside", point, (-1, 5), point)
        if numpy:
            yield self.row("NumPy scalar as a leaf", point[()], (-1, 1), self.array(1).reshape(()))

    def of_bounds(self) -> Iterator[Row]:
        """Yield bounds that must be rounded, and bounds that must be refused."""
        x = self.array(-9, -0.25, 0.25, 9)
        for lower, upper in ((-0.1, 0.1), (-1 / 3, 2 / 3), (0.1, 100.3), (-math.pi, math.e)):
            least, most = cast_bound(lower, self.dtype, "lower"), cast_bound(upper, self.dtype, "upper")
            expected = np.where(x < least, least, np.where(x > most, most, x)).astype(self.dtype)
            yield self.row("bounds that hold after the cast", x, (lower, upper), expected)
            for kind in (np.float64, np.longdouble) if self.dtype != np.float64 else (np.float64,):
                given = (kind(lower), kind(upper))
                yield self.row(f"bounds that hold after the cast: of {kind.__name__}", x, given, expected)
        yield self.row(
            "bounds that hold after the cast: integers", x, (-1, np.int64(2)), self.array(-1, -0.25, 0.25, 2)
        )
        for bounds in ((1.0, -1.0), (1, 0), (math.nan, 1.0), (-1.0, math.nan), (0.0, np.float64(math.nan))):
            yield self.row(f"bounds refused: {bounds[0]}, {bounds[1]}", x, bounds, raises="ValueError")
        yield self.row("bounds refused: lower = inf", x, (math.inf, None), raises="ValueError")
        yield self.row("bounds refused: upper = −inf", x, (None, -math.inf), raises="ValueError")
        if self.dtype != np.float64:
            yield self.row(
                "bounds refused: no number of the dtype between", x, (0.1, 0.1), raises="ValueError"
            )
            yield self.row(
                "bounds refused: an upper bound below the range", x, (None, -1e300), raises="ValueError"
            )
            yield self.row(
                "bounds refused: a lower bound above the range", x, (1e300, None), raises="ValueError"
            )

    def of_integers(self) -> Iterator[Row]:
        """Yield integer leaves with bounds of every kind."""
        info = np.iinfo(self.dtype)
        x = self.array(0, 1, 5, 100, info.max, info.min)
        signed = info.min < 0
        least = info.min if signed else 0
        yield self.row("integers", x, (1, 50), self.array(1, 1, 5, 50, 50, 1))
        yield self.row("integers: floating bounds", x, (0.5, 50.7), self.array(1, 1, 5, 50, 50, 1))
        yield self.row("integers: one bound", x, (None, 7), self.array(0, 1, 5, 7, 7, least))
        yield self.row("both bounds None", x, (None, None), x)
        yield self.row("integers: bounds beyond the dtype", x, (-(10**30), 10**30), x)
        yield self.row("integers: infinite bounds", x, (-math.inf, math.inf), x)
        yield self.row(
            "bounds refused: an upper bound below the dtype",
            x,
            (None, int(info.min) - 1),
            raises="ValueError",
        )
        yield self.row(
            "bounds refused: a lower bound above the dtype", x, (int(info.max) + 1, None), raises="ValueError"
        )
        yield self.row("bounds refused: no integer between", x, (0.2, 0.8), raises="ValueError")
        yield self.row("bounds refused: 5, 2", x, (5, 2), raises="ValueError")
        if self.operation == "clip_by_value":
            low, high = np.full(6, 2, np.int64), np.full(6, 60, np.int64)
            yield self.row("integers: arrays as bounds", x, (low, high), self.array(2, 2, 5, 60, 60, 2))
            if info.bits < 64:
                low, high = np.full(6, -(2**40)), np.full(6, 2**40)
                yield self.row("integers: arrays beyond the dtype as bounds", x, (low, high), x)
            yield self.row(
                "bounds refused: floating arrays for integers", x, (low * 0.5, None), raises="TypeError"
            )

    def of_leaves(self, *, numpy: bool) -> Iterator[Row]:
        """Yield leaves that must be refused."""
        refused: list[tuple[str, Any]] = [("bool", np.array([True, False])), ("complex", np.array([1 + 1j]))]
        if numpy:
            refused += [("object", np.array([1.0, None], object)), ("string", np.array(["a"]))]
            refused += [("datetime", np.array(["2020-01-01"], "M8[D]")), ("a string", "a")]
        for name, leaf in refused:
            yield self.row(f"leaf refused: {name}", leaf, (0, 1), raises="TypeError")

    def of_arrays(self) -> Iterator[Row]:
        """Yield arrays as bounds."""
        if self.dtype.kind in "iu":
            return
        nan, inf = math.nan, math.inf
        x = self.array(-3, 0, 0.5, 3)
        cross = (self.array(1, 1, 1, 1), self.array(-1, 2, 0, 5))
        yield self.row("arrays that cross", x, cross, self.array(-1, 1, 0, 3))
        one_scalar = (self.array(1, -1, 1, -1), 0.0)
        yield self.row("arrays that cross: an array and a scalar", x, one_scalar, self.array(0, 0, 0, 0))
        bad = (self.array(nan, -1, -1, -1), self.array(1, 1, nan, 1))
        yield self.row("NaN in an array bound", x, bad, self.array(nan, 0, nan, 1))
        zero_d = (np.array(-1.0), np.array(0.75))
        yield self.row("arrays as bounds: 0-d", x, zero_d, self.array(-1, 0, 0.5, 0.75))
        other = (self.array(inf, -inf, -1, -1), None)
        yield self.row("arrays as bounds: infinities", x, other, self.array(inf, 0, 0.5, 3))
        wide = np.array([-0.1, -0.1, 0.1, 0.1])
        least = np.concatenate([cast_bound(value, self.dtype, "lower").reshape(1) for value in wide.tolist()])
        expected = np.concatenate([least[:1], self.array(0, 0.5, 3)])
        yield self.row("bounds that hold after the cast: arrays of float64", x, (wide, None), expected)

    def of_out(self, keywords: frozenset[str], *, numpy: bool) -> Iterator[Row]:
        """Yield arrays to write to, good and bad."""
        if "out" not in keywords:
            return
        x, clipped = self.array(-3, 0.5, 0, 3), self.array(-1, 0.5, 0, 1)
        for out in ("new", "input"):
            yield self.row("out", x, (-1, 1), clipped, keywords={"out": out})
        frozen = self.array(7, 7, 7, 7)
        frozen.flags.writeable = False
        other = np.dtype(np.float32 if self.dtype != np.float32 else np.float64)
        for title, bad in (
            ("out refused: a wrong shape", self.array(7, 7)),
            ("out refused: a wrong dtype", np.full(4, 7, other)),
            *([("out refused: read-only", frozen)] if numpy else []),
        ):
            given = {"kernel": bad} if self.operation == "clip_weights" else bad
            yield self.row(title, x, (-1, 1), raises="ValueError", keywords={"out": given})
        fresh = self.array(7, 7, 7, 7)
        given = {"kernel": fresh} if self.operation == "clip_weights" else fresh
        yield self.row("out refused: bounds 1, −1", x, (1, -1), raises="ValueError", keywords={"out": given})

    def of_trees(self, keywords: frozenset[str]) -> Iterator[Row]:
        """Yield trees of every kind."""
        x, y = self.array(0, 1, 9), self.array(0, 1, 2)
        for tree, expected in (
            ({"b": x, "a": [x, None, (x,)]}, {"b": y, "a": [y, None, (y,)]}),
            ([x, {"z": x, "y": ()}, None], [y, {"z": y, "y": ()}, None]),
            ((x, [x], {}), (y, [y], {})),
            ({}, {}),
            ([], []),
            ([None], [None]),
            (Pair(x, [x, None]), Pair(y, [y, None])),
        ):
            yield self.row("containers", tree, (0, 2), expected)
        refused: list[Any] = ["a"] if self.dtype.kind in "iu" else ["a", 3.0]
        for leaf in refused:
            yield self.row(
                f"leaf refused: {type(leaf).__name__}", {"b": x, "a": leaf}, (0, 2), raises="TypeError"
            )
        if "where" in keywords:
            tree = {"layer": {"kernel": x, "bias": x}, "kernel": x, "rest": [x, x]}
            chosen = {"layer": {"kernel": y, "bias": x}, "kernel": y, "rest": [x, x]}
            yield self.row("where", tree, (0, 2), chosen, keywords={"where": LastKey("kernel")})
            by_index = {"layer": {"kernel": x, "bias": x}, "kernel": x, "rest": [x, y]}
            yield self.row("where: an index", tree, (0, 2), by_index, keywords={"where": LastKey(1)})
            yield self.row("where: nothing chosen", tree, (0, 2), tree, keywords={"where": LastKey("none")})
            wrong = {"kernel": x, "other": np.array([True])}
            yield self.row(
                "leaf refused: bool, left out by where",
                wrong,
                (0, 2),
                raises="TypeError",
                keywords={"where": LastKey("kernel")},
            )
