"""What the networks learn: handwritten digits, sums of marked numbers, a ring of points, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clipcore._typing import Array
from clipcore.verify.files import InputFileError, members

__all__ = ["LARGEST", "LENGTH", "MODES", "SPREAD", "Data", "DataError", "load_data", "ring_centres"]

LENGTH: Final = 100  # steps of a sequence of the adding problem
MODES: Final = 8  # Gaussians of the ring, which has radius 1
SPREAD: Final = 0.1  # their standard deviation
TEST_SHARE: Final = 0.2
LARGEST: Final = 1e100  # whose square is no infinity
FIXED: Final = 2026  # data and split are the same for every seed: seeds compare trainings


class DataError(Exception):
    """Data that cannot be learnt from; the message is one line for the user."""


@dataclass(frozen=True)
class Data:
    """Training and test examples.

    Attributes
    ----------
    name : str
        What they are, for pictures.
    x, x_test : numpy.ndarray of float64
        Inputs: (n, features) for the MLP and the WGAN, (n, time, features) for the RNN.
    y, y_test : numpy.ndarray
        Labels (n,) for the MLP, numbers (n, 1) for the RNN, nothing of length n for the WGAN.
    """

    name: str
    x: Array
    y: Array
    x_test: Array
    y_test: Array


def load_data(model: str, path: str = "") -> Data:
    """Return what a model learns: a file's arrays x and y, or without one what the model comes with.

    Parameters
    ----------
    model : {"mlp", "rnn", "wgan"}
        What the data is for.
    path : str
        An .npz file. ``x`` holds the inputs, one row an example; ``y`` the classes as
        integers from 0 (mlp), or a number for each example (rnn); a wgan needs no ``y``.

    Raises
    ------
    DataError
        If the file cannot be read, or its arrays are not what the model needs.
    """
    if path:
        return _split(model, Path(path).name, *_from_file(model, path))
    if model == "mlp":
        return _split(model, "handwritten digits", *_digits())
    rng = np.random.default_rng(FIXED)
    if model == "rnn":
        return Data("the adding problem", *_adding(12_800, rng), *_adding(1_000, rng))
    points, nothing = _ring(25_600, rng), np.zeros(25_600)
    held_out = _ring(2_000, rng)
    return Data("a ring of eight Gaussians", points, nothing, held_out, np.zeros(len(held_out)))


def ring_centres() -> Array:
    """Return the centres of the ring's Gaussians."""
    angles = 2 * np.pi * np.arange(MODES) / MODES
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _digits() -> tuple[Array, Array]:
    """Return the 1,797 images of 8 × 8 pixels bundled with scikit-learn, and their digits."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x, y


def _adding(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return sequences of numbers and marks, and the sum of the two marked numbers.

    One number is marked in each half (Hochreiter and Schmidhuber 1997). Who always guesses 1
    is wrong by 1/6 in the mean square.
    """
    numbers = rng.uniform(0, 1, (count, LENGTH))
    first = rng.integers(0, LENGTH // 2, count)
    second = rng.integers(LENGTH // 2, LENGTH, count)
    rows = np.arange(count)
    marks = np.zeros_like(numbers)
    marks[rows, first] = marks[rows, second] = 1
    return np.stack([numbers, marks], axis=2), (numbers[rows, first] + numbers[rows, second])[:, None]


def _ring(count: int, rng: np.random.Generator) -> Array:
    """Return points of eight Gaussians whose centres lie on a circle."""
    return ring_centres()[rng.integers(0, MODES, count)] + rng.normal(0, SPREAD, (count, 2))


def _split(model: str, name: str, x: Array, y: Array) -> Data:
    """Set a fifth aside for the test and, but for points, bring every feature to mean 0 and deviation 1."""
    order = np.random.default_rng(FIXED).permutation(len(x))
    held_out = max(1, round(TEST_SHARE * len(x)))
    test, train = order[:held_out], order[held_out:]
    if model != "wgan":
        axes = tuple(range(x.ndim - 1))
        mean, deviation = x[train].mean(axes), x[train].std(axes)
        varies = deviation > 1e-12 * np.abs(mean)  # a constant may have a deviation by rounding
        x = (x - mean) / np.where(varies, deviation, 1)
    return Data(name, x[train], y[train], x[test], y[test])


def _from_file(model: str, path: str) -> tuple[Array, Array]:
    """Return x and y of a file, checked."""
    try:
        arrays = members(path)
    except InputFileError as error:
        raise DataError(str(error)) from error
    x = _numbers(path, "x", arrays.get("x"))
    wanted = 3 if model == "rnn" else 2
    if model == "mlp" and x.ndim > 2:
        x = x.reshape(len(x), -1)
    if x.ndim != wanted or x.size == 0 or len(x) < 10:
        shape = "(examples, time, features)" if model == "rnn" else "(examples, features)"
        raise DataError(f"{path}: x has shape {x.shape}; the {model} needs {shape}, ten examples or more")
    if model == "wgan":
        return x, np.zeros(len(x))
    y = _numbers(path, "y", arrays.get("y"))
    if len(y) != len(x) or y.size != len(x):
        raise DataError(f"{path}: y has shape {y.shape}; give one for each of the {len(x)} examples of x")
    return (x, _classes(path, y.reshape(-1))) if model == "mlp" else (x, y.reshape(-1, 1))


def _numbers(path: str, name: str, array: object) -> Array:
    """Return an array of a file as float64; refuse what is none, or not finite."""
    if array is None:
        raise DataError(f"{path}: no array named {name} in it; numpy.savez({path!r}, x=…, y=…) writes one")
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim == 0:
        raise DataError(f"{path}: {name} is no array of real numbers")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{path}: {name} has a NaN or an infinity in it; leave such examples out")
    if numbers.size and abs(numbers).max() > LARGEST:
        raise DataError(f"{path}: {name} has numbers beyond ±{LARGEST:g}; divide them by their largest")
    return numbers


def _classes(path: str, y: Array) -> Array:
    """Return labels as integers; refuse what are none."""
    labels = np.clip(y, -1, len(y)).astype(np.int64)
    if not np.array_equal(labels, y) or labels.min() < 0 or not 1 <= labels.max() < len(y):
        raise DataError(
            f"{path}: y holds numbers from {y.min():g} to {y.max():g}; the mlp needs classes, integers from 0"
        )
    return labels
