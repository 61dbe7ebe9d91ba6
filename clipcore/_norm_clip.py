"""The one road of every norm clip: measure, decide, scale."""

import math
import operator
from contextlib import nullcontext
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import optree
from clipcore_backends import NUMPY, DeviceEngine, Engine
from clipcore_backends._formats import COMPONENT, FORMATS, Format
from clipcore_backends._protocol import Multiplier, Order, Sum

from clipcore import _portable
from clipcore._checks import check_floating, check_limit, check_nonfinite, dtype_name, offenders
from clipcore._decide import Decision, Norm, decide, multiplier, norm_of, subnormal_slack, to_float
from clipcore._dispatch import bring, engine_for, from_view, namespace_of, views, wrote
from clipcore._out import check_out, check_out_viewed, readable, same_memory, write
from clipcore._reduce import all_ranks
from clipcore._trees import Flat
from clipcore._typing import AllReduce, Array, Nonfinite, Tree

__all__ = ["Request", "clip", "measure"]


class Request(NamedTuple):
    """What a caller asked of a norm clip, arguments checked."""

    function: str
    order: Order
    axis: tuple[int, ...] | None = None
    norm: float | Array | None = None
    all_reduce: AllReduce | None = None
    nonfinite: Nonfinite = "propagate"


def clip(flat: Flat, max_norm: Any, request: Request, out: Tree | None) -> tuple[list[Array], Array]:
    """Check what all norm clips have in common, then clip; return the results and the norm before."""
    check_floating(request.function, flat)
    limit = check_limit(request.function, max_norm, flat.leaves)
    check_nonfinite(request.function, request.nonfinite)
    viewed = _as_views(flat, limit, request, out)
    if viewed is not None:
        results, norm = _clip_looking(NUMPY, *viewed)
        like = flat.leaves[0]
        if out is None:
            return [from_view(result, like) for result in results], from_view(norm, like)
        written: list[Array] = flat.leaves if out is flat.tree else optree.tree_leaves(out)
        wrote(written)
        return written, from_view(norm, like)
    outs = None if out is None else check_out(request.function, flat, out)
    on_device = flat.device_engine
    if on_device is not None:
        return _clip_on_device(on_device, flat, limit, request, outs)
    engine = engine_for(flat.leaves)
    if engine is None:
        results, norm = _portable.clip(flat, limit, request)
        if outs is None:
            return results, norm
        write(results, outs)
        return outs, norm
    if not isinstance(limit, float):
        # Only a tree without leaves lets a limit of another library pass.
        limit = math.inf
    return _clip_looking(engine, flat, limit, request, outs)


def measure(flat: Flat, request: Request) -> Array:
    """Return the norms of a tree, or of the groups of its one leaf."""
    check_floating(request.function, flat)
    on_device = flat.device_engine
    if on_device is not None:
        return _measure_on_device(on_device, flat, request).norm
    engine = engine_for(flat.leaves)
    if engine is not None:
        return _measure_looking(engine, flat.leaves, request)
    viewed = _as_views(flat, math.inf, request, None)
    if viewed is None:
        return _portable.measure(flat, request)
    return from_view(_measure_looking(NUMPY, viewed.flat.leaves, viewed.request), flat.leaves[0])


def _measure_looking(engine: Engine, leaves: list[Array], request: Request) -> Array:
    total = engine.measure(leaves, request.order, request.axis)
    if request.all_reduce is not None:
        total = all_ranks(total, request.order, request.all_reduce)
    with np.errstate(all="ignore"):
        return _norm_array(total, norm_of(_finite(total), request.order))


class _Viewed(NamedTuple):
    """A call for arrays of another library, as the call for the NumPy arrays that view them."""

    flat: Flat
    limit: float
    request: Request
    outs: list[Array] | None


def _as_views(flat: Flat, limit: float | Array, request: Request, out: Tree | None) -> _Viewed | None:
    """Return the call as one for NumPy; None where it has no views, or a number is none that NumPy takes."""
    if flat.library == "numpy":
        return None
    given = [number for number in (limit, request.norm) if not isinstance(number, (float, NoneType))]
    arrays = views([*flat.leaves, *given])
    if arrays is None:
        return None
    numbers = iter([float(array) for array in arrays[len(flat.leaves) :]])
    limit = limit if isinstance(limit, float) else next(numbers)
    norm = request.norm if isinstance(request.norm, (float, NoneType)) else next(numbers)
    if not limit >= 0 or not (norm is None or norm >= 0):
        return None
    viewed = flat.viewed(arrays[: len(flat.leaves)])
    outs = None
    if out is not None:
        outs = check_out_viewed(request.function, flat, viewed, out)
        if outs is None:
            return None
    reduce = request.all_reduce
    if reduce is not None:
        like, asked = flat.leaves[0], reduce

        def reduce(array: Array, op: str) -> Array:
            return asked(from_view(array, like), op)

    return _Viewed(viewed, limit, request._replace(norm=norm, all_reduce=reduce), outs)


