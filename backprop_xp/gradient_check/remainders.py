"""Checking a gradient by the order of its Taylor remainder."""

import statistics

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.directional import direction_of
from backprop_xp.gradient_check.directions import norm
from backprop_xp.gradient_check.engines import real_line
from backprop_xp.gradient_check.findings import Findings, Subject, line_step, verdict_of
from backprop_xp.gradient_check.judgement import COARSEST, INCONCLUSIVE, RIGHT, WRONG, judge
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
    direction = direction_of(subject, number)
    longest = _LONGEST * float(direction.shape[0] ** -0.25)
    table = taylor_table(function, direction, subject.analytic, longest)
    terms = subject.analytic * direction
    scale = norm(terms) or 1.0
    # What the remainder at any step leaves room for: the rounding of the value, at the least.
    room = [
        max(remainder, table.noise) / (2.0 * step)
        for step, remainder in zip(table.steps, table.symmetric, strict=True)
    ]
    error = min(room) / scale
    outcome = _outcome(table, error, limit)
    if outcome != RIGHT:
        xp = array_namespace(direction)
        judged = judge(
            lambda h: real_line(function, direction, h, subject.analytic),
            xp.asarray([float(xp.sum(terms))]), xp.asarray([scale]), limit, line_step(function),
        )  # fmt: skip
        outcome = judged.outcomes[0]
    return Findings(
        verdict=verdict_of([outcome]),
        method="taylor",
        engine="remainders along a random direction",
        step=table.steps[-1],
        tolerance=limit,
        reason="for what the shortest step leaves; the order is 3 if right, 1 if wrong",
        evaluations=subject.function.tally["value"],
        error=error,
        taylor=table,
    )


def _outcome(table: TaylorTable, error: float, limit: float) -> str:
    if not error <= limit:
        return INCONCLUSIVE
    last = table.orders[-3:]
    return RIGHT if not last or statistics.median(last) > _LEAST_ORDER else WRONG
