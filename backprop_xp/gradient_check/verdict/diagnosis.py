"""The diagnosis of a wrong gradient: common mistakes, tried one after the other.

An explanation is a gradient made of the analytic gradient and the point that agrees with the
numeric gradient: ``u + c v`` for some number c, or entries in another order. It is tried on each
wrong tensor, by the entries that were compared: all of them, or a sample where a direction failed.
One or two entries fit almost any explanation, so the check gives none for them.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.inputs.problems import Problem
from backprop_xp.gradient_check.verdict.judge import Comparison, tolerance_of

# An explanation leaves at most this part of the difference, and less where rounding allows.
_MOST_LEFT_OVER, _LEAST_LEFT_OVER = 0.02, 1e-6
# The number of entries that must agree on a fitted number.
_ENOUGH = 3
# Factors between units of measurement.
_UNITS = (*(10.0**n for n in range(1, 13)), 60.0, 3600.0, 180.0 / math.pi, 2.0 * math.pi)
# Mistakes with the penalty, by the part of its gradient that would have to be added.
_SHARES = {1.0: "lacks", 0.5: "contains half of", -1.0: "contains twice", 2.0: "contains minus"}
_is_close = functools.partial(math.isclose, rel_tol=2e-3)


class _Evidence(NamedTuple):
    """A tensor: its analytic and numeric gradient and the parameter, in arrays of one shape.

    ``bar`` is the part of a difference that rounding explains, infinite where the numeric gradient
    is unknown. Differences are ``compared`` where it is small; ``is_wrong``: some difference
    exceeds its tolerance. For a Jacobian the arrays have a first axis of results.
    """

    name: str
    analytic: np.ndarray
    parameter: np.ndarray
    numeric: np.ndarray
    bar: np.ndarray
    compared: np.ndarray
    is_wrong: bool
    label: Callable[[list[int]], str] = str

    @property
    def slack(self) -> float:  # the largest bar of a compared entry
        return float(np.max(self.bar[self.compared]))

    @property
    def difference(self) -> np.ndarray:  # its magnitude, 0 where it is unknown
        return np.where(self.compared, np.abs(self.analytic - self.numeric), 0.0)

    @property
    def left_over(self) -> float:  # the largest difference that an explanation may leave
        largest = float(np.max(self.difference, initial=0.0))
        return min(max(_LEAST_LEFT_OVER * largest, 2.0 * self.slack), _MOST_LEFT_OVER * largest)

    @property
    def wrong(self) -> np.ndarray:  # whether an entry needs an explanation
        return self.difference > self.left_over

    def is_enough(self, part: np.ndarray) -> bool:
        """Whether enough entries agree on a number fitted to ``part``, not by chance."""
        return int(np.count_nonzero(part[self.compared])) >= _ENOUGH

    def agrees(self, candidate: np.ndarray) -> bool:
        """Whether a gradient equals the numeric gradient where that is known."""
        numbers = candidate.reshape(self.compared.shape)[self.compared]
        return bool(np.all(np.abs(numbers - self.numeric[self.compared]) <= self.left_over))

    def fit(self, start: np.ndarray | float, part: np.ndarray) -> float:
        """Return the number c for which ``start + c part`` is the numeric gradient, or NaN."""
        vector = part[self.compared]
        factor = float(vector @ (self.numeric - start)[self.compared] / (vector @ vector))
        return factor if self.agrees(start + factor * part) else math.nan

    def among(self, entries: np.ndarray) -> str:
        """Return words for some of the entries."""
        first = self.label(np.argwhere(entries)[0].tolist())
        return f"in {np.sum(entries)} of {np.sum(self.compared)} entries, the first at {first}"


@np.errstate(all="ignore")
def explain(entries: Comparison) -> str | None:
    """Return sentences about a wrong gradient, or None."""
    problem, tensors = entries.lines.function.problem, list(_evidence(entries))
    wrong = [e for e in tensors if e.is_wrong]
    factors = [_factor(e) for e in wrong]
    if len(wrong) == len(tensors) > 1 and all(_is_close(f, factors[0]) for f in factors):
        return f"the whole {problem.noun} is {_factor_words(factors[0], problem)}"
    names_of: dict[str, list[str]] = {}
    for e in wrong:
        for words in itertools.islice(_explanations(e, problem), 1):
            names_of.setdefault(words, []).append(_name(e, problem))
    sentences = (
        f"{'each of ' * (len(names) > 1)}{' and '.join(names)} {words}"
        for words, names in names_of.items()
    )
    return "; ".join(sentences) or None


def _evidence(entries: Comparison) -> Iterator[_Evidence]:
    """Yield the tensors with compared entries, except those whose gradients are zero."""
    function, columns = entries.lines.function, entries.lines.columns
    analytic, value = function.gx, entries.numeric.value
    parameter = np.broadcast_to(function.x[:, None], analytic.shape)
    numeric, compared = np.zeros_like(analytic), np.zeros(analytic.shape, dtype=bool)
    bars = np.full(analytic.shape, np.inf)
    numeric[columns] = np.where(np.isfinite(value), value, 0.0)
    slack = entries.numeric.bar + entries.analytic.bar
    slack = slack + tolerance_of(function, "entries") * np.abs(value)
    bars[columns] = np.where(np.isfinite(value), slack, np.inf)
    difference = np.abs(entries.analytic.value - value)
    is_clear = slack <= 0.5 * _MOST_LEFT_OVER * difference
    wrong, is_jacobian = entries.error > entries.tolerance, function.problem.is_jacobian
    for name, tensor_shape, part in function.point.tensors:
        inside = (part.start <= columns) & (columns < part.stop)
        # An entry that is less certain than the largest clear difference explains nothing.
        clear = np.max(difference[inside], initial=0.0, where=is_clear[inside]) or np.inf
        known = inside[:, None] & np.isfinite(value) & (slack <= 0.5 * _MOST_LEFT_OVER * clear)
        compared[columns] |= known
        if np.any(known) and (np.any(analytic[part]) or np.any(numeric[part])):
            shape = analytic.shape[1:] + tensor_shape if is_jacobian else tensor_shape
            every = (analytic, parameter, numeric, bars, compared)
            arrays = (one[part].T.reshape(shape) for one in every)
            is_wrong = bool(np.any(wrong[inside]))
            entries_of = np.arange(part.start, part.stop).reshape(tensor_shape)
            label = functools.partial(_label, function.problem, entries_of)
            yield _Evidence._make((name, *arrays, is_wrong, label))


def _label(problem: Problem, entries: np.ndarray, index: list[int]) -> str:
    """Return the name of a derivative, given its index among the results and a tensor's entries."""
    if not problem.is_jacobian:
        return str(index)
    result, *rest = index
    name, at, _ = problem.entry(int(entries[*rest]), result)
    return f"{name}{[*at]}" if at else name


