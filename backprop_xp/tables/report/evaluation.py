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

from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.model.fitted_model import TabularModel, residuals_of
from backprop_xp.tables.model.model_file import PathLike
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.report.other_models import OtherModels, losses

Weights: TypeAlias = np.ndarray | None
# The metrics of each model.
Scores: TypeAlias = Mapping[str, Mapping[str, float | None]]
# The network, and the models that it is compared with.
_ON_TEST = ("test", "linear", "boosting", "baseline")


class Predicted(NamedTuple):
    """The targets of rows, indices of classes or numbers, their weights, and predictions by name.

    Those of the network have the name of the rows, ``"validation"`` or ``"test"``; those of the
    other models, for test rows alone, have the model's.
    """

    y: np.ndarray
    weights: Weights
    predictions: Mapping[str, np.ndarray]

    @classmethod
    def joined(cls, parts: Sequence["Predicted"]) -> "Predicted":
        """Return the rows of parts with the same predictions, all with weights or all without."""
        found = {
            name: np.concatenate([one.predictions[name] for one in parts])
            for name in parts[0].predictions
        }
        weights = [one.weights for one in parts if one.weights is not None]
        y = np.concatenate([one.y for one in parts])
        return cls(y, np.concatenate(weights) if weights else None, found)


class Evaluation(NamedTuple):
    """The metrics of models, and the figures of each class of the network, None for a number.

    ``residuals`` are those of the network on the validation and the test rows, for a number, as
    ``residuals_of`` returns them. ``excess`` ``(rows, 2)`` has for each test row the network's loss
    minus that of the linear model, and the row's weight; it has no rows without a linear model.
    """

    scores: Scores
    classes: list[dict[str, Any]] | None
    residuals: Mapping[str, np.ndarray]
    excess: np.ndarray


def with_report(
    network: TabularClassifier | TabularRegressor,
    found: Sequence[Evaluation],
    parts: Mapping[str, int],
    path: PathLike | None,
    *,
    sample: int | None = None,
) -> TabularModel:
    """Return the model of a network with its report: ``parts`` are the numbers of rows.

    There is one evaluation of it, or one for each fold: then the report has the means and the
    standard deviations of their scores, and no figures of classes. ``sample`` is the number of
    training rows from which the other models have learnt, if these are not all.
    """
    model, measured_on = network.model_, "test"
    scores: dict[str, Any] = {**found[0].scores}
    if "test" not in parts:
        measured_on, each = f"{len(found)} folds", [one.scores for one in found]
        scores = {**_over_folds(each, np.mean), "deviations": _over_folds(each, np.std)}
    report = {
        "task": model.task,
        "rows": sum(parts.values()),
        "features": len(model.features.columns),
        "epochs": model.record["epoch"],
        "parts": dict(parts),
        **scores,
        "measured_on": {"validation": "validation"} | dict.fromkeys(_ON_TEST, measured_on),
        "linear_is_better": is_above_0(*np.concatenate([one.excess for one in found]).T),
        **({} if sample is None else {"sample": sample}),
        "model": None if path is None else os.fspath(path),
    }
    more: dict[str, Any] = {"report": report}
    if "test" not in parts:
        return dataclasses.replace(model, metadata={**network.metadata_, **more})
    if found[0].classes is not None:
        more["classes"] = found[0].classes
    errors, metadata = found[0].residuals.get("test"), {**network.metadata_, **more}
    return dataclasses.replace(model, metadata=metadata, test_residuals=errors)


def evaluate(
    network: TabularClassifier | TabularRegressor, parts: Mapping[str, Rows]
) -> Evaluation:
    """Return the evaluation of the network and of other models on test rows.

    The metrics of the validation rows are of the networks that did not learn from a row. The other
    models learn from the rows of the first network.
    """
    fitted, test = network.model_, parts["test"]
    given = network._given(parts["training"], parts.get("validation"), fitted.classes)
    split = network._split(given, fitted.record["seed"])
    held_out, where = split.validation, {"backend": network.backend, "device": network.device}
    found = {"validation": split.validation_outputs(fitted, **where)}
    validation = Predicted(held_out.target.to_numpy(), held_out.scaled_weights(), found)
    training, stop, *_ = split.of_first_member()
    others = OtherModels.of(network, training, stop)
    y, _ = network._targets(np.asarray(test.target), fitted.classes)
    outputs = network._outputs(test.features)[0]
    found = {"test": outputs, **others.predictions(test.features)}
    return evaluation_of(fitted.classes, [validation, Predicted(y, test.scaled_weights(), found)])


def evaluation_of(classes: np.ndarray | None, parts: Sequence[Predicted]) -> Evaluation:
    """Return the evaluation of the predictions for validation rows, and for test rows."""
    n_classes, scores, residuals = 0 if classes is None else len(classes), {}, {}
    for (y, weights, predictions), part in zip(parts, ("validation", "test"), strict=True):
        for name, found in predictions.items():
            scores[name] = score(n_classes, y, found, weights)
        if classes is None:
            residuals[part] = residuals_of(y, predictions[part], weights)
    (y, weights, predictions), excess, figures = parts[-1], np.empty((0, 2)), None
    if "linear" in predictions:
        differences = losses(y, predictions["test"]) - losses(y, predictions["linear"])
        weighted = np.ones(len(y)) if weights is None else weights
        excess = np.stack([differences, weighted], axis=1)
    if classes is not None:
        figures = _class_figures(classes, y, predictions["test"], weights)
    return Evaluation(scores, figures, residuals, excess)


def is_above_0(values: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the weighted mean of values is above 0 by more than twice its standard error."""
    n = np.count_nonzero(weights)
    if n < 2:
        return False
    mean = np.average(values, weights=weights)
    squares = (weights * (values - mean)) ** 2
    return bool(mean * weights.sum() > 2.0 * np.sqrt(squares.sum() * n / (n - 1)))


def _over_folds(folds: Sequence[Scores], statistic: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a statistic of each metric, None if a fold does not define the metric."""

    def over(name: str, metric: str) -> float | None:
        values = [fold[name][metric] for fold in folds]
        return None if None in values else float(statistic(values))

    return {name: {metric: over(name, metric) for metric in own} for name, own in folds[0].items()}


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
