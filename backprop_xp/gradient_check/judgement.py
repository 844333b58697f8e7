"""What real differences say of analytic derivatives: right, wrong, a kink, or too rough to tell.

Each place, an entry of the point or a direction, is looked at with ever smaller steps. A step is
believed if no smaller one contradicts it, so that a kink nearby deceives none of them.
"""

import itertools
import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.engines import Slopes
from backprop_xp.gradient_check.functions import Function, Host

# A mistake of a tenth of a percent must show: a coarser derivative proves nothing.
COARSEST = 2.5e-4

RIGHT, KINK, INCONCLUSIVE, WRONG = "right", "kink", "inconclusive", "wrong"

_SHRINK = 8.0
# How many standard deviations of rounding a difference may be off.
_DEVIATIONS = 8.0
# By how much the rounding of a fourth difference is larger than that of a value.
_FOURTH = 70.0**0.5
# A quarter of normally distributed numbers are smaller than this many standard deviations.
_QUARTER = 0.32
_FAR_LESS = 0.01


class Judgement(NamedTuple):
    """For each place its outcome, the derivative that was believed, and its error bar."""

    outcomes: list[str]
    slope: Host
    bar: Host


class Depth(NamedTuple):
    """How many steps may be tried, and how many of them are longer than the point's rounding."""

    most: int
    sure: int


ONE_STEP = Depth(1, 1)


class _Rounds(NamedTuple):
    """Slopes at ever smaller steps; ``rounding`` is what rounding may add to each, ``(K,)``."""

    slopes: list[Slopes]
    rounding: list[Host]

    def bar(self, k: int) -> Host:
        return self.rounding[k] + self.slopes[k].spread

    def first(self, count: int) -> "_Rounds":
        return _Rounds(self.slopes[:count], self.rounding[:count])


def judge(
    probe: Callable[[float], Slopes],
    analytic: Host,
    scale: Host,
    tolerance: float,
    step: float,
    *,
    depth: Depth,
    confirmed: Host | None = None,
) -> Judgement:
    """Judge ``analytic`` derivatives ``(K,)`` by the slopes that ``probe`` returns for a step.

    A difference of ``tolerance * scale`` is nothing. No smaller steps are taken if all of them are
    right, or as another method's derivatives ``confirmed``.
    """
    looked = [probe(step)]
    found = _with_rounding(looked)
    while len(looked) < depth.most and not _is_clear(found, analytic, scale, tolerance):
        if confirmed is not None and _agree(found, confirmed, scale, tolerance):
            break
        looked.append(probe(step * _SHRINK ** -len(looked)))
        found = _with_rounding(looked)
    outcomes, slope, bar = [], [], []
    for i in range(analytic.shape[0]):
        place = (i, float(analytic[i]), float(scale[i]), tolerance)
        outcome, k = _decide(found, *place)
        if outcome == WRONG and _decide(found.first(depth.sure), *place)[0] == KINK:
            outcome = KINK  # which side of it the point is on, its rounding decides
        outcomes.append(outcome)
        slope.append(float(found.slopes[k].slope[i]))
        bar.append(float(found.bar(k)[i]))
    xp = array_namespace(analytic)
    return Judgement(outcomes, xp.asarray(slope), xp.asarray(bar))


def full_depth(function: Function) -> Depth:
    """Return the depth for a function: the last step is some roundings of float64 long."""
    return Depth(5, 3 if function.is_raised else 5)


def error_bar(slopes: Slopes) -> Host:
    """Return by how much slopes at a single step may be off, ``(K,)``."""
    return _with_rounding([slopes]).bar(0)


def agrees(difference: Host, bar: Host, scale: Host, tolerance: float) -> Host:
    """Say where a difference is within the tolerance and the derivative is sharp enough to tell."""
    return (difference <= tolerance * scale) & is_sharp(bar, scale, tolerance)


def is_sharp(bar: Host, scale: Host, tolerance: float) -> Host:
    """Say where an error bar is small enough for a mistake to stand out."""
    return bar <= max(COARSEST, tolerance) * scale


def seems_kinked(slopes: Slopes) -> bool:
    """Say whether the slopes on either side of a place lie apart as they do at a kink.

    On a smooth curve they lie twice as far apart over twice the step.
    """
    gap, wide = abs(slopes.right - slopes.left), slopes.wide_gap
    least = 4.0 * _DEVIATIONS * slopes.size / slopes.step
    return bool(array_namespace(gap).any((gap > least) & (1.7 * gap > wide)))


def _with_rounding(looked: list[Slopes]) -> _Rounds:
    pairs = itertools.pairwise(looked) if len(looked) > 1 else [(looked[0], None)]
    common = statistics.median_low([_noise(*pair) for pair in list(pairs)[-3:]])
    own = [_noise(slopes, None) for slopes in looked]
    # Rounds to the end with far less than the others: those looked across a kink, and these do not.
    clean = len(own)
    while clean and own[clean - 1] < _FAR_LESS * common:
        clean -= 1
    if len(own) - clean < 2:
        clean = len(own)
    noise = [common] * clean + own[clean:]
    grain = _grain(looked)
    rounding = [
        _DEVIATIONS * array_namespace(grain).maximum(grain, 0.0 * grain + max(s.size, n)) / s.step
        for s, n in zip(looked, noise, strict=True)
    ]
    return _Rounds(looked, rounding)


