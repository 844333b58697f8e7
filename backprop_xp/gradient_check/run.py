"""A check from start to end: the calls at the point, a method, the diagnosis, the report."""

from collections import Counter
from typing import Any

from backprop_xp.backends import device_of, require_owner
from backprop_xp.gradient_check.calls import (
    Calls,
    call_again,
    call_twice,
    require_finite,
    require_numbers,
)
from backprop_xp.gradient_check.directional import MANY, check_directions
from backprop_xp.gradient_check.entrywise import check_entries
from backprop_xp.gradient_check.evidence import explain
from backprop_xp.gradient_check.findings import Findings, Subject
from backprop_xp.gradient_check.functions import Host, Tally
from backprop_xp.gradient_check.problems import Options, Problem
from backprop_xp.gradient_check.remainders import check_taylor
from backprop_xp.gradient_check.report import GradientReport


def run(problem: Problem, options: Options) -> GradientReport:
    """Check a problem, with products in the full precision of the point's dtype."""
    with require_owner(problem.point.flat, "point").full_precision():
        return _run(problem, options)


def _run(problem: Problem, options: Options) -> GradientReport:
    require_finite(problem.point)
    tally: Tally = Counter()
    calls = call_twice(problem, tally)
    if calls.fault is None and _is_directional(options, calls.analytic):
        calls = require_numbers(problem, calls)
    if calls.fault is not None:
        return _refused(problem, options, calls, tally)
    function = problem.function(calls.base, tally)
    subject = Subject(function, calls.analytic, problem.point.tensors, options.seed)
    found = _check(subject, options)
    fault = call_again(problem, calls.analytic)
    if fault is not None:
        found = found._replace(verdict="nondeterministic")
    elif found.verdict == "fail":
        fault = explain(problem, subject, found)
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


def _refused(problem: Problem, options: Options, calls: Calls, tally: Tally) -> GradientReport:
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
    problem: Problem, calls: Calls, found: Findings, diagnosis: str | None
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
