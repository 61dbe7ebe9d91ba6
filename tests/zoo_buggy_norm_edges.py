"""Clips by one array's norm that are good for ordinary inputs and wrong at the edges (level robust)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import (
    FLOATS,
    L2,
    Array,
    Arrays,
    Bug,
    Norm,
    Pair,
    components,
    flat,
    leaf_of,
    limit_of,
    measure_l2,
    native,
    plain,
    plain_ratio,
    poisoned,
    ratio,
    scaled,
    value_of,
)

# --- limits -----------------------------------------------------------------------------------------------


def instead(wrong: Callable[[Any], bool], answer: Any) -> Callable[[Any], float]:
    """The usual check, but some limits have an answer of their own."""

    def limit(value: Any) -> float:
        if wrong(value):
            return float(answer(value) if callable(answer) else answer)
        return limit_of(value)

    return limit


def number(value: Any) -> bool:
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def negative(value: Any) -> bool:
    return number(value) and value < 0


def signed_ratio(limit: float, norm: Pair) -> Pair | None:
    if limit >= 0:
        return ratio(limit, norm)
    size, power = ratio(-limit, norm) or (1.0, 0)
    return -size, power


def zero_over_zero(limit: float, norm: Pair) -> Pair | None:
    return (math.nan, 0) if limit == 0 and norm[0] == 0 else ratio(limit, norm)


def inf_over_inf(limit: float, norm: Pair) -> Pair | None:
    return (math.nan, 0) if limit == math.inf else ratio(limit, norm)


def inf_is_open(limit: float, norm: Pair) -> Pair | None:
    return None if limit == math.inf else ratio(limit, norm)


def unsigned_zeros(x: Array, factor: Pair) -> Array:
    return scaled(x, factor) if factor[0] else np.zeros_like(x)


def overflowing(value: Any) -> float:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else limit_of(value)


LIMITS = [
    (
        "negative limit flips the sign",
        Norm(limit=instead(negative, float), factor=signed_ratio),
        "pytorch#31367, D15",
    ),
    ("negative limit as 0", Norm(limit=instead(negative, 0)), "tensorflow#61242"),
    ("negative limit as none", Norm(limit=instead(negative, math.inf)), "keras D21"),
    (
        "NaN limit as none",
        Norm(limit=instead(lambda c: number(c) and c != c, math.inf)),
        "jax_privacy PR#269",
    ),
    ("NaN limit as 0", Norm(limit=instead(lambda c: number(c) and c != c, 0)), "JAX-Privacy D38"),
    ("limit True", Norm(limit=instead(lambda c: isinstance(c, (bool, np.bool_)), 1)), "common mistake"),
    ("limit None as none", Norm(limit=instead(lambda c: c is None, math.inf)), "pytext#1514"),
    ("limit as text", Norm(limit=instead(lambda c: isinstance(c, str), float)), "common mistake"),
    (
        "complex limit",
        Norm(limit=instead(lambda c: isinstance(c, complex), lambda c: c.real)),
        "numpy PR#31927",
    ),
    (
        "array limit of one element",
        Norm(limit=instead(lambda c: np.size(c) == 1 and np.ndim(c) == 1, np.max)),
        "",
    ),
    ("limit beyond float raises OverflowError", Norm(limit=overflowing), "numpy#26759"),
    (
        "limit 0 switches off",
        Norm(limit=instead(lambda c: number(c) and c == 0, math.inf)),
        "keras D21, OpenNMT#1140",
    ),
    ("limit 0 and zero vector", Norm(factor=zero_over_zero), "optax PR#1752, D14"),
    ("limit 0 gives unsigned zeros", Norm(apply=unsigned_zeros), "numpy PR#26280"),
    ("infinite limit gives NaN", Norm(factor=inf_over_inf, open_limit=False), "tensorflow#109146"),
    ("infinite limit and inf inside", Norm(factor=inf_is_open, open_limit=False), "feral PR#16"),
]

# --- inputs that are not finite ---------------------------------------------------------------------------


def mixed(arrays: Arrays) -> list[Array] | None:
    """x · (C/inf): the infinite elements become NaN, the others 0."""
    if poisoned(arrays) is None or np.isnan(flat(arrays)).any():
        return poisoned(arrays)
    return [x * np.array(0, native(x.dtype)) for x in arrays]


def left_alone(arrays: Arrays) -> list[Array] | None:
    return None if poisoned(arrays) is None else [x.copy() for x in arrays]


def only_places(arrays: Arrays) -> list[Array] | None:
    if poisoned(arrays) is None:
        return None
    return [np.where(np.isfinite(x), x, np.array(np.nan, native(x.dtype))).astype(x.dtype) for x in arrays]


def seen_at(*places: int) -> Callable[[Arrays], list[Array] | None]:
    """Only some elements are looked at; the rest passes unclipped."""

    def poison(arrays: Arrays) -> list[Array] | None:
        parts = flat(arrays)
        if parts.size and not all(np.isfinite(parts[place]) for place in places):
            return poisoned(arrays)
        return left_alone(arrays)

    return poison


def by_maximum(arrays: Arrays) -> list[Array] | None:
    """x.max() == inf: −inf is not seen."""
    parts = flat(arrays)
    seen = bool(parts.size) and not np.isfinite(np.max(parts))
    return poisoned(arrays) if seen else left_alone(arrays)


def by_sum(arrays: Arrays) -> list[Array] | None:
    """isfinite(sum(x)): a finite sum beyond the range counts as inf."""
    bad = not np.isfinite(np.sum(flat(arrays)))
    return [np.full(x.shape, np.nan, x.dtype) for x in arrays] if bad else poisoned(arrays)


def zeroed(arrays: Arrays) -> list[Array] | None:
    return None if poisoned(arrays) is None else [np.zeros_like(x) for x in arrays]


def nan_to_num(x: Any, max_norm: Any) -> Any:
    array = leaf_of(x)
    if limit_of(max_norm) == math.inf or array.dtype.kind == "V":
        return L2.clip(x, max_norm)
    return L2.clip(
        np.where(np.isfinite(array), array, np.array(0, native(array.dtype))).astype(array.dtype), max_norm
    )


def guarded_loop(arrays: Arrays) -> Pair:
    """A search for the power of two that never ends for NaN; it gives up after some seconds."""
    size, start = float(np.max(abs(flat(arrays)), initial=0.0)), time.monotonic()
    while size and not 0.5 <= size < 1:
        size = size / 2 if size >= 1 else size * 2
        if time.monotonic() - start > 20:
            raise TimeoutError("this loop would not end")
    return measure_l2(arrays)


def endless(arrays: Arrays) -> list[Array] | None:
    guarded_loop(arrays)
    return poisoned(arrays)


POISONS = [
    ("inf gives NaN and zeros", mixed, "tensorflow#21363, D3"),
    ("NaN passes", left_alone, "axlearn#297"),
    ("NaN only in place", only_places, "JAX-Privacy"),
    ("NaN seen in the first element", seen_at(0), "Megatron D25"),
    ("NaN seen in the last element", seen_at(-1), "Megatron D25"),
    ("−inf not seen", by_maximum, "deepmd-kit#5519"),
    ("finite sum overflows in the check", by_sum, "pytorch#46849"),
    ("NaN gives zeros", zeroed, "keras#14075"),
    ("loop that never ends for NaN", endless, "common mistake"),
]

# --- range ------------------------------------------------------------------------------------------------


def naive32(arrays: Arrays) -> Any:
    kinds = [np.float32 if native(x.dtype) in FLOATS[:3] else np.float64 for x in arrays]
    return math.sqrt(
        math.fsum(float(v) for x, k in zip(arrays, kinds, strict=True) for v in _squares(x, k).tolist())
    )


def _squares(x: Array, kind: type[Any]) -> Array:
    parts: Array = components(x).astype(kind)
    return np.square(parts)


def naive64(arrays: Arrays) -> Any:
    return np.sqrt(np.sum(np.square(flat(arrays))))


def only_overflow(arrays: Arrays) -> Pair:
    size = float(naive64(arrays))
    return measure_l2(arrays) if size == math.inf else (size, 0)


def only_underflow(arrays: Arrays) -> Pair:
    size = float(naive64(arrays))
    return measure_l2(arrays) if size == 0 else (size, 0)


def by_reciprocal(arrays: Arrays) -> float:
    """x · (1/max): 1/max is inf for a subnormal max."""
    parts = flat(arrays)
    largest = float(np.max(abs(parts), initial=0.0))
    if not largest:
        return 0.0
    return largest * float(np.sqrt(np.sum(np.square(parts * np.float64(1 / np.float64(largest))))))


def flushed(arrays: Arrays) -> Pair:
    """Subnormals of the leaf's dtype count as zero."""
    return measure_l2([np.where(abs(x) < _tiny(x), np.array(0, native(x.dtype)), x) for x in arrays])


