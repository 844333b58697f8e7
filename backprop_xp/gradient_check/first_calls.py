"""The first and the last calls of a check: what they show to be wrong needs no derivative."""

from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends import array_namespace, to_host
from backprop_xp.gradient_check.functions import (
    DOUBLE,
    SINGLE,
    Fault,
    Function,
    Host,
    Problem,
)

# Two calls at one point may differ by so many roundings: sums that threads share do.
_SAME = 1e3
# What float32 and float64 return at one point may differ by so much, and be the same formula.
_SAME_FORMULA = 1e-2


def prepared(problem: Problem) -> Function:
    """Return a problem as a ``Function``, after the first calls of value and gradient.

    Both must return the same numbers again and leave their point as it is; else ``Fault`` is
    raised. Raises ValueError or TypeError for what is no value and no gradient.
    """
    function = Function(problem)
    problem.point.require(np.isfinite(function.x), ": no derivative can be taken there.")
    if function.tangent is not None:
        _require_projection(function)
    function.base, function.epsilon = _untouched(function, function.value, "value")
    base = _shown(function.base)
    if function.base.dtype.kind == "c":
        raise TypeError(f"value(point) must be real at a real point, not complex: {base}.")
    if not np.all(np.isfinite(function.base)):
        raise ValueError(f"value(point) is {base}: no derivative can be taken there.")
    if problem.options["batched"] and function.stacks is None and not function.takes_stacks(2):
        raise ValueError(
            "batched=True, but value of stacked copies is not what it is of each alone: it must "
            "return one number for each copy, from that copy only. Leave it out."
        )
    if function.is_double:  # in float32 the second call is that in float64
        _require_same_value(function, function.value(function.x, function.dtype)[0])
    found = _untouched(function, function.gradient, "gradient")
    function.analytic, function.gradient_epsilon = found
    again, _ = function.gradient(function.x, function.dtype)
    _require_same_gradient(function, again, "at the same point")
    if not function.is_double:
        _raise_to_double(function)
    return function


def last_calls(function: Function, *, passed: bool) -> None:
    """Raise ``Fault`` if gradient, or value where the check did not pass, is not what it was."""
    stale = "with the points that value was called at: a stale cache, or what an earlier call left"
    # The last point of a check may lie too near to show it.
    function.at((0.75 * function.x + (function.x == 0.0))[None, :])
    try:
        again, _ = function.gradient(function.x, function.dtype)
    except Exception as error:
        sentence = f"gradient changes {stale} (it fails: {error!r})"
        raise Fault(function, "nondeterministic", sentence) from None
    _require_same_gradient(function, again, stale)
    if not passed:
        _require_same_value(function, function.at(function.x[None, :])[0])


def _untouched(function: Function, call: Callable[..., Any], name: str) -> tuple[Host, float]:
    """Call value or gradient at the point; one that changes the point is refused."""
    found, epsilon = call(function.x, function.dtype)
    if not np.array_equal(to_host(function.given).astype(np.float64), function.x):
        sentence = f"{name} writes into the point that it is given, which must stay as it is"
        raise Fault(function, "fail", sentence)
    return found, epsilon


def _require_same_value(function: Function, again: Host) -> None:
    """Raise ``Fault`` if value at the point is no longer what it was."""
    base = function.base
    if not np.allclose(again, base, rtol=_SAME * function.epsilon, atol=0.0):
        sentence = f"value changes from call to call: {_shown(base)}, then {_shown(again)}"
        raise Fault(function, "nondeterministic", sentence)


def _require_same_gradient(function: Function, again: Host, where: str) -> None:
    """Raise ``Fault`` if the gradient at the point is no longer what it was."""
    first, both = function.analytic, np.stack([function.analytic, again])
    size = np.max(np.abs(both), initial=0.0, where=np.isfinite(both))
    slack = _SAME * function.gradient_epsilon * size
    if not np.allclose(again, first, rtol=0.0, atol=slack, equal_nan=True):
        sentence = f"gradient changes from call to call, {where}"
        if np.allclose(again, 2.0 * first, rtol=0.0, atol=1e-5 * size):
            sentence = "gradient accumulates: the second call returned twice the first"
        raise Fault(function, "nondeterministic", sentence)


def _raise_to_double(function: Function) -> None:
    """Call value and gradient in float64 from here on, if they compute the same in it."""
    double, x = array_namespace(function.problem.point.flat).float64, function.x
    shrunk = function.rounded(np.stack([0.5 * x, 0.75 * x]))
    with function.tried():
        value, epsilon = function.value(x, double)
        gradient, gradient_epsilon = function.gradient(x, double)
        is_same = epsilon == DOUBLE and _is_same(value, function.base, lambda: function.at(shrunk))
        if is_same and _is_same(gradient, function.analytic, lambda: function.claims(shrunk)):
            function.dtype, function.base, function.analytic = double, value, gradient
            function.epsilon, function.gradient_epsilon = epsilon, gradient_epsilon


def _is_same(wide: Host, narrow: Host, elsewhere: Callable[[], Host]) -> bool:
    """Whether float64's numbers are those of float32, but for rounding.

    Where terms cancel, that is the rounding of their size elsewhere.
    """
    if np.allclose(wide, narrow, rtol=_SAME_FORMULA, atol=0.0):
        return True
    size = np.fmax(_SAME_FORMULA * np.abs(narrow), 64.0 * SINGLE * np.abs(elsewhere()))
    return bool(np.all(np.abs(wide - narrow) <= np.fmax.reduce(size)))


def _require_projection(function: Function) -> None:
    """Raise ValueError unless ``tangent`` is an orthogonal projection, as two directions show."""
    u, v = np.random.default_rng(0).normal(size=(2, function.x.size))
    onto_u, onto_v = function.tangential(u), function.tangential(v)
    slack = 1e-4 * np.linalg.norm(u) * np.linalg.norm(v)
    off = np.linalg.norm(function.tangential(onto_u) - onto_u), abs(onto_u @ v - u @ onto_v)
    if max(off) > slack:
        raise ValueError(
            "tangent must be an orthogonal projection, such as lambda d: (d + d.T) / 2: linear, "
            "the same when applied twice, and equal to its transpose."
        )


def _shown(numbers: Host) -> str:
    return repr(numbers.tolist() if numbers.size > 1 else numbers[0].item())
