"""Ranks of a training as threads of one process, with the methods of mpi4py's communicators."""

import pickle
import threading
from collections.abc import Callable
from typing import Any

from tests.helpers import HANGING


class World:
    """The ranks of one training, and the values that they exchange."""

    def __init__(self, size: int) -> None:
        self.size, self.values = size, [None] * size
        self.barrier = threading.Barrier(size)


class ThreadRank:
    """One rank's communicator; a rank that never calls what the others call breaks all."""

    def __init__(self, world: World, rank: int) -> None:
        self._world, self._rank = world, rank

    def Get_rank(self) -> int:  # noqa: N802
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        return self._world.size

    def allgather(self, value: Any) -> list[Any]:
        return [pickle.loads(each) for each in self._all(pickle.dumps(value))]  # noqa: S301

    def _all(self, value: Any) -> list[Any]:
        self._world.values[self._rank] = value
        self._world.barrier.wait(HANGING)  # a rank that was left behind
        values = list(self._world.values)
        self._world.barrier.wait(HANGING)  # a rank that was left behind
        return values

    def Allreduce(self, part: Any, total: Any) -> None:  # noqa: N802
        first, *others = self._all(part.copy())
        total[...] = sum(others, start=first)


def on_ranks(xp: Any, size: int, call: Callable[[ThreadRank, int], Any]) -> list[Any]:
    """Return what a function returns or raises on each rank, ``call(communicator, rank)``."""
    world, results = World(size), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = xp.in_a_thread(lambda: call(ThreadRank(world, rank), rank))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
