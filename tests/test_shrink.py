"""What the kit shows of a known bug is no longer than the bug needs, and a case of the level's own domain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from kit_support import L2, Array, called, quick

import clipcore
from clipcore.verify import Finding, Report, Subject
from clipcore.verify.form import leaves
from clipcore.verify.formulas import FORMULAS
from clipcore.verify.judge import Case
from clipcore.verify.robust import within_reach
from clipcore.verify.rounded import is_ordinary
from clipcore.verify.shrink import elements, shrink
from clipcore.verify.subject import Here
from clipcore.verify.tolerant import tolerant

GLOBAL = "clip_by_global_norm"


def l2(x: Array, limit: Any, **keywords: Any) -> Array:
    return np.asarray(clipcore.clip_by_l2_norm(x, limit, **keywords))


def nothing(x: Array, _limit: Any) -> Array:
    return x.copy()


def eight_only(x: Array, limit: Any) -> Array:
    clipped = l2(x, limit)
    clipped.reshape(-1)[8:] = x.reshape(-1)[8:]
    return clipped


def up_to_a_hundred(x: Array, limit: Any) -> Array:
    return l2(x, limit) if x.size <= 100 else x.copy()


def up_to_4096(x: Array, limit: Any) -> Array:
    return l2(x, limit) if np.size(x) <= 4096 else x.copy()


def first_leaf(tree: list[Array], limit: Any) -> list[Array]:
    factor = min(1.0, float(limit) / float(clipcore.l2_norm(tree[0]) or 1))
    return [(x.astype(np.float64) * factor).astype(x.dtype) for x in tree]


def leaf_by_leaf(tree: list[Array], limit: Any) -> list[Array]:
    return [l2(x, limit) for x in tree]


def last_left_out(tree: list[Array], limit: Any) -> list[Array]:
    clipped, _ = clipcore.clip_by_global_norm(tree, limit)
    return [*clipped[:-1], tree[-1].copy()] if len(tree) > 3 else clipped


def by_columns(x: Array, limit: Any) -> Array:
    return l2(x, limit, axis=0) if x.ndim == 2 else l2(x, limit)


def l1_for_l2(x: Array, limit: Any) -> Array:
    return np.asarray(clipcore.clip_by_l1_norm(x, limit))


def upper_forgotten(x: Array, lower: Any, _upper: Any) -> Array:
    return np.asarray(clipcore.clip_by_value(x, lower, None))


def overflowing(x: Array, limit: Any) -> Array:
    with np.errstate(all="ignore"):
        norm = np.sqrt(np.sum(x * x, dtype=np.float16), dtype=np.float16)
        factor = 1 if norm <= limit else limit / np.float64(norm)
        return (x * np.float64(factor)).astype(x.dtype)


def other_axis(x: Array, limit: Any, axis: Any = None) -> Array:
    return l2(x, limit, axis=0 if axis == 1 else axis)


def negative_lost(x: Array, limit: Any) -> Array:
    return np.where(x < 0, -l2(x, limit), l2(x, limit)).astype(x.dtype)


@dataclass(frozen=True)
class Known:
    """A bug, and the fewest elements of a call that shows it."""

    name: str
    operation: str
    fn: Callable[..., Any]
    law: str
    fewest: int
    leaves: int = 1
    dtype: str = "float32"
    limit: float | None = None  # elements to accept where they are not tried one by one


ROUNDED = [
    Known("nothing is clipped", L2, nothing, "formula", 1),
    Known("only eight elements are clipped", L2, eight_only, "formula", 9),
    Known("only up to a hundred elements", L2, up_to_a_hundred, "formula", 101, limit=103),
    Known("the norm of the first leaf", GLOBAL, first_leaf, "formula", 2, 2),
    Known("leaf by leaf", GLOBAL, leaf_by_leaf, "formula", 2, 2),
    Known("the last of more than three leaves", GLOBAL, last_left_out, "formula", 4, 4),
    Known("by columns", L2, by_columns, "formula", 2),
    Known("the L1 norm", L2, l1_for_l2, "formula", 2),
    Known("the upper bound is forgotten", "clip_by_value", upper_forgotten, "formula", 1),
    Known("squares overflow", L2, overflowing, "range", 1, dtype="float16"),
    Known("another axis", L2, other_axis, "formula", 2),
    Known("the sign is lost", L2, negative_lost, "formula", 1),
]


def finding_of(report: Report, law: str, level: str) -> Finding:
    return next(each for each in report.findings if (each.law, each.level) == (law, level))


def case_of(known: Known, finding: Finding) -> Case:
    tree, arguments, keywords = called(finding.example)
    return Case(known.operation, "shown", tree, arguments, keywords)


@pytest.mark.parametrize("known", ROUNDED, ids=lambda known: known.name)
def test_a_finding_is_as_short_as_its_bug_needs(known: Known) -> None:
    report = quick(known.fn, known.operation, dtypes=[known.dtype])
    case = case_of(known, finding_of(report, known.law, "rounded"))
    assert known.fewest <= elements(case) <= (known.limit or known.fewest)
    assert len(leaves(case.tree)) == known.leaves
    assert is_ordinary(case)
    found = tolerant(Here(Subject(known.fn)), case)
    assert known.law in {violation.law for violation in found}


@pytest.mark.parametrize("known", ROUNDED, ids=lambda known: known.name)
def test_the_numbers_of_a_finding_are_short(known: Known) -> None:
    report = quick(known.fn, known.operation, dtypes=[known.dtype])
    case = case_of(known, finding_of(report, known.law, "rounded"))
    numbers = [abs(float(value)) for x in leaves(case.tree) for value in x.reshape(-1).tolist()]
    assert all(math.frexp(value)[0] * 256 % 1 == 0 for value in numbers)  # eight bits say them


def backwards_read_forwards(x: Array, limit: Any) -> Array:
    if isinstance(x, np.ndarray) and x.ndim and x.strides[-1] < 0:
        return l2(x, limit)[..., ::-1].copy()
    return l2(x, limit)


def read_only_refused(x: Array, limit: Any) -> Array:
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        raise ValueError("assignment destination is read-only")
    return l2(x, limit)


LAYOUTS = [
    Known("negative strides", L2, backwards_read_forwards, "formula", 2),
    Known("read-only", L2, read_only_refused, "call", 1),
]


@pytest.mark.parametrize("known", LAYOUTS, ids=lambda known: known.name)
def test_a_bug_of_a_layout_is_shown_with_that_layout_and_few_elements(known: Known) -> None:
    report = quick(known.fn, known.operation, level="robust")
    assert report.level == "rounded"
    case = case_of(known, finding_of(report, known.law, "robust"))
    found = tolerant(Here(Subject(known.fn)), case)
    assert known.law in {violation.law for violation in found}
    assert within_reach(case)
    assert elements(case) == known.fewest


def test_a_bug_of_large_arrays_is_shown_by_one_hardly_larger_than_needed() -> None:
    report = quick(up_to_4096, level="robust", dtypes=["float16"])
    assert report.level == "rounded"
    finding = finding_of(report, "formula", "robust")
    tree, _, _ = called(finding.example)
    assert 4096 < tree.size < 4100
    assert within_reach(Case(L2, "shown", *[tree, called(finding.example)[1]]))


def test_a_bug_of_weights_is_shown_by_the_leaf_it_needs() -> None:
    def clip(tree: Any, lower: Any, _upper: Any) -> Any:
        return clipcore.clip_weights(tree, lower, None)

    finding = finding_of(quick(clip, "clip_weights"), "formula", "rounded")
    assert len(leaves(called(finding.example)[0])) == 1


def test_the_findings_of_level_robust_stay_within_its_reach() -> None:
    def clip(x: Any, _limit: Any) -> Any:
        return np.asarray(x) * 1.0

    report = quick(clip, level="robust", dtypes=["float16"], max_examples=10)
    seen = 0
    for finding in report.findings:
        if finding.law in ("formula", "range"):
            tree, arguments, keywords = called(finding.example)
            case = Case(L2, "shown", tree, arguments, keywords)
            assert (is_ordinary if finding.level == "rounded" else within_reach)(case)
            seen += 1
    assert seen >= 2


# --- by itself -------------------------------------------------------------------------------------------


def judged(fails: Callable[[Case], bool], case: Case) -> tuple[Case, int]:
    calls = 0

    def counting(candidate: Case) -> bool:
        nonlocal calls
        calls += 1
        return fails(candidate)

    return shrink(case, counting), calls


def test_a_case_that_only_fails_as_it_is_stays_as_it_is() -> None:
    case = Case(L2, "", np.array([0.1, 0.7]), (0.3,))
    kept, calls = judged(lambda _: False, case)
    assert kept is case
    assert calls > 5


def test_a_case_that_always_fails_becomes_one_plain_element() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(">f4").T[::-1]
    case, _ = judged(lambda _: True, Case(L2, "", x, (0.123,)))
    assert (elements(case), case.tree.dtype, case.arguments) == (1, np.float32, (1.0,))


def test_no_case_is_tried_twice_and_the_work_is_bounded() -> None:
    seen: list[tuple[bytes, str]] = []

    def fails(case: Case) -> bool:
        seen.append((case.tree.tobytes() + repr(case.tree.shape).encode(), repr(case.arguments)))
        return len(seen) % 3 == 0

    judged(fails, Case(L2, "", np.linspace(-1, 1, 300), (0.5,), {}, ("ratio", 0.5)))
    assert len(seen) == len(set(seen)) <= 1000
    _, calls = judged(lambda case: case.tree.size >= 400_000, Case(L2, "", np.ones(500_000), (0.5,)))
    assert calls <= 20  # a call of 250 000 elements takes a twentieth of all that may be judged


def test_the_limit_follows_the_norm() -> None:
    case = Case(L2, "", np.array([3.0, 4.0, 12.0]), (6.5,), {}, ("ratio", 0.5))
    seen: list[tuple[list[float], float]] = []

    def keeping(candidate: Case) -> bool:
        seen.append((candidate.tree.tolist(), candidate.arguments[0]))
        return False

    shrink(case, keeping)
    assert ([3.0, 4.0], 2.5) in seen
    assert ([3.0, 4.0], 6.5) in seen


def test_leaves_that_no_arithmetic_takes_are_left_alone() -> None:
    for leaf in (np.array(["a", "b"]), np.array([True, False]), np.array([1.0, None], object)):
        case = Case(GLOBAL, "", [leaf, np.ones(3)], (1.0,))
        assert shrink(case, lambda _: True) is case


def test_a_difference_of_definition_shrinks_to_one_that_still_is() -> None:
    def clip(x: Array, limit: float) -> Array:
        norm = float(clipcore.l2_norm(x))
        return (x.astype(np.float64) * min(1.0, limit / (norm + 1e-6))).astype(x.dtype)

    [finding] = [each for each in quick(clip).findings if each.law == "formula"]
    tree, arguments, _ = called(finding.example)
    case = Case(L2, "", tree, arguments)
    assert (finding.difference, elements(case)) == ("torch", 1)
    assert tolerant(Here(Subject(clip)), case)
    assert not tolerant(Here(Subject(clip)), case, FORMULAS["torch"])
