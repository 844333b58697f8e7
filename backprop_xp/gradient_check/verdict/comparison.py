"""The comparison along lines, with as many evaluations as the verdict needs.

Lines that agree at once are settled. The others get sharper numeric derivatives. The most
suspicious lines come first, until one of them decides.
"""

import contextlib

import numpy as np

from backprop_xp.gradient_check.engine.analytic import AnalyticGradient
from backprop_xp.gradient_check.engine.analyticity import along, confirms, contradicts, is_analytic
from backprop_xp.gradient_check.engine.constants import LONG, SHARP, VANISHING
from backprop_xp.gradient_check.engine.derivatives import (
    complex_rounding,
    complex_step,
    is_complex_step,
    quick_difference,
    sharp_difference,
)
from backprop_xp.gradient_check.engine.ladder import search
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.engine.rounding import with_measured_rounding, without_curvature
from backprop_xp.gradient_check.inputs.functions import Fault
from backprop_xp.gradient_check.verdict.judge import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Comparison,
    Findings,
    judge,
    tolerance_of,
)

# The number of lines that are examined together, at most: twice as many each time. Under a limit
# the first is alone, since a fail may need no other.
_FIRST, _AT_ONCE = 4, 64
# An inconclusive verdict needs this many examined lines, or all that are in doubt.
_TRIED = 64


def check_entries(gradient: AnalyticGradient) -> Findings:
    """Check every entry: by the complex step if it can be trusted, otherwise by differences."""
    function = gradient.function
    lines = Lines(gradient, np.arange(function.x.size))
    exact = complex_step(lines) if is_analytic(along(gradient)) else None
    if exact is not None:
        # Where it underflows, real differences decide.
        underflows = (exact.bar > SHARP * np.abs(exact.value)) & (exact.value != 0.0)
        comparison = compare(lines, exact, least=INCONCLUSIVE if underflows.any() else FAIL)
        if function.is_analytic:
            return Findings("complex_step", comparison, comparison)
    quick = quick_difference(lines, np.all(gradient.value == 0.0, axis=1))
    # Results that a line does not change need a longer step, but no ladder.
    is_zero = _is_zero(lines, quick)
    if (some := np.flatnonzero(is_zero.any(axis=1))).size:
        long = quick_difference(lines.select(some), True)
        is_zero = is_zero[some] & (long.value == 0.0)
        quick = quick.with_lines(some, quick.select(some).where(is_zero, long))
    comparison = compare(lines, quick)
    return Findings("centered", comparison, comparison)


def compare(lines: Lines, numeric: NumericDerivative, *, least: int = PASS) -> Comparison:
    """Judge the gradient along lines, and examine those with outcome ``least`` or worse.

    The rounding of the gradient, and then how coarse the values are, are measured only if an
    examined line would fail otherwise. Where values are coarse, it is examined again.
    """
    # A quick difference alone is no reason to fail.
    settled = _suffices(lines, numeric) & (judge(lines, numeric).outcome.max(axis=1) != FAIL)
    examined = np.zeros(lines.scale.shape, dtype=bool)
    measured, at_once = examined.copy(), 1 if lines.function.is_limited else _FIRST
    distance = numeric.step.min(axis=1)  # of real differences, as part of the scale
    while True:
        comparison = judge(lines, numeric)
        # If an examined line decides the verdict, lines that are not worse are skipped. One that
        # stays inconclusive does not decide at once: a mistake may show along another.
        outcome = comparison.outcome.max(axis=1)
        is_tried = np.count_nonzero(examined) >= _TRIED
        deciding = examined & (is_tried | (outcome != INCONCLUSIVE))
        reached = max(least - 1, int(outcome[deciding].max(initial=-1)))
        suspects = _worst(comparison, ~settled & ~examined & (outcome > reached), at_once)
        if suspects.size:
            examined[suspects] = True
            found, distance[suspects] = _examine(lines.select(suspects), numeric.select(suspects))
            numeric = numeric.with_lines(suspects, found)
            at_once = min(2 * at_once, _AT_ONCE)
            continue
        failing = examined & (outcome == FAIL)
        if not failing.any():
            return comparison
        if not np.any(failing & measured):
            lines, measured = (
                lines.through(_measured(comparison, examined, distance)),
                examined.copy(),
            )
        elif _is_coarse(lines.select(np.asarray(comparison.decisive[:1]))):
            which = np.flatnonzero(failing)
            found, distance[which] = _examine(lines.select(which), numeric.select(which))
            numeric = numeric.with_lines(which, found)
        else:
            return comparison


