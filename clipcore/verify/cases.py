"""Aimed cases: a seeded, deterministic list of calls for each operation and dtype.

Random arrays rarely meet a boundary, so most cases here are built at one: norms a hair above, below and at
the limit, one-hot vectors, subnormals, the largest values, huge beside tiny, every memory layout.  Arrays
and limits are crossed along diagonals, so that a short run already meets each of both; random vectors follow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import LastKey
from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves
from clipcore.verify.formats import Array, Format, cast_bound, format_of, from_patterns, is_complex
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, split

__all__ = [
    "LAYOUTS",
    "MANY",
    "SIZES",
    "Labelled",
    "any_finite",
    "cases",
    "finite_subjects",
    "limits",
    "many_equal",
    "ordinary",
    "rounded",
    "value_cases",
]

Labelled = tuple[str, Any]
MANY: Final = 1 << 20
SIZES: Final = (1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 99)  # few: some libraries compile for every size


def cases(operation: str, dtype: np.dtype[Any], seed: int = 0, count: int = 200) -> Iterator[Case]:
    """Yield `count` cases for one public function and one dtype, the same for the same seed.

    Parameters
    ----------
    operation : str
        Name of the public function.
    dtype : numpy.dtype
        Of the leaves: floating or complex; for value and weight clips floating or integer.
    seed : int
        Where the random parts come from.
    count : int
        How many cases, at least 0; the aimed ones come first.

    Yields
    ------
    Case
        What to call the function with.
    """
    rng = np.random.default_rng(seed)
    if operation in VALUE_CLIPS:
        made = value_cases(operation, dtype, rng)
    elif operation in NORM_CLIPS:
        made = _norm_clip_cases(operation, dtype, rng)
    elif operation in NORMS:
        made = _norm_cases(operation, dtype, rng)
    else:
        raise ValueError(f"no operation is called {operation!r}")
    yield from itertools.islice(made, count)


# --- arrays ----------------------------------------------------------------------------------------------


def rounded(values: Any, dtype: np.dtype[Any]) -> Array:
    """Return float64 values as a flat array of a floating or complex dtype (bfloat16 truncates)."""
    form, wide = format_of(dtype), np.asarray(values, dtype=np.float64)
    with np.errstate(under="ignore", over="ignore"):
        if form.bits == 64:
            return from_patterns(wide.view(np.uint64), dtype)
        if form.precision == 11:
            return from_patterns(wide.astype(np.float16).view(np.uint16), dtype)
        single = wide.astype(np.float32).view(np.uint32)
    return from_patterns(single if form.bits == 32 else (single >> 16).astype(np.uint16), dtype)


def any_finite(rng: np.random.Generator, size: int, dtype: np.dtype[Any]) -> Array:
    """Return a random array whose components are spread over all finite bit patterns."""
    form = format_of(dtype)
    size *= 2 if is_complex(dtype) else 1
    magnitude = rng.integers(0, form.infinity, size, dtype=np.uint64)
    return from_patterns(magnitude | rng.integers(0, 2, size, dtype=np.uint64) << (form.bits - 1), dtype)


def ordinary(rng: np.random.Generator, size: int, dtype: np.dtype[Any]) -> Array:
    """Return a normally distributed array."""
    return rounded(rng.standard_normal(size * (2 if is_complex(dtype) else 1)), dtype)


def many_equal(dtype: np.dtype[Any]) -> Array:
    """Return a million equal elements; fewer complex ones, whose moduli the oracle takes one by one."""
    return np.full(MANY // (16 if is_complex(dtype) else 1), rounded([1.1, 0.3], dtype)[0])


def _swapped(x: Array) -> Array:
    """Return the same values in the other byte order, where NumPy knows it for this dtype."""
    return x.byteswap().view(x.dtype.newbyteorder()) if x.dtype.kind in "fciu" else x


def _read_only(x: Array) -> Array:
    """Return a copy that cannot be written."""
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: Final[dict[str, Callable[[Array], Array]]] = {
    "plain": lambda x: x,
    "negative strides": lambda x: x[..., ::-1],
    "every other element": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "transposed": lambda x: x.reshape(*x.shape[:-1], -1, 1 + (x.shape[-1] % 2 == 0)).T,
    "byte-swapped": _swapped,
    "read-only": _read_only,
    "broadcast": lambda x: np.broadcast_to(x, (2, *x.shape)),
}


def specials(dtype: np.dtype[Any]) -> Iterator[Labelled]:
    """Yield the arrays at the edges of the format."""
    form = format_of(dtype)
    sign, one = 1 << (form.bits - 1), int(rounded([1.0, 1.0], dtype).view(f"u{form.bits // 8}")[0])
    smallest_normal = 1 << (form.precision - 1)

    def bits(*pattern: int) -> Array:
        return from_patterns(pattern, dtype)

    yield "[3, 4]", rounded([3.0, 4.0] if not is_complex(dtype) else [3.0, 0.0, 0.0, -4.0], dtype)
    yield "one-hot", bits(0, sign, 0, one | sign, 0, 0)
    yield "one-hot, subnormal", bits(0, 0, 1, sign, sign, 0)
    yield "one-hot, largest", bits(sign, form.infinity - 1, 0, 0)
    yield "four ones", bits(*[one, one | sign] * 4)
    yield "zeros of both signs", bits(0, sign, sign, 0)
    yield "subnormals", bits(1, 2 | sign, smallest_normal - 1, 5, 1, smallest_normal // 3 | sign)
    yield "smallest normals", bits(*[smallest_normal, smallest_normal | sign, smallest_normal + 1] * 2)
    yield "all largest", bits(*[form.infinity - 1, sign | (form.infinity - 1)] * 4)
    yield "all largest, of one sign", bits(*[form.infinity - 1] * 8)
    yield "huge and tiny", bits(form.infinity - 1, sign | 1, 0, sign, one, one | sign, smallest_normal, 3)
    yield "just below two", bits(one + smallest_normal - 1, one, one + 1, one - 1)
    yield "the contract's example", rounded(_example(form), dtype)
    yield "a NumPy scalar", bits(one, 5)[0]
    yield "empty", bits()
    yield "0-d", bits(*[one | sign, 3][: 2 if is_complex(dtype) else 1]).reshape(())


def _example(form: Format) -> list[float]:
    """Return the vector that law 8 names for this format."""
    if form.bits == 64:
        return [1e200, 1e-200]
    return [300.0] * 4 if form.precision == 11 else [1e30, 1e30]


def vectors(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Labelled]:
    """Yield random vectors in every layout, and equal values in numbers that strain a sum."""
    for label, layout in LAYOUTS.items():
        yield f"ordinary, {label}", layout(ordinary(rng, 12, dtype))
        yield f"any finite, {label}", layout(any_finite(rng, 6, dtype))
    parts = 2 if is_complex(dtype) else 1
    yield "a thousand equal", rounded([0.1] * 1000 * parts, dtype)
    yield "three dimensions", ordinary(rng, 24, dtype).reshape(2, 3, 4)
    yield "no columns", ordinary(rng, 0, dtype).reshape(3, 0)


def _nonfinite(dtype: np.dtype[Any]) -> Iterator[Labelled]:
    """Yield arrays that hold NaN or an infinity."""
    form = format_of(dtype)
    sign, one, quiet = 1 << (form.bits - 1), 1 << (form.bits - 3), 1 << (form.precision - 2)
    yield "inf", from_patterns([one, form.infinity, 0, one], dtype)
    yield "−inf and NaN", from_patterns([sign | form.infinity, sign, form.infinity + quiet, one], dtype)


# --- limits ----------------------------------------------------------------------------------------------


def limits(arrays: list[Array], order: float) -> list[Labelled]:
    """Return limits around the exact norm of finite arrays: at it, a hair off, near, far, and the ends.

    Parameters
    ----------
    arrays : list of numpy.ndarray
        The leaves of the group.
    order : float
        Order of its norm.

    Returns
    -------
    list of (str, float)
        What each limit is, and the limit.
    """
    low, high = exact_norm(arrays, order).bounds()
    largest = format_of(np.dtype(np.float64)).largest
    u = max((format_of(x.dtype).roundoff for x in arrays), default=Fraction(1, 2))
    double = np.dtype(np.float64)
    below, above = float(cast_bound(low, double, "upper")), float(cast_bound(high, double, "lower"))
    near = {
        "the last double not above the norm": Fraction(below),
        "the first double not below the norm": Fraction(min(above, float(largest))),
        "the norm + 2^-50": high * (1 + Fraction(1, 1 << 50)),
        "the norm − 2^-50": low * (1 - Fraction(1, 1 << 50)),
        "the norm − u": low * (1 - u),
        "the norm − 3u/2": low * (1 - 3 * u / 2),
        "half the norm": low / 2,
        "the norm/3": low / 3,
        "the norm/100": low / 100,
        "100 norms": 100 * high,
        "the norm · 2^-30": low / (1 << 30),
        "the norm · u²": low * u * u,
    }
    listed: list[Labelled] = [(label, float(min(value, largest))) for label, value in near.items()]
    return [*listed, ("0", 0.0), ("the smallest double", math.ulp(0.0)), ("1", 1.0), ("inf", math.inf)]


def _crossed(first: list[Any], second: Callable[[Any], list[Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of each item of `first` with each that `second` gives for it, along diagonals."""
    seconds = [second(item) for item in first]
    for shift in range(max(map(len, seconds), default=0)):
        for index, (item, others) in enumerate(zip(first, seconds, strict=True)):
            if shift < len(others):
                yield item, others[(index + shift) % len(others)]


