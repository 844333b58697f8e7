"""Targets of the scikit-learn estimators: losses, scores, and classes as columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, time, timedelta
from typing import Any, TypeAlias

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import unique_labels

from backprop_xp.backends import Array, array_namespace, owner
from backprop_xp.checks import choose
from backprop_xp.estimators.parameters import STOCHASTIC
from backprop_xp.networks.layers.activations import identity, sigmoid, softmax
from backprop_xp.networks.losses.loss import (
    LOSSES,
    TO_PROBABILITIES,
    Loss,
    binary_cross_entropy,
    categorical_cross_entropy,
    half_squared_error,
    poisson,
)
from backprop_xp.networks.numbers.partial import WithLast
from backprop_xp.training.measures.class_weights import weights_by_class, weights_of_rows
from backprop_xp.training.measures.metrics import r2

# Weights by class: "balanced", a mapping, or one mapping for each label.
ClassWeight: TypeAlias = str | Mapping[Any, float] | Sequence[Mapping[Any, float]] | None

# A date with a time is a date.
_DATES = date, time, timedelta, np.datetime64, np.timedelta64


def _sum(o: Array, t: Array, mean: Callable[[Array, Array], Array]) -> Array:
    """Return a sum over the outputs, from the function of their mean: scikit-learn's losses."""
    return o.shape[-1] * mean(o, t)


def _deviance(o: Array, t: Array) -> Array:
    # Half of Poisson's deviance: the loss minus the loss of the best rates.
    xp = array_namespace(o)
    logarithm = xp.log(xp.maximum(t, float(xp.finfo(t.dtype).smallest_normal)))
    return o.shape[-1] * poisson.value(o, t) + xp.sum(t * logarithm - t, axis=-1)


def _summed(loss: Loss) -> Loss:
    value, gradient, curvature = (
        WithLast(_sum, (part,)) for part in (loss.value, loss.gradient, loss.curvature)
    )
    return replace(loss, value=value, gradient=gradient, curvature=curvature)


_DEVIANCE = replace(_summed(poisson), value=_deviance)
# With several outputs scikit-learn follows the gradient of the errors' sum and reports their mean,
# which its stopping rule watches.
_REPORTED_SQUARED = replace(_summed(half_squared_error), value=half_squared_error.value)

_WORDS = {identity.value: "identity", sigmoid.value: "logistic", softmax.value: "softmax"}
_WORDS[poisson.inverse_link] = "exp"


def loss_of_classes(name: str | Loss, n_outputs: int, *, is_multilabel: bool) -> Loss:
    """Return a classifier's loss: the log-loss by its name, or one of ``bx.losses``.

    The log-loss depends on the outputs: one for two classes, one for each class, or one for each
    label.
    """
    if name == "log_loss":
        if n_outputs == 1:
            return binary_cross_entropy
        return _summed(binary_cross_entropy) if is_multilabel else categorical_cross_entropy
    chosen = _chosen(name)
    if is_multilabel and chosen.labels:
        raise ValueError(
            f"loss={name!r} expects one class for each row, but y has several labels for each: "
            'take "binary_cross_entropy", or leave loss out.'
        )
    return chosen


def loss_of_values(name: str | Loss, n_outputs: int, solver: str) -> Loss:
    """Return a regressor's loss: scikit-learn's by its name, or one of ``bx.losses``."""
    if name == "poisson":
        return _DEVIANCE
    if name != "squared_error":
        return _chosen(name)
    if n_outputs == 1:
        return half_squared_error
    # A solver that compares losses needs the loss that belongs to its gradient.
    return _REPORTED_SQUARED if solver in STOCHASTIC else _summed(half_squared_error)


def _chosen(name: str | Loss) -> Loss:
    loss = choose(LOSSES, name, "loss")
    if loss.outputs_per_target > 1:
        raise ValueError(
            f"loss={name!r} has {loss.outputs_per_target} outputs for each target, but this "
            "estimator's networks have one: train such a network by bx.fit."
        )
    return loss


def gives_probabilities(name: str | Loss) -> bool:
    """Whether the inverse link of a classifier's loss returns probabilities."""
    return _known(name).inverse_link in TO_PROBABILITIES


def _known(name: str | Loss) -> Loss:
    """Return a classifier's loss; the log-loss of a single output."""
    return LOSSES.get(name, binary_cross_entropy) if isinstance(name, str) else name


def activation_name(loss: Loss) -> str:
    """Return scikit-learn's name of a loss's inverse link, the output's activation."""
    return _WORDS.get(loss.inverse_link, "custom")


def as_distribution(probabilities: Array) -> Array:
    """Return probabilities of each class against the others, divided by their sum."""
    xp = array_namespace(probabilities)
    # A row whose probabilities have all underflowed gets equal ones; any other does not change.
    p = probabilities + float(xp.finfo(probabilities.dtype).smallest_normal)
    return p / xp.sum(p, axis=-1, keepdims=True)


