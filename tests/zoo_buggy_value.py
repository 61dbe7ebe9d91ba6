"""Value and weight clips that are wrong for ordinary inputs (level rounded)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import Array, Bug, Fn, flatten, native, rebuild
from zoo_values import VALUE, Value, cut

ONE, ALL = "clip_by_value", "clip_weights"
Limits = Array | None


def spread(bound: Limits, x: Array, fallback: float) -> Array:
    return np.broadcast_to(np.array(fallback) if bound is None else bound.astype(float), x.shape)


# --- cuts ---------------------------------------------------------------------------------------------------


def swapped(x: Array, low: Limits, high: Limits) -> Array:
    return cut(x, high if low is not None else None, low if high is not None else None)


def reflected(x: Array, low: Limits, high: Limits) -> Array:
    wide, top, bottom = x.astype(float), spread(high, x, np.inf), spread(low, x, -np.inf)
    made = np.where(wide > top, 2 * top - wide, np.where(wide < bottom, 2 * bottom - wide, wide))
    return made.astype(x.dtype)


def masked(x: Array, low: Limits, high: Limits) -> Array:
    return np.where(x == cut(x, low, high), x, np.array(0, native(x.dtype))).astype(x.dtype)


def squashed(x: Array, low: Limits, high: Limits) -> Array:
    """A tanh between the bounds."""
    if low is None or high is None:
        return cut(x, low, high)
    middle, half = (spread(high, x, 0) + spread(low, x, 0)) / 2, (spread(high, x, 0) - spread(low, x, 0)) / 2
    safe = np.where(half > 0, half, 1.0)
    return (middle + half * np.tanh((x.astype(float) - middle) / safe)).astype(x.dtype)


def rescaled(x: Array, low: Limits, high: Limits) -> Array:
    """The whole array scaled until its largest element fits."""
    inside = cut(x, low, high)
    wide = x.astype(float)
    with np.errstate(all="ignore"):
        factors = np.where(wide != 0, inside.astype(float) / wide, 1.0)
    return (wide * float(np.min(factors, initial=1.0))).astype(x.dtype)


def by_magnitude(x: Array, low: Limits, high: Limits) -> Array:
    return cut(np.asarray(abs(x)), low, high)


def skip_tail(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high).reshape(-1)
    whole = x.size // 8 * 8 if x.size >= 8 else x.size
    made[whole:] = x.reshape(-1)[whole:]
    return made.reshape(x.shape)


def skip_first(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high).reshape(-1)
    made[:1] = x.reshape(-1)[:1]
    return made.reshape(x.shape)


def skip_chunk_ends(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high).reshape(-1)
    made[255::256] = x.reshape(-1)[255::256]
    return made.reshape(x.shape)


def first_bound(x: Array, low: Limits, high: Limits) -> Array:
    """Of an array of bounds only the first is used."""
    return cut(x, *(b if b is None or not b.size else b.reshape(-1)[0] for b in (low, high)))


def along_first(x: Array, low: Limits, high: Limits) -> Array:
    """A 1-D bound along the first axis; for squares silently wrong."""
    turned = (
        b[:, None] if b is not None and b.ndim == 1 and x.ndim == 2 and b.size > 1 else b for b in (low, high)
    )
    return cut(x, *turned)


def turned_bounds(x: Array, low: Limits, high: Limits) -> Array:
    return cut(
        x, *(b.T if b is not None and b.ndim == 2 and b.shape == b.shape[::-1] else b for b in (low, high))
    )


def one_step_inside(x: Array, low: Limits, high: Limits) -> Array:
    """Open intervals: a cut element ends next to the bound, by 8 steps."""
    made = cut(x, low, high)
    if x.dtype.kind in "iu":
        return made
    with np.errstate(all="ignore"):
        near = made.astype(float) * (1 - 2.0**-5 * np.sign(made.astype(float)) * (made != x))
    return np.where(made != x, near, made.astype(float)).astype(x.dtype)


def in_place(x: Array, low: Limits, high: Limits) -> Array:
    x[...] = cut(x, low, high)
    return x.copy()


def shared(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    return x if np.array_equal(made, x) else made


def detour32(x: Array, low: Limits, high: Limits) -> Array:
    made = cut(x, low, high)
    return made.astype(np.float32).astype(x.dtype) if x.dtype == np.float64 else made


def detour16(x: Array, low: Limits, high: Limits) -> Array:
    """bfloat16 has no ufuncs of its own: float16 takes its place."""
    made = cut(x, low, high)
    with np.errstate(all="ignore"):
        return made.astype(np.float16).astype(x.dtype) if x.dtype.kind == "V" else made


Cut = Callable[[Array, Limits, Limits], Any]
CUTS: list[tuple[str, Cut, str]] = [
    ("bounds swapped", swapped, "numpy#18782"),
    ("upper bound forgotten", lambda x, low, _high: cut(x, low, None), "common mistake"),
    ("lower bound forgotten", lambda x, _low, high: cut(x, None, high), "common mistake"),
    ("reflected at the bounds", reflected, "common mistake"),
    ("outside becomes 0", masked, "sophia win rate"),
    ("tanh", squashed, "common mistake"),
    ("array scaled to fit", rescaled, "Lightning#5456"),
    ("magnitudes clipped", by_magnitude, "common mistake"),
    ("tail of n % 8 left", skip_tail, "SIMD tail"),
    ("first element left", skip_first, "common mistake"),
    ("ends of 256-chunks left", skip_chunk_ends, "chunk boundary"),
    ("first of the bounds", first_bound, "tinygrad#1425"),
    ("bounds along the first axis", along_first, "broadcasting"),
    ("square bounds transposed", turned_bounds, "broadcasting"),
    ("3 % inside the bound", one_step_inside, "common mistake"),
    ("input written", in_place, "clip_grad_value_"),
    ("input itself when inside", shared, "array-api-compat PR#382"),
    ("float64 by way of float32", detour32, "numpy#24976"),
    ("flat result", lambda x, low, high: cut(x, low, high).ravel(), "common mistake"),
    ("float64 result", lambda x, low, high: cut(x, low, high) * np.float64(1), "numpy#24976"),
    ("list result", lambda x, low, high: cut(x, low, high).tolist(), "common mistake"),
    (
        "result halved",
        lambda x, low, high: (cut(x, low, high) / x.dtype.type(2)).astype(x.dtype),
        "common mistake",
    ),
]

# --- bounds -------------------------------------------------------------------------------------------------


def symmetric(x: Any, lower: Any, upper: Any) -> Any:
    """clip_grad_value_: −upper … upper, whatever lower is."""
    return VALUE.clip(x, lower if upper is None else -abs(upper), None if upper is None else abs(upper))


def none_is_zero(x: Any, lower: Any, upper: Any) -> Any:
    both = lower is None and upper is None
    return VALUE.clip(x, lower if both else lower or 0 * (upper if lower is None else lower), upper)


def none_is_one(x: Any, lower: Any, upper: Any) -> Any:
    """A missing bound is ±1000."""
    low = -1000.0 if lower is None and np.all(np.asarray(upper, float) >= -1000) else lower
    return VALUE.clip(x, low, upper)


def whole(x: Any, lower: Any, upper: Any) -> Any:
    bounds = (b if b is None or isinstance(b, np.ndarray) else int(b) for b in (lower, upper))
    return VALUE.clip(x, *bounds)


def scalars_only(x: Any, lower: Any, upper: Any) -> Any:
    return VALUE.clip(x, *(b if b is None else float(b) for b in (lower, upper)))


class SameBounds:
    """The bounds of the first call with a shape are kept."""

    def __init__(self) -> None:
        self.known: dict[Any, tuple[Limits, Limits]] = {}

    def __call__(self, x: Array, low: Limits, high: Limits) -> Array:
        return cut(x, *self.known.setdefault((x.shape, x.dtype), (low, high)))


FUNCTIONS: list[tuple[str, Fn, str]] = [
    ("symmetric by upper", symmetric, "torch clip_grad_value_"),
    ("missing lower bound is 0", none_is_zero, "Paddle ClipGradByValue"),
    ("missing lower bound is −1000", none_is_one, "common mistake"),
    ("bounds as integers", whole, "array-api#925"),
    ("scalar bounds only", scalars_only, "Elsayed"),
    ("bounds cached by shape", Value(cut=SameBounds()).clip, "state between calls"),
]

# --- weights -----------------------------------------------------------------------------


def after(change: Callable[[Any, Any], Any]) -> Fn:
    def clip(tree: Any, lower: Any, upper: Any) -> Any:
        return change(tree, VALUE.tree(tree, lower, upper))

    return clip


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Containers changed from the inside out."""
    if isinstance(tree, dict):
        return change({key: mapped(part, change) for key, part in tree.items()})
    if isinstance(tree, (list, tuple)):
        return change(type(tree)([mapped(part, change) for part in tree]))
    return tree


