"""Weights that stay in a range: what optax adds to them, rounded, is judged by what it is."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import clipcore

BITS: dict[str, Any] = {
    "float16": np.uint16,
    "bfloat16": np.uint16,
    "float32": np.uint32,
    "float64": np.uint64,
}
PRECISION = {"float16": 11, "bfloat16": 8}
RANGES = [(-0.1, 0.1), (0.1, 0.3), (-1, 1), (-3, -0.7), (0, 0.01), (1.0, 1.0), (0.98, 1.01), (-6e4, 6e4)]
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def optax(request: pytest.FixtureRequest) -> Any:
    if request.config.getoption("--require-all"):
        return importlib.import_module("optax")
    return pytest.importorskip("optax", reason="optax is not installed")


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Any:
    request.getfixturevalue("optax")
    return importlib.import_module("clipcore.integrations.optax").keep_weights_in_range


@pytest.fixture
def jax(request: pytest.FixtureRequest) -> Iterator[Any]:
    """JAX with float64."""
    request.getfixturevalue("optax")
    jax = importlib.import_module("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


def dtype(name: str) -> Any:
    return np.dtype(getattr(ml_dtypes, name, name))


def cast(x: Array, name: str) -> Array:
    """The nearest numbers of a format, infinities and NaN among them."""
    with np.errstate(all="ignore"):
        return x.astype(dtype(name))


def finite(name: str) -> Array:
    """All finite numbers of a format of 16 bits."""
    every: Array = np.arange(1 << 16, dtype=np.uint16).view(dtype(name))
    return every[np.isfinite(cast(every, "float32"))]


def within(x: Array, lower: float, upper: float) -> Array:
    """Which elements are in the range; all of them are numbers of Python's float, so nothing is rounded."""
    wide = cast(x, "float64")
    return (wide >= lower) & (wide <= upper)


def moved(optax: Any, jax: Any, keep: Any, bounds: tuple[Any, Any]) -> Any:
    """One compiled step: the weights after it, and the update that was kept."""
    kept = keep(*bounds)

    def step(weights: Any, gradients: Any, rate: Any = None) -> Any:
        updates = gradients if rate is None else gradients * rate
        updates, _ = kept.update(updates, kept.init(weights), weights)
        return optax.apply_updates(weights, updates), updates

    return jax.jit(step)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("bounds", RANGES[:-1])
def test_every_update_of_16_bits_leaves_a_weight_in_its_range(
    optax: Any, jax: Any, keep: Any, name: str, bounds: tuple[float, float]
) -> None:
    updates = finite(name)
    inside = updates[within(updates, *bounds)]
    random = np.random.default_rng(0)
    ordered = np.sort(inside.astype(np.float64)).astype(dtype(name))
    starts = np.concatenate([ordered[:4], ordered[-4:], random.choice(inside, 8)])
    weights, every = (x.ravel() for x in np.meshgrid(starts, updates, indexing="ij"))
    step = moved(optax, jax, keep, bounds)
    after, kept = (np.asarray(x) for x in step(weights, every))
    assert after.dtype == kept.dtype == dtype(name)
    assert within(after, *bounds).all()
    free = np.asarray(optax.apply_updates(jax.numpy.asarray(weights), every))
    stays = within(free, *bounds)
    assert kept[stays].tobytes() == every[stays].tobytes()
    bound = np.where(cast(free, "float32") > bounds[1], ordered[-1], ordered[0])[~stays]
    missed = np.abs(cast(after[~stays], "float64") - cast(bound, "float64"))
    # What an update can reach: the distance is known to one of its own steps.
    distance = np.abs(cast(bound, "float64") - cast(weights[~stays], "float64"))
    step_size = 2.0 ** (np.floor(np.log2(np.maximum(distance, 2.0**-60))) - PRECISION[name] + 1)
    assert (missed <= 2 * np.maximum(step_size, 2.0**-24)).all()
    assert (missed == 0).mean() > 0.5


