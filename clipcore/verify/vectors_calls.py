"""The calls that golden vectors are made of: arrays by their bits, limits at their norms, bounds, edge rows.

Arrays are tuples of bit patterns here, so that bfloat16 needs no library, and random numbers come from
Python's own generator, so that they are the same everywhere.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np

from clipcore.verify.calling import Drawn
from clipcore.verify.edges import Row
from clipcore.verify.edges_norm import norm_rows
from clipcore.verify.edges_value import value_rows
from clipcore.verify.exact import exact_norm
from clipcore.verify.formats import (
    Array,
    Format,
    cast_bound,
    format_of,
    from_patterns,
    patterns,
    power_of_two,
)
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, split

__all__ = [
    "BINARY64",
    "DOUBLE",
    "FORMATS",
    "INTEGERS",
    "Call",
    "Leaf",
    "calls",
    "hexadecimal",
    "row_arguments",
    "row_leaves",
    "rows",
]

DOUBLE: Final = np.dtype(np.float64)
BINARY64: Final = format_of(DOUBLE)
FORMATS: Final = {
    name: Format(16, 8) if name == "bfloat16" else format_of(np.dtype(name))
    for name in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
}
INTEGERS: Final = ("int8", "uint8", "int32", "int64", "uint64")
BOUNDS: Final = (
    (0.0, 1.0),
    (0.1, 100.3),
    (-0.1, 0.1),
    (None, 77.7),
    (None, None),
    (0.1, None),
    (-math.inf, math.inf),
    (-1.7e308, 1.7e308),
    (-0.0, 0.0),
    (-100.3, -0.1),
    (-1e-300, None),
    (-1e-300, 5e-324),
)
_Subject: TypeAlias = "tuple[str, tuple[Leaf, ...], dict[str, Any]]"  # label, inputs, keywords


@dataclass(frozen=True)
class Leaf:
    """One array by its bits, so that bfloat16 needs no library.

    Attributes
    ----------
    dtype : str
        Name of the dtype.
    shape : tuple of int
        Of elements.
    patterns : tuple of int
        The components' bit patterns in C order, real and imaginary in turn; of integers the values.
    """

    dtype: str
    shape: tuple[int, ...]
    patterns: tuple[int, ...]

    @staticmethod
    def of(x: Array) -> Leaf:
        """Return a NumPy array as a leaf."""
        found = x.reshape(-1) if x.dtype.kind in "iu" else patterns(x)
        return Leaf(x.dtype.name, x.shape, tuple(found.tolist()))

    @property
    def parts(self) -> int:
        """Number of components of an element."""
        return 2 if self.dtype.startswith("complex") else 1

    def array(self) -> Array:
        """Return the values as a NumPy array, those of bfloat16 as float32."""
        if self.dtype == "bfloat16":
            return from_patterns([p << 16 for p in self.patterns], np.dtype(np.float32)).reshape(self.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            return np.array(self.patterns, dtype).reshape(self.shape)
        return from_patterns(self.patterns, dtype).reshape(self.shape)

    def text(self, pattern: int) -> str:
        """Return a component as text: a hexadecimal float, of integers the decimal digits."""
        if self.dtype not in FORMATS:
            return str(pattern)
        form = FORMATS[self.dtype]
        magnitude = pattern & ((1 << (form.bits - 1)) - 1)
        size = float(form.value(magnitude)) if magnitude < form.infinity else math.inf
        if magnitude > form.infinity:
            return "nan"
        return hexadecimal(-size if magnitude != pattern else size)

    def described(self) -> dict[str, Any]:
        """Return the leaf as it stands in the text."""
        values = [self.text(pattern) for pattern in self.patterns]
        return {"dtype": self.dtype, "shape": list(self.shape), "values": values}


@dataclass(frozen=True)
class Call:
    """One call, before it is known what must come out.

    Attributes
    ----------
    operation, label : str
        The public function, and what is special about the call.
    inputs : tuple of Leaf
        One leaf, or the leaves of the tree.
    arguments : dict
        `max_norm`, or `lower` and `upper`: a float, a `Leaf` or `None`.
    keywords : dict
        `ord`, `axis` or `nonfinite`, where they are not the default.
    raises : str
        Name of the exception that refuses the call; empty where there is a result.
    """

    operation: str
    label: str
    inputs: tuple[Leaf, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)
    raises: str = ""

    @property
    def order(self) -> float:
        """Order of the norm."""
        return float(self.keywords.get("ord", {**NORM_CLIPS, **NORMS}[self.operation]))

    @property
    def roundoff(self) -> Fraction:
        """The coarsest unit roundoff among the leaves."""
        return max((FORMATS[leaf.dtype].roundoff for leaf in self.inputs), default=BINARY64.roundoff)

    def groups(self) -> list[tuple[tuple[Array, ...], list[int]]]:
        """Return the arrays that share a norm; along an axis with the places of their elements."""
        if "axis" not in self.keywords:
            return [(tuple(leaf.array() for leaf in self.inputs), [])]
        x, axis = self.inputs[0].array(), self.keywords["axis"]
        places = split(np.arange(x.size).reshape(x.shape), axis)
        return [((part,), members.tolist()) for part, members in zip(split(x, axis), places, strict=True)]


def hexadecimal(value: float) -> str:
    """Return a float as a short hexadecimal text."""
    if not math.isfinite(value):
        return str(value)
    digits, _, exponent = value.hex().partition("p")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}p{exponent}"


def calls(operation: str, dtype: str, seed: int = 0) -> list[Call]:
    """Return the calls of one operation and dtype, each once."""
    rng = random.Random(f"{seed}/{operation}/{dtype}")
    made = (
        _value_calls(operation, dtype, rng)
        if operation in VALUE_CLIPS
        else _norm_calls(operation, dtype, rng)
    )
    distinct: dict[str, Call] = {}
    for call in (*made, *_row_calls(operation, dtype)):
        distinct.setdefault(repr((call.inputs, call.arguments, call.keywords)), call)
    return list(distinct.values())


def _subjects(dtype: str, rng: random.Random) -> Iterator[tuple[str, Leaf]]:
    """Yield labelled finite arrays of a floating dtype, up to 16 components each."""
    form = FORMATS[dtype]
    sign, one, huge = 1 << (form.bits - 1), _pattern(1.0, form), form.infinity - 1
    normal = 1 << (form.precision - 1)
    example = {11: [300.0] * 4, 53: [1e200, 1e-200]}.get(form.precision, [1e30, 1e30])
    found: dict[str, list[int]] = {
        "[3, −4, 0, −0]": [_pattern(x, form) for x in (3.0, -4.0, 0.0, -0.0)],
        "one-hot": [0, sign, 0, one | sign, 0, 0],
        "one-hot, subnormal": [0, 0, 1, sign],
        "one-hot, largest": [sign, huge, 0, 0],
        "four ones": [one, one | sign, one, one],
        "zeros of both signs": [0, sign, sign, 0],
        "subnormals": [1, 2 | sign, normal - 1, 5, 1, normal // 3 | sign],
        "smallest normals": [normal, normal | sign, normal + 1, normal],
        "all largest": [huge, huge | sign] * 4,
        "huge and tiny": [huge, sign | 1, 0, sign, one, one | sign, normal, 3],
        "just below two": [one + normal - 1, one, one + 1, one - 1],
        "the contract's example": [_pattern(x, form) for x in example],
        "sixteen equal": [_pattern(0.1, form)] * 16,
        "ordinary": [_pattern(rng.uniform(-4, 4), form) for _ in range(8)],
        "other ordinary": [_pattern(rng.uniform(-4, 4), form) for _ in range(12)],
        "any finite": [rng.randrange(form.infinity) | sign * rng.randrange(2) for _ in range(6)],
        "empty": [],
    }
    for label, bits in found.items():
        yield label, _leaf(dtype, bits)
    yield "0-d", Leaf(dtype, (), (one | sign, 3)[: _leaf(dtype, []).parts])


def _leaf(dtype: str, bits: list[int], *shape: int) -> Leaf:
    """Return a leaf of a shape, by default flat."""
    leaf = Leaf(dtype, shape, tuple(bits))
    return leaf if shape else Leaf(dtype, (len(bits) // leaf.parts,), leaf.patterns)


def _pattern(value: float, form: Format) -> int:
    """Return the pattern of a finite float, rounded towards zero."""
    return form.truncate(abs(Fraction(value)))[0] | (math.copysign(1, value) < 0) << (form.bits - 1)


def _nonfinite(dtype: str) -> Iterator[tuple[str, Leaf]]:
    """Yield arrays that hold NaN or an infinity."""
    form = FORMATS[dtype]
    one, nan = _pattern(1.0, form), form.infinity + (1 << (form.precision - 2))
    yield "inf", _leaf(dtype, [one, form.infinity, 0, one])
    yield "−inf and NaN", _leaf(dtype, [1 << (form.bits - 1) | form.infinity, 0, nan, one])


def _norm_calls(operation: str, dtype: str, rng: random.Random) -> Iterator[Call]:
    """Yield the calls of a norm or a norm clip."""
    single: list[_Subject] = [(label, (leaf,), {}) for label, leaf in _subjects(dtype, rng)]
    more = _trees(dtype, rng) if operation.endswith("global_norm") else _along_axes(dtype, rng)
    for index, (label, leaves, keywords) in enumerate([*single, *more]):
        if operation in NORMS:
            yield Call(operation, label, leaves, {}, keywords)
            continue
        limits = _limits(Call(operation, label, leaves, {}, keywords))
        shift = 4 * list(FORMATS).index(dtype)
        for place in (index % 2, index + shift):
            name, limit = limits[place % len(limits)]
            yield Call(operation, f"{label}; limit: {name}", leaves, {"max_norm": limit}, keywords)
    for label, leaf in _nonfinite(dtype):
        for arguments in [{}] if operation in NORMS else [{"max_norm": 1.0}, {"max_norm": math.inf}]:
            yield Call(operation, ", ".join([label, *map(str, arguments.values())]), (leaf,), arguments)


def _trees(dtype: str, rng: random.Random) -> Iterator[_Subject]:
    """Yield trees of several leaves under every order of the norm."""
    parts = _leaf(dtype, []).parts

    def some(form: Format, count: int) -> list[int]:
        return [_pattern(rng.uniform(-4, 4), form) for _ in range(count)]

    own, double, half = FORMATS[dtype], FORMATS["float64"], FORMATS["float16"]
    several = (_leaf(dtype, some(own, 4)), _leaf(dtype, some(own, 4 * parts), 2, 2), _leaf(dtype, []))
    mixed = (several[0], _leaf("float64", some(double, 3)), _leaf("float16", some(half, 3)))
    spread = [[rng.randrange(own.infinity) for _ in range(2 * parts)] for _ in range(2)]
    for order in (2, 1, math.inf):
        keywords = {} if order == 2 else {"ord": order}
        yield "several leaves", several, keywords
        yield "mixed dtypes", mixed, keywords
        yield "any finite leaves", tuple(_leaf(dtype, bits) for bits in spread), keywords


def _along_axes(dtype: str, rng: random.Random) -> Iterator[_Subject]:
    """Yield arrays of which several groups have a norm each."""
    form, parts = FORMATS[dtype], _leaf(dtype, []).parts
    for axes, shape in (((0,), (3, 4)), ((1,), (3, 4)), ((0, 2), (2, 3, 2)), ((-1,), (2, 3, 2))):
        bits = [_pattern(rng.uniform(-4, 4), form) for _ in range(parts * math.prod(shape))]
        yield f"axis {list(axes)}", (_leaf(dtype, bits, *shape),), {"axis": axes}


def _limits(call: Call) -> list[tuple[str, float]]:
    """Return limits at the norm of a call's first group, around it, far from it, and the ends."""
    low, high = exact_norm(call.groups()[0][0], call.order).bounds()
    u = call.roundoff
    near = {
        "the norm, rounded down": float(cast_bound(low, DOUBLE, "upper")),
        "the norm, rounded up": float(cast_bound(min(high, BINARY64.largest), DOUBLE, "lower")),
    }
    for name, value in {
        "the norm − u": low * (1 - u),
        "half the norm": low / 2,
        "the norm − 2^-50": low * (1 - power_of_two(-50)),
        "the norm/3": low / 3,
        "the norm + 2^-50": high * (1 + power_of_two(-50)),
        "the norm − 3u/2": low * (1 - 3 * u / 2),
        "the norm/100": low / 100,
        "the norm · 2^-30": low / (1 << 30),
        "100 norms": 100 * high,
    }.items():
        near[name] = float(min(value, BINARY64.largest))
    return [*near.items(), ("0", 0.0), ("1", 1.0), ("the smallest double", math.ulp(0.0)), ("inf", math.inf)]


