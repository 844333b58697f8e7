"""The problems of ``small_fits.py``: rows, and the widths of a network that fits them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3


class Problem(NamedTuple):
    """Standardized rows, ``(rows, n)`` and ``(rows, 1)``, those of the test, and the widths."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    widths: list[int]


def problem(x: np.ndarray, y: np.ndarray, rows: int, hidden: int) -> Problem:
    """Return the first rows for the training and the others for the test, standardized alike."""
    y = y.reshape(-1, 1)
    x = (x - x[:rows].mean(0)) / x[:rows].std(0)
    y = (y - y[:rows].mean(0)) / y[:rows].std(0)
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], [x.shape[1], hidden, 1])


def curve() -> Problem:
    """Return a smooth curve of one variable, in the shape of MATLAB's simplefit."""
    x = np.concatenate([np.linspace(0.0, 10.0, 94), np.linspace(0.05, 9.95, 200)])[:, None]
    return problem(x, 5.0 + 4.0 * np.sin(x) * np.exp(-0.1 * x), 94, 10)


def friedman(make: Callable[..., tuple[np.ndarray, np.ndarray]], *, noisy: bool) -> Problem:
    """Return Friedman's function with 200 rows; the noise is a fifth of the standard deviation."""
    options = {"n_features": 5} if make is make_friedman1 else {}
    x, y = make(1200, random_state=0, **options)
    noise = np.random.default_rng(0).normal(0.0, 0.2 * y.std(), y.shape)
    y[:200] += noise[:200] if noisy else 0.0
    return problem(x, y, 200, 10)


def borehole() -> Problem:
    """Return the flow through a borehole (Harper and Gupta 1983), 300 rows of 8 inputs."""
    low = [0.05, 100.0, 63070.0, 990.0, 63.1, 700.0, 1120.0, 9855.0]
    high = [0.15, 50000.0, 115600.0, 1110.0, 116.0, 820.0, 1680.0, 12045.0]
    x = np.random.default_rng(0).uniform(low, high, (1300, 8))
    rw, r, tu, hu, tl, hl, length, kw = x.T
    log = np.log(r / rw)
    below = log * (1.0 + 2.0 * length * tu / (log * rw**2 * kw) + tu / tl)
    return problem(x, 2.0 * np.pi * tu * (hu - hl) / below, 300, 21)


def engine() -> Problem:
    """Return the torque of an invented diesel engine by fuel and speed, 400 points of its map.

    Torque is the energy of the fuel times an efficiency, minus the friction. The efficiency is best
    at 2,000 revolutions per minute. It is worse with little fuel, and with too much for the air.
    """
    fuel, speed = np.random.default_rng(0).uniform([5.0, 800.0], [60.0, 4500.0], (1400, 2)).T
    burnt = (1.0 - np.exp(-fuel / 8.0)) / (1.0 + np.exp((fuel - 52.0 + speed / 300.0) / 4.0))
    efficiency = 0.42 * burnt * np.exp(-(((speed - 2000.0) / 3000.0) ** 2))
    friction = 8.0 + 4e-3 * speed + 6e-7 * speed**2
    # 42.5 J for each mg, in four cylinders of four strokes.
    torque = 4.0 * 42.5 * fuel * efficiency / (4.0 * np.pi) - friction
    return problem(np.stack([fuel, speed], axis=-1), torque, 400, 10)


def diabetes() -> Problem:
    """Return the diabetes table, a quarter of it for the test."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return problem(x[order], y[order], 331, 5)


def xor() -> Problem:
    """Return XOR, whose test rows are its training rows."""
    x = np.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = np.asarray([0.0, 1.0, 1.0, 0.0])
    return problem(np.concatenate([x, x]), np.concatenate([y, y]), 4, 2)


FRIEDMANS = {"1": make_friedman1, "2": make_friedman2, "3": make_friedman3}
NOISELESS = {
    "curve": curve,
    **{
        f"friedman{n}": lambda make=make: friedman(make, noisy=False)
        for n, make in FRIEDMANS.items()
    },
    "borehole": borehole,
    "engine map": engine,
    "XOR": xor,
}
NOISY = {
    **{
        f"friedman{n}, noisy": lambda make=make: friedman(make, noisy=True)
        for n, make in FRIEDMANS.items()
    },
    "diabetes": diabetes,
}