def _norm_array(total: Sum, norm: Norm) -> Array:
    """Return norms in float64: infinity beyond it, NaN or infinity where an element is."""
    if isinstance(total.hi, float):
        return np.asarray(to_float(norm) if math.isfinite(total.hi) else total.hi)
    return np.asarray(np.where(np.isfinite(total.hi), to_float(norm), total.hi))


def _finite(total: Sum) -> Sum:
    """Replace groups that hold NaN or infinity by zero."""
    if isinstance(total.hi, float):
        return total if math.isfinite(total.hi) else Sum(0.0, 0.0, 0, total.error)
    finite = np.isfinite(total.hi)
    return Sum(np.where(finite, total.hi, 0), np.where(finite, total.lo, 0), total.exponent, total.error)


def _clip_looking(
    engine: Engine, flat: Flat, limit: float, request: Request, outs: list[Array] | None
) -> tuple[list[Array], Array]:
    """Clip with an engine that may look at values."""
    leaves, axis = flat.leaves, request.axis
    exact = request.norm is None and request.all_reduce is None
    if request.norm is not None:
        total, order = Sum(float(request.norm), 0.0, 0, 2.0**-53), math.inf
    else:
        total, order = engine.measure(leaves, request.order, axis), request.order
    if request.all_reduce is not None:
        total = all_ranks(total, order, request.all_reduce)
    broken = not math.isfinite(total.hi) if isinstance(total.hi, float) else ~np.isfinite(total.hi)
    any_broken = _any(broken)
    if any_broken and request.nonfinite == "raise":
        finite = [bool(np.isfinite(leaf).all()) for leaf in leaves]
        raise FloatingPointError(offenders(request.function, flat, finite, request.norm))
    if outs is None:
        results = [engine.empty_like(leaf) for leaf in leaves]
    else:
        results, leaves = outs, readable(leaves, outs)
    with nullcontext() if axis is None else np.errstate(all="ignore"):
        norm = norm_of(_finite(total), order)
        measured = _norm_array(total, norm)
        decision = None
        if limit < math.inf and leaves:
            decision = _decide(engine, leaves, norm, limit, order, axis, exact)
    if decision is None or _any(decision.excess >= 0):
        _copy(engine, leaves, results)
    if decision is not None and _any(decision.excess < 0):
        _scale(engine, leaves, results, decision, limit, request)
    if any_broken and (limit < math.inf or request.nonfinite == "zero"):
        fill = 0.0 if request.nonfinite == "zero" else math.nan
        for result in results:
            value = complex(fill, fill) if result.dtype.kind == "c" else fill
            np.copyto(result, np.asarray(value).astype(result.dtype), where=_along(broken, axis))
    return results, measured


def _any(condition: Array | bool) -> bool:
    """Tell whether a condition holds for one group at least."""
    return condition if isinstance(condition, bool) else bool(condition.any())


def _copy(engine: Engine, leaves: list[Array], results: list[Array]) -> None:
    """Write leaves to results that are not the same memory."""
    pairs = [
        (leaf, result)
        for leaf, result in zip(leaves, results, strict=True)
        if leaf is not result and (result.flags.owndata or not same_memory(leaf, result))
    ]
    if pairs:
        engine.copy(*map(list, zip(*pairs, strict=True)))


def _decide(
    engine: Engine,
    leaves: list[Array],
    norm: Norm,
    limit: float,
    order: Order,
    axis: tuple[int, ...] | None,
    exact: bool,
) -> Decision:
    """Compare norms and limit: without rounding, or so that clipping the result again changes nothing."""
    if not exact:
        return decide(norm._replace(error=2 * norm.error), limit)
    decision = decide(norm, limit)
    if axis is None:
        if decision.certain:
            return decision
        return decision._replace(excess=-1.0 if engine.exceeds(leaves, order, limit) else 1.0)
    if decision.certain.all():
        return decision
    (leaf,) = leaves
    groups = leaf.transpose((*(k for k in range(leaf.ndim) if k not in axis), *axis))
    excess = np.array(decision.excess)
    for index in zip(*np.nonzero(~np.atleast_1d(decision.certain)), strict=True):
        where = index[: excess.ndim]
        excess[where] = -1.0 if engine.exceeds([groups[(*where, ...)]], order, limit) else 1.0
    return decision._replace(excess=excess)


