"""Make the pictures, the rows and the tables of docs/demo.md: ``python docs/demo_figures.py RUNS``.

RUNS is a folder for the runs, about ten minutes of two cores; what it holds already is not run again.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from clipcore_backends._threads import cores
from matplotlib.figure import Figure

from clipcore.demo import pictures, sweep_picture
from clipcore.demo.comparing import MEASURES, compare, row
from clipcore.demo.data import load_data
from clipcore.demo.options import Options
from clipcore.demo.running import Run, train
from clipcore.demo.sweep import SWEEPS, cells, run_cells

HERE = Path(__file__).parent
PAGE, FOLDER = HERE / "demo.md", HERE / "demo"
SEEDS = range(5)
GUESSING, SOLVED = 1 / 6, 0.02  # errors of the adding problem

Results = dict[str, Any]


def experiments() -> dict[str, list[Options]]:
    """Every run of the page, by the table it belongs to."""

    def seeds(model: str, *ways: dict[str, Any]) -> list[Options]:
        return [Options.of(model, seed=seed, **way) for way in ways for seed in SEEDS]

    steep: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 4.0}
    adam: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.001, "epochs": 25}
    narrow: dict[str, Any] = {"clip": "weights", "range": 0.1, "normalization": "batch"}
    return {
        "digits": seeds("mlp", {}),
        "exploding": seeds("mlp", {"clip": "none", **steep}, {"clip": "global", "max_norm": 0.1, **steep}),
        "rnn": seeds("rnn", {"clip": "none"}, {"max_norm": 0.1}, {"max_norm": 1.0}),
        "direction": seeds(
            "mlp",
            {"clip": "value", "range": 0.001},
            {"clip": "l1", "max_norm": 0.1},
            {"clip": "l2", "max_norm": 0.1},
            {"clip": "global", "max_norm": 0.1},
        ),
        "scale": seeds("mlp", {**narrow, "where": "kernels"}, {**narrow, "where": "all"}),
        "mlp": cells("mlp", SWEEPS["mlp"].clip, SWEEPS["mlp"].whole),
        "wgan": cells("wgan", SWEEPS["wgan"].clip, SWEEPS["wgan"].whole),
        "adam": seeds("wgan", *({"range": end, **adam} for end in (0.01, 0.1, 0.3, 1.0, 3.0))),
    }


def main(folder: Path) -> None:
    """Run what is not in the folder yet, then write everything."""
    folder.mkdir(parents=True, exist_ok=True)
    FOLDER.mkdir(exist_ok=True)
    asked = experiments()

    def seen(done: int) -> None:
        print(f"\r{done} runs of this table", end="", file=sys.stderr)

    made: dict[str, list[Results]] = {}
    for name, options in asked.items():
        print(f"\n{name}: {len(options)} runs", file=sys.stderr)
        made[name] = run_cells(options, folder, cores(), seen)
    write_rows(made)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), read_rows()), encoding="utf-8")
    draw(made)


def write_rows(made: dict[str, list[Results]]) -> None:
    """Write a row a run."""
    rows = [{"table": name} | row(run) for name, runs in made.items() for run in runs]
    columns = dict.fromkeys(column for each in rows for column in each)
    with (FOLDER / "runs.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows() -> list[dict[str, str]]:
    """Return the rows of all runs."""
    with (FOLDER / "runs.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def filled(page: str, rows: Sequence[dict[str, str]]) -> str:
    """Return the page with every table made anew."""
    for name in dict.fromkeys(each["table"] for each in rows):
        of = [each for each in rows if each["table"] == name]
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"filled: {PAGE} has no place for the table {name}")
        text = table(of)
        page = pattern.sub(rf"\g<1>{text}\g<2>", page)
    return page


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a table: a line for every way to train, its scores over the seeds."""
    measure = next(name for name in MEASURES if rows[0].get(name))
    ways: dict[str, list[dict[str, str]]] = {}
    for each in rows:
        ways.setdefault(way(each), []).append(each)
    lines = [f"| | {MEASURES[measure][0]} | least | most | seeds | diverged | steps clipped | cosine |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, same in ways.items():
        scores = [float(each[measure]) if each[measure] else float("nan") for each in same]
        numbers = (f"{number:.3g}" for number in (median(scores), min(scores), max(scores)))
        diverged = sum(each["diverged"] == "True" for each in same)
        clipped = median(float(each["share_of_steps_clipped"]) for each in same)
        cosine = median(float(each["median_cosine"]) for each in same)
        cells = (name, *numbers, str(len(same)), str(diverged), f"{clipped:.0%}", f"{cosine:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def way(each: dict[str, str]) -> str:
    """Return in words how a run was trained."""
    limit = f"norm {each['max_norm']}" if each["max_norm"] else f"±{each['range']}" if each["range"] else ""
    clip = "no clipping" if each["clip"] == "none" else f"{each['clip']} {limit}"
    where = " with the scales" if each["where"] == "all" else ""
    beside = "" if each["normalization"] == "none" else f", {each['normalization']} norm"
    return f"{clip}{where}{beside}, {each['optimizer']}, {each['learning_rate']}"


def draw(made: dict[str, list[Results]]) -> None:
    """Write the pictures."""
    figures = {
        "exploding": exploding(made["exploding"], made["rnn"]),
        "direction": direction(),
        "scale": scale(),
        "points": points(),
        "mlp": sweep_picture.draw(compare(made["mlp"])),
        "wgan": sweep_picture.draw(compare(made["wgan"])),
    }
    for name, figure in figures.items():
        figure.savefig(FOLDER / f"{name}.png", dpi=110)


def trained(model: str, **asked: Any) -> Run:
    """Return one run with all its history."""
    options = Options.of(model, **asked)
    return train(options, load_data(model))


def exploding(digits: Sequence[Results], sums: Sequence[Results]) -> Figure:
    """Draw every seed's score by epoch, with and without clipping."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, runs, measure in ((left, digits, "test_accuracy"), (right, sums, "test_error")):
        for run in runs:
            clip, limit = run["options"]["clip"], run["options"]["max_norm"]
            label = "no clipping" if clip == "none" else f"global norm {limit:g}"
            colour = {"no clipping": pictures.LIMIT, "global norm 1": pictures.COLOURS[2]}.get(
                label, pictures.AFTER
            )
            course = [epoch[measure] for epoch in run["scores_by_epoch"]]
            axes.plot(
                range(1, len(course) + 1), course, "-o", markersize=3, color=colour, alpha=0.7, label=label
            )
            if run["diverged"]:
                place, height = len(course) + 0.5, min(run[measure], 1e3)
                axes.plot(place, height, "x", markersize=12, color=colour, label="diverged")
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.legend(handles.values(), handles.keys())
        axes.set(xlabel="epoch")
    left.set(ylabel="test accuracy", ylim=(0, 1), title="Digits, plain SGD, learning rate 4: five seeds each")
    right.axhline(GUESSING, color=pictures.BEFORE, linestyle=":")
    right.axhline(SOLVED, color=pictures.BEFORE, linestyle="--")
    right.text(1, GUESSING * 1.1, "guessing")
    right.text(1, SOLVED * 1.1, "solved")
    right.set(yscale="log", ylabel="test error", title="Sums over 100 steps, RNN with Adam: five seeds each")
    return figure


def direction() -> Figure:
    """Draw the cosine between the gradient before and after every clip, step by step."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    ways: tuple[dict[str, Any], ...] = (
        {"clip": "value", "range": 0.001},
        {"clip": "l1", "max_norm": 0.1},
        {"clip": "l2", "max_norm": 0.1},
        {"clip": "global", "max_norm": 0.1},
    )
    for asked, colour in zip(ways, pictures.COLOURS, strict=False):
        run = trained("mlp", epochs=8, **asked)
        label = ", ".join(str(value) for value in asked.values())
        axes.plot([s.step for s in run.history], [s.cosine for s in run.history], color=colour, label=label)
    axes.set(xlabel="step", ylabel="cosine, before and after", title="Digits: which clip turns the gradient")
    axes.legend()
    return figure


def scale() -> Figure:
    """Draw the scales of batch normalisation where weight clipping leaves them alone, and where not."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, where in zip(panels, ("kernels", "all"), strict=True):
        run = trained("mlp", clip="weights", range=0.1, normalization="batch", where=where)
        network: Any = run.trainer.network
        scales = np.concatenate([p["scale"] for p in network.parameters.values() if "scale" in p])
        axes.hist(scales, bins=np.linspace(0, 2, 41), color=pictures.AFTER)
        axes.axvline(0.1, color=pictures.LIMIT, linestyle="--", label="range ±0.1")
        accuracy = run.scores()["test_accuracy"]
        axes.set(xlabel="scale of batch norm", title=f"weights clipped: {where}; accuracy {accuracy:.3f}")
        axes.legend()
    panels[0].set_ylabel("how many")
    return figure


def points() -> Figure:
    """Draw what the generator makes under too small a range, one that fits, and too large a one."""
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    for axes, end in zip(figure.subplots(1, 3), (0.03, 0.2, 1.0), strict=True):
        run = trained("wgan", range=end)
        pictures.samples(axes, run)
        end_of_it = "diverged" if run.diverged else f"{run.scores()['modes']} of eight modes found"
        axes.set_title(f"range ±{end:g}: {end_of_it}")
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]))
