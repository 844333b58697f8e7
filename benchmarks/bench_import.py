"""The time of ``import backprop_xp`` after importing NumPy, in fresh processes."""

import subprocess
import sys
from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture

from backprop_xp.cli.bench.race import Quartiles, quartiles
from benchmarks.conftest import Row, in_units

AIM = 0.040
MEASURE = """
import time
import numpy
start = time.perf_counter()
import backprop_xp
print(time.perf_counter() - start)
"""


def test_import(benchmark: BenchmarkFixture, record: Callable[[Row], None]) -> None:
    def fresh() -> float:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    seconds = quartiles([fresh() for _ in range(10)])
    benchmark.extra_info["median_seconds_added"] = seconds.median
    benchmark.pedantic(fresh, rounds=3)
    ratio = Quartiles(*(time / AIM for time in seconds))
    record(Row("import backprop_xp, after NumPy", in_units(seconds.median), ratio, "40 ms", 1.0))