def _name(e: _Evidence, problem: Problem) -> str:
    """Return what a sentence calls the derivatives by a tensor."""
    whole = f"the {problem.noun}"
    if not e.name:
        return whole
    return f"{whole} by input{e.name}" if problem.is_jacobian else e.name


def _explanations(e: _Evidence, problem: Problem) -> Iterator[str]:
    is_finite = np.isfinite(e.analytic)
    if not np.all(is_finite):
        yield f"is not finite {e.among(~is_finite)}"
    elif np.any(e.wrong):
        yield from _scaled(e, problem)
        yield from (
            f"is {words}" for words, candidate in _candidates(e, problem) if e.agrees(candidate)
        )
        yield from _added(e, problem)
        if np.all(np.isfinite(e.bar)):
            yield from _permuted(e)
        yield from _units(e)


def _factor(e: _Evidence) -> float:
    """Return the constant factor between analytic and numeric gradient, NaN if there is none."""
    inverse = e.fit(0.0, e.analytic)
    # Rounding alone makes a factor this close to 1 of a tiny derivative.
    is_factor = abs(inverse) > 1e-12 and abs(inverse - 1.0) > 1e-6
    return 1.0 / inverse if is_factor else math.nan


def _factor_words(factor: float, problem: Problem) -> str:
    rows, is_large = problem.batch_size, abs(factor) >= 1.0
    large = factor if is_large else 1.0 / factor
    whole = round(large) if _is_close(large, round(large)) else 0
    number = f"{factor:.{6 if abs(factor - 1.0) > 1e-4 else 9}g}"
    number = number if is_large or whole < 2 else f"1/{whole}"
    words = f"the numeric {problem.noun} times a constant factor of {number}"
    if whole == -1:
        return f"{words}: the sign is wrong"
    if whole > 1 and whole == (rows or max(whole, 3)):
        kind = "a sum where a mean belongs" if is_large else "a mean where a sum belongs"
        return f"{words}{', the number of rows' if rows else ''}: {kind}"
    return words


def _scaled(e: _Evidence, problem: Problem) -> Iterator[str]:
    """Find zeros, or a factor that all wrong entries share."""
    if not np.any(e.analytic[e.wrong]):
        some = f" {e.among(e.wrong)}" if np.any(e.analytic) else ""
        yield f"is zero{some}, and should not be"
    wrong = e._replace(compared=e.wrong)
    factor = _factor(wrong)
    if math.isnan(factor):
        return
    # Any factor fits one or two entries, so there it must be a usual one.
    large = max(abs(factor), 1.0 / abs(factor))
    slack = max(1e-6, e.slack / float(np.max(np.abs(e.numeric))))
    is_usual = math.isclose(large, round(large), rel_tol=slack) and (factor > 0.0) == (large > 1.5)
    words = f"is {_factor_words(factor, problem)}"
    if e.agrees(e.analytic / factor) and (is_usual or e.is_enough(e.analytic)):
        yield words
    elif np.all(e.compared) and wrong.is_enough(e.analytic):
        yield f"{words}, {e.among(e.wrong)}; the others are right"


