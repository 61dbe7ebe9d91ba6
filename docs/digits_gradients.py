"""Save the gradients of a small network learning scikit-learn's handwritten digits.

Usage: ``python docs/digits_gradients.py digits.npz``, then ``clipcore verify --input digits.npz``.

One hidden layer of rectified linear units, softmax and cross-entropy, minibatches, plain gradient descent:
all in NumPy and seeded, so the same NumPy writes the same file. The first steps come from a fresh network,
the later ones from one that has begun to learn.
"""

import sys

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Array = NDArray[np.float32]

HIDDEN = 32
BATCH = 64
STEPS = 40
SAVE_EVERY = 10
LEARNING_RATE = np.float32(0.5)


def gradients(params: dict[str, Array], images: Array, labels: NDArray[np.int64]) -> dict[str, Array]:
    """Return the gradient of the mean cross-entropy by every parameter."""
    hidden = np.maximum(images @ params["w1"] + params["b1"], 0)
    logits = hidden @ params["w2"] + params["b2"]
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(labels)), labels] -= 1
    d_logits = chances / np.float32(len(labels))
    d_hidden = (d_logits @ params["w2"].T) * (hidden > 0)
    return {
        "w1": images.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_logits,
        "b2": d_logits.sum(axis=0),
    }


def main(path: str) -> None:
    """Train for a few steps and write the gradients of every tenth to `path`."""
    rng = np.random.default_rng(0)
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32)
    params = {
        "w1": (rng.standard_normal((64, HIDDEN)) / 8).astype(np.float32),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": (rng.standard_normal((HIDDEN, 10)) / HIDDEN**0.5).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }
    saved = {}
    for step in range(STEPS):
        batch = rng.choice(len(images), BATCH, replace=False)
        grads = gradients(params, images[batch], labels[batch])
        if step % SAVE_EVERY == 0:
            saved |= {f"step{step:02d}.{name}": grad for name, grad in grads.items()}
        params = {name: params[name] - LEARNING_RATE * grads[name] for name in params}
    np.savez(path, **saved)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/digits_gradients.py FILE.npz")
    main(sys.argv[1])
