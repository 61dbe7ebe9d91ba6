"""What many runs say together: every way to train by its median and spread over seeds, and which is best."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from clipcore.demo.clipping import NORMS

__all__ = ["MEASURES", "Comparison", "Way", "compare", "row", "write_rows"]

MEASURES: Final = {
    "test_accuracy": ("test accuracy", 1),
    "test_error": ("test error", -1),
    "modes": ("modes found of eight", 1),
    "test_distance": ("distance from the data", -1),
}
"""Every score's words, and 1 where more is better, −1 where less is."""


@dataclass(frozen=True)
class Way:
    """A way to train, and what came of it with each seed.

    Attributes
    ----------
    name : str
        The limit in words, ``no clipping``, or the normalisation.
    limit : float or None
        The largest norm or the end of the range; None where nothing is clipped.
    learning_rate : float
        Of all its runs.
    scores : tuple of float
        One a seed; an infinite one, the worst there is, where there was no number.
    diverged : int
        How many runs diverged.
    share_clipped : float
        The share of steps clipped, in the median.
    generator_norm : float or None
        The median norm of the generator's gradients, in the median.
    """

    name: str
    limit: float | None
    learning_rate: float
    scores: tuple[float, ...]
    diverged: int
    share_clipped: float
    generator_norm: float | None

    @property
    def median(self) -> float:
        """The median over seeds."""
        return median(self.scores)


@dataclass(frozen=True)
class Comparison:
    """All ways of a sweep.

    Attributes
    ----------
    model, clip : str
        What was trained, and the clip whose limits were tried.
    measure : str
        The score that the ways are compared by.
    ways : tuple of Way
        In the order they were asked for.
    """

    model: str
    clip: str
    measure: str
    ways: tuple[Way, ...]

    @property
    def words(self) -> str:
        """What the measure is called."""
        return MEASURES[self.measure][0]

    @property
    def less_is_better(self) -> bool:
        """Whether the measure is an error or a distance."""
        return MEASURES[self.measure][1] < 0

    def best(self, ways: Sequence[Way]) -> Way:
        """Return the best way by its median, of equal ones that with the better worst seed."""
        sign = MEASURES[self.measure][1]
        return max(ways, key=lambda way: (sign * way.median, min(sign * score for score in way.scores)))

    def clipped(self) -> list[Way]:
        """Return the ways with a limit."""
        return [way for way in self.ways if way.limit is not None]

    def names(self) -> list[str]:
        """Return the names of all ways, each once."""
        return list(dict.fromkeys(way.name for way in self.ways))

    def in_words(self, way: Way) -> str:
        """Return a way's median and spread in a line."""
        spread = f"{min(way.scores):.4g} to {max(way.scores):.4g} over {len(way.scores)} seeds"
        ended = f", {way.diverged} diverged" if way.diverged else ""
        at = f"{way.name} at learning rate {way.learning_rate:g}"
        return f"{at}: {self.words} {way.median:.4g} ({spread}{ended})"

    def verdict(self) -> str:
        """Return the best limit, and the best of each way without one, a line each."""
        best = self.best(self.clipped())
        idle = "; it never had to clip" if best.share_clipped == 0 else ""
        lines = [f"best limit: {self.in_words(best)}{idle}"]
        for name in self.names():
            ways = [way for way in self.ways if way.name == name and way.limit is None]
            if ways:
                lines.append(f"in its place, {self.in_words(self.best(ways))}")
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """Return all of it as a file keeps it."""
        return {
            "model": self.model,
            "clip": self.clip,
            "measure": self.measure,
            "best": _told(self.best(self.clipped())),
            "ways": [_told(way) for way in self.ways],
        }


def _told(way: Way) -> dict[str, Any]:
    return vars(way) | {"median": way.median, "least": min(way.scores), "most": max(way.scores)}


def compare(runs: Sequence[dict[str, Any]]) -> Comparison:
    """Return the comparison of the runs of one sweep, results as `run_cells` returns them."""
    model = runs[0]["model"]
    known = {"mlp": "test_accuracy", "rnn": "test_error", "wgan": "modes"}[model]
    measure = known if known in runs[0] else "test_distance"
    grouped: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in runs:
        grouped.setdefault((_name(run["options"]), run["options"]["learning_rate"]), []).append(run)
    worst = -MEASURES[measure][1] * math.inf
    ways = tuple(
        Way(
            name,
            _limit(same[0]["options"]),
            learning_rate,
            tuple(worst if run[measure] is None else float(run[measure]) for run in same),
            sum(run["diverged"] for run in same),
            median(run["share_of_steps_clipped"] for run in same),
            median(norms) if (norms := _there(same, "median_generator_norm")) else None,
        )
        for (name, learning_rate), same in grouped.items()
    )
    clip = next(run["options"]["clip"] for run in runs if run["options"]["clip"] != "none")
    return Comparison(model, clip, measure, ways)


def _there(runs: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [run[name] for run in runs if run[name] is not None]


def _limit(options: dict[str, Any]) -> float | None:
    limit: float | None = options["max_norm"] if options["clip"] in NORMS else options["range"]
    return limit


def _name(options: dict[str, Any]) -> str:
    """Return what a run did about its gradients or weights, in words."""
    if options["clip"] == "none":
        return {"none": "no clipping", "batch": "batch norm", "layer": "layer norm"}[options["normalization"]]
    return f"norm {options['max_norm']:g}" if options["clip"] in NORMS else f"range ±{options['range']:g}"


def row(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run in one row: its options, its scores, and how it ended."""
    ends = (
        "diverged",
        "diverged_at_step",
        "steps",
        "share_of_steps_clipped",
        "median_cosine",
        "median_norm",
        "median_generator_norm",
    )
    scores = [name for name in (*MEASURES, "share_near_a_mode") if name in run]
    return {**run["options"], **{name: run[name] for name in (*scores, *ends)}}


def write_rows(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Write one row a run."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.DictWriter(stream, list(row(runs[0])), lineterminator="\n")
        rows.writeheader()
        rows.writerows(map(row, runs))
