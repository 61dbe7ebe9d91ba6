"""Clips as transformations of optax: the laws, the norm in the state, and all that optax wraps them in."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from clipcore.verify.exact import exact_norm, norm_bounds, ulp

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


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


def epsilon(dtypes: set[str], wide: bool) -> Fraction:
    """The relative error of a norm that the contract allows on JAX."""
    if not wide:  # the sums are of float64 all the same, the norm that is told is of float32
        return Fraction(2) ** -24
    return 4 * Fraction(2) ** -52 if "float64" in dtypes else Fraction(2) ** -44


def trees(wide: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Trees of ordinary gradients of one dtype and of several, far from the ends of their range."""
    random = np.random.default_rng(seed)
    dtypes = ["float16", ml_dtypes.bfloat16, "float32", *(["float64"] if wide else [])]
    for kinds in [[each] for each in dtypes] + [dtypes]:
        scale = 2.0 ** random.integers(-3, 4)
        yield {
            "layers": [(random.standard_normal((7, 5)) * scale).astype(kind) for kind in kinds],
            "bias": np.asarray(random.standard_normal() * scale).astype(kinds[0]),
            "frozen": None,
        }


def leaves_of(tree: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(leaf) for leaf in [*tree["layers"], tree["bias"]]]


def on_jax(jax: Any, tree: Any) -> Any:
    return jax.tree.map(jax.numpy.asarray, tree)


def holds(
    before: list[Any], after: list[Any], limit: float, order: float, told: Any, slack: Fraction
) -> tuple[bool, bool]:
    """Whether bound, identity, tightness and the norm hold in exact arithmetic; whether it was clipped."""
    low, high = norm_bounds(before, order)
    limit = float(limit)
    right = all(x.dtype == y.dtype and x.shape == y.shape for x, y in zip(before, after, strict=True))
    right &= low * (1 - slack) <= Fraction(float(told)) <= high * (1 + slack)
    same = all(x.tobytes() == y.tobytes() for x, y in zip(before, after, strict=True))
    if limit == math.inf or high <= Fraction(limit) * (1 - slack):
        return right and same, False
    unit = max(Fraction(UNIT[x.dtype.name]) for x in before)
    allowed = 1 if low > Fraction(limit) * (1 + slack) else 1 + slack
    result = exact_norm(after, order)
    right &= result.compare(Fraction(limit) * allowed) <= 0
    right &= same or result.compare(Fraction(limit) * (1 - 4 * unit - slack)) >= 0
    return right, not same


def test_a_global_norm_obeys_its_limit_exactly_and_is_in_the_state(ours: Any, jax: Any, wide: bool) -> None:
    update = jax.jit(lambda limit, tree: ours.clip_by_global_norm(limit).update(tree, None))
    seen = set()
    for tree in (tree for seed in range(4) for tree in trees(wide, seed)):
        before = leaves_of(tree)
        slack = epsilon({x.dtype.name for x in before}, wide)
        exact = jax.numpy.asarray(float(norm_bounds(before, 2)[0]))
        for limit in (0.01 * exact, 0.7 * exact, exact, exact * (1 + 2**-23), 1.1 * exact, exact * math.inf):
            updates, state = update(limit, on_jax(jax, tree))
            assert jax.tree.structure(updates) == jax.tree.structure(tree)
            right, clipped = holds(before, leaves_of(updates), limit, 2, state.norm, slack)
            assert right, (tree, limit)
            seen.add(clipped)
    assert seen == {True, False}


@pytest.mark.parametrize("order", [1, 2])
def test_a_norm_a_leaf_obeys_its_limit_exactly_and_is_in_the_state(
    ours: Any, jax: Any, wide: bool, order: int
) -> None:
    make = {1: ours.clip_by_l1_norm, 2: ours.clip_by_l2_norm}[order]
    update = jax.jit(lambda limit, tree: make(limit).update(tree, None))
    for tree in ([*trees(wide, seed)][-1] for seed in range(4)):
        for limit in (0.125, 3.0, 17.0):
            updates, state = update(limit, on_jax(jax, tree))
            assert jax.tree.structure(state.norm) == jax.tree.structure(tree)
            each = zip(leaves_of(tree), leaves_of(updates), leaves_of(state.norm), strict=True)
            for before, after, norm in each:
                slack = epsilon({before.dtype.name}, wide)
                assert holds([before], [after], limit, order, norm, slack)[0], (before, limit)


