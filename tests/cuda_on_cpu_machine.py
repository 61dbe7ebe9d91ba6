"""CuPy as a machine of the tests, in two places: the stand-in on the CPU, and a GPU where there is one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import cuda_on_cpu
import numpy as np
import optree
import pytest
from clipcore_backends._cupy import CupyEngine
from edge_support import Machine

import clipcore as cc

PLACES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
on_both = pytest.mark.parametrize("place", PLACES)


@dataclass(frozen=True)
class CupyMachine(Machine):
    """A machine whose arrays are CuPy's, or the stand-in's."""

    cupy: Any = None
    engine: Any = None

    def put(self, x: Any) -> Any:
        if isinstance(x, np.ndarray | np.generic):
            return self.cupy.array(x)
        return optree.tree_map(self.put, x)

    def get(self, x: Any) -> Any:
        found = optree.tree_map(lambda leaf: leaf.get(), x)
        if self.name == "cpu":
            self.cupy.check_margins()
            self.cupy.notes.clear()
        return found

    @contextmanager
    def serving(self) -> Iterator[None]:
        chosen: Callable[[str], Any] = {"cupy": self.engine}.get
        with mock.patch("clipcore._dispatch.device_backend_for", chosen):
            yield

    @contextmanager
    def no_host_copy(self) -> Iterator[None]:
        """Let what looks at a value fail; on a GPU `test_gpu.py` does so for all that waits."""
        if self.name == "cpu":
            with self.cupy.no_host_copy():
                yield
        else:
            yield

    def run(self, function: Callable[..., Any], x: Any, *arguments: Any, **keywords: Any) -> Any:
        here = [self.put(each) if isinstance(each, np.ndarray) else each for each in arguments]
        there = self.put(x)
        with self.serving(), self.no_host_copy():
            result = function(there, *here, **keywords)
        return self.get(result)


def machine_at(place: str, request: pytest.FixtureRequest) -> CupyMachine:
    """The machine at a place; the test is skipped where it is missing."""
    if place == "cpu":
        reason = cuda_on_cpu.missing()
        if reason and request.config.getoption("--require-all", default=False):
            pytest.fail(reason)
    else:
        reason = no_gpu()
    if reason:
        pytest.skip(reason)
    return stand_in() if place == "cpu" else gpu()


def no_gpu() -> str | None:
    """Why there is no GPU to test on."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    return (
        None
        if importlib.import_module("cupy").cuda.is_available()
        else "no NVIDIA GPU is here, or no driver for it"
    )


@cache
def stand_in(backwards: bool = False) -> CupyMachine:
    cupy = cuda_on_cpu.Cupy(backwards)
    return CupyMachine("cpu", "cupy", cupy=cupy, engine=CupyEngine(cupy))


@cache
def gpu() -> CupyMachine:
    cupy = importlib.import_module("cupy")
    return CupyMachine("gpu", "cupy", cupy=cupy, engine=CupyEngine(cupy))


def probe(machine: CupyMachine, name: str, blocks: int, *arguments: Any) -> None:
    """Run a kernel of `cuda_on_cpu_probes.cu`."""
    from clipcore_backends._cupy import OPTIONS
    from clipcore_backends._cupy_table import BLOCK

    module = machine.cupy.RawModule(code=cuda_on_cpu.PROBES, options=OPTIONS)
    words = tuple(np.int64(each) if isinstance(each, int) else each for each in arguments)
    module.get_function(name)((blocks,), (BLOCK,), words)


def clip(machine: CupyMachine, leaves: list[Any], limit: float, order: float) -> Any:
    """Clip by the global norm."""
    return machine.run(cc.clip_by_global_norm, leaves, limit, ord=order)
