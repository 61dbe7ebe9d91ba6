"""One rank of MPI: mpirun -n RANKS python ranks_mpi.py ANSWERS, which names a file for each rank."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
from ranks_cases import Array, answer, cases, save

MPI: Any = importlib.import_module("mpi4py.MPI")
world = MPI.COMM_WORLD


def all_reduce(array: Array, op: str) -> Array:
    reduced = np.empty_like(array)
    world.Allreduce(array, reduced, MPI.SUM if op == "sum" else MPI.MAX)
    return reduced


if __name__ == "__main__":
    rank = world.Get_rank()
    answers = [answer(case, rank, all_reduce) for case in cases(world.Get_size())]
    save(sys.argv[1].format(rank), answers)
