"""What ``import backprop_xp`` adds to importing NumPy: aim at most 50 ms, fresh processes."""

import statistics
import subprocess
import sys

from pytest_benchmark.fixture import BenchmarkFixture

MEASURE = """
import time
import numpy
start = time.perf_counter()
import backprop_xp
print(time.perf_counter() - start)
"""


def test_import(benchmark: BenchmarkFixture) -> None:
    def fresh() -> float:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    seconds = [fresh() for _ in range(10)]
    benchmark.extra_info["median_seconds_added"] = statistics.median(seconds)
    benchmark.pedantic(fresh, rounds=3)
    print(f"\nimport backprop_xp adds {statistics.median(seconds) * 1e3:.0f} ms (median of 10)")  # noqa: T201
