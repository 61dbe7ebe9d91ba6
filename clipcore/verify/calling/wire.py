"""Calls and their results as JSON, arrays with their layout in memory."""

from __future__ import annotations

import base64
import ctypes
import functools
import importlib
from collections import namedtuple
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["TOO_MANY", "AtPath", "Drawn", "LastKey", "Opaque", "decode", "encode", "laid_out", "named_tuple"]

Array = Any
TOO_MANY: Final = 200  # characters of a stranger's text that are shown


class Drawn(list[Any]):
    """A list that the function receives as a generator."""


@dataclass(frozen=True)
class LastKey:
    """A `where` that chooses the leaves whose path ends in a key."""

    key: Any

    def __call__(self, path: tuple[Any, ...], leaf: Any) -> bool:
        """Return whether the path ends in the key."""
        return bool(path) and path[-1] == self.key and leaf is not None


@dataclass(frozen=True)
class AtPath:
    """A `where` that chooses the leaf at one path."""

    path: tuple[Any, ...]

    def __call__(self, path: tuple[Any, ...], leaf: Any) -> bool:
        """Return whether the path is the one."""
        return path == self.path and leaf is not None


@functools.lru_cache
def named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    """Return one type for each name and fields."""
    return namedtuple(name, fields)  # its fields are known only now


@dataclass(frozen=True)
class Opaque:
    """Stands for an object of the other side that is no data."""

    kind: str
    text: str


def encode(value: Any) -> Any:
    """Return a value as JSON can hold it, arrays with their layout."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        return {"scalar": encode(np.asarray(value))}
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return {"array": _encode_array(value)}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, Drawn):
        return {"drawn": [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return {"list": [encode(item) for item in value]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": [type(value).__name__, list(value._fields), [encode(item) for item in value]]}
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, LastKey):
        return {"last key": encode(value.key)}
    if isinstance(value, AtPath):
        return {"path": encode(value.path)}
    if isinstance(value, np.ndarray):
        return {"objects": [encode(item) for item in value.reshape(-1).tolist()]}
    return {"opaque": [f"{type(value).__module__}.{type(value).__qualname__}", repr(value)[:TOO_MANY]]}


def _encode_array(x: Array) -> list[Any]:
    """Return an array with the memory that it spans."""
    low, high = np.lib.array_utils.byte_bounds(x) if x.size else (0, 0)
    offset = x.__array_interface__["data"][0] - low if x.size else 0
    dense = not x.size or x.flags.c_contiguous
    if dense:
        raw, strides, offset = x.tobytes(), None, 0
    else:
        raw, strides = ctypes.string_at(low, high - low), list(x.strides)
    name = x.dtype.str if x.dtype.kind != "V" else x.dtype.name
    return [name, list(x.shape), strides, offset, x.flags.writeable, base64.b64encode(raw).decode()]


def decode(value: Any) -> Any:
    """Return what `encode` was given; objects that are no data come back as `Opaque`."""
    if not isinstance(value, dict):
        return value
    [(kind, held)] = value.items()
    if kind == "array":
        return _decode_array(*held)
    if kind == "scalar":
        return decode(held)[()]
    if kind in ("int", "float", "complex"):
        read = float.fromhex
        return int(held) if kind == "int" else read(held) if kind == "float" else complex(*map(read, held))
    if kind == "dict":
        return {decode(key): decode(item) for key, item in held}
    if kind == "named":
        return named_tuple(held[0], tuple(held[1]))(*map(decode, held[2]))
    if kind == "last key":
        return LastKey(decode(held))
    if kind == "path":
        return AtPath(decode(held))
    if kind == "opaque":
        return Opaque(*held)
    if kind == "objects":
        return np.array(list(map(decode, held)), dtype=object)
    return {"drawn": Drawn, "list": list, "tuple": tuple}[kind](map(decode, held))


def _decode_array(
    name: str, shape: list[int], strides: list[int] | None, offset: int, writable: bool, raw: str
) -> Array:
    """Return an array of its own memory, laid out as it was."""
    if name == "bfloat16":
        importlib.import_module("ml_dtypes")
    memory = bytearray(base64.b64decode(raw))
    x: Array = np.ndarray(shape, np.dtype(name), memory or None, offset, strides)
    x.flags.writeable = writable
    return x


def laid_out(x: Array) -> Array:
    """Return a copy laid out in memory as the original is."""
    return _decode_array(*_encode_array(x))
