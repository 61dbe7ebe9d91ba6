"""What keeps clipping fast, in counts that no machine's mood changes: calls, passes, memory, threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from clipcore_backends import _numpy_measure, _threads
from clipcore_backends._numpy import NumpyEngine
from clipcore_backends._numpy_pieces import PIECE, gathered, pieces

import clipcore as cc

MIB = 2**20


def calls(work: Callable[[], Any]) -> int:
    """Count the functions that are called, of Python and of C."""
    count = 0

    def count_it(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_it)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def small(count: int) -> list[Any]:
    return [np.ones(1000, np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("most", "clip"),
    [
        (2, lambda tree: cc.clip_by_global_norm(tree, 1.0, out=tree)),
        (2, lambda tree: cc.clip_by_global_norm(tree, 1e9, out=tree)),
        (4, lambda tree: cc.clip_by_global_norm(tree, 1.0)),
        (2, cc.global_norm),
    ],
)
def test_calls_a_leaf(most: int, clip: Callable[[Any], Any]) -> None:
    few, many = small(100), small(300)
    clip(small(2))  # what is computed once
    assert calls(lambda: clip(many)) - calls(lambda: clip(few)) <= 200 * most


def test_calls_of_a_small_tree() -> None:
    tree = {"w": np.ones((8, 4), np.float32), "b": np.ones(4, np.float32)}
    cc.clip_by_global_norm(tree, 1.0, out=tree)
    assert calls(lambda: cc.clip_by_global_norm(tree, 0.5, out=tree)) <= 200


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many elements are read to be summed, scaled, copied."""
    seen = {"read": 0, "scaled": 0, "copied": 0}
    scale, copy = NumpyEngine.scale, NumpyEngine.copy

    def read(batch: Any, *arguments: Any) -> Any:
        seen["read"] += sum(array.size for array in batch)
        return gathered(batch, *arguments)

    def scaled(self: Any, leaves: Any, *arguments: Any) -> None:
        seen["scaled"] += sum(leaf.size for leaf in leaves)
        scale(self, leaves, *arguments)

    def copied(self: Any, leaves: Any, *arguments: Any) -> None:
        seen["copied"] += sum(leaf.size for leaf in leaves)
        copy(self, leaves, *arguments)

    monkeypatch.setattr(_numpy_measure, "gathered", read)
    monkeypatch.setattr(_numpy_measure, "compiled_sum", lambda *_: None)
    monkeypatch.setattr(NumpyEngine, "scale", scaled)
    monkeypatch.setattr(NumpyEngine, "copy", copied)
    return seen


def test_every_element_is_read_once_and_written_once_at_most(passes: dict[str, int]) -> None:
    tree = [np.ones((700, 1000), np.float32), np.ones(3, np.float32)]
    size = sum(x.size for x in tree)
    cc.clip_by_global_norm(tree, 1e9, out=tree)
    assert passes == {"read": size, "scaled": 0, "copied": 0}
    cc.clip_by_global_norm(tree, 1.0, out=tree)
    assert passes == {"read": 2 * size, "scaled": size, "copied": 0}
    cc.clip_by_global_norm(tree, 1e9)
    assert passes == {"read": 3 * size, "scaled": size, "copied": size}
    cc.clip_by_global_norm(tree, 0.5)
    assert passes == {"read": 4 * size, "scaled": 2 * size, "copied": size}
    cc.clip_by_global_norm(tree, 0.4, norm=2.0)
    assert passes == {"read": 4 * size, "scaled": 3 * size, "copied": size}


