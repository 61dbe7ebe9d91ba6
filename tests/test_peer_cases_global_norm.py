"""Clipping a tree by its global norm: the cases of PyTorch, TensorFlow, Optax, MLX, Paddle and Keras."""

from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from peer_expectations import (
    FLOATS,
    NORM_SLACK,
    AllReduce,
    Array,
    all_nan,
    array,
    broken_laws,
    exact_norm,
    on_ranks,
    relative_error,
    root,
    same_bits,
    ulps_off,
)

from clipcore import clip_by_global_norm, clip_by_l2_norm, global_norm

X0, X1 = array([[-2, 0, 0], [4, 0, 0]]), array([1, -2])
ORDERS = [1, 2, inf]


def torch_gradients() -> list[Array]:
    return [array(np.arange(1, 101).reshape(10, 10)), np.ones(10, "f4") / np.float32(1000)]


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(4.0, id="tf-testClipByGlobalNormClipped"),
        pytest.param(array(4.0), id="tf-testClipByGlobalNormClippedTensor"),
    ],
)
def test_two_leaves_share_one_factor(limit: Any) -> None:
    tree, norm = clip_by_global_norm((X0, X1), limit)

    assert isinstance(tree, tuple)
    assert ulps_off(tree[0], [-1.6, 0, 0, 3.2, 0, 0]) <= 4
    assert ulps_off(tree[1], [0.8, -1.6]) <= 4
    assert same_bits(norm, np.array(5.0))


def test_tf_testClipByGlobalNormSupportsNone() -> None:  # noqa: N802  the peer's name
    tree, norm = clip_by_global_norm((X0, None, X1, None), 4.0)

    assert tree[1] is None
    assert tree[3] is None
    assert broken_laws([X0, X1], [tree[0], tree[2]], 4.0) == []
    assert norm == 5


UNCHANGED: dict[str, tuple[list[Array], float]] = {
    "tf-testClipByGlobalNormNotClipped": ([X0, X1], 6.0),
    "tf-testClipByGlobalNormZero": ([np.zeros((2, 3), "f4"), np.zeros(2, "f4")], 6.0),
    "tf-testClipByGlobalNormPreservesDenseShape": ([array([1.0])], 1.0),
    # TensorFlow scales by 41·(1/41), which is below one, and moves every element
    "tf-limit-41-times-its-reciprocal": ([array(np.linspace(-1, 1, 1000)), array([20.0])], 41.0),
    "tf-infinite-limit-is-not-nan": ([X0, X1], inf),
    "torch-small-gradients": (
        [
            array(np.random.default_rng(0).random((10, 10))) / np.float32(10000),
            np.ones(10, "f4") / np.float32(500),
        ],
        2.0,
    ),
    # PyTorch multiplies by C/(C + 1e-6)
    "torch-norm-equal-to-limit": ([X0, X1], 5.0),
    "mlx-test_clip_grad_norm-small": ([array([0.1, 0.2]), array([0.1]), array([0.3])], 10.0),
    "paddle-test_basic-limit-1e20": ([np.linspace(0, 1, 100, dtype="f4")], 1e20),
    "optax-all-zero-and-limit-zero-is-not-nan": ([np.zeros(2, "f4")], 0.0),
}


@pytest.mark.parametrize(("leaves", "limit"), UNCHANGED.values(), ids=UNCHANGED)
def test_unchanged_bit_for_bit(leaves: list[Array], limit: float) -> None:
    tree, norm = clip_by_global_norm(leaves, limit)

    assert all(map(same_bits, tree, leaves))
    assert relative_error(norm, exact_norm(leaves)) <= NORM_SLACK


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("leaves", "limit"),
    [
        pytest.param(torch_gradients(), 2.0, id="torch-test_clip_grad_norm"),
        pytest.param([np.linspace(0, 1, 256, dtype="f4").reshape(16, 16)], 5.0, id="paddle-test_basic"),
        pytest.param([array([2, 3]), array([3, 4])], 0.8, id="paddle-TestDygraphGradientClipByGlobalNorm"),
        pytest.param([array([50, 100])], 1.0, id="keras-test_global_clip_norm"),
        pytest.param([array([10, 20]), array([10]), array([30])], 1.0, id="mlx-test_clip_grad_norm-large"),
        pytest.param([array([3, -4]), array([1])], 1.0, id="deepspeed-norm_type-is-not-squared"),
        pytest.param([array([3e4, 1], "f2"), array([1e6])], 1.0, id="optax-norm-overflows-float16-leaf"),
    ],
)
def test_laws_and_norm_before_clipping(leaves: list[Array], limit: float, order: float) -> None:
    tree, norm = clip_by_global_norm(leaves, limit, ord=order)

    assert broken_laws(leaves, tree, limit, order) == []
    assert relative_error(norm, exact_norm(leaves, order)) <= NORM_SLACK
    assert same_bits(norm, global_norm(leaves, ord=order))