def reordered(order: Callable[[list[Any]], list[Any]]) -> Fn:
    def change(part: Any) -> Any:
        return {key: part[key] for key in order(list(part))} if isinstance(part, dict) else part

    return after(lambda _tree, made: mapped(made, change))


def replaced(old: type[Any], new: Callable[[Any], Any]) -> Fn:
    return after(lambda _tree, made: mapped(made, lambda p: new(p) if isinstance(p, old) else p))


def choosing(wanted: Callable[[list[Any], tuple[Any, ...], Any], bool]) -> Fn:
    """Leaves that are not wanted stay as they are."""

    def change(tree: Any, made: Any) -> Any:
        before = flatten(tree)
        pairs = zip(before, flatten(made), strict=True)
        kept = [y if wanted(before, path, x) else x.copy() for (path, x), (_, y) in pairs]
        return rebuild(made, iter(kept))

    return after(change)


def same_tree(tree: Any, made: Any) -> Any:
    """The caller's own containers get the new leaves."""
    if isinstance(tree, (dict, list)):
        for key, part in list(made.items() if isinstance(made, dict) else enumerate(made)):
            tree[key] = same_tree(tree[key], part)
        return tree
    return made


def leaf_views(tree: Any, made: Any) -> Any:
    pairs = zip(flatten(tree), flatten(made), strict=True)
    return rebuild(made, iter([x if np.array_equal(x, y) else y for (_, x), (_, y) in pairs]))


