"""At trained points with losses down to 1e-20, no right gradient fails and no wrong one passes."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import thorough
from tests.planted_mistakes import WrongGradientNetwork

HIDDEN, DTYPES = ["tanh", "silu", "relu", "gelu", "sigmoid"], ["float64", "float32"]
SIZES, EPOCHS, EVERY = [3, 24, 24, 1], 500, 25

METHODS = ["auto", "directional"]
every_method = pytest.mark.parametrize("method", METHODS)


def _rows(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(8, 3)).astype(dtype), generator.normal(size=(8, 1)).astype(dtype)


@functools.cache
def _training(hidden: str, dtype: str) -> tuple[bx.Network, list[np.ndarray]]:
    """Return a network, and its theta at some epochs."""
    network = bx.mlp(SIZES, hidden=hidden, loss="half_squared_error")
    theta = network.initialize(0, backend="numpy", dtype=dtype)
    states = bx.train(network, theta, *_rows(dtype), optimizer=bx.Adam(0.01), epochs=EPOCHS)
    return network, [theta, *(s.theta.copy() for s in states if s.epoch % EVERY == 0)]


def _checked(*case: Any, **options: Any) -> bx.GradientReport:
    report = bx.check_network(*case, **options)
    assert (report.verdict == "fail") == (report.max_relative_error > report.tolerance)
    return report


@every_method
@pytest.mark.parametrize("every", [4, thorough(2)])
def test_no_right_gradient_fails_and_nine_of_ten_pass(every: int, method: str) -> None:
    verdicts, losses = [], []
    for hidden, dtype in itertools.product(HIDDEN, DTYPES):
        network, thetas = _training(hidden, dtype)
        thetas = thetas[::every]
        verdicts += [_checked(network, t, *_rows(dtype), method=method).verdict for t in thetas]
        losses += [float(network.loss(t, *_rows(dtype))) for t in thetas]
    assert min(losses) < 1e-20
    assert "fail" not in verdicts
    assert verdicts.count("pass") >= 0.9 * len(verdicts)


# A change of a gradient g; t is the slice of a tensor in it, k the index of an entry.
ADDED = {
    "a factor": lambda g, t, k: 0.1 * g,
    "a sign": lambda g, t, k: -2.0 * g * t,
    "5 % and 1 % of the largest": lambda g, t, k: k * (0.05 * g + 0.01 * np.abs(g[t]).max()),
}


# Each activation with each mistake, in one of the four ways; the thorough session has them all.
WAYS = [*itertools.product(DTYPES, METHODS)]
PLANTED = [
    (hidden, mistake, *way) if k == (i + j) % len(WAYS) else thorough(hidden, mistake, *way)
    for i, hidden in enumerate(HIDDEN)
    for j, mistake in enumerate(ADDED)
    for k, way in enumerate(WAYS)
]


@pytest.mark.parametrize(("hidden", "mistake", "dtype", "method"), PLANTED)
@pytest.mark.parametrize("every", [9, thorough(3)])
def test_a_planted_mistake_never_passes(
    every: int, mistake: str, hidden: str, dtype: str, method: str
) -> None:
    network, thetas = _training(hidden, dtype)
    number = np.repeat(range(6), [3 * 24, 24, 24 * 24, 24, 24, 1])
    for i, theta in enumerate(thetas[::every]):
        tensor = number == i % 6
        entry = np.arange(network.size) == np.resize(np.flatnonzero(tensor), 8 * i + 1)[-1]
        added = functools.partial(ADDED[mistake], t=tensor, k=entry)
        wrong = WrongGradientNetwork(lambda g, _, added=added: g + added(g), network.layers)
        report = _checked(wrong, theta, *_rows(dtype), method=method)
        assert not report.passed, report


def _digits() -> tuple[Any, ...]:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    network = bx.mlp([64, 32, 10], loss="categorical_cross_entropy", dropout=0.1)
    y = np.eye(10)[digits.target]
    return network, digits.data / 16.0, y, {"epochs": 3, "batch_size": 64}


def _separable(*sizes: int) -> tuple[Any, ...]:
    x = 20.0 * np.random.default_rng(0).normal(size=(60, 4))
    y = np.eye(3)[(x[:, 0] > 0.0).astype(int) + (x[:, 0] > 20.0)]
    network = bx.mlp(sizes, hidden="tanh", loss="categorical_cross_entropy")
    return network, x, y, {"epochs": 500, "optimizer": bx.Adam(0.1)}


# By default each in one dtype.
QUICK = {
    "sigmoid": "float64",
    "digits": "float32",
    "separable classes, a hidden layer": "float64",
}
TRAININGS = {
    **{
        h: lambda h=h: (bx.mlp(SIZES, hidden=h), *_rows("float64"), {"epochs": 400}) for h in HIDDEN
    },
    "digits": _digits,
    "separable classes": lambda: _separable(4, 3),
    "separable classes, a hidden layer": lambda: _separable(4, 16, 3),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype) if QUICK.get(name) == dtype else thorough(name, dtype)
        for name, dtype in itertools.product(TRAININGS, DTYPES)
    ],
)
def test_a_training_whose_updates_are_all_checked_runs_to_its_end(name: str, dtype: str) -> None:
    network, *rows, options = TRAININGS[name]()
    theta = network.initialize(0, backend="numpy", dtype=dtype)
    options = {"optimizer": bx.Adam(0.01), "check_every": 1, **options}
    history = bx.fit(network, theta, *(r.astype(dtype) for r in rows), **options).history
    assert np.isin(history["gradient_verdict"], ["pass", "kink"]).mean() >= 0.9