def _is_coarse(line: Lines) -> bool:
    """Whether values are found to be coarse, now: they are searched once for each function.

    A coarse term may change too slowly along the line to show its jumps there, although they hide
    its slope. So a random direction comes first, and the line if that shows jumps. The complex step
    of a coarse term is off by as much as the term is rounded, over a whole jump: it is rejected.
    That along a direction already has the bar of a real difference.
    """
    function = line.function
    if function.is_measured or (function.is_analytic and line.direction is not None):
        return False
    function.is_measured = True
    with contextlib.suppress(Fault):  # a limit costs no verdict
        search(along(line.gradient))
        if np.any(function.coarseness):
            search(line)
    if found := bool(np.any(function.coarseness)):
        function.is_analytic = False
    return found


def _measured(
    comparison: Comparison, examined: np.ndarray, distance: np.ndarray
) -> AnalyticGradient:
    """Return the gradient with its rounding, measured over the distances of real differences."""
    lines, numeric, analytic = comparison.lines, comparison.numeric, comparison.analytic.value
    gradient = lines.gradient
    largest, smallest = np.maximum(np.abs(analytic), lines.norm), np.abs(numeric.value)
    is_lost = np.minimum(largest, smallest) < VANISHING * np.maximum(largest, smallest)
    if lines.direction is None:
        steps = np.zeros_like(gradient.scale)
        steps[lines.columns[examined]] = (distance * lines.scale)[examined]
    else:
        steps = distance[0] * np.abs(lines.direction)
    measured = with_measured_rounding(gradient, steps, is_lost)
    if judge(lines.through(measured), numeric).verdict != FAIL:
        measured = without_curvature(measured, steps, is_lost)
    return measured


def _examine(lines: Lines, numeric: NumericDerivative) -> tuple[NumericDerivative, np.ndarray]:
    """Return the complex step with an error bar, or sharp differences if it cannot be trusted.

    Also returns the steps ``(K,)`` of the real differences. If these contradict the complex step,
    it is rejected for the function.
    """
    is_exact = is_complex_step(lines, numeric).all()
    quick = quick_difference(lines) if is_exact else numeric
    exact = complex_step(lines) if is_analytic(lines, quick) else None
    real = quick
    if exact is None or not np.all(confirms(lines, quick, exact)):
        real = sharp_difference(lines, tolerance_of(lines.function, lines.kind))
    distance = real.step.min(axis=1)
    if exact is None:
        return real, distance
    if np.any(contradicts(lines, real, exact)):
        lines.function.is_analytic = False
        return real, distance
    exact = exact._replace(bar=np.abs(real.value - exact.value) + real.bar)
    if lines.direction is None or judge(lines, exact).verdict != FAIL:
        bar = complex_rounding(lines, float(real.step.min()))
        exact = exact._replace(bar=np.fmin(bar, exact.bar))
    return exact.where(real.is_kinked, real), distance


def _worst(comparison: Comparison, among: np.ndarray, most: int) -> np.ndarray:
    """Return the lines that are examined next, in ascending order."""
    ranks = (-comparison.excess.max(axis=1), -comparison.outcome.max(axis=1), ~among)
    return np.sort(np.lexsort(ranks)[: min(most, np.count_nonzero(among))])


def _is_zero(lines: Lines, quick: NumericDerivative) -> np.ndarray:
    """Whether both derivatives are 0 over a step too short to show it."""
    is_short = quick.step < LONG
    return np.asarray((lines.analytic.value == 0.0) & (quick.value == 0.0) & is_short)


def _suffices(lines: Lines, quick: NumericDerivative) -> np.ndarray:
    """Whether a quick difference suffices for a line ``(K,)``: it agrees, and its bar is small.

    Two derivatives of 0 need a long step over which the value does not change either.
    """
    analytic, is_zero = lines.analytic, _is_zero(lines, quick)
    size = np.maximum(np.maximum(np.abs(analytic.value), np.abs(quick.value)), lines.norm)
    slack = tolerance_of(lines.function, "entries") * size + analytic.bar
    agrees = np.abs(analytic.value - quick.value) <= slack
    # One wrong term of a direction must show beside their norm.
    is_sharp = quick.bar <= SHARP * np.where(lines.norm > 0.0, lines.norm, size)
    return np.asarray(np.all(agrees & is_sharp & ~is_zero, axis=-1))
