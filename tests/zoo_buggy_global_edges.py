"""Clips by the global norm that are good for ordinary inputs and wrong at the edges (level robust)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
    flatten,
    kept_tree,
    leaf_of,
    limit_of,
    measure_l2,
    native,
    plain,
    poisoned,
    rebuild,
    scaled,
    value_of,
)
from zoo_buggy_norm_edges import (
    cast_factor,
    flushed,
    instead,
    left_alone,
    mixed,
    naive32,
    naive64,
    negative,
    number,
    signed_ratio,
    zero_over_zero,
)

NAME = "clip_by_global_norm"

# --- trees ------------------------------------------------------------------------------------------------


def with_list(change: Callable[[list[Any]], Any]) -> Fn:
    """The tree is changed first; the right clip gets the rest."""

    def clip(tree: Any, max_norm: Any) -> Any:
        return L2.tree(change(tree), max_norm)

    return clip


def none_fails(tree: Any) -> Any:
    kept = kept_tree(tree)
    for leaf in kept:
        leaf.shape  # noqa: B018
    return kept


def exhausted(tree: Any, max_norm: Any) -> Any:
    """Paddle D2: the norm consumes the generator, the second loop is empty."""
    norm = L2.tree_norm(tree)
    if not isinstance(tree, Iterator):
        return L2.tree(tree, max_norm)
    return [L2.clip(x, max_norm) for x in tree], norm


def empty_fails(tree: Any) -> Any:
    kept = kept_tree(tree)
    np.stack([np.asarray(value_of(measure_l2([leaf_of(x)]))) for _, x in flatten(kept)])
    return kept


def empty_leaf_fails(tree: Any) -> Any:
    kept = kept_tree(tree)
    for _, leaf in flatten(kept):
        if not np.size(leaf):
            np.max(np.asarray(leaf))
    return kept


def unknown_dropped(tree: Any) -> Any:
    return [x for x in kept_tree(tree) if x is None or isinstance(x, (np.ndarray, np.generic))]


def unknown_kept(tree: Any, max_norm: Any) -> Any:
    """Strings and numbers pass through."""
    kept = list(kept_tree(tree))
    known = [x if isinstance(x, (np.ndarray, np.generic)) else None for x in kept]
    clipped, norm = L2.tree(known, max_norm)
    return [x if y is None else y for x, y in zip(kept, clipped, strict=True)], norm


def numbers_as_arrays(tree: Any) -> Any:
    return [np.asarray(x, float) if isinstance(x, (int, float)) else x for x in kept_tree(tree)]


def integers_as_floats(tree: Any) -> Any:
    return [
        x.astype(float) if getattr(x, "dtype", np.dtype(float)).kind in "iu" else x for x in kept_tree(tree)
    ]


def none_to_zero(tree: Any) -> Any:
    return [np.zeros(()) if x is None else x for x in kept_tree(tree)]


def wrong_error(tree: Any) -> Any:
    kept = kept_tree(tree)
    for _, leaf in flatten(kept):
        if not isinstance(leaf, (np.ndarray, np.generic)):
            raise ValueError("not an array")
    return kept


TREES: list[tuple[str, Fn, str]] = [
    ("None fails", with_list(none_fails), "udacity/deep-learning#43"),
    ("None dropped", with_list(lambda t: [x for x in kept_tree(t) if x is not None]), "Paddle D35"),
    ("None becomes zero", with_list(none_to_zero), "deepspeech.pytorch#20"),
    ("generator used up", exhausted, "Paddle D2, torchtitan#1258"),
    ("empty list fails", with_list(empty_fails), "pytorch#35753, Keras D21"),
    ("empty leaf fails", with_list(empty_leaf_fails), "torchrec#3891"),
    (
        "empty leaf dropped",
        with_list(lambda t: [x for x in kept_tree(t) if np.size(x) or x is None]),
        "pytorch D28",
    ),
    ("unknown leaves dropped", with_list(unknown_dropped), "keras#3859"),
    ("unknown leaves kept", unknown_kept, "keras#18985"),
    ("numbers taken as arrays", with_list(numbers_as_arrays), "common mistake"),
    ("integers taken as floats", with_list(integers_as_floats), "MLX D36"),
    ("ValueError for a wrong leaf", with_list(wrong_error), "common mistake"),
]

# --- mixed dtypes -----------------------------------------------------------------------


def common_dtype(arrays: Arrays) -> Any:
    known = [x.dtype for x in arrays if x.dtype.kind != "V"]
    return np.result_type(*known) if known and len(known) == len(arrays) else np.dtype(np.float64)


def promoted(tree: Any, max_norm: Any) -> Any:
    clipped, norm = L2.tree(tree, max_norm)
    arrays = [y for _, y in flatten(clipped)]
    if len({y.dtype for y in arrays}) < 2:
        return clipped, norm
    wide = common_dtype(arrays)
    return rebuild(clipped, iter([y.astype(wide) for y in arrays])), norm


def first_dtype(tree: Any, max_norm: Any) -> Any:
    clipped, norm = L2.tree(tree, max_norm)
    arrays = [y for _, y in flatten(clipped)]
    with np.errstate(all="ignore"):
        return rebuild(clipped, iter([y.astype(arrays[0].dtype) for y in arrays])), norm


def refuses_mixed(tree: Any, max_norm: Any) -> Any:
    kept = kept_tree(tree)
    if len({leaf_of(x).dtype for _, x in flatten(kept)}) > 1:
        raise TypeError("all leaves must have one dtype")
    return L2.tree(kept, max_norm)


def first_dtype_norm(arrays: Arrays) -> Any:
    """The total lives in the first leaf's dtype, where leaves differ."""
    if len({x.dtype for x in arrays}) < 2:
        return value_of(measure_l2(arrays))
    kind = arrays[0].real.dtype.type
    total = kind(0)
    for x in arrays:
        total = kind(float(total) + float(np.sum(np.square(components(x)))))
    return math.sqrt(float(total))


