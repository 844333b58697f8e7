"""Numeric derivatives with error bars: complex step, quick and sharp differences, and ladder."""

import numpy as np

from backprop_xp.gradient_check import extrapolation
from backprop_xp.gradient_check.extrapolation import SAFETY
from backprop_xp.gradient_check.functions import BFLOAT, HALF, SINGLE
from backprop_xp.gradient_check.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.points import DOUBLE
from backprop_xp.gradient_check.rounding import NEAR, rounding_bar
from backprop_xp.gradient_check.stencils import differences, unit_of

# The complex step: its square vanishes beside 1, and no result underflows.
IMAGINARY = {DOUBLE: 2.0**-66, SINGLE: 2.0**-40, HALF: 2.0**-40, BFLOAT: 2.0**-40}
# The real part at a complex point may differ from the value this much: terms that cancel round it.
_SAME_REAL_PART = 1e-2
# The longer step of a quick difference for smooth functions, and the step that best refutes a
# derivative of 0.
QUICK, LONG = {DOUBLE: 2.0**-7, SINGLE: 2.0**-3, HALF: 2.0**-1, BFLOAT: 2.0**-1}, 0.5
# A value that is constant around the point differs at one of these distances, most likely.
_FAR = 1.37 * 2.0 ** np.asarray([0.0, 8.0, 16.0, 24.0])
# A value that first changes by this many rounding errors may be rounded to few digits. Steps that
# are a little longer show that, and a bisection for the first change.
_COARSE, _LITTLE, _BISECTIONS = 1e3, 2.0**-12, 24
# A derivative by shorter steps than this refutes others if it is so many times as steep.
_SHORT, _STEEP = 2.0**-9, 4.0
# A bar that is too small is so by less than this factor.
_NEAR_MISS = 4.0
# A bar of this part of the derivative needs no ladder.
SHARP = 1e-2


def complex_step(lines: Lines) -> NumericDerivative | None:
    """Return ``imag f(x + i h) / h``, exact to rounding (Squire and Trapp 1998).

    Returns None unless the values are complex and finite, with the real part f(x), and where the
    check has rejected the complex step of the function. The bar is 0: the analytic gradient's bar
    counts the same rounding.
    """
    function, step = lines.function, IMAGINARY[lines.function.epsilon]
    if function.is_analytic is False:
        return None
    values = lines.probe(1j * step * lines.scale[None, :])[0][0]
    is_same = np.allclose(values.real, function.fx, rtol=_SAME_REAL_PART, atol=0.0)
    if values.dtype.kind != "c" or not is_same or not np.all(np.isfinite(values)):
        return None
    value = values.imag / (step * lines.scale[:, None])
    bar = np.zeros_like(value)
    return NumericDerivative(value, bar, value, value, np.full_like(value, step))


def complex_rounding(lines: Lines, step: float) -> np.ndarray:
    """Return bars ``(K, M)`` for the rounding of the complex step."""
    h = IMAGINARY[lines.function.epsilon] * lines.scale
    near = step * NEAR[:, None] * lines.scale
    if lines.direction is None:
        near = near * lines.function.inwards(np.ones(lines.function.x.size))[lines.columns]
    return rounding_bar(lines.probe(near + 1j * h)[0].imag / h[:, None])[0]


@np.errstate(all="ignore")
def sharp_difference(lines: Lines, enough: float = np.inf) -> NumericDerivative:
    """Return differences of eight values along each line, and the ladder's where those are poor.

    The ladder knows narrow features, and values that do not change. It also serves where a bar is
    not ``enough``, as a part of the derivative, and finds kinks.
    """
    found, is_poor, steepest = differences(lines)
    is_wide = found.bar > enough * np.maximum(np.abs(found.value), lines.norm)
    some = np.flatnonzero((is_poor | is_wide).any(axis=1))
    if some.size:
        one, other = found.select(some), ladder(lines.select(some))
        sharp = SHARP * np.maximum(np.abs(other.value), lines.norm)
        sharp = np.where(other.value == 0.0, np.inf, sharp)  # flat, as below a relu's kink
        is_better = is_poor[some] | (other.bar < np.fmin(one.bar, sharp))
        # Over short steps a term that is rounded coarsely is constant, so they refute nothing that
        # longer steps allow. A narrow feature is steep.
        is_steep = np.abs(other.value) > _STEEP * steepest[some]
        analytic = lines.select(some).analytic.value
        agrees = np.abs(other.value - analytic) <= other.bar + SHARP * np.abs(analytic)
        is_better &= is_steep | (other.step >= _SHORT) | agrees
        replaced = (is_poor | is_wide)[some] & (other.is_kinked | is_better)
        # Kinks between equal steps make a bar a little too small, and a wave much: both must hold.
        gap = np.abs(other.value - one.value) + np.fmin(one.bar, other.bar)
        counts = is_wide[some] & (
            (gap < _NEAR_MISS * one.bar) | (other.bar < sharp) & (other.value != 0.0)
        )
        one = one._replace(bar=np.where(counts, np.fmax(one.bar, gap), one.bar))
        found = found.with_lines(some, one.where(replaced, other))
    return found


