"""The other models of a report: a linear model, gradient boosting and a baseline of scikit-learn.

They learn standardized numbers. The linear model computes in float32, as the features are.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from backprop_xp.estimators.targets import class_weights
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.scaling import learn_scaling
from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.model.fitted_model import TargetScale
from backprop_xp.tables.model.rows import Rows

# The validation rows end the boosting earlier.
_TREES = 2000


class OtherModels(NamedTuple):
    """Models by their names, which predict what a network does; they have learnt its rows.

    ``trees`` is the number of the boosting's trees whose validation loss is least. scikit-learn's
    models predict with all trees: also with those behind it, and of a training that diverged.
    """

    features: Features
    scale: TargetScale
    n_classes: int
    models: Mapping[str, BaseEstimator]
    trees: int

    @classmethod
    def of(
        cls, network: TabularClassifier | TabularRegressor, training: Rows, validation: Rows
    ) -> "OtherModels":
        """Return models that have learnt training rows; the validation rows end the boosting.

        Targets are indices of classes, or numbers. Training rows of one class, or validation rows
        of none of their classes, leave the baseline alone.
        """
        fitted, models = network.model_, _untrained(network)
        features, (mean, scale) = _plain_features(fitted.features, training), fitted.scale
        if fitted.classes is not None:  # a class that no training row has cannot be learnt
            known = np.isin(validation.target.to_numpy(), training.target.to_numpy())
            validation = validation.take(np.flatnonzero(known))
            if not known.any() or training.target.nunique() == 1:
                models = {"baseline": models["baseline"]}
        x, x_held = (features.transform(rows.features) for rows in (training, validation))
        target, held_target = (
            (rows.target.to_numpy() - mean) / scale for rows in (training, validation)
        )
        weights = balanced = training.scaled_weights()
        if isinstance(network, TabularClassifier):
            labels = network.classes_[training.target.to_numpy()]
            balanced = class_weights(network.class_weight, labels, weights, network.classes_)
        held = held_target, validation.scaled_weights()
        stop = dict(zip(("y_val", "sample_weight_val"), held, strict=True))
        for name, model in models.items():
            weighted, own = weights if name == "baseline" else balanced, {}
            if name == "boosting":  # it computes in float64, and would keep both
                x, x_held = x.astype("float64"), x_held.astype("float64")
                own = {"X_val": x_held, **stop}
            # 100 iterations are enough.
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                model.fit(x, target, weighted, **own)
        trees = best_stage(models["boosting"], x_held, *held) if "boosting" in models else 0
        n_classes = 0 if fitted.classes is None else len(fitted.classes)
        return cls(features, fitted.scale, n_classes, models, trees)

    def predictions(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the predictions of each model for rows: probabilities, or numbers."""
        x, found = self.features.transform(frame), dict[str, np.ndarray]()
        for name, model in self.models.items():
            found[name] = np.zeros((len(x), self.n_classes) if self.n_classes else len(x))
            if not len(x):  # a rank may have no test rows, and scikit-learn takes no empty table
                continue
            outputs: Any = getattr(model, "predict_proba", model.predict)
            values = outputs(x) if name != "boosting" else _staged(model, x, self.trees)
            values = values.astype("float64")
            if self.n_classes:
                found[name][:, model.classes_.astype(int)] = values
            else:
                found[name][:] = values * self.scale.scale + self.scale.mean
        return found


def losses(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the log-loss of each row's probabilities, or the squared error of its number."""
    if predictions.ndim == 1:
        return np.asarray((predictions - y) ** 2)
    shares = predictions[np.arange(len(y)), y.astype(int)]
    # As log_loss clips.
    return np.asarray(-np.log(np.maximum(shares, np.finfo(predictions.dtype).eps)))


def best_stage(
    boosting: HistGradientBoostingClassifier | HistGradientBoostingRegressor,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None,
) -> int:
    """Return the number of trees with the least log-loss, or squared error, of validation rows."""
    classes = getattr(boosting, "classes_", None)
    y = y if classes is None else np.searchsorted(classes, y)

    def loss(stage: np.ndarray) -> float:
        return float(np.nan_to_num(np.average(losses(y, stage), weights=weights), nan=np.inf))

    return 1 + int(np.argmin([loss(stage) for stage in _stages(boosting, x)]))


def _stages(boosting: Any, x: np.ndarray) -> Any:
    return (getattr(boosting, "staged_predict_proba", None) or boosting.staged_predict)(x)


def _staged(boosting: Any, x: np.ndarray, trees: int) -> np.ndarray:
    return np.asarray(next(itertools.islice(_stages(boosting, x), trees - 1, None)))


def _untrained(network: TabularClassifier | TabularRegressor) -> dict[str, BaseEstimator]:
    """Return the models to compare with; the validation rows end the boosting."""
    seed = network.model_.record["seed"] % 2**32
    options = {"early_stopping": True, "max_iter": _TREES, "random_state": seed}
    if isinstance(network, TabularClassifier):
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
