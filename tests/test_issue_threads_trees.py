"""Trees, shards and weights: what people reported of clipping elsewhere, each test named by its thread."""

from collections import OrderedDict
from fractions import Fraction
from math import inf, nan
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from peer_expectations import (
    NORM_SLACK,
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

from clipcore import clip_by_global_norm, clip_by_l2_norm, clip_by_value, clip_weights, global_norm

ORDERS = [1, 2, inf]


class Layer(NamedTuple):
    weight: Array
    bias: Array | None


# trees


def test_keras_13575_sixteen_leaves_per_leaf_and_global() -> None:
    leaves = [array([3 * (k + 1), 4]) for k in range(16)]

    each = [clip_by_l2_norm(leaf, 1.0) for leaf in leaves]
    together, _ = clip_by_global_norm(leaves, 1.0)

    assert not any(broken_laws([before], [after], 1.0) for before, after in zip(leaves, each, strict=True))
    assert Fraction(399, 100) < exact_norm(each) <= 4
    assert broken_laws(leaves, together, 1.0) == []


def test_pytorch_148259_a_generator_is_clipped_and_listed() -> None:
    leaves = [array([3]), array([4])]

    tree, norm = clip_by_global_norm((leaf for leaf in leaves), 1.0)

    assert isinstance(tree, list)
    assert norm == 5
    assert broken_laws(leaves, tree, 1.0) == []
    assert global_norm(leaf for leaf in leaves) == 5


@pytest.mark.parametrize(
    "tree",
    [[], (), {}, None, [None], {"a": None, "b": [None]}, [np.zeros(0, "f4")], {"w": np.zeros((3, 0))}],
    ids=lambda tree: f"pytorch#35753-{tree}",
)
@pytest.mark.parametrize("order", ORDERS)
def test_nothing_to_clip_has_norm_zero(tree: Any, order: float) -> None:
    result, norm = clip_by_global_norm(tree, 1.0, ord=order)

    assert repr(result) == repr(tree)
    assert same_bits(norm, np.array(0.0))


def test_alf_448_containers_and_none_are_kept() -> None:
    leaves = [array([3]), array([0]), array([4])]
    tree = OrderedDict(z=[Layer(leaves[0], None), (leaves[1],)], a={"y": None, "b": leaves[2]})

    clipped, norm = clip_by_global_norm(tree, 1.0)

    assert isinstance(clipped, OrderedDict)
    assert list(clipped) == ["z", "a"]
    assert list(clipped["a"]) == ["y", "b"]
    assert clipped["a"]["y"] is None
    layer, single = clipped["z"]
    assert isinstance(layer, Layer)
    assert isinstance(single, tuple)
    assert layer.bias is None
    assert broken_laws(leaves, [layer.weight, single[0], clipped["a"]["b"]], 1.0) == []
    assert norm == 5


@pytest.mark.parametrize("order", ORDERS)
def test_pytorch_12159_mixed_dtypes_in_one_tree(order: float) -> None:
    dtypes = ["f2", "f4", "f8", ml_dtypes.bfloat16, "c8", ">f4"]
    leaves = [array([3, -4, 0.5], dtype) for dtype in dtypes]

    tree, norm = clip_by_global_norm(leaves, 1.0, ord=order)

    assert broken_laws(leaves, tree, 1.0, order) == []
    assert relative_error(norm, exact_norm(leaves, order)) <= NORM_SLACK
    assert norm.dtype == np.float64


@pytest.mark.parametrize(
    ("leaves", "order", "expected"),
    [
        pytest.param([array([3, -4]), array([1])], 1, Fraction(8), id="deepspeed#8313-order-1"),
        pytest.param(
            [array([3, -4]), array([1])], 2, root(Fraction(26)), id="entrenar#311-not-squared-twice"
        ),
        pytest.param([array([3, -4]), array([1])], inf, Fraction(4), id="tt-metal#55587-order-inf"),
        pytest.param([array([-3, -4]), array([-5])], 1, Fraction(12), id="lightning#1523-negative"),
    ],
)
def test_norm_of_leaves_is_that_of_their_concatenation(
    leaves: list[Array], order: float, expected: Fraction
) -> None:
    for tree in (leaves, [np.concatenate(leaves)]):
        assert relative_error(global_norm(tree, ord=order), expected) <= NORM_SLACK


@pytest.mark.parametrize("place", [0, 3, 6], ids=["first", "middle", "last"])
@pytest.mark.parametrize("which", ["head", "tail"])
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_deepmd_5519_nonfinite_anywhere_under_every_policy(bad: float, which: str, place: int) -> None:
    leaves = {name: np.linspace(-1, 1, 7, dtype="f4") for name in ("head", "body", "tail")}
    leaves[which][place] = bad
    given = {name: leaf.copy() for name, leaf in leaves.items()}

    spoiled, norm = clip_by_global_norm(leaves, 1.0)
    zeros, same_norm = clip_by_global_norm(leaves, 1.0, nonfinite="zero")
    kept, _ = clip_by_global_norm(leaves, inf)

    assert all(map(all_nan, spoiled.values()))
    np.testing.assert_array_equal(norm, abs(bad))
    np.testing.assert_array_equal(same_norm, norm)
    assert not any(leaf.any() for leaf in zeros.values())
    assert all(same_bits(kept[name], given[name]) for name in leaves)
    # pytorch#46849, #55169: raise before anything is written, and name the leaf
    with pytest.raises(FloatingPointError, match=which):
        clip_by_global_norm(leaves, 1.0, nonfinite="raise", out=leaves)
    assert all(same_bits(leaves[name], given[name]) for name in leaves)


def test_feral_16_infinite_limit_only_measures() -> None:
    leaves = [array([inf, 1]), array([-0.0, 2])]

    tree, norm = clip_by_global_norm(leaves, inf)

    assert all(map(same_bits, tree, leaves))
    assert norm == inf


def test_pytorch_139467_measured_elsewhere_then_applied() -> None:
    # apex#1727: the norm is that of gradients still scaled by the loss
    leaves = [array([3]), array([4])]

    tree, norm = clip_by_global_norm(leaves, 1.0, norm=10.0)

    assert ulps_off(tree[0], [0.3]) <= 4
    assert ulps_off(tree[1], [0.4]) <= 4
    assert norm == 10
    with pytest.raises(ValueError, match="norm"):
        clip_by_global_norm(leaves, 1.0, norm=-1.0)


@pytest.mark.parametrize("bad", [nan, inf])
def test_megatron_3460_a_nonfinite_norm_given_spoils_the_group(bad: float) -> None:
    assert all_nan(clip_by_global_norm([array([3])], 1.0, norm=bad)[0][0])
    assert not clip_by_global_norm([array([3])], 1.0, norm=bad, nonfinite="zero")[0][0].any()


def test_lingua_59_clip_once_after_the_last_micro_batch() -> None:
    first, second = array([2, 0]), array([0, 2])

    once = clip_by_l2_norm(first + second, 1.0)
    twice = clip_by_l2_norm(clip_by_l2_norm(first, 1.0) + second, 1.0)

    assert ulps_off(once, [root(Fraction(1, 2))] * 2) <= 4
    assert ulps_off(twice, [root(Fraction(1, 5)), 2 * root(Fraction(1, 5))]) <= 4


def test_in_place_clip_of_one_leaf_listed_twice_is_refused() -> None:
    leaf = array([3, 4])

    with pytest.raises(ValueError, match="out"):
        clip_by_global_norm({"tied": leaf, "again": leaf}, 1.0, out={"tied": leaf, "again": leaf})
    assert same_bits(leaf, array([3, 4]))


def test_numpy_3895_strided_leaves_are_written_through() -> None:
    memory = np.arange(1, 13, dtype="f4").reshape(3, 4)
    tree = [memory[:, ::2], memory[:, 1::2]]
    before = [leaf.copy() for leaf in tree]

    result, _ = clip_by_global_norm(tree, 1.0, out=tree)

    assert all(written is leaf for written, leaf in zip(result, tree, strict=True))
    assert broken_laws(before, tree, 1.0) == []
    assert broken_laws([np.arange(1, 13, dtype="f4").reshape(3, 4)], [memory], 1.0) == []


# shards


def clip_on_ranks(shards: list[list[Array]], limit: float, **options: Any) -> list[Any]:
    """Clip every rank's leaves by the norm of all of them."""

    def call(leaves: list[Array]) -> Any:
        return lambda all_reduce: clip_by_global_norm(leaves, limit, all_reduce=all_reduce, **options)

    return on_ranks([call(leaves) for leaves in shards])


EXPERTS = [array([2, 4]), array([6, 8])]


@pytest.mark.parametrize(
    "shards",
    [
        pytest.param([EXPERTS], id="deepspeed#8475-one-rank"),
        pytest.param([[EXPERTS[0]], [EXPERTS[1]]], id="deepspeed#8475-half-per-rank"),
        pytest.param([EXPERTS, []], id="megatron-empty-rank"),
        pytest.param([[], [EXPERTS[1]], [None], [EXPERTS[0], np.zeros(0, "f4")]], id="torchtitan#766-uneven"),
        pytest.param([[array([value])] for value in (8, 2, 6, 4)], id="torchtitan#4135-every-element-a-rank"),
    ],
)
@pytest.mark.parametrize("limit", [100.0, 6.0])
def test_sharded_norm_is_that_of_the_whole(shards: list[list[Any]], limit: float) -> None:
    norm = root(Fraction(120))
    factor = min(Fraction(1), Fraction(limit) / norm)

    for leaves, (tree, found) in zip(shards, clip_on_ranks(shards, limit), strict=True):
        assert relative_error(found, norm) <= NORM_SLACK
        for before, after in zip(leaves, tree, strict=True):
            expected = [] if before is None else [Fraction(float(value)) * factor for value in before]
            assert before is after is None or ulps_off(after, expected) <= 4.001
            assert factor < 1 or before is None or same_bits(after, before)


@pytest.mark.parametrize("order", ORDERS)
def test_pytorch_149768_nothing_is_added_per_rank(order: float) -> None:
    shards = [[array([rank + 1, -rank])] for rank in range(4)]
    whole = [leaf for leaves in shards for leaf in leaves]

    results = clip_on_ranks(shards, 1e-6, ord=order)

    assert all(relative_error(norm, exact_norm(whole, order)) <= NORM_SLACK for _, norm in results)
    shortfall = 1 - exact_norm([tree[0] for tree, _ in results], order) / Fraction(1e-6)
    assert -NORM_SLACK <= shortfall <= Fraction(4, 2**24) + NORM_SLACK


@pytest.mark.parametrize("bad", [nan, inf])
def test_colossalai_1175_one_bad_rank_and_all_decide_alike(bad: float) -> None:
    shards = [[array([1, 2])], [array([bad, 1])], []]

    for tree, norm in clip_on_ranks(shards, 1.0):
        assert all(map(all_nan, tree))
        np.testing.assert_array_equal(norm, bad)
    for tree, norm in clip_on_ranks(shards, 1.0, nonfinite="zero"):
        assert not any(leaf.any() for leaf in tree)
        np.testing.assert_array_equal(norm, bad)
    assert all(
        isinstance(error, FloatingPointError) for error in clip_on_ranks(shards, 1.0, nonfinite="raise")
    )


def test_a_given_norm_and_a_collective_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="all_reduce"):
        clip_by_global_norm([array([1])], 1.0, norm=1.0, all_reduce=lambda mine, _: mine)


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.bfloat16, "f2", "f4", "f8"], ids=lambda dtype: np.dtype(dtype).name
)
def test_torchtitan_4135_norm_does_not_depend_on_the_split(dtype: Any) -> None:
    whole = np.random.default_rng(4135).normal(size=3000).astype(dtype)
    slack = Fraction(1, 2**52) if dtype == "f8" else NORM_SLACK

    for cuts in ([], [1], [7, 8, 2000], list(range(100, 3000, 100))):
        assert relative_error(global_norm(np.split(whole, cuts)), exact_norm([whole])) <= slack


