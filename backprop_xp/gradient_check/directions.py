"""Checking along random directions: a few evaluations, however many entries the point has.

Directions also show whether the complex step can be trusted, and carry the Taylor test. Where one
fails, an entry that is wrong is tracked down by halving the direction.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.claims import Gradient
from backprop_xp.gradient_check.derivatives import (
    Derivative,
    Lines,
    along_direction,
    along_entries,
    complex_step,
    ladder,
    quick_difference,
)
from backprop_xp.gradient_check.functions import Host
from backprop_xp.gradient_check.judge import FAIL, PASS, Findings, Judged, judge
from backprop_xp.gradient_check.refining import compare, contradicts, is_believed, settled
from backprop_xp.gradient_check.report import ABOVE_NOISE, TaylorTable

# Along a direction the terms of all entries are alike in size, but for those that are less than
# this part of the largest, which would have to be moved too far.
_LEAST_TERM = 1e-3
# So many entries are looked at where kinks meet on a direction, or where one failed.
_SAMPLE = 64
_TAYLOR_STEPS, _LONGEST = 24, 2.0**-4


class Directions(NamedTuple):
    """What random directions are drawn from: a claimed gradient, and a seed."""

    gradient: Gradient
    seed: int

    def draw(self, number: int) -> Host:
        """Return direction ``number``, ``(P,)``: number 1 has the signs of the gradient.

        No entry is near 0, so that no wrong one goes unseen. The step of every entry is at most its
        size, and the shorter the more entries are moved together.
        """
        value, size, function = self.gradient.finite, self.gradient.size, self.gradient.function
        drawn = np.random.default_rng([self.seed, number]).uniform(-1.0, 1.0, size.size)
        signs = drawn
        if number == 1:
            along = value.sum(axis=1)
            signs = np.where(along == 0.0, drawn, along)
        limits, x = function.problem.limits, function.x
        if limits is not None:  # at the border of the domain, inwards
            signs = np.where(x <= limits[0], 1.0, np.where(x >= limits[1], -1.0, signs))
        terms = np.abs(value * size[:, None]).max(axis=1)
        terms = np.maximum(terms, _LEAST_TERM * terms.max())
        weights = terms.min() / terms if terms.max() > 0.0 else np.ones_like(terms)
        weights *= size * float(size.size) ** -0.25
        return np.copysign(weights * (0.5 + 0.5 * np.abs(drawn)), signs)

    def sample(self) -> Host:
        """Return some entries, in ascending order."""
        count = self.gradient.size.size
        drawn = np.random.default_rng(self.seed).choice(count, min(count, _SAMPLE), replace=False)
        return np.sort(drawn)


def is_analytic(of: Directions) -> bool:
    """Say whether the complex step can be trusted, as it shows along direction 0.

    Else value is not analytic, or drops the imaginary part: real differences contradict it. Where
    kinks meet on the direction, which could hide that, so many entries are looked at too.
    """
    line = along_direction(of.gradient, of.draw(0))
    exact = complex_step(line)
    if exact is None:
        return False
    real = settled(line, quick_difference(line))
    if not real.is_kinked.any():
        return not contradicts(line, real, exact)
    entries = along_entries(of.gradient, of.sample())
    alone = complex_step(entries)
    return alone is not None and not contradicts(entries, quick_difference(entries), alone)


def check_directions(of: Directions, directions: int | None, asked: float | None) -> Findings:
    """Check along directions, the first with the gradient's own signs, until one fails."""
    tried = []
    for number in range(1, (directions or 1) + 1):
        direction = of.draw(number)
        found, of = _along(of, direction, asked, settled)
        tried.append(found)
        if found.judged.verdict == FAIL:
            break
    worst = max(tried, key=lambda f: (f.judged.verdict, f.judged.excess[f.judged.decides]))
    # Where kinks meet, an entry's slopes can lie outside of those along the direction.
    if worst.judged.verdict == FAIL and not worst.judged.numeric.is_kinked.any():
        return worst._replace(entries=_entries(of, worst.judged, direction))
    return worst


