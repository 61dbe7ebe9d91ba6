"""PaddlePaddle: paddle.nn.ClipGradBy… and paddle.nn.utils.clip_grad_norm_."""

from __future__ import annotations

import importlib
from typing import Any, Final

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import ReadyMade, check_flat, check_number

__all__ = ["SUBJECTS"]

_NEEDS: Final = ("paddle",)


def _parameter(gradient: Any) -> Any:
    """Return a parameter that has this gradient; anything but a tensor stays as it is."""
    paddle = importlib.import_module("paddle")
    if gradient is not None and not isinstance(gradient, paddle.Tensor):
        return gradient
    parameter = paddle.zeros([1]) if gradient is None else paddle.zeros_like(gradient)
    parameter.stop_gradient = False
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


def _clip_grad_norm() -> Subject:
    """Return paddle.nn.utils.clip_grad_norm_."""
    clip = importlib.import_module("paddle").nn.utils.clip_grad_norm_

    def call(parameters: Any, max_norm: Any, *, ord: Any = 2) -> Any:  # noqa: A002
        check_number(max_norm)
        return clip(parameters, max_norm, norm_type=ord)

    return Subject(call, "paddle", in_place=True, prepare=_parameters, collect=_with_norm)


def _paired(tree: Any) -> Any:
    """Return the gradients as an optimizer hands them over, each behind its parameter."""
    check_flat(tree, list)
    paddle = importlib.import_module("paddle")
    return [(paddle.zeros([1]), gradient) for gradient in tree]


def _gradients(_pairs: Any, returned: Any) -> Any:
    """Return the gradients of the returned pairs."""
    return [gradient for _, gradient in returned]


def _by_global_norm() -> Subject:
    """Return paddle.nn.ClipGradByGlobalNorm, which works in place where it can."""
    clip = importlib.import_module("paddle").nn.ClipGradByGlobalNorm

    def call(pairs: Any, max_norm: Any) -> Any:
        check_number(max_norm)
        return clip(max_norm)(pairs)

    return Subject(call, "paddle", in_place=True, prepare=_paired, collect=_gradients)


def _by_norm() -> Subject:
    """Return paddle.nn.ClipGradByNorm of one gradient."""
    paddle = importlib.import_module("paddle")

    def call(x: Any, max_norm: Any) -> Any:
        check_number(max_norm)
        [(_, clipped)] = paddle.nn.ClipGradByNorm(max_norm)([(paddle.zeros([1]), x)])
        return clipped

    return Subject(call, "paddle")


def _by_value() -> Subject:
    """Return paddle.nn.ClipGradByValue of one gradient; it takes two numbers."""
    paddle = importlib.import_module("paddle")

    def call(x: Any, lower: Any, upper: Any) -> Any:
        check_number(lower, upper)
        if lower is None or upper is None:
            raise NotOffered("only two bounds")
        [(_, clipped)] = paddle.nn.ClipGradByValue(upper, lower)([(paddle.zeros([1]), x)])
        return clipped

    return Subject(call, "paddle")


SUBJECTS = (
    ReadyMade(
        name="paddle.clip_grad_norm_",
        operation="clip_by_global_norm",
        definition="torch",
        needs=_NEEDS,
        distribution="paddlepaddle",
        build=_clip_grad_norm,
        note="`paddle.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=ord)`.",
        dtypes=("float32", "float64", "complex64", "complex128"),
    ),
    ReadyMade(
        name="paddle.ClipGradByGlobalNorm",
        operation="clip_by_global_norm",
        definition="paddle",
        needs=_NEEDS,
        distribution="paddlepaddle",
        build=_by_global_norm,
        note="`paddle.nn.ClipGradByGlobalNorm(max_norm)(parameters_and_gradients)`.",
        dtypes=("float32", "float64"),
    ),
    ReadyMade(
        name="paddle.ClipGradByNorm",
        operation="clip_by_l2_norm",
        definition="paddle",
        needs=_NEEDS,
        distribution="paddlepaddle",
        build=_by_norm,
        note="`paddle.nn.ClipGradByNorm(max_norm)([(parameter, x)])`.",
        dtypes=("float32",),
    ),
    ReadyMade(
        name="paddle.ClipGradByValue",
        operation="clip_by_value",
        definition="contract",
        needs=_NEEDS,
        distribution="paddlepaddle",
        build=_by_value,
        note="`paddle.nn.ClipGradByValue(upper, lower)([(parameter, x)])`.",
        dtypes=("float32", "float64", "int32", "int64"),
    ),
)
