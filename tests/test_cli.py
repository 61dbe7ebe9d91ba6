"""The command: what it prints, what it refuses, and its exit status."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipcore
from clipcore import cli
from clipcore.cli import main
from clipcore.verify import run
from clipcore.verify.form import leaves
from clipcore.verify.handwritten import HANDWRITTEN
from clipcore.verify.judge import Case

ROOT = Path(__file__).parents[1]
QUICK = ["verify", "--examples", "3"]


@pytest.fixture
def gradients(tmp_path: Path) -> str:
    path = tmp_path / "gradients.npz"
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 2)), rng.standard_normal(3)
    np.savez(path, weight=weight.astype(np.float32), bias=bias, zero=np.zeros(2), wave=np.array([3 + 4j]))
    return str(path)


def replaced(monkeypatch: pytest.MonkeyPatch, operation: str, fn: Callable[..., Any]) -> None:
    """Put another function in the place of clipcore's in the table."""
    functions = {**run.IMPLEMENTATIONS[run.REFERENCE], operation: fn}
    monkeypatch.setitem(run.IMPLEMENTATIONS, run.REFERENCE, functions)


def row(output: str, law: str) -> list[str]:
    """Return the cells of the first row of a law."""
    line = next(line for line in output.splitlines() if law in line and "│" in line)
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_clipcore_holds_and_the_hand_written_formula_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--examples", "25"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""  # no progress bar where standard error is no terminal
    for law, _ in run.LAWS.values():
        assert row(output, law)[1].startswith("0 / ")
    assert not row(output, "2 identity")[2].startswith("0 / ")
    assert "2 identity, by hand: clip_by_" in output
    assert ", clipcore: " not in output


def test_a_law_broken_by_clipcore_is_status_1_and_shows_the_smallest_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(monkeypatch, "clip_by_l2_norm", lambda x, *_: x.copy())
    assert main(["verify", "--examples", "20"]) == 1
    output = capsys.readouterr().out
    assert not row(output, "1 bound")[1].startswith("0 / ")
    assert re.search(r"1 bound, clipcore: clip_by_l2_norm\(float(16|32|64) \[", output)
    assert "the norm of the result exceeds the limit: expected " in output


def test_an_exception_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def raising(*_: object) -> object:
        raise ZeroDivisionError("always")

    replaced(monkeypatch, "clip_by_value", raising)
    assert main(QUICK) == 1
    output = capsys.readouterr().out
    assert row(output, "no exception")[1].startswith("12 / ")
    assert "raised ZeroDivisionError: always" in output


def test_the_same_seed_gives_the_same_output(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        assert main(["verify", "--examples", "18", "--seed", "7"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("aimed cases, seed 7: ")


def test_another_seed_gives_other_cases() -> None:
    first, second = (
        [x.tobytes() for case in run.aimed(seed, 18).cases for x in leaves(case.tree)] for seed in (1, 2)
    )
    assert first != second


def test_own_arrays_get_a_table_of_their_own(gradients: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--input", gradients]) == 0
    own = capsys.readouterr().out.split("4 arrays of ")[1]
    assert own.startswith(gradients)
    assert row(own, "1 bound")[1] == "0 / 48"  # four arrays and the tree, 5 limits each; 3 value clips


def test_arrays_that_have_no_norm_are_named_as_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.npz"
    members = {"count": np.arange(3), "mask": np.ones(2, bool), "text": np.array(["a"])}
    np.savez(path, good=np.ones(2), nan=np.array([np.nan]), **members)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "not an array")
    assert main([*QUICK, "--input", str(path)]) == 0
    output, errors = capsys.readouterr()
    assert "1 array of " in output
    assert [line.split("skipped ")[1] for line in errors.splitlines()] == [
        "'nan': not finite",
        "'count': of dtype int64",
        "'mask': of dtype bool",
        "'text': of dtype <U1",
        "'notes.txt': not an array",
    ]


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def write_text(path: Path) -> None:
    path.write_text("x" * 100)


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def write_truncated(path: Path) -> None:
    np.savez(path, x=np.ones(1000))
    path.write_bytes(path.read_bytes()[:-30])


def write_flipped(path: Path) -> None:
    np.savez(path, x=np.ones(1000))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)


def write_lying_header(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846975,), }\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def write_pickle(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Bomb()], object), allow_pickle=True)


