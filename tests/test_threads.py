"""Work in threads: results in order, errors handed on, nothing started for little, safe after a fork."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from clipcore_backends import _threads
from clipcore_backends._threads import LEAST, in_threads

import clipcore as cc


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "cores", lambda: 2)


def idents(items: int, elements: int) -> set[int]:
    """In which threads the items were worked on, each waiting for company."""
    meeting = threading.Barrier(2)

    def work(_item: int) -> int:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=0.5)
        return threading.get_ident()

    return set(in_threads(work, range(items), elements))


@pytest.mark.usefixtures("two_cores")
def test_large_work_is_shared_and_small_work_is_not() -> None:
    assert len(idents(2, 2 * LEAST)) == 2
    assert idents(2, 2 * LEAST - 1) == {threading.get_ident()}
    assert idents(1, 100 * LEAST) == {threading.get_ident()}


@pytest.mark.usefixtures("two_cores")
def test_results_are_in_the_order_of_the_items() -> None:
    assert in_threads(lambda item: item**2, range(1000), 1000 * LEAST) == [k**2 for k in range(1000)]
    assert in_threads(lambda item: item, [], 0) == []


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("failure", [ValueError, IndexError, KeyboardInterrupt])
def test_a_failure_in_any_thread_is_the_caller_s(failure: type[BaseException]) -> None:
    def work(item: int) -> int:
        if item == 5:
            raise failure("here")
        return item

    before = threading.active_count()
    with pytest.raises(failure, match="here"):
        in_threads(work, range(10), 10 * LEAST)
    assert threading.active_count() == before


@pytest.mark.usefixtures("two_cores")
def test_error_settings_of_the_caller_hold_in_every_thread() -> None:
    def work(_item: int) -> str:
        threading.Event().wait(0.01)
        return str(np.geterr()["divide"])

    with np.errstate(divide="call"):
        assert set(in_threads(work, range(8), 8 * LEAST)) == {"call"}


@pytest.mark.parametrize(
    ("asked", "cores"), [("1", 1), ("1,2", 1), ("9999", None), ("0", None), ("", None), ("many", None)]
)
def test_as_many_threads_as_the_process_may_use(
    asked: str, cores: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    most = _threads.cores()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert _threads.cores() == (cores or most)
    if hasattr(os, "sched_getaffinity"):
        assert most == len(os.sched_getaffinity(0))


FORKED = """
import os, warnings
import numpy as np
import clipcore
from clipcore_backends import _threads
_threads.cores = lambda: 2
x = [np.ones(1 << 20, np.float32), np.ones(1 << 20, np.float32)]
before = clipcore.clip_by_global_norm(x, 1.0)[1]
child = os.fork()
if child == 0:
    os._exit(0 if clipcore.clip_by_global_norm(x, 1.0)[1] == before else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_clips_as_its_parent_did() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("order", [1, 2, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_the_bits_do_not_depend_on_the_number_of_threads(
    order: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    tree = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 300_000), (7,), (1_200_000,))]
    results = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(_threads, "cores", lambda cores=cores: cores)
        clipped, norm = cc.clip_by_global_norm(tree, 1.0, ord=order)
        results.append([norm.tobytes(), *(leaf.tobytes() for leaf in clipped)])
    assert results[0] == results[1] == results[2]