def many_rows(dtype: str) -> list[Any]:
    return [np.ones((3000, 2000), dtype)[:, ::2], np.ones((3000, 1000), dtype), *np.ones((3000, 500), dtype)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize(
    "call",
    [
        lambda tree: cc.clip_by_global_norm(tree, 1.0, out=tree),
        lambda tree: cc.clip_by_global_norm(tree, 1.0, ord=1, out=tree),
        lambda tree: cc.global_norm(tree, ord=np.inf),
        lambda tree: cc.clip_by_l2_norm(tree[0], 1.0, axis=1, out=tree[0]),
        lambda tree: cc.clip_by_l2_norm(tree[0], 1.0, axis=0, out=tree[0]),
        lambda tree: cc.clip_by_l1_norm(tree[0], np.ldexp(1.0, -40), axis=1, out=tree[0]),
        lambda tree: cc.clip_weights([x.real for x in tree], -0.5, 0.5, out=[x.real for x in tree]),
        lambda tree: cc.clip_by_value(tree[0].real, 0.0, np.ones(1000, tree[0].real.dtype), out=tree[0].real),
    ],
)
def test_memory_beyond_the_results(dtype: str, call: Callable[[Any], Any]) -> None:
    tree = many_rows(dtype)
    cc.global_norm([np.ones(2**20, np.float32)])  # Numba's own memory is taken once
    tracemalloc.start()
    call(tree)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 16 * MIB


def whole(x: Any, order: int) -> Callable[[], Any]:
    return lambda: cc.clip_by_global_norm([x], 1.0, ord=order, out=[x])


def by_groups(x: Any, axis: int, limit: float, clip: Any = cc.clip_by_l2_norm) -> Callable[[], Any]:
    return lambda: clip(x, limit, axis=axis, out=x)


def at_zero(x: Any, bound: float) -> Callable[[], Any]:
    return lambda: cc.clip_by_value(x, bound, 1.0, out=x)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    "made",
    [
        lambda: whole(np.ones(2**23, np.float32), 2),
        lambda: whole(np.ones(2**23, np.float32), 1),
        lambda: whole(np.ones(2**23), 2),
        lambda: whole(np.full(2**24, 2.0**-450), 1),
        lambda: whole(np.ones(2**23, np.complex64), 1),
        lambda: whole(np.ones(2**22, np.complex128), 1),
        lambda: whole(np.ones(2**23, np.float16), 2),
        lambda: by_groups(np.ones((2**10, 2**13)), 1, 1.0),
        lambda: by_groups(np.ones((2**10, 2**13), np.float16), 1, 1.0),
        lambda: by_groups(np.repeat(np.arange(2.0**10), 2**13).reshape(2**10, 2**13), 1, 2.0**13),
        lambda: by_groups(np.ones((100, 256, 256), np.float16), 0, 1e-8),
        lambda: by_groups(np.ones((2**10, 2**12), np.complex128), 1, 1.0, cc.clip_by_l1_norm),
        lambda: at_zero(np.full(2**24, -0.0, np.float32), 0.0),
        lambda: at_zero(np.full(2**24, -0.0, np.float32), -0.0),
    ],
)
def test_threads_hold_no_more_memory_the_more_there_are(
    made: Callable[[], Callable[[], Any]], alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = made()
    cc.global_norm([np.ones(2**20)])  # Numba's own memory is taken once
    monkeypatch.setattr(_threads, "cores", lambda: 64)
    if alone:
        monkeypatch.setattr(_numpy_measure, "compiled_sum", lambda *_: None)
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 16 * MIB


def test_no_thread_is_started_for_small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_keywords: Any) -> Any:
        raise AssertionError("a thread")

    monkeypatch.setattr(threading, "Thread", refuse)
    monkeypatch.setattr(_threads, "cores", lambda: 8)
    for tree in (small(2000), [np.ones((900, 1000), np.float32)]):
        cc.clip_by_global_norm(tree, 1.0, out=tree)
        cc.clip_weights(tree, -0.5, 0.5, out=tree)


def test_large_pieces_are_cut_evenly() -> None:
    x = np.ones((3, 2**20), np.float32)
    sizes = [piece.size for piece, _ in pieces(x, x)]
    assert sum(sizes) == x.size
    assert max(sizes) <= PIECE


def test_numba_is_not_imported_for_what_it_does_not_sum() -> None:
    code = (
        "import sys, numpy as np, clipcore;"
        "clipcore.clip_by_global_norm([np.ones(9, np.float32), np.ones(2**22)[::2]], 1.0);"
        "clipcore.global_norm([np.ones(2**21), np.ones(2**21, np.float32)], ord=np.inf);"
        "clipcore.global_norm([np.ones(2**21, np.float16)] + [np.ones(1000, np.float32)] * 2000);"
        "raise SystemExit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
