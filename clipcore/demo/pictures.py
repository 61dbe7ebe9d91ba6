"""The picture of a run: loss, norms and their limit, weights and their bounds, and what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from clipcore._typing import Array
from clipcore.demo.clipping import NORMS
from clipcore.demo.data import LARGEST
from clipcore.demo.running import Run
from clipcore.demo.wgan import WGAN

__all__ = ["AFTER", "BEFORE", "COLOURS", "LIMIT", "draw", "samples", "save"]

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000")
BEFORE, AFTER, LIMIT = "#999999", "#0072b2", "#d55e00"  # told apart by the colour-blind too
GRID: Final = 150  # points of a map along each side


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a picture as PNG and SVG, and return the two files."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        figure.savefig(path, dpi=120)
    return paths


def draw(run: Run) -> Figure:
    """Return the picture of a run that took a step."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    loss, norms, weights, learnt = figure.subplots(2, 2).flat
    _loss(loss, run)
    _norms(norms, run)
    _weights(weights, run)
    {"mlp": _decisions, "rnn": _predictions, "wgan": samples}[run.options.model](learnt, run)
    figure.suptitle(title(run))
    return figure


def title(run: Run) -> str:
    """Return one line on what was run and what came of it."""
    options = run.options
    limit = {"none": ""} | {
        kind: f" to norm {options.max_norm:g}" for kind in NORMS if options.max_norm is not None
    }
    how = limit.get(options.clip, f" to ±{options.range:g}" if options.range is not None else "")
    clip = "no clipping" if options.clip == "none" else f"clip: {options.clip}{how}"
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in run.scores().items())
    end = f"diverged at step {len(run.history) + 1}" if run.diverged else scores
    how = f"{clip}, {options.optimizer}, learning rate {options.learning_rate:g}"
    return f"{options.model}, {run.data.name[-60:]}\n{how}: {end}".replace("$", r"\$")  # no formula


def _column(run: Run, name: str) -> Array:
    """Return one column of the history, NaN where there is none."""
    return np.array([np.nan if (v := getattr(step, name)) is None else v for step in run.history])


