"""MLX as an array-API namespace, as far as clipcore asks for it.

``mlx.core`` has most of the standard's functions. What it lacks is here, ``nextafter``,
``signbit`` and arrays that know their device, with what its own functions do differently.
Arrays live in memory that all devices share; what computes is the default device, and only a
CPU has float64.
"""
# ruff: noqa: A001  # the standard's names are those of Python's own functions

import builtins
import importlib
from typing import Any

import numpy as np

from clipcore._bits import next_bits

mx: Any = importlib.import_module("mlx.core")

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "complex64"),
)

abs = mx.abs
all = mx.all
any = mx.any
astype = mx.astype
bool = mx.bool_
concat = mx.concat
conj = mx.conj
floor = mx.floor
iinfo = mx.iinfo
imag = mx.imag
isdtype = mx.isdtype
isfinite = mx.isfinite
isinf = mx.isinf
isnan = mx.isnan
max = mx.max
minimum = mx.minimum
negative = mx.negative
ones_like = mx.ones_like
permute_dims = mx.permute_dims
real = mx.real
reshape = mx.reshape
sign = mx.sign
sqrt = mx.sqrt
stack = mx.stack
where = mx.where


def is_array(value: Any) -> builtins.bool:
    """Tell arrays from other values of the package."""
    return isinstance(value, mx.array)


def advice(_value: Any) -> str:
    """Return what to do with a value of the package that is no array."""
    return "give a mlx.core.array"


def device(_array: Any) -> None:
    """Return None: no array is on one device rather than another."""


def is_traced(array: Any) -> builtins.bool:
    """Tell whether the array has no value, as inside mx.compile and mx.vmap."""
    try:
        mx.eval(array)
    except ValueError:
        return True
    return False


def is_writable(_array: Any) -> builtins.bool:
    """Return True: every array takes other values in place."""
    return True


def write(array: Any, value: Any) -> None:
    """Give an array other values."""
    array[...] = value


class __array_namespace_info__:  # noqa: N801  # the standard's name
    """What dtypes there are."""

    def dtypes(self, *, device: Any = None, kind: None = None) -> dict[str, Any]:  # noqa: ARG002
        """Return the dtypes by their names; float64 where the default device has it."""
        names = (*_DTYPES, "float64") if (device or mx.default_device()).type == mx.cpu else _DTYPES
        return {name: getattr(mx, name, mx.bool_) for name in names}


def asarray(value: Any, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:  # noqa: ARG001
    """Return a number, or a copy of an array, as an array."""
    if isinstance(value, int) and value >= 2**63:
        value = np.uint64(value)  # MLX takes numbers for signed ones
    return mx.array(value, dtype=dtype)


def full_like(x: Any, value: Any) -> Any:
    """Return an array of one value."""
    return mx.broadcast_to(asarray(value, dtype=x.dtype), x.shape)


def nextafter(x1: Any, x2: Any) -> Any:
    """Return the neighbours of x1 on the side of x2."""
    found = next_bits(mx.where, _bits(x1), _bits(x2), 8 * x1.dtype.size).view(x1.dtype)
    return mx.where(mx.isnan(x1) | mx.isnan(x2), x1 + x2, found)


def signbit(x: Any) -> Any:
    """Tell negative numbers, and zeros, from positive ones."""
    return _bits(x) < 0


def sum(x: Any, *, axis: int) -> Any:
    """Return sums along an axis; where it has no elements, MLX's own may never end."""
    if x.shape[axis]:
        return mx.sum(x, axis=axis)
    shape = list(x.shape)
    del shape[axis]
    return mx.zeros(shape, dtype=x.dtype)


def zeros_like(x: Any, *, dtype: Any = None) -> Any:
    """Return zeros."""
    return mx.zeros(x.shape, dtype=dtype or x.dtype)


def _bits(x: Any) -> Any:
    """Return the bits as integers; they have no derivative, and MLX would look for one."""
    return mx.stop_gradient(x).view({2: mx.int16, 4: mx.int32, 8: mx.int64}[x.dtype.size])
