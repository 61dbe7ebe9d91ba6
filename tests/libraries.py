"""Every array library that clipcore is tested on: how its arrays are made, what is asked of it, and its gaps.

``python tests/libraries.py`` prints the table of the README.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import optree
import pytest
from cuda_on_cpu_machine import no_gpu

from clipcore.verify.calling import Call, Observation, keywords_of, observe
from clipcore.verify.calling import Library as Arrays
from clipcore.verify.calling import library as arrays_of
from clipcore.verify.formats import power_of_two
from clipcore.verify.judge import Terms

FLOATING = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

NO_SUCH_DTYPE = "the library has no such dtype"
NO_FLOAT64 = "without jax_enable_x64 JAX has no 64-bit numbers"


@dataclass(frozen=True)
class Traits:
    """What is particular about a library.

    Attributes
    ----------
    module : str
        What has to be installed.
    title : str
        The row of the README's table; empty for a further way of running the library of the row above.
    gaps : dict
        Why a dtype is not served, by its name; "norms: float16" is about norms and norm clips alone.
    has_float64, flushes : bool
        Whether norms are float64, and whether subnormals are taken for zero.
    count : int
        How many aimed cases are tried of each operation and dtype: fewer where a call is slow.
    length : int
        Where a library compiles for every shape: arrays are padded with zeros to this many elements.
    compiled : str
        The name of the compiler that the functions go through.
    followed : bool
        Whether torch follows the calls, so that no tensor is taken for the NumPy array that it is.
    device : str
        Of array-api-strict.
    setting : str
        An environment variable that must be "1", or where it starts with "!" must not, in this process.
    signs_zeros : bool
        Whether its arrays keep the sign of a zero.
    writable, lazy : bool
        Whether its arrays can be `out`, and whether they have no values until they are computed.
    """

    module: str
    title: str = ""
    gaps: dict[str, str] = field(default_factory=dict)
    has_float64: bool = True
    flushes: bool = False
    count: int = 30
    length: int = 0
    compiled: str = ""
    followed: bool = False
    device: str = ""
    setting: str = ""
    signs_zeros: bool = True
    writable: bool = True
    lazy: bool = False


_STRICT = dict.fromkeys(("float16", "bfloat16"), NO_SUCH_DTYPE)
_WIDE = dict.fromkeys(("float64", "complex128", "int64", "uint64"), NO_FLOAT64)
_TORCH = dict.fromkeys(("uint16", "uint32", "uint64"), "PyTorch cannot compare numbers of that dtype")
_SPARSE = {f"norms: {name}": "a norm of x is that of x.data" for name in (*FLOATING, *COMPLEX)}
_NDONNX = dict.fromkeys((*FLOATING, *COMPLEX, *INTEGERS), "its where() loses signs of zeros")


class Library(Enum):
    """An array library, or one more way of running it."""

    NUMPY = Traits("numpy", "NumPy")
    STRICT = Traits("array_api_strict", "array-api-strict", _STRICT, device="CPU_DEVICE")
    STRICT_OTHER_DEVICE = Traits("array_api_strict", gaps=_STRICT, device="device1", count=10)
    STRICT_NO_FLOAT64 = Traits(
        "array_api_strict",
        gaps={**_STRICT, "float64": NO_SUCH_DTYPE, "complex128": NO_SUCH_DTYPE},
        has_float64=False,
        device="no_float64",
    )
    TORCH = Traits("torch", "PyTorch", _TORCH)
    TORCH_FOLLOWED = Traits("torch", gaps=_TORCH, followed=True)
    TORCH_COMPILE = Traits("torch", gaps=_TORCH, compiled="torch", length=40)
    JAX = Traits(
        "jax",
        "JAX",
        _WIDE,
        has_float64=False,
        flushes=True,
        writable=False,
        length=40,
        count=12,
        setting="!JAX_ENABLE_X64",
    )
    JAX_JIT = Traits(
        "jax",
        gaps=_WIDE,
        has_float64=False,
        flushes=True,
        writable=False,
        length=40,
        count=12,
        compiled="jax",
        setting="!JAX_ENABLE_X64",
    )
    JAX_X64 = Traits(
        "jax",
        "JAX with jax_enable_x64",
        flushes=True,
        writable=False,
        length=40,
        count=12,
        setting="JAX_ENABLE_X64",
    )
    JAX_X64_JIT = Traits(
        "jax", flushes=True, writable=False, length=40, count=12, compiled="jax", setting="JAX_ENABLE_X64"
    )
    DASK = Traits("dask.array", "dask.array", count=4, lazy=True)
    MLX = Traits("mlx", "MLX on the CPU", {"complex128": NO_SUCH_DTYPE})
    TENSORFLOW = Traits("tensorflow", "TensorFlow", flushes=True, writable=False, count=10)
    TF_FUNCTION = Traits(
        "tensorflow", flushes=True, writable=False, count=5, length=40, compiled="tensorflow"
    )
    PADDLE = Traits("paddle", "Paddle", dict.fromkeys(("uint16", "uint32", "uint64"), NO_SUCH_DTYPE))
    SPARSE = Traits("sparse", "pydata/sparse", _SPARSE, writable=False, signs_zeros=False)
    NDONNX = Traits("ndonnx", "ndonnx", _NDONNX)
    CUPY = Traits("cupy", "CuPy on an NVIDIA GPU")

    @property
    def library_name(self) -> str:
        """How clipcore's messages name it."""
        return self.value.module.partition(".")[0]

    @property
    def terms(self) -> Terms:
        """What the contract asks of the library."""
        if self in (Library.NUMPY, Library.TORCH):  # torch's memory is NumPy's to read
            return Terms()
        slack = power_of_two(-44) if self.value.has_float64 else power_of_two(-21)
        return Terms(slack, self.value.flushes, "float64" if self.value.has_float64 else "float32", 4)

    def missing(self) -> str:
        """Say what is not there, empty where everything is."""
        if self is Library.CUPY:
            return no_gpu() or ""
        if importlib.util.find_spec(self.value.module.partition(".")[0]) is None:
            return f"{self.value.module} is not installed"
        return ""

    def unfit(self) -> str:
        """Say why this process cannot run the library this way, empty where it can."""
        name = self.value.setting.removeprefix("!")
        if not name or (os.environ.get(name) == "1") != self.value.setting.startswith("!"):
            return ""
        how = "with" if name == self.value.setting else "without"
        return f"one process runs JAX one way: run again {how} {name}=1"

    def gap(self, operation: str, dtype: str) -> str:
        """Say why an operation does not take a dtype here, empty where it does."""
        gaps = self.value.gaps
        by_norm = "" if operation in ("clip_by_value", "clip_weights") else gaps.get(f"norms: {dtype}", "")
        return gaps.get(dtype, "") or by_norm

    def arrays(self) -> Arrays:
        """How NumPy arrays become the library's, and the other way round."""
        if self.value.device:
            strict = importlib.import_module("array_api_strict")
            device, kind = strict.Device(self.value.device), type(strict.zeros(1))
            return Arrays(
                "array_api_strict",
                lambda x: strict.asarray(np.array(x), device=device, copy=True),
                lambda x: np.array(np.from_dlpack(x)),
                lambda x: isinstance(x, kind) and x.device == device,
            )
        if self is Library.DASK:
            dask = importlib.import_module("dask.array")
            return Arrays(
                "dask.array",
                lambda x: dask.from_array(np.array(x), chunks=7),
                lambda x: x.compute(scheduler="synchronous"),
                lambda x: isinstance(x, dask.Array),
            )
        if self is Library.SPARSE:
            sparse = importlib.import_module("sparse")
            return Arrays(
                "sparse",
                lambda x: sparse.COO.from_numpy(np.array(x)),
                lambda x: np.asarray(x.todense()),
                lambda x: isinstance(x, sparse.SparseArray),
            )
        if self is Library.NDONNX:
            ndonnx = importlib.import_module("ndonnx")
            return Arrays(
                "ndonnx", ndonnx.asarray, lambda x: x.unwrap_numpy(), lambda x: isinstance(x, ndonnx.Array)
            )
        return arrays_of(self.value.module)

    def callee(self, function: Callable[..., Any]) -> Callee:
        """Return a function of clipcore as the kit calls it, with arrays of this library."""
        return Callee(function, self)


