"""The evaluation of a model on test rows, beside other models.

scikit-learn computes the metrics, on the host, with the rows' weights.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from backprop_xp.estimators.targets import class_weights
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.scaling import learn_scaling
from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.model_file import PathLike
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.model.training_split import Split

Weights: TypeAlias = np.ndarray | None
# The metrics of each model.
Scores: TypeAlias = Mapping[str, Mapping[str, float | None]]
# The validation rows end the boosting earlier.
_TREES = 2000
# The network, and the models that it is compared with.
_ON_TEST = ("test", "linear", "boosting", "baseline")


class Evaluation(NamedTuple):
    """The metrics of models, and the figures of each class of the network, None for a number.

    ``excess`` ``(rows, 2)`` has for each test row the network's loss minus that of the linear
    model, and the row's weight.
    """

    scores: Scores
    classes: list[dict[str, Any]] | None
    excess: np.ndarray


def report_of(
    model: TabularClassifier | TabularRegressor,
    parts: Mapping[str, Rows],
    path: PathLike | None,
    folds: Sequence[Evaluation] = (),
) -> dict[str, Any]:
    """Return the ``report`` of a model on the test rows, and its ``classes``.

    With folds, it has the means and the standard deviations of their scores instead.
    """
    measured_on, found = "test", [*folds] or [evaluate(model, parts)]
    scores: dict[str, Any] = {**found[0].scores}
    if folds:
        measured_on, each = f"{len(folds)} folds", [one.scores for one in folds]
        scores = {**_over_folds(each, np.mean), "deviations": _over_folds(each, np.std)}
    more = {
        **scores,
        "measured_on": {"validation": "validation"} | dict.fromkeys(_ON_TEST, measured_on),
        "linear_is_better": is_above_0(*np.concatenate([one.excess for one in found]).T),
    }
    test = {"test": len(parts["test"].target)} if "test" in parts else {}
    report = described(model.model_, {**model.model_.record["rows"], **test}, more, path)
    classes = None if folds else found[0].classes
    return {"report": report, **({} if classes is None else {"classes": classes})}


def described(
    model: TabularModel,
    parts: Mapping[str, int],
    measured: Mapping[str, Any],
    path: PathLike | None,
) -> dict[str, Any]:
    """Return a report: a training, the number of rows of its parts, and what was measured."""
    return {
        "task": model.task,
        "rows": sum(parts.values()),
        "features": len(model.features.columns),
        "epochs": model.record["epoch"],
        "parts": dict(parts),
        **measured,
        "model": None if path is None else os.fspath(path),
    }


def evaluate(model: TabularClassifier | TabularRegressor, parts: Mapping[str, Rows]) -> Evaluation:
    """Return the evaluation of the network and of other models on test rows.

    The metrics of the validation rows are of the networks that did not learn from a row.
    """
    fitted, test = model.model_, parts["test"]
    given = model._given(parts["training"], parts.get("validation"), fitted.classes)
    split = model._split(given, fitted.record["seed"])
    where = {"backend": model.backend, "device": model.device}
    n_classes = 0 if fitted.classes is None else len(fitted.classes)
    y, _ = model._targets(np.asarray(test.target), fitted.classes)
    held_out, found = split.validation, split.validation_outputs(fitted, **where)
    values, weights = held_out.target.to_numpy(), held_out.scaled_weights()
    scores = {"validation": score(n_classes, values, found, weights)}
    predictions = {"test": model._outputs(test.features)[0], **_of_others(model, split, test)}
    for name, found in predictions.items():
        scores[name] = score(n_classes, y, found, test.scaled_weights())
    excess = _losses(y, predictions["test"]) - _losses(y, predictions["linear"])
    weights, figures = test.scaled_weights(), None
    if n_classes:
        figures = _class_figures(model.classes_, y, predictions["test"], test.weights)
    return Evaluation(
        scores, figures, np.stack([excess, np.ones(len(y)) if weights is None else weights], axis=1)
    )


def is_above_0(values: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the weighted mean of values is above 0 by more than twice its standard error."""
    n = np.count_nonzero(weights)
    if n < 2:
        return False
    mean = np.average(values, weights=weights)
    squares = (weights * (values - mean)) ** 2
    return bool(mean * weights.sum() > 2.0 * np.sqrt(squares.sum() * n / (n - 1)))


