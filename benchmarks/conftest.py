"""Ratios against a peer measured in the same run: the only figures that travel between machines."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 41


class Ratio(NamedTuple):
    """One function's time over its peer's: the median of paired rounds, and the middle half."""

    name: str
    peer: str
    median: float
    low: float
    high: float
    seconds: float


_ratios: list[Ratio] = []
_texts: list[str] = []


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[..., Ratio]:
    """Time a function by pytest-benchmark, and its ratio to a peer by alternating the two.

    Alternating in short blocks lets a noisy neighbour slow both alike. ``wait`` waits for what the
    two only queue, as on a GPU: it is called before a block's clock starts and before it stops,
    never between the calls, which may run ahead of the GPU as they do in training.
    """

    def run(
        function: Callable[[], object],
        peer: Callable[[], object],
        peer_name: str,
        calls: int = 1,
        rounds: int = ROUNDS,
        wait: Callable[[], object] = lambda: None,
    ) -> Ratio:
        function()
        peer()
        times = [(_block(function, calls, wait), _block(peer, calls, wait)) for _ in range(rounds)]
        quotients = [ours / theirs for ours, theirs in times]
        low, median, high = statistics.quantiles(quotients, n=4)
        seconds = statistics.median(ours for ours, _ in times) / calls
        ratio = Ratio(request.node.name, peer_name, median, low, high, seconds)
        _ratios.append(ratio)
        benchmark.extra_info["ratio"] = ratio._asdict()
        # Here each call is waited for: pytest-benchmark has no end of a block.
        benchmark.pedantic(lambda: (function(), wait()), rounds=rounds, iterations=calls)
        return ratio

    return run


@pytest.fixture
def show() -> Callable[[str], None]:
    """Print a text at the end of the run, where nothing captures it."""
    return _texts.append


def _block(function: Callable[[], object], calls: int, wait: Callable[[], object]) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return time.perf_counter() - start


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    for text in _texts:
        terminalreporter.write_line(f"\n{text}")
    if not _ratios:
        return
    terminalreporter.section("ratios, measured in this run")
    width = max(len(ratio.name) for ratio in _ratios)
    for ratio in _ratios:
        terminalreporter.write_line(
            f"{ratio.name:<{width}}  {ratio.median:7.3f} x {ratio.peer} "
            f"(middle half {ratio.low:.3f} to {ratio.high:.3f}; {ratio.seconds * 1e6:.0f} us)"
        )
