"""The golden vectors: what they hold, and what a reader of them accepts and refuses."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import REFERENCE
from vectors_reader import (
    NORM_CLIPS,
    NORMS,
    NUMBER,
    OPERATIONS,
    Array,
    Case,
    argument,
    array,
    call,
    cases,
    components,
    document,
    faults,
    norm_holds,
    number,
    scaled,
    text,
)

import clipcore
from clipcore.verify.formats import patterns, power_of_two
from clipcore.verify.vectors import SCHEMA, vectors
from clipcore.verify.vectors_calls import Leaf, calls, row_arguments, row_leaves, rows

GUIDE = Path(__file__).parents[1] / "docs" / "vectors.md"
CLIPCORE = {operation: getattr(clipcore, operation) for operation in OPERATIONS}


# --- the text --------------------------------------------------------------------------------------------


def test_the_schema() -> None:
    assert document().keys() == {"schema", "seed", "formats", "operations"}
    assert document()["schema"] == SCHEMA == "clipcore-vectors-1"
    assert tuple(document()["operations"]) == OPERATIONS
    for case in cases(*OPERATIONS):
        check_case(case)


def check_case(case: Case) -> None:
    operation = case["operation"]
    always = {"id", "label", "inputs", "arguments", "keywords", "operation", "dtype"}
    wanted = {"error"} if "error" in case else set()
    if not wanted:
        wanted |= {"outputs"} if operation not in NORMS else set()
        wanted |= {"groups"} if operation in NORM_CLIPS + NORMS else set()
        wanted |= {"scales"} if operation in NORM_CLIPS else set()
    assert case.keys() == always | wanted, case["id"]
    assert case.get("error", "ValueError") in ("ValueError", "TypeError", "FloatingPointError")
    for leaf in case["inputs"]:
        check_leaf(leaf)
    for leaf, want in zip(case["inputs"] if "outputs" in case else (), case.get("outputs", ()), strict=True):
        ideal = {"ideal_hi", "ideal_lo"} if operation in NORM_CLIPS else set()
        assert want.keys() in ({"values"}, {"lowest", "highest"} | ideal)
        assert all(len(texts) == len(leaf["values"]) for texts in want.values())
    for value in case["arguments"].values():
        check_leaf(value) if isinstance(value, dict) else None
        assert isinstance(value, dict) or value is None or NUMBER.fullmatch(value), case["id"]
    assert case["keywords"].keys() <= {"ord", "axis", "nonfinite"}
    for group in case.get("groups", ()):
        check_group(group, case)


def check_leaf(leaf: Case) -> None:
    assert leaf.keys() == {"dtype", "shape", "values"}
    parts = 2 if leaf["dtype"].startswith("complex") else 1
    assert len(leaf["values"]) == math.prod(leaf["shape"]) * parts <= 32
    pattern = re.compile(r"-?\d+") if "int" in leaf["dtype"] else NUMBER
    assert all(pattern.fullmatch(text) for text in leaf["values"])


def check_group(group: Case, case: Case) -> None:
    norm = {"norm_low", "norm_high", "norm_least", "norm_most"}
    flags = {"inside", "clipped", "tight", "u"} if case["operation"] in NORM_CLIPS else set()
    members = {"members"} if "axis" in case["keywords"] else set()
    assert group.keys() == norm | flags | members
    least, low, high, most = (float(number(group[f"norm_{end}"])) for end in ("least", "low", "high", "most"))
    if low == low:
        assert least == math.inf or least <= low <= high <= most
        assert high in (low, math.nextafter(low, math.inf))
    assert not (group.get("inside") and group.get("clipped"))
    assert group.get("clipped") or not group.get("tight")


def test_the_text_is_short_and_the_same_each_time() -> None:
    assert len(text().encode()) < 2_000_000
    assert vectors() == document()
    assert calls("clip_by_l2_norm", "float32", 1) != calls("clip_by_l2_norm", "float32", 0)
    assert len({case["id"] for case in cases(*OPERATIONS)}) == text().count('"id"') > 2000


@pytest.mark.parametrize("operation", OPERATIONS)
def test_inputs_come_back_bit_for_bit(operation: str) -> None:
    for dtype, listed in document()["operations"][operation].items():
        made = calls(operation, dtype)
        for origin, case in zip(made, listed, strict=True):
            for leaf, described in zip(origin.inputs, case["inputs"], strict=True):
                same_leaf(leaf, array(described))
            for name, value in origin.arguments.items():
                if isinstance(value, Leaf):
                    same_leaf(value, array(case["arguments"][name]))
                else:
                    assert repr(argument(case["arguments"][name])) == repr(value)


def same_leaf(leaf: Leaf, x: Array) -> None:
    got = tuple((x.reshape(-1) if x.dtype.kind in "iu" else patterns(x)).tolist())
    nan = [value != value for value in components(x)]
    assert (x.dtype.name, x.shape) == (leaf.dtype, leaf.shape)
    assert all(lost or one == other for lost, one, other in zip(nan, got, leaf.patterns, strict=True))


def test_ideals_and_intervals_follow_from_the_formula() -> None:
    checked = 0
    for case in cases("clip_by_l1_norm", "clip_by_l2_norm"):
        if case["keywords"] or case["dtype"][0] == "c" or "lowest" not in case.get("outputs", [{}])[0]:
            continue
        (leaf,), (want,) = case["inputs"], case["outputs"]
        sizes = [abs(Fraction(number(text))) for text in leaf["values"]]
        factor = Fraction(number(case["arguments"]["max_norm"])) / norm_of(case, sizes)
        for place, size in enumerate(sizes):
            ideal = sum(sizes_at(want, place, "ideal_hi", "ideal_lo"))
            low, high = sorted(sizes_at(want, place, "lowest", "highest"))
            assert abs(ideal - size * factor) <= size * factor / 2**75 + power_of_two(-1073), case["id"]
            reach = 4 * spacing(case, size * factor)
            assert size * factor - reach <= low <= high <= min(size, size * factor + reach), case["id"]
            assert high == size or high + spacing(case, high) > size * factor + reach, case["id"]
            below = low - spacing(case, low * (1 - Fraction(1, 2**60)))
            assert low == 0 or below < size * factor - reach, case["id"]
            checked += 1
    assert checked > 500


def norm_of(case: Case, sizes: list[Fraction]) -> Fraction:
    """The norm to a hundred digits."""
    if case["operation"] == "clip_by_l1_norm":
        return sum(sizes, Fraction(0))
    square = sum((size**2 for size in sizes), Fraction(0))
    with localcontext() as context:
        context.prec = 100
        return Fraction((Decimal(square.numerator) / Decimal(square.denominator)).sqrt())


def sizes_at(want: Case, place: int, *names: str) -> list[Fraction]:
    return [abs(Fraction(number(want[name][place]))) for name in names]


def spacing(case: Case, size: Fraction) -> Fraction:
    """The distance of the dtype's numbers at a size, at least the smallest subnormal."""
    bits, precision = (document()["formats"][case["dtype"]][name] for name in ("bits", "precision"))
    least = 3 - 2 ** (bits - precision - 1) - precision
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent += size >= Fraction(2) ** exponent
    return power_of_two(max(exponent - precision, least))


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_clipcore_conforms_to_every_vector(operation: str) -> None:
    for case in cases(operation):
        if "error" in case:
            with pytest.raises(Exception, match=operation) as raised:
                call(CLIPCORE, case)
            assert raised.type.__name__ == case["error"]
            continue
        outputs, norm = call(CLIPCORE, case)
        shapes = [(x.dtype.name, list(x.shape)) for x in outputs]
        assert shapes == [(leaf["dtype"], leaf["shape"]) for leaf in case["inputs"]] or operation in NORMS
        assert not faults(
            case if outputs or operation not in NORMS else {**case, "inputs": []}, outputs, norm
        ), case


