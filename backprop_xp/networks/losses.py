"""Losses: each a value, its gradient and the link from outputs to predictions.

``o`` are the network's raw outputs, ``t`` the targets, both ``(..., batch, n_out)``; a value is
``(..., batch)``, one per sample. Per sample a loss is the *mean* over the outputs, except
categorical cross-entropy, a *sum* over the classes. The gradient is that of a sample's own loss;
averaging over the batch is the network's.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    max_of_rows,
    mean_of_rows,
    replaceable,
    sum_of_rows,
)
from backprop_xp.checks import real
from backprop_xp.display.reprs import call, made, named, shown, word
from backprop_xp.networks.activations import identity, sigmoid, softmax
from backprop_xp.networks.complex_safe import (
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
    ``targets`` are the smallest and the largest target that make sense, ``least_outputs`` is the
    smallest number of outputs that does: training refuses others. With ``labels`` a network also
    takes integer class labels as targets, and makes them one-hot.
    """

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    link: Callable[[Array], Array] = identity.value
    targets: tuple[float, float] = (-math.inf, math.inf)
    least_outputs: int = 1
    labels: bool = False

    __repr__ = shown


# What is made of outputs, targets and each sample's share in the mean over the batch, a number or
# (..., batch, 1): a loss's value, then its gradient times the share. Who wants the value alone asks
# for no more, and a generator makes no more.
_Both: TypeAlias = Callable[[Array, Array, Any], Iterable[Array]]


@dataclass(frozen=True)
class _Value:
    both: _Both

    def __call__(self, o: Array, t: Array) -> Array:
        return next(iter(self.both(o, t, 1.0)))

    def __repr__(self) -> str:
        return f"{word(self.both)}.value"


@dataclass(frozen=True)
class _Gradient:
    both: _Both

    def __call__(self, o: Array, t: Array) -> Array:
        _, gradient = self.both(o, t, 1.0)
        return gradient

    def __repr__(self) -> str:
        return f"{word(self.both)}.gradient"


@dataclass(frozen=True)
class _OverOutputs:
    each: Callable[[Array, Array], Iterable[Array]]

    def __call__(self, o: Array, t: Array, share: Any) -> Any:
        return mean_over_outputs(o, t, share, self.each)

    def __repr__(self) -> str:
        return call(over_outputs, self.each)


def over_outputs(each: Callable[[Array, Array], Iterable[Array]], **more: Any) -> Loss:
    """Return a loss that treats each output alone and takes the mean over the outputs.

    ``each(outputs, targets)`` gives two arrays ``(..., batch, n_out)``, its values and their
    derivatives, as a tuple or one after the other; ``more`` is the ``link`` and what else a
    ``Loss`` has.
    """
    both = _OverOutputs(each)
    return Loss(_Value(both), _Gradient(both), **more)


@replaceable
def mean_over_outputs(
    o: Array, t: Array, share: Any, each: Callable[[Array, Array], Iterable[Array]]
) -> Iterator[Array]:
    """Yield the mean over the outputs of ``each``, then its gradient times the share."""
    parts = iter(each(o, t))
    value, n_out = next(parts), o.shape[-1]
    # One output, the commonest case, needs no sum.
    yield value[..., 0] if n_out == 1 else mean_of_rows(value)
    yield next(parts) * (share / n_out)


def value_of(loss: Loss, o: Array, t: Array) -> Array:
    """Return a loss's value, checked to be one number for each sample."""
    value = loss.value(o, t)
    _check_shape(loss, "value", value, o.shape[:-1])
    return value


def value_and_gradient(loss: Loss, o: Array, t: Array, share: Any) -> tuple[Array, Array]:
    """Return a loss's value, and its gradient times each sample's share, a number or an array."""
    value, gradient = loss.value, loss.gradient
    if (
        isinstance(value, _Value)
        and isinstance(gradient, _Gradient)
        and value.both is gradient.both
    ):
        each, g = value.both(o, t, share)
    else:
        each, g = value(o, t), gradient(o, t)
        _check_shape(loss, "gradient", g, o.shape)
        g = g * share
    _check_shape(loss, "value", each, o.shape[:-1])
    _check_shape(loss, "gradient", g, o.shape)
    return each, g


