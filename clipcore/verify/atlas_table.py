"""What the reports of several environments say together: one table, law by implementation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from clipcore.verify.report import LAWS, Count, Finding, Report, ReportFile, Skipped

__all__ = ["NO_LEVEL", "Atlas", "Cell", "Environment", "Row", "counted", "merge"]

State = Literal["holds", "breaks", "differs", "untried"]
NO_LEVEL: Final = "none"
_SYMBOLS: Final[dict[State, str]] = {"holds": "✓", "breaks": "✗", "differs": "≠", "untried": "—"}
_FIRST: Final = "clipcore"  # the reference goes before the libraries in alphabetical order


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural but for 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Cell:
    """What came of one law for one implementation.

    Attributes
    ----------
    count : Count
        How often the law was tried and broken.
    findings : tuple of Finding
        Where it was broken, then why some of it was not tried; the lowest level first.
    """

    count: Count
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> int:
        """Number of cases that broke the law and are right by no known formula."""
        return self.count.broken - self.count.differing

    @property
    def state(self) -> State:
        """Whether the law holds, breaks, differs by definition alone, or was not tried."""
        if self.count.broken:
            return "breaks" if self.wrong else "differs"
        return "holds" if self.count.tried else "untried"

    @property
    def mark(self) -> str:
        """Symbol of the state, with the number of cases where there are any."""
        number = self.wrong or self.count.broken
        return f"{_SYMBOLS[self.state]} {number:,}" if number else _SYMBOLS[self.state]

    @property
    def sentence(self) -> str:
        """What the mark says, in words."""
        tried = counted(self.count.tried, "case")
        if self.state == "breaks":
            also = f", and {self.count.differing:,} differ by definition" if self.count.differing else ""
            return f"breaks in {self.wrong:,} of {tried}{also}"
        if self.state == "differs":
            return f"differs by definition in {self.count.broken:,} of {tried}"
        return f"holds in {tried}" if self.count.tried else "not tried"


@dataclass(frozen=True)
class Row:
    """One implementation as one function of the contract.

    Attributes
    ----------
    report : Report
        The newest report of it.
    environment : int
        Number of the file it comes from, the first being 1.
    """

    report: Report
    environment: int

    @property
    def library(self) -> str:
        """First part of the subject's name."""
        return self.report.subject.split(".", 1)[0]

    @property
    def level(self) -> str:
        """Highest level reached, `none` where even the lowest was missed."""
        return self.report.level or NO_LEVEL

    def cell(self, law: str) -> Cell:
        """Return what came of one law."""
        findings = [finding for finding in self.report.findings if finding.law == law]
        fails = [finding for finding in findings if finding.verdict == "fail"]
        count = self.report.counts.get(law)
        if count is None:  # a failure without a count must not read as "not tried"
            broken = sum(finding.cases for finding in fails)
            count = Count(broken, broken, sum(finding.cases for finding in fails if finding.difference))
        fails.sort(key=lambda finding: bool(finding.difference))
        return Cell(count, (*fails, *(finding for finding in findings if finding.verdict == "skip")))


@dataclass(frozen=True)
class Environment:
    """Where and when one file was made.

    Attributes
    ----------
    date : str
        Day of the run.
    versions : dict
        Of the environment, then of the libraries that were judged in it.
    runs : tuple of str
        Every seed with its number of examples.
    rows : int
        Number of rows of the atlas that come from it.
    """

    date: str
    versions: dict[str, str]
    runs: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Atlas:
    """Everything that several files say together.

    Attributes
    ----------
    rows : tuple of Row
        Every subject and operation once, those of one library together.
    laws : tuple of str
        The laws that anybody tried, in the order of `LAWS`.
    environments : tuple of Environment
        One for each file, in the order given.
    skipped : tuple of Skipped
        The subjects that no file ran.
    """

    rows: tuple[Row, ...]
    laws: tuple[str, ...]
    environments: tuple[Environment, ...]
    skipped: tuple[Skipped, ...]


def merge(files: Sequence[ReportFile]) -> Atlas:
    """Return what several files say together.

    Parameters
    ----------
    files : sequence of ReportFile
        Of any environments.  Where several hold the same subject and operation, the newest date wins, and of
        the same date the file given last.

    Returns
    -------
    Atlas
        The same for the same files.
    """
    kept: dict[tuple[str, str], Row] = {}
    skipped: dict[str, Skipped] = {}
    for number, file in sorted(enumerate(files, 1), key=lambda numbered: numbered[1].date):
        kept |= {(report.subject, report.operation): Row(report, number) for report in file.reports}
        skipped |= {each.subject: each for each in file.skipped}
    rows = tuple(sorted(kept.values(), key=_place))
    ran = {row.report.subject for row in rows}
    return Atlas(
        rows,
        tuple(law for law in LAWS if any(row.cell(law).state != "untried" for row in rows)),
        tuple(_environment(file, number, rows) for number, file in enumerate(files, 1)),
        tuple(skipped[subject] for subject in sorted(skipped) if subject not in ran),
    )


def _place(row: Row) -> tuple[Any, ...]:
    """Return what the rows are sorted by."""
    subject = row.report.subject
    return row.library != _FIRST, row.library.casefold(), subject.casefold(), subject, row.report.operation


def _environment(file: ReportFile, number: int, rows: Iterable[Row]) -> Environment:
    """Return what is to be said of one file."""
    versions = dict(file.environment)
    for report in sorted(file.reports, key=lambda report: report.subject):
        if report.version:
            versions.setdefault(report.subject.split(".", 1)[0], report.version)
    runs = sorted({(report.seed, report.max_examples) for report in file.reports})
    return Environment(
        file.date,
        versions,
        tuple(f"seed {seed}, {examples:,} random examples a level" for seed, examples in runs),
        sum(row.environment == number for row in rows),
    )
