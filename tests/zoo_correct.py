"""Right implementations: a kit that accuses one of them at its level raises a false alarm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import (
    L1,
    L2,
    MEASURES,
    WIDE,
    Array,
    Arrays,
    Correct,
    Norm,
    components,
    flat,
    flatten,
    grouped,
    grouped_norm,
    kept_tree,
    leaf_of,
    limit_of,
    native,
    plain,
    plain_ratio,
    rebuild,
)
from zoo_exact import exact_group, exact_norm
from zoo_values import VALUE

import clipcore

# --- level rounded: as a careful practitioner writes them -----------------------------------------------


def pairwise32(arrays: Arrays) -> float:
    """np.sum in at least float32, as most good NumPy code has it."""
    total = 0.0
    for x in arrays:
        wide = x.astype(np.result_type(np.float32, WIDE if x.dtype == np.float64 else np.float32))
        total += float(np.sum(wide * wide))
    return math.sqrt(total)


def pairwise32_l1(arrays: Arrays) -> float:
    return sum(float(np.sum(abs(x.astype(WIDE if x.dtype == np.float64 else np.float32)))) for x in arrays)


def norm_of_norms(arrays: Arrays) -> Any:
    return np.linalg.norm([np.linalg.norm(components(x)) for x in arrays])


def dot(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.dot(components(x), components(x))) for x in arrays))


def einsum(arrays: Arrays) -> float:
    return math.sqrt(sum(float(np.einsum("i,i->", components(x), components(x))) for x in arrays))


def naive(x: Array, max_norm: float) -> Array:
    """Five lines for ordinary inputs."""
    wide = x.astype(np.float64)
    norm = float(np.sqrt((wide * wide).sum()))
    if norm <= max_norm:
        return x.copy()
    return (wide * (max_norm / norm)).astype(x.dtype)


def naive_l1(x: Array, max_norm: float) -> Array:
    norm = math.fsum(abs(v) for v in x.astype(np.float64).ravel().tolist())
    factor = min(1.0, max_norm / norm) if norm else 1.0
    return (x.astype(np.float64) * factor).astype(x.dtype)


def naive_global(arrays: list[Array], max_norm: float) -> list[Array]:
    """Only the list: the norm need not be returned."""
    norm = math.sqrt(math.fsum(float(v) ** 2 for x in arrays for v in x.ravel()))
    factor = min(1.0, max_norm / norm) if norm else 1.0
    return [(x.astype(np.float64) * factor).astype(x.dtype) for x in arrays]


def own_type(limit: float, norm: float) -> float:
    return min(1.0, limit / norm) if norm else 1.0


def cast_factor(x: Array, factor: tuple[float, int]) -> Array:
    """The factor in the leaf's own dtype: 2 ulp at most, which level rounded allows."""
    kind = native(x.dtype)
    return np.asarray(x * np.array(math.ldexp(*factor)).astype(kind)).astype(x.dtype)


def minimum_maximum(x: Array, lower: Any, upper: Any) -> Array:
    result = x.copy()
    if lower is not None:
        result = np.maximum(result, np.asarray(lower).astype(x.dtype))
    if upper is not None:
        result = np.minimum(result, np.asarray(upper).astype(x.dtype))
    return result


