"""The command: what it runs, what it prints, what it refuses, and its exit status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit_support import called

import clipcore
from clipcore import cli
from clipcore.cli import main
from clipcore.verify.handwritten import HANDWRITTEN
from clipcore.verify.report import LAWS, LEVELS, Report, read

SHORT = ["--examples", "0", "--dtype", "float32", "--level", "rounded"]
L2 = ["--operation", "clip_by_l2_norm"]
OWN = "clipcore:clip_by_l2_norm"
MODULE = """
import os, time
import clipcore

def clip(x, c):
    return clipcore.clip_by_l2_norm(x, c)

def clip_(x, c):
    clipcore.clip_by_l2_norm(x, c, out=x)

def nothing(x, c):
    return x.copy()

def crash(x, c):
    os._exit(9)

def hang(x, c):
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    while True:
        pass

def slow(x, c):
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(1)
    return clipcore.clip_by_l2_norm(x, c)

def other(x):
    return x
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_clips.py").write_text(MODULE)


def reports() -> list[Report]:
    return read("kept.json").reports


def row(output: str, subject: str) -> list[str]:
    """The cells of a subject's first row."""
    line = next(line for line in output.splitlines() if line.split()[:1] == [subject])
    return line.split()


# --- what is run -------------------------------------------------------------------------------------------


def test_a_ready_made_subject_that_passes_is_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", OWN, *SHORT, *L2]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""  # no progress bar where standard error is no terminal
    assert row(output, OWN)[:3] == [OWN, "clip_by_l2_norm", "rounded"]
    assert "✗" not in output.replace("✗ broken", "")


def test_a_library_s_name_stands_for_all_its_subjects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "by-hand", *SHORT, "--formula", "torch", "--json", "kept.json"]) == 0
    assert {report.operation for report in reports()} == set(HANDWRITTEN)
    assert {report.subject for report in reports()} == {"by-hand"}
    assert [row(capsys.readouterr().out, "by-hand")[2]] == ["rounded"]


def test_a_name_of_the_list_stands_for_that_subject_alone() -> None:
    assert main(["verify", "clipcore", *SHORT, "--operation", "l2_norm", "--json", "kept.json"]) == 0
    assert [report.subject for report in reports()] == ["clipcore"]


def test_a_subject_that_fails_is_status_1_and_shows_the_smallest_call(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["verify", "my_clips:nothing", *SHORT, *L2, "--json", "kept.json"]) == 1
    output, _ = capsys.readouterr()
    assert row(output, "my_clips:nothing")[2] == "none"
    [report] = reports()
    [finding] = report.findings
    assert called(finding.example)[0].size == 1
    for line in (*finding.example.splitlines(), finding.message, f"got {finding.got}"):
        assert line in output


def test_several_targets_are_shown_in_their_order() -> None:
    targets = ["my_clips:nothing", "by-hand", "my_clips:clip"]
    assert main(["verify", *targets, *SHORT, *L2, "--json", "kept.json"]) == 1
    assert [report.subject for report in reports()] == targets
    assert [report.passed for report in reports()] == [False, False, True]


def test_the_options_reach_the_verification() -> None:
    options = [
        "--level",
        "robust",
        "--seed",
        "7",
        "--examples",
        "4",
        "--dtype",
        "float16",
        "--dtype",
        "float64",
    ]
    assert main(["verify", OWN, *L2, *options, "--json", "kept.json"]) == 0
    [report] = reports()
    assert (report.asked, report.seed, report.max_examples) == ("robust", 7, 4)
    assert report.counts["edges"].tried > 50
    options = [*SHORT, "--formula", "torch", "--json", "kept.json"]
    assert main(["verify", "by-hand", *L2, *options]) == 0
    assert (reports()[0].formula, reports()[0].passed) == ("torch", True)


def test_a_framework_that_differs_by_definition_is_shown_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "by-hand", *SHORT, *L2, "--json", "kept.json"]) == 1
    output, _ = capsys.readouterr()
    assert "right by the formula 'torch': a difference of definition" in output
    assert {finding.difference for finding in reports()[0].findings} == {"torch"}


def test_a_target_in_place_and_under_an_interpreter() -> None:
    assert main(["verify", "my_clips:clip_", *SHORT, *L2, "--in-place"]) == 0
    assert main(["verify", "my_clips:clip_", *SHORT, *L2]) == 1
    assert main(["verify", "my_clips:clip", *SHORT, *L2, "--interpreter", sys.executable]) == 0


