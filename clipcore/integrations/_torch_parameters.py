"""Whose gradients and whose weights are clipped: each once, with its name."""

import re
import warnings
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

from clipcore._messages import shown
from clipcore._typing import Array
from clipcore.integrations import _torch_meshes as meshes
from clipcore.integrations._torch_framework import only, torch

__all__ = ["Where", "chosen", "gradients_of", "named", "of_optimizer", "warn_of_scales"]

Where = Callable[[str, Array], bool]
"""Called as ``where(name, parameter)``, tells whether to clip."""

_NORMALISES = re.compile(r"[Nn]orm(\dd)?$")
"""What the names of torch's normalisation layers end in, and those of others made after them."""

_KNOWN = (torch.Tensor, torch.nn.Parameter)


def gradients_of(function: str, parameters: Any) -> list[Array | None]:
    """Return the gradients of parameters; None where there is none, or one that was there before.

    A gradient that is yet to be summed over ranks is replaced by its sum: till then it has
    no elements to clip.
    """
    listed = _listed(function, parameters)
    gradients = [parameter.grad for parameter in listed]
    if meshes.any_spread(gradients):
        for index, (parameter, gradient) in enumerate(zip(listed, gradients, strict=True)):
            whole = meshes.resolved(gradient)
            if whole is not gradient:
                parameter.grad = gradients[index] = whole
    present = [id(gradient) for gradient in gradients if gradient is not None]
    if len(set(present)) < len(present):
        seen: set[int] = set()
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                gradients[index] = None if id(gradient) in seen else gradient
                seen.add(id(gradient))
    return gradients


def _listed(function: str, parameters: Any) -> list[Array]:
    if isinstance(parameters, torch.Tensor):
        return [parameters]
    try:
        listed = list(parameters)
    except TypeError:
        raise TypeError(
            f"{function}: parameters is {shown(parameters)}; give tensors, as model.parameters() does"
        ) from None
    if not listed and isinstance(parameters, GeneratorType):
        message = "`parameters` is an empty generator, no gradient clipping will occur."
        warnings.warn(message, stacklevel=4)
    for index, parameter in enumerate(() if only(listed, _KNOWN) else listed):
        if not isinstance(parameter, torch.Tensor):
            raise TypeError(
                f"{function}: parameters[{index}] is {shown(parameter)} of type {type(parameter).__name__}; "
                "give tensors, as model.parameters() does"
            )
    return listed


def named(function: str, module_or_parameters: Any) -> Iterator[tuple[str, Array]]:
    """Yield parameters with their names, or with their indices where they have none."""
    given = module_or_parameters
    if isinstance(given, torch.nn.Module):
        yield from given.named_parameters()
        return
    if isinstance(given, torch.Tensor):
        given = [given]
    try:
        items = list(given)
    except TypeError:
        raise TypeError(
            f"{function}: module_or_parameters is {shown(given)}; give a module, or its parameters"
        ) from None
    for index, item in enumerate(items):
        name, parameter = item if isinstance(item, tuple) and len(item) == 2 else (str(index), item)
        if not isinstance(parameter, torch.Tensor):
            raise TypeError(
                f"{function}: parameter {index} is {shown(parameter)} of type {type(parameter).__name__}; "
                "give a module, or its parameters"
            )
        yield name, parameter


def of_optimizer(optimizer: Any) -> Iterator[tuple[str, Array]]:
    """Yield the parameters of an optimiser, with the names it knows, or with group and index."""
    for number, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"{number}.{index}" for index in range(len(group["params"]))]
        yield from zip(names, group["params"], strict=True)


def chosen(function: str, parameters: Iterator[tuple[str, Array]], where: Where | None) -> list[Array | None]:
    """Return the parameters to clip, each once, None in the place of others."""
    if where is not None and not callable(where):
        raise TypeError(
            f"{function}: where is {shown(where)}; give a function called as where(name, parameter)"
        )
    weights: list[Array | None] = []
    seen: set[int] = set()
    for name, parameter in parameters:
        if isinstance(parameter, torch.nn.parameter.UninitializedTensorMixin):
            raise ValueError(f"{function}: {name} has no values yet; call the module on an input first")
        picked = id(parameter) not in seen and (where is None or _truth(function, where(name, parameter)))
        weights.append(parameter if picked else None)
        seen.add(id(parameter))
    for weight in weights if meshes.any_spread(weights) else ():
        if any(each.is_partial() for each in getattr(weight, "placements", ())):
            raise ValueError(
                f"{function}: a parameter is yet to be summed over ranks; redistribute it to Replicate()"
            )
    return weights


def _truth(function: str, answer: Any) -> bool:
    try:
        return bool(answer)
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(f"{function}: where returned {shown(answer)}; return True or False") from None


def warn_of_scales(function: str, module: Any, weights: list[Array | None]) -> None:
    """Warn where the scale of a normalisation layer is among the weights."""
    clipped = set(map(id, weights))
    for path, layer in module.named_modules():
        scale = getattr(layer, "weight", None)
        normalises = any(_NORMALISES.search(kind.__name__) for kind in type(layer).__mro__)
        if scale is not None and normalises and id(scale) in clipped:
            warnings.warn(
                f"{function}: the weight of {path or type(layer).__name__} is the scale of a normalisation "
                "layer; leave it out by where=, as in where=lambda name, parameter: parameter.ndim > 1",
                stacklevel=3,
            )
