"""Checking a gradient by the order of its Taylor remainder."""

import functools
import statistics

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.directional import ALIGNED, direction_of
from backprop_xp.gradient_check.directions import norm
from backprop_xp.gradient_check.engines import Slopes, epsilon, real_line
from backprop_xp.gradient_check.findings import (
    Findings,
    Subject,
    line_rounding,
    line_step,
    verdict_of,
)
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.guard import guard_tolerance
from backprop_xp.gradient_check.judgement import (
    COARSEST,
    INCONCLUSIVE,
    KINK,
    RIGHT,
    WRONG,
    full_depth,
    judge,
)
from backprop_xp.gradient_check.taylor import TaylorTable, taylor_table

# Short enough for the leading term of the remainder to rule.
_LONGEST = 2.0**-4
# Halfway between the order of a wrong gradient and that of a right one.
_LEAST_ORDER = 2.0


def check_taylor(subject: Subject, directions: int | None, tolerance: float | None) -> Findings:
    """Check along one direction, or more, until one does not pass."""
    limit = COARSEST if tolerance is None else tolerance
    for number in range(directions or 1):
        found = _check_line(subject, number, limit)
        if found.verdict != "pass":
            break
    return found


def _check_line(subject: Subject, number: int, limit: float) -> Findings:
    function = subject.function.in_double() or subject.function
    # First along the gradient's own signs: elsewhere its terms may cancel, and a mistake with them.
    direction = direction_of(subject, ALIGNED + number)
    longest = _LONGEST * float(direction.shape[0] ** -0.25)
    scale = norm(subject.analytic * direction)
    rounding = epsilon(subject.function) * scale
    table = taylor_table(function, direction, subject.analytic, longest, rounding)
    # What the remainder at any step leaves room for: the rounding of the value, at the least.
    room = [
        max(remainder, noise) / (2.0 * step)
        for step, remainder, noise in zip(table.steps, table.symmetric, table.noise, strict=True)
    ]
    # Of a gradient of 0 the remainder is the derivative itself.
    scale = max(scale, table.symmetric[-1] / (2.0 * table.steps[-1])) or 1.0
    error = min(room) / scale
    outcome = _outcome(table, error, limit)
    if outcome == WRONG:
        outcome = _second_look(subject, function, direction, scale)
    return Findings(
        verdict=verdict_of([outcome]),
        method="taylor",
        engine="remainders along a direction",
        step=table.steps[-1],
        tolerance=limit,
        reason="for what the shortest step leaves; the order is 3 if right, 1 if wrong",
        evaluations=subject.function.tally["value"],
        error=error,
        taylor=table,
    )


def _outcome(table: TaylorTable, error: float, limit: float) -> str:
    last = table.orders[-3:]
    if last and statistics.median(last) < _LEAST_ORDER:
        return WRONG
    return RIGHT if error <= limit else INCONCLUSIVE


def _second_look(subject: Subject, function: Function, direction: Host, scale: float) -> str:
    """Return WRONG, unless a kink at the point, or nearer than the steps, explains the order."""
    tried = [piece for piece in (function, function.frozen()) if piece is not None]
    outcomes = []
    for piece in tried:
        xp = array_namespace(direction)
        analytic = xp.asarray([float(xp.sum(subject.analytic * direction))])
        found = judge(
            functools.partial(_probe, subject, piece, direction), analytic, xp.asarray([scale]),
            guard_tolerance(subject.function), line_step(piece), depth=full_depth(piece),
        )  # fmt: skip
        slopes = _probe(subject, piece, direction, line_step(piece))
        difference = abs(float(analytic[0] - found.slope[0]))
        rounded = found.outcomes[0] == WRONG and difference <= line_rounding(subject, slopes)
        outcomes.append(INCONCLUSIVE if rounded else found.outcomes[0])
    if RIGHT in outcomes[1:]:
        return KINK
    return outcomes[0]


def _probe(subject: Subject, function: Function, direction: Host, h: float) -> Slopes:
    return real_line(function, direction, h, subject.analytic)
