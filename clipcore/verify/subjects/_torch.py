"""torch.nn.utils and torch.clamp."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any, Final

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import (
    FLOATING,
    ReadyMade,
    check_flat,
    check_leaves,
    symmetric,
)

__all__ = ["SIGNED_AND_UINT8", "SUBJECTS"]

_COMPLEX: Final = ("complex64", "complex128")
SIGNED_AND_UINT8: Final = ("int8", "int16", "int32", "int64", "uint8")


def _parameter(gradient: Any) -> Any:
    """Return a parameter that has this gradient; anything but a tensor stays as it is."""
    torch = importlib.import_module("torch")
    if gradient is None:
        return torch.zeros(())
    if not isinstance(gradient, torch.Tensor):
        return gradient
    parameter = torch.empty_like(gradient)
    parameter.grad = gradient
    return parameter


def _parameters(tree: Any) -> Any:
    """Return parameters that have these gradients; one that stands twice is one parameter."""
    check_flat(tree, list, tuple)
    made = {id(gradient): _parameter(gradient) for gradient in tree}
    return type(tree)(made[id(gradient)] for gradient in tree)


def _with_norm(parameters: Any, norm: Any) -> Any:
    """Return the gradients, and what was returned."""
    return type(parameters)(parameter.grad for parameter in parameters), norm


def _clip_grad_norm(foreach: bool) -> Subject:
    """Return clip_grad_norm_ for a list of parameters."""
    clip = importlib.import_module("torch.nn.utils").clip_grad_norm_

    def call(parameters: Any, max_norm: Any, *, ord: Any = 2) -> Any:  # noqa: A002
        return clip(parameters, max_norm, norm_type=ord, foreach=foreach)

    return Subject(call, "torch", in_place=True, prepare=_parameters, collect=_with_norm)


def _clip_grad_norm_of_one(norm_type: int) -> Subject:
    """Return clip_grad_norm_ for one parameter."""
    clip = importlib.import_module("torch.nn.utils").clip_grad_norm_

    def call(parameter: Any, max_norm: Any) -> None:
        clip(parameter, max_norm, norm_type=norm_type)

    return Subject(call, "torch", in_place=True, prepare=_parameter, collect=_gradient)


def _gradient(parameter: Any, _returned: Any) -> Any:
    """Return the gradient of one parameter."""
    return parameter.grad


def _clip_grad_value() -> Subject:
    """Return clip_grad_value_ for one parameter."""
    clip = importlib.import_module("torch.nn.utils").clip_grad_value_

    def call(parameter: Any, lower: Any, upper: Any) -> None:
        clip(parameter, symmetric(lower, upper))

    return Subject(call, "torch", in_place=True, prepare=_parameter, collect=_gradient)


def _clamp() -> Subject:
    """Return torch.clamp; it takes two numbers or two tensors, one of which may be None."""
    torch = importlib.import_module("torch")

    def clamp(x: Any, lower: Any, upper: Any) -> Any:
        given = [isinstance(bound, torch.Tensor) for bound in (lower, upper) if bound is not None]
        if not given or (any(given) and not all(given)):
            raise NotOffered("only two numbers or two tensors as bounds, one of which may be None")
        return torch.clamp(x, lower, upper)

    return Subject(clamp, "torch")


def _get_total_norm() -> Subject:
    """Return get_total_norm for a list of tensors."""
    measure = importlib.import_module("torch.nn.utils").get_total_norm

    def norm(tree: Any, *, ord: Any = 2) -> Any:  # noqa: A002
        if not isinstance(tree, Iterator):
            check_flat(tree, list, tuple)
            check_leaves(tree)
        return measure(tree, norm_type=ord)

    return Subject(norm, "torch")


def _vector_norm(order: int) -> Subject:
    """Return torch.linalg.vector_norm of an order."""
    measure = importlib.import_module("torch").linalg.vector_norm

    def norm(x: Any, *, axis: int | tuple[int, ...] | None = None) -> Any:
        return measure(x, order, dim=axis)

    return Subject(norm, "torch")


def _ready_made(
    name: str,
    operation: str,
    build: functools.partial[Subject],
    note: str,
    *,
    definition: str = "contract",
    dtypes: tuple[str, ...] = (*FLOATING, *_COMPLEX),
) -> ReadyMade:
    """Return one subject of torch."""
    return ReadyMade(name, operation, definition, ("torch",), "torch", build, note, dtypes)


SUBJECTS = (
    _ready_made(
        "torch.clip_grad_norm_",
        "clip_by_global_norm",
        functools.partial(_clip_grad_norm, foreach=True),
        "`torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=ord, foreach=True)`, which is its "
        "default on CPU and CUDA.",
        definition="torch",
    ),
    _ready_made(
        "torch.clip_grad_norm_[foreach=False]",
        "clip_by_global_norm",
        functools.partial(_clip_grad_norm, foreach=False),
        "`torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=ord, foreach=False)`.",
        definition="torch",
    ),
    _ready_made(
        "torch.clip_grad_norm_",
        "clip_by_l1_norm",
        functools.partial(_clip_grad_norm_of_one, norm_type=1),
        "`torch.nn.utils.clip_grad_norm_(parameter, max_norm, norm_type=1)` of one parameter.",
        definition="torch",
    ),
    _ready_made(
        "torch.clip_grad_value_",
        "clip_by_value",
        functools.partial(_clip_grad_value),
        "`torch.nn.utils.clip_grad_value_(parameter, v)` of one parameter, for the bounds −v and v.",
        dtypes=FLOATING,
    ),
    _ready_made(
        "torch.clamp",
        "clip_by_value",
        functools.partial(_clamp),
        "`torch.clamp(x, lower, upper)`.",
        dtypes=(*FLOATING, *SIGNED_AND_UINT8),
    ),
    _ready_made(
        "torch.get_total_norm",
        "global_norm",
        functools.partial(_get_total_norm),
        "`torch.nn.utils.get_total_norm(tensors, norm_type=ord)`.",
    ),
    *(
        _ready_made(
            "torch.linalg.vector_norm",
            f"l{order}_norm",
            functools.partial(_vector_norm, order),
            f"`torch.linalg.vector_norm(x, {order}, dim=axis)`.",
        )
        for order in (1, 2)
    ),
)