def _candidates(e: _Evidence, problem: Problem) -> Iterator[tuple[str, np.ndarray]]:
    """Yield descriptions of the analytic gradient, each with the numeric one that it implies."""
    numeric, g = f"the numeric {problem.noun}", np.atleast_2d(e.analytic)
    *before, rows, columns = g.shape
    if min(rows, columns) > 1:
        order = "" if rows == columns else ", or in Fortran's order"
        transposed = np.swapaxes(g.reshape(*before, columns, rows), -1, -2)
        yield f"the transpose of {numeric}{order}", transposed
        yield f"{numeric} in Fortran's order: its first index runs first", g.ravel("F")
    if int(np.sum(e.wrong)) >= _ENOUGH:
        yield f"{numeric} times the parameter: a derivative by its logarithm?", g / e.parameter
        yield f"{numeric} divided by the parameter: not by its logarithm?", g * e.parameter
        if g.size == max(g.shape):
            yield f"{numeric} reversed", g.ravel()[::-1]
            shift, half = int(np.argmax(g) - np.argmax(e.numeric)), g.size // 2
            rolled = np.roll(g.ravel(), -shift)
            yield f"{numeric} rolled by {(shift + half) % g.size - half}", rolled


def _added(e: _Evidence, problem: Problem) -> Iterator[str]:
    """Find a multiple of the parameter, as from a penalty, or a number added to every entry."""
    strength, ones = e.fit(e.analytic, e.parameter), np.ones_like(e.analytic)
    if np.isfinite(strength) and np.max(e.difference) > 100.0 * e.slack:
        l2, decays = problem.l2, e.name in problem.decays
        rest = f"{l2:g} times the parameter" if decays else "which does not apply to it"
        for share, words in (_SHARES if decays else {-1.0: "contains"}).items():
            if l2 and _is_close(strength, share * l2):
                yield f"{words} the penalty (L2), {rest}"
        term = f"{abs(strength):.6g} times the parameter"
        if e.is_enough(e.parameter) and strength > 0.0:
            yield f"lacks {term}: a penalty (L2) is missing or halved"
        elif e.is_enough(e.parameter):
            yield f"contains {term} too much: a penalty (L2) is doubled, or does not belong there"
    added = e.fit(e.analytic, ones)
    if np.isfinite(added) and e.is_enough(ones):
        yield f"is {abs(added):.6g} too {'small' if added > 0.0 else 'large'} in every entry"


def _permuted(e: _Evidence) -> Iterator[str]:
    """Find permuted rows, columns, or entries of a vector, matched by a weighted sum of each."""
    is_vector = e.analytic.size == max(e.analytic.shape, default=1)
    three = np.stack([e.analytic, e.numeric, np.fmax(e.left_over, e.bar)])
    three = three.reshape(3, -1, 1 if is_vector else e.analytic.shape[-1])
    for kind, rows in (("entries" if is_vector else "rows", three), ("columns", three.mT)):
        order = np.argsort(rows[:2] @ np.sqrt(np.arange(rows.shape[2]) + 2.0), kind="stable")
        analytic, numeric, bar = rows
        agrees = np.abs(analytic[order[0]] - numeric[order[1]]) <= bar[order[1]]
        moved = np.flatnonzero(np.any(np.abs(analytic - numeric) > bar, axis=1)).tolist()
        if moved and np.all(agrees) and np.sum(e.compared) > _ENOUGH:
            if len(moved) == 2:
                yield f"has {kind} {moved[0]} and {moved[1]} swapped"
            yield f"has its {kind} permuted: {len(moved)} {kind} contain the derivatives of others"


def _units(e: _Evidence) -> Iterator[str]:
    """Find a factor for each entry, as units of measurement make them."""
    used = (e.numeric != 0.0) & (e.analytic != 0.0) & e.wrong
    ratios = e.analytic[used] / e.numeric[used]
    large = np.maximum(ratios, 1.0 / ratios)[:, None]
    if ratios.size >= _ENOUGH and np.all(np.any(np.isclose(large, _UNITS, 1e-4, 0.0), axis=1)):
        shown = ", ".join([f"{r:.6g}" for r in ratios[:5].tolist()] + ["..."] * (ratios.size > 5))
        yield f"is off by a factor for each entry ({shown}): units?"
