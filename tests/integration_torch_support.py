"""Torch for the tests of its integration, and gradients as the exact judge reads them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from clipcore.verify.exact import exact_norm

Array = np.ndarray[Any, np.dtype[Any]]


def torch_or_skip(request: pytest.FixtureRequest) -> Any:
    """Return torch; without it skip the test, or fail it under --require-all."""
    if request.config.getoption("--require-all"):
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="torch is not installed")


def need_compiler(torch: Any) -> None:
    """Skip a test where torch's compiler is not one that the integration supports."""
    numbers = torch.__version__.split("+")[0].split(".")[:2]
    if tuple(map(int, numbers)) < (2, 13):
        pytest.skip("torch.compile is supported from torch 2.13 on")


def of_numpy(x: Any) -> Array:
    """A copy of a tensor as a NumPy array, bfloat16 included."""
    torch = importlib.import_module("torch")
    x = x.detach().cpu()
    if x.dtype == torch.bfloat16:
        importlib.import_module("ml_dtypes")
        return np.array(x.view(torch.int16).numpy().view("bfloat16"))
    return np.array(x.numpy())


def gradients(parameters: Sequence[Any]) -> list[Array]:
    """Copies of the gradients that there are."""
    return [of_numpy(parameter.grad) for parameter in parameters if parameter.grad is not None]


def within(arrays: Sequence[Array], limit: float, order: float = 2) -> bool:
    """Tell whether the exact norm of arrays is at most a limit."""
    return exact_norm(arrays, order).compare(limit) <= 0


def with_gradients(*values: Any) -> list[Any]:
    """Parameters that have these gradients; None for one without."""
    torch = importlib.import_module("torch")
    made = []
    for value in values:
        parameter = torch.zeros(3) if value is None else torch.zeros_like(value)
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        parameter.grad = value
        made.append(parameter)
    return made