def norm_in_leaf_dtype(tree: Any, max_norm: Any) -> Any:
    """Optax D13: the norm cast to each leaf's dtype is inf for float16, so the leaf 0."""
    clipped, norm = L2.tree(tree, max_norm)
    if limit_of(max_norm) >= float(norm) or float(norm) < 65520:
        return clipped, norm
    arrays = [y for _, y in flatten(clipped)]
    return rebuild(clipped, iter([y * np.float16(0) if y.dtype == np.float16 else y for y in arrays])), norm


def inexact_mixed(x: Array, factor: Pair) -> Array:
    """The factor in float32, for float64 leaves too, once it is small."""
    small = float(np.float32(value_of(factor)))
    return scaled(x, (small, 0)) if factor[1] < -20 else scaled(x, factor)


# --- non-finite leaves, limits, range --------------------------------------------------


def only_that_leaf(arrays: Arrays) -> list[Array] | None:
    if poisoned(arrays) is None:
        return None
    return [(poisoned([x]) or [x.copy()])[0] for x in arrays]


def first_leaf_seen(arrays: Arrays) -> list[Array] | None:
    return poisoned(arrays) if poisoned(arrays[:1]) else left_alone(arrays)


def last_leaf_seen(arrays: Arrays) -> list[Array] | None:
    return poisoned(arrays) if poisoned(arrays[-1:]) else left_alone(arrays)


def python_maximum(arrays: Arrays) -> Any:
    """max(5, nan) is 5: NaN counts only in front."""
    return max((float(np.max(abs(components(x)), initial=0.0)) for x in arrays), default=0.0)


