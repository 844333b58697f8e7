"""Metrics: the quality of predictions, per network of a stack, computed on the device.

Each takes ``(predictions, targets, weights)``: predictions ``(*stack, batch, n_out)`` as
``network.predict`` gives them, targets ``(batch, n_out)`` or stacked, weights None, ``(batch,)`` or
stacked. It returns ``(*stack,)`` in the predictions' dtype, and moves nothing to the host. The
definitions, also of weights, are scikit-learn's.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from backprop_xp.backends import Array, Namespace, device_of, like, require_floating
from backprop_xp.networks.inputs import check_beside_outputs, check_weights, rows_at, stand_ins

Metric: TypeAlias = Callable[[Array, Array, Array | None], Array]


def accuracy(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the share of samples whose class is predicted, ``(*stack,)``.

    The class is the index of the largest output. With a single output it is 1 above 0.5, else 0.
    Targets are one-hot, or 0 and 1 with a single output.

    >>> import backprop_xp as bx
    >>> print(bx.metrics.accuracy(bx.asarray([[0.9, 0.1], [0.3, 0.7]]), [[1, 0], [1, 0]]))
    0.5
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights)
    hits = xp.astype(_classes(xp, predictions) == _classes(xp, targets), predictions.dtype)
    return xp.sum(hits * weights, axis=-1) / xp.sum(weights, axis=-1)


def balanced_accuracy(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the mean recall over the classes, ``(*stack,)``.

    Classes are those of ``accuracy`` that have a target of weight above 0.

    >>> import backprop_xp as bx
    >>> predictions = bx.asarray([[0.1], [0.2], [0.3], [0.1]])
    >>> print(bx.metrics.balanced_accuracy(predictions, [[0], [0], [0], [1]]))
    0.5
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights)
    dtype, device = predictions.dtype, device_of(predictions)
    numbers = xp.arange(max(2, predictions.shape[-1]), dtype=xp.int32, device=device)
    found, true = _classes(xp, predictions), _classes(xp, targets)
    hits = xp.astype(found == true, dtype)
    # The weight of each sample in its class, (..., batch, classes).
    parts = xp.astype(true[..., None] == numbers, dtype) * weights[..., None]
    totals = xp.sum(parts, axis=-2)
    present = xp.astype(totals > 0.0, dtype)
    recalls = xp.sum(parts * hits[..., None], axis=-2) / (totals + (1.0 - present))
    return xp.sum(recalls, axis=-1) / xp.sum(present, axis=-1)


def r2(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the coefficient of determination, ``(*stack,)``: 1 - residual / total sum of squares.

    It is the unweighted mean over the outputs. An output whose targets are all equal scores 1 if
    the predictions equal them, else 0.

    >>> import backprop_xp as bx
    >>> print(bx.metrics.r2(bx.asarray([[1.0], [2.0], [4.0]]), [[1], [2], [3]]))
    0.5
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights)
    w = weights[..., None]
    mean = xp.sum(w * targets, axis=-2, keepdims=True) / xp.sum(w, axis=-2, keepdims=True)
    # Clipped to the extremes: rounding must not move the mean of a constant column.
    mean = xp.maximum(mean, xp.min(targets, axis=-2, keepdims=True))
    mean = xp.minimum(mean, xp.max(targets, axis=-2, keepdims=True))
    residual = xp.sum(w * (predictions - targets) ** 2, axis=-2)
    total = xp.sum(w * (targets - mean) ** 2, axis=-2)
    constant = xp.astype(total == 0.0, predictions.dtype)
    perfect = xp.astype(residual == 0.0, predictions.dtype)
    # The quotient of a constant output is set to 0, and to 1 unless its predictions are perfect.
    unexplained = (1.0 - constant) * residual / (total + constant) + constant * (1.0 - perfect)
    return xp.mean(1.0 - unexplained, axis=-1)


def rmse(predictions: Array, targets: Array, weights: Array | None = None) -> Array:
    """Return the root of the mean squared error, ``(*stack,)``: the mean over the outputs.

    >>> import backprop_xp as bx
    >>> print(bx.metrics.rmse(bx.asarray([[1.0], [5.0]]), [[1], [2]], [8, 1]))
    1.0
    """
    xp, predictions, targets, weights = _checked(predictions, targets, weights)
    w = weights[..., None]
    squares = xp.sum(w * (predictions - targets) ** 2, axis=-2) / xp.sum(w, axis=-2)
    return xp.mean(xp.sqrt(squares), axis=-1)


def _checked(
    predictions: Array, targets: Any, weights: Any
) -> tuple[Namespace, Array, Array, Array]:
    """Return the namespace and the checked arguments; weights default to ones."""
    xp = require_floating(predictions, "predictions")
    shape = tuple(predictions.shape)
    if not xp.isdtype(predictions.dtype, "real floating"):
        raise TypeError(f"predictions is {predictions.dtype}, but real numbers are expected.")
    if len(shape) < 2 or not shape[-2]:
        raise ValueError(
            f"predictions has shape {shape}, but (..., batch, n_out) with rows is expected, as "
            "network.predict gives them."
        )
    targets = like(predictions, targets, "targets")
    check_beside_outputs(targets, shape, "targets")
    if weights is None:
        device = device_of(predictions)
        ones = xp.ones(shape[-2], dtype=predictions.dtype, device=device)
        return xp, predictions, targets, ones
    weights = check_weights(predictions, shape, weights, "weights")
    at = stand_ins(weights, shape[:-2])
    return xp, rows_at(predictions, at), rows_at(targets, at), weights


def _classes(xp: Namespace, values: Array) -> Array:
    """Return the number of each sample's class, ``(..., batch)``."""
    if values.shape[-1] == 1:
        return xp.astype(values[..., 0] > 0.5, xp.int32)
    return xp.astype(xp.argmax(values, axis=-1), xp.int32)
