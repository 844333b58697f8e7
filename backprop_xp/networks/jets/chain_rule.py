"""The derivatives of functions of each number: a table, and those of powers."""

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from backprop_xp.backends import Array, Namespace
from backprop_xp.networks.jets.errors import NotLinearError
from backprop_xp.networks.jets.jet import Change, Functions, Jet, as_jet, value_of
from backprop_xp.networks.jets.parts import crossed, multiplied, total


class Rule(NamedTuple):
    """The first two derivatives of ``y = f(x)``; the second one also gets the first, ``s``."""

    slope: Callable[[Namespace, Array, Array], Array]
    curvature: Callable[[Namespace, Array, Array, Array], Array]


RULES = {
    "exp": Rule(lambda xp, x, y: y, lambda xp, x, y, s: y),
    "expm1": Rule(lambda xp, x, y: xp.exp(x), lambda xp, x, y, s: s),
    "log": Rule(lambda xp, x, y: 1.0 / x, lambda xp, x, y, s: -s * s),
    "log1p": Rule(lambda xp, x, y: 1.0 / (1.0 + x), lambda xp, x, y, s: -s * s),
    "log2": Rule(lambda xp, x, y: 1.0 / (math.log(2.0) * x), lambda xp, x, y, s: -s / x),
    "log10": Rule(lambda xp, x, y: 1.0 / (math.log(10.0) * x), lambda xp, x, y, s: -s / x),
    "sqrt": Rule(lambda xp, x, y: 0.5 / y, lambda xp, x, y, s: -0.5 * s / x),
    "square": Rule(lambda xp, x, y: 2.0 * x, lambda xp, x, y, s: xp.full_like(x, 2.0)),
    "reciprocal": Rule(lambda xp, x, y: -y * y, lambda xp, x, y, s: -2.0 * s * y),
    "sin": Rule(lambda xp, x, y: xp.cos(x), lambda xp, x, y, s: -y),
    "cos": Rule(lambda xp, x, y: -xp.sin(x), lambda xp, x, y, s: -y),
    "tan": Rule(lambda xp, x, y: 1.0 + y * y, lambda xp, x, y, s: 2.0 * y * s),
    "asin": Rule(lambda xp, x, y: _slope_of_asin(xp, x), lambda xp, x, y, s: x * s * s * s),
    "acos": Rule(lambda xp, x, y: -_slope_of_asin(xp, x), lambda xp, x, y, s: x * s * s * s),
    "atan": Rule(lambda xp, x, y: 1.0 / (1.0 + x * x), lambda xp, x, y, s: -2.0 * x * s * s),
    "sinh": Rule(lambda xp, x, y: xp.cosh(x), lambda xp, x, y, s: y),
    "cosh": Rule(lambda xp, x, y: xp.sinh(x), lambda xp, x, y, s: y),
    "tanh": Rule(lambda xp, x, y: 1.0 - y * y, lambda xp, x, y, s: -2.0 * y * s),
    "asinh": Rule(lambda xp, x, y: 1.0 / xp.sqrt(1.0 + x * x), lambda xp, x, y, s: -x * s * s * s),
    "acosh": Rule(
        lambda xp, x, y: 1.0 / xp.sqrt((x - 1.0) * (x + 1.0)), lambda xp, x, y, s: -x * s * s * s
    ),
    "atanh": Rule(
        lambda xp, x, y: 1.0 / ((1.0 - x) * (1.0 + x)), lambda xp, x, y, s: 2.0 * x * s * s
    ),
}


def composed(jet: Jet, function: Change, rule: Rule) -> Jet:
    """Return a function of each number, by its value and its derivatives."""
    if jet.is_dual:
        raise NotLinearError("applies a function to g")
    namespace, x, y = jet.namespace, jet.value, function(jet.value)
    if jet.first is None:
        return Jet(namespace, y)
    slope = rule.slope(namespace.base, x, y)
    first = slope * jet.first
    if not namespace.operators:
        return Jet(namespace, y, first)
    squares = crossed(namespace.base, namespace.operators, jet.first, jet.first, operator.mul)
    half = 0.5 * rule.curvature(namespace.base, x, y, slope)
    second = total(multiplied(operator.mul, slope, jet.second), half * squares)
    return Jet(namespace, y, first, second)


def _slope_of_asin(xp: Namespace, x: Array) -> Array:
    return 1.0 / xp.sqrt((1.0 - x) * (1.0 + x))


def raised(xp: Namespace, x: Array, exponent: Any) -> Array:
    """Return ``x**exponent``, by a number or an array; whole powers of complex x by products.

    Most libraries compute these by a logarithm, which loses a complex step's imaginary part where
    the real part is negative.
    """
    is_whole = isinstance(exponent, Real) and exponent % 1 == 0
    if not (is_whole and xp.isdtype(x.dtype, "complex floating")):
        return x**exponent
    result, factor, rest = xp.ones_like(x), x, int(abs(float(exponent)))
    while rest:
        result = result * factor if rest % 2 else result
        factor, rest = factor * factor, rest // 2
    return 1.0 / result if exponent < 0 else result


def power(namespace: Functions, a: Any, b: Any) -> Any:
    """Return a**b; ``exp(b log(a))`` if both depend on the inputs."""
    xp = namespace.base
    if isinstance(b, Jet) and (b.first is not None or b.is_dual):
        if isinstance(a, Jet) and (a.first is not None or a.is_dual):
            return composed(b * composed(a, xp.log, RULES["log"]), xp.exp, RULES["exp"])
        return _exponential(namespace, value_of(a), b)
    a, b = as_jet(namespace, a), value_of(b)
    n = float(b) if isinstance(b, Real) else xp.astype(b, a.dtype)
    if not isinstance(n, float):
        a = a * xp.ones_like(n)  # with the axes of both

    # A factor of 0 is left out: 0 times an infinite power is NaN.
    def times_power(factor: Any, x: Array, exponent: Any) -> Array:
        if isinstance(factor, float):
            return factor * raised(xp, x, exponent) if factor else xp.zeros_like(x)
        return xp.where(factor == 0.0, xp.zeros_like(x), factor * raised(xp, x, exponent))

    rule = Rule(
        lambda xp, x, y: times_power(n, x, n - 1.0),
        lambda xp, x, y, s: times_power(n * (n - 1.0), x, n - 2.0),
    )
    return composed(a, lambda x: raised(xp, x, b), rule)


def _exponential(namespace: Functions, base: Any, exponent: Jet) -> Jet:
    """Return a power of a constant; those of 0 have derivatives of 0."""
    xp = namespace.base
    if isinstance(base, Real):
        base = xp.full_like(exponent.value, float(base))
    log = xp.log(xp.where(base == 0.0, xp.ones_like(base), base))
    rule = Rule(lambda xp, x, y: log * y, lambda xp, x, y, s: log * s)
    return composed(exponent * xp.ones_like(base), lambda x: base**x, rule)  # with the axes of both