def test_torch_decomposed_measure_then_clip() -> None:
    gradients = torch_gradients()
    expected, measured = clip_by_global_norm(gradients, 2.0)

    tree, norm = clip_by_global_norm(gradients, 2.0, norm=global_norm(gradients))

    ideal = Fraction(2) / exact_norm(gradients)
    assert norm == measured
    for leaf, before in zip(tree, gradients, strict=True):
        assert ulps_off(leaf, [Fraction(float(value)) * ideal for value in before.ravel()]) <= 5
    assert exact_norm(tree) <= 2 * (1 + NORM_SLACK)
    assert [leaf.dtype for leaf in tree] == [leaf.dtype for leaf in expected]


def test_torch_single_tensor_is_a_tree() -> None:
    gradient = torch_gradients()[0]

    alone, norm = clip_by_global_norm(gradient, 2.0)
    (listed,), same_norm = clip_by_global_norm([gradient], 2.0)

    assert same_bits(alone, listed)
    assert same_bits(norm, same_norm)
    assert same_bits(alone, clip_by_l2_norm(gradient, 2.0))


@pytest.mark.parametrize("order", [0.5, 1.5, 4, 0, -inf], ids=lambda order: f"torch-paddle-norm_type-{order}")
def test_orders_that_peers_have_and_clipcore_refuses(order: float) -> None:
    with pytest.raises(ValueError, match="ord"):
        clip_by_global_norm([X0], 1.0, ord=order)
    with pytest.raises(ValueError, match="ord"):
        global_norm([X0], ord=order)


@pytest.mark.parametrize(
    ("leaves", "norm"),
    [
        pytest.param([array([[-2, 0, inf], [4, 0, 0]]), X1], inf, id="tf-testClipByGlobalNormInf"),
        # PyTorch gives NaN at the infinity and zeros elsewhere
        pytest.param([X0, array([-inf, 1])], inf, id="torch-inf-is-not-mixed"),
        pytest.param([array([nan, 1]), X1], nan, id="torch-nan-everywhere"),
        pytest.param([array([nan, 1]), array([inf])], nan, id="torch-nan-wins-over-inf"),
    ],
)
def test_nonfinite_gives_nan_everywhere(leaves: list[Array], norm: float) -> None:
    tree, found = clip_by_global_norm(leaves, 6.0)

    assert all(map(all_nan, tree))
    np.testing.assert_array_equal(found, norm)


@pytest.mark.parametrize("scalar", [inf, -inf, nan])
@pytest.mark.parametrize("prefix", [True, False], ids=["after-finite-leaf", "alone"])
@pytest.mark.parametrize("one_element", [True, False], ids=["one-element", "all-elements"])
def test_torch_clip_grad_norm_error_if_nonfinite(scalar: float, prefix: bool, one_element: bool) -> None:
    bad = np.full(10, 0 if one_element else scalar, "f4")
    bad[1] = scalar
    leaves = {"finite": np.ones(10, "f4"), "bad": bad} if prefix else {"bad": bad}
    given = {key: leaf.copy() for key, leaf in leaves.items()}

    with pytest.raises(FloatingPointError, match="bad"):
        clip_by_global_norm(leaves, 1.0, nonfinite="raise", out=leaves)
    assert all(same_bits(leaves[key], given[key]) for key in leaves)


