"""Prediction intervals of the solver lm, its penalty by a search, beside a Gaussian process.

``python benchmarks/intervals.py [DATA ...]`` prints for each data set of ``interval_data.py`` the
medians over five splits: the test error in standard deviations of the targets, and for intervals of
90 % their coverage and mean width. ``members`` is what ``return_std`` of eight members by Adam
would be as normal intervals. Below are the geometric means of the errors and widths beside the
Gaussian process's, and the mean coverages. Each score is a line of ``--out``: a run that was ended
continues there. ``--quick`` takes two data sets and one split.

``--dy`` measures conformal intervals of fits to values and derivatives beside those of fits to the
values alone: functions of ``surrogates.py``, without noise and with a noise of a tenth of the
standard deviations, in 20 draws of the rows. ``MLPRegressor`` has 60 rows, ``TabularRegressor``
200, of which 30 are validation rows. The shares of 1,000 new values that are covered are means
over the draws, with the standard errors of these means.
"""

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from interval_data import DATA
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from surrogates import PROBLEMS

import backprop_xp as bx

COVERAGE, SPLITS, SHARE = 0.9, 5, 0.5
SCORES = ("rmse", "coverage", "width")
NETWORK: dict[str, Any] = {"hidden_layer_sizes": 8, "activation": "tanh"}
WIDTH = norm.ppf(0.5 + COVERAGE / 2.0)
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Key = tuple[str, str, int]
# Of fits with derivatives: the functions, the noises, the draws, and the new rows.
FUNCTIONS, NOISES = ("borehole, 8-d", "wing weight, 10-d", "Rosenbrock, 4-d"), (0.0, 0.1)
DRAWS, NEW_ROWS = 20, 1000


def by_network(x: np.ndarray, y: np.ndarray, new: np.ndarray, interval: str, seed: int) -> Found:
    model = bx.MLPRegressor(**NETWORK, solver="lm", random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    with bx.stacked():
        search = GridSearchCV(model, {"alpha": np.logspace(-5, 3, 9)}, cv=folds, refit=False)
        search.fit(x, y)
    model.set_params(interval=interval, **search.best_params_).fit(x, y)
    return model.predict(new), *model.predict_interval(new, COVERAGE)


def by_members(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> Found:
    options = {"n_members": 8, "learning_rate_init": 1e-2, "max_iter": 2000, "random_state": seed}
    model = bx.MLPRegressor(**NETWORK, **options).fit(x, y)
    mean, deviation = model.predict(new, return_std=True)
    return mean, mean - WIDTH * deviation, mean + WIDTH * deviation


def by_process(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> Found:
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1])) + WhiteKernel()
    model = GaussianProcessRegressor(kernel, random_state=seed).fit(x, y)
    mean, deviation = model.predict(new, return_std=True)  # with the noise
    return mean, mean - WIDTH * deviation, mean + WIDTH * deviation


METHODS: dict[str, Callable[..., Found]] = {
    "conformal": lambda *given: by_network(*given[:3], "conformal", given[3]),
    "laplace": lambda *given: by_network(*given[:3], "laplace", given[3]),
    "members": by_members,
    "Gaussian process": by_process,
}


def standardized(array: np.ndarray, train: np.ndarray) -> np.ndarray:
    deviation = train.std(axis=0)  # 0 for a column that is constant in these rows
    scaled: np.ndarray = (array - train.mean(axis=0)) / np.where(deviation > 0.0, deviation, 1.0)
    return scaled


