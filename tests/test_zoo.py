"""The zoo: wrong functions that the kit must find, and right ones that it must not accuse."""

from __future__ import annotations

from types import ModuleType

import pytest
import zoo_buggy_exact
import zoo_buggy_global
import zoo_buggy_global_edges
import zoo_buggy_norm
import zoo_buggy_norm_edges
import zoo_buggy_norm_form
import zoo_buggy_norm_layout
import zoo_buggy_value
import zoo_buggy_value_edges
import zoo_buggy_value_layout
import zoo_correct
from zoo_bases import Bug, Correct

from clipcore.verify import Subject
from clipcore.verify.report import LEVELS
from clipcore.verify.verification import Verification

PARTS = (
    zoo_buggy_exact,
    zoo_buggy_global,
    zoo_buggy_global_edges,
    zoo_buggy_norm,
    zoo_buggy_norm_edges,
    zoo_buggy_norm_form,
    zoo_buggy_norm_layout,
    zoo_buggy_value,
    zoo_buggy_value_edges,
    zoo_buggy_value_layout,
)
BUGS: list[Bug] = [bug for part in PARTS for bug in part.BUGS]
CORRECT: list[Correct] = zoo_correct.CORRECT
SAMPLE = [
    *[bug for bug in BUGS if bug.level == "rounded"][::6],
    *[bug for bug in BUGS if bug.level == "robust"][::18],
]
EXAMPLES = 20


def run_of(function: Bug | Correct, dtypes: list[str] | None = None) -> Verification:
    return Verification(
        Subject(function.fn),
        function.operation,
        level=function.level,
        formula=function.formula,
        dtypes=dtypes,
        max_examples=EXAMPLES,
    )


def caught(bug: Bug) -> bool:
    """Whether anything fails at the bug's level or below it; nothing is tried after that."""
    run = run_of(bug)
    levels = LEVELS[: LEVELS.index(bug.level) + 1]
    for _ in run.steps():
        if any(run.failed(level) for level in levels):
            return True
    return any(run.failed(level) for level in levels)


def accused(function: Correct, dtypes: list[str] | None = None) -> str:
    """What the kit finds wrong with a right function: nothing, where the kit is right too."""
    run = run_of(function, dtypes)
    for _ in run.steps():
        pass
    report = run.report(function.name)
    return "" if report.passed and report.level == report.asked else str(report)


def identity(function: Bug | Correct) -> str:
    return f"{function.operation}: {function.name}"


def test_the_zoo_is_what_its_names_say() -> None:
    zoo: list[Bug | Correct] = [*BUGS, *CORRECT]
    named = [(function.operation, function.name) for function in zoo]
    assert len(named) == len(set(named))
    assert len(BUGS) > 300
    assert {bug.level for bug in BUGS} == {function.level for function in CORRECT} == set(LEVELS)


@pytest.mark.parametrize("bug", SAMPLE, ids=identity)
def test_a_sample_of_the_bugs_is_caught(bug: Bug) -> None:
    assert caught(bug)


@pytest.mark.parametrize("function", [each for each in CORRECT if each.level == "rounded"], ids=identity)
def test_a_right_function_is_not_accused_at_level_rounded(function: Correct) -> None:
    assert accused(function, ["float32"]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("function", CORRECT, ids=identity)
def test_a_right_function_is_not_accused(function: Correct) -> None:
    assert accused(function) == ""


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_the_kit_catches_nearly_all_bugs(part: ModuleType) -> None:
    missed = [f"{identity(bug)} ({bug.level})" for bug in part.BUGS if not caught(bug)]
    share = 1 - len(missed) / len(part.BUGS)
    assert share >= 0.95, f"{share:.1%} of {len(part.BUGS)} caught; missed: {'; '.join(missed)}"
