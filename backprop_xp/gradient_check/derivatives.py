"""Numeric derivatives with error bars: complex step, quick difference, and ladder of steps."""

import numpy as np

from backprop_xp.gradient_check import extrapolation
from backprop_xp.gradient_check.extrapolation import SAFETY
from backprop_xp.gradient_check.functions import BFLOAT, HALF, SINGLE
from backprop_xp.gradient_check.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.points import DOUBLE

# The complex step: its square vanishes beside 1, and no result underflows.
IMAGINARY = {DOUBLE: 2.0**-66, SINGLE: 2.0**-40, HALF: 2.0**-40, BFLOAT: 2.0**-40}
# The real part at a complex point may differ from the value this much: terms that cancel round it.
_SAME_REAL_PART = 1e-2
# The longer step of a quick difference for smooth functions, and the step that best refutes a
# derivative of 0.
_QUICK, LONG = {DOUBLE: 2.0**-7, SINGLE: 2.0**-3, HALF: 2.0**-1, BFLOAT: 2.0**-1}, 0.5
# A value that first changes by this many rounding errors may be rounded to few digits. Bisections
# find that out, for this many results of a line, and steps that are a little longer.
_COARSE, _BISECTIONS, _BISECTED_RESULTS, _LITTLE = 1e3, 48, 4, 2.0**-12
# A value that is constant around the point differs at this many scales' distance, most likely.
_FAR = 2.0**24


def complex_step(lines: Lines, part: float = 1.0) -> NumericDerivative | None:
    """Return ``imag f(x + i h) / h``, exact to rounding (Squire and Trapp 1998).

    Returns None unless the values are complex and finite, with the real part f(x). The step is a
    ``part`` of the usual one. The bar is 0: the analytic gradient's bar counts the same rounding.
    """
    function, step = lines.function, part * IMAGINARY[lines.function.epsilon]
    values = lines.probe(1j * step * lines.scale[None, :])[0][0]
    is_same = np.allclose(values.real, function.fx, rtol=_SAME_REAL_PART, atol=0.0)
    if values.dtype.kind != "c" or not is_same or not np.all(np.isfinite(values)):
        return None
    value = values.imag / (step * lines.scale[:, None])
    return NumericDerivative(value, 0.0 * value, value, value, np.full_like(value, step))


def quick_difference(lines: Lines, is_long: np.ndarray | bool = False) -> NumericDerivative:
    """Return extrapolated central differences of a step and a quarter of it.

    The step serves smooth functions. It is half of the scale where ``is_long (K,)``.
    """
    step = np.where(is_long, LONG, _QUICK[lines.function.epsilon]) + 0.0 * lines.scale
    h, fx = lines.scale * step, lines.function.fx
    values, steps, correction = lines.probe(np.stack([h, -h, h / 4.0, -h / 4.0]))
    change = values - fx - correction
    with np.errstate(all="ignore"):
        wide, narrow = steps[0] - steps[1], steps[2] - steps[3]
        slope_1, slope_2 = (change[0] - change[1]) / wide, (change[2] - change[3]) / narrow
        even_1, even_2 = (change[0] + change[1]) / 2.0, (change[2] + change[3]) / 2.0
        value = (16.0 * slope_2 - slope_1) / 15.0
        largest = np.maximum(np.abs(values).max(axis=0), np.abs(fx))
        # A constant value shows no rounding.
        rounding = lines.function.epsilon * largest * np.any(values != fx, axis=0)
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
    # The largest value at this or a shorter step: values far away round nothing here.
    largest = np.fmax(np.abs(values[:rungs]), np.abs(values[rungs:]))
    largest = np.fmax(extrapolation.over_shorter(np.fmax, largest), np.abs(fx))
    # Values that float32 holds exactly were rounded to it, most likely.
    is_single = np.all(values == values.astype(np.float32), axis=0)
    noise = np.where(is_single, SINGLE, function.epsilon) * largest
    noise = np.fmax(noise, _quantum(lines, values, steps[:, :, 0]))
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
        far = some.scale * np.asarray([[0.0], [_FAR], [-_FAR]])
        bar = _quantum(some, some.probe(far)[0], far) / some.scale[:, None]
        bar = np.where(is_constant[constant], bar, 0.0)
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
        some = lines.select(coarse)
        finer = _finer(some, values[:, coarse], steps[:, coarse], least[coarse], is_coarse[coarse])
        least[coarse] = np.where(is_coarse[coarse], finer, least[coarse])
    # A line along which the value never changes uses the rounding of the other lines.
    known = np.max(least, axis=0, initial=0.0, where=np.isfinite(least))
    return np.where(np.isfinite(least), least, known)


def _finer(
    lines: Lines, values: np.ndarray, steps: np.ndarray, least: np.ndarray, is_coarse: np.ndarray
) -> np.ndarray:
    """Return the least gaps ``(K, M)`` between values, after bisecting the coarsest results.

    Every evaluation gives all results of a line, so few need a bisection of their own.
    """
    limit = _COARSE * lines.function.epsilon * np.abs(lines.function.fx)
    each, seen, is_open = np.arange(len(least)), [values], is_coarse.copy()
    if is_open.shape[1] > 1:
        seen.append(lines.probe((1.0 + _LITTLE) * steps)[0])
    for _ in range(min(_BISECTED_RESULTS, is_open.shape[1])):
        result = np.argmax(np.where(is_open, least, 0.0), axis=1)
        seen += _bisect(lines, values[:, each, result], steps, result)
        found = np.concatenate(seen)
        gaps = np.diff(np.sort(np.where(np.isfinite(found), found, np.nan), axis=0), axis=0)
        least = np.fmin(least, np.where(gaps > 0.0, gaps, np.inf).min(axis=0))
        is_open[each, result] = False
        is_open &= least > limit
        if not is_open.any():
            break
    return least


def _bisect(
    lines: Lines, values: np.ndarray, steps: np.ndarray, result: np.ndarray
) -> list[np.ndarray]:
    """Return the values found while bisecting for the shortest step that changes a result.

    ``values (S, K)`` are those of ``result (K,)``, one for each line, at ``steps (S, K)``.
    """
    each, fx = np.arange(len(result)), lines.function.fx[result]
    change = np.abs(values - fx)
    (above,) = extrapolation.smallest(np.where(change > 0.0, np.abs(steps), np.inf), steps)
    below, seen = 0.0 * above, []
    for _ in range(_BISECTIONS):
        middle = (above + below) / 2.0
        seen.append(lines.probe(middle[None, :])[0])
        is_changed = seen[-1][0, each, result] != fx
        above, below = np.where(is_changed, (middle, below), (above, middle))
    return seen
