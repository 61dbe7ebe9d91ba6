"""The rows of the edge table: what each asks of a call, and the judge of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import Drawn, Observation
from clipcore.verify.form import form, leaves
from clipcore.verify.formats import Array, exact_component, nan_components, patterns
from clipcore.verify.formulas import extended
from clipcore.verify.judge import NO_NORM, NORMS, Case, Untried, faults_of, separated
from clipcore.verify.laws import Violation
from clipcore.verify.subject import Callee

__all__ = ["ANY_ZEROS", "Row", "judge_row"]

ANY_ZEROS: Final = "zeros of any sign"


@dataclass(frozen=True)
class Row(Case):
    """A call that a row of the edge table answers.

    Attributes
    ----------
    row : str
        The row of the table; the label says which of its cases this is.
    expected : object
        The tree that must come back, bit for bit; NaN stands for any NaN, `ANY_ZEROS` for zeros.
    norm : float or None
        The norm that must come with it, where one does.
    raises : str
        Name of the exception that must be raised instead.
    """

    row: str = ""
    expected: Any = None
    norm: float | None = None
    raises: str = ""


def judge_row(callee: Callee, row: Row) -> list[Violation]:
    """Return what is wrong with the answer to a row; `Untried` where the subject has no such argument."""
    seen = callee.observe(row.tree, row.arguments, row.keywords)
    if "NotOffered" in seen.bases:
        raise Untried(seen.message)
    result, norm = separated(row, seen.result)
    if row.optional and row.operation not in NORMS and not isinstance(result, dict):
        raise Untried("dicts")
    if row.raises:
        return _not_raised(row, seen)
    if seen.error:
        return [Violation("edges", f"{row.label}: raised {seen.error}: {seen.message}", got=seen.error)]
    found = [Violation("form", fault) for fault in faults_of(row, seen)]
    if row.operation in NORMS:
        return [*found, *_wrong_norm(row, result)]
    return [*found, *_wrong_result(row, result), *(_wrong_norm(row, norm) if norm is not NO_NORM else ())]


def _not_raised(row: Row, seen: Observation) -> list[Violation]:
    """Return a violation where no such exception was raised, or something was written before it was."""
    if row.raises not in seen.bases:
        got = f"{seen.error}: {seen.message}" if seen.error else "a result"
        return [Violation("edges", f"{row.label}: must raise {row.raises}", expected=row.raises, got=got)]
    given = row.keywords.get("out")
    if isinstance(given, str) or given is None:
        return []
    same = [x.tobytes() for x in leaves(given)] == [x.tobytes() for x in leaves(seen.out)]
    return [] if same else [Violation("edges", f"{row.label}: out was written before the exception")]


def _wrong_result(row: Row, result: Any) -> list[Violation]:
    """Return where a result is not the tree that the row asks for."""
    expected = row.expected
    if isinstance(expected, str):
        tree = list(row.tree) if isinstance(row.tree, Drawn) else row.tree
        wrong = form(tree, result)
        zeros = wrong is None and all(not np.any(x != 0) for x in leaves(result))
        return (
            []
            if zeros
            else [Violation("edges", f"{row.label}: must give zeros", expected=0.0, got=_first(result))]
        )
    misshapen = form(expected, result)
    if misshapen:
        return [misshapen]
    for leaf, (want, got) in enumerate(zip(leaves(expected), leaves(result), strict=True)):
        differing = np.flatnonzero((patterns(want) != patterns(got)) & ~(_nan(want) & _nan(got)))
        if differing.size:
            index = int(differing[0])
            shown = [_shown(x, index) for x in (want, got)]
            return [
                Violation("edges", f"{row.label}: another value", f"leaf {leaf}, component {index}", *shown)
            ]
    return []


def _nan(x: Array) -> Array:
    """Return which components are NaN."""
    return nan_components(x)


def _shown(x: Array, index: int) -> float:
    """Return one component for people to read."""
    return float(exact_component(x, index))


def _first(result: Any) -> Any:
    """Return the first element of a result that is not zero, for people to read."""
    numbers = [
        x.reshape(-1)[np.flatnonzero(x.reshape(-1) != 0)[:1]] for x in leaves(result) if x.dtype.kind in "fc"
    ]
    return next((str(x[0]) for x in numbers if x.size), type(result).__name__)


def _wrong_norm(row: Row, norm: Any) -> list[Violation]:
    """Return a violation where a norm is not the one that the row asks for."""
    if row.norm is None:
        return []
    try:
        got = [extended(value) for value in np.asarray(norm, dtype=np.float64).reshape(-1).tolist()]
    except (TypeError, ValueError):
        return [Violation("norm", f"{row.label}: the norm is not a number", got=type(norm).__name__)]
    want = row.norm
    if len(got) == 1 and (math.isnan(got[0]) if math.isnan(want) else _close(float(got[0]), want)):
        return []
    return [Violation("norm", f"{row.label}: another norm", expected=want, got=str(norm))]


def _close(got: float, want: float) -> bool:
    """Return whether a norm is right to 2^-20, infinities and zeros exactly."""
    return got == want or (math.isfinite(want) and abs(got - want) <= abs(want) * 2**-20)
