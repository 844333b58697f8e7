"""A check from start to end: first calls, a method, last calls, the diagnosis, the report."""

import math
from typing import NamedTuple

import numpy as np

from backprop_xp.backends import require_owner
from backprop_xp.gradient_check.engine.analytic import analytic_gradient
from backprop_xp.gradient_check.engine.analyticity import along, is_analytic
from backprop_xp.gradient_check.engine.derivatives import is_complex_step
from backprop_xp.gradient_check.engine.ladder import search_beyond
from backprop_xp.gradient_check.inputs.first_calls import first_calls, last_calls
from backprop_xp.gradient_check.inputs.functions import Fault, Function
from backprop_xp.gradient_check.inputs.problems import Problem, with_vectors
from backprop_xp.gradient_check.inputs.structures import Structure
from backprop_xp.gradient_check.verdict import judge
from backprop_xp.gradient_check.verdict.comparison import check_entries
from backprop_xp.gradient_check.verdict.diagnosis import explain
from backprop_xp.gradient_check.verdict.directions import check_directions
from backprop_xp.gradient_check.verdict.judge import Comparison, Findings
from backprop_xp.gradient_check.verdict.report import GradientReport, Row, TensorErrors, entry_name

# The method "auto" takes directions above this many entries, or seconds for all of them. A
# perturbed entry of a network takes this share of a forward pass.
_MANY, _LONG, _SHARE = 20_000, 10.0, 0.125
# After those of all entries, most wrong gradients of smooth values fail within so many evaluations.
_OF_A_FAIL = 64
_WORST_ROWS = 5


def check_problem(problem: Problem) -> GradientReport:
    """Check a problem, with products in the full precision of the point's dtype."""
    return check_at(problem).report


class Checked(NamedTuple):
    """A report, with the comparison that it is about, None if nothing was compared."""

    report: GradientReport
    comparison: Comparison | None


def check_at(problem: Problem) -> Checked:
    """Check a problem, and return its report with the comparison."""
    problem, notes = with_vectors(problem), list(problem.point.notes)
    function = Function(problem)
    with require_owner(problem.point.flat, "point").full_precision(), function.calls.counter:
        try:
            first_calls(function)
            findings = _check(function, notes)
            used = function.used
            last_calls(function, passed=findings.comparison.verdict == judge.PASS)
            if mistake := problem.verify(findings.comparison):
                raise Fault("fail", mistake)
        except Fault as fault:
            return Checked(_report_of_fault(function, fault, notes), None)
        sentences = []
        if findings.comparison.verdict == judge.FAIL and findings.entries is not None:
            sentences = [explain(findings.entries), problem.locate(findings.entries)]
        diagnosis = "; ".join(filter(None, sentences)) or None
        return Checked(_report(findings, used, diagnosis, notes), findings.comparison)


def _check(function: Function, notes: list[str]) -> Findings:
    gradient, method = analytic_gradient(function), function.options["method"]
    search_beyond(gradient)
    is_large, taylor = function.x.size > _MANY, None
    if method == "auto" and (is_large or _takes_long(function, 1, notes)):
        method = "directional"
    if method in ("centered", "taylor"):
        function.is_analytic = False
    if method == "auto" and not is_analytic(along(gradient)) and _takes_long(function, 4, notes):
        method = "directional"
    if method in ("directional", "taylor"):
        findings = check_directions(gradient, method)
        if is_large or not findings.comparison.numeric.is_kinked.any():
            return findings
        notes.append("checked entry by entry, since kinks meet on a direction")
        taylor = findings.taylor
    findings = check_entries(gradient)
    if method == "complex_step" and findings.method != method:
        failure = f" It raised {function.failure!r} there." if function.failure else ""
        raise TypeError(
            f"{function.word('value')} is not analytic, or is real at a complex point, so the "
            f'complex step fails.{failure} Use method="auto" or "centered".'
        )
    return findings._replace(taylor=taylor)


def _takes_long(function: Function, evaluations: int, notes: list[str]) -> bool:
    """Whether all entries would take long, at this many evaluations each; if so, note it.

    A limit of the caller must also leave room for a fail.
    """
    share = 1.0 if function.problem.perturbed_values is None else _SHARE
    calls, options = function.calls, function.options
    count, most = function.x.size * evaluations, options["max_evaluations"] or math.inf
    seconds, most_seconds = calls.fastest * count * share, options["max_seconds"]
    is_long = seconds > _LONG
    if most_seconds is not None:
        is_long = calls.seconds + seconds + calls.fastest * _OF_A_FAIL > most_seconds
    if is_long or calls.number + count + _OF_A_FAIL > most:
        notes.append(
            f"checked along directions: all entries would take {count} evaluations, or "
            f"{seconds:.1f} seconds"
        )
        return True
    return False