def _tiny(x: Array) -> Any:
    return {2: 2.0**-14, 4: 2.0**-126, 8: 2.0**-1022}[2 if x.dtype == np.float16 else max(x.real.itemsize, 4)]


def flush_copy(x: Array) -> Array:
    kept = np.where(abs(x) < _tiny(x), x * np.array(0, native(x.dtype)), x)
    return kept.astype(x.dtype)


def cast_norm(x: Any, max_norm: Any) -> Any:
    """The norm in float16 for a float16 leaf: inf beyond 65504, so zeros."""
    array, limit = leaf_of(x), limit_of(max_norm)
    if array.dtype != np.float16 or limit == math.inf or value_of(measure_l2([array])) < 65520:
        return L2.clip(x, max_norm)
    return np.asarray(array * np.float16(0))


def limit_first(x: Array, factor: Pair) -> Array:
    """(x · f) with f as one float64, which underflows."""
    return scaled(x, (value_of(factor), 0))


def cast_factor(x: Array, factor: Pair) -> Array:
    kind = np.zeros(0, native(x.dtype)).real.dtype
    return np.asarray(x * np.array(value_of(factor)).astype(kind)).astype(x.dtype)


def floor(least: float) -> Callable[[float, float], float]:
    return lambda limit, norm: (
        max(min(1.0, limit / norm), least) if norm and limit else float(limit > 0 or not norm)
    )


