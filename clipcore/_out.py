"""Where results go: new arrays, or the arrays of `out`, checked before anything is written."""

import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import optree

from clipcore import _dispatch
from clipcore._checks import check_library, dtype_name
from clipcore._dispatch import (
    addresses,
    apart,
    device_engine_of,
    device_of,
    is_array,
    is_read_only,
    is_writable,
    library_of,
    views,
)
from clipcore._messages import shown
from clipcore._trees import Flat
from clipcore._typing import Array, Tree

__all__ = ["check_out", "check_out_viewed", "readable", "same_memory", "write"]


def check_out(function: str, flat: Flat, out: Tree, *, known_apart: bool = False) -> list[Array]:
    """Return the leaves of `out`, fit to take results of the leaves of `flat`.

    `known_apart` tells that no two leaves of `out` share bytes, so that nobody looks again.

    Raises
    ------
    TypeError
        If a leaf is no array, of another library, or of one whose arrays cannot be written.
    ValueError
        If structure, shape or dtype differ, a leaf is read-only, or leaves share bytes.
    """
    target = flat.as_out() if _is_input(flat, out) else Flat(out, "out")
    if target.leaves is not flat.leaves and target.spec != flat.spec:
        raise ValueError(
            f"{function}: out has the structure {shown(target.spec)}, the input {shown(flat.spec)}; "
            "give arrays in the same containers"
        )
    if flat.library == "cupy":
        separate = _check_on_device(function, target, flat)
    else:
        separate = _check_each(function, target, flat, known_apart=known_apart)
    pair = None if separate else _sharing(target.leaves)
    if pair is not None:
        one, other = map(target.name, pair)
        what = "has elements that share bytes" if one == other else f"and {other} share bytes"
        raise ValueError(f"{function}: {one} {what}; give memory of its own to each")
    return target.leaves


def _check_each(function: str, target: Flat, flat: Flat, *, known_apart: bool) -> bool:
    """Check the leaves of `out`; return whether it is certain that no two share bytes."""
    leaves = target.leaves
    if leaves is not flat.leaves or not {np.ndarray}.issuperset(map(type, leaves)):
        for index, (given, leaf) in enumerate(zip(leaves, flat.leaves, strict=True)):
            fits = type(given) is type(leaf) is np.ndarray and given.dtype == leaf.dtype
            if not fits or given.shape != leaf.shape:
                _check_fit(function, target, index, leaf)
    if not {np.ndarray}.issuperset(map(type, leaves)):
        for index in range(len(leaves)):
            _check_writable(function, target, index)
        return known_apart
    flags = [leaf.flags for leaf in leaves]
    for index in [index for index, each in enumerate(flags) if not each.writeable]:
        _check_writable(function, target, index)
    if known_apart:
        return True
    # Arrays that own their memory share none of it with each other.
    own = False not in [leaf.base is None for leaf in leaves] and False not in [each.carray for each in flags]
    return own and len(set(map(id, leaves))) == len(leaves)


def _check_on_device(function: str, target: Flat, flat: Flat) -> bool:
    """Do the same for a library whose arrays can all be written, and which has an engine to look at them."""
    if target.leaves is flat.leaves:
        return bool(flat.seen.apart)
    for index, (given, leaf) in enumerate(zip(target.leaves, flat.leaves, strict=True)):
        fits = type(given) is type(leaf) and (given.dtype, given.shape) == (leaf.dtype, leaf.shape)
        if not fits or given.device != leaf.device:
            _check_fit(function, target, index, leaf)
    target.library = flat.library
    return bool(target.seen.apart)


def _is_input(flat: Flat, out: Tree) -> bool:
    """Tell whether `out` is the input itself, with the leaves that `flat` has."""
    return out is flat.tree and flat.own


def check_out_viewed(function: str, flat: Flat, viewed: Flat, out: Tree) -> list[Array] | None:
    """Return NumPy arrays that are the memory of the leaves of `out`, checked; None where one has no view.

    `viewed` is the input, `flat`, with such arrays.
    """
    if _is_input(flat, out):
        return check_out(function, viewed, out, known_apart=apart(flat.leaves, viewed.leaves))
    leaves, spec = optree.tree_flatten(out)
    same = len(leaves) == len(flat.leaves) and all(map(operator.is_, leaves, flat.leaves))
    arrays = viewed.leaves if same else views(leaves)
    if arrays is None:
        return None
    known_apart = apart(leaves, arrays)
    return check_out(function, viewed, optree.tree_unflatten(spec, arrays), known_apart=known_apart)


def _check_fit(function: str, target: Flat, index: int, leaf: Array) -> None:
    """Check the kind, shape and dtype of one leaf of `out`."""
    given, name = target.leaves[index], target.name(index)
    if not is_array(given) or isinstance(given, np.generic):
        raise TypeError(f"{function}: {name} is {shown(given)} of type {type(given).__name__}; give an array")
    check_library(function, name, given, [leaf])
    if tuple(given.shape) != tuple(leaf.shape) or given.dtype != leaf.dtype:
        raise ValueError(
            f"{function}: {name} has shape {tuple(given.shape)} and dtype {_dtype_text(given)}, "
            f"its input {tuple(leaf.shape)} and {_dtype_text(leaf)}; give one of that shape and dtype"
        )
    if device_of(given) != device_of(leaf):
        raise ValueError(
            f"{function}: {name} is on the device {device_of(given)}, its input on {device_of(leaf)}; "
            "give one on that device"
        )


