"""Clips as optax and JAX use a transformation: loops, wrappers, schedules, devices; and the page on them."""

from __future__ import annotations

import doctest
import importlib
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcore.verify.exact import exact_norm

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def optax(request: pytest.FixtureRequest) -> Any:
    if request.config.getoption("--require-all"):
        return importlib.import_module("optax")
    return pytest.importorskip("optax", reason="optax is not installed")


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Any:
    request.getfixturevalue("optax")
    return importlib.import_module("clipcore.integrations.optax")


@pytest.fixture
def jax(request: pytest.FixtureRequest) -> Any:
    request.getfixturevalue("optax")
    return importlib.import_module("jax")


@pytest.fixture(params=[False, True], ids=["float32 only", "x64"])
def wide(request: pytest.FixtureRequest, jax: Any) -> Iterator[bool]:
    """Whether JAX has float64, in both modes."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param)
    yield request.param
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("wide")
def test_no_shape_or_dtype_of_a_state_ever_changes_and_nothing_is_compiled_again(
    ours: Any, optax: Any, jax: Any
) -> None:
    weights = {"w": jax.numpy.ones((3, 2), "bfloat16"), "b": jax.numpy.ones(2, "float32"), "none": None}
    for clip in (
        ours.clip_by_global_norm(1.0),
        ours.clip_by_l1_norm(1.0),
        ours.clip_by_l2_norm(1.0, axis=0),
        ours.clip_by_value(-1, 1),
        ours.keep_weights_in_range(-1, 1),
    ):
        optimizer = optax.chain(clip, optax.adam(0.1))
        compiled = jax.jit(optimizer.update)
        state = optimizer.init(weights)
        forms = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)
        for factor in (1.0, 0.0, 1e20, math.nan):
            gradients = jax.tree.map(lambda x, factor=factor: (x * factor).astype(x.dtype), weights)
            _, state = compiled(gradients, state, weights)
            assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == forms
        assert compiled._cache_size() == 1


@pytest.mark.usefixtures("wide")
def test_a_loop_carries_the_state(ours: Any, optax: Any, jax: Any) -> None:
    weights = {"w": jax.numpy.ones((3, 2), "bfloat16"), "b": jax.numpy.ones(2, "float32"), "none": None}
    optimizer = optax.chain(ours.clip_by_global_norm(1.0), optax.adam(0.1), ours.keep_weights_in_range(-1, 1))

    def step(carry: Any, gradients: Any) -> Any:
        state, weights = carry
        updates, state = optimizer.update(gradients, state, weights)
        return (state, optax.apply_updates(weights, updates)), None

    stacked = jax.tree.map(lambda x: jax.numpy.stack([-x] * 4), weights)
    (state, weights), _ = jax.lax.scan(step, (optimizer.init(weights), weights), stacked)
    assert state[0].norm == pytest.approx(8**0.5)
    assert jax.tree.all(jax.tree.map(lambda x: bool((x == 1).all()), weights))


def test_the_norm_of_the_last_updates_is_found_by_its_name(ours: Any, optax: Any, jax: Any) -> None:
    optimizer = optax.chain(optax.scale(2.0), ours.clip_by_global_norm(1.0), optax.sgd(0.1))
    weights = [jax.numpy.zeros(2)]
    state = optimizer.init(weights)
    assert optax.tree_utils.tree_get(state, "norm") == 0
    _, state = optimizer.update([jax.numpy.asarray([3.0, 4.0])], state, weights)
    assert optax.tree_utils.tree_get(state, "norm") == 10


def test_a_limit_on_a_schedule_is_not_looked_at(ours: Any, optax: Any, jax: Any) -> None:
    schedule = optax.linear_schedule(4.0, 0.0, 4)
    for make in (ours.clip_by_global_norm, ours.clip_by_l1_norm, ours.clip_by_l2_norm):
        clip = optax.inject_hyperparams(make)(max_norm=schedule)
        update = jax.jit(clip.update)
        gradients = [jax.numpy.asarray([8.0])]
        state = clip.init(gradients)
        for limit in (4.0, 3.0, 2.0, 1.0, 0.0, 0.0):
            updates, state = update(gradients, state)
            assert limit * (1 - 2**-21) <= updates[0][0] <= limit
        assert update._cache_size() == 1
    clip = optax.inject_hyperparams(ours.clip_by_value)(lower=-1.0, upper=schedule)
    updates, _ = jax.jit(clip.update)(gradients, clip.init(gradients))
    assert updates[0][0] == 4
    negative = optax.inject_hyperparams(ours.clip_by_global_norm)(max_norm=-1.0)
    assert jax.numpy.isnan(negative.update(gradients, negative.init(gradients))[0][0]).all()


def test_a_batch_of_trees_is_clipped_tree_by_tree(ours: Any, jax: Any) -> None:
    random = np.random.default_rng(2)
    batch = {
        "w": jax.numpy.asarray(random.standard_normal((6, 3, 2)), "float32"),
        "b": jax.numpy.ones((6, 1)),
    }
    for clip in (ours.clip_by_global_norm(1.5), ours.clip_by_value(-0.5, 0.5)):
        state = clip.init(jax.tree.map(lambda x: x[0], batch))
        rows, states = jax.jit(jax.vmap(clip.update, in_axes=(0, None)))(batch, state)
        one = jax.jit(clip.update)
        for k in range(6):
            row, alone = one(jax.tree.map(lambda x, k=k: x[k], batch), state)
            same = jax.tree.map(lambda x, y, k=k: bool((x[k] == y).all()), (rows, states), (row, alone))
            assert jax.tree.all(same)


def test_every_wrapper_of_optax_takes_the_transformations(ours: Any, optax: Any, jax: Any) -> None:
    weights = {"a": jax.numpy.asarray([3.0, 4.0]), "b": jax.numpy.asarray([5.0, 12.0])}
    labels = {"a": "by_two", "b": "by_value"}
    choose = getattr(optax, "multi_transform", None) or optax.partition
    parted = choose({"by_two": ours.clip_by_l2_norm(1.0), "by_value": ours.clip_by_value(-1, 1)}, labels)
    updates, _ = jax.jit(parted.update)(weights, parted.init(weights), weights)
    assert updates["b"].tolist() == [1.0, 1.0]
    assert exact_norm([np.asarray(updates["a"])], 2).compare(1) <= 0
    for clip in (ours.clip_by_global_norm(1.0), ours.keep_weights_in_range(-9, 9)):
        masked = optax.masked(clip, {"a": True, "b": False})
        updates, _ = jax.jit(masked.update)(weights, masked.init(weights), weights)
        assert updates["b"].tolist() == [5.0, 12.0]
        assert updates["a"][1] < 4 or updates["a"].tolist() == [3.0, 4.0]
    steps = optax.MultiSteps(optax.chain(ours.clip_by_global_norm(1.0), optax.sgd(1.0)), every_k_schedule=2)
    state = steps.init(weights)
    update = jax.jit(steps.update)
    for _ in range(2):
        updates, state = update(weights, state, weights)
    assert Fraction(99, 100) < exact_norm([np.asarray(x) for x in updates.values()], 2).bounds()[1] <= 1
    finite = optax.apply_if_finite(ours.clip_by_global_norm(1.0), 5)
    broken = {"a": jax.numpy.asarray([math.nan, 0.0]), "b": weights["b"]}
    updates, _ = jax.jit(finite.update)(broken, finite.init(weights), weights)
    assert updates["b"].tolist() == [0.0, 0.0]


def test_states_can_be_saved_donated_and_taken_apart(ours: Any, jax: Any) -> None:
    clip = ours.clip_by_l1_norm(1.0)
    gradients = {"w": jax.numpy.asarray([3.0, 4.0])}
    _, state = clip.update(gradients, clip.init(gradients))
    again = pickle.loads(pickle.dumps(state))
    assert type(again) is ours.NormState
    assert again.norm["w"] == 7
    leaves, spec = jax.tree.flatten(state)
    assert spec.unflatten(leaves).norm["w"] == 7
    updates, state = jax.jit(clip.update, donate_argnums=(0, 1))(gradients, state)
    assert state.norm["w"] == 7
    assert exact_norm([np.asarray(updates["w"])], 1).compare(1) <= 0


def test_a_step_is_spread_over_eight_devices(optax: Any) -> None:
    command = [sys.executable, str(ROOT / "tests" / "optax_devices.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"optax {optax.__version__}: {done.stderr}"
    assert done.stdout == "on 8 devices as on one\n"


def test_the_example_runs_and_prints_what_it_found(optax: Any) -> None:
    command = [sys.executable, str(ROOT / "docs" / "examples" / "optax_training.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"optax {optax.__version__}: {done.stderr}"
    assert re.fullmatch(
        r"loss 1\.\d+ -> 0\.\d+, \d+ of 300 steps clipped, \d+ of 96 weights at a bound\n", done.stdout
    )


def test_what_the_page_and_the_docstrings_show_is_true(ours: Any) -> None:
    outcome = doctest.testmod(ours)
    assert outcome.failed == 0
    assert outcome.attempted > 30
    page = (ROOT / "docs" / "optax.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    example = doctest.DocTestParser().get_doctest(code, {}, "optax", "optax.md", 0)
    assert doctest.DocTestRunner().run(example).failed == 0
    floors = re.search(r"needs optax (\S+) and JAX (\S+),", page)
    source = (ROOT / "clipcore" / "integrations" / "_optax.py").read_text(encoding="utf-8")
    assert floors is not None
    assert f'require("optax", "{floors[1]}")' in source
    assert f'require("jax", "{floors[2]}", integration="optax")' in source
