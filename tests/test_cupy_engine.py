"""What the CuPy engine asks of the device: few launches and copies, no wait, no order of threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np
import pytest
from clipcore_backends._cupy import SOURCE
from clipcore_backends._cupy_table import BLOCK, CHUNK, _dims, look, table_of
from clipcore_backends._protocol import Sum
from cuda_on_cpu import Cupy, HostCopyError, library, missing
from cuda_on_cpu_machine import CupyMachine, machine_at, stand_in
from edge_support import Array, bits

import clipcore as cc
from clipcore._reduce import all_ranks
from clipcore.verify.exact import exact_norm

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> CupyMachine:
    return machine_at("cpu", request)


def noted(machine: CupyMachine, call: Callable[[], Any]) -> tuple[list[str], int]:
    """The launches of a call, and its copies to the device."""
    machine.cupy.notes.clear()
    with machine.serving(), machine.no_host_copy():
        call()
    notes = list(machine.cupy.notes)
    return machine.cupy.launches(), sum(what == "to device" for what, _ in notes)


def tree_of(machine: CupyMachine, count: int) -> list[Any]:
    """Leaves of three dtypes, contiguous and not."""
    rng = np.random.default_rng(0)
    kinds = ("float32", "float16", "complex64")
    return [machine.put(rng.standard_normal(20).astype(kinds[k % 3]))[:: 1 + k % 2] for k in range(count)]


CALLS: dict[str, tuple[Callable[[list[Any]], Any], list[str], int]] = {
    "clip": (
        lambda tree: cc.clip_by_global_norm(tree, 1.0),
        ["measure", "finish", "decide_all", "scale"],
        2,
    ),
    "clip in place": (
        lambda tree: cc.clip_by_global_norm(tree, 1.0, out=tree),
        ["measure", "finish", "decide_all", "scale"],
        1,
    ),
    "norm": (lambda tree: cc.global_norm(tree), ["measure", "finish"], 1),
    "clip by a given norm": (
        lambda tree: cc.clip_by_global_norm(tree, 1.0, norm=3.0),
        ["norms", "decide_all", "scale"],
        1,
    ),
    "clip over ranks": (
        lambda tree: cc.clip_by_global_norm(tree, 1.0, all_reduce=lambda array, op: array),
        ["measure", "finish", "share_size", "share_sum", "take_sum", "norms", "decide_all", "scale"],
        4,
    ),
}


@pytest.mark.parametrize("count", [1, 10, 10_000])
@pytest.mark.parametrize("name", CALLS)
def test_launches_and_copies_do_not_grow_with_the_leaves(machine: CupyMachine, name: str, count: int) -> None:
    call, launches, copies = CALLS[name]
    tree = tree_of(machine, count)
    assert noted(machine, lambda: call(tree)) == (launches, copies)
    machine.cupy.check_margins()


@pytest.mark.parametrize("count", [1, 10_000])
def test_weights_of_any_number_of_leaves_are_clamped_in_one_launch(machine: CupyMachine, count: int) -> None:
    tree = [machine.put(np.arange(-3, 4).astype(("float32", "int8")[k % 2])) for k in range(count)]
    assert noted(machine, lambda: cc.clip_weights(tree, -1, 2, out=tree)) == (["clamp"], 2)
    assert machine.get(tree[0]).tolist() == [-1, -1, -1, 0, 1, 2, 2]


def test_launches_do_not_grow_with_the_groups(machine: CupyMachine) -> None:
    for shape in ((1, 3), (5000, 3), (3, 40000)):
        x = machine.put(np.ones(shape, "float32"))
        launches, _ = noted(machine, lambda x=x: cc.clip_by_l2_norm(x, 1.0, axis=1))  # type: ignore[misc]
        assert launches == ["measure", "finish", "decide_all", "scale"]


def test_nothing_is_launched_for_leaves_without_elements(machine: CupyMachine) -> None:
    x = machine.put(np.zeros((0, 3)))
    assert noted(machine, lambda: cc.clip_by_value(x, 0, 1))[0] == []
    assert noted(machine, lambda: cc.clip_by_global_norm([x], 1.0))[0] == ["finish", "decide_all"]


@pytest.mark.parametrize("limit", [1.0, np.array(1.0), np.array(-1.0)])
@pytest.mark.parametrize("nonfinite", ["propagate", "zero"])
def test_no_value_is_looked_at(machine: CupyMachine, nonfinite: Any, limit: Any) -> None:
    x = machine.put(np.array([3.0, math.nan, 4.0]))
    bound = machine.put(limit) if isinstance(limit, np.ndarray) else limit
    with machine.serving(), machine.no_host_copy():
        cc.clip_by_global_norm([x, x], bound, nonfinite=nonfinite)
        cc.clip_by_l2_norm(x, bound, axis=0, nonfinite=nonfinite, out=x)
        cc.clip_by_global_norm([x], bound, norm=machine.put(np.array(2.0)))
        cc.clip_by_value(x, machine.put(np.array([1, 2, 3], "int64")), 5.0)


def test_only_raise_looks_and_once_where_all_is_finite(machine: CupyMachine) -> None:
    tree = tree_of(machine, 50)
    machine.cupy.notes.clear()
    with machine.serving():
        cc.clip_by_global_norm(tree, 1.0, nonfinite="raise")
    assert [what for what, _ in machine.cupy.notes].count("to host") == 1
    with machine.serving(), machine.no_host_copy(), pytest.raises(HostCopyError):
        cc.clip_by_global_norm(tree, 1.0, nonfinite="raise")


@pytest.mark.parametrize("look", [bool, float, repr, str, lambda x: x.get(), lambda x: x.item()])
def test_the_guard_sees_every_look(machine: CupyMachine, look: Callable[[Any], Any]) -> None:
    x = machine.put(np.array(1.0))
    look(x)
    with machine.no_host_copy(), pytest.raises(HostCopyError, match="8 bytes copied"):
        look(x)
    with pytest.raises(TypeError, match="implicit conversion"):
        np.asarray(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_the_bits_are_those_of_any_order_in_which_threads_run(
    machine: CupyMachine, dtype: str, order: float
) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(2 * 33000) * 2.0 ** rng.integers(-9, 9, 2 * 33000)).view("complex128")
    x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
    tree = [x, x[:1000].reshape(10, 100), x[5:700]]
    found = [
        bits(there.run(cc.clip_by_global_norm, tree, 1.0, ord=order))
        for there in (machine, stand_in(True)) * 2
    ]
    assert found == found[:1] * 4
    if order != math.inf:
        clip = cc.clip_by_l1_norm if order == 1 else cc.clip_by_l2_norm
        rows = x[:32000].reshape(80, 400)
        assert bits(machine.run(clip, rows, 1.0, axis=0)) == bits(stand_in(True).run(clip, rows, 1.0, axis=0))


def test_a_race_would_be_seen(request: pytest.FixtureRequest) -> None:
    machine_at("cpu", request)
    found = []
    for machine in (stand_in(), stand_in(True)):
        cupy = machine.cupy
        out = cupy.array(np.zeros(1, np.int64))
        cupy.RawModule(code=SOURCE, options=()).get_function("probe_race")((2,), (BLOCK,), (out,))
        found.append(int(out.get()[0]))
    assert found == [BLOCK + BLOCK - 1, 0]


def test_the_stand_in_refuses_what_a_gpu_would_misread(machine: CupyMachine) -> None:
    kernel = machine.cupy.RawModule(code=SOURCE, options=()).get_function("probe_race")
    out = machine.cupy.array(np.zeros(1, np.int64))
    with pytest.raises(TypeError, match="takes 1 arguments, not 2"):
        kernel((1,), (BLOCK,), (out, 1.5))
    with pytest.raises(TypeError, match="no word of 64 bits"):
        kernel((1,), (BLOCK,), (np.int32(7),))
    with pytest.raises(ValueError, match="a grid of 0 blocks"):
        kernel((0,), (BLOCK,), (out,))


def test_a_write_outside_of_an_array_would_be_seen() -> None:
    if missing():
        pytest.skip(str(missing()))
    cupy = Cupy()
    x = cupy.empty(3, "float64")
    cupy.check_margins()
    y = cupy.empty(3, "float64")
    np.ndarray(4, "float64", cupy.buffers[0], 64)[3] = 1.0
    with pytest.raises(AssertionError):
        cupy.check_margins()
    assert (x.size, y.size) == (3, 3)


def test_a_team_is_no_larger_than_its_groups_need(machine: CupyMachine) -> None:
    for length, team, chunks in ((1, 1, 7), (3, 4, 7), (256, 256, 7), (CHUNK, 256, 7), (CHUNK + 1, 256, 14)):
        x = machine.put(np.zeros((7, length), "float16"))
        table = table_of(look([x]), look([x]), axis=(1,))
        assert (table.leaves, table.team, table.chunks) == (1, team, chunks)


@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("exponent", [-1200, -5, 0, 3, 1100])
@pytest.mark.parametrize("hi", [0.0, 0.7, 1.9, math.nan, math.inf])
def test_ranks_are_sent_word_for_word_what_numpy_sends(
    machine: CupyMachine, hi: float, exponent: int, order: float
) -> None:
    cupy, engine = machine.cupy, machine.engine
    lo = math.ulp(hi) / 3 if math.isfinite(hi) else 0.0
    sent: dict[str, list[tuple[str, Array]]] = {"numpy": [], "cupy": []}

    def beside_another(array: Array, op: str) -> Array:
        # The other rank has a little more, and no infinity or NaN.
        other = array * 1.25
        if op == "max" and array.size == 3:
            other[1:] = 0
        return np.maximum(array, other) if op == "max" else array + other

    def with_numpy(array: Array, op: str) -> Array:
        sent["numpy"].append((op, array.copy()))
        return beside_another(array, op)

    def with_cupy(array: Any, op: str) -> Any:
        sent["cupy"].append((op, array.get()))
        return cupy.array(beside_another(array.get(), op))

    wanted = all_ranks(Sum(hi, lo, exponent, 2.0**-60), order, with_numpy)
    parts = [cupy.array(np.array(part)) for part in (hi, lo, np.int64(exponent))]
    there = Sum(parts[0], parts[1], parts[2], 2.0**-60)
    got = engine.all_ranks(there, order, with_cupy)
    assert [op for op, _ in sent["cupy"]] == [op for op, _ in sent["numpy"]]
    assert bits([array for _, array in sent["cupy"]]) == bits([array for _, array in sent["numpy"]])
    found = [float(machine.get(part)) for part in got[:3]]
    assert found == [float(part) for part in wanted[:3]] or (math.isnan(hi) and math.isnan(found[0]))
    assert got.error == 2.0**-60


@pytest.mark.parametrize(
    ("shape", "strides", "axis", "dims"),
    [
        ((), ((), ()), None, [(1, 0, 0)]),
        ((2, 3, 4), ((48, 16, 4), (48, 16, 4)), None, [(24, 4, 4)]),
        ((2, 3, 4), ((48, 16, 4), (4, 8, 24)), None, [(2, 48, 4), (3, 16, 8), (4, 4, 24)]),
        ((4, 3, 2), ((4, 16, 48), (4, 16, 48)), None, [(24, 4, 4)]),
        ((2, 3, 4), ((48, 16, 4), (48, 16, 4)), (2,), [(24, 4, 4)]),
        ((2, 3, 4), ((48, 16, 4), (48, 16, 4)), (0,), [(12, 4, 4), (2, 48, 48)]),
        ((2, 3, 4), ((48, 16, 4), (48, 16, 4)), (2, 0), [(3, 16, 16), (2, 48, 48), (4, 4, 4)]),
        ((5, 1, 2), ((-8, 99, -4), (8, 99, 4)), None, [(10, -4, 4)]),
        ((5, 2), ((0, 4), (8, 4)), None, [(2, 4, 4), (5, 0, 8)]),
    ],
)
def test_dimensions_are_merged_where_all_arrays_lie_alike(
    shape: tuple[int, ...], strides: Any, axis: tuple[int, ...] | None, dims: list[tuple[int, ...]]
) -> None:
    assert _dims(shape, strides, axis) == dims


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)], ids=str)
def test_addresses_are_told_without_a_look(machine: CupyMachine, shape: tuple[int, ...]) -> None:
    x = machine.put(np.zeros(shape, "complex64"))
    with machine.no_host_copy():
        placed = machine.engine.addresses(x)
    assert (placed.shape, placed.strides, placed.itemsize) == (x.shape, x.strides, 8)
    assert placed.__array_interface__["data"][0] == x.data.ptr


def test_the_library_is_compiled_once() -> None:
    if missing():
        pytest.skip(str(missing()))
    assert library() is library()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("power", [-1000, -400, 0, 470, 1000])
def test_the_sum_is_as_near_to_the_exact_one_as_it_says(
    machine: CupyMachine, dtype: str, order: float, power: int
) -> None:
    x = np.random.default_rng(3).standard_normal(1600).view("complex128")
    x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
    if dtype in ("float64", "complex128"):
        x = np.ldexp(x.view("float64"), power + np.arange(x.view("float64").size) % 11).view(dtype)
        error = 2.0**-60
    else:
        error = 2.0**-46
    seen = machine.engine.look([machine.put(x[:500]), machine.put(x[500:])])
    total, _ = machine.engine.measure(machine.engine.place(seen, seen, None), order)
    assert total.error == error
    hi, lo, exponent = (machine.get(part) for part in total[:3])
    got = (Fraction(float(hi)) + Fraction(float(lo))) * Fraction(2) ** int(exponent)
    assert abs(Fraction(float(lo))) <= Fraction(float(hi)) / 2**52
    if order == 2:
        parts = np.concatenate([x.real, x.imag]).astype("float64")
        low = high = sum((Fraction(part) ** 2 for part in parts.tolist()), Fraction(0))
    else:
        low, high = exact_norm([x], order).bounds(1300)
    assert low * (1 - Fraction(error)) <= got <= high * (1 + Fraction(error))


def widened(x: Array) -> Array:
    return x.astype("complex128" if x.dtype.kind == "c" else "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_that_of_numpy_to_the_last_bits(machine: CupyMachine, dtype: str) -> None:
    x = np.random.default_rng(3).standard_normal(20000).view("complex128")
    x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
    for order in (1, 2, math.inf):
        got, wanted = machine.run(cc.global_norm, x, ord=order), cc.global_norm(widened(x), ord=order)
        assert abs(float(got) - float(wanted)) <= 2.0**-45 * float(wanted)