def write_objects(path: Path) -> None:
    np.savez(path, x=np.array([Bomb()], object))


def write_integers(path: Path) -> None:
    np.savez(path, x=np.arange(3), mask=np.ones(2, bool))


def write_no_members(path: Path) -> None:
    np.savez(path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda _: None, "no such file"),
        (Path.mkdir, "no such file"),
        (write_text, "cannot be read as an .npz file: "),
        (write_nothing, "cannot be read as an .npz file: "),
        (write_npy, "not an .npz file; numpy.savez writes one"),
        (write_truncated, "cannot be read as an .npz file: "),
        (write_flipped, "cannot be read as an .npz file: Bad CRC-32"),
        (write_lying_header, "cannot be read as an .npz file: "),
        (write_pickle, "cannot be read as an .npz file: "),
        (write_objects, "Object arrays cannot be loaded when allow_pickle=False"),
        (write_integers, "no floating-point array in it (x is of dtype int64; mask is of dtype bool)"),
        (write_no_members, "no floating-point array in it (it is empty)"),
    ],
)
def test_an_unusable_file_is_one_line_and_status_2(
    write: Callable[[Path], None],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "input.npz")
    assert main([*QUICK, "--input", "input.npz"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("clipcore: input.npz: ")
    assert errors.count("\n") == 1
    assert reason in errors
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["verfy"],
        ["verify", "--examples", "0"],
        ["verify", "--examples", "many"],
        ["verify", "--seed", "-1"],
        ["verify", "--input"],
        ["verify", "torch"],
    ],
)
def test_bad_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: clipcore" in capsys.readouterr().err


def test_an_interrupted_run_prints_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge, judged = run.Part.judge, 0

    def interrupted(part: run.Part, case: Case) -> None:
        nonlocal judged
        if judged == 5:
            raise KeyboardInterrupt
        judged += 1
        judge(part, case)

    monkeypatch.setattr(run.Part, "judge", interrupted)
    assert main(QUICK) == 130
    output, errors = capsys.readouterr()
    assert row(output, "1 bound")[1] == "0 / 5"
    assert "4 direction" not in output  # the first five are value clips
    assert errors == "clipcore: interrupted; only what came before is counted\n"


def test_the_command_says_how_to_get_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(QUICK) == 2
    expected = 'clipcore: the command needs rich; install it with: pip install "clipcore[verify]"\n'
    assert capsys.readouterr() == ("", expected)


def test_parts_hold_as_many_cases_as_they_say() -> None:
    arrays = {"real": np.ones(2), "complex": np.ones(2, complex), "zero": np.zeros((2, 0), np.float16)}
    for part in (run.aimed(0, 4), run.own("input.npz", arrays)):
        assert len(list(part.cases)) == part.count


def test_a_formula_by_hand_is_not_called_with_what_it_does_not_take() -> None:
    part = run.aimed(0, 1)
    part.judge(Case("clip_by_l2_norm", "rows", np.ones((2, 2)), (1.0,), {"axis": 1}))
    part.judge(Case("l2_norm", "all", np.ones((2, 2))))
    assert [part.tallies["form", name].tried for name in run.IMPLEMENTATIONS] == [2, 0]


@pytest.mark.parametrize("operation", sorted(HANDWRITTEN))
def test_the_formulas_by_hand_are_right_where_nothing_is_near(operation: str) -> None:
    x = np.array([3.0, -4.0])
    arguments = (-1.0, 2.0) if operation in ("clip_by_value", "clip_weights") else (1.0,)
    ours, theirs = (fn(x, *arguments) for fn in (getattr(clipcore, operation), HANDWRITTEN[operation]))
    if operation == "clip_by_global_norm":
        (ours, norm), (theirs, other) = ours, theirs
        assert norm == other == 5
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_status_of_the_process_and_its_output_on_real_gradients(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    subprocess.run([sys.executable, ROOT / "docs" / "digits_gradients.py", path], check=True)
    with np.load(path) as saved:
        assert len(saved.files) == 16
        assert {saved[name].dtype for name in saved.files} == {np.dtype(np.float32)}
    command = [sys.executable, "-m", "clipcore", *QUICK, "--input", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "16 arrays of " in done.stdout


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"clipcore {clipcore.__version__}\n"
    assert cli.HOLDS == 0