def test_slices_are_clipped_by_themselves_along_an_axis(ours: Any, jax: Any) -> None:
    tree = {"a": jax.numpy.asarray([[3.0, -4.0], [0.25, 0.5]]), "b": jax.numpy.asarray([8.0, 6.0])}
    clip = ours.clip_by_l2_norm(5.0, axis=-1)
    state = clip.init(tree)
    assert {name: norm.shape for name, norm in state.norm.items()} == {"a": (2,), "b": ()}
    updates, state = clip.update(tree, state)
    np.testing.assert_allclose(state.norm["a"], [5.0, 0.3125**0.5], rtol=2**-21)
    assert updates["a"].tolist() == tree["a"].tolist()
    assert state.norm["b"] == 10
    assert exact_norm([np.asarray(updates["b"])], 2).compare(5) <= 0
    with pytest.raises(ValueError, match=r"clip_by_l2_norm: axis is 1, but x.ndim is 1"):
        ours.clip_by_l2_norm(5.0, axis=1).init(tree)


def test_values_obey_their_bounds_as_given(ours: Any, jax: Any, wide: bool) -> None:
    lower, upper = -0.1, 0.3  # neither is a number of any of the formats
    for tree in trees(wide, 5):
        clip = ours.clip_by_value(lower, upper)
        updates, state = jax.jit(clip.update)(on_jax(jax, tree), clip.init(tree))
        assert jax.tree.leaves(state) == []
        for before, after in zip(leaves_of(tree), leaves_of(updates), strict=True):
            assert before.dtype == after.dtype
            for x, y in zip(before.ravel().astype(float), after.ravel().astype(float), strict=True):
                inside = lower <= x <= upper
                nearest = lower if x < lower else upper
                assert y == x if inside else (y - lower if x < lower else upper - y) >= 0
                assert inside or abs(Fraction(y) - Fraction(nearest)) <= ulp(Fraction(nearest), after.dtype)
    whole, _ = ours.clip_by_value(None, 2.5).update([jax.numpy.arange(5)], None)
    assert whole[0].tolist() == [0, 1, 2, 2, 2]
    array = ours.clip_by_value(jax.numpy.asarray([0.0, -1.0]), None)
    assert array.update(jax.numpy.asarray([-3.0, -3.0]), None)[0].tolist() == [0.0, -1.0]


def test_nothing_moves_where_the_limit_is_zero(ours: Any, optax: Any, jax: Any) -> None:
    weights = {"w": jax.numpy.asarray([0.5, -3.0, 1e-30]), "b": jax.numpy.asarray(2.0)}
    gradients = {"w": jax.numpy.asarray([7.0, 0.0, -1e30]), "b": jax.numpy.asarray(-0.1)}
    for clip in (
        ours.clip_by_global_norm(0),
        ours.clip_by_l1_norm(0.0),
        ours.clip_by_l2_norm(0.0),
        ours.clip_by_value(0.0, 0.0),
    ):
        optimizer = optax.chain(clip, optax.sgd(1e6, momentum=0.9))
        moved, state, update = weights, optimizer.init(weights), jax.jit(optimizer.update)
        for _ in range(3):
            updates, state = update(gradients, state, moved)
            moved = optax.apply_updates(moved, updates)
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), moved, weights))


def test_sgd_moves_by_the_rate_times_a_tiny_limit(ours: Any, optax: Any, jax: Any, wide: bool) -> None:
    random = np.random.default_rng(1)
    gradients = [jax.numpy.asarray(random.standard_normal(size), "float32") for size in (50, 3)]
    limit, rate = 2.0**-40, 0.5
    optimizer = optax.chain(ours.clip_by_global_norm(limit), optax.sgd(rate))
    for start in (0.0, 2.0**-38):
        weights = [jax.numpy.full_like(x, start) for x in gradients]
        updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(weights), weights)
        moved = optax.apply_updates(weights, updates)
        low, high = Fraction(0), Fraction(0)
        for new, old in zip(moved, weights, strict=True):
            for x, y in zip(np.asarray(new).tolist(), np.asarray(old).tolist(), strict=True):
                step = Fraction(x) - Fraction(y)
                # The update itself is within half an ulp of the weight that its sum was rounded to.
                half = ulp(Fraction(x), np.dtype(np.float32)) / 2 if start else Fraction(0)
                low += max(abs(step) - half, Fraction(0)) ** 2
                high += (abs(step) + half) ** 2
        assert low <= (Fraction(rate) * Fraction(limit)) ** 2
        least = 1 - 4 * Fraction(2) ** -24 - epsilon({"float32"}, wide)
        assert high >= (Fraction(rate) * Fraction(limit) * least) ** 2


