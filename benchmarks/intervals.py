"""Prediction intervals and ``alpha="auto"`` of the solver lm beside a Gaussian process.

``python benchmarks/intervals.py [DATA ...]`` prints for each data set of ``interval_data.py`` the
medians over five splits: the test error in standard deviations of the targets, and for intervals of
90 % their coverage and mean width. ``members`` is what ``return_std`` of eight members by Adam
would be as normal intervals. Below are the geometric means of the errors beside the Gaussian
process's, and the mean coverages.
"""

import sys
import warnings
from collections.abc import Callable

import numpy as np
from interval_data import DATA
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import train_test_split

import backprop_xp as bx

COVERAGE, SPLITS, SHARE = 0.9, 5, 0.5
WIDTH = norm.ppf(0.5 + COVERAGE / 2.0)
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def by_network(x: np.ndarray, y: np.ndarray, new: np.ndarray, interval: str, seed: int) -> Found:
    options = {"solver": "lm", "alpha": "auto", "interval": interval, "random_state": seed}
    model = bx.MLPRegressor(hidden_layer_sizes=8, activation="tanh", **options).fit(x, y)
    return model.predict(new), *model.predict_interval(new, COVERAGE)


def by_members(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> Found:
    options = {"n_members": 8, "learning_rate_init": 1e-2, "max_iter": 2000, "random_state": seed}
    model = bx.MLPRegressor(hidden_layer_sizes=8, activation="tanh", **options).fit(x, y)
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
    scaled: np.ndarray = (array - train.mean(axis=0)) / train.std(axis=0)
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


def main() -> None:
    warnings.simplefilter("ignore")
    print("| data | method | rmse | coverage | width |\n|---|---|---|---|---|")  # noqa: T201
    found = dict[str, list[np.ndarray]]()
    for data in sys.argv[1:] or DATA:
        x, y = DATA[data]()
        for name, method in METHODS.items():
            each = np.median([scores(method, x, y, seed) for seed in range(SPLITS)], axis=0)
            found.setdefault(name, []).append(each)
            cells = [f"{value:.3f}" for value in each]
            print(f"| {' | '.join([data, name, *cells])} |", flush=True)  # noqa: T201
    best = np.transpose(found["Gaussian process"])[0]
    for name, rows in found.items():
        error, coverage, _ = np.transpose(rows)
        ratio = np.exp(np.mean(np.log(error / best))), (error / best).max()
        text = "{}: error {:.3f}, at most {:.3f}; coverage {:.3f}, at least {:.3f}"
        print(text.format(name, *ratio, coverage.mean(), coverage.min()))  # noqa: T201


if __name__ == "__main__":
    main()
