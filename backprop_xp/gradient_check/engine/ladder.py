"""Derivatives from a ladder of steps along each line: for kinks, and for narrow features.

Over steps shorter than its unit, a coarse value is constant, and so is a coarse term inside a
value. The slope there is not the derivative, however smooth the value looks. A coarse value jumps
where the next unit begins, to the right and to the left; a kink or a narrow feature changes it
without a jump. So the first change that shorter steps do not predict is bisected. Such jumps are
noise of the values at all steps.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.engine import extrapolation
from backprop_xp.gradient_check.engine.analytic import AnalyticGradient
from backprop_xp.gradient_check.engine.constants import (
    BISECTIONS,
    CARRIED,
    FAINT,
    GROWTH,
    JUMP,
    KEPT,
    LAST,
    LONGER,
    SEARCHED,
    SMOOTH,
    SURPRISE,
    TINY,
)
from backprop_xp.gradient_check.engine.extrapolation import Side, longer, over_shorter
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative, long_direction


class _Rungs(NamedTuple):
    """Changes ``(S, K, M)`` of the value at steps ``(S, K, 1)`` to the right and to the left."""

    right: np.ndarray
    left: np.ndarray
    up: np.ndarray
    down: np.ndarray

    @property
    def sides(self) -> tuple[Side, Side]:
        """The changes and the steps of each side."""
        return (self.right, self.up), (self.left, self.down)

    def derivative(self, noise: np.ndarray) -> NumericDerivative:
        """Return the derivatives, given the noise ``(S, K, M)`` of the values."""
        right, left, up, down = self
        found = extrapolation.extrapolate(self.sides, noise)
        for side in self.sides:  # the other one may be outside of the domain
            sided = extrapolation.extrapolate([side], noise)
            found = found.where(~np.isfinite(found.bar), sided)
        return extrapolation.with_kinks(found, right / up, left / down, noise, up)

    def parabolas(self) -> tuple[np.ndarray, np.ndarray]:
        """Return slope and bend of the parabolas through the values of each rung, and the point.

        A rung with a value on one side has a straight line.
        """
        one, other = self.right / self.up, self.left / self.down
        bend = (one - other) / (self.up - self.down)
        bend = np.where(np.isfinite(bend), bend, 0.0)
        return np.where(np.isfinite(one), one - bend * self.up, other), bend

    def rests(self) -> np.ndarray:
        """Return by how much ``(2, S, K, M)`` each rung misses the next longer one on each side."""
        slope, bend = self.parabolas()
        rests = np.abs([longer(v) - longer(h) * (slope + bend * longer(h)) for v, h in self.sides])
        return np.where(np.isfinite(rests), rests, 0.0)

    def bends(self) -> np.ndarray:
        """Return by how much ``(S, K, M)`` a straight line on each side misses the next rung."""
        rests = np.abs([longer(v) - longer(h) * (v / h) for v, h in self.sides])
        return np.asarray(np.where(np.isfinite(rests), rests, 0.0).max(axis=0))

    def surprises(self, noise: np.ndarray, limit: np.ndarray, *, every: bool) -> np.ndarray:
        """Return the last rungs ``(K, M)`` below a limit that do not predict the next longer one.

        They are 0 where all predict it. A smooth function may be missed by more at each longer
        rung. With ``every``, only a miss that grows as fast is explained by that.
        """
        missed = np.max(self.rests(), axis=0)
        none = 0.0 * missed[:1]
        last = np.concatenate([missed[1:], none])
        growth = np.nan_to_num(last / np.concatenate([last[1:], none]), nan=1.0)
        before = np.concatenate([over_shorter(np.fmax, missed)[1:], none])
        before = np.fmax(before, np.clip(growth, 1.0, GROWTH) * last)
        each = np.arange(len(missed))[:, None, None]
        shown = missed > SURPRISE * before
        if every:
            shown |= missed < SMOOTH * last
        shown &= missed > SURPRISE * CARRIED * noise
        return np.asarray(np.max(each * (shown & (each < limit)), axis=0))

    def sizes(self, fx: np.ndarray) -> np.ndarray:
        """Return the size ``(S, K, M)`` of the values of each rung, and of the point's."""
        sizes = np.abs(fx + np.stack([self.right, self.left, np.zeros_like(self.right)]))
        return np.asarray(np.max(np.where(np.isfinite(sizes), sizes, 0.0), axis=0))

    def without(self, broken: np.ndarray) -> "_Rungs":
        """Return the rungs without the values beyond some of them ``(2, K, M)``, right and left."""
        each = np.arange(len(self.up))[:, None, None]
        right = np.where(each < broken[0], np.nan, self.right)
        left = np.where(each < broken[1], np.nan, self.left)
        return self._replace(right=right, left=left)


