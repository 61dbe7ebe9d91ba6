"""The command `clipcore train`: one run, shown while it goes, kept as files."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipcore.demo.clipping import CLIPS, NORMS, RANGES
from clipcore.demo.data import Data, DataError, load_data
from clipcore.demo.optimizers import OPTIMIZERS
from clipcore.demo.options import DEFAULTS, MODELS, NORMALIZATIONS, OptionError, Options
from clipcore.verify.command import HOLDS, INTERRUPTED, UsageError

if TYPE_CHECKING:
    from clipcore.demo.running import Run

__all__ = [
    "add_shared_arguments",
    "add_train_arguments",
    "folder",
    "loaded",
    "refused",
    "train_command",
]

EVERY: Final = 0.1  # seconds between two updates of the progress bar


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipcore train` to a parser."""
    parser.add_argument("model", choices=MODELS, help="classes told apart, sums over time, points made")
    add_shared_arguments(parser)
    parser.add_argument(
        "--max-norm",
        type=float,
        metavar="C",
        help=f"the largest norm, for {', '.join(NORMS)} ({_default('max_norm')})",
    )
    parser.add_argument(
        "--range", type=float, metavar="R", help=f"cut to ±R, for {', '.join(RANGES)} ({_default('range')})"
    )
    parser.add_argument("--learning-rate", type=float, metavar="LR", help=f"({_default('learning_rate')})")
    parser.add_argument("--seed", type=int, metavar="N", help="where chance starts from (default: 0)")
    parser.add_argument(
        "--normalization", choices=NORMALIZATIONS, help="between the layers, not of the rnn (default: none)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where to write (default: clipcore-MODEL, or the next free number)"
    )


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `train` and `sweep` have in common."""
    parser.add_argument(
        "--clip",
        choices=CLIPS,
        help="gradients by value, by a norm of each leaf (l1, l2) or of all (global); or weights; or none "
        f"({_default('clip')})",
    )
    parser.add_argument(
        "--where", choices=("kernels", "all"), help="which weights are clipped (default: kernels)"
    )
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), help=f"({_default('optimizer')})")
    parser.add_argument("--activation", choices=("relu", "tanh"), help="not of the rnn (default: relu)")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"passes over the data ({_default('epochs')})"
    )
    parser.add_argument(
        "--data", metavar="FILE.npz", help="your own arrays: x, a row an example, and y (a wgan needs no y)"
    )


def _default(name: str) -> str:
    """Return a help's words on a default that depends on the model."""
    return "default: " + ", ".join(f"{model} {DEFAULTS[model][name]}" for model in MODELS)


def train_command(arguments: argparse.Namespace) -> int:
    """Run `clipcore train` and return its exit status.

    Raises
    ------
    UsageError
        Where options do not fit together, the data cannot be learnt from, or nothing can be written.
    """
    from clipcore.demo.pictures import draw, save
    from clipcore.demo.results import HistoryFile, results, write_json
    from clipcore.demo.running import train

    names = set(Options.__dataclass_fields__)
    try:
        options = Options.of(**{k: v for k, v in vars(arguments).items() if k in names})
    except OptionError as error:
        raise refused("train", error) from error
    data = loaded(options)
    out = folder(arguments.out or _free(f"clipcore-{options.model}"))
    for old in ("results.json", "run.png", "run.svg"):  # of another run: not beside the history of this one
        (out / old).unlink(missing_ok=True)
    start = time.perf_counter()
    with (
        interruptible() as interrupt_if_asked,
        HistoryFile(out / "history.csv") as history,
        _progress(options) as show,
    ):

        def seen(run: Run) -> None:
            history.add(run.history[-1])
            show(run)
            interrupt_if_asked()

        run = train(options, data, seen)
    write_json(out / "results.json", results(run, time.perf_counter() - start))
    pictures = save(draw(run), out, "run")
    print(_summary(run))
    print(
        f"written: {', '.join(str(path) for path in (out / 'results.json', out / 'history.csv', *pictures))}"
    )
    return INTERRUPTED if run.interrupted else HOLDS


def refused(command: str, error: OptionError) -> UsageError:
    """Return what the command line says of options that do not fit."""
    name, _, reason = str(error).partition(":")
    return UsageError(f"{command}: --{name.replace('_', '-')}:{reason}")


def loaded(options: Options) -> Data:
    """Return the data, or say why they cannot be learnt from."""
    try:
        return load_data(options.model, options.data)
    except DataError as error:
        raise UsageError(str(error)) from error


def folder(path: str) -> Path:
    """Return a folder that exists, made where it does not."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be made a folder: {error.strerror}") from error
    return Path(path)


def _free(name: str) -> str:
    """Return the name, or with the first number that nothing is called by."""
    count, free = 1, name
    while Path(free).exists():
        count += 1
        free = f"{name}-{count}"
    return free


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and the signal to terminate be asked for, by the function given, where a step is done."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:  # twice: at once
            raise KeyboardInterrupt
        asked.append(number)

    def interrupt_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    heeded = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = [signal.signal(each, ask) for each in heeded]
    try:
        yield interrupt_if_asked
    finally:
        for each, handler in zip(heeded, before, strict=True):
            signal.signal(each, handler)


@contextmanager
def _progress(options: Options) -> Iterator[Any]:
    """Show a run while it goes: a live bar on a terminal, else a line an epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_epoch
        return
    status = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (BarColumn(12), MofNCompleteColumn(), TimeRemainingColumn(), status)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(options.model, total=None)
        last = 0.0

        def show(run: Run) -> None:
            nonlocal last
            if time.monotonic() - last < EVERY and len(run.history) < run.trainer.steps_planned:
                return
            last = time.monotonic()
            progress.update(
                task, total=run.trainer.steps_planned, completed=len(run.history), description=_status(run)
            )

        yield show


def _print_epoch(run: Run) -> None:
    """Print a line where an epoch has ended."""
    if run.epochs and len(run.history) * run.options.epochs == len(run.epochs) * run.trainer.steps_planned:
        scores = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in run.epochs[-1].items())
        print(f"epoch {len(run.epochs)}/{run.options.epochs}: {_status(run)}, {scores}", file=sys.stderr)


def _status(run: Run) -> str:
    """Return where a run stands."""
    step = run.history[-1]
    norms = f"norm {step.norm_before:.3g} → {step.norm_after:.3g}"
    text = f"loss {step.loss:.3g}, {norms}, {run.share_clipped:.0%} of steps clipped"
    return text if step.at_bound is None else f"{text}, {step.at_bound:.0%} of weights at the bound"


def _summary(run: Run) -> str:
    """Return what came of a run, in a line."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in run.scores().items())
    steps = f"{len(run.history)} steps, {run.share_clipped:.0%} of them clipped"
    if run.diverged:
        return f"diverged at step {len(run.history) + 1}: {run.diverged}; as it was then: {scores} ({steps})"
    return f"{'interrupted: ' if run.interrupted else ''}{scores} ({steps})"