def check_taylor(of: Directions, directions: int | None, asked: float | None) -> Findings:
    """Check by differences along directions, and measure the orders of the Taylor remainder."""
    for number in range(1, (directions or 1) + 1):
        direction = of.draw(number)
        found, of = _along(of, direction, asked, lambda line, _: ladder(line))
        found = found._replace(method="taylor", taylor=_taylor_table(of.gradient, direction))
        if found.judged.verdict != PASS:
            break
    return found


def _along(
    of: Directions,
    direction: Host,
    asked: float | None,
    closer: Callable[[Lines, Derivative], Derivative],
) -> tuple[Findings, Directions]:
    """Judge the claimed derivative along a direction; its rounding is measured before it fails."""
    line = along_direction(of.gradient, direction)
    quick = quick_difference(line)
    done = is_believed(line, quick, of.gradient)
    judged, gradient = compare(line, of.gradient, quick, asked, closer, done)
    evaluations = gradient.function.evaluations
    return Findings("directional", judged, evaluations), of._replace(gradient=gradient)


def _entries(of: Directions, judged: Judged, direction: Host) -> Judged:
    """Judge some entries: one that is wrong, those beside it, and others."""
    wrong = _tracked_down(of.gradient, judged, direction)
    row = of.gradient.function.problem.point.tensor_at(wrong).row_of(wrong)
    beside = np.arange(row.start, row.stop)[:_SAMPLE]
    lines = along_entries(of.gradient, np.unique([wrong, *beside, *of.sample()]))
    return judge(lines, of.gradient, settled(lines, quick_difference(lines)), None)


def _tracked_down(gradient: Gradient, judged: Judged, direction: Host) -> int:
    """Return an entry that is wrong, by halving the direction: a half of it is off as well."""
    result = judged.decides[1]
    value = gradient.value[:, result]
    if not np.all(np.isfinite(value)):
        return int(np.argmin(np.isfinite(value)))
    off = float((judged.claimed.value - judged.numeric.value)[0, result])
    first, last = 0, value.size
    while last - first > 1:
        middle = (first + last) // 2
        half = np.zeros_like(value)
        half[first:middle] = direction[first:middle]
        line = along_direction(gradient, half)
        numeric = quick_difference(line)
        if not is_believed(line, numeric, gradient)[0]:
            numeric = settled(line, numeric)
        here = float(value @ half) - float(numeric.value[0, result])
        if abs(here) >= abs(off - here):
            last, off = middle, here
        else:
            first, off = middle, off - here
    return first


def _taylor_table(gradient: Gradient, direction: Host) -> TaylorTable:
    """Measure the remainders of the claimed gradient along a direction, step by step halved.

    It ends where the symmetric remainder has sunk into rounding, or is linear in the step.
    """
    f, direction = gradient.function, direction * _LONGEST
    slope, line = gradient.along(direction), along_direction(gradient, direction)
    norm, rows, largest = float(gradient.norm(direction)[0, 0]), [], abs(float(f.base[0]))
    for h in 2.0 ** -np.arange(_TAYLOR_STEPS):
        values, _, known = line.probe(np.asarray([[h], [-h]]))
        away = (values - known)[:, 0, 0] - f.base[0]
        up, down = away - np.asarray([h, -h]) * slope.value[0, 0]
        largest = max(largest, float(np.abs(values).max()))
        noise = f.epsilon * (4.0 * largest + norm * h) + float(slope.bar[0, 0]) * h
        rows.append((float(h) * _LONGEST, abs(float(up)), abs(float(up - down)), float(noise)))
        last = np.asarray([row[2] for row in rows[-5:]])
        with np.errstate(all="ignore"):
            is_linear = len(last) == 5 and np.all(np.abs(last[:-1] / last[1:] - 2.0) < 0.1)
        if not rows[-1][2] > ABOVE_NOISE * noise or is_linear:
            break
    return TaylorTable(*zip(*rows, strict=True))
