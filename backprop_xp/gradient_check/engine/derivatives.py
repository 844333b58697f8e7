"""Numeric derivatives with error bars: complex step, quick and sharp differences, and ladder."""

import numpy as np

from backprop_xp.gradient_check.engine.constants import (
    IMAGINARY,
    LONG,
    NEAR,
    QUICK,
    QUICK_NODES,
    SAFETY,
    SAME_REAL_PART,
    SHARP,
    SHORTER,
    UNDERFLOW,
)
from backprop_xp.gradient_check.engine.ladder import ladder
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.engine.noise import unexplained
from backprop_xp.gradient_check.engine.rounding import rounding_bar
from backprop_xp.gradient_check.engine.stencils import differences


def complex_step(lines: Lines) -> NumericDerivative | None:
    """Return ``imag f(x + i h) / h``, exact to rounding (Squire and Trapp 1998).

    Returns None unless the values are complex and finite, with the real part f(x), and where the
    check has rejected the complex step of the function. The bar contains underflow alone: the
    analytic gradient's bar counts the same rounding.
    """
    function, step = lines.function, IMAGINARY[lines.function.epsilon]
    if function.is_analytic is False:
        return None
    values = lines.probe(1j * step * lines.scale[None, :])[0][0]
    is_same = np.allclose(values.real, function.fx, rtol=SAME_REAL_PART, atol=0.0)
    if values.dtype.kind != "c" or not is_same or not np.all(np.isfinite(values)):
        return None
    value = values.imag / (step * lines.scale[:, None])
    bar = _underflow(lines) + 0.0 * value
    return NumericDerivative(value, bar, value, value, np.full_like(value, step))


def is_complex_step(lines: Lines, numeric: NumericDerivative) -> np.ndarray:
    """Whether numeric derivatives ``(K, M)`` are by the complex step."""
    return np.asarray(numeric.step == IMAGINARY[lines.function.epsilon])


def complex_rounding(lines: Lines, step: float) -> np.ndarray:
    """Return bars ``(K, M)`` for the rounding of the complex step, within a step."""
    h = IMAGINARY[lines.function.epsilon] * lines.scale
    near = SHORTER * step * NEAR[:, None] * lines.scale
    if lines.direction is None:
        near = near * lines.function.inwards(np.ones(lines.function.x.size))[lines.columns]
    bar = rounding_bar(lines.probe(near + 1j * h)[0].imag / h[:, None])[0]
    return np.asarray(np.fmax(bar, _underflow(lines)))


def _underflow(lines: Lines) -> np.ndarray:
    """Return bars ``(K, 1)`` for the rounding of imaginary parts that underflow."""
    epsilon = lines.function.epsilon
    return np.asarray(UNDERFLOW[epsilon] / (IMAGINARY[epsilon] * lines.scale[:, None]))


@np.errstate(all="ignore")
def sharp_difference(lines: Lines, tolerance: float = np.inf) -> NumericDerivative:
    """Return differences of nine values along each line, or the ladder's where those are wide.

    Both engines claim that an interval holds the derivative. The ladder is asked where the first
    one claims nothing, or a wide interval: wider than a ``tolerance``, relative to the derivative,
    unless the gradient agrees to within it. Of both, the narrower interval counts, or the slopes
    of a kink. If they contradict each other, the ladder is right by shorter steps: it knows coarse
    values, and longer steps skip what is near. By longer steps it is not, and the bar covers both.
    If values are known to be coarse, the ladder alone counts their jumps.
    """
    if lines.function.is_measured and np.any(lines.function.coarseness):
        return ladder(lines)
    found, is_poor = differences(lines)
    size = np.maximum(np.abs(found.value), lines.norm)
    # One wrong term of a direction must show beside their norm.
    enough = np.fmax(tolerance * size, SHARP * np.where(lines.norm > 0.0, lines.norm, size))
    agrees = np.abs(found.value - lines.analytic.value) <= tolerance * size
    is_wide = is_poor | (found.bar > np.where(agrees, enough, tolerance * size))
    some = np.flatnonzero(is_wide.any(axis=1))
    if some.size:
        one, other = found.select(some), ladder(lines.select(some))
        gap, least = np.abs(one.value - other.value), np.fmin(one.bar, other.bar)
        is_contradiction = gap > one.bar + other.bar
        narrower = one.where(other.bar < one.bar, other)
        narrower = narrower._replace(bar=np.where(is_contradiction, gap + least, least))
        is_other = is_poor[some] | other.is_kinked | is_contradiction & (other.step < one.step)
        found = found.with_lines(some, one.where(is_wide[some], narrower.where(is_other, other)))
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
        row = np.stack([change[1], change[3], 0.0 * change[0], change[2], change[0]])
        value = (16.0 * slope_2 - slope_1) / 15.0
        largest = np.maximum(np.abs(values).max(axis=0), np.abs(fx))
        # Along a line without effect, nothing is rounded.
        is_moved = np.any(values != fx, axis=0) | (lines.analytic.value != 0.0)
        noise = np.fmax(lines.function.epsilon * largest, lines.function.coarseness)
        rounding = noise * is_moved
        left = unexplained(row, QUICK_NODES, 4)[0]
        bar = SAFETY * (np.abs(value - slope_2) + (left + rounding) / (narrow / 2.0))
    is_finite = np.isfinite(bar)
    value, bar = np.where(is_finite, value, 0.0), np.where(is_finite, bar, np.inf)
    return NumericDerivative(value, bar, value, value, np.broadcast_to(step[:, None], value.shape))
