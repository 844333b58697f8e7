"""The comparison along lines, with as many evaluations as the verdict needs.

Lines that agree at once are settled. The others get sharper numeric derivatives, by the complex
step or a ladder of steps. The most suspicious lines come first, until one of them decides.
"""

from collections.abc import Callable

import numpy as np

from backprop_xp.gradient_check.analytic import AnalyticGradient
from backprop_xp.gradient_check.derivatives import LONG, complex_step, ladder, quick_difference
from backprop_xp.gradient_check.extrapolation import SAFETY
from backprop_xp.gradient_check.judge import FAIL, PASS, Comparison, Findings, judge, tolerance_of
from backprop_xp.gradient_check.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.rounding import rounding_limits, with_measured_rounding
from backprop_xp.gradient_check.stencils import differences

# A quick difference suffices if it agrees with the analytic derivative and its bar is this part.
_SHARP = 1e-2
# The complex step must agree with a real difference to within its bar and this part of the terms.
_AGREES = 1e-6
# A bar of at most this many rounding errors of the value consists of rounding only.
_ROUNDED = 32.0
# A derivative by shorter steps than this fails only if longer steps do not agree.
_LONG_STEP = 2.0**-9
# The number of lines that are examined together.
_AT_ONCE = 64


def check_entries(gradient: AnalyticGradient, *, is_exact: bool) -> Findings:
    """Check every entry: by the complex step if ``is_exact``, otherwise by differences."""
    function = gradient.function
    lines = Lines(gradient, np.arange(function.x.size))
    exact = complex_step(lines) if is_exact else None
    if exact is not None:
        comparison = compare(lines, exact, confirmed_complex_step, least=FAIL)
        if not np.any(contradicts(lines, comparison.numeric, exact)):
            return Findings("complex_step", comparison, function.evaluations, comparison)
    quick = quick_difference(lines, np.all(gradient.value == 0.0, axis=1))
    # Results that a line does not change need a longer step, but no ladder.
    is_zero = _is_zero(lines, quick)
    if (some := np.flatnonzero(is_zero.any(axis=1))).size:
        long = quick_difference(lines.select(some), True)
        is_zero = is_zero[some] & (long.value == 0.0)
        quick = quick.with_lines(some, quick.select(some).where(is_zero, long))
    comparison = compare(lines, quick, ladder)
    return Findings("centered", comparison, function.evaluations, comparison)


def compare(
    lines: Lines,
    numeric: NumericDerivative,
    sharper: Callable[[Lines], NumericDerivative],
    *,
    least: int = PASS,
) -> Comparison:
    """Judge the gradient along lines; ``sharper`` examines those with outcome ``least`` or worse.

    The rounding of the gradient is measured only if the gradient would fail otherwise, and a line
    fails only if differences over other steps do not agree.
    """
    limits, has_limits = np.full(numeric.value.shape, np.inf), False
    settled, examined = _suffices(lines, numeric), np.zeros(lines.scale.shape, dtype=bool)
    confirmed = examined.copy()
    while True:
        comparison = judge(lines, numeric, limits)
        if comparison.verdict == FAIL and not lines.gradient.is_measured:
            lines = lines.through(with_measured_rounding(lines.gradient))
            continue
        # If an examined line decides the verdict, lines that are not worse are skipped.
        outcome = comparison.outcome.max(axis=1)
        reached = max(least - 1, int(outcome[examined].max(initial=-1)))
        suspects = _worst(comparison, ~settled & ~examined & (outcome > reached))
        if suspects.size:
            examined[suspects] = True
            numeric = numeric.with_lines(suspects, sharper(lines.select(suspects)))
            continue
        failing = comparison.outcome.max(axis=1) == FAIL
        confirmed |= np.all((numeric.bar == 0.0) | (numeric.step >= _LONG_STEP), axis=1)
        if lines.direction is None and failing.any() and not np.any(failing & confirmed):
            some = _worst(comparison, failing)
            confirmed[some] = True
            numeric = numeric.with_lines(
                some, _at_other_steps(lines.select(some), numeric.select(some))
            )
            continue
        strict = judge(lines, numeric, 0.0)
        if comparison.verdict == FAIL or strict.verdict != FAIL:
            return comparison if comparison.verdict == FAIL else strict
        if has_limits:  # rounding is allowed only where the gradient would fail without it
            return judge(lines, numeric, np.where(strict.outcome == FAIL, limits, 0.0))
        has_limits, suspects = True, _worst(strict, strict.outcome.max(axis=1) == FAIL)
        limits[suspects] = rounding_limits(lines.select(suspects), numeric.select(suspects))


