"""The atlas: which law holds for which implementation, as a web page and as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from importlib import resources
from typing import Any, Final

from clipcore.verify.atlas_table import NO_LEVEL, Atlas, Cell, Environment, Row, counted, merge
from clipcore.verify.report import LAWS, LEVELS, Finding, Report, ReportFile, Skipped

__all__ = ["markdown", "merge", "page"]

_METER: Final = '<span class="meter" aria-hidden="true"></span>'


def page(files: Sequence[ReportFile]) -> str:
    """Return the atlas as one HTML page that needs nothing else.

    Parameters
    ----------
    files : sequence of ReportFile
        As for `merge`.

    Returns
    -------
    str
        The page; the same for the same files.
    """
    atlas = merge(files)
    parts = {
        "summary": _summary(atlas),
        "libraries": _options(row.library for row in atlas.rows),
        "operations": _options(row.report.operation for row in atlas.rows),
        "count": str(len(atlas.laws)),
        "heads": "".join(map(_head, atlas.laws)),
        "rows": "\n".join(_row(atlas, index) for index in range(len(atlas.rows))),
        "laws": "".join(map(_law, atlas.laws)),
        "environments": "".join(map(_note, atlas.environments, range(1, len(files) + 1))),
        "skipped": _skipped(atlas.skipped),
        "data": _data(atlas),
    }
    template = resources.files(__package__).joinpath("atlas_page.html").read_text("utf-8")
    # in one pass: what a report says is never taken for a slot of the template
    filled = re.sub(r"@@([a-z]+)@@", lambda slot: parts[slot[1]], template)
    return _writable(filled)


def _summary(atlas: Atlas) -> str:
    """Return how many implementations there are, and how many reach each level."""
    reached = [row.level for row in atlas.rows]
    libraries = len({row.library for row in atlas.rows})
    of = f"{libraries} {'library' if libraries == 1 else 'libraries'}"
    said = f"{'implementation' if len(reached) == 1 else 'implementations'} of {of}"
    total = f"<div><dt>{said}</dt><dd>{len(reached)}</dd></div>"
    levels, bar = "", ""
    for level in (*reversed(LEVELS), NO_LEVEL):
        number = reached.count(level)
        levels += f'<div class="{level}"><dt>{_METER}{level}</dt><dd>{number}</dd></div>'
        bar += f'<i class="{level}" style="--n:{number}"></i>' if number else ""
    return (
        f'<dl class="total">{total}</dl>\n<dl class="levels">{levels}</dl>\n'
        f'<div class="bar" aria-hidden="true">{bar}</div>'
    )


def _options(names: Iterable[str]) -> str:
    """Return the options of a filter."""
    return "".join(f"<option>{escape(name)}</option>" for name in sorted(set(names), key=str.casefold))


def _head(law: str) -> str:
    """Return the head of a law's column."""
    return (
        f'<th scope="col" class="law" title="{escape(LAWS[law])}">'
        f'<button type="button" data-key="{escape(law)}"><span>{escape(law)}</span></button></th>'
    )


def _law(law: str) -> str:
    """Return one law as an item of the list."""
    return f"<div><dt>{escape(law)}</dt><dd>{escape(LAWS[law])}</dd></div>"


def _row(atlas: Atlas, index: int) -> str:
    """Return one row of the table."""
    row, report = atlas.rows[index], atlas.rows[index].report
    first = not index or atlas.rows[index - 1].library != row.library
    by = "" if report.formula == "contract" else f"<small>by the formula {escape(report.formula)}</small>"
    short = "<small>no more was asked</small>" if row.level == report.asked != LEVELS[-1] else _own(report)
    mark = f'<sup><a href="#environment-{row.environment}">{row.environment}</a></sup>'
    version = f" <span>{escape(report.version)}</span>" if report.version else ""
    cells = "".join(_cell(law, row.cell(law)) for law in atlas.laws)
    return (
        f'<tr data-row="{index}"{" class=first" if first else ""}>'
        f'<th scope="row"><code>{_breakable(report.subject)}</code>'
        f'<small class="as">as {_breakable(report.operation)}{version}</small></th>'
        f'<td class="operation"><code>{_breakable(report.operation)}</code>{by}</td>'
        f'<td class="version">{escape(report.version) or "—"}{mark}</td>'
        f'<td class="level {row.level}">{_METER}{row.level}'
        f"{short}</td>{cells}</tr>"
    )


def _own(report: Report) -> str:
    """Return whether a subject keeps the formula that it documents, where that is not the contract's."""
    if not report.own_formula:
        return ""
    mark = "✓" if report.own_formula == "holds" else "✗"
    return f"<small>own formula {mark}</small>"


def _cell(law: str, cell: Cell) -> str:
    """Return one cell of a row."""
    share = cell.count.broken / cell.count.tried if cell.count.tried else 0
    bar = f' style="--share:{share:.3f}"' if share else ""
    return (
        f'<td class="law"><button type="button" class="{cell.state}" data-law="{escape(law)}"'
        f' aria-label="{escape(law)} {cell.sentence}"{bar}>{cell.mark}</button></td>'
    )


def _breakable(name: str) -> str:
    """Return a name that a narrow column may break after a dot or an underscore."""
    return re.sub(r"(?<=[._])(?=\w)", "<wbr>", escape(name))


def _note(environment: Environment, number: int) -> str:
    """Return one environment as an item of the list."""
    held = environment.versions.items()
    versions = "".join(f"<span><b>{escape(name)}</b> {escape(version)}</span>" for name, version in held)
    rows = counted(environment.rows, "row") if environment.rows else "no row: newer reports replace it"
    said = "; ".join([rows, *environment.runs])
    return (
        f'<li id="environment-{number}"><time>{escape(environment.date)}</time> '
        f'<span class="versions">{versions}</span> <small>{escape(said)}</small></li>'
    )


