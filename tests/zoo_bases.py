"""The parts of which the zoo's clips are made: good for level robust, each replaceable by a bad one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Sequence[Array]
Pair = tuple[float, int]  # value × 2**power, so that nothing over- or underflows
Fn = Callable[..., Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = tuple(np.dtype(name) for name in ("float16", ml_dtypes.bfloat16, "float32", "float64"))
COMPLEX = (np.dtype("complex64"), np.dtype("complex128"))
WIDE = np.float64


@dataclass(frozen=True)
class Bug:
    """A wrong function; `level` is the lowest one at which the contract forbids it."""

    name: str
    operation: str
    level: str
    fn: Fn
    thread: str = "common mistake"
    formula: str = "contract"


@dataclass(frozen=True)
class Correct:
    """A function that the contract accepts at `level`."""

    name: str
    operation: str
    level: str
    fn: Fn
    formula: str = "contract"


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("=")


def components(x: Array) -> Array:
    """All real and imaginary parts, in float64, in one dimension."""
    if x.dtype.kind == "c":
        return x.astype(np.complex128, order="C").ravel().view(WIDE)
    return x.astype(WIDE, order="C").ravel()


def flat(arrays: Arrays) -> Array:
    return np.concatenate([components(x) for x in arrays]) if arrays else np.zeros(0)


def moduli(arrays: Arrays, power: int) -> Array:
    """|element| × 2**-power."""
    parts = [np.ldexp(components(x), -power) for x in arrays]
    return np.concatenate(
        [
            np.hypot(p[::2], p[1::2]) if x.dtype.kind == "c" else abs(p)
            for x, p in zip(arrays, parts, strict=True)
        ]
    )


def add(values: Array) -> float:
    return float(np.sum(values)) if values.size > 1 << 20 else math.fsum(values.tolist())


def measure_l2(arrays: Arrays) -> Pair:
    parts = flat(arrays)
    power = math.frexp(float(np.max(abs(parts), initial=0.0)))[1]
    return math.sqrt(add(np.ldexp(parts, -power) ** 2)), power


def measure_l1(arrays: Arrays) -> Pair:
    power = math.frexp(float(np.max(abs(flat(arrays)), initial=0.0)))[1]
    return (add(moduli(arrays, power)) if arrays else 0.0), power


def measure_max(arrays: Arrays) -> Pair:
    power = math.frexp(float(np.max(abs(flat(arrays)), initial=0.0)))[1]
    return (float(np.max(moduli(arrays, power), initial=0.0)) if arrays else 0.0), power


MEASURES: dict[float, Callable[[Arrays], Pair]] = {1: measure_l1, 2: measure_l2, math.inf: measure_max}


def plain(norm: Callable[[Arrays], Any]) -> Callable[[Arrays], Pair]:
    """A norm without a range of its own, as people write it."""
    return lambda arrays: (float(norm(arrays)), 0)


def value_of(pair: Pair) -> float:
    try:
        return math.ldexp(*pair)
    except OverflowError:
        return math.inf


def ratio(limit: float, norm: Pair) -> Pair | None:
    """limit / norm, or None where nothing is to be clipped."""
    size, power = math.frexp(norm[0])
    power += norm[1]
    limit_size, limit_power = math.frexp(limit)
    if size == 0 or (limit and (power, size) <= (limit_power, limit_size)):
        return None
    return limit_size / size, limit_power - power


def plain_ratio(formula: Callable[[float, float], float | None]) -> Callable[[float, Pair], Pair | None]:
    """A factor of its own formula, in plain float64; 1 and None leave the group alone."""

    def factor(limit: float, norm: Pair) -> Pair | None:
        made = formula(limit, value_of(norm))
        return None if made is None or made == 1 else (made, 0)

    return factor


def by_components(scale: Callable[[Array], Array], x: Array) -> Array:
    """Scale a complex array as the twice as long real one."""
    if x.dtype.kind != "c":
        return np.asarray(scale(x)).astype(x.dtype)
    plain_type = native(x.dtype)
    real = x.astype(plain_type, order="C").reshape(-1).view(plain_type.type(0).real.dtype)
    return np.asarray(scale(real)).view(plain_type).reshape(x.shape).astype(x.dtype)


def scaled(x: Array, factor: Pair) -> Array:
    """x × factor with one rounding to float64 and one to the dtype."""

    def scale(real: Array) -> Array:
        size, power = np.frexp(real.astype(WIDE))
        wide = np.ldexp(size * factor[0], np.clip(power + factor[1], -5000, 5000))
        return np.asarray(wide).astype(native(real.dtype))

    return by_components(scale, x)


def copied(x: Array) -> Array:
    return np.array(x)


def poisoned(arrays: Arrays) -> list[Array] | None:
    """Arrays of NaN if anything is not finite."""
    if all(np.isfinite(components(x)).all() for x in arrays):
        return None
    return [
        np.full(x.shape, complex(np.nan, np.nan) if x.dtype.kind == "c" else np.nan, x.dtype) for x in arrays
    ]


def limit_of(limit: Any) -> float:
    if limit is None or isinstance(limit, (bool, np.bool_, str, bytes, complex, np.complexfloating)):
        raise TypeError(f"max_norm must be a real number, got {limit!r}")
    if isinstance(limit, np.ndarray):
        if limit.ndim:
            raise ValueError("max_norm must have no dimensions")
        if native(limit.dtype) not in FLOATS and limit.dtype.kind not in "iu":
            raise TypeError("max_norm must be real")
    try:
        number = float(limit)
    except OverflowError:
        raise ValueError("max_norm is beyond float64") from None
    if not number >= 0:
        raise ValueError(f"max_norm must be at least 0, got {number}")
    return abs(number)  # −0.0 is 0.0


def leaf_of(x: Any) -> Array:
    if not isinstance(x, (np.ndarray, np.generic)):
        raise TypeError(f"expected an array, got {type(x).__name__}")
    array = np.asarray(x)
    if native(array.dtype) not in (*FLOATS, *COMPLEX):
        raise TypeError(f"norms need floating-point arrays, got {array.dtype}")
    return array


def flatten(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """All leaves with their paths, None left out."""
    if tree is None:
        return []
    if not isinstance(tree, (dict, list, tuple)):
        return [(path, tree)]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [found for key, part in items for found in flatten(part, (*path, key))]


def rebuild(tree: Any, made: Iterator[Any]) -> Any:
    """The same containers around new leaves."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        twin = tree.copy()
        twin.update({key: rebuild(part, made) for key, part in tree.items()})
        return twin
    if isinstance(tree, (list, tuple)):
        parts = [rebuild(part, made) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return next(made)


def kept_tree(tree: Any) -> Any:
    return list(tree) if isinstance(tree, Iterator) else tree


def norm_array(arrays: Arrays, norm: Pair) -> Array:
    """The norm that is returned: inf or NaN where the leaves are."""
    parts = flat(arrays)
    if np.isnan(parts).any():
        return np.array(np.nan)
    return np.array(np.inf if np.isinf(parts).any() else value_of(norm))


def norm_before(arrays: Arrays, _clipped: Arrays, _limit: float, norm: Pair) -> Any:
    return norm_array(arrays, norm)


@dataclass(frozen=True)
class Norm:
    """A clip by norm; every part can be replaced."""

    measure: Callable[[Arrays], Pair] = measure_l2
    factor: Callable[[float, Pair], Pair | None] = ratio
    apply: Callable[[Array, Pair], Array] = scaled
    keep: Callable[[Array], Array] = copied
    poison: Callable[[Arrays], list[Array] | None] = poisoned
    limit: Callable[[Any], float] = limit_of
    leaf: Callable[[Any], Array] = leaf_of
    report: Callable[[Arrays, Arrays, float, Pair], Any] = norm_before
    open_limit: bool = True  # an infinite limit leaves everything as it is

    def group(self, arrays: Arrays, limit: float) -> list[Array]:
        with np.errstate(all="ignore"):
            if limit == math.inf and self.open_limit:
                return [self.keep(x) for x in arrays]
            spoilt = self.poison(arrays)
            if spoilt is not None:
                return spoilt
            factor = self.factor(limit, self.measure(arrays))
            return [self.keep(x) if factor is None else self.apply(x, factor) for x in arrays]

    def clip(self, x: Any, max_norm: Any) -> Any:
        limit = self.limit(max_norm)
        return self.group([self.leaf(x)], limit)[0]

    def tree(self, tree: Any, max_norm: Any) -> Any:
        limit = self.limit(max_norm)
        kept = kept_tree(tree)
        arrays = [self.leaf(x) for _, x in flatten(kept)]
        clipped = self.group(arrays, limit)
        with np.errstate(all="ignore"):
            norm = self.report(arrays, clipped, limit, self.measure(arrays))
        return rebuild(kept, iter(clipped)), norm

    def norm(self, x: Any) -> Any:
        array = self.leaf(x)
        with np.errstate(all="ignore"):
            return norm_array([array], self.measure([array]))

    def tree_norm(self, tree: Any) -> Any:
        arrays = [self.leaf(x) for _, x in flatten(kept_tree(tree))]
        with np.errstate(all="ignore"):
            return norm_array(arrays, self.measure(arrays))


L1 = Norm(measure=measure_l1)
L2 = Norm()
LMAX = Norm(measure=measure_max)


def grouped(one: Callable[[Array], Array], x: Array, axis: Any) -> Array:
    """Apply a clip to every slice that shares one norm."""
    if axis is None:
        return one(x)
    axes = axis if isinstance(axis, tuple) else (axis,)
    result = np.array(x)
    ends = range(-len(axes), 0)
    source, target = np.moveaxis(x, axes, ends), np.moveaxis(result, axes, ends)
    for index in np.ndindex(source.shape[: x.ndim - len(axes)]):
        target[index] = one(np.asarray(source[index]))
    return result


def grouped_norm(one: Callable[[Array], Array], x: Array, axis: Any) -> Array:
    if axis is None:
        return one(x)
    axes = axis if isinstance(axis, tuple) else (axis,)
    source = np.moveaxis(x, axes, range(-len(axes), 0))
    outer = source.shape[: x.ndim - len(axes)]
    norms = [float(one(np.asarray(source[index]))) for index in np.ndindex(outer)]
    return np.array(norms, WIDE).reshape(outer)
