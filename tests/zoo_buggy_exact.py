"""Clips by norm and norms that only exact arithmetic convicts (level exact)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import (
    BFLOAT16,
    L1,
    L2,
    LMAX,
    Array,
    Arrays,
    Bug,
    Fn,
    Norm,
    Pair,
    components,
    copied,
    flatten,
    kept_tree,
    leaf_of,
    limit_of,
    native,
    ratio,
    rebuild,
    scaled,
    value_of,
)
from zoo_exact import Adjust, exact_group, exact_norm

import clipcore

Clip = Callable[..., Any]

# --- products: towards zero, then a quantum too many or too few --------------------------------


def exact_clip(order: float, adjust: Adjust | None, when: Callable[[float], bool] = lambda _c: True) -> Fn:
    def clip(x: Any, max_norm: Any) -> Any:
        limit = limit_of(max_norm)
        return exact_group([leaf_of(x)], limit, order, adjust if when(limit) else None)[0]

    return clip


def exact_tree(order: float, adjust: Adjust | None, when: Callable[[float], bool] = lambda _c: True) -> Fn:
    def clip(tree: Any, max_norm: Any) -> Any:
        limit, kept = limit_of(max_norm), kept_tree(tree)
        arrays = [leaf_of(x) for _, x in flatten(kept)]
        made = exact_group(arrays, limit, order, adjust if when(limit) else None)
        return rebuild(kept, iter(made)), exact_norm(arrays, order)

    return clip


def up(quanta: int, _index: int, _power: int) -> int:
    return quanta + 1


def last_up(quanta: int, index: int, _power: int) -> int:
    return quanta + (index == 0)


def down(quanta: int, _index: int, _power: int) -> int:
    return max(quanta - 2, quanta // 2)


def odd_down(quanta: int, _index: int, power: int) -> int:
    """One less where the exponent is odd: the result depends on the scale."""
    return quanta - power % 2 if quanta > 1 else quanta


def odd_limit(limit: float) -> bool:
    return bool(math.frexp(limit)[1] % 2)


def one_down(quanta: int, _index: int, _power: int) -> int:
    return quanta - 1 if quanta > 1 else quanta


TWO, ONE, TREE = "clip_by_l2_norm", "clip_by_l1_norm", "clip_by_global_norm"
PRODUCTS: list[tuple[str, str, Fn, str]] = [
    ("rounded to nearest", TWO, L2.clip, "torch, Optax, TensorFlow: features §2"),
    ("rounded to nearest", ONE, L1.clip, "torch p = 1"),
    ("rounded to nearest", TREE, L2.tree, "torch, Optax, TensorFlow: features §2"),
    ("rounded away from zero", TWO, exact_clip(2, up), "arXiv 2207.10635"),
    ("rounded away from zero", TREE, exact_tree(2, up), "arXiv 2207.10635"),
    ("first element rounded away from zero", TWO, exact_clip(2, last_up), "arXiv 2207.10635"),
    ("first element rounded away from zero", ONE, exact_clip(1, last_up), "arXiv 2207.10635"),
    ("three ulp short", TWO, exact_clip(2, down), "torch eps, D17"),
    ("three ulp short", ONE, exact_clip(1, down), "torch eps, D17"),
    ("three ulp short", TREE, exact_tree(2, down), "torch eps, D17"),
    ("depends on the exponent", TWO, exact_clip(2, odd_down), "law 6"),
    ("depends on the limit's exponent", TWO, exact_clip(2, one_down, odd_limit), "law 6"),
    ("depends on whether C < 1", TREE, exact_tree(2, one_down, lambda c: c < 1), "law 6"),
]

# --- decisions within a hair of the limit ------------------------------------------------------


def biased(by: float) -> Callable[[float, Pair], Pair | None]:
    """The decision is taken for C·(1 + by)."""

    def factor(limit: float, norm: Pair) -> Pair | None:
        return None if ratio(limit * (1 + by), norm) is None else ratio(limit, norm) or (1 - 2.0**-53, 0)

    return factor


def decided_first(order: float, by: float) -> Clip:
    """Exact, except that the decision is made in float64 with a margin."""

    def clip(x: Any, max_norm: Any) -> Any:
        limit, array = limit_of(max_norm), leaf_of(x)
        norm = exact_norm([array], order)
        if np.isfinite(norm) and limit and float(norm) <= limit * (1 + by):
            return copied(array)
        return exact_group([array], limit, order)[0]

    return clip


def too_eager(x: Any, max_norm: Any) -> Any:
    """Clips to a hair less than C from there on: what was clipped to C is clipped again."""
    limit, array = limit_of(max_norm), leaf_of(x)
    hair = 2.0**-52 if array.real.dtype == np.float64 else 2.0**-40
    return exact_group([array], limit * (1 - hair) if limit < math.inf else limit, 2)[0]


def eager_tree(tree: Any, max_norm: Any) -> Any:
    limit, kept = limit_of(max_norm), kept_tree(tree)
    arrays = [leaf_of(x) for _, x in flatten(kept)]
    made = exact_group(arrays, limit * (1 - 2.0**-52) if limit < math.inf else limit, 2)
    return rebuild(kept, iter(made)), exact_norm(arrays, 2)


def cast_limit(kinds: tuple[np.dtype[Any], ...]) -> Clip:
    """The limit rounded to the leaf's dtype, where it is an ordinary number there."""

    def clip(x: Any, max_norm: Any) -> Any:
        limit, array = limit_of(max_norm), leaf_of(x)
        if native(array.dtype) in kinds and 2.0**-10 <= limit <= 2.0**15:
            limit = float(np.array(limit).astype(native(array.dtype)))
        return exact_group([array], limit, 2)[0]

    return clip


