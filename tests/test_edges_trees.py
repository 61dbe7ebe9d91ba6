"""The edge table on trees: containers, generators, None, wrong leaves, mixed libraries, where=, ranks."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from edge_support import BOTH, NUMPY, STRICT, Machine, bits, both, error_of, on_ranks, same_bits

import clipcore as cc

Pair = namedtuple("Pair", "first second")
X = np.array([3.0, -4.0])
LIMITED = {
    "clip_by_global_norm": lambda tree, **more: cc.clip_by_global_norm(tree, 2.5, **more)[0],
    "clip_weights": lambda tree, **more: cc.clip_weights(tree, -2, 2, **more),
    "global_norm": cc.global_norm,
}
TREE_CLIPS = {name: LIMITED[name] for name in ("clip_by_global_norm", "clip_weights")}

each_function = pytest.mark.parametrize("name", LIMITED)
each_clip = pytest.mark.parametrize("clip", TREE_CLIPS.values(), ids=TREE_CLIPS)


def numbers(tree: Any) -> Any:
    """A tree with its arrays as lists of numbers, containers and their order as they are."""
    if isinstance(tree, np.ndarray):
        return tree.tolist()
    if isinstance(tree, dict):
        return type(tree).__name__, [(key, numbers(value)) for key, value in tree.items()]
    if isinstance(tree, list | tuple | deque):
        return type(tree).__name__, [numbers(value) for value in tree]
    return tree


CONTAINERS = {
    "array": lambda x: x,
    "list": lambda x: [x, None, [x]],
    "tuple": lambda x: (x, (), (None, x)),
    "namedtuple": lambda x: Pair(x, Pair(None, [x])),
    "dict": lambda x: {"z": x, "a": [x], 3: x, (1, 2): None},
    "OrderedDict": lambda x: OrderedDict([("z", x), ("a", {"y": x, "b": x})]),
    "defaultdict": lambda x: defaultdict(list, {"z": x, "a": x}),
    "deque": lambda x: deque([x, None], maxlen=5),
    "None": lambda x: None,
    "all-None": lambda x: {"b": None, "a": [None, ()]},
    "empty": lambda x: {"b": [], "a": {}},
}


@both
@each_clip
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_their_types_key_order_and_none_stay(machine: Machine, clip: Any, make: Any) -> None:
    tree = make(X.astype(np.float32) / 1024)
    assert numbers(machine.run(clip, tree)) == numbers(tree)
    here = machine.put(tree)
    out = machine.put(tree)
    returned = clip(here, out=out)
    assert returned is out
    assert numbers(machine.get(out)) == numbers(tree)


@both
@pytest.mark.parametrize("make", [CONTAINERS["None"], CONTAINERS["all-None"], CONTAINERS["empty"]])
def test_a_tree_without_leaves_has_norm_zero(machine: Machine, make: Any) -> None:
    tree = machine.put(make(X))
    for order in (1, 2, math.inf):
        assert bits(cc.global_norm(tree, ord=order)) == bits(np.array(0.0))
    for policy in ("propagate", "raise", "zero"):
        result, norm = cc.clip_by_global_norm(tree, 0, nonfinite=policy)
        assert numbers(result) == numbers(tree)
        assert bits(norm) == bits(np.array(0.0))


@both
@pytest.mark.parametrize("kind", ["generator", "map", "iter"])
def test_a_generator_is_read_once_and_comes_back_as_a_list(machine: Machine, kind: str) -> None:
    read = []

    def one(index: int) -> Any:
        read.append(index)
        return machine.put(X)

    def tree() -> Any:
        made = {"generator": (one(k) for k in range(2)), "map": map(one, range(2))}
        return iter([one(0), one(1)]) if kind == "iter" else made[kind]

    assert numbers(machine.get(cc.clip_weights(tree(), -1, 1))) == ("list", [[1.0, -1.0]] * 2)
    result, norm = cc.clip_by_global_norm(tree(), 100)
    assert numbers(machine.get(result)) == ("list", [[3.0, -4.0]] * 2)
    assert machine.get(norm) == machine.get(cc.global_norm(tree())) == np.sqrt(50.0)
    out = [machine.put(0 * X), machine.put(0 * X)]
    assert cc.clip_weights(tree(), -1, 1, out=out) is out
    assert numbers(machine.get(out)) == ("list", [[1.0, -1.0]] * 2)
    assert read == [0, 1] * 4


GIVE = "not an array; give an array of a supported library, or None to leave the place empty"


@both
@each_function
@pytest.mark.parametrize(
    ("leaf", "shown"),
    [("w", "'w' of type str"), (1.5, "1.5 of type float"), (True, "True of type bool"),
     ({1, 2}, "{1, 2} of type set"), (Path("w"), f"{Path('w')!r} of type pathlib.{type(Path()).__name__}")],
    ids=["str", "float", "bool", "set", "object"],
)  # fmt: skip
def test_any_other_leaf_is_refused_by_path_and_type(
    machine: Machine, name: str, leaf: Any, shown: str
) -> None:
    tree = {"layers": [machine.put(X), Pair(None, leaf)]}
    assert error_of(lambda: LIMITED[name](tree)) == (
        TypeError,
        f"{name}: tree['layers'][1][1] is {shown}, {GIVE}",
    )
    assert error_of(lambda: LIMITED[name](leaf)) == (TypeError, f"{name}: tree is {shown}, {GIVE}")


@both
@each_function
def test_a_generator_inside_a_tree_is_refused(machine: Machine, name: str) -> None:
    error, message = error_of(lambda: LIMITED[name]([machine.put(X), iter([X])]))
    assert error is TypeError
    assert message.startswith(f"{name}: tree[1] is <list_iterator object at 0x")
    assert message.endswith(f" of type list_iterator, {GIVE}")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: cc.clip_by_l1_norm(x, 1),
        lambda x: cc.clip_by_l2_norm(x, 1),
        lambda x: cc.clip_by_value(x, 0, 1),
        cc.l1_norm,
        cc.l2_norm,
    ],
    ids=["clip_by_l1_norm", "clip_by_l2_norm", "clip_by_value", "l1_norm", "l2_norm"],
)
@pytest.mark.parametrize(
    ("x", "shown"),
    [(None, "None of type NoneType"), ([1.0, 2.0], "[1.0, 2.0] of type list"), (3.5, "3.5 of type float"),
     ({}, "{} of type dict"), ("a", "'a' of type str")],
    ids=["None", "list", "float", "dict", "str"],
)  # fmt: skip
def test_what_takes_one_array_refuses_anything_else(
    function: Any, x: Any, shown: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id.partition("-")[2]
    assert error_of(lambda: function(x)) == (
        TypeError,
        f"{name}: x is {shown}, not an array; give an array of a supported library",
    )


@each_function
@pytest.mark.parametrize("kind", ["masked", "subclass"])
def test_numpy_subclasses_with_a_meaning_are_refused(name: str, kind: str) -> None:
    class Tagged(np.ndarray[Any, np.dtype[Any]]):
        pass

    leaf = np.ma.array([1.0]) if kind == "masked" else np.ones(1).view(Tagged)
    error, message = error_of(lambda: LIMITED[name]([X, leaf]))
    assert error is TypeError
    assert message.startswith(f"{name}: tree[1] is {'masked_array(' if kind == 'masked' else 'Tagged([1.])'}")
    assert message.endswith(
        f"{type(leaf).__qualname__}, whose meaning would be lost; give its plain data, as numpy.asarray "
        "returns it, or None to leave the place empty"
    )


@each_clip
def test_a_memmap_is_an_array_and_comes_back_as_a_plain_one(clip: Any, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "leaf", np.float64, "w+", shape=2)
    mapped[:] = X
    result = clip([mapped])[0]
    assert type(result) is np.ndarray
    assert bits(result) == bits(clip([X])[0])
    assert bits(np.asarray(mapped)) == bits(X)
    clip([X], out=[mapped])
    assert bits(np.asarray(mapped)) == bits(result)
    clip([mapped], out=[mapped])
    assert bits(np.asarray(mapped)) == bits(clip([result])[0])


@each_function
def test_mixed_libraries_in_one_tree_are_refused_and_both_are_named(name: str) -> None:
    for first, second in (BOTH, BOTH[::-1]):
        tree = {"a": first.put(X), "b": [None, second.put(X), first.put(X)]}
        assert error_of(lambda: LIMITED[name](tree)) == (  # noqa: B023
            TypeError,
            f"{name}: tree['a'] is an array of {first.library} and tree['b'][1] one of {second.library}; "
            "convert all leaves to one library",
        )


@both
def test_where_is_called_with_each_path_and_leaf_and_chooses_what_is_clipped(machine: Machine) -> None:
    calls: list[Any] = []

    def where(path: tuple[Any, ...], leaf: Any) -> Any:
        calls.append((path, leaf.shape))
        return np.bool_(path[-1] == 1)

    tree = {"b": Pair(X, [None, X]), "a": np.full((1, 1), np.nan), 3: [X, X]}
    result = machine.run(lambda leaves: cc.clip_weights(leaves, -1, 1, where=where), tree)
    assert sorted(calls, key=repr) == [
        (("a",), (1, 1)), (("b", 0), (2,)), (("b", 1, 1), (2,)), ((3, 0), (2,)), ((3, 1), (2,))
    ]  # fmt: skip
    cut = np.array([1.0, -1.0])
    assert same_bits(result, {"b": Pair(X, [None, cut]), "a": tree["a"], 3: [X, cut]})


@both
def test_leaves_that_where_leaves_out_are_copies_of_any_real_dtype(machine: Machine) -> None:
    tree = machine.put([X, np.array([7], np.int8)])
    result = cc.clip_weights(tree, 0.25, 0.75, where=lambda path, leaf: path == (0,))
    result[1][...] = 0
    assert machine.bits(tree[1]) == bits(np.array([7], np.int8))
    assert machine.bits(result[0]) == bits(np.array([0.75, 0.25]))
    bad = machine.put([X, np.array([True])])
    assert error_of(lambda: cc.clip_weights(bad, 0, 1, where=lambda *_: False)) == (
        TypeError,
        "clip_weights: tree[1] has dtype bool; bounds are for integers, float16, bfloat16, float32 and "
        "float64: convert it first",
    )


@both
def test_a_where_that_cannot_be_called_is_refused(machine: Machine) -> None:
    where: Any = [0]
    assert error_of(lambda: cc.clip_weights(machine.put(X), 0, 1, where=where)) == (
        TypeError,
        "clip_weights: where is [0]; give a function called as where(path, leaf)",
    )


# ranks


def clip_on_ranks(machine: Machine, trees: list[Any], order: float, policy: Any) -> list[Any]:
    def rank(index: int, all_reduce: Callable[..., Any]) -> Any:
        tree = machine.put(trees[index])
        more = {"ord": order, "nonfinite": policy, "all_reduce": all_reduce}
        result, norm = cc.clip_by_global_norm(tree, 1.0, **more)
        return machine.get(result), float(norm)

    return on_ranks(len(trees), rank)


@both
@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf], ids=str)
def test_nan_on_one_rank_breaks_the_group_on_every_rank(machine: Machine, order: float, odd: float) -> None:
    trees: list[Any] = [[X], {"w": [X, np.array([1, odd], np.float32)], "v": np.array([odd])}, []]
    norm = math.nan if math.isnan(odd) else math.inf
    for policy, fill in (("propagate", math.nan), ("zero", 0.0)):
        ranks = clip_on_ranks(machine, trees, order, policy)
        assert [str(norm)] * 3 == [str(rank[1]) for rank in ranks]
        assert np.array_equal(ranks[0][0][0], [fill, fill], equal_nan=True)
        assert np.array_equal(ranks[1][0]["v"], [fill], equal_nan=True)
        assert np.array_equal(ranks[1][0]["w"][1], np.full(2, fill, np.float32), equal_nan=True)
        assert ranks[2][0] == []
    mend = "mend it, or choose nonfinite='propagate' or 'zero'"
    ranks = clip_on_ranks(machine, trees, order, "raise")
    assert [type(rank) for rank in ranks] == [FloatingPointError] * 3
    assert [str(rank) for rank in ranks] == [
        f"clip_by_global_norm: NaN or infinity in {where}; {mend}"
        for where in ("a leaf of another rank", "tree['v'], tree['w'][1]", "a leaf of another rank")
    ]


@both
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_nan_on_one_rank_goes_before_infinity_on_another(machine: Machine, order: float) -> None:
    trees = [[np.array([math.inf])], [np.array([math.nan])]]
    assert [math.isnan(norm) for _, norm in clip_on_ranks(machine, trees, order, "propagate")] == [True, True]


@both
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_all_ranks_without_leaves_have_norm_zero(machine: Machine, order: float) -> None:
    assert clip_on_ranks(machine, [[], [], []], order, "raise") == [([], 0.0)] * 3


@pytest.mark.parametrize("machine", [NUMPY, STRICT], ids=str)
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_all_reduce_gets_small_1d_arrays_of_the_library_and_an_operation(
    machine: Machine, order: float
) -> None:
    calls: list[tuple[type, Any, str]] = []

    def alone(array: Any, op: str) -> Any:
        calls.append((type(array), array.ndim, op))
        assert array.shape[0] <= 5
        return array

    kind = np.ndarray if machine is NUMPY else type(strict.asarray(0))
    _, norm = cc.clip_by_global_norm(machine.put(X), 1.0, ord=order, all_reduce=alone)
    assert calls == [(kind, 1, "max"), (kind, 1, "max" if order == math.inf else "sum")]
    assert float(norm) == {1: 7.0, 2: 5.0, math.inf: 4.0}[order]
