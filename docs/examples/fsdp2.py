"""Clip the gradients of a model sharded by FSDP2, in place.

    torchrun --standalone --nproc-per-node 2 docs/examples/fsdp2.py

A gradient is a DTensor; ``to_local()`` is this rank's part of it, in the same memory.
"""

import time

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from clipcore import clip_by_global_norm, global_norm


def all_reduce(array, op):
    """Reduce a small array over all ranks; a rank without leaves is given NumPy's."""
    tensor = torch.as_tensor(array)
    dist.all_reduce(tensor, dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX)
    return tensor


def counts(x):
    """Tell whether this rank counts its part of a DTensor: it is the first of those that hold it."""
    places = zip(x.placements, x.device_mesh.get_coordinate(), strict=True)
    return all(coordinate == 0 for placement, coordinate in places if placement.is_replicate())


dist.init_process_group("gloo")
rank, count = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
model(torch.randn(4, 5)).square().sum().backward()

gradients = [parameter.grad for parameter in model.parameters()]
before = [gradient.full_tensor().clone() for gradient in gradients]

local = [gradient.to_local() for gradient in gradients]
counted = [part if counts(gradient) else None for part, gradient in zip(local, gradients, strict=True)]
norm = global_norm(counted, all_reduce=all_reduce)
clip_by_global_norm(local, 0.1, norm=norm, out=local)

alone, expected = clip_by_global_norm(before, 0.1)
assert abs(norm - expected) <= 2**-44 * expected
for gradient, wanted in zip(gradients, alone, strict=True):
    assert torch.equal(gradient.full_tensor(), wanted)
if rank == 0:
    print(f"norm {norm:.6f} on all {count} ranks, as on one machine")
dist.barrier()  # no rank leaves while another one speaks to it
# DTensor keeps gloo's threads: one that holds a tensor as Python ends aborts it (pytorch#190489).
time.sleep(1)
dist.destroy_process_group()
