"""What a run leaves behind: `history.csv`, a row a step, and `results.json`."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import clipcore
from clipcore.demo.running import Run
from clipcore.demo.training import Step

__all__ = ["HistoryFile", "finite", "results", "versions", "write_json"]

COLUMNS = [column.name for column in dataclasses.fields(Step)]


class HistoryFile:
    """The file of a run's steps: each is on the disk once it is taken, whatever ends the run."""

    def __init__(self, path: Path) -> None:
        self.stream = path.open("w", encoding="utf-8", newline="", buffering=1)
        self.rows = csv.writer(self.stream, lineterminator="\n")
        self.rows.writerow(COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def add(self, step: Step) -> None:
        """Write one row; what a step does not have is left empty, yes and no are 1 and 0."""
        self.rows.writerow([_cell(value) for value in dataclasses.astuple(step)])


def _cell(value: Any) -> str:
    """Return a value as the file has it; read back, a float is the same to the bit."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else repr(value)


def results(run: Run, seconds: float) -> dict[str, Any]:
    """Return a run in short: its scores, how it ended, its options, and what it ran on."""
    return {
        "model": run.options.model,
        **run.scores(),
        "diverged": bool(run.diverged),
        "diverged_at_step": len(run.history) + 1 if run.diverged else None,
        "diverged_because": run.diverged or None,
        "interrupted": run.interrupted,
        "steps": len(run.history),
        "share_of_steps_clipped": run.share_clipped,
        "median_cosine": _median(step.cosine for step in run.history),
        "median_norm": _median(step.norm_before for step in run.history),
        "median_generator_norm": _median(step.generator_norm for step in run.history),
        "seconds": round(seconds, 3),
        "data": run.data.name,
        "options": dataclasses.asdict(run.options),
        "scores_by_epoch": run.epochs,
        "versions": versions(),
    }


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are there, or None."""
    there = [value for value in values if value is not None and not math.isnan(value)]
    return median(there) if there else None


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's bits."""
    return {
        "clipcore": clipcore.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in ("numpy", "scikit-learn", "matplotlib")},
    }


def finite(value: Any) -> Any:
    """Return the value with null for every NaN and infinity in it, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a file that is either there as a whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(finite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
