"""The memory of a training on NumPy, and its growth over many steps and fits."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx
from backprop_xp.cli.bench.contenders import CASES, learner
from backprop_xp.cli.bench.race import Quartiles
from benchmarks.conftest import Row

# The interpreter's own memory, such as its caches of small objects.
SLACK = 64 * 2**10


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def row(what: str, used: float, allowed: float, peer: str) -> Row:
    ratio = used / allowed
    return Row(what, in_bytes(used), Quartiles(ratio, ratio, ratio), peer, 1.0)


def in_bytes(count: float) -> str:
    return f"{count / 1e6:.3g} MB" if abs(count) >= 1e6 else f"{count / 1e3:.3g} kB"


def test_the_memory_of_a_step(benchmark: BenchmarkFixture, record: Callable[[Row], None]) -> None:
    case = CASES["W"]
    network, theta, x, y = learner(case, backend="numpy")
    activations = 4 * case.batch * sum(case.sizes[1:])
    batch = 4 * case.batch * (case.sizes[0] + case.sizes[-1])
    allowed = 4 * theta.nbytes + 2 * activations + batch

    def peak() -> int:
        tracemalloc.start()
        bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=1, batch_size=case.batch)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    used = benchmark.pedantic(peak, rounds=1)
    peer = f"4 theta, 2 activations and the batch: {in_bytes(allowed)}"
    record(row(f"W: the most memory within fit, {case}", used, allowed, peer))


def growth(step: Callable[[], Any], warm: int, times: int) -> int:
    """Return the growth of the memory in use over some calls, in bytes."""
    for _ in range(warm):
        step()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(times):
        step()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


@pytest.mark.usefixtures("traced")
def test_10000_steps_take_no_more(
    benchmark: BenchmarkFixture, record: Callable[[Row], None]
) -> None:
    case = CASES["S"]
    network, theta, x, y = learner(case, backend="numpy")
    states = bx.train(network, theta, x, y, optimizer=bx.Adam(), epochs=1000, batch_size=case.batch)
    epochs = 10_000 // case.batches
    grown = benchmark.pedantic(lambda: growth(lambda: next(states), 10, epochs), rounds=1)
    record(row(f"S: growth over {epochs * case.batches:,} steps", grown, SLACK, in_bytes(SLACK)))


@pytest.mark.usefixtures("traced")
def test_1000_fits_take_no_more(benchmark: BenchmarkFixture, record: Callable[[Row], None]) -> None:
    network, theta, x, y = learner(CASES["S"], backend="numpy")

    def once() -> None:
        bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=1, batch_size=32)

    grown = benchmark.pedantic(lambda: growth(once, 10, 1000), rounds=1)
    record(row("S: growth over 1,000 fits", grown, SLACK, in_bytes(SLACK)))
