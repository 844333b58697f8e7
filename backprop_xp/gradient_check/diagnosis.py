"""The diagnosis of a wrong gradient: common mistakes, tried one after the other.

An explanation is a gradient made of the analytic gradient and the point that agrees with the
numeric gradient: ``u + c v`` for some number c, or entries in another order. It is tried on each
wrong tensor, by the entries that were compared: all of them, or a sample where a direction failed.
One or two entries fit almost any explanation, so the check gives none for them.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.judge import Comparison, tolerance_of
from backprop_xp.gradient_check.problems import Problem

# An explanation leaves at most this part of the difference, and less where rounding allows.
_MOST_LEFT_OVER, _LEAST_LEFT_OVER = 0.02, 1e-6
_CLOSE = 2e-3
# The number of entries that must agree on a fitted number.
_ENOUGH = 3
# Factors between units of measurement.
_UNITS = (*(10.0**n for n in range(1, 13)), 60.0, 3600.0, 180.0 / math.pi, 2.0 * math.pi)
# Mistakes with the penalty, by the part of its gradient that would have to be added.
_SHARES = {1.0: "lacks", 0.5: "contains half of", -1.0: "contains twice", 2.0: "contains minus"}
_PLURALS = {"is": "are", "has": "have", "lacks": "lack", "contains": "contain"}


class _Evidence(NamedTuple):
    """A tensor: its analytic and numeric gradient and the parameter, in arrays of one shape.

    The numeric gradient is known where it is ``compared``. ``slack`` is the part of a difference
    that rounding explains; ``is_wrong``: some difference exceeds its tolerance. For a Jacobian the
    arrays have a first axis of results.
    """

    name: str
    analytic: np.ndarray
    parameter: np.ndarray
    numeric: np.ndarray
    compared: np.ndarray
    slack: float
    is_wrong: bool

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

    def fit(self, start: np.ndarray | float, part: np.ndarray) -> float | None:
        """Return the number c for which ``start + c part`` is the numeric gradient, if any."""
        vector = part[self.compared]
        size = float(vector @ vector)
        if not 0.0 < size < math.inf:
            return None
        factor = float(vector @ (self.numeric - start)[self.compared]) / size
        return factor if self.agrees(start + factor * part) else None


@np.errstate(all="ignore")
def explain(entries: Comparison) -> str | None:
    """Return sentences about a wrong gradient, or None."""
    problem, tensors = entries.lines.function.problem, list(_evidence(entries))
    wrong = [e for e in tensors if e.is_wrong]
    factors = [_factor(e) for e in wrong]
    if len(wrong) == len(tensors) > 1 and all(_is_close(f, factors[0]) for f in factors):
        return f"the whole gradient is {_factor_words(factors[0] or 0.0, problem)}"
    tensors_of: dict[str, list[str]] = {}
    for e in wrong:
        words = next(_explanations(e, problem), None)
        if words is not None:
            tensors_of.setdefault(words, []).append(e.name or "the gradient")
    return "; ".join(_sentence(names, words) for words, names in tensors_of.items()) or None


def _evidence(entries: Comparison) -> Iterator[_Evidence]:
    """Yield the tensors with compared entries, except those whose gradients are zero."""
    function, columns = entries.lines.function, entries.lines.columns
    analytic, value = function.gx, entries.numeric.value
    parameter = np.broadcast_to(function.x[:, None], analytic.shape)
    numeric, compared = np.zeros_like(analytic), np.zeros(analytic.shape, dtype=bool)
    compared[columns] = np.isfinite(value)
    numeric[columns] = np.where(compared[columns], value, 0.0)
    slack = entries.numeric.bar + entries.analytic.bar
    slack = slack + tolerance_of(function, "entries") * np.abs(value)
    wrong, is_jacobian = entries.error > entries.tolerance, function.problem.is_jacobian
    for name, shape, part in function.point.tensors:
        inside = (part.start <= columns) & (columns < part.stop)
        if np.any(inside) and (np.any(analytic[part]) or np.any(numeric[part])):
            shape = analytic.shape[1:] + shape if is_jacobian else shape
            arrays = (a[part].T.reshape(shape) for a in (analytic, parameter, numeric, compared))
            most, is_wrong = float(np.max(slack[inside])), bool(np.any(wrong[inside]))
            yield _Evidence._make((name, *arrays, most, is_wrong))


def _explanations(e: _Evidence, problem: Problem) -> Iterator[str]:
    is_finite = np.isfinite(e.analytic)
    if not np.all(is_finite):
        count, first = int(np.sum(~is_finite)), np.argwhere(~is_finite)[0].tolist()
        numbers = "a number that is" if count == 1 else f"{count} numbers that are"
        yield f"contains {numbers} not finite, at {first}{' and elsewhere' if count > 1 else ''}"
    elif np.any(e.wrong):
        yield from _scaled(e, problem)
        yield from (f"is {words}" for words, candidate in _candidates(e) if e.agrees(candidate))
        yield from _penalty(e, problem)
        yield from _constant(e)
        if np.all(e.compared):
            yield from _permuted(e)
            yield from _block(e, problem)
        yield from _units(e)


def _scaled(e: _Evidence, problem: Problem) -> Iterator[str]:
    """Find a factor; any factor fits one or two entries, so there it must be a usual one."""
    factor = _factor(e)
    if factor is None:
        return
    large = max(abs(factor), 1.0 / abs(factor))
    slack = max(1e-6, e.slack / float(np.max(np.abs(e.numeric))))
    is_usual = math.isclose(large, round(large), rel_tol=slack) and (factor > 0.0) == (large > 1.5)
    if is_usual or e.is_enough(e.analytic):
        yield f"is {_factor_words(factor, problem)}"


def _factor(e: _Evidence) -> float | None:
    """Return the constant factor between analytic and numeric gradient, if there is one."""
    inverse = e.fit(0.0, e.analytic)
    # Rounding alone makes a factor this close to 1 of a tiny derivative.
    if inverse is None or abs(inverse) < 1e-12 or abs(inverse - 1.0) < 1e-6:
        return None
    return 1.0 / inverse


def _factor_words(factor: float, problem: Problem) -> str:
    is_inverse = abs(factor) < 1.0
    large = 1.0 / factor if is_inverse else factor
    whole = round(large)
    is_whole = whole != 1 and _is_close(large, whole)
    digits = 6 if abs(factor - 1.0) > 1e-4 else 9
    number = f"1/{whole}" if is_inverse and is_whole and whole > 0 else f"{factor:.{digits}g}"
    words = f"the numeric gradient times a constant factor of {number}"
    if _is_close(factor, -1.0):
        return f"{words}: the sign is wrong"
    if is_whole and (whole == problem.batch_size or (whole > 2 and problem.batch_size is None)):
        rows = ", the number of rows" if whole == problem.batch_size else ""
        kind = "a mean where a sum belongs" if is_inverse else "a sum where a mean belongs"
        return f"{words}{rows}: {kind}"
    return words


def _candidates(e: _Evidence) -> Iterator[tuple[str, np.ndarray]]:
    """Yield descriptions of the analytic gradient, each with the numeric one that it implies."""
    numeric, g = "the numeric gradient", np.atleast_2d(e.analytic)
    *before, rows, columns = g.shape
    if min(rows, columns) > 1:
        order = "" if rows == columns else ", or in Fortran's order"
        transposed = np.swapaxes(g.reshape(*before, columns, rows), -1, -2)
        yield f"the transpose of {numeric}{order}", transposed
        yield f"{numeric} in Fortran's order: its first index runs first", g.ravel("F")
    if int(np.sum(e.wrong)) >= _ENOUGH:
        yield f"{numeric} times the parameter: a derivative by its logarithm?", g / e.parameter
        yield f"{numeric} divided by the parameter: not by its logarithm?", g * e.parameter


def _penalty(e: _Evidence, problem: Problem) -> Iterator[str]:
    strength = e.fit(e.analytic, e.parameter)
    if strength is None or np.max(e.difference) <= 100.0 * e.slack:
        return
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


def _constant(e: _Evidence) -> Iterator[str]:
    """Find zeros, or a number added to every entry."""
    if not np.any(e.analytic):
        yield "is zero, and should not be"
    elif not np.any(e.analytic[e.wrong]):
        block = f"contains a zero block: {int(np.sum(e.wrong))} entries are zero"
        entry = f"is zero at {np.argwhere(e.wrong)[0].tolist()}, and perhaps elsewhere"
        yield f"{block if np.all(e.compared) else entry}, and should not be"
    ones = np.ones_like(e.analytic)
    added = e.fit(e.analytic, ones)
    if added is not None and e.is_enough(ones):
        yield f"is {abs(added):.6g} too {'small' if added > 0.0 else 'large'} in every entry"


def _permuted(e: _Evidence) -> Iterator[str]:
    """Find permuted rows, columns, or entries of a vector."""
    shape, size = e.analytic.shape, e.analytic.size
    if size > _ENOUGH:
        is_vector = size == max(shape)
        pair = [a.reshape(-1, 1 if is_vector else shape[-1]) for a in (e.analytic, e.numeric)]
        yield from _permuted_rows(e, "entries" if is_vector else "rows", *pair)
        yield from _permuted_rows(e, "columns", *(a.T for a in pair))


def _permuted_rows(
    e: _Evidence, kind: str, analytic: np.ndarray, numeric: np.ndarray
) -> Iterator[str]:
    # Rows are matched by the order of a weighted sum of each.
    weights = np.sqrt(np.arange(analytic.shape[1]) + 2.0)
    here, there = (np.argsort(rows @ weights, kind="stable") for rows in (analytic, numeric))
    if np.max(np.abs(analytic[here] - numeric[there])) > e.left_over:
        return
    moved = np.flatnonzero(np.max(np.abs(analytic - numeric), axis=1) > e.left_over).tolist()
    count, shift = len(here), int(here[np.argmin(there)])
    if len(moved) == 2:
        yield f"has {kind} {moved[0]} and {moved[1]} swapped"
    elif kind == "entries" and e.agrees(analytic[::-1]):
        yield "is the numeric gradient reversed"
    elif kind == "entries" and e.agrees(np.roll(analytic, -shift)):
        yield f"is the numeric gradient rolled by {shift if 2 * shift <= count else shift - count}"
    else:
        yield f"has its {kind} permuted: {len(moved)} {kind} contain the derivatives of others"


def _block(e: _Evidence, problem: Problem) -> Iterator[str]:
    """Find entries that share a factor, while the others are right."""
    count, factor = int(np.sum(e.wrong)), _factor(e._replace(compared=e.wrong))
    if _ENOUGH <= count < e.wrong.size and factor is not None:
        words, first = _factor_words(factor, problem), np.argwhere(e.wrong)[0].tolist()
        yield f"contains {count} entries, from {first} on, that are {words}; the others are right"


def _units(e: _Evidence) -> Iterator[str]:
    """Find a factor for each entry, as units of measurement make them."""
    used = (e.numeric != 0.0) & (e.analytic != 0.0) & e.wrong
    ratios = e.analytic[used] / e.numeric[used]
    large = np.maximum(ratios, 1.0 / ratios)[:, None]
    if ratios.size >= _ENOUGH and np.all(np.any(np.isclose(large, _UNITS, 1e-4, 0.0), axis=1)):
        shown = ", ".join(f"{r:.6g}" for r in ratios[:5].tolist())
        more = ", ..." if ratios.size > 5 else ""
        yield f"is off by a factor for each entry ({shown}{more}): units?"


def _is_close(value: float | None, other: float | None) -> bool:
    return value is not None and other is not None and math.isclose(value, other, rel_tol=_CLOSE)


def _sentence(names: list[str], words: str) -> str:
    """Return a sentence about one tensor or several; ``words`` begin with the verb."""
    if len(names) == 1:
        return f"{names[0]} {words}"
    verb, rest = words.split(" ", 1)
    return f"{', '.join(names[:-1])} and {names[-1]} {_PLURALS[verb]} {rest}"
