"""Training: forward, backward, clip, step; one record a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

import clipcore
from clipcore._typing import Array
from clipcore.demo import layers
from clipcore.demo.clipping import Clipping, cosine
from clipcore.demo.data import Data
from clipcore.demo.layers import Dense, Network
from clipcore.demo.optimizers import OPTIMIZERS, SGD
from clipcore.demo.options import Options
from clipcore.demo.rnn import Elman

__all__ = [
    "DivergedError",
    "Step",
    "Supervised",
    "Trainer",
    "batches",
    "check",
    "finite_norm",
    "mlp",
    "update",
]

BATCH = 64
HIDDEN = (64, 64)
UNITS = 64
TOO_LARGE = 1e6  # times the first loss: from less, clipped training was seen to come back


class DivergedError(Exception):
    """Training has left all bounds; the message says what was seen."""


@dataclass(frozen=True)
class Step:
    """What happened in one step of training, a row of the history.

    Attributes
    ----------
    step, epoch : int
        Counted from 1.
    loss : float
        Of this step's batch, before the step; the WGAN's is the critic's, minus its estimate
        of the distance between the points and the generator's.
    norm_before, norm_after : float
        The global norm of all gradients before and after clipping.
    clipped : bool
        Whether clipping changed the gradients, or holds a weight at a bound.
    cosine : float
        Of the angle between the gradients before and after; NaN where one is zero.
    at_bound : float or None
        The share of the clipped weights that lie at a bound; None where no weights are clipped.
    generator_norm : float or None
        The global norm of the generator's gradients, where it made a step too.
    """

    step: int
    epoch: int
    loss: float
    norm_before: float
    norm_after: float
    clipped: bool
    cosine: float
    at_bound: float | None
    generator_norm: float | None = None


class Trainer(Protocol):
    """A network, or two, with data to learn.

    Attributes
    ----------
    steps_planned : int
        How many records `steps` yields where nothing diverges.
    network : Network
        The one whose gradients or weights are clipped.
    """

    steps_planned: int
    network: Network

    def steps(self) -> Iterator[Step]:
        """Train, and yield one record a step; raise `DivergedError` before a step that would go wrong."""
        ...

    def scores(self) -> dict[str, float]:
        """Return how well the test examples are met, by the measures' names."""
        ...


def mlp(
    sizes: list[int], rng: np.random.Generator, activation: str = "relu", normalization: str = "none"
) -> Network:
    """Return a multilayer perceptron: dense layers, each but the last normalised, if asked, and bent."""
    bend = {"relu": layers.ReLU, "tanh": layers.Tanh}[activation]
    normalize = {"batch": layers.BatchNorm, "layer": layers.LayerNorm}.get(normalization)
    stack: list[layers.Layer] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        stack.append(Dense(inputs, outputs, rng))
        if normalize is not None:
            stack.append(normalize(outputs))
        stack.append(bend())
    return Network([*stack, Dense(sizes[-2], sizes[-1], rng)])


class Supervised:
    """The MLP that tells classes apart, or the RNN that tells a number from a sequence."""

    def __init__(self, options: Options, data: Data) -> None:
        self.options, self.data = options, data
        self.rng = np.random.default_rng(options.seed)
        self.optimizer = OPTIMIZERS[options.optimizer](options.learning_rate)
        self.loss: Callable[[Array, Array], tuple[float, Array]]
        inputs = data.x.shape[-1]
        if options.model == "mlp":
            self.loss = layers.softmax_cross_entropy
            classes = 1 + max(data.y.max(), data.y_test.max())
            sizes = [inputs, *HIDDEN, classes]
            self.network = mlp(sizes, self.rng, options.activation, options.normalization)
        else:
            self.loss = layers.squared_error
            self.network = Network([Elman(inputs, UNITS, self.rng), Dense(UNITS, 1, self.rng)])
        options.clipping.weights(self.network.parameters)
        self.steps_planned = options.epochs * (len(data.x) // min(BATCH, len(data.x)))

    def steps(self) -> Iterator[Step]:
        """Train, and yield one record a step."""
        first = None
        for step, (epoch, rows) in enumerate(batches(self.rng, self.options.epochs, len(self.data.x)), 1):
            loss, gradient = self.loss(self.network.forward(self.data.x[rows]), self.data.y[rows])
            self.network.backward(gradient)
            first = loss if first is None else first
            check(loss, TOO_LARGE * first)
            yield Step(step, epoch, loss, **update(self.network, self.optimizer, self.options.clipping))

    def scores(self) -> dict[str, float]:
        """Return the share of test examples told right (MLP), or the mean square error (RNN)."""
        answer = self.network.forward(self.data.x_test, training=False)
        if self.options.model == "mlp":
            right = answer.argmax(axis=1) == self.data.y_test
            return {"test_accuracy": float((right & np.isfinite(answer).all(axis=1)).mean())}
        return {"test_error": layers.squared_error(answer, self.data.y_test)[0]}


def batches(
    rng: np.random.Generator, epochs: int, count: int, size: int = BATCH
) -> Iterator[tuple[int, Array]]:
    """Yield the epoch, from 1, and the rows of each batch: in new order each epoch, without the remainder."""
    size = min(size, count)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield epoch, order[start : start + size]


def check(loss: float, most: float) -> None:
    """Raise `DivergedError` where a loss is beyond all bounds."""
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss}")
    if abs(loss) > most:
        raise DivergedError(f"the loss is {loss:.3g}, more than {most:.3g}")


def finite_norm(gradients: Any) -> float:
    """Return the global norm of gradients; raise `DivergedError` where it is not finite."""
    norm = float(clipcore.global_norm(gradients))
    if not math.isfinite(norm):
        raise DivergedError(f"the norm of the gradients is {norm}")
    return norm


def update(network: Network, optimizer: SGD, clipping: Clipping) -> dict[str, Any]:
    """Clip the gradients, take the step, clip the weights; return what a `Step` says of it."""
    gradients = network.gradients
    before = finite_norm(gradients)
    clipped = clipping.gradients(gradients)
    optimizer.step(network.parameters, clipped)
    at_bound = clipping.weights(network.parameters)
    after = before if clipped is gradients else float(clipcore.global_norm(clipped))
    return {
        "norm_before": before,
        "norm_after": after,
        "clipped": before != after or bool(at_bound),
        "cosine": cosine(gradients, clipped, before, after),
        "at_bound": at_bound,
    }
