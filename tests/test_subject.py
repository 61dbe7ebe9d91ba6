"""Subjects: functions that write in place, take something else, or live under another interpreter."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kit_support import Array, called, failed, quick

import clipcore
from clipcore.verify import Subject, SubjectError
from clipcore.verify.calling import Library
from clipcore.verify.subject import Callee

MODULE = """
import os, sys, time
import numpy as np

calls = 0
print("imported")

def clip(x, max_norm):
    wide = x.astype(np.float64)
    norm = float(np.sqrt((wide * wide).sum()))
    return x.copy() if norm <= max_norm else (wide * (max_norm / norm)).astype(x.dtype)

class Clips:
    @staticmethod
    def inside(x, max_norm):
        return clip(x, max_norm)

def clip_(x, max_norm):
    x[...] = clip(x, max_norm)

def talking(x, max_norm):
    print("{}")
    os.write(1, b"{}")
    os.write(2, b"{}")
    sys.stdout.flush()
    assert sys.stdin.read() == ""
    return clip(x, max_norm)

def exiting(x, max_norm):
    sys.exit(3)

def crashing(x, max_norm):
    os._exit(5)

def killed(x, max_norm):
    os.kill(os.getpid(), 9)

def hanging(x, max_norm):
    open("calls", "a").write("x")
    time.sleep(1000)

def first_hangs(x, max_norm):
    if not os.path.exists("hung"):
        open("hung", "w").close()
        time.sleep(1000)
    return clip(x, max_norm)

def raising(x, max_norm):
    raise ArithmeticError("no\\nnumber")

def written(x, max_norm):
    x[...] = 0
    return x

def odd(x, max_norm):
    return {object(): {1, 2}}

def keywords(x, max_norm, *, axis=None):
    return x.copy()

number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange_clips.py").write_text(MODULE)
    (tmp_path / "broken_clips.py").write_text("1 / 0\n")
    (tmp_path / "leaving_clips.py").write_text("import os\nos._exit(7)\n")
    return tmp_path


def elsewhere(name: str, **options: Any) -> Subject:
    return Subject(f"strange_clips:{name}", interpreter=sys.executable, **options)


def observed(subject: Subject, x: Any, *arguments: Any) -> Any:
    with subject.opened() as callee:
        return callee.observe(x, arguments)


X = np.array([3.0, -4.0])

# --- in this process -------------------------------------------------------------------------------------


def test_a_function_that_writes_in_place_is_judged_by_what_it_wrote() -> None:
    def clip_(x: Array, limit: Any) -> None:
        clipcore.clip_by_l2_norm(x, limit, out=x)

    writable = Subject(clip_, in_place=True)
    seen = observed(writable, X, 2.5)
    assert seen.result.tolist() == clipcore.clip_by_l2_norm(X, 2.5).tolist()
    assert X.tolist() == [3.0, -4.0]
    assert quick(writable).passed
    assert not quick(clip_).passed


def test_a_function_in_place_may_return_the_norm_or_the_tree() -> None:
    def clip_(tree: list[Array], limit: Any) -> Any:
        return clipcore.clip_by_global_norm(tree, limit, out=tree)[1]

    def returning(tree: list[Array], limit: Any) -> Any:
        return clipcore.clip_by_global_norm(tree, limit, out=tree)[0]

    seen = observed(Subject(clip_, in_place=True), [X], 2.5)
    [clipped], norm = clipcore.clip_by_global_norm([X], 2.5)
    assert [x.tolist() for x in seen.result[0]] == [clipped.tolist()]
    assert seen.result[1] == norm == 5
    for fn in (clip_, returning):
        assert quick(Subject(fn, in_place=True), "clip_by_global_norm").passed
    wrong = Subject(lambda tree, limit: clip_(tree, limit) * 0 + limit, in_place=True)
    assert ("norm", "rounded") in failed(quick(wrong, "clip_by_global_norm"))


