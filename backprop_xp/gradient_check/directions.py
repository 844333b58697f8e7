"""The check along random directions: a few evaluations for any number of entries.

Directions also show whether the complex step can be trusted, and serve the Taylor test. If one
fails, bisecting the direction locates a wrong entry.
"""

import functools

import numpy as np

from backprop_xp.gradient_check.analytic import AnalyticGradient
from backprop_xp.gradient_check.comparison import compare, confirmed_complex_step, contradicts
from backprop_xp.gradient_check.derivatives import complex_step, ladder, quick_difference
from backprop_xp.gradient_check.judge import FAIL, Comparison, Findings, judge
from backprop_xp.gradient_check.lines import Lines
from backprop_xp.gradient_check.report import ABOVE_NOISE, TaylorTable

# All terms along a direction have the same size, except those below this part of the largest:
# their entries would have to be perturbed too far.
_LEAST_TERM = 1e-3
# The number of entries that are compared where kinks meet on a direction, or where it fails.
_SAMPLE = 64
_TAYLOR_STEPS, _LONGEST = 24, 2.0**-4


def random_direction(gradient: AnalyticGradient, number: int) -> np.ndarray:
    """Return random direction ``number``, ``(P,)``: number 1 has the signs of the gradient.

    No entry is near 0, so that every wrong one shows. The step of an entry is at most its scale,
    and becomes shorter with the number of entries.
    """
    scale, function = gradient.scale, gradient.function
    generator = np.random.default_rng([function.options["seed"], number])
    signs = drawn = generator.uniform(-1.0, 1.0, scale.size)
    if number == 1:
        slope = gradient.finite.sum(axis=1)
        signs = np.where(slope == 0.0, drawn, slope)
    terms = np.abs(gradient.finite * scale[:, None]).max(axis=1)
    terms = np.maximum(terms, _LEAST_TERM * terms.max())
    weights = terms.min() / terms if terms.max() > 0.0 else np.ones_like(terms)
    weights *= scale * float(scale.size) ** -0.25
    return function.inwards(np.copysign(weights * (0.5 + 0.5 * np.abs(drawn)), signs))


def _sample(gradient: AnalyticGradient) -> np.ndarray:
    """Return the indices of some entries, in ascending order."""
    seed = gradient.function.options["seed"]
    return np.sort(np.random.default_rng(seed).permutation(gradient.scale.size)[:_SAMPLE])


def is_analytic(gradient: AnalyticGradient) -> bool:
    """Whether the complex step can be trusted: real differences along direction 0 confirm it.

    Kinks that meet on the direction could hide a value that is not analytic: then entries decide.
    """
    line = Lines(gradient, direction=random_direction(gradient, 0))
    exact = complex_step(line)
    if exact is None:
        return False
    real = confirmed_complex_step(line, exact=exact)
    if not real.is_kinked.any():
        return not np.any(contradicts(line, real, exact))
    entries = Lines(gradient, _sample(gradient))
    quick, exact = quick_difference(entries), complex_step(entries)
    return exact is not None and not np.any(contradicts(entries, quick, exact))


def check_directions(gradient: AnalyticGradient, method: str) -> Findings:
    """Check along directions until one fails; the first has the gradient's own signs.

    The method "taylor" takes differences only, and measures the orders of the remainder.
    """
    tried, function = [], gradient.function
    for number in range(1, (function.options["directions"] or 1) + 1):
        line = Lines(gradient, direction=random_direction(gradient, number))
        quick = quick_difference(line)
        confirmed = functools.partial(confirmed_complex_step, quick=quick)
        comparison = compare(line, quick, ladder if method == "taylor" else confirmed)
        strict = judge(comparison.lines, comparison.numeric, 0.0)
        evaluations, gradient = function.evaluations, comparison.lines.gradient
        entries = _compared_entries(strict) if strict.verdict == FAIL else None
        if entries is not None and comparison.verdict != FAIL:
            # A possible rounding error of the sum may be a mistake of one of its terms.
            found = compare(entries.lines, entries.numeric, confirmed_complex_step, least=FAIL)
            comparison = strict if found.verdict == FAIL else comparison
            evaluations = function.evaluations
        table = _taylor_table(comparison.lines) if method == "taylor" else None
        if comparison.verdict == FAIL:
            return Findings(method, comparison, evaluations, entries, table)
        tried.append(Findings(method, comparison, evaluations, taylor=table))
    return max(tried, key=lambda f: (f.comparison.verdict, f.comparison.excess.max()))


def _compared_entries(comparison: Comparison) -> Comparison:
    """Judge a sample of entries: a wrong one, others of its row, and random ones."""
    gradient, wrong = comparison.lines.gradient, _wrong_entry(comparison)
    tensor = gradient.function.point.tensor_at(wrong)
    length = tensor.shape[-1] if tensor.shape else 1
    row = wrong - (wrong - tensor.part.start) % length + np.arange(min(length, _SAMPLE))
    lines = Lines(gradient, np.unique([wrong, *row, *_sample(gradient)]))
    # Real differences have confirmed a complex step along the direction.
    exact = None if comparison.numeric.bar.any() else complex_step(lines)
    return judge(lines, exact or confirmed_complex_step(lines))


def _wrong_entry(comparison: Comparison) -> int:
    """Return the index of a wrong entry, found by bisecting for the larger error."""
    lines, result = comparison.lines, comparison.decisive[1]
    value, is_exact = lines.gradient.value[:, result], not comparison.numeric.bar.any()
    if lines.direction is None or not np.all(np.isfinite(value)):
        return int(np.argmin(np.isfinite(value)))
    error = float((comparison.analytic.value - comparison.numeric.value)[0, result])
    first, last = 0, value.size
    while last - first > 1:
        middle = (first + last) // 2
        half = np.zeros_like(value)
        half[first:middle] = lines.direction[first:middle]
        line = Lines(lines.gradient, direction=half)
        numeric = (complex_step(line) if is_exact else None) or quick_difference(line)
        error_of_half = float((line.analytic.value - numeric.value)[0, result])
        if abs(error_of_half) >= abs(error - error_of_half):
            last, error = middle, error_of_half
        else:
            first, error = middle, error - error_of_half
    return first


def _taylor_table(line: Lines) -> TaylorTable:
    """Return the Taylor remainders, until they are below the rounding error or clearly linear."""
    function, rows, largest = line.function, [], 0.0
    slope, bar, norm = (float(a[0, 0]) for a in (line.analytic.value, line.analytic.bar, line.norm))
    for h in (_LONGEST * 2.0 ** -np.arange(_TAYLOR_STEPS)).tolist():
        values, _, correction = line.probe(np.asarray([[h], [-h]]))
        change = (values - correction)[:, 0, 0] - function.fx[0]
        up, down = (change - np.asarray([h, -h]) * slope).tolist()
        largest = max(largest, abs(float(function.fx[0])), float(np.abs(values).max()))
        noise = function.epsilon * (4.0 * largest + norm * h) + bar * h
        rows.append((h, abs(up), abs(up - down), noise))
        last = np.asarray([row[2] for row in rows[-5:]])
        with np.errstate(all="ignore"):
            is_linear = len(last) == 5 and np.all(np.abs(last[:-1] / last[1:] - 2.0) < 0.1)
        if not rows[-1][2] > ABOVE_NOISE * noise or is_linear:
            break
    return TaylorTable(*zip(*rows, strict=True))
