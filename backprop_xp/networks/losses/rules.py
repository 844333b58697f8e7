"""The rules of the losses: the value and the derivatives of each, side by side.

A rule yields the value first, so that a caller can stop after it. The rule of each output alone
takes ``(o, t)``, and yields arrays ``(..., batch, n)``: the value, the derivative, and for losses
with a ``curvature`` the second derivative. The rule of a whole loss also takes each
sample's ``share`` in the mean over the batch, a number or ``(..., batch, 1)``: its value is ``(...,
batch)``, its gradient, times the share, ``(..., batch, n_out)``.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    columns_of,
    device_of,
    max_of_rows,
    mean_of_rows,
    replaceable,
    sum_of_rows,
)
from backprop_xp.networks.layers.activations import sigmoid, softmax
from backprop_xp.networks.numbers import complex_safe as safe

Rule: TypeAlias = Callable[[Array, Array, Array], Iterable[Array]]
# The arguments are one block of the outputs or several, then the targets.
OutputRule: TypeAlias = Callable[..., Iterable[Array]]
Curvature: TypeAlias = Callable[[Array, Array], Array]


@replaceable
def mean_over_outputs(
    o: Array, t: Array, share: Array, each: OutputRule, blocks: int = 1
) -> Iterator[Array]:
    """Yield the mean over the targets of ``each``, then its gradient times the share.

    ``each`` takes as many blocks of the outputs, and yields a derivative by each of them. The
    targets may have a share for each of their columns behind them.
    """
    n = o.shape[-1] // blocks
    outputs = [o] if blocks == 1 else columns_of(o, [n] * blocks)
    parts = iter(each(*outputs, t) if t.shape[-1] == n else by_shares(each, outputs, t))
    value = next(parts)
    # One output, the most common case, needs no sum.
    yield value[..., 0] if n == 1 else mean_of_rows(value)
    if blocks == 1:
        yield next(parts) * (share / n)
    else:
        yield array_namespace(o).concat([slope * (share / n) for slope in parts], axis=-1)


def mean_curvature(o: Array, t: Array, each: OutputRule) -> Array:
    """Return the curvature of the mean over the targets of ``each``, its third array."""
    has_shares = t.shape[-1] > o.shape[-1]
    _, _, curvature = by_shares(each, [o], t) if has_shares else each(o, t)
    return curvature / o.shape[-1]


def by_shares(each: OutputRule, outputs: Iterable[Array], t: Array) -> Iterator[Array]:
    """Yield what ``each`` does times the shares of the columns, which are behind the targets."""
    xp, n = array_namespace(t), t.shape[-1] // 2
    t, shares = columns_of(t, [n, n])
    # An output that does not count may overflow, and 0 times infinity is NaN.
    counted = (xp.where(shares == 0.0, t, o) for o in outputs)
    yield from (shares * part for part in each(*counted, t))


def squared(o: Array, t: Array) -> Iterator[Array]:
    """Square of the residual."""
    r = o - t
    yield r * r
    yield r + r
    yield 2.0 * array_namespace(r).ones_like(r)


def half_squared(o: Array, t: Array) -> Iterator[Array]:
    """Half the square of the residual."""
    r = o - t
    yield 0.5 * r * r
    yield r
    yield array_namespace(r).ones_like(r)


def absolute(o: Array, t: Array) -> Iterator[Array]:
    """Absolute residual."""
    r = o - t
    xp = array_namespace(r)
    yield safe.magnitude(xp, r)
    yield safe.positive(xp, r) - safe.positive(xp, -r)


def huber(o: Array, t: Array, delta: float) -> Iterator[Array]:
    """Half the square of the residual up to ``delta``, and a line beyond it."""
    # c is the residual clipped at delta: r^2 / 2 inside, delta (|r| - delta / 2) outside.
    # The curvature is the weight c / r: beyond delta the second derivative is 0.
    r = o - t
    xp = array_namespace(r)
    c = safe.clip(xp, r, -delta, delta)
    yield c * (r - 0.5 * c)
    yield c
    yield delta / xp.maximum(xp.abs(r), delta)


# Exponentials are continued by their tangent from here: no product with them overflows float32.
_TANGENT_FROM = 40.0

# log(cosh(20)) is 20 - log(2) to the last digit of float64.
_LOG_COSH_LINEAR = 20.0


def log_cosh(o: Array, t: Array) -> Iterator[Array]:
    """Logarithm of the hyperbolic cosine of the residual."""
    # log(cosh(c)) = log(1 + 2 sinh(c / 2)^2) keeps its digits near 0; beyond the clip it is linear.
    r = o - t
    xp = array_namespace(r)
    c = safe.clip(xp, r, -_LOG_COSH_LINEAR, _LOG_COSH_LINEAR)
    s = xp.sinh(0.5 * c)
    beyond = safe.magnitude(xp, r) - safe.magnitude(xp, c)
    yield safe.log1p(xp, 2.0 * s * s) + beyond
    slope = xp.tanh(c)
    yield slope
    # The weight slope / r, and 1 at 0: the second derivative vanishes for large residuals.
    at_0 = xp.astype(r == 0.0, r.dtype)
    yield (slope + at_0) / (r + at_0)


def poisson(o: Array, t: Array) -> Iterator[Array]:
    """Negative log-likelihood of counts t at rate exp(o), without the constant log(t!)."""
    c, rate = _exp_to_tangent(o)
    yield rate * (1.0 + (o - c)) - t * o
    yield rate - t
    yield _before_tangent(o, rate)


def _exp_to_tangent(z: Array) -> tuple[Array, Array]:
    """Return z up to where the tangent continues its exponential, and the exponential there."""
    xp = array_namespace(z)
    c = safe.clip(xp, z, -math.inf, _TANGENT_FROM)
    return c, xp.exp(c)


def _before_tangent(z: Array, curvature: Array) -> Array:
    """Return the curvature of an exponential, 0 where its tangent continues it."""
    return curvature * safe.positive(array_namespace(z), _TANGENT_FROM - z)


def exp(o: Array) -> Array:
    """Return the exponential, an inverse link."""
    return array_namespace(o).exp(o)


def binary_cross_entropy(o: Array, t: Array) -> Iterator[Array]:
    """Negative log-likelihood of class 1 at the logit o."""
    # -t log(p) - (1 - t) log(1 - p) at p = sigmoid(o) is softplus(o) - t o, here written so that
    # large terms cancel before they are added. Its slope is (1 - t) sigmoid(o) - t sigmoid(-o):
    # sigmoid(o) - t would lose all digits if the two are close.
    xp = array_namespace(o)
    yield (safe.positive(xp, o) - t) * o + safe.log1p(xp, xp.exp(-safe.magnitude(xp, o)))
    e = safe.finite_exp(xp, -o)
    yield ((1.0 - t) - t * e) / (1.0 + e)
    yield sigmoid.value(o) * sigmoid.value(-o)


# Added to a sum of targets: a row of zeros gets the shares 0, and no other sum changes.
TINY = 1e-37


@replaceable
def categorical(o: Array, t: Array, share: Array) -> Iterator[Array]:
    """Yield categorical cross-entropy, then its gradient times the share."""
    # softmax(o) = exp(s) / (1 + r), with s the logits minus the largest, and r = sum exp(s) - 1.
    # The targets' shares sum to 1 as well. Subtracted term by term, a one-hot target's share leaves
    # r the digits of all other classes, however small they are.
    xp = array_namespace(o)
    total = sum_of_rows(t, keepdims=True)
    shares = t / (total + TINY)
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
    yield (g - shares * r) * (total * share / (1.0 + r))


def categorical_curvature(o: Array, t: Array) -> Array:
    """Return ``sum(t) (diag(p) - p p^T)`` at p = softmax(o), ``(..., batch, n_out, n_out)``."""
    xp, p = array_namespace(o), softmax.value(o)
    unit = xp.eye(o.shape[-1], dtype=o.dtype, device=device_of(o))
    # 1 - p_i would have no digits at a confident output: it is the sum of the other p_j.
    others = (1.0 - unit) * p[..., None, :]
    rows = unit * sum_of_rows(others, keepdims=True) - others
    return sum_of_rows(t, keepdims=True)[..., None] * p[..., None] * rows


def quantiles(*arguments: Any) -> Iterator[Array]:
    """Mean of pinball losses; the arguments are a block of outputs for each level, t and levels."""
    *outputs, t, levels = arguments
    xp, residuals = array_namespace(t), [t - o for o in outputs]
    # The slope by the residual: q above 0, q - 1 below, 0 at the kink.
    slopes = [
        (q * safe.positive(xp, r) - (1.0 - q) * safe.positive(xp, -r)) / len(levels)
        for q, r in zip(levels, residuals, strict=True)
    ]
    terms = [slope * r for slope, r in zip(slopes, residuals, strict=True)]
    yield sum(terms[1:], start=terms[0])
    yield from (-slope for slope in slopes)


def gaussian_nll(mean: Array, log_variance: Array, t: Array) -> Iterator[Array]:
    """Half of log(variance) + r^2 / variance; the constant log(2 pi) / 2 is left out."""
    xp, r = array_namespace(mean), mean - t
    c = safe.clip(xp, log_variance, -_TANGENT_FROM, math.inf)
    inverse = xp.exp(-c)
    precision = inverse * (1.0 + (c - log_variance))
    yield 0.5 * (log_variance + r * r * precision)
    yield r * precision
    yield 0.5 - 0.5 * r * r * inverse


def tweedie(o: Array, t: Array, power: float) -> Iterator[Array]:
    """``g(2 - power) - t g(1 - power)``, where ``g(k) = (exp(k o) - 1) / k``, or o for k = 0."""
    above, above_slope = _growth(o, 2.0 - power)
    below, below_slope = _growth(o, 1.0 - power)
    yield above - t * below
    yield above_slope - t * below_slope
    rise, fall = ((2.0 - power) * above_slope, (1.0 - power) * below_slope)
    yield _before_tangent((2.0 - power) * o, rise) - t * _before_tangent((1.0 - power) * o, fall)


def _growth(o: Array, k: float) -> tuple[Array, Array]:
    """Return (exp(k o) - 1) / k and its derivative exp(k o)."""
    if k == 0.0:
        return o, 1.0
    xp, z = array_namespace(o), k * o
    c, e = _exp_to_tangent(z)
    return (xp.expm1(c) + e * (z - c)) / k, e


def one_or_several(
    o: Array, t: Array, share: Array, one: OutputRule, several: Rule
) -> Iterable[Array]:
    """Two classes by a single output, or as many as there are outputs."""
    is_one = o.shape[-1] == 1
    return mean_over_outputs(o, t, share, one) if is_one else several(o, t, share)


def binary_focal(o: Array, t: Array, gamma: float) -> Iterator[Array]:
    """Binary cross-entropy whose terms are multiplied by ``(1 - p)**gamma``."""
    # u = -log(1 - p) and v = -log(p) at p = sigmoid(o).
    xp = array_namespace(o)
    tail, above = safe.log1p(xp, xp.exp(-safe.magnitude(xp, o))), safe.positive(xp, o)
    u, v = above * o + tail, (above - 1.0) * o + tail
    of_one, of_zero = t * xp.exp(-gamma * u), (1.0 - t) * xp.exp(-gamma * v)
    yield of_one * v + of_zero * u
    p, q = sigmoid.value(o), sigmoid.value(-o)
    yield of_zero * (p + gamma * q * u) - of_one * (q + gamma * p * v)


def categorical_focal(o: Array, t: Array, share: Array, gamma: float) -> Iterator[Array]:
    """Categorical cross-entropy whose terms are multiplied by ``(1 - p)**gamma``."""
    # softmax(o) = e / (1 + r), as in categorical. 1 - softmax(o) is rest / (1 + r), where the
    # largest class's own 1 is subtracted first: small probabilities of the others stay.
    xp = array_namespace(o)
    s = o - max_of_rows(safe.real_part(xp, o))
    e, largest = xp.exp(s), xp.astype(safe.real_part(xp, s) == 0.0, t.dtype)
    largest = largest / sum_of_rows(largest, keepdims=True)
    r = sum_of_rows(e - largest, keepdims=True)
    p, rest = e / (1.0 + r), (r + (1.0 - e)) / (1.0 + r)
    log_p = s - safe.log1p(xp, r)
    weight = t * xp.exp(gamma * xp.log(rest + TINY))
    yield -sum_of_rows(weight * log_p)
    c = weight * (1.0 - gamma * p * log_p / (rest + TINY))
    yield (p * (sum_of_rows(c, keepdims=True) - c) - c * rest) * share


def binary_hinge(o: Array, t: Array) -> Iterator[Array]:
    """max(0, 1 - o) for class 1, and max(0, 1 + o) for class 0."""
    sign = 2.0 * t - 1.0
    margin = 1.0 - sign * o
    missed = safe.positive(array_namespace(o), margin)
    yield missed * margin
    yield -missed * sign


def categorical_hinge(o: Array, t: Array, share: Array) -> Iterator[Array]:
    """max(0, 1 + the largest other output - the class's own): Crammer and Singer 2001."""
    # The largest of o_j + (1 - t_j), less the target's own output: that entry is exactly 0. Both
    # are multiplied by the targets' sum: a row of zeros counts for nothing.
    xp, total = array_namespace(o), sum_of_rows(t, keepdims=True)
    own = sum_of_rows(t / (total + TINY) * o, keepdims=True)
    margins = total * (1.0 + (o - own)) - t
    x = safe.real_part(xp, margins)
    largest = xp.astype(x == max_of_rows(x), t.dtype)
    largest = largest / sum_of_rows(largest, keepdims=True)
    yield sum_of_rows(largest * margins)
    yield (total * largest - t) * share


def smoothed(
    o: Array, t: Array, share: Array, rule: Rule, smoothing: float, by_row: bool
) -> Iterable[Array]:
    """Rule of classes with a part of each row's targets spread evenly over the classes."""
    return rule(o, _smooth(o, t, smoothing, by_row), share)


def smoothed_curvature(
    o: Array, t: Array, curvature: Curvature, smoothing: float, by_row: bool
) -> Array:
    """Return the curvature of ``smoothed``."""
    return curvature(o, _smooth(o, t, smoothing, by_row))


def _smooth(o: Array, t: Array, smoothing: float, by_row: bool) -> Array:
    n, xp = o.shape[-1], array_namespace(t)
    even = sum_of_rows(t, keepdims=True) / n if by_row and n > 1 else 0.5
    smooth = (1.0 - smoothing) * t + smoothing * even
    if t.shape[-1] > n:  # shares of the columns
        smooth = xp.concat([smooth[..., :n], t[..., n:]], axis=-1)
    return smooth
