"""Metrics: the quality of predictions, per network of a stack, computed on the device.

Each takes ``(predictions, targets, weights)``, in this order: scikit-learn's take the targets
first. Predictions are ``(*stack, batch, n_out)`` as ``network.predict`` gives them, targets
``(batch, n_out)`` or stacked, weights None, ``(batch,)`` or stacked. The metrics of numbers also
take weights of entries, shaped as the targets; their mean is over the outputs that have a weight.
Each returns ``(*stack,)`` in the predictions' dtype, and moves nothing to the host. The
definitions, also of weights, are scikit-learn's. The metrics of classes also take integer labels of
several classes, as the losses do; a row whose label is none of them counts for nothing. Its
attribute ``mode``, "max" or "min", tells early stopping and a plateau which values are better. A
function of your own may have one too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from backprop_xp.backends import Array, Namespace, device_of, like, require_floating
from backprop_xp.checks import integer
from backprop_xp.networks.chain.array_checks import check_beside_outputs, check_stack, check_weights
from backprop_xp.networks.chain.batch_rows import without_ignored
from backprop_xp.networks.losses.targets import class_labels, one_hot
from backprop_xp.training.measures.class_weights import class_shares

Metric: TypeAlias = Callable[[Array, Array, Array | None], Array]
# Whether smaller or larger values of a measure are better.
Mode: TypeAlias = Literal["min", "max"]
Function = TypeVar("Function", bound=Metric)


def _better_if(mode: Mode) -> Callable[[Function], Function]:
    """Return a decorator that gives a metric its ``mode``."""

    def marked(metric: Function) -> Function:
        vars(metric)["mode"] = mode
        return metric

    return marked


@_better_if("max")
def accuracy(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the share of samples whose class is predicted, ``(*stack,)``.

    The class is the index of the largest output. With a single output it is 1 above 0.5, else 0.
    Targets are one-hot or labels, or 0 and 1 with a single output. A prediction of NaN has no
    class: it makes the metric NaN.

    Predictions come first: scikit-learn's ``accuracy_score`` takes them second.

    >>> import backprop_xp as bx
    >>> print(bx.metrics.accuracy(bx.asarray([[0.9, 0.1], [0.3, 0.7]]), [[1, 0], [1, 0]]))
    0.5
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights, labels=True)
    weights = _nan_without_class(xp, predictions, weights)
    hits = xp.astype(_classes(xp, predictions) == _classes(xp, targets), predictions.dtype)
    return xp.sum(hits * weights, axis=-1) / xp.sum(weights, axis=-1)


@_better_if("max")
def balanced_accuracy(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the mean recall over the classes, ``(*stack,)``.

    Classes are those of ``accuracy`` that have a target of weight above 0.

    Predictions come first: scikit-learn's ``balanced_accuracy_score`` takes them second.
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights, labels=True)
    weights = _nan_without_class(xp, predictions, weights)
    found, true = _indicators(xp, predictions), _indicators(xp, targets)
    totals = xp.sum(true * weights[..., None], axis=-2)
    hits = xp.sum(true * found * weights[..., None], axis=-2)
    return _mean_of_classes(xp, hits, totals)


@_better_if("max")
def f1(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the F1 score, ``(*stack,)``: the harmonic mean of precision and recall.

    With a single output it is that of class 1, else the mean over the classes that have a target or
    a prediction (macro). A class without hits scores 0.

    Predictions come first: scikit-learn's ``f1_score`` takes them second.
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights, labels=True)
    weights = _nan_without_class(xp, predictions, weights)
    found, true = _indicators(xp, predictions), _indicators(xp, targets)
    hits = 2.0 * xp.sum(true * found * weights[..., None], axis=-2)
    totals = xp.sum((true + found) * weights[..., None], axis=-2)
    if predictions.shape[-1] == 1:
        return hits[..., 1] / (totals + xp.astype(totals == 0.0, totals.dtype))[..., 1]
    return _mean_of_classes(xp, hits, totals)


@_better_if("min")
def log_loss(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the mean of -log(probability of the class), ``(*stack,)``.

    Probabilities are clipped to [e, 1 - e], with e the dtype's rounding.

    Predictions come first: scikit-learn's ``log_loss`` takes them second.
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights, labels=True)
    e = float(xp.finfo(predictions.dtype).eps)
    p, t = class_shares(predictions), class_shares(targets)
    each = -xp.sum(t * xp.log(xp.clip(p, e, 1.0 - e)), axis=-1)
    return xp.sum(each * weights, axis=-1) / xp.sum(weights, axis=-1)


@_better_if("max")
def roc_auc(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the area under the ROC curve, ``(*stack,)``; equal predictions count as a half.

    It is the share of the pairs of a positive and a negative sample in which the positive one has
    the larger prediction: that of class 1 for one output or two. For more it is the mean over the
    classes, each against the others, that have positive and negative samples. It is NaN if no class
    has, and takes two sorts of the rows.

    Predictions come first: scikit-learn's ``roc_auc_score`` takes them second.

    >>> import backprop_xp as bx
    >>> predictions = bx.asarray([[0.1], [0.4], [0.4], [0.8]])
    >>> print(bx.metrics.roc_auc(predictions, [[0], [0], [1], [1]]))
    0.875
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights, labels=True)
    scores, true = predictions, _indicators(xp, targets)
    if scores.shape[-1] <= 2:
        scores, true = scores[..., -1:], true[..., -1:]
    # (*stack, classes, batch)
    scores = xp.matrix_transpose(scores)
    positive = xp.broadcast_to(xp.matrix_transpose(true), scores.shape) * weights[..., None, :]
    negative = weights[..., None, :] - positive
    # Tied rows are in the order of the rows in one of the sorts, and in the opposite in the other.
    flipped = [xp.flip(each, axis=-1) for each in (scores, positive, negative)]
    pairs = 0.5 * (_pairs(xp, scores, positive, negative) + _pairs(xp, *flipped))
    total = xp.sum(positive, axis=-1) * xp.sum(negative, axis=-1)
    # A prediction that is NaN has a place in the order, but makes the area NaN.
    pairs = pairs + xp.sum(0.0 * scores, axis=-1)
    return _mean_of_classes(xp, pairs, total)


def _pairs(xp: Namespace, scores: Array, positive: Array, negative: Array) -> Array:
    """Return the weight of the pairs whose negative sample comes first in ascending order."""
    order = xp.argsort(scores, axis=-1, stable=True)
    positive = xp.take_along_axis(positive, order, axis=-1)
    before = xp.cumulative_sum(xp.take_along_axis(negative, order, axis=-1), axis=-1)
    return xp.sum(positive * before, axis=-1)


def top_k(k: int) -> Metric:
    """Return the metric "the class is among the k largest outputs", named ``top_3`` for k = 3.

    Of equal outputs the later class comes first, as in scikit-learn.

    >>> import backprop_xp as bx
    >>> print(bx.metrics.top_k(2)(bx.asarray([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), [1, 2]))
    0.5
    """
    return _TopK(integer(k, "k"))


@dataclass(frozen=True)
class _TopK:
    """A dataclass, so that a compiled training is used again."""

    k: int
    mode: ClassVar[Mode] = "max"

    @property
    def __name__(self) -> str:
        return f"top_{self.k}"

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        xp, predictions, targets, weights = _checked(predictions, targets, weights, labels=True)
        n, true = predictions.shape[-1], _indicators(xp, targets)
        if n == 1:
            raise ValueError("top_k needs an output for each class, but there is one.")
        own = xp.sum(predictions * true, axis=-1, keepdims=True)
        numbers = xp.arange(n, dtype=xp.int32, device=device_of(predictions))
        earlier = numbers < _classes(xp, targets)[..., None]
        behind = (predictions < own) | ((predictions == own) & earlier)
        count = xp.sum(xp.astype(behind, predictions.dtype), axis=-1)
        hits = xp.astype(count > n - self.k - 0.5, predictions.dtype)
        return xp.sum(hits * weights, axis=-1) / xp.sum(weights, axis=-1)


@_better_if("max")
def r2(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the coefficient of determination, ``(*stack,)``: 1 - residual / total sum of squares.

    It is the unweighted mean over the outputs. An output whose targets are all equal scores 1 if
    the predictions equal them, else 0.

    Predictions come first: scikit-learn's ``r2_score`` takes them second.
    """
    xp, predictions, targets, w = _of_numbers(predictions, targets, weights)
    totals = xp.sum(w, axis=-2)
    mean = (xp.sum(w * targets, axis=-2) / _above_0(xp, totals))[..., None, :]
    # Clipped to the extremes: rounding must not move the mean of a constant column.
    mean = xp.maximum(mean, xp.min(xp.where(w == 0.0, math.inf, targets), axis=-2, keepdims=True))
    mean = xp.minimum(mean, xp.max(xp.where(w == 0.0, -math.inf, targets), axis=-2, keepdims=True))
    mean = xp.where(totals[..., None, :] == 0.0, xp.zeros_like(mean), mean)
    residual = xp.sum(w * (predictions - targets) ** 2, axis=-2)
    total = xp.sum(w * (targets - mean) ** 2, axis=-2)
    constant = xp.astype(total == 0.0, predictions.dtype)
    perfect = xp.astype(residual == 0.0, predictions.dtype)
    # The quotient of a constant output is set to 0, and to 1 unless its predictions are perfect.
    unexplained = (1.0 - constant) * residual / (total + constant) + constant * (1.0 - perfect)
    return _mean_where(xp, 1.0 - unexplained, totals)


@_better_if("min")
def rmse(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the root of the mean squared error, ``(*stack,)``: the mean over the outputs.

    Predictions come first: scikit-learn's ``root_mean_squared_error`` takes them second.
    """
    xp, predictions, targets, w = _of_numbers(predictions, targets, weights)
    totals = xp.sum(w, axis=-2)
    squares = xp.sum(w * (predictions - targets) ** 2, axis=-2) / _above_0(xp, totals)
    return _mean_where(xp, xp.sqrt(squares), totals)


@_better_if("min")
def mae(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the mean absolute error, ``(*stack,)``: the mean over the outputs.

    Predictions come first: scikit-learn's ``mean_absolute_error`` takes them second.
    """
    xp, predictions, targets, w = _of_numbers(predictions, targets, weights)
    totals = xp.sum(w, axis=-2)
    errors = xp.sum(w * xp.abs(predictions - targets), axis=-2) / _above_0(xp, totals)
    return _mean_where(xp, errors, totals)


def _of_numbers(
    predictions: Array, targets: Any, weights: Any
) -> tuple[Namespace, Array, Array, Array]:
    """Return the checked arguments; the weights are those of entries, ``(..., batch, n or 1)``."""
    require_floating(predictions, "predictions")
    shape = tuple(predictions.shape)
    weights = None if weights is None else like(predictions, weights, "weights", "predictions")
    if weights is None or tuple(weights.shape[-2:]) != shape[-2:]:
        xp, predictions, targets, weights = _checked(predictions, targets, weights)
        return xp, predictions, targets, weights[..., None]
    xp, predictions, targets, _ = _checked(predictions, targets, None)
    check_stack(weights.shape[:-2], shape[:-2], "weights")
    zero = xp.zeros_like(weights)
    predictions, targets = (xp.where(weights == 0.0, zero, one) for one in (predictions, targets))
    return xp, predictions, targets, weights


def _above_0(xp: Namespace, totals: Array) -> Array:
    """Return totals with 1 in place of 0."""
    return totals + xp.astype(totals == 0.0, totals.dtype)


def _checked(
    predictions: Array, targets: Any, weights: Any, *, labels: bool = False
) -> tuple[Namespace, Array, Array, Array]:
    """Return the namespace and the checked arguments; weights default to ones.

    With ``labels`` the targets may be labels, which become one-hot.
    """
    xp = require_floating(predictions, "predictions")
    shape = tuple(predictions.shape)
    if not xp.isdtype(predictions.dtype, "real floating"):
        raise TypeError(f"predictions is {predictions.dtype}, but real numbers are expected.")
    if len(shape) < 2 or not shape[-2]:
        raise ValueError(
            f"predictions has shape {shape}, but (..., batch, n_out) with rows is expected, as "
            "network.predict gives them."
        )
    classes = class_labels(predictions, shape, targets, "targets") if labels else None
    if classes is not None:
        targets = one_hot(predictions, classes, shape[-1])
    targets = like(predictions, targets, "targets", "predictions")
    per_target, rest = divmod(shape[-1], max(1, *targets.shape[-1:]))
    if not labels and per_target > 1 and not rest and len(targets.shape) > 1:
        raise ValueError(
            f"predictions has {per_target} columns for each column of targets. Give those of the "
            f"means or of the medians alone, such as predictions[..., :{targets.shape[-1]}]."
        )
    check_beside_outputs(targets, shape, "targets", labels=labels)
    if weights is None:
        weights = xp.ones(shape[-2], dtype=predictions.dtype, device=device_of(predictions))
    else:
        weights = check_weights(predictions, shape, weights, "weights")
        predictions, targets = without_ignored(weights, predictions, targets)
    if classes is not None:
        weights = weights * xp.sum(targets, axis=-1)
    return xp, predictions, targets, weights


def _classes(xp: Namespace, values: Array) -> Array:
    """Return the number of each sample's class, ``(..., batch)``."""
    if values.shape[-1] == 1:
        return xp.astype(values[..., 0] > 0.5, xp.int32)
    return xp.astype(xp.argmax(values, axis=-1), xp.int32)


def _nan_without_class(xp: Namespace, predictions: Array, weights: Array) -> Array:
    """Return the weights, with NaN for each sample of whose predictions one is NaN."""
    return xp.where(xp.any(xp.isnan(predictions), axis=-1), math.nan, weights)


def _indicators(xp: Namespace, values: Array) -> Array:
    """Return 1 for each sample's class, else 0, ``(..., batch, classes)``: two for one output."""
    count = max(2, values.shape[-1])
    numbers = xp.arange(count, dtype=xp.int32, device=device_of(values))
    return xp.astype(_classes(xp, values)[..., None] == numbers, values.dtype)


def _mean_of_classes(xp: Namespace, parts: Array, totals: Array) -> Array:
    """Return the mean of the quotients over the classes of a total above 0, NaN if none is."""
    return _mean_where(xp, parts / _above_0(xp, totals), totals)


def _mean_where(xp: Namespace, values: Array, totals: Array) -> Array:
    """Return the mean of values, ``(..., n)``, over those of a total above 0, NaN if none is."""
    present = xp.astype(xp.broadcast_to(totals, values.shape) > 0.0, totals.dtype)
    count = xp.sum(present, axis=-1)
    none = xp.astype(count == 0.0, count.dtype)
    mean = xp.sum(values * present, axis=-1) / (count + none)
    return xp.where(none > 0.0, math.nan, mean)


# The metrics of numbers, which take the means of a distribution, or the medians.
OF_NUMBERS = (mae, r2, rmse)

# By the names that fit takes.
METRICS: dict[str, Metric] = {
    **{f.__name__: f for f in (accuracy, balanced_accuracy, f1, log_loss, mae, r2, rmse, roc_auc)},
    **{f"top_{k}": top_k(k) for k in (3, 5)},
}


def __dir__() -> list[str]:
    return [*(name for name in METRICS if name in globals()), "top_k"]
