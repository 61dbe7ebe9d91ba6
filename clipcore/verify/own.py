"""Cases made of somebody's own arrays, with limits at their norms and around them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from clipcore.verify.exact import exact_norm
from clipcore.verify.form import leaves
from clipcore.verify.formats import Array, is_complex
from clipcore.verify.judge import NORM_CLIPS, NORMS, Case
from clipcore.verify.laws import approximate

__all__ = ["own_cases"]


def own_cases(operation: str, arrays: dict[str, Array]) -> Iterator[Case]:
    """Yield every array under one function, or all of them as one tree where it takes trees.

    Parameters
    ----------
    operation : str
        Name of the public function.
    arrays : dict
        Finite floating or complex arrays by name.

    Yields
    ------
    Case
        A norm clip with limits at the norm, just below and above it, half and twice it; a value clip at half
        the largest size.
    """
    real = {name: x for name, x in arrays.items() if not is_complex(x.dtype)}
    subjects: dict[str, Any] = dict(arrays)
    if operation.endswith("global_norm"):
        subjects = {"all arrays": list(arrays.values())}
    elif operation == "clip_weights":
        subjects = {"all arrays": real} if real else {}
    elif operation == "clip_by_value":
        subjects = dict(real)
    for name, tree in subjects.items():
        for arguments in _arguments(operation, tree):
            yield Case(operation, name, tree, arguments)


def _arguments(operation: str, tree: Any) -> Iterator[tuple[float, ...]]:
    """Yield what to pass besides the tree."""
    if operation in NORMS:
        yield ()
    elif operation in NORM_CLIPS:
        norm = approximate(exact_norm(leaves(tree), NORM_CLIPS[operation]).bounds()[0])
        for limit in (norm / 2, math.nextafter(norm, 0), norm, math.nextafter(norm, math.inf), 2 * norm):
            yield (limit,)
    else:
        half = max((float(np.max(np.abs(x), initial=0)) for x in leaves(tree)), default=0.0) / 2
        yield -half, half
