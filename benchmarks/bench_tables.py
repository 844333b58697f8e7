"""Tables: the time to read a file beside pandas, and to predict a single row."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli.race import Quartiles, quartiles
from benchmarks.conftest import Row, in_units

ROWS, NUMBERS, ROUNDS = 300_000, 16, 7
AIM = 0.003  # seconds for a row


def _table(rows: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    table = pd.DataFrame(draw.normal(size=(rows, NUMBERS))).rename(columns="n{}".format)
    for i in range(3):
        table[f"c{i}"] = draw.choice(["red", "green", "blue"], rows)
    table["day"] = draw.choice(pd.date_range("2010", "2020").astype(str), rows)
    return table


def test_read_csv(compare: Callable[..., Row], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    _table(ROWS).to_csv(path, index=False)
    compare(
        lambda: tables.read(path),
        lambda: pd.read_csv(path),
        "pandas.read_csv",
        what=f"read {ROWS:,} rows of CSV, 20 columns",
        aim=1.5,
        rounds=ROUNDS,
    )


def test_predict_a_row(record: Callable[[Row], None], benchmark: BenchmarkFixture) -> None:
    table = _table(1000)
    table, y = table.drop(columns="c0"), table["c0"]
    model = bx.TabularClassifier(max_iter=2, random_state=0).fit(table, y)
    row = table.iloc[[0]]
    benchmark.pedantic(lambda: model.predict(row), rounds=3)
    seconds = quartiles([_timed(lambda: model.predict(row)) for _ in range(ROUNDS)])
    ratio = Quartiles(*(one / AIM for one in seconds))
    record(Row("predict one row of 19 columns", in_units(seconds.median), ratio, "3 ms", 1.0))


def _timed(function: Callable[[], object], calls: int = 100) -> float:
    start = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - start) / calls