def quick_difference(lines: Lines, is_long: np.ndarray | bool = False) -> NumericDerivative:
    """Return extrapolated central differences of a step and a quarter of it.

    The step serves smooth functions. It is half of the scale where ``is_long (K,)``.
    """
    step = np.where(is_long, LONG, QUICK[lines.function.epsilon]) + 0.0 * lines.scale
    h, fx = lines.scale * step, lines.function.fx
    values, steps, correction = lines.probe(np.stack([h, -h, h / 4.0, -h / 4.0]))
    change = values - fx - correction
    with np.errstate(all="ignore"):
        wide, narrow = steps[0] - steps[1], steps[2] - steps[3]
        slope_1, slope_2 = (change[0] - change[1]) / wide, (change[2] - change[3]) / narrow
        even_1, even_2 = (change[0] + change[1]) / 2.0, (change[2] + change[3]) / 2.0
        value = (16.0 * slope_2 - slope_1) / 15.0
        largest = np.maximum(np.abs(values).max(axis=0), np.abs(fx))
        # Along a line without effect, nothing is rounded.
        is_moved = np.any(values != fx, axis=0) | (lines.analytic.value != 0.0)
        rounding = lines.function.epsilon * largest * is_moved
        unexplained = np.abs(even_2 - even_1 / 16.0) + rounding
        bar = SAFETY * (np.abs(value - slope_2) + unexplained / (narrow / 2.0))
    is_finite = np.isfinite(bar)
    value, bar = np.where(is_finite, value, 0.0), np.where(is_finite, bar, np.inf)
    return NumericDerivative(value, bar, value, value, np.broadcast_to(step[:, None], value.shape))


@np.errstate(all="ignore")
def ladder(lines: Lines) -> NumericDerivative:
    """Return derivatives from a ladder of steps, from half the scale down to the rounding error."""
    function, fx, rungs = lines.function, lines.function.fx, lines.rungs
    h = lines.scale * 0.5 * 4.0 ** -np.arange(rungs)[:, None]
    values, steps, correction = lines.probe(np.concatenate([h, -h]))
    change = (values - fx - correction) * np.any(values != fx, axis=0)
    right, left, up, down = change[:rungs], change[rungs:], steps[:rungs], -steps[rungs:]
    # Terms may cancel at the point: they are as large as the values are further away.
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    largest = np.fmax(sizes.max(axis=0), np.abs(fx))
    noise = np.fmax(function.epsilon * largest, _quantum(lines, values, steps[:, :, 0]))
    # The rounding error of terms that cancel is that of the entry, times the slope.
    x = function.x[lines.columns] if lines.columns.size else np.zeros(1)
    slope = np.abs((right - left) / (up + down))
    noise = np.fmax(noise, function.epsilon * np.abs(x)[:, None] * slope)
    h, uneven = (up + down) / 2.0, down - up
    found = extrapolation.extrapolate(h, right - left, right + left, noise, uneven)
    for h, one in ((up, right), (down, -left)):  # one side may be outside of the domain
        sided = extrapolation.extrapolate(h, one, None, noise)
        found = found.where(~np.isfinite(found.bar), sided)
    found = extrapolation.with_kinks(found, right / up, left / -down, noise, up)
    is_constant = np.all((values == fx) | ~np.isfinite(values), axis=0) & np.isfinite(found.bar)
    constant = np.flatnonzero(np.any(is_constant, axis=-1))
    if constant.size:
        # The rounding of a value that is constant at every step shows only far away.
        some = lines.select(constant)
        far = some.probe(_FAR[:, None] * some.scale)[0]
        unit = np.stack([np.where(one != fx, unit_of(one[None]), np.inf) for one in far]).min(
            axis=0
        )
        bar = np.where(is_constant[constant] & np.isfinite(unit), unit, 0.0) / some.scale[:, None]
        found.bar[constant] = np.fmax(found.bar[constant], bar)
    return found._replace(step=found.step / lines.scale[:, None])


def _quantum(lines: Lines, values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the least change of the value ``(K, M)`` where the shortest steps show none.

    ``values (S, K, M)`` are those at ``steps (S, K)``. Neither a value that is rounded to few
    digits nor one that is flat up to a kink changes over a short step. Beyond a kink, a slightly
    longer step changes the value slightly.
    """
    fx, change = lines.function.fx, np.abs(values - lines.function.fx)
    change = np.where(change > 0.0, change, np.inf)
    least = np.where(np.any(values == fx, axis=0), change.min(axis=0), 0.0)
    is_coarse = np.isfinite(least) & (least > _COARSE * lines.function.epsilon * np.abs(fx))
    coarse = np.flatnonzero(np.any(is_coarse, axis=1))
    if coarse.size:
        beside = lines.select(coarse).probe((1.0 + _LITTLE) * steps[:, coarse])[0]
        gaps = np.abs(beside - values[:, coarse])
        gaps = np.where(gaps > 0.0, gaps, np.inf).min(axis=0)
        least[coarse] = np.fmin(
            least[coarse], np.fmin(gaps, _first_change(lines, change, steps, coarse))
        )
    # A line along which the value never changes has the rounding of the other lines.
    known = np.max(least, axis=0, initial=0.0, where=np.isfinite(least))
    return np.where(np.isfinite(least), least, known)


def _first_change(
    lines: Lines, change: np.ndarray, steps: np.ndarray, some: np.ndarray
) -> np.ndarray:
    """Return the change ``(K, M)`` just where it begins, by bisecting some lines' steps."""
    some_lines, fx = lines.select(some), lines.function.fx
    is_moved = np.isfinite(change[:, some]).any(axis=2)
    (above,) = extrapolation.smallest(
        np.where(is_moved, np.abs(steps[:, some]), np.inf), steps[:, some]
    )
    below, found = 0.0 * above, np.full_like(change[0, some], np.inf)
    for _ in range(_BISECTIONS):
        middle = (above + below) / 2.0
        here = np.abs(some_lines.probe(middle[None, :])[0][0] - fx)
        found = np.fmin(found, np.where(here > 0.0, here, np.inf))
        moved = (here > 0.0).any(axis=1)
        above, below = np.where(moved, (middle, below), (above, middle))
    return np.asarray(found)
