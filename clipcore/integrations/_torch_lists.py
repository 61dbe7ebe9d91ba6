"""Many tensors in one call of torch, with no look at a value: clamps everywhere, norms on a GPU.

A clamp is exact as soon as its bounds are: they are rounded to the dtype first.

For norms the sum of squares is taken in float64, which holds the squares of float32
exactly. With F = C / ‖x‖, known to a relative error e, and u the unit roundoff of a leaf,
all elements are multiplied by one number f of the leaf's dtype:

    q = F * (1 - u - 2 * e),   f = q * (1 - u), rounded to nearest

Rounding adds at most u, so f <= q. Each product is rounded once, by at most u: the norm of
the result is at most C, and measured again, by an error of e, not above it. What is lost is
below u + 2 * e, 2 * u and u: no more than the contract's 4 * u and its error of a norm.

This needs limits so large that elements rounded up below the normal range do not reach
them, and factors that are normal numbers themselves: where the norm is more than 2**126
times the limit, fewer bits of f are left, and the result is shorter, never longer.
"""

from typing import Any

from clipcore_backends._formats import FORMATS

from clipcore._bounds import check_bounds, is_array_bound, round_bounds
from clipcore._checks import dtype_name
from clipcore._dispatch import are_tensors
from clipcore._typing import Array, Bound
from clipcore.integrations._torch_framework import torch

__all__ = ["clamp_", "measure", "scale_", "serves", "serves_clamp"]

DEVICES = {"cuda"}
"""Types of devices that foreach operations are fast on, and that have float64."""

ERROR = 2.0**-46
"""A bound on the relative error of a norm."""

SHORT = {1: 2.0**40, 2: 2.0**20, float("inf"): 1.0}
"""By how much more than one element many of them can exceed a limit, rounded up below the normal range."""


def serves(leaves: list[Array], limit: Any, order: float) -> bool:
    """Tell whether the norm of these leaves can be clipped here."""
    if not leaves or leaves[0].device.type not in DEVICES or not isinstance(limit, float):
        return False
    if torch.compiler.is_compiling() or not {leaf.device.type for leaf in leaves} <= DEVICES:
        return False
    if not _are_dense(leaves, {torch.float32, torch.bfloat16}):
        return False
    smallest = max(2.0 ** FORMATS[dtype_name(leaf.dtype)].smallest for leaf in leaves)
    return limit == 0 or limit >= 2.0**50 * SHORT[order] * smallest


def measure(leaves: list[Array], order: float) -> Array:
    """Return the norm of all leaves together, float64 on the first one's device."""
    first = leaves[0].device
    norms = [torch.zeros(1, dtype=torch.float64, device=first)]
    for group in _groups([leaf for leaf in leaves if leaf.numel()]):
        norms.append(torch.stack(torch._foreach_norm(group, order, dtype=torch.float64)).to(first))
    return torch.linalg.vector_norm(torch.cat(norms), order)


def scale_(leaves: list[Array], norm: Array, limit: float) -> None:
    """Scale leaves whose norm is above the limit, in place; NaN where it is not finite and the limit is."""
    if limit == float("inf"):
        return
    for group in _groups(leaves):
        facts = FORMATS[dtype_name(group[0].dtype)]
        margin = facts.unit_roundoff + 2 * ERROR + 2.0**-50
        quotient = limit / norm * (1 - margin) * (1 - facts.unit_roundoff)
        lowered = torch.clamp(quotient - 2.0**facts.smallest, min=0)
        factor = torch.where(norm > limit, lowered, torch.ones_like(norm))
        factor = torch.where(torch.isfinite(norm), factor, torch.full_like(norm, float("nan")))
        torch._foreach_mul_(group, factor.to(group[0].device, group[0].dtype))


def serves_clamp(leaves: list[Array], lower: Bound, upper: Bound) -> bool:
    """Tell whether these leaves can be clamped here: torch leaves open which zero a bound of zero gives."""
    if any(bound is not None and (is_array_bound(bound) or bound == 0) for bound in (lower, upper)):
        return False
    return _are_dense(leaves, {torch.float16, torch.bfloat16, torch.float32, torch.float64})


def clamp_(function: str, leaves: list[Array], lower: Bound, upper: Bound) -> None:
    """Cut leaves to numbers, in place."""
    check_bounds(function, lower, upper)
    groups = _groups(leaves)
    bounds = [round_bounds(function, lower, upper, group[0].dtype) for group in groups]
    for group, (low, high) in zip(groups, bounds, strict=True):
        if low is not None:
            torch._foreach_clamp_min_(group, low)
        if high is not None:
            torch._foreach_clamp_max_(group, high)


def _are_dense(leaves: list[Array], dtypes: set[Any]) -> bool:
    return are_tensors(leaves) and {leaf.dtype for leaf in leaves} <= dtypes


def _groups(leaves: list[Array]) -> list[list[Array]]:
    """Return the leaves, those of one device and dtype together."""
    groups: dict[tuple[Any, Any], list[Array]] = {}
    for leaf in leaves:
        groups.setdefault((leaf.device, leaf.dtype), []).append(leaf)
    return list(groups.values())
