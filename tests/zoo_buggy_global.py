"""Clips by the global norm that are wrong for ordinary inputs (level rounded)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import (
    L2,
    MEASURES,
    Array,
    Arrays,
    Bug,
    Fn,
    Norm,
    Pair,
    components,
    flat,
    limit_of,
    measure_l1,
    measure_l2,
    measure_max,
    native,
    plain,
    plain_ratio,
    value_of,
)

List = list[Array]


def sizes(arrays: Arrays) -> list[float]:
    return [value_of(measure_l2([x])) for x in arrays]


# --- the norm: the factor follows it --------------------------------------------------------------


class Largest:
    """The largest norm so far: state that leaks between calls."""

    def __init__(self) -> None:
        self.seen = 0.0

    def __call__(self, arrays: Arrays) -> float:
        self.seen = max(self.seen, value_of(measure_l2(arrays)))
        return self.seen


class ByShapes:
    def __init__(self) -> None:
        self.known: dict[Any, float] = {}

    def __call__(self, arrays: Arrays) -> float:
        return self.known.setdefault(
            tuple((x.shape, str(x.dtype)) for x in arrays), math.hypot(*sizes(arrays))
        )


def deduplicated(arrays: Arrays) -> float:
    return math.hypot(*sizes(list({id(x): x for x in arrays}.values())))


def by_value(arrays: Arrays) -> float:
    """Leaves of equal shape and content counted once."""
    return math.hypot(*sizes(list({(x.shape, x.tobytes()): x for x in arrays}.values())))


def leaf_dtype(arrays: Arrays) -> float:
    total = sum(float(np.sum(x * x)) for x in arrays)
    return math.sqrt(total)


def rounded_norms(arrays: Arrays) -> float:
    """Each leaf's norm in the leaf's dtype, as torch returns them."""
    pairs = zip(sizes(arrays), arrays, strict=True)
    return math.hypot(*(float(np.array(n).astype(native(x.dtype))) for n, x in pairs))


def truncated_total(arrays: Arrays) -> float:
    """A total that started as an integer stays one."""
    return math.sqrt(sum(int(n * n) for n in sizes(arrays)))


def blocks_of_eight(arrays: Arrays) -> float:
    """Leaves in launches of eight; the rest is forgotten."""
    whole = len(arrays) // 8 * 8 if len(arrays) > 8 else len(arrays)
    return math.hypot(*sizes(arrays[:whole]))


MEASURED: list[tuple[str, Callable[[Arrays], Any], str]] = [
    ("sum of norms", lambda a: sum(sizes(a)), "MXNet D31"),
    ("largest leaf norm", lambda a: max(sizes(a), default=0.0), "tt-metal#55587"),
    ("norm of the last leaf", lambda a: sizes(a)[-1] if a else 0.0, "common mistake"),
    ("first leaf skipped", lambda a: math.hypot(*sizes(a[1:])), "common mistake"),
    ("last leaf skipped", lambda a: math.hypot(*sizes(a[:-1])), "common mistake"),
    ("norms averaged", lambda a: np.mean(sizes(a)) if a else 0.0, "DeepSpeed#8475"),
    (
        "RMS over all elements",
        lambda a: np.sqrt(np.mean(flat(a) ** 2)) if a else 0.0,
        "optax clip_by_block_rms",
    ),
    ("squares of squares", lambda a: math.hypot(*(n * n for n in sizes(a))), "entrenar#311"),
    ("root forgotten", lambda a: sum(n * n for n in sizes(a)), "entrenar#311"),
    ("L1 in place of L2", lambda a: value_of(measure_l1(a)), "pytorch PR#133406"),
    (
        "norm of leaf means",
        lambda a: math.hypot(*(float(np.mean(components(x))) for x in a)),
        "common mistake",
    ),
    ("1-D leaves not counted", lambda a: math.hypot(*sizes([x for x in a if x.ndim > 1])), "Elsayed D34"),
    ("same array counted once", deduplicated, "Megatron#7227"),
    ("equal arrays counted once", by_value, "Megatron#7227"),
    ("leaf dtype sums", leaf_dtype, "Paddle D35"),
    ("leaf norms in the leaf dtype", rounded_norms, "torchtitan#4135"),
    ("integer total", truncated_total, "common mistake"),
    ("leaves beyond blocks of eight", blocks_of_eight, "pytorch PR#91846"),
    ("largest norm so far", Largest(), "state between calls"),
    ("norm cached by shapes", ByShapes(), "state between calls"),
    ("√leaves too large", lambda a: math.hypot(*sizes(a)) * math.sqrt(max(len(a), 1)), "pytorch#88955"),
]

FACTORS: list[tuple[str, Callable[[float, float], float | None], str, str]] = [
    ("eps 1e-6", lambda c, n: min(1.0, c / (n + 1e-6)), "goodfire-ai/spd#643", "contract"),
    ("eps 1e-12", lambda c, n: min(1.0, c / (n + 1e-12)), "common mistake", "contract"),
    (
        "c * min(1/n, 1/c)",
        lambda c, n: c * min(1 / n, 1 / c) if n and c else 1.0,
        "TensorFlow D39",
        "contract",
    ),
    ("c / max(n, 1)", lambda c, n: c / max(n, 1) if n > c else 1.0, "common mistake", "contract"),
    ("torch: eps forgotten", lambda c, n: min(1.0, c / n) if n else 1.0, "goodfire-ai/spd#643", "torch"),
    ("torch: eps added to C", lambda c, n: min(1.0, (c + 1e-6) / n) if n else 1.0, "common mistake", "torch"),
    ("torch: eps of both", lambda c, n: min(1.0, (c + 1e-6) / (n + 1e-6)), "common mistake", "torch"),
    ("torch: eps 1e-8", lambda c, n: min(1.0, c / (n + 1e-8)), "MXNet", "torch"),
    (
        "torch: eps relative",
        lambda c, n: min(1.0, c / (n * (1 + 1e-6))) if n else 1.0,
        "apex PR#1468",
        "torch",
    ),
    (
        "torch: eps inside the root",
        lambda c, n: min(1.0, c / math.sqrt(n * n + 1e-6)),
        "common mistake",
        "torch",
    ),
    ("torch: eps subtracted", lambda c, n: min(1.0, c / max(n - 1e-6, 1e-9)), "common mistake", "torch"),
    ("torch: never clamped", lambda c, n: c / (n + 1e-6), "pytorch#151554", "torch"),
    ("torch: eps twice", lambda c, n: min(1.0, c / (n + 2e-6)), "pytorch#149768", "torch"),
    ("torch: factor squared", lambda c, n: min(1.0, c / (n + 1e-6)) ** 2, "D29", "torch"),
]
# --- the norm that is returned --------------------------------------------------------------------

Report = Callable[[Arrays, Arrays, float, Pair], Any]
REPORTS: list[tuple[str, Report, str]] = [
    ("norm after clipping", lambda _a, b, _c, _n: L2.tree_norm(b), "LlamaFactory#3996"),
    ("norm clipped to C", lambda _a, _b, c, n: np.array(min(value_of(n), c)), "LlamaFactory#3996"),
    (
        "norm of the last leaf only",
        lambda a, _b, _c, _n: L2.norm(a[-1]) if a else np.array(0.0),
        "torchtitan#766",
    ),
    ("norm squared", lambda _a, _b, _c, n: np.array(value_of(n) ** 2), "entrenar#311"),
    (
        "factor instead of the norm",
        lambda _a, _b, c, n: np.array(min(1.0, c / (value_of(n) or 1))),
        "transformers",
    ),
    ("C instead of the norm", lambda _a, _b, c, _n: np.array(c), "common mistake"),
    ("norm in float16", lambda _a, _b, _c, n: np.array(value_of(n), np.float16), "torchtitan#4135"),
    ("norm / √leaves", lambda a, _b, _c, n: np.array(value_of(n) / math.sqrt(len(a) or 1)), "torchtune#2240"),
    ("norm in bits of 1e-5", lambda _a, _b, _c, n: np.array(round(value_of(n), 3)), "common mistake"),
]

# --- containers and leaves ------------------------------------------------------------------------


def after(change: Callable[[List, List], Any]) -> Fn:
    """The right clip, its list changed afterwards."""

    def clip(arrays: List, max_norm: Any) -> Any:
        clipped, norm = L2.tree(arrays, max_norm)
        return change(list(arrays), clipped), norm

    return clip


def zip_short(before: List, clipped: List) -> List:
    return [y for y, _ in zip(clipped, before[1:], strict=False)] if len(before) > 1 else clipped


def last_kept(before: List, clipped: List) -> List:
    return [*clipped[:-1], *(x.copy() for x in before[-1:])]


def biases_kept(before: List, clipped: List) -> List:
    return [y if y.ndim > 1 or len(before) == 1 else x.copy() for x, y in zip(before, clipped, strict=True)]


def originals(before: List, clipped: List) -> List:
    """An untouched leaf is handed back itself."""
    return [x if np.array_equal(x, y) else y for x, y in zip(before, clipped, strict=True)]


def written(before: List, clipped: List) -> List:
    for x, y in zip(before, clipped, strict=True):
        x[...] = y
    return clipped


def zero_leaves_dropped(_before: List, clipped: List) -> List:
    return [y for y in clipped if y.any()]


def in_one_buffer(_before: List, clipped: List) -> List:
    """Flat leaves from a fused buffer, shapes forgotten."""
    return [y.ravel() for y in clipped]


def shuffled(_before: List, clipped: List) -> List:
    return sorted(clipped, key=lambda y: y.size)


def per_leaf(arrays: List, max_norm: Any) -> Any:
    return [L2.clip(x, max_norm) for x in arrays], L2.tree_norm(arrays)


def per_leaf_share(arrays: List, max_norm: Any) -> Any:
    """C/√K for each of K leaves."""
    share = limit_of(max_norm) / math.sqrt(max(len(arrays), 1))
    return [L2.clip(x, share) for x in arrays], L2.tree_norm(arrays)


def leaf_then_global(arrays: List, max_norm: Any) -> Any:
    """Per leaf first: what is clipped then is no longer what was measured."""
    return L2.tree([L2.clip(x, max_norm) for x in arrays], max_norm)[0], L2.tree_norm(arrays)


def own_units(arrays: List, max_norm: Any) -> Any:
    """Each leaf divided by its own norm; NaN for a zero leaf."""
    limit, norm = limit_of(max_norm), L2.tree_norm(arrays)
    if float(norm) <= limit:
        return L2.tree(arrays, max_norm)
    with np.errstate(all="ignore"):
        made = [
            x.astype(float) / n * (n * limit / float(norm))
            for x, n in zip(arrays, sizes(arrays), strict=True)
        ]
    return [y.astype(x.dtype) for x, y in zip(arrays, made, strict=True)], norm


def torch_per_leaf(arrays: List, max_norm: Any) -> Any:
    made = []
    for x, norm in zip(arrays, sizes(arrays), strict=True):
        made.append((x.astype(float) * min(1.0, limit_of(max_norm) / (norm + 1e-6))).astype(x.dtype))
    return made, L2.tree_norm(arrays)


def torch_eps_per_leaf(arrays: List, max_norm: Any) -> Any:
    """Every leaf brings its eps: pytorch#149768."""
    norm = value_of(measure_l2(arrays)) + 1e-6 * (len(arrays) + 1)
    factor = min(1.0, limit_of(max_norm) / norm)
    return [(x.astype(float) * factor).astype(x.dtype) for x in arrays], L2.tree_norm(arrays)


