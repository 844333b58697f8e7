"""Differences at a ladder of steps, extrapolated to step 0, with error bars; kinks and cusps.

Tables ``(S, K, M)`` hold one row per step, each step a quarter of the previous one. Differences are
extrapolated (Ridders 1982; Richardson). The error bar of a step has three parts: the change by
the extrapolation; the unexplained even part of the function, as from a kink or a narrow feature;
and the noise of the value, which all shorter steps show (after More and Wild, "Estimating
computational noise", 2011). The derivative with the smallest bar is used.
"""

import numpy as np

from backprop_xp.gradient_check.engine.lines import NumericDerivative

# A bar is an estimated error, times this.
SAFETY = 2.0
# A change that is this many times the noise of all shorter steps is not noise.
_ONSET = 8.0
# A step needs this many shorter ones to be judged.
_SHORTER = 3
# At a kink the gap between the slopes stays the same over so many steps, to within a tenth, and is
# this many rounding errors large. A bar of a quarter of the gap shows that there is no kink.
_KINK_STEPS, _KINK_CHANGE, _KINK_NOISE, _NO_KINK = 4, 0.1, 20.0, 0.25
# At a cusp the gap grows by less than this from step to step. At a jump it grows fourfold.
_JUMP = 3.0


def extrapolate(
    h: np.ndarray,
    odd: np.ndarray,
    even: np.ndarray | None,
    least: np.ndarray,
    uneven: np.ndarray | float = 0.0,
) -> NumericDerivative:
    """Return the extrapolated differences with the smallest bars, from steps ``h (S, K, 1)``.

    ``odd`` is ``f(x + h) - f(x - h)`` and ``even`` the sum of the two differences from f(x). If
    even is None, odd is a one-sided difference. ``least`` is the least noise of a value, and
    ``uneven`` the difference between the lengths of the steps to either side.
    """
    ratio = 4.0 if even is None else 16.0
    tables = [odd / (h if even is None else 2.0 * h)]
    for m in range(1, 4):
        tables.append(tables[-1] + (tables[-1] - longer(tables[-1])) / (ratio**m - 1.0))
    half = 0.0 * tables[0] if even is None else (even + uneven * tables[0]) / 2.0
    unexplained = half if even is None else np.abs(half - longer(half) / 16.0)
    seen = np.fmax(unexplained, h * np.abs(tables[1] - longer(tables[1])))
    shorter = np.concatenate([seen[1:], np.full_like(seen[:1], np.nan)])
    noise = np.fmax(over_shorter(np.fmax, shorter), least)
    # A change that shows at one step but not at shorter ones is not noise: the slope may be as
    # steep there.
    moves = np.isfinite(shorter) & (np.roll(odd, -1, axis=0) != 0.0)
    several = over_shorter(np.add, moves.astype(int)) >= _SHORTER
    steep = np.where(several & (seen > _ONSET * noise), seen / h, 0.0)
    steep = over_shorter(np.fmax, np.concatenate([steep[1:], 0.0 * steep[:1]]))
    is_known = over_shorter(np.add, np.isfinite(shorter).astype(int)) >= _SHORTER
    bars = []
    for last, before in zip(tables[1:], tables[:-1], strict=True):
        change = np.maximum(np.abs(last - before), np.abs(last - longer(before)))
        bar = SAFETY * (change + (unexplained + noise) / h + steep)
        bars.append(np.where(is_known & np.isfinite(bar), bar, np.inf))
    value, bar = smallest(np.stack(bars), np.stack(tables[1:]), np.stack(bars))
    value, bar, step = smallest(bar, value, bar, h)
    value = np.where(np.isfinite(bar), value, 0.0)
    return NumericDerivative(value, bar, value, value, step)


def with_kinks(
    found: NumericDerivative, right: np.ndarray, left: np.ndarray, least: np.ndarray, h: np.ndarray
) -> NumericDerivative:
    """Return derivatives with their one-sided slopes where those ``(S, K, M)`` stay apart."""
    gap = right - left
    clear = np.abs(gap) > _KINK_NOISE * least / h
    # At a cusp the gap grows, but does not jump, down to the shortest step at which it is clear.
    ratio = gap / longer(gap)
    grows = clear & (ratio > 1.0 + _KINK_CHANGE) & (ratio < _JUMP)
    stays, is_cusp = clear.copy(), grows & over_shorter(np.logical_and, grows | ~clear)
    for back in range(1, _KINK_STEPS):
        change = np.abs(gap[:-back] - gap[back:])
        stays[back:] &= change <= _KINK_CHANGE * np.abs(gap[back:])
        is_cusp[back:] &= grows[:-back]
        stays[:back] = is_cusp[:back] = False
    moves = np.abs(right - longer(right)) + np.abs(left - longer(left)) + least / h
    bars = np.where(stays & np.isfinite(moves), SAFETY * moves, np.inf)
    for slopes in (right, left):
        bars = _reaching(slopes, bars, SAFETY * least / h)
    nearest = np.min(np.where(stays, h, np.inf), axis=0)
    bar, right, left = smallest(bars, bars, right, left)
    is_kinked = np.isfinite(bar) & (found.bar > _NO_KINK * np.abs(right - left))
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