def _check_shape(loss: Loss, what: str, found: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless what a loss returned has a shape: broadcast, it would be wrong."""
    if getattr(found, "shape", None) != shape:
        raise ValueError(
            f"The {what} of {word(loss)} has shape {tuple(getattr(found, 'shape', ()))}, but "
            f"{tuple(shape)} is expected: a loss's value is one number per sample, (..., batch), "
            "its gradient one for each output, (..., batch, n_out)."
        )


def _squared(o: Array, t: Array) -> Iterator[Array]:
    r = o - t
    yield r * r
    yield 2.0 * r


def _half_squared(o: Array, t: Array) -> Iterator[Array]:
    r = o - t
    yield 0.5 * r * r
    yield r


def _absolute(o: Array, t: Array) -> Iterator[Array]:
    r = o - t
    xp = array_namespace(r)
    yield magnitude(xp, r)
    yield xp.sign(r)


@dataclass(frozen=True)
class _Huber:
    delta: float

    def __call__(self, o: Array, t: Array) -> Iterator[Array]:
        # With c the residual held within delta: r^2 / 2 inside, delta (|r| - delta / 2) outside.
        r = o - t
        c = clip(array_namespace(r), r, -self.delta, self.delta)
        yield c * (r - 0.5 * c)
        yield c


def huber_with(delta: float) -> Loss:
    """Return half the square of a residual up to ``delta``, and a line with that slope beyond it.

    Huber 1964, as PyTorch has it: of a large ``delta`` it is ``half_squared_error``.
    """
    delta = real(delta, "delta", above=0.0)
    return made(over_outputs(_Huber(delta)), huber_with, delta)


# log(cosh(20)) is 20 - log(2) to the last digit of float64.
_LOG_COSH_LINEAR = 20.0


def _log_cosh(o: Array, t: Array) -> Iterator[Array]:
    # log(cosh(c)) = log(1 + 2 sinh(c / 2)^2) keeps its digits near 0; beyond the clip it is linear.
    r = o - t
    xp = array_namespace(r)
    c = clip(xp, r, -_LOG_COSH_LINEAR, _LOG_COSH_LINEAR)
    s = xp.sinh(0.5 * c)
    beyond = magnitude(xp, r) - magnitude(xp, c)
    yield log1p(xp, 2.0 * s * s) + beyond
    yield xp.tanh(c)


def _poisson(o: Array, t: Array) -> Iterator[Array]:
    # The negative log-likelihood of counts t at rate exp(o), without the constant log(t!).
    rate = _exp(o)
    yield rate - t * o
    yield rate - t


def _exp(o: Array) -> Array:
    return array_namespace(o).exp(o)


def _binary_cross_entropy(o: Array, t: Array) -> Iterator[Array]:
    # -t log(p) - (1 - t) log(1 - p) at p = sigmoid(o), from the logit: softplus(o) - t o, written
    # so that large terms cancel before they are added. Its slope is (1 - t) sigmoid(o) - t
    # sigmoid(-o): sigmoid(o) - t has no digits left where the two are close.
    xp = array_namespace(o)
    yield (positive(xp, o) - t) * o + log1p(xp, xp.exp(-magnitude(xp, o)))
    e = finite_exp(xp, -o)
    yield ((1.0 - t) - t * e) / (1.0 + e)


# Added to a sum of targets: a row of zeros has no shares, and any other sum stays what it is.
_TINY = 1e-37


@replaceable
def categorical(o: Array, t: Array, share: Any) -> Iterator[Array]:
    """Yield categorical cross-entropy, then its gradient times the share."""
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
    yield (total * log1p(xp, r))[..., 0] - sum_of_rows(t * s)
    g -= shares * r
    g *= total * share / (1.0 + r)
    yield g


mean_squared_error = over_outputs(_squared)
half_squared_error = over_outputs(_half_squared)
mean_absolute_error = over_outputs(_absolute)
huber = huber_with(1.0)
log_cosh = over_outputs(_log_cosh)
poisson = over_outputs(_poisson, link=_exp, targets=(0.0, math.inf))
binary_cross_entropy = over_outputs(_binary_cross_entropy, link=sigmoid.value, targets=(0.0, 1.0))
# Of one output the softmax is 1, whatever the output.
categorical_cross_entropy = Loss(
    _Value(categorical),
    _Gradient(categorical),
    link=softmax.value,
    targets=(0.0, math.inf),
    least_outputs=2,
    labels=True,
)

LOSSES = named(
    "losses",
    {
        "mean_squared_error": mean_squared_error,
        "half_squared_error": half_squared_error,
        "mean_absolute_error": mean_absolute_error,
        "huber": huber,
        "log_cosh": log_cosh,
        "poisson": poisson,
        "binary_cross_entropy": binary_cross_entropy,
        "categorical_cross_entropy": categorical_cross_entropy,
    },
)