class Remembered:
    """A factor is kept once something was clipped."""

    def __init__(self) -> None:
        self.factor = 1.0

    def __call__(self, arrays: List, max_norm: Any) -> Any:
        norm = L2.tree_norm(arrays)
        if float(norm) > limit_of(max_norm):
            self.factor = limit_of(max_norm) / float(norm)
        return [(x.astype(float) * self.factor).astype(x.dtype) for x in arrays], norm


def late_binding(arrays: List, max_norm: Any) -> Any:
    """Closures made in a loop all see the last leaf."""
    clipped, norm = L2.tree(arrays, max_norm)
    makers: list[Callable[[], Array]] = []
    for y in clipped:
        makers.append(lambda: y)  # noqa: B023
    return [make() for make in makers], norm


CONTAINERS: list[tuple[str, Fn, str]] = [
    ("list becomes a tuple", after(lambda _x, y: tuple(y)), "alf#448"),
    ("list becomes a generator", after(lambda _x, y: (leaf for leaf in y)), "torchtitan#1258"),
    ("list becomes one array", after(lambda _x, y: np.concatenate([leaf.ravel() for leaf in y])), "alf#448"),
    ("list becomes a dict", after(lambda _x, y: dict(enumerate(y))), "alf#448"),
    ("list reversed", after(lambda _x, y: y[::-1]), "common mistake"),
    ("list sorted by size", after(shuffled), "common mistake"),
    ("list cut by zip", after(zip_short), "zip truncation"),
    ("last leaf not scaled", after(last_kept), "common mistake"),
    ("1-D leaves not scaled", after(biases_kept), "Elsayed D34"),
    ("leaves themselves when inside", after(originals), "array-api-compat PR#382"),
    ("leaves written", after(written), "pytorch#46849"),
    ("one leaf too many", after(lambda _x, y: [*y, *y[:1]]), "common mistake"),
    ("zero leaves dropped", after(zero_leaves_dropped), "Paddle D35"),
    ("shapes forgotten", after(in_one_buffer), "fused buffers"),
    (
        "float64 everywhere",
        after(lambda _x, y: [leaf.astype(float) for leaf in y]),
        "tensorflow Pack, numpy#24976",
    ),
    ("per leaf", per_leaf, "keras#13575, AutoClip D32"),
    ("per leaf, C/√K", per_leaf_share, "optax per_example_layer_norm_clip"),
    ("per leaf, then global", leaf_then_global, "user-asks §9"),
    ("each leaf by its own norm", own_units, "tensorflow#22048"),
    ("factor remembered", Remembered().__call__, "state between calls"),
]