def test_parameters_with_gradients_are_made_and_read() -> None:
    def clip_(parameters: list[Any], limit: Any) -> Any:
        grads = [each.grad for each in parameters]
        clipped, norm = clipcore.clip_by_global_norm(grads, limit)
        for parameter, grad in zip(parameters, clipped, strict=True):
            parameter.grad = grad
        return norm

    subject = Subject(
        clip_,
        prepare=lambda tree: [SimpleNamespace(grad=x) for x in tree],
        collect=lambda parameters, norm: ([each.grad for each in parameters], norm),
    )
    assert quick(subject, "clip_by_global_norm").passed
    lost = Subject(clip_, prepare=subject.prepare, collect=lambda parameters, norm: ([X], norm))
    assert ("form", "rounded") in failed(quick(lost, "clip_by_global_norm"))


def test_a_function_is_found_by_its_name() -> None:
    report = quick(Subject("clipcore:clip_by_l2_norm"))
    assert (report.passed, report.subject) == (True, "clipcore:clip_by_l2_norm")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("no_such_module:clip", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("clipcore:no_such_function", "AttributeError: module 'clipcore' has no attribute"),
        ("clipcore", "is not of the form module:function"),
        ("clipcore:", "is not of the form module:function"),
        (":clip", "is not of the form module:function"),
        ("clipcore:__version__", "TypeError: clipcore:__version__ is str, not a function"),
    ],
)
@pytest.mark.parametrize("interpreter", [None, sys.executable])
def test_a_name_of_nothing_is_a_subject_error(function: str, text: str, interpreter: str | None) -> None:
    with pytest.raises(SubjectError, match=re.escape(text)) as raised:
        quick(Subject(function, interpreter=interpreter))
    assert str(raised.value).startswith(function)


def test_both_kinds_of_subjects_are_callees() -> None:
    for interpreter in (None, sys.executable):
        with Subject("clipcore:l2_norm", interpreter=interpreter).opened() as callee:
            assert isinstance(callee, Callee)
            assert callee.keywords == {"axis"}
            assert float(callee.observe(X).result) == 5


def test_other_libraries_are_only_imported_where_they_are_asked_for() -> None:
    assert Subject(clipcore.l2_norm).library_name == "numpy"
    assert Subject(clipcore.l2_norm, arrays="torch").library_name == "torch"
    strict = pytest.importorskip("array_api_strict")
    assert isinstance(
        Library(strict.__name__, strict.asarray, np.asarray, bool).take(X), type(strict.asarray(X))
    )
    assert quick(Subject(clipcore.clip_by_l2_norm, arrays=strict)).passed


# --- under another interpreter -----------------------------------------------------------------------------


@pytest.mark.usefixtures("module")
def test_a_function_under_another_interpreter_is_judged_alike() -> None:
    assert quick(elsewhere("clip")).passed
    assert quick(elsewhere("Clips.inside")).passed
    assert quick(elsewhere("clip_", in_place=True)).passed
    report = quick(elsewhere("keywords"))
    assert ("formula", "rounded") in failed(report)
    assert report.counts["formula"].tried > quick(elsewhere("clip")).counts["formula"].tried


@pytest.mark.parametrize("operation", ["clip_by_global_norm", "clip_weights", "clip_by_value", "l2_norm"])
def test_clipcore_under_another_interpreter_passes_as_here(operation: str) -> None:
    subject = Subject(f"clipcore:{operation}", interpreter=sys.executable)
    report = quick(subject, operation, level="robust")
    assert [each.message for each in report.findings if each.verdict == "fail"] == []
    here = quick(getattr(clipcore, operation), operation, level="robust")
    assert report.counts.keys() == here.counts.keys()
    assert all(here.counts[law].tried - report.counts[law].tried <= 10 for law in here.counts)


@pytest.mark.usefixtures("module")
def test_what_a_function_prints_and_reads_does_not_disturb() -> None:
    assert quick(elsewhere("talking")).passed


