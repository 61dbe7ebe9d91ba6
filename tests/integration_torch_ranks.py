"""One rank that clips DTensors: python integration_torch_ranks.py RANK RANKS STORE ANSWERS, each alone."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from ranks_cases import save, told
from ranks_dtensor import fully_shard, init_device_mesh, layers, parts, tensor
from ranks_torch import dist, get, torch

LIMIT = 0.25
Partial, Replicate, Shard = tensor.Partial, tensor.Replicate, tensor.Shard


def parameter_of(gradient: Any) -> Any:
    parameter = torch.zeros_like(gradient)
    parameter.grad = gradient
    return parameter


def partial(mesh: Any, rank: int, places: list[Any]) -> Any:
    """A tensor that is yet to be summed over ranks."""
    mine = torch.arange(6.0).reshape(2, 3) * (rank + 1)
    return tensor.DTensor.from_local(mine, mesh, places, run_check=False)


def trees(rank: int, count: int) -> Iterator[tuple[str, list[Any]]]:
    """Gradients on many ranks, each tree with its name."""
    line = init_device_mesh("cpu", (count,))
    square = init_device_mesh("cpu", (2, count // 2), mesh_dim_names=("replicate", "shard"))
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        yield f"FSDP2 in {dtype}", layers(line, dtype)
    yield "placements", [parts(line, Replicate()), parts(line, Shard(1)), parts(line, Shard(0))]
    yield "HSDP", layers(square, torch.float32)
    yield "two dimensions", [parts(square, *each) for each in [(Shard(0), Shard(1)), (Replicate(), Shard(0))]]
    yield (
        "two meshes",
        [parts(line, Shard(0)), parts(square, Shard(1), Replicate()), parts(line, Replicate())],
    )
    yield "beside a plain one", [parts(line, Shard(0)), torch.arange(5.0, dtype=torch.float64)]
    yield "yet to be summed", [partial(line, rank, [Partial()]), parts(line, Shard(0))]
    yield "summed along one", [partial(square, rank, [Partial(), Shard(1)])]


def whole(x: Any) -> Any:
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def clipped(ours: Any, gradients: list[Any]) -> dict[str, Any]:
    """A tree before, clipped once and twice, with its norm."""
    before = [get(whole(each)).copy() for each in gradients]
    parameters = [parameter_of(each) for each in gradients]
    norm = ours.clip_grad_norm_(iter(parameters), LIMIT)
    once = [get(whole(each.grad)).copy() for each in parameters]
    ours.clip_grad_norm_(parameters, LIMIT)
    again = [get(whole(each.grad)) for each in parameters]
    kept = [parameter.grad is each for parameter, each in zip(parameters, gradients, strict=True)]
    answer = told(once, get(norm.full_tensor()), again)
    return {**answer, "before": told(before, get(norm.to_local()), [])["once"], "kept": kept}


def refused(ours: Any, rank: int, line: Any) -> list[str]:
    """What is said of NaN on one rank alone, and of a weight that has no elements yet."""
    gradient = parts(line, Shard(0)).to(torch.float32)
    if rank == 0:
        gradient.to_local()[0, 0] = float("nan")
    weight = parameter_of(gradient)
    seen = []
    summed = partial(line, rank, [Partial()])
    for clip, arguments in (
        (ours.clip_grad_norm_, (weight, 1.0, 2.0, True)),
        (ours.clip_weights_, ([summed], -1, 1)),
    ):
        try:
            clip(*arguments)
        except (RuntimeError, ValueError) as error:
            seen.append(str(error))
    ours.clip_grad_norm_(weight, 1.0)
    seen.append(str(bool(weight.grad.to_local().isnan().all())))
    return seen


def ranged(ours: Any, line: Any) -> dict[str, Any]:
    """Weights of FSDP2 after steps that clip them, and gradients cut to a value."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    fully_shard(model, mesh=line)
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    ours.attach_weight_clipping(optimizer, -0.1, 0.1, where=lambda name, parameter: parameter.ndim > 1)
    model(torch.ones(4, 5)).square().sum().backward()
    ours.clip_grad_value_(model.parameters(), 0.1)
    optimizer.step()
    values = [get(each.grad.full_tensor()) for each in model.parameters()]
    weights = [get(each.detach().full_tensor()) for each in model.parameters()]
    return told(values, get(torch.zeros(())), weights)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own
    rank, count, store, answers = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    torch.set_num_threads(1)
    ours: Any = importlib.import_module("clipcore.integrations.torch")
    after: dict[str, Any] = {name: clipped(ours, gradients) for name, gradients in trees(rank, count)}
    after["refused"] = refused(ours, rank, init_device_mesh("cpu", (count,)))
    after["ranged"] = ranged(ours, init_device_mesh("cpu", (count,)))
    # The clips of a GPU, on the CPU that has the same operations.
    lists: Any = importlib.import_module("clipcore.integrations._torch_lists")
    lists.DEVICES = {"cpu"}
    for name, gradients in trees(rank, count):
        after[f"{name}, as lists"] = clipped(ours, gradients)
    save(answers, after)
    dist.barrier()  # no rank leaves while another one speaks to it
    # DTensor keeps gloo's threads: one that holds a tensor as Python ends aborts it (pytorch#190489).
    time.sleep(1)
    dist.destroy_process_group()
