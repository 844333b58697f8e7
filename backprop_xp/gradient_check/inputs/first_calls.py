"""The first and last calls of a check, which detect faults without a numeric derivative."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.inputs.functions import SINGLE, Fault, Function, require_unchanged
from backprop_xp.gradient_check.inputs.problems import DEFAULTS

_Call: TypeAlias = Callable[[list[np.ndarray]], np.ndarray]
# Two calls at one point may differ by this many rounding errors, as sums over threads do.
_REPEATABLE = 1e3
# Results in float32 and float64 that differ by at most this part come from one formula.
_SAME_FORMULA = 1e-2


def first_calls(function: Function) -> None:
    """Call value and gradient of a problem twice at the point.

    Raises ``Fault`` if the second call returns other numbers, or if a call changes the point, and
    ValueError or TypeError if value is not a number or gradient not structured like the point.
    """
    first_value(function)
    if function.is_double:  # in float32 the second call is the one in float64
        _require_same(function, "value", function.value(function.x, function.dtype)[0])
    function.gx, function.gradient_epsilon = _call(function, "gradient")
    _require_same(function, "gradient", function.gradient(function.x, function.dtype)[0])
    if not function.is_double:
        switch_to_float64(function)


def first_value(function: Function) -> None:
    """Call value at the point, and raise what ``first_calls`` raises for it."""
    function.point.require(np.isfinite(function.x), ": no derivative can be taken there.")
    if function.options["tangent"] is not None:
        _require_projection(function)
    function.fx, function.epsilon = _call(function, "value")
    numbers = function.fx.tolist() if function.fx.size > 1 else function.fx[0].item()
    if not np.all(np.isfinite(function.fx)):
        raise ValueError(
            f"{function.problem.names[0]} is {numbers}: no derivative can be taken there."
        )
    if function.options["batched"] and function.stacks is None and not function.takes_stacks(2):
        raise ValueError(
            "batched=True, but value of stacked copies differs from value of each copy alone. It "
            "must return one number for each copy, from that copy only. Leave the option out."
        )


def last_calls(function: Function, *, passed: bool) -> None:
    """Raise ``Fault`` if gradient, or value after a check that did not pass, has changed."""
    function.calls.options = DEFAULTS  # the limits are those of the verdict
    stale = f"depends on earlier calls of {function.word('value')}: a stale cache, or other state"
    # The last point of a check may be too near to x to show it.
    nearby = function.values((0.75 * function.x + (function.x == 0.0))[None, :])[0]
    function.size = np.fmax(np.abs(function.fx), np.where(np.isfinite(nearby), np.abs(nearby), 0.0))
    _require_same(function, "gradient", function.gradients([function.x])[0], stale)
    if not passed:
        _require_same(function, "value", function.values([function.x])[0])


def _call(function: Function, name: str) -> tuple[np.ndarray, float]:
    """Call value or gradient at the point; raise ``Fault`` if it writes into its argument."""
    found: tuple[np.ndarray, float] = getattr(function, name)(function.x, function.dtype)
    require_unchanged(function.argument, function.x, function.word(name))
    return found


def _require_same(
    function: Function,
    name: str,
    again: np.ndarray,
    problem: str = "differs between two calls at the same point",
) -> None:
    """Raise ``Fault`` unless another call of value or gradient returned the same numbers.

    Rounding errors are relative to the value, or to the largest entry of the gradient.
    """
    before, size, epsilon = function.fx, np.abs(function.fx), function.epsilon
    if name == "gradient":
        before, epsilon = function.gx, function.gradient_epsilon
        size = np.max(np.abs(before), initial=0.0, where=np.isfinite(before))
    is_near = functools.partial(np.allclose, again, rtol=0.0, equal_nan=True)
    if is_near(before, atol=_REPEATABLE * epsilon * size):
        return
    if is_near(2.0 * before, atol=1e-5 * size):
        problem = "accumulates: the second call returned twice the first"
    i = np.argmax(np.abs(again - before))
    numbers = f"{float(before.flat[i])}, then {float(again.flat[i])}"
    raised = f"it raised {function.failure!r}" if np.all(np.isnan(again)) else numbers
    raise Fault("nondeterministic", f"{function.word(name)} {problem} ({raised})")


def switch_to_float64(function: Function) -> None:
    """Call value and gradient in float64 from now on, if they compute the same formula in it.

    Then they differ only by rounding, of the size that they have there or elsewhere.
    """
    double, x = array_namespace(function.point.flat).float64, function.x

    def is_same(wide: np.ndarray, narrow: np.ndarray, epsilon: float, call: _Call) -> bool:
        slack = max(_SAME_FORMULA, 16.0 * epsilon)
        if np.allclose(wide, narrow, rtol=slack, atol=0.0):
            return True
        elsewhere = np.abs(call([function.round(0.5 * x), function.round(0.75 * x)]))
        size = np.fmax(slack * np.abs(narrow), 64.0 * epsilon * elsewhere)
        return bool(np.all(np.abs(wide - narrow) <= np.fmax.reduce(size)))

    with function.catch_errors():
        value, epsilon = function.value(x, double)
        gradient, gradient_epsilon = function.gradient(x, double)
        if (
            epsilon != SINGLE  # what computes in half precision may still receive float64
            and is_same(value, function.fx, function.epsilon, function.values)
            and is_same(gradient, function.gx, function.gradient_epsilon, function.gradients)
        ):
            function.dtype, function.fx, function.gx = double, value, gradient
            function.epsilon, function.gradient_epsilon = epsilon, gradient_epsilon
    function.failure = None  # that of a trial explains nothing


def _require_projection(function: Function) -> None:
    """Raise ValueError unless ``tangent`` is an orthogonal projection of two random directions."""
    u, v = np.random.default_rng(0).normal(size=(2, function.x.size))
    onto_u, onto_v = function.project(u), function.project(v)
    slack = 1e-4 * np.linalg.norm(u) * np.linalg.norm(v)
    error = np.linalg.norm(function.project(onto_u) - onto_u), abs(onto_u @ v - u @ onto_v)
    if max(error) > slack:
        raise ValueError(
            "tangent must be an orthogonal projection, such as lambda d: (d + d.T) / 2: linear, "
            "the same when applied twice, and equal to its transpose."
        )
