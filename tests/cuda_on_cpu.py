"""The kernels of the CuPy engine compiled for the CPU, and a stand-in for the part of CuPy that it calls.

Nothing here says that anything works on a GPU. It says that host code and kernels, from the
same source, compute what they should.
"""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from clipcore_backends._cupy import SOURCE

Array = np.ndarray[Any, np.dtype[Any]]

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
MARGIN = 64
GUARD = 0xA5
KERNEL = re.compile(r'extern "C" __global__ (?:__launch_bounds__\(.*?\) )?void (\w+)\(')


PROBES = SOURCE + HEADER.with_name("cuda_on_cpu_probes.cu").read_text(encoding="utf-8")


@cache
def library() -> ctypes.PyDLL:
    """The kernels and the probes of the tests, each with a function that launches it."""
    launchers = "".join(f"LAUNCHER({kernel})\n" for kernel in KERNEL.findall(PROBES))
    strict = ["-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    strict += ["-Wno-unknown-pragmas"]  # "#pragma unroll" is CUDA's
    # No product and sum may be rounded together unless the source says so; fibers change stacks.
    exact = ["-std=c++17", "-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]
    with tempfile.TemporaryDirectory() as folder:
        file, built = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        file.write_text(f'#include "{HEADER}"\n{PROBES}\n{launchers}', encoding="utf-8")
        command = ["g++", *exact, *strict, "-shared", "-fPIC", str(file), "-o", str(built)]
        subprocess.run(command, check=True, timeout=300)
        # The fibers are one set: while they run, Python's other threads wait.
        return ctypes.PyDLL(str(built))


def missing() -> str | None:
    """Why the kernels cannot be compiled for the CPU."""
    return (
        None if shutil.which("g++") else "g++ is not installed, which compiles the CUDA kernels for the CPU"
    )


class HostCopyError(AssertionError):
    """Something was copied from the device to the host, or the host waited for it."""


class Device:
    """The one device: entering it changes nothing."""

    id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


DEVICE = Device()


def flushed(x: Array) -> Array:
    """What CuPy's own kernels read and write: no subnormal float32."""
    tiny = x.dtype == np.float32 and np.abs(x) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), x), x) if np.any(tiny) else x


class NdArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of the device: its values are seen only through `get`, which is noted and may be forbidden."""

    def __init__(self, cupy: Cupy, host: Array) -> None:
        self.cupy, self.host = cupy, host
        self.device = DEVICE
        self.data = SimpleNamespace(ptr=host.__array_interface__["data"][0], device_id=DEVICE.id)
        self.shape, self.strides, self.dtype, self.flags = host.shape, host.strides, host.dtype, host.flags
        self.ndim, self.size, self.itemsize, self.nbytes = host.ndim, host.size, host.itemsize, host.nbytes

    def get(self) -> Array:
        self.cupy.note("to host", self.nbytes)
        return self.host.copy()

    def item(self) -> Any:
        return self.get().item()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("implicit conversion to a NumPy array is not allowed; use get()")

    def __array_namespace__(self, api_version: str | None = None) -> Cupy:
        return self.cupy

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        return self.cupy.call(ufunc, *inputs, **keywords)

    def __getitem__(self, key: Any) -> NdArray:
        return NdArray(self.cupy, self.host[key if isinstance(key, tuple) else (key, ...)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[key] = value.host if isinstance(value, NdArray) else value

    def astype(self, dtype: Any) -> NdArray:
        with np.errstate(all="ignore"):
            return self.cupy.array(flushed(flushed(self.host).astype(dtype)))

    def copy(self) -> NdArray:
        return self.cupy.array(self.host)

    def transpose(self, *axes: int) -> NdArray:
        return NdArray(self.cupy, self.host.transpose(*axes))


class Cupy:
    """The stand-in: the functions of CuPy over the memory of the CPU, and a note of what crosses or runs.

    Parameters
    ----------
    backwards : bool
        Whether blocks and threads run against the order of their numbers.
    """

    __name__ = "cupy"
    ndarray = NdArray

    def __init__(self, backwards: bool = False) -> None:
        self.backwards = backwards
        self.notes: list[tuple[str, Any]] = []
        self.forbidden = False
        self.buffers: list[Array] = []

    def note(self, what: str, detail: Any) -> None:
        if self.forbidden and what == "to host":
            raise HostCopyError(f"{detail} bytes copied from the device to the host")
        self.notes.append((what, detail))

    @contextmanager
    def no_host_copy(self) -> Iterator[None]:
        """Let every look at a value fail."""
        self.forbidden = True
        try:
            yield
        finally:
            self.forbidden = False

    def launches(self) -> list[str]:
        return [detail for what, detail in self.notes if what == "launch"]

    def room(self, shape: Any, dtype: Any) -> Array:
        """Uninitialised memory between two margins that no kernel may write to."""
        shape, kind = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        buffer = np.full(size + 2 * MARGIN, GUARD, np.uint8)
        self.buffers.append(buffer)
        return np.ndarray(shape, kind, buffer, MARGIN)

    def check_margins(self) -> None:
        """Fail where a kernel wrote outside of its arrays, and forget the memory."""
        for buffer in self.buffers:
            assert (buffer[:MARGIN] == GUARD).all()
            assert (buffer[-MARGIN:] == GUARD).all()
        self.buffers.clear()

    def empty(self, shape: Any, dtype: Any) -> NdArray:
        return NdArray(self, self.room(shape, dtype))

    def empty_like(self, x: NdArray) -> NdArray:
        host = np.empty_like(x.host)
        order = sorted(range(host.ndim), key=lambda k: -abs(host.strides[k]))
        room = self.room([host.shape[k] for k in order], host.dtype)
        return NdArray(self, room.transpose(np.argsort(order)) if order else room)

    def array(self, host: Any) -> NdArray:
        """A copy of a NumPy array on the device."""
        host = np.asarray(host)
        made = self.empty_like(NdArray(self, host))
        made.host[...] = host
        self.note("to device", host.nbytes)
        return made

    def asarray(self, x: Any, dtype: Any = None, device: Any = None, copy: Any = None) -> NdArray:  # noqa: ARG002
        if isinstance(x, NdArray):
            return x.copy() if copy else x
        return self.array(np.asarray(x, dtype))

    def ascontiguousarray(self, x: Any, dtype: Any) -> NdArray:
        return self.array(np.ascontiguousarray(x.host if isinstance(x, NdArray) else x, dtype))

    def astype(self, x: NdArray, dtype: Any) -> NdArray:
        return x.astype(dtype)

    def where(self, condition: NdArray, x: NdArray, y: NdArray) -> NdArray:
        found = self.call(np.where, condition, x, y)
        return found.astype("float32") if found.dtype == "bfloat16" else found  # as CuPy does

    def broadcast_to(self, x: NdArray, shape: Any) -> NdArray:
        return NdArray(self, np.broadcast_to(x.host, shape))

    def isdtype(self, dtype: Any, kind: Any) -> bool:
        return bool(np.isdtype(np.dtype(dtype), kind))

    def iinfo(self, dtype: Any) -> Any:
        return np.iinfo(dtype)

    def call(self, function: Any, *inputs: Any, **keywords: Any) -> NdArray:
        """A NumPy function on the memory of arrays, in place of a kernel of CuPy."""
        unwrapped = [x.host if isinstance(x, NdArray) else x for x in inputs]
        with np.errstate(all="ignore"):
            return NdArray(self, np.asarray(function(*unwrapped, **keywords)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        function = getattr(np, name)
        if isinstance(function, type):
            return function
        return lambda *inputs, **keywords: self.call(function, *inputs, **keywords)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # noqa: ARG002, N802
        return SimpleNamespace(get_function=lambda name: Kernel(self, name))


class Kernel:
    """A kernel, called as CuPy's are."""

    def __init__(self, cupy: Cupy, name: str) -> None:
        self.cupy, self.name = cupy, name
        self.launch = getattr(library(), f"launch_{name}")
        self.count = int(getattr(library(), f"count_{name}")())

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        if len(arguments) != self.count:
            raise TypeError(f"{self.name} takes {self.count} arguments, not {len(arguments)}")
        if not 0 < grid[0] < 2**31:
            raise ValueError(f"a grid of {grid[0]} blocks")
        words = np.array([self.word(each) for each in arguments], np.int64)
        pointer = words.ctypes.data_as(ctypes.POINTER(ctypes.c_longlong))
        count = (ctypes.c_longlong(each) for each in (grid[0], block[0], self.cupy.backwards))
        self.launch(pointer, *count)
        self.cupy.note("launch", self.name)

    def word(self, value: Any) -> int:
        if isinstance(value, NdArray):
            return int(value.data.ptr)
        if isinstance(value, float):
            return int(np.float64(value).view(np.int64))
        if type(value) not in (int, np.int64):  # a bool would be of 8 bits
            raise TypeError(f"{self.name} is given {value!r}, which is no word of 64 bits")
        return int(value)