def _value_calls(operation: str, dtype: str, rng: random.Random) -> Iterator[Call]:
    """Yield the calls of a value or weight clip."""
    if dtype in FORMATS:
        subjects, fit = [*_subjects(dtype, rng), *_nonfinite(dtype)], list(BOUNDS)
    else:
        info = np.iinfo(dtype)
        ends = (int(info.min), int(info.max), 0, 1, int(info.max) - 1, int(info.min) + 1, 77, 100)
        subjects = [(f"ends, {count} of them", Leaf(dtype, (count,), ends[:count])) for count in range(1, 9)]
        fit = [bounds for bounds in BOUNDS if info.min < 0 or bounds != (-100.3, -0.1)]
    for index, (label, leaf) in enumerate(subjects):
        for step in (0, 7):
            lower, upper = fit[(index + step) % len(fit)]
            text = f"{label}; bounds: {lower}, {upper}"
            yield Call(operation, text, (leaf,), {"lower": lower, "upper": upper})
    if operation == "clip_weights":
        leaves = tuple(leaf for _, leaf in subjects[:3])
        yield Call(operation, "several leaves", leaves, {"lower": 0.1, "upper": 9.7})


# --- rows of the edge table ------------------------------------------------------------------------------


def _row_calls(operation: str, dtype: str) -> Iterator[Call]:
    """Yield the rows of the edge table that another language can be asked, two of a label."""
    seen: Counter[str] = Counter()
    for row in rows(operation, dtype):
        inputs, arguments = row_leaves(row.tree, dtype), row_arguments(row)
        if inputs is not None and arguments is not None and seen[row.label] < 2:
            seen[row.label] += 1
            yield Call(operation, f"edges: {row.label}", inputs, arguments, _row_keywords(row), row.raises)


