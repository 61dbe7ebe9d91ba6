"""The GPU benchmark prints what it measured: its trees, its table and what it says without a GPU."""

from __future__ import annotations

import datetime
import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "gpu_benchmark.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_trees_are_what_they_are_called(benchmark: ModuleType) -> None:
    counts = {name: (len(tree), sum(map(math.prod, tree))) for name, tree in benchmark.TREES.items()}
    assert counts == {
        "GPT-2, small": (148, 124_439_808),
        "2,000 small leaves": (2000, 512_000),
        "one leaf of 1 GiB": (1, 2**30 // 4),
    }


def test_the_table_has_a_date_a_device_and_ratios(benchmark: ModuleType) -> None:
    rows = [
        benchmark.Row("a tree", 2000, 512_000, 1.5, 3.0, 0.75),
        benchmark.Row("other", 1, 7, 2.0, 1.0, 0.5),
    ]
    text = benchmark.table(rows, "a GPU", {"clipcore": "9.9"}, datetime.date(2027, 1, 2))
    assert text.splitlines() == [
        "2027-01-02, a GPU, clipcore 9.9; float32, medians of 30 runs",
        "",
        "| tree | leaves | elements | clipcore ms | torch ms | copy ms | per torch | per copy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        "| a tree | 2,000 | 512,000 | 1.500 | 3.000 | 0.750 | 0.50 | 2.00 |",
        "| other | 1 | 7 | 2.000 | 1.000 | 0.500 | 2.00 | 4.00 |",
    ]


def test_the_median_leaves_out_the_first_runs(benchmark: ModuleType) -> None:
    times = iter([900.0] * benchmark.WARM + [float(k) for k in range(benchmark.RUNS)])
    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    cuda = SimpleNamespace(Event=lambda: event, get_elapsed_time=lambda start, stop: next(times))
    calls: list[int] = []
    assert (
        benchmark.median_time(SimpleNamespace(cuda=cuda), lambda: calls.append(1)) == (benchmark.RUNS - 1) / 2
    )
    assert len(calls) == benchmark.WARM + benchmark.RUNS


def test_without_a_gpu_it_says_so() -> None:
    # An empty list of devices hides a GPU where there is one.
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=300,
        env={"CUDA_VISIBLE_DEVICES": "", "HOME": str(Path.home())},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("no table: ")
