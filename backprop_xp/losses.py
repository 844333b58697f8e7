"""Losses: each a value, its gradient and the link from outputs to predictions.

``o`` are the network's raw outputs, ``t`` the targets, both ``(..., batch, n_out)``; a value is
``(..., batch)``, one per sample. Per sample a loss is the *mean* over the outputs, except
categorical cross-entropy, a *sum* over the classes. The gradient is that of a sample's own loss;
averaging over the batch is the network's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from backprop_xp.activations import identity, sigmoid, softmax
from backprop_xp.backends import Array, array_namespace, max_of_rows, sum_of_rows
from backprop_xp.complex_safe import (
    clip,
    finite_exp,
    is_complex,
    log1p,
    magnitude,
    positive,
    real_part,
)


@dataclass(frozen=True)
class Loss:
    """``value(outputs, targets)``, ``gradient(outputs, targets)`` and ``link(outputs)``.

    ``value`` returns ``(..., batch)``, ``gradient`` its derivative by the outputs, ``(..., batch,
    n_out)``, and ``link`` the predictions, ``(..., batch, n_out)``, that the outputs stand for.
    ``targets`` are the least and the greatest target that the loss can mean, ``least_outputs`` is
    the fewest outputs of which it says anything: training refuses other ones. With ``labels`` a
    network takes integer class labels for its targets too, and makes them one-hot.
    """

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    link: Callable[[Array], Array] = identity.value
    targets: tuple[float, float] = (-math.inf, math.inf)
    least_outputs: int = 1
    labels: bool = False


def _mean(values: Array) -> Array:
    if values.shape[-1] == 1:
        return values[..., 0]  # one output, the commonest case, needs no sum
    return sum_of_rows(values) / values.shape[-1]


def _squared(o: Array, t: Array) -> Array:
    r = o - t
    return _mean(r * r)


def _squared_gradient(o: Array, t: Array) -> Array:
    return (o - t) * (2.0 / o.shape[-1])


def _squared_both(o: Array, t: Array) -> tuple[Array, Array]:
    r = o - t
    return _mean(r * r), r * (2.0 / r.shape[-1])


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
    return _mean(log1p(xp, 2.0 * s * s) + beyond)


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
    return _mean((positive(xp, o) - t) * o + log1p(xp, xp.exp(-magnitude(xp, o))))


def _binary_cross_entropy_gradient(o: Array, t: Array) -> Array:
    # (1 - t) sigmoid(o) - t sigmoid(-o): sigmoid(o) - t has no digits left where the two are close.
    e = finite_exp(array_namespace(o), -o)
    return ((1.0 - t) - t * e) / (1.0 + e) / o.shape[-1]


# Added to a sum of targets: a row of zeros has no shares, and any other sum stays what it is.
_TINY = 1e-37


def _categorical_both(o: Array, t: Array) -> tuple[Array, Array]:
    # softmax(o) = exp(s) / (1 + r): s are the logits less their largest, r is sum exp(s) less that
    # one's 1. The targets' shares sum to 1 too: taken off term by term, a one-hot target's class
    # leaves r the digits of all others, however small they are.
    xp = array_namespace(o)
    total = sum_of_rows(t, keepdims=True)
    shares = t / (total + _TINY)
    x = real_part(xp, o)
    s = o - max_of_rows(x)
    if is_complex(xp, o.dtype):
        # Any shift will do: by the target's imaginary part too, which would hide what a complex
        # step adds to it.
        s = s - sum_of_rows(shares * (o - x), keepdims=True)
    g = xp.exp(s) - shares
    r = sum_of_rows(g, keepdims=True)
    # -sum t log softmax(o), and sum(t) (softmax(o) - shares), over one denominator.
    value = (total * log1p(xp, r))[..., 0] - sum_of_rows(t * s)
    g -= shares * r
    g *= total / (1.0 + r)
    return value, g


def _categorical_cross_entropy(o: Array, t: Array) -> Array:
    return _categorical_both(o, t)[0]


def _categorical_cross_entropy_gradient(o: Array, t: Array) -> Array:
    return _categorical_both(o, t)[1]


mean_squared_error = Loss(_squared, _squared_gradient)
half_squared_error = Loss(_half_squared, _half_squared_gradient)
mean_absolute_error = Loss(_absolute, _absolute_gradient)
huber = Loss(_huber, _huber_gradient)
log_cosh = Loss(_log_cosh, _log_cosh_gradient)
poisson = Loss(_poisson, _poisson_gradient, link=_exp, targets=(0.0, math.inf))
binary_cross_entropy = Loss(
    _binary_cross_entropy, _binary_cross_entropy_gradient, link=sigmoid.value, targets=(0.0, 1.0)
)
# Of one output the softmax is 1, whatever the output.
categorical_cross_entropy = Loss(
    _categorical_cross_entropy,
    _categorical_cross_entropy_gradient,
    link=softmax.value,
    targets=(0.0, math.inf),
    least_outputs=2,
    labels=True,
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

# By value and gradient: one whose gradient was replaced is not among them.
TOGETHER = {
    (id(_squared), id(_squared_gradient)): _squared_both,
    (id(_categorical_cross_entropy), id(_categorical_cross_entropy_gradient)): _categorical_both,
}


def value_and_gradient(loss: Loss, o: Array, t: Array) -> tuple[Array, Array]:
    """Return a loss's value and its gradient, at once where they share work."""
    both = TOGETHER.get((id(loss.value), id(loss.gradient)))
    return (loss.value(o, t), loss.gradient(o, t)) if both is None else both(o, t)
