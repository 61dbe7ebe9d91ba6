"""docs/demo.md: its tables are those of the rows beside it, and the rows show what the page says of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_figures", DOCS / "demo_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(figures: ModuleType) -> Callable[..., Rows]:
    """The rows of a table in which the columns given have the values given."""
    every: Rows = figures.read_rows()

    def of(table: str, **wanted: str) -> Rows:
        found = [
            row for row in every if row["table"] == table and all(row[k] == v for k, v in wanted.items())
        ]
        assert len({row["seed"] for row in found}) == 5, "five seeds"
        return found

    return of


def scores(rows: Rows, measure: str) -> list[float]:
    return [float(row[measure]) if row[measure] else float("inf") for row in rows]


def test_the_tables_are_those_of_the_rows(figures: ModuleType) -> None:
    page = (DOCS / "demo.md").read_text(encoding="utf-8")
    assert figures.filled(page, figures.read_rows()) == page


def test_every_run_that_the_page_is_made_of_is_among_the_rows(figures: ModuleType) -> None:
    kept = dict.fromkeys(figures.experiments(), 0)
    for row in figures.read_rows():
        kept[row["table"]] += 1
    assert kept == {name: len(options) for name, options in figures.experiments().items()}


def test_every_picture_of_the_page_is_there() -> None:
    page = (DOCS / "demo.md").read_text(encoding="utf-8")
    for picture in (DOCS / "demo").glob("*.png"):
        assert f"(demo/{picture.name})" in page
    assert page.count("](demo/") == len(list((DOCS / "demo").glob("*.png"))) + 1  # and the rows


def test_the_digits_are_learnt(rows: Callable[..., Rows]) -> None:
    assert min(scores(rows("digits"), "test_accuracy")) >= 0.97


def test_where_training_without_clipping_diverges_clipped_training_learns(rows: Callable[..., Rows]) -> None:
    without, clipped = rows("exploding", clip="none"), rows("exploding", clip="global")
    assert all(row["diverged"] == "True" for row in without)
    assert max(scores(without, "test_accuracy")) < 0.5
    assert all(row["diverged"] == "False" for row in clipped)
    assert min(scores(clipped, "test_accuracy")) >= 0.95


def test_the_network_over_time_fails_without_clipping_and_adds_with_it(rows: Callable[..., Rows]) -> None:
    guessing = 1 / 6
    assert min(scores(rows("rnn", clip="none"), "test_error")) > 0.8 * guessing
    assert max(scores(rows("rnn", max_norm="1.0"), "test_error")) < 0.02


def test_clipping_by_value_turns_the_gradient_and_by_the_global_norm_does_not(
    rows: Callable[..., Rows],
) -> None:
    assert max(scores(rows("direction", clip="value"), "median_cosine")) < 0.99
    assert min(scores(rows("direction", clip="global"), "median_cosine")) > 1 - 1e-12


def test_clipping_the_scales_too_costs_batch_normalisation_its_accuracy(rows: Callable[..., Rows]) -> None:
    kernels, every = rows("scale", where="kernels"), rows("scale", where="all")
    assert min(scores(kernels, "test_accuracy")) > max(scores(every, "test_accuracy"))


def test_the_modes_found_against_the_range(rows: Callable[..., Rows]) -> None:
    found, norms = (
        {
            end: median(scores(rows("wgan", clip="weights", range=end), measure))
            for end in ("0.03", "0.2", "0.3", "1.0")
        }
        for measure in ("modes", "median_generator_norm")
    )
    assert found["0.2"] == 8
    assert max(found["0.03"], found["1.0"]) < 4
    assert norms["0.03"] < norms["0.2"] / 10
    assert norms["0.3"] > norms["0.2"]
    assert all(row["diverged"] == "True" for row in rows("wgan", clip="weights", range="1.0"))


def test_adam_hides_what_the_range_does(rows: Callable[..., Rows]) -> None:
    small, *others = (
        median(scores(rows("adam", range=end), "modes")) for end in ("0.01", "0.1", "0.3", "1.0", "3.0")
    )
    assert small < 4
    assert min(others) >= 7
    norms = [median(scores(rows("adam", range=end), "median_generator_norm")) for end in ("0.01", "3.0")]
    assert norms[1] > 10_000 * norms[0]