@pytest.mark.parametrize(
    ("name", "message", "error"),
    [
        ("raising", "raised ArithmeticError: no number", "ArithmeticError"),
        ("exiting", "raised SystemExit: 3", "SystemExit"),
        ("crashing", "the interpreter ended with exit status 5", "a crash"),
        pytest.param(
            "killed",
            "the interpreter was ended by SIGKILL",
            "a crash",
            marks=pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them"),
        ),
    ],
)
@pytest.mark.usefixtures("module")
def test_an_end_of_any_kind_is_a_finding(name: str, message: str, error: str) -> None:
    report = quick(elsewhere(name), level="exact")
    fails = [each for each in report.findings if each.verdict == "fail"]
    assert [(each.law, each.message, each.got) for each in fails] == [("call", message, error)]
    assert isinstance(called(fails[0].example)[0], np.ndarray)
    assert report.level is None


def test_a_hang_is_a_finding_and_after_three_it_is_not_called_any_more(module: Path) -> None:
    started = time.monotonic()
    report = quick(elsewhere("hanging", timeout=0.3), level="exact")
    assert time.monotonic() - started < 60
    assert [each.verdict for each in report.findings] == ["fail", "skip"]
    assert report.findings[0].message == "no answer in 0.3 s"
    assert report.findings[1].message == "not called any more after 3 hangs or crashes"
    assert (module / "calls").read_text() == "xxx"


@pytest.mark.usefixtures("module")
def test_after_one_hang_the_function_is_started_again() -> None:
    report = quick(elsewhere("first_hangs", timeout=2.0))
    assert failed(report) == {("call", "rounded")}
    assert report.counts["call"].broken == 1
    assert report.counts["formula"].tried > 100


@pytest.mark.usefixtures("module")
def test_writing_to_the_input_is_seen_there() -> None:
    seen = observed(elsewhere("written"), X, 2.5)
    written = "the input was written; if it is meant to be, give Subject(..., in_place=True)"
    assert seen.faults == [written, "a result shares memory with its input"]


@pytest.mark.usefixtures("module")
def test_a_result_that_is_no_data_is_a_finding() -> None:
    assert failed(quick(elsewhere("odd"))) == {("form", "rounded")}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("broken_clips:clip", "ZeroDivisionError: division by zero"),
        ("leaving_clips:clip", "the interpreter ended with exit status 7"),
        ("strange_clips:number", "TypeError: strange_clips:number is int, not a function"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_module_that_cannot_be_imported_there_is_a_subject_error(function: str, text: str) -> None:
    with pytest.raises(SubjectError, match=re.escape(text)):
        quick(Subject(function, interpreter=sys.executable))


@pytest.mark.parametrize("interpreter", ["/no/such/python", "/", "/bin/echo", "/bin/cat", "/bin/false"])
def test_an_interpreter_that_is_none_is_a_subject_error(interpreter: str) -> None:
    with pytest.raises(SubjectError):
        quick(Subject("clipcore:clip_by_l2_norm", interpreter=interpreter))


def test_only_a_name_can_be_called_elsewhere() -> None:
    for subject in (
        Subject(clipcore.clip_by_l2_norm, interpreter=sys.executable),
        Subject("clipcore:clip_by_l2_norm", interpreter=sys.executable, prepare=list),
        Subject("clipcore:clip_by_l2_norm", interpreter=sys.executable, collect=lambda a, b: a),
    ):
        with pytest.raises(SubjectError, match="must be given as 'module:function'"):
            quick(subject)


@pytest.mark.skipif(os.name != "posix", reason="signal 0 asks whether a process is there as POSIX has it")
def test_the_other_process_ends_with_the_verification(module: Path) -> None:
    (module / "where.py").write_text("import os\ndef pid(x, c):\n    return os.getpid()\n")
    subject = Subject("where:pid", interpreter=sys.executable)
    pid = observed(subject, X, 1.0).result
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