def recursive_weights(tree: Any, lower: float, upper: float) -> Any:
    if isinstance(tree, dict):
        return {key: recursive_weights(part, lower, upper) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(recursive_weights(part, lower, upper) for part in tree)
    return minimum_maximum(tree, lower, upper)


def torch_factor(limit: float, norm: float) -> float:
    return min(1.0, limit / (norm + 1e-6))


def torch_global(arrays: list[Array], max_norm: float) -> tuple[list[Array], float]:
    norm = float(np.linalg.norm(flat(arrays)))
    factor = torch_factor(max_norm, norm)
    return [(x.astype(np.float64) * factor).astype(x.dtype) for x in arrays], norm


ROUNDED = [
    Correct("five lines in float64", "clip_by_l2_norm", "rounded", naive),
    Correct("pairwise sum in float32", "clip_by_l2_norm", "rounded", Norm(measure=plain(pairwise32)).clip),
    Correct("dot in float64", "clip_by_l2_norm", "rounded", Norm(measure=plain(dot)).clip),
    Correct("einsum in float64", "clip_by_l2_norm", "rounded", Norm(measure=plain(einsum)).clip),
    Correct(
        "np.linalg.norm of the flat array",
        "clip_by_l2_norm",
        "rounded",
        Norm(measure=plain(norm_of_norms)).clip,
    ),
    Correct("factor cast to the leaf's dtype", "clip_by_l2_norm", "rounded", Norm(apply=cast_factor).clip),
    Correct("math.fsum", "clip_by_l1_norm", "rounded", naive_l1),
    Correct(
        "pairwise sum in float32, L1", "clip_by_l1_norm", "rounded", Norm(measure=plain(pairwise32_l1)).clip
    ),
    Correct("list only, fsum", "clip_by_global_norm", "rounded", naive_global),
    Correct("norm of norms", "clip_by_global_norm", "rounded", Norm(measure=plain(norm_of_norms)).tree),
    Correct("pairwise float32", "clip_by_global_norm", "rounded", Norm(measure=plain(pairwise32)).tree),
    Correct("min(1, C/n), global", "clip_by_global_norm", "rounded", Norm(factor=plain_ratio(own_type)).tree),
    Correct("np.minimum, np.maximum", "clip_by_value", "rounded", minimum_maximum),
    Correct("recursion", "clip_weights", "rounded", recursive_weights),
    Correct("pairwise float32 norm", "l2_norm", "rounded", Norm(measure=plain(pairwise32)).norm),
    Correct("pairwise float32 L1 norm", "l1_norm", "rounded", Norm(measure=plain(pairwise32_l1)).norm),
    Correct(
        "norm of norms, global_norm", "global_norm", "rounded", Norm(measure=plain(norm_of_norms)).tree_norm
    ),
    Correct("torch", "clip_by_global_norm", "rounded", torch_global, "torch"),
    Correct(
        "torch on the robust base",
        "clip_by_l2_norm",
        "rounded",
        Norm(factor=plain_ratio(torch_factor)).clip,
        "torch",
    ),
]

# --- level robust: the whole edge table, rounding to nearest ----------------------------------------------


def _full(order: float) -> Callable[..., Any]:
    recipe = Norm(measure=MEASURES[order])

    def clip(x: Any, max_norm: Any, *, axis: Any = None, nonfinite: str = "propagate") -> Array:
        limit = limit_of(max_norm)
        array = leaf_of(x)
        if nonfinite == "raise" and not np.isfinite(components(array)).all():
            raise FloatingPointError("x is not finite")

        def one(part: Array) -> Array:
            if nonfinite == "zero" and not np.isfinite(components(part)).all():
                return np.zeros_like(part)
            return recipe.group([part], limit)[0]

        return grouped(one, array, axis)

    return clip


def _full_norm(order: float) -> Callable[..., Any]:
    recipe = Norm(measure=MEASURES[order])

    def norm(x: Any, *, axis: Any = None) -> Array:
        return grouped_norm(recipe.norm, leaf_of(x), axis)

    return norm


def full_global(tree: Any, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
    return Norm(measure=MEASURES[ord]).tree(tree, max_norm)


def full_global_norm(tree: Any, *, ord: float = 2) -> Any:  # noqa: A002
    return Norm(measure=MEASURES[ord]).tree_norm(tree)


ROBUST = [
    Correct("scaled float64", "clip_by_l2_norm", "robust", L2.clip),
    Correct("scaled float64 with axis and nonfinite", "clip_by_l2_norm", "robust", _full(2)),
    Correct("scaled float64, L1", "clip_by_l1_norm", "robust", L1.clip),
    Correct("scaled float64 with axis and nonfinite, L1", "clip_by_l1_norm", "robust", _full(1)),
    Correct("scaled float64, global", "clip_by_global_norm", "robust", L2.tree),
    Correct("scaled float64 with ord", "clip_by_global_norm", "robust", full_global),
    Correct("scaled norm, axis", "l2_norm", "robust", _full_norm(2)),
    Correct("scaled L1 norm, axis", "l1_norm", "robust", _full_norm(1)),
    Correct("scaled norm of a tree", "global_norm", "robust", full_global_norm),
]

# --- level exact ------------------------------------------------------------------------------------------


def exact_clip(order: float) -> Callable[..., Any]:
    def clip(x: Any, max_norm: Any) -> Array:
        limit = limit_of(max_norm)
        return exact_group([leaf_of(x)], limit, order)[0]

    return clip


def exact_global(tree: Any, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
    limit = limit_of(max_norm)
    kept = kept_tree(tree)
    arrays = [leaf_of(x) for _, x in flatten(kept)]
    return rebuild(kept, iter(exact_group(arrays, limit, ord))), exact_norm(arrays, ord)


def exact_l2_norm(x: Any) -> Array:
    return exact_norm([leaf_of(x)], 2)


def exact_l1_norm(x: Any) -> Array:
    return exact_norm([leaf_of(x)], 1)


def exact_global_norm(tree: Any, *, ord: float = 2) -> Array:  # noqa: A002
    return exact_norm([leaf_of(x) for _, x in flatten(kept_tree(tree))], ord)


def even_quanta(quanta: int, _index: int, _power: int) -> int:
    """The last bit is always dropped: less than 2 ulp short, which every law allows."""
    return quanta & ~1 if quanta > 3 else quanta


def even_clip(x: Any, max_norm: Any) -> Array:
    limit = limit_of(max_norm)
    return exact_group([leaf_of(x)], limit, 2, even_quanta)[0]


OWN = ("clip_by_value", "clip_by_l1_norm", "clip_by_l2_norm", "clip_by_global_norm", "clip_weights")
OWN_NORMS = ("l1_norm", "l2_norm", "global_norm")

EXACT = [
    *(Correct(f"clipcore.{name}", name, "exact", getattr(clipcore, name)) for name in OWN + OWN_NORMS),
    Correct("integers, rounded towards zero", "clip_by_l2_norm", "exact", exact_clip(2)),
    Correct("integers, rounded towards zero, L1", "clip_by_l1_norm", "exact", exact_clip(1)),
    Correct("integers, rounded towards zero, global", "clip_by_global_norm", "exact", exact_global),
    Correct("integers, last bit always 0", "clip_by_l2_norm", "exact", even_clip),
    Correct("integers, norm", "l2_norm", "exact", exact_l2_norm),
    Correct("integers, L1 norm", "l1_norm", "exact", exact_l1_norm),
    Correct("integers, global norm", "global_norm", "exact", exact_global_norm),
    Correct("bounds by directed rounding", "clip_by_value", "exact", VALUE.clip),
    Correct("bounds by directed rounding, weights", "clip_weights", "exact", VALUE.tree_where),
]

CORRECT = [*ROUNDED, *ROBUST, *EXACT]