def ord_inf_python(tree: Any, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
    if ord in (1, 2):
        return Norm(MEASURES[ord]).tree(tree, max_norm)
    recipe = Norm(MEASURES[ord])
    arrays = [leaf_of(x) for _, x in flatten(kept_tree(tree))]
    if np.isnan(python_maximum(arrays)) or np.isinf(python_maximum(arrays)) or poisoned(arrays) is None:
        return recipe.tree(tree, max_norm)
    return [x.copy() for x in arrays], np.array(python_maximum(arrays))


def sentinel(arrays: Arrays) -> list[Array] | None:
    """DeepSpeed D3: a norm of −1 stands for inf, the factor turns negative."""
    if poisoned(arrays) is None:
        return None
    return [(-x.astype(x.dtype)) for x in arrays]


def minus_one(arrays: Arrays, _after: Arrays, _limit: float, norm: Pair) -> Any:
    return np.array(value_of(norm) if np.isfinite(flat(arrays)).all() else -1.0)


def nan_to_zero_norm(arrays: Arrays, _after: Arrays, _limit: float, norm: Pair) -> Any:
    return np.array(value_of(norm) if np.isfinite(flat(arrays)).all() else 0.0)


def overflowing_report(arrays: Arrays, _after: Arrays, _limit: float, _norm: Pair) -> Any:
    parts = flat(arrays)
    return np.sqrt(np.sum(np.square(parts))) if np.isfinite(parts).all() else L2.tree_norm(arrays)


def int_or_nan(arrays: Arrays, after: Arrays, limit: float, norm: Pair) -> Any:
    """A limit of inf is taken for 'do not measure'."""
    del after
    return np.array(0.0) if limit == math.inf else np.asarray(Norm(lambda _a: norm).tree_norm(arrays))


def no_norm_for_zero(arrays: Arrays, _after: Arrays, limit: float, norm: Pair) -> Any:
    return None if limit == 0 else np.asarray(Norm(lambda _a: norm).tree_norm(arrays))


def scalar_leaves(tree: Any, max_norm: Any) -> Any:
    clipped, norm = L2.tree(tree, max_norm)
    return rebuild(clipped, iter([y[()] if y.ndim == 0 else y for _, y in flatten(clipped)])), norm


def order_lost(x: Any) -> Array:
    array = leaf_of(x)
    return array.astype(native(array.dtype))


def real_leaves(arrays: Arrays) -> Pair:
    return measure_l2([x.real for x in arrays])


RECIPES: list[tuple[str, Norm, str]] = [
    ("total in the first leaf's dtype", Norm(plain(first_dtype_norm)), "xtuner#1402"),
    ("factor in the leaf's dtype", Norm(apply=cast_factor), "optax D13, D16"),
    ("small factor in float32", Norm(apply=inexact_mixed), "FSDP1 D16"),
    ("NaN stays in its leaf", Norm(poison=only_that_leaf), "JAX-Privacy"),
    ("NaN seen in the first leaf", Norm(poison=first_leaf_seen), "Megatron D25"),
    ("NaN seen in the last leaf", Norm(poison=last_leaf_seen), "Megatron D25"),
    ("inf gives NaN and zeros", Norm(poison=mixed), "tensorflow#21363"),
    ("sentinel −1 flips signs", Norm(poison=sentinel), "DeepSpeed D3"),
    ("norm −1 for NaN", Norm(report=minus_one), "DeepSpeed PR#7171"),
    ("norm 0 for NaN", Norm(report=nan_to_zero_norm), "jax_privacy PR#309"),
    ("norm overflows, clip does not", Norm(report=overflowing_report), "numpy#8775"),
    ("norm 0 without limit", Norm(report=int_or_nan), "DeepSpeed PR#8331"),
    ("norm None for C = 0", Norm(report=no_norm_for_zero), "slime#1762"),
    ("float32 squares", Norm(plain(naive32)), "pytorch#46849"),
    ("float64 squares", Norm(plain(naive64)), "numpy#8775"),
    ("subnormals flushed", Norm(flushed), "XLA"),
    ("negative limit flips the sign", Norm(limit=instead(negative, float), factor=signed_ratio), "D15"),
    ("negative limit as none", Norm(limit=instead(negative, math.inf)), "TensorFlow D15"),
    ("limit 0 switches off", Norm(limit=instead(lambda c: number(c) and c == 0, math.inf)), "Lightning"),
    ("limit 0 and zero vectors", Norm(factor=zero_over_zero), "optax PR#1752"),
    ("limit None as none", Norm(limit=instead(lambda c: c is None, math.inf)), "common mistake"),
    ("byte order lost", Norm(leaf=order_lost), "byte order"),
    ("real parts only", Norm(real_leaves), "MLX D12"),
]
FUNCTIONS: list[tuple[str, Fn, str]] = [
    ("mixed dtypes promoted", promoted, "keras fp16 → fp32"),
    ("mixed dtypes become the first", first_dtype, "pytorch#12159"),
    ("mixed dtypes refused", refuses_mixed, "tensorflow Pack"),
    ("norm cast to float16", norm_in_leaf_dtype, "optax D13"),
    ("max() loses NaN by order", ord_inf_python, "Megatron D25"),
    ("0-d leaves become scalars", scalar_leaves, "pytorch PR#32159"),
]


def norm_empty_fails(tree: Any) -> Any:
    return L2.tree_norm(empty_fails(tree))


BUGS = [
    *(Bug(name, NAME, "robust", fn, thread) for name, fn, thread in TREES),
    *(Bug(name, NAME, "robust", recipe.tree, thread) for name, recipe, thread in RECIPES),
    *(Bug(name, NAME, "robust", fn, thread) for name, fn, thread in FUNCTIONS),
    Bug("empty tree fails, norm", "global_norm", "robust", norm_empty_fails, "pytorch#35753"),
    Bug("float64 squares, norm", "global_norm", "robust", Norm(plain(naive64)).tree_norm, "numpy#8775"),
    Bug("real parts, norm", "global_norm", "robust", Norm(real_leaves).tree_norm, "MLX D12"),
]