def fitting(request: pytest.FixtureRequest) -> Library:
    """The library that a test is given, where it is installed and this process can run it; else a skip."""
    library: Library = request.param
    if missing := library.missing():
        if request.config.getoption("--require-all"):
            pytest.fail(missing)
        pytest.skip(missing)
    if unfit := library.unfit():
        pytest.skip(unfit)
    return library


class Callee:
    """A function that is called with NumPy arrays and runs on those of a library."""

    def __init__(self, function: Callable[..., Any], library: Library) -> None:
        self.keywords = frozenset(keywords_of(function))
        compilers = {
            "jax": _jax_jit,
            "torch": _torch_compile,
            "tensorflow": _tf_function,
        }
        compiled = library.value.compiled
        running = compilers[compiled](function) if compiled else function
        if library.value.followed:
            running = _torch_followed(running)
        if library is Library.DASK:
            running = _without_compute(running)
        self._call = Call(running, library.arrays(), False, None, None)

    def observe(self, tree: Any, arguments: Sequence[Any] = (), keywords: Any = None) -> Observation:
        """Call it once."""
        return observe(self._call, tree, arguments, keywords)


def _without_compute(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call with a dask in which nothing can be computed."""
    dask = importlib.import_module("dask")

    def refuse(*_arguments: Any, **_keywords: Any) -> Any:
        raise AssertionError("a hidden compute")

    def call(*arguments: Any, **keywords: Any) -> Any:
        with dask.config.set(scheduler=refuse):
            return function(*arguments, **keywords)

    return call


def _jax_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for each structure once: the limit of a norm clip is traced, bounds are constants."""
    jax = importlib.import_module("jax")

    @functools.cache
    def compiled(names: tuple[tuple[str, Any], ...]) -> Any:
        return jax.jit(functools.partial(function, **dict(names)))

    def call(tree: Any, *arguments: Any, **keywords: Any) -> Any:
        if len(arguments) == 2:
            result = jax.jit(lambda x: function(x, *arguments, **keywords))(tree)
            # jit itself sorts the keys of what it returns.
            return optree.tree_unflatten(optree.tree_structure(tree), optree.tree_leaves(result))
        limits = (jax.numpy.asarray(each, dtype=float) for each in arguments)
        return compiled(tuple(sorted(keywords.items())))(tree, *limits)

    return call


def _tf_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Trace each call anew; the limit of a norm clip is a tensor, bounds are constants."""
    tensorflow = importlib.import_module("tensorflow")

    def call(tree: Any, *arguments: Any, **keywords: Any) -> Any:
        if len(arguments) == 1:
            arguments = (tensorflow.constant(arguments[0], tensorflow.float64),)
        return tensorflow.function(lambda x: function(x, *arguments, **keywords), autograph=False)(tree)

    return call


def _torch_followed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call where a derivative may follow, so that no tensor is taken for the NumPy array that it is."""
    forward_ad = importlib.import_module("torch").autograd.forward_ad

    def call(*arguments: Any, **keywords: Any) -> Any:
        with forward_ad.dual_level():
            return function(*arguments, **keywords)

    return call


def _torch_compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without a break in the graph; the limit of a norm clip is a tensor, bounds are constants."""
    torch = importlib.import_module("torch")
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64

    @functools.cache
    def compiled(constants: tuple[Any, ...], names: tuple[tuple[str, Any], ...]) -> Any:
        @torch.compile(fullgraph=True, dynamic=False)  # type: ignore[untyped-decorator]
        def run(tree: Any, *limits: Any) -> Any:
            return function(tree, *limits, *constants, **dict(names))

        return run

    def call(tree: Any, *arguments: Any, **keywords: Any) -> Any:
        by_norm = len(arguments) < 2
        limits = [torch.tensor(each, dtype=torch.float64) for each in arguments if by_norm]
        constants = () if by_norm else arguments
        return compiled(constants, tuple(sorted(keywords.items())))(tree, *limits)

    return call


NORM_COLUMNS = {name: (name,) for name in (*FLOATING, *COMPLEX)}
VALUE_COLUMNS = {**{name: (name,) for name in FLOATING}, "integers": INTEGERS}


class Notes:
    """Sentences, numbered as they come."""

    def __init__(self) -> None:
        self._notes: list[str] = []

    def mark(self, note: str) -> str:
        """Return the number of a note, raised."""
        if note not in self._notes:
            self._notes.append(note)
        return "⁰¹²³⁴⁵⁶⁷⁸⁹"[self._notes.index(note) + 1]

    def __str__(self) -> str:
        return "\\\n".join(f"{self.mark(note)} {note}." for note in self._notes)


def table() -> str:
    """Return the table of the README: function × library × dtype, every "no" explained."""
    notes = Notes()

    def cell(library: Library, operation: str, names: tuple[str, ...]) -> str:
        reasons = {name: reason for name in names if (reason := library.gap(operation, name))}
        if not reasons:
            return "✓"
        if len(reasons) == len(names):
            return "–" + "".join(map(notes.mark, dict.fromkeys(reasons.values())))
        (reason,) = set(reasons.values())
        return "✓" + notes.mark(f"not {', '.join(reasons)}: {reason}")

    rows = []
    for title, operation, columns in (
        ("norms and clips by norm", "l2_norm", NORM_COLUMNS),
        ("clips by value and of weights", "clip_by_value", VALUE_COLUMNS),
    ):
        rows += [f"| {title} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for library in Library:
            if library.value.title:
                cells = " | ".join(cell(library, operation, names) for names in columns.values())
                rows.append(f"| {library.value.title} | {cells} |")
        rows.append("")
    return "\n".join([*rows, str(notes)])


if __name__ == "__main__":
    print(table())  # noqa: T201
