"""The engines side by side: the same data on each, and the bits that come back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import array_api_strict as strict
import numpy as np
import optree
import pytest
from clipcore_backends import Engine, backend_for

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Machine:
    """A library, a device and the engine that serves its arrays.

    Attributes
    ----------
    name : str
        What a test's id shows.
    library : str
        How clipcore's messages name the library.
    device : str
        Of array-api-strict.
    portable : bool
        Whether the portable engine serves; on NumPy only inside `serving`.
    has_float64 : bool
        Whether the device has float64.
    """

    name: str
    library: str
    device: str = ""
    portable: bool = True
    has_float64: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def infinite(self) -> float:
        """From here on a limit rounds to infinity in the norm's dtype."""
        return math.inf if self.has_float64 else 2.0**128 - 2.0**103

    def put(self, x: Any) -> Any:
        """Bring a NumPy array, or a tree of them, to this machine, as arrays of its own."""
        if isinstance(x, np.ndarray | np.generic):
            if self.library == "numpy":
                return np.array(x, order="K")
            return strict.asarray(np.array(x), device=strict.Device(self.device), copy=True)
        return optree.tree_map(self.put, x)

    def get(self, x: Any) -> Any:
        """Bring an array of this machine, or a tree of them, back to NumPy."""
        kind = np.ndarray if self.library == "numpy" else strict.asarray(0).__class__
        return optree.tree_map(lambda leaf: as_numpy(leaf, kind), x)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Let the portable engine serve NumPy's arrays, and array-api-strict be at its strictest."""
        if self.library != "numpy":
            with strict.ArrayAPIStrictFlags(
                boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
            ):
                yield
        elif self.portable:
            with (
                mock.patch("clipcore._norm_clip.engine_for", no_engine),
                mock.patch("clipcore._clamp.engine_for", no_engine),
            ):
                yield
        else:
            yield

    def bits(self, x: Any) -> Any:
        """The bits of every leaf of a tree of this machine's arrays."""
        return bits(self.get(x))

    def run(self, function: Callable[..., Any], x: Any, *arguments: Any, **keywords: Any) -> Any:
        """Call a function with arrays brought here, and bring what it returns back."""
        here = [self.put(each) if isinstance(each, np.ndarray) else each for each in arguments]
        with self.serving():
            return self.get(function(self.put(x), *here, **keywords))


def as_numpy(x: Any, kind: Any) -> Array:
    """An array of a library as a NumPy array of its own; an array of another type than asked is an error."""
    if not isinstance(x, kind):
        raise TypeError(f"an array of {kind.__name__} was to come back, not {type(x).__name__}")
    return np.array(x if isinstance(x, np.ndarray) else np.from_dlpack(x))


def no_engine(leaves: list[Any]) -> Engine | None:
    """Answer as for a library without an engine of its own; no leaves are of no library."""
    return None if leaves else backend_for("numpy")


NUMPY = Machine("numpy", "numpy", portable=False)
PORTABLE = Machine("portable-numpy", "numpy")
STRICT = Machine("strict", "array_api_strict", "CPU_DEVICE")
NO_FLOAT64 = Machine("strict-no_float64", "array_api_strict", "no_float64", has_float64=False)
BOTH = [NUMPY, STRICT]
MACHINES = [NUMPY, PORTABLE, STRICT]

both = pytest.mark.parametrize("machine", BOTH, ids=str)


def bits(x: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Dtype, byte order, shape and bytes of every leaf."""
    return [(leaf.dtype.str + leaf.dtype.name, leaf.shape, leaf.tobytes()) for leaf in optree.tree_leaves(x)]


def same_bits(one: Any, other: Any) -> bool:
    """Tell whether two trees of NumPy arrays have the same containers and the same bits."""
    return bool(optree.tree_structure(one) == optree.tree_structure(other) and bits(one) == bits(other))


def same_but_nan(got: Array, want: Array) -> bool:
    """Tell whether two arrays agree in dtype, shape, where NaN is, and every bit elsewhere."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    nan = np.asarray(got != got)
    return bool(np.array_equal(nan, want != want)) and np.where(nan, 0, got).tobytes() == (
        np.where(nan, 0, want).tobytes()
    )


def error_of(call: Callable[[], Any]) -> tuple[type | None, str]:
    """What a call raises: the type and the whole message; None and the result where it raises nothing."""
    try:
        return None, repr(call())
    except Exception as error:
        return type(error), str(error)


def on_ranks(count: int, rank: Callable[[int, Callable[..., Any]], Any]) -> list[Any]:
    """Run ``rank(index, all_reduce)`` in a thread each, and return what each returned or raised."""
    barrier = threading.Barrier(count)
    given: list[Any] = [None] * count

    def run(index: int) -> Any:
        def all_reduce(array: Any, op: str) -> Any:
            given[index] = np.array(array if isinstance(array, np.ndarray) else np.from_dlpack(array))
            barrier.wait(30)
            stacked = np.stack(given)
            total = stacked.sum(0) if op == "sum" else stacked.max(0)
            barrier.wait(30)
            if isinstance(array, np.ndarray):
                return total
            return strict.asarray(total, dtype=array.dtype, device=array.device)

        try:
            return rank(index, all_reduce)
        except Exception as error:
            if not isinstance(error, FloatingPointError):
                barrier.abort()  # the others wait for it
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
