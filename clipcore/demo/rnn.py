"""An Elman network in NumPy, and back-propagation through time by hand."""

from __future__ import annotations

import numpy as np

from clipcore._typing import Array
from clipcore.demo.layers import Layer

__all__ = ["Elman"]


class Elman(Layer):
    """A recurrent layer: h(t) = max(0, x(t)·input + h(t − 1)·recurrent + bias), the last h its output.

    The recurrent kernel starts as almost the identity [1]_, so that a memory fades slowly before
    anything is learnt; from there a step too long makes its powers, and the gradient with them,
    explode [2]_.

    References
    ----------
    .. [1] Q. Le, N. Jaitly, G. Hinton, "A simple way to initialize recurrent networks of
           rectified linear units", 2015.
    .. [2] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural
           networks", ICML 2013.
    """

    def __init__(self, inputs: int, units: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.parameters = {
            "input_kernel": rng.normal(0, 0.1, (inputs, units)),
            "recurrent_kernel": 0.98 * np.eye(units),
            "bias": np.zeros(units),
        }

    def forward(self, x: Array, *, training: bool = True) -> Array:  # noqa: ARG002
        """Return the last state for sequences of shape (batch, time, inputs)."""
        recurrent = self.parameters["recurrent_kernel"]
        self.x = np.ascontiguousarray(x.swapaxes(0, 1))
        driven = self.x @ self.parameters["input_kernel"] + self.parameters["bias"]
        self.states = np.zeros((len(driven) + 1, *driven.shape[1:]))  # the first state is zero
        for t, drive in enumerate(driven):
            np.maximum(drive + self.states[t] @ recurrent, 0, out=self.states[t + 1])
        return self.states[-1]

    def backward(self, dy: Array) -> Array:
        """Set the gradients, summed over time, and return that by the sequences."""
        transposed = self.parameters["recurrent_kernel"].T
        driven = np.empty_like(self.states[1:])  # the gradients by what each step's maximum is taken of
        for t in reversed(range(len(driven))):
            driven[t] = dy * (self.states[t + 1] > 0)
            dy = driven[t] @ transposed
        rows = driven.reshape(-1, driven.shape[-1])
        self.gradients = {
            "input_kernel": self.x.reshape(len(rows), -1).T @ rows,
            "recurrent_kernel": self.states[:-1].reshape(len(rows), -1).T @ rows,
            "bias": rows.sum(axis=0),
        }
        return (driven @ self.parameters["input_kernel"].T).swapaxes(0, 1)
