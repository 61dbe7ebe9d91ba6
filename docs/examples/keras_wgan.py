"""A Wasserstein GAN whose critic is inside its range whenever the generator sees it.

    KERAS_BACKEND=tensorflow python docs/examples/keras_wgan.py

The same file runs with KERAS_BACKEND=jax and KERAS_BACKEND=torch: only how a backend takes
gradients differs. Nothing in a train step clips; fit is given WeightClipping, and each update
of the critic by the model's optimizer is clipped before anything else is computed.
"""

import keras
import numpy as np
from keras import ops

from clipcore.integrations.keras import WeightClipping

BATCH, CLIP, CRITIC_STEPS, NOISE = 64, 0.05, 3, 2


class WGAN(keras.Model):
    """A critic and a generator in turn, both updated by the model's one optimizer."""

    def __init__(self, critic, generator):
        super().__init__()
        self.critic, self.generator = critic, generator
        self.seed = keras.random.SeedGenerator(0)
        self.built = True

    def fakes(self):
        """Return generated points."""
        return self.generator(keras.random.normal((BATCH, NOISE), seed=self.seed))

    def critic_loss(self, real):
        """Return minus the distance that the critic sees."""
        return ops.mean(self.critic(self.fakes())) - ops.mean(self.critic(real))

    def generator_loss(self, _real):
        """Return what the generator lowers; here it sees the critic."""
        return -ops.mean(self.critic(self.fakes()))

    def in_turn(self, update):
        """Update the critic a few times, then the generator; `update` is the backend's part."""
        for _ in range(CRITIC_STEPS):
            critic_loss = update(self.critic_loss, self.critic)
        return {"distance": -critic_loss, "generator": update(self.generator_loss, self.generator)}


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    class Trained(WGAN):
        """On TensorFlow."""

        def train_step(self, real):
            """Train on a batch of real points."""

            def update(loss_of, network):
                with tf.GradientTape() as tape:
                    loss = loss_of(real)
                gradients = tape.gradient(loss, network.trainable_variables)
                self.optimizer.apply(gradients, network.trainable_variables)
                return loss

            return self.in_turn(update)

elif keras.backend.backend() == "torch":
    import torch

    class Trained(WGAN):
        """On torch."""

        def train_step(self, real):
            """Train on a batch of real points."""

            def update(loss_of, network):
                loss = loss_of(real)
                gradients = torch.autograd.grad(loss, [v.value for v in network.trainable_variables])
                with torch.no_grad():
                    self.optimizer.apply(gradients, network.trainable_variables)
                return loss.detach()

            return self.in_turn(update)

else:
    import jax

    def pairs(variables, values):
        """Return each variable with its value."""
        return list(zip(variables, values, strict=True))

    class Trained(WGAN):
        """On JAX, where the values of all variables go into the step and come back from it."""

        def train_step(self, state, real):
            """Train on a batch of real points."""
            *state, metrics = state
            kinds = [self.trainable_variables, self.non_trainable_variables, self.optimizer.variables]
            variables = [variable for kind in kinds for variable in kind]
            values = [value for kind in state for value in kind]

            def update(loss_of, network):
                own = network.trainable_variables

                def loss_and_values(own_values):
                    with keras.StatelessScope([*pairs(variables, values), *pairs(own, own_values)]) as scope:
                        loss = loss_of(real)
                    return loss, [scope.get_current_value(variable) for variable in variables]

                places = {id(variable): place for place, variable in enumerate(variables)}
                own_values = [values[places[id(variable)]] for variable in own]
                (loss, values[:]), gradients = jax.value_and_grad(loss_and_values, has_aux=True)(own_values)
                with keras.StatelessScope(pairs(variables, values)) as scope:
                    self.optimizer.apply(gradients, own)
                values[:] = [scope.get_current_value(variable) for variable in variables]
                return loss

            logs = self.in_turn(update)
            rest = iter(values)
            return logs, (*([next(rest) for _ in kind] for kind in kinds), metrics)


def network(inputs, outputs, name):
    """Return a small network."""
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(32, "relu"), keras.layers.Dense(outputs)]
    return keras.Sequential([keras.Input((inputs,)), *layers], name=name)


def train(kind=Trained, epochs=3, callbacks=(), **compile_with):
    """Train on eight Gaussians in a ring; return the model and its history."""
    keras.utils.set_random_seed(0)
    model = kind(network(2, 1, "critic"), network(NOISE, 2, "generator"))
    model.compile(optimizer=keras.optimizers.RMSprop(1e-3), **compile_with)
    model.optimizer.build(model.trainable_variables)
    generator = np.random.default_rng(0)
    angles = generator.integers(8, size=16 * BATCH) * np.pi / 4
    real = np.stack([np.cos(angles), np.sin(angles)], -1) + 0.05 * generator.normal(size=(16 * BATCH, 2))
    history = model.fit(
        real.astype("float32"), batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )
    return model, history


if __name__ == "__main__":
    # The paper clips all weights of the critic, biases too; the generator's are free.
    clipping = WeightClipping(-CLIP, CLIP, where=lambda path, _: path.startswith("critic/"))
    model, history = train(callbacks=[clipping])
    critic = max(abs(ops.convert_to_numpy(v).astype(float)).max() for v in model.critic.trainable_variables)
    free = max(abs(ops.convert_to_numpy(v).astype(float)).max() for v in model.generator.trainable_variables)
    assert critic <= CLIP < free
    print(f"critic within {critic:.4f}, generator within {free:.2f} on {keras.backend.backend()}")
