"""Differences at a ladder of steps, extrapolated to step 0, with error bars; kinks and cusps.

Tables ``(S, K, M)`` hold one row per step, each step a quarter of the previous one. Differences are
extrapolated (Ridders 1982; Richardson). The error bar of a step has three parts: the change by
the extrapolation; the unexplained even part of the function, as from a kink or a narrow feature;
and the noise of the value, which all shorter steps show (after More and Wild, "Estimating
computational noise", 2011). The derivative with the smallest bar is used.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from backprop_xp.gradient_check.engine.constants import (
    BEHIND,
    CUSP,
    KINK_CHANGE,
    KINK_NOISE,
    KINK_STEPS,
    NO_KINK,
    ONSET,
    SAFETY,
)
from backprop_xp.gradient_check.engine.lines import NumericDerivative
from backprop_xp.gradient_check.engine.noise import unexplained_at

# Changes of the value on one side of the point, and the steps.
Side: TypeAlias = tuple[np.ndarray, np.ndarray]


def extrapolate(sides: Sequence[Side], least: np.ndarray) -> NumericDerivative:
    """Return the extrapolated differences with the smallest bars, over one or both sides.

    A side is the changes ``(S, K, M)`` from the value at the point, and the steps ``(S, K, 1)``.
    ``least`` is the least noise of a value.
    """
    (ahead, up), (behind, down) = sides[0], sides[-1] if len(sides) > 1 else (0.0, 0.0)
    odd, h = ahead - behind, np.abs(up - down) / len(sides)
    tables = [odd / (up - down)]
    for m in range(1, 4):
        ratio = 4.0 ** (len(sides) * m)
        tables.append(tables[-1] + (tables[-1] - longer(tables[-1])) / (ratio - 1.0))
    even, seen = _unexplained(sides)
    shorter = np.concatenate([seen[1:], np.full_like(seen[:1], np.nan)])
    noise = np.fmax(over_shorter(np.fmax, shorter), least)
    # A change that shows at one step but not at shorter ones is not noise: the slope may be as
    # steep there.
    moves = np.isfinite(shorter) & (np.roll(odd, -1, axis=0) != 0.0)
    several = over_shorter(np.add, moves.astype(int)) >= BEHIND
    steep = np.where(several & (seen > ONSET * noise), seen / h, 0.0)
    steep = over_shorter(np.fmax, np.concatenate([steep[1:], 0.0 * steep[:1]]))
    is_known = over_shorter(np.add, np.isfinite(shorter).astype(int)) >= BEHIND
    bars = []
    for last, before in zip(tables[1:], tables[:-1], strict=True):
        change = np.maximum(np.abs(last - before), np.abs(last - longer(before)))
        bar = SAFETY * (change + (even + noise) / h + steep)
        bars.append(np.where(is_known & np.isfinite(bar), bar, np.inf))
    value, bar = smallest(np.stack(bars), np.stack(tables[1:]), np.stack(bars))
    value, bar, step = smallest(bar, value, bar, h)
    value = np.where(np.isfinite(bar), value, 0.0)
    return NumericDerivative(value, bar, value, value, step)


def _unexplained(sides: Sequence[Side]) -> tuple[np.ndarray, np.ndarray]:
    """Return what no polynomial explains: of the even part of two rungs, and of all parts.

    A rung is the values on all sides at one step. Even differences are 0 for an odd function, and
    odd ones for an even function, so that both are taken. A single side has no even part.
    """
    point = 0.0 * sides[0][0], 0.0 * sides[0][1]
    two = [*sides, *((longer(change), longer(step)) for change, step in sides)]
    three = [*two, *((longer(change), longer(step)) for change, step in two[len(sides) :])]
    if len(sides) == 1:
        return point[0], unexplained_at(*zip(point, *three, strict=True))
    even = unexplained_at(*zip(point, *two, strict=True))
    return even, np.fmax(even, unexplained_at(*zip(*three, strict=True)))


def with_kinks(
    found: NumericDerivative, right: np.ndarray, left: np.ndarray, least: np.ndarray, h: np.ndarray
) -> NumericDerivative:
    """Return derivatives with their one-sided slopes where those ``(S, K, M)`` stay apart."""
    gap = right - left
    clear = np.abs(gap) > KINK_NOISE * least / h
    # At a cusp the gap grows, but does not jump, down to the shortest step at which it is clear.
    ratio = gap / longer(gap)
    grows = clear & (ratio > 1.0 + KINK_CHANGE) & (ratio < CUSP)
    stays, is_cusp = clear.copy(), grows & over_shorter(np.logical_and, grows | ~clear)
    for back in range(1, KINK_STEPS):
        change = np.abs(gap[:-back] - gap[back:])
        stays[back:] &= change <= KINK_CHANGE * np.abs(gap[back:])
        is_cusp[back:] &= grows[:-back]
        stays[:back] = is_cusp[:back] = False
    moves = np.abs(right - longer(right)) + np.abs(left - longer(left)) + least / h
    bars = np.where(stays & np.isfinite(moves), SAFETY * moves, np.inf)
    for slopes in (right, left):
        bars = _reaching(slopes, bars, SAFETY * least / h)
    nearest = np.min(np.where(stays, h, np.inf), axis=0)
    bar, right, left = smallest(bars, bars, right, left)
    # A smooth curve over longer steps skips a kink that shorter ones show.
    is_smooth = (found.bar <= NO_KINK * np.abs(right - left)) & (found.step <= nearest)
    is_kinked = np.isfinite(bar) & ~is_smooth
    kinked = NumericDerivative((left + right) / 2.0, bar, left, right, nearest)
    found, slope = found.where(is_kinked, kinked), np.copysign(np.inf, gap[-1])
    cusp = NumericDerivative(found.value, np.abs(slope), -slope, slope, found.step)
    return found.where(np.any(is_cusp, axis=0), cusp)


def _reaching(slopes: np.ndarray, bars: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return bars that reach the slopes at shorter steps, to within the noise of these."""
    low, high = slopes - noise, slopes + noise
    reached = bars.copy()
    for s in range(len(slopes) - 1):
        gaps = np.fmax(low[s + 1 :] - slopes[s], slopes[s] - high[s + 1 :])
        reached[s] = np.fmax(bars[s], np.fmax.reduce(gaps))
    return reached


def smallest(bars: np.ndarray, *tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the rows of the tables at which the bars are smallest along the first axis."""
    best, shape = np.argmin(bars, axis=0)[None], bars.shape
    return tuple(np.take_along_axis(np.broadcast_to(t, shape), best, 0)[0] for t in tables)


def longer(table: np.ndarray) -> np.ndarray:
    """Return the rows of the next longer steps, NaN for the longest."""
    return np.concatenate([np.full_like(table[:1], np.nan), table[:-1]])


def over_shorter(ufunc: np.ufunc, table: np.ndarray) -> np.ndarray:
    """Accumulate each row over its own step and all shorter ones."""
    return np.asarray(ufunc.accumulate(table[::-1])[::-1])
