"""Clip one gradient whose pieces are on eight devices of JAX, inside jax.shard_map.

    python docs/examples/jax_shard_map.py

The devices are of the CPU here; on a GPU or TPU leave the first two lines of code away.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from clipcore import clip_by_global_norm, global_norm

MESH = jax.make_mesh((8,), ("ranks",))
SHARDED, SAME = PartitionSpec("ranks"), PartitionSpec()


def all_reduce(array, op):
    """Reduce a small array over all ranks."""
    return jax.lax.psum(array, "ranks") if op == "sum" else jax.lax.pmax(array, "ranks")


@jax.jit
@jax.shard_map(mesh=MESH, in_specs=(SHARDED, SAME), out_specs=(SHARDED, SAME, SAME))
def step(layer, shared):
    """Clip a leaf that is cut over the ranks together with one that all of them hold, which counts once."""
    counted = jnp.where(jax.lax.axis_index("ranks") == 0, shared, 0)
    norm = global_norm([layer, counted], all_reduce=all_reduce)
    (layer, shared), _ = clip_by_global_norm([layer, shared], 1.0, norm=norm)
    return layer, shared, norm


layer = jax.random.normal(jax.random.key(0), (800,))
shared = jax.random.normal(jax.random.key(1), (5,))
(layer_alone, shared_alone), expected = clip_by_global_norm([layer, shared], 1.0)

places = NamedSharding(MESH, SHARDED), NamedSharding(MESH, SAME)
layer, shared, norm = step(jax.device_put(layer, places[0]), jax.device_put(shared, places[1]))

# Without jax_enable_x64 norms are of float32: within 4 ulp.
assert abs(norm - expected) <= 2**-21 * expected
np.testing.assert_allclose(layer, layer_alone, rtol=2**-20)
np.testing.assert_allclose(shared, shared_alone, rtol=2**-20)
assert global_norm([np.asarray(layer), np.asarray(shared)]) <= 1
print(f"norm {norm:.6f} on all {jax.device_count()} ranks, as on one machine")
