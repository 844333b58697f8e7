"""The first and last calls of a check, which detect faults without a numeric derivative."""

from collections.abc import Callable

import numpy as np

from backprop_xp.backends import DType, array_namespace, to_host
from backprop_xp.gradient_check.functions import DOUBLE, SINGLE, Function
from backprop_xp.gradient_check.problems import Problem

# Two calls at one point may differ by this many rounding errors, as sums over threads do.
_REPEATABLE = 1e3
# Results in float32 and float64 that differ by at most this part come from one formula.
_SAME_FORMULA = 1e-2


class Fault(Exception):  # noqa: N818 - not an error of the program
    """A fault that repeated calls show; it carries the verdict and the evaluations."""

    def __init__(self, function: Function, verdict: str, sentence: str) -> None:
        super().__init__(sentence)
        self.verdict, self.evaluations = verdict, function.evaluations


def first_calls(problem: Problem) -> Function:
    """Return a problem's ``Function``, after two calls of value and gradient at the point.

    Raises ``Fault`` if the second call returns other numbers, or if a call changes the point, and
    ValueError or TypeError if value is not a number or gradient not structured like the point.
    """
    function = Function(problem)
    first_value(function)
    if function.is_double:  # in float32 the second call is the one in float64
        _require_same_value(function, function.value(function.x, function.dtype)[0])
    function.gx, function.gradient_epsilon = _call(function, function.gradient, "gradient")
    again, _ = function.gradient(function.x, function.dtype)
    _require_same_gradient(function, again, "differs between two calls at the same point")
    if not function.is_double:
        switch_to_float64(function)
    return function


def first_value(function: Function) -> None:
    """Call value at the point, and raise what ``first_calls`` raises for it."""
    problem = function.problem
    problem.point.require(np.isfinite(function.x), ": no derivative can be taken there.")
    if function.options["tangent"] is not None:
        _require_projection(function)
    function.fx, function.epsilon = _call(function, function.value, "value")
    numbers = _repr(function.fx)
    if function.fx.dtype.kind == "c":
        raise TypeError(f"value(point) must be real at a real point, not complex: {numbers}.")
    if not np.all(np.isfinite(function.fx)):
        raise ValueError(f"value(point) is {numbers}: no derivative can be taken there.")
    if problem.options["batched"] and function.stacks is None and not function.takes_stacks(2):
        raise ValueError(
            "batched=True, but value of stacked copies differs from value of each copy alone. It "
            "must return one number for each copy, from that copy only. Leave the option out."
        )


def last_calls(function: Function, *, passed: bool) -> None:
    """Raise ``Fault`` if gradient, or value after a check that did not pass, has changed."""
    stale = "depends on earlier calls of value: a stale cache, or other state between calls"
    # The last point of a check may be too near to x to show it.
    function.values((0.75 * function.x + (function.x == 0.0))[None, :])
    try:
        again, _ = function.gradient(function.x, function.dtype)
    except Exception as error:
        sentence = f"gradient {stale} (it raised {error!r})"
        raise Fault(function, "nondeterministic", sentence) from None
    _require_same_gradient(function, again, stale)
    if not passed:
        _require_same_value(function, function.values(function.x[None, :])[0])


def _call(
    function: Function, call: Callable[[np.ndarray, DType], tuple[np.ndarray, float]], name: str
) -> tuple[np.ndarray, float]:
    """Call value or gradient at the point; raise ``Fault`` if it writes into its argument."""
    found = call(function.x, function.dtype)
    if not np.array_equal(to_host(function.argument).astype(np.float64), function.x):
        sentence = f"{name} writes into the point that it receives: it must work on a copy"
        raise Fault(function, "fail", sentence)
    return found


def _require_same_value(function: Function, again: np.ndarray) -> None:
    if not np.allclose(again, function.fx, rtol=_REPEATABLE * function.epsilon, atol=0.0):
        pair = f"{_repr(function.fx)}, then {_repr(again)}"
        sentence = f"value differs between two calls at the same point: {pair}"
        raise Fault(function, "nondeterministic", sentence)


def _require_same_gradient(function: Function, again: np.ndarray, problem: str) -> None:
    both = np.stack([function.gx, again])
    size = np.max(np.abs(both), initial=0.0, where=np.isfinite(both))
    slack = _REPEATABLE * function.gradient_epsilon * size
    if not np.allclose(again, function.gx, rtol=0.0, atol=slack, equal_nan=True):
        sentence = f"gradient {problem}"
        if np.allclose(again, 2.0 * function.gx, rtol=0.0, atol=1e-5 * size):
            sentence = "gradient accumulates: the second call returned twice the first"
        raise Fault(function, "nondeterministic", sentence)


def switch_to_float64(function: Function) -> None:
    """Call value and gradient in float64 from now on, if they compute the same formula in it."""
    double, x = array_namespace(function.point.flat).float64, function.x
    shrunk = function.round(np.stack([0.5 * x, 0.75 * x]))
    with function.catch_errors():
        value, epsilon = function.value(x, double)
        gradient, gradient_epsilon = function.gradient(x, double)
        is_same = epsilon == DOUBLE and _is_same(
            value, function.fx, lambda: function.values(shrunk)
        )
        if is_same and _is_same(gradient, function.gx, lambda: function.gradients(shrunk)):
            function.dtype, function.fx, function.gx = double, value, gradient
            function.epsilon, function.gradient_epsilon = epsilon, gradient_epsilon


def _is_same(wide: np.ndarray, narrow: np.ndarray, elsewhere: Callable[[], np.ndarray]) -> bool:
    """Whether results in float64 and float32 differ only by rounding, of their size elsewhere."""
    if np.allclose(wide, narrow, rtol=_SAME_FORMULA, atol=0.0):
        return True
    size = np.fmax(_SAME_FORMULA * np.abs(narrow), 64.0 * SINGLE * np.abs(elsewhere()))
    return bool(np.all(np.abs(wide - narrow) <= np.fmax.reduce(size)))


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


def _repr(numbers: np.ndarray) -> str:
    return repr(numbers.tolist() if numbers.size > 1 else numbers[0].item())
