"""What is tried at each level: the cases, how each is judged, and what a smaller one may be."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import library
from clipcore.verify.cases import cases
from clipcore.verify.edges import Row, judge_row
from clipcore.verify.edges_norm import norm_rows
from clipcore.verify.edges_value import value_rows
from clipcore.verify.form import walk
from clipcore.verify.formats import is_complex, power_of_two
from clipcore.verify.formulas import Formula
from clipcore.verify.judge import NORM_CLIPS, NORMS, VALUE_CLIPS, Case, Terms, judge
from clipcore.verify.laws import Violation
from clipcore.verify.report import Level
from clipcore.verify.robust import robust_cases, within_reach
from clipcore.verify.rounded import bounds_fit, is_ordinary, rounded_cases
from clipcore.verify.shrink import elements
from clipcore.verify.subject import Callee
from clipcore.verify.tolerant import tolerant

__all__ = ["DTYPES", "OPERATIONS", "Plan", "Trial", "dtype_named", "dtypes_of", "of_own"]

OPERATIONS: Final = (*VALUE_CLIPS, *NORM_CLIPS, *NORMS)
REAL: Final = ("float32", "float64", "float16", "bfloat16")
COMPLEX: Final = ("complex64", "complex128")
INTEGERS: Final = ("int32", "uint8", "int64")
DTYPES: Final = (*REAL, *COMPLEX, *INTEGERS)
AIMED: Final = 150  # exactly judged cases of each dtype
LARGEST: Final = 10_000  # elements of an exactly judged case; larger ones would take most of the time
FLUSHING: Final = ("jax.numpy", "tensorflow")  # libraries that take subnormals for zero
IMMUTABLE: Final = ("jax.numpy", "tensorflow")  # libraries whose arrays cannot be written


@dataclass(frozen=True)
class Trial:
    """A case, how it is judged, and which other cases its level may try.

    Attributes
    ----------
    level : {"rounded", "robust", "exact"}
        Level that asks for it.
    case : Case
        What to call the function with.
    judged : callable
        Returns the violations of `(callee, case)`.
    laws : frozenset of str
        The laws that it tries.
    allows : callable
        Whether the level may try another case.
    """

    level: Level
    case: Case
    judged: Callable[[Callee, Case], list[Violation]]
    laws: frozenset[str]
    allows: Callable[[Case], bool]

    @property
    def row(self) -> str:
        """Name of the row of the edge table, empty where it is none."""
        return self.case.row if isinstance(self.case, Row) else ""


def dtypes_of(operation: str, level: Level) -> tuple[str, ...]:
    """Return the names of the dtypes that a level tries an operation with."""
    if level == "rounded":
        return REAL
    return (*REAL, *(INTEGERS if operation in VALUE_CLIPS else COMPLEX))


def dtype_named(name: str) -> np.dtype[Any]:
    """Return the dtype of a name; `ImportError` for bfloat16 without ml_dtypes."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@dataclass(frozen=True)
