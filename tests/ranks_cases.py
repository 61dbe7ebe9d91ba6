"""What ranks clip together: the same cases on every engine, cut for any number of ranks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np

import clipcore as cc
from clipcore.verify.exact import exact_norm

Array = np.ndarray[Any, np.dtype[Any]]
Answer = dict[str, Any]

ORDERS = (1, 2, math.inf)
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
EXPONENTS = (-900, -130, 126, 900)
X64_EXPONENTS = (-900, 126, 900)
"""XLA takes subnormals of float32 for zero."""
NO_FLOAT64 = ("float16", "bfloat16", "float32", "complex64")
X32_EXPONENTS = (-100, 100)


@dataclass(frozen=True)
class Case:
    """One tree over all ranks, and how it is clipped.

    Attributes
    ----------
    name : str
        What is special about it.
    own : list of lists of arrays
        For every rank the leaves that only it holds.
    limit, order, nonfinite
        Arguments of the clip.
    copies : list of arrays
        Leaves that several ranks hold: each counts once.
    holders : tuple of int
        The ranks that hold the copies; the first counts them.
    """

    name: str
    own: list[list[Array]]
    limit: float
    order: float = 2
    nonfinite: Any = "propagate"
    copies: list[Array] = field(default_factory=list)
    holders: tuple[int, ...] = (0,)

    @property
    def whole(self) -> list[Array]:
        """The leaves of the tree as one machine would hold them."""
        return [leaf for leaves in self.own for leaf in leaves] + self.copies

    def held(self, rank: int) -> list[Array]:
        """The leaves of one rank, copies last."""
        return self.own[rank] + (self.copies if rank in self.holders else [])


def drawn(rng: np.random.Generator, size: int, dtype: str, exponent: int = 0) -> Array:
    """Normal numbers of a dtype, times a power of two."""
    kind = np.dtype(dtype)
    numbers = np.ldexp(rng.standard_normal((size, 2)), exponent)
    if kind.kind == "c":
        return numbers.astype(kind.char.lower()).view(kind)[:, 0]
    return numbers[:, 0].astype(kind)


def uneven(x: Array, count: int) -> list[list[Array]]:
    """Cut a leaf to shards that grow from rank to rank."""
    ends = [len(x) * (rank + 1) ** 2 // count**2 for rank in range(count)]
    return [[x[start:stop]] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def at(share: float, leaves: Sequence[Array], order: float) -> float:
    """A limit at a share of the exact norm."""
    return float(exact_norm(leaves, order).bounds()[0] * (1 + round((share - 1) * 2**60) / (1 << 60)))


def cases(count: int, dtypes: Sequence[str] = DTYPES, exponents: Sequence[int] = EXPONENTS) -> Iterator[Case]:
    """All cases for a number of ranks."""
    rng = np.random.default_rng(20261126)
    wide = "float64" in dtypes
    for dtype in dtypes:
        x = drawn(rng, 50, dtype)
        # all dtypes meet all orders in the mixed trees
        for order in ORDERS if dtype in ("float32", "float64") else (2,):
            yield Case(f"uneven {dtype}", uneven(x, count), at(0.3, [x], order), order)
    x = drawn(rng, 50, "float32")
    for order in ORDERS:
        yield Case("empty", [*([[x[:0]]] * (count - 1)), [x]], at(0.3, [x], order), order)
    near = 2.0**-40 if wide else 2.0**-20
    for share in (0.0, 1 - near, 1 + near, 2.0, math.inf):
        limit = share if share in (0, math.inf) else at(share, [x], 2)
        yield Case(f"limit {share}", uneven(x, count), limit)
    for order in ORDERS:
        yield from _mixed(rng, count, dtypes, order)
    for exponent in exponents:
        x = drawn(rng, 50, "float64" if abs(exponent) > 130 else "float32", exponent)
        for order in ORDERS:
            yield Case(f"scale {exponent}", uneven(x, count), at(0.3, [x], order), order)
    zeros = [[np.zeros(3, "float32")] for _ in range(count)]
    yield Case("zeros", zeros, 1.0)
    yield from _broken(rng, count)


def sharded_by_jit() -> Case:
    """One leaf of which eight devices hold equal shards, without ranks of their own."""
    return Case("jit alone", [[drawn(np.random.default_rng(0), 803 * 8, "float32")]], 1.0)


def _mixed(rng: np.random.Generator, count: int, dtypes: Sequence[str], order: float) -> Iterator[Case]:
    """Other leaves on every rank, none on the last; copies on all ranks, or on both ends of a pipeline."""
    own = [
        [drawn(rng, 20 + rank, dtypes[(rank + k) % len(dtypes)], rank) for k in range(2)]
        for rank in range(count - 1)
    ]
    own = [*own, []]
    own[0].append(np.zeros((0,), dtypes[0]))
    copies = [drawn(rng, 7, dtype, 4) for dtype in dtypes]
    for name, kept, holders in (
        ("pipeline", [], (0,)),
        ("replicated", copies, tuple(range(count))),
        ("tied", copies[-1:], (0, count - 1)),
    ):
        whole = [leaf for leaves in own for leaf in leaves] + kept
        yield Case(name, own, at(0.3, whole, order), order, copies=kept, holders=holders)


def _broken(rng: np.random.Generator, count: int) -> Iterator[Case]:
    """NaN or infinity on one rank or two."""
    nan, infinity = drawn(rng, 9, "float32"), drawn(rng, 9, "float32")
    nan[4], infinity[2] = math.nan, -math.inf
    fine = drawn(rng, 9, "float32")
    for order in ORDERS:
        for policy in ("propagate", "zero", "raise"):
            yield Case("nan", [[fine, nan], *([[fine]] * (count - 1))], 1.0, order, policy)
        yield Case("infinity", [*([[fine]] * (count - 1)), [infinity]], 1.0, order)
        yield Case("both", [[nan], *([[fine]] * (count - 2)), [infinity]], 1.0, order)
    yield Case("nan without a limit", [[nan], *([[fine]] * (count - 1))], math.inf)
    yield Case("nan in a copy", [[fine]] * count, 1.0, copies=[nan], holders=tuple(range(count)))
    yield Case("infinity raises", [*([[fine]] * (count - 1)), [fine, infinity]], 1.0, 2, "raise")


def answer(
    case: Case,
    rank: int,
    all_reduce: Callable[..., Any],
    put: Callable[[Array], Any] = np.copy,
    get: Callable[[Any], Array] = np.asarray,
) -> Answer:
    """Clip what one rank holds, together with the other ranks, twice; return what came out."""
    leaves = [put(leaf) for leaf in case.held(rank)]
    try:
        once, norm = clipped(case, rank, leaves, all_reduce)
        again, _ = clipped(case, rank, once, all_reduce)
    except FloatingPointError as error:
        return {"error": str(error)}
    return told([get(leaf) for leaf in once], get(norm), [get(leaf) for leaf in again])


def clipped(case: Case, rank: int, leaves: list[Any], all_reduce: Callable[..., Any]) -> tuple[Any, Any]:
    """Clip the leaves of one rank; copies are counted on their first holder only."""
    if not case.copies:
        return cc.clip_by_global_norm(
            leaves, case.limit, ord=case.order, all_reduce=all_reduce, nonfinite=case.nonfinite
        )
    shared = len(leaves) - len(case.own[rank])
    counted = leaves if rank == case.holders[0] else [*leaves[: len(case.own[rank])], *[None] * shared]
    norm = cc.global_norm(counted, ord=case.order, all_reduce=all_reduce)
    return cc.clip_by_global_norm(leaves, case.limit, norm=norm, nonfinite=case.nonfinite)


def told(once: Sequence[Array], norm: Array, again: Sequence[Array]) -> Answer:
    """Results as JSON holds them, bit for bit."""
    return {"once": [_bits(x) for x in once], "norm": _bits(norm), "again": [_bits(x) for x in again]}


def _bits(x: Array) -> tuple[str, tuple[int, ...], str]:
    return x.dtype.name, x.shape, np.ascontiguousarray(x).tobytes().hex()


def array_of(bits: tuple[str, list[int], str]) -> Array:
    """The array that was told."""
    dtype, shape, content = bits
    return np.frombuffer(bytes.fromhex(content), dtype).reshape(shape)


def save(path: str, answers: Any) -> None:
    """Write a rank's answers for the test to read."""
    Path(path).write_text(json.dumps(answers))
