"""What a search over hyperparameters is worth for small tables, beside defaults.

``python benchmarks/search_gains.py [DATA ...]`` prints for each data set of ``interval_data.py``
the test error of four regressors, divided by that of the first, as medians over the splits: a
perceptron with its defaults, the same with ``early_stopping=True``, the best ``alpha`` and learning
rate of 24 by five folds (``bx.stacked``), and the table's estimator with its defaults.
"""

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from interval_data import DATA
from intervals import SHARE, standardized
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

import backprop_xp as bx

SPLITS = 5
GRID = {"alpha": np.logspace(-5, 1, 6), "learning_rate_init": [1e-3, 3e-3, 1e-2, 3e-2]}
Predict = Callable[[np.ndarray], np.ndarray]


def default(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return bx.MLPRegressor(max_iter=1000, random_state=seed).fit(x, y).predict


def early_stopping(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    model = bx.MLPRegressor(max_iter=1000, early_stopping=True, random_state=seed)
    return model.fit(x, y).predict


def search(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    model = bx.MLPRegressor(max_iter=1000, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    with bx.stacked():
        return GridSearchCV(model, GRID, cv=folds).fit(x, y).predict


def tabular(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return bx.TabularRegressor(random_state=seed).fit(x, y).predict


METHODS = [default, early_stopping, search, tabular]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", default=list(DATA), metavar="DATA")
    given = parser.parse_args()
    if unknown := set(given.data) - set(DATA):
        parser.error(f"unknown data {sorted(unknown)}: choose from {list(DATA)}")
    warnings.simplefilter("ignore")
    names = [method.__name__ for method in METHODS]
    sys.stdout.write(f"| data | error of default | {' | '.join(names[1:])} |\n")
    ratios, seconds = list[np.ndarray](), defaultdict[str, float](float)
    for key in given.data:
        errors = []
        for seed in range(SPLITS):
            parts = train_test_split(*DATA[key](), train_size=SHARE, random_state=seed)
            x, new, y, expected = parts
            x, new = standardized(x, x), standardized(new, x)
            y, expected = standardized(y, y), standardized(expected, y)
            for method in METHODS:
                start = time.process_time()
                found = method(x, y, seed)(new)
                seconds[method.__name__] += time.process_time() - start
                errors.append(np.sqrt(np.mean((found - expected) ** 2)))
        found = np.reshape(errors, (SPLITS, -1))
        ratios.append(np.median(found[:, 1:] / found[:, :1], axis=0))
        cells = [f"{np.median(found[:, 0]):.3f}", *(f"{ratio:.3f}" for ratio in ratios[-1])]
        sys.stdout.write(f"| {key} | {' | '.join(cells)} |\n")
        sys.stdout.flush()
    means = np.exp(np.mean(np.log(ratios), axis=0))
    sys.stdout.write(f"| mean | | {' | '.join(f'{mean:.3f}' for mean in means)} |\n")
    sys.stdout.write(f"CPU seconds: {dict(seconds)}\n")


if __name__ == "__main__":
    main()