# weights


def test_wasserstein_gan_18_batch_norm_is_left_out() -> None:
    weights = {"conv": Layer(array([0.5, -0.005]), array([-1])), "norm": Layer(array([1, 1]), None)}
    seen: list[tuple[Any, ...]] = []

    def where(path: tuple[Any, ...], leaf: Array) -> bool:
        seen.append(path)
        return path[0] != "norm" and leaf.size > 0

    clipped = clip_weights(weights, -0.01, 0.01, where=where)

    limit = clip_by_value(array([1]), -0.01, 0.01)[0]
    assert Fraction(float(limit)) <= Fraction(0.01)
    assert same_bits(clipped["conv"].weight, array([limit, -0.005]))
    assert same_bits(clipped["conv"].bias, array([-limit]))
    assert same_bits(clipped["norm"].weight, array([1, 1]))
    assert clipped["norm"].bias is None
    assert not np.may_share_memory(clipped["norm"].weight, weights["norm"].weight)
    assert seen == [("conv", 0), ("conv", 1), ("norm", 0)]


@pytest.mark.parametrize("bound", [0.01, 0.1, 1 / 3], ids=lambda bound: f"wasserstein#50-{bound:.2f}")
@pytest.mark.parametrize(
    "dtype", ["f2", ml_dtypes.bfloat16, "f4", "f8"], ids=lambda dtype: np.dtype(dtype).name
)
def test_weights_are_inside_the_bound_as_written_and_stay(dtype: Any, bound: float) -> None:
    weights = [np.linspace(-1, 1, 101).astype(dtype)]

    once = clip_weights(weights, -bound, bound)

    assert max(abs(Fraction(float(value))) for value in once[0]) <= Fraction(bound)
    assert same_bits(clip_weights(once, -bound, bound)[0], once[0])
    inside = np.abs(weights[0].astype("f8")) <= bound
    assert same_bits(once[0][inside], weights[0][inside])


