"""Arrays of a library made of NumPy arrays, and the other way round."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .wire import laid_out

__all__ = ["Library", "library"]

Array = Any


@dataclass(frozen=True)
class Library:
    """How NumPy arrays become a library's arrays, and the other way round.

    Attributes
    ----------
    name : str
        Name of its module, such as `numpy` or `jax.numpy`.
    take, give : callable
        Make a library's array of a NumPy array, and a NumPy array of a library's array.
    is_array : callable
        Whether a value is one of the library's arrays.
    writable : bool
        Whether `give` shows the array's own memory, so that writing and sharing can be seen.
    """

    name: str
    take: Callable[[Array], Any]
    give: Callable[[Any], Array]
    is_array: Callable[[Any], bool]
    writable: bool = False


def library(name: str) -> Library:
    """Return the library of a name; any module that has `asarray` will do.

    Parameters
    ----------
    name : str
        Name of an importable module.
    """
    name = {"jax": "jax.numpy", "mlx": "mlx.core", "dask": "dask.array"}.get(name, name)
    if name == "numpy":
        return Library(name, _copied, lambda x: x, lambda x: type(x) is np.ndarray, True)
    module = importlib.import_module(name)
    if name == "torch":
        return Library(name, _to_torch, _from_torch, lambda x: isinstance(x, module.Tensor), True)
    if name == "tensorflow":
        return Library(name, module.constant, _by_numpy, module.is_tensor)
    if name == "mlx.core":
        return Library(name, _to_mlx, _from_mlx, lambda x: isinstance(x, module.array))
    if name == "paddle":
        return Library(name, _to_paddle, _from_paddle, lambda x: isinstance(x, module.Tensor))
    if name == "cupy":
        return Library(name, _to_cupy, lambda x: x.get(), lambda x: isinstance(x, module.ndarray))
    make = functools.partial(module.from_array) if name == "dask.array" else module.asarray
    kind = type(make(np.zeros(1, np.float32)))
    if name == "jax.numpy":
        kind = module.ndarray
    return Library(name, lambda x: make(np.array(x)), np.asarray, lambda x: isinstance(x, kind))


def _copied(x: Array) -> Array:
    """Return a copy laid out in memory as the original is."""
    if x.flags.c_contiguous or not x.size:
        copy = np.array(x)
        copy.flags.writeable = x.flags.writeable
        return copy
    return laid_out(x)


def _by_numpy(x: Any) -> Array:
    """Return what the array's own method makes of it."""
    return np.asarray(x.numpy())


def _bfloat16() -> Any:
    """Return NumPy's bfloat16."""
    return importlib.import_module("ml_dtypes").bfloat16


def _to_torch(x: Array) -> Any:
    """Return a tensor with a copy of the data, in the same order in memory where torch knows it."""
    torch = importlib.import_module("torch")
    native = np.array(x, dtype=x.dtype.newbyteorder("=") if x.dtype.kind in "fciu" else x.dtype, order="K")
    if native.dtype.name == "bfloat16":
        return torch.from_numpy(native.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(native)


def _from_torch(x: Any) -> Array:
    """Return a view of a tensor's memory."""
    torch = importlib.import_module("torch")
    x = x.detach().cpu()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(_bfloat16())
    return x.resolve_conj().resolve_neg().numpy()


def _to_cupy(x: Array) -> Any:
    """Return a CuPy array of the same bits; CuPy itself makes 0.0 of a -0.0 without dimensions."""
    cupy = importlib.import_module("cupy")
    return cupy.asarray(np.array(x)) if x.ndim else cupy.asarray(np.array([x]))[0]


def _to_paddle(x: Array) -> Any:
    """Return a Paddle tensor of the same dtype; of bfloat16 Paddle takes the bits."""
    paddle = importlib.import_module("paddle")
    return paddle.to_tensor(np.array(x).view(np.uint16) if x.dtype.name == "bfloat16" else np.array(x))


def _from_paddle(x: Any) -> Array:
    """Return a copy of a Paddle tensor."""
    paddle = importlib.import_module("paddle")
    if x.dtype == paddle.bfloat16:
        return np.array(x.detach().view("uint16").numpy()).view(_bfloat16())
    return np.array(x.numpy())


def _to_mlx(x: Array) -> Any:
    """Return an MLX array of the same dtype."""
    mx = importlib.import_module("mlx.core")
    if x.dtype.name == "bfloat16":
        return mx.array(np.array(x, order="C").view(np.uint16)).view(mx.bfloat16)
    native = np.array(x, dtype=x.dtype.newbyteorder("="))
    return mx.array(native, dtype=mx.bool_ if x.dtype == bool else getattr(mx, x.dtype.name))


def _from_mlx(x: Any) -> Array:
    """Return a copy of an MLX array."""
    mx = importlib.import_module("mlx.core")
    if x.dtype == mx.bfloat16:
        return np.array(x.view(mx.uint16)).view(_bfloat16())
    return np.array(x)
