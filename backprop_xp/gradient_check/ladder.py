"""Derivatives from a ladder of steps along each line: for kinks, and for narrow features.

Over steps shorter than its unit, a coarse value is constant, and so is a coarse term inside a
value. The slope there is not the derivative, however smooth the value looks. A coarse value jumps
where the next unit begins; a kink or a narrow feature changes it without a jump. So the first
change that shorter steps do not predict is bisected. A jump is noise of the values at all steps.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check import extrapolation
from backprop_xp.gradient_check.extrapolation import longer, over_shorter
from backprop_xp.gradient_check.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.stencils import unit_of

# A parabola predicts the value at a step four times as long with 17 times the noise of its values,
# and misses at most 64 times as much of a smooth function as at the step before. A change is a
# surprise above eight times what shorter steps lead to expect.
_CARRIED, _GROWTH, _SURPRISE = 17.0, 64.0, 8.0
# A jump keeps its size at each bisection of its interval, down to neighbouring numbers: it is a
# part of the first change, and a quarter of what was left before the last bisections. Beside the
# pole of a logarithm each bisection leaves the same less.
_BISECTIONS, _JUMP, _LAST, _KEPT = 48, 2.0**-5, 8, 0.25
# A value that is constant around the point differs at one of these distances, most likely.
_FAR = 1.37 * 2.0 ** np.asarray([0.0, 8.0, 16.0, 24.0])


class _Rungs(NamedTuple):
    """Changes ``(S, K, M)`` of the value at steps ``(S, K, 1)`` to the right and to the left."""

    right: np.ndarray
    left: np.ndarray
    up: np.ndarray
    down: np.ndarray

    def derivative(self, noise: np.ndarray) -> NumericDerivative:
        """Return the derivatives, given the noise ``(S, K, M)`` of the values."""
        right, left, up, down = self
        h, uneven = (up - down) / 2.0, -up - down
        found = extrapolation.extrapolate(h, right - left, right + left, noise, uneven)
        for h, one in ((up, right), (-down, -left)):  # one side may be outside of the domain
            sided = extrapolation.extrapolate(h, one, None, noise)
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

    def surprises(self, noise: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Return the last rungs ``(K, M)`` below a limit that do not predict the next longer one.

        They are 0 where all predict it.
        """
        slope, bend = self.parabolas()
        sides = (self.right, self.up), (self.left, self.down)
        rests = np.abs([longer(v) - longer(h) * (slope + bend * longer(h)) for v, h in sides])
        missed = np.max(rests, axis=0, initial=0.0, where=np.isfinite(rests))
        none = 0.0 * missed[:1]
        last = np.concatenate([missed[1:], none])
        growth = np.nan_to_num(last / np.concatenate([last[1:], none]), nan=1.0)
        before = np.concatenate([over_shorter(np.fmax, missed)[1:], none])
        before = np.fmax(before, np.clip(growth, 1.0, _GROWTH) * last)
        each = np.arange(len(missed))[:, None, None]
        shown = missed > _SURPRISE * np.fmax(_CARRIED * noise, before)
        return np.asarray(np.max(each * (shown & (each < limit)), axis=0))


@np.errstate(all="ignore")
def ladder(lines: Lines) -> NumericDerivative:
    """Return derivatives from a ladder of steps, from half the scale down to the rounding error."""
    rungs, rounding, values = _climb(lines)
    noise = np.fmax(rounding, _jumps(lines, rungs, rounding))
    is_constant = np.all((values == lines.function.fx) | ~np.isfinite(values), axis=0)
    found = _with_far_unit(lines, rungs.derivative(noise), is_constant)
    return found._replace(step=found.step / lines.scale[:, None])


@np.errstate(all="ignore")
def coarseness(lines: Lines) -> np.ndarray:
    """Return the largest jumps ``(K, M)`` of the values along lines, 0 where there are none."""
    rungs, rounding, _ = _climb(lines)
    return _jumps(lines, rungs, rounding)