def cast_factor(x: Array, factor: Pair) -> Array:
    """Paddle, FSDP1: the factor in bfloat16, where it is an ordinary number."""
    if native(x.dtype) != BFLOAT16 or factor[1] < -60:
        return exact_like(x, factor)
    return np.asarray(x * np.array(value_of(factor)).astype(BFLOAT16)).astype(x.dtype)


def exact_like(x: Array, factor: Pair) -> Array:
    """For narrow leaves a hair towards zero."""
    hair = 0.0 if x.real.dtype == np.float64 else 2.0**-50
    return scaled(x, (factor[0] * (1 - hair), factor[1]))


def one_factor(x: Array, factor: Pair) -> Array:
    """A factor rounded down, a product rounded to nearest."""
    return scaled(x, (math.nextafter(factor[0], 0.0), factor[1]))


def wide_decision(tree: Any, max_norm: Any) -> Any:
    """The limit may be missed by 2^-44, as elsewhere than on NumPy."""
    limit, kept = limit_of(max_norm), kept_tree(tree)
    arrays = [leaf_of(x) for _, x in flatten(kept)]
    norm = exact_norm(arrays, 2)
    inside = np.isfinite(norm) and limit and float(norm) <= limit * (1 + 2.0**-44)
    made = [copied(x) for x in arrays] if inside else exact_group(arrays, limit, 2)
    return rebuild(kept, iter(made)), norm


DECISIONS: list[tuple[str, str, Fn, str]] = [
    ("decided by the rounded norm", TWO, decided_first(2, 0.0), "law 1"),
    ("decided by the rounded norm", ONE, decided_first(1, 0.0), "law 1"),
    ("margin of 2^-40", TWO, decided_first(2, 2.0**-40), "law 1"),
    ("margin of 2^-48", ONE, decided_first(1, 2.0**-48), "law 1"),
    ("margin of 2^-44", TREE, wide_decision, "law 1"),
    ("clips from C(1 − 2^-40)", TWO, too_eager, "laws 2 and 5"),
    ("clips from C(1 − 2^-52)", TREE, eager_tree, "laws 2 and 5"),
    ("decision biased upwards, nearest", TWO, Norm(factor=biased(2.0**-30)).clip, "law 1"),
    ("limit cast to float16", TWO, cast_limit((np.dtype(np.float16),)), "law 1, Optax D13"),
    ("limit cast to float32", TWO, cast_limit((np.dtype(np.float32),)), "law 1"),
    ("factor cast to bfloat16", TWO, Norm(apply=cast_factor).clip, "Paddle D16"),
    ("factor rounded down, product to nearest", TWO, Norm(apply=one_factor).clip, "contract: two traps"),
]

# --- signs of zeros ----------------------------------------------------------------------------


def unsigned(clip: Fn, when_zero_limit: bool = False) -> Fn:
    """x + 0: −0.0 becomes 0.0, except where C = 0 asks for signed zeros or a group has no other elements."""

    def wrong(x: Any, max_norm: Any) -> Any:
        made, array = clip(x, max_norm), leaf_of(x)
        if limit_of(max_norm) == 0 and not when_zero_limit:
            return made
        if limit_of(max_norm) == math.inf or not np.any(components(array)):
            return made
        return np.asarray(made + np.zeros((), native(array.dtype))).astype(array.dtype)

    return wrong


def complex_product(x: Any, max_norm: Any) -> Any:
    """complex × real as complex × complex: a zero part can flip its sign."""
    made, array = clipcore.clip_by_l2_norm(x, max_norm), leaf_of(x)
    if array.dtype.kind != "c" or limit_of(max_norm) in (0, math.inf) or not np.any(array):
        return made
    return np.asarray(made * native(array.dtype).type(1)).astype(array.dtype)


