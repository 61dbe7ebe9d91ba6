"""The one road of the value and weight clips: round the bounds, then clamp."""

from collections.abc import Callable
from functools import partial
from typing import Any

from clipcore_backends import NUMPY, DeviceEngine, Engine
from clipcore_backends._formats import FORMATS

from clipcore import _portable
from clipcore._bounds import check_array_bound, check_bounds, is_array_bound, round_bounds
from clipcore._checks import check_real, dtype_name
from clipcore._dispatch import bring, engine_for, from_view, namespace_of, views, wrote
from clipcore._out import check_out, readable, same_memory, write
from clipcore._trees import Flat
from clipcore._typing import Array, Bound, Tree

__all__ = ["clamp"]

Pair = tuple[Array | None, Array | None]


def clamp(
    function: str, flat: Flat, lower: Bound, upper: Bound, chosen: list[bool] | None, out: Tree | None
) -> list[Array]:
    """Check the arguments, then clamp the chosen leaves (None: all) and copy the others."""
    check_bounds(function, lower, upper)
    dtypes = [leaf.dtype for leaf in flat.leaves]
    for index in map(dtypes.index, dict.fromkeys(dtypes)):
        check_real(function, partial(flat.name, index), flat.leaves[index])
    outs = None if out is None else check_out(function, flat, out)
    on_device = flat.device_engine
    if on_device is not None:
        bounds = _bounds(function, flat, lower, upper, chosen, on_device.number, _round_on(on_device))
        if outs is None:
            results, leaves = on_device.empty_like(flat.leaves), flat.leaves
        else:
            results, leaves = outs, readable(flat.leaves, outs, on_device.copy)
        on_device.clamp(leaves, results, bounds)
        return results
    engine = engine_for(flat.leaves)
    serving: Any = engine or _portable
    bounds = _bounds(function, flat, lower, upper, chosen, serving.number, serving.round_array)
    if engine is not None:
        return _clamp_eager(engine, flat.leaves, bounds, outs)
    viewed = _as_views(flat.leaves, bounds, outs)
    if viewed is not None:
        results = _clamp_eager(NUMPY, *viewed)
        if outs is None:
            return [from_view(result, flat.leaves[0]) for result in results]
        wrote(outs)
        return outs
    results = [_portable.clamp(leaf, *pair) for leaf, pair in zip(flat.leaves, bounds, strict=True)]
    if outs is None:
        return results
    write(results, outs)
    return outs


def _round_on(engine: DeviceEngine) -> Callable[..., Array]:
    """Return what casts array bounds where an engine serves: floating-point ones by the engine."""

    def round_array(bound: Array, leaf: Array, *, up: bool) -> Array:
        if dtype_name(leaf.dtype) not in FORMATS:
            return _portable.round_array(bound, leaf, up=up)
        if dtype_name(bound.dtype) not in FORMATS:
            xp = namespace_of(bound)
            bound = _portable.round_to(xp, bound, xp.float64, up=up)
        return engine.round_array(bound, leaf, up=up)

    return round_array


def _bounds(
    function: str,
    flat: Flat,
    lower: Bound,
    upper: Bound,
    chosen: list[bool] | None,
    as_array: Callable[[float, Array], Array],
    round_array: Callable[..., Array],
) -> list[Pair]:
    """Return the bounds of each leaf as arrays of its dtype, None where there is none."""
    numbers: dict[Any, tuple[float | int | None, float | int | None]] = {}
    bounds: list[Pair] = []
    for index, leaf in enumerate(flat.leaves):
        if chosen is not None and not chosen[index]:
            bounds.append((None, None))
            continue
        if leaf.dtype not in numbers:
            numbers[leaf.dtype] = round_bounds(function, lower, upper, leaf.dtype)
        pair: list[Array | None] = []
        for argument, bound, number in zip(
            ("lower", "upper"), (lower, upper), numbers[leaf.dtype], strict=True
        ):
            if is_array_bound(bound):
                check_array_bound(function, argument, bound, flat.name(index), leaf)
                pair.append(round_array(bring(bound, leaf), leaf, up=argument == "lower"))
            else:
                pair.append(None if number is None else as_array(number, leaf))
        bounds.append((pair[0], pair[1]))
    return bounds


def _as_views(
    leaves: list[Array], bounds: list[Pair], outs: list[Array] | None
) -> tuple[list[Array], list[Pair], list[Array] | None] | None:
    """Return leaves, bounds and outs as NumPy arrays that view them, None where one has no view."""
    given = [bound for pair in bounds for bound in pair if bound is not None]
    arrays = views([*leaves, *(outs or ()), *given])
    if arrays is None:
        return None
    rest = iter(arrays[len(arrays) - len(given) :])
    pairs: list[Pair] = [
        (None if lower is None else next(rest), None if upper is None else next(rest))
        for lower, upper in bounds
    ]
    count = len(leaves)
    return arrays[:count], pairs, None if outs is None else arrays[count : 2 * count]


def _clamp_eager(
    engine: Engine, leaves: list[Array], bounds: list[Pair], outs: list[Array] | None
) -> list[Array]:
    if outs is None:
        results = [engine.empty_like(leaf) for leaf in leaves]
    else:
        results, leaves = outs, readable(leaves, outs)
    bounded, free = [], []
    for leaf, result, pair in zip(leaves, results, bounds, strict=True):
        if any(bound is not None for bound in pair):
            bounded.append((leaf, result, pair))
        elif not same_memory(leaf, result):
            free.append((leaf, result))
    if bounded:
        engine.clamp(*map(list, zip(*bounded, strict=True)))
    if free:
        engine.copy(*map(list, zip(*free, strict=True)))
    return results
