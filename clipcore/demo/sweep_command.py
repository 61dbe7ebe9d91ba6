"""The command `clipcore sweep`: many runs in parallel, resumable, ending in a picture and the best limit."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from clipcore_backends._threads import cores

from clipcore.demo.clipping import NORMS
from clipcore.demo.command import add_shared_arguments, folder, loaded, refused
from clipcore.demo.options import MODELS, OptionError, Options
from clipcore.demo.sweep import LIMITS, SWEEPS, Grid, cells, run_cells
from clipcore.verify.command import HOLDS, UsageError

__all__ = ["add_sweep_arguments", "sweep_command"]


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipcore sweep` to a parser."""
    parser.add_argument("model", nargs="?", choices=MODELS, default="mlp", help="(default: %(default)s)")
    add_shared_arguments(parser)
    parser.add_argument("--max-norms", nargs="+", type=float, metavar="C", help="the norms to try")
    parser.add_argument(
        "--ranges", nargs="+", type=float, metavar="R", help="the ranges to try, from -R to R"
    )
    parser.add_argument(
        "--learning-rates", nargs="+", type=float, metavar="LR", help="the learning rates to try"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="how many runs of each (default: 5, less with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer of everything: less than two minutes")
    parser.add_argument(
        "--workers", type=int, default=cores(), metavar="N", help="runs at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to write and go on (default: clipcore-sweep-MODEL)"
    )


def sweep_command(arguments: argparse.Namespace) -> int:
    """Run `clipcore sweep` and return its exit status.

    Raises
    ------
    UsageError
        Where options do not fit together, the data cannot be learnt from, nothing can be written, or a
        process died.
    """
    from clipcore.demo.comparing import compare, write_rows
    from clipcore.demo.pictures import save
    from clipcore.demo.results import write_json
    from clipcore.demo.sweep_picture import draw, table

    options = _runs(arguments)
    loaded(options[0])
    out = folder(arguments.out or f"clipcore-sweep-{arguments.model}")
    kept = folder(str(out / "runs"))
    for old in ("sweep.csv", "sweep.json", "sweep.png", "sweep.svg"):  # of another sweep
        (out / old).unlink(missing_ok=True)
    with _terminable(), _progress(len(options)) as show:
        try:
            runs = run_cells(options, kept, arguments.workers, show)
        except BrokenProcessPool as error:
            raise UsageError(f"sweep: a process died ({error}); ask the same again to go on") from error
    comparison = compare(runs)
    write_rows(out / "sweep.csv", runs)
    write_json(out / "sweep.json", comparison.summary())
    pictures = save(draw(comparison), out, "sweep")
    table(comparison)
    print(comparison.verdict())
    print(f"written: {', '.join(map(str, (out / 'sweep.csv', out / 'sweep.json', *pictures)))}")
    return HOLDS


def _runs(arguments: argparse.Namespace) -> list[Options]:
    """Return every run that was asked for."""
    clip, whole, quick = SWEEPS[arguments.model]
    grid = quick if arguments.quick else whole
    clip = arguments.clip or clip
    if clip == "none":
        raise UsageError("sweep: --clip: none has no limits to go through; give another")
    kind, other = ("max_norms", "ranges") if clip in NORMS else ("ranges", "max_norms")
    if getattr(arguments, other):
        raise UsageError(
            f"sweep: --{other.replace('_', '-')}: {clip} is limited by --{kind.replace('_', '-')}"
        )
    for name in ("seeds", "workers"):
        if (count := getattr(arguments, name)) is not None and count < 1:
            raise UsageError(f"sweep: --{name}: {count} is less than 1")
    limits = getattr(arguments, kind) or (
        grid.limits if clip == SWEEPS[arguments.model].clip else LIMITS[kind]
    )
    limits = sorted(set(limits))
    chosen = Grid(limits, arguments.learning_rates or grid.learning_rates, arguments.seeds or grid.seeds)
    common = {
        name: getattr(arguments, name) for name in ("where", "optimizer", "activation", "epochs", "data")
    }
    try:
        return cells(arguments.model, clip, chosen, **common)
    except OptionError as error:
        raise refused("sweep", error) from error


@contextmanager
def _terminable() -> Iterator[None]:
    """Let the signal to terminate interrupt as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Show how many runs are done: a live bar on a terminal, else a line for each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, start = Console(stderr=True), time.monotonic()
    before: list[int] = []  # how many were done when it began
    if console.is_terminal:
        columns = (TextColumn("runs"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=console, transient=True, expand=True, speed_estimate_period=1e9
        ) as progress:
            task = progress.add_task("runs", total=total)
            yield lambda done: progress.update(task, completed=done)
        return

    def show(done: int) -> None:
        before.append(done)
        news = done - before[0]
        left = f", {(time.monotonic() - start) / news * (total - done):.0f} s left" if news else " before"
        print(f"{done} of {total} runs done{left}", file=sys.stderr)

    yield show
