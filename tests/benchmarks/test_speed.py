"""The cases of the report under pytest-benchmark: ``pytest -m speed``, for the history of one machine."""

from __future__ import annotations

import itertools
from typing import Any

import contenders
import pytest

import clipcore

pytestmark = pytest.mark.speed

CALLS = {
    "in place": contenders.in_place,
    "pure": contenders.pure,
    "norm": contenders.norm,
    "by hand": contenders.by_hand,
    "floor": contenders.read_and_multiply,
}


@pytest.mark.parametrize("clipped", [True, False], ids=["clipped", "inside"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("tree", contenders.TREES)
def test_trees(tree: str, call: str, clipped: bool, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    benchmark: Any = request.getfixturevalue("benchmark")
    benchmark.group = f"{tree}, {'clipped' if clipped else 'inside'}"
    leaves = contenders.drawn(contenders.TREES[tree])
    start = float(clipcore.global_norm(leaves))
    limits = (start * 0.9995**k if clipped else 2 * start for k in itertools.count(1))
    run = CALLS[call](leaves)
    benchmark(lambda: run(next(limits)))
