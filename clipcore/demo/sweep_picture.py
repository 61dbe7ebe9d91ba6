"""The picture and the table of a sweep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from clipcore.demo.comparing import Comparison
from clipcore.demo.pictures import COLOURS, LIMIT

__all__ = ["draw", "table"]

FAR = 1000


def draw(comparison: Comparison) -> Figure:
    """Return the picture: the score against the limit, a line for each learning rate, the spread as a band.

    What has no limit stands to the right: no clipping, and the normalisations.
    """
    panels = 1 if all(way.generator_norm is None for way in comparison.ways) else 2
    figure = Figure(figsize=(10, 3 + 3 * panels), layout="constrained")
    axes, *below = np.atleast_1d(figure.subplots(panels, sharex=True))
    names = comparison.names()
    limited = len({way.name for way in comparison.clipped()})
    rates = sorted({way.learning_rate for way in comparison.ways})
    for panel in below:
        _generator_norms(panel, comparison)
    for number, (rate, colour) in enumerate(zip(rates, COLOURS * len(rates), strict=False)):
        ways = [way for way in comparison.ways if way.learning_rate == rate]
        shift = 0.12 * (number - (len(rates) - 1) / 2)
        places = np.array([names.index(way.name) + (shift if way.limit is None else 0) for way in ways])
        low, middle, high = (
            np.array([_shown(comparison, pick(way.scores)) for way in ways])
            for pick in (min, lambda scores: float(np.median(scores)), max)
        )
        line = places < limited - 0.5
        axes.plot(places[line], middle[line], "o-", color=colour, label=f"learning rate {rate:g}")
        axes.fill_between(places[line], low[line], high[line], color=colour, alpha=0.2, linewidth=0)
        around = np.stack([middle - low, high - middle])[:, ~line]
        axes.errorbar(places[~line], middle[~line], around, fmt="s", color=colour, capsize=4)
    best = comparison.best(comparison.clipped())
    axes.plot(
        names.index(best.name),
        _shown(comparison, best.median),
        "*",
        markersize=18,
        color=LIMIT,
        label=f"best: {best.name}",
    )
    axes.axvline(limited - 0.5, color="#999999", linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    if comparison.less_is_better:
        axes.set_yscale("log")
        axes.text(
            0.01, 0.98, f"at the top: {FAR} times the best, or more", va="top", transform=axes.transAxes
        )
    spread = f"median and spread over {len(best.scores)} seeds"
    axes.set(ylabel=comparison.words, title=f"{comparison.model}: {comparison.words}, {spread}")
    [axes, *below][-1].set_xlabel(
        f"limit of the clip ({comparison.clip}); right of the line, what stands in its place"
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="best")
    return figure


def _generator_norms(axes: Any, comparison: Comparison) -> None:
    """Draw what the generator has to learn from: nothing under too small a range, a storm under too large."""
    names = comparison.names()
    norms = [
        (names.index(way.name), way.generator_norm)
        for way in comparison.ways
        if way.generator_norm is not None
    ]
    axes.plot(*zip(*norms, strict=True), "D", color=COLOURS[2])
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set(ylabel="median norm of the\ngenerator's gradients")
    axes.grid(axis="y", alpha=0.3)


def _shown(comparison: Comparison, score: float) -> float:
    """Return a score as the picture has it: an error far above the best, or none at all, lies at the edge."""
    if comparison.less_is_better:
        return min(score, FAR * comparison.best(comparison.ways).median)
    return score if math.isfinite(score) else 0.0


def table(comparison: Comparison) -> None:
    """Print a row for every way, the best limit in bold."""
    rows = Table("", "learning rate", comparison.words, "spread", "diverged", "steps clipped", box=None)
    best = comparison.best(comparison.clipped())
    for way in comparison.ways:
        rows.add_row(
            way.name,
            f"{way.learning_rate:g}",
            f"{way.median:.4g}",
            f"{min(way.scores):.4g} to {max(way.scores):.4g}",
            f"{way.diverged} of {len(way.scores)}",
            f"{way.share_clipped:.0%}",
            style="bold" if way is best else None,
        )
    console = Console(highlight=False)
    (console if console.is_terminal else Console(width=100, highlight=False)).print(rows)