@np.errstate(all="ignore")
def ladder(lines: Lines) -> NumericDerivative:
    """Return derivatives from a ladder of steps, from half the scale down to the rounding error.

    Where the value is constant over all of them, but the gradient is not 0, the value may be
    coarse: longer steps follow. The function keeps the jumps of coarse values.
    """
    rungs = _climb(lines, 0.5 * 4.0 ** -np.arange(lines.rungs))
    found, is_constant = _derivative(lines, rungs)
    is_coarse = is_constant & np.isfinite(found.bar) & (lines.analytic.value != 0.0)
    if (some := np.flatnonzero(np.any(is_coarse, axis=1))).size:
        far = lines.select(some)
        parts = zip(_climb(far, LONGER), (part[:, some] for part in rungs), strict=True)
        other = _derivative(far, _Rungs(*map(np.concatenate, parts)))[0]
        # They skip what is near, so that they can confirm the gradient, but not refute it.
        gap = np.abs(other.value - far.analytic.value)
        other = other._replace(bar=np.where(gap > other.bar, gap, other.bar))
        found = found.with_lines(some, found.select(some).where(is_coarse[some], other))
    return found._replace(step=found.step / lines.scale[:, None])


def search(lines: Lines) -> None:
    """Search for the jumps of coarse values beyond each step; the function keeps the largest.

    A value may have terms of many units: each longer step shows larger jumps, and none surprises
    beside those before. Over shorter steps than its own jumps take, a term's slope is missed.
    """
    with np.errstate(all="ignore"):
        rungs = _climb(lines, 0.5 * 4.0 ** -np.arange(lines.rungs))
        jumps, _ = _jumps(lines, rungs, _rounding(lines, rungs), every=True)
    lines.function.coarseness = np.fmax(lines.function.coarseness, jumps.max(axis=0))


def search_beyond(gradient: AnalyticGradient) -> None:
    """Search for the jumps of terms that cancel beside tiny entries, along a longer direction.

    ``1 - cos(p)`` is 0 for entries below 1e-8: no step of their size shows the term. A rung has the
    rounding of the values up to the next longer one. The first jumps count: over longer steps the
    rounding of a term may grow. Jumps of a larger part of the longest values are no rounding.
    """
    function = gradient.function
    if function.problem.scale is not None or gradient.scale.max() >= TINY or function.is_limited:
        return
    lines = Lines(gradient, direction=long_direction(gradient))
    with np.errstate(all="ignore"):
        rungs = _climb(lines, 0.5 * 4.0 ** -np.arange(lines.rungs))
        sizes = over_shorter(np.fmax, rungs.sizes(function.fx))
        rounding = function.epsilon * np.concatenate([sizes[:1], sizes[:-1]])
        jumps, _ = _jumps(lines, rungs, rounding, every=True, first=True)
    jumps = np.where(jumps <= FAINT * sizes[0], jumps, 0.0)
    if np.any(jumps):
        function.coarseness = np.fmax(function.coarseness, jumps.max(axis=0))
        function.is_measured, function.is_analytic = True, False


