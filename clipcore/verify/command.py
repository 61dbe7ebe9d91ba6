"""The command `clipcore verify`: which subjects, run side by side, shown as a table, kept as files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from clipcore.verify.files import InputFileError, load
from clipcore.verify.formulas import FORMULAS
from clipcore.verify.report import LEVELS, Report, ReportFile, Skipped
from clipcore.verify.running import Job, environment, run, today
from clipcore.verify.subjects import ReadyMade, missing, ready_made, version_of
from clipcore.verify.trials import DTYPES, OPERATIONS

__all__ = ["HOLDS", "INTERRUPTED", "USAGE", "UsageError", "add_arguments", "verify_command"]

HOLDS, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 130
OWN: Final = "clipcore"
WIDE: Final = 140  # columns of a terminal that show counts and whole names
UNCUT: Final = 200  # columns of a file or a pipe, where nothing needs to be cut


class UsageError(Exception):
    """The command was called wrongly; the message says how to call it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipcore verify` to a parser."""
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="a ready-made subject or library (see --list), or module:function with --operation; "
        "by default everything that is installed",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the ready-made subjects, and what is missing"
    )
    parser.add_argument(
        "--operation", choices=OPERATIONS, metavar="NAME", help=f"one of {', '.join(OPERATIONS)}"
    )
    parser.add_argument("--level", choices=LEVELS, default="exact", help="what to ask (default: %(default)s)")
    parser.add_argument(
        "--formula",
        choices=FORMULAS,
        default="contract",
        metavar="NAME",
        help=f"the definition to judge by (default: %(default)s): {', '.join(FORMULAS)}",
    )
    parser.add_argument(
        "--dtype", action="append", choices=DTYPES, metavar="NAME", help="only this dtype; may be given again"
    )
    parser.add_argument(
        "--examples",
        type=_at_least(0),
        default=200,
        metavar="N",
        help="random cases for each level, besides the aimed ones (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="where random cases come from; the same seed gives the same report (default: %(default)s)",
    )
    parser.add_argument(
        "--input", metavar="FILE.npz", help="add a file's arrays to the cases: minutes for a million elements"
    )
    parser.add_argument("--json", metavar="FILE", help="keep the reports, for `clipcore atlas`")
    parser.add_argument("--html", metavar="FILE", help="keep them as a page to look at")
    own = parser.add_argument_group("for a target module:function")
    own.add_argument(
        "--arrays", default="numpy", metavar="LIBRARY", help="whose arrays it takes (default: numpy)"
    )
    own.add_argument("--in-place", action="store_true", help="it writes its result into its first argument")
    own.add_argument(
        "--interpreter", default="", metavar="PATH", help="the Python that calls it; it needs NumPy"
    )
    own.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="seconds that one call may take (default: %(default)g)",
    )


def _at_least(least: int) -> Callable[[str], int]:
    """Return a converter of arguments to integers not below `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def _seconds(text: str) -> float:
    """Return a positive number of seconds."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def verify_command(options: argparse.Namespace) -> int:
    """Run `clipcore verify` and return its exit status.

    Raises
    ------
    UsageError
        Where the arguments do not fit together, or a file cannot be read or written.
    """
    if options.list:
        return _list()
    jobs, skipped = _jobs(options)
    for path in (options.json, options.html):
        if path and not Path(path).absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no such folder")
    made = _run(jobs)
    reports = [each for each in made if isinstance(each, Report)]
    skipped += [each for each in made if isinstance(each, Skipped)]
    _show(reports, skipped, details=bool(options.targets))
    _keep(options, reports, skipped)
    if any(each.reason == "interrupted" for each in skipped):
        print("clipcore: interrupted; only what is shown above was finished", file=sys.stderr)
        return INTERRUPTED
    named = reports if options.targets else [each for each in reports if each.subject == OWN]
    missed = not reports or any(isinstance(each, Skipped) and ":" in each.subject for each in made)
    return BROKEN if missed or not all(report.passed for report in named) else HOLDS


def _list() -> int:
    """Print the ready-made subjects."""
    from rich.console import Console

    from clipcore.verify.table import listing

    subjects = ready_made()
    rows = [(s.name, s.operation, version_of(s) or "–", s.note) for s in subjects if not missing(s)]
    console = Console()
    wide = console if console.is_terminal else Console(width=UNCUT)
    wide.print(listing(rows, _absent(subjects)))
    return HOLDS


def _absent(subjects: Sequence[ReadyMade]) -> list[Skipped]:
    """Return the subjects that cannot run here, each name once."""
    reasons = {subject.name: missing(subject) for subject in subjects}
    return [Skipped(name, reason) for name, reason in reasons.items() if reason]


def _jobs(options: argparse.Namespace) -> tuple[list[Job], list[Skipped]]:
    """Return what to run, and what cannot be run here."""
    if options.input:
        _check_input(options.input)
    common = Job(
        "",
        "",
        options.level,
        options.formula,
        tuple(options.dtype) if options.dtype else None,
        options.seed,
        options.examples,
        options.input or "",
        options.arrays,
        options.in_place,
        options.interpreter,
        options.timeout,
    )
    jobs: list[Job] = []
    skipped: list[Skipped] = []
    for target in options.targets or [None]:
        if target and ":" in target:
            if options.operation is None:
                raise UsageError(f"{target}: say what it is with --operation, one of {', '.join(OPERATIONS)}")
            jobs.append(replace(common, name=target, operation=options.operation))
            continue
        chosen = _chosen(target, options.operation)
        skipped += _absent(chosen)
        jobs += [replace(common, name=s.name, operation=s.operation) for s in chosen if not missing(s)]
    if not jobs:
        reasons = "; ".join(f"{each.subject} {each.reason}" for each in skipped)
        raise UsageError(f"nothing to run: {reasons or 'no subject has that operation'}")
    return jobs, skipped


def _check_input(path: str) -> None:
    """Refuse a broken file of arrays, and say what is left out of a good one."""
    try:
        file = load(path)
    except InputFileError as error:
        raise UsageError(str(error)) from error
    for name, reason in file.skipped.items():
        print(f"clipcore: {path}: skipped {name!r}: {reason}", file=sys.stderr)


def _chosen(target: str | None, operation: str | None) -> list[ReadyMade]:
    """Return the ready-made subjects of a name or a library; all of them without a target."""
    subjects = ready_made()
    named = [s for s in subjects if target in (None, s.name)]
    named = named or [s for s in subjects if target == _library(s)]
    if not named:
        libraries = sorted(set(map(_library, subjects)))
        raise UsageError(
            f"{target}: no such subject; give module:function, a name of `clipcore verify --list`, or "
            f"a library: {', '.join(libraries)}"
        )
    return [s for s in named if operation in (None, s.operation)]


def _library(subject: ReadyMade) -> str:
    """Return the first part of a subject's name."""
    return subject.name.partition(".")[0].partition("[")[0]


