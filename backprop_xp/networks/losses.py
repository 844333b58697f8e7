"""Losses: each is a value, its gradient, and the link from outputs to predictions.

``o`` are the network's raw outputs and ``t`` the targets, both ``(..., batch, n_out)``. A value is
``(..., batch)``, one per sample: the *mean* over the outputs, but for categorical cross-entropy the
*sum* over the classes. The gradient belongs to each sample's own loss; the network takes the mean
over the batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    max_of_rows,
    mean_of_rows,
    replaceable,
    sum_of_rows,
)
from backprop_xp.checks import real
from backprop_xp.display.reprs import argument_text, register_table, remember_call, repr_of
from backprop_xp.networks import complex_safe as safe
from backprop_xp.networks.activations import identity, sigmoid, softmax


@dataclass(frozen=True)
class Loss:
    """``value(outputs, targets)``, ``gradient(outputs, targets)`` and ``link(outputs)``.

    ``value`` returns ``(..., batch)``, ``gradient`` its derivative by the outputs, ``(..., batch,
    n_out)``, and ``link`` the predictions, ``(..., batch, n_out)``, made from the outputs.
    ``targets`` are the smallest and the largest valid target, ``least_outputs`` is the smallest
    valid number of outputs: training refuses others. With ``labels`` a network also takes integer
    class labels as targets, and makes them one-hot.
    """

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    link: Callable[[Array], Array] = identity.value
    targets: tuple[float, float] = (-math.inf, math.inf)
    least_outputs: int = 1
    labels: bool = False

    __repr__ = repr_of


# A rule of outputs, targets and each sample's share in the mean over the batch, a number or
# (..., batch, 1). It yields a loss's value, then its gradient times the share, so that a caller can
# stop after the value.
_Rule: TypeAlias = Callable[[Array, Array, Array], Iterable[Array]]
# The same of each output alone, without the share.
_OutputRule: TypeAlias = Callable[[Array, Array], Iterable[Array]]


@dataclass(frozen=True)
class _Part:
    """The value, or the gradient, that a rule yields."""

    rule: _Rule
    name: Literal["value", "gradient"]

    def __call__(self, o: Array, t: Array) -> Array:
        parts = iter(self.rule(o, t, 1.0))
        value = next(parts)
        return value if self.name == "value" else next(parts)

    def __repr__(self) -> str:
        return f"{argument_text(self.rule)}.{self.name}"


@dataclass(frozen=True)
class _OverOutputs:
    """The rule of a loss that is a mean over the outputs."""

    each: _OutputRule

    __repr__ = repr_of

    def __call__(self, o: Array, t: Array, share: Array) -> Iterable[Array]:
        parts: Iterable[Array] = mean_over_outputs(o, t, share, self.each)
        return parts


def over_outputs(each: _OutputRule, **more: Any) -> Loss:
    """Return a loss that treats each output separately and takes the mean over the outputs.

    ``each(outputs, targets)`` returns or yields two arrays ``(..., batch, n_out)``: its values and
    their derivatives. ``more`` are the ``link`` and other arguments of ``Loss``.
    """
    rule = remember_call(_OverOutputs(each), over_outputs, each)
    return Loss(_Part(rule, "value"), _Part(rule, "gradient"), **more)


@replaceable
def mean_over_outputs(o: Array, t: Array, share: Array, each: _OutputRule) -> Iterator[Array]:
    """Yield the mean over the outputs of ``each``, then its gradient times the share."""
    parts = iter(each(o, t))
    value, n_out = next(parts), o.shape[-1]
    # One output, the most common case, needs no sum.
    yield value[..., 0] if n_out == 1 else mean_of_rows(value)
    yield next(parts) * (share / n_out)


def value_of(loss: Loss, o: Array, t: Array) -> Array:
    """Return a loss's value, checked to be one number per sample."""
    value = loss.value(o, t)
    _check_shape(loss, "value", value, o.shape[:-1])
    return value


def value_and_gradient(loss: Loss, o: Array, t: Array, share: Array) -> tuple[Array, Array]:
    """Return a loss's value, and its gradient times each sample's share, a number or an array."""
    value, gradient = loss.value, loss.gradient
    if isinstance(value, _Part) and isinstance(gradient, _Part) and value.rule is gradient.rule:
        each, g = value.rule(o, t, share)
    else:
        each, g = value(o, t), gradient(o, t)
        _check_shape(loss, "gradient", g, o.shape)
        g = g * share
    _check_shape(loss, "value", each, o.shape[:-1])
    _check_shape(loss, "gradient", g, o.shape)
    return each, g