def score_of_labels(predictions: Array, targets: Array, weights: Array | None) -> Array:
    """Return the share of samples whose labels are all right; NaN for predictions of NaN."""
    xp = array_namespace(predictions)
    right = xp.all((predictions > 0.5) == (targets > 0.5), axis=-1)
    right = xp.astype(right, predictions.dtype)
    right = xp.where(xp.any(xp.isnan(predictions), axis=-1), math.nan, right)
    weights = xp.ones_like(right) if weights is None else weights
    return xp.sum(right * weights, axis=-1) / xp.sum(weights, axis=-1)


def score_of_values(predictions: Array, targets: Array, weights: Array | None) -> Array:
    """Return R squared, or NaN for predictions that are not finite."""
    # 0 times a number that is not finite is NaN.
    zero = array_namespace(predictions).sum(0.0 * predictions, axis=(-2, -1))
    return r2(predictions, targets, weights) + zero


def columns_of(binarizer: LabelBinarizer, y: Array, loss: str | Loss) -> np.ndarray:
    """Return targets ``(batch, n_outputs)``, 0 and 1: a single column for two classes.

    A loss that needs two outputs has a column for each of the two.
    """
    columns = np.asarray(binarizer.transform(y), dtype=bool).reshape(y.shape[0], -1)
    enough = columns.shape[1] >= _known(loss).least_outputs
    return columns if enough else np.concatenate([~columns, columns], axis=1)


def check_classes(binarizer: LabelBinarizer, y: Array, *, exact: bool) -> None:
    """Raise ValueError for classes that the binarizer does not know, or with ``exact`` lacks.

    The messages are scikit-learn's.
    """
    known, found = binarizer.classes_, unique_labels(y)
    if exact and set(found) != set(known):
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous "
            f"call to fit. Previously got {known}, `y` has {found}"
        )
    if len(np.setdiff1d(found, known, assume_unique=True)):
        raise ValueError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has {found}."
        )


def refuse_dates(y: Any, what: str = "y", more: str = "") -> None:
    """Raise ValueError for dates, times or timedeltas as numbers: they have no natural unit.

    The first object that is not missing decides about objects. ``more`` ends the advice.
    """
    home = owner(y)
    if hasattr(y, "toarray") or (home is not None and home.name != "numpy"):
        return
    values, first = np.asarray(y), None
    if values.dtype.kind == "O":
        first = next((one for one in values.flat if not _is_missing(one)), None)
    if values.dtype.kind in "mM" or isinstance(first, _DATES) or type(first).__name__ == "Period":
        raise ValueError(
            f"{what} holds dates or times: convert them to numbers, such as days{more}."
        )


def _is_missing(value: object) -> bool:
    """Whether an object is None, NaN, or a missing value of pandas."""
    is_nan = isinstance(value, float) and value != value
    return is_nan or type(value).__name__ in ("NoneType", "NAType", "NaTType")


def refuse_missing_dates(y: Array) -> None:
    """Raise ValueError for a missing date or timedelta, which is no class."""
    if to_dense(y).dtype.kind in "mM" and (missing := np.isnat(y)).any():
        raise ValueError(f"y has a missing date (row {missing.argmax()}): leave such rows out.")


def refuse_tiny_spread(columns: np.ndarray, dtype: str) -> None:
    """Raise ValueError for targets that differ, but whose squared deviations underflow.

    The training and its scores square them in this dtype: R squared would take them for equal.
    """
    high, low = (
        0.5 * ends.astype("float64") for ends in (columns.max(axis=0), columns.min(axis=0))
    )
    # The largest deviation from the mean is at least half of the spread.
    is_lost = (high > low) & (high - low < math.sqrt(np.finfo(dtype).tiny))
    if is_lost.any():
        which = f" (output {is_lost.argmax()})" if len(is_lost) > 1 else ""
        raise ValueError(f"y varies too little for a {dtype}{which}: multiply it by a power of 10.")


def as_column(y: Array) -> Array:
    """Return a column of targets as scikit-learn does, with its warning, and others unchanged."""
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def to_dense(y: Array) -> Array:
    """Return sparse targets as an array, and others unchanged."""
    return y.toarray() if hasattr(y, "toarray") else y


def class_weights(
    class_weight: ClassWeight, y: np.ndarray, sample_weight: np.ndarray | None, classes: np.ndarray
) -> np.ndarray | None:
    """Return the samples' weights, multiplied by those of their classes, by default 1."""
    if class_weight is None:
        return sample_weight
    # Of several labels each has the classes 0 and 1, and the weights are multiplied.
    columns, known = ([y], classes) if y.ndim == 1 else ([*y.T], np.asarray([0, 1]))
    is_one = y.ndim == 1 or class_weight == "balanced"
    each: Any = [class_weight] * len(columns) if is_one else class_weight
    if class_weight != "balanced" and not (
        isinstance(each, list)
        and len(each) == len(columns)
        and all(isinstance(one, dict) for one in each)
    ):
        labels = f"a list of {len(columns)} dicts, one for each label"
        expected = "a dict" if y.ndim == 1 else labels
        raise ValueError(f"class_weight must be {expected}, or 'balanced', not {class_weight!r}.")
    weights = sample_weight
    for given, column in zip(each, columns, strict=True):
        shares = (column[:, None] == known).astype(np.float64)
        by_class = weights_by_class(given, shares, sample_weight, known.tolist())
        weights = weights_of_rows(by_class, shares, weights)
    return weights
