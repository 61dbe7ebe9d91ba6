"""A verification that can be watched: one function, all its cases, a report."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from clipcore.verify.calling import Observation
from clipcore.verify.form import leaves
from clipcore.verify.formulas import FORMULAS, formula_named
from clipcore.verify.judge import NORM_CLIPS, Case, Untried, outcome
from clipcore.verify.laws import Violation
from clipcore.verify.report import LEVELS, Count, Finding, Level, Report
from clipcore.verify.shrink import elements, shrink
from clipcore.verify.snippets import snippet
from clipcore.verify.subject import LOSSES, Callee, Lost, Subject
from clipcore.verify.tolerant import differs, follows, leaves_alone
from clipcore.verify.trials import DTYPES, OPERATIONS, Plan, Trial, dtypes_of, of_own

__all__ = ["Verification"]

GUESSED: Final = ("torch", "optax", "tensorflow", "keras", "paddle", "mxnet", "jax-privacy")
"""Formulas that may explain a difference where the subject says nothing of its own."""


class _Watched:
    """A subject, and whether it has returned a norm besides the tree."""

    def __init__(self, callee: Callee) -> None:
        self._callee, self.keywords, self.measures = callee, callee.keywords, False

    def observe(self, tree: Any, arguments: Sequence[Any] = (), keywords: Any = None) -> Observation:
        """Call it once."""
        seen = self._callee.observe(tree, arguments, keywords)
        self.measures |= isinstance(tree, list) and isinstance(seen.result, tuple) and len(seen.result) == 2
        return seen


@dataclass
class _Broken:
    """What is known of one law that was broken: how often, and by which call at the least."""

    trial: Trial
    violation: Violation
    difference: str
    cases: int = 0


class Verification:
    """A verification that can be watched: `steps` judges case after case, `report` says what was found.

    Parameters
    ----------
    subject : Subject
        What is judged.
    operation, level, formula, dtypes, seed, max_examples
        As in `verify`.
    definition : str
        Name of the formula that the subject follows by its own documentation; where it is given, a difference
        of definition is looked for in that formula only.
    own : iterable of Case
        Further cases, judged at the level asked.
    """

    def __init__(
        self,
        subject: Subject,
        operation: str,
        *,
        level: str = "exact",
        formula: str = "contract",
        dtypes: Iterable[Any] | None = None,
        seed: int = 0,
        max_examples: int = 200,
        definition: str = "",
        own: Iterable[Case] = (),
    ) -> None:
        if not isinstance(subject.function, str) and not callable(subject.function):
            raise TypeError(f"verify: fn={subject.function!r} cannot be called; give a function or a Subject")
        _check("operation", operation, OPERATIONS)
        _check("level", level, LEVELS)
        for name, value in (("seed", seed), ("max_examples", max_examples)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"verify: {name}={value!r} is not an integer from 0 upwards")
        self.subject, self.operation, self.seed, self.max_examples = subject, operation, seed, max_examples
        self.formula = formula_named(formula)
        self.level = cast(Level, level if formula == "contract" else "rounded")
        self.definition = definition
        self._own = [of_own(case, self.level, self.formula, subject.library_name) for case in own]
        self._dtypes = DTYPES if dtypes is None else _dtype_names(dtypes)
        tried = dtypes_of(operation, self.level)
        if not set(self._dtypes) & set(tried):
            raise ValueError(
                f"verify: dtypes={list(self._dtypes)} holds none that {operation} is tried with at level "
                f"{self.level!r}: {', '.join(tried)}"
            )
        others = [definition] if definition else GUESSED
        self._others = [FORMULAS[name] for name in others if name != "contract"]
        self._broken: dict[tuple[str, ...], _Broken] = {}
        self._counts: dict[str, Count] = {}
        self._skipped: dict[str, str] = {}
        self._findings: list[Finding] = []

    def steps(self) -> Iterator[tuple[int, int]]:
        """Judge one case after another, then make the findings.

        Yields
        ------
        tuple of int
            How many steps are done, and how many are known of.
        """
        with self.subject.opened() as opened:
            callee, done = _Watched(opened), 0
            try:
                for done, known in self._judged_levels(callee):
                    yield done, known
            except Lost as reason:
                self._skipped["lost"] = str(reason)
            if self.operation == "clip_by_global_norm" and not callee.measures:
                self._counts.pop("norm", None)  # it may leave the norm away
            for key, broken in self._broken.items():
                lower = [(key[0], level, "", key[3]) for level in LEVELS[: LEVELS.index(broken.trial.level)]]
                if key[0] not in ("form", "call") or not any(each in self._broken for each in lower):
                    self._findings.append(self._finding(callee, broken))
                    yield done, done

    def _judged_levels(self, callee: Callee) -> Iterator[tuple[int, int]]:
        """Judge every case of every level, and yield as `steps` does."""
        plan = Plan(
            self.operation,
            self.formula,
            self.subject.library_name,
            callee.keywords,
            self._dtypes,
            self.seed,
            self.max_examples,
            self._skipped,
        )
        done = 0
        for level in LEVELS[: LEVELS.index(self.level) + 1]:
            trials = list(plan.trials(level))
            called = 0
            for index, trial in enumerate(trials):
                called += self._try(callee, trial)
                done += 1
                yield done, done + len(trials) - index - 1
            if trials and not called:  # it cannot be called like this at all
                return
        for trial in self._own:
            self._try(callee, trial)
            done += 1
            yield done, done

    def report(self, name: str = "", version: str = "") -> Report:
        """Return the report of what `steps` has found.

        Parameters
        ----------
        name, version : str
            What the subject is called, by default by its function, and the version of its library.
        """
        order = sorted(
            self._findings, key=lambda each: (LEVELS.index(each.level), bool(each.difference), each.law)
        )
        skipped = (Finding("call", "rounded", "skip", reason) for _, reason in sorted(self._skipped.items()))
        return Report(
            name or _name_of(self.subject),
            self.operation,
            self.formula.name,
            self.level,
            self.seed,
            self.max_examples,
            (*order, *skipped),
            dict(sorted(self._counts.items())),
            version,
            self.definition or self.formula.name,
        )

    def failed(self, level: str) -> bool:
        """Return whether anything has failed so far at a level."""
        return any(known.trial.level == level for known in self._broken.values())

    def _try(self, callee: Callee, trial: Trial) -> bool:
        """Judge one case and count what it shows; return whether the call gave anything."""
        try:
            found = _judged(trial, callee, trial.case)
        except Untried as reason:
            self._skipped.setdefault(str(reason), f"not tried, as the subject does not offer it: {reason}")
            return True
        judged = trial.laws if not any(violation.last for violation in found) else {"form", "call"}
        for law in judged | {violation.law for violation in found}:
            self._counts.setdefault(law, Count()).tried += 1
        differences = self._differences(callee, trial.case, found)
        for violation, difference in zip(found, differences, strict=True):
            key = (violation.law, trial.level, trial.row if violation.law == "edges" else "", difference)
            known = self._broken.setdefault(key, _Broken(trial, violation, difference))
            known.cases += 1
            if _size(trial.case) < _size(known.trial.case):
                known.trial, known.violation = trial, violation
        for law in {violation.law for violation in found}:
            self._counts[law].broken += 1
            of_law = [bool(name) for each, name in zip(found, differences, strict=True) if each.law == law]
            self._counts[law].differing += all(of_law)
        return not any(violation.law == "call" for violation in found)

    def _differences(self, callee: Callee, case: Case, found: list[Violation]) -> list[str]:
        """Return for each violation the formula by which the result is right all the same, if any."""
        of_numbers = [violation.law not in ("call", "form", "norm") for violation in found]
        if not any(of_numbers) or self.formula.name != "contract" or self.operation not in NORM_CLIPS:
            return [""] * len(found)
        try:
            made = outcome(callee, case)
            if not made.usable:
                return [""] * len(found)
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # a complex limit is no number
                other = next((each for each in self._others if follows(case, made.result, each)), None)
                by_other = other is not None and not follows(case, made.result, FORMULAS["contract"])
                changed = other is not None and not leaves_alone(case, other) and differs(case, made.result)
        except Exception:  # no formula speaks of such arguments
            return [""] * len(found)
        name = other.name if other else ""
        return [
            name if numbers and (changed if violation.law == "identity" else by_other) else ""
            for violation, numbers in zip(found, of_numbers, strict=True)
        ]

    def _finding(self, callee: Callee, known: _Broken) -> Finding:
        """Return the finding of one law, its case made as small as can be."""

        def same(case: Case) -> Violation | None:
            try:
                found = _judged(known.trial, callee, case)
            except (Untried, Lost):
                return None
            pairs = zip(found, self._differences(callee, case, found), strict=True)
            wanted = known.violation.law, known.difference
            return next((each for each, name in pairs if (each.law, name) == wanted), None)

        def fails(case: Case) -> bool:
            return known.trial.allows(case) and same(case) is not None

        case = known.trial.case
        if not known.trial.row and known.violation.got not in LOSSES:
            case = shrink(case, fails)
        violation = same(case) or known.violation
        return Finding(
            violation.law,
            known.trial.level,
            "fail",
            violation.message + (f", at {violation.where}" if violation.where else ""),
            snippet(case),
            _text(violation.expected),
            _text(violation.got),
            violation.ulps,
            known.cases,
            known.difference,
        )


def _judged(trial: Trial, callee: Callee, case: Case) -> list[Violation]:
    """Return the violations of a case; a result that no judge can read is one."""
    try:
        return trial.judged(callee, case)
    except (Untried, Lost):
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's result makes of arithmetic
        return [Violation("form", f"the result cannot be read: {type(error).__name__}: {error}")]


def _check(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise `ValueError` that lists what is known."""
    if value not in known:
        raise ValueError(f"verify: {name}={value!r} is not known; known are {', '.join(known)}")


def _dtype_names(dtypes: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of dtypes, of which the kit must know; `ValueError` for any other."""
    if isinstance(dtypes, str):
        raise ValueError(f"verify: dtypes={dtypes!r} is one name; give a list, [{dtypes!r}]")
    names = [str(getattr(each, "name", getattr(each, "__name__", each))) for each in dtypes]
    for name in names:
        _check("dtypes", name, DTYPES)
    return tuple(names)


def _name_of(subject: Subject) -> str:
    """Return what a function is called."""
    function = subject.function
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)


def _size(case: Case) -> tuple[bool, int, int]:
    """Return what makes a case small to a reader: real numbers, few elements, few words."""
    return any(np.iscomplexobj(x) for x in leaves(case.tree)), elements(case), len(repr(case.arguments))


def _text(value: Any) -> str:
    """Return evidence as text."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, type):
        return value.__name__
    return repr(value)
