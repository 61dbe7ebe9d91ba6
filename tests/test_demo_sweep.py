"""The command `clipcore sweep`: its grid, its files, going on after it was killed, which limit is best."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from clipcore.cli import main
from clipcore.demo.comparing import compare
from clipcore.demo.data import load_data
from clipcore.demo.options import Options
from clipcore.demo.results import results, write_json
from clipcore.demo.running import train
from clipcore.demo.sweep import SWEEPS, Grid, cells, read_cell

RUN = [sys.executable, "-c", "import sys; from clipcore.cli import main; sys.exit(main())"]
GRID = ["--ranges", "0.01", "0.3", "--learning-rates", "0.1", "--seeds", "2", "--epochs", "2"]
TINY = [*GRID, "--data", "blobs.npz", "--out", "out"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_blobs(0)


def write_blobs(seed: int) -> None:
    """Four clouds of points, a class each."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, 1000)
    x = np.array([[-2, -2], [-2, 2], [2, -2], [2, 2]])[y] + rng.normal(size=(1000, 2))
    np.savez("blobs.npz", x=x, y=y)


def rows() -> list[dict[str, str]]:
    with Path("out/sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def kept() -> dict[str, int]:
    """The runs on the disk and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in Path("out/runs").glob("*.json")}


def test_a_sweep_tries_every_way_and_names_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "mlp", *TINY]) == 0
    out = capsys.readouterr().out
    summary, table = json.loads(Path("out/sweep.json").read_text()), rows()
    assert len(table) == 2 * (2 + 3) == len(kept())
    by_range = {
        limit: [float(row["test_accuracy"]) for row in table if row["range"] == limit]
        for limit in ("0.01", "0.3")
    }
    assert summary["best"]["limit"] == 0.3
    assert summary["best"]["median"] == median(by_range["0.3"]) > median(by_range["0.01"])
    assert (summary["best"]["least"], summary["best"]["most"]) == (min(by_range["0.3"]), max(by_range["0.3"]))
    assert {way["name"] for way in summary["ways"]} == {
        "range ±0.01", "range ±0.3", "no clipping", "batch norm", "layer norm",
    }  # fmt: skip
    assert "best limit: range ±0.3 at learning rate 0.1: test accuracy 0." in out
    for name in ("no clipping", "batch norm", "layer norm"):
        assert f"in its place, {name} at learning rate 0.1" in out
    picture = matplotlib.image.imread("out/sweep.png")
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 50
    assert Path("out/sweep.svg").read_text().lstrip().startswith("<?xml")

    before = kept()
    assert main(["sweep", "mlp", *TINY]) == 0
    assert kept() == before, "what was done is not run again"
    again = [word if word != "2" else "3" for word in TINY]  # three seeds, three epochs: all is new
    assert main(["sweep", "mlp", *again]) == 0
    assert before.items() <= kept().items()


def test_a_cell_is_what_the_train_command_makes_of_the_same_options() -> None:
    assert main(["sweep", "mlp", *TINY]) == 0
    row = next(row for row in rows() if row["range"] == "0.3" and row["seed"] == "1")
    asked = "--clip weights --range 0.3 --learning-rate 0.1 --epochs 2 --seed 1 --data blobs.npz --out one"
    assert main(["train", "mlp", *asked.split()]) == 0
    one = json.loads(Path("one/results.json").read_text())
    assert float(row["test_accuracy"]) == one["test_accuracy"]
    assert float(row["share_of_steps_clipped"]) == one["share_of_steps_clipped"]


def test_a_run_that_is_broken_on_the_disk_is_run_again() -> None:
    assert main(["sweep", "mlp", *TINY]) == 0
    broken = sorted(Path("out/runs").glob("*.json"))[:2]
    whole = [read_cell(path) for path in broken]
    broken[0].write_text(broken[0].read_text()[:100])
    broken[1].write_text("{}")
    assert main(["sweep", "mlp", *TINY]) == 0
    for before, path in zip(whole, broken, strict=True):
        after = read_cell(path)
        assert before is not None
        assert after is not None
        assert before | {"seconds": 0} == after | {"seconds": 0}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_sweep_that_is_stopped_goes_on_where_it_was(name: str) -> None:
    sent = signal.Signals[name]
    asked = [*RUN, "sweep", "mlp", *TINY, "--workers", "2"]
    process = subprocess.Popen(
        asked,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(list(Path("out/runs").glob("*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = children_of(process.pid)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-sent if name == "SIGKILL" else 130)
    assert "Traceback" not in err
    while any(Path(f"/proc/{child}").exists() and not zombie(child) for child in children):
        assert time.monotonic() < deadline, "a process outlives the sweep"
        time.sleep(0.05)
    before = kept()
    assert 2 <= len(before) < 10
    assert not Path("out/sweep.csv").exists()
    again = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith(f"{len(before)} of 10 runs done before")
    assert before.items() <= kept().items()
    assert len(kept()) == 10


def children_of(pid: int) -> list[str]:
    """The processes that a process has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


BAD = [
    (["--clip", "none"], "sweep: --clip: none has no limits to go through"),
    (["--max-norms", "1"], "sweep: --max-norms: weights is limited by --ranges"),
    (["--clip", "l2", "--ranges", "1"], "sweep: --ranges: l2 is limited by --max-norms"),
    (["--seeds", "0"], "sweep: --seeds: 0 is less than 1"),
    (["--workers", "0"], "sweep: --workers: 0 is less than 1"),
    (["--ranges", "-1"], "sweep: --range: -1.0 is no finite number of 0 or more"),
    (["--ranges", "inf"], "sweep: --range: inf is no finite number of 0 or more"),
    (["--data", "none.npz"], "none.npz: no such file"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_options_get_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"clipcore: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["blobs.npz"]


def test_the_data_of_a_sweep_decide_its_runs_not_the_name_of_the_file() -> None:
    assert main(["sweep", "mlp", *TINY]) == 0
    assert len(kept()) == 10
    write_blobs(1)
    assert main(["sweep", "mlp", *TINY]) == 0
    assert len(kept()) == 20
    assert len(rows()) == 10


def test_every_sweep_has_no_clipping_beside_and_normalisation_where_there_is_one() -> None:
    for model, (clip, *grids) in SWEEPS.items():
        for grid in grids:
            made = cells(model, clip, grid)
            beside = 1 if model == "rnn" else 3
            count = grid.seeds * len(grid.learning_rates) * (len(grid.limits) + beside)
            assert len(made) == len(set(made)) == count
            assert sum(each.clip == "none" for each in made) == count * beside // (len(grid.limits) + beside)


def result(value: float | None, *, limit: float | None, seed: int, model: str = "mlp") -> dict[str, Any]:
    """The results of a run, of which only what is compared matters."""
    measure = {"mlp": "test_accuracy", "rnn": "test_error"}[model]
    clip = {"clip": "none"} if limit is None else {"clip": "global", "max_norm": limit}
    options = vars(Options.of(model, seed=seed, **clip))
    ends = {"diverged": value is None, "share_of_steps_clipped": 0.5, "median_generator_norm": None}
    return {"model": model, "options": options, measure: value, **ends}


def test_the_best_has_the_best_median_and_of_equal_ones_the_better_worst_seed() -> None:
    runs = [result(value, limit=1.0, seed=s) for s, value in enumerate((0.9, 0.9, 0.1))]
    runs += [result(value, limit=2.0, seed=s) for s, value in enumerate((0.9, 0.9, 0.8))]
    runs += [result(value, limit=3.0, seed=s) for s, value in enumerate((1.0, 0.8, 0.8))]
    runs += [result(value, limit=None, seed=s) for s, value in enumerate((1.0, 1.0, 1.0))]
    made = compare(runs)
    assert made.best(made.clipped()).limit == 2.0
    assert made.best(made.ways).name == "no clipping"


def test_less_is_better_for_an_error_and_no_number_is_the_worst() -> None:
    runs = [result(value, limit=1.0, seed=s, model="rnn") for s, value in enumerate((0.01, None, None))]
    runs += [result(value, limit=2.0, seed=s, model="rnn") for s, value in enumerate((0.02, 0.5, 0.02))]
    made = compare(runs)
    assert made.best(made.clipped()).limit == 2.0
    assert made.ways[0].scores == (0.01, math.inf, math.inf)
    assert made.ways[0].diverged == 2


def test_a_run_is_on_the_disk_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    options = Options.of("mlp", epochs=1)
    made = results(train(options, load_data("mlp")), 1.0)
    write_json(tmp_path / "run.json", made)
    assert read_cell(tmp_path / "run.json") == json.loads(json.dumps(made))
    write_json(tmp_path / "bad.json", {"scores_by_epoch": [math.nan, -math.inf, {"a": (1.0, math.inf)}]})
    assert read_cell(tmp_path / "bad.json") == {"scores_by_epoch": [None, None, {"a": [1.0, None]}]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "bad.json", {"scores_by_epoch": object()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "blobs.npz", "run.json"]


def test_grids_are_in_the_order_of_seeds_so_that_a_part_of_a_sweep_is_a_smaller_sweep() -> None:
    made = cells("mlp", "weights", Grid((0.1, 1.0), (0.1,), 3))
    assert [each.seed for each in made] == sorted(each.seed for each in made)