def _climb(lines: Lines) -> tuple[_Rungs, np.ndarray, np.ndarray]:
    """Return the changes at all steps, their rounding ``(S, K, M)``, and the values."""
    function, fx, count = lines.function, lines.function.fx, lines.rungs
    h = lines.scale * 0.5 * 4.0 ** -np.arange(count)[:, None]
    values, steps, correction = lines.probe(np.concatenate([h, -h]))
    change = _changes(values, fx, correction)
    rungs = _Rungs(change[:count], change[count:], steps[:count], steps[count:])
    # Terms may cancel at the point: they are as large as the values are further away.
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    noise = function.epsilon * np.fmax(sizes.max(axis=0), np.abs(fx))
    # The rounding error of terms that cancel is that of the entry, times the slope.
    x = function.x[lines.columns] if lines.columns.size else np.zeros(1)
    slope = np.abs((rungs.right - rungs.left) / (rungs.up - rungs.down))
    return rungs, np.fmax(noise, function.epsilon * np.abs(x)[:, None] * slope), values


def _jumps(lines: Lines, rungs: _Rungs, rounding: np.ndarray) -> np.ndarray:
    """Return the largest jumps ``(K, M)`` of the values, given their rounding ``(S, K, M)``."""
    noise, jumps = rounding, np.zeros(rounding.shape[1:])
    limit = np.full(jumps.shape, len(rounding))
    # The terms of a value may have several units: larger ones show at longer steps.
    while np.any(limit := rungs.surprises(noise, limit)):
        jumps = np.fmax(jumps, _jumps_beyond(lines, rungs, limit))
        noise = np.fmax(rounding, jumps)
    return jumps


def _changes(values: np.ndarray, fx: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """Return the changes from fx. A coarse value ignores the rounding of the point, too."""
    return np.where(values == fx, 0.0, values - fx - correction)


def _jumps_beyond(lines: Lines, rungs: _Rungs, surprises: np.ndarray) -> np.ndarray:
    """Return the jumps ``(K, M)`` of the value beyond some rungs, 0 where it is continuous.

    The rungs ``(K, M)`` are 0 where no jump is sought.
    """
    line, result = np.nonzero(surprises)
    # A line whose results have surprises at several rungs appears once for each of these.
    which, at = np.unique(np.stack([line, surprises[line, result]]), axis=1)
    is_here = surprises[which] == at[:, None]
    slope, bend = (part[at, which] for part in rungs.parabolas())

    def rest(change: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return what the parabola leaves of a change; results of other rungs do not count."""
        found = change - step * (slope + bend * step)
        return np.where(is_here & np.isfinite(found), found, 0.0)

    right, left, up, down = (part[at - 1, which] for part in rungs)
    rests = rest(right, up), rest(left, down)
    size = np.fmax(*np.abs(rests))

    def part(rest: np.ndarray) -> np.ndarray:
        return np.asarray(np.max(np.nan_to_num(np.abs(rest) / size), axis=1, keepdims=True))

    is_right = part(rests[0]) >= part(rests[1])
    near = np.where(is_right, rungs.up[at, which], rungs.down[at, which])
    far, before, behind = np.where(is_right, up, down), 0.0 * size, np.where(is_right, *rests)
    some, fx, wide = lines.select(which), lines.function.fx, size
    for remaining in range(_BISECTIONS, 0, -1):
        if remaining == _LAST:
            wide = np.abs(behind - before)
        if not np.any(part(behind - before) > _JUMP):
            break
        values, steps, correction = some.probe((near + far).T / 2.0)
        middle, here = steps[0], rest(_changes(values, fx, correction)[0], steps[0])
        is_near = part(here - before) >= part(behind - here)
        near, far = np.where(is_near, (near, middle), (middle, far))
        before, behind = np.where(is_near, (before, here), (here, behind))
    kept, jump = part(behind - before), np.zeros(surprises.shape)
    is_jump = (kept > _JUMP) & (kept >= _KEPT * part(wide))
    # The results of a function are rounded alike.
    np.maximum.at(jump, which, np.where(is_here & is_jump, kept * size, 0.0))
    return jump


def _with_far_unit(
    lines: Lines, found: NumericDerivative, is_constant: np.ndarray
) -> NumericDerivative:
    """Return derivatives with bars for the unit of a constant value, which only shows far away."""
    is_constant = is_constant & np.isfinite(found.bar)
    constant = np.flatnonzero(np.any(is_constant, axis=1))
    if not constant.size:
        return found
    some, fx = lines.select(constant), lines.function.fx
    far = some.probe(_FAR[:, None] * some.scale)[0]
    units = [np.where(one != fx, unit_of(one[None]), np.inf) for one in far]
    unit = np.min(units, axis=0)
    bar = np.where(is_constant[constant] & np.isfinite(unit), unit, 0.0) / some.scale[:, None]
    wider = found.bar.copy()
    wider[constant] = np.fmax(wider[constant], bar)
    return found._replace(bar=wider)