# --- operations ------------------------------------------------------------------------------------------


def trees(dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Labelled]:
    """Yield trees of several leaves."""
    some = [ordinary(rng, 5, dtype), ordinary(rng, 6, dtype).reshape(2, 3)]
    yield "several leaves", [*some, ordinary(rng, 0, dtype), ordinary(rng, 1, dtype).reshape(())]
    yield "any finite leaves", [any_finite(rng, 3, dtype), any_finite(rng, 2, dtype)]
    yield (
        "mixed dtypes",
        [some[0], ordinary(rng, 3, np.dtype(np.float64)), ordinary(rng, 3, np.dtype(np.float16))],
    )
    yield "containers", {"b": some[0], "a": [some[1], None, (ordinary(rng, 2, dtype),)]}
    yield "no leaves", []


def finite_subjects(
    operation: str, dtype: np.dtype[Any], rng: np.random.Generator
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (label, tree, keywords) of all finite first arguments of a norm or norm clip."""
    single = [*specials(dtype), *vectors(dtype, rng)]
    if operation.endswith("global_norm"):
        listed = [*((label, [x]) for label, x in single), *trees(dtype, rng)]
        for (label, tree), order in itertools.product(listed, (2, 1, math.inf)):
            yield label, tree, {} if order == 2 else {"ord": order}
        return
    for label, x in single:
        yield label, x, {}
    for axis in (0, 1, -1, (0, 2), (2, 1, 0)):
        yield f"axis {axis}", ordinary(rng, 24, dtype).reshape(2, 3, 4), {"axis": axis}
        yield f"any finite, axis {axis}", any_finite(rng, 12, dtype).reshape(3, 2, 2), {"axis": axis}


def _norm_cases(operation: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Yield the cases of a norm function, at last random ones without end."""
    for label, tree, keywords in finite_subjects(operation, dtype, rng):
        yield Case(operation, label, tree, (), keywords)
    for label, x in _nonfinite(dtype):
        yield Case(operation, label, [x] if operation == "global_norm" else x)
    many = many_equal(dtype)
    yield Case(operation, "many equal", [many] if operation == "global_norm" else many)
    while True:
        x = ordinary(rng, int(rng.choice(SIZES)), dtype)
        yield Case(operation, "random", [x] if operation == "global_norm" else x)


def _norm_clip_cases(operation: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Yield the cases of a norm clip: a million equal, subjects × limits, random ones without end."""
    default = NORM_CLIPS[operation]

    def case(label: str, tree: Any, limit: Labelled, keywords: dict[str, Any]) -> Case:
        return Case(
            operation, f"{label}; limit: {limit[0]}", tree, (limit[1],), keywords, ("named", limit[0])
        )

    def wrapped(x: Array) -> Any:
        return [x] if operation == "clip_by_global_norm" else x

    def limits_of(subject: tuple[str, Any, dict[str, Any]]) -> list[Labelled]:
        _, tree, keywords = subject
        group = leaves(tree) if "axis" not in keywords else split(tree, keywords["axis"])[:1]
        return limits(group, keywords.get("ord", default))

    for label, x in _nonfinite(dtype):
        for limit in (1.0, math.inf):
            yield case(label, wrapped(x), (str(limit), limit), {})
    for index, (subject, limit) in enumerate(
        _crossed(list(finite_subjects(operation, dtype, rng)), limits_of)
    ):
        label, tree, keywords = subject
        yield case(label, tree, limit, keywords)
        if index == 20:  # not first, and rarely: it takes a while
            many = many_equal(dtype)
            yield case("many equal", wrapped(many), limits([many], default)[1], {})
    while True:
        x = ordinary(rng, int(rng.choice(SIZES)), dtype)
        found = limits([x], default)
        yield case("random", wrapped(x), found[int(rng.integers(len(found)))], {})


def _value_subjects(dtype: np.dtype[Any], rng: np.random.Generator) -> list[Labelled]:
    """Return labelled arrays to clip by value, NaN and infinities included."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        ends = np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1], dtype=dtype)
        spread = rng.integers(info.min, info.max, 12, dtype=dtype, endpoint=True)
        layouts = [(label, layout(spread)) for label, layout in LAYOUTS.items()]
        single = [("empty", ends[:0]), ("0-d", np.array(ends[1])), ("a NumPy scalar", ends[0])]
        return [("ends", ends), *single, *layouts]
    return [*specials(dtype), *vectors(dtype, rng), *_nonfinite(dtype)]


def _bounds(x: Array, rng: np.random.Generator) -> list[tuple[str, Any, Any]]:
    """Return (label, lower, upper) that are fit to clip an array by."""
    double = np.dtype(np.float64)
    found: list[tuple[str, Any, Any]] = [
        ("unit interval", 0, 1),
        ("no number of the dtype", 0.1, 100.3),
        ("lower only", 0.1, None),
        ("upper only", None, 77.7),
        ("neither", None, None),
        ("infinite", -math.inf, math.inf),
        ("infinite above", 3, math.inf),
        ("beyond every dtype", -1.7e308, 1.7e308),
        ("integers no float holds", 3, 2**63 + 1),
        ("a NumPy scalar", np.float32(0.1), np.float64(100.1)),
        ("both zeros", -0.0, 0.0),
    ]
    if x.dtype.kind != "u":
        found += [("negative", -100.3, -0.1), ("a hair below zero", -1e-300, None), ("lower −1", -1, 0)]
    if x.dtype.kind in "iu":
        small = rng.integers(0, 100, x.shape, dtype=np.int64)
        return [*found, ("integer arrays", small, small + 20), ("integer arrays that cross", small, 50)]
    wide: Array = np.asarray(rng.standard_normal(x.shape))
    last = wide[..., :1] if x.ndim else wide
    return [
        *found,
        ("tiny", -1e-300, 5e-324),
        ("arrays of float64", np.asarray(wide - 1), np.asarray(wide + 1)),
        ("arrays that broadcast", np.asarray(last - 0.1), 2.0),
        ("arrays that cross", np.asarray(wide), np.asarray(-wide)),
        ("an array holding NaN", np.where(wide > 0, math.nan, wide), None),
        ("any float64", any_finite(rng, x.size, double).reshape(x.shape), None),
        ("infinite on the other side", np.full(x.shape, math.inf), None),
    ]


def value_cases(operation: str, dtype: np.dtype[Any], rng: np.random.Generator) -> Iterator[Case]:
    """Yield the cases of a value or weight clip, again and again with other random parts."""

    def bounds_of(subject: Labelled) -> list[tuple[str, Any, Any]]:
        return _bounds(subject[1], rng)

    while True:
        for (label, x), (name, lower, upper) in _crossed(_value_subjects(dtype, rng), bounds_of):
            tree, keywords = x, {}
            if operation == "clip_weights":
                if not all(np.ndim(bound) == 0 for bound in (lower, upper) if bound is not None):
                    continue
                tree = {
                    "layer": {"kernel": x, "bias": _four_more(x, rng)},
                    "empty": [None, ()],
                    "also": (x,),
                }
                keywords = {"where": LastKey("kernel")} if rng.integers(3) == 0 else {}
            yield Case(operation, f"{label}; bounds: {name}", tree, (lower, upper), keywords)


def _four_more(x: Array, rng: np.random.Generator) -> Array:
    """Return four ordinary values of an array's dtype."""
    if x.dtype.kind in "iu":
        return rng.integers(0, 100, 4).astype(x.dtype)
    return ordinary(rng, 4, x.dtype)
