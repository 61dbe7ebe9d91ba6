"""Clipping in a loop of PyTorch: gradients before the optimiser's step, weights after it.

>>> import torch
>>> from clipcore.integrations.torch import clip_grad_norm_
>>> layer = torch.nn.Linear(3, 1)
>>> layer(torch.ones(2, 3)).square().sum().backward()
>>> norm = clip_grad_norm_(layer.parameters(), max_norm=1.0)
"""

import math
from collections.abc import Iterable
from typing import Any

from clipcore._bounds import check_bounds, round_bounds
from clipcore._checks import as_number, check_limit, check_real
from clipcore._clamp import clamp
from clipcore._messages import shown
from clipcore._norm_clip import Request, clip, measure
from clipcore._trees import flatten
from clipcore._typing import AllReduce, Array, Bound
from clipcore.integrations import _torch_lists as lists
from clipcore.integrations import _torch_meshes as meshes
from clipcore.integrations._torch_framework import torch
from clipcore.integrations._torch_parameters import (
    Where,
    chosen,
    gradients_of,
    named,
    of_optimizer,
    warn_of_scales,
)

__all__ = ["attach_weight_clipping", "clip_grad_norm_", "clip_grad_value_", "clip_weights_"]


def clip_grad_norm_(
    parameters: Array | Iterable[Array],
    max_norm: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Array:
    r"""Scale the gradients of parameters in place so that their common norm is at most `max_norm`, exactly.

    .. math:: g \leftarrow g \cdot \min(1, C / \lVert g \rVert),
              \qquad g \text{ the elements of all gradients together}

    Takes what ``torch.nn.utils.clip_grad_norm_`` takes, and takes its place.

    Parameters
    ----------
    parameters : tensor or iterable of tensors
        Those whose ``grad`` is clipped, of any shapes and on any devices; float16,
        bfloat16, float32, float64, complex64 or complex128, mixed as you like. One without
        a gradient is passed over, one given twice counts once. A generator is read once.
    max_norm : float or 0-d tensor
        The limit C, zero or positive. Infinity switches clipping off and measures all the
        same. A tensor is not waited for.
    norm_type : {1, 2, inf, "inf"}, optional
        The norm: the sum of magnitudes, the Euclidean length, the largest magnitude.
    error_if_nonfinite : bool, optional
        Whether NaN or infinity in a gradient is an error, raised before anything is
        written. On a GPU this waits for the norm, as it does in torch.
    foreach : bool, optional
        False for one gradient at a time on a GPU, which takes longer and the least memory.
        In the machine's memory it changes nothing.

    Returns
    -------
    0-d tensor
        The norm before clipping, on the first gradient's device; float64 (float32 on devices
        without it). Where gradients are DTensors, a DTensor that is complete on every rank.
        Zero without gradients.

    Raises
    ------
    TypeError
        If `parameters` holds something else than tensors, if a gradient is sparse or of
        integers, if `max_norm` is no real number.
    ValueError
        If `max_norm` is negative or NaN, if `norm_type` is none of the choices, if
        gradients share memory.
    RuntimeError
        If a gradient holds NaN or infinity and `error_if_nonfinite` is true; the gradients
        are named.

    See Also
    --------
    clip_grad_value_ : Cut each element.
    clipcore.clip_by_global_norm : The same for any tree of arrays.

    Notes
    -----
    Gradients whose norm is at most C stay as they are, bit for bit. With NaN or infinity in
    one gradient all become NaN, unless C is infinite. With C = 0 they become zeros that keep
    their signs.

    In the machine's memory the bound is exact. On a GPU, under ``torch.compile`` and over
    many ranks it is decided by a norm that is within 2**-44 of itself: a norm so close to C
    may stay as it is.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent
       neural networks", ICML 2013.

    Examples
    --------
    >>> import torch
    >>> from clipcore.integrations.torch import clip_grad_norm_
    >>> weight = torch.zeros(2, requires_grad=True)
    >>> weight.grad = torch.tensor([3.0, -4.0])
    >>> clip_grad_norm_([weight], 1.0)
    tensor(5., dtype=torch.float64)
    >>> weight.grad
    tensor([ 0.6000, -0.8000])
    """
    function = "clip_grad_norm_"
    order = _order(function, norm_type)
    _check_foreach(function, foreach)
    with torch.no_grad():
        gradients = gradients_of(function, parameters)
        present = [gradient for gradient in gradients if gradient is not None]
        limit = check_limit(function, max_norm, present)
        if not present:
            return torch.tensor(0.0, dtype=torch.float64)
        nonfinite: Any = "raise" if error_if_nonfinite else "propagate"
        try:
            norm = _clip_norm(function, gradients, limit, order, nonfinite, foreach)
        except FloatingPointError as error:
            raise RuntimeError(
                f"{error}. The total norm of order {order} for gradients is not finite: leave out "
                "this step, or set error_if_nonfinite=False, which makes all of them NaN"
            ) from error
        return meshes.on_mesh(norm, present) if meshes.any_spread(present) else norm


def clip_grad_value_(
    parameters: Array | Iterable[Array], clip_value: Any, foreach: bool | None = None
) -> None:
    r"""Cut each element of the gradients of parameters in place to at most `clip_value` in magnitude.

    .. math:: g_i \leftarrow \min(\max(g_i, -v), v)

    Takes what ``torch.nn.utils.clip_grad_value_`` takes, and takes its place.

    Parameters
    ----------
    parameters : tensor or iterable of tensors
        Those whose ``grad`` is cut, of any shapes and on any devices; float16, bfloat16,
        float32 or float64, mixed as you like. One without a gradient is passed over. A
        generator is read once.
    clip_value : float or 0-d tensor
        The limit v, zero or positive, rounded down to each gradient's dtype.
    foreach : bool, optional
        Taken for the signature's sake: it changes nothing.

    Raises
    ------
    TypeError
        If `parameters` holds something else than tensors, if a gradient is sparse, complex
        or of another dtype without order, if `clip_value` is no real number.
    ValueError
        If `clip_value` is negative or NaN, if gradients share memory.

    See Also
    --------
    clip_grad_norm_ : Keep the direction.
    clipcore.clip_by_value : The same for any array.

    Notes
    -----
    NaN stays NaN, infinity becomes the limit, a zero keeps its sign. Without gradients
    nothing happens.

    Examples
    --------
    >>> import torch
    >>> from clipcore.integrations.torch import clip_grad_value_
    >>> weight = torch.zeros(2, requires_grad=True)
    >>> weight.grad = torch.tensor([3.0, -0.25])
    >>> clip_grad_value_([weight], 0.5)
    >>> weight.grad
    tensor([ 0.5000, -0.2500])
    """
    function = "clip_grad_value_"
    _check_foreach(function, foreach)
    number = as_number(function, "clip_value", clip_value)
    if number is not None and not number >= 0:
        raise ValueError(
            f"{function}: clip_value is {shown(clip_value)}; give a number that is zero or positive"
        )
    value = clip_value if number is None else abs(number)
    with torch.no_grad():
        _clamp(function, "gradients", gradients_of(function, parameters), -value, value)


def clip_weights_(module_or_parameters: Any, lower: Bound, upper: Bound, where: Where | None = None) -> None:
    r"""Cut every weight of a module in place into the range from `lower` to `upper`.

    .. math:: w_i \leftarrow \min(\max(w_i, \mathrm{lower}), \mathrm{upper})

    Parameters
    ----------
    module_or_parameters : module, tensor or iterable
        A module, whose parameters are all clipped, once each however many layers share
        them; or parameters, or pairs of name and parameter as ``named_parameters()`` gives
        them. Buffers, such as running means, are no parameters.
    lower, upper : number, tensor or None
        The bounds, in the unit of the weights. A number, or a tensor that broadcasts to the
        shape of every weight; None for no bound. Rounded to each weight's dtype so that
        they hold as given.
    where : callable, optional
        Called as ``where(name, parameter)``; parameters for which it is false are left
        alone. Without names of its own, a parameter's name is its index. Default: clip all.

    Raises
    ------
    TypeError
        If a parameter is no dense tensor or has a dtype without order, if `where` cannot be
        called, if a bound is no number, tensor or None.
    ValueError
        If a bound is NaN or out of a parameter's range on its far side, if no value of its
        dtype lies between them, if a parameter has no values yet.

    Warns
    -----
    UserWarning
        If the scale of a normalisation layer of a module is among the weights: it starts at
        1, and a range like [-0.01, 0.01] takes away what the layer is for.

    See Also
    --------
    attach_weight_clipping : The same after each step of an optimiser.
    clipcore.clip_weights : The same for any tree of arrays.

    Notes
    -----
    Autograd knows of the change: a graph that has saved a weight refuses to go backward
    through it. NaN stays NaN, infinity becomes the bound.

    References
    ----------
    .. [1] M. Arjovsky, S. Chintala, L. Bottou, "Wasserstein GAN", ICML 2017, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from clipcore.integrations.torch import clip_weights_
    >>> critic = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> clip_weights_(critic, -0.01, 0.01)
    >>> max(float(weight.detach().abs().max()) for weight in critic.parameters()) <= 0.01
    True
    >>> clip_weights_(critic, -0.001, 0.001, where=lambda name, parameter: name.endswith("weight"))
    """
    function = "clip_weights_"
    weights = chosen(function, named(function, module_or_parameters), where)
    if isinstance(module_or_parameters, torch.nn.Module) and not torch.compiler.is_compiling():
        warn_of_scales(function, module_or_parameters, weights)
    with torch.no_grad():
        _clamp(function, "parameters", weights, lower, upper)


def attach_weight_clipping(optimizer: Any, lower: Bound, upper: Bound, where: Where | None = None) -> Any:
    r"""Let an optimiser cut its weights into the range from `lower` to `upper` after each of its steps.

    .. math:: w_i \leftarrow \min(\max(w_i, \mathrm{lower}), \mathrm{upper})

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its parameters are clipped, and no others; groups added later are among them.
    lower, upper : number, tensor or None
        The bounds; see `clip_weights_`.
    where : callable, optional
        Called as ``where(name, parameter)`` for each parameter; those for which it is false
        are left alone. The name is the one that the optimiser was given with
        ``named_parameters()``, else "0.1" for the second parameter of the first group.
        Default: clip all.

    Returns
    -------
    torch.utils.hooks.RemovableHandle
        Its ``remove()`` ends the clipping.

    Raises
    ------
    TypeError
        If `optimizer` is none; also as `clip_weights_`.
    ValueError
        As `clip_weights_`, for the parameters there are.

    See Also
    --------
    clip_weights_ : The same at once.

    Notes
    -----
    Weights are clipped when ``step()`` ends, never before the first one: call
    `clip_weights_` for that. A step that a ``GradScaler`` leaves out changes nothing. The
    hook is not part of ``state_dict()``, nor of a copy: attach it again.

    Examples
    --------
    >>> import torch
    >>> from clipcore.integrations.torch import attach_weight_clipping
    >>> weight = torch.zeros(2, requires_grad=True)
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> handle = attach_weight_clipping(optimizer, -0.5, 0.5)
    >>> (weight * torch.tensor([0.25, 8.0])).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([-0.2500, -0.5000])
    >>> handle.remove()
    """
    function = "attach_weight_clipping"
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"{function}: optimizer is {shown(optimizer)}; give an optimiser of torch.optim")
    check_bounds(function, lower, upper)
    for parameter in chosen(function, of_optimizer(optimizer), where):
        if parameter is not None:
            check_real(function, lambda: "a parameter", parameter)
            round_bounds(function, lower, upper, parameter.dtype)

    def after_step(optimizer: Any, _arguments: Any, _keywords: Any) -> None:
        with torch.no_grad():
            weights = chosen(function, of_optimizer(optimizer), where)
            _clamp(function, "parameters", weights, lower, upper)

    return optimizer.register_step_post_hook(after_step)


