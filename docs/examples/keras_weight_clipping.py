"""Clip the kernels of a Keras model after every gradient update.

    KERAS_BACKEND=tensorflow python docs/examples/keras_weight_clipping.py

The same file runs with KERAS_BACKEND=jax and KERAS_BACKEND=torch.
"""

import keras
import numpy as np

from clipcore.integrations.keras import WeightClipping

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]
)
model.compile(optimizer="adam", loss="mse")

x = np.random.default_rng(0).normal(size=(256, 8, 8, 1)).astype("float32")
y = x.mean(axis=(1, 2))
model.fit(x, y, epochs=3, verbose=0, callbacks=[WeightClipping(-0.05, 0.05)])

convolution, normalisation, _, head = model.layers
kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in (convolution, head)]
gamma = keras.ops.convert_to_numpy(normalisation.gamma)
assert all(abs(kernel.astype(float)).max() <= 0.05 for kernel in kernels)
assert gamma.min() > 0.9  # it began at 1, and was left alone
print(f"largest weight {max(abs(kernel).max() for kernel in kernels):.4f} on {keras.backend.backend()}")