def _report(
    findings: Findings, used: tuple[int, int], diagnosis: str | None, notes: list[str]
) -> GradientReport:
    comparison, at = findings.comparison, findings.comparison.decisive
    function, verdict = comparison.lines.function, judge.VERDICTS[comparison.verdict]
    has_all = findings.entries is comparison and function.problem.label is None
    return GradientReport(
        verdict=verdict,
        method=_method(findings),
        step=float(comparison.numeric.step[at]),
        tolerance=float(comparison.tolerance[at]),
        reason=_kink(comparison) if verdict == "kink" else judge.reason_of(findings),
        evaluations=used[0],
        gradient_calls=used[1],
        max_relative_error=float(comparison.error[at]),
        analytic=_restore(function, comparison.analytic.value) if has_all else None,
        numeric=_restore(function, comparison.numeric.value) if has_all else None,
        worst=() if findings.entries is None else _worst_rows(function, findings.entries),
        tensors=_tensor_errors(function, comparison) if has_all else (),
        taylor=findings.taylor,
        diagnosis=diagnosis,
        notes=tuple(notes),
    )


def _report_of_fault(function: Function, fault: Fault, notes: list[str]) -> GradientReport:
    """Return the report of a check that ended without a comparison."""
    is_undecided = fault.verdict == "inconclusive"
    return GradientReport(
        verdict=fault.verdict,
        method=function.options["method"],
        step=0.0,
        tolerance=0.0,
        reason=str(fault) if is_undecided else "",
        evaluations=function.evaluations,
        gradient_calls=function.calls.gradients,
        max_relative_error=np.inf if fault.verdict == "fail" else np.nan,
        diagnosis=None if is_undecided else str(fault),
        notes=tuple(notes),
    )


def _method(findings: Findings) -> str:
    """Return the method that decided; a kink of an analytic value is found by differences."""
    comparison = findings.comparison
    if comparison.lines.direction is not None:
        return findings.method
    is_exact = is_complex_step(comparison.lines, comparison.numeric)
    return "complex_step" if is_exact[comparison.decisive] else "centered"


def _kink(comparison: Comparison) -> str:
    """Return where the first kink is, its slopes, and the number of the others."""
    lines, at, unit, place = comparison.lines, comparison.decisive, 1.0, "along the direction"
    if lines.direction is None:
        entry, result = int(lines.columns[at[0]]), at[1]
        tensor, index, unit = lines.function.problem.entry(entry, result)
        place = f"at {entry_name(tensor, index)}"
    slopes = comparison.numeric.left, comparison.numeric.right, comparison.analytic.value
    left, right, analytic = (f"{float(slope[at]) / unit + 0.0:.5g}" for slope in slopes)
    others = int(np.count_nonzero(comparison.outcome == judge.KINK)) - 1
    more = f"; other entries with kinks: {others}" if others else ""
    return (
        f"{place} the slope is {left} to the left and {right} to the right, and the analytic value "
        f"{analytic} lies between{more}"
    )


def _restore(function: Function, derivatives: np.ndarray) -> Structure:
    """Return derivatives ``(P, M)`` in the structure of the point; a Jacobian's are stacked."""
    point, is_jacobian = function.point, function.problem.is_jacobian
    if is_jacobian and not point.is_plain:
        return derivatives.T
    rows = derivatives.T if is_jacobian else derivatives[:, 0]
    return point.at(rows)


def _worst_rows(function: Function, entries: Comparison) -> tuple[Row, ...]:
    """Return the rows of the entries with the largest errors relative to their tolerance."""
    analytic, numeric, error = entries.analytic, entries.numeric, entries.error
    excess, rows = np.nan_to_num(error / entries.tolerance, nan=np.inf), []
    for flat in np.argsort(-excess, axis=None, kind="stable")[:_WORST_ROWS]:
        at = np.unravel_index(flat, excess.shape)
        entry, result = int(entries.lines.columns[at[0]]), int(at[1])
        name, index, unit = function.problem.entry(entry, result)
        pair = float(analytic.value[at]) / unit, float(numeric.value[at]) / unit
        absolute = abs(pair[0] - pair[1]) if np.isfinite(pair[0]) else np.inf
        bar = float(numeric.bar[at] + analytic.bar[at]) / abs(unit)
        rows.append(Row(name, index, *pair, absolute, float(error[at]), bar))
    return tuple(rows)


def _tensor_errors(function: Function, comparison: Comparison) -> tuple[TensorErrors, ...]:
    absolute = np.abs(comparison.analytic.value - comparison.numeric.value)
    absolute = np.where(np.isfinite(absolute), absolute, np.inf)
    absolute = np.where(comparison.outcome == judge.KINK, 0.0, absolute)
    is_wrong, found = comparison.outcome == judge.FAIL, []
    for name, _, part in function.point.tensors:
        if count := is_wrong[part].size:
            largest = float(absolute[part].max()), float(comparison.error[part].max())
            share = float(is_wrong[part].sum()) / count
            hidden = int(comparison.is_hidden[part].sum())
            found.append(TensorErrors(name, count, *largest, share, hidden))
    return tuple(found)
