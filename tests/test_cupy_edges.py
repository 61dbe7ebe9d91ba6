"""The edges of the contract on the CuPy engine: its kernels on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_on_cpu_machine import CupyMachine, machine_at, on_both
from edge_support import Array, bits, same_but_nan
from test_engines import norm_is_off, result_flaws

import clipcore as cc

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
REALS = [*DTYPES[:4], *(f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64))]


@pytest.fixture
def machine(place: str, request: pytest.FixtureRequest) -> CupyMachine:
    return machine_at(place, request)


def numbers(dtype: str, *shape: int) -> Array:
    """Small numbers of both signs, and zeros of both signs where there are two."""
    rng = np.random.default_rng(5)
    x = rng.integers(-9, 10, (2, *shape)) / 4
    x[x == 0] = rng.choice([0.0, -0.0], np.count_nonzero(x == 0))
    if dtype.startswith("complex"):
        pairs: Array = np.stack([x[0], x[1]], -1).view("complex128")
        return pairs[..., 0].astype(dtype)
    real: Array = x[0] if dtype in DTYPES else np.abs(4 * x[0])
    return real.astype(dtype)


def nans(x: Array) -> Array:
    return np.full_like(x, complex(math.nan, math.nan) if x.dtype.kind == "c" else math.nan)


@on_both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_spoil_or_clear_the_whole_tree(machine: CupyMachine, dtype: str, bad: float) -> None:
    x, other = numbers(dtype, 4, 3), numbers("float32", 300)
    x[2, 1] = complex(0.0, bad) if x.dtype.kind == "c" else bad
    results, norm = machine.run(cc.clip_by_global_norm, [x, other], 1.0)
    assert all(same_but_nan(got, nans(leaf)) for got, leaf in zip(results, [x, other], strict=True))
    assert same_but_nan(norm, np.array(abs(bad)))
    results, norm = machine.run(cc.clip_by_global_norm, [x, other], 1.0, nonfinite="zero")
    assert bits(results) == bits([np.zeros_like(x), np.zeros_like(other)])
    assert same_but_nan(norm, np.array(abs(bad)))
    results, _ = machine.run(cc.clip_by_global_norm, [x, other], math.inf)
    assert bits(results) == bits([x, other])
    results, _ = machine.run(cc.clip_by_global_norm, [x, other], math.inf, nonfinite="zero")
    assert bits(results) == bits([np.zeros_like(x), np.zeros_like(other)])


@on_both
def test_nan_goes_before_infinity(machine: CupyMachine) -> None:
    for dtype in ("float16", "float64", "complex128"):
        x = np.ones(700, dtype)
        x[3], x[600] = math.inf, math.nan
        for order in (1, 2, math.inf):
            assert np.isnan(machine.run(cc.global_norm, [x, x[::-1]], ord=order))


@on_both
def test_raise_names_the_leaves_and_writes_nothing(machine: CupyMachine) -> None:
    tree = {"a": machine.put(np.ones(3)), "b": machine.put(np.array([1.0, math.nan]))}
    out = {"a": machine.put(np.zeros(3)), "b": machine.put(np.zeros(2))}
    with machine.serving(), pytest.raises(FloatingPointError, match=r"NaN or infinity in tree\['b'\]"):
        cc.clip_by_global_norm(tree, 1.0, nonfinite="raise", out=out)
    assert bits(machine.get(out)) == bits({"a": np.zeros(3), "b": np.zeros(2)})
    with machine.serving():
        clipped = cc.clip_by_l2_norm(tree["a"], 1.0, nonfinite="raise")
    assert np.linalg.norm(machine.get(clipped)) <= 1


@on_both
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_limit_of_zero_gives_zeros_with_their_signs(machine: CupyMachine, dtype: str) -> None:
    x = numbers(dtype, 40)
    got = machine.run(cc.clip_by_l2_norm, x, 0.0)
    assert bits(got) == bits(cc.clip_by_l2_norm(x, 0.0))


@on_both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [0.5, np.float32(0.5), np.int8(1), np.uint64(2)], ids=repr)
def test_a_limit_on_the_device_is_as_good_as_a_number(machine: CupyMachine, dtype: str, limit: Any) -> None:
    x = numbers(dtype, 8, 5)
    wanted = machine.run(cc.clip_by_l1_norm, x, float(limit), axis=1)
    assert bits(machine.run(cc.clip_by_l1_norm, x, np.array(limit), axis=1)) == bits(wanted)


@on_both
@pytest.mark.parametrize("bad", [-1.0, math.nan, -math.inf])
def test_a_limit_on_the_device_that_is_none_spoils_everything(machine: CupyMachine, bad: float) -> None:
    for x in (numbers("float32", 5), np.zeros(3, "complex64"), np.array([math.inf])):
        assert same_but_nan(machine.run(cc.clip_by_l2_norm, x, np.array(bad), nonfinite="zero"), nans(x))
    assert bits(machine.run(cc.clip_by_l2_norm, np.zeros(3), np.array(-0.0))) == bits(np.zeros(3))


@on_both
def test_a_norm_that_is_given_is_taken_as_it_is(machine: CupyMachine) -> None:
    x = np.array([3.0, -4.0], "float32")
    for norm in (10.0, np.array(10.0), np.array(10, "int32"), np.array(10, "float16")):
        results, back = machine.run(cc.clip_by_global_norm, [x], 5.0, norm=put(machine, norm))
        assert back == 10
        assert (np.abs(results[0]) <= np.abs(x) / 2).all()
        assert (np.abs(results[0] - x / 2) <= 4 * np.spacing(np.abs(x) / 2)).all()
        results, _ = machine.run(cc.clip_by_global_norm, [x], 11.0, norm=put(machine, norm))
        assert bits(results) == bits([x])
    results, back = machine.run(cc.clip_by_global_norm, [x], 1.0, norm=put(machine, np.array(math.inf)))
    assert same_but_nan(results[0], nans(x))
    assert back == math.inf
    with machine.serving(), pytest.raises(FloatingPointError, match="in norm, which is"):
        cc.clip_by_global_norm([machine.put(x)], 1.0, norm=math.inf, nonfinite="raise")


def put(machine: CupyMachine, value: Any) -> Any:
    return machine.put(value) if isinstance(value, np.ndarray) else value


@on_both
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_shape_comes_back(machine: CupyMachine, shape: tuple[int, ...], dtype: str) -> None:
    x = numbers(dtype, *shape)
    tree = {"x": x, "nothing": None, "empty": np.zeros((0, 2), "float32")}
    results, norm = machine.run(cc.clip_by_global_norm, tree, 1e-3)
    wanted, exact = cc.clip_by_global_norm(tree, 1e-3)
    assert results["x"].shape == shape
    assert results["x"].dtype == x.dtype
    assert results["nothing"] is None
    assert results["empty"].shape == (0, 2)
    assert norm == exact or abs(float(norm) - float(exact)) <= 2.0**-44 * float(exact)
    step = (
        np.spacing(np.abs(np.asarray(wanted["x"]).view(np.float32)).max())
        if dtype == "float32" and x.size
        else 0
    )
    if dtype == "float32":
        assert (np.abs(results["x"] - wanted["x"]) <= 4 * step).all()


@on_both
def test_groups_without_elements_and_no_groups_have_norm_zero_or_none(machine: CupyMachine) -> None:
    x = np.zeros((3, 0, 2), "float32")
    assert bits(machine.run(cc.l2_norm, x, axis=1)) == bits(np.zeros((3, 2)))
    assert machine.run(cc.l2_norm, x, axis=0).shape == (0, 2)
    assert machine.run(cc.clip_by_l2_norm, x, 1.0, axis=1).shape == x.shape
    assert machine.run(cc.clip_by_l2_norm, x, 1.0, axis=(0, 2)).shape == x.shape
    assert bits(machine.run(cc.clip_by_l2_norm, np.zeros(4), 0.0)) == bits(np.zeros(4))


def views(x: Any) -> list[Any]:
    """Views of an array of three dimensions that lie in memory in different ways."""
    return [x, x.transpose(2, 0, 1), x[::2, ::-1], x[:, 1:3, ::3], x[1], x[:, :1], x[::-1, ::-1, ::-1]]


@on_both
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_do_not_matter(machine: CupyMachine, dtype: str) -> None:
    base = numbers(dtype, 4, 5, 300)
    for index, x in enumerate(views(base)):
        flat = machine.run(cc.clip_by_l2_norm, np.ascontiguousarray(x), 0.75, axis=-1)
        there = views(machine.put(base))[index]
        with machine.serving():
            result, norms = cc.clip_by_l2_norm(there, 0.75, axis=-1), cc.l2_norm(there, axis=-1)
            whole = cc.clip_by_l1_norm(there, 0.75)
        assert bits(machine.get(result)) == bits(flat)
        assert np.allclose(machine.get(norms), np.linalg.norm(x.astype("complex128"), axis=-1), rtol=2.0**-44)
        assert np.abs(machine.get(whole).astype("complex128")).sum() <= 0.75 * (1 + 2.0**-44)


@on_both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [0.75, 1e6])
def test_in_place_gives_the_bits_of_the_pure_form(machine: CupyMachine, dtype: str, limit: float) -> None:
    base = numbers(dtype, 4, 5, 300)
    for index in range(len(views(base))):
        there = views(machine.put(base))[index]
        with machine.serving():
            pure, norm = cc.clip_by_global_norm([there], limit)
            tree = [there]
            same, again = cc.clip_by_global_norm(tree, limit, out=tree)
        assert same is tree
        assert bits(machine.get([*same, again])) == bits(machine.get([*pure, norm]))


@on_both
def test_out_may_overlap_the_input(machine: CupyMachine) -> None:
    x = np.arange(1000, dtype="float32")
    wanted = machine.run(cc.clip_by_l2_norm, x[:-1], 3.0)
    there = machine.put(x)
    with machine.serving():
        cc.clip_by_l2_norm(there[:-1], 3.0, out=there[1:])
    assert bits(machine.get(there)[1:]) == bits(wanted)
    there = machine.put(x)
    with machine.serving():
        cc.clip_by_value(there[:-1], 5, 900, out=there[1:])
    assert bits(machine.get(there)[1:]) == bits(np.clip(x[:-1], 5, 900))


@on_both
def test_leaves_of_out_that_share_bytes_are_refused(machine: CupyMachine) -> None:
    there, x = machine.put(np.zeros(10)), machine.put(np.ones(4))
    with machine.serving():
        with pytest.raises(ValueError, match="share bytes"):
            cc.clip_by_global_norm([x, x], 1.0, out=[there[:4], there[3:7]])
        cc.clip_by_global_norm([x, x], 1.0, out=[there[:8:2], there[1:8:2]])
    assert bits(machine.get(there)[:8]) == bits(
        np.repeat(machine.run(cc.clip_by_l2_norm, np.ones(8), 1.0)[0], 8)
    )


@on_both
@pytest.mark.parametrize("dtype", REALS)
def test_values_are_clamped_as_numpy_clamps_them(machine: CupyMachine, dtype: str) -> None:
    x = numbers(dtype, 6, 50)
    if dtype in DTYPES:
        x[0, :4] = math.nan, math.inf, -math.inf, -0.0
    for lower, upper in ((1, 2), (None, 1.3), (0, None), (-0.0, 1), (None, None)):
        got = machine.run(cc.clip_by_value, x, lower, upper)
        assert same_but_nan(got, cc.clip_by_value(x, lower, upper))
    kind = dtype if dtype not in DTYPES else "float32"
    low, high = np.arange(50).astype(kind) // 20, np.full((6, 1), 2, kind)
    if dtype in DTYPES:
        high[2] = math.nan
    assert same_but_nan(machine.run(cc.clip_by_value, x, low, high), cc.clip_by_value(x, low, high))
    assert same_but_nan(machine.run(cc.clip_by_value, x, low, 3), cc.clip_by_value(x, low, 3))


@on_both
@pytest.mark.parametrize("dtype", DTYPES)
def test_leaves_may_begin_at_any_address_and_end_anywhere(machine: CupyMachine, dtype: str) -> None:
    x = numbers(dtype, 700)
    there = machine.put(x)
    for start, stop in ((0, 700), (1, 700), (2, 699), (3, 698), (5, 6), (7, 641), (8, 697)):
        part, here = there[start:stop], x[start:stop]
        with machine.serving():
            (clipped,), norm = cc.clip_by_global_norm([part], 1.0)
            (kept,), _ = cc.clip_by_global_norm([part], 1e4)
        assert norm_is_off(machine, machine.get(norm), [here], 2) is None
        assert list(result_flaws(machine, [here], [machine.get(clipped)], 1.0, 2)) == []
        assert bits(machine.get(kept)) == bits(here)
        with machine.serving():
            cc.clip_by_global_norm([part], 0.5, out=[part])
        after = machine.get(there)
        assert bits([after[:start], after[stop:]]) == bits([x[:start], x[stop:]])
        if dtype in REALS:
            with machine.serving():
                between = cc.clip_by_value(part, -0.01, 0.01)
            assert bits(machine.get(between)) == bits(cc.clip_by_value(after[start:stop], -0.01, 0.01))
        x = after


@on_both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_array_bounds_are_rounded_inwards(machine: CupyMachine, dtype: str, kind: str) -> None:
    edges = [0.0, -0.0, 1.0, 1.001, -1.001, 3e4, 7e4, -7e4, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan]
    tiny = [1e-7, -1e-7, 1e-39, -1e-39, 1e-41, 2.0**-149, -(2.0**-149), 1e-300, -5e-324]
    bound = np.array([*edges, *tiny, *(np.random.default_rng(8).standard_normal(40) * 9)]).astype(kind)
    x = np.tile(numbers(dtype, 7, 1), (1, bound.size))
    for lower, upper in ((bound, None), (None, bound)):
        got, wanted = machine.run(cc.clip_by_value, x, lower, upper), cc.clip_by_value(x, lower, upper)
        assert same_but_nan(got, wanted)


@on_both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_array_bounds_of_integers_are_rounded_inwards(machine: CupyMachine, dtype: str) -> None:
    bound = np.array(
        [0, 1, -3, 257, -257, 2**24 + 1, -(2**24) - 1, 2**60 + 1, -(2**60) - 1, 2**63 - 1, -(2**63)]
    )
    x = np.tile(numbers(dtype, 7, 1), (1, bound.size))
    for lower, upper in ((bound, None), (None, bound)):
        got, wanted = machine.run(cc.clip_by_value, x, lower, upper), cc.clip_by_value(x, lower, upper)
        assert same_but_nan(got, wanted)


@on_both
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_limits_and_norms_on_the_device_are_what_they_are(machine: CupyMachine, kind: str) -> None:
    x = np.ldexp(numbers("float32", 60), -140)
    for number in (1, 2) if kind == "int64" else (1.0, 2.0**-24, 2.0**-133):
        given = np.array(number).astype(kind)
        for keywords in ({}, {"norm": machine.put(np.array([given]))[0]}):
            got = machine.run(cc.clip_by_global_norm, x, np.array([given])[0:1].reshape(()), **keywords)[0]
            plain = {name: float(given) for name in keywords}
            assert bits(got) == bits(machine.run(cc.clip_by_global_norm, x, float(given), **plain)[0])


@on_both
def test_weights_are_clamped_where_they_are_chosen(machine: CupyMachine) -> None:
    tree = {"a": numbers("float32", 70), "b": [numbers("int8", 3, 3), numbers("bfloat16", 400)]}

    def chosen(path: tuple[Any, ...], _: Any) -> bool:
        return path != ("b", 1)

    got = machine.run(cc.clip_weights, tree, 0.5, 1.5, where=chosen)
    assert bits(got) == bits(cc.clip_weights(tree, 0.5, 1.5, where=chosen))
    there = machine.put(tree)
    with machine.serving():
        assert cc.clip_weights(there, 0.5, 1.5, where=chosen, out=there) is there
    assert bits(machine.get(there)) == bits(got)


@on_both
@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("power", [-300, 0, 290])
def test_all_ranks_get_the_same_bits_and_one_without_leaves_too(
    machine: CupyMachine, order: float, power: int
) -> None:
    x = np.ldexp(np.random.default_rng(2).standard_normal(900), power)
    shards: list[list[Array]] = [[x[:100], x[100:350]], [x[350:]], []]
    limit = float(cc.global_norm(x, ord=order)) / 3
    barrier, given = threading.Barrier(3), [np.zeros(0)] * 3

    def rank(index: int) -> tuple[list[Array], Array]:
        def all_reduce(array: Any, op: str) -> Any:
            here = isinstance(array, np.ndarray)
            given[index] = array if here else array.get()
            barrier.wait(30)
            total = np.stack(given).sum(0) if op == "sum" else np.stack(given).max(0)
            barrier.wait(30)
            return total if here else machine.cupy.array(total)

        return cc.clip_by_global_norm(
            [machine.put(shard) for shard in shards[index]], limit, ord=order, all_reduce=all_reduce
        )

    with machine.serving(), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(rank, range(3)))
    norms = [norm if isinstance(norm, np.ndarray) else norm.get() for _, norm in found]
    assert bits([norms[0]]) == bits([norms[1]]) == bits([norms[2]])
    exact = float(cc.global_norm(x, ord=order))
    assert abs(float(norms[0]) - exact) <= 2 * math.ulp(exact)
    clipped = np.concatenate([machine.get(leaf) for leaves, _ in found for leaf in leaves])
    assert limit * (1 - 2.0**-50) <= float(cc.global_norm(clipped, ord=order)) <= limit * (1 + 2.0**-50)


@on_both
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_on_another_rank_spoils_this_one(machine: CupyMachine, bad: float) -> None:
    def all_reduce(array: Any, op: str) -> Any:
        # The other rank sends its flags, and zero for all else.
        flags = np.array([0.0, math.isinf(bad), math.isnan(bad)])
        return machine.cupy.array(np.maximum(array.get(), flags)) if op == "max" else array

    x = machine.put(np.array([3.0, 4.0]))
    with machine.serving():
        (result,), norm = cc.clip_by_global_norm([x], 1.0, all_reduce=all_reduce)
    assert np.isnan(machine.get(result)).all()
    assert same_but_nan(machine.get(norm), np.array(bad))


def test_bfloat16_has_its_name(request: pytest.FixtureRequest) -> None:
    machine = machine_at("cpu", request)
    got = machine.run(cc.clip_by_l2_norm, np.ones(4, ml_dtypes.bfloat16), 1.0)
    assert got.dtype == ml_dtypes.bfloat16
