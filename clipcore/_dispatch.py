"""The library that arrays come from: its namespace, its devices, and the engine that serves it."""

import importlib
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import array_api_compat
import numpy as np
from clipcore_backends import DeviceEngine, Engine, backend_for, device_backend_for

from clipcore._typing import Array

__all__ = [
    "addresses",
    "advice_for",
    "apart",
    "are_tensors",
    "bring",
    "constant",
    "copy",
    "device_engine_of",
    "device_of",
    "engine_for",
    "from_view",
    "has_known_shape",
    "is_array",
    "is_distributed",
    "is_read_only",
    "is_traced",
    "is_writable",
    "library_of",
    "namespace_of",
    "views",
    "write",
    "wrote",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Libraries whose arrays have no array-API namespace, and the module that is one for them.
_ADAPTED = {
    "mlx": "clipcore._mlx",
    "paddle": "clipcore._paddle",
    "tensorflow": "clipcore._tensorflow",
}


def is_array(value: Any) -> bool:
    """Tell whether `value` is an array that clipcore takes: of any library, but no NumPy subclass.

    A subclass of ``numpy.ndarray`` (masked, with units) has a meaning that would be lost;
    ``numpy.memmap`` has none besides its data.
    """
    if type(value) is np.ndarray:
        return True
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value) in (np.ndarray, np.memmap) or isinstance(value, np.generic)
    if value is None or isinstance(value, (int, float)):
        return False
    if _is_tensor(value):
        torch = sys.modules["torch"]
        return value.layout is torch.strided and (type(value) is torch.Tensor or not is_distributed(value))
    package = _package_of(value)
    if package in _ADAPTED:
        return bool(_module(_ADAPTED[package]).is_array(value))
    return bool(array_api_compat.is_array_api_obj(value))


def are_tensors(values: list[Any]) -> bool:
    """Tell values that are all arrays of torch, by a quick look; False where that is not certain."""
    if len(values) == 0 or not _is_tensor(values[0]):
        return False
    from clipcore import _torch  # in this form torch.compile follows it

    return _torch.are_plain(values)


def is_distributed(value: Any) -> bool:
    """Tell whether a value stands for elements on many ranks, as torch's DTensor does."""
    return _is_tensor(value) and hasattr(value, "to_local")


def library_of(array: Array) -> str:
    """Return the name of an array's library, as in ``"numpy"``."""
    if isinstance(array, (np.ndarray, np.generic)):
        return "numpy"
    package = _package_of(array)
    if package in ("cupy", "torch", *_ADAPTED):
        return package
    return str(namespace_of(array).__name__).removeprefix("array_api_compat.").partition(".")[0]


def namespace_of(array: Array) -> Any:
    """Return the array-API namespace of an array."""
    package = _package_of(array)
    if package in _ADAPTED:
        return _module(_ADAPTED[package])
    if package == "torch":  # not asked of array_api_compat, whose caches torch.compile warns of
        from array_api_compat import torch

        return torch
    return array_api_compat.array_namespace(array)


def device_of(array: Array) -> Any:
    """Return the one device that an array lives on; None where it is spread over several, or traced."""
    package = _package_of(array)
    if package in _ADAPTED:
        return _module(_ADAPTED[package]).device(array)
    if package == "torch":
        return array.device
    if package in ("jax", "jaxlib") and is_traced(array):  # it would look for it through all that was traced
        return None
    device = array_api_compat.device(array)
    if array_api_compat.is_jax_array(array):
        return device if isinstance(device, sys.modules["jax"].Device) else None
    return device


def bring(array: Array, like: Array) -> Array:
    """Return an array on the device of another one of its library."""
    here, there = device_of(array), device_of(like)
    if here is None or there is None or here == there:
        return array
    if _package_of(array) in _ADAPTED:
        return namespace_of(array).asarray(array, device=there)
    return array_api_compat.to_device(array, there)


def is_traced(array: Array) -> bool:
    """Tell whether an array has no values to look at yet: traced by a compiler, or lazy."""
    package = _package_of(array)
    if package in _ADAPTED:
        return bool(_module(_ADAPTED[package]).is_traced(array))
    if package == "torch":
        torch = sys.modules["torch"]
        return bool(torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(array))
    if array_api_compat.is_jax_array(array):
        return isinstance(array, sys.modules["jax"].core.Tracer)
    return bool(array_api_compat.is_lazy_array(array))


