"""One implementation, one case, all the laws.

The implementation is always an argument: ours, a reference in a test, a mutant or a stranger's.  It is called
as the public function of that name is, and whatever it does becomes a violation or none; an exception too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import Drawn, Observation
from clipcore.verify.form import among_subnormals, form, leaves, rebuild, value_laws, walk
from clipcore.verify.formats import Array
from clipcore.verify.laws import (
    FLUSHED_LAWS,
    GROUP_LAWS,
    Group,
    Violation,
    has_subnormals,
    idempotence,
    keeps_normal,
    norm_accuracy,
    scale,
    scaled_by,
    scales,
)
from clipcore.verify.subject import LOSSES, Callee, Here, Subject

__all__ = [
    "NORMS",
    "NORM_CLIPS",
    "NO_NORM",
    "NUMPY",
    "POWERS",
    "VALUE_CLIPS",
    "Case",
    "Outcome",
    "Terms",
    "Untried",
    "faults_of",
    "flushed",
    "groups",
    "judge",
    "order_of",
    "outcome",
    "separated",
    "split",
]

NORM_CLIPS: Final = {"clip_by_l1_norm": 1, "clip_by_l2_norm": 2, "clip_by_global_norm": 2}
VALUE_CLIPS: Final = ("clip_by_value", "clip_weights")
NORMS: Final = {"l1_norm": 1, "l2_norm": 2, "global_norm": 2}
POWERS: Final = (
    -7,
    1,
    60,
)  # the powers of two that law 6 is tried with, where nothing leaves the normal range


@dataclass(frozen=True)
class Case:
    """One call to judge: what to pass to which function.

    Attributes
    ----------
    operation : str
        Name of the public function.
    label : str
        What is special about it, for people to read.
    tree : object
        First argument: an array, or for the functions of trees a nested container of them.
    arguments : tuple
        The other positional arguments: `(max_norm,)`, `(lower, upper)` or none.
    keywords : dict
        `axis`, `ord` or `where`, where they are not the default.
    limit : tuple of (str, object)
        How the limit was made of the norm: `("ratio", r)` or `("named", label)`; empty where it was not.
    optional : bool
        Whether a subject may refuse the call by an exception, without being accused at this level.
    """

    operation: str
    label: str
    tree: Any
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    limit: tuple[Any, ...] = ()
    optional: bool = False

    def __str__(self) -> str:
        arrays = ", ".join(f"{x.dtype.name}{list(x.shape)}" for x in leaves(self.tree))
        return f"{self.operation}({arrays}; {self.arguments}, {self.keywords}): {self.label}"


@dataclass(frozen=True)
class Terms:
    """What the contract asks where the arrays come from a certain library.

    Attributes
    ----------
    slack : Fraction
        The ε by which laws 1 to 4 and 6 may miss the boundary: 0 on NumPy.
    flushes : bool
        Whether the library takes subnormals for zero.
    norm_dtype : str
        Name of the dtype of norms.
    norm_ulps : int
        How many ulp a norm may be off where 2^-44 does not apply.
    """

    slack: Fraction = Fraction(0)
    flushes: bool = False
    norm_dtype: str = "float64"
    norm_ulps: int = 1


NUMPY: Final = Terms()
INFINITE_FLOAT32: Final = 2.0**128 - 2.0**103  # from here on a limit rounds to infinity
NO_NORM: Final = object()


class Untried(Exception):  # noqa: N818  # no error: the case says nothing about the subject
    """The subject's interface has no such argument."""


@dataclass(frozen=True)
class Outcome:
    """What one call gave.

    Attributes
    ----------
    result : object
        The returned tree, or the norm that a norm function returned.
    norm : object
        The norm that came with it, `NO_NORM` where none did.
    violations : tuple of Violation
        What was wrong with the call itself: an exception, the form.
    usable : bool
        Whether the result has the right form, so that its numbers can be judged.
    """

    result: Any
    norm: Any
    violations: tuple[Violation, ...]
    usable: bool


