"""`verify` and `assert_conforms`: their arguments, levels, laws and reports, and functions of every shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from kit_support import L2, Array, by_torch, called, failed, quick, wrapping

import clipcore
from clipcore.verify import Subject, SubjectError, assert_conforms, verify
from clipcore.verify.calling import NotOffered
from clipcore.verify.report import LAWS, LEVELS
from clipcore.verify.trials import OPERATIONS
from clipcore.verify.verification import Verification

# --- what is right passes --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_clipcore_passes(operation: str, level: str) -> None:
    report = quick(getattr(clipcore, operation), operation, level=level)
    assert report.findings == ()
    assert (report.passed, report.level, report.asked) == (True, level, level)
    assert (report.subject, report.operation, report.formula) == (operation, operation, "contract")
    assert report.counts.keys() <= LAWS.keys()
    assert all(count.tried > 20 and count.broken == 0 for count in report.counts.values())


def test_every_dtype_that_a_level_speaks_of_is_tried() -> None:
    seen: dict[str, set[str]] = {}
    for operation in (L2, "clip_by_value"):
        for level in ("rounded", "robust"):
            names = seen.setdefault(f"{operation}, {level}", set())

            def clip(x: Any, *_arguments: Any, names: set[str] = names) -> Any:
                if hasattr(x, "dtype"):
                    names.add(x.dtype.newbyteorder("=").name)
                raise NotOffered("nothing")

            quick(clip, operation, level=level, dtypes=None)
    real = {"float16", "bfloat16", "float32", "float64"}
    assert seen[f"{L2}, rounded"] == seen["clip_by_value, rounded"] == real
    assert seen[f"{L2}, robust"] >= real | {"complex64", "complex128"}
    assert seen["clip_by_value, robust"] >= real | {"int32", "int64", "uint8"}


@pytest.mark.parametrize("dtypes", [["float16"], (np.float16,), [np.dtype("float16")], iter(["float16"])])
def test_dtypes_are_named_in_any_way(dtypes: Any) -> None:
    names = set()

    def clip(x: Array, limit: Any) -> Any:
        names.add(x.dtype.name)
        return clipcore.clip_by_l2_norm(x, limit)

    assert quick(clip, dtypes=dtypes).passed
    assert names == {"float16"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_dtypes_of_which_a_level_has_no_case_do_not_pass_in_silence(operation: str) -> None:
    for dtypes in (["complex64"], ["int32"]):
        with pytest.raises(ValueError, match=f"holds none that {operation} is tried with at level 'rounded'"):
            quick(getattr(clipcore, operation), operation, dtypes=dtypes)


# --- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"operation": "clip"}, "operation='clip' is not known; known are clip_by_value, clip_weights"),
        ({"level": "strict"}, "level='strict' is not known; known are rounded, robust, exact"),
        ({"formula": "pytorch"}, "formula='pytorch' is not known; known are contract, torch"),
        ({"dtypes": ["float8"]}, "dtypes='float8' is not known; known are float32, float64"),
        ({"dtypes": [np.int16]}, "dtypes='int16' is not known"),
        ({"dtypes": []}, "dtypes=[] holds none that clip_by_l2_norm is tried with"),
        ({"dtypes": "float32"}, "dtypes='float32'"),
        ({"seed": -1}, "seed=-1 is not an integer from 0 upwards"),
        ({"seed": 0.5}, "seed=0.5 is not an integer from 0 upwards"),
        ({"max_examples": -3}, "max_examples=-3 is not an integer from 0 upwards"),
        ({"max_examples": "many"}, "max_examples='many' is not an integer from 0 upwards"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_known(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        verify(clipcore.clip_by_l2_norm, **{"operation": L2, **options})


@pytest.mark.parametrize("fn", [None, 3, [1]])
def test_what_cannot_be_called_is_a_type_error(fn: Any) -> None:
    with pytest.raises(TypeError, match="cannot be called; give a function or a Subject"):
        verify(fn, L2)


def test_an_array_library_that_is_not_there_is_a_subject_error() -> None:
    for name in ("no_such_library", "math"):
        with pytest.raises(SubjectError, match=f"arrays={name}: "):
            verify(clipcore.clip_by_l2_norm, L2, arrays=name)


# --- levels, laws and the report -------------------------------------------------------------------------


def test_a_careful_clip_reaches_level_rounded_only() -> None:
    def clip(x: Array, limit: float) -> Array:
        wide = x.astype(np.float64)
        norm = float(np.sqrt((wide * wide).sum()))
        return x.copy() if norm <= limit else (wide * (limit / norm)).astype(x.dtype)

    assert quick(clip, dtypes=None).passed
    report = quick(clip, level="exact")
    assert (report.passed, report.level, report.asked) == (False, "rounded", "exact")
    assert ("edges", "robust") in failed(report)
    assert all(law in LAWS for law, _ in failed(report))


def test_an_impossible_function_reaches_no_level() -> None:
    report = quick(lambda x, limit: x.copy())
    assert report.level is None
    assert ("formula", "rounded") in failed(report)


BROKEN: list[tuple[str, str, Callable[..., Any], str]] = [
    ("norm", "l2_norm", lambda x: np.float64(np.abs(x).sum()), "rounded"),
    ("form", L2, lambda x, c: clipcore.clip_by_l2_norm(x, c).tolist(), "rounded"),
    ("form", L2, lambda x, c: clipcore.clip_by_l2_norm(x, c).astype(np.float64), "rounded"),
    ("form", L2, lambda x, c: clipcore.clip_by_l2_norm(x, c, out=x), "rounded"),
    ("form", L2, lambda x, c: clipcore.clip_by_l2_norm(x, c).view(np.ma.MaskedArray), "rounded"),
    (
        "form",
        L2,
        lambda x, c: x if c >= clipcore.l2_norm(x) else clipcore.clip_by_l2_norm(x, c),
        "rounded",
    ),
    ("form", "clip_weights", lambda t, a, b: dict(sorted(t.items(), key=str)), "rounded"),
    ("call", L2, lambda x, c: [][0], "rounded"),
    ("edges", L2, lambda x, c: clipcore.clip_by_l2_norm(x, abs(c)), "robust"),
    ("edges", "clip_by_value", lambda x, a, b: clipcore.clip_by_value(np.nan_to_num(x), a, b), "robust"),
    ("norm", "clip_by_global_norm", lambda t, c: (clipcore.clip_by_global_norm(t, c)[0], c), "rounded"),
    ("norm", "l2_norm", lambda x: np.float64(clipcore.l2_norm(x)), "exact"),
]


@pytest.mark.parametrize(("law", "operation", "fn", "level"), BROKEN[:-1])
def test_a_broken_law_is_named_at_its_lowest_level(
    law: str, operation: str, fn: Callable[..., Any], level: str
) -> None:
    report = quick(fn, operation, level=level)
    assert (law, level) in failed(report)
    below = LEVELS.index(report.asked)
    assert report.level == (LEVELS[below - 1] if below else None)


def test_a_finding_is_a_call_that_can_be_pasted_with_its_evidence() -> None:
    report = quick(lambda x, limit: x.copy())
    [finding] = report.findings
    (tree, (limit,), keywords) = called(finding.example)
    assert clipcore.l2_norm(tree) > limit
    assert (keywords, finding.verdict, finding.difference) == ({}, "fail", "")
    assert float(finding.got) == tree.reshape(-1)[0]
    assert abs(float(finding.expected)) < abs(float(finding.got))
    assert finding.ulps is not None
    assert finding.ulps > 4
    assert finding.cases == report.counts["formula"].broken > 50
    text = str(finding)
    assert text.startswith("formula (rounded): ")
    assert finding.example in text
    assert f"expected {finding.expected}, got {finding.got}" in text


def test_the_report_says_in_a_line_what_came_of_it() -> None:
    good = quick(clipcore.clip_by_l2_norm)
    assert (
        str(good)
        == "clip_by_l2_norm as clip_by_l2_norm, formula 'contract', seed 0: passed at level 'rounded'"
    )
    bad = quick(lambda x, limit: x.copy(), seed=7)
    assert str(bad).startswith(
        "<lambda> as clip_by_l2_norm, formula 'contract', seed 7: reached level None\n\n"
    )
    assert str(bad.findings[0]) in str(bad)


def test_assert_conforms_returns_the_report_or_raises_it() -> None:
    options: dict[str, Any] = {"level": "rounded", "dtypes": ["float32"], "max_examples": 0}
    assert assert_conforms(clipcore.clip_by_l2_norm, L2, **options).passed
    with pytest.raises(AssertionError) as raised:
        assert_conforms(lambda x, limit: x.copy(), L2, **options)
    assert str(raised.value) == str(quick(lambda x, limit: x.copy()))
    with pytest.raises(ValueError, match="level='all' is not known"):
        assert_conforms(clipcore.clip_by_l2_norm, L2, level="all")
    with pytest.raises(TypeError, match="unexpected keyword argument 'seeds'"):
        assert_conforms(clipcore.clip_by_l2_norm, L2, seeds=1)


@pytest.mark.parametrize("level", ["rounded", "robust"])
def test_the_same_seed_gives_the_same_report(level: str) -> None:
    first, second = (quick(by_torch, level=level, seed=3, max_examples=10) for _ in range(2))
    assert first == second
    assert not first.passed


def test_another_seed_tries_other_numbers() -> None:
    seen: list[set[bytes]] = []
    for seed in (1, 2):
        tried: set[bytes] = set()

        def clip(x: Array, limit: Any, tried: set[bytes] = tried) -> Any:
            tried.add(x.tobytes())
            return clipcore.clip_by_l2_norm(x, limit)

        quick(clip, seed=seed, max_examples=10)
        seen.append(tried)
    assert len(seen[0] - seen[1]) > 20


@pytest.mark.parametrize(("level", "levels"), [("rounded", 1), ("robust", 2)])
def test_max_examples_adds_random_cases_to_each_level(level: str, levels: int) -> None:
    few, many = (
        quick(clipcore.l2_norm, "l2_norm", level=level, max_examples=count).counts["norm"].tried
        for count in (0, 25)
    )
    assert many - few == 25 * levels


def test_steps_count_up_to_what_they_know() -> None:
    run = Verification(Subject(by_torch), L2, level="robust", dtypes=["float32"], max_examples=0)
    steps = list(run.steps())
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert all(done <= known for done, known in steps)
    assert run.failed("robust")
    assert not run.failed("exact")


# --- keywords and other shapes of functions --------------------------------------------------------------


def keywords_tried(make: Callable[[list[dict[str, Any]]], Any], operation: str) -> set[str]:
    seen: list[dict[str, Any]] = []
    assert quick(make(seen), operation, level="robust").passed
    return {key for keywords in seen for key in keywords}


def test_keywords_are_tried_where_the_signature_has_them() -> None:
    def with_axis(seen: list[dict[str, Any]]) -> Any:
        def clip(x: Any, limit: Any, axis: Any = None) -> Any:
            seen.append({} if axis is None else {"axis": axis})
            return clipcore.clip_by_l2_norm(x, limit, axis=axis)

        return clip

    def with_any(seen: list[dict[str, Any]]) -> Any:
        def clip(x: Any, limit: Any, **keywords: Any) -> Any:
            seen.append(keywords)
            return clipcore.clip_by_l2_norm(x, limit, **keywords)

        return clip

    def with_two(seen: list[dict[str, Any]]) -> Any:
        def clip(tree: Any, limit: Any, *, ord: Any = 2, nonfinite: str = "propagate") -> Any:  # noqa: A002
            seen.append(
                {
                    key: 0
                    for key, value in (("ord", ord != 2), ("nonfinite", nonfinite != "propagate"))
                    if value
                }
            )
            return clipcore.clip_by_global_norm(tree, limit, ord=ord, nonfinite=nonfinite)  # type: ignore[arg-type]

        return clip

    assert keywords_tried(with_axis, L2) == {"axis"}
    assert keywords_tried(with_any, L2) == set()
    assert keywords_tried(with_two, "clip_by_global_norm") == {"ord", "nonfinite"}


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        (L2, lambda x, limit, axis=None: clipcore.clip_by_l2_norm(x, limit)),
        ("l1_norm", lambda x, axis=None: clipcore.l1_norm(x)),
        ("clip_by_global_norm", lambda t, limit, ord=2: clipcore.clip_by_global_norm(t, limit)),  # noqa: A006
        ("clip_weights", lambda t, a, b, where=None: clipcore.clip_weights(t, a, b)),
    ],
)
def test_a_keyword_that_is_ignored_is_found(operation: str, wrong: Callable[..., Any]) -> None:
    report = quick(wrong, operation)
    assert report.level is None
    assert any(called(each.example)[2] for each in report.findings)


def test_what_an_interface_does_not_offer_is_skipped() -> None:
    def clip(x: Any, limit: Any) -> Any:
        if not isinstance(limit, float):
            raise NotOffered("only floats")
        return clipcore.clip_by_l2_norm(x, limit)

    report = quick(clip, level="robust")
    assert (report.passed, report.level) == (True, "robust")
    [finding] = report.findings
    assert finding.verdict == "skip"
    assert finding.message.endswith(": only floats")


@pytest.mark.parametrize("fn", [lambda: 0, lambda x: x, lambda a, b, c: a, Iterator, "".join])
def test_a_function_of_another_shape_is_one_finding(fn: Any) -> None:
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return fn(*arguments)

    report = quick(counted, level="exact")
    assert (report.passed, report.level) == (False, None)
    assert failed(report) == {("call", "rounded")}
    assert "raised TypeError: " in report.findings[0].message
    assert calls < 300  # those of level rounded alone


def test_a_global_clip_may_return_the_leaves_alone() -> None:
    assert quick(wrapping("clip_by_global_norm", lambda pair: pair[0]), "clip_by_global_norm").passed
