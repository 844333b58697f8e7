"""The judge of a claimed derivative: right, wrong, at a kink, or impossible to tell.

A claimed derivative and a numeric one, each with an error bar, are compared by one rule, along an
entry or along a direction: it is wrong if they differ by more than the tolerance, which is the base
tolerance of the table below and both bars.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.analytic import Claim, Gradient
from backprop_xp.gradient_check.derivatives import Derivative, Lines
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.report import TaylorTable

# The outcomes, the worst last.
PASS, KINK, INCONCLUSIVE, FAIL = range(4)
VERDICTS = ("pass", "kink", "inconclusive", "fail")
_HUGE = float(np.finfo(np.float64).max)
# What is compared with what: in float64, at least so many roundings in any precision, and why.
TOLERANCES = {
    "entries": (1e-7, 840.0, "that of entries: constants of seven digits are right"),
    "directions": (1e-7, 8.0, "that of directions: one wrong entry is a small part of the sum"),
    "room": (1e-2, 0.0, "a mistake of this part of a derivative matters"),
    "matters": (1e-6, 6400.0, "smaller entries may be the rounding of their tensor's largest"),
}


def tolerance_of(function: Function, name: str) -> float:
    """Return a tolerance of the table where a function and its gradient are rounded as they are."""
    least, roundings, _ = TOLERANCES[name]
    return max(least, roundings * max(function.epsilon, function.gradient_epsilon))


class Judged(NamedTuple):
    """What became of lines and M results each; ``room`` is the mistake that bars leave room for.

    ``error``, ``tolerance`` and ``room`` are relative to the larger of the two derivatives, or to
    the norm of a direction's terms. ``decides`` is the line and the result that the report is
    about.
    """

    lines: Lines
    gradient: Gradient
    claimed: Claim
    numeric: Derivative
    outcome: Host
    error: Host
    tolerance: Host
    room: Host
    matters: Host

    @property
    def verdict(self) -> int:
        """The worst outcome."""
        return int(self.outcome.max(initial=PASS))

    @property
    def excess(self) -> Host:
        """By how much errors exceed their tolerance; where nothing is known, the room there is."""
        by = np.where(self.outcome == INCONCLUSIVE, self.room, self.error / self.tolerance)
        return np.where(np.isfinite(by), by, _HUGE)

    @property
    def decides(self) -> tuple[int, int]:
        """The line and the result that the verdict is about."""
        worst = np.where(self.outcome == self.verdict, self.excess, -1.0)
        line, result = np.unravel_index(int(np.argmax(worst)), worst.shape)
        return int(line), int(result)


class Findings(NamedTuple):
    """What a method hands over to be reported.

    ``judged`` are the lines that the verdict is about, ``evaluations`` those for it. ``entries``
    are judged entries: the lines themselves, or, where a direction fails, some of the point's.
    """

    method: str
    judged: Judged
    evaluations: int
    entries: Judged | None = None
    taylor: TaylorTable | None = None


def judge(
    lines: Lines, gradient: Gradient, numeric: Derivative, steps: Host | float = np.inf
) -> Judged:
    """Judge what a gradient claims along lines by numeric derivatives ``(K, M)``.

    Bars grow by the rounding of the gradient's natural size, at most by ``steps (K, M)``. A
    tolerance that was ``asked`` for takes the place of the table's. The bars are counted in any
    case: a fail says that no rounding explains it.
    """
    asked = lines.function.problem.options["tolerance"]
    claimed, base = lines.claim(gradient), tolerance_of(lines.function, lines.kind)
    claimed = claimed._replace(bar=claimed.bar + np.fmin(claimed.natural, steps))
    low, high = np.minimum(numeric.left, numeric.right), np.maximum(numeric.left, numeric.right)
    largest_room = TOLERANCES["room"][0] if asked is None else asked
    with np.errstate(all="ignore"):
        off = np.maximum(np.maximum(low - claimed.value, claimed.value - high), 0.0)
        larger = np.maximum(np.abs(claimed.value), np.maximum(np.abs(low), np.abs(high)))
        size = np.maximum(larger, lines.norm)
        size = np.where(size > 0.0, size, 1.0)
        # The numeric derivative is rounded as the gradient is, at least: the same terms cancel.
        bar = np.maximum(numeric.bar, claimed.bar)
        error, room = off / size, (bar + claimed.bar) / size
        tolerance = np.fmin(base + room if asked is None else np.maximum(asked, room), _HUGE)
        # A gradient that agrees is not made of rounding. One wrong term of a direction must show
        # beside their norm, not beside their sum.
        room = np.where(error <= base, numeric.bar / size, room)
        room *= np.where(np.asarray(lines.norm) > 0.0, size / lines.norm, 1.0)
    # Of a claimed number that is not finite nothing explains anything.
    unreal = ~np.isfinite(claimed.value)
    error, tolerance = np.where(unreal, np.inf, error), np.where(unreal, base, tolerance)
    matters = _matters(lines, gradient, numeric)
    # Two zeros agree, whatever the bars. Where no value could be had at all, nothing is known; nor
    # is it where kinks meet on a direction: an entry's slopes can lie outside of those along it.
    unknown = (room > largest_room) & (matters & (larger > 0.0) | ~np.isfinite(room))
    blurred = (low != high) & (error > tolerance) & (lines.kind == "directions")
    tolerance = np.where(blurred, error, tolerance)
    unknown |= blurred | numeric.is_steep
    outcome = np.where(unknown, INCONCLUSIVE, np.where(low != high, KINK, PASS))
    outcome = np.where(error > tolerance, FAIL, outcome)
    return Judged(lines, gradient, claimed, numeric, outcome, error, tolerance, room, matters)


def _matters(lines: Lines, gradient: Gradient, numeric: Derivative) -> Host:
    """Say which derivatives are no rounding of the largest of their tensor, or of many results."""
    part, where = tolerance_of(lines.function, "matters"), lines.columns
    if lines.kind == "directions":
        return np.asarray(lines.norm >= part * np.max(lines.norm))
    seen, sure = np.abs(numeric.value), np.abs(gradient.finite)
    larger = np.maximum(sure[where], seen)
    # A numeric derivative that may be all error does not say how large the others are.
    sure[where] = np.where(numeric.bar <= 0.5 * seen, larger, sure[where])
    return larger > part * gradient.largest(sure).max(axis=1, keepdims=True)[where]


def why(found: Findings) -> str:
    """Return the reason of a tolerance, or why nothing could be decided."""
    judged, at = found.judged, found.judged.decides
    asked = judged.lines.function.problem.options["tolerance"]
    # By directions the error is a part of the sum of all terms: entries say how large a mistake is.
    error = float((judged if found.entries is None else found.entries).error.max())
    room = float(judged.room[at])
    if judged.verdict == INCONCLUSIVE:
        return _why_not(judged, asked)
    if asked is not None:
        wider = "" if judged.tolerance[at] <= asked else ", and the error bars, which are wider"
        return f"the tolerance that was asked for{wider}"
    base, _, reason = TOLERANCES[judged.lines.kind]
    if judged.verdict == FAIL and 0.0 < error < 1e-3:
        digits = int(-np.log10(error))
        return (
            f"{reason}; analytic and numeric agree to {digits} digits: an inner solver, or "
            f"constants of few digits? tolerance={10.0 ** -(digits - 1):.0e} accepts it"
        )
    return f"{reason}; to it come the error bars, {room:.0e}" if room > base else reason


def _why_not(judged: Judged, asked: float | None) -> str:
    function, at = judged.lines.function, judged.decides
    numeric, own = float(judged.numeric.bar[at]), float(judged.claimed.bar[at])
    room = float(judged.room[at])
    if judged.numeric.is_steep[at]:
        return "value has no derivative here: the shorter the step, the steeper it is"
    if not np.isfinite(numeric):
        failure = f": {function.failure!r}" if function.failure else ""
        return f"value gives no number on either side of the point, at any step{failure}"
    if judged.numeric.is_kinked[at] and judged.lines.kind == "directions":
        return "kinks meet on a direction, which says little of an entry: check fewer, or elsewhere"
    if abs(float(judged.claimed.value[at])) <= own + numeric:
        return "the gradient is zero to rounding here, and zeros say little: check elsewhere"
    if own >= numeric:
        return "the gradient is what rounding leaves of terms that cancel here: check elsewhere"
    if asked is not None and room <= TOLERANCES["room"][0]:
        return f"the error bars, {room:.0e}, are wider than the tolerance that was asked for"
    noise = numeric / 2.0 * float(judged.numeric.step[at] * judged.lines.size[at[0]])
    part = f"{noise / (abs(float(function.base[at[1]])) or 1.0):.0e}"
    hidden = f"a mistake of {room:.0%} could hide"
    return f"the value is noisy at {part}, or varies faster than any step shows: {hidden}"