def _loss(axes: Any, run: Run) -> None:
    """Draw the loss of every step, and its course."""
    steps, loss = _column(run, "step"), _column(run, "loss")
    label = "loss"
    if run.options.model == "wgan":
        loss, label = -loss, "distance, as the critic sees it"
        axes.set_yscale("symlog", linthresh=1e-3)
    elif (loss > 0).all():
        axes.set_yscale("log")
    axes.plot(steps, loss, color=BEFORE, linewidth=0.6, alpha=0.6, label="each step")
    width = max(1, len(loss) // 40)
    whole = len(loss) // width * width
    axes.plot(
        steps[:whole].reshape(-1, width).mean(1),
        np.median(loss[:whole].reshape(-1, width), axis=1),
        color=AFTER,
        label=f"median of {width}",
    )
    if run.diverged:
        axes.annotate(
            f"{run.diverged}\nat step {len(run.history) + 1}",
            (0.5, 0.5),
            xycoords="axes fraction",
            ha="center",
            color=LIMIT,
            wrap=True,
        )
    axes.set(xlabel="step", ylabel=label, title="Loss")
    axes.legend(loc="best")


def _norms(axes: Any, run: Run) -> None:
    """Draw the global norm of the gradients before and after clipping, and its limit."""
    steps = _column(run, "step")
    for name, colour, label in (("norm_before", BEFORE, "before"), ("norm_after", AFTER, "after clipping")):
        values = _column(run, name)
        axes.plot(steps, np.where(values > 0, values, np.nan), color=colour, linewidth=0.8, label=label)
    made = _column(run, "generator_norm")
    if np.isfinite(made).any():
        there = np.isfinite(made) & (made > 0)
        axes.plot(steps[there], made[there], color=COLOURS[1], linewidth=0.8, label="the generator's")
    if run.options.clip == "global":
        axes.axhline(run.options.max_norm, color=LIMIT, linestyle="--", label="max_norm")
    axes.set_yscale("log")
    axes.set(
        xlabel="step",
        ylabel="norm",
        title=f"Global norm of the gradients; {run.share_clipped:.0%} of the steps clipped",
    )
    axes.legend(loc="best")


def _weights(axes: Any, run: Run) -> None:
    """Draw how the weights of all kernels are spread, and the bounds they were cut to."""
    network: Any = run.trainer.network
    leaves = [leaf for layer in network.parameters.values() for leaf in layer.items()]
    kernels = np.concatenate([leaf.ravel() for name, leaf in leaves if name.endswith("kernel")])
    axes.hist(kernels[np.abs(kernels) < LARGEST], bins=80, color=AFTER)
    axes.set_yscale("log")
    if run.options.clip == "weights":
        bounds = (-run.options.clipping.limit, run.options.clipping.limit)
        for bound in bounds:
            axes.axvline(bound, color=LIMIT, linestyle="--", label="range" if bound is bounds[-1] else None)
        axes.legend(loc="best")
    axes.set(xlabel="weight", ylabel="how many", title="Weights of the kernels at the end")


def _plane(x: Array) -> tuple[Array, Array]:
    """Return the mean of points and two directions to look along: their own, or the principal components."""
    mean = x.mean(axis=0)
    if x.shape[1] == 2:
        return mean, np.eye(2)
    directions = np.linalg.svd(x - mean, full_matrices=False)[2][:2]
    return mean, np.pad(directions, ((0, 2 - len(directions)), (0, 0)))


def _grid(points: Array) -> tuple[Array, Array, Array]:
    """Return the sides of a map around points in the plane, and all its points."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.1 * (high - low) + 1e-3
    along, up = (np.linspace(low[i] - room[i], high[i] + room[i], GRID) for i in (0, 1))
    return along, up, np.stack(np.meshgrid(along, up), axis=-1).reshape(-1, 2)


def _decisions(axes: Any, run: Run) -> None:
    """Draw which class the network sees where, in the plane of the two principal components."""
    mean, directions = _plane(run.data.x)
    points = (run.data.x_test - mean) @ directions.T
    along, up, grid = _grid(points)
    with np.errstate(all="ignore"):
        seen = run.trainer.network.forward(mean + grid @ directions, training=False).argmax(axis=1)
    colours: dict[str, Any] = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
    axes.pcolormesh(along, up, seen.reshape(GRID, GRID) % 10, alpha=0.35, rasterized=True, **colours)
    marks = axes.scatter(
        *points.T, c=run.data.y_test % 10, s=10, edgecolors="black", linewidths=0.2, **colours
    )
    axes.figure.colorbar(marks, ax=axes, label="class", ticks=range(min(10, 1 + int(run.data.y.max()))))
    of = "" if run.data.x.shape[1] == 2 else " (two principal components)"
    axes.set(title=f"What it sees where{of}", xlabel="first direction", ylabel="second direction")


def _predictions(axes: Any, run: Run) -> None:
    """Draw what the network answers against what is right."""
    with np.errstate(all="ignore"):
        answer = run.trainer.network.forward(run.data.x_test, training=False)
    there = np.isfinite(answer)
    axes.scatter(run.data.y_test[there], answer[there], s=5, color=AFTER, label="test sequences")
    ends = [run.data.y_test.min(), run.data.y_test.max()]
    axes.plot(ends, ends, color=LIMIT, linestyle="--", label="right")
    axes.set(xlabel="right answer", ylabel="the network's", title="What it answers")
    axes.legend(loc="best")


def samples(axes: Any, run: Run) -> None:
    """Draw the data, the generator's points, and over two dimensions the critic's marks."""
    if not isinstance(run.trainer, WGAN):
        raise TypeError(f"samples: the trainer is a {type(run.trainer).__name__}; give the run of a WGAN")
    mean, directions = _plane(run.data.x)
    real = (run.data.x_test - mean) @ directions.T
    with np.errstate(all="ignore"):
        made = (run.trainer.samples(len(real), np.random.default_rng(0)) - mean) @ directions.T
        along, up, grid = _grid(real)
        marks = run.trainer.network.forward(mean + grid @ directions, training=False)
    if run.data.x.shape[1] == 2 and np.isfinite(marks).all():
        filled = axes.contourf(along, up, marks.reshape(GRID, GRID), levels=20, cmap="Greys", alpha=0.6)
        axes.figure.colorbar(filled, ax=axes, label="the critic's mark")
    axes.scatter(*real.T, s=3, color=COLOURS[1], label="data", alpha=0.5)
    made = made[np.isfinite(made).all(axis=1)]
    axes.scatter(*made.T, s=3, color=AFTER, label="generated", alpha=0.5)
    axes.set(
        xlim=(along[0], along[-1]), ylim=(up[0], up[-1]), title="Points", xlabel="first", ylabel="second"
    )
    axes.legend(loc="upper right")
