"""Tensors of torch that lie in the machine's memory: the NumPy arrays that they are.

A view costs no copy, so that the NumPy engine serves such tensors, faster and more exactly
than operations of torch would. Tensors that something follows besides their values, a
derivative, a compiler, a transform, have no view: the portable engine serves them.
"""

import importlib
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from clipcore._typing import Array

__all__ = ["apart", "are_plain", "from_view", "only", "views", "wrote"]

torch: Any = importlib.import_module("torch")

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def views(tensors: list[Array]) -> list[Array] | None:
    """Return NumPy arrays that are the memory of tensors, None where one of them has no view."""
    followed = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.autograd.forward_ad._current_level >= 0
    )
    if followed:
        return None
    if not are_plain(tensors) or False in [tensor.is_cpu for tensor in tensors]:
        return None
    if True in [tensor.requires_grad for tensor in tensors]:
        if torch.is_grad_enabled():
            return None
        tensors = [tensor.detach() for tensor in tensors]
    try:
        if torch.bfloat16 not in [tensor.dtype for tensor in tensors]:
            return [tensor.numpy() for tensor in tensors]
        return [_view(tensor) for tensor in tensors] if _has_bfloat16() else None
    except RuntimeError:  # what a tensor stands for is not what lies in memory: a conjugate, a zero
        return None


def _view(tensor: Array) -> Array:
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("bfloat16")
    return tensor.numpy()


def are_plain(values: list[Any]) -> bool:
    """Tell whether all values are dense tensors, and of no class that means more."""
    return only(values, _PLAIN) and False not in [tensor.layout is torch.strided for tensor in values]


def only(values: list[Any], kinds: tuple[type, ...]) -> bool:
    """Tell whether all values are of these types themselves."""
    if torch.compiler.is_compiling():  # which does not follow a set of types
        return False not in [type(value) in kinds for value in values]
    return set(kinds).issuperset(map(type, values))


def apart(tensors: list[Array], arrays: list[Array]) -> bool:
    """Tell tensors that are blocks of memory of their own, by their views; False where not certain."""
    if False in [array.flags.c_contiguous for array in arrays]:
        return False
    starts = [tensor.data_ptr() for tensor in tensors]
    spans = sorted(zip(starts, [array.nbytes for array in arrays], strict=True))
    return all(start + size <= following for (start, size), (following, _) in pairwise(spans))


@cache
def _has_bfloat16() -> bool:
    """Tell whether NumPy knows bfloat16, which ml_dtypes teaches it."""
    try:
        importlib.import_module("ml_dtypes")
    except ImportError:
        return False
    return True


def from_view(array: Array) -> Array:
    """Return a tensor that is the memory of a NumPy array."""
    if array.dtype.kind == "V":  # bfloat16
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def wrote(tensors: list[Array]) -> None:
    """Tell torch that tensors were written, so that no derivative takes their old values for the new ones."""
    torch.autograd.graph.increment_version([tensor for tensor in tensors if not tensor.is_inference()])
