"""Checking along random directions: a few evaluations, however many entries the point has.

Directions also show whether the complex step can be trusted, and carry the Taylor test. Where one
fails, an entry that is wrong is tracked down by halving the direction.
"""

import functools

import numpy as np

from backprop_xp.gradient_check.analytic import Gradient
from backprop_xp.gradient_check.comparison import compare, contradicts, settled
from backprop_xp.gradient_check.derivatives import (
    along_direction,
    along_entries,
    complex_step,
    ladder,
    quick_difference,
)
from backprop_xp.gradient_check.functions import Host
from backprop_xp.gradient_check.judge import FAIL, Findings, Judged, judge
from backprop_xp.gradient_check.report import ABOVE_NOISE, TaylorTable

# Along a direction the terms of all entries are alike in size, but for those that are less than
# this part of the largest, which would have to be moved too far.
_LEAST_TERM = 1e-3
# So many entries are looked at where kinks meet on a direction, or where one failed.
_SAMPLE = 64
_TAYLOR_STEPS, _LONGEST = 24, 2.0**-4


def _drawn(gradient: Gradient, number: int) -> Host:
    """Return direction ``number``, ``(P,)``: number 1 has the signs of the gradient.

    No entry is near 0, so that no wrong one goes unseen. The step of every entry is at most its
    size, and the shorter the more entries are moved together.
    """
    value, size, function = gradient.finite, gradient.size, gradient.function
    generator = np.random.default_rng([function.problem.options["seed"], number])
    signs = drawn = generator.uniform(-1.0, 1.0, size.size)
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


def _sample(gradient: Gradient) -> Host:
    """Return some entries, in ascending order."""
    count, seed = gradient.size.size, gradient.function.problem.options["seed"]
    return np.sort(np.random.default_rng(seed).permutation(count)[:_SAMPLE])


def is_analytic(gradient: Gradient) -> bool:
    """Say whether the complex step can be trusted, as it shows along direction 0.

    Else value is not analytic, or drops the imaginary part: real differences contradict it. Where
    kinks meet on the direction, which could hide that, so many entries are looked at too.
    """
    line = along_direction(gradient, _drawn(gradient, 0))
    exact = complex_step(line)
    if exact is None:
        return False
    real = settled(line, exact=exact)
    if not real.is_kinked.any():
        return not np.any(contradicts(line, real, exact))
    entries = along_entries(gradient, _sample(gradient))
    quick, alone = quick_difference(entries), complex_step(entries)
    return alone is not None and not np.any(contradicts(entries, quick, alone))


def check_directions(gradient: Gradient, method: str) -> Findings:
    """Check along directions, the first with the gradient's own signs, until one fails.

    By Taylor's method differences alone are taken, and the orders of the remainder measured.
    """
    tried, function = [], gradient.function
    for number in range(1, (function.problem.options["directions"] or 1) + 1):
        direction = _drawn(gradient, number)
        judged = _compared(gradient, direction, by_differences=method == "taylor")
        gradient, found = judged.gradient, Findings(method, judged, function.evaluations)
        if method == "taylor":
            found = found._replace(taylor=_taylor_table(gradient, direction))
        tried.append(found)
        if judged.verdict == FAIL:
            break
    worst = max(tried, key=lambda f: (f.judged.verdict, f.judged.excess[f.judged.decides]))
    if worst.judged.verdict == FAIL:
        return worst._replace(entries=_entries(worst.judged, direction))
    return worst


def _compared(gradient: Gradient, direction: Host, *, by_differences: bool = False) -> Judged:
    """Judge a gradient along a direction."""
    line = along_direction(gradient, direction)
    quick = quick_difference(line)
    closer = ladder if by_differences else functools.partial(settled, quick=quick)
    judged = compare(line, gradient, quick, closer)
    plain = judge(line, judged.gradient, judged.numeric, 0.0)
    if judged.verdict == FAIL or plain.verdict != FAIL:
        return judged
    # What may be the rounding of a sum may be a mistake of one of its terms, too.
    entries = _entries(plain, direction)
    found = compare(entries.lines, gradient, entries.numeric, settled, least=FAIL)
    return plain if found.verdict == FAIL else judged


def _entries(judged: Judged, direction: Host) -> Judged:
    """Judge some entries: one that is wrong, the row that it is in, and others."""
    gradient, wrong = judged.gradient, _tracked_down(judged, direction)
    tensor = gradient.function.problem.point.tensor_at(wrong)
    length = tensor.shape[-1] if tensor.shape else 1
    row = wrong - (wrong - tensor.part.start) % length + np.arange(min(length, _SAMPLE))
    lines = along_entries(gradient, np.unique([wrong, *row, *_sample(gradient)]))
    # Real differences have confirmed a complex step along the direction.
    exact = None if judged.numeric.bar.any() else complex_step(lines)
    return judge(lines, gradient, exact or settled(lines))


def _tracked_down(judged: Judged, direction: Host) -> int:
    """Return an entry that is wrong, by halving the direction: a half of it is off as well.

    Along a half it is enough to know which of both is off by more.
    """
    gradient, result = judged.gradient, judged.decides[1]
    value, is_exact = gradient.value[:, result], not judged.numeric.bar.any()
    if not np.all(np.isfinite(value)):
        return int(np.argmin(np.isfinite(value)))
    off = float((judged.claimed.value - judged.numeric.value)[0, result])
    first, last = 0, value.size
    while last - first > 1:
        middle = (first + last) // 2
        half = np.zeros_like(value)
        half[first:middle] = direction[first:middle]
        line = along_direction(gradient, half)
        exact = complex_step(line) if is_exact else None
        numeric = exact or quick_difference(line)
        here = float((line.claim(gradient).value - numeric.value)[0, result])
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