def ord_ignored(arrays: List, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002, ARG001
    return L2.tree(arrays, max_norm)


def ord_squares(arrays: List, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
    """DeepSpeed: squares of leaf norms whatever ord is, then the root of ord."""
    if ord not in (1, 2):
        return Norm(measure_max).tree(arrays, max_norm)
    leaf = measure_l2 if ord == 2 else measure_l1
    recipe = Norm(plain(lambda a: sum(value_of(leaf([x])) ** 2 for x in a) ** (1 / ord)))
    return recipe.tree(arrays, max_norm)


def ord_inf_signed(arrays: List, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
    signed: Callable[[Arrays], Pair] = plain(lambda a: max(float(np.max(flat(a), initial=0.0)), 0.0))
    return Norm(MEASURES[ord] if ord in (1, 2) else signed).tree(arrays, max_norm)


def ord_first_leaf(arrays: List, *, ord: float = 2) -> Any:  # noqa: A002
    """The largest element of the first leaf only."""
    return Norm(MEASURES[ord]).tree_norm(arrays if ord in (1, 2) else arrays[:1])


def _others() -> list[Bug]:
    clip, norm, level = "clip_by_global_norm", "global_norm", "rounded"
    total = Norm(plain(lambda a: sum(sizes(a))))
    return [
        Bug("ord ignored", clip, level, ord_ignored, "DeepSpeed D1"),
        Bug("squares for every ord", clip, level, ord_squares, "DeepSpeed D1"),
        Bug("maximum without abs", clip, level, ord_inf_signed, "tt-metal#55587"),
        Bug("ord inf of the first leaf", norm, level, ord_first_leaf, "common mistake"),
        Bug("sum of norms, norm", norm, level, total.tree_norm, "MXNet D31"),
        Bug("leaf dtype, norm", norm, level, Norm(plain(rounded_norms)).tree_norm, "torchtitan#4135"),
        Bug("last leaf, norm", norm, level, Norm(lambda a: measure_l2(a[-1:])).tree_norm, "torchtitan#766"),
        Bug("torch: per leaf", clip, level, torch_per_leaf, "keras#13575", "torch"),
        Bug("torch: eps per leaf", clip, level, torch_eps_per_leaf, "pytorch#149768", "torch"),
        Bug("closures see the last leaf", clip, level, late_binding),
    ]


NAME = "clip_by_global_norm"
BUGS = [
    *(Bug(name, NAME, "rounded", Norm(plain(fn)).tree, thread) for name, fn, thread in MEASURED),
    *(
        Bug(name, NAME, "rounded", Norm(factor=plain_ratio(fn)).tree, t, formula)
        for name, fn, t, formula in FACTORS
    ),
    *(Bug(name, NAME, "rounded", Norm(report=fn).tree, thread) for name, fn, thread in REPORTS),
    *(Bug(name, NAME, "rounded", fn, thread) for name, fn, thread in CONTAINERS),
    *_others(),
]
