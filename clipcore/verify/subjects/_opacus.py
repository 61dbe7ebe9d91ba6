"""Opacus: the per-sample clipping of DPOptimizer, with one sample."""

from __future__ import annotations

import importlib
from typing import Any

from clipcore.verify.calling import NotOffered
from clipcore.verify.subject import Subject
from clipcore.verify.subjects._ready_made import FLOATING, ReadyMade, check_flat, check_leaves, check_number

__all__ = ["SUBJECTS"]


def _clipped(gradients: list[Any], max_norm: Any) -> list[Any]:
    """Return what clip_and_accumulate sums up of one sample's gradients."""
    torch, opacus = importlib.import_module("torch"), importlib.import_module("opacus.optimizers")
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad_sample = gradient[None]
    optimizer = opacus.DPOptimizer(
        torch.optim.SGD(parameters),
        noise_multiplier=0.0,
        max_grad_norm=max_norm,
        expected_batch_size=1,
    )
    optimizer.clip_and_accumulate()
    return [parameter.summed_grad for parameter in parameters]


def _of_one() -> Subject:
    """Return the clip of one parameter's gradient."""
    importlib.import_module("opacus.optimizers")

    def call(x: Any, max_norm: Any) -> Any:
        check_number(max_norm)
        [clipped] = _clipped([x], max_norm)
        return clipped

    return Subject(call, "torch")


def _of_all() -> Subject:
    """Return the clip of all gradients of a sample; there is at least one."""
    importlib.import_module("opacus.optimizers")

    def call(tree: Any, max_norm: Any) -> Any:
        check_flat(tree, list)
        check_leaves(tree)
        check_number(max_norm)
        if not tree:
            raise NotOffered("at least one parameter")
        return _clipped(tree, max_norm)

    return Subject(call, "torch")


def _ready_made(operation: str, build: Any, sample: str) -> ReadyMade:
    """Return the subject of one operation."""
    return ReadyMade(
        name="opacus.DPOptimizer",
        operation=operation,
        definition="torch",
        needs=("opacus", "torch"),
        distribution="opacus torch",
        build=build,
        note=f"`DPOptimizer(…, max_grad_norm=max_norm).clip_and_accumulate()` of {sample}.",
        dtypes=(*FLOATING, "complex64", "complex128"),
    )


SUBJECTS = (
    _ready_made("clip_by_l2_norm", _of_one, "one sample and one parameter"),
    _ready_made("clip_by_global_norm", _of_all, "one sample and all parameters"),
)
