"""The calls at the point: what value and gradient are asked before and after all else.

Each must return the same numbers whenever it is called, and leave the point as it is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, to_host
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.findings import row, tensor_at
from backprop_xp.gradient_check.functions import Host, Tally
from backprop_xp.gradient_check.points import Point, fresh
from backprop_xp.gradient_check.problems import Problem


class Calls(NamedTuple):
    """What two calls of value and gradient at the point gave; ``fault`` if something is amiss."""

    base: float
    analytic: Host
    verdict: str | None = None
    fault: str | None = None
    error: float = 0.0


def require_finite(point: Point) -> None:
    """Raise ValueError, naming the entry, for a point that is not finite."""
    host = to_host(point.flat)
    finite = array_namespace(host).isfinite(host).tolist()
    if not all(finite):
        place = finite.index(False)
        tensor = tensor_at(point.tensors, place)
        index = list(unravel(place - tensor.part.start, tensor.shape))
        raise ValueError(
            f"{tensor.of('point')} is {float(host[place])} at {index}: no derivative can be taken "
            "there."
        )


def call_twice(problem: Problem, tally: Tally) -> Calls:
    """Call value and gradient twice each at a copy of the point, which must not be written into."""
    base, again, wrote = _twice(problem.value, problem.point.flat)
    tally["value"] = 2
    if isinstance(base, complex) or isinstance(again, complex):
        raise TypeError(f"value(point) must be real at a real point, not complex: {base!r}.")
    base, again = float(base), float(again)
    first, second, gradient_wrote = _twice(problem.gradient, problem.point.flat)
    if wrote or gradient_wrote:
        name = "value" if wrote else "gradient"
        fault = f"{name} writes into the point that it is given, which must stay as it is"
        return Calls(base, first, "fail", fault, math.inf)
    if not math.isfinite(base):
        raise ValueError(f"value(point) is {base}: no derivative can be taken there.")
    if base != again:
        error = abs(base - again) / max(abs(base), abs(again))
        fault = f"value changes from call to call: {base!r}, then {again!r}"
        return Calls(base, first, "nondeterministic", fault, error)
    changed, error = _changed(first, second)
    return Calls(base, first, None if changed is None else "nondeterministic", changed, error)


def _twice(function: Callable[[Array], Any], flat: Array) -> tuple[Any, Any, bool]:
    """Return what a function gave twice, arrays as host copies, and whether it wrote into flat."""
    given = fresh(flat)
    results = [_copied(function(given)) for _ in range(2)]
    kept = to_host(array_namespace(flat).all(given == flat))
    return results[0], results[1], not kept


def _copied(result: Any) -> Any:
    if not hasattr(result, "shape"):
        return result
    host = to_host(result)
    xp = array_namespace(host)
    return xp.astype(host, xp.float64)


def _changed(first: Host, second: Host) -> tuple[str | None, float]:
    """Return what is to be said of two gradients at the same point, and by how much they differ."""
    xp = array_namespace(first)
    same = (first == second) | (xp.isnan(first) & xp.isnan(second))
    if bool(xp.all(same)):
        return None, 0.0
    size = float(xp.max(xp.maximum(xp.abs(first), xp.abs(second))))
    error = float(xp.max(xp.abs(first - second))) / size if size else math.inf
    if float(xp.max(xp.abs(second - 2.0 * first))) <= 1e-5 * size:
        return "gradient accumulates: the second call returned twice the first", error
    return "gradient changes from call to call at the same point", error


def call_again(problem: Problem, analytic: Host) -> str | None:
    """Return what is amiss if gradient, after value was called elsewhere, is not what it was."""
    elsewhere = "it uses what an earlier call of value left behind (a stale cache)"
    try:
        again, _, _ = _twice(problem.gradient, problem.point.flat)
    except Exception as error:
        return f"gradient fails after value was called at other points: {elsewhere}: {error!r}"
    if _changed(analytic, again)[0] is None:
        return None
    return f"gradient changes with the points that value was called at: {elsewhere}"


def require_numbers(problem: Problem, calls: Calls) -> Calls:
    """Return the calls, with a fault if the gradient holds what is not finite."""
    places = [
        i
        for i, fine in enumerate(array_namespace(calls.analytic).isfinite(calls.analytic).tolist())
        if not fine
    ]
    if not places:
        return calls
    first = row(problem.point.tensors, places[0], float(calls.analytic[places[0]]), math.nan, 1.0)
    fault = (
        f"the gradient holds numbers that are not finite ({len(places)} of them): "
        f"{first.name or 'it'} is {first.analytic}"
    )
    return calls._replace(verdict="fail", fault=fault, error=math.inf)
