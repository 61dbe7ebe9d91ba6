"""`verify` of functions that raise, exit, warn, hang or give back anything; and differences of definition."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from kit_support import L2, Array, by_torch, called, failed, quick, wrapping

import clipcore
from clipcore.verify import Subject
from clipcore.verify.formulas import FORMULAS
from clipcore.verify.verification import Verification


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Timeout(Exception):  # noqa: N818  # the name is the point
    pass


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("by 0"),
        SystemExit(3),
        RecursionError("deep"),
        GeneratorExit(),
        Timeout("slow"),
        Warning("w"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_is_a_finding(error: BaseException) -> None:
    def clip(_x: Any, _limit: Any) -> Any:
        raise error

    [finding] = quick(clip).findings
    text = f"raised {type(error).__name__}: {error}".removesuffix(": ")
    assert (finding.law, finding.message, finding.got) == ("call", text, type(error).__name__)


def test_an_exception_that_has_no_text_is_a_finding() -> None:
    def clip(_x: Any, _limit: Any) -> Any:
        raise UnreadableError

    [finding] = quick(clip).findings
    assert (finding.law, finding.got) == ("call", "UnreadableError")


def test_a_rare_exception_is_found_with_the_call_that_raises_it() -> None:
    def clip(x: Array, limit: Any) -> Any:
        if x.ndim > 2:
            raise MemoryError
        return clipcore.clip_by_l2_norm(x, limit)

    [finding] = quick(clip).findings
    assert (finding.law, finding.message) == ("call", "raised MemoryError")
    assert called(finding.example)[0].ndim == 3


def test_a_warning_of_the_function_is_neither_shown_nor_a_finding() -> None:
    def clip(x: Any, limit: Any) -> Any:
        warnings.warn("mine", UserWarning, stacklevel=1)
        return clipcore.clip_by_l2_norm(x, limit)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert quick(clip).passed
    assert caught == []


def test_a_warning_that_the_function_makes_an_error_is_a_finding() -> None:
    def clip(x: Any, limit: Any) -> Any:
        warnings.simplefilter("error")
        warnings.warn("mine", UserWarning, stacklevel=1)
        return clipcore.clip_by_l2_norm(x, limit)

    filters = list(warnings.filters)
    [finding] = quick(clip).findings
    assert finding.message == "raised UserWarning: mine"
    assert warnings.filters == filters


def test_a_floating_point_error_state_of_the_function_does_not_last() -> None:
    def clip(x: Any, limit: Any) -> Any:
        np.seterr(all="raise")
        return clipcore.clip_by_l2_norm(x, limit)

    before = np.geterr()
    quick(clip)
    assert np.geterr() == before


class Exiting:
    """A norm that ends the process that looks at it."""

    shape = ()

    def __float__(self) -> float:
        sys.exit("looked at")

    def __array__(self, *_arguments: Any, **_keywords: Any) -> Any:
        sys.exit("looked at")


@pytest.mark.parametrize("level", ["rounded", "exact"])
@pytest.mark.parametrize(
    "norm",
    [Exiting(), None, "5.0", np.zeros(2), np.complex128(5), [5.0], np.array("5")],
    ids=lambda norm: type(norm).__name__,
)
def test_a_norm_that_is_no_number_is_a_finding(norm: Any, level: str) -> None:
    fn = wrapping("clip_by_global_norm", lambda pair: (pair[0], norm))
    report = quick(fn, "clip_by_global_norm", level=level)
    assert ("norm", "rounded") in failed(report)
    report = quick(lambda _x: norm, "l2_norm", level=level)
    assert report.level is None


def test_a_right_norm_of_the_wrong_type_is_a_finding() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not quick(wrapping("l2_norm", np.complex128), "l2_norm").passed
        assert not quick(wrapping("l2_norm", str), "l2_norm").passed


def cyclic() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "result",
    [
        None,
        0,
        "text",
        cyclic(),
        Exiting(),
        object,
        np.array([None]),
        np.zeros(3, "M8[s]"),
        np.zeros(2, "i4,f4"),
        b"1",
    ],
    ids=lambda result: type(result).__name__,
)
def test_any_result_can_be_judged(result: Any) -> None:
    for operation in (L2, "clip_weights", "clip_by_global_norm", "l2_norm"):
        report = quick(lambda *_: result, operation, level="exact")
        assert report.level is None
        assert report.findings


def hang(_x: Any, _limit: Any) -> Any:
    while True:
        pass


def test_a_hang_is_a_finding_and_soon_not_tried_again() -> None:
    calls = 0

    def clip(x: Any, limit: Any) -> Any:
        nonlocal calls
        calls += 1
        hang(x, limit)

    report = quick(Subject(clip, timeout=0.05), level="exact")
    fails = [each for each in report.findings if each.verdict == "fail"]
    assert [(each.law, each.message, each.got) for each in fails] == [
        ("call", "no answer in 0.05 s", "a hang")
    ]
    assert calls <= 10


def test_a_hang_that_catches_everything_is_a_finding() -> None:
    def clip(x: Array, limit: Any) -> Any:
        try:
            if x.ndim == 4:
                hang(x, limit)
        except BaseException:
            pass
        return clipcore.clip_by_l2_norm(x, limit)

    finding, abandoned = quick(Subject(clip, timeout=0.05)).findings
    assert (finding.law, finding.got) == ("call", "a hang")
    assert (abandoned.verdict, abandoned.message) == ("skip", "not called any more after 3 hangs")


def test_a_rare_hang_is_a_finding_among_others() -> None:
    def clip(x: Array, limit: Any) -> Any:
        return hang(x, limit) if x.ndim == 4 else x.copy()

    report = quick(Subject(clip, timeout=0.05))
    assert {law for law, _ in failed(report)} == {"call", "formula"}


def test_a_law_is_counted_where_it_was_judged() -> None:
    def clip(tree: list[Array], limit: float) -> Any:
        return clipcore.clip_by_global_norm(tree, limit)[0]

    ways = {
        "tree": clip,
        "pair": clipcore.clip_by_global_norm,
        "number": lambda tree, limit: 1.0,
        "nothing": lambda tree, limit: 1 / 0,
    }
    settings = {"level": "rounded", "dtypes": ["float32"], "max_examples": 5}
    tried = {name: set(quick(way, "clip_by_global_norm", **settings).counts) for name, way in ways.items()}
    assert tried["pair"] == {"form", "call", "formula", "range", "norm"}
    assert tried["tree"] == tried["pair"] - {"norm"}
    assert tried["number"] == tried["nothing"] == {"form", "call"}


# --- differences of definition --------------------------------------------------------------------------


def test_a_framework_s_formula_is_a_difference_of_definition() -> None:
    report = quick(by_torch)
    assert not report.passed
    assert {each.difference for each in report.findings} == {"torch"}
    count = report.counts["formula"]
    assert 0 < count.differing == count.broken
    assert "a difference of definition: right by the formula 'torch'" in str(report)


def test_a_change_of_an_ulp_inside_the_limit_may_be_a_definition_too() -> None:
    def max_norm(x: Array, limit: float) -> Array:
        norm = math.sqrt(np.sum(np.square(x, dtype=np.float64)))
        return (x * (min(norm, limit) / (norm + 1e-7))).astype(x.dtype)

    definition = "keras-max-norm"
    run = Verification(
        Subject(max_norm), L2, level="rounded", dtypes=["float32"], max_examples=50, definition=definition
    )
    for _ in run.steps():
        pass
    assert {each.difference for each in run.report().findings} == {definition}


def test_a_limit_that_should_be_refused_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    report = quick(lambda x, limit: x.copy(), level="exact", dtypes=["float32"])
    assert not report.passed
    assert [str(each.message) for each in recwarn] == []


def test_by_its_own_formula_it_passes_at_level_rounded() -> None:
    report = quick(by_torch, formula="torch", dtypes=["float32", "float64"])
    assert (report.passed, report.level, report.formula) == (True, "rounded", "torch")


@pytest.mark.parametrize("formula", [name for name in FORMULAS if name != "contract"])
def test_a_framework_s_formula_is_judged_at_level_rounded(formula: str) -> None:
    report = quick(lambda x, limit: x.copy(), formula=formula, level="exact")
    assert (report.asked, report.level, report.passed) == ("rounded", None, False)
    assert {each.difference for each in report.findings} == {""}


def test_a_bug_is_no_difference_of_definition() -> None:
    def clip(x: Array, limit: float) -> Array:
        return by_torch(x, limit) if x.size < 100 else x.copy()

    found = {each.difference for each in quick(clip).findings if each.law == "formula"}
    assert found == {"torch", ""}


def test_a_definition_narrows_what_may_explain_a_difference() -> None:
    for definition, found in (("torch", {"torch"}), ("optax", {""})):
        run = Verification(
            Subject(by_torch), L2, level="rounded", dtypes=["float32"], max_examples=0, definition=definition
        )
        for _ in run.steps():
            pass
        assert {each.difference for each in run.report().findings} == found
        assert run.report("name", "1.2").subject == "name"
        assert run.report("name", "1.2").version == "1.2"
