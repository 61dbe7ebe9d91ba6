"""Paddle as an array-API namespace, which it has none of, as far as clipcore asks for it.

Only what the portable engine calls is here, with the standard's names, arguments and
meaning, for tensors that have values: those of static graphs are refused. On a CPU Paddle
has hardly a function for numbers of 8 and 16 bits; the ones clipcore needs are computed in
32 bits, which changes none of them. There is no uint16, which Paddle takes for bfloat16.
"""
# ruff: noqa: A001  # the standard's names are those of Python's own functions

import builtins
import importlib
import math
from typing import Any

from clipcore._bits import next_bits

paddle: Any = importlib.import_module("paddle")

_WIDER = {
    **dict.fromkeys((paddle.float16, paddle.bfloat16), paddle.float32),
    **dict.fromkeys((paddle.int8, paddle.int16, paddle.uint8), paddle.int32),
}
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
_REALS = ("float16", "bfloat16", "float32", "float64")
_COMPLEX = ("complex64", "complex128")

all = paddle.all
any = paddle.any
bool = paddle.bool
concat = paddle.concat
conj = paddle.conj
floor = paddle.floor
imag = paddle.imag
isfinite = paddle.isfinite
isinf = paddle.isinf
isnan = paddle.isnan
minimum = paddle.minimum
ones_like = paddle.ones_like
permute_dims = paddle.transpose
real = paddle.real
reshape = paddle.reshape
sign = paddle.sign
signbit = paddle.signbit
sqrt = paddle.sqrt
stack = paddle.stack
sum = paddle.sum
zeros_like = paddle.zeros_like


def is_array(value: Any) -> builtins.bool:
    """Tell dense tensors from sparse ones, and from those of static graphs."""
    return isinstance(value, paddle.Tensor) and value.is_dense()


def advice(value: Any) -> str:
    """Return what to do with a value of the package that is no array."""
    if not isinstance(value, paddle.Tensor):
        return "static graphs are not supported: clip where tensors have values, outside paddle.jit.to_static"
    if value.is_selected_rows():
        return "give a dense gradient: call paddle.nn.Embedding with sparse=False"
    return "give a dense tensor, as its to_dense() returns it"


def device(array: Any) -> Any:
    """Return the place of a tensor."""
    return array.place


def is_traced(_array: Any) -> builtins.bool:
    """Return False: every tensor has values."""
    return False


def is_writable(_array: Any) -> builtins.bool:
    """Return True: every tensor takes other values in place."""
    return True


def write(array: Any, value: Any) -> None:
    """Give a tensor, or a parameter, other values; no derivative passes through."""
    with paddle.no_grad():
        paddle.assign(value, array)


class __array_namespace_info__:  # noqa: N801  # the standard's name
    """What dtypes there are."""

    def dtypes(self, *, device: Any = None, kind: None = None) -> dict[str, Any]:  # noqa: ARG002
        """Return all dtypes by their names; every device has them."""
        return {name: getattr(paddle, name) for name in ("bool", *_INTEGERS, *_REALS, *_COMPLEX)}


def abs(x: Any) -> Any:
    """Return magnitudes."""
    return paddle.abs(x)


def asarray(value: Any, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:  # noqa: ARG001
    """Return a number, or a copy of an array, as a tensor."""
    if isinstance(value, paddle.Tensor):
        return value.clone() if device is None else value.to(device)
    return paddle.to_tensor(value, dtype=dtype, place=device)


def astype(x: Any, dtype: Any) -> Any:
    """Convert to a dtype."""
    return x.astype(dtype)


def full_like(x: Any, value: Any) -> Any:
    """Return a tensor of one value; Paddle's own takes integers through float64."""
    return paddle.broadcast_to(asarray(value, dtype=x.dtype, device=x.place), x.shape)


def iinfo(dtype: Any) -> Any:
    """Return the least and the largest integer."""
    return paddle.iinfo(dtype)


def isdtype(dtype: Any, kind: str | tuple[str, ...]) -> builtins.bool:
    """Tell whether a dtype is of a kind, or of one of several."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = {"integral": _INTEGERS, "real floating": _REALS, "complex floating": _COMPLEX}
    return builtins.any(str(dtype).removeprefix("paddle.") in names[each] for each in kinds)


def max(x: Any, *, axis: int, keepdims: builtins.bool = False) -> Any:
    """Return the largest elements along an axis, NaN where there is one."""
    return paddle.max(x, axis=axis, keepdim=keepdims)


def negative(x: Any) -> Any:
    """Return numbers of the other sign; Paddle's own, and its minus, take 0.0 to 0.0."""
    if isdtype(x.dtype, "complex floating"):
        return paddle.complex(negative(paddle.real(x)), negative(paddle.imag(x)))
    return x * full_like(x, -1)


def nextafter(x1: Any, x2: Any) -> Any:
    """Return the neighbours of x1 on the side of x2; Paddle's own has no 16 bits."""
    if x1.dtype not in _WIDER:
        return paddle.nextafter(x1, x2)
    bits = (x.view("int16").astype("int32") for x in (x1, x2))
    found = next_bits(paddle.where, next(bits), next(bits), 16).astype("int16").view(x1.dtype)
    return where(paddle.isnan(x1) | paddle.isnan(x2), full_like(x1, math.nan), found)


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return elements of x where the condition holds, else of y."""
    wider = _WIDER.get(x.dtype)
    if wider is None:
        return paddle.where(condition, x, y)
    if x.dtype == paddle.bfloat16 and x.stop_gradient and y.stop_gradient:
        # The way back from float32 would lose the bits of NaN.
        return where(condition, x.view("int16"), y.view("int16")).view("bfloat16")
    return paddle.where(condition, x.astype(wider), y.astype(wider)).astype(x.dtype)
