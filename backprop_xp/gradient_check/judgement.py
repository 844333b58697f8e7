"""What real differences say of analytic derivatives: right, wrong, a kink, or too rough to tell.

Each place, an entry of the point or a direction, is looked at with ever smaller steps. A step is
believed if no smaller one contradicts it, so that a kink nearby deceives none of them.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.engines import Slopes
from backprop_xp.gradient_check.functions import Host

# A mistake of a tenth of a percent must show: a coarser derivative proves nothing.
COARSEST = 2.5e-4

RIGHT, KINK, INCONCLUSIVE, WRONG = "right", "kink", "inconclusive", "wrong"

_SHRINK = 8.0
_ROUNDS = 5
# How many standard deviations of rounding a difference may be off.
_DEVIATIONS = 8.0
# By how much the rounding of a fourth difference is larger than that of a value.
_FOURTH = 70.0**0.5


class Judgement(NamedTuple):
    """For each place its outcome, the derivative that was believed, and its error bar."""

    outcomes: list[str]
    slope: Host
    bar: Host


class _Rounds(NamedTuple):
    """Slopes at ever smaller steps; ``rounding`` is what rounding may add to each, ``(K,)``."""

    slopes: list[Slopes]
    rounding: list[Host]

    def bar(self, k: int) -> Host:
        return self.rounding[k] + self.slopes[k].spread


def judge(
    probe: Callable[[float], Slopes],
    analytic: Host,
    scale: Host,
    tolerance: float,
    step: float,
    *,
    rounds: int = _ROUNDS,
    confirmed: Host | None = None,
) -> Judgement:
    """Judge ``analytic`` derivatives ``(K,)`` by the slopes that ``probe`` returns for a step.

    A difference of ``tolerance * scale`` is nothing. No smaller steps are taken if all of them are
    right, or as another method's derivatives ``confirmed``.
    """
    looked = [probe(step)]
    found = _with_rounding(looked)
    while len(looked) < rounds and not _is_clear(found, analytic, scale, tolerance):
        if confirmed is not None and _agree(found, confirmed):
            break
        looked.append(probe(step * _SHRINK ** -len(looked)))
        found = _with_rounding(looked)
    outcomes, slope, bar = [], [], []
    for i in range(analytic.shape[0]):
        outcome, k = _decide(found, i, float(analytic[i]), float(scale[i]), tolerance)
        outcomes.append(outcome)
        slope.append(float(found.slopes[k].slope[i]))
        bar.append(float(found.bar(k)[i]))
    xp = array_namespace(analytic)
    return Judgement(outcomes, xp.asarray(slope), xp.asarray(bar))


def error_bar(slopes: Slopes) -> Host:
    """Return by how much slopes at a single step may be off, ``(K,)``."""
    return _with_rounding([slopes]).bar(0)


def agrees(difference: Host, bar: Host, scale: Host, tolerance: float) -> Host:
    """Say where a difference is within the tolerance and the derivative is sharp enough to tell."""
    return (difference <= tolerance * scale) & (bar <= max(COARSEST, tolerance) * scale)


def _with_rounding(looked: list[Slopes]) -> _Rounds:
    xp = array_namespace(looked[0].slope)
    # Medians: a kink beside some of the places, or within some of the steps, is no rounding.
    middles = [float(xp.sort(xp.abs(s.fourth))[s.fourth.shape[0] // 2]) for s in looked[-3:]]
    measured = statistics.median_low(middles) / _FOURTH
    return _Rounds(looked, [_DEVIATIONS * max(s.size, measured) / s.step for s in looked])


def _is_clear(found: _Rounds, analytic: Host, scale: Host, tolerance: float) -> bool:
    """Say whether every place is right beyond doubt, by the last round."""
    xp = array_namespace(analytic)
    difference = xp.abs(analytic - found.slopes[-1].slope)
    return bool(xp.all(agrees(difference, found.bar(-1), scale, tolerance)))


def _agree(found: _Rounds, confirmed: Host) -> bool:
    xp = array_namespace(confirmed)
    return bool(xp.all(xp.abs(confirmed - found.slopes[-1].slope) <= found.bar(-1)))


def _decide(
    found: _Rounds, i: int, analytic: float, scale: float, tolerance: float
) -> tuple[str, int]:
    """Return the outcome of one place, and the round that is believed."""
    bars = [float(found.bar(k)[i]) for k in range(len(found.slopes))]
    slopes = [float(s.slope[i]) for s in found.slopes]
    k = min(_believed(slopes, bars), key=lambda k: bars[k])
    difference, slack = abs(analytic - slopes[k]), max(tolerance * scale, bars[k])
    if difference <= slack and bars[k] <= max(COARSEST, tolerance) * scale:
        return RIGHT, k
    sides = _kink(found, i)
    if sides is not None:
        inside = min(sides) - slack <= analytic <= max(sides) + slack
        return (KINK if inside else WRONG), k
    # A bar that is not a number compares false: neither right nor wrong.
    return (WRONG if difference > slack else INCONCLUSIVE), k


def _believed(slopes: list[float], bars: list[float]) -> list[int]:
    """Return the rounds that no smaller step contradicts, as it would beyond a kink."""
    return [
        k
        for k in range(len(slopes))
        if not any(
            abs(slopes[k] - slopes[f]) > 2.0 * (bars[k] + bars[f])
            for f in range(k + 1, len(slopes))
        )
    ]


def _kink(found: _Rounds, i: int) -> tuple[float, float] | None:
    """Return the slopes on either side where they lie apart and do not close, else None.

    On a smooth curve they close as the step shrinks.
    """
    sides = [(float(s.left[i]), float(s.right[i])) for s in found.slopes]
    gaps = [abs(left - right) for left, right in sides]
    # What is told apart must stand out from the rounding of both slopes.
    sharp = [k for k, gap in enumerate(gaps) if gap > 2.0 * float(found.rounding[k][i])]
    if len(sharp) < 2 or gaps[sharp[-1]] <= 0.5 * gaps[sharp[0]]:
        return None
    return sides[sharp[-1]]
