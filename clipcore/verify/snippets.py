"""A case as Python code that can be pasted and run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from clipcore.verify.calling import AtPath, Drawn, LastKey
from clipcore.verify.formats import Array
from clipcore.verify.judge import Case

__all__ = ["snippet"]

LONG: Final = 24  # elements from which equal neighbours are counted instead of listed


def snippet(case: Case) -> str:
    """Return code that calls `fn` with a case; decimals only where they are the number itself.

    Parameters
    ----------
    case : Case
        The call.

    Returns
    -------
    str
        Lines of Python that need a function named `fn`.
    """
    parts = [_value(value) for value in (case.tree, *case.arguments)]
    parts += [f"{key}={_value(value)}" for key, value in case.keywords.items()]
    call = f"fn({', '.join(parts)})"
    lines = ["import numpy as np"]
    if "ml_dtypes" in call:
        lines.append("import ml_dtypes")
    if "namedtuple(" in call:
        lines.append("from collections import namedtuple")
    if "h(" in call:
        lines.append("h = float.fromhex")
    return "\n".join([*lines, call])


def _value(value: Any) -> str:
    """Return one argument as code."""
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic):
        if value.dtype.kind == "f" and value.dtype.itemsize > 8:
            return repr(value)  # longer than any Python float
        kind = "ml_dtypes.bfloat16" if value.dtype.name == "bfloat16" else f"np.{value.dtype.name}"
        return f"{kind}({_number(float(value) if value.dtype.kind in 'fV' else value.item())})"
    if isinstance(value, Drawn):
        return f"iter([{', '.join(map(_value, value))}])"
    if isinstance(value, LastKey):
        return f"lambda path, leaf: path[-1] == {value.key!r}"
    if isinstance(value, AtPath):
        return f"lambda path, leaf: path == {value.path!r}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        made = f"namedtuple({type(value).__name__!r}, {list(value._fields)})"
        return f"{made}({', '.join(map(_value, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))}{',' if len(value) == 1 else ''})"
    return _number(value)


def _number(value: Any) -> str:
    """Return a number as code: a decimal that is exactly the number, else its hexadecimal form."""
    if isinstance(value, complex):
        return f"complex({_number(value.real)}, {_number(value.imag)})"
    if not isinstance(value, float):
        return repr(value)
    if not math.isfinite(value):
        sign = "-" if math.isnan(value) and math.copysign(1, value) < 0 else ""
        return f"{sign}float({str(value)!r})"
    short = repr(value)
    return short if Fraction(short) == Fraction(value) else f"h({value.hex()!r})"


def _array(x: Array) -> str:
    """Return an array as code, with its dtype, byte order, layout and flags."""
    if x.size and any(stride == 0 and length > 1 for stride, length in zip(x.strides, x.shape, strict=True)):
        kept = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.strides)
        return f"np.broadcast_to({_array(np.array(x[kept]))}, {x.shape})"
    if x.ndim and x.size > 1 and not x.flags.c_contiguous:
        return _laid_out(x)
    made = _dense(x)
    return (
        made if x.flags.writeable or x.flags.c_contiguous is False else f"np.broadcast_to({made}, {x.shape})"
    )


def _laid_out(x: Array) -> str:
    """Return code for an array that is not laid out in C order."""
    dense = np.array(x, order="C")
    if any(stride < 0 for stride in x.strides):
        turned = ", ".join("::-1" if stride < 0 else ":" for stride in x.strides)
        where = tuple(slice(None, None, -1) if stride < 0 else slice(None) for stride in x.strides)
        return f"{_array(np.array(dense[where], order='C'))}[{turned}]"
    if x.T.flags.c_contiguous:
        return f"{_array(np.array(x.T, order='C'))}.T"
    return f"np.repeat({_array(dense)}, 2, axis=-1)[..., ::2]"


def _dense(x: Array) -> str:
    """Return code for an array of plain layout."""
    dtype = f"np.{x.dtype.name}" if x.dtype.isnative or x.dtype.kind not in "fciu" else repr(x.dtype.str)
    if x.dtype.name == "bfloat16":
        dtype = "ml_dtypes.bfloat16"
    elif x.dtype.kind not in "fciub":
        dtype = repr(x.dtype.str) if x.dtype.kind != "O" else "object"
    values = x.reshape(-1).tolist() if x.dtype.kind != "M" else x.reshape(-1).astype(str).tolist()
    if x.ndim == 0:
        return f"np.array({_value(values[0])}, {dtype})"
    shape = f".reshape{x.shape}" if x.ndim > 1 else ""
    runs = list(_runs(values)) if len(values) > LONG else []
    if len(runs) == 1:
        return f"np.full({x.shape}, {_value(runs[0][0])}, {dtype})"
    if runs and len(runs) * 2 < len(values):
        counts = ", ".join(str(count) for _, count in runs)
        listed = ", ".join(_value(value) for value, _ in runs)
        return f"np.repeat(np.array([{listed}], {dtype}), [{counts}]){shape}"
    return f"np.array([{', '.join(map(_value, values))}], {dtype}){shape}"


def _runs(values: list[Any]) -> Iterator[tuple[Any, int]]:
    """Yield each value with the number of times that it stands in a row."""
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or repr(values[index]) != repr(values[start]):
            yield values[start], index - start
            start = index