@pytest.mark.parametrize("operation", OPERATIONS)
def test_exact_truncation_conforms_too(operation: str) -> None:
    for case in cases(operation):
        if "error" not in case and "nonfinite" not in case["keywords"]:
            outputs, norm = call(REFERENCE, case)
            assert not faults(case, outputs, norm), case


@pytest.mark.parametrize("operation", NORM_CLIPS)
def test_marked_cases_scale_bit_for_bit(operation: str) -> None:
    for case in cases(operation):
        if "64" in "".join(leaf["dtype"].replace("complex64", "") for leaf in case["inputs"]):
            continue
        plain = call(CLIPCORE, case)[0] if case.get("scales") else []
        for power in case.get("scales", ()):
            for x, y in zip(plain, call(CLIPCORE, case, power)[0], strict=True):
                assert scaled(x, power).tobytes() == y.tobytes(), case["id"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_reader_accepts_what_the_edge_table_asks(operation: str) -> None:
    checked = 0
    for dtype, listed in document()["operations"][operation].items():
        if dtype.startswith("complex"):
            continue
        answers = {
            (row.label, row_leaves(row.tree, dtype), repr(row_arguments(row))): row
            for row in rows(operation, dtype)
        }
        for origin, case in zip(calls(operation, dtype), listed, strict=True):
            row = answers.get((origin.label.removeprefix("edges: "), origin.inputs, repr(origin.arguments)))
            if row is None:
                continue
            checked += 1
            assert row.raises == case.get("error", "")
            expected = None if isinstance(row.expected, str) else row_leaves(row.expected, dtype)
            if expected and not row.raises:
                read = {**case, "operation": operation, "dtype": dtype}
                answer = [] if operation in NORMS else [leaf.array() for leaf in expected]
                assert not faults(read, answer, row.norm), case
    assert checked > 10


# --- wrong answers ---------------------------------------------------------------------------------------


def next_after(x: Array, place: int, towards: float) -> Array:
    changed = x.copy()
    with np.errstate(over="ignore"):  # beyond the largest number
        changed.reshape(-1)[place] = np.nextafter(x.reshape(-1)[place], x.dtype.type(towards))
    return changed


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_one_step_outside_the_interval_is_refused(end: str) -> None:
    checked = 0
    for case in cases("clip_by_l1_norm", "clip_by_l2_norm"):
        if case["dtype"] not in ("float16", "float32", "float64") or end not in case.get("outputs", [{}])[0]:
            continue
        inside, _ = call(CLIPCORE, case)
        edge = array({**case["inputs"][0], "values": case["outputs"][0][end]})
        for place in range(edge.size):
            mixed = inside[0].copy()
            mixed.reshape(-1)[place] = edge.reshape(-1)[place]
            beyond = next_after(mixed, place, math.inf if end == "highest" else -math.inf)
            assert not any("not within" in fault for fault in faults(case, [mixed]))
            assert any("not within" in fault for fault in faults(case, [beyond])), case
            checked += 1
    assert checked > 200


def test_zeros_that_change_their_sign_are_refused() -> None:
    checked = 0
    for case in cases("clip_by_l2_norm", "clip_by_value"):
        if (
            case["dtype"] in ("float16", "bfloat16", "float32", "float64")
            and "values" in case.get("outputs", [{}])[0]
        ):
            right = array({**case["inputs"][0], "values": case["outputs"][0]["values"]})
            zeros = right == 0
            assert not faults(case, [right])
            assert bool(faults(case, [np.where(zeros, -right, right)])) == bool(np.any(zeros))
            checked += bool(np.any(zeros))
    assert checked > 100


def test_a_wrong_norm_is_refused() -> None:
    for case in cases(*NORMS, "clip_by_global_norm"):
        for group in case.get("groups", ()):
            least, most = float(number(group["norm_least"])), float(number(group["norm_most"]))
            for wrong in (math.nextafter(least, -1), math.nextafter(most, math.inf), math.nan):
                same = wrong in (least, most) or (wrong != wrong and least != least)
                assert norm_holds(group, wrong) == same


def refused(mutant: Any, *operations: str) -> set[str]:
    """The dtypes for which the vectors refuse an implementation."""
    found = set()
    for case in cases(*operations):
        if "error" not in case and not case["keywords"] and case["dtype"][0] != "b" and case["inputs"]:
            with np.errstate(all="ignore"):
                outputs, norm = call(dict.fromkeys(operations, mutant), case)
            if faults(case, outputs, norm):
                found.add(case["dtype"])
    return found


def bounds_cast_to_nearest(x: Array, lower: Any, upper: Any) -> Array:
    if x.dtype.kind in "iu":
        return np.asarray(clipcore.clip_by_value(x, lower, upper))
    ends = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
    low, high = (np.asarray(end, x.dtype) for end in ends)
    cut = np.where(x < low, low, x)
    return np.where(np.isnan(low) | np.isnan(high), x.dtype.type(math.nan), np.where(cut > high, high, cut))


def rounded_to_nearest(x: Array, limit: float) -> Array:
    norm = float(np.sqrt(np.sum(np.abs(x.astype(np.complex128)) ** 2)))
    return (x * (limit / norm)).astype(x.dtype) if norm > limit else x.copy()


def with_an_epsilon(x: Array, limit: float) -> Array:
    norm = float(np.sqrt(np.sum(np.abs(x.astype(np.complex128)) ** 2)))
    return (x * min(1.0, limit / (norm + 1e-6))).astype(x.dtype)


@pytest.mark.parametrize("mutant", [rounded_to_nearest, with_an_epsilon])
def test_the_usual_clips_are_refused(mutant: Any) -> None:
    every = {"float16", "float32", "float64", "complex64", "complex128"}
    assert refused(mutant, "clip_by_l2_norm") == every


def test_bounds_cast_to_nearest_are_refused() -> None:
    assert refused(bounds_cast_to_nearest, "clip_by_value") == {"float16", "float32"}


# --- the guide -------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is called cc")
@pytest.mark.parametrize(("flag", "status"), [("-DTRUNCATE=1", 0), ("-DTRUNCATE=0", 1)])
def test_the_example_in_c_accepts_and_refuses(tmp_path: Path, flag: str, status: int) -> None:
    (source,) = re.findall(r"```c\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (name,) = re.findall(r"clip_by_l2_norm/float32/\d+", source)
    (case,) = (case for case in cases("clip_by_l2_norm") if case["id"] == name)
    given = [*case["inputs"][0]["values"], *case["outputs"][0]["lowest"], *case["outputs"][0]["highest"]]
    assert re.findall(r'"(-?0x.*?)"', source) == [*given, case["arguments"]["max_norm"]]
    (tmp_path / "example.c").write_text(source, encoding="utf-8")
    options = ["-std=c99", "-Wall", "-Werror", "-ffp-contract=off", flag]
    subprocess.run(["cc", *options, "example.c", "-o", "example", "-lm"], cwd=tmp_path, check=True)
    ended = subprocess.run([tmp_path / "example"], check=False, capture_output=True, text=True)
    assert (ended.returncode, bool(ended.stdout)) == (status, True)
