"""Comparing along lines as closely as it takes, and so entry by entry.

What agrees at once is done with. What does not is looked at more closely, by the complex step or a
ladder of steps, the most suspicious lines first, until what decides the verdict has been looked at.
"""

from collections.abc import Callable

import numpy as np

from backprop_xp.gradient_check.analytic import Claim, Gradient
from backprop_xp.gradient_check.derivatives import (
    LONG,
    SAFETY,
    Derivative,
    Lines,
    along_entries,
    complex_step,
    ladder,
    quick_difference,
)
from backprop_xp.gradient_check.functions import Host
from backprop_xp.gradient_check.judge import FAIL, PASS, Findings, Judged, judge, tolerance_of
from backprop_xp.gradient_check.rounding import changes, with_rounding

# A quick difference is believed if it agrees with the claimed derivative and its bar is this part.
_SHARP = 1e-2
# The complex step must agree with a real difference within its bar and this part of the terms. A
# bar of so many roundings of the value is its rounding alone.
_AGREES, _ROUNDED = 1e-6, 32.0
# So many lines are looked at at a time, the worst first.
_AT_ONCE = 64


def check_entries(gradient: Gradient, *, is_exact: bool) -> Findings:
    """Check every entry, by the complex step where ``is_exact``, else by differences."""
    function = gradient.function
    lines = along_entries(gradient, np.arange(function.x.size))
    exact = complex_step(lines) if is_exact else None
    if exact is not None:
        judged = compare(lines, gradient, exact, settled, least=FAIL)
        if not np.any(contradicts(lines, judged.numeric, exact)):
            return Findings("complex_step", judged, function.evaluations, judged)
    quick = quick_difference(lines, np.all(gradient.value == 0.0, axis=1))
    judged = compare(lines, gradient, quick, ladder)
    return Findings("centered", judged, function.evaluations, judged)


def compare(
    lines: Lines,
    gradient: Gradient,
    numeric: Derivative,
    closer: Callable[[Lines], Derivative],
    *,
    least: int = PASS,
) -> Judged:
    """Judge a gradient along lines by numeric derivatives, in doubt by ``closer`` ones.

    Lines whose outcome is better than ``least`` are not in doubt. The rounding of a gradient is
    measured only if it would fail otherwise, and then told from a mistake that is as small.
    """
    steps, is_told = np.full(numeric.value.shape, np.inf), False
    done, looked = _is_believed(lines, numeric, gradient), np.zeros(lines.size.shape, dtype=bool)
    while True:
        judged = judge(lines, gradient, numeric, steps)
        if judged.verdict == FAIL and not gradient.is_measured:
            gradient = with_rounding(gradient)
            continue
        # None is looked at if one that has been looked at decides the verdict already.
        outcome, excess = judged.outcome.max(axis=1), judged.excess.max(axis=1)
        reached = max(least - 1, int(outcome[looked].max(initial=-1)))
        suspects = np.flatnonzero(~done & ~looked & (outcome > reached))
        if not suspects.size:
            plain = judge(lines, gradient, numeric, 0.0)
            if judged.verdict == FAIL or plain.verdict != FAIL:
                return judged if judged.verdict == FAIL else plain
            if is_told:  # what would not fail needs no rounding to explain it
                return judge(lines, gradient, numeric, np.where(plain.outcome == FAIL, steps, 0.0))
            is_told, suspects = True, _worst(plain, FAIL)
            steps[suspects] = changes(lines.chosen(suspects), gradient, numeric.chosen(suspects))
            continue
        suspects = suspects[np.lexsort((-excess[suspects], -outcome[suspects]))]
        suspects = np.sort(suspects[:_AT_ONCE])
        looked[suspects] = True
        numeric = numeric.with_lines(suspects, closer(lines.chosen(suspects)))


def _worst(judged: Judged, outcome: int) -> Host:
    """Return the worst lines of an outcome, as many as are looked at at a time, ascending."""
    excess = np.where(judged.outcome == outcome, judged.excess, 0.0).max(axis=1)
    return np.sort(np.argsort(-excess)[: min(_AT_ONCE, np.count_nonzero(excess))])


def settled(
    lines: Lines, quick: Derivative | None = None, exact: Derivative | None = None
) -> Derivative:
    """Return the complex step where real differences confirm it, else those, from a ladder."""
    exact = exact or complex_step(lines)
    if exact is None:
        return ladder(lines)
    quick = quick or quick_difference(lines)
    if np.all(_is_shown(lines, quick, exact)):
        return exact
    # What changes with the imaginary step is its square, beside a derivative of 0. It is more where
    # an imaginary part is no more than rounding: then the real difference is sharper.
    bar = SAFETY * np.abs((complex_step(lines, 0.25) or exact).value - exact.value)
    value = np.where(np.abs(exact.value) <= bar, 0.0, exact.value)
    exact = Derivative(value, bar, value, value, exact.step)
    is_sharper = bar <= np.maximum(quick.bar, _AGREES * _size(lines, quick, exact))
    if np.all(is_sharper & _is_shown(lines, quick, exact)):
        return exact
    real = ladder(lines)
    return exact.where(~is_sharper | real.is_kinked | contradicts(lines, real, exact), real)


def _is_shown(lines: Lines, quick: Derivative, exact: Derivative) -> Host:
    """Say where a quick difference agrees, and is sharp, or hidden by rounding alone."""
    noise = quick.bar * quick.step * lines.size[:, None]
    hidden = noise <= _ROUNDED * lines.function.epsilon * np.abs(lines.function.base)
    is_sharp = quick.bar <= _SHARP * _size(lines, quick, exact)
    return (is_sharp | hidden) & ~contradicts(lines, quick, exact)


def _size(lines: Lines, one: Derivative | Claim, other: Derivative) -> Host:
    return np.maximum(np.maximum(np.abs(one.value), np.abs(other.value)), lines.norm)


def contradicts(lines: Lines, real: Derivative, exact: Derivative) -> Host:
    """Say where real differences show that the complex step misses something."""
    low, high = np.minimum(real.left, real.right), np.maximum(real.left, real.right)
    off = np.maximum(low - exact.value, exact.value - high) - exact.bar
    return off > real.bar + _AGREES * np.maximum(np.abs(exact.value), lines.norm)


def _is_believed(lines: Lines, quick: Derivative, gradient: Gradient) -> Host:
    """Say for which lines ``(K,)`` a quick difference suffices: it agrees, and its bar is small.

    Where derivative and claim are 0, the value must not change over a long step either.
    """
    claimed = lines.claim(gradient)
    nothing = (claimed.value == 0.0) & (quick.value == 0.0) & (quick.step < LONG)
    size = _size(lines, claimed, quick)
    slack = tolerance_of(lines.function, "entries") * size + claimed.bar
    agrees = np.abs(claimed.value - quick.value) <= slack
    # One wrong term of a direction must show beside their norm.
    is_sharp = quick.bar <= _SHARP * np.where(np.asarray(lines.norm) > 0.0, lines.norm, size)
    return np.all(agrees & is_sharp & ~nothing, axis=-1)
