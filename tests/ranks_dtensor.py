"""One rank with gradients of FSDP2: python ranks_dtensor.py RANK RANKS STORE ANSWERS, a process each."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from ranks_cases import save, told
from ranks_torch import all_reduce, dist, get, torch

import clipcore as cc

fully_shard: Any = importlib.import_module("torch.distributed.fsdp").fully_shard
init_device_mesh: Any = importlib.import_module("torch.distributed.device_mesh").init_device_mesh
tensor: Any = importlib.import_module("torch.distributed.tensor")
Replicate, Shard = tensor.Replicate, tensor.Shard
LIMIT = 0.25


def counts(x: Any) -> bool:
    """Tell whether this rank is the one that counts its part of x: the first of those that hold it."""
    place = zip(x.placements, x.device_mesh.get_coordinate(), strict=True)
    return all(coordinate == 0 for placement, coordinate in place if placement.is_replicate())


def layers(mesh: Any, dtype: Any) -> list[Any]:
    """The gradients of a network whose layers no number of ranks divides."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).to(dtype)
    for layer in (*model, model):
        fully_shard(layer, mesh=mesh)
    torch.manual_seed(1 + dist.get_rank())
    model(torch.randn(4, 5, dtype=dtype)).square().sum().backward()
    return [each.grad for each in model.parameters()]


def parts(mesh: Any, *placements: Any) -> Any:
    """A tensor of one's own placement."""
    whole = torch.arange(35.0, dtype=torch.float64).reshape(7, 5) - 17
    return tensor.distribute_tensor(whole, mesh, placements)


def trees(count: int) -> Iterator[tuple[str, list[Any]]]:
    """Trees of DTensors, each with its name."""
    line = init_device_mesh("cpu", (count,))
    yield "FSDP2", layers(line, torch.float32)
    yield "FSDP2 in bfloat16", layers(line, torch.bfloat16)
    yield "replicated and sharded", [parts(line, Replicate()), parts(line, Shard(1)), parts(line, Shard(0))]
    if count == 4:
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        yield "HSDP", layers(square, torch.float32)
        placements = [(Shard(0), Shard(1)), (Shard(0), Replicate()), (Replicate(), Replicate())]
        yield "two dimensions", [parts(square, *each) for each in placements]


def refused(x: Any) -> str:
    """What clipcore says to a tensor given as it is."""
    try:
        cc.clip_by_global_norm({"w": x}, 1.0)
    except TypeError as error:
        return str(error)
    return "nothing"


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own
    rank, count, store, answers = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    torch.set_num_threads(1)
    after: dict[str, Any] = {}
    for name, gradients in trees(count):
        before = [get(each.full_tensor()).copy() for each in gradients]
        local = [each.to_local() for each in gradients]
        own = [part if counts(each) else None for part, each in zip(local, gradients, strict=True)]
        norm = cc.global_norm(own, all_reduce=all_reduce)
        cc.clip_by_global_norm(local, LIMIT, norm=norm, out=local)
        once = [get(each.full_tensor()) for each in gradients]
        after[name] = {**told(once, get(norm), once), "before": told(before, get(norm), [])["once"]}
        after[name]["empty"] = [not part.numel() for part in local]
    line = init_device_mesh("cpu", (count,))
    after["refused"] = [refused(parts(line, each)) for each in (Shard(0), Replicate())]
    after["refused"].append(refused(tensor.DTensor.from_local(torch.ones(2), line, [tensor.Partial()])))
    save(answers, after)
    dist.barrier()  # no rank leaves while another one speaks to it
    # DTensor keeps gloo's threads: one that holds a tensor as Python ends aborts it (pytorch#190489).
    time.sleep(1)
    dist.destroy_process_group()
