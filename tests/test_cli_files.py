"""The command with files: arrays to judge by, reports to keep and to merge, all of them possibly broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcore.cli import main
from clipcore.verify.report import SCHEMA, Report, read

ROOT = Path(__file__).parents[1]
SHORT = ["--examples", "0", "--dtype", "float32", "--level", "rounded"]
ONE = ["verify", "clipcore:clip_by_l2_norm", *SHORT, "--operation", "clip_by_l2_norm"]


@pytest.fixture
def gradients(tmp_path: Path) -> str:
    path = tmp_path / "gradients.npz"
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 2)), rng.standard_normal(3)
    np.savez(path, weight=weight.astype(np.float32), bias=bias, zero=np.zeros(2), wave=np.array([3 + 4j]))
    return str(path)


def reports_of(arguments: list[str], path: Path) -> list[Report]:
    assert main([*arguments, "--json", str(path)]) == 0
    return read(path).reports


@pytest.mark.parametrize(
    ("operation", "law", "count"),
    [
        ("clip_by_l2_norm", "formula", 4 * 5),  # four arrays, five limits each
        ("clip_by_global_norm", "formula", 5),  # all of them as one tree
        ("clip_by_value", "formula", 3),  # complex numbers have no order
        ("clip_weights", "formula", 1),
        ("l1_norm", "norm", 4),
    ],
)
def test_own_arrays_are_added_to_the_cases(
    gradients: str, tmp_path: Path, operation: str, law: str, count: int
) -> None:
    arguments = ["verify", f"clipcore:{operation}", *SHORT, "--operation", operation]
    [without] = reports_of(arguments, tmp_path / "without.json")
    [with_own] = reports_of([*arguments, "--input", gradients], tmp_path / "with.json")
    assert with_own.counts[law].tried - without.counts[law].tried == count
    assert with_own.passed


def test_own_arrays_are_judged_by_all_laws(gradients: str, tmp_path: Path) -> None:
    arguments = ["verify", ONE[1], "--operation", "clip_by_l2_norm", "--dtype", "float16"]
    arguments += ["--examples", "0", "--input", gradients]
    [report] = reports_of(arguments, tmp_path / "exact.json")
    assert (report.level, report.asked, report.passed) == ("exact", "exact", True)


def test_a_bug_that_only_own_arrays_show_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prime_clip.py").write_text(
        "import clipcore\n"
        "def clip(x, c):\n"
        "    return x.copy() if x.shape == (13, 17) else clipcore.clip_by_l2_norm(x, c)\n"
    )
    np.savez("own.npz", x=np.ones((13, 17), np.float32))
    arguments = ["verify", "prime_clip:clip", *ONE[2:]]
    assert main(arguments) == 0
    assert main([*arguments, "--input", "own.npz"]) == 1
    assert "(13, 17)" in capsys.readouterr().out


def test_arrays_that_have_no_norm_are_named_as_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.npz"
    members = {"count": np.arange(3), "mask": np.ones(2, bool), "text": np.array(["a"])}
    np.savez(path, good=np.ones(2), nan=np.array([np.nan]), **members)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "not an array")
    assert main([*ONE, "--input", str(path)]) == 0
    _, errors = capsys.readouterr()
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
    assert main([*ONE, "--input", "input.npz"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("clipcore: input.npz: ")
    assert errors.count("\n") == 1
    assert reason in errors
    assert not (tmp_path / "unpickled").exists()


def test_real_gradients_pass(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    subprocess.run([sys.executable, ROOT / "docs" / "digits_gradients.py", path], check=True)
    with np.load(path) as saved:
        assert len(saved.files) == 16
        assert {saved[name].dtype for name in saved.files} == {np.dtype(np.float32)}
    operation = "clip_by_global_norm"
    command = [sys.executable, "-m", "clipcore", "verify", f"clipcore:{operation}", *SHORT]
    command += ["--operation", operation]
    done = subprocess.run(
        [*command, "--input", str(path)], check=False, capture_output=True, text=True, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- reports -----------------------------------------------------------------------------------------------


def test_reports_are_kept_as_json_and_as_a_page(tmp_path: Path) -> None:
    kept, shown = tmp_path / "kept.json", tmp_path / "kept.html"
    assert main([*ONE, "--seed", "5", "--json", str(kept), "--html", str(shown)]) == 0
    file = read(kept)
    [report] = file.reports
    assert (report.subject, report.operation, report.seed) == (ONE[1], "clip_by_l2_norm", 5)
    assert (report.asked, report.level, report.passed, report.findings) == ("rounded", "rounded", True, ())
    assert file.environment["numpy"] == np.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", file.date)
    assert shown.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    held = []
    for name in ("first.json", "second.json"):
        reports_of([*ONE, "--examples", "5", "--seed", "3"], tmp_path / name)
        held.append((tmp_path / name).read_bytes())
    assert held[0] == held[1]


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_report_that_cannot_be_written_is_status_2(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ONE, option, str(tmp_path / "no" / "such")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert "there is no such folder" in errors
    assert main([*ONE, option, str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_atlas_merges_reports(tmp_path: Path) -> None:
    kept, page, text = (str(tmp_path / name) for name in ("kept.json", "atlas.html", "atlas.md"))
    assert main([*ONE, "--json", kept]) == 0
    assert main(["atlas", kept, kept, "--html", page, "--markdown", text]) == 0
    assert "clipcore" in Path(page).read_text(encoding="utf-8")
    assert "clip_by_l2_norm" in Path(text).read_text(encoding="utf-8")


def valid() -> dict[str, Any]:
    finding = {
        "law": "formula",
        "level": "rounded",
        "verdict": "fail",
        "message": "wrong",
        "example": "fn(1)",
        "expected": "1.0",
        "got": "2.0",
        "ulps": 5.0,
        "cases": 3,
        "difference": "torch",
    }
    report = {
        "subject": "mine",
        "operation": "clip_by_l2_norm",
        "formula": "contract",
        "asked": "exact",
        "seed": 0,
        "max_examples": 10,
        "findings": [finding],
        "counts": {"formula": {"tried": 5, "broken": 3, "differing": 3}},
        "version": "1.0",
        "definition": "torch",
        "passed": False,
        "level": None,
    }
    return {
        "schema": SCHEMA,
        "date": "2026-01-31",
        "environment": {"numpy": "2.4"},
        "reports": [report],
        "skipped": [{"subject": "other", "reason": "needs other"}],
    }


def atlas_of(tmp_path: Path, text: str) -> int:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    outputs = ["--html", str(tmp_path / "atlas.html"), "--markdown", str(tmp_path / "atlas.md")]
    return main(["atlas", str(path), *outputs])


def places(held: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


def changed(held: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = held.copy()
    if value is KeyError and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(held[path[0]], path[1:], value)
    return copy


def test_a_report_with_anything_wrong_in_it_is_refused_or_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever stands where, the command says so in a line or makes the page; it does not break."""
    held = valid()
    assert atlas_of(tmp_path, json.dumps(held)) == 0
    broken = []
    for path in list(places(held)):
        for value in (KeyError, None, 5, "text", [], [1], ["ab"], {}, {"a": 1}, [None], -1, True):
            if value is KeyError and not path:
                continue
            capsys.readouterr()
            try:
                status = atlas_of(tmp_path, json.dumps(changed(held, path, value)))
            except Exception as error:  # the test tells all of them at once
                broken.append((path, value, repr(error)[:80]))
                continue
            errors = capsys.readouterr().err
            if status not in (0, 2) or errors.count("\n") != (status == 2):
                broken.append((path, value, errors[:80]))
    assert not broken, f"{len(broken)}: {broken[:12]}"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "5", '"text"', "\x00", "[" * 100_000, '{"schema": "clipcore-report-0"}', "NaN"],
    ids=["empty", "half", "list", "null", "5", "text", "NUL", "deep", "other", "NaN"],
)
def test_a_file_that_is_no_report_is_one_line_and_status_2(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert atlas_of(tmp_path, text) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"clipcore: {tmp_path / 'report.json'}: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "atlas.html").exists()


def test_the_atlas_refuses_missing_and_unreadable_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = str(tmp_path / "atlas.html")
    (tmp_path / "latin.json").write_bytes('{"schema": "é"}'.encode("latin-1"))
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "latin.json"):
        assert main(["atlas", str(path), "--html", page]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"clipcore: {path}: cannot be read as a report: ")
        assert errors.count("\n") == 1
    (tmp_path / "good.json").write_text(json.dumps(valid()), encoding="utf-8")
    assert main(["atlas", str(tmp_path / "good.json")]) == 2
    assert "give --html FILE, --markdown FILE or both" in capsys.readouterr().err
    assert main(["atlas", str(tmp_path / "good.json"), "--html", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err
