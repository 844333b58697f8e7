"""The check along random directions: a few evaluations for any number of entries.

If a direction fails, bisecting it locates a wrong entry. Directions also serve the Taylor test.
"""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np

from backprop_xp.gradient_check.engine.analytic import AnalyticGradient
from backprop_xp.gradient_check.engine.derivatives import complex_step, quick_difference
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative, random_direction
from backprop_xp.gradient_check.inputs.functions import Fault
from backprop_xp.gradient_check.verdict.comparison import compare
from backprop_xp.gradient_check.verdict.judge import FAIL, Comparison, Findings, judge
from backprop_xp.gradient_check.verdict.report import ABOVE_NOISE, TaylorTable

# The number of entries of the row of a wrong one, and of random ones, that are compared.
_OF_ROW, _SAMPLE = 16, 64
_TAYLOR_STEPS, _LONGEST = 24, 2.0**-4


def check_directions(gradient: AnalyticGradient, method: str) -> Findings:
    """Check along directions until one fails; the first has the gradient's own signs.

    The method "taylor" takes differences only, and measures the orders of the remainder.
    """
    tried, function = [], gradient.function
    for number in range(1, (function.options["directions"] or 1) + 1):
        line = Lines(gradient, direction=random_direction(gradient, number))
        comparison = compare(line, quick_difference(line))
        gradient = comparison.lines.gradient
        table = _taylor_table(comparison.lines) if method == "taylor" else None
        tried.append(Findings(method, comparison, taylor=table))
        if comparison.verdict == FAIL:
            with contextlib.suppress(Fault):  # a limit of the search costs no verdict
                entries = _compared_entries(comparison)
                return tried[-1]._replace(entries=entries)
            return tried[-1]
    return max(tried, key=lambda f: (f.comparison.verdict, f.comparison.excess.max()))


def _compared_entries(comparison: Comparison) -> Comparison:
    """Judge a sample of entries: a wrong one, others of its row, and random ones."""
    gradient, wrong = comparison.lines.gradient, _wrong_entry(comparison)
    tensor = gradient.function.point.tensor_at(wrong)
    length = tensor.shape[-1] if tensor.shape else 1
    row = wrong - (wrong - tensor.part.start) % length + np.arange(min(length, _OF_ROW))
    lines = Lines(gradient, np.unique([wrong, *row, *gradient.sample(_SAMPLE)]))
    return judge(lines, _derivative(lines))


def _derivative(lines: Lines) -> NumericDerivative:
    exact = complex_step(lines) if lines.function.is_analytic else None
    return exact or quick_difference(lines)


def _wrong_entry(comparison: Comparison) -> int:
    """Return the index of a wrong entry, found by bisecting for the larger error."""
    lines, result = comparison.lines, comparison.decisive[1]
    value = lines.gradient.value[:, result]
    if lines.direction is None or not np.all(np.isfinite(value)):
        return int(np.argmin(np.isfinite(value)))
    error = float((comparison.analytic.value - comparison.numeric.value)[0, result])
    first, last = 0, value.size
    while last - first > 1:
        middle = (first + last) // 2
        half = np.zeros_like(value)
        half[first:middle] = lines.direction[first:middle]
        line = Lines(lines.gradient, direction=half)
        error_of_half = float((line.analytic.value - _derivative(line).value)[0, result])
        if abs(error_of_half) >= abs(error - error_of_half):
            last, error = middle, error_of_half
        else:
            first, error = middle, error - error_of_half
    return first


def _taylor_table(line: Lines) -> TaylorTable | None:
    """Return the Taylor remainders, until they are below the rounding error or clearly linear.

    A limit of the evaluations ends them too, but costs no verdict: None if it leaves no remainder.
    """
    rows: list[tuple[float, float, float, float]] = []
    with contextlib.suppress(Fault):
        for row in _remainders(line):
            rows.append(row)  # noqa: PERF402 - those before the limit are kept
    return TaylorTable(*zip(*rows, strict=True)) if rows else None


def _remainders(line: Lines) -> Iterator[tuple[float, float, float, float]]:
    """Yield the steps with both remainders and their rounding."""
    function, last, largest = line.function, list[float](), 0.0
    slope, bar, norm = (float(a[0, 0]) for a in (line.analytic.value, line.analytic.bar, line.norm))
    for h in (_LONGEST * 2.0 ** -np.arange(_TAYLOR_STEPS)).tolist():
        values, _, correction = line.probe(np.asarray([[h], [-h]]))
        change = (values - correction)[:, 0, 0] - function.fx[0]
        up, down = (change - np.asarray([h, -h]) * slope).tolist()
        largest = max(largest, abs(float(function.fx[0])), float(np.abs(values).max()))
        noise = function.epsilon * (4.0 * largest + norm * h) + bar * h
        yield h, abs(up), abs(up - down), noise
        last = [*last[-4:], abs(up - down)]
        ratios = [a / b if b else 0.0 for a, b in itertools.pairwise(last)]
        is_linear = len(ratios) == 4 and all(abs(ratio - 2.0) < 0.1 for ratio in ratios)
        if not last[-1] > ABOVE_NOISE * noise or is_linear:
            break
