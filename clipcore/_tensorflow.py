"""TensorFlow as an array-API namespace, which it has none of, as far as clipcore asks for it.

Only what the portable engine calls is here, with the standard's names, arguments and
meaning. A ``tf.Variable`` is taken where a tensor is, gives a tensor, and can be ``out=``.
TensorFlow's arithmetic takes subnormal numbers for zeros.
"""
# ruff: noqa: A001  # the standard's names are those of Python's own functions

import builtins
import contextlib
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipcore._bits import next_bits

tf: Any = importlib.import_module("tensorflow")

_SIGNED = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}
_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)

bool = tf.bool
concat = tf.concat
conj = tf.math.conj
floor = tf.floor
imag = tf.math.imag
isinf = tf.math.is_inf
isnan = tf.math.is_nan
minimum = tf.minimum
negative = tf.negative
permute_dims = tf.transpose
real = tf.math.real
reshape = tf.reshape
sign = tf.sign
sqrt = tf.sqrt
stack = tf.stack
where = tf.where


def is_array(value: Any) -> builtins.bool:
    """Tell dense tensors and variables from sparse, ragged and other values of the package."""
    return isinstance(value, tf.Tensor | tf.Variable)


def advice(value: Any) -> str:
    """Return what to do with a value of the package that is no array."""
    if isinstance(value, tf.sparse.SparseTensor):
        return "give a dense tensor, as tf.sparse.to_dense returns it"
    if isinstance(value, tf.RaggedTensor):
        return "give its values, or a dense tensor, as its to_tensor() returns it"
    return "give a dense tensor, as tf.convert_to_tensor returns it"


def device(array: Any) -> str | None:
    """Return the name of the device; None while tracing."""
    return array.device or None


def is_traced(_array: Any) -> builtins.bool:
    """Tell whether a ``tf.function`` is being traced: then nothing has a value yet."""
    return not tf.executing_eagerly()


def is_writable(array: Any) -> builtins.bool:
    """Tell variables, which take values, from tensors, which do not."""
    return isinstance(array, tf.Variable)


def write(array: Any, value: Any) -> None:
    """Give a variable a value."""
    array.assign(value)


class __array_namespace_info__:  # noqa: N801  # the standard's name
    """What dtypes there are."""

    def dtypes(self, *, device: Any = None, kind: None = None) -> dict[str, Any]:  # noqa: ARG002
        """Return all dtypes by their names; every device has them."""
        return {name: getattr(tf, name) for name in _DTYPES}


def abs(x: Any) -> Any:
    """Return magnitudes; of real numbers without their signs, those of zeros included."""
    return tf.abs(x)


def all(x: Any) -> Any:
    """Tell whether all elements are true."""
    return tf.reduce_all(x)


def any(x: Any) -> Any:
    """Tell whether an element is true."""
    return tf.reduce_any(x)


def asarray(value: Any, *, dtype: Any = None, device: str | None = None, copy: Any = None) -> Any:  # noqa: ARG001
    """Return a number, or an array, as a tensor; tensors never change, so that none needs a copy."""
    if isinstance(value, (int, float)) and dtype is not None:
        # TensorFlow keeps tensors of numbers that were asked for before, and takes 0.0 for -0.0.
        value = np.asarray(value, dtype.as_numpy_dtype)
    with tf.device(device) if device else contextlib.nullcontext():
        return tf.identity(tf.convert_to_tensor(value, dtype=dtype))


def astype(x: Any, dtype: Any) -> Any:
    """Convert to a dtype."""
    return tf.cast(x, dtype)


def full_like(x: Any, value: Any) -> Any:
    """Return a tensor of one value."""
    return tf.fill(tf.shape(x), asarray(value, dtype=x.dtype))


def iinfo(dtype: Any) -> Any:
    """Return the least and the largest integer."""
    return np.iinfo(dtype.name)


def isdtype(dtype: Any, kind: str | tuple[str, ...]) -> builtins.bool:
    """Tell whether a dtype is of a kind, or of one of several."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    is_kind = {
        "integral": dtype.is_integer,
        "real floating": dtype.is_floating,
        "complex floating": dtype.is_complex,
    }
    return builtins.any(is_kind[each] for each in kinds)


def isfinite(x: Any) -> Any:
    """Tell which elements are neither infinite nor NaN."""
    if x.dtype.is_complex:
        return tf.math.is_finite(tf.math.real(x)) & tf.math.is_finite(tf.math.imag(x))
    return tf.math.is_finite(x)


def max(x: Any, *, axis: int, keepdims: builtins.bool = False) -> Any:
    """Return the largest elements along an axis, NaN where there is one."""
    return tf.reduce_max(x, axis=axis, keepdims=keepdims)


def nextafter(x1: Any, x2: Any) -> Any:
    """Return the neighbours of x1 on the side of x2; TensorFlow's own has no 16 bits and flushes."""
    found = tf.bitcast(next_bits(tf.where, _bits(x1), _bits(x2), 8 * x1.dtype.size), x1.dtype)
    return tf.where(isnan(x1) | isnan(x2), x1 + x2, found)


def ones_like(x: Any) -> Any:
    """Return ones."""
    return tf.ones_like(x)


def signbit(x: Any) -> Any:
    """Tell negative numbers, and zeros, from positive ones."""
    return _bits(x) < 0


def sum(x: Any, *, axis: int | Sequence[int]) -> Any:
    """Return sums along axes."""
    return tf.reduce_sum(x, axis=axis)


def zeros_like(x: Any, *, dtype: Any = None) -> Any:
    """Return zeros."""
    return tf.zeros_like(x, dtype=dtype)


def _bits(x: Any) -> Any:
    return tf.bitcast(x, _SIGNED[x.dtype.size])
