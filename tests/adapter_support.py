"""What the tests of the small namespaces share: the same data, the standard's answers, 16-bit neighbours."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

Array = np.ndarray[Any, np.dtype[Any]]

NAN, INF = math.nan, math.inf
NUMBERS = [[3.0, -4.5, 0.0, -0.0], [NAN, INF, -INF, 0.25]]
FINITE = [[3.0, -4.5, 0.0, -0.0], [1e4, -1e-4, 2.0, 0.25]]


def opened(request: pytest.FixtureRequest, name: str, crashes_after: str = "") -> Any:
    """A library; the test is skipped where it is not installed, or cannot be loaded into this process."""
    reason = "" if importlib.util.find_spec(name.partition(".")[0]) else f"{name} is not installed"
    if crashes_after in sys.modules:
        reason = f"{name} crashes in a process that has loaded {crashes_after}: run this file by itself"
    if reason and request.config.getoption("--require-all"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with warnings.catch_warnings():
        # what a library warns of while it is imported is its own affair
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def same(got: Array, want: Array) -> bool:
    """Tell whether dtype, shape, where NaN is, and all other bits agree, component by component."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    if want.dtype.kind == "c":
        return same(got.real, want.real) and same(got.imag, want.imag)
    nan = np.asarray(want != want)
    return bool(np.array_equal(got != got, nan)) and got[~nan].tobytes() == want[~nan].tobytes()


def answers(floating: str, complex_: str = "") -> Iterator[tuple[str, Callable[..., Any], list[Array]]]:
    """Functions of a namespace, each as it is called, with arrays; NumPy's namespace has the answers."""
    x, y = np.array(NUMBERS, floating), np.array(FINITE, floating)
    flags, none = x > 0, np.zeros((3, 0), floating)
    yield "abs", lambda xp, x: xp.abs(x), [x]
    yield "all", lambda xp, c: xp.all(c), [flags]
    yield "any", lambda xp, c: xp.any(c), [flags]
    yield "astype", lambda xp, c, x: xp.astype(c, x.dtype), [flags, x]
    yield "concat", lambda xp, x, y: xp.concat([x, y], axis=-1), [x, y]
    yield "floor", lambda xp, y: xp.floor(y), [y]
    yield "full_like", lambda xp, x: xp.full_like(x, -0.0), [x]
    yield "isfinite", lambda xp, x: xp.isfinite(x), [x]
    yield "isinf", lambda xp, x: xp.isinf(x), [x]
    yield "isnan", lambda xp, x: xp.isnan(x), [x]
    yield "max", lambda xp, x: xp.max(x, axis=-1), [x]
    yield "max, axes kept", lambda xp, x: xp.max(x, axis=0, keepdims=True), [y]
    yield "minimum", lambda xp, x, y: xp.minimum(x, y), [x, y]
    yield "negative", lambda xp, x: xp.negative(x), [x]
    yield "ones_like", lambda xp, x: xp.ones_like(x), [x]
    yield "permute_dims", lambda xp, x: xp.permute_dims(x, (1, 0)), [x]
    yield "reshape", lambda xp, x: xp.reshape(x, (4, 2)), [x]
    yield "reshape to one", lambda xp, x: xp.reshape(x, (1,)), [x[0, 0]]
    yield "sign", lambda xp, y: xp.sign(y), [np.abs(y) - 2.0]
    yield "signbit", lambda xp, x: xp.signbit(x), [x]
    yield "sqrt", lambda xp, y: xp.sqrt(xp.abs(y)), [y]
    yield "stack", lambda xp, x, y: xp.stack([x, y], axis=-1), [x, y]
    yield "sum", lambda xp, y: xp.sum(y, axis=-1), [y[:1]]
    yield "sum of nothing", lambda xp, x: xp.sum(x, axis=-1), [none]
    yield "where", lambda xp, c, x, y: xp.where(c, x, y), [flags, x, y]
    yield "where, one flag", lambda xp, c, x, y: xp.where(xp.any(c), x, y), [flags, x, y]
    yield "zeros_like", lambda xp, x: xp.zeros_like(x, dtype=xp.bool), [x]
    yield "flags", lambda xp, c: c & ~c | c, [flags]
    yield "comparisons", lambda xp, x, y: (x <= y) & (x != x) | (x == y) | (x >= y) & (x < INF), [x, y]
    yield "slices", lambda xp, x: x[..., :3][..., 0][..., None], [x]
    if complex_:
        z = np.array([complex(a, b) for a in (0.0, -0.0, 3.0, NAN) for b in (0.0, -0.0, INF)], complex_)
        yield "conj", lambda xp, z: xp.conj(z), [z]
        yield "real", lambda xp, z: xp.real(z), [z]
        yield "imag", lambda xp, z: xp.imag(z), [z]
        yield "complex negative", lambda xp, z: xp.negative(z), [z]
        yield "complex where", lambda xp, c, z: xp.where(c, z, xp.conj(z)), [np.arange(12) % 2 == 0, z]
        yield "complex isfinite", lambda xp, z: xp.isfinite(z), [z]


def neighbours(name: str) -> tuple[Array, Array, Array]:
    """Every number of 16 bits but NaN, in order, with the next one below and the next one above it."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    numbers = np.arange(2**16).astype(np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        numbers = numbers[~np.isnan(numbers)]
    # −0.0 lies between the negative numbers and 0.0, and neither zero is the neighbour of the other
    order = np.lexsort((~np.signbit(numbers), numbers.astype(np.float64)))
    ordered = numbers[order]
    zero = int(np.flatnonzero(ordered == 0)[0])
    below, above = np.concatenate([ordered[:1], ordered[:-1]]), np.concatenate([ordered[1:], ordered[-1:]])
    below[zero + 1], above[zero] = ordered[zero - 1], ordered[zero + 2]
    return ordered, below, above