def _losses(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the log-loss of each row's probabilities, or the squared error of its number."""
    if predictions.ndim == 1:
        return np.asarray((predictions - y) ** 2)
    shares = predictions[np.arange(len(y)), y.astype(int)]
    # As log_loss clips.
    return np.asarray(-np.log(np.maximum(shares, np.finfo(predictions.dtype).eps)))


def _over_folds(folds: Sequence[Scores], statistic: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a statistic of each metric, None if a fold does not define the metric."""

    def over(name: str, metric: str) -> float | None:
        values = [fold[name][metric] for fold in folds]
        return None if None in values else float(statistic(values))

    return {name: {metric: over(name, metric) for metric in own} for name, own in folds[0].items()}


def _of_others(
    model: TabularClassifier | TabularRegressor, split: Split, test: Rows
) -> dict[str, np.ndarray]:
    """Return the predictions of three other models for the test rows.

    They learn from the rows of the first network, and its validation rows end the boosting. They
    learn standardized numbers: scikit-learn computes in float32 here, as the features are.
    """
    training, validation, *_ = split.of_first_member()
    features = _plain_features(model.model_.features, training)
    x, x_held, x_test = (features.transform(rows.features) for rows in (training, validation, test))
    mean, scale = model.model_.scale
    target, held_target = (
        (rows.target.to_numpy() - mean) / scale for rows in (training, validation)
    )
    weights = balanced = training.scaled_weights()
    if isinstance(model, TabularClassifier):
        labels = model.classes_[training.target.to_numpy()]
        balanced = class_weights(model.class_weight, labels, weights, model.classes_)
    held = x_held, held_target, validation.scaled_weights()
    stop = dict(zip(("X_val", "y_val", "sample_weight_val"), held, strict=True))
    found = {}
    for name, other in _others(model).items():
        weighted = weights if name == "baseline" else balanced
        # 100 iterations are enough.
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            own = stop if name == "boosting" else {}
            other.fit(x, target, weighted, **own)
        if name == "boosting":
            outputs = _of_best_stage(other, x_test, *held)
        else:
            outputs = getattr(other, "predict_proba", other.predict)(x_test)
        found[name] = outputs.astype("float64") * scale + mean
    return found


def _of_best_stage(
    boosting: HistGradientBoostingClassifier | HistGradientBoostingRegressor,
    x: np.ndarray,
    x_held: np.ndarray,
    y_held: np.ndarray,
    weights: Weights,
) -> np.ndarray:
    """Return the predictions for x with the number of trees whose loss on validation rows is least.

    The loss is the log-loss, or the mean squared error. scikit-learn's models predict with all
    trees: also with those behind the best number, and of a training that diverged.
    """
    staged = getattr(boosting, "staged_predict_proba", None) or boosting.staged_predict

    def loss(stage: tuple[np.ndarray, np.ndarray]) -> float:
        losses = _losses(y_held, stage[0])
        return float(np.nan_to_num(np.average(losses, weights=weights), nan=np.inf))

    _, best = min(zip(staged(x_held), staged(x), strict=True), key=loss)
    return np.asarray(best)


def _others(model: TabularClassifier | TabularRegressor) -> dict[str, BaseEstimator]:
    """Return the models to compare with; the validation rows end the boosting."""
    seed = model.model_.record["seed"] % 2**32
    options = {"early_stopping": True, "max_iter": _TREES, "random_state": seed}
    if isinstance(model, TabularClassifier):
        return {
            "linear": LogisticRegression(),
            "boosting": HistGradientBoostingClassifier(**options),
            "baseline": DummyClassifier(strategy="prior"),
        }
    return {
        "linear": Ridge(),
        "boosting": HistGradientBoostingRegressor(**options),
        "baseline": DummyRegressor(),
    }


def _plain_features(features: Features, training: Rows) -> Features:
    """Return features that suit a linear model: standardized, and a 0 or 1 for each category."""
    weights = training.scaled_weights()
    columns = dict(features.columns)
    for name, column in features.columns.items():
        if column.n_codes:
            counts = column.count(training.features[name], weights)
            columns[name] = column.finish(counts, above=None, seed=0)
    numbers = [one.encode(training.features[n]) for n, one in columns.items() if one.is_scaled]
    scaling = learn_scaling(numbers, "standardize", weights)
    return dataclasses.replace(features, columns=columns, scaling=scaling)


def score(
    n_classes: int, y: np.ndarray, predictions: np.ndarray, weights: Weights = None
) -> dict[str, float | None]:
    """Return the metrics of predictions: probabilities ``(rows, classes)``, or numbers ``(rows,)``.

    y holds class indices, or numbers if ``n_classes`` is 0. A metric that is undefined for these
    rows is None: the area under the ROC curve (the mean over classes, each against the rest) of
    rows of one class, R2 of equal numbers. Rows of weight 0 are ignored.
    """
    if weights is not None:
        counted = weights > 0.0
        y, predictions, weights = y[counted], predictions[counted], weights[counted]
    if not n_classes:
        varies = (y != y[0]).any()
        r2 = float(metrics.r2_score(y, predictions, sample_weight=weights)) if varies else None
        return {
            "r2": r2,
            "rmse": float(metrics.root_mean_squared_error(y, predictions, sample_weight=weights)),
            "mae": float(metrics.mean_absolute_error(y, predictions, sample_weight=weights)),
        }
    classes = np.arange(n_classes)
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


def _class_figures(
    classes: np.ndarray, y: np.ndarray, predictions: np.ndarray, weights: Weights
) -> list[dict[str, Any]]:
    """Return for each class its rows, precision, recall and F1 (0 if undefined)."""
    *rates, _ = metrics.precision_recall_fscore_support(
        y,
        predictions.argmax(axis=1),
        labels=range(len(classes)),
        sample_weight=weights,
        zero_division=0.0,
    )
    columns = classes, np.bincount(y, minlength=len(classes)), *rates
    names = "class", "rows", "precision", "recall", "f1"
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]