def scores(method: Callable[..., Found], x: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
    """Return the error, the coverage and the mean width in a split with half of the rows each."""
    x_train, x_new, y_train, y_new = train_test_split(x, y, train_size=SHARE, random_state=seed)
    x_train, x_new = standardized(x_train, x_train), standardized(x_new, x_train)
    y_train, y_new = standardized(y_train, y_train), standardized(y_new, y_train)
    mean, lower, upper = method(x_train, y_train, x_new, seed)
    covered = np.mean((lower <= y_new) & (y_new <= upper))
    return [
        float(np.sqrt(np.mean((mean - y_new) ** 2))),
        float(covered),
        float((upper - lower).mean()),
    ]


def of_split(key: str, name: str, split: int) -> dict[str, float]:
    return dict(zip(SCORES, scores(METHODS[name], *DATA[key](), split), strict=True))


def by_perceptron(x: np.ndarray, y: np.ndarray, dy: Any, new: np.ndarray, seed: int) -> Any:
    options = {"solver": "lm", "alpha": 1e-2, "interval": "conformal", "random_state": seed}
    model = bx.MLPRegressor(hidden_layer_sizes=16, activation="tanh", **options)
    return model.fit(x, y, dy=dy).predict_interval(new, COVERAGE)


def by_table(x: np.ndarray, y: np.ndarray, dy: Any, new: np.ndarray, seed: int) -> Any:
    names = [f"x{i}" for i in range(x.shape[1])]
    table, new_table = (pd.DataFrame(array, columns=names) for array in (x, new))
    model = bx.TabularRegressor("fast", random_state=seed)
    model.fit(table, y, dy=None if dy is None else pd.DataFrame(dy, columns=names))
    return model.predict_interval(new_table, COVERAGE)


REGRESSORS: dict[str, tuple[Callable[..., Any], int]] = {
    "MLPRegressor": (by_perceptron, 60),
    "TabularRegressor": (by_table, 200),
}
WITH_SLOPES = {
    f"{regressor}, {to}": (regressor, to == "dy")
    for regressor in REGRESSORS
    for to in ("values", "dy")
}
DRAWN = {f"{name}, noise {noise:g}": (name, noise) for name in FUNCTIONS for noise in NOISES}


def of_draw(key: str, name: str, draw: int) -> dict[str, float]:
    """Return the coverage and the mean width, in standard deviations of y."""
    (function, noise), (regressor, has_slopes) = DRAWN[key], WITH_SLOPES[name]
    problem, (fit, rows) = PROBLEMS[function], REGRESSORS[regressor]
    generator = np.random.default_rng([draw, rows])
    x = generator.uniform(problem.low, problem.high, (rows + NEW_ROWS, len(problem.low)))
    size, y = x.std(axis=0), problem.value(x)
    x, dy, y = (x - x.mean(axis=0)) / size, problem.slopes(x) * size / y.std(), y / y.std()
    y = y + noise * generator.normal(size=y.shape)
    dy = dy + noise * dy.std(axis=0) * generator.normal(size=dy.shape)
    train, new = slice(rows), slice(rows, None)
    lower, upper = fit(x[train], y[train], dy[train] if has_slopes else None, x[new], draw)
    covered = np.mean((lower <= y[new]) & (y[new] <= upper))
    return {"coverage": float(covered), "width": float((upper - lower).mean())}


def measure(
    wanted: list[Key], score: Callable[[str, str, int], dict[str, float]], out: Path
) -> list[dict[str, Any]]:
    """Return a record of each data set, method and split, and append the new ones to the file."""
    lines = out.read_text().splitlines() if out.exists() else []
    known = {(r["data"], r["method"], r["split"]): r for r in map(json.loads, lines)}
    for key, name, split in wanted:
        if (key, name, split) in known:
            continue
        start = time.process_time()
        found = score(key, name, split)
        given = {"data": key, "method": name, "split": split}
        known[key, name, split] = {**given, **found, "seconds": time.process_time() - start}
        with out.open("a") as file:
            file.write(json.dumps(known[key, name, split]) + "\n")
    return [known[each] for each in wanted]


def report(records: list[dict[str, Any]]) -> str:
    """Return the medians over the splits, and each method beside the Gaussian process."""
    names = (*SCORES, "seconds")
    each = defaultdict[tuple[str, str], list[list[float]]](list)
    for record in records:
        each[record["data"], record["method"]].append([record[name] for name in names])
    medians = {key: np.median(found, axis=0) for key, found in each.items()}
    rows = [f"| data | method | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for key, values in medians.items():
        rows.append(f"| {' | '.join([*key, *(f'{value:.3f}' for value in values)])} |")
    for method in METHODS:
        data = [key for key, name in medians if name == method]
        error, coverage, width, _ = np.transpose([medians[key, method] for key in data])
        other = np.transpose([medians[key, "Gaussian process"] for key in data])
        ratio, widths = error / other[0], np.exp(np.mean(np.log(width / other[2])))
        rows.append(
            f"{method}: error {np.exp(np.mean(np.log(ratio))):.3f}, at most {ratio.max():.3f}; "
            f"coverage {coverage.mean():.3f}, at least {coverage.min():.3f}; width {widths:.3f}"
        )
    return "\n".join(rows)


def report_of_draws(records: list[dict[str, Any]]) -> str:
    """Return the mean coverages with their standard errors, and the mean widths."""
    each = defaultdict[tuple[str, str], list[tuple[float, float, float]]](list)
    for one in records:
        each[one["data"], one["method"]].append((one["coverage"], one["width"], one["seconds"]))
    rows = ["| data | method | coverage | width | seconds |", "|---|---|---|---|---|"]
    for key, found in each.items():
        coverage, width, seconds = np.mean(found, axis=0)
        error = np.std(found, axis=0, ddof=1)[0] / np.sqrt(len(found))
        cells = (f"{coverage:.3f} ± {error:.3f}", f"{width:.3f}", f"{seconds:.2f}")
        rows.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", metavar="DATA")
    parser.add_argument("--dy", action="store_true", help="fits with derivatives")
    parser.add_argument("--quick", action="store_true", help="two data sets, one split, two draws")
    parser.add_argument("--out", type=Path, default=Path("intervals.jsonl"))
    given = parser.parse_args()
    all_data: list[str] = [*(DRAWN if given.dy else DATA)]
    if unknown := set(given.data) - set(all_data):
        parser.error(f"unknown data {sorted(unknown)}: choose from {all_data}")
    warnings.simplefilter("ignore")
    data, splits = given.data or all_data, DRAWS if given.dy else SPLITS
    if given.quick:
        data, splits = data[-2:], 2 if given.dy else 1
    methods: list[str] = [*(WITH_SLOPES if given.dy else METHODS)]
    wanted = [(key, name, split) for key in data for name in methods for split in range(splits)]
    records = measure(wanted, of_draw if given.dy else of_split, given.out)
    sys.stdout.write((report_of_draws if given.dy else report)(records) + "\n")


if __name__ == "__main__":
    main()