def rows(operation: str, dtype: str) -> Iterator[Row]:
    """Yield the rows of the edge table for a real dtype; those of float32 for bfloat16."""
    known = np.dtype("float32" if dtype == "bfloat16" else dtype)
    if operation in VALUE_CLIPS:
        yield from value_rows(operation, known, frozenset(), numpy=False)
    elif known.kind == "f":
        more = "ord" if operation.endswith("global_norm") else "axis"
        keywords = {more} if operation in NORMS else {more, "nonfinite"}
        yield from norm_rows(operation, known, frozenset(keywords), numpy=False)


def row_leaves(tree: Any, dtype: str) -> tuple[Leaf, ...] | None:
    """Return the leaves of a row's tree, `None` where it is more than a list of arrays of known dtypes."""
    if isinstance(tree, dict) and list(tree) == ["kernel"]:
        tree = list(tree.values())
    listed = [tree] if isinstance(tree, np.ndarray) else tree
    if not isinstance(listed, list) or isinstance(listed, Drawn):
        return None
    found = tuple(leaf for leaf in (_row_leaf(x, dtype) for x in listed) if leaf)
    return found if len(found) == len(listed) else None


def _row_leaf(x: Any, dtype: str) -> Leaf | None:
    """Return a row's leaf; a float32 as bfloat16 where that is asked and has these values."""
    if not isinstance(x, np.ndarray) or x.dtype.name not in (*FORMATS, *INTEGERS):
        return None
    leaf = Leaf.of(x)
    if dtype != "bfloat16" or leaf.dtype != "float32":
        return leaf
    exact = not any(pattern & 0xFFFF for pattern in leaf.patterns)
    return Leaf(dtype, leaf.shape, tuple(pattern >> 16 for pattern in leaf.patterns)) if exact else None


def row_arguments(row: Row) -> dict[str, Any] | None:
    """Return a row's arguments; `None` where one is neither a double nor an array, or a limit is `None`."""
    names = {0: (), 1: ("max_norm",), 2: ("lower", "upper")}[len(row.arguments)]
    found: dict[str, Any] = {}
    for name, value in zip(names, row.arguments, strict=True):
        if isinstance(value, np.ndarray):
            found[name] = Leaf.of(value)
        elif type(value) is float or (type(value) is int and abs(value) < 1 << 53):
            found[name] = float(value)
        elif value is not None or name == "max_norm":
            return None
        found.setdefault(name, None)
    return found


def _row_keywords(row: Row) -> dict[str, Any]:
    """Return a row's keywords, `axis` as a tuple and none that are the default."""
    default = {"nonfinite": "propagate", "ord": 2}
    found = {name: value for name, value in row.keywords.items() if value != default.get(name)}
    return {
        name: (value,) if name == "axis" and isinstance(value, int) else value
        for name, value in found.items()
    }
