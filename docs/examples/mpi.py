"""Clip one gradient whose pieces are on the ranks of MPI.

    mpirun -n 4 python docs/examples/mpi.py

As root, and with more ranks than cores, Open MPI wants ``--allow-run-as-root --oversubscribe``.
"""

import numpy as np
from mpi4py import MPI

from clipcore import clip_by_global_norm, global_norm

world = MPI.COMM_WORLD
rank, count = world.Get_rank(), world.Get_size()


def all_reduce(array, op):
    """Reduce a small array over all ranks."""
    reduced = np.empty_like(array)
    world.Allreduce(array, reduced, MPI.SUM if op == "sum" else MPI.MAX)
    return reduced


# What one machine would hold: a layer for each rank, none on the first, and one that all share.
generator = np.random.default_rng(0)
layers = [generator.standard_normal(100 * each).astype(np.float32) for each in range(count)]
shared = generator.standard_normal(5)

# Every leaf is on one rank only: one call.
clipped, norm = clip_by_global_norm([layers[rank]], 1.0, all_reduce=all_reduce)
alone = global_norm(layers)
assert abs(norm - alone) <= 2**-44 * alone

# The shared leaf counts once: measure with it on one rank, then clip by that norm.
gradient = {"layer": layers[rank], "shared": shared}
counted = gradient if rank == 0 else {**gradient, "shared": None}
norm = global_norm(counted, all_reduce=all_reduce)
clipped, _ = clip_by_global_norm(gradient, 1.0, norm=norm)

alone, expected = clip_by_global_norm([*layers, shared], 1.0)
assert abs(norm - expected) <= 2**-44 * expected
np.testing.assert_array_equal(clipped["layer"], alone[rank])
np.testing.assert_allclose(clipped["shared"], alone[-1], rtol=2**-43)
if rank == 0:
    print(f"norm {norm:.6f} on all {count} ranks, as on one machine")
