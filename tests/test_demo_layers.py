"""The demo's layers, losses and optimisers: every gradient against finite differences, every step by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clipcore.demo import layers
from clipcore.demo.layers import Layer, Network
from clipcore.demo.optimizers import SGD, Adam, Momentum
from clipcore.demo.rnn import Elman

H = 1e-5  # of the central differences, whose error is of the order of its square
CLOSE = 1e-6


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def slope(value: Callable[[], float], array: Any) -> Any:
    """The derivative of a value by every element of an array that it depends on, by central differences."""
    made = np.empty_like(array)
    for at in np.ndindex(array.shape):
        kept = array[at]
        array[at] = kept + H
        above = value()
        array[at] = kept - H
        made[at] = (above - value()) / (2 * H)
        array[at] = kept
    return made


def off(given: Any, wanted: Any) -> float:
    """How far two gradients are apart, relative to their length."""
    assert given.shape == wanted.shape
    assert np.linalg.norm(wanted) > 1e-3, "too flat to tell a wrong gradient"
    return float(np.linalg.norm(given - wanted) / np.linalg.norm(wanted))


def shaken(layer: Layer) -> Layer:
    """The layer with parameters of no special values."""
    for array in layer.parameters.values():
        array += rng(5).normal(0, 0.3, array.shape)
    return layer


LAYERS: dict[str, Callable[[], Layer]] = {
    "dense": lambda: layers.Dense(4, 3, rng()),
    "relu": layers.ReLU,
    "tanh": layers.Tanh,
    "batch norm": lambda: layers.BatchNorm(4),
    "layer norm": lambda: layers.LayerNorm(4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_gradient_of_a_layer_is_the_slope(name: str) -> None:
    layer, x = shaken(LAYERS[name]()), rng().normal(1, 2, (6, 4))
    weights = rng(4).normal(size=layer.forward(x).shape)  # a loss that looks at every output

    def loss() -> float:
        return float((layer.forward(x) * weights).sum())

    loss()
    dx = layer.backward(weights)
    assert off(dx, slope(loss, x)) < CLOSE
    assert layer.gradients.keys() == layer.parameters.keys()
    for each, gradient in dict(layer.gradients).items():
        assert off(gradient, slope(loss, layer.parameters[each])) < CLOSE, each


def test_every_gradient_through_time_is_the_slope() -> None:
    layer, x = shaken(Elman(2, 5, rng())), rng().normal(size=(3, 7, 2))
    weights = rng(4).normal(size=(3, 5))

    def loss() -> float:
        return float((layer.forward(x) * weights).sum())

    loss()
    dx = layer.backward(weights)
    assert off(dx, slope(loss, x)) < CLOSE
    for each, gradient in dict(layer.gradients).items():
        assert off(gradient, slope(loss, layer.parameters[each])) < CLOSE, each


def test_a_gradient_off_by_a_hundred_thousandth_is_found() -> None:
    layer, x = layers.Dense(4, 3, rng()), rng().normal(size=(6, 4))
    layer.forward(x)
    layer.backward(np.ones((6, 3)))
    right = slope(lambda: float(layer.forward(x).sum()), layer.parameters["kernel"])
    assert off(layer.gradients["kernel"], right) < CLOSE
    assert off(layer.gradients["kernel"] * (1 + 1e-5), right) > CLOSE


def test_the_losses_and_their_gradients() -> None:
    answer, labels = rng().normal(0, 2, (5, 4)), np.array([0, 3, 1, 1, 2])
    value, gradient = layers.softmax_cross_entropy(answer, labels)
    shares = np.exp(answer) / np.exp(answer).sum(axis=1, keepdims=True)
    assert value == pytest.approx(-np.log(shares[np.arange(5), labels]).mean(), rel=1e-14)
    assert off(gradient, slope(lambda: layers.softmax_cross_entropy(answer, labels)[0], answer)) < CLOSE

    wanted = rng(4).normal(size=(5, 4))
    value, gradient = layers.squared_error(answer, wanted)
    assert value == pytest.approx(np.mean((answer - wanted) ** 2), rel=1e-14)
    assert off(gradient, slope(lambda: layers.squared_error(answer, wanted)[0], answer)) < CLOSE


def test_the_cross_entropy_of_large_logits_does_not_overflow() -> None:
    value, gradient = layers.softmax_cross_entropy(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]))
    assert value == 5e3
    assert np.array_equal(gradient, np.array([[0, 0], [-0.5, 0.5]]))


def test_a_network_passes_gradients_through_all_its_layers() -> None:
    net = Network([layers.Dense(4, 5, rng()), layers.LayerNorm(5), layers.Tanh(), layers.Dense(5, 3, rng())])
    x, labels = rng().normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])

    def loss() -> float:
        return layers.softmax_cross_entropy(net.forward(x), labels)[0]

    dx = net.backward(layers.softmax_cross_entropy(net.forward(x), labels)[1])
    gradients = net.gradients
    assert list(net.parameters) == ["dense_0", "layernorm_1", "dense_3"] == list(gradients)
    assert off(dx, slope(loss, x)) < CLOSE
    for name, layer in net.parameters.items():
        for each, array in layer.items():
            assert off(gradients[name][each], slope(loss, array)) < CLOSE, (name, each)


def test_normalisation_brings_to_mean_zero_and_deviation_one() -> None:
    x = rng().normal(5, 3, (200, 4))
    for layer, axis in ((layers.BatchNorm(4), 0), (layers.LayerNorm(4), 1)):
        y = layer.forward(x)
        assert np.allclose(y.mean(axis), 0, atol=1e-12)
        assert np.allclose(y.var(axis), 1, atol=1e-4)


def test_batch_norm_predicts_by_running_means_and_does_not_learn_from_the_test() -> None:
    layer, x = layers.BatchNorm(1), np.array([[1.0], [3.0]])
    layer.forward(x)
    assert [float(each[0]) for each in layer.running] == pytest.approx([0.1 * 2, 0.9 * 1 + 0.1 * 1])
    kept = layer.running
    one = layer.forward(np.array([[7.0]]), training=False)
    assert one[0, 0] == pytest.approx((7 - 0.2) / np.sqrt(1.0 + layers.EPSILON))
    assert layer.running is kept


def test_the_steps_of_the_optimisers() -> None:
    g1, g2, lr = 0.5, -2.0, 0.1
    wanted = {
        SGD: -lr * (g1 + g2),
        Momentum: -lr * (g1 + (0.9 * g1 + g2)),
        Adam: -lr * (g1 / (np.sqrt(g1**2) + 1e-8))
        - lr
        * ((0.9 * 0.1 * g1 + 0.1 * g2) / (1 - 0.9**2))
        / (np.sqrt((0.999 * 0.001 * g1**2 + 0.001 * g2**2) / (1 - 0.999**2)) + 1e-8),
    }
    for kind, moved in wanted.items():
        optimizer, weights = kind(lr), {"layer": {"kernel": np.array([[1.0]])}}
        kernel = weights["layer"]["kernel"]
        for g in (g1, g2):
            optimizer.step(weights, {"layer": {"kernel": np.array([[g]])}})
        assert weights["layer"]["kernel"] is kernel, "the step is written into the parameters"
        assert kernel[0, 0] - 1 == pytest.approx(moved, rel=1e-12), kind
