"""Runs of the demo: what a step records, that equal runs are equal to the bit, what diverging looks like."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from clipcore.demo.clipping import CLIPS, NORMS, RANGES, Clipping, cosine
from clipcore.demo.data import LENGTH, MODES, SPREAD, Data, load_data, ring_centres
from clipcore.demo.layers import Network
from clipcore.demo.options import DEFAULTS, MODELS, OptionError, Options
from clipcore.demo.running import Run, train
from clipcore.demo.training import Step, Supervised, batches
from clipcore.demo.wgan import WGAN, modes_found, sliced_distance


def small(model: str) -> Data:
    """A few examples of what a model learns: seconds, not minutes."""
    data = load_data(model)
    count = {"mlp": 256, "rnn": 64, "wgan": 1280}[model]
    return dataclasses.replace(data, x=data.x[:count], y=data.y[:count])


def run(model: str, epochs: int = 1, **asked: Any) -> Run:
    return train(Options.of(model, epochs=epochs, **asked), small(model))


def exact_norm_is_at_most(tree: Any, limit: float) -> bool:
    squares = (
        Fraction(float(g)) ** 2 for layer in tree.values() for leaf in layer.values() for g in leaf.flat
    )
    return sum(squares) <= Fraction(limit) ** 2


@pytest.mark.parametrize("model", MODELS)
def test_equal_runs_are_equal_to_the_bit_and_other_seeds_are_not(model: str) -> None:
    first, again, other = run(model, seed=4), run(model, seed=4), run(model, seed=5)
    assert repr(first.history) == repr(again.history)  # repr: NaN is like itself
    assert first.scores() == again.scores()
    for a, b in zip(leaves(first), leaves(again), strict=True):
        assert a.tobytes() == b.tobytes()
    assert repr(first.history) != repr(other.history)
    assert len(first.history) == first.trainer.steps_planned > 0


def leaves(each: Run) -> list[Any]:
    return [leaf for layer in each.trainer.network.parameters.values() for leaf in layer.values()]


@pytest.mark.parametrize("clip", CLIPS)
def test_a_step_records_what_clipping_did(clip: str) -> None:
    limit: dict[str, Any] = {"max_norm": 0.5} if clip in NORMS else {"range": 0.1} if clip in RANGES else {}
    steps = run("mlp", clip=clip, **limit).history
    assert [step.step for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert step.generator_norm is None
        assert (step.at_bound is None) == (clip != "weights")
        if clip in ("none", "weights"):
            assert step.norm_after == step.norm_before
            assert step.cosine == 1
            assert step.clipped == (clip == "weights")
        else:
            assert step.norm_after < step.norm_before
            assert step.clipped
    if clip == "global":
        assert all(0.5 * (1 - 1e-15) <= step.norm_after <= 0.5 for step in steps)
        assert all(step.cosine == pytest.approx(1, abs=1e-14) for step in steps)
    if clip in ("value", "l1", "l2"):  # the leaves are scaled, or the elements cut, each in its own way
        assert all(0.2 < step.cosine < 1 - 1e-6 for step in steps)


def test_weights_are_inside_their_range_after_every_step_and_only_kernels_are_clipped() -> None:
    options = Options.of("mlp", clip="weights", range=0.05, epochs=1, learning_rate=1.0)
    trainer = Supervised(options, small("mlp"))
    most_bias = 0.0
    for step in trainer.steps():
        kernels = [layer["kernel"] for layer in trainer.network.parameters.values()]
        assert all((abs(kernel) <= 0.05).all() for kernel in kernels)
        at_bound = sum((abs(kernel) == 0.05).sum() for kernel in kernels) / sum(k.size for k in kernels)
        assert step.at_bound == at_bound > 0
        most_bias = max(
            most_bias, *(abs(layer["bias"]).max() for layer in trainer.network.parameters.values())
        )
    assert most_bias > 0.05


def test_clipping_all_weights_destroys_the_scale_of_a_normalisation() -> None:
    for where, scale in (("kernels", 0.5), ("all", 0.1)):
        network = run("mlp", clip="weights", range=0.1, where=where, normalization="batch").trainer.network
        scales = np.concatenate([layer["scale"] for layer in network.parameters.values() if "scale" in layer])
        assert (scales.max() <= scale) == (where == "all")


def test_gradients_clipped_by_each_norm_keep_their_limit_exactly() -> None:
    tree = {"a": {"kernel": np.array([[3.0, -4.0]]), "bias": np.array([1e-3])}}
    assert exact_norm_is_at_most(Clipping("global", 0.7).gradients(tree), 0.7)
    for kind, size in (
        ("l1", lambda g: np.abs(g).sum()),
        ("l2", np.linalg.norm),
        ("value", lambda g: abs(g).max()),
    ):
        clipped = Clipping(kind, 0.7).gradients(tree)["a"]
        assert size(clipped["kernel"]) == pytest.approx(0.7, rel=1e-12)
        assert clipped["bias"] == 1e-3, "each leaf has a norm of its own"
    assert Clipping("none").gradients(tree) is tree


def test_the_cosine() -> None:
    a, b = {"x": np.array([3.0, 0.0])}, {"x": np.array([1.0, 1.0])}
    assert cosine(a, b, 3.0, math.sqrt(2)) == pytest.approx(math.sqrt(0.5))
    assert cosine(a, a, 3.0, 3.0) == 1
    assert math.isnan(cosine({"x": np.zeros(2)}, {"x": np.zeros(2)}, 0.0, 0.0))


def test_a_run_that_diverges_says_why_and_keeps_the_network_from_before() -> None:
    diverged = run("mlp", clip="none", optimizer="sgd", learning_rate=1e8)
    assert "the loss is" in diverged.diverged
    assert 0 < len(diverged.history) < diverged.trainer.steps_planned
    assert all(math.isfinite(step.loss) for step in diverged.history)
    assert all(np.isfinite(leaf).all() for leaf in leaves(diverged))
    assert 0 <= diverged.scores()["test_accuracy"] < 0.5


@pytest.mark.parametrize("model", ["mlp", "wgan"])
def test_gradients_that_are_not_finite_are_told_before_the_step(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "gradients", {"dense": {"kernel": np.array([np.inf])}})
    diverged = run(model)
    assert diverged.diverged == "the norm of the gradients is inf"
    assert diverged.history == []


def test_an_interruption_ends_a_run_with_what_was_done() -> None:
    def stop(so_far: Run) -> None:
        if len(so_far.history) == 2:
            raise KeyboardInterrupt

    options = Options.of("mlp", epochs=2)
    stopped = train(options, small("mlp"), stop)
    assert stopped.interrupted
    assert len(stopped.history) == 2
    assert not stopped.diverged


def test_batches_are_all_rows_once_an_epoch_but_the_remainder() -> None:
    made = list(batches(np.random.default_rng(0), 2, 10, size=4))
    assert [epoch for epoch, _ in made] == [1, 1, 2, 2]
    for epoch in (1, 2):
        rows = np.concatenate([rows for e, rows in made if e == epoch])
        assert len(set(rows.tolist())) == 8
        assert set(rows.tolist()) <= set(range(10))
    assert [len(rows) for _, rows in batches(np.random.default_rng(0), 1, 3, size=4)] == [3]


def test_the_wgan_moves_its_generator_every_fifth_step_and_its_critic_sees_the_range() -> None:
    options = Options.of("wgan", epochs=1)
    trainer = WGAN(options, small("wgan"))
    before = [leaf.copy() for layer in trainer.generator.parameters.values() for leaf in layer.values()]
    steps: list[Step] = []
    for step in trainer.steps():
        steps.append(step)
        now = [leaf for layer in trainer.generator.parameters.values() for leaf in layer.values()]
        moved = any((a != b).any() for a, b in zip(before, now, strict=True))
        assert moved == (step.step >= 5)
        assert all((abs(layer["kernel"]) <= 0.2).all() for layer in trainer.network.parameters.values())
    assert [step.generator_norm is not None for step in steps] == [False] * 4 + [True] + [False] * 4 + [True]


def test_the_modes_found_of_the_ring_of_a_cloud_and_of_one_point() -> None:
    ring = load_data("wgan").x_test
    found, near = modes_found(ring)
    assert (found, round(near, 1)) == (MODES, 1.0)
    cloud = np.random.default_rng(0).normal(size=(2000, 2))
    assert modes_found(cloud)[0] == 0
    assert modes_found(np.repeat(ring_centres()[:1], 2000, axis=0)) == (1, 1.0)
    assert sliced_distance(ring, ring[::-1]) == 0
    way = np.array([3.0, 4.0])
    one, two = sliced_distance(ring, ring + way), sliced_distance(ring, ring + 2 * way)
    assert two == pytest.approx(2 * one, rel=1e-12)
    assert one == pytest.approx(5 * 2 / math.pi, rel=0.15)  # the mean of |cos|, over 64 directions
    apart = np.linalg.norm(ring_centres()[0] - ring_centres()[1])
    assert apart > 6 * SPREAD, "no point is near two modes"


def test_the_adding_problem() -> None:
    data = load_data("rnn")
    assert data.x.shape[1:] == (LENGTH, 2)
    numbers, marks = data.x[..., 0], data.x[..., 1]
    assert set(np.unique(marks)) == {0.0, 1.0}
    for half in (marks[:, : LENGTH // 2], marks[:, LENGTH // 2 :]):
        assert (half.sum(1) == 1).all()
    assert np.allclose((numbers * marks).sum(1), data.y[:, 0], atol=1e-12)
    assert np.mean((data.y_test - 1) ** 2) == pytest.approx(1 / 6, rel=0.1)


def test_training_data_and_test_data_are_the_same_for_every_seed_and_apart() -> None:
    data = load_data("mlp")
    assert (len(data.x), len(data.x_test)) == (1438, 359)
    seen = {row.tobytes() for row in data.x}
    assert sum(row.tobytes() in seen for row in data.x_test) == 0
    assert data.x.mean() == pytest.approx(0, abs=1e-12)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "cnn"}, "model: 'cnn' is not one of mlp, rnn, wgan"),
    ({"model": "mlp", "clip": "l3"}, "clip: 'l3' is not one of none, value, weights, l1, l2, global"),
    ({"model": "mlp", "range": 1.0}, "range: it limits the clips value, weights; this one is global"),
    ({"model": "mlp", "clip": "none", "max_norm": 1.0}, "max_norm: it limits the clips l1, l2, global"),
    ({"model": "mlp", "max_norm": -1.0}, "max_norm: -1.0 is no finite number of 0 or more"),
    ({"model": "mlp", "max_norm": math.nan}, "max_norm: nan is no finite number of 0 or more"),
    ({"model": "mlp", "learning_rate": 0.0}, "learning_rate: 0.0 is no positive number"),
    ({"model": "mlp", "learning_rate": math.inf}, "learning_rate: inf is no positive number"),
    ({"model": "mlp", "epochs": 0}, "epochs: 0 is less than 1"),
    ({"model": "mlp", "seed": -1}, "seed: -1 is less than 0"),
    ({"model": "rnn", "normalization": "batch"}, "normalization: the mlp and the wgan have a choice"),
    ({"model": "mlp", "speed": 3}, "speed: no such option"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_options_that_do_not_fit_are_refused_with_a_reason(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match="^" + message.replace("(", "\\(")):
        Options.of(**asked)


def test_nothing_asked_is_the_default_and_a_limit_follows_its_clip() -> None:
    for model in MODELS:
        options = Options.of(model, clip=None, seed=None)
        assert options.clip == DEFAULTS[model]["clip"]
        assert Options.of(model, clip="none").clipping == Clipping("none", math.inf)
    assert Options.of("mlp", clip="value").range == DEFAULTS["mlp"]["range"]
    assert Options.of("mlp", clip="l1", max_norm=2).clipping == Clipping("l1", 2)