def _grain(looked: list[Slopes]) -> Host:
    """Return the least change that a value shows, ``(K,)``: more than it would make of a step.

    It is seen where a longer step moves the value to either side, and a shorter one to neither.
    """
    xp = array_namespace(looked[0].slope)
    grain = xp.zeros_like(looked[0].slope)
    for longer, shorter in itertools.combinations(looked, 2):
        moves = (longer.left != 0.0) & (longer.right != 0.0)
        rests = (shorter.left == 0.0) & (shorter.right == 0.0) & (shorter.slope == 0.0)
        change = 2.0 * xp.abs(longer.slope) * shorter.step
        grain = xp.maximum(grain, xp.where(moves & rests, change, xp.zeros_like(change)))
    return grain


def _noise(longer: Slopes, shorter: Slopes | None) -> float:
    """Return the standard deviation of a value's rounding, as fourth differences show it.

    At a kink they are proportional to the step, which those at a shorter one take out.
    """
    fourth = longer.fourth
    if shorter is not None:
        fourth = (_SHRINK * shorter.fourth - fourth) / (_SHRINK + 1.0)
    xp, count = array_namespace(fourth), fourth.shape[0]
    # A low quantile: most of the places may lie at a kink.
    quarter = float(xp.sort(xp.abs(fourth))[count // 4])
    return quarter / (_FOURTH * (_QUARTER if count > 7 else 1.0))


def _is_clear(found: _Rounds, analytic: Host, scale: Host, tolerance: float) -> bool:
    """Say whether every place is right beyond doubt, by the last round."""
    xp = array_namespace(analytic)
    difference = xp.abs(analytic - found.slopes[-1].slope)
    return bool(xp.all(agrees(difference, found.bar(-1), scale, tolerance)))


def _agree(found: _Rounds, confirmed: Host, scale: Host, tolerance: float) -> bool:
    xp = array_namespace(confirmed)
    bar = found.bar(-1)
    same = xp.abs(confirmed - found.slopes[-1].slope) <= bar
    return bool(xp.all(same & is_sharp(bar, scale, tolerance)))


def _decide(
    found: _Rounds, i: int, analytic: float, scale: float, tolerance: float
) -> tuple[str, int]:
    """Return the outcome of one place, and the round that is believed."""
    bars = [float(found.bar(k)[i]) for k in range(len(found.slopes))]
    slopes = [float(s.slope[i]) for s in found.slopes]
    # A bar that is not a number is the last to be believed.
    k = min(_believed(found, i), key=lambda k: bars[k] if bars[k] == bars[k] else math.inf)
    difference, slack = abs(analytic - slopes[k]), max(tolerance * scale, bars[k])
    if difference <= slack and is_sharp(bars[k], scale, tolerance):
        return RIGHT, k
    sides = _kink(found, i)
    if sides is not None:
        inside = sides[0] - slack <= analytic <= sides[1] + slack
        return (KINK if inside else WRONG), k
    # A bar that is not a number compares false: neither right nor wrong.
    return (WRONG if difference > slack else INCONCLUSIVE), k


def _believed(found: _Rounds, i: int) -> list[int]:
    """Return the rounds that no smaller step contradicts, as it would beyond a kink."""
    slopes = [float(s.slope[i]) for s in found.slopes]
    bars = [float(found.bar(k)[i]) for k in range(len(slopes))]
    rounding = [float(part[i]) for part in found.rounding]
    # Of a smaller step the rounding alone: if its own bar is larger, neither resolves the function.
    return [
        k
        for k in range(len(slopes))
        if not any(
            abs(slopes[k] - slopes[f]) > bars[k] + rounding[f] for f in range(k + 1, len(slopes))
        )
    ]


def _kink(found: _Rounds, i: int) -> tuple[float, float] | None:
    """Return the range of the slopes on either side if they lie apart and do not close, else None.

    On a smooth curve they close as the step shrinks. The range is that of two steps, and wider by
    as much as the slopes move between them: by curvature, or since the kink is not quite there.
    """
    sides = [(float(s.left[i]), float(s.right[i])) for s in found.slopes]
    gaps = [right - left for left, right in sides]
    # What is told apart must stand out from the rounding of both slopes.
    sharp = [k for k, gap in enumerate(gaps) if abs(gap) > 2.0 * float(found.rounding[k][i])]
    if len(sharp) < 2 or sharp[-1] != sharp[-2] + 1:
        return None
    before, last = sharp[-2:]
    # At a step of 0, if they move in proportion to it.
    if abs(_at_0(gaps[before], gaps[last])) <= 0.5 * abs(gaps[last]):
        return None
    ends = [*sides[before], *sides[last]]
    moved = max(abs(a - b) for a, b in zip(sides[before], sides[last], strict=True))
    return min(ends) - moved, max(ends) + moved


def _at_0(longer: float, shorter: float) -> float:
    """Return what a number that is linear in the step is at 0, from its values at two steps."""
    return (_SHRINK * shorter - longer) / (_SHRINK - 1.0)
