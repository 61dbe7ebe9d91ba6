"""Clip one gradient whose pieces are on two workers of dask.distributed.

    python docs/examples/dask_distributed.py

Tasks have no all-reduce of their own: the ranks meet at an actor. Each rank needs a worker to
itself, since it waits for the others.
"""

import asyncio

import numpy as np
from distributed import Client, LocalCluster

from clipcore import clip_by_global_norm


class Meeting:
    """Where the numbers of all ranks meet."""

    def __init__(self, count):
        self.count, self.given = count, []

    async def reduce(self, array, op):
        """Wait for the array of every rank; return their sum or maximum."""
        if not self.given:
            self.reduced = asyncio.get_running_loop().create_future()
        self.given.append(array)
        reduced = self.reduced
        if len(self.given) == self.count:
            reduced.set_result(np.sum(self.given, 0) if op == "sum" else np.max(self.given, 0))
            self.given = []
        return await reduced


def step(layer, meeting):
    """Clip the leaf of one rank."""
    return clip_by_global_norm(layer, 1.0, all_reduce=lambda array, op: meeting.reduce(array, op).result())


if __name__ == "__main__":
    layers = [np.random.default_rng(rank).standard_normal(1000 + rank) for rank in range(2)]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        meeting = client.submit(Meeting, 2, actor=True).result()
        workers = list(client.scheduler_info()["workers"])
        tasks = zip(layers, workers, strict=True)
        results = client.gather([client.submit(step, x, meeting, workers=[worker]) for x, worker in tasks])
    alone, expected = clip_by_global_norm(layers, 1.0)
    for (clipped, norm), wanted in zip(results, alone, strict=True):
        assert norm == expected
        np.testing.assert_allclose(clipped, wanted, rtol=2**-50)
    print(f"norm {norm:.6f} on all 2 ranks, as on one machine")