def test_the_list_names_every_subject(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--list"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    for operation in HANDWRITTEN:
        assert re.search(rf"by-hand +{operation} +{re.escape(np.__version__)}", output)
    for name in ("clipcore", "torch.clip_grad_norm_", "optax"):
        assert name in output


def test_the_same_seed_gives_the_same_output(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in ("7", "7"):
        options = ["--examples", "6", "--dtype", "float32", "--level", "rounded", "--seed", seed]
        assert main(["verify", "by-hand", *L2, *options]) == 1
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


# --- targets that break ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", "the interpreter ended with exit status 9"),
        ("hang", "no answer in 0.5 s"),
        ("other", "raised TypeError: "),
    ],
)
def test_a_target_that_crashes_hangs_or_is_of_another_shape_is_status_1(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", f"my_clips:{name}", *SHORT, *L2, "--timeout", "0.5", "--json", "kept.json"]
    assert main(arguments) == 1
    [report] = reports()
    fails = [each for each in report.findings if each.verdict == "fail"]
    assert [each.law for each in fails] == ["call"]
    assert fails[0].message.startswith(message)
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("my_clips:none", "has no attribute 'none'"),
        ("no_such_module:clip", "No module named 'no_such_module'"),
        ("my_clips:MODULE:x", "my_clips:MODULE:x"),
        (":clip", "is not of the form module:function"),
        ("my_clips:", "is not of the form module:function"),
    ],
)
def test_a_target_that_is_not_there_is_status_1_with_the_reason(
    target: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", target, *SHORT, *L2]) == 1
    output, errors = capsys.readouterr()
    assert reason in output + errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize("interpreter", ["/no/such/python", "/bin/echo", "/bin/false"])
def test_an_interpreter_that_is_none_is_no_traceback(
    interpreter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "my_clips:clip", *SHORT, *L2, "--interpreter", interpreter]) == 1
    output, errors = capsys.readouterr()
    assert "not run, " in output
    assert "Traceback" not in output + errors


# --- bad usage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["verfy"],
        ["verify", "--examples", "-1"],
        ["verify", "--examples", "many"],
        ["verify", "--seed", "-1"],
        ["verify", "--input"],
        ["verify", "--level", "strict"],
        ["verify", "--operation", "clip"],
        ["verify", "--formula", "pytorch"],
        ["verify", "--dtype", "int16"],
        ["verify", "--timeout", "0"],
        ["verify", "--timeout", "nan"],
        ["verify", "--no-such-option"],
        ["atlas"],
        ["vectors"],
    ],
)
def test_bad_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("clipcore")
    assert "; see clipcore" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonesuch"], "nonesuch: no such subject; give module:function"),
        (["clipcore", "nonesuch"], "nonesuch: no such subject"),
        (["my_clips:clip"], "my_clips:clip: say what it is with --operation, one of clip_by_value"),
        (["torch.clip_grad_norm_", "--operation", "l1_norm"], "nothing to run: "),
        ([""], "no such subject"),
    ],
)
def test_a_target_that_says_nothing_is_one_line_and_status_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments, *SHORT]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("clipcore: ")
    assert text in errors
    assert errors.count("\n") == 1


def test_the_command_says_how_to_get_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    assert main(["verify", *SHORT]) == 2
    expected = 'clipcore: the command needs rich; install it with: pip install "clipcore[verify]"\n'
    assert capsys.readouterr() == ("", expected)


# --- interrupted -------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("name", ["slow", "hang"])
def test_an_interrupted_run_says_so_and_leaves_no_process_behind(name: str, whole_group: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "clipcore",
        "verify",
        f"my_clips:{name}",
        *SHORT,
        *L2,
        "--timeout",
        "500",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # what a shell runs in the background ignores the signal, and hands that down
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        pids = Path("pids")
        deadline = time.monotonic() + 60
        while not (pids.exists() and pids.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if whole_group:  # as the terminal does
            os.killpg(run.pid, signal.SIGINT)
        else:
            run.send_signal(signal.SIGINT)
        output, errors = run.communicate(timeout=60)
    [first, *_] = pids.read_text().split()
    deadline = time.monotonic() + 5
    while alive(int(first)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = alive(int(first))
    if left:
        os.kill(int(first), signal.SIGKILL)
    assert run.returncode == 130
    assert errors == "clipcore: interrupted; only what is shown above was finished\n"
    assert f"not run, interrupted: my_clips:{name}" in output
    assert not left


# --- the rest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", sorted(HANDWRITTEN))
def test_the_formulas_by_hand_are_right_where_nothing_is_near(operation: str) -> None:
    x = np.array([3.0, -4.0])
    arguments: tuple[Any, ...] = (-1.0, 2.0) if operation in ("clip_by_value", "clip_weights") else (1.0,)
    tree: Any = [x] if operation == "clip_by_global_norm" else x
    ours, theirs = (fn(tree, *arguments) for fn in (getattr(clipcore, operation), HANDWRITTEN[operation]))
    if operation == "clip_by_global_norm":
        ([ours], norm), ([theirs], other) = ours, theirs
        assert norm == other == 5
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "clipcore", "verify", OWN, *SHORT, *L2]
    done = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert row(done.stdout, OWN)[2] == "rounded"


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"clipcore {clipcore.__version__}\n"


def test_the_names_of_laws_and_levels_are_those_of_the_contract() -> None:
    assert LEVELS == ("rounded", "robust", "exact")
    assert {"bound", "identity", "tightness", "direction", "idempotence", "scale", "range", "form"} <= set(
        LAWS
    )
