"""A check from start to end: first calls, a method, last calls, the diagnosis, the report."""

from typing import Any

import numpy as np

from backprop_xp.backends import beside, require_owner, to_host
from backprop_xp.gradient_check.analytic import claimed_gradient
from backprop_xp.gradient_check.comparison import check_entries
from backprop_xp.gradient_check.diagnosis import explain
from backprop_xp.gradient_check.directions import check_directions, is_analytic
from backprop_xp.gradient_check.first_calls import last_calls, prepared
from backprop_xp.gradient_check.functions import Fault, Function, Problem
from backprop_xp.gradient_check.judge import (
    FAIL,
    KINK,
    PASS,
    TOLERANCES,
    VERDICTS,
    Findings,
    Judged,
    why,
)
from backprop_xp.gradient_check.points import flatten_beside
from backprop_xp.gradient_check.report import GradientReport, Row, TensorErrors

# Above so many entries, or seconds that checking them would take, auto goes by directions. A moved
# entry of a network takes some such part of a forward pass.
_MANY, _LONG, _SHARE = 20_000, 10.0, 0.125
_WORST_ROWS = 5


def check_problem(problem: Problem) -> GradientReport:
    """Check a problem, with products in the full precision of the point's dtype."""
    problem, notes = _with_sizes(problem), list(problem.point.notes)
    with require_owner(problem.point.flat, "point").full_precision():
        try:
            function = prepared(problem)
            found = _check(function, notes)
            last_calls(function, passed=found.judged.verdict == PASS)
        except Fault as fault:
            return _refused(problem, fault, notes)
        words = []
        if found.judged.verdict == FAIL and found.entries is not None:
            words = [explain(found.entries), problem.blame()]
        return _report(found, "; ".join(filter(None, words)) or None, notes)


def _check(function: Function, notes: list[str]) -> Findings:
    gradient, method = claimed_gradient(function), function.problem.options["method"]
    is_many, taylor = function.x.size > _MANY, None
    if method == "auto" and (is_many or _is_long(function, 1, notes)):
        method = "directional"
    is_exact = method in ("auto", "complex_step") and is_analytic(gradient)
    if method == "auto" and not is_exact and _is_long(function, 4, notes):
        method = "directional"
    if method in ("directional", "taylor"):
        found = check_directions(gradient, method)
        if is_many or not found.judged.numeric.is_kinked.any():
            return found
        notes.append("entry by entry, since kinks meet on a direction")
        is_exact, taylor = is_analytic(gradient), found.taylor
    found = check_entries(gradient, is_exact=is_exact)
    if method == "complex_step" and found.method != method:
        failure = f" It raised {function.failure!r} there." if function.failure else ""
        raise TypeError(
            "value is not analytic, or real at a complex point: the complex step cannot see its "
            f'slope.{failure} Use method="auto" or "centered".'
        )
    if method in ("directional", "taylor"):
        found = found._replace(method=method, taylor=taylor)
    return found


def _is_long(function: Function, evaluations: int, notes: list[str]) -> bool:
    """Say whether every entry would take long, at so many evaluations each; note it."""
    share = 1.0 if function.problem.moved is None else _SHARE
    seconds = function.seconds * function.x.size * evaluations * share
    if seconds > _LONG:
        notes.append(f"by directions, since every entry would take some {seconds:.0f} seconds")
    return bool(seconds > _LONG)


def _report(found: Findings, diagnosis: str | None, notes: list[str]) -> GradientReport:
    judged, at = found.judged, found.judged.decides
    is_all, function = found.entries is judged, judged.lines.function
    return GradientReport(
        verdict=VERDICTS[judged.verdict],
        method=found.method,
        step=float(judged.numeric.step[at]),
        tolerance=float(judged.tolerance[at]),
        reason=why(found),
        evaluations=found.evaluations,
        max_relative_error=float(judged.error[at]),
        analytic=_restored(function, judged.claimed.value) if is_all else None,
        numeric=_restored(function, judged.numeric.value) if is_all else None,
        worst=() if found.entries is None else _worst_rows(function, found.entries),
        tensors=_tensor_errors(function, judged) if is_all else (),
        taylor=found.taylor,
        diagnosis=diagnosis,
        notes=tuple(notes),
    )


