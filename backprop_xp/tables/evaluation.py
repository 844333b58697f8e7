"""The evaluation of a model: metrics beside those of a baseline, and the importance of columns.

scikit-learn computes the metrics, on the host, with the rows' weights.
"""

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from backprop_xp.tables.model import Metadata, PathLike, TableModel
from backprop_xp.tables.problem import Rows, rows_with_target
from backprop_xp.tables.readers import TableData, as_frame
from backprop_xp.tables.target_column import Target

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

Weights: TypeAlias = np.ndarray | None
# Shuffles of each column.
_SHUFFLES = 5


def report_of(
    model: TableModel, parts: Mapping[str, Rows], weights: Weights, path: PathLike | None
) -> Metadata:
    """Return the ``report`` of a model, and its ``classes``; ``weights`` are those of its loss."""
    target, training, test = model.target, parts["training"], parts["test"]
    linear = LogisticRegression() if target.classes else Ridge()
    # The trivial baseline predicts the classes' shares, or the mean.
    baseline = DummyClassifier(strategy="prior") if target.classes else DummyRegressor()
    predictions = {
        "validation": model.outputs(parts["validation"].x),
        "test": model.outputs(test.x),
        "linear": _predict(linear, target, training._replace(weights=weights), test.x),
        "baseline": _predict(baseline, target, training, test.x),
    }
    measured_on = {name: "validation" if name == "validation" else "test" for name in predictions}
    scores = {
        name: score(target, target.decode(parts[part].y), predictions[name], parts[part].weights)
        for name, part in measured_on.items()
    }
    report = {
        "task": target.task,
        "rows": sum(len(part.y) for part in parts.values()),
        "features": len(model.preparation.kinds),
        "epochs": model.metadata["epoch"],
        "parts": {name: len(part.y) for name, part in parts.items()},
        **scores,
        "measured_on": measured_on,
        "model": None if path is None else os.fspath(path),
    }
    if not target.classes:
        return {"report": report}
    return {"report": report, "classes": class_metrics(target, test, predictions["test"])}


def score(
    target: Target, y: np.ndarray, predictions: np.ndarray, weights: Weights = None
) -> dict[str, float | None]:
    """Return the metrics of predictions: probabilities ``(rows, classes)``, or numbers ``(rows,)``.

    y holds class indices or numbers. A metric that is undefined for these rows is None: the area
    under the ROC curve (the mean over classes, each against the rest) of rows of one class, R2 of
    equal numbers. Rows of weight 0 are ignored.
    """
    if weights is not None:
        counted = weights > 0.0
        y, predictions, weights = y[counted], predictions[counted], weights[counted]
    if not target.classes:
        varies = (y != y[0]).any()
        r2 = float(metrics.r2_score(y, predictions, sample_weight=weights)) if varies else None
        return {
            "r2": r2,
            "rmse": float(metrics.root_mean_squared_error(y, predictions, sample_weight=weights)),
            "mae": float(metrics.mean_absolute_error(y, predictions, sample_weight=weights)),
        }
    classes = np.arange(len(target.classes))
    shares = predictions / predictions.sum(axis=1, keepdims=True)
    labels = shares.argmax(axis=1)
    # A class may be predicted that no row has.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        balanced = metrics.balanced_accuracy_score(y, labels, sample_weight=weights)
    present, area = np.isin(classes, y), None
    if present.sum() > 1:
        flags = y[:, None] == classes[present]
        area = float(metrics.roc_auc_score(flags, shares[:, present], sample_weight=weights))
    return {
        "log_loss": float(metrics.log_loss(y, shares, labels=classes, sample_weight=weights)),
        "accuracy": float(metrics.accuracy_score(y, labels, sample_weight=weights)),
        "balanced_accuracy": float(balanced),
        "roc_auc": area,
    }


def class_metrics(target: Target, rows: Rows, predictions: np.ndarray) -> list[dict[str, Any]]:
    """Return for each class its rows, precision, recall and F1 (0 if undefined)."""
    rates = metrics.precision_recall_fscore_support(
        rows.y,
        predictions.argmax(axis=1),
        labels=np.arange(len(target.classes)),
        sample_weight=rows.weights,
        zero_division=0.0,
    )
    counts = np.bincount(rows.y, minlength=len(target.classes)).tolist()
    columns = [target.classes, counts, *(values.tolist() for values in rates[:3])]
    names = ("class", "rows", "precision", "recall", "f1")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _predict(
    estimator: "BaseEstimator", target: Target, training: Rows, x: np.ndarray
) -> np.ndarray:
    """Return the predictions of an estimator that learns from the training rows.

    It learns standardized numbers: scikit-learn computes in float32 here, as x is.
    """
    # 100 iterations are enough.
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        estimator.fit(training.x, training.y, sample_weight=training.weights)
    if not target.classes:
        return target.decode(estimator.predict(x).astype("float64"))
    shares = np.zeros((len(x), len(target.classes)))
    shares[:, estimator.classes_] = estimator.predict_proba(x)
    return shares


class Importance(NamedTuple):
    """The growth of the loss after a shuffle of a column: its mean and standard deviation."""

    column: str
    mean: float
    deviation: float


def importances(model: TableModel, data: TableData, *, seed: int = 0) -> list[Importance]:
    """Return the importance of each column for a table's target, the largest first.

    It is the growth of the loss after a shuffle of the column's values (Breiman 2001, section 10).
    The loss is the log-loss, or the root mean squared error in the target's unit. Rows without a
    target are left out. Rows not used in training are best: training rows also show overfitting.
    """
    target, features = model.target, list(model.preparation.kinds)
    frame = as_frame(data, texts=[target.name, *model.preparation.texts])
    table = rows_with_target(frame, target.name, features=features, classes=target.classes)
    x, y, _ = table.prepare(model.preparation, target)
    y = target.decode(y)
    generator = np.random.default_rng(seed)
    base, found = _loss(model, x, y), []
    for name, indices in model.preparation.feature_indices().items():
        original, growths = x[:, indices], []
        for _ in range(_SHUFFLES):
            x[:, indices] = original[generator.permutation(len(x))]
            growths.append(_loss(model, x, y) - base)
        x[:, indices] = original
        found.append(Importance(name, float(np.mean(growths)), float(np.std(growths))))
    return sorted(found, key=lambda one: -one.mean)


def _loss(model: TableModel, x: np.ndarray, y: np.ndarray) -> float:
    target, outputs = model.target, model.outputs(x)
    if not target.classes:
        return float(metrics.root_mean_squared_error(y, outputs))
    shares = outputs / outputs.sum(axis=1, keepdims=True)
    return float(metrics.log_loss(y, shares, labels=np.arange(len(target.classes))))