@pytest.mark.parametrize("weight", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("update", ["float16", "bfloat16", "float32", "float64"])
def test_weights_and_updates_of_any_formats_stay_in_their_range(
    optax: Any, jax: Any, keep: Any, weight: str, update: str
) -> None:
    random = np.random.default_rng(1)
    size = 1 << 15
    for bounds in RANGES:
        lower, upper = bounds
        choice = np.where(random.random(size) < 0.3, np.where(random.random(size) < 0.5, *bounds), np.nan)
        start = np.where(np.isnan(choice), random.uniform(lower, upper, size), choice).astype(dtype(weight))
        start = clipcore.clip_by_value(start, lower, upper)
        anything = random.integers(0, np.iinfo(BITS[update]).max, size, BITS[update], endpoint=True)
        target = np.where(random.random(size) < 0.5, *bounds) - start.astype(np.float64)
        hair = 1 + random.integers(-3, 4, size) * 2.0 ** -random.integers(6, 56, size)
        step = moved(optax, jax, keep, bounds)
        for gradients in (anything.view(dtype(update)), cast(target / 0.3 * hair, update)):
            after, kept = step(start, gradients, np.asarray(0.3, dtype(update)))
            nan = np.isnan(cast(np.asarray(kept), "float64"))
            assert np.array_equal(within(np.asarray(after), lower, upper), ~nan)
            assert np.isnan(cast(gradients, "float64"))[nan].all()


def test_a_weight_far_outside_comes_back_as_soon_as_an_update_can_do_it(
    optax: Any, jax: Any, keep: Any
) -> None:
    every = finite("float16")
    random = np.random.default_rng(2)
    for bounds in ((0.1, 0.3), (-3, -0.7), (1.0, 1.0), (-0.1, 0.1), (0.98, 1.01)):
        starts = random.choice(every, 40)
        step = moved(optax, jax, keep, bounds)
        after = np.asarray(step(starts, np.full_like(starts, np.inf))[0])
        down = np.asarray(step(starts, np.full_like(starts, -np.inf))[0])
        again = np.asarray(step(after, np.ones_like(starts))[0])
        for start, *landed in zip(starts, after, down, strict=True):
            with np.errstate(over="ignore"):
                possible = within(start + every, *bounds).any()
            assert within(np.array(landed), *bounds).all() == possible
            assert possible or landed == [0, 0]
        assert within(again, *bounds).all()
    start = np.array([1e10], np.float32)
    for bounds in ((0.1, 0.2), (-0.2, -0.1)):
        step = moved(optax, jax, keep, bounds)
        first, _ = step(start, np.zeros_like(start))
        assert first.tolist() == [0.0]
        assert within(np.asarray(step(first, np.zeros_like(start))[0]), *bounds).all()


def test_adam_with_a_large_rate_stays_in_range_for_a_thousand_steps(optax: Any, jax: Any, keep: Any) -> None:
    random = np.random.default_rng(3)
    lower, upper = -0.1, 0.07
    names = ["float16", "bfloat16", "float32", "float64"]
    weights = {
        name: clipcore.clip_by_value(random.uniform(-1, 1, 64).astype(dtype(name)), lower, upper)
        for name in names
    }
    weights["mixed"] = weights["bfloat16"]
    optimizer = optax.chain(optax.adam(3.0, eps=1e-4), keep(lower, upper))

    def step(weights: Any, state: Any, key: Any) -> Any:
        def loss(weights: Any) -> Any:
            leaves = jax.tree.leaves(weights)
            keys = jax.random.split(key, len(leaves))
            return sum(
                ((x - jax.random.normal(k, x.shape, x.dtype)).astype("float32") ** 2).sum()
                for x, k in zip(leaves, keys, strict=True)
            )

        gradients = jax.grad(loss)(weights)
        gradients["mixed"] = gradients["mixed"].astype("float32")
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    state, compiled, seen = optimizer.init(weights), jax.jit(step), set()
    for key in jax.random.split(jax.random.key(0), 1000):
        weights, state = compiled(weights, state, key)
        for name, leaf in weights.items():
            values = np.asarray(leaf)
            assert values.dtype == dtype("bfloat16" if name == "mixed" else name)
            assert within(values, lower, upper).all()
            seen |= {(name, bool(inner)) for inner in (values != values.max()) & (values != values.min())}
    assert {name for name, inner in seen if inner} == set(weights)


def test_a_product_is_not_fused_with_the_addition_that_follows(jax: Any) -> None:
    settled = importlib.import_module("clipcore.integrations._optax")._settled
    random = np.random.default_rng(4)
    for name in BITS:
        a, b, c = random.standard_normal((3, 1 << 14)).astype(dtype(name))
        together = jax.jit(lambda a, b, c: c + settled(a * b))(a, b, c)
        product = np.asarray(jax.jit(lambda a, b: a * b)(a, b))
        assert np.asarray(together).tobytes() == np.asarray(jax.jit(lambda c, d: c + d)(c, product)).tobytes()
        every = np.asarray([0.0, -0.0, math.inf, -math.inf, 1.0], dtype(name))
        assert np.asarray(jax.jit(settled)(every)).tobytes() == every.tobytes()


def test_nan_and_infinity(optax: Any, jax: Any, keep: Any) -> None:
    step = moved(optax, jax, keep, (-1, 1))
    after, _ = step(
        np.array([0, 0, 0, math.inf], np.float32),
        np.array([math.nan, math.inf, -math.inf, 1], np.float32),
        np.float32(1),
    )
    assert np.isnan(after[0])
    assert after[1:].tolist() == [1.0, -1.0, math.inf]
    bounds = keep(jax.numpy.asarray([math.nan, 0.5], "float32"), None)
    updates, _ = bounds.update(jax.numpy.zeros(2), None, jax.numpy.zeros(2))
    assert np.isnan(updates[0])
    assert updates[1] == 0.5


def test_bounds_may_be_traced_and_differ_from_element_to_element(optax: Any, jax: Any, keep: Any) -> None:
    shrinking = optax.inject_hyperparams(keep)(lower=None, upper=optax.linear_schedule(1.0, 0.0, 4))
    weights = [jax.numpy.asarray([0.9, 0.1], "float32")]
    state, update = shrinking.init(weights), jax.jit(shrinking.update)
    for upper in (1.0, 0.75, 0.5, 0.25, 0.0):
        updates, state = update([jax.numpy.zeros(2, "float32")], state, weights)
        weights = optax.apply_updates(weights, updates)
        assert max(weights[0].tolist()) <= upper
    assert update._cache_size() == 1
    each = keep(jax.numpy.asarray([0.1, -3.0]), jax.numpy.asarray([0.2, -2.0]))
    updates, _ = each.update(jax.numpy.zeros(2, "float32"), None, jax.numpy.zeros(2, "float32"))
    assert within(np.asarray(updates), np.array([0.1, -3.0]), np.array([0.2, -2.0])).all()  # type: ignore[arg-type]


def test_where_chooses_by_the_path_and_leaves_the_rest_untouched(jax: Any, keep: Any) -> None:
    weights = {
        "dense": [{"kernel": np.array([0.5], np.float32), "bias": np.array([0.5], np.float32)}],
        "steps": np.arange(2),
        "no": None,
    }
    updates = {
        "dense": [{"kernel": np.array([9.0], np.float32), "bias": np.array([9.0], np.float32)}],
        "steps": np.arange(2),
        "no": None,
    }
    paths = []

    def kernels(path: tuple[Any, ...], leaf: Any) -> bool:
        paths.append((path, leaf.shape))
        return bool(path[-1] == "kernel")

    kept = keep(-1, 1, where=kernels)
    after, _ = jax.jit(kept.update)(updates, kept.init(weights), weights)
    assert sorted(paths) == [
        (("dense", 0, "bias"), (1,)),
        (("dense", 0, "kernel"), (1,)),
        (("steps",), (2,)),
    ]
    assert after["dense"][0]["kernel"] == 0.5
    assert after["dense"][0]["bias"] == 9
    assert after["steps"].tolist() == [0, 1]
    with pytest.raises(
        TypeError, match=r"keep_weights_in_range: params\['steps'\] has dtype int64; .* where="
    ):
        keep(-1, 1).update(updates, None, weights)
    with pytest.raises(TypeError, match="keep_weights_in_range: where returned 'yes'; return True or False"):
        keep(-1, 1, where=lambda path, leaf: "yes").update(updates, None, weights)
    with pytest.raises(TypeError, match="keep_weights_in_range: where is 3; give a function"):
        keep(-1, 1, where=3)
    with pytest.raises(ValueError, match=r"params is None; call update\(updates, state, params\)"):
        kept.update(updates, None)
    with pytest.raises(ValueError, match="keep_weights_in_range: lower is 1 and upper is -1"):
        keep(1, -1)
    with pytest.raises(ValueError, match="no float32 lies between"):
        keep(0.1, 0.1).update(np.array([1], np.float32), None, np.array([1], np.float32))


def test_derivatives_pass_where_the_update_is_kept_and_nowhere_else(jax: Any, keep: Any) -> None:
    def result(update: Any, weight: Any) -> Any:
        return weight + keep(-1, 1).update(update, None, weight)[0]

    updates, weights = jax.numpy.asarray([0.25, 5.0, -5.0]), jax.numpy.asarray([0.5, 0.3, 0.3])
    for pull in (jax.grad, lambda f, n: jax.jit(jax.grad(f, n))):
        assert pull(lambda u, w: result(u, w).sum(), 0)(updates, weights).tolist() == [1, 0, 0]
        assert pull(lambda u, w: result(u, w).sum(), 1)(updates, weights).tolist() == [1, 0, 0]


def test_the_distance_to_the_bound_alone_would_round_out_of_the_range() -> None:
    weights, upper = finite("float16"), np.float16(0.1)
    weights = weights[(weights >= -1) & (weights <= upper)]
    assert (weights + (upper - weights) > upper).any()


def test_a_leaf_that_is_none_stays_so(keep: Any, jax: Any) -> None:
    transform, x = keep(-1, 1), jax.numpy.array([5.0])
    for updates, params in (({"a": x, "b": None}, {"a": x, "b": x}), ({"a": x, "b": x}, {"a": x, "b": None})):
        kept, _ = transform.update(updates, transform.init(params), params)
        assert kept["a"].tolist() == [-4.0]
        assert kept["b"] is updates["b"]