def outcome(callee: Callee, case: Case) -> Outcome:
    """Call a subject and judge all but the numbers."""
    seen = callee.observe(case.tree, case.arguments, case.keywords)
    if "NotOffered" in seen.bases:
        raise Untried(seen.message)
    if case.optional and seen.error:
        raise Untried(case.label)
    if seen.error:
        text = (
            seen.message
            if seen.error in LOSSES
            else f"raised {seen.error}: {seen.message}".removesuffix(": ")
        )
        fault = Violation("call", text, got=seen.error, last=True)
        return Outcome(None, NO_NORM, (fault,), usable=False)
    found = [Violation("form", fault) for fault in faults_of(case, seen)]
    if case.operation in NORMS:
        return Outcome(seen.result, NO_NORM, tuple(found), usable=True)
    result, norm = separated(case, seen.result)
    expected = list(case.tree) if isinstance(case.tree, Drawn) else case.tree
    misshapen = form(expected, result)
    ends = [replace(misshapen, last=True)] if misshapen else []
    return Outcome(result, norm, (*found, *ends), usable=not misshapen)


def faults_of(case: Case, seen: Observation) -> list[str]:
    """Return what is wrong with types and memory; of which type a norm is, only the exact laws say."""
    return [fault for fault in seen.faults if case.operation not in NORMS or "came back as" not in fault]


def separated(case: Case, returned: Any) -> tuple[Any, Any]:
    """Return the tree and the norm of what a clip returned, `NO_NORM` where it returned the tree alone."""
    pair = case.operation == "clip_by_global_norm" and isinstance(returned, tuple) and len(returned) == 2
    return returned if pair else (returned, NO_NORM)


def judge(fn: Callable[..., Any] | Callee, case: Case, terms: Terms = NUMPY) -> list[Violation]:
    """Return every violation of the laws by one call, and by the further calls that they need.

    Parameters
    ----------
    fn : callable or Callee
        Implementation of `case.operation`, called as the public function is.
    case : Case
        What to call it with.
    terms : Terms
        What the contract asks of its array library.

    Returns
    -------
    list of Violation
        Empty where every law holds.
    """
    callee: Callee = fn if isinstance(fn, Callee) else Here(Subject(fn))
    first = outcome(callee, case)
    found = list(first.violations)
    if not first.usable:
        return found
    try:
        found += _violations(callee, case, terms, first)
    except _CallError as error:
        found += error.args
    return found


class _CallError(Exception):
    """A further call failed; its arguments are the violations."""


def _again(callee: Callee, case: Case) -> Any:
    """Return the result of a further call; `_CallError` where it has none of the right form."""
    made = outcome(callee, case)
    if not made.usable:
        raise _CallError(*made.violations)
    return made.result


def _violations(callee: Callee, case: Case, terms: Terms, first: Outcome) -> Iterator[Violation]:
    """Yield the violations of one case by its numbers."""
    if case.operation in NORMS:
        yield from _of_norm(callee, case, terms, first.result)
        return
    if first.norm is not NO_NORM:
        yield from _of_scalar_norm(leaves(case.tree), order_of(case), first.norm, terms)
    if case.operation in VALUE_CLIPS:
        yield from _of_value_clip(case, first.result, terms)
    else:
        yield from _of_norm_clip(callee, case, terms, first.result)
    twice = _again(callee, replace(case, tree=first.result))
    yield from _present([idempotence(leaves(first.result), leaves(twice))])


def flushed(group: Group, terms: Terms) -> bool:
    """Return whether a library may take parts of a finite group for zero, or what becomes of them."""
    return terms.flushes and group.finite and not keeps_normal(group, -1)


def _of_value_clip(case: Case, result: Any, terms: Terms) -> Iterator[Violation]:
    """Yield the violations of a value or weight clip that came back in the right form."""
    for (path, x), y in zip(walk(case.tree), leaves(result), strict=True):
        chosen = case.keywords.get("where", lambda _path, _leaf: True)(path, x)
        lower, upper = case.arguments if chosen else (None, None)
        if terms.flushes and among_subnormals(x, lower, upper):
            continue
        yield from _present([value_laws(x, lower, upper, y)])


