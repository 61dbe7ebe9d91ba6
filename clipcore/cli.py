"""The command `clipcore`."""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import clipcore
from clipcore.demo.command import add_train_arguments, train_command
from clipcore.demo.sweep_command import add_sweep_arguments, sweep_command
from clipcore.verify import command
from clipcore.verify.atlas import markdown, page
from clipcore.verify.command import HOLDS, USAGE, UsageError
from clipcore.verify.report import ReportFileError, read
from clipcore.verify.vectors import write_vectors

__all__ = ["main"]

NEEDS = {"verify": ("rich",), "demo": ("matplotlib", "rich", "sklearn", "threadpoolctl")}
"""What the commands of an extra import, besides what clipcore itself needs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the command's name; by default what the process was given.

    Returns
    -------
    int
        Exit status: 0 where all went well, 1 where a subject broke a law, 2 on bad usage, 130 when
        interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    if missing := [name for name in NEEDS[options.extra] if importlib.util.find_spec(name) is None]:
        advice = f'install it with: pip install "clipcore[{options.extra}]"'
        return _refuse(f"the command needs {', '.join(missing)}; {advice}")
    try:
        return int(options.run(options))
    except (UsageError, ReportFileError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        print("clipcore: interrupted", file=sys.stderr)
        return command.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(prog="clipcore", description=clipcore.__doc__)
    parser.add_argument("--version", action="version", version=f"clipcore {clipcore.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="judge clipping functions by the laws of the contract, in exact arithmetic",
        description="Judge clipping functions, clipcore's own, those of frameworks, or yours, by the laws of "
        "the contract, in exact rational arithmetic. Exit status: 0 where every target (without one: "
        "clipcore) passes at the level asked, 1 where one does not, 2 on bad usage, 130 when interrupted.",
    )
    command.add_arguments(verify)
    verify.set_defaults(run=command.verify_command, extra="verify")
    atlas = commands.add_parser(
        "atlas",
        help="merge reports into one page: law by implementation",
        description="Merge the reports of several environments into one page that needs no network.",
    )
    atlas.add_argument("reports", nargs="+", metavar="REPORT.json", help="written by clipcore verify --json")
    atlas.add_argument("--html", metavar="FILE", help="write the page")
    atlas.add_argument("--markdown", metavar="FILE", help="write the same as Markdown")
    atlas.set_defaults(run=_atlas, extra="verify")
    vectors = commands.add_parser(
        "vectors",
        help="write inputs and exact results for implementations in other languages",
        description="Write inputs and their exact results, numbers as hexadecimal floats, to test a clip "
        "that is written in another language.",
    )
    vectors.add_argument("--out", required=True, metavar="FILE.json", help="where to write them")
    vectors.set_defaults(run=_vectors, extra="verify")
    train = commands.add_parser(
        "train",
        help="train a small network in NumPy and see what clipping does",
        description="Train a small network in NumPy, with clipping as asked, and keep a row a step "
        "(history.csv), what came of it (results.json) and a picture (run.png, run.svg). Exit status: 0, "
        "also where training diverged, 2 on bad usage, 130 when interrupted; what was done is kept.",
    )
    add_train_arguments(train)
    train.set_defaults(run=train_command, extra="demo")
    sweep = commands.add_parser(
        "sweep",
        help="train for every range, learning rate and seed, and see which range is best",
        description="Train for every limit, learning rate and seed, in parallel, and for no clipping and "
        "normalisation beside; keep a row a run (sweep.csv), what came of it (sweep.json) and a picture "
        "(sweep.png, sweep.svg). Interrupted or killed, it goes on when the same is asked again.",
    )
    add_sweep_arguments(sweep)
    sweep.set_defaults(run=sweep_command, extra="demo")
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and takes no option by half its name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and exit."""
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _refuse(message: str) -> int:
    """Say why nothing was done."""
    print(f"clipcore: {message}", file=sys.stderr)
    return USAGE


def _atlas(options: argparse.Namespace) -> int:
    """Merge reports."""
    if not options.html and not options.markdown:
        raise UsageError("atlas: give --html FILE, --markdown FILE or both")
    files = [read(path) for path in options.reports]
    if options.html:
        _write(options.html, page(files))
    if options.markdown:
        _write(options.markdown, markdown(files))
    return HOLDS


def _vectors(options: argparse.Namespace) -> int:
    """Write the golden vectors."""
    _write(options.out, write_vectors())
    return HOLDS


def _write(path: str, text: str) -> None:
    """Write a text file, or say why that is not possible."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
