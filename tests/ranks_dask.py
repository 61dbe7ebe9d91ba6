"""Two ranks on the workers of dask.distributed: python ranks_dask.py ANSWERS, a file for each rank."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ranks_cases import Answer, Array, answer, cases, save

distributed: Any = importlib.import_module("distributed")
COUNT = 2


class Meeting:
    """Where the numbers of all ranks meet: an actor on one of the workers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.given: list[Array] = []
        self.reduced: asyncio.Future[Array]

    async def reduce(self, array: Array, op: str) -> Array:
        """Wait for the array of every rank; return their sum or maximum."""
        if not self.given:
            self.reduced = asyncio.get_running_loop().create_future()
        self.given.append(array)
        reduced = self.reduced
        if len(self.given) == self.count:
            reduced.set_result(np.sum(self.given, 0) if op == "sum" else np.max(self.given, 0))
            self.given = []
        return await reduced


def rank_answers(rank: int, meeting: Any) -> list[Answer]:
    """What one rank has after each case."""

    def all_reduce(array: Array, op: str) -> Array:
        reduced: Array = meeting.reduce(array, op).result()
        return reduced

    return [answer(case, rank, all_reduce) for case in cases(COUNT)]


if __name__ == "__main__":
    where = {"host": "127.0.0.1", "dashboard_address": None}
    with (
        distributed.LocalCluster(n_workers=COUNT, threads_per_worker=1, **where) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.upload_file(str(Path(__file__).with_name("ranks_cases.py")))
        meeting = client.submit(Meeting, COUNT, actor=True).result()
        workers = list(client.scheduler_info()["workers"])
        futures = [
            client.submit(rank_answers, rank, meeting, workers=[worker])
            for rank, worker in enumerate(workers)
        ]
        for rank, answers in enumerate(client.gather(futures)):
            save(sys.argv[1].format(rank), answers)
