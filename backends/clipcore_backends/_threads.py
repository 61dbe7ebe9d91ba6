"""Work shared between threads that live as long as one call: nothing to break after a fork."""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

__all__ = ["MOST", "SMALL", "cores", "in_threads"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

LEAST = 1 << 19
"""Elements that keep a thread busy for so long that starting it pays."""

MOST = 6
"""Threads that hold 2 MiB of their own each, so that all of them stay below 16 MiB."""

SMALL = 1 << 14
"""Elements an array up to which threads would spend their time waiting for the interpreter."""


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], elements: int, *, most: int | None = None
) -> list[_Result]:
    """Return the results of `work` on all items, in their order.

    Parameters
    ----------
    work : callable
        Releases the interpreter lock most of the time.
    items : sequence
        Of about the same size.
    elements : int
        How many elements are worked on outside the interpreter.
    most : int, optional
        The largest number of threads.
    """
    count = elements // LEAST
    if count < 2 or (count := min(count, cores(), len(items), most or count)) < 2:
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    failures: list[BaseException] = []
    waiting = deque(enumerate(items))  # its ends are safe to take from in any thread

    def take() -> None:
        while not failures:
            try:
                index, item = waiting.popleft()
            except IndexError:
                return
            try:
                results[index] = work(item)
            except BaseException as failure:
                failures.append(failure)

    # The caller's error settings of NumPy are in the context.
    helpers = [threading.Thread(target=copy_context().run, args=(take,)) for _ in range(count - 1)]
    for helper in helpers:
        helper.start()
    take()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]
    return results


def cores() -> int:
    """Return how many threads this process may run at once."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(asked)) if asked.isdigit() and int(asked) else cores
