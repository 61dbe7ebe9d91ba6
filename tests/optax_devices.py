"""Transformations on eight devices of the CPU: every way JAX spreads a step over them, beside one device.

Started by tests/test_integration_optax_chains.py in a process of its own.
"""

from __future__ import annotations

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from clipcore.integrations.optax import (
    clip_by_global_norm,
    clip_by_l1_norm,
    clip_by_l2_norm,
    clip_by_value,
    keep_weights_in_range,
)
from clipcore.verify.exact import exact_norm

CUT, SAME = PartitionSpec("ranks"), PartitionSpec()
WEIGHTS = {"layer": np.linspace(-1, 1, 48, dtype=np.float32).reshape(16, 3), "bias": np.ones(3, np.float32)}
GRADIENTS = {
    "layer": np.linspace(3, -2, 48, dtype=np.float32).reshape(16, 3),
    "bias": np.zeros(3, np.float32),
}
SPECS = {"layer": CUT, "bias": SAME}
CHAINS = {
    "global": clip_by_global_norm(0.5),
    "l1": clip_by_l1_norm(0.5),
    "l2": clip_by_l2_norm(0.5),
    "rows": clip_by_l2_norm(0.5, axis=-1),
    "value": clip_by_value(-0.5, 0.25),
}


def all_reduce(array: Any, op: str) -> Any:
    return jax.lax.psum(array, "ranks") if op == "sum" else jax.lax.pmax(array, "ranks")


def step_of(clip: Any) -> Any:
    """The optimiser with a clip, and one step of it."""
    optimizer = optax.chain(clip, optax.sgd(0.5, momentum=0.9), keep_weights_in_range(-1, 0.9))

    def step(weights: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    return optimizer, step


def check(name: str, where: str, got: Any, wanted: Any) -> None:
    """Compare with one device, whose norm is summed in another order."""
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(
            np.asarray(one), np.asarray(other), rtol=2**-20, atol=2**-30, err_msg=f"{name} {where}"
        )
    for leaf in jax.tree.leaves(got[0]):
        assert -1 <= np.asarray(leaf).min() <= np.asarray(leaf).max() <= 0.9


def main() -> None:
    """Run every chain in every way."""
    for name, clip in CHAINS.items():
        optimizer, step = step_of(clip)
        state = optimizer.init(WEIGHTS)
        alone = jax.jit(step)(WEIGHTS, state, GRADIENTS)
        for kind in (AxisType.Auto, AxisType.Explicit):
            mesh = jax.make_mesh((8,), ("ranks",), axis_types=(kind,))
            places = {key: NamedSharding(mesh, spec) for key, spec in SPECS.items()}
            weights, gradients = jax.device_put(WEIGHTS, places), jax.device_put(GRADIENTS, places)
            with jax.set_mesh(mesh):
                got = jax.jit(step)(weights, jax.jit(optimizer.init)(weights), gradients)
                assert all(
                    got[0][key].sharding.is_equivalent_to(places[key], got[0][key].ndim) for key in places
                )
                check(name, f"under jit, {kind}", got, alone)
                jax.jit(step, donate_argnums=(0, 1))(*got, gradients)
        batch = jax.tree.map(lambda x: np.stack([x] * 8), (WEIGHTS, state, GRADIENTS))
        rows = jax.pmap(step)(*batch)
        check(name, "under pmap", jax.tree.map(lambda x: x[3], rows), alone)
    mesh = jax.make_mesh((8,), ("ranks",))
    clip = clip_by_global_norm(0.5, all_reduce=all_reduce)
    cut = {"layer": GRADIENTS["layer"]}
    shards = jax.shard_map(clip.update, mesh=mesh, in_specs=(CUT, SAME), out_specs=(CUT, SAME))
    updates, state = jax.jit(shards)(jax.device_put(cut, NamedSharding(mesh, CUT)), clip.init(cut))
    alone, alone_state = clip_by_global_norm(0.5).update(cut, None)
    np.testing.assert_allclose(np.asarray(updates["layer"]), np.asarray(alone["layer"]), rtol=2**-20)
    np.testing.assert_allclose(float(state.norm), float(alone_state.norm), rtol=2**-20)
    assert exact_norm([np.asarray(updates["layer"])], 2).compare(0.5) <= 0
    sys.stdout.write("on 8 devices as on one\n")


if __name__ == "__main__":
    main()
