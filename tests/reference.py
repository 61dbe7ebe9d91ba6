"""Slow, exact implementations: what a clip is, with nothing between the formula and the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from clipcore.verify.exact import exact_norm, factor_bounds
from clipcore.verify.form import leaves, rebuild, walk
from clipcore.verify.formats import (
    Array,
    cast_bound,
    format_of,
    from_patterns,
    is_finite,
    nan_components,
    order_keys,
    patterns,
    power_of_two,
)
from clipcore.verify.judge import split

FLOATING = [np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
COMPLEX = [np.dtype(name) for name in ("complex64", "complex128")]
INTEGERS = [np.dtype(name) for name in ("int8", "uint8", "int32", "uint32", "int64", "uint64")]


def norm_of(arrays: Sequence[Array], order: float) -> Array:
    """The norm rounded towards zero, so within 1 ulp."""
    if not is_finite(arrays):
        return np.array(np.nan if any(nan_components(x).any() for x in arrays) else np.inf)
    low, _ = exact_norm(arrays, order).bounds()
    return np.array(np.inf) if low >= power_of_two(1024) else cast_bound(low, np.dtype(np.float64), "upper")


def clip_group(arrays: Sequence[Array], limit: float, order: float) -> list[Array]:
    """Every component times min(1, C/‖x‖), rounded towards zero: that alone keeps laws 1 to 6."""
    if limit == math.inf:
        return [np.array(x) for x in arrays]
    if not is_finite(arrays):
        return [np.full_like(x, np.nan, subok=False) for x in arrays]
    factor = factor_bounds(limit, exact_norm(arrays, order))
    if factor.scale == 0:
        return [np.array(x) for x in arrays]
    return [_truncated(x, factor.low, factor.scale) for x in arrays]


def _truncated(x: Array, factor: int, scale: int) -> Array:
    form = format_of(x.dtype)
    sign = 1 << (form.bits - 1)
    distinct, places = np.unique(patterns(x), return_inverse=True)
    made = [
        form.truncate(abs(form.value(pattern)) * factor / (1 << scale))[0] | (pattern & sign)
        for pattern in distinct.tolist()
    ]
    raw = np.array(made, distinct.dtype)[places]
    return from_patterns(raw, x.dtype).astype(x.dtype).reshape(x.shape)


def norm_clip(order: float) -> Callable[..., Array]:
    def clip(x: Array, max_norm: float, *, axis: Any = None) -> Array:
        if axis is None:
            return clip_group([np.asarray(x)], max_norm, order)[0]
        result = np.empty(x.shape, x.dtype)
        axes = axis if isinstance(axis, tuple) else (axis,)
        moved = np.moveaxis(result, axes, range(-len(axes), 0))
        slices = [clip_group([part], max_norm, order)[0] for part in split(x, axis)]
        moved[...] = np.array(slices, x.dtype).reshape(moved.shape)
        return result

    return clip


def norm(order: float) -> Callable[..., Array]:
    def measure(x: Array, *, axis: Any = None) -> Array:
        if axis is None:
            return norm_of([np.asarray(x)], order)
        norms = np.array([norm_of([part], order) for part in split(x, axis)])
        return norms.reshape(np.zeros(x.shape, bool).any(axis=axis).shape)

    return measure


def clip_by_global_norm(tree: Any, max_norm: float, *, ord: float = 2) -> tuple[Any, Array]:  # noqa: A002
    arrays = leaves(tree)
    return rebuild(tree, iter(clip_group(arrays, max_norm, ord))), norm_of(arrays, ord)


def global_norm(tree: Any, *, ord: float = 2) -> Array:  # noqa: A002
    return norm_of(leaves(tree), ord)


def clip_by_value(x: Array, lower: Any, upper: Any) -> Array:
    result = np.array(x)
    if lower is not None:
        _cut(result, cast_bound(lower, x.dtype, "lower"), np.less)
    if upper is not None:
        _cut(result, cast_bound(upper, x.dtype, "upper"), np.greater)
    return result


def _cut(result: Array, bound: Array, beyond: Callable[[Array, Array], Array]) -> None:
    spread = np.broadcast_to(bound, result.shape)
    outside = beyond(order_keys(result), order_keys(spread)) & ~nan_components(result)
    replaced = (outside | nan_components(spread)).reshape(result.shape)
    result[replaced] = spread[replaced]


def clip_weights(tree: Any, lower: Any, upper: Any, *, where: Any = None) -> Any:
    clipped = (
        clip_by_value(leaf, lower, upper) if where is None or where(path, leaf) else np.array(leaf)
        for path, leaf in walk(tree)
    )
    return rebuild(tree, clipped)


REFERENCE: dict[str, Callable[..., Any]] = {
    "clip_by_l1_norm": norm_clip(1),
    "clip_by_l2_norm": norm_clip(2),
    "clip_by_global_norm": clip_by_global_norm,
    "l1_norm": norm(1),
    "l2_norm": norm(2),
    "global_norm": global_norm,
    "clip_by_value": clip_by_value,
    "clip_weights": clip_weights,
}
