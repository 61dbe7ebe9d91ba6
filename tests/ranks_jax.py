"""Eight ranks of jax.shard_map in one process: python ranks_jax.py ANSWERS (x64 | x32), a file for each."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from ranks_cases import (
    DTYPES,
    NO_FLOAT64,
    X32_EXPONENTS,
    X64_EXPONENTS,
    Answer,
    Array,
    Case,
    cases,
    save,
    sharded_by_jit,
    told,
)

import clipcore as cc

COUNT = 8
WIDTH = 64
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={COUNT}"
jax: Any = importlib.import_module("jax")
jnp: Any = importlib.import_module("jax.numpy")
MESH = jax.make_mesh((COUNT,), ("ranks",))
AUTO = jax.make_mesh((COUNT,), ("ranks",), axis_types=(jax.sharding.AxisType.Auto,))
SHARDED, SAME = jax.sharding.PartitionSpec("ranks"), jax.sharding.PartitionSpec()


def all_reduce(array: Any, op: str) -> Any:
    return {"sum": jax.lax.psum, "max": jax.lax.pmax}[op](array, "ranks")


@cache
def clip(order: float, nonfinite: Any, counted: int) -> Any:
    """The compiled clip of a list of shards and a list of copies, which rank `counted` counts."""

    def ranks(shards: list[Any], copies: list[Any], limit: Any) -> Any:
        if copies:
            mine = jax.lax.axis_index("ranks") == counted
            tree = [*shards, *(jnp.where(mine, copy, 0) for copy in copies)]
            norm = cc.global_norm(tree, ord=order, all_reduce=all_reduce)
            results, norm = cc.clip_by_global_norm([*shards, *copies], limit, norm=norm, nonfinite=nonfinite)
        else:
            results, norm = cc.clip_by_global_norm(
                shards, limit, ord=order, all_reduce=all_reduce, nonfinite=nonfinite
            )
        return results[: len(shards)], [copy[None] for copy in results[len(shards) :]], norm[None]

    cut = {"in_specs": (SHARDED, SAME, SAME), "out_specs": (SHARDED, SHARDED, SHARDED)}
    return jax.jit(jax.shard_map(ranks, mesh=MESH, **cut))


def columns(case: Case) -> dict[str, Array]:
    """The leaves by dtype, a row for each rank; shard_map cuts evenly, so that rows are padded with zeros."""
    table: dict[str, Array] = {}
    for rank, leaves in enumerate(case.own):
        for start, leaf in placed(leaves):
            rows = table.setdefault(leaf.dtype.name, np.zeros((COUNT, WIDTH), leaf.dtype))
            rows[rank, start : start + leaf.size] = leaf
    return table


def placed(leaves: list[Array]) -> Iterator[tuple[int, Array]]:
    """The leaves of a rank, each with where it begins in the row of its dtype."""
    ends: Counter[str] = Counter()
    for leaf in leaves:
        yield ends[leaf.dtype.name], leaf
        ends[leaf.dtype.name] += leaf.size


def answers(case: Case) -> list[Answer]:
    """What each rank has after one clip and after two."""
    table = columns(case)
    limit = jnp.asarray(case.limit)
    step = clip(case.order, case.nonfinite, case.holders[0])
    shards = [jax.device_put(rows, jax.NamedSharding(MESH, SHARDED)) for rows in table.values()]
    copies = case.copies
    stages = []
    for _ in range(2):
        kept = [jax.device_put(copy, jax.NamedSharding(MESH, SAME)) for copy in copies]
        shards, parted, norms = step(shards, kept, limit)
        rows = dict(zip(table, map(np.asarray, shards), strict=True))
        stages.append((rows, [np.asarray(copy) for copy in parted], np.asarray(norms)))
        copies = [np.asarray(copy)[case.holders[0]] for copy in parted]
    (once, copies_once, norms), (again, copies_again, _) = stages
    return [
        told(held(case, rank, once, copies_once), norms[rank], held(case, rank, again, copies_again))
        for rank in range(COUNT)
    ]


def held(case: Case, rank: int, rows: dict[str, Array], copies: list[Array]) -> list[Array]:
    """The leaves of one rank, its padding cut off."""
    own = [rows[x.dtype.name][rank, start : start + x.size] for start, x in placed(case.own[rank])]
    return own + [copy[rank] for copy in copies if rank in case.holders]


def raises(case: Case) -> list[Answer]:
    """What a traced call says to nonfinite="raise"."""
    try:
        return answers(case)
    except ValueError as error:
        return [{"error": str(error)}] * COUNT


def collectives() -> list[str]:
    """What a compiled clip of float32 leaves moves between the ranks."""
    shards = [jax.device_put(np.ones((COUNT, WIDTH), np.float32), jax.NamedSharding(MESH, SHARDED))] * 3
    text = clip(2, "propagate", 0).lower(shards, [], jnp.asarray(1.0)).compile().as_text()
    return re.findall(
        r"= (\S+?)(?:{\S*})? (all-reduce|all-gather|all-to-all|reduce-scatter|collective-[a-z]+)\(", text
    )


def without_all_reduce() -> Answer:
    """A clip of a sharded array under jit alone."""
    jitted = jax.jit(cc.clip_by_global_norm)
    leaf = jax.device_put(sharded_by_jit().own[0][0], jax.NamedSharding(AUTO, SHARDED))
    once, norm = jitted([leaf], 1.0)
    again, _ = jitted(once, 1.0)
    return told([np.asarray(once[0])], np.asarray(norm), [np.asarray(again[0])])


if __name__ == "__main__":
    wide = sys.argv[2] == "x64"
    jax.config.update("jax_enable_x64", wide)
    more = {"collectives": collectives(), "jit alone": without_all_reduce()}
    told_by = [
        (raises if case.nonfinite == "raise" else answers)(case)
        for case in (cases(COUNT, DTYPES, X64_EXPONENTS) if wide else cases(COUNT, NO_FLOAT64, X32_EXPONENTS))
    ]
    for rank in range(COUNT):
        save(sys.argv[1].format(rank), [each[rank] for each in told_by])
    save(sys.argv[1].format("more"), more)
