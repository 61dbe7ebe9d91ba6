"""One clip over many machines, on the engines that people run, judged by exact arithmetic as one tree."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ranks_cases import (
    DTYPES,
    EXPONENTS,
    NO_FLOAT64,
    X32_EXPONENTS,
    X64_EXPONENTS,
    Answer,
    Case,
    array_of,
    cases,
    sharded_by_jit,
)
from ranks_judge import flaws
from ranks_run import TESTS, each_rank, mpirun, need, run, saved

from clipcore.verify.formats import is_finite
from clipcore.verify.laws import Group

TRACED = (
    "clip_by_global_norm: nonfinite is 'raise', which must look at values, and the leaves are traced or "
    "lazy; choose 'propagate' or 'zero'"
)


@dataclass(frozen=True)
class Engine:
    """What carries the numbers from rank to rank.

    Attributes
    ----------
    name : str
        What a test's id shows.
    count : int
        How many ranks.
    needs : tuple of str
        What must be installed.
    start : callable
        Starts the ranks, with a folder to work in, and returns what each answers.
    dtypes, exponents
        Of the leaves that are tried.
    ulps : int
        How far off the norm of float64 leaves may be.
    traced : bool
        Whether values cannot be looked at.
    """

    name: str
    count: int
    needs: tuple[str, ...]
    start: Callable[[Path], list[Any]]
    dtypes: Sequence[str] = DTYPES
    exponents: Sequence[int] = EXPONENTS
    ulps: int = 4
    traced: bool = False

    def __str__(self) -> str:
        return self.name


def torch_ranks(count: int) -> Callable[[Path], list[Any]]:
    return lambda tmp_path: each_rank("ranks_torch.py", count, tmp_path)


def jax_ranks(mode: str) -> Callable[[Path], list[Any]]:
    def start(tmp_path: Path) -> list[Any]:
        answers = str(tmp_path / "{}.json")
        run([sys.executable, str(TESTS / "ranks_jax.py"), answers, mode])
        more = json.loads(Path(answers.format("more")).read_text())
        # what all ranks exchange, whatever the leaves
        kind = "f64" if mode == "x64" else "f32"
        assert more["collectives"] == [[f"{kind}[3]", "all-reduce"], [f"{kind}[5]", "all-reduce"]]
        assert list(flaws(sharded_by_jit(), [more["jit alone"]], 4)) == []
        return saved(answers, 8)

    return start


def mpi_ranks(tmp_path: Path) -> list[Any]:
    answers = str(tmp_path / "{}.json")
    run(mpirun(4, str(TESTS / "ranks_mpi.py"), answers))
    return saved(answers, 4)


def dask_ranks(tmp_path: Path) -> list[Any]:
    answers = str(tmp_path / "{}.json")
    run([sys.executable, str(TESTS / "ranks_dask.py"), answers])
    return saved(answers, 2)


ENGINES = [
    Engine("torch-2", 2, ("torch",), torch_ranks(2)),
    Engine("torch-4", 4, ("torch",), torch_ranks(4)),
    Engine("jax-x64", 8, ("jax",), jax_ranks("x64"), exponents=X64_EXPONENTS, traced=True),
    Engine("jax-x32", 8, ("jax",), jax_ranks("x32"), NO_FLOAT64, X32_EXPONENTS, traced=True),
    Engine("mpi", 4, ("mpi4py",), mpi_ranks, ulps=1),
    Engine("dask", 2, ("distributed",), dask_ranks, ulps=1),
]


def raised(case: Case, rank: int, traced: bool) -> str | None:
    """What a rank is to raise: it names its own leaves."""
    if case.nonfinite != "raise":
        return None
    if traced:
        return TRACED
    names = [f"tree[{place}]" for place, leaf in enumerate(case.own[rank]) if not is_finite([leaf])]
    where = ", ".join(names) or "a leaf of another rank"
    return (
        f"clip_by_global_norm: NaN or infinity in {where}; mend it, or choose nonfinite='propagate' or 'zero'"
    )


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_ranks_of_an_engine_clip_as_one_machine_would(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need(request, *engine.needs)
    answers = engine.start(tmp_path)
    tried = list(cases(engine.count, engine.dtypes, engine.exponents))
    assert [len(each) for each in answers] == [len(tried)] * engine.count
    for case, *of_case in zip(tried, *answers, strict=True):
        assert [each.get("error") for each in of_case] == [
            raised(case, rank, engine.traced) for rank in range(engine.count)
        ]
        assert list(flaws(case, of_case, engine.ulps)) == []


@pytest.mark.parametrize("count", [2, 4])
def test_fsdp2_gradients_are_clipped_in_place_wherever_their_elements_are(
    count: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need(request, "torch")
    answers = each_rank("ranks_dtensor.py", count, tmp_path)
    for refused in (each.pop("refused") for each in answers):
        assert len(refused) == 3
        for message in refused:
            assert message.startswith("clip_by_global_norm: tree['w'] is DTensor(")
            assert "which lies on many ranks; give this rank's part, to_local(), and all_reduce=" in message
    names = ["FSDP2", "FSDP2 in bfloat16", "replicated and sharded", "HSDP", "two dimensions"]
    assert list(answers[0]) == (names if count == 4 else names[:3])
    for name in answers[0]:
        of_tree: list[Answer] = [each[name] for each in answers]
        before, after = ([array_of(bits) for bits in of_tree[0][key]] for key in ("before", "once"))
        case = Case(name, [before, *[[]] * (count - 1)], 0.25)
        # what one rank gathers is the whole tree; the others must gather the same
        assert all(each["once"] == of_tree[0]["once"] for each in of_tree)
        whole = [of_tree[0], *({**each, "once": [], "again": []} for each in of_tree[1:])]
        assert list(flaws(case, whole, 4)) == []
        assert Group(tuple(before), tuple(after), 0.25).clipped
    if count == 4:
        assert any(any(each["FSDP2"]["empty"]) for each in answers)
