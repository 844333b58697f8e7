"""How good predictions are, beside those of the trivial baseline and of a linear model.

All by scikit-learn, on the host, with the rows' weights.
"""

import warnings
from typing import Any

import numpy as np
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from backprop_xp.tables.columns import Target

Scores = dict[str, float | None]


def score(target: Target, y: np.ndarray, found: np.ndarray, weights: Any = None) -> Scores:
    """Return the metrics of predictions: probabilities ``(rows, classes)``, or numbers ``(rows,)``.

    y is class numbers or numbers. What is not defined for these rows is None: the area under the
    ROC curve (the mean over classes, each against the rest) where all are of one class, R2 where
    all numbers are the same. Rows of weight 0 count for nothing.
    """
    if weights is not None:
        counted = weights > 0.0
        y, found, weights = y[counted], found[counted], weights[counted]
    if target.task == "regression":
        varies = bool((y != y[0]).any())
        return {
            "r2": float(metrics.r2_score(y, found, sample_weight=weights)) if varies else None,
            "rmse": float(metrics.root_mean_squared_error(y, found, sample_weight=weights)),
            "mae": float(metrics.mean_absolute_error(y, found, sample_weight=weights)),
        }
    classes = np.arange(len(target.classes))
    shares = found.astype("float64")
    shares /= shares.sum(axis=1, keepdims=True)
    guessed = shares.argmax(axis=1)
    present = np.isin(classes, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class is guessed that no row here has
        balanced = metrics.balanced_accuracy_score(y, guessed, sample_weight=weights)
    area = None
    if present.sum() > 1:
        flags = y[:, None] == classes[present]
        area = float(metrics.roc_auc_score(flags, shares[:, present], sample_weight=weights))
    return {
        "log_loss": float(metrics.log_loss(y, shares, labels=classes, sample_weight=weights)),
        "accuracy": float(metrics.accuracy_score(y, guessed, sample_weight=weights)),
        "balanced_accuracy": float(balanced),
        "roc_auc": area,
    }


def by_class(
    target: Target, y: np.ndarray, found: np.ndarray, weights: Any = None
) -> list[dict[str, Any]]:
    """Return for each class its rows, precision, recall and F1 (0 where undefined)."""
    classes = np.arange(len(target.classes))
    given = {"labels": classes, "sample_weight": weights, "zero_division": 0.0}
    rates = metrics.precision_recall_fscore_support(y, found.argmax(axis=1), **given)
    return [
        {
            "class": target.classes[i],
            "rows": int((y == i).sum()),
            "precision": float(rates[0][i]),
            "recall": float(rates[1][i]),
            "f1": float(rates[2][i]),
        }
        for i in classes
    ]


def trivial(target: Target, y: np.ndarray, rows: int, weights: Any = None) -> np.ndarray:
    """Return for so many rows what says nothing of them: the classes' shares, or the mean."""
    kind = DummyClassifier if target.task == "classification" else DummyRegressor
    model = kind(strategy="prior" if target.task == "classification" else "mean")
    model.fit(np.zeros((len(y), 1)), y, sample_weight=weights)
    return _predicted(target, model, np.zeros((rows, 1)))


def linear(
    target: Target, x: np.ndarray, y: np.ndarray, x_new: np.ndarray, weights: Any = None
) -> np.ndarray:
    """Return the predictions of logistic or ridge regression on the same features.

    Numbers are standardised: scikit-learn computes in float32 here, as x is.
    """
    model = LogisticRegression() if target.task == "classification" else Ridge()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations are all it gets
        model.fit(x, y, sample_weight=weights)
    return _predicted(target, model, x_new)


def _predicted(target: Target, model: Any, x: np.ndarray) -> np.ndarray:
    if target.task == "regression":
        values: np.ndarray = model.predict(x).astype("float64")
        return values
    shares = np.zeros((len(x), len(target.classes)))
    shares[:, model.classes_] = model.predict_proba(x)
    return shares
