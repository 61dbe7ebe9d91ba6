"""Clips by one array's norm and norms that are wrong for ordinary inputs (level rounded)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from zoo_bases import (
    Arrays,
    Bug,
    Norm,
    Pair,
    flat,
    measure_l1,
    measure_l2,
    plain,
    plain_ratio,
    ratio,
    value_of,
)

L1_CLIP, L2_CLIP = "clip_by_l1_norm", "clip_by_l2_norm"

# --- the norm ---------------------------------------------------------------------------------------------


def rms(arrays: Arrays) -> float:
    return value_of(measure_l2(arrays)) / math.sqrt(max(flat(arrays).size, 1))


def spectral(arrays: Arrays) -> Any:
    x = arrays[0].astype(np.float64)
    return np.linalg.norm(x, 2) if x.ndim == 2 else np.linalg.norm(x.ravel())


def largest_column(arrays: Arrays) -> Any:
    return np.max(np.linalg.norm(np.atleast_1d(arrays[0]).astype(float), axis=0), initial=0.0)


def column_sum(arrays: Arrays) -> Any:
    x = arrays[0].astype(np.float64)
    return np.linalg.norm(x, 1) if x.ndim == 2 else abs(x).sum()


def own_dtype(arrays: Arrays) -> float:
    """Squares and sums in the leaf's own dtype."""
    return math.sqrt(float(np.sum(arrays[0] * arrays[0])))


def own_dtype_l1(arrays: Arrays) -> float:
    return float(np.add.reduce(abs(arrays[0].ravel())))


def bfloat_sum(arrays: Arrays) -> float:
    """float16 is widened, bfloat16 is not: the check was for float16 only."""
    x = arrays[0]
    return math.sqrt(float(np.sum(x * x))) if x.dtype.kind == "V" else value_of(measure_l2(arrays))


def detour32(arrays: Arrays) -> Any:
    return np.sqrt(np.sum(np.square(arrays[0].astype(np.float32)), dtype=np.float32))


def sequential32(arrays: Arrays) -> float:
    """One float32 accumulator, one element after the other."""
    x = arrays[0]
    if x.dtype == np.float64:
        return value_of(measure_l2(arrays))
    squares = np.square(x.astype(np.float32).ravel())
    return math.sqrt(float(np.cumsum(squares, dtype=np.float32)[-1])) if squares.size else 0.0


def sequential32_l1(arrays: Arrays) -> float:
    if arrays[0].dtype == np.float64:
        return value_of(measure_l1(arrays))
    sizes = abs(arrays[0].astype(np.float32).ravel())
    return float(np.cumsum(sizes, dtype=np.float32)[-1]) if sizes.size else 0.0


