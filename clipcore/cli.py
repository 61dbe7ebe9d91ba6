"""The command `clipcore`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence

import clipcore
from clipcore.verify.files import InputFileError, load
from clipcore.verify.run import Part, aimed, own

__all__ = ["main"]

HOLDS, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the command's name; by default what the process was given.

    Returns
    -------
    int
        Exit status: 0 where clipcore holds, 1 where it broke a law, 2 on bad usage, 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        import rich  # noqa: F401  # an optional library: named here, used below
    except ImportError:
        return _refuse('the command needs rich; install it with: pip install "clipcore[verify]"')
    return _verify(options)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="clipcore", description=clipcore.__doc__)
    parser.add_argument("--version", action="version", version=f"clipcore {clipcore.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="judge clipcore and the hand-written formulas by the laws, in exact arithmetic",
        description="Judge clipcore on NumPy, and the formulas most people write by hand, by the laws of the "
        "contract, in exact rational arithmetic. Exit status: 0 where clipcore holds, 1 where it broke a "
        "law, 2 on bad usage, 130 when interrupted.",
    )
    verify.add_argument(
        "--input",
        metavar="FILE.npz",
        help="add the floating-point arrays of a file, judged exactly: minutes for a million elements",
    )
    verify.add_argument(
        "--examples",
        type=_at_least(1),
        default=150,
        metavar="N",
        help="cases for each function and dtype (default: %(default)s)",
    )
    verify.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="where random cases come from; the same seed gives the same output (default: %(default)s)",
    )
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    """Return a converter of arguments to integers not below `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def _refuse(message: str) -> int:
    """Say why nothing was done."""
    print(f"clipcore: {message}", file=sys.stderr)
    return USAGE


def _verify(options: argparse.Namespace) -> int:
    """Judge all cases and print the tables."""
    from rich.console import Console

    from clipcore.verify.table import examples, table

    parts = [aimed(options.seed, options.examples)]
    if options.input is not None:
        try:
            file = load(options.input)
        except InputFileError as error:
            return _refuse(str(error))
        for name, reason in file.skipped.items():
            print(f"clipcore: {options.input}: skipped {name!r}: {reason}", file=sys.stderr)
        parts.append(own(options.input, file.arrays))
    interrupted = _judge(parts)
    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(f"{part.title}: cases that break the law / cases tried", soft_wrap=True)
        console.print(table(part))
        for row, call, fault in examples(part):
            console.print(f"{row}: {call}\n    {fault}", soft_wrap=True)
        console.print()
    if interrupted:
        print("clipcore: interrupted; only what came before is counted", file=sys.stderr)
        return INTERRUPTED
    return HOLDS if all(part.holds for part in parts) else BROKEN


def _judge(parts: list[Part]) -> bool:
    """Judge all cases, under a progress bar where standard error is a terminal; return if interrupted."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            for part in parts:
                for case in progress.track(part.cases, total=part.count, description=part.title):
                    part.judge(case)
    except KeyboardInterrupt:
        return True
    return False