def _skipped(skipped: Sequence[Skipped]) -> str:
    """Return the section of what no file ran."""
    items = "".join(
        f"<div><dt><code>{_breakable(each.subject)}</code></dt><dd>{escape(each.reason)}</dd></div>"
        for each in skipped
    )
    return f'<section><h2>Not run</h2><dl class="skipped">{items}</dl></section>' if items else ""


def _data(atlas: Atlas) -> str:
    """Return what the page's script reads, as JSON in which no tag can begin."""
    held = {
        "laws": {law: LAWS[law] for law in atlas.laws},
        "environments": [asdict(each) for each in atlas.environments],
        "rows": [_held(row, atlas.laws) for row in atlas.rows],
    }
    return json.dumps(held, separators=(",", ":")).replace("<", "\\u003c")


def _held(row: Row, laws: Iterable[str]) -> dict[str, Any]:
    """Return one row as the script reads it."""
    report = row.report
    return {
        "subject": report.subject,
        "operation": report.operation,
        "library": row.library,
        "version": report.version,
        "level": row.level,
        "formula": report.formula,
        "definition": report.definition,
        "environment": row.environment,
        "cells": {
            law: {
                "state": cell.state,
                "sentence": cell.sentence,
                "wrong": cell.wrong,
                "differing": cell.count.differing,
                "findings": [{**asdict(finding), "ulps": _ulps(finding)} for finding in cell.findings],
            }
            for law, cell in ((law, row.cell(law)) for law in laws)
        },
    }


def _ulps(finding: Finding) -> str:
    """Return a distance as text: JSON has no infinity."""
    return "" if finding.ulps is None else f"{finding.ulps:.3g}"


def markdown(files: Sequence[ReportFile]) -> str:
    """Return the atlas as GitHub flavoured Markdown.

    Parameters
    ----------
    files : sequence of ReportFile
        As for `merge`.

    Returns
    -------
    str
        The table, the findings of every row, the environments and what no file ran.
    """
    atlas = merge(files)
    heads = ["implementation", "operation", "version", "level", *atlas.laws]
    lines = [
        "# The atlas",
        "",
        "Implementations of clipping by the laws that they keep, judged in exact arithmetic.",
        "",
    ]
    lines += [_line(heads), _line(["---"] * 4 + ["---:"] * len(atlas.laws))]
    for row in atlas.rows:
        report = row.report
        version = f"{_prose(report.version) or '—'} ({row.environment})"
        marks = [row.cell(law).mark for law in atlas.laws]
        names = [_code(name).replace("|", "\\|") for name in (report.subject, report.operation)]
        own = {"holds": ", own formula ✓", "broken": ", own formula ✗", "": ""}[report.own_formula]
        lines.append(_line([*names, version, row.level + own, *marks]))
    legend = "✓ holds in all cases tried, ✗ breaks in so many, ≠ differs by definition alone, — not tried."
    lines += ["", f"{legend} The number after a version is that of the environment.", ""]
    lines += [line for row in atlas.rows for line in _findings(row, atlas.laws)]
    lines += ["## Environments", ""]
    for number, environment in enumerate(atlas.environments, 1):
        versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
        said = "; ".join([environment.date, versions, *environment.runs])
        lines.append(f"{number}. {_prose(said)}")
    if atlas.skipped:
        lines += ["", "## Not run", ""]
        lines += [f"- {_code(each.subject)}: {_prose(each.reason)}" for each in atlas.skipped]
    return _writable("\n".join(lines) + "\n")


def _findings(row: Row, laws: Iterable[str]) -> list[str]:
    """Return the lines on one row: every law broken or not tried, with its shortest example."""
    findings = [(law, row.cell(law).findings) for law in laws if row.cell(law).findings]
    if not findings:
        return []
    lines = [f"### {_code(row.report.subject)} as {_code(row.report.operation)}", ""]
    for law, found in findings:
        examples = [finding for finding in found if finding.example]
        shown = min(examples, key=lambda finding: len(finding.example), default=None)
        for finding in found:
            lines.append(f"- **{_prose(law)}** ({_prose(finding.level)}): {_prose(_told(finding))}")
            if finding is shown:
                fence = _fence(finding.example, 3)
                code = [f"{fence}python", *finding.example.splitlines(), fence]
                lines += ["", *(f"  {line}".rstrip() for line in code), ""]
    return lines if lines[-1] == "" else [*lines, ""]


def _told(finding: Finding) -> str:
    """Return what was found, with the evidence, in one line."""
    if finding.verdict == "skip":
        return f"not tried: {finding.message}"
    told = finding.message
    if finding.expected or finding.got:
        away = f", {_ulps(finding)} ulp away" if finding.ulps is not None else ""
        told += f": expected {finding.expected or '—'}, got {finding.got or '—'}{away}"
    by = f"; right by the formula {finding.difference}" if finding.difference else ""
    return f"{told} ({counted(finding.cases, 'case')}{by})"


def _line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def _prose(text: str) -> str:
    """Return a text as one line of Markdown that shows just that text."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return a name as code, in one line."""
    fence = _fence(text, 1)
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _fence(text: str, least: int) -> str:
    """Return more backticks than the text has in a row."""
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", text)), 0)


def _writable(text: str) -> str:
    """Return a text without the halves of characters that JSON lets pass and UTF-8 does not."""
    return text.encode("utf-8", "replace").decode("utf-8")
