"""The edge table for clips by norm and for norms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from clipcore.verify.calling import Drawn
from clipcore.verify.cases import rounded
from clipcore.verify.edges import ANY_ZEROS, Row
from clipcore.verify.form import leaves, rebuild
from clipcore.verify.formats import Array
from clipcore.verify.judge import NORMS

__all__ = ["norm_rows"]

Tree = Any


def norm_rows(
    operation: str, dtype: np.dtype[Any], keywords: frozenset[str], *, numpy: bool
) -> Iterator[Row]:
    """Yield the rows that one dtype is asked.

    Parameters
    ----------
    operation : str
        Name of a norm or a norm clip.
    dtype : numpy.dtype
        A real floating dtype.
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
    yield from rows.of_values()
    yield from rows.of_leaves(numpy=numpy)
    if operation not in NORMS:
        yield from rows.of_limits(numpy=numpy)
        yield from rows.of_out(keywords, numpy=numpy)
        yield from rows.of_policies(keywords)
    if operation.endswith("global_norm"):
        yield from rows.of_trees()
        yield from rows.of_orders(keywords)
    if "axis" in keywords:
        yield from rows.of_axes()


class _Rows:
    """The rows of one operation and one dtype."""

    def __init__(self, operation: str, dtype: np.dtype[Any]) -> None:
        self.operation, self.dtype = operation, dtype
        self.of_tree = operation.endswith("global_norm")

    def array(self, *values: float) -> Array:
        """Return a flat array of the dtype."""
        return rounded(values, self.dtype)

    def row(self, title: str, tree: Tree, limit: Any = 1.0, expected: Any = None, **more: Any) -> Row:
        """Return a row of the table; a single array is put in a list where the operation takes trees."""
        if self.of_tree and not isinstance(tree, dict | list | tuple):
            tree = [tree]
            if expected is not None and not isinstance(expected, str):
                expected = [expected]
        arguments = () if self.operation in NORMS else (limit,)
        keywords = more.pop("keywords", {})
        return Row(
            self.operation,
            title,
            tree,
            arguments,
            keywords,
            row=title.partition(":")[0],
            expected=expected,
            **more,
        )

    def of_values(self) -> Iterator[Row]:
        """Yield zeros, empty arrays, NaN and infinities."""
        zeros = self.array(0, -0.0, 0)
        yield self.row("zero vector", zeros, 1.0, zeros, norm=0.0)
        yield self.row("zero vector: C = 0", zeros, 0.0, zeros, norm=0.0)
        for shape in ((0,), (3, 0)):
            empty = self.array().reshape(shape)
            yield self.row("empty leaf", empty, 1.0, empty, norm=0.0)
            yield self.row("empty leaf: C = 0", empty, 0.0, empty, norm=0.0)
        for value, norm in ((math.nan, math.nan), (math.inf, math.inf), (-math.inf, math.inf)):
            for place in range(3):
                values = [1.0, -0.0, 2.0]
                values[place] = value
                nans = self.array(math.nan, math.nan, math.nan)
                for limit in (1.0, 0.0, 1000.0) if place == 0 else (0.5,):
                    yield self.row(
                        f"NaN or infinity in a group: {value}", self.array(*values), limit, nans, norm=norm
                    )
        both = self.array(math.inf, math.nan, 1, -math.inf)
        yield self.row(
            "NaN or infinity in a group: both", both, 1.0, self.array(*[math.nan] * 4), norm=math.nan
        )
        if self.of_tree:
            good, bad = self.array(1, 2), self.array(3, math.nan)
            nan = self.array(math.nan, math.nan)
            for tree in ([good, bad], [bad, good], [good, good.copy(), bad, good.copy()]):
                yield self.row(
                    "NaN or infinity in a group: NaN in one leaf", tree, 1.0, [nan] * len(tree), norm=math.nan
                )
            yield self.row(
                "NaN or infinity in a group: inf in one leaf",
                [good, self.array(math.inf)],
                1.0,
                [nan, nan[:1]],
                norm=math.inf,
            )

    def of_limits(self, *, numpy: bool) -> Iterator[Row]:
        """Yield limits of every kind."""
        x = self.array(3, -4, 0, -0.0)
        norm = 7.0 if self.operation == "clip_by_l1_norm" else 5.0
        yield self.row("C = 0", x, 0.0, self.array(0, -0.0, 0, -0.0), norm=norm)
        yield self.row("C = 0", x, 0, self.array(0, -0.0, 0, -0.0), norm=norm)
        odd = self.array(math.nan, math.inf, 1, -0.0, -math.inf)
        yield self.row("C infinite", x, math.inf, x, norm=norm)
        yield self.row("C infinite: NaN and inf inside", odd, math.inf, odd, norm=math.nan)
        yield self.row("C infinite: an inf inside", odd[1:4], math.inf, odd[1:4], norm=math.inf)
        yield self.row("C infinite: a NumPy scalar", odd, np.float64(math.inf), odd, norm=math.nan)
        x = self.array(3, -4)
        yield self.row("C a number: the largest double", x, 1.7e308, x, norm=norm)
        for limit in (8, np.float64(8), np.float32(8), np.float16(8), np.int64(8)):
            yield self.row(f"C a number: {type(limit).__name__}", x, limit, x, norm=norm)
        refused: list[tuple[Any, str]] = [
            (each, "ValueError") for each in (-1.0, -1, math.nan, -math.inf, -1e-300)
        ]
        refused += [
            (np.float32(-1), "ValueError"),
            (np.float64(math.nan), "ValueError"),
            (10**400, "ValueError"),
        ]
        refused += [(each, "TypeError") for each in (None, True, 1j, "1", np.bool_(True), np.complex64(1))]
        if numpy:
            refused += [(np.array([1.0]), "ValueError"), (np.array(-1.0), "ValueError")]
            yield self.row("C a number: a 0-d array", x, np.array(8.0), x, norm=norm)
            yield self.row("C infinite: a 0-d array", odd, np.array(math.inf), odd, norm=math.nan)
        for limit, error in refused:
            yield self.row(f"C refused: {limit!r}"[:60], x, limit, raises=error)
        yield self.row("C refused: −1, before NaN inside is looked at", odd, -1.0, raises="ValueError")

    def of_leaves(self, *, numpy: bool) -> Iterator[Row]:
        """Yield leaves of every kind."""
        point = self.array(-3.0).reshape(())
        yield self.row("0-d array", point, 5.0, point, norm=3.0)
        yield self.row("0-d array: C = 0", point, 0.0, self.array(-0.0).reshape(()), norm=3.0)
        refused: list[tuple[str, Any]] = [
            (name, np.array([1, 2, 3], name)) for name in ("int32", "int64", "uint8", "int8")
        ]
        refused += [("bool", np.array([True, False]))]
        if numpy:
            yield self.row("NumPy scalar as a leaf", point[()], 5.0, point, norm=3.0)
            refused += [("object", np.array([1.0, None], object)), ("string", np.array(["a"]))]
            refused += [("datetime", np.array(["2020-01-01"], "M8[D]")), ("a string", "a"), ("a float", 3.0)]
        for name, leaf in refused:
            yield self.row(f"leaf refused: {name}", leaf, raises="TypeError")
            if self.of_tree:
                yield self.row(f"leaf refused: {name}", [self.array(1, 2), leaf], raises="TypeError")

    def of_policies(self, keywords: frozenset[str]) -> Iterator[Row]:
        """Yield what `nonfinite` says."""
        if "nonfinite" not in keywords:
            return
        x, bad = self.array(3, 4), self.array(1, math.nan, 2)
        for policy in ("propagate", "zero", "raise"):
            chosen = {"nonfinite": policy}
            yield self.row(f'nonfinite="{policy}": finite', x, 100.0, x, keywords=chosen)
            yield self.row(f'nonfinite="{policy}": C = −1', bad, -1.0, raises="ValueError", keywords=chosen)
        for values in (bad, self.array(math.inf, 1), self.array(1, -math.inf)):
            for limit in (1.0, math.inf, 0.0):
                norm = math.nan if np.isnan(values.astype(np.float64)).any() else math.inf
                yield self.row(
                    'nonfinite="zero"', values, limit, ANY_ZEROS, norm=norm, keywords={"nonfinite": "zero"}
                )
                yield self.row(
                    'nonfinite="raise"',
                    values,
                    limit,
                    raises="FloatingPointError",
                    keywords={"nonfinite": "raise"},
                )
        if self.of_tree:
            tree = [x, bad, self.array(5)]
            yield self.row(
                'nonfinite="zero"', tree, 1.0, ANY_ZEROS, norm=math.nan, keywords={"nonfinite": "zero"}
            )
            yield self.row(
                'nonfinite="raise"', tree, 1.0, raises="FloatingPointError", keywords={"nonfinite": "raise"}
            )

    def of_trees(self) -> Iterator[Row]:
        """Yield trees without leaves, with `None`, generators and other containers."""
        x, y = self.array(3, 0), self.array(-4)
        yield self.row("empty tree", [], 1.0, [], norm=0.0)
        yield self.row("empty tree: only None", [None, None], 1.0, [None, None], norm=0.0)
        for tree in ([None, x, None, y], [x, y, None], [None, x, y]):
            yield self.row("None among the leaves", tree, 8.0, tree, norm=5.0)
            zeros = rebuild(tree, (np.copysign(leaf * 0, leaf) for leaf in leaves(tree)))
            yield self.row("None among the leaves: C = 0", tree, 0.0, zeros, norm=5.0)
        yield self.row("generator as a tree", Drawn([x, y]), 8.0, [x, y], norm=5.0)
        zeros = [np.copysign(leaf * 0, leaf).astype(self.dtype) for leaf in (x, y)]
        yield self.row("generator as a tree: C = 0", Drawn([x, y]), 0.0, zeros, norm=5.0)
        empty = self.array()
        yield self.row("empty leaf: among others", [x, empty, y], 8.0, [x, empty, y], norm=5.0)
        nested = {"b": x, "a": {"d": y, "c": None}}
        yield self.row("nested dicts", nested, 8.0, nested, norm=5.0, optional=True)

    def of_orders(self, keywords: frozenset[str]) -> Iterator[Row]:
        """Yield NaN and infinities, empty trees and zeros under every order of the norm."""
        if "ord" not in keywords:
            return
        nan, x = math.nan, self.array(1, -2)
        for order in (1, math.inf, 2):
            chosen = {"ord": order}
            for values, norm in (((nan, 1), nan), ((1, nan), nan), ((math.inf, 1), math.inf)):
                bad, lost = self.array(*values), self.array(nan, nan)
                for tree in ([x, bad], [bad, x], [x, bad, x.copy()]):
                    title = f"NaN or infinity in a group: ord={order}"
                    yield self.row(title, tree, 1.0, [lost] * len(tree), norm=norm, keywords=chosen)
            empty = self.array()
            yield self.row(f"empty leaf: ord={order}", [empty, x], 8.0, [empty, x], keywords=chosen)
            yield self.row(
                f"empty leaf: alone, ord={order}", [empty], 1.0, [empty], norm=0.0, keywords=chosen
            )
            yield self.row(f"empty tree: ord={order}", [], 1.0, [], norm=0.0, keywords=chosen)

    def of_axes(self) -> Iterator[Row]:
        """Yield groups of which only some are clipped, or hold NaN."""
        nan = math.nan
        x = self.array(1, nan, 2, 0, -0.0, 0, 1, 2, -2).reshape(3, 3)
        expected = self.array(nan, nan, nan, 0, -0.0, 0, 1, 2, -2).reshape(3, 3)
        if self.operation in NORMS:
            return
        for axis in (1, -1, (1,)):
            yield self.row(
                "NaN or infinity in a group: one of three", x, 100.0, expected, keywords={"axis": axis}
            )
        yield self.row(
            "NaN or infinity in a group: one of three, transposed",
            x.T,
            100.0,
            expected.T,
            keywords={"axis": 0},
        )
        for odd in (nan, math.inf):
            bad, lost = self.array(1, odd), self.array(nan, nan)
            title = "NaN or infinity in a group: along all axes"
            yield self.row(title, bad, 100.0, lost, keywords={"axis": 0})
            yield self.row(title, bad.reshape(1, 2), 100.0, lost.reshape(1, 2), keywords={"axis": (0, 1)})
        empty = self.array().reshape(3, 0)
        for axis in (0, 1):
            yield self.row("empty leaf: along an axis", empty, 1.0, empty, keywords={"axis": axis})

    def of_out(self, keywords: frozenset[str], *, numpy: bool) -> Iterator[Row]:
        """Yield arrays to write to, good and bad."""
        if "out" not in keywords:
            return
        x = self.array(3, -4, 0)
        for out in ("new", "input"):
            yield self.row("out", x, 8.0, x, keywords={"out": out})
            yield self.row("out: C = 0", x, 0.0, self.array(0, -0.0, 0), keywords={"out": out})
        frozen = self.array(7, 7, 7)
        frozen.flags.writeable = False
        other = np.dtype(np.float32 if self.dtype != np.float32 else np.float64)
        for title, bad in (
            ("out refused: a wrong shape", self.array(7, 7)),
            ("out refused: a wrong dtype", np.full(3, 7, other)),
            *([("out refused: read-only", frozen)] if numpy else []),
        ):
            yield self.row(
                title, x, 1.0, raises="ValueError", keywords={"out": [bad] if self.of_tree else bad}
            )
        if self.of_tree:
            shared = self.array(7, 7, 7)
            yield self.row(
                "out refused: leaves that share bytes",
                [x, x.copy()],
                1.0,
                raises="ValueError",
                keywords={"out": [shared, shared]},
            )
            yield self.row(
                "out refused: a wrong structure",
                [x, x.copy()],
                1.0,
                raises="ValueError",
                keywords={"out": [shared]},
            )
