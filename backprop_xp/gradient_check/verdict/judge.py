"""The judge: it compares analytic with numeric derivatives, along entries or directions.

An analytic derivative is wrong if the two differ by more than the tolerance, which is the base
tolerance of the table below plus both error bars.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.engine.analytic import AnalyticDerivative
from backprop_xp.gradient_check.engine.constants import RESOLVED, ROUNDED, TINY
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.inputs.functions import HALF, SINGLE, Function
from backprop_xp.gradient_check.inputs.points import DOUBLE
from backprop_xp.gradient_check.verdict.report import TaylorTable

# The outcomes, the worst last.
PASS, KINK, INCONCLUSIVE, FAIL = range(4)
VERDICTS = ("pass", "kink", "inconclusive", "fail")
_HUGE = float(np.finfo(np.float64).max)
# The tolerances in float64, float32, float16 and bfloat16, and the reason. Constants of seven
# digits pass per entry. One wrong entry is a small part of a direction.
TOLERANCES = {
    "entries": (1e-7, 1e-4, 2e-2, 0.15, "the default per entry"),
    "directions": (1e-7, 1e-6, 1e-2, 0.1, "the default per direction"),
    "room": (1e-2, 1e-2, 0.25, 0.25, "a mistake of this part of a derivative matters"),
    "matters": (
        1e-6, 8e-4, 0.1, 0.25, "smaller entries may be rounding errors of their tensor's largest",
    ),
}  # fmt: skip


def tolerance_of(function: Function, name: str) -> float:
    """Return a tolerance of the table, given the rounding of a function and its gradient."""
    epsilon = max(function.epsilon, function.gradient_epsilon)
    column = sum(epsilon > finer for finer in (DOUBLE, SINGLE, HALF))
    return float(TOLERANCES[name][column])


class Comparison(NamedTuple):
    """Analytic and numeric derivatives along K lines, with an outcome ``(K, M)`` for each.

    ``error``, ``tolerance`` and ``room`` are relative to the larger of the two derivatives, or to
    the norm of a direction's terms. ``room`` is the largest mistake that the bars may hide.
    ``matters``: the derivative is not tiny beside the largest of its tensor.
    """

    lines: Lines
    analytic: AnalyticDerivative
    numeric: NumericDerivative
    outcome: np.ndarray
    error: np.ndarray
    tolerance: np.ndarray
    room: np.ndarray
    matters: np.ndarray

    @property
    def verdict(self) -> int:
        """The worst outcome."""
        return int(self.outcome.max(initial=PASS))

    @property
    def is_hidden(self) -> np.ndarray:
        """Whether entries are so small that rounding hides them, so that they are not judged."""
        is_wide = self.room > tolerance_of(self.lines.function, "room")
        return np.asarray(is_wide & ~self.matters & (self.outcome == PASS))

    @property
    def excess(self) -> np.ndarray:
        """The errors relative to their tolerance, or the room where that is inconclusive."""
        ratio = np.where(self.outcome == INCONCLUSIVE, self.room, self.error / self.tolerance)
        return np.where(np.isfinite(ratio), ratio, _HUGE)

    @property
    def decisive(self) -> tuple[int, int]:
        """The line and the result that decide the verdict: a pass, those that were judged."""
        worst = np.where((self.outcome == self.verdict) & ~self.is_hidden, self.excess, -1.0)
        line, result = np.unravel_index(int(np.argmax(worst)), worst.shape)
        return int(line), int(result)


class Findings(NamedTuple):
    """The outcome of a method: its name, and the comparison that the verdict is about.

    ``entries`` are compared entries: those of the comparison, or a sample if a direction fails.
    """

    method: str
    comparison: Comparison
    entries: Comparison | None = None
    taylor: TaylorTable | None = None


def judge(lines: Lines, numeric: NumericDerivative) -> Comparison:
    """Compare the analytic derivatives along lines with numeric ones ``(K, M)``.

    The option ``tolerance`` replaces the table's, but the bars still count.
    """
    given, base = lines.function.options["tolerance"], tolerance_of(lines.function, lines.kind)
    analytic = lines.analytic
    low, high = np.minimum(numeric.left, numeric.right), np.maximum(numeric.left, numeric.right)
    with np.errstate(all="ignore"):
        error = np.maximum(np.maximum(low - analytic.value, analytic.value - high), 0.0)
        larger = np.maximum(np.abs(analytic.value), np.maximum(np.abs(low), np.abs(high)))
        size = np.maximum(larger, lines.norm)
        size = np.where(size > 0.0, size, 1.0)
        # The numeric derivative is rounded at least as the gradient is: the same terms cancel.
        bar = np.maximum(numeric.bar, analytic.bar)
        error, room = error / size, (bar + analytic.bar) / size
        tolerance = np.fmin(base + room if given is None else np.maximum(given, room), _HUGE)
        # A gradient that agrees does not consist of rounding errors. One wrong term of a direction
        # must show beside their norm, not beside their sum.
        room = np.where(error <= base, numeric.bar / size, room)
        room *= np.where(lines.norm > 0.0, size / lines.norm, 1.0)
    is_real = np.isfinite(analytic.value)  # no rounding explains an entry that is not finite
    error, tolerance = np.where(is_real, error, np.inf), np.where(is_real, tolerance, base)
    matters = _matters(lines, numeric)
    # Two zeros agree with any bars. Nothing is known without a value, or if kinks meet on a
    # direction: an entry's slopes can lie outside of those along the direction, and so do those
    # between kinks that are nearer than the noise resolves.
    largest_room = tolerance_of(lines.function, "room") if given is None else given
    is_unknown = (room > largest_room) & (matters & (larger > 0.0) | ~np.isfinite(room))
    is_blurred = numeric.is_kinked & (error > tolerance)
    is_blurred &= (lines.kind == "directions") | (numeric.step > RESOLVED)
    tolerance = np.where(is_blurred, error, tolerance)
    is_unknown |= is_blurred | numeric.is_steep
    outcome = np.where(is_unknown, INCONCLUSIVE, np.where(low != high, KINK, PASS))
    outcome = np.where(error > tolerance, FAIL, outcome)
    return Comparison(lines, analytic, numeric, outcome, error, tolerance, room, matters)


def _matters(lines: Lines, numeric: NumericDerivative) -> np.ndarray:
    """Whether derivatives exceed the rounding errors of the largest of their tensor or results.

    One whose bar exceeds the largest is not known to be smaller.
    """
    part, columns = tolerance_of(lines.function, "matters"), lines.columns
    if lines.kind == "directions":
        return np.asarray(lines.norm >= part * np.max(lines.norm))
    size, certain = np.abs(numeric.value), np.abs(lines.gradient.finite)
    larger = np.maximum(certain[columns], size)
    # A numeric derivative that may consist of error alone is not compared with the others.
    certain[columns] = np.where(numeric.bar <= 0.5 * size, larger, certain[columns])
    largest = lines.gradient.largest(certain).max(axis=1, keepdims=True)
    return np.asarray((larger > part * largest[columns]) | (numeric.bar > largest[columns]))


def reason_of(findings: Findings) -> str:
    """Return the reason of a tolerance, or of an inconclusive verdict."""
    comparison, at = findings.comparison, findings.comparison.decisive
    given = comparison.lines.function.options["tolerance"]
    if comparison.verdict == INCONCLUSIVE:
        return _reason_of_doubt(comparison, given)
    if given is not None:
        wider = "" if comparison.tolerance[at] <= given else ", widened to the error bars"
        return f"the given tolerance{wider}"
    kind, function = comparison.lines.kind, comparison.lines.function
    base, reason = tolerance_of(function, kind), TOLERANCES[kind][-1]
    # A direction's error is a part of the sum of all terms: entries show how large a mistake is.
    error = float((findings.entries or comparison).error.max())
    if comparison.verdict == FAIL and 0.0 < error < 1e-3:
        digits = int(-np.log10(error))
        accepted = f"tolerance={10.0 ** -(digits - 1):.0e} accepts it"
        cause = "an inner solver, or rounded constants?"
        return f"{reason}; analytic and numeric agree to {digits} digits: {cause} {accepted}"
    room = float(comparison.room[at])
    return f"{reason}; plus the error bars, {room:.0e}" if room > base else reason


def _reason_of_doubt(comparison: Comparison, given: float | None) -> str:
    function, at = comparison.lines.function, comparison.decisive
    numeric, analytic = float(comparison.numeric.bar[at]), float(comparison.analytic.bar[at])
    room, value = float(comparison.room[at]), function.word("value")
    if comparison.numeric.is_steep[at]:
        return f"{value} has no derivative here: its slope grows without limit as the step shrinks"
    if not np.isfinite(numeric):
        failure = f": {function.failure!r}" if function.failure else ""
        return f"{value} is not finite on either side of the point, at any step{failure}"
    if comparison.numeric.is_kinked[at] and comparison.lines.kind == "directions":
        return "kinks meet on a direction and hide single entries: check fewer, or another point"
    if comparison.numeric.is_kinked[at]:
        return f"{value} has kinks, and noise hides the slope between them: check another point"
    noise, is_rounding = (float(part[at]) for part in _noise(comparison))
    is_zero = abs(float(comparison.analytic.value[at])) <= analytic + numeric
    noun = function.problem.noun
    if is_zero and (is_rounding or analytic >= numeric):
        return f"the {noun} is zero to rounding here, so mistakes hide: check another point"
    if analytic >= numeric:
        return f"the {noun} is the rounding error of terms that cancel: check another point"
    if given is not None and room <= tolerance_of(function, "room"):
        return f"the error bars, {room:.0e}, are wider than the given tolerance"
    part = f"{noise / (abs(float(function.fx[at[1]])) or 1.0):.0e}, or varies faster than any step"
    return f"the value is noisy at {part} resolves: a mistake of {room:.0%} could hide"


def _noise(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise ``(K, M)`` of the values that a bar contains, and whether it is rounding.

    At a value of 0 the terms may cancel: they are as large as the values at another point. Where
    all entries are tiny, such a point is far away, and the jumps are the rounding of the terms.
    """
    lines, numeric, function = comparison.lines, comparison.numeric, comparison.lines.function
    noise = numeric.bar / 2.0 * numeric.step * lines.scale[:, None]
    size = np.abs(function.fx) if function.size is None else function.size
    rounding = function.epsilon * size
    if lines.gradient.scale.max() < TINY:
        rounding = np.fmax(rounding, function.coarseness)
    return noise, np.asarray(noise <= ROUNDED * rounding)


def is_stationary(comparison: Comparison) -> bool:
    """Whether mistakes hide, since the gradient is 0 to rounding.

    All derivatives are 0, or rounding hides all that are in doubt.
    """
    analytic, numeric = comparison.analytic, comparison.numeric
    if comparison.verdict == PASS:
        return not (np.any(analytic.value) or np.any(numeric.value))
    with np.errstate(all="ignore"):
        is_rounded = _noise(comparison)[1] | (analytic.bar >= numeric.bar)
    is_wide = comparison.room > tolerance_of(comparison.lines.function, "room")
    is_smooth = np.isfinite(numeric.bar) & ~numeric.is_kinked
    is_clear = (comparison.outcome != INCONCLUSIVE) | is_smooth & is_rounded & is_wide
    return comparison.verdict == INCONCLUSIVE and bool(np.all(is_clear))