def _scale(
    engine: Engine,
    leaves: list[Array],
    results: list[Array],
    decision: Decision,
    limit: float,
    request: Request,
) -> None:
    dtypes = {leaf.dtype for leaf in leaves}
    groups = 1 if request.axis is None else np.size(decision.excess)
    slack = _slack(sum([leaf.size for leaf in leaves]), dtypes, request, groups)
    multipliers: dict[Any, Multiplier] = {}
    for dtype in dtypes:
        fields = multiplier(decision, limit, slack, _format(dtype))
        axis = request.axis
        multipliers[dtype] = fields if axis is None else Multiplier(*(_along(f, axis) for f in fields))
    engine.scale(leaves, results, multipliers)


def _format(dtype: Any) -> Format:
    return FORMATS[COMPONENT[dtype_name(dtype)]]


def _slack(elements: int, dtypes: set[Any], request: Request, groups: int) -> float:
    """Return from how many of a leaf's smallest subnormals on the limit is ample."""
    if request.norm is not None or request.all_reduce is not None:
        # How much else shares the limit is not known, and copies on all ranks are to get the same bits.
        return subnormal_slack(1, 2**63, FORMATS["float64"].unit_roundoff)
    # Complex elements have two components each.
    size = 2 * elements // groups
    finest = min(_format(dtype).unit_roundoff for dtype in dtypes)
    return subnormal_slack(request.order, size, finest)


def _clip_on_device(
    engine: DeviceEngine, flat: Flat, limit: float | Array, request: Request, outs: list[Array] | None
) -> tuple[list[Array], Array]:
    """Clip with an engine that looks at no value; only ``nonfinite="raise"`` waits for one."""
    leaves = flat.leaves
    total, order, norm, placed = _measure_on_device(engine, flat, request)
    if request.nonfinite == "raise":
        xp = namespace_of(total.hi)
        if not bool(xp.all(xp.isfinite(total.hi))):
            finite = [bool(xp.all(xp.isfinite(leaf))) for leaf in leaves]
            raise FloatingPointError(offenders(request.function, flat, finite, request.norm))
    if outs is None:
        results = engine.empty_like(leaves)
    else:
        results, leaves = outs, readable(leaves, outs, engine.copy)
    if placed is None or any(map(operator.is_not, flat.leaves, results)):
        placed = engine.place(engine.look(leaves), engine.look(results), request.axis)
    slack = _slack(int(flat.seen.sizes.sum()), set(flat.seen.dtypes), request, max(total.hi.size, 1))
    bound = limit if isinstance(limit, float) else bring(limit, leaves[0])
    engine.clip(placed, total, bound, slack, order, zero=request.nonfinite == "zero")
    return results, norm


class _OnDevice(NamedTuple):
    """What was measured of leaves where they are, and the leaves as placed for it, if they were."""

    total: Sum
    order: Order
    norm: Array
    placed: Any


def _measure_on_device(engine: DeviceEngine, flat: Flat, request: Request) -> _OnDevice:
    """Return the sum of leaves, the order of the norm whose power it is, and that norm."""
    if request.norm is not None:
        given = request.norm if isinstance(request.norm, float) else bring(request.norm, flat.leaves[0])
        total = engine.given(given, flat.leaves[0])
        return _OnDevice(total, math.inf, engine.norms(total, math.inf), None)
    # Placed as their own outs: the sum must not depend on where results go.
    placed = engine.place(flat.seen, flat.seen, request.axis)
    total, norm = engine.measure(placed, request.order)
    if request.all_reduce is not None:
        total = engine.all_ranks(total, request.order, request.all_reduce)
        norm = engine.norms(total, request.order)
    return _OnDevice(total, request.order, norm, placed)


def _along(field: Array, axis: tuple[int, ...] | None) -> Array:
    """Give one entry a group the shape that broadcasts against the leaf."""
    return field if axis is None else np.expand_dims(field, axis)
