"""Clipping as training sees it: a function between back-propagation and step, another one after the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import optree

import clipcore

__all__ = ["CLIPS", "NORMS", "RANGES", "Clipping", "cosine"]

NORMS: Final = ("l1", "l2", "global")  # limited by max_norm
RANGES: Final = ("value", "weights")  # limited by a range
CLIPS: Final = ("none", *RANGES, *NORMS)


@dataclass(frozen=True)
class Clipping:
    """What is clipped, and to what.

    Attributes
    ----------
    kind : str
        One of `CLIPS`: gradients by ``value`` or by norm (``l1`` and ``l2`` each leaf by its
        own, ``global`` all by one), or ``weights``.
    limit : float
        The largest norm, or for ``value`` and ``weights`` the end of the range from −limit
        to limit.
    where : str
        Which weights: ``kernels``, or ``all`` of the parameters.
    """

    kind: str = "none"
    limit: float = math.inf
    where: str = "kernels"

    def gradients(self, tree: Any) -> Any:
        """Return the gradients that the optimiser gets."""
        if self.kind == "global":
            return clipcore.clip_by_global_norm(tree, self.limit)[0]
        each: dict[str, Callable[[Any], Any]] = {
            "value": lambda g: clipcore.clip_by_value(g, -self.limit, self.limit),
            "l1": lambda g: clipcore.clip_by_l1_norm(g, self.limit),
            "l2": lambda g: clipcore.clip_by_l2_norm(g, self.limit),
        }
        return optree.tree_map(each[self.kind], tree) if self.kind in each else tree

    def weights(self, tree: Any) -> float | None:
        """Clip a network's parameters in place; return what share is at a bound, None if none are clipped."""
        if self.kind != "weights":
            return None
        clipcore.clip_weights(tree, -self.limit, self.limit, where=self._picks, out=tree)
        paths, leaves, _ = optree.tree_flatten_with_path(tree)
        picked = [leaf for path, leaf in zip(paths, leaves, strict=True) if self._picks(path, leaf)]
        at_bound = sum(np.count_nonzero(np.abs(leaf) == self.limit) for leaf in picked)
        return float(at_bound / sum(leaf.size for leaf in picked))

    def _picks(self, path: tuple[Any, ...], leaf: Any) -> bool:  # noqa: ARG002 - as clip_weights calls it
        return self.where == "all" or str(path[-1]).endswith("kernel")


def cosine(a: Any, b: Any, a_norm: float, b_norm: float) -> float:
    """Return the cosine of the angle between two trees of known norms; NaN where one is zero."""
    if a is b or not (a_norm and b_norm):
        return 1.0 if a_norm and b_norm else math.nan
    pairs = zip(optree.tree_leaves(a), optree.tree_leaves(b), strict=True)
    return float(sum(np.vdot(x / a_norm, y / b_norm) for x, y in pairs))