def _refused(problem: Problem, fault: Fault, notes: list[str]) -> GradientReport:
    """Return the report for functions that fail before any numeric derivative is taken."""
    return GradientReport(
        verdict=fault.verdict,
        method=problem.options["method"],
        step=0.0,
        tolerance=0.0,
        reason="that of calls at one point, which must return the same numbers",
        evaluations=fault.evaluations,
        max_relative_error=np.inf if fault.verdict == "fail" else np.nan,
        diagnosis=str(fault),
        notes=tuple(notes),
    )


def _restored(function: Function, derivatives: np.ndarray) -> Any:
    """Return derivatives ``(P, M)`` in the structure of the point; of many results stacked."""
    point, has_many = function.problem.point, function.problem.has_many
    if has_many and not point.is_plain:
        return derivatives.T
    rows = derivatives.T if has_many else derivatives[:, 0]
    return point.restore(beside(point.flat, rows.copy(), point.flat.dtype))


def _worst_rows(function: Function, entries: Judged) -> tuple[Row, ...]:
    """Return the rows of the entries that are the most off beside their tolerance."""
    claimed, numeric, error = entries.claimed, entries.numeric, entries.error
    excess, rows = np.nan_to_num(error / entries.tolerance, nan=np.inf), []
    for at in np.argsort(-excess, axis=None, kind="stable")[:_WORST_ROWS]:
        at = np.unravel_index(at, excess.shape)
        name, index = function.problem.point.entry(int(entries.lines.columns[at[0]]))
        if function.problem.has_many:
            name, index = f"J{name}", (int(at[1]), *index)
        pair = float(claimed.value[at]), float(numeric.value[at])
        off = abs(pair[0] - pair[1]) if np.isfinite(pair[0]) else np.inf
        bar = float(numeric.bar[at] + claimed.bar[at])
        rows.append(Row(name, index, *pair, off, float(error[at]), bar))
    return tuple(rows)


def _tensor_errors(function: Function, judged: Judged) -> tuple[TensorErrors, ...]:
    """Return what became of each tensor."""
    off = np.abs(judged.claimed.value - judged.numeric.value)
    off = np.where(judged.outcome == KINK, 0.0, np.where(np.isfinite(off), off, np.inf))
    wrong, found = judged.outcome == FAIL, []
    hidden = (judged.room > TOLERANCES["room"][0]) & ~wrong & ~judged.matters
    for name, _, part in function.problem.point.tensors:
        if count := wrong[part].size:
            largest = float(off[part].max()), float(judged.error[part].max())
            share = float(wrong[part].sum()) / count
            found.append(TensorErrors(name, count, *largest, share, int(hidden[part].sum())))
    return tuple(found)


def _with_sizes(problem: Problem) -> Problem:
    """Return a problem with the scale and the bounds that were asked for."""
    point, options = problem.point, problem.options
    if options["scale"] is not None:
        size = flatten_beside(point, options["scale"], "scale")
        if not np.all((size > 0.0) & np.isfinite(size)):
            raise ValueError("scale must be positive: the size at which value varies.")
        problem = problem._replace(size=size)
    if (given := options["bounds"]) is not None:
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(f"bounds must be (low, high), not {given!r}.")
        sides = [side if given[i] is None else given[i] for i, side in enumerate((-np.inf, np.inf))]
        low, high = (flatten_beside(point, side, f"bounds[{i}]") for i, side in enumerate(sides))
        x = to_host(point.flat)
        point.require((low <= x) & (x <= high), ", outside of its bounds.")
        problem = problem._replace(limits=(low, high))
    return problem
