"""Checking along random directions: a few evaluations, however many entries the point has.

Directions also show whether the complex step can be trusted, and carry the Taylor test. Where one
fails, an entry that is wrong is tracked down by halving the direction.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.derivatives import (
    Claimed,
    Derivative,
    Lines,
    along_direction,
    along_entries,
    complex_step,
    ladder,
    norm_of,
    quick_difference,
    with_rounding,
)
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.judge import FAIL, PASS, Findings, Judged, judge, tolerance_of
from backprop_xp.gradient_check.report import ABOVE_NOISE, TaylorTable

# Along a direction the terms of all entries are alike in size, but for those that are less than
# this part of the largest, which would have to be moved too far.
_LEAST_TERM = 1e-3
# A quick difference is believed if it agrees with the claimed derivative and its bar is this part.
SHARP = 1e-2
# A derivative of 0 is best refuted by a long step.
LONG = 0.5
# The complex step must agree with a real difference within its bar and this part of the terms. A
# bar of so many roundings of the value is its rounding alone.
_AGREES, _ROUNDED, _SAFETY = 1e-6, 32.0, 2.0
# So many entries are looked at where kinks meet on a direction, or where one failed.
_SAMPLE = 64
_TAYLOR_STEPS, _LONGEST = 24, 2.0**-4


class Directions(NamedTuple):
    """What random directions are drawn from: a function, its claimed gradient, sizes, a seed."""

    function: Function
    claimed: Claimed
    size: Host
    seed: int

    def draw(self, number: int) -> Host:
        """Return direction ``number``, ``(P,)``: number 1 has the signs of the gradient.

        No entry is near 0, so that no wrong one goes unseen. The step of every entry is at most its
        size, and the shorter the more entries are moved together.
        """
        drawn = np.random.default_rng([self.seed, number]).uniform(-1.0, 1.0, self.size.size)
        signs, value = drawn, self._finite
        if number == 1:
            along = value.sum(axis=1)
            signs = np.where(along == 0.0, signs, along)
        limits, x = self.function.problem.limits, self.function.x
        if limits is not None:  # at the border of the domain, inwards
            signs = np.where(x <= limits[0], 1.0, np.where(x >= limits[1], -1.0, signs))
        terms = np.abs(value * self.size[:, None]).max(axis=1)
        terms = np.maximum(terms, _LEAST_TERM * terms.max())
        weights = terms.min() / terms if terms.max() > 0.0 else np.ones_like(terms)
        weights *= self.size * float(self.size.size) ** -0.25
        return np.copysign(weights * (0.5 + 0.5 * np.abs(drawn)), signs)

    def norm(self, direction: Host) -> Host:
        """Return the norm of the terms of the derivative along a direction, ``(1, M)``."""
        terms = norm_of(direction[:, None] * self._finite)
        least = 8.0 * self.function.epsilon * np.abs(self.function.base)
        return np.maximum(terms, least)[None, :]

    def derivative(self, direction: Host, *, is_real: bool = False) -> Derivative:
        """Return the numeric derivative along a direction, by as few evaluations as will do."""
        line, norm = along_direction(self.function, direction), self.norm(direction)
        quick = quick_difference(line)
        if np.all(is_believed(quick, self.claimed.along(direction), norm, self.function)):
            return quick
        return settled(line, None if is_real else complex_step(line), quick, norm)

    def judge(self, direction: Host, numeric: Derivative, asked: float | None) -> Judged:
        """Judge the claimed derivative along a direction."""
        along, norm = self.claimed.along(direction), self.norm(direction)
        base = tolerance_of(self.function, "directions")
        # Of many results, those count that are no rounding beside the largest.
        matters = norm >= tolerance_of(self.function, "matters") * norm.max()
        return judge(along, numeric, base=base, asked=asked, norm=norm, matters=matters)

    def sample(self) -> Host:
        """Return some entries, in ascending order."""
        count = self.size.size
        drawn = np.random.default_rng(self.seed).choice(count, min(count, _SAMPLE), replace=False)
        return np.sort(drawn)

    @property
    def _finite(self) -> Host:
        return np.where(np.isfinite(self.claimed.value), self.claimed.value, 0.0)


def is_analytic(of: Directions) -> bool:
    """Say whether the complex step can be trusted, as it shows along direction 0.

    Else value is not analytic, or drops the imaginary part: real differences contradict it. Where
    kinks meet on the direction, which could hide that, so many entries are looked at too.
    """
    direction = of.draw(0)
    line, norm = along_direction(of.function, direction), of.norm(direction)
    exact = complex_step(line)
    if exact is None:
        return False
    real = settled(line, exact, quick_difference(line), norm)
    if not real.is_kinked.any():
        return not contradicts(real, exact, norm)
    entries = along_entries(of.function, of.sample(), of.size)
    alone = complex_step(entries)
    return alone is not None and not contradicts(quick_difference(entries), alone, 0.0)


def is_believed(
    quick: Derivative, claimed: Claimed, norm: Host | float, function: Function
) -> Host:
    """Say of which lines ``(K,)`` a quick difference is the last word: it agrees, and is sharp.

    A derivative of 0 and a claim of 0 do only where the value did not change over a long step.
    """
    nothing = (claimed.value == 0.0) & (quick.value == 0.0) & (quick.step < LONG)
    size = np.maximum(np.maximum(np.abs(claimed.value), np.abs(quick.value)), norm)
    slack = tolerance_of(function, "entries") * size + claimed.bar
    agrees = np.abs(claimed.value - quick.value) <= slack
    # One wrong term of a direction must show beside their norm.
    is_sharp = quick.bar <= SHARP * np.where(np.asarray(norm) > 0.0, norm, size)
    return np.all(agrees & is_sharp & ~nothing, axis=-1)


def settled(
    lines: Lines, exact: Derivative | None, quick: Derivative, norm: Host | float
) -> Derivative:
    """Return the complex step where real differences confirm it, else those, from a ladder."""
    if exact is not None and _is_confirmed(lines, exact, quick, norm):
        return exact
    finer = None if exact is None else complex_step(lines, 0.25)
    if exact is not None and finer is not None:
        # What changes with the imaginary step is its square, beside a derivative of 0. It is more
        # where an imaginary part is no more than rounding: then the real difference is sharper.
        bar = _SAFETY * np.abs(finer.value - exact.value)
        value = np.where(np.abs(finer.value) <= bar, 0.0, exact.value)
        size = np.maximum(np.maximum(np.abs(value), np.abs(quick.value)), norm)
        is_sharper = np.all(bar <= np.maximum(quick.bar, _AGREES * size))
        exact = Derivative(value, bar, value, value, exact.step) if is_sharper else None
    if exact is not None and _is_confirmed(lines, exact, quick, norm):
        return exact
    real = ladder(lines)
    if exact is None or real.is_kinked.any() or contradicts(real, exact, norm):
        return real
    return exact


def _is_confirmed(lines: Lines, exact: Derivative, quick: Derivative, norm: Host | float) -> bool:
    """Say whether a quick difference agrees, and is sharp, or hidden by rounding alone."""
    size = np.maximum(np.maximum(np.abs(exact.value), np.abs(quick.value)), norm)
    agrees = np.abs(quick.value - exact.value) <= quick.bar + _AGREES * size
    noise = quick.bar * quick.step * lines.size[:, None]
    hidden = noise <= _ROUNDED * lines.function.epsilon * np.abs(lines.function.base)
    return bool(np.all(agrees & ((quick.bar <= SHARP * size) | hidden)))


def contradicts(real: Derivative, exact: Derivative, norm: Host | float) -> bool:
    """Say whether real differences show that the complex step misses something."""
    low, high = np.minimum(real.left, real.right), np.maximum(real.left, real.right)
    off = np.maximum(low - exact.value, exact.value - high) - exact.bar
    return bool(np.any(off > real.bar + _AGREES * np.maximum(np.abs(exact.value), norm)))


def check_directions(of: Directions, directions: int | None, asked: float | None) -> Findings:
    """Check along directions, the first with the gradient's own signs, until one fails."""
    tried = []
    for number in range(1, (directions or 1) + 1):
        found, direction, of = _along(of, of.draw(number), asked, is_real=False)
        tried.append(found)
        if found.judged.verdict == FAIL:
            break
    worst = max(tried, key=lambda f: (f.judged.verdict, f.judged.excess[f.judged.decides]))
    # Where kinks meet, an entry's slopes can lie outside of those along the direction.
    if worst.judged.verdict == FAIL and not worst.judged.numeric.is_kinked.any():
        return _with_entries(of, worst, direction)
    return worst