def agc(limit: float, norm: float) -> float:
    return min(1.0, limit / max(norm, 1e-6))


def multiplied_first(x: Any, max_norm: Any) -> Any:
    """(x·C)/n, in float64 for narrow leaves: only float64 leaves overflow."""
    array, limit = leaf_of(x), limit_of(max_norm)
    norm = value_of(measure_l2([array])) if np.isfinite(components(array)).all() else 0.0
    if array.dtype != np.float64 or norm <= limit:
        return L2.clip(x, max_norm)
    with np.errstate(all="ignore"):
        return np.asarray((array * limit) / norm)


RANGES: list[tuple[str, Norm, str]] = [
    ("float32 squares", Norm(plain(naive32)), "numpy#8775, pytorch#46849"),
    ("float64 squares", Norm(plain(naive64)), "numpy#8775"),
    ("guard against overflow only", Norm(only_overflow), "numpy PR#32547"),
    ("guard against underflow only", Norm(only_underflow), "numpy PR#32547"),
    ("reciprocal of a subnormal maximum", Norm(plain(by_reciprocal)), "scipy#25977"),
    ("subnormals flushed in the norm", Norm(flushed), "XLA"),
    ("subnormals flushed in copies", Norm(keep=flush_copy), "XLA"),
    ("factor underflows", Norm(apply=limit_first), "torch D16"),
    ("factor in the leaf's dtype", Norm(apply=cast_factor), "torch D16"),
    ("factor at least 1e-3", Norm(factor=plain_ratio(floor(1e-3))), "Megatron#5395"),
    ("norm at least 1e-6", Norm(factor=plain_ratio(agc)), "timm agc.py"),
    ("eps 1e-37", Norm(factor=plain_ratio(lambda c, n: min(1.0, c / (n + 1e-37)))), "burn D37"),
]

BUGS = [
    *(
        Bug(name, "clip_by_l2_norm", "robust", r.clip, thread or "common mistake")
        for name, r, thread in LIMITS
    ),
    *(Bug(name, "clip_by_l2_norm", "robust", Norm(poison=fn).clip, thread) for name, fn, thread in POISONS),
    *(Bug(name, "clip_by_l2_norm", "robust", r.clip, thread) for name, r, thread in RANGES),
]
