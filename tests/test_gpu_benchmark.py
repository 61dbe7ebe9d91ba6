"""The GPU benchmark prints what it measured: its trees, its table and what it says without a GPU."""

from __future__ import annotations

import datetime
import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
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
        "six leaves of an MLP": (6, 3466),
        "10,000 leaves of 1,000": (10_000, 10_000_000),
        "GPT-2, small": (148, 124_439_808),
        "one leaf of 1 GiB": (1, 2**30 // 4),
    }


def test_the_table_has_a_date_a_device_and_ratios(benchmark: ModuleType) -> None:
    calls = {"clipcore": [1.0, 1.5, 9.0], "torch": [2.0, 3.0, 9.0], "copy": [1.0, 1.0, 1.0]}
    device = {"clipcore": [2.0, 2.0, 2.0], "torch": [4.0, 2.0, 2.0], "cupy": [8.0] * 3, "copy": [1.0] * 3}
    rows = [benchmark.Row("a tree, clipped", 2000, 512_000, 3, benchmark.Times(calls, device))]
    text = benchmark.table(rows, "a GPU", {"clipcore": "9.9"}, datetime.date(2027, 1, 2))
    assert text.splitlines()[0] == "2027-01-02, a GPU, clipcore 9.9; float32, in place, medians of 30 rounds"
    assert text.splitlines()[2].count("|") == text.splitlines()[3].count("|") == 11
    assert text.splitlines()[4:] == [
        "| a tree, clipped | 2,000 | 512,000 | 1.500 | 0.50 |  | 2.000 | 1.00 | 0.25 | 75% |"
    ]


def test_what_is_said_of_the_speed_is_what_the_script_printed(benchmark: ModuleType) -> None:
    root = SCRIPT.parents[1]
    page, readme, changes = (
        (root / name).read_text(encoding="utf-8") for name in ("docs/gpu.md", "README.md", "CHANGELOG.md")
    )
    begin, end = "<!-- the table that docs/gpu_benchmark.py printed -->\n", "\n<!-- end of the table -->"
    printed = page[page.index(begin) + len(begin) : page.index(end)].splitlines()
    empty = benchmark.table([], "", {}, datetime.date(2027, 1, 2)).splitlines()
    assert printed[1:4] == empty[1:4]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in printed[4:]]
    rows = {
        cell[0]: dict(zip(("call", "device", "copy"), (cell[4], cell[7], cell[9]), strict=True))
        for cell in cells
    }
    named = {f"{name}, {how}" for name in benchmark.TREES for how in ("clipped", "not clipped")}
    assert set(rows) == {*named, "clip_by_value, 1 GiB"}
    whole = rows["one leaf of 1 GiB, clipped"]["copy"].replace("%", " %")
    assert all(f"{whole} of" in text for text in (readme, changes))
    assert f"{rows['GPT-2, small, clipped']['device']} of torch's time" in readme
    assert 0.22 < float(rows["10,000 leaves of 1,000, clipped"]["call"]) < 0.28  # "a quarter"


def test_rounds_at_the_beginning_do_not_count(benchmark: ModuleType) -> None:
    clock, turns, held = [0.0], [], []

    def run(turn: int) -> None:
        turns.append(turn)
        clock[0] += 900.0 if turn < 2 * benchmark.WARM else 1.0 + turn % 2

    class Event:
        def record(self) -> None:
            self.time = clock[0]

        def synchronize(self) -> None:
            pass

    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(
        Event=Event,
        get_current_stream=lambda: stream,
        get_elapsed_time=lambda start, stop: stop.time - start.time,
    )
    cupy = SimpleNamespace(cuda=cuda, RawKernel=lambda code, name: lambda *launch: held.append(launch))
    times = benchmark.measured(cupy, {"clipcore": run})
    assert times.calls == {"clipcore": [1.0] * benchmark.ROUNDS}
    assert times.device == {"clipcore": [2.0] * benchmark.ROUNDS}
    assert turns == list(range(2 * (benchmark.WARM + benchmark.ROUNDS)))
    assert len(held) == benchmark.WARM + benchmark.ROUNDS


def test_what_was_clipped_is_judged(benchmark: ModuleType) -> None:
    benchmark.judge([np.array([3.0]), np.array([4.0])], 5.0, 5.0)
    for norm, limit in ((5.0 * (1 + 2.0**-40), 5.0), (5.0, 4.9999), (5.0, 5.1)):
        with pytest.raises(ArithmeticError, match="on the device"):
            benchmark.judge([np.array([3.0]), np.array([4.0])], norm, limit)


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