def test_torch_exhausted_generator_is_an_empty_tree_without_warning() -> None:
    gradients = (leaf for leaf in [X0, X1])
    list(gradients)

    tree, norm = clip_by_global_norm(gradients, 2.0)

    assert tree == []
    assert same_bits(norm, np.array(0.0))


def test_paddle_generator_is_clipped_not_only_measured() -> None:
    tree, norm = clip_by_global_norm((leaf for leaf in [array([3, 4])]), 1.0)

    assert isinstance(tree, list)
    assert ulps_off(tree[0], [0.6, 0.8]) <= 4
    assert norm == 5


def test_torch_same_gradient_twice_is_counted_twice_and_scaled_once() -> None:
    gradient = array([3, 4])

    tree, norm = clip_by_global_norm([gradient, gradient], 1.0)

    assert relative_error(norm, root(Fraction(50))) <= NORM_SLACK
    assert broken_laws([gradient, gradient], tree, 1.0) == []
    with pytest.raises(ValueError, match="out"):
        clip_by_global_norm([gradient, gradient], 1.0, out=[gradient, gradient])
    assert same_bits(gradient, array([3, 4]))


def test_mlx_nested_structure_and_key_order() -> None:
    gradients = {"second": array([30]), "first": [array([10, 20]), array([10])]}

    tree, norm = clip_by_global_norm(gradients, 1.0)

    assert list(tree) == ["second", "first"]
    assert isinstance(tree["first"], list)
    assert relative_error(norm, root(Fraction(1500))) <= NORM_SLACK
    assert ulps_off(tree["second"], [30 / root(Fraction(1500))]) <= 4


@pytest.mark.parametrize(
    ("tree", "limit", "error"),
    [
        pytest.param([X0], -1.0, ValueError, id="mlx-test_clip_grad_norm-negative"),
        pytest.param([X0], nan, ValueError, id="keras-nan-is-off"),
        # MLX squares these in int32 and overflows
        pytest.param([np.array([10, 20])], 1.0, TypeError, id="mlx-integer-gradients"),
        pytest.param([X0, "weights"], 1.0, TypeError, id="tf-leaf-of-another-type"),
        pytest.param([X0, 3.0], 1.0, TypeError, id="optax-python-number"),
    ],
)
def test_refusals(tree: Any, limit: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="clip_by_global_norm"):
        clip_by_global_norm(tree, limit)


def test_optax_test_clip_by_global_norm_fifty_steps() -> None:
    updates = (array([500, 5]), array([300, 3]))
    chained: Any = updates
    for step in range(1, 51):
        before = chained
        chained, _ = clip_by_global_norm(chained, 1 / step)
        direct, _ = clip_by_global_norm(updates, 1 / step)

        assert broken_laws(before, chained, 1 / step) == []
        assert broken_laws(updates, direct, 1 / step) == []
        drift = step * 2.0**-20  # each clip may be 4 ulp off, in the norm and in the element
        assert all(np.allclose(a, b, rtol=drift, atol=0) for a, b in zip(chained, direct, strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("limit", [1e9, 1.0])
def test_mlx_test_clip_grad_norm_sharded(ranks: int, limit: float) -> None:
    shard = {"a": np.full((4, 3), 3, "f4"), "b": np.full(5, 3, "f4")}
    norm = 3 * root(Fraction(17 * ranks))

    def clip(all_reduce: AllReduce) -> Any:
        return clip_by_global_norm(shard, limit, all_reduce=all_reduce)

    for tree, found in on_ranks([clip] * ranks):
        assert relative_error(found, norm) <= NORM_SLACK
        for key, leaf in shard.items():
            expected = 3 * min(Fraction(1), Fraction(limit) / norm)
            assert ulps_off(tree[key], [expected] * leaf.size) <= 4.001
            assert limit == 1.0 or same_bits(tree[key], leaf)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
def test_keras_global_clipnorm_keeps_each_dtype(dtype: Any) -> None:
    leaves = [array([50, 100], dtype), array([20])]

    tree, _ = clip_by_global_norm(leaves, 1.0)

    assert broken_laws(leaves, tree, 1.0) == []
