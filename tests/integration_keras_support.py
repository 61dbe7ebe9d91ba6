"""What the tests of Keras share: models, exact comparison, one watcher of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from adapter_support import opened

# asked of TensorFlow before it is imported: not to log what it finds on the machine
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# How a train step runs; torch has the first two, and compiles nothing unless it is asked to.
MODES: dict[str, dict[str, Any]] = {
    "eager": {"run_eagerly": True},
    "compiled": {"jit_compile": False},
    "xla": {"jit_compile": True},
    "three steps at once": {"jit_compile": False, "steps_per_execution": 3},
}


def opened_keras(request: pytest.FixtureRequest) -> Any:
    """Keras on the backend that KERAS_BACKEND names."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    opened(request, "keras")
    opened(request, backend)
    keras = opened(request, "keras")
    assert keras.backend.backend() == backend
    return keras


def need_mode(keras: Any, mode: str) -> dict[str, Any]:
    """The arguments of compile for a mode; the test is skipped where a backend has it not."""
    if keras.backend.backend() == "torch" and mode not in ("eager", "compiled"):
        pytest.skip("torch has no XLA, and Keras runs one step at once on it")
    return MODES[mode]


def numbers(keras: Any, variable: Any) -> list[Fraction]:
    """The elements of a variable, exactly."""
    values = np.asarray(keras.ops.convert_to_numpy(variable))
    return [Fraction(float(value)) for value in values.ravel()]


def is_inside(keras: Any, variables: Iterable[Any], lower: float, upper: float) -> bool:
    """Tell whether all elements are within the bounds as given, and whether there are any."""
    elements = [each for variable in variables for each in numbers(keras, variable)]
    return bool(elements) and all(Fraction(lower) <= each <= Fraction(upper) for each in elements)


def kernels(model: Any) -> list[Any]:
    """The trainable variables that Keras itself calls kernels."""
    return [v for v in model.trainable_variables if v.path.rpartition("/")[2].endswith("kernel")]


def at_every_batch(keras: Any, see: Callable[[Any], Any]) -> Any:
    """A callback that shows the model before and after every batch, also of a validation, and at the end."""
    watch = keras.callbacks.Callback()
    for name in ("on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin", "on_train_end"):
        setattr(watch, name, lambda *_args, **_names: see(watch.model))
    return watch


def data(rows: int = 40, shape: tuple[int, ...] = (4,), outputs: int = 1) -> tuple[Any, Any]:
    """The same inputs and targets at each call."""
    generator = np.random.default_rng(0)
    return (
        generator.normal(size=(rows, *shape)).astype("float32"),
        generator.normal(size=(rows, outputs)).astype("float32"),
    )


def dense(keras: Any, built: bool = True, dtype: Any = None, **kwargs: Any) -> Any:
    """A small model whose biases and scales begin far outside every range of the tests."""
    layers = keras.layers
    return keras.Sequential(
        [
            *([keras.Input((4,))] if built else []),
            layers.Dense(8, activation="relu", bias_initializer="ones", dtype=dtype, **kwargs),
            layers.BatchNormalization(dtype=dtype),
            layers.Dense(1, dtype=dtype, **kwargs),
        ]
    )


def two_headed(keras: Any) -> Any:
    """A model of two outputs with a shared layer, a nested model and most kinds of layers."""
    layers = keras.layers
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, layers.LayerNormalization()], name="inner")
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3)(image)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.SeparableConv2D(4, 3)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    x = inner(shared(x))
    sequence = layers.Reshape((2, 2))(x)
    sequence = layers.Bidirectional(layers.LSTM(2))(sequence)
    return keras.Model(
        image, {"first": layers.Dense(1, name="first")(x), "second": layers.Dense(1)(sequence)}
    )
