"""The rounding of a claimed gradient, measured before the gradient is called wrong.

A mistake is there at neighbouring points too, as the same part of the derivative. Rounding differs
from point to point, and is at most a few roundings of the largest terms. Their size is that of the
gradient elsewhere, where its terms neither cancel, as at an optimum, nor saturate: the factor
``1 - tanh(x)**2`` has an error of 1e-16 of 1, not of what is left of it.
"""

from collections.abc import Iterator

import numpy as np

from backprop_xp.gradient_check.analytic import Gradient, default_size
from backprop_xp.gradient_check.derivatives import (
    Derivative,
    Lines,
    complex_step,
    quick_difference,
)
from backprop_xp.gradient_check.functions import DOUBLE, HALF, SINGLE, Function, Host

# The moves of the point, as parts of its entries, over which a gradient of some precision changes.
_CHANGES = {DOUBLE: 2.0**-44, SINGLE: 2.0**-18, HALF: 2.0**-5}
# What is seen at a few points may be this part of the most that there is.
_SAFETY = 4.0
# The moves to the neighbouring points, as parts of the entries: long enough to leave a saturated
# gradient's step, over which its error stays the same.
_LONG = (2.0**-3, 2.0**-5)


def with_rounding(gradient: Gradient) -> Gradient:
    """Return a gradient with its precision, and its largest size on the ray from 0 on."""
    size, precision = _natural_size(gradient), _precision(gradient.function)
    return gradient._replace(natural_size=size, precision=precision, is_measured=True)


def _natural_size(gradient: Gradient) -> Host:
    """Return the largest size ``(P, M)`` of a claimed gradient on the way from 0 to its point.

    The points lie at all distances from either, on scales of powers. A term of the gradient may
    also be as large as the value is over the size of the entry.
    """
    function, draw = gradient.function, np.random.default_rng(1).uniform
    x, largest = function.x, np.abs(function.base) / gradient.size[:, None]
    away = 2.0 ** -np.arange(0.1, 8.0, 0.25)
    parts = [1.0, *0.5 ** np.arange(4.0, 11.0), *(1.0 - away), *(1.0 + away[away <= 0.25])]
    parts += [draw(low, 1.0, x.size) for low in (0.25, 0.5, 0.875)]
    for part in parts:
        there = np.abs(function.claims([part * x])[0])
        np.fmax(largest, np.where(np.isfinite(there), there, 0.0), out=largest)
    return largest


def _precision(function: Function) -> Host:
    """Return the rounding ``(P, M)`` of the numbers that a claimed gradient is computed in.

    It is no less precise than its numbers where it is constant, or 0, a number of any precision.
    """
    precision = np.full(function.analytic.shape, function.gradient_epsilon)
    is_seen = function.analytic == 0.0
    for epsilon, move in _CHANGES.items():
        there = function.claims(list(_neighbours(function, move)))
        moves = np.any(np.isfinite(there) & (there != function.analytic), axis=0) & ~is_seen
        precision = np.where(moves, np.fmax(precision, epsilon), precision)
        is_seen |= moves
    return precision


def changes(lines: Lines, gradient: Gradient, numeric: Derivative) -> Host:
    """Return the most that rounding can be along lines ``(K, M)``: what differences change by.

    They are differences of the claimed and the numeric derivative, at neighbouring points. The
    result is infinite where the gradient is the same at all of them: it may be what is left of
    terms that are rounded off.
    """
    function, here = gradient.function, lines.claim(gradient).value
    part, size = _mistake(here, numeric.value)
    varies, is_stuck = np.zeros(here.shape), np.ones(here.shape, dtype=bool)
    for move in _LONG:
        for point in _neighbours(function, move):
            there = function.moved_to(point)
            if there is None:
                continue
            elsewhere = gradient._replace(function=there, value=there.analytic)
            others = lines.elsewhere(elsewhere)
            claimed = others.claim(elsewhere).value
            found = complex_step(others) or quick_difference(others)
            function.evaluations += there.evaluations
            off = np.abs(_mistake(claimed, found.value)[0] - part)
            varies = np.fmax(varies, np.where(np.isfinite(found.bar), off, 0.0))
            is_stuck &= claimed == here
    return _SAFETY * np.where(is_stuck, np.inf, size * varies)


def _neighbours(function: Function, move: float) -> Iterator[Host]:
    """Yield two points on opposite sides, every entry moved by this part of its size."""
    size: Host = np.where(function.x == 0.0, default_size(function), function.x)
    signs = 1.0 - 2.0 * np.random.default_rng(2).integers(2, size=size.size)
    yield function.x + move * size * signs
    yield function.x - move * size * signs


def _mistake(claimed: Host, numeric: Host) -> tuple[Host, Host]:
    """Return what is claimed too much as a part of the larger derivative, and the size of that."""
    size = np.maximum(np.abs(claimed), np.abs(numeric))
    too_much = (claimed - numeric) * np.where(numeric < 0.0, -1.0, 1.0)
    return too_much / np.where(size > 0.0, size, 1.0), size
