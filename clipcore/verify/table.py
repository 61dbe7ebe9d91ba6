"""Reports for people: a table of subject by law, and the findings with their examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from clipcore.verify.report import LAWS, Count, Finding, Report, Skipped

__all__ = ["findings", "listing", "table"]


NARROW: Final = {"formula": "fmla"}  # where its first four letters are another law's
SHORT: Final = {"identity": "ident.", "tightness": "tight.", "direction": "direct.", "idempotence": "idemp."}


def table(reports: Sequence[Report], *, narrow: bool = False) -> Table:
    """Return the table of subject by law: ✓ holds, ✗ broken by so many cases, ≠ differs by definition.

    Parameters
    ----------
    reports : sequence of Report
        A row each.
    narrow : bool
        Whether to leave out the counts and to cut the names of the laws.
    """
    drawn = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for head in ("subject", "as", "level"):
        drawn.add_column(head, no_wrap=True)
    laws = [law for law in LAWS if any(law in report.counts for report in reports)]
    for law in laws:
        drawn.add_column(
            NARROW.get(law, law[:4]) if narrow else SHORT.get(law, law), justify="right", no_wrap=True
        )
    previous = ""
    for report in reports:
        level = Text(
            report.level or "none", "green" if report.passed else "yellow" if report.level else "red"
        )
        cells = [_cell(report.counts.get(law), narrow=narrow) for law in laws]
        name = report.subject if report.subject != previous else ""
        if report.own_formula:
            level.append(f" ({report.definition} {'✓' if report.own_formula == 'holds' else '✗'})", "dim")
        drawn.add_row(Text(name), Text(report.operation, "dim"), level, *cells)
        previous = report.subject
    return drawn


def _cell(count: Count | None, *, narrow: bool) -> Text:
    """Return what became of one law."""
    if count is None or not count.tried:
        return Text("–", "dim")
    if not count.broken:
        return Text("✓", "green")
    wrong = count.broken - count.differing
    mark, style = ("✗", "bold red") if wrong else ("≠", "yellow")
    return Text(mark if narrow else f"{mark} {wrong or count.differing}", style)


def findings(report: Report) -> Iterator[Text]:
    """Yield the findings of one report, each with its example."""
    for finding in report.findings:
        yield _skipped(finding) if finding.verdict == "skip" else _failed(finding)


def _skipped(finding: Finding) -> Text:
    """Return a finding that says what was not tried."""
    return Text.assemble(("  – ", "dim"), (finding.message, "dim"))


def _failed(finding: Finding) -> Text:
    """Return a finding with its evidence and its example."""
    mark = ("  ≠ ", "yellow") if finding.difference else ("  ✗ ", "bold red")
    cases = "1 case" if finding.cases == 1 else f"{finding.cases:,} cases"
    text = Text.assemble(mark, (finding.law, "bold"), f" ({finding.level}, {cases}): {finding.message}\n")
    if finding.expected or finding.got:
        away = "" if finding.ulps is None else f", {finding.ulps:.3g} ulp away"
        text.append(f"      expected {finding.expected or '—'}, got {finding.got or '—'}{away}\n")
    if finding.difference:
        text.append(
            f"      right by the formula {finding.difference!r}: a difference of definition\n", "yellow"
        )
    for line in finding.example.splitlines():
        text.append(f"      {line}\n", "cyan")
    return text


def listing(rows: Sequence[tuple[str, str, str, str]], skipped: Sequence[Skipped]) -> Table:
    """Return the table of ready-made subjects: name, operation, version or what is missing, and a note."""
    drawn = Table(box=None, padding=(0, 1), header_style="bold")
    for head in ("subject", "as", "version", "what is called"):
        drawn.add_column(head, no_wrap=head != "what is called")
    for row in rows:
        drawn.add_row(*map(Text, row))
    for each in skipped:
        drawn.add_row(Text(each.subject, "dim"), "", "–", Text(each.reason, "dim"))
    return drawn
