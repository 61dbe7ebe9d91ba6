"""What the contract does not allow in the answers of ranks, put together as one tree: exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from ranks_cases import Answer, Array, Case, array_of

from clipcore.verify.formats import format_of, is_finite
from clipcore.verify.laws import (
    Group,
    bound,
    direction,
    finite_range,
    identity,
    nonfinite,
    norm_accuracy,
    tightness,
)


def flaws(case: Case, answers: Sequence[Answer], ulps: int) -> Iterator[str]:
    """Say what is wrong with what the ranks have after a case.

    Parameters
    ----------
    case : Case
    answers : sequence of dict
        Of every rank, as `ranks_cases.answer` returns them.
    ulps : int
        How far off the norm of float64 leaves may be: 1 on NumPy, 4 elsewhere.
    """
    if any("error" in answer for answer in answers):
        if case.nonfinite != "raise":
            yield f"{case.name}: raised {answers}"
        return
    for text in (*_between_ranks(case, answers), *_of_the_whole(case, answers, ulps)):
        yield f"{case.name}, ord {case.order}, {case.nonfinite}: {text}"


def _between_ranks(case: Case, answers: Sequence[Answer]) -> Iterator[str]:
    """Say where ranks differ, or one clips its result again."""
    norms = [str(answer["norm"]) for answer in answers]
    if len(set(norms)) > 1:
        yield f"ranks differ in the norm: {norms}"
    copies = [str(answers[rank]["once"][len(case.own[rank]) :]) for rank in case.holders]
    if case.copies and len(set(copies)) > 1:
        yield f"ranks differ in a copy: {copies}"
    if is_finite(case.whole) and any(answer["once"] != answer["again"] for answer in answers):
        yield "clipping again changes the result"


def _of_the_whole(case: Case, answers: Sequence[Answer], ulps: int) -> Iterator[str]:
    """Say what the contract does not allow in the norm and in the tree that the ranks hold together."""
    norm = array_of(answers[0]["norm"])
    results = [
        array_of(bits)
        for own, each in zip(case.own, answers, strict=True)
        for bits in each["once"][: len(own)]
    ]
    if case.copies:
        first = case.holders[0]
        results += [array_of(bits) for bits in answers[first]["once"][len(case.own[first]) :]]
    forms = [(x.dtype, x.shape) for x in case.whole]
    if [(x.dtype, x.shape) for x in results] != forms:
        yield f"another form: {results}"
        return
    group = Group(tuple(case.whole), tuple(results), case.limit, case.order, epsilon(case.whole, norm, ulps))
    laws = (finite_range, bound, identity, tightness, direction)
    policy = "zero" if case.nonfinite == "zero" else "propagate"
    for violation in (
        norm_accuracy(case.whole, case.order, norm, ulps),
        nonfinite(group, policy),
        *(law(group) for law in laws),
    ):
        if violation:
            yield str(violation)


def epsilon(leaves: Sequence[Array], norm: Array, ulps: int) -> Fraction:
    """Return the contract's bound of the norm's relative error."""
    if norm.dtype == np.float32:
        return 4 * Fraction(2) ** -23
    all_wide = all(format_of(x.dtype).bits == 64 for x in leaves)
    return ulps * Fraction(2) ** -52 if all_wide else Fraction(2) ** -44
