"""Train a small network with optax: gradients clipped by their global norm, weights kept in a range.

    python docs/examples/optax_training.py

Every step runs inside jax.jit; what is printed was in the optimiser's state.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipcore import global_norm
from clipcore.integrations.optax import clip_by_global_norm, keep_weights_in_range

MAX_NORM, RANGE = 0.5, 0.3


def is_kernel(path, _):
    """Biases are left alone."""
    return path[-1] == "kernel"


optimizer = optax.chain(
    clip_by_global_norm(MAX_NORM),
    optax.adam(0.03),
    keep_weights_in_range(-RANGE, RANGE, where=is_kernel),  # last: it has to see what is added
)


def predict(weights, x):
    """Return the network's answer."""
    hidden = jnp.tanh(x @ weights["hidden"]["kernel"] + weights["hidden"]["bias"])
    return hidden @ weights["out"]["kernel"] + weights["out"]["bias"]


def loss(weights, x, y):
    """Return the mean squared error."""
    return jnp.mean((predict(weights, x) - y) ** 2)


@jax.jit
def step(weights, state, x, y):
    """Return weights and state after one update, and the loss before it."""
    error, gradients = jax.value_and_grad(loss)(weights, x, y)
    updates, state = optimizer.update(gradients, state, weights)
    return optax.apply_updates(weights, updates), state, error


key = jax.random.key(0)
x = jax.random.uniform(key, (256, 2), minval=-2, maxval=2)
y = jnp.sin(x[:, :1]) + x[:, 1:] ** 2 / 2
weights = {
    "hidden": {
        "kernel": jax.random.uniform(key, (2, 32), minval=-RANGE, maxval=RANGE),
        "bias": jnp.zeros(32),
    },
    "out": {"kernel": jnp.zeros((32, 1)), "bias": jnp.zeros(1)},
}
state = optimizer.init(weights)

norms, errors = [], []
for _ in range(300):
    weights, state, error = step(weights, state, x, y)
    norms.append(float(state[0].norm))
    errors.append(float(error))
    for layer in weights.values():
        kernel = np.asarray(layer["kernel"], np.float64)
        assert kernel.min() >= -RANGE
        assert kernel.max() <= RANGE

clipped = sum(norm > MAX_NORM for norm in norms)
at_bound = sum(int((abs(layer["kernel"]) > RANGE - 1e-6).sum()) for layer in weights.values())
assert errors[-1] < errors[0] / 5
gradients = jax.grad(loss)(weights, x, y)
updates, _ = clip_by_global_norm(1e-3).update(gradients, None)
assert global_norm(jax.tree.map(np.asarray, updates)) <= 1e-3
print(
    f"loss {errors[0]:.3f} -> {errors[-1]:.3f}, {clipped} of 300 steps clipped, "
    f"{at_bound} of 96 weights at a bound"
)
