"""The decision whether the complex step of a function can be trusted, made once and kept on it.

A value can be complex at complex points and yet not analytic: ``abs(p)``, a comparison, or a cast
on the way lose its derivative. Real differences along a random direction show that. Where they
show only rounding, as at an optimum, points nearby decide.
"""

from collections.abc import Iterator

import numpy as np

from backprop_xp.gradient_check.engine.analytic import AnalyticGradient
from backprop_xp.gradient_check.engine.constants import AGREES, DISTANCES, SAMPLE, SHARP
from backprop_xp.gradient_check.engine.derivatives import (
    complex_step,
    quick_difference,
    sharp_difference,
)
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative, random_direction


def along(gradient: AnalyticGradient) -> Lines:
    """Return the line along the random direction that decides."""
    return Lines(gradient, direction=random_direction(gradient, 0))


def is_analytic(
    lines: Lines,
    quick: NumericDerivative | None = None,
    exact: NumericDerivative | None = None,
) -> bool:
    """Whether the complex step can be trusted.

    If that is undecided, real differences along a direction decide: that of the lines, whose
    ``quick`` difference and complex step may be known, or a random one.
    """
    function = lines.function
    if function.is_analytic is None:
        if lines.direction is None:
            lines, quick, exact = along(lines.gradient), None, None
        function.is_analytic = _is_confirmed(lines, quick, exact)
    return function.is_analytic


def _is_confirmed(
    line: Lines, quick: NumericDerivative | None, known: NumericDerivative | None
) -> bool:
    """Whether real differences confirm every result along a direction, here or nearby."""
    confirmed = np.zeros((1, line.function.fx.size), dtype=bool)
    for here in _lines(line):
        exact = known if known is not None and here is line else complex_step(here)
        if exact is None:
            return False
        real = quick if quick is not None and here is line else quick_difference(here)
        for engine in (None, sharp_difference):
            real = real if engine is None else engine(here)
            if real.is_kinked.any():
                line.function.is_kinked = True
                return _is_confirmed_by_entries(line.gradient)
            confirmed |= confirms(here, real, exact)
            if confirmed.all():
                return True
        if np.any(contradicts(here, real, exact)):
            return False
    return False


def _lines(line: Lines) -> Iterator[Lines]:
    """Yield a line along a direction, and the same through points nearby."""
    yield line
    function, gradient, direction = line.function, line.gradient, line.direction
    assert direction is not None  # noqa: S101 - for the type checker
    for distance in DISTANCES:
        there = function.recenter(function.x + distance * direction)
        if there is not None:
            yield line.through(gradient._replace(function=there, value=there.gx))


def _is_confirmed_by_entries(gradient: AnalyticGradient) -> bool:
    """Whether entries confirm, where kinks meet on the direction: none of a sample contradicts."""
    entries = Lines(gradient, gradient.sample(SAMPLE))
    exact = complex_step(entries)
    return exact is not None and not np.any(contradicts(entries, quick_difference(entries), exact))


def confirms(lines: Lines, real: NumericDerivative, exact: NumericDerivative) -> np.ndarray:
    """Whether real differences agree with the complex step, and are sharp enough to show it."""
    size = np.maximum(np.maximum(np.abs(real.value), np.abs(exact.value)), lines.norm)
    return np.asarray((real.bar <= SHARP * size) & ~contradicts(lines, real, exact))


def contradicts(lines: Lines, real: NumericDerivative, exact: NumericDerivative) -> np.ndarray:
    """Whether real differences show that the complex step misses something."""
    low, high = np.minimum(real.left, real.right), np.maximum(real.left, real.right)
    error = np.maximum(low - exact.value, exact.value - high) - exact.bar
    return np.asarray(error > real.bar + AGREES * np.maximum(np.abs(exact.value), lines.norm))
