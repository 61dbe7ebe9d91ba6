"""Tensors of torch that lie in the machine's memory: the NumPy arrays that they are.

A view costs no copy, so that the NumPy engine serves such tensors, faster and more exactly
than operations of torch would. Tensors that something follows besides their values, a
derivative, a compiler, a transform, have no view: the portable engine serves them.
"""

import importlib
from functools import cache
from typing import Any

import numpy as np

from clipcore._typing import Array

__all__ = ["from_view", "views", "wrote"]

torch: Any = importlib.import_module("torch")


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
    derived = torch.is_grad_enabled()
    arrays: list[Array] = []
    for tensor in tensors:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not tensor.is_cpu:
            return None
        if tensor.requires_grad:
            if derived:
                return None
            tensor = tensor.detach()
        if tensor.dtype is torch.bfloat16:
            if not _has_bfloat16():
                return None
            arrays.append(tensor.view(torch.int16).numpy().view("bfloat16"))
        elif tensor.is_conj() or tensor.is_neg() or tensor._is_zerotensor():
            return None
        else:
            arrays.append(tensor.numpy())
    return arrays


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
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def wrote(tensors: list[Array]) -> None:
    """Tell torch that tensors were written, so that no derivative takes their old values for the new ones."""
    for tensor in tensors:
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