def _check_shape(loss: Loss, part: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a loss's value or gradient has its shape: it could broadcast."""
    found = getattr(array, "shape", None)
    if found != shape:
        raise ValueError(
            f"The {part} of {argument_text(loss)} has shape {tuple(found or ())}, but "
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
    yield safe.magnitude(xp, r)
    yield xp.sign(r)


@dataclass(frozen=True)
class _Huber:
    delta: float

    def __call__(self, o: Array, t: Array) -> Iterator[Array]:
        # c is the residual clipped at delta: r^2 / 2 inside, delta (|r| - delta / 2) outside.
        r = o - t
        c = safe.clip(array_namespace(r), r, -self.delta, self.delta)
        yield c * (r - 0.5 * c)
        yield c


def huber_with(delta: float) -> Loss:
    """Return half the square of a residual up to ``delta``, and a line with that slope beyond it.

    Huber 1964, in PyTorch's form: for a large ``delta`` it is ``half_squared_error``.
    """
    delta = real(delta, "delta", above=0.0)
    return remember_call(over_outputs(_Huber(delta)), huber_with, delta)


# log(cosh(20)) is 20 - log(2) to the last digit of float64.
_LOG_COSH_LINEAR = 20.0


def _log_cosh(o: Array, t: Array) -> Iterator[Array]:
    # log(cosh(c)) = log(1 + 2 sinh(c / 2)^2) keeps its digits near 0; beyond the clip it is linear.
    r = o - t
    xp = array_namespace(r)
    c = safe.clip(xp, r, -_LOG_COSH_LINEAR, _LOG_COSH_LINEAR)
    s = xp.sinh(0.5 * c)
    beyond = safe.magnitude(xp, r) - safe.magnitude(xp, c)
    yield safe.log1p(xp, 2.0 * s * s) + beyond
    yield xp.tanh(c)


def _poisson(o: Array, t: Array) -> Iterator[Array]:
    # The negative log-likelihood of counts t at rate exp(o), without the constant log(t!).
    rate = _exp(o)
    yield rate - t * o
    yield rate - t


def _exp(o: Array) -> Array:
    return array_namespace(o).exp(o)


def _binary_cross_entropy(o: Array, t: Array) -> Iterator[Array]:
    # -t log(p) - (1 - t) log(1 - p) at p = sigmoid(o) is softplus(o) - t o, here written so that
    # large terms cancel before they are added. Its slope is (1 - t) sigmoid(o) - t sigmoid(-o):
    # sigmoid(o) - t would lose all digits if the two are close.
    xp = array_namespace(o)
    yield (safe.positive(xp, o) - t) * o + safe.log1p(xp, xp.exp(-safe.magnitude(xp, o)))
    e = safe.finite_exp(xp, -o)
    yield ((1.0 - t) - t * e) / (1.0 + e)


# Added to a sum of targets: a row of zeros gets the shares 0, and no other sum changes.
_TINY = 1e-37


@replaceable
def categorical(o: Array, t: Array, share: Array) -> Iterator[Array]:
    """Yield categorical cross-entropy, then its gradient times the share."""
    # softmax(o) = exp(s) / (1 + r), with s the logits minus the largest, and r = sum exp(s) - 1.
    # The targets' shares sum to 1 as well. Subtracted term by term, a one-hot target's share leaves
    # r the digits of all other classes, however small they are.
    xp = array_namespace(o)
    total = sum_of_rows(t, keepdims=True)
    shares = t / (total + _TINY)
    x = safe.real_part(xp, o)
    s = o - max_of_rows(x)
    if safe.is_complex(xp, o.dtype):
        # Any shift is right. This one removes the target's imaginary part, next to which a complex
        # step's contribution would round away.
        s = s - sum_of_rows(shares * (o - x), keepdims=True)
    g = xp.exp(s) - shares
    r = sum_of_rows(g, keepdims=True)
    # -sum t log softmax(o), and sum(t) (softmax(o) - shares), over one denominator.
    yield (total * safe.log1p(xp, r))[..., 0] - sum_of_rows(t * s)
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
# The softmax of one output is always 1.
categorical_cross_entropy = Loss(
    _Part(categorical, "value"),
    _Part(categorical, "gradient"),
    link=softmax.value,
    targets=(0.0, math.inf),
    least_outputs=2,
    labels=True,
)

LOSSES: dict[str, Loss] = register_table(
    "losses", {name: value for name, value in list(globals().items()) if isinstance(value, Loss)}
)
