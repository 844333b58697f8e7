"""Ratios to a peer measured in the same run: the only figures that are comparable across machines.

The end of the run prints one table of the ratios, with the aims.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from backprop_xp.cli.bench.comparison import as_lines, environment
from backprop_xp.cli.bench.race import Quartiles, quartiles

ROUNDS = 41
sys.path.append(str(Path(__file__).parents[1]))  # child processes import benchmarks too


class Row(NamedTuple):
    """A row of the table: a measurement with its unit, and its ratio to a peer's.

    ``aim`` is the largest good ratio.
    """

    what: str
    ours: str
    ratio: Quartiles
    peer: str
    aim: float | None = None

    def __str__(self) -> str:
        median, low, high = (f"{figure:.3g}" for figure in self.ratio)
        spread = f" ({low} to {high})" if low != high else ""
        aim = "" if self.aim is None else f"{self.aim:g}"
        missed = self.aim is not None and self.ratio.median > self.aim
        cells = self.what, self.ours, median + spread, self.peer, aim + ", missed" * missed
        return "| " + " | ".join(cells) + " |"


_HEAD = "| what | ours | ratio | beside | aim |\n|---|---|---|---|---|"
_machine = as_lines(environment())  # and its load before the first benchmark
_rows: list[Row] = []
_texts: list[str] = []


@pytest.fixture
def record() -> Callable[[Row], None]:
    """Add a row to the table."""
    return _rows.append


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Callable[..., Row]:
    """Time a function by pytest-benchmark, and its ratio to a peer in alternating blocks.

    A busy machine slows the short blocks of both alike. ``wait`` waits for a GPU at the start and
    at the end of a block. Between them the calls may run ahead of the GPU, as in a training.
    """

    def run(
        function: Callable[[], object],
        peer: Callable[[], object],
        peer_name: str,
        *,
        what: str = request.node.name,
        aim: float | None = None,
        calls: int = 1,
        rounds: int = ROUNDS,
        wait: Callable[[], object] = lambda: None,
    ) -> Row:
        function()
        peer()
        times = [(_block(function, calls, wait), _block(peer, calls, wait)) for _ in range(rounds)]
        ratio = quartiles([ours / theirs for ours, theirs in times])
        seconds = quartiles([ours for ours, _ in times]).median / calls
        row = Row(what, in_units(seconds), ratio, peer_name, aim)
        _rows.append(row)
        benchmark.extra_info["ratio"] = row._asdict()
        # Each call waits here: pytest-benchmark has no hook for the end of a block.
        benchmark.pedantic(lambda: (function(), wait()), rounds=rounds, iterations=calls)
        return row

    return run


@pytest.fixture
def show() -> Callable[[str], None]:
    """Print a string at the end of the run, where pytest does not capture it."""
    return _texts.append


def in_units(seconds: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


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
    if _rows:
        terminalreporter.section("ratios, measured in this run")
        terminalreporter.write_line("\n".join([_HEAD, *map(str, _rows), "", *_machine]))
