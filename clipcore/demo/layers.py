"""Layers of a neural network in NumPy: each knows its forward step and, by hand, its backward step.

A layer holds ``parameters`` and, after ``backward``, ``gradients``: dicts of arrays by name, of the same
shapes. ``backward`` takes the loss's gradient by the layer's output, and returns that by its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipcore._typing import Array, Tree

__all__ = [
    "BatchNorm",
    "Dense",
    "Layer",
    "LayerNorm",
    "Network",
    "ReLU",
    "Tanh",
    "softmax_cross_entropy",
    "squared_error",
]

EPSILON = 1e-5  # added to a variance before its root


class Layer:
    """A layer without parameters that passes everything on."""

    def __init__(self) -> None:
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}

    def forward(self, x: Array, *, training: bool = True) -> Array:  # noqa: ARG002 - some layers differ
        """Return the layer's output for a batch."""
        return x

    def backward(self, dy: Array) -> Array:
        """Set the gradients and return the gradient by the input of the last `forward`."""
        return dy


class Dense(Layer):
    """Every output a weighted sum of all inputs: y = x·kernel + bias."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        super().__init__()
        kernel = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs))  # He et al. 2015
        self.parameters = {"kernel": kernel, "bias": np.zeros(outputs)}

    def forward(self, x: Array, *, training: bool = True) -> Array:  # noqa: ARG002
        """Return x·kernel + bias."""
        self.x = x
        return x @ self.parameters["kernel"] + self.parameters["bias"]

    def backward(self, dy: Array) -> Array:
        """Set the gradients and return the gradient by the input."""
        self.gradients = {"kernel": self.x.T @ dy, "bias": dy.sum(axis=0)}
        return dy @ self.parameters["kernel"].T


class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, x: Array, *, training: bool = True) -> Array:  # noqa: ARG002
        """Return max(x, 0)."""
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy: Array) -> Array:
        """Return the gradient by the input: none where the output is zero."""
        return dy * (self.y > 0)


class Tanh(Layer):
    """The hyperbolic tangent."""

    def forward(self, x: Array, *, training: bool = True) -> Array:  # noqa: ARG002
        """Return tanh(x)."""
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        """Return the gradient by the input: tanh' = 1 − tanh²."""
        return dy * (1 - self.y**2)


class Normalization(Layer):
    """(x − mean) / √(variance + ε) along one axis, times a scale, plus a bias."""

    axis: int

    def __init__(self, features: int) -> None:
        super().__init__()
        self.parameters = {"scale": np.ones(features), "bias": np.zeros(features)}

    def moments(self, x: Array, *, training: bool) -> tuple[Array, Array]:  # noqa: ARG002
        """Return mean and variance."""
        return x.mean(self.axis, keepdims=True), x.var(self.axis, keepdims=True)

    def forward(self, x: Array, *, training: bool = True) -> Array:
        """Return the normalised batch, scaled and shifted."""
        mean, variance = self.moments(x, training=training)
        self.deviation = np.sqrt(variance + EPSILON)
        self.normal = (x - mean) / self.deviation
        return self.normal * self.parameters["scale"] + self.parameters["bias"]

    def backward(self, dy: Array) -> Array:
        """Set the gradients and return that by the input, through mean and variance too."""
        self.gradients = {"scale": (dy * self.normal).sum(axis=0), "bias": dy.sum(axis=0)}
        dn = dy * self.parameters["scale"]
        along = dn.mean(self.axis, keepdims=True)
        across = (dn * self.normal).mean(self.axis, keepdims=True)
        return (dn - along - self.normal * across) / self.deviation


class LayerNorm(Normalization):
    """Normalise every example over its features (Ba et al. 2016)."""

    axis = 1


class BatchNorm(Normalization):
    """Normalise every feature over the batch; by running means when not training (Ioffe and Szegedy 2015)."""

    axis = 0
    momentum = 0.9

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.running = np.zeros(features), np.ones(features)

    def moments(self, x: Array, *, training: bool) -> tuple[Array, Array]:
        """Return mean and variance of the batch, or the running ones."""
        if not training:
            return self.running
        batch = super().moments(x, training=True)
        mean, variance = (
            self.momentum * old + (1 - self.momentum) * new[0]
            for old, new in zip(self.running, batch, strict=True)
        )
        self.running = mean, variance
        return batch


class Network:
    """Layers one after another.

    Attributes
    ----------
    parameters, gradients : dict of dict of numpy.ndarray
        Trees by layer and name, as the clipping functions take them. The arrays are the
        layers' own: what is written into them is the network's new state.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def forward(self, x: Array, *, training: bool = True) -> Array:
        """Return the output of the last layer."""
        for layer in self.layers:
            x = layer.forward(x, training=training)
        return x

    def backward(self, dy: Array) -> Array:
        """Set every layer's gradients and return the gradient by the network's input."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    @property
    def parameters(self) -> Tree:
        """The parameters of the layers that have some."""
        return {name: layer.parameters for name, layer in self._named() if layer.parameters}

    @property
    def gradients(self) -> Tree:
        """The gradients of the last backward step."""
        return {name: layer.gradients for name, layer in self._named() if layer.parameters}

    def _named(self) -> list[tuple[str, Layer]]:
        return [(f"{type(layer).__name__.lower()}_{i}", layer) for i, layer in enumerate(self.layers)]


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean of −log softmax(logits)[label] over a batch, and its gradient by the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(shifted - log_sum)
    gradient[rows, labels] -= 1
    return float((log_sum[:, 0] - shifted[rows, labels]).mean()), gradient / len(labels)


def squared_error(predicted: Array, wanted: Array) -> tuple[float, Array]:
    """Return the mean of (predicted − wanted)² over a batch, and its gradient by what was predicted."""
    difference = predicted - wanted
    return float((difference**2).mean()), 2 * difference / difference.size