def written(tree: Any, made: Any) -> Any:
    for (_, x), (_, y) in zip(flatten(tree), flatten(made), strict=True):
        x[...] = y
    return made


def flat_list(tree: Any, lower: Any, upper: Any) -> Any:
    return [VALUE.clip(x, lower, upper) for _, x in flatten(tree)]


def by_fan_in(tree: Any, lower: Any, upper: Any) -> Any:
    """Elsayed: bounds / √fan-in for matrices."""
    made = [
        VALUE.clip(x, lower / np.sqrt(x.shape[-1]), upper / np.sqrt(x.shape[-1]))
        if x.ndim > 1 and lower is not None and upper is not None and np.ndim(lower) == np.ndim(upper) == 0
        else VALUE.clip(x, lower, upper)
        for _, x in flatten(tree)
    ]
    return rebuild(tree, iter(made))


TREES: list[tuple[str, Fn, str]] = [
    ("keys sorted", reordered(lambda keys: sorted(keys, key=str)), "jax.tree"),
    ("keys reversed", reordered(lambda keys: keys[::-1]), "common mistake"),
    ("tuples become lists", replaced(tuple, list), "alf#448"),
    ("lists become tuples", replaced(list, tuple), "alf#448"),
    ("integer keys become text", replaced(dict, lambda p: {str(k): v for k, v in p.items()}), "json"),
    ("last leaf left", choosing(lambda all_, path, _x: path != all_[-1][0]), "Elsayed D34"),
    ("first leaf left", choosing(lambda all_, path, _x: path != all_[0][0]), "common mistake"),
    ("1-D leaves left", choosing(lambda _all, _path, x: x.ndim > 1), "WassersteinGAN#18"),
    ("only the top level", choosing(lambda _all, path, _x: len(path) < 2), "user-asks §11"),
    ("only two levels", choosing(lambda _all, path, _x: len(path) < 3), "common mistake"),
    ("lists in dicts left", choosing(lambda _all, path, _x: not isinstance(path[-1], int)), "common mistake"),
    ("bias left", choosing(lambda _all, path, _x: "b" not in str(path[-1])), "WassersteinGAN#18"),
    ("caller's containers filled", after(same_tree), "mxnet#3466"),
    ("leaves themselves when inside", after(leaf_views), "array-api-compat PR#382"),
    ("leaves written", after(written), "WGAN main.py"),
    ("flat list", flat_list, "alf#448"),
    ("bounds by fan-in", by_fan_in, "Elsayed 2024"),
    ("norm scaled", Value(cut=rescaled).tree, "InfoGAIL#20"),
    ("float64 leaves", Value(cut=lambda x, a, b: cut(x, a, b).astype(float)).tree, "numpy#24976"),
    ("upper bound forgotten", Value(cut=lambda x, a, _b: cut(x, a, None)).tree, "common mistake"),
    ("outside becomes 0", Value(cut=masked).tree, "common mistake"),
]


def wheres(path_of: Callable[[tuple[Any, ...]], Any], rest: Callable[[Any], Any], keep: bool = True) -> Fn:
    """A clip whose `where` is asked with another path, or whose other leaves are treated differently."""

    def clip(tree: Any, lower: Any, upper: Any, *, where: Any = None) -> Any:
        made = []
        for path, x in flatten(tree):
            chosen = where is None or bool(where(path_of(path), x)) == keep
            made.append(VALUE.clip(x, lower, upper) if chosen else rest(x))
        return rebuild(tree, iter(made))

    return clip


WHERES: list[tuple[str, Fn, str]] = [
    ("where inverted", wheres(lambda p: p, np.array, keep=False), "WassersteinGAN#18"),
    ("where gets a string", wheres(lambda p: ".".join(map(str, p)), np.array), "nnodely#107"),
    ("where gets the last key", wheres(lambda p: p[-1:], np.array), "common mistake"),
    (
        "where gets no indices",
        wheres(lambda p: tuple(k for k in p if isinstance(k, str)), np.array),
        "optree paths",
    ),
    ("where gets text for indices", wheres(lambda p: tuple(map(str, p)), np.array), "json"),
    ("other leaves are the input's", wheres(lambda p: p, lambda x: x), "WassersteinGAN#18"),
    ("other leaves become zero", wheres(lambda p: p, np.zeros_like), "common mistake"),
    ("other leaves become None", wheres(lambda p: p, lambda _x: None), "larq#33"),
]

BUGS = [
    *(Bug(name, ONE, "rounded", Value(cut=fn).clip, thread) for name, fn, thread in CUTS),
    *(Bug(name, ONE, "rounded", fn, thread) for name, fn, thread in FUNCTIONS),
    *(Bug(name, ALL, "rounded", fn, thread) for name, fn, thread in TREES + WHERES),
    Bug("bfloat16 by way of float16", ONE, "robust", Value(cut=detour16).clip, "jax#11014"),
]
