"""The same data on every array library, judged by exact arithmetic: laws, edges, laziness, devices.

Each library has a process of its own in CI: ``pytest -k torch tests/test_libraries.py``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from libraries import COMPLEX, FLOATING, INTEGERS, Library, fitting

import clipcore
from clipcore.verify.calling import Drawn
from clipcore.verify.cases import cases
from clipcore.verify.edges import Row, judge_row
from clipcore.verify.edges_norm import norm_rows
from clipcore.verify.edges_value import value_rows
from clipcore.verify.form import leaves, rebuild, walk
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, judge

# what a library warns of, while it is imported or run, is its own affair
pytestmark = pytest.mark.filterwarnings("ignore")

OPERATIONS = (*NORM_CLIPS, *NORMS, *VALUE_CLIPS)
ARGUMENTS = {name: () if name in NORMS else (0, 1) if name in VALUE_CLIPS else (1,) for name in OPERATIONS}
LARGEST = 2000
FEW = 100  # elements of a lazy library, which makes a task of every seven
COMPILED = {  # every dtype of a norm clip in one of them, every function with some dtypes
    "clip_by_value": ("bfloat16", "float32", "int32", "uint8"),
    "clip_weights": ("float32", "uint8"),
    "clip_by_l1_norm": ("float16", "complex64"),
    "clip_by_l2_norm": ("bfloat16", "float64", "complex128"),
    "clip_by_global_norm": ("float32",),  # a compilation for each structure
    "l1_norm": ("float32",),
    "l2_norm": ("float64",),
    "global_norm": ("float32",),
}


def dtypes_of(operation: str) -> tuple[str, ...]:
    return (*FLOATING, *(INTEGERS if operation in VALUE_CLIPS else COMPLEX))


def dtype_named(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def library_params() -> list[Any]:
    marks = {Library.CUPY: pytest.mark.gpu}
    return [
        pytest.param(library, id=library.name.lower().replace("_", "-"), marks=marks.get(library, ()))
        for library in Library
    ]


@pytest.fixture
def library(request: pytest.FixtureRequest) -> Library:
    return fitting(request)


each_library = pytest.mark.parametrize("library", library_params(), indirect=True)
each_call = pytest.mark.parametrize(
    ("operation", "name"), [(op, name) for op in OPERATIONS for name in dtypes_of(op)]
)


def holds(library: Library, dtype: np.dtype[Any]) -> bool:
    """Tell whether a library has arrays of a dtype."""
    arrays, x = library.arrays(), np.zeros(2, dtype)
    try:
        return bool(arrays.give(arrays.take(x)).dtype == dtype)
    except Exception:  # whatever a library raises for a dtype that it does not know
        return False


def padded(case: Case, length: int) -> Case:
    """The case with every array flat and filled up with zeros, which change no norm."""
    arrays = [np.concatenate([x.reshape(-1), np.zeros(length - x.size, x.dtype)]) for x in leaves(case.tree)]
    return replace(case, tree=rebuild(case.tree, iter(arrays)))


def has_negative_zero(value: Any) -> bool:
    """Tell whether an array or a number holds a zero with a sign."""
    if value is None or np.asarray(value).dtype.kind not in "fcV" or isinstance(value, complex):
        return False
    return bool(((value == 0) & np.signbit(np.asarray(value).real)).any())


def unfit_for_torch_compile(case: Case) -> bool:
    """Tell what torch.compile changes itself: NumPy scalars become tensors, NaN of 16 bits other NaN."""
    by_scalar = any(isinstance(argument, np.generic) for argument in case.arguments)
    return by_scalar or any(np.isnan(x.astype(complex)).any() for x in leaves(case.tree))


def aimed(operation: str, name: str, library: Library) -> Iterator[Case]:
    """Aimed cases of an operation that a library can be given, as many as it has time for, of all kinds."""
    length, made, by_value = library.value.length, 0, operation in VALUE_CLIPS
    all_kinds = [*itertools.islice(cases(operation, dtype_named(name), seed=2), 400)]
    random.Random(2).shuffle(all_kinds)
    for case in all_kinds:
        found = [leaf for _, leaf in walk(case.tree)]
        arrays = [*found, *(x for x in case.arguments if isinstance(x, np.ndarray))]
        if not all(isinstance(x, np.ndarray) for x in found) or isinstance(case.tree, Drawn):
            continue
        if any(not x.dtype.isnative or library.gap(operation, x.dtype.name) for x in arrays):
            continue
        if sum(x.size for x in found) > (FEW if library.value.lazy else LARGEST) or (
            library.value.compiled and not found
        ):
            continue
        if not library.value.signs_zeros and any(map(has_negative_zero, (*arrays, *case.arguments))):
            continue
        if library is Library.TORCH_COMPILE and unfit_for_torch_compile(case):
            continue
        if length:
            if "axis" in case.keywords or any(x.size > length for x in arrays) or len(arrays) > len(found):
                continue
            case = padded(case, length)
        yield case
        made += 1
        if made == library.value.count or (made == 2 and library is Library.TORCH_COMPILE and by_value):
            return


@each_library
@each_call
def test_aimed_cases_keep_every_law(library: Library, operation: str, name: str) -> None:
    callee = library.callee(getattr(clipcore, operation))
    if reason := library.gap(operation, name):
        # A compiler wraps the error in one of its own.
        if not library.value.compiled and holds(library, dtype_named(name)):
            seen = callee.observe(np.zeros(2, dtype_named(name)), ARGUMENTS[operation])
            assert seen.error == "TypeError", f"no gap any more: {reason}"
        return
    if library is Library.TORCH_COMPILE and name not in COMPILED[operation]:
        pytest.skip("each call is compiled anew, which takes seconds: some dtypes stand for all")
    tried = 0
    for case in aimed(operation, name, library):
        assert judge(callee, case, library.terms) == [], str(case)
        tried += 1
    assert tried >= (2 if library is Library.TORCH_COMPILE else min(library.value.count, 10))


def rows_of(operation: str, name: str, library: Library) -> Iterator[Row]:
    """The rows of the edge table that a library can be asked for."""
    made = value_rows if operation in VALUE_CLIPS else norm_rows
    callee = library.callee(getattr(clipcore, operation))
    for row in made(operation, dtype_named(name), callee.keywords, numpy=library is Library.NUMPY):
        found = [leaf for _, leaf in walk(row.tree)]
        given = (*row.arguments, *leaves(row.keywords.get("out")))
        arrays = [*found, *(x for x in given if isinstance(x, np.ndarray))]
        if any(not isinstance(x, np.ndarray) or library.gap(operation, x.dtype.name) for x in arrays):
            continue
        if "out" in row.keywords and not library.value.writable:
            if row.raises:  # both refusals are right
                continue
            row = replace(row, raises="TypeError")
        if row.keywords.get("nonfinite") == "raise" and library.value.lazy:
            row = replace(row, raises="ValueError")
        yield row


@each_library
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_row_of_the_edge_table_is_answered(library: Library, operation: str) -> None:
    if library.value.compiled:
        pytest.skip("the edge table is asked of functions that are not compiled")
    if library is Library.NDONNX:
        pytest.skip("no array of ndonnx is taken")
    callee = library.callee(getattr(clipcore, operation))
    for name in ("float32", "uint8") if operation in VALUE_CLIPS else ("float32",):
        for row in rows_of(operation, name, library):
            assert judge_row(callee, row) == [], row.label
