"""When a training on several ranks pays: a cost model, fitted and checked, and what it predicts.

A step of n ranks on a batch of B rows takes::

    T(n) = f + c B / n + 2 (n - 1) / n M / beta + 2 (n - 1) alpha

seconds: f for the update and the calls, c for a row, and an all-reduce in a ring of M bytes over
links of beta bytes a second that begin after alpha seconds. Run it by::

    mpirun -n 2 python -m benchmarks.scale

Every rank measures a training of its own at the same time: the ranks of a machine share its memory,
also where they train together.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import backprop_xp as bx

SIZES = [784, 512, 512, 10]
BATCHES = [128, 256, 512, 1024, 2048]
GIGABIT = 1e9 / 8.0


class Cost(NamedTuple):
    """The constants of the model, in seconds and bytes."""

    f: float
    c: float
    alpha: float
    beta: float

    def step(self, ranks: int, rows: int, size: int) -> float:
        """Return the seconds of a step for a theta of ``size`` bytes."""
        links = 2.0 * (ranks - 1)
        return self.f + self.c * rows / ranks + links * (size / ranks / self.beta + self.alpha)


def break_even(flops: float, beta: float, bytes_per_number: int = 4) -> float:
    """Return the rows of a batch above which many ranks are faster than one.

    A row takes 6 operations for each parameter, two forwards and four backwards, and the all-reduce
    sends each parameter twice: 6 B / F > 2 s / beta.
    """
    return bytes_per_number * flops / (3.0 * beta)


def seconds_of_step(communicator: Any, rows: int, steps: int = 8, epochs: int = 7) -> float:
    """Return the median over epochs of a step's seconds."""
    network = bx.mlp(SIZES, hidden="relu", loss="categorical_cross_entropy")
    generator = np.random.default_rng(communicator.rank)
    own = rows * steps // communicator.size
    x = generator.normal(size=(own, SIZES[0])).astype(np.float32)
    y = generator.integers(0, SIZES[-1], own)
    times: list[float] = []
    bx.fit(
        network,
        network.initialize(seed=0, dtype="float32"),
        x,
        y,
        optimizer=bx.Adam(),
        epochs=epochs,
        batch_size=rows,
        communicator=communicator,
        callbacks=[lambda state: times.append(time.perf_counter())],
    )
    return statistics.median(b - a for a, b in itertools.pairwise(times)) / steps


def fitted(communicator: Any, alone: Sequence[float]) -> Cost:
    """Return the constants: f and c by least squares, alpha and beta from two all-reduces."""
    slope, intercept = np.polyfit(BATCHES, alone, 1, w=1.0 / np.asarray(alone))
    size = bx.mlp(SIZES).size * 4
    small, large = (seconds_of_sum(communicator, n) for n in (16, size))
    n = communicator.size
    alpha = small / (2.0 * (n - 1))
    return Cost(float(intercept), float(slope), alpha, 2.0 * (n - 1) / n * size / (large - small))


def seconds_of_sum(communicator: Any, size: int, times: int = 30) -> float:
    """Return the median seconds of an all-reduce of ``size`` bytes."""
    part, total = np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)
    seconds = []
    for _ in range(times):
        communicator.Barrier()
        start = time.perf_counter()
        communicator.Allreduce(part, total)
        seconds.append(time.perf_counter() - start)
    return float(communicator.allreduce(statistics.median(seconds))) / communicator.size


def measure(turns: int = 3) -> None:
    """Measure steps alone and together, fit the model, and print both."""
    from mpi4py import MPI

    world, n = MPI.COMM_WORLD, MPI.COMM_WORLD.size
    if n < 2:
        raise SystemExit("run it by mpirun -n 2 python -m benchmarks.scale")
    every = {"alone": list[list[float]](), "together": list[list[float]]()}
    for _ in range(turns):
        for name, communicator in (("alone", MPI.COMM_SELF), ("together", world)):
            world.Barrier()
            every[name].append([seconds_of_step(communicator, rows) for rows in BATCHES])
    medians = {
        name: [*map(statistics.median, zip(*turns, strict=True))] for name, turns in every.items()
    }
    together = medians["together"]
    alone = [float(np.mean(world.allgather(seconds))) for seconds in medians["alone"]]
    cost = fitted(world, alone)
    if world.rank:
        return
    size = bx.mlp(SIZES).size * 4
    write(f"{n} ranks, {SIZES}, float32, Adam: {cost}")
    write("rows of a batch | alone, ms | together, ms | model, ms | error | speed-up")
    for rows, one, many in zip(BATCHES, alone, together, strict=True):
        model = cost.step(n, rows, size)
        cells = *(f"{t * 1e3:.2f}" for t in (one, many, model)), f"{model / many - 1.0:+.0%}"
        write(" | ".join([str(rows), *cells, f"{one / many:.2f}"]))


# Operations a second of one rank in float32, and bytes a second and latency of its link.
PLACES = {
    "a CPU of 1 Tflop/s, 1 Gb/s": (1e12, GIGABIT, 50e-6),
    "a CPU of 1 Tflop/s, 10 Gb/s": (1e12, 10 * GIGABIT, 20e-6),
    "a CPU of 1 Tflop/s, 100 Gb/s": (1e12, 100 * GIGABIT, 2e-6),
    "a GPU of 50 Tflop/s, 100 Gb/s": (50e12, 100 * GIGABIT, 2e-6),
    "a GPU of 50 Tflop/s, 450 GB/s": (50e12, 450e9, 5e-6),
}


def speed_up(place: str, parameters: int, rows: int, ranks: int) -> float:
    """Return how many times as fast as one rank the model says that ranks are."""
    flops, beta, alpha = PLACES[place]
    cost = Cost(0.0, 6.0 * parameters / flops, alpha, beta)
    size = 4 * parameters
    return cost.step(1, rows, size) / cost.step(ranks, rows, size)


def predict(parameters: int = 10_000_000, rows: int = 65_536) -> None:
    """Print the break-even batch of each place, and the speed-up of 2 to 1,024 ranks."""
    ranks = [2**i for i in range(1, 11)]
    write(f"{parameters:,} parameters, batches of {rows:,} rows: speed-up by ranks")
    write(" | ".join(["place", "break-even rows", *map(str, ranks)]))
    for place, (flops, beta, _) in PLACES.items():
        ups = [f"{speed_up(place, parameters, rows, n):.1f}" for n in ranks]
        write(" | ".join([place, f"{break_even(flops, beta):,.0f}", *ups]))


def write(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    if "--predict" in sys.argv:
        predict()
    else:
        measure()
