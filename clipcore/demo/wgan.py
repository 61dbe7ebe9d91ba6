"""The Wasserstein GAN: a generator, and a critic that measures a distance while its weights are clipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from clipcore._typing import Array
from clipcore.demo.data import MODES, SPREAD, Data, ring_centres
from clipcore.demo.optimizers import OPTIMIZERS, SGD, Adam
from clipcore.demo.options import Options
from clipcore.demo.training import Step, batches, check, finite_norm, mlp, update

__all__ = ["WGAN", "modes_found", "sliced_distance"]

CRITIC_STEPS: Final = 5  # for one of the generator
BATCH: Final = 128
HIDDEN: Final = (64, 64)
NOISE: Final = 2  # dimensions of what the generator makes points of
TOO_LARGE: Final = 1e6  # a distance between points that lie within a few units


class WGAN:
    """A critic and a generator, trained in turn (Arjovsky et al. 2017, algorithm 1).

    The critic learns to give the data high and the generator's points low marks; the difference
    of the means estimates their distance, provided that the marks change no faster than their
    inputs. Clipping the weights is what provides it.
    """

    def __init__(self, options: Options, data: Data) -> None:
        self.options, self.data = options, data
        self.rng = np.random.default_rng(options.seed)
        features = data.x.shape[1]
        self.network = mlp([features, *HIDDEN, 1], self.rng, options.activation, options.normalization)
        self.generator = mlp([NOISE, *HIDDEN, features], self.rng, options.activation)
        self.optimizers = _optimizer(options), _optimizer(options)
        options.clipping.weights(self.network.parameters)
        self.steps_planned = options.epochs * (len(data.x) // min(BATCH, len(data.x)))

    def steps(self) -> Iterator[Step]:
        """Train, and yield one record a step of the critic."""
        critics, generators = self.optimizers
        rounds = batches(self.rng, self.options.epochs, len(self.data.x), BATCH)
        for step, (epoch, rows) in enumerate(rounds, 1):
            loss = self._critic_gradients(self.data.x[rows])
            check(loss, TOO_LARGE)
            seen = update(self.network, critics, self.options.clipping)
            if step % CRITIC_STEPS == 0:
                seen["generator_norm"] = self._generator_step(generators, self.data.x[rows])
            yield Step(step, epoch, loss, **seen)

    def samples(self, count: int, rng: np.random.Generator) -> Array:
        """Return points that the generator makes of noise."""
        return self.generator.forward(rng.normal(size=(count, NOISE)), training=False)

    def scores(self) -> dict[str, float]:
        """Return the distance from the test points; for the ring, the modes found and the share near one."""
        made = self.samples(len(self.data.x_test), np.random.default_rng(0))
        scores = {"test_distance": sliced_distance(made, self.data.x_test)}
        if not self.options.data:
            scores["modes"], scores["share_near_a_mode"] = modes_found(made)
        return scores

    def _critic_gradients(self, real: Array) -> float:
        """Set the critic's gradients, and return its loss: minus the estimate of the distance."""
        marks = self._marks(real)
        each = np.full((len(real), 1), 1 / len(real))
        self.network.backward(np.concatenate([-each, each]))
        return float(marks[len(real) :].mean() - marks[: len(real)].mean())

    def _generator_step(self, optimizer: SGD, real: Array) -> float:
        """Move the generator towards higher marks; return the norm of its gradients."""
        self._marks(real)
        each = np.full((len(real), 1), 1 / len(real))
        self.generator.backward(self.network.backward(np.concatenate([0 * each, -each]))[len(real) :])
        norm = finite_norm(self.generator.gradients)
        optimizer.step(self.generator.parameters, self.generator.gradients)
        return norm

    def _marks(self, real: Array) -> Array:
        """Return the critic's marks of real points, then of as many made ones, normalised as one batch."""
        made = self.generator.forward(self.rng.normal(size=(len(real), NOISE)))
        return self.network.forward(np.concatenate([real, made]))


def modes_found(points: Array) -> tuple[int, float]:
    """Return how many modes are found, and the share of points within three deviations of one.

    A mode is found where half its fair share of the points, 1/16, is that near: a cloud over all
    of them finds none.
    """
    distances = np.linalg.norm(points[:, None] - ring_centres(), axis=2)
    near = distances < 3 * SPREAD
    shares = near.mean(axis=0)
    return int((shares >= 0.5 / MODES).sum()), float(near.any(axis=1).mean())


def sliced_distance(a: Array, b: Array) -> float:
    """Return the mean Wasserstein distance of two clouds of as many points, seen along 64 directions.

    Along a line it is the mean distance between the sorted points (Rabin et al. 2011).
    """
    directions = np.random.default_rng(0).normal(size=(a.shape[1], 64))
    directions /= np.linalg.norm(directions, axis=0)
    return float(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)).mean())


def _optimizer(options: Options) -> SGD:
    """Return an optimiser; Adam without momentum, with which critic and generator chase each other."""
    if options.optimizer == "adam":
        return Adam(options.learning_rate, beta1=0, beta2=0.9)
    return OPTIMIZERS[options.optimizer](options.learning_rate)