def _derivative(lines: Lines, rungs: _Rungs) -> tuple[NumericDerivative, np.ndarray]:
    """Return the derivatives that the rungs show, and whether the value is constant there."""
    function, (jumps, rungs) = lines.function, _jumps(lines, rungs, _rounding(lines, rungs))
    function.coarseness = np.fmax(function.coarseness, jumps.max(axis=0))
    # All lines have the same values at the point, with the same jumps nearby.
    known = function.coarseness if function.is_measured else jumps
    found = rungs.derivative(np.fmax(_rounding(lines, rungs), known))
    return found, ~np.any(np.nan_to_num([rungs.right, rungs.left]), axis=(0, 1))


def _climb(lines: Lines, steps: np.ndarray) -> _Rungs:
    """Return the changes of the value at all steps ``(S,)``."""
    h, count = lines.scale * steps[:, None], len(steps)
    values, steps, correction = lines.probe(np.concatenate([h, -h]))
    change = _changes(values, lines.function.fx, correction)
    return _Rungs(change[:count], change[count:], steps[:count], steps[count:])


def _rounding(lines: Lines, rungs: _Rungs) -> np.ndarray:
    """Return the rounding ``(S, K, M)`` of the values."""
    function, fx = lines.function, lines.function.fx
    # Terms may cancel at the point: they are as large as the values are further away.
    noise = function.epsilon * rungs.sizes(fx).max(axis=0)
    # The rounding error of terms that cancel is that of the entry, times the slope.
    x = function.x[lines.columns] if lines.columns.size else np.zeros(1)
    slope = np.abs((rungs.right - rungs.left) / (rungs.up - rungs.down))
    return np.asarray(np.fmax(noise, function.epsilon * np.abs(x)[:, None] * slope))


def _jumps(
    lines: Lines, rungs: _Rungs, rounding: np.ndarray, *, every: bool = False, first: bool = False
) -> tuple[np.ndarray, _Rungs]:
    """Return the largest jumps ``(K, M)`` of coarse values, and the rungs that show the function.

    Coarse values jump to the right and to the left of the point. Beyond a jump on one side alone,
    and beyond a pole, the function is another one: those values count as little as those outside of
    the domain.
    """
    noise = rounding
    jumps, limit = np.zeros(rounding.shape[1:]), np.full(rounding.shape[1:], len(rounding))
    # Nothing is known about the jumps of a side that ends.
    ends = np.stack([~np.all(np.isfinite(change), axis=0) for change, _ in rungs.sides])
    # The terms of a value may have several units: larger ones show at longer steps.
    while np.any(limit := rungs.surprises(noise, limit, every=every)):
        rests = np.stack([_at(rest, limit) for rest in rungs.rests()])
        size, largest = rests.max(axis=0), over_shorter(np.fmax, rungs.sizes(lines.function.fx))
        found = _jumps_around(lines, rungs, limit, rests)
        # A kink at the point spoils the parabola, but its sides are straight: it is no pole.
        least = np.minimum(size, _at(rungs.bends(), limit))
        is_jump, is_pole = np.any(found > 0.0, axis=0), least > _at(largest, limit)
        is_coarse = _on_both(np.where(ends, is_jump, found)) | (limit < SEARCHED) & ~is_pole
        is_coarse &= is_jump
        jumps = np.fmax(jumps, np.where(is_coarse, found.max(axis=0), 0.0))
        if first and np.any(jumps):
            break
        is_broken = (rests > 0.5 * size) & (is_jump | is_pole) & ~is_coarse
        rungs = rungs.without(np.where(is_broken, limit, 0))
        # With ``every``, each miss by more than known jumps explain shows larger ones.
        noise = np.fmax(rounding, jumps / SURPRISE if every else jumps)
    return jumps, rungs


