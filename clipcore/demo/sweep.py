"""Many runs: every limit, learning rate and seed, in parallel, each kept once it is done."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import clipcore
from clipcore.demo.clipping import NORMS
from clipcore.demo.data import Data, load_data
from clipcore.demo.options import NORMALIZATIONS, Options

__all__ = ["LIMITS", "SWEEPS", "Grid", "cells", "read_cell", "run_cells"]


@dataclass(frozen=True)
class Grid:
    """What a sweep goes through.

    Attributes
    ----------
    limits : sequence of float
        Largest norms, or ends of the range, for the clip.
    learning_rates : sequence of float
        For every limit.
    seeds : int
        How many, from 0, for each of these.
    """

    limits: Sequence[float]
    learning_rates: Sequence[float]
    seeds: int


MOST = 61  # processes that a pool may have on Windows

LIMITS = {"max_norms": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "ranges": (0.001, 0.01, 0.1, 1.0)}
"""What is tried for a clip that is not the model's own in `SWEEPS`."""


class Sweep(NamedTuple):
    """The clip that is swept, and two grids of its limits."""

    clip: str
    whole: Grid
    quick: Grid


SWEEPS: dict[str, Sweep] = {
    "mlp": Sweep(
        "weights",
        Grid((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (0.03, 0.1, 0.3, 1.0), 5),
        Grid((0.01, 0.03, 0.1, 0.3, 1.0), (0.1, 1.0), 3),
    ),
    "rnn": Sweep("global", Grid((0.01, 0.1, 1.0, 10.0), (0.0003, 0.001), 5), Grid((0.1, 1.0), (0.001,), 2)),
    "wgan": Sweep(
        "weights",
        Grid((0.03, 0.1, 0.2, 0.3, 1.0), (0.03,), 5),
        Grid((0.03, 0.2, 1.0), (0.03,), 2),
    ),
}
"""What is swept for each model where nothing else is asked."""


def cells(model: str, clip: str, grid: Grid, **common: Any) -> list[Options]:
    """Return every run of a sweep: each limit, no clipping, and each normalisation there is."""
    limit = "max_norm" if clip in NORMS else "range"
    ways: list[dict[str, Any]] = [{"clip": clip, limit: value} for value in grid.limits]
    ways += [
        {"clip": "none", "normalization": n, "where": None}
        for n in NORMALIZATIONS
        if n == "none" or model != "rnn"
    ]
    return [
        Options.of(model, **{**common, **way}, learning_rate=learning_rate, seed=seed)
        for seed in range(grid.seeds)  # a sweep broken off has few seeds of everything, not all of a few
        for learning_rate in grid.learning_rates
        for way in ways
    ]


def run_cells(
    options: Sequence[Options], folder: Path, workers: int, seen: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Run what is not yet kept in a folder, and return the results of all.

    Parameters
    ----------
    options : sequence of Options
        The runs.
    folder : Path
        Where each is kept as a file of its own; what it holds already is not run again.
    workers : int
        How many processes run them.
    seen : callable
        Called with the number of runs done, before the first and after each.

    Returns
    -------
    list of dict
        What `results` makes of each run, in the order of the options.

    Raises
    ------
    KeyboardInterrupt
        Where it was interrupted; what was done is kept.
    concurrent.futures.process.BrokenProcessPool
        Where a process died, of too little memory for instance; what was done is kept.
    """
    paths = [folder / f"{_key(each)}.json" for each in options]
    missing = [(o, p) for o, p in zip(options, paths, strict=True) if read_cell(p) is None]
    done = len(options) - len(missing)
    seen(done)
    context = multiprocessing.get_context("spawn")  # forks of a process with threads may hang
    with ProcessPoolExecutor(max(1, min(workers, len(missing), MOST)), context, _start) as pool:
        heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes begin with what is ignored
        futures = [pool.submit(_run_cell, *each) for each in missing]
        signal.signal(signal.SIGINT, heeded)
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                seen(done)
        except BaseException:
            for process in multiprocessing.active_children():  # their runs are not kept, and begin anew
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    return [kept for path in paths if (kept := read_cell(path)) is not None]


def read_cell(path: Path) -> dict[str, Any] | None:
    """Return what is kept of a run, or None where it was not run to its end."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and "scores_by_epoch" in kept else None


def _key(options: Options) -> str:
    """Return a name for a run: the same for equal options, data and version, another for any other."""
    told = dataclasses.asdict(options) | {"version": clipcore.__version__}
    if options.data:
        told["data"] = hashlib.sha256(Path(options.data).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _start() -> None:
    """Prepare a process: Ctrl-C is its parent's to answer, which it does not outlive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent to end, also where it was killed, and end this process."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


@functools.lru_cache(maxsize=1)
def _data(model: str, path: str) -> Data:
    """Return the data, read once a process."""
    return load_data(model, path)


def _run_cell(options: Options, path: Path) -> None:
    """Run one and keep it."""
    from clipcore.demo.results import results, write_json
    from clipcore.demo.running import train

    data, start = _data(options.model, options.data), time.perf_counter()
    run = train(options, data)
    write_json(path, results(run, time.perf_counter() - start))
