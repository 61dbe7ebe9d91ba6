"""The command `clipcore train`: its files, its pictures, what it refuses, and how it ends."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from clipcore.cli import main

RUN = [sys.executable, "-c", "import sys; from clipcore.cli import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*arguments: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What a run wrote: results and history."""
    assert main(["train", *arguments, "--out", "out"]) == 0
    return read(Path("out"))


def read(out: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    results = json.loads((out / "results.json").read_text())
    with (out / "history.csv").open(newline="") as stream:
        return results, list(csv.DictReader(stream))


def points(path: str, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return path


# --- what is written ---------------------------------------------------------------------------------------


def test_the_mlp_of_the_defaults_learns_the_digits_and_says_so() -> None:
    results, history = train("mlp")
    assert results["test_accuracy"] >= 0.97
    assert (results["diverged"], results["diverged_at_step"], results["interrupted"]) == (False, None, False)
    assert results["steps"] == len(history) == 20 * (1438 // 64)
    assert [row["step"] for row in history] == [str(n) for n in range(1, len(history) + 1)]
    assert results["options"]["max_norm"] == 1.0
    assert {"clipcore", "numpy", "python"} <= set(results["versions"])
    assert len(results["scores_by_epoch"]) == 20
    assert results["scores_by_epoch"][-1]["test_accuracy"] == results["test_accuracy"]
    clipped = [float(row["norm_before"]) > 1 for row in history]
    assert [row["clipped"] == "1" for row in history] == clipped
    assert results["share_of_steps_clipped"] == sum(clipped) / len(history)
    assert all(float(row["norm_after"]) <= 1 for row in history)


def test_the_same_command_writes_the_same_history_to_the_bit() -> None:
    for out in ("a", "b"):
        assert main(["train", "mlp", "--epochs", "2", "--clip", "value", "--seed", "3", "--out", out]) == 0
    assert Path("a/history.csv").read_bytes() == Path("b/history.csv").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["mlp", "--clip", "weights", "--normalization", "layer", "--activation", "tanh"],
        ["wgan", "--clip", "l2", "--max-norm", "0.5"],
        ["rnn", "--clip", "none"],
        ["mlp", "--clip", "none", "--optimizer", "sgd", "--learning-rate", "1e9"],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_every_run_leaves_a_picture_with_something_on_it(arguments: list[str]) -> None:
    data = [] if arguments[0] == "mlp" else ["--data", examples(arguments[0])]
    train(*arguments, "--epochs", "1", *data)
    picture = matplotlib.image.imread("out/run.png")
    assert picture.shape == (960, 1320, 4)
    for part in (picture[:480, :660], picture[:480, 660:], picture[480:, :660], picture[480:, 660:]):
        assert len(np.unique(part.reshape(-1, 4), axis=0)) > 20
    assert Path("out/run.svg").read_text().lstrip().startswith("<?xml")


def examples(model: str) -> str:
    """A file of few examples for a model."""
    rng = np.random.default_rng(0)
    if model == "rnn":
        return points("few.npz", x=rng.normal(size=(100, 6, 3)), y=rng.normal(size=100))
    if model == "wgan":
        return points("few.npz", x=rng.normal(size=(800, 2)))
    return points("few.npz", x=rng.normal(size=(100, 3)), y=rng.integers(0, 3, 100))


@pytest.mark.parametrize("model", ["mlp", "rnn", "wgan"])
def test_the_users_own_data(model: str) -> None:
    results, history = train(model, "--data", examples(model), "--epochs", "2")
    assert results["data"] == "few.npz"
    assert results["steps"] == len(history) == {"mlp": 2, "rnn": 2, "wgan": 10}[model]
    assert {"mlp": "test_accuracy", "rnn": "test_error", "wgan": "test_distance"}[model] in results


@pytest.mark.parametrize("features", [1, 3])
def test_points_of_one_dimension_and_of_three(features: int) -> None:
    points("own.npz", x=np.random.default_rng(0).normal(size=(300, features)))
    results, _ = train("wgan", "--data", "own.npz", "--epochs", "1")
    assert results["test_distance"] > 0


def test_without_a_folder_nothing_is_written_over() -> None:
    for _ in range(2):
        assert main(["train", "mlp", "--epochs", "1"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["clipcore-mlp", "clipcore-mlp-2"]


# --- how it ends -------------------------------------------------------------------------------------------


def test_a_diverged_run_says_at_which_step_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    results, history = train("mlp", "--clip", "none", "--optimizer", "sgd", "--learning-rate", "1e8")
    assert results["diverged"] is True
    assert results["diverged_at_step"] == len(history) + 1 == results["steps"] + 1
    assert results["diverged_because"].startswith("the loss is ")
    assert f"diverged at step {len(history) + 1}: the loss is" in capsys.readouterr().out


def test_data_too_large_for_anything_diverges_at_the_first_step() -> None:
    points("huge.npz", x=np.full((20, 2), 1e100) * np.array([1, -1] * 10)[:, None])
    results, history = train("wgan", "--data", "huge.npz")
    assert results["diverged_at_step"] == 1
    assert history == []


def started(*arguments: str) -> subprocess.Popen[str]:
    """A run in a process of its own, which has written some of its history."""
    process = subprocess.Popen(
        [*RUN, "train", *arguments, "--out", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not Path("out/history.csv").exists() or Path("out/history.csv").read_text().count("\n") < 20:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_was_done(sent: signal.Signals) -> None:
    process = started("mlp", "--epochs", "100000")
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    results, history = read(Path("out"))
    assert results["interrupted"] is True
    assert results["steps"] == len(history) >= 19
    assert out.startswith("interrupted: test accuracy")
    assert Path("out/run.png").stat().st_size > 10_000


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_a_killed_run_has_its_history_on_the_disk() -> None:
    process = started("mlp", "--epochs", "100000")
    process.kill()
    process.communicate(timeout=60)
    with Path("out/history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    train("mlp", "--epochs", "2", "--clip", "weights")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for word in ("loss", "norm", "→", "of steps clipped", "of weights at the bound", "test accuracy"):
        assert word in lines[0]


# --- what is refused ---------------------------------------------------------------------------------------


BAD_OPTIONS = [
    (["mlp", "--range", "1"], "train: --range: it limits the clips value, weights; this one is global"),
    (["mlp", "--clip", "none", "--max-norm", "1"], "train: --max-norm: it limits the clips l1, l2, global"),
    (["mlp", "--max-norm", "nan"], "train: --max-norm: nan is no finite number of 0 or more"),
    (["mlp", "--max-norm", "inf"], "train: --max-norm: inf is no finite number of 0 or more"),
    (["mlp", "--where", "all"], "train: --where: it chooses weights to clip; this clip is global"),
    (["mlp", "--learning-rate", "-1"], "train: --learning-rate: -1.0 is no positive number"),
    (["mlp", "--epochs", "0"], "train: --epochs: 0 is less than 1"),
    (["rnn", "--normalization", "batch"], "train: --normalization: the mlp and the wgan have a choice"),
    (["mlp", "--data", "none.npz"], "none.npz: no such file"),
    (["mlp", "--out", "file/below"], "file/below: cannot be made a folder: Not a directory"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_OPTIONS)
def test_bad_options_get_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"clipcore: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["cnn"],
        ["mlp", "--clip", "l3"],
        ["mlp", "--epochs", "many"],
        ["mlp", "--speed", "1"],
        ["mlp", "--learn", "1"],
        [],
    ],
)
def test_bad_words_get_one_clear_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.count("\n") == 1
    assert err.endswith("--help\n")


FILES: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: Path("x.npz").write_bytes(b"no zip"), "mlp", "cannot be read as an .npz file"),
    (lambda: Path("x.npz").write_bytes(b"PK\x03\x04" + b"\0" * 50), "mlp", "cannot be read as an .npz file"),
    (lambda: np.savez("x.npz", x=np.array([object()])), "mlp", "cannot be read as an .npz file"),
    (lambda: np.savez("x.npz", y=np.zeros(20)), "mlp", "no array named x in it"),
    (lambda: np.savez("x.npz", x=np.zeros((20, 2))), "mlp", "no array named y in it"),
    (
        lambda: np.savez("x.npz", x=np.zeros((20, 2)), y=np.zeros(19)),
        "mlp",
        "y has shape (19,); give one for each",
    ),
    (lambda: np.savez("x.npz", x=np.zeros((20, 2)), y=np.zeros(20)), "mlp", "needs classes, integers from 0"),
    (
        lambda: np.savez("x.npz", x=np.zeros((20, 2)), y=np.full(20, 0.5)),
        "mlp",
        "needs classes, integers from 0",
    ),
    (
        lambda: np.savez("x.npz", x=np.zeros((20, 2)), y=-np.arange(20)),
        "mlp",
        "needs classes, integers from 0",
    ),
    (
        lambda: np.savez("x.npz", x=np.array([["a"]] * 20), y=np.arange(20)),
        "mlp",
        "x is no array of real numbers",
    ),
    (
        lambda: np.savez("x.npz", x=np.full((20, 2), np.nan), y=np.arange(20)),
        "mlp",
        "x has a NaN or an infinity",
    ),
    (lambda: np.savez("x.npz", x=np.zeros((2, 2)), y=np.arange(2)), "mlp", "ten examples or more"),
    (lambda: np.savez("x.npz", x=np.zeros((20, 0)), y=np.arange(20)), "mlp", "x has shape (20, 0)"),
    (
        lambda: np.savez("x.npz", x=np.zeros((20, 2)), y=np.arange(20)),
        "rnn",
        "needs (examples, time, features)",
    ),
    (lambda: np.savez("x.npz", x=np.diag([1e101] * 20)), "wgan", "x has numbers beyond ±1e+100"),
    (lambda: np.savez("x.npz", x=np.zeros(20)), "wgan", "needs (examples, features)"),
    (lambda: np.savez("x.npz", x=np.float64(3)), "wgan", "x is no array of real numbers"),
]


@pytest.mark.parametrize(("write", "model", "message"), FILES)
def test_a_bad_data_file_gets_one_clear_line(
    write: Callable[[], Any], model: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    assert main(["train", model, "--data", "x.npz"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("clipcore: x.npz: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["x.npz"]
