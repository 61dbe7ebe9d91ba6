"""What came of a verification: findings, counts, and the file they are kept in."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

__all__ = [
    "LAWS",
    "LEVELS",
    "SCHEMA",
    "Count",
    "Finding",
    "Report",
    "ReportFile",
    "ReportFileError",
    "Skipped",
    "read",
    "report_of",
]

Level = Literal["rounded", "robust", "exact"]
Verdict = Literal["fail", "skip"]
LEVELS: Final[tuple[Level, ...]] = ("rounded", "robust", "exact")
SCHEMA: Final = "clipcore-report-1"
LAWS: Final[dict[str, str]] = {
    "formula": "every element is within 4 ulp of the formula, and what is clearly inside comes back equal",
    "bound": "the exact norm of the result is at most C, every element within its bounds",
    "identity": "what is within its limit comes back bit for bit",
    "tightness": "what is clipped keeps a norm of at least C(1 − 4u)",
    "direction": "every element is within 4 ulp of x·C/‖x‖, keeps its sign and does not grow",
    "idempotence": "clipping twice changes nothing",
    "scale": "multiplying x and C by a power of two multiplies the result by it",
    "norm": "the norm is the one before clipping, and accurate",
    "range": "no finite input overflows or underflows on the way",
    "form": "type, dtype, shape, containers and key order stay; the input is neither written nor shared",
    "edges": "every row of the edge table: zero, empty, NaN, inf, None, bad arguments",
    "call": "no exception, no hang, no crash",
}
"""Every law by its name, in the order of the tables."""


@dataclass(frozen=True)
class Finding:
    """One law that was broken, by the smallest call that shows it.

    Attributes
    ----------
    law : str
        A key of `LAWS`.
    level : {"rounded", "robust", "exact"}
        Level that asks for it.
    verdict : {"fail", "skip"}
        Whether it was broken, or could not be tried.
    message : str
        What is wrong, or why it was not tried, in a sentence.
    example : str
        Python code that makes the smallest failing call of a function named `fn`.
    expected, got : str
        What the law asks for, and what there is.
    ulps : float or None
        How far apart they are in ulp, where that makes sense.
    cases : int
        Number of cases that showed it.
    difference : str
        Name of the formula by which the result is right: a difference of definition. Empty where it is wrong
        by every known formula.

    See Also
    --------
    Report : Holds the findings of one verification.

    Examples
    --------
    >>> from clipcore.verify import verify
    >>> report = verify(lambda x, max_norm: x / 0.3, "clip_by_l2_norm", level="rounded", dtypes=["float32"])
    >>> finding = report.findings[0]
    >>> finding.law, finding.verdict
    ('formula', 'fail')
    """

    law: str
    level: Level
    verdict: Verdict
    message: str
    example: str = ""
    expected: str = ""
    got: str = ""
    ulps: float | None = None
    cases: int = 1
    difference: str = ""

    def __str__(self) -> str:
        lines = [f"{self.law} ({self.level}): {self.message}"]
        if self.expected or self.got:
            away = "" if self.ulps is None else f", {self.ulps:.3g} ulp away"
            lines.append(f"expected {self.expected or '—'}, got {self.got or '—'}{away}")
        if self.difference:
            lines.append(f"a difference of definition: right by the formula {self.difference!r}")
        return "\n".join([*lines, *self.example.splitlines()])


@dataclass
class Count:
    """How often a law was tried and broken.

    Attributes
    ----------
    tried, broken, differing : int
        Number of cases; of those that broke it; of the broken ones that are differences of definition.
    """

    tried: int = 0
    broken: int = 0
    differing: int = 0


@dataclass
class Report:
    """What is known of one function after it was verified.

    Attributes
    ----------
    subject, operation : str
        What was judged, and as which function of the contract.
    formula : str
        By which formula; `contract` or that of a framework.
    asked : {"rounded", "robust", "exact"}
        Highest level that was tried.
    seed, max_examples : int
        What the random cases came from, and how many there were for each level.
    findings : tuple of Finding
        The laws broken or not tried, the lowest level first.
    counts : dict
        A `Count` for every law that was tried.
    version : str
        Of the subject's library, if known.
    definition : str
        Name of the formula that the subject follows by its own documentation.
    own_formula : {"", "holds", "broken"}
        Whether it passes at level rounded by that formula; empty where that was not tried.

    See Also
    --------
    verify : Makes it.

    Examples
    --------
    >>> from clipcore import clip_by_value
    >>> from clipcore.verify import verify
    >>> report = verify(clip_by_value, "clip_by_value", dtypes=["float32"], max_examples=10)
    >>> print(report)
    clip_by_value as clip_by_value, formula 'contract', seed 0: passed at level 'exact'
    """

    subject: str
    operation: str
    formula: str
    asked: Level
    seed: int
    max_examples: int
    findings: tuple[Finding, ...] = ()
    counts: dict[str, Count] = field(default_factory=dict)
    version: str = ""
    definition: str = "contract"
    own_formula: Literal["", "holds", "broken"] = ""

    @property
    def passed(self) -> bool:
        """Whether nothing failed at or below the level asked."""
        return not any(finding.verdict == "fail" for finding in self.findings)

    @property
    def level(self) -> Level | None:
        """Highest level reached without a failure, `None` where even the lowest was missed."""
        reached: Level | None = None
        for level in LEVELS[: LEVELS.index(self.asked) + 1]:
            if any(finding.verdict == "fail" and finding.level == level for finding in self.findings):
                break
            reached = level
        return reached

    def __str__(self) -> str:
        verdict = f"passed at level {self.asked!r}" if self.passed else f"reached level {self.level!r}"
        head = f"{self.subject} as {self.operation}, formula {self.formula!r}, seed {self.seed}: {verdict}"
        return "\n\n".join([head, *map(str, self.findings)])


@dataclass(frozen=True)
class Skipped:
    """A subject that was not run, and why."""

    subject: str
    reason: str


@dataclass
class ReportFile:
    """The reports of one run in one environment.

    Attributes
    ----------
    date : str
        Day of the run, `YYYY-MM-DD`.
    environment : dict
        Versions of Python, the platform, NumPy and clipcore.
    reports : list of Report
        One for each subject and operation.
    skipped : list of Skipped
        What was not run.
    """

    date: str
    environment: dict[str, str]
    reports: list[Report]
    skipped: list[Skipped]

    def write(self, path: str | Path) -> None:
        """Write the file as JSON, the same bytes for the same content."""
        held = {
            "schema": SCHEMA,
            "date": self.date,
            "environment": self.environment,
            "reports": [
                {**dataclasses.asdict(report), "passed": report.passed, "level": report.level}
                for report in self.reports
            ],
            "skipped": [dataclasses.asdict(each) for each in self.skipped],
        }
        Path(path).write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class ReportFileError(ValueError):
    """A file is not a report; the message names it and says why."""


def read(path: str | Path) -> ReportFile:
    """Return what a file of reports holds.

    Parameters
    ----------
    path : str or Path
        A file that `clipcore verify --json` wrote.

    Returns
    -------
    ReportFile
        Its content.

    Raises
    ------
    ReportFileError
        Where it is missing, is no JSON, or holds something else.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReportFileError(f"{path}: cannot be read as a report: {error}") from error
    if not isinstance(held, dict) or held.get("schema") != SCHEMA:
        raise ReportFileError(
            f"{path}: not a report of schema {SCHEMA!r}; clipcore verify --json FILE writes one"
        )
    try:
        file = ReportFile(
            held["date"],
            held["environment"],
            [report_of(each) for each in held["reports"]],
            [Skipped(**each) for each in held["skipped"]],
        )
        _check(file)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ReportFileError(f"{path}: not all of it is a report of schema {SCHEMA!r}: {error!r}") from error
    return file


def report_of(held: dict[str, Any]) -> Report:
    """Return a report as it was written; what follows from the findings is not read."""
    kept = {key: value for key, value in held.items() if key not in ("passed", "level")}
    kept["findings"] = tuple(Finding(**each) for each in held["findings"])
    kept["counts"] = {law: Count(**count) for law, count in held["counts"].items()}
    return Report(**kept)


def _check(made: Any) -> None:
    """Raise `TypeError` where a field of a dataclass, or of one in it, is not of its type."""
    for name, hint in get_type_hints(type(made)).items():
        if not _is(getattr(made, name), hint):
            raise TypeError(f"{type(made).__name__}.{name} is {getattr(made, name)!r:.80}")


def _is(value: Any, hint: Any) -> bool:
    """Return whether a value is of the type that an annotation of this file names."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in parts
    if origin in (list, tuple):
        return isinstance(value, origin) and all(_is(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            isinstance(k, str) and _is(v, parts[1]) for k, v in value.items()
        )
    if parts:  # a union
        return any(_is(value, part) for part in parts)
    if dataclasses.is_dataclass(value):
        _check(value)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