def _at(table: np.ndarray, rungs: np.ndarray) -> np.ndarray:
    """Return the values ``(K, M)`` of a table at some rungs ``(K, M)``."""
    return np.asarray(np.take_along_axis(table, rungs[None], 0)[0])


def _on_both(found: np.ndarray) -> np.ndarray:
    """Whether a result of a line ``(K, 1)`` jumps ``(2, K, M)`` on both sides."""
    return np.asarray(np.any(np.all(found > 0.0, axis=0), axis=1, keepdims=True))


def _jumps_around(lines: Lines, rungs: _Rungs, at: np.ndarray, rests: np.ndarray) -> np.ndarray:
    """Return the jumps ``(2, K, M)`` to the right and left, beyond some rungs.

    The side with the larger rest is searched. If it jumps, the other one is, also further away,
    until one result of a line jumps on both: the results are rounded alike.
    """
    size, is_right = rests.max(axis=0), rests[0] >= rests[1]
    sought = np.where(is_right, at, 0), np.where(is_right, 0, at)
    pairs = zip(rungs.sides, sought, strict=True)
    found = np.stack([_jumps_beyond(lines, side, here, size) for side, here in pairs])
    for side, here, there in zip(rungs.sides, found, found[::-1], strict=True):
        further = np.where((here == 0.0) & (there > 0.0), at, 0)
        while np.any(further := np.where(_on_both(found), 0, further)):
            here[:] = np.fmax(here, _jumps_beyond(lines, side, further, there))
            further = np.maximum(further - 1, 0)
    return found


def _changes(values: np.ndarray, fx: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """Return the changes from fx. A coarse value ignores the rounding of the point, too."""
    return np.where(values == fx, 0.0, values - fx - correction)


def _jumps_beyond(lines: Lines, side: Side, rungs: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the jumps ``(K, M)`` of the value beyond some rungs, 0 where it is continuous.

    The rungs ``(K, M)`` of the side are 0 where no jump is sought; one is not tiny beside a
    ``size (K, M)``.
    """
    line, result = np.nonzero(rungs)
    # A line whose results are searched at several rungs appears once for each of these.
    which, at = np.unique(np.stack([line, rungs[line, result]]), axis=1)
    is_here = rungs[which] == at[:, None]
    (changes, steps), size = side, size[which]
    below = np.minimum(at + 1, len(steps) - 1)
    slope, other = (changes[rung, which] / steps[rung, which] for rung in (at, below))
    bend = np.nan_to_num((slope - other) / (steps[at, which] - steps[below, which]))
    slope = slope - bend * steps[at, which]

    def rest(change: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return what the parabola leaves of a change; results of other rungs do not count."""
        found = change - step * (slope + bend * step)
        return np.where(is_here & np.isfinite(found), found, 0.0)

    near, far = steps[at, which], steps[at - 1, which]
    before, behind = rest(changes[at, which], near), rest(changes[at - 1, which], far)

    def part(rest: np.ndarray) -> np.ndarray:
        return np.asarray(np.max(np.nan_to_num(np.abs(rest) / size), axis=1, keepdims=True))

    some, fx, wide = lines.select(which), lines.function.fx, size
    for remaining in range(BISECTIONS, 0, -1):
        if remaining == LAST:
            wide = np.abs(behind - before)
        if not np.any(part(behind - before) > JUMP):
            break
        values, moved, correction = some.probe((near + far).T / 2.0)
        middle, here = moved[0], rest(_changes(values, fx, correction)[0], moved[0])
        is_near = part(here - before) >= part(behind - here)
        near, far = np.where(is_near, (near, middle), (middle, far))
        before, behind = np.where(is_near, (before, here), (here, behind))
    kept, jump = part(behind - before), np.zeros(rungs.shape)
    is_jump = (kept > JUMP) & (kept >= KEPT * part(wide))
    # The results of a function are rounded alike.
    np.maximum.at(jump, which, np.where(is_here & is_jump, kept * size, 0.0))
    return jump
