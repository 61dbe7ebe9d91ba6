"""Clip one gradient whose pieces are on the ranks of torch.distributed.

    torchrun --standalone --nproc-per-node 2 docs/examples/torch_distributed.py

Every rank holds other layers (a pipeline, a sharded model) and one layer that all hold. With
NCCL give the tensor the rank's device: ``torch.as_tensor(array, device="cuda")``.
"""

import torch
import torch.distributed as dist

from clipcore import clip_by_global_norm, global_norm


def all_reduce(array, op):
    """Reduce a small array over all ranks; a rank without leaves is given NumPy's."""
    tensor = torch.as_tensor(array)
    dist.all_reduce(tensor, dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX)
    return tensor


dist.init_process_group("gloo")
rank, count = dist.get_rank(), dist.get_world_size()

# What one machine would hold: a layer for each rank, and one that all share.
generator = torch.Generator().manual_seed(0)
layers = [torch.randn(100 * each, generator=generator) for each in range(count)]
shared = torch.randn(5, generator=generator)

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
assert torch.equal(clipped["layer"], alone[rank])
assert torch.equal(clipped["shared"], alone[-1])
if rank == 0:
    print(f"norm {norm:.6f} on all {count} ranks, as on one machine")
dist.barrier()  # no rank leaves while another one speaks to it
dist.destroy_process_group()