def check_taylor(of: Directions, directions: int | None, asked: float | None) -> Findings:
    """Check by differences along directions, and measure the orders of the Taylor remainder."""
    for number in range(1, (directions or 1) + 1):
        found, direction, of = _along(of, of.draw(number), asked, is_real=True)
        found = found._replace(method="taylor", taylor=_taylor_table(of, direction))
        if found.judged.verdict != PASS:
            break
    return found


def _along(
    of: Directions, direction: Host, asked: float | None, *, is_real: bool
) -> tuple[Findings, Host, Directions]:
    """Judge the claimed derivative along a direction; its rounding is measured before it fails."""
    numeric = of.derivative(direction, is_real=is_real)
    judged = of.judge(direction, numeric, asked)
    if judged.verdict == FAIL:
        of = of._replace(claimed=with_rounding(of.function, of.claimed, of.size))
        judged = of.judge(direction, numeric, asked)
    return Findings("directional", judged, np.ones(1), of.function.evaluations), direction, of


def _with_entries(of: Directions, found: Findings, direction: Host) -> Findings:
    """Return what was found with some entries: one that is wrong, those beside it, and others."""
    wrong = _tracked_down(of, found.judged, direction)
    row = of.function.problem.point.tensor_at(wrong).row_of(wrong)
    beside = np.arange(row.start, row.stop)[:_SAMPLE]
    places = np.unique([wrong, *beside, *of.sample()])
    lines = along_entries(of.function, places, of.size)
    numeric = settled(lines, complex_step(lines), quick_difference(lines), 0.0)
    alone = Claimed(of.claimed.value[places], of.claimed.bar[places])
    base = tolerance_of(of.function, "entries")
    return found._replace(places=places, entries=judge(alone, numeric, base=base, asked=None))


def _tracked_down(of: Directions, judged: Judged, direction: Host) -> int:
    """Return an entry that is wrong, by halving the direction: a half of it is off as well."""
    result = judged.decides[1]
    value = of.claimed.value[:, result]
    if not np.all(np.isfinite(value)):
        return int(np.argmin(np.isfinite(value)))
    off = float((judged.claimed.value - judged.numeric.value)[0, result])
    first, last = 0, value.size
    while last - first > 1:
        middle = (first + last) // 2
        half = np.zeros_like(value)
        half[first:middle] = direction[first:middle]
        here = float(value @ half) - float(of.derivative(half).value[0, result])
        if abs(here) >= abs(off - here):
            last, off = middle, here
        else:
            first, off = middle, off - here
    return first


def _taylor_table(of: Directions, direction: Host) -> TaylorTable:
    """Measure the remainders of the claimed gradient along a direction, step by step halved.

    It ends where the symmetric remainder has sunk into rounding, or is linear in the step.
    """
    f, direction = of.function, direction * _LONGEST
    slope, line = of.claimed.along(direction), along_direction(of.function, direction)
    norm, rows, largest = float(of.norm(direction)[0, 0]), [], abs(float(f.base[0]))
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
