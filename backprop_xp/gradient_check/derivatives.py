"""Numeric derivatives with error bars, along straight lines.

A line goes through the point: along an entry, whose size is that at which the function is taken to
vary, or along a direction, of size 1. Steps are tried on a ladder, each a quarter of the one
before. At every one a central difference is extrapolated (Ridders 1982; Richardson), and its error
bar counts what the extrapolation changes, what the even part of the function leaves unexplained (a
kink, a feature narrower than the step), and the noise of the value, as all shorter steps show it
(after More and Wild, "Estimating computational noise", 2011). The smallest bar wins.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.analytic import Claim, Gradient
from backprop_xp.gradient_check.functions import DOUBLE, SINGLE, Function, Host

# The imaginary step of a complex step: its square vanishes beside 1, and no result underflows.
_IMAGINARY = {DOUBLE: 2.0**-66, SINGLE: 2.0**-40}
# The longer step of a quick difference, which serves smooth functions; a derivative of 0 is best
# refuted by a long one.
_QUICK, LONG = {DOUBLE: 2.0**-7, SINGLE: 2.0**-3}, 0.5
# The real part at a complex point may differ so much from the value: terms that cancel are rounded.
_SAME_REAL_PART = 1e-2
# What is so many times the noise of all shorter steps is no noise.
_ONSET = 8.0
# A bar is an estimate of an error, doubled.
SAFETY = 2.0
# At a kink the slopes on either side stay apart by the same over so many steps, within a tenth, and
# by so many roundings. A bar as small as a quarter of the gap shows that there is no kink.
_STAYS, _WITHIN, _ABOVE, _NO_KINK = 4, 0.1, 20.0, 0.25
# What a step of a quarter makes of slopes at a cusp is less than this: a jump would be 4 times.
_JUMP = 3.0
# A value that changes by so many roundings at once may be rounded to few digits, which so many
# bisections of so many results find out, or steps that are a little longer.
_COARSE, _BISECTIONS, _BISECTED, _LITTLE = 1e3, 48, 4, 2.0**-12
# So many sizes away a value that stays as it is around the point is another, most likely.
_FAR = 2.0**24


class Derivative(NamedTuple):
    """Derivatives ``(K, M)`` along K lines: the value, its error bar, and the one-sided slopes.

    The slopes are the value itself unless they stay apart as the step shrinks, at a kink, where the
    bar is theirs. ``step`` is the step that was used, relative to the line's size.
    """

    value: Host
    bar: Host
    left: Host
    right: Host
    step: Host

    @property
    def is_kinked(self) -> Host:
        """Where the slopes on either side stay apart."""
        return self.left != self.right

    @property
    def is_steep(self) -> Host:
        """Where they grow without end, away from one another."""
        return self.is_kinked & np.isinf(self.left)

    def chosen(self, lines: Host) -> "Derivative":
        """Return the derivatives along some of the lines."""
        return Derivative(*(part[lines] for part in self))

    def with_lines(self, chosen: Host, other: "Derivative") -> "Derivative":
        """Return the derivatives, those along some of the lines replaced."""
        parts = [part.copy() for part in self]
        for part, theirs in zip(parts, other, strict=True):
            part[chosen] = theirs
        return Derivative(*parts)

    def where(self, chosen: Host, other: "Derivative") -> "Derivative":
        """Return the derivatives, some of them replaced."""
        return Derivative(*(np.where(chosen, b, a) for a, b in zip(self, other, strict=True)))


class Lines(NamedTuple):
    """K lines through the point of a function: along entries, or one along a direction.

    ``columns (K,)`` are the entries, none along a direction. ``size (K,)`` is a whole step,
    ``rungs`` how many are tried; ``norm`` is that of the terms of a derivative along a direction, 0
    along entries. ``probe`` maps steps ``(S, K)``, real or imaginary, to values ``(S, K, M)``, to
    the steps ``(S, K, 1)`` as they were rounded, and to what rounding the point made of the values.
    ``claim`` picks what a gradient claims; ``chosen`` gives some of the lines, ``elsewhere`` the
    same lines through the point of another gradient.
    """

    function: Function
    columns: Host
    size: Host
    rungs: int
    norm: Host | float
    probe: Callable[[Host], tuple[Host, Host, Host | float]]
    claim: Callable[[Gradient], Claim]
    chosen: Callable[[Host], "Lines"]
    elsewhere: Callable[[Gradient], "Lines"]

    @property
    def kind(self) -> str:
        """What a tolerance for the lines is called."""
        return "entries" if self.columns.size else "directions"


def along_entries(gradient: Gradient, columns: Host) -> Lines:
    """Return the lines along some entries of the point, ``(K,)`` in ascending order."""
    function, x = gradient.function, gradient.function.x[columns]

    def probe(steps: Host) -> tuple[Host, Host, Host | float]:
        moved = function.rounded(x + steps)
        values = function.moved(np.repeat(columns, len(steps)), moved.T.reshape(-1))
        shaped = values.reshape(len(columns), len(steps), -1)
        return np.swapaxes(shaped, 0, 1), (moved - x).real[:, :, None], 0.0

    # Powers of two: then x and its step, added, are hardly rounded.
    size = 2.0 ** np.round(np.log2(gradient.size[columns]))
    return Lines(
        function, columns, size, _rungs(function, x), 0.0, probe,
        lambda gradient: gradient.at(columns),
        lambda some: along_entries(gradient, columns[some]),
        lambda other: along_entries(other, columns),
    )  # fmt: skip


def along_direction(gradient: Gradient, direction: Host) -> Lines:
    """Return the line along a direction ``(P,)``.

    Every entry of the point is rounded when it is moved. The claimed gradient takes that out: to
    first order, and what is left matters only if it is wrong.
    """
    function = gradient.function

    def probe(steps: Host) -> tuple[Host, Host, Host | float]:
        values, known, slope = [], [], gradient.finite
        for step in steps.reshape(-1):
            away = step * direction
            moved = function.rounded(function.x + away)
            values.append(function.at([moved])[0])
            known.append((moved - function.x - away).real @ slope)
        shape = (*steps.shape, -1)
        return np.reshape(values, shape), steps.real[:, :, None], np.reshape(known, shape)

    rungs, norm = _rungs(function, function.x[direction != 0.0]), gradient.norm(direction)
    line = Lines(
        function, np.arange(0), np.ones(1), rungs, norm, probe,
        lambda gradient: gradient.along(direction),
        lambda some: line,
        lambda other: along_direction(other, direction),
    )  # fmt: skip
    return line


def complex_step(lines: Lines, part: float = 1.0) -> Derivative | None:
    """Return ``imag f(x + i h) / h``, exact to rounding (Squire and Trapp 1998).

    None unless the function is complex and finite there, with the real part that it has at the
    point. The step is a ``part`` of the usual one. The bar is 0: what is rounded is what the
    gradient is made of, whose own bar counts it.
    """
    function, step = lines.function, part * _IMAGINARY[lines.function.epsilon]
    values = lines.probe(1j * step * lines.size[None, :])[0][0]
    is_same = np.allclose(values.real, function.base, rtol=_SAME_REAL_PART, atol=0.0)
    if values.dtype.kind != "c" or not is_same or not np.all(np.isfinite(values)):
        return None
    value = values.imag / (step * lines.size[:, None])
    return Derivative(value, 0.0 * value, value, value, np.full_like(value, step))


def quick_difference(lines: Lines, is_long: Host | bool = False) -> Derivative:
    """Return derivatives from central differences at a step and at a quarter of it.

    That is a step which serves smooth functions, or, where ``is_long (K,)``, half of a whole one.
    """
    step = np.where(is_long, LONG, _QUICK[lines.function.epsilon]) + 0.0 * lines.size
    h, base = lines.size * step, lines.function.base
    values, steps, known = lines.probe(np.stack([h, -h, h / 4.0, -h / 4.0]))
    away = values - base - known
    with np.errstate(all="ignore"):
        wide, narrow = steps[0] - steps[1], steps[2] - steps[3]
        slope_1, slope_2 = (away[0] - away[1]) / wide, (away[2] - away[3]) / narrow
        even_1, even_2 = (away[0] + away[1]) / 2.0, (away[2] + away[3]) / 2.0
        value = (16.0 * slope_2 - slope_1) / 15.0
        largest = np.maximum(np.abs(values).max(axis=0), np.abs(base))
        # A value that does not change at all has no rounding to show.
        rounding = lines.function.epsilon * largest * np.any(values != base, axis=0)
        unexplained = np.abs(even_2 - even_1 / 16.0) + rounding
        bar = SAFETY * (np.abs(value - slope_2) + unexplained / (narrow / 2.0))
    found = np.isfinite(bar)
    value, bar = np.where(found, value, 0.0), np.where(found, bar, np.inf)
    return Derivative(value, bar, value, value, np.broadcast_to(step[:, None], value.shape))


def ladder(lines: Lines) -> Derivative:
    """Return derivatives from all steps of a ladder, down to the rounding of the point."""
    function, base, rungs = lines.function, lines.function.base, lines.rungs
    h = lines.size * 0.5 * 4.0 ** -np.arange(rungs)[:, None]
    values, steps, known = lines.probe(np.concatenate([h, -h]))
    away = (values - base - known) * np.any(values != base, axis=0)
    right, left, up, down = away[:rungs], away[rungs:], steps[:rungs], -steps[rungs:]
    # The largest value seen so near: what is far away rounds nothing here.
    largest = np.fmax(np.abs(values[:rungs]), np.abs(values[rungs:]))
    largest = np.fmax(_below(np.fmax, largest), np.abs(base))
    # Numbers that float32 holds were rounded to it, most likely.
    with np.errstate(over="ignore"):
        is_single = np.all(values == values.astype(np.float32), axis=0)
    epsilon = np.where(is_single, SINGLE, function.epsilon)
    least = np.fmax(epsilon * largest, _quantum(lines, values, steps[:, :, 0]))
    x = function.x[lines.columns] if lines.columns.size else np.zeros(1)
    with np.errstate(all="ignore"):
        # Where terms of the value cancel, their rounding is that of the entry times the slope.
        slope = np.abs((right - left) / (up + down))
        least = np.fmax(least, function.epsilon * np.abs(x)[:, None] * slope)
        found = _extrapolated((up + down) / 2.0, right - left, right + left, least, down - up)
        for h, one in ((up, right), (down, -left)):  # where one side is outside of the domain
            found = found.where(~np.isfinite(found.bar), _extrapolated(h, one, None, least))
        found = _with_kinks(found, right / up, left / -down, least, up)
    stays = np.all((values == base) | ~np.isfinite(values), axis=0) & np.isfinite(found.bar)
    still = np.flatnonzero(np.any(stays, axis=-1))
    if still.size:
        # A value that stays as it is at every step shows only far away how it is rounded.
        some = lines.chosen(still)
        away = some.size * np.asarray([[0.0], [_FAR], [-_FAR]])
        least = _quantum(some, some.probe(away)[0], away) / some.size[:, None]
        found.bar[still] = np.fmax(found.bar[still], np.where(stays[still], least, 0.0))
    return found._replace(step=found.step / lines.size[:, None])


def _quantum(lines: Lines, values: Host, steps: Host) -> Host:
    """Return the least change of the value ``(K, M)`` where the shortest steps show none.

    ``values (S, K, M)`` are those at steps ``(S, K)``. A value that is rounded to a few digits does
    not change over a short step at all. One that is flat up to a kink does not either, but beyond
    it a slightly longer step changes it slightly.
    """
    base, change = lines.function.base, np.abs(values - lines.function.base)
    change = np.where(change > 0.0, change, np.inf)
    least = np.where(np.any(values == base, axis=0), change.min(axis=0), 0.0)
    coarse = _COARSE * lines.function.epsilon * np.abs(base)
    is_coarse = np.isfinite(least) & (least > coarse)
    which = np.flatnonzero(np.any(is_coarse, axis=1))
    if which.size:
        some, tells, known = lines.chosen(which), is_coarse[which], least[which]
        seen, steps, each = [values[:, which]], steps[:, which], np.arange(which.size)
        if tells.shape[1] > 1:
            seen.append(some.probe((1.0 + _LITTLE) * steps)[0])
        # The coarsest results of a line are bisected. What is seen on the way serves all of them.
        for _ in range(min(_BISECTED, tells.shape[1])):
            result = np.argmax(np.where(tells, known, 0.0), axis=1)
            seen.append(_bisected(some, seen[0][:, each, result], steps, result))
            found = np.concatenate(seen)
            gaps = np.diff(np.sort(np.where(np.isfinite(found), found, np.nan), axis=0), axis=0)
            known = np.fmin(known, np.where(gaps > 0.0, gaps, np.inf).min(axis=0))
            tells[each, result] = False
            tells &= known > coarse
            if not tells.any():
                break
        least[which] = np.where(is_coarse[which], known, least[which])
    # Lines on which the value never changes know its rounding from others.
    known = np.max(least, axis=0, initial=0.0, where=np.isfinite(least))
    return np.where(np.isfinite(least), least, known)


def _bisected(lines: Lines, values: Host, steps: Host, result: Host) -> Host:
    """Return the values ``(S, K, M)`` on the way to the shortest step that changes a result.

    ``values (S, K)`` are those of ``result (K,)``, one of each line's, at ``steps (S, K)``.
    """
    each, base = np.arange(len(result)), lines.function.base[result]
    change = np.abs(values - base)
    (above,) = _best(np.where(change > 0.0, np.abs(steps), np.inf), steps)
    below, seen = 0.0 * above, []
    for _ in range(_BISECTIONS):
        middle = (above + below) / 2.0
        seen.append(lines.probe(middle[None, :])[0])
        moves = seen[-1][0, each, result] != base
        above, below = np.where(moves, (middle, below), (above, middle))
    return np.concatenate(seen)


def _extrapolated(
    h: Host, odd: Host, even: Host | None, least: Host, uneven: Host | float = 0.0
) -> Derivative:
    """Return the extrapolated differences with the smallest bars, of steps ``h (S, K, 1)``.

    ``odd`` is what is divided by the step: ``f(x + h) - f(x - h)`` with ``even`` the sum of the two
    differences from f(x), or with None a one-sided difference. ``least (S, K, M)`` is the least
    noise of a value, ``uneven`` by how much the steps to either side differ.
    """
    ratio = 4.0 if even is None else 16.0
    tables = [odd / (h if even is None else 2.0 * h)]
    for m in range(1, 4):
        tables.append(tables[-1] + (tables[-1] - _above(tables[-1])) / (ratio**m - 1.0))
    half = 0.0 * tables[0] if even is None else (even + uneven * tables[0]) / 2.0
    unexplained = np.abs(half - _above(half) / 16.0) if even is not None else half
    seen = np.fmax(unexplained, h * np.abs(tables[1] - _above(tables[1])))
    shorter = np.concatenate([seen[1:], np.full_like(seen[:1], np.nan)])
    noise = np.fmax(_below(np.fmax, shorter), least)
    # What shows at some step but not at shorter ones is no noise: the slope may be as steep there.
    moving = np.isfinite(shorter) & (np.roll(odd, -1, axis=0) != 0.0)
    several = _below(np.add, moving.astype(int)) >= 3
    steep = np.where(several & (seen > _ONSET * noise), seen / h, 0.0)
    steep = _below(np.fmax, np.concatenate([steep[1:], 0.0 * steep[:1]]))
    # A step is known by at least three shorter ones.
    known = _below(np.add, np.isfinite(shorter).astype(int)) >= 3
    bars = []
    for last, before in zip(tables[1:], tables[:-1], strict=True):
        change = np.maximum(np.abs(last - before), np.abs(last - _above(before)))
        bar = SAFETY * (change + (unexplained + noise) / h + steep)
        bars.append(np.where(known & np.isfinite(bar), bar, np.inf))
    value, bar = _best(np.stack(bars), np.stack(tables[1:]), np.stack(bars))
    value, bar, step = _best(bar, value, bar, h)
    value = np.where(np.isfinite(bar), value, 0.0)
    return Derivative(value, bar, value, value, step)


def _with_kinks(found: Derivative, right: Host, left: Host, least: Host, h: Host) -> Derivative:
    """Return derivatives with the slopes on either side, where those stay apart."""
    gap = right - left
    stays = np.abs(gap) > _ABOVE * least / h
    for back in range(1, _STAYS):
        stays[back:] &= np.abs(gap[:-back] - gap[back:]) <= _WITHIN * np.abs(gap[back:])
        stays[:back] = False
    moves = np.abs(right - _above(right)) + np.abs(left - _above(left)) + least / h
    bars = np.where(stays & np.isfinite(moves), SAFETY * moves, np.inf)
    bar, right, left, step = _best(bars, bars, right, left, h)
    kinked = np.isfinite(bar) & (found.bar > _NO_KINK * np.abs(right - left))
    found = found.where(kinked, Derivative((left + right) / 2.0, bar, left, right, step))
    # At a cusp they grow further apart, but do not jump, down to the shortest step that tells them.
    is_told, ratio = np.abs(gap) > _ABOVE * least / h, gap / _above(gap)
    grows = is_told & (ratio > 1.0 + _WITHIN) & (ratio < _JUMP)
    is_cusp = grows & _below(np.logical_and, grows | ~is_told)
    for back in range(1, _STAYS):
        is_cusp[back:] &= grows[:-back]
        is_cusp[:back] = False
    is_cusp, infinite = np.any(is_cusp, axis=0), np.copysign(np.inf, gap[-1])
    return found.where(
        is_cusp, Derivative(found.value, np.abs(infinite), -infinite, infinite, found.step)
    )


def _rungs(function: Function, x: Host) -> int:
    """Return how many steps there are, each a quarter of the one before, down to rounding.

    Entries of 0 are not rounded when they are moved, so that shorter steps can be told.
    """
    return (round(-math.log2(function.epsilon) / 2.0) - 1) * (2 if np.any(x == 0.0) else 1)


def _best(bars: Host, *parts: Host) -> tuple[Host, ...]:
    """Return, of each array, the entries at which the bars are smallest along the first axis."""
    best = np.argmin(bars, axis=0)[None]
    return tuple(
        np.take_along_axis(np.broadcast_to(part, bars.shape), best, 0)[0] for part in parts
    )


def _above(table: Host) -> Host:
    """Return the numbers of the next longer step, NaN for the longest."""
    return np.concatenate([np.full_like(table[:1], np.nan), table[:-1]])


def _below(gather: np.ufunc, table: Host) -> Host:
    """Accumulate, for each step, over itself and all shorter ones."""
    return gather.accumulate(table[::-1])[::-1]
