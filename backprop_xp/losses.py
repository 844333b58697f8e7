"""Losses: each a value, its gradient and the link from outputs to predictions.

``o`` are the network's raw outputs, ``t`` the targets, both ``(..., batch, n_out)``; a value is
``(..., batch)``, one per sample. Per sample a loss is the *mean* over the outputs, except
categorical cross-entropy, a *sum* over the classes. The gradient is that of a sample's own loss;
averaging over the batch is the network's.
"""

from collections.abc import Callable
from dataclasses import dataclass

from backprop_xp.activations import identity, sigmoid, softmax
from backprop_xp.backends import Array, array_namespace
from backprop_xp.complex_safe import clip, magnitude, positive, real_part


@dataclass(frozen=True)
class Loss:
    """``value(outputs, targets)``, ``gradient(outputs, targets)`` and ``link(outputs)``.

    ``value`` returns ``(..., batch)``, ``gradient`` its derivative by the outputs, ``(..., batch,
    n_out)``, and ``link`` the predictions, ``(..., batch, n_out)``, that the outputs stand for.
    """

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    link: Callable[[Array], Array] = identity.value


def _mean(values: Array) -> Array:
    if values.shape[-1] == 1:
        return values[..., 0]  # one output, the commonest case, needs no sum
    return array_namespace(values).sum(values, axis=-1) / values.shape[-1]


def _squared(o: Array, t: Array) -> Array:
    r = o - t
    return _mean(r * r)


def _squared_gradient(o: Array, t: Array) -> Array:
    return (o - t) * (2.0 / o.shape[-1])


def _half_squared(o: Array, t: Array) -> Array:
    return 0.5 * _squared(o, t)


def _half_squared_gradient(o: Array, t: Array) -> Array:
    return (o - t) / o.shape[-1]


def _absolute(o: Array, t: Array) -> Array:
    r = o - t
    return _mean(magnitude(array_namespace(r), r))


def _absolute_gradient(o: Array, t: Array) -> Array:
    r = o - t
    return array_namespace(r).sign(r) / r.shape[-1]


_DELTA = 1.0


def _huber(o: Array, t: Array) -> Array:
    # With c the residual held within delta: r^2 / 2 inside, delta (|r| - delta / 2) outside.
    r = o - t
    c = clip(array_namespace(r), r, -_DELTA, _DELTA)
    return _mean(c * (r - 0.5 * c))


def _huber_gradient(o: Array, t: Array) -> Array:
    r = o - t
    return clip(array_namespace(r), r, -_DELTA, _DELTA) / r.shape[-1]


# log(cosh(20)) is 20 - log(2) to the last digit of float64.
_LOG_COSH_LINEAR = 20.0


def _log_cosh(o: Array, t: Array) -> Array:
    # log(cosh(c)) = log(1 + 2 sinh(c / 2)^2) keeps its digits near 0; beyond the clip it is linear.
    r = o - t
    xp = array_namespace(r)
    c = clip(xp, r, -_LOG_COSH_LINEAR, _LOG_COSH_LINEAR)
    s = xp.sinh(0.5 * c)
    beyond = magnitude(xp, r) - magnitude(xp, c)
    return _mean(xp.log1p(2.0 * s * s) + beyond)


def _log_cosh_gradient(o: Array, t: Array) -> Array:
    r = o - t
    return array_namespace(r).tanh(r) / r.shape[-1]


def _poisson(o: Array, t: Array) -> Array:
    # The negative log-likelihood of counts t at rate exp(o), without the constant log(t!).
    return _mean(array_namespace(o).exp(o) - t * o)


def _poisson_gradient(o: Array, t: Array) -> Array:
    return (array_namespace(o).exp(o) - t) / o.shape[-1]


def _exp(o: Array) -> Array:
    return array_namespace(o).exp(o)


def _binary_cross_entropy(o: Array, t: Array) -> Array:
    # -t log(p) - (1 - t) log(1 - p) at p = sigmoid(o), from the logit: softplus(o) - t o, written
    # so that large terms cancel before they are added.
    xp = array_namespace(o)
    return _mean((positive(xp, o) - t) * o + xp.log1p(xp.exp(-magnitude(xp, o))))


def _binary_cross_entropy_gradient(o: Array, t: Array) -> Array:
    return (sigmoid.value(o) - t) / o.shape[-1]


def _categorical_cross_entropy(o: Array, t: Array) -> Array:
    # -sum t log softmax(o), from the logits shifted by their maximum.
    xp = array_namespace(o)
    shifted = o - xp.max(real_part(xp, o), axis=-1, keepdims=True)
    log_sum = xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
    return xp.sum(t * (log_sum - shifted), axis=-1)


def _categorical_cross_entropy_gradient(o: Array, t: Array) -> Array:
    xp = array_namespace(o)
    return softmax.value(o) * xp.sum(t, axis=-1, keepdims=True) - t


mean_squared_error = Loss(_squared, _squared_gradient)
half_squared_error = Loss(_half_squared, _half_squared_gradient)
mean_absolute_error = Loss(_absolute, _absolute_gradient)
huber = Loss(_huber, _huber_gradient)
log_cosh = Loss(_log_cosh, _log_cosh_gradient)
poisson = Loss(_poisson, _poisson_gradient, link=_exp)
binary_cross_entropy = Loss(
    _binary_cross_entropy, _binary_cross_entropy_gradient, link=sigmoid.value
)
categorical_cross_entropy = Loss(
    _categorical_cross_entropy, _categorical_cross_entropy_gradient, link=softmax.value
)

LOSSES = {
    "mean_squared_error": mean_squared_error,
    "half_squared_error": half_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "huber": huber,
    "log_cosh": log_cosh,
    "poisson": poisson,
    "binary_cross_entropy": binary_cross_entropy,
    "categorical_cross_entropy": categorical_cross_entropy,
}