def _of_norm_clip(callee: Callee, case: Case, terms: Terms, result: Any) -> Iterator[Violation]:
    """Yield the violations of a norm clip that came back in the right form."""
    before, after = leaves(case.tree), leaves(result)
    found = list(groups(case, before, after, terms))
    for group in found:
        yield from _present([law(group) for law in (FLUSHED_LAWS if flushed(group, terms) else GROUP_LAWS)])
    for power in POWERS:
        if not all(scales(group, power) and not group.at_boundary for group in found):
            continue
        tree = rebuild(case.tree, (scaled_by(x, power) for x in before))
        limit = math.ldexp(case.arguments[0], power)
        scaled = _again(callee, replace(case, tree=tree, arguments=(limit,)))
        pairs = zip(found, groups(case, before, leaves(scaled), terms), strict=True)
        yield from _present([scale(group, power, other.results) for group, other in pairs])


def _of_norm(callee: Callee, case: Case, terms: Terms, result: Any) -> Iterator[Violation]:
    """Yield the violations of a norm function: accuracy, whatever the order of the elements."""
    order = order_of(case)
    if case.operation == "global_norm" or case.keywords.get("axis") is None:
        yield from _of_scalar_norm(leaves(case.tree), order, result, terms)
        backwards = rebuild(case.tree, (x.reshape(-1)[::-1] for x in leaves(case.tree)))
        again = _again(callee, replace(case, tree=backwards))
        yield from _of_scalar_norm(leaves(case.tree), order, again, terms)
        return
    slices = split(case.tree, case.keywords["axis"])
    shape = np.zeros(case.tree.shape, dtype=bool).any(axis=case.keywords["axis"]).shape
    if not isinstance(result, np.ndarray) or result.shape != shape or result.dtype != terms.norm_dtype:
        yield Violation("form", f"norms are a {terms.norm_dtype} array of shape {shape}", got=_kind(result))
        return
    for part, norm in zip(slices, result.reshape(-1, 1), strict=True):
        yield from _accuracy([part], order, norm, terms)


def _of_scalar_norm(arrays: Sequence[Array], order: float, norm: Any, terms: Terms) -> Iterator[Violation]:
    """Yield the violations of one norm: its form and its accuracy."""
    dtype = terms.norm_dtype if arrays else "float64"  # a tree without leaves is of no library
    if not isinstance(norm, np.ndarray) or norm.shape != () or norm.dtype != dtype:
        yield Violation("form", f"a norm is a 0-d {dtype} array", got=_kind(norm))
    else:
        yield from _accuracy(arrays, order, norm, terms)


def _accuracy(arrays: Sequence[Array], order: float, norm: Array, terms: Terms) -> Iterator[Violation]:
    """Yield the violation of a norm's accuracy; a library that flushes is not asked about subnormals."""
    if not terms.flushes or not any(has_subnormals(x) for x in arrays):
        yield from _present([norm_accuracy(arrays, order, norm, terms.norm_ulps)])


def _kind(value: Any) -> str:
    """Return what a value is, for people to read."""
    return f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__


def order_of(case: Case) -> float:
    """Return the order of the norm that a case is about."""
    default = {**NORM_CLIPS, **NORMS}[case.operation]
    return float(case.keywords.get("ord", default))


def groups(
    case: Case, before: Sequence[Array], after: Sequence[Array], terms: Terms = NUMPY
) -> Iterator[Group]:
    """Yield the norm groups of a case: the whole tree, or the slices of its one array."""
    limit, order = float(case.arguments[0]), order_of(case)
    if terms.norm_dtype == "float32" and limit >= INFINITE_FLOAT32:
        limit = math.inf
    axis = case.keywords.get("axis")
    if axis is None:
        yield Group(tuple(before), tuple(after), limit, order, terms.slack)
        return
    for x, y in zip(split(before[0], axis), split(after[0], axis), strict=True):
        yield Group((x,), (y,), limit, order, terms.slack)


def split(x: Array, axis: int | tuple[int, ...]) -> list[Array]:
    """Return the slices of an array that share a norm when `axis` is reduced over, in C order."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    kept = moved.shape[: x.ndim - len(axes)]
    return [moved[index].reshape(-1) for index in np.ndindex(kept)]


def _present(found: Sequence[Violation | None]) -> list[Violation]:
    """Return the violations among the verdicts."""
    return [violation for violation in found if violation]