def without_tail(arrays: Arrays) -> Pair:
    """A kernel for eight lanes that forgets the rest."""
    parts = flat(arrays)
    return measure_l2([parts[: parts.size // 8 * 8]] if parts.size >= 8 else [parts])


def without_boundary(arrays: Arrays) -> Pair:
    """Chunks of 256 with the last element of each left out."""
    parts = flat(arrays)
    return measure_l2([np.delete(parts, np.arange(255, parts.size, 256))])


def overlapping(arrays: Arrays) -> Pair:
    """Chunks of 512 that share their first element with the chunk before."""
    parts = flat(arrays)
    chunks = [parts[i : i + 513] for i in range(0, parts.size, 512)]
    return measure_l2(chunks)


def fast_inverse_root(arrays: Arrays) -> float:
    """1/√s from the bits of a float32 and two Newton steps."""
    total = np.float32(value_of(measure_l2(arrays)) ** 2)
    bits = np.int32(0x5F3759DF) - (total.view(np.int32) >> np.int32(1))
    guess = float(bits.view(np.float32))
    for _ in range(2):
        guess *= 1.5 - 0.5 * float(total) * guess * guess
    return 1 / guess if guess and total else 0.0


class ByShape:
    """A norm kept per shape: right for the first array of its kind."""

    def __init__(self) -> None:
        self.known: dict[Any, Pair] = {}

    def __call__(self, arrays: Arrays) -> Pair:
        key = (arrays[0].shape, arrays[0].dtype)
        return self.known.setdefault(key, measure_l2(arrays))


class ById:
    """A norm kept per id: wrong once an address is used again or the array is written."""

    def __init__(self) -> None:
        self.known: dict[int, Pair] = {}

    def __call__(self, arrays: Arrays) -> Pair:
        return self.known.setdefault(id(arrays[0]), measure_l2(arrays))


class Running:
    """A buffer that is not reset between calls after a clipped one."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, arrays: Arrays) -> float:
        self.total = self.total * 1e-3 + value_of(measure_l2(arrays)) ** 2
        return math.sqrt(self.total)


MEASURED: list[tuple[str, Callable[[Arrays], Any], str]] = [
    ("square root forgotten", lambda a: value_of(measure_l2(a)) ** 2, "entrenar#311"),
    ("RMS instead of the norm", rms, "optax clip_by_block_rms"),
    ("L1 in place of L2", lambda a: value_of(measure_l1(a)), "common mistake"),
    ("spectral norm of matrices", spectral, "numpy.linalg.norm(x, 2)"),
    (
        "largest column norm",
        largest_column,
        "optax D30",
    ),
    ("own dtype", own_dtype, "burn#5699"),
    ("bfloat16 accumulation", bfloat_sum, "torchtitan#4135"),
    ("float32 detour for float64", detour32, "Keras D21"),
    ("sequential float32", sequential32, "pytorch#151761, D18"),
    ("fast inverse square root", fast_inverse_root, "common mistake"),
    (
        "eps inside the root",
        lambda a: np.hypot(value_of(measure_l2(a)), 0.1),
        "eps inside the root",
    ),
    ("largest element", lambda a: np.max(abs(flat(a)), initial=0.0), "tt-metal#55587"),
    ("signed sum", lambda a: abs(np.sum(flat(a))), "Lightning PR#1523"),
    ("first element skipped", lambda a: np.linalg.norm(flat(a)[1:]), "common mistake"),
    ("last element skipped", lambda a: np.linalg.norm(flat(a)[:-1]), "common mistake"),
    ("unused buffer of the last call", Running(), "state between calls"),
]
MEASURED_PAIRS: list[tuple[str, Callable[[Arrays], Pair], str]] = [
    ("tail of n % 8 dropped", without_tail, "SIMD tail"),
    ("each 256th element dropped", without_boundary, "chunk boundary"),
    ("chunks of 512 overlap", overlapping, "chunk boundary"),
    ("norm cached by shape", ByShape(), "state between calls"),
    ("norm cached by id", ById(), "state between calls"),
]
MEASURED_L1: list[tuple[str, Callable[[Arrays], Any], str]] = [
    ("missing abs", lambda a: abs(math.fsum(flat(a).tolist())), "Lightning PR#1523"),
    ("squares for p = 1", lambda a: value_of(measure_l2(a)), "DeepSpeed D1, pytorch PR#133406"),
    ("sum of squares for p = 1", lambda a: value_of(measure_l2(a)) ** 2, "DeepSpeed D1"),
    ("largest column sum of matrices", column_sum, "numpy.linalg.norm(x, 1)"),
    ("own dtype, L1", own_dtype_l1, "user-asks: 70 × float16 1000"),
    ("sequential float32, L1", sequential32_l1, "pytorch#151761, D18"),
    ("mean of |x|", lambda a: np.mean(abs(flat(a))) if flat(a).size else 0.0, "tf clip_by_average_norm"),
    ("positive part only", lambda a: np.sum(np.maximum(flat(a), 0)), "common mistake"),
]

# --- the factor -------------------------------------------------------------------------------------------


def divided(limit: float, norm: float) -> float | None:
    return limit / norm if norm else None


def tiny_is_zero(limit: float, norm: Pair) -> Pair | None:
    return None if value_of(norm) < 0.05 else ratio(limit, norm)


def keras_max_norm(limit: float, norm: float) -> float:
    return min(max(norm, 0), limit) / (1e-7 + norm)


def equal_is_zero(limit: float, norm: float) -> float:
    return 0.0 if norm == limit else min(1.0, limit / norm if norm else 1.0)


def inverse_limit(limit: float, norm: float) -> float | None:
    """TensorFlow's c·min(1/n, 1/c): not 1 below the limit."""
    return limit * min(1 / norm, 1 / limit) if norm and limit else ratio_plain(limit, norm)


def ratio_plain(limit: float, norm: float) -> float:
    return min(1.0, limit / norm) if norm else 1.0


FACTORS = [
    ("eps 1e-6", lambda c, n: min(1.0, c / (n + 1e-6)), "torch D17"),
    ("eps 1e-8", lambda c, n: min(1.0, c / (n + 1e-8)), "MXNet clip_global_norm"),
    ("eps 1e-12", lambda c, n: min(1.0, c / (n + 1e-12)), "common mistake"),
    ("eps under the branch", lambda c, n: c / (n + 1e-6) if n > c else 1.0, "Megatron clip_grads"),
    ("Keras MaxNorm", keras_max_norm, "keras D19"),
    ("always normalised", divided, "nnabla#572"),
    ("max instead of min", lambda c, n: max(1.0, ratio_plain(c, n)), "HeavyBall#72"),
    ("limit without min(…, 1)", lambda c, n: c if n > c else 1.0, "pytorch#151554"),
    ("threshold 1 % high", lambda c, n: c / n if n > 1.01 * c else 1.0, "common mistake"),
    ("clips to 0.99 C", lambda c, n: 0.99 * c / n if n > c else 1.0, "common mistake"),
    ("clips from 0.99 C", lambda c, n: 0.99 * c / n if n > 0.99 * c else 1.0, "common mistake"),
    ("factor applied twice", lambda c, n: ratio_plain(c, n) ** 2, "pytorch D29"),
    ("limit squared", lambda c, n: c / n if n > c * c else 1.0, "common mistake"),
    ("norm squared in the test", lambda c, n: min(1.0, c / n) if n * n > c else 1.0, "entrenar#311"),
    ("whole limit", lambda c, n: ratio_plain(float(int(c)), n), "common mistake"),
    ("zero where n equals C", equal_is_zero, "optax PR#1752"),
    ("c * min(1/n, 1/c)", inverse_limit, "TensorFlow D39"),
    ("factor in float32", lambda c, n: float(np.float32(ratio_plain(c, n))), "FSDP1 D16"),
    ("factor to four digits", lambda c, n: round(ratio_plain(c, n), 4), "common mistake"),
]
# The formula of "norm squared in the test" differs where n > C ≥ n² only.

BUGS = [
    *(Bug(name, L2_CLIP, "rounded", Norm(plain(fn)).clip, thread) for name, fn, thread in MEASURED),
    *(Bug(name, L2_CLIP, "rounded", Norm(fn).clip, thread) for name, fn, thread in MEASURED_PAIRS),
    *(Bug(name, L1_CLIP, "rounded", Norm(plain(fn)).clip, thread) for name, fn, thread in MEASURED_L1),
    *(
        Bug(name, L2_CLIP, "rounded", Norm(factor=plain_ratio(fn)).clip, thread)
        for name, fn, thread in FACTORS
    ),
]
