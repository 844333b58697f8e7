"""The rounding of the analytic gradient, measured before a check calls the gradient wrong.

A mistake is the same part of the derivative at neighbouring points; a rounding error is not. Its
size is the rounding of the largest terms. They have the size of the gradient at other points, where
they neither cancel, as at an optimum, nor saturate: ``1 - tanh(x)**2`` is rounded to 1e-16 of 1.
"""

from collections.abc import Iterator

import numpy as np

from backprop_xp.gradient_check.analytic import AnalyticGradient, scale_of
from backprop_xp.gradient_check.derivatives import complex_step, quick_difference
from backprop_xp.gradient_check.functions import HALF, SINGLE, Function
from backprop_xp.gradient_check.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.points import DOUBLE

# Perturbations, relative to the entries, that change a gradient of each precision.
_PERTURBATIONS = {HALF: 2.0**-5, SINGLE: 2.0**-18, DOUBLE: 2.0**-44}
# The distances of the neighbouring points, as parts of the entries: long enough for the error of a
# saturated gradient to change. They may show only a quarter of the largest rounding error.
_DISTANCES, _SAFETY = (2.0**-3, 2.0**-5), 4.0
# A derivative of this part of another vanishes beside it.
_VANISHING = 1e-3


def with_measured_rounding(gradient: AnalyticGradient) -> AnalyticGradient:
    """Return a gradient with its precision and its natural size, both ``(P, M)``.

    The precision is the rounding error of the numbers in which the gradient is computed. It is that
    of their dtype for an entry that is constant or 0, since any precision holds that.
    """
    function, gx = gradient.function, gradient.function.gx
    precision = np.full(gx.shape, function.gradient_epsilon)
    for epsilon, distance in _PERTURBATIONS.items():
        found = function.gradients(list(_neighbours(function, distance)))
        is_changed = np.any(np.isfinite(found) & (found != gx), axis=0) & (gx != 0.0)
        precision[is_changed] = max(epsilon, function.gradient_epsilon)
    size = _natural_size(gradient)
    return gradient._replace(natural_size=size, precision=precision, is_measured=True)


def _natural_size(gradient: AnalyticGradient) -> np.ndarray:
    """Return the largest size ``(P, M)`` of a gradient between 0 and its point.

    Points at all distances from either end are sampled, on logarithmic scales, and the neighbours,
    where entries of 0 are not. A term of the gradient may also be as large as the value divided by
    the entry's scale; a result of 0 consists of terms as large as the others of its tensor.
    """
    function, draw = gradient.function, np.random.default_rng(1).uniform
    x, results = function.x, np.abs(function.fx)
    for tensor in function.results.tensors if function.results is not None else ():
        part = results[tensor.part]
        part[part == 0.0] = part.max(initial=0.0)
    largest = np.asarray(results / gradient.scale[:, None])
    near = 2.0 ** -np.arange(0.1, 8.0, 0.25)
    parts = [1.0, *0.5 ** np.arange(4.0, 11.0), *(1.0 - near), *(1.0 + near[near <= 0.25])]
    parts += [draw(low, 1.0, x.size) for low in (0.25, 0.5, 0.875)]
    for point in [*(part * x for part in parts), *_neighbours(function, *_DISTANCES)]:
        size = np.abs(function.gradients([point])[0])
        np.fmax(largest, np.where(np.isfinite(size), size, 0.0), out=largest)
    return largest


def rounding_limits(lines: Lines, numeric: NumericDerivative) -> np.ndarray:
    """Return the largest possible rounding errors along lines, ``(K, M)``.

    They are the changes, at neighbouring points, of the difference between analytic and numeric
    derivative. They are infinite where terms may have been rounded off: for a constant gradient;
    where one of both derivatives vanishes beside the other; and where the derivative changes the
    value by less than its rounding over the whole scale.
    """
    gradient, here = lines.gradient, lines.analytic.value
    part, variation, is_constant = _excess(here, numeric.value), np.zeros(here.shape), True
    for point in _neighbours(gradient.function, *_DISTANCES):
        function = gradient.function.recenter(point)
        if function is None:
            continue
        others = lines.through(gradient._replace(function=function, value=function.gx))
        analytic, found = others.analytic.value, complex_step(others) or quick_difference(others)
        change = np.abs(_excess(analytic, found.value) - part)
        variation = np.fmax(variation, np.where(np.isfinite(found.bar), change, 0.0))
        is_constant &= analytic == here
    size = np.maximum(np.abs(here), np.abs(numeric.value))
    is_lost = np.abs(np.abs(part) - 1.0) < _VANISHING
    rounding = lines.function.epsilon * np.abs(lines.function.fx)
    is_lost |= size * lines.scale[:, None] <= rounding
    return _SAFETY * np.where(is_constant | is_lost, np.inf, size * variation)


def _neighbours(function: Function, *distances: float) -> Iterator[np.ndarray]:
    """Yield two points on opposite sides of x, at these parts of the entries' scale."""
    scale: np.ndarray = np.where(function.x == 0.0, scale_of(function), function.x)
    signs = 1.0 - 2.0 * np.random.default_rng(2).integers(2, size=scale.size)
    for distance in distances:
        yield function.x + distance * scale * signs
        yield function.x - distance * scale * signs


def _excess(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """Return the analytic excess as a part of the larger derivative."""
    size = np.maximum(np.abs(analytic), np.abs(numeric))
    excess = (analytic - numeric) * np.where(numeric < 0.0, -1.0, 1.0)
    return np.asarray(excess / np.where(size > 0.0, size, 1.0))