def is_writable(array: Array) -> bool:
    """Tell whether arrays of a library can be written in place."""
    package = _package_of(array)
    if package in _ADAPTED:
        return bool(_module(_ADAPTED[package]).is_writable(array))
    return package == "torch" or bool(array_api_compat.is_writeable_array(array))


def write(array: Array, value: Array) -> None:
    """Give a writable array other values."""
    package = _package_of(array)
    if package in _ADAPTED:
        _module(_ADAPTED[package]).write(array, value)
    else:
        if 0 not in array.shape:  # where there is nothing to write, dask minds
            array[...] = value


def copy(array: Array) -> Array:
    """Return a copy, which of a parameter of torch is none."""
    if _package_of(array) == "torch":
        return array.clone()
    return namespace_of(array).asarray(array, copy=True)


def is_read_only(array: Array) -> bool:
    """Tell whether an array cannot be written although its library's can."""
    if _package_of(array) in _ADAPTED:
        return False
    nothing = (slice(0, 0),) * array.ndim
    try:
        array[nothing] = array[nothing]
    except (ValueError, RuntimeError):
        return True
    return False


def has_known_shape(array: Array) -> bool:
    """Tell whether all lengths of an array are known; under dask and ``tf.function`` they need not be."""
    try:
        return not any(length is None or length != length for length in array.shape)
    except ValueError:  # TensorFlow: not even how many there are
        return False


def advice_for(value: Any) -> str:
    """Return what to do with a value that is not an array."""
    package = _package_of(value)
    if package in _ADAPTED:
        return str(_module(_ADAPTED[package]).advice(value))
    if _is_tensor(value):
        return "give a dense tensor, as its to_dense() returns it"
    return "give an array of a supported library"


def engine_for(leaves: list[Array]) -> Engine | None:
    """Return the fast engine for arrays of one library, None where the portable one serves."""
    return backend_for(library_of(leaves[0]) if leaves else "numpy")


def constant(function: _Function) -> _Function:
    """Mark a function of numbers alone: torch.compile calls it instead of tracing into it."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def device_engine_of(library: str) -> DeviceEngine | None:
    """Return the engine that serves a library's arrays on their device, None without one."""
    return device_backend_for(library)


def views(arrays: list[Array]) -> list[Array] | None:
    """Return NumPy arrays that are the memory of arrays of another library, None where one has no view."""
    if not arrays or _package_of(arrays[0]) != "torch":
        return None
    from clipcore import _torch

    return _torch.views(arrays)


def apart(arrays: list[Array], views: list[Array]) -> bool:
    """Tell arrays with views, given with them, of which no two share bytes; False where not certain."""
    return bool(_module(f"clipcore._{library_of(arrays[0])}").apart(arrays, views))


def from_view(view: Array, like: Array) -> Array:
    """Return an array of a library that has views, which is the memory of a NumPy array."""
    return _module(f"clipcore._{library_of(like)}").from_view(view)


def wrote(arrays: list[Array]) -> None:
    """Tell the library of arrays that they were written through views."""
    _module(f"clipcore._{library_of(arrays[0])}").wrote(arrays)


def addresses(arrays: list[Array]) -> list[Any]:
    """Return NumPy arrays with the addresses of arrays, not to be read; None where a library tells none."""
    engine = device_engine_of(library_of(arrays[0])) if arrays else None
    if engine is not None:
        return [engine.addresses(array) for array in arrays]
    return [_address(array) for array in arrays]


def _address(array: Array) -> Any:
    """Return a NumPy array with the address of an array; None where there is none to tell."""
    if isinstance(array, np.ndarray):
        return array
    if _package_of(array) == "torch" and not is_traced(array):
        size = array.element_size()
        interface = {
            "data": (array.data_ptr(), False),
            "shape": tuple(array.shape),
            "strides": tuple(size * stride for stride in array.stride()),
            "typestr": f"|V{size}",
            "version": 3,
        }
        return np.asarray(SimpleNamespace(__array_interface__=interface))
    return np.from_dlpack(array) if library_of(array) == "array_api_strict" else None


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    # Asking torch's class is slow, and most often not needed.
    return torch is not None and (type(value) is torch.Tensor or isinstance(value, torch.Tensor))


def _package_of(value: object) -> str:
    if type(value) is np.ndarray:
        return "numpy"
    # A tensor is torch's, whatever module its class is of.
    return "torch" if _is_tensor(value) else type(value).__module__.partition(".")[0]


def _module(name: str) -> Any:
    return sys.modules[name] if name in sys.modules else importlib.import_module(name)
