"""The command `clipcore`."""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import clipcore
from clipcore.verify import command
from clipcore.verify.atlas import markdown, page
from clipcore.verify.command import HOLDS, USAGE, UsageError
from clipcore.verify.report import ReportFileError, read
from clipcore.verify.vectors import write_vectors

__all__ = ["main"]


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
    if importlib.util.find_spec("rich") is None:
        return _refuse('the command needs rich; install it with: pip install "clipcore[verify]"')
    try:
        return int(options.run(options))
    except (UsageError, ReportFileError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("clipcore: interrupted", file=sys.stderr)
        return command.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="clipcore", description=clipcore.__doc__)
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
    verify.set_defaults(run=command.verify_command)
    atlas = commands.add_parser(
        "atlas",
        help="merge reports into one page: law by implementation",
        description="Merge the reports of several environments into one page that needs no network.",
    )
    atlas.add_argument("reports", nargs="+", metavar="REPORT.json", help="written by clipcore verify --json")
    atlas.add_argument("--html", metavar="FILE", help="write the page")
    atlas.add_argument("--markdown", metavar="FILE", help="write the same as Markdown")
    atlas.set_defaults(run=_atlas)
    vectors = commands.add_parser(
        "vectors",
        help="write inputs and exact results for implementations in other languages",
        description="Write inputs and their exact results, numbers as hexadecimal floats, to test a clip "
        "that is written in another language.",
    )
    vectors.add_argument("--out", required=True, metavar="FILE.json", help="where to write them")
    vectors.set_defaults(run=_vectors)
    return parser


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