def _run(jobs: Sequence[Job]) -> list[Report | Skipped]:
    """Run the jobs under a progress bar, where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        whole = progress.add_task("subjects", total=len(jobs))
        bars: dict[int, Any] = {}

        def news(index: int, done: int, known: int) -> None:
            job = jobs[index]
            if index not in bars:
                bars[index] = progress.add_task(f"{job.name} {job.operation}", total=known)
            progress.update(bars[index], completed=done, total=known)

        def ended(index: int) -> None:
            progress.update(whole, advance=1)
            if index in bars:
                progress.remove_task(bars[index])

        return run(jobs, news, ended)


def _show(reports: Sequence[Report], skipped: Sequence[Skipped], *, details: bool) -> None:
    """Print the table, the findings where they were asked for, and what was not run."""
    from rich.console import Console

    from clipcore.verify.table import findings, table

    console = Console(highlight=False, markup=False, emoji=False)
    narrow = console.is_terminal and console.width < WIDE
    if reports:
        Console(width=None if console.is_terminal else UNCUT).print(table(reports, narrow=narrow))
        console.print(
            "✓ holds   ✗ broken by so many cases   ≠ differs by definition   – not tried", style="dim"
        )
    for report in reports if details else ():
        if report.findings:
            console.print(
                f"\n{report.subject} {report.version}, as {report.operation}".replace(" ,", ","), style="bold"
            )
            for text in findings(report):
                console.print(text, soft_wrap=True)
    if not details:
        console.print(
            "`clipcore verify SUBJECT` shows the findings, each with the smallest call.", style="dim"
        )
    reasons: dict[str, list[str]] = {}
    for each in skipped:
        reasons.setdefault(each.reason, []).append(each.subject)
    for reason, names in reasons.items():
        console.print(f"not run, {reason}: {', '.join(dict.fromkeys(names))}", style="dim", soft_wrap=True)


def _keep(options: argparse.Namespace, reports: list[Report], skipped: list[Skipped]) -> None:
    """Write the files that were asked for."""
    from clipcore.verify.atlas import page

    file = ReportFile(today(), environment(), reports, skipped)
    try:
        if options.json:
            file.write(options.json)
        if options.html:
            Path(options.html).write_text(page([file]), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written: {error.strerror}") from error
