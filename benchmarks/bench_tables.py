"""Tables: the time to read a file beside pandas, to predict a single row, and to train a preset."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli.bench.race import Quartiles, quartiles
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


@pytest.mark.parametrize("compiles", ["0", "1"])
@pytest.mark.parametrize("members", [1, 4])
def test_an_update_of_a_preset(
    compare: Callable[..., Row], monkeypatch: pytest.MonkeyPatch, members: int, compiles: str
) -> None:
    if compiles == "1":
        pytest.importorskip("numba")
    monkeypatch.setenv("BACKPROP_XP_COMPILE", compiles)
    columns = bx.Columns(
        bx.NumericEmbedding(NUMBERS, 4, n_frequencies=16, frequency_scale=0.5),
        bx.Embedding([30, 30], 8),
    )
    hidden = bx.mlp([columns.n_out, 128, 128, 1], hidden="silu").layers
    network = bx.Network([columns, *hidden], "mean_squared_error")
    stack = (members,) if members > 1 else ()
    theta = network.initialize(stack=stack, backend="numpy", dtype="float32")
    draw = np.random.default_rng(0)
    x = np.hstack([draw.normal(size=(1280, NUMBERS)), draw.integers(0, 30, (1280, 2))])
    data = x.astype("float32"), x[:, :1].astype("float32")
    optimizer = bx.AdamW(1e-3, weight_decay=0.1, mask=network.weight_mask(theta))
    options = {"batch_size": 128, "optimizer": optimizer, "average": bx.EMA(0.99)}
    seed = list(range(members)) if stack else 0  # each member has its own order of the rows
    name = "default" if stack else "fast"
    compare(
        lambda: bx.fit(network, theta, *data, epochs=4, seed=seed, **options),
        lambda: [_products(hidden, stack) for _ in range(40)],
        "its matrix products",
        what=f"40 updates of the preset {name}" + ", with Numba" * int(compiles),
        rounds=ROUNDS,
    )


def _products(layers: Sequence[Any], stack: tuple[int, ...]) -> None:
    """Multiply what Dense layers do in an update of 128 rows."""
    for layer in layers:
        x, weights, g = _arrays(stack, layer.n_in, layer.n_out)
        for a, b in ((x, weights), (x.mT, g), (g, weights.mT)):
            np.matmul(a, b)


@functools.cache
def _arrays(stack: tuple[int, ...], n_in: int, n_out: int) -> list[np.ndarray]:
    shapes = (128, n_in), (n_in, n_out), (128, n_out)
    return [np.ones((*stack, *shape), "float32") for shape in shapes]


def _timed(function: Callable[[], object], calls: int = 100) -> float:
    start = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - start) / calls
