"""The one road of every norm clip: measure, decide, scale."""

import math
from typing import Any, NamedTuple

import numpy as np
from clipcore_backends import DeviceEngine, Engine
from clipcore_backends._formats import COMPONENT, FORMATS, Format
from clipcore_backends._protocol import Multiplier, Order, Sum

from clipcore import _portable
from clipcore._checks import check_floating, check_limit, check_nonfinite, dtype_name, offenders
from clipcore._decide import Decision, decide, multiplier, norm_of, subnormal_slack, to_float
from clipcore._dispatch import bring, device_engine_for, engine_for, namespace_of
from clipcore._out import check_out, readable, same_memory, write
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
    outs = None if out is None else check_out(request.function, flat, out)
    on_device = device_engine_for(flat.leaves)
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
    on_device = device_engine_for(flat.leaves)
    if on_device is not None:
        return on_device.norms(*_sum_on_device(on_device, flat, request))
    engine = engine_for(flat.leaves)
    if engine is None:
        return _portable.measure(flat, request)
    total = engine.measure(flat.leaves, request.order, request.axis)
    if request.all_reduce is not None:
        total = all_ranks(total, request.order, request.all_reduce)
    return _norm_array(total, request.order)


def _norm_array(total: Sum, order: Order) -> Array:
    with np.errstate(all="ignore"):
        finite = to_float(norm_of(_finite(total), order))
        return np.asarray(np.where(np.isfinite(total.hi), finite, total.hi))


def _finite(total: Sum) -> Sum:
    """Replace groups that hold NaN or infinity by zero."""
    if np.ndim(total.hi) == 0:
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
    broken = ~np.isfinite(total.hi)
    if request.nonfinite == "raise" and broken.any():
        finite = [bool(np.isfinite(leaf).all()) for leaf in leaves]
        raise FloatingPointError(offenders(request.function, flat, finite, request.norm))
    norm = _norm_array(total, order)
    if outs is None:
        results = [np.empty_like(leaf) for leaf in leaves]
    else:
        results, leaves = outs, readable(leaves, outs)
    decision = None
    if math.isfinite(limit):
        # A second part may be so far below the first that it vanishes.
        with np.errstate(under="ignore"):
            decision = _decide(engine, leaves, _finite(total), limit, order, axis, exact)
    clipped = False if decision is None else decision.excess < 0
    for leaf, result in zip(leaves, results, strict=True):
        if not np.all(clipped) and not same_memory(leaf, result):
            np.copyto(result, leaf)
    if decision is not None and leaves and np.any(clipped):
        _scale(engine, leaves, results, decision, limit, request)
    if broken.any() and (limit < math.inf or request.nonfinite == "zero"):
        fill = 0.0 if request.nonfinite == "zero" else math.nan
        for result in results:
            value = complex(fill, fill) if result.dtype.kind == "c" else fill
            np.copyto(result, np.asarray(value).astype(result.dtype), where=_along(broken, axis))
    return results, norm


def _decide(
    engine: Engine,
    leaves: list[Array],
    total: Sum,
    limit: float,
    order: Order,
    axis: tuple[int, ...] | None,
    exact: bool,
) -> Decision:
    """Compare norms and limit: without rounding, or so that clipping the result again changes nothing."""
    norm = norm_of(total, order)
    if not exact:
        return decide(norm._replace(error=2 * norm.error), limit)
    decision = decide(norm, limit)
    if np.all(decision.certain):
        return decision
    if axis is None:
        return decision._replace(excess=-1.0 if engine.exceeds(leaves, order, limit) else 1.0)
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
    formats = _formats(leaves)
    slack = _slack(leaves, request, np.size(decision.excess))
    multipliers = {
        each: Multiplier(*(_along(field, request.axis) for field in multiplier(decision, limit, slack, each)))
        for each in set(formats)
    }
    for leaf, result, each in zip(leaves, results, formats, strict=True):
        engine.scale(leaf, multipliers[each], result)


def _formats(leaves: list[Array]) -> list[Format]:
    return [FORMATS[COMPONENT[dtype_name(leaf.dtype)]] for leaf in leaves]


def _slack(leaves: list[Array], request: Request, groups: int) -> float:
    """Return from how many of a leaf's smallest subnormals on the limit is ample."""
    if request.norm is not None or request.all_reduce is not None:
        # How much else shares the limit is not known, and copies on all ranks are to get the same bits.
        return subnormal_slack(1, 2**63, FORMATS["float64"].unit_roundoff)
    # Complex elements have two components each.
    size = 2 * sum(leaf.size for leaf in leaves) // groups
    return subnormal_slack(request.order, size, min(each.unit_roundoff for each in _formats(leaves)))


def _clip_on_device(
    engine: DeviceEngine, flat: Flat, limit: float | Array, request: Request, outs: list[Array] | None
) -> tuple[list[Array], Array]:
    """Clip with an engine that looks at no value; only ``nonfinite="raise"`` waits for one."""
    leaves = flat.leaves
    total, order = _sum_on_device(engine, flat, request)
    if request.nonfinite == "raise":
        xp = namespace_of(total.hi)
        if not bool(xp.all(xp.isfinite(total.hi))):
            finite = [bool(xp.all(xp.isfinite(leaf))) for leaf in leaves]
            raise FloatingPointError(offenders(request.function, flat, finite, request.norm))
    norm = engine.norms(total, order)
    if outs is None:
        results = [engine.empty_like(leaf) for leaf in leaves]
    else:
        results, leaves = outs, readable(leaves, outs, engine.copy)
    slack = _slack(leaves, request, max(total.hi.size, 1))
    bound = limit if isinstance(limit, float) else bring(limit, leaves[0])
    engine.clip(leaves, results, total, bound, slack, order, request.axis, zero=request.nonfinite == "zero")
    return results, norm


def _sum_on_device(engine: DeviceEngine, flat: Flat, request: Request) -> tuple[Sum, Order]:
    """Return the sum of the leaves, and the order of the norm whose power it is."""
    leaves = flat.leaves
    if request.norm is not None:
        norm = request.norm if isinstance(request.norm, float) else bring(request.norm, leaves[0])
        return engine.given(norm, leaves[0]), math.inf
    total = engine.measure(leaves, request.order, request.axis)
    if request.all_reduce is not None:
        total = engine.all_ranks(total, request.order, request.all_reduce)
    return total, request.order


def _along(field: Array, axis: tuple[int, ...] | None) -> Array:
    """Give one entry a group the shape that broadcasts against the leaf."""
    return field if axis is None else np.expand_dims(field, axis)