def test_mxnet_3466_weights_in_place_through_a_view() -> None:
    optimizer_copy = np.array([[2.0, -3], [0.5, -0.0]])
    view = optimizer_copy[:, :1]

    result = clip_weights({"w": view}, -1, 1, out={"w": view})

    assert result["w"] is view
    assert same_bits(optimizer_copy, np.array([[1.0, -3], [0.5, -0.0]]))


def test_keras_10226_columns_not_used_in_the_batch_are_clipped_too() -> None:
    embedding = np.array([[9.0, 0], [0.25, -9]])

    assert same_bits(clip_weights([embedding], 0, None)[0], np.array([[9.0, 0], [0.25, 0]]))


@pytest.mark.parametrize(
    ("tree", "error"),
    [
        pytest.param({"w": "text"}, TypeError, id="keras#3859-unknown-leaf"),
        pytest.param([1.5], TypeError, id="optax-python-number"),
        pytest.param([array([1]), np.array(["a"])], TypeError, id="keras#18985-strings"),
    ],
)
def test_unknown_leaves_are_named_not_skipped(tree: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\bw\b|\b[01]\b"):
        clip_weights(tree, -1, 1)
    with pytest.raises(error, match=r"\bw\b|\b[01]\b"):
        clip_by_global_norm(tree, 1.0)
