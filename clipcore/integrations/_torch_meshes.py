"""DTensors: this rank's part of each, and one norm over the ranks of their meshes.

Which ranks hold a copy of what is in a DTensor's placements. A part counts once: on the
rank that is the first along every dimension of the mesh that its tensor is replicated
over. Tensors of one mesh share one exchange, over each dimension of the mesh in turn; the
norms of several meshes, and that of plain tensors, which every rank has, make up the norm.
"""

from collections.abc import Callable
from types import NoneType
from typing import Any

from clipcore._dispatch import is_distributed
from clipcore._typing import AllReduce, Array
from clipcore.integrations._torch_framework import only, torch

__all__ = ["any_spread", "local", "norms", "on_mesh", "resolved", "wrote"]

_KNOWN = (torch.Tensor, torch.nn.Parameter, NoneType)


def any_spread(tensors: list[Array | None]) -> bool:
    """Tell whether a DTensor is among tensors."""
    return not only(tensors, _KNOWN) and any(map(is_distributed, tensors))


def local(tensors: list[Array | None]) -> list[Array | None]:
    """Return this rank's parts of DTensors, in the same memory; plain tensors pass."""
    return [_part(tensor) for tensor in tensors] if any_spread(tensors) else tensors


def _part(tensor: Array) -> Array:
    if not is_distributed(tensor):
        return tensor
    part = tensor.to_local()
    return part.wait() if hasattr(part, "wait") else part


def resolved(tensor: Array) -> Array:
    """Return a DTensor that has elements: one that is yet to be summed over ranks is summed."""
    if not is_distributed(tensor) or not any(each.is_partial() for each in tensor.placements):
        return tensor
    replicate = torch.distributed.tensor.Replicate()
    return tensor.redistribute(
        placements=[replicate if each.is_partial() else each for each in tensor.placements]
    )


def norms(tensors: list[Array], measure: Callable[[list[Array], AllReduce | None], Array]) -> list[Array]:
    """Return the norms of tensors by mesh, each measured over all ranks of its mesh."""
    meshes: dict[Any, list[Array]] = {}
    for tensor in tensors:
        mesh = tensor.device_mesh if is_distributed(tensor) else None
        part = _part(tensor)
        meshes.setdefault(mesh, []).append(part if _counts(tensor) else part.new_empty(0))
    return [measure(parts, _over(mesh)) for mesh, parts in meshes.items()]


def on_mesh(norm: Array, tensors: list[Array]) -> Array:
    """Return a norm as torch does, a DTensor on the mesh of the first one, but complete on every rank."""
    mesh = next(tensor.device_mesh for tensor in tensors if is_distributed(tensor))
    distributed: Any = torch.distributed.tensor
    placements = [distributed.Replicate()] * mesh.ndim
    return distributed.DTensor.from_local(norm, mesh, placements, run_check=False)


def _counts(tensor: Array) -> bool:
    """Tell whether this rank counts its part of a tensor: it is the first of those that hold it."""
    if not is_distributed(tensor):
        return True
    coordinates = tensor.device_mesh.get_coordinate()
    if coordinates is None:  # a rank that the mesh leaves out
        return False
    places = zip(tensor.placements, coordinates, strict=True)
    return all(coordinate == 0 for placement, coordinate in places if placement.is_replicate())


def _over(mesh: Any) -> AllReduce | None:
    """Return the reduction over all ranks of a mesh that this rank is in."""
    if mesh is None or mesh.get_coordinate() is None:
        return None

    def all_reduce(array: Array, op: str) -> Array:
        operation = getattr(torch.distributed.ReduceOp, op.upper())
        for dimension in range(mesh.ndim):
            torch.distributed.all_reduce(array, operation, group=mesh.get_group(dimension))
        return array

    return all_reduce


def wrote(tensors: list[Array | None]) -> None:
    """Tell autograd of DTensors that their local parts were written."""
    if any_spread(tensors):
        torch.autograd.graph.increment_version([tensor for tensor in tensors if is_distributed(tensor)])