def _check_writable(function: str, target: Flat, index: int) -> None:
    given = target.leaves[index]
    if isinstance(given, np.ndarray):
        writable = given.flags.writeable
    elif not is_writable(given):
        raise TypeError(f"{function}: {target.name(index)} cannot be written to in place; leave out= away")
    else:
        writable = not is_read_only(given)
    if not writable:
        raise ValueError(f"{function}: {target.name(index)} is read-only; give an array that can be written")


def _dtype_text(array: Array) -> str:
    dtype = array.dtype
    native = not isinstance(dtype, np.dtype) or dtype.isnative
    return dtype_name(dtype) + ("" if native else " in the other byte order")


def _sharing(leaves: list[Array]) -> tuple[int, int] | None:
    """Return the indices of two arrays, or twice that of one, in which a byte stands for two elements.

    Of libraries that do not tell addresses, only the same array given twice is seen.
    """
    spans = []
    seen: dict[int, int] = {}
    for index, (leaf, placed) in enumerate(zip(leaves, addresses(leaves), strict=True)):
        if placed is None:
            if 0 not in leaf.shape and seen.setdefault(id(leaf), index) != index:
                return seen[id(leaf)], index
            continue
        if not placed.size:
            continue
        if _overlaps_itself(placed):
            return index, index
        spans.append((*_span(placed), index, placed))
    spans.sort(key=lambda span: span[:3])
    if all(one[1] <= other[0] for one, other in pairwise(spans)):
        return None
    open_spans: list[tuple[int, int, Array]] = []
    for start, stop, index, placed in spans:
        open_spans = [span for span in open_spans if span[0] > start]
        for _, other, there in open_spans:
            if np.shares_memory(placed, there):
                return min(index, other), max(index, other)
        open_spans.append((stop, index, placed))
    return None


def _span(x: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the addresses of the first byte and of the one after the last."""
    if not x.flags.forc:
        return np.lib.array_utils.byte_bounds(x)
    start = x.__array_interface__["data"][0]
    return start, start + x.nbytes


def _overlaps_itself(x: np.ndarray[Any, Any]) -> bool:
    if x.flags.forc:
        return False
    reach = x.itemsize
    axes = sorted(
        (abs(stride), length) for stride, length in zip(x.strides, x.shape, strict=True) if length > 1
    )
    for stride, length in axes:
        if stride < reach:
            break
        reach += stride * (length - 1)
    else:
        return False
    offsets = np.zeros(x.shape, np.int64)
    for axis, stride in enumerate(x.strides):
        shape = [-1 if k == axis else 1 for k in range(x.ndim)]
        offsets += (np.arange(x.shape[axis]) * stride).reshape(shape)
    return bool((np.diff(np.sort(offsets, axis=None)) < x.itemsize).any())


def readable(
    leaves: list[Array], outs: list[Array], copy: Callable[[Array], Array] = np.ndarray.copy
) -> list[Array]:
    """Return the leaves, copied where writing to an array of `outs` would change them unread.

    Their addresses must be known. A leaf that is its own `out`, element for element, is read
    before it is written.
    """
    if all(map(operator.is_, leaves, outs)):
        return leaves
    others = [leaf for leaf, out in zip(leaves, outs, strict=True) if leaf is not out]
    if all(map(_owns, [*others, *outs])) and set(map(id, others)).isdisjoint(map(id, outs)):
        return leaves
    engine = device_engine_of(library_of(outs[0]))
    if engine is not None and engine.look([*others, *outs]).apart:
        return leaves
    places = addresses(leaves), addresses(outs)
    spans = [
        (*_span(array), kind, index)
        for kind, arrays in enumerate(places)
        for index, array in enumerate(arrays)
        if array.size
    ]
    result = list(leaves)
    open_spans: list[tuple[int, int, int]] = []
    for start, stop, kind, index in sorted(spans):
        open_spans = [span for span in open_spans if span[0] > start]
        for _, other_kind, other in open_spans:
            if kind == other_kind:
                continue
            read, written = (index, other) if kind == 0 else (other, index)
            same = read == written and same_memory(places[0][read], places[1][written])
            if not same and result[read] is leaves[read]:
                result[read] = copy(leaves[read])
        open_spans.append((stop, kind, index))
    return result


def _owns(array: Array) -> bool:
    """Tell an array that has memory of its own from a view of another one's."""
    return type(array) is np.ndarray and array.base is None


def same_memory(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> bool:
    """Tell whether two NumPy arrays of one shape are the same elements at the same places."""
    return x.strides == y.strides and x.__array_interface__["data"][0] == y.__array_interface__["data"][0]


def write(results: list[Array], outs: list[Array]) -> None:
    """Write results to the arrays of `outs`, of a library other than NumPy."""
    for result, out in zip(results, outs, strict=True):
        _dispatch.write(out, result)