def _at_other_steps(lines: Lines, one: NumericDerivative) -> NumericDerivative:
    """Return derivatives with bars up to a slope that equals the analytic one, if there is one.

    A function with another slope over other steps has a narrow feature, or terms that are rounded.
    """
    (other, _), analytic = differences(lines), lines.analytic.value
    error, gap = np.abs(other.value - analytic), np.abs(other.value - one.value)
    agrees = (error <= other.bar) & (other.bar <= _SHARP * np.abs(analytic))
    differs = (gap > one.bar + other.bar) & ~one.is_kinked
    return one._replace(bar=np.where(agrees & differs, gap + other.bar, one.bar))


def _worst(comparison: Comparison, among: np.ndarray) -> np.ndarray:
    """Return the lines that are examined next, in ascending order."""
    ranks = (-comparison.excess.max(axis=1), -comparison.outcome.max(axis=1), ~among)
    return np.sort(np.lexsort(ranks)[: min(_AT_ONCE, np.count_nonzero(among))])


def confirmed_complex_step(
    lines: Lines, quick: NumericDerivative | None = None, exact: NumericDerivative | None = None
) -> NumericDerivative:
    """Return the complex step where real differences confirm it, otherwise the ladder."""
    exact = exact or complex_step(lines)
    if exact is None:
        return ladder(lines)
    quick = quick or quick_difference(lines)
    if np.all(confirms(lines, quick, exact)):
        return exact
    # The square of the imaginary step beside a derivative of 0, and rounding, change with the step.
    bar = SAFETY * np.abs((complex_step(lines, 0.25) or exact).value - exact.value)
    value = np.where(np.abs(exact.value) <= bar, 0.0, exact.value)
    exact = NumericDerivative(value, bar, value, value, exact.step)
    if np.all((bar <= quick.bar) & confirms(lines, quick, exact)):
        return exact
    real = ladder(lines)
    return exact.where((real.bar < bar) | real.is_kinked | contradicts(lines, real, exact), real)


def confirms(lines: Lines, quick: NumericDerivative, exact: NumericDerivative) -> np.ndarray:
    """Whether a quick difference agrees, and has a small error bar or one of rounding only."""
    noise = quick.bar * quick.step * lines.scale[:, None]
    is_rounded = noise <= _ROUNDED * lines.function.epsilon * np.abs(lines.function.fx)
    is_sharp = quick.bar <= _SHARP * _size(lines, quick.value, exact.value)
    return np.asarray((is_sharp | is_rounded) & ~contradicts(lines, quick, exact))


def _size(lines: Lines, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.maximum(np.abs(one), np.abs(other)), lines.norm))


def contradicts(lines: Lines, real: NumericDerivative, exact: NumericDerivative) -> np.ndarray:
    """Whether real differences show that the complex step misses something."""
    low, high = np.minimum(real.left, real.right), np.maximum(real.left, real.right)
    error = np.maximum(low - exact.value, exact.value - high) - exact.bar
    slack = real.bar + _AGREES * np.maximum(np.abs(exact.value), lines.norm)
    return np.asarray(error > slack)


def _is_zero(lines: Lines, quick: NumericDerivative) -> np.ndarray:
    """Whether both derivatives are 0 over a step too short to show it."""
    is_short = quick.step < LONG
    return np.asarray((lines.analytic.value == 0.0) & (quick.value == 0.0) & is_short)


def _suffices(lines: Lines, quick: NumericDerivative) -> np.ndarray:
    """Whether a quick difference suffices for a line ``(K,)``: it agrees, and its bar is small.

    Two derivatives of 0 need a long step over which the value does not change either.
    """
    analytic, is_zero = lines.analytic, _is_zero(lines, quick)
    size = _size(lines, analytic.value, quick.value)
    slack = tolerance_of(lines.function, "entries") * size + analytic.bar
    agrees = np.abs(analytic.value - quick.value) <= slack
    # One wrong term of a direction must show beside their norm.
    is_sharp = quick.bar <= _SHARP * np.where(lines.norm > 0.0, lines.norm, size)
    return np.asarray(np.all(agrees & is_sharp & ~is_zero, axis=-1))
