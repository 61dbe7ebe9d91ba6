"""One rank of torch.distributed: python ranks_torch.py RANK RANKS STORE ANSWERS, each rank in a process."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import ml_dtypes
import numpy as np
from ranks_cases import Array, answer, cases, save

torch: Any = importlib.import_module("torch")
dist: Any = importlib.import_module("torch.distributed")


def all_reduce(array: Any, op: str) -> Any:
    tensor = torch.as_tensor(array)
    dist.all_reduce(tensor, getattr(dist.ReduceOp, op.upper()))
    return tensor


def put(x: Array) -> Any:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(x.copy())


def get(x: Any) -> Array:
    if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16:
        x = x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.asarray(x)


if __name__ == "__main__":
    rank, count, store, answers = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    torch.set_num_threads(1)
    save(answers, [answer(case, rank, all_reduce, put, get) for case in cases(count)])
    dist.barrier()  # no rank leaves while another one speaks to it
    dist.destroy_process_group()