class Plan:
    """What to try of one subject.

    Attributes
    ----------
    operation : str
        Name of the public function.
    formula : Formula
        The definition to judge by.
    library_name : str
        Library whose arrays the subject takes.
    keywords : frozenset of str
        The keywords that it takes.
    dtypes : tuple of str
        The dtypes to try, where the level speaks of them.
    seed, examples : int
        Where random cases come from, and how many there are for each level.
    skipped : dict
        What could not be tried, and why; filled while trials are made.
    """

    operation: str
    formula: Formula
    library_name: str
    keywords: frozenset[str]
    dtypes: tuple[str, ...]
    seed: int
    examples: int
    skipped: dict[str, str]

    def trials(self, level: Level) -> Iterator[Trial]:
        """Yield everything that is new at a level."""
        spoken_of = dtypes_of(self.operation, level)
        names = [name for name in spoken_of if name in self.dtypes and self._has(name)]
        extra = -(-self.examples // max(1, len(names)))
        for name in names:
            made: Iterator[Trial] = getattr(self, f"_{level}")(dtype_named(name), extra)
            yield from (trial for trial in made if self._may_hold(trial))

    def _has(self, name: str) -> bool:
        """Return whether there can be arrays of a dtype."""
        if name == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
            self.skipped[name] = "bfloat16 was not tried: it needs ml_dtypes, which is not installed"
            return False
        if not _held(self.library_name, name):
            self.skipped[name] = f"{name} was not tried: {self.library_name} holds no such arrays"
            return False
        return True

    def _may_hold(self, trial: Trial) -> bool:
        """Return whether the subject can be given a case's leaves: nothing that is only NumPy's to others."""
        found = [leaf for _, leaf in walk(trial.case.tree)]
        if "out" in trial.case.keywords and _canonical(self.library_name) in IMMUTABLE:
            return False
        if not trial.row and any(np.asarray(leaf).dtype.name not in self.dtypes for leaf in found):
            return False
        return self.library_name == "numpy" or all(
            isinstance(leaf, np.ndarray) and leaf.dtype.isnative and _held(self.library_name, leaf.dtype.name)
            for leaf in (*found, *(x for x in trial.case.arguments if isinstance(x, np.ndarray)))
        )

    def _rounded(self, dtype: np.dtype[Any], extra: int) -> Iterator[Trial]:
        """Yield the trials of the level rounded."""
        rng = np.random.default_rng([self.seed, 0, dtype.num])
        judged = functools.partial(tolerant, formula=self.formula, terms=_terms(self.library_name))
        for case in rounded_cases(self.operation, dtype, self.keywords, rng, extra):
            yield Trial("rounded", case, judged, _laws(self.operation, "rounded"), is_ordinary)

    def _robust(self, dtype: np.dtype[Any], extra: int) -> Iterator[Trial]:
        """Yield the rows of the edge table, and the trials of the whole range."""
        if not is_complex(dtype):
            rows = value_rows if self.operation in VALUE_CLIPS else norm_rows
            of_numpy = self.library_name == "numpy"
            for row in rows(self.operation, dtype, self.keywords, numpy=of_numpy):
                yield Trial("robust", row, judge_row, frozenset({"edges", "form"}), lambda _case: False)  # type: ignore[arg-type]
        rng = np.random.default_rng([self.seed, 1, dtype.num])
        judged = functools.partial(tolerant, formula=self.formula, terms=_terms(self.library_name))
        allows = bounds_fit if self.operation in VALUE_CLIPS else within_reach
        for case in robust_cases(self.operation, dtype, self.keywords, rng, extra):
            yield Trial("robust", case, judged, _laws(self.operation, "robust"), allows)

    def _exact(self, dtype: np.dtype[Any], extra: int) -> Iterator[Trial]:
        """Yield the trials of all laws."""
        judged = functools.partial(judge, terms=_terms(self.library_name))
        for case in cases(self.operation, dtype, self.seed, AIMED + extra):
            if elements(case) <= LARGEST and case.keywords.keys() <= self.keywords:
                yield Trial("exact", case, judged, _laws(self.operation, "exact"), _may_be_exact)


def _may_be_exact(case: Case) -> bool:
    """Return whether all laws may be asked of a case."""
    return case.operation not in VALUE_CLIPS or bounds_fit(case)


def of_own(case: Case, level: Level, formula: Formula, library_name: str) -> Trial:
    """Return somebody's own case as a trial of a level."""
    terms, laws = _terms(library_name), _laws(case.operation, level)
    judged = functools.partial(judge, terms=terms)
    if level != "exact":
        judged = functools.partial(tolerant, formula=formula, terms=terms)
    return Trial(level, case, judged, laws, _may_be_exact)


def _laws(operation: str, level: Level) -> frozenset[str]:
    """Return the laws that a case of an operation tries, by name."""
    if level != "exact":
        measured = {"norm"} if operation in NORMS else {"formula", "range"}
        measured |= {"norm"} if operation == "clip_by_global_norm" else set()
        return frozenset({"form", "call"} | measured)
    if operation in NORMS:
        return frozenset({"norm", "form", "call"})
    laws = {"bound", "identity", "tightness", "idempotence", "range", "edges", "form", "call"}
    if operation in NORM_CLIPS:
        laws |= {"direction", "scale"}
    return frozenset(laws | ({"norm"} if operation == "clip_by_global_norm" else set()))


def _terms(library_name: str) -> Terms:
    """Return what is asked of a library's arrays."""
    if library_name == "numpy":
        return Terms()
    double = _held(library_name, "float64")
    slack = power_of_two(-44) if double else power_of_two(-20)
    return Terms(slack, _canonical(library_name) in FLUSHING, "float64" if double else "float32", 4)


def _canonical(library_name: str) -> str:
    """Return the name of a library's module, `jax.numpy` of `jax`."""
    return library_name if library_name == "numpy" else library(library_name).name


@functools.lru_cache
def _held(library_name: str, name: str) -> bool:
    """Return whether a library holds arrays of a dtype and gives them back as they were."""
    if library_name == "numpy":
        return True
    try:
        arrays = library(library_name)
        x = np.array([1, 2], dtype_named(name))
        taken = arrays.take(x)
        back = np.asarray(arrays.give(taken))
    except Exception:  # whatever the library raises for a dtype that it does not know
        return False
    return bool(back.dtype == x.dtype and back.tobytes() == x.tobytes())