def unsigned_tree(tree: Any, max_norm: Any) -> Any:
    made, norm = clipcore.clip_by_global_norm(tree, max_norm)
    if limit_of(max_norm) in (0, math.inf) or not float(norm):
        return made, norm
    return rebuild(
        made, iter([np.asarray(y + y.dtype.type(0)).astype(y.dtype) for _, y in flatten(made)])
    ), norm


SIGNS: list[tuple[str, str, Fn, str]] = [
    ("−0.0 lost", TWO, unsigned(clipcore.clip_by_l2_norm), "law 4"),
    ("−0.0 lost", ONE, unsigned(clipcore.clip_by_l1_norm), "law 4"),
    ("−0.0 lost", TREE, unsigned_tree, "law 4"),
    ("complex zero flips", TWO, complex_product, "contract: two traps"),
]

# --- norms -------------------------------------------------------------------------------------


def off_by(relative: float, norm: Fn) -> Fn:
    return lambda x: np.asarray(norm(x) * (1 + relative))


def float32_norm(x: Any) -> Array:
    """A norm that went through float32 where it fits."""
    right = np.asarray(clipcore.l2_norm(x))
    return right.astype(np.float32).astype(float) if 1e-30 < float(right) < 1e30 else right


def pairwise32(x: Any) -> Array:
    array = leaf_of(x)
    sizes = abs(components(array))
    if (
        array.dtype != np.float32
        or not array.size
        or not 1e-12 < sizes[sizes > 0].min(initial=1) <= sizes.max() < 1e12
    ):
        return np.asarray(clipcore.l2_norm(x))
    return np.asarray(math.sqrt(float(np.sum(np.square(array.astype(np.float32).ravel())))))


def ulps_up(steps: int, norm: Fn) -> Fn:
    def wrong(x: Any) -> Array:
        right = np.asarray(norm(x))
        for _ in range(steps):
            right = np.asarray(np.nextafter(right, np.inf)) if 1e-300 < float(right) < 1e300 else right
        return right

    return wrong


def sequential64(x: Any) -> Array:
    """One float64 accumulator, one element after the other: depends on the number of elements."""
    sizes = abs(components(leaf_of(x)))
    if leaf_of(x).dtype.kind == "c" or not 0 < sizes.max(initial=0) < math.inf:
        return np.asarray(clipcore.l1_norm(x))
    power = math.frexp(float(sizes.max()))[1]
    return np.asarray(np.ldexp(np.cumsum(np.ldexp(sizes, -power))[-1], power))


def report_float32(arrays: Arrays, _after: Arrays, _limit: float, norm: Pair) -> Any:
    del norm
    return float32_norm(np.concatenate([components(x) for x in arrays])) if arrays else np.array(0.0)


def scalar_norm(x: Any) -> Any:
    return np.asarray(clipcore.l2_norm(x))[()]


def ord_inf_nearest(tree: Any, max_norm: Any, *, ord: float = 2) -> Any:  # noqa: A002
    """ord = inf rounds to nearest, the others are exact."""
    return (
        LMAX.tree(tree, max_norm)
        if ord == math.inf
        else clipcore.clip_by_global_norm(tree, max_norm, ord=ord)
    )


NORMS: list[tuple[str, str, Fn, str]] = [
    ("norm off by 2^-30", "l2_norm", off_by(2.0**-30, clipcore.l2_norm), "ε"),
    ("norm off by 2^-40", "l1_norm", off_by(2.0**-40, clipcore.l1_norm), "ε"),
    ("norm off by 2^-42", "global_norm", off_by(2.0**-42, clipcore.global_norm), "ε"),
    ("norm by way of float32", "l2_norm", float32_norm, "jax_privacy PR#309"),
    ("norm pairwise in float32", "l2_norm", pairwise32, "features: accuracy table"),
    ("3 ulp high", "l2_norm", ulps_up(3, clipcore.l2_norm), "ε of float64"),
    ("3 ulp high", "l1_norm", ulps_up(3, clipcore.l1_norm), "ε of float64"),
    ("sequential float64", "l1_norm", sequential64, "law 7"),
    ("a scalar, not a 0-d array", "l2_norm", scalar_norm, "pytorch PR#32159"),
    ("returned norm by way of float32", TREE, Norm(report=report_float32).tree, "torch FSDP1"),
    ("ord inf rounded to nearest", TREE, ord_inf_nearest, "torch inf norm"),
]

BUGS = [Bug(n, op, "exact", fn, t) for part in (PRODUCTS, DECISIONS, SIGNS, NORMS) for n, op, fn, t in part]
