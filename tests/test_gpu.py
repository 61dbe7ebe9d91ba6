"""What only a GPU can show of the CuPy engine: no wait, the current stream, large leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np
import pytest
from cuda_on_cpu import missing
from cuda_on_cpu_machine import CupyMachine, machine_at, stand_in
from edge_support import Array, bits

import clipcore as cc

pytestmark = pytest.mark.gpu

# Holds its stream until the host raises the flag, at most about 5 seconds, and then says so.
GATE = r"""
extern "C" __global__ void gate(volatile int* flags)
{
    long long start = clock64();
    while (!flags[0])
        if (clock64() - start > 10000000000ll) {
            flags[1] = 1;
            return;
        }
}
"""

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]

CALLS: dict[str, Callable[[list[Any], Any], Any]] = {
    "clip": lambda tree, limit: cc.clip_by_global_norm(tree, 1.0),
    "clip in place": lambda tree, limit: cc.clip_by_global_norm(tree, 1.0, out=tree),
    "clip to a limit on the device": lambda tree, limit: cc.clip_by_global_norm(tree, limit),
    "clip by a norm on the device": lambda tree, limit: cc.clip_by_global_norm(tree, 1.0, norm=limit),
    "clear": lambda tree, limit: cc.clip_by_global_norm(tree, limit, nonfinite="zero"),
    "clip groups": lambda tree, limit: cc.clip_by_l1_norm(tree[0], limit, axis=0),
    "norm": lambda tree, limit: cc.global_norm(tree, ord=math.inf),
    "weights": lambda tree, limit: cc.clip_weights(tree, -1, 1),
    "values between arrays": lambda tree, limit: cc.clip_by_value(tree[0], limit, tree[0]),
}


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> CupyMachine:
    return machine_at("gpu", request)


class Gate:
    """A stream that is held: work behind the gate waits until it opens."""

    def __init__(self, cupy: Any) -> None:
        self.memory = cupy.cuda.alloc_pinned_memory(8)
        self.flags = np.frombuffer(self.memory, np.int32, 2)
        self.flags[:] = 0
        self.kernel = cupy.RawKernel(GATE, "gate")

    def close(self) -> None:
        self.kernel((1,), (1,), (np.uint64(self.memory.ptr),))

    def open(self) -> None:
        self.flags[0] = 1

    @property
    def expired(self) -> bool:
        return bool(self.flags[1])


def tree_of(machine: CupyMachine, dtype: str = "float32") -> list[Any]:
    return [machine.put(x) for x in arrays_of(dtype)]


def arrays_of(dtype: str) -> list[Array]:
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(2 * 70000) * 2.0 ** rng.integers(-9, 9, 2 * 70000)).view("complex128")
    x = x.astype(dtype) if dtype.startswith("complex") else x.real.astype(dtype)
    return [x[:60000].reshape(200, 300), x[60000:69000], x[69000:]]


@pytest.mark.parametrize("name", CALLS)
def test_the_host_does_not_wait_for_the_device(machine: CupyMachine, name: str) -> None:
    cupy, call = machine.cupy, CALLS[name]
    tree, limit = tree_of(machine), machine.put(np.array(1.0, "float32"))
    stream, gate = cupy.cuda.Stream(non_blocking=True), Gate(cupy)
    with machine.serving(), stream:
        call(tree, limit)  # compiles the kernels and takes memory
        stream.synchronize()
        gate.close()
        call(tree, limit)
        held = not stream.done
        gate.open()
        stream.synchronize()
    assert held
    assert not gate.expired


def test_the_gate_expires_where_the_host_waits(machine: CupyMachine) -> None:
    cupy = machine.cupy
    stream, gate = cupy.cuda.Stream(non_blocking=True), Gate(cupy)
    with stream:
        x = cupy.ones(3)
        gate.close()
        x.get()
    assert gate.expired


def test_no_stream_but_the_current_one_is_waited_for(machine: CupyMachine) -> None:
    cupy, tree = machine.cupy, tree_of(machine)
    other, stream, gate = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True), Gate(cupy)
    with machine.serving():
        with stream:
            wanted = cc.clip_by_global_norm(tree, 1.0)
            stream.synchronize()
        with other:
            gate.close()
        with stream:
            found = cc.clip_by_global_norm(tree, 1.0)
            stream.synchronize()
        held = not other.done
        gate.open()
        other.synchronize()
    assert held
    assert not gate.expired
    assert bits(machine.get(found)) == bits(machine.get(wanted))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_hundred_runs_give_the_same_bits(machine: CupyMachine, dtype: str) -> None:
    cupy, tree = machine.cupy, tree_of(machine, dtype)
    with machine.serving():
        for order in (1, 2, math.inf):
            first, norm = cc.clip_by_global_norm(tree, 1.0, ord=order)
            for _ in range(100):
                again, same = cc.clip_by_global_norm(tree, 1.0, ord=order)
                for pair in zip([*again, same], [*first, norm], strict=True):
                    got, wanted = (x.reshape(-1).view(cupy.uint8) for x in pair)
                    assert bool((got == wanted).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_the_bits_are_those_of_the_same_source_on_the_cpu(
    machine: CupyMachine, dtype: str, order: float
) -> None:
    if missing():
        pytest.skip(str(missing()))
    arrays = arrays_of(dtype)
    found = [
        bits(there.run(cc.clip_by_global_norm, arrays, 1.0, ord=order)) for there in (machine, stand_in())
    ]
    assert found[0] == found[1]


def test_ten_thousand_leaves_are_clipped_together(machine: CupyMachine) -> None:
    cupy = machine.cupy
    tree = [cupy.full((7,), k % 5, "float32") for k in range(10_000)]
    exact = math.sqrt(7 * 2000 * (0 + 1 + 4 + 9 + 16))
    with machine.serving():
        results, norm = cc.clip_by_global_norm(tree, 1.0)
        assert abs(float(norm) - exact) <= 2.0**-44 * exact
        assert 1 - 2.0**-22 <= float(cc.global_norm(results)) <= 1 + 2.0**-44
        cc.clip_weights(tree, 1, 2, out=tree)
    assert sorted({float(x[0]) for x in tree[:5]}) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [("float32", 2**31), ("float16", 2**32), ("int8", 2**33)])
def test_a_leaf_of_8_gib_is_clipped_in_place(machine: CupyMachine, dtype: str, size: int) -> None:
    cupy = machine.cupy
    if cupy.cuda.runtime.memGetInfo()[0] < 10 * 2**30:
        pytest.skip("less than 10 GiB of GPU memory are free")
    x = cupy.ones(size, dtype)
    with machine.serving():
        if dtype == "int8":
            cc.clip_weights([x], 2, 3, out=[x])
            assert bool((x == 2).all())
            return
        assert abs(float(cc.l2_norm(x)) - math.sqrt(size)) <= 2.0**-44 * math.sqrt(size)
        limit = math.sqrt(size) / 4
        cc.clip_by_global_norm([x], limit, out=[x])
    u = 2.0**-11 if dtype == "float16" else 2.0**-24
    assert float(x.min()) == float(x.max())
    assert 0.25 * (1 - 4 * u) <= float(x[-1]) <= 0.25


def test_leaves_on_several_gpus_are_clipped_together(machine: CupyMachine) -> None:
    cupy = machine.cupy
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("only one GPU is here")
    with cupy.cuda.Device(1):
        far = cupy.array(np.array([4.0]))
    with machine.serving():
        (near, beyond), norm = cc.clip_by_global_norm([cupy.array(np.array([3.0])), far], 1.0)
    assert (float(norm), near.device.id, beyond.device.id) == (5.0, 0, 1)
