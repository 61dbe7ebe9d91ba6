"""Optimisers in NumPy: each writes its step into the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree

from clipcore._typing import Array

__all__ = ["OPTIMIZERS", "SGD", "Adam", "Momentum"]


class SGD:
    """Plain gradient descent: w ← w − learning_rate · g."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def step(self, parameters: Any, gradients: Any) -> None:
        """Write one step into the parameters, trees of one structure."""
        for w, direction in zip(optree.tree_leaves(parameters), self.directions(gradients), strict=True):
            w -= self.learning_rate * direction

    def directions(self, gradients: Any) -> list[Array]:
        """Return what to walk along, for each leaf."""
        return optree.tree_leaves(gradients)


class Momentum(SGD):
    """Descent with a memory: v ← 0.9 v + g, w ← w − learning_rate · v (Polyak 1964)."""

    def __init__(self, learning_rate: float) -> None:
        super().__init__(learning_rate)
        self.velocities: list[Array] = []

    def directions(self, gradients: Any) -> list[Array]:
        """Return the velocities."""
        leaves = optree.tree_leaves(gradients)
        old = self.velocities or [np.zeros_like(g) for g in leaves]
        self.velocities = [0.9 * v + g for v, g in zip(old, leaves, strict=True)]
        return self.velocities


class Adam(SGD):
    """Adam (Kingma and Ba 2015): the running mean of g over the root of that of g²."""

    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(learning_rate)
        self.beta1, self.beta2 = beta1, beta2
        self.means: list[Array] = []
        self.squares: list[Array] = []
        self.steps = 0

    def directions(self, gradients: Any) -> list[Array]:
        """Return mean / (√square + 1e-8), both freed of their start at zero."""
        leaves = optree.tree_leaves(gradients)
        zeros = [np.zeros_like(g) for g in leaves]
        self.means = _blend(self.beta1, self.means or zeros, leaves)
        self.squares = _blend(self.beta2, self.squares or zeros, [g**2 for g in leaves])
        self.steps += 1
        m_left, s_left = 1 - self.beta1**self.steps, 1 - self.beta2**self.steps
        return [
            (m / m_left) / (np.sqrt(s / s_left) + 1e-8) for m, s in zip(self.means, self.squares, strict=True)
        ]


def _blend(beta: float, old: list[Array], new: list[Array]) -> list[Array]:
    """Return beta · old + (1 − beta) · new, leaf by leaf."""
    return [beta * a + (1 - beta) * b for a, b in zip(old, new, strict=True)]


OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
"""The optimisers by the names that the command takes."""
