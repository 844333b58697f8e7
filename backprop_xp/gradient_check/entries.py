"""Checking entry by entry: every derivative is taken, and every one is compared.

What agrees at once is done with. What does not is looked at by a ladder of steps, the most
suspicious entries first, until what decides the verdict has been looked at.
"""

import numpy as np

from backprop_xp.gradient_check.derivatives import (
    QUICK,
    Claimed,
    Derivative,
    Lines,
    along_entries,
    complex_step,
    ladder,
    largest_of_tensor,
    quick_difference,
    with_rounding,
)
from backprop_xp.gradient_check.directions import LONG, contradicts, is_believed, settled
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.judge import FAIL, PASS, Findings, Judged, judge, tolerance_of

# So many ladders at a time, the worst entries first.
_LADDERS = 64


def check_entries(
    function: Function, claimed: Claimed, size: Host, *, is_exact: bool, asked: float | None
) -> Findings:
    """Check every entry, by the complex step where ``is_exact``, else by differences."""
    places, is_measured = np.arange(function.x.size), False
    lines = along_entries(function, places, size)
    exact = complex_step(lines) if is_exact else None
    numeric, believed = _quick(lines, claimed) if exact is None else (exact, places < 0)
    looked = places < 0
    while True:
        judged = _judge(function, claimed, numeric, size, asked)
        if judged.verdict == FAIL and not is_measured:
            claimed, is_measured = with_rounding(function, claimed, size), True
            continue
        suspects = _suspects(judged, believed, looked, PASS if exact is None else FAIL)
        if not suspects.size:
            break
        some = lines.chosen(suspects)
        looked[suspects] = True
        if exact is None:
            numeric = numeric.with_lines(suspects, ladder(some))
            continue
        here = exact.of_lines(suspects)
        real = settled(some, here, quick_difference(some), 0.0)
        if contradicts(real, here, 0.0):
            exact, looked = None, places < 0
            numeric, believed = _quick(lines, claimed)
        else:
            sharper = real.is_kinked.any(axis=1) | np.all(real.step == here.step, axis=1)
            numeric = numeric.with_lines(suspects[sharper], real.of_lines(sharper))
    method = "centered" if exact is None else "complex_step"
    return Findings(method, judged, lines.size, function.evaluations, places, judged)


def _quick(lines: Lines, claimed: Claimed) -> tuple[Derivative, Host]:
    """Return quick differences of all entries, and of which they are the last word."""
    start = np.where(np.all(claimed.value == 0.0, axis=1), LONG, QUICK[lines.function.epsilon])
    quick = quick_difference(lines, start)
    return quick, is_believed(quick, claimed, 0.0, lines.function)


def _judge(
    function: Function, claimed: Claimed, numeric: Derivative, size: Host, asked: float | None
) -> Judged:
    own = np.where(np.isfinite(claimed.value), np.abs(claimed.value), 0.0)
    seen = np.abs(numeric.value)
    # A numeric derivative that may be all error does not say how large the others are.
    sure = np.maximum(own, np.where(numeric.bar <= 0.5 * seen, seen, 0.0))
    largest = largest_of_tensor(function, sure, size).max(axis=1, keepdims=True)
    matters = np.maximum(own, seen) > tolerance_of(function, "matters") * largest
    base = tolerance_of(function, "entries")
    return judge(claimed, numeric, base=base, asked=asked, matters=matters)


def _suspects(judged: Judged, believed: Host, looked: Host, least: int) -> Host:
    """Return the entries that a ladder is to look at, in ascending order.

    That is none if one that has been looked at decides the verdict already.
    """
    outcome, excess = judged.outcome.max(axis=1), judged.excess.max(axis=1)
    reached = int(outcome[looked].max(initial=-1))
    suspects = np.flatnonzero(~believed & ~looked & (outcome >= least) & (outcome > reached))
    worst = np.lexsort((-excess[suspects], -outcome[suspects]))
    return np.sort(suspects[worst[:_LADDERS]])
