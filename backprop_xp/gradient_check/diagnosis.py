"""What a wrong gradient looks like: the common mistakes, tried one after the other.

An explanation is a gradient made of what is known, the analytic gradient and the point, which
agrees with the numeric one: ``u + c v`` for some number c, or entries in another order. It is tried
on each wrong tensor, by the entries that were judged: all of them, or some where a direction
failed. Where one or two entries are all there is, almost anything fits, and nothing is said.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.functions import Host, Problem
from backprop_xp.gradient_check.judge import Judged, tolerance_of

# An explanation leaves at most this part of the difference, and less where rounding allows.
_MOST_LEFT_OVER, _LEAST_LEFT_OVER = 0.02, 1e-6
_CLOSE = 2e-3
# So many entries must agree on a number that is fitted to them.
_ENOUGH = 3
# Factors between units of measurement.
_UNITS = (*(10.0**n for n in range(1, 13)), 60.0, 3600.0, 180.0 / math.pi, 2.0 * math.pi)
# What a gradient does with the penalty, by the part of it that is to be added.
_SHARES = {1.0: "lacks", 0.5: "holds half of", -1.0: "holds twice", 2.0: "holds minus"}
_PLURALS = {"is": "are", "has": "have", "lacks": "lack", "holds": "hold"}


class Evidence(NamedTuple):
    """A tensor: its analytic and its numeric gradient, and the point, in arrays of one shape.

    Of the numeric gradient only what is ``judged`` is known. ``slack`` is what rounding makes of a
    difference; ``is_wrong`` says that one is more than its tolerance. Of a Jacobian the arrays have
    a first axis of results.
    """

    name: str
    analytic: Host
    parameter: Host
    numeric: Host
    judged: Host
    slack: float
    is_wrong: bool

    @property
    def off(self) -> Host:
        """By how much the gradients differ, as far as that is known."""
        return np.where(self.judged, np.abs(self.analytic - self.numeric), 0.0)

    @property
    def left_over(self) -> float:
        """What an explanation may leave of the largest difference."""
        largest = float(np.max(self.off, initial=0.0))
        return min(max(_LEAST_LEFT_OVER * largest, 2.0 * self.slack), _MOST_LEFT_OVER * largest)

    @property
    def wrong(self) -> Host:
        """Where there is something to explain."""
        return self.off > self.left_over

    def is_many(self, part: Host) -> bool:
        """Whether enough entries agree on a number fitted to ``part``: it is no accident."""
        return int(np.count_nonzero(part[self.judged])) >= _ENOUGH

    def agrees(self, candidate: Host) -> bool:
        """Say whether a gradient is the numeric one, where that is known."""
        off = candidate.reshape(self.judged.shape)[self.judged] - self.numeric[self.judged]
        return bool(np.all(np.abs(off) <= self.left_over))

    def fit(self, start: Host | float, part: Host) -> float | None:
        """Return the number c for which ``start + c part`` is the numeric gradient, if any."""
        along = part[self.judged]
        size = float(along @ along)
        if not 0.0 < size < math.inf:
            return None
        factor = float(along @ (self.numeric - start)[self.judged]) / size
        return factor if self.agrees(start + factor * part) else None


@np.errstate(all="ignore")
def explain(entries: Judged) -> str | None:
    """Return what a wrong gradient looks like, of judged entries."""
    problem, tensors = entries.lines.function.problem, list(_judged(entries))
    wrong = [e for e in tensors if e.is_wrong]
    factors = [_factor(e) for e in wrong]
    if len(wrong) == len(tensors) > 1 and all(_near(f, factors[0]) for f in factors):
        return f"the whole gradient is {_factor_words(factors[0] or 0.0, problem)}"
    sentences: dict[str, list[str]] = {}
    for e in wrong:
        words = next(_explanations(e, problem), None)
        if words is not None:
            sentences.setdefault(words, []).append(e.name or "the gradient")
    return "; ".join(_said(names, words) for words, names in sentences.items()) or None


def _judged(entries: Judged) -> Iterator[Evidence]:
    """Yield the tensors of which entries were judged, but for such as are zero."""
    function, places = entries.lines.function, entries.lines.columns
    analytic, value = function.analytic, entries.numeric.value
    point = np.broadcast_to(function.x[:, None], analytic.shape)
    numeric, judged = np.zeros_like(analytic), np.zeros(analytic.shape, dtype=bool)
    judged[places] = np.isfinite(value)
    numeric[places] = np.where(judged[places], value, 0.0)
    slack = entries.numeric.bar + entries.claimed.bar
    slack = slack + tolerance_of(function, "entries") * np.abs(value)
    wrong, has_many = entries.error > entries.tolerance, function.problem.has_many
    for name, shape, part in function.problem.point.tensors:
        inside = (part.start <= places) & (places < part.stop)
        if np.any(inside) and (np.any(analytic[part]) or np.any(numeric[part])):
            shape = analytic.shape[1:] + shape if has_many else shape
            arrays = (a[part].T.reshape(shape) for a in (analytic, point, numeric, judged))
            most, is_wrong = float(np.max(slack[inside])), bool(np.any(wrong[inside]))
            yield Evidence._make((name, *arrays, most, is_wrong))


def _explanations(e: Evidence, problem: Problem) -> Iterator[str]:
    finite = np.isfinite(e.analytic)
    if not np.all(finite):
        count, first = int(np.sum(~finite)), np.argwhere(~finite)[0].tolist()
        numbers = "a number that is" if count == 1 else f"{count} numbers that are"
        yield f"holds {numbers} not finite, at {first}{' and elsewhere' if count > 1 else ''}"
    elif np.any(e.wrong):
        yield from _scaled(e, problem)
        yield from (f"is {words}" for words, candidate in _candidates(e) if e.agrees(candidate))
        yield from _penalty(e, problem)
        yield from _zero(e)
        ones = np.ones_like(e.analytic)
        added = e.fit(e.analytic, ones)
        if added is not None and e.is_many(ones):
            direction = "too little" if added > 0.0 else "too much"
            yield f"holds {abs(added):.6g} {direction} in every entry"
        if np.all(e.judged):
            yield from _permuted(e)
            yield from _block(e, problem)
        yield from _units(e)


def _scaled(e: Evidence, problem: Problem) -> Iterator[str]:
    """Find a factor; of one or two numbers any may be said, so that only a usual one is."""
    factor = _factor(e)
    if factor is None:
        return
    large = max(abs(factor), 1.0 / abs(factor))
    slack = max(1e-6, e.slack / float(np.max(np.abs(e.numeric))))
    is_usual = math.isclose(large, round(large), rel_tol=slack) and (factor > 0.0) == (large > 1.5)
    if is_usual or e.is_many(e.analytic):
        yield f"is {_factor_words(factor, problem)}"


def _factor(e: Evidence) -> float | None:
    """Return what the analytic gradient is times the numeric one, if it is one number."""
    found = e.fit(0.0, e.analytic)
    # So near 1 it is what rounding makes of a tiny derivative.
    if found is None or abs(found) < 1e-12 or abs(found - 1.0) < 1e-6:
        return None
    return 1.0 / found


def _factor_words(factor: float, problem: Problem) -> str:
    is_inverse = abs(factor) < 1.0
    large = 1.0 / factor if is_inverse else factor
    whole = round(large)
    is_exact = whole != 1 and _near(large, whole)
    digits = 6 if abs(factor - 1.0) > 1e-4 else 9
    shown = f"1/{whole}" if is_inverse and is_exact and whole > 0 else f"{factor:.{digits}g}"
    words = f"the numeric one times a constant factor of {shown}"
    if _near(factor, -1.0):
        return f"{words}: the sign is wrong"
    if is_exact and (whole == problem.rows or (whole > 2 and problem.rows is None)):
        rows = ", the number of rows" if whole == problem.rows else ""
        kind = "a mean where a sum belongs" if is_inverse else "a sum where a mean belongs"
        return f"{words}{rows}: {kind}"
    return words


def _candidates(e: Evidence) -> Iterator[tuple[str, Host]]:
    """Yield what a gradient may be, and the numeric one if it is that."""
    g = np.atleast_2d(e.analytic)
    *before, rows, columns = g.shape
    if min(rows, columns) > 1:
        order = "" if rows == columns else ", or in Fortran's order"
        turned = np.swapaxes(g.reshape(*before, columns, rows), -1, -2)
        yield f"the transpose of the numeric one{order}", turned
        yield "the numeric one in Fortran's order: its first index runs first", g.ravel("F")
    if int(np.sum(e.wrong)) >= _ENOUGH:
        yield "the numeric one times the parameter: a derivative by its logarithm?", g / e.parameter
        yield "the numeric one divided by the parameter: not by its logarithm?", g * e.parameter


def _penalty(e: Evidence, problem: Problem) -> Iterator[str]:
    strength = e.fit(e.analytic, e.parameter)
    if strength is None or np.max(e.off) <= 100.0 * e.slack:
        return
    known, decays = problem.penalty or 0.0, e.name in problem.decays
    rest = f"{known:g} times the parameter" if decays else "which does not apply to it"
    for share, words in (_SHARES if decays else {-1.0: "holds"}).items():
        if known and _near(strength, share * known):
            yield f"{words} the penalty (L2), {rest}"
    if e.is_many(e.parameter) and strength > 0.0:
        yield f"lacks {strength:.6g} times the parameter: a penalty (L2) is missing or halved"
    elif e.is_many(e.parameter):
        much = f"{-strength:.6g} times the parameter too much"
        yield f"holds {much}: a penalty (L2) is doubled, or does not belong there"


def _zero(e: Evidence) -> Iterator[str]:
    wrong = e.wrong
    if not np.any(e.analytic):
        yield "is zero, and should not be"
    elif not np.any(e.analytic[wrong]):
        block = f"holds a zero block: {int(np.sum(wrong))} entries are zero"
        place = f"is zero at {np.argwhere(wrong)[0].tolist()}, and perhaps elsewhere"
        yield f"{block if np.all(e.judged) else place}, and should not be"


def _permuted(e: Evidence) -> Iterator[str]:
    """Find rows, columns or the entries of a vector that stand elsewhere."""
    shape, size = e.analytic.shape, e.analytic.size
    if size > _ENOUGH:
        is_vector = size == max(shape)
        pair = [a.reshape(-1, 1 if is_vector else shape[-1]) for a in (e.analytic, e.numeric)]
        yield from _moved(e, "entries" if is_vector else "rows", *pair)
        yield from _moved(e, "columns", *(a.T for a in pair))


def _moved(e: Evidence, kind: str, analytic: Host, numeric: Host) -> Iterator[str]:
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
        yield "is the numeric one reversed"
    elif kind == "entries" and e.agrees(np.roll(analytic, -shift)):
        places = shift if 2 * shift <= count else shift - count
        yield f"is the numeric one rolled by {places} places"
    else:
        yield f"has its {kind} permuted: {len(moved)} {kind} hold the derivatives of others"


def _block(e: Evidence, problem: Problem) -> Iterator[str]:
    """Find entries that share a factor, where the others are right."""
    wrong = e.wrong
    count, factor = int(np.sum(wrong)), _factor(e._replace(judged=wrong))
    if _ENOUGH <= count < wrong.size and factor is not None:
        words, first = _factor_words(factor, problem), np.argwhere(wrong)[0].tolist()
        yield f"holds {count} entries, from {first} on, that are {words}; the others are right"


def _units(e: Evidence) -> Iterator[str]:
    """Find a factor for each entry, as units of measurement make them."""
    used = (e.numeric != 0.0) & (e.analytic != 0.0) & e.wrong
    ratios = e.analytic[used] / e.numeric[used]
    large = np.maximum(ratios, 1.0 / ratios)[:, None]
    if ratios.size >= _ENOUGH and np.all(np.any(np.isclose(large, _UNITS, 1e-4, 0.0), axis=1)):
        shown = ", ".join(f"{r:.6g}" for r in ratios[:5].tolist())
        more = ", ..." if ratios.size > 5 else ""
        yield f"is off by a factor for each entry ({shown}{more}): units?"


def _near(value: float | None, other: float | None) -> bool:
    return value is not None and other is not None and math.isclose(value, other, rel_tol=_CLOSE)


def _said(names: list[str], words: str) -> str:
    """Return what is said of one tensor, or of several: the verb comes first."""
    if len(names) == 1:
        return f"{names[0]} {words}"
    verb, rest = words.split(" ", 1)
    return f"{', '.join(names[:-1])} and {names[-1]} {_PLURALS[verb]} {rest}"
