"""A check from start to end: the calls at the point, a method, the diagnosis, the report."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, require_owner, to_host
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.diagnosis import Evidence, diagnose, diagnose_whole
from backprop_xp.gradient_check.directional import MANY, check_directions, direction_of
from backprop_xp.gradient_check.directions import norm
from backprop_xp.gradient_check.entrywise import check_entries
from backprop_xp.gradient_check.findings import Findings, Subject, row, tensor_at
from backprop_xp.gradient_check.functions import Host, Tally
from backprop_xp.gradient_check.points import Point, Tensor, fresh
from backprop_xp.gradient_check.problems import Options, Problem
from backprop_xp.gradient_check.remainders import check_taylor
from backprop_xp.gradient_check.report import GradientReport


class _Calls(NamedTuple):
    """What two calls of value and gradient at the point gave; ``fault`` if something is amiss."""

    base: float
    analytic: Host
    verdict: str | None = None
    fault: str | None = None
    error: float = 0.0


def run(problem: Problem, options: Options) -> GradientReport:
    """Check a problem."""
    _require_finite(problem.point)
    tally: Tally = Counter()
    calls = _call_twice(problem, tally)
    if calls.fault is None and _is_directional(options, calls.analytic):
        calls = _require_numbers(problem, calls)
    if calls.fault is not None:
        return _refused(problem, options, calls, tally)
    function = problem.function(calls.base, tally)
    subject = Subject(function, calls.analytic, problem.point.tensors, options.seed)
    found = _check(subject, options)
    fault = _call_again(problem, calls.analytic)
    if fault is not None:
        found = found._replace(verdict="nondeterministic")
    elif found.verdict == "fail":
        fault = _diagnosis(problem, subject, found)
    return _report(problem, calls, found, fault)


def _check(subject: Subject, options: Options) -> Findings:
    if options.method == "taylor":
        return check_taylor(subject, options.directions, options.tolerance)
    if _is_directional(options, subject.analytic):
        return check_directions(subject, options.directions, options.tolerance)
    return check_entries(subject, options.method, options.tolerance)


def _is_directional(options: Options, analytic: Host) -> bool:
    return options.method in ("directional", "taylor") or (
        options.method == "auto" and analytic.shape[0] > MANY
    )


def _require_finite(point: Point) -> None:
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


def _call_twice(problem: Problem, tally: Tally) -> _Calls:
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
        return _Calls(base, first, "fail", fault, math.inf)
    if not math.isfinite(base):
        raise ValueError(f"value(point) is {base}: no derivative can be taken there.")
    if base != again:
        error = abs(base - again) / max(abs(base), abs(again))
        fault = f"value changes from call to call: {base!r}, then {again!r}"
        return _Calls(base, first, "nondeterministic", fault, error)
    changed, error = _changed(first, second)
    return _Calls(base, first, None if changed is None else "nondeterministic", changed, error)


def _twice(function: Callable[[Array], Any], flat: Array) -> tuple[Any, Any, bool]:
    """Return what a function gave twice, arrays as host copies, and whether it wrote into flat."""
    given = fresh(flat)
    results = [_copied(function(given)) for _ in range(2)]
    return results[0], results[1], not bool(array_namespace(flat).all(given == flat))


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


def _call_again(problem: Problem, analytic: Host) -> str | None:
    """Return what is amiss if gradient, after value was called elsewhere, is not what it was."""
    elsewhere = "it uses what an earlier call of value left behind (a stale cache)"
    try:
        again, _, _ = _twice(problem.gradient, problem.point.flat)
    except Exception as error:
        return f"gradient fails after value was called at other points: {elsewhere}: {error!r}"
    if _changed(analytic, again)[0] is None:
        return None
    return f"gradient changes with the points that value was called at: {elsewhere}"


def _require_numbers(problem: Problem, calls: _Calls) -> _Calls:
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


def _refused(problem: Problem, options: Options, calls: _Calls, tally: Tally) -> GradientReport:
    """Return the report of a gradient that needs no numeric one to be refused."""
    found = Findings(
        verdict=calls.verdict or "fail",
        method=options.method,
        engine="two calls of value and of gradient at the point",
        step=0.0,
        tolerance=0.0,
        reason="0, for they must return the same numbers",
        evaluations=tally["value"],
        error=calls.error,
    )
    return _report(problem, calls, found, calls.fault)


def _report(
    problem: Problem, calls: _Calls, found: Findings, diagnosis: str | None
) -> GradientReport:
    def restored(host: Host | None) -> Any:
        if host is None:
            return None
        flat = problem.point.flat
        home = require_owner(flat, "point")
        return problem.point.restore(home.from_host(host, flat.dtype, device_of(flat)))

    by_directions = found.method in ("directional", "taylor")
    return GradientReport(
        verdict=found.verdict,
        method=found.method,
        engine=found.engine,
        step=found.step,
        tolerance=found.tolerance,
        reason=found.reason,
        evaluations=found.evaluations,
        max_relative_error=found.error,
        analytic=None if by_directions else restored(calls.analytic),
        numeric=restored(found.numeric),
        worst=found.rows,
        tensors=found.tensors,
        taylor=found.taylor,
        diagnosis=diagnosis,
    )


def _diagnosis(problem: Problem, subject: Subject, found: Findings) -> str | None:
    """Return what the mistake looks like, and which piece of the function it is in."""
    words = None
    if found.numeric is not None:
        evidence, whole = _from_entries(subject, found, found.numeric)
        if whole and len(evidence) > 1:
            words = diagnose_whole(evidence, problem.context)
        words = words or diagnose(evidence, problem.context)
    elif found.place is not None:
        size = subject.analytic.shape[0]
        everything = Tensor("", (size,), slice(0, size))
        one = tensor_at(subject.tensors, found.place)
        if len(subject.tensors) > 1:
            evidence = [_along(subject, found, everything, found.place)]
            words = diagnose_whole(evidence, problem.context)
        words = words or diagnose([_along(subject, found, one, found.place)], problem.context)
    return "; ".join(filter(None, [words, problem.blame()])) or None


def _from_entries(subject: Subject, found: Findings, numeric: Host) -> tuple[list[Evidence], bool]:
    """Return the wrong tensors, and whether none is right but such as are zero."""
    xp = array_namespace(subject.analytic)
    point = xp.astype(subject.function.host, xp.float64)
    evidence, whole = [], True
    for errors in found.tensors:
        tensor = next(t for t in subject.tensors if t.name == errors.tensor)
        analytic, there, here = (
            xp.reshape(vector[tensor.part], tensor.shape)
            for vector in (subject.analytic, numeric, point)
        )
        size = float(xp.max(xp.maximum(xp.abs(analytic), xp.abs(there))))
        if errors.fraction_wrong:
            slack = found.tolerance * size
            evidence.append(Evidence(tensor, analytic, here, slack, there))
        elif size > 0.0:
            whole = False
    return evidence, whole


def _along(subject: Subject, found: Findings, tensor: Tensor, place: int) -> Evidence:
    """Return a tensor, in which the entry at ``place`` is wrong, along two directions."""
    xp = array_namespace(subject.analytic)
    size = subject.analytic.shape[0]
    here = xp.astype(subject.function.host, xp.float64)
    analytic, point = (
        xp.reshape(vector[tensor.part], tensor.shape) for vector in (subject.analytic, here)
    )
    along = [direction_of(subject, number)[tensor.part] for number in (2, 3)]

    def measure(direction: Host) -> float:
        return found.measure(_embedded(direction, tensor, size))  # type: ignore[misc]

    return Evidence(
        tensor,
        analytic,
        point,
        found.tolerance * max(norm(subject.analytic[tensor.part] * d) for d in along),
        measure=measure,
        along=tuple(xp.reshape(d, tensor.shape) for d in along),
        place=place - tensor.part.start,
    )


def _embedded(direction: Host, tensor: Tensor, size: int) -> Host:
    """Return a direction of a tensor as one of the point ``(P,)``."""
    xp = array_namespace(direction)
    flat = xp.reshape(direction, (-1,))
    before, after = xp.zeros(tensor.part.start), xp.zeros(size - tensor.part.stop)
    return xp.concat([before, flat, after], axis=-1)