def test_trees_of_any_kind_are_taken(ours: Any, optax: Any, jax: Any) -> None:
    jnp = jax.numpy

    @jax.tree_util.register_pytree_with_keys_class
    class Layer:
        """A container that JAX knows and optree does not."""

        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def tree_flatten_with_keys(self) -> Any:
            return [(jax.tree_util.GetAttrKey("kernel"), self.kernel)], None

        @classmethod
        def tree_unflatten(cls, _: Any, children: Any) -> Any:
            return cls(*children)

    tree = (Layer(jnp.asarray([3.0, 4.0])), [None, optax.MaskedNode()], np.float32(12.0), 0.0)
    for clip in (ours.clip_by_global_norm(6.5), ours.clip_by_l2_norm(6.5), ours.clip_by_value(None, 6.5)):
        updates, _ = clip.update(tree, clip.init(tree))
        assert jax.tree.structure(updates) == jax.tree.structure(tree)
        assert updates[2] <= 6.5
    nothing: tuple[Any, ...] = ({}, [], None, {"a": None}, optax.MaskedNode())
    for empty in nothing:
        for clip in (ours.clip_by_global_norm(1.0), ours.clip_by_l1_norm(1.0), ours.clip_by_value(0, 1)):
            state = clip.init(empty)
            updates, after = jax.jit(clip.update)(empty, state)
            assert jax.tree.structure((updates, after)) == jax.tree.structure((empty, state))
            assert all(norm == 0 for norm in jax.tree.leaves(after))
    complex_update, state = ours.clip_by_global_norm(1.0).update([jnp.asarray([3 + 4j])], None)
    assert state.norm == 5
    assert exact_norm([np.asarray(complex_update[0])], 2).compare(1) <= 0
    with pytest.raises(TypeError, match=r"clip_by_global_norm: updates\[0\]\.kernel has dtype int32"):
        ours.clip_by_global_norm(1.0).update((Layer(jnp.asarray([3, 4])),), None)
    with pytest.raises(TypeError, match=r"clip_by_l1_norm: updates\['a'\]\[0\] has dtype bool"):
        ours.clip_by_l1_norm(1.0).update({"a": [jnp.asarray([True])]}, None)
    with pytest.raises(TypeError, match=r"clip_by_value: updates\[1\] has dtype complex64"):
        ours.clip_by_value(0, 1).update([jnp.ones(1), jnp.asarray([1j])], None)


@pytest.mark.usefixtures("wide")
def test_numbers_that_have_no_square_are_clipped_all_the_same(ours: Any, jax: Any) -> None:
    half = [jax.numpy.asarray([300.0] * 4, "float16")]
    large = [jax.numpy.asarray([1e30, 1e30], "float32")]
    for tree, limit in ((half, 1.0), (large, 1.0)):
        for make in (ours.clip_by_global_norm, ours.clip_by_l2_norm):
            clip = make(limit)
            updates, _ = jax.jit(clip.update)(tree, clip.init(tree))
            bounds = exact_norm([np.asarray(updates[0])], 2).bounds()
            assert Fraction(999, 1000) < bounds[0] <= bounds[1] <= 1


def test_derivatives_pass_through_a_clip(ours: Any, jax: Any) -> None:
    x = jax.numpy.asarray([3.0, -4.0])
    cotangent = jax.numpy.asarray([0.75, -1.5])

    def pulled(make: Callable[[float], Any], limit: float, at: Any) -> Any:
        clip = make(limit)
        return jax.jit(jax.grad(lambda x: (clip.update([x], clip.init([x]))[0][0] * cotangent).sum()))(at)

    for make in (ours.clip_by_global_norm, ours.clip_by_l2_norm):
        assert pulled(make, 9.0, x).tolist() == cotangent.tolist()
        assert pulled(make, 9.0, x * 0).tolist() == cotangent.tolist()
        assert np.isfinite(pulled(make, 0.0, x)).all()
        # d(x C / n) = C / n (c - x (x . c) / n^2), with n = 5 and x . c = 8.25
        wanted = [0.2 * (0.75 - 3 * 8.25 / 25), 0.2 * (-1.5 + 4 * 8.25 / 25)]
        np.testing.assert_allclose(pulled(make, 1.0, x), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip_by_global_norm", "clip_by_l1_norm", "clip_by_l2_norm"])
def test_a_limit_is_checked_when_it_is_given(ours: Any, name: str) -> None:
    make = getattr(ours, name)
    for limit, error, words in (
        (-1.0, ValueError, "max_norm is -1.0; give a number that is zero or positive"),
        (math.nan, ValueError, "max_norm is nan; give a number that is zero or positive"),
        (None, TypeError, "max_norm is None; give a number"),
        ("1", TypeError, "max_norm is '1' of type str; give a real number"),
        (np.ones(2), ValueError, "an array of shape"),
    ):
        with pytest.raises(error, match=f"{name}: .*{words}"):
            make(limit)


def test_other_arguments_are_checked_when_they_are_given(ours: Any) -> None:
    with pytest.raises(ValueError, match="clip_by_value: lower is 1 and upper is -1"):
        ours.clip_by_value(1, -1)
    with pytest.raises(TypeError, match="clip_by_value: upper is 'a' of type str"):
        ours.clip_by_value(None, "a")
    with pytest.raises(TypeError, match="clip_by_global_norm: all_reduce is 3; give a function"):
        ours.clip_by_global_norm(1.0, all_reduce=3)