def _order(function: str, norm_type: Any) -> float:
    try:
        order = float(norm_type)
    except (TypeError, ValueError):
        order = math.nan
    if order not in (1.0, 2.0, math.inf):
        raise ValueError(
            f"{function}: norm_type is {shown(norm_type)}; choose 1, 2 or inf, or take "
            "torch.nn.utils.clip_grad_norm_, which has other orders and no exact bound"
        )
    return order


def _check_foreach(function: str, foreach: object) -> None:
    if foreach is not None and not isinstance(foreach, bool):
        raise TypeError(f"{function}: foreach is {shown(foreach)}; give True, False or None")


def _clip_norm(
    function: str,
    gradients: list[Array | None],
    limit: Any,
    order: float,
    nonfinite: Any,
    foreach: bool | None,
) -> Array:
    """Clip gradients in place, and return their norm before."""
    present = [gradient for gradient in gradients if gradient is not None]
    spread = meshes.any_spread(present)
    parts = meshes.local(gradients)
    own = [part for part in parts if part is not None]
    quick = foreach is not False and lists.serves(own, limit, order)
    if not (quick or spread):
        request = Request(function, order, nonfinite=nonfinite)
        return clip(flatten(function, parts, "gradients"), limit, request, parts)[1]

    def measured(tensors: list[Array], all_reduce: AllReduce | None = None) -> Array:
        if quick:
            tensors = [lists.measure(tensors, order)]
            if all_reduce is None:
                return tensors[0]
        request = Request(function, order, all_reduce=all_reduce)
        return measure(flatten(function, tensors, "gradients"), request)

    norms = meshes.norms(present, measured)
    norm = norms[0] if len(norms) == 1 else measured(norms)
    if quick and (nonfinite == "propagate" or bool(torch.isfinite(norm))):
        lists.scale_(own, norm, limit)
    else:
        request = Request(function, order, norm=norm if spread else None, nonfinite=nonfinite)
        clip(flatten(function, parts, "gradients"), limit, request, parts)
    meshes.wrote(present)
    return norm


def _clamp(function: str, root: str, tensors: list[Array | None], lower: Bound, upper: Bound) -> None:
    """Clamp tensors in place."""
    parts = meshes.local(tensors)
    own = [part for part in parts if part is not None]
    if lists.serves_clamp(own, lower, upper):
        lists.clamp_(function, own, lower, upper)
    else:
        clamp(function, flatten(function, parts, root), lower, upper, None, parts)
    meshes.wrote(tensors)
