"""What a wrong gradient looks like: the common mistakes, tried one after the other.

An explanation is a gradient made of what is known, the analytic gradient and the point, which
agrees with the numeric one: ``u + c v`` for some number c, or entries in another order. It is tried
on each wrong tensor, by the entries that were judged: all of them, or some where a direction
failed. Where one or two entries are all there is, almost anything fits, and nothing is said.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from backprop_xp.checks import unravel
from backprop_xp.gradient_check.functions import Context, Function, Host
from backprop_xp.gradient_check.judge import Judged, tolerance_of

# An explanation leaves at most this part of the difference, and less where rounding allows.
_MOST_LEFT_OVER, _LEAST_LEFT_OVER = 0.02, 1e-6
_CLOSE = 2e-3
# So many entries must agree on a number that is fitted to them.
_ENOUGH = 3
# Factors between units of measurement.
_UNITS = (*(10.0**n for n in range(13)), 60.0, 3600.0, 180.0 / math.pi, 2.0 * math.pi)


class Evidence(NamedTuple):
    """A wrong tensor: its analytic gradient and the point, in its shape, and what was judged of it.

    ``analytic`` and ``numeric`` are the derivatives at ``places`` of the flattened tensor; ``off``
    is by how much they differ, ``left_over`` what an explanation may leave of that, and ``slack``
    what rounding makes of it.
    """

    name: str
    gradient: Host
    point: Host
    places: Host
    numeric: Host
    slack: float

    @property
    def analytic(self) -> Host:
        """The analytic gradient where it was judged."""
        return self.there(self.gradient)

    @property
    def off(self) -> float:
        """The largest difference."""
        return float(np.max(np.abs(self.analytic - self.numeric)))

    @property
    def left_over(self) -> float:
        """What an explanation may leave of the difference."""
        least = max(_LEAST_LEFT_OVER * self.off, 2.0 * self.slack)
        return min(least, _MOST_LEFT_OVER * self.off)

    @property
    def is_whole(self) -> bool:
        """Whether every entry was judged."""
        return bool(self.places.size == self.gradient.size)

    @property
    def is_many(self) -> bool:
        """Whether so many entries agree on a number that it is no accident."""
        return int(np.sum((self.analytic != 0.0) | (self.numeric != 0.0))) >= _ENOUGH

    def there(self, array: Host) -> Host:
        """Return the numbers of an array of the tensor's shape where it was judged."""
        return array.reshape(-1)[self.places]

    def agrees(self, candidate: Host) -> bool:
        """Say whether a gradient, at the places that were judged, is the numeric one."""
        return bool(np.max(np.abs(candidate - self.numeric)) <= self.left_over)

    def fit(self, start: Host, part: Host) -> float | None:
        """Return the number c for which ``start + c part`` is the numeric gradient, if any."""
        size = float(part @ part)
        if not 0.0 < size < math.inf:
            return None
        factor = float(part @ (self.numeric - start)) / size
        return factor if self.agrees(start + factor * part) else None


def explain(entries: Judged) -> str | None:
    """Return what a wrong gradient looks like, of judged entries."""
    function = entries.lines.function
    evidence, is_all = _evidence(function, entries.lines.columns, entries)
    if not evidence:
        return None
    context, factors = function.problem.context, [_factor(e, of_any=True) for e in evidence]
    if is_all and len(evidence) > 1 and all(_near(f, factors[0]) for f in factors):
        return f"the whole gradient is {_factor_words(factors[0] or 0.0, context)}"
    sentences: dict[str, list[str]] = {}
    for one in evidence:
        words = next(_explanations(one, context), None)
        if words is not None:
            sentences.setdefault(words, []).append(one.name or "the gradient")
    said = [
        f"{_listed(names)} {words if len(names) == 1 else _plural(words)}"
        for words, names in sentences.items()
    ]
    return "; ".join(said) or None


def _evidence(function: Function, places: Host, entries: Judged) -> tuple[list[Evidence], bool]:
    """Return the wrong tensors, and whether none is right but such as are zero."""
    wrong, evidence, is_all = entries.error > entries.tolerance, [], True
    base, results = tolerance_of(function, "entries"), function.base.size
    for tensor in function.problem.point.tensors:
        inside = (tensor.part.start <= places) & (places < tensor.part.stop)
        numeric = entries.numeric.value[inside]
        gradient = function.analytic[tensor.part]
        if not np.any(inside):
            continue
        if not np.any(wrong[inside]):
            is_all &= not (np.any(numeric) or np.any(gradient))
            continue
        bars = entries.numeric.bar[inside] + entries.claimed.bar[inside]
        slack = float(np.max(bars + base * np.abs(numeric)))
        # Results come first in a Jacobian's shape.
        shape = (results, *tensor.shape) if function.problem.has_many else tensor.shape
        here = np.broadcast_to(function.x[tensor.part].reshape(tensor.shape), shape)
        at = places[inside] - tensor.part.start
        every = (np.arange(results)[:, None] * gradient.shape[0] + at).reshape(-1)
        evidence.append(
            Evidence(
                tensor.name, gradient.T.reshape(shape), here, every, numeric.T.reshape(-1), slack
            )
        )
    return evidence, is_all


def _explanations(e: Evidence, context: Context) -> Iterator[str]:
    finite = np.isfinite(e.gradient)
    if not np.all(finite):
        count, place = int(np.sum(~finite)), int(np.argmin(finite))
        numbers = "a number that is" if count == 1 else f"{count} numbers that are"
        elsewhere = " and elsewhere" if count > 1 else ""
        yield f"holds {numbers} not finite, at {list(unravel(place, finite.shape))}{elsewhere}"
        return
    yield from _zero(e)
    factor = _factor(e)
    if factor is not None:
        yield f"is {_factor_words(factor, context)}"
    yield from _turned(e)
    yield from _penalty(e, context)
    added = e.fit(e.analytic, np.ones_like(e.analytic))
    if added is not None and e.is_many:
        yield f"holds {abs(added):.6g} {'too little' if added > 0.0 else 'too much'} in every entry"
    yield from _permuted(e)
    yield from _block(e, context)
    yield from _per_entry(e)


def _zero(e: Evidence) -> Iterator[str]:
    if not np.any(e.gradient):
        strength = e.fit(e.analytic, e.there(e.point)) if e.is_many else None
        times = "" if strength is None else f", but {strength:.6g} times the parameter (a penalty?)"
        yield f"is zero, and should not be{times}"
        return
    wrong = np.abs(e.analytic - e.numeric) > e.left_over
    if not np.any(e.analytic[wrong]):
        if e.is_whole:
            yield f"holds a zero block: {int(np.sum(wrong))} entries are zero, and should not be"
        else:
            place = int(e.places[np.argmax(wrong)])
            index = list(unravel(place, e.gradient.shape))
            yield f"is zero at {index}, and perhaps elsewhere, and should not be"


def _factor(e: Evidence, *, of_any: bool = False) -> float | None:
    """Return what the analytic gradient is times the numeric one, if it is one number.

    Of one or two numbers any factor may be said: unless it is ``of_any``, only a usual one is.
    """
    if not np.all(np.isfinite(e.gradient)):
        return None
    found = e.fit(np.zeros_like(e.analytic), e.analytic)
    # So near 1 it is what rounding makes of a tiny derivative.
    if found is None or abs(found) < 1e-12 or abs(found - 1.0) < 1e-6:
        return None
    factor = 1.0 / found
    large = max(abs(factor), abs(found))
    slack = max(1e-6, e.slack / float(np.max(np.abs(e.numeric))))
    usual = math.isclose(large, round(large), rel_tol=slack) and (factor > 0.0 or large < 1.5)
    return factor if of_any or usual or e.is_many else None


def _factor_words(factor: float, context: Context) -> str:
    is_inverse = abs(factor) < 1.0
    whole = round(1.0 / factor) if is_inverse else round(factor)
    exact = whole != 0 and _near(factor, 1.0 / whole if is_inverse else float(whole))
    shown = f"1/{whole}" if is_inverse and exact and whole > 0 else f"{factor:.6g}"
    words = f"the numeric one times a constant factor of {shown}"
    if _near(factor, -1.0):
        return f"{words}: the sign is wrong"
    if exact and (whole == context.rows or (whole > 2 and context.rows is None)):
        rows = ", the number of rows" if whole == context.rows else ""
        kind = "a mean where a sum belongs" if is_inverse else "a sum where a mean belongs"
        return f"{words}{rows}: {kind}"
    return words


def _turned(e: Evidence) -> Iterator[str]:
    """Find a matrix transposed, or filled in another order."""
    shape = e.gradient.shape
    if len(shape) < 2 or 1 in shape[-2:]:
        return
    *before, rows, columns = shape
    if e.agrees(e.there(np.swapaxes(e.gradient.reshape(*before, columns, rows), -1, -2))):
        order = "" if rows == columns else ", or in Fortran's order"
        yield f"is the transpose of the numeric one{order}"
    elif e.agrees(e.there(e.gradient.reshape(-1, order="F"))):
        yield "is the numeric one in Fortran's order: its first index runs first"


def _penalty(e: Evidence, context: Context) -> Iterator[str]:
    strength = e.fit(e.analytic, e.there(e.point))
    if strength is None or e.off <= 100.0 * e.slack:
        return
    known, decays = context.penalty, e.name in context.decays
    if known and not decays and _near(strength, -known):
        yield "holds the penalty (L2), which does not apply to it"
        return
    shares = {1.0: "lacks", 0.5: "holds half of", -1.0: "holds twice", 2.0: "holds minus"}
    for share, words in shares.items():
        if known and decays and _near(strength, share * known):
            yield f"{words} the penalty (L2), {known:g} times the parameter"
            return
    if e.is_many and strength > 0.0:
        yield f"lacks {strength:.6g} times the parameter: a penalty (L2) is missing or halved"
    elif e.is_many:
        yield (
            f"holds {-strength:.6g} times the parameter too much: a penalty (L2) is doubled, or "
            "does not belong there"
        )


def _permuted(e: Evidence) -> Iterator[str]:
    """Find rows, columns or the entries of a vector that stand elsewhere."""
    shape = e.gradient.shape
    if e.gradient.size <= _ENOUGH:
        return
    if not e.is_whole:
        yield from _other_row(e)
        return
    if e.gradient.size == max(shape):
        order = _order(e.analytic[:, None], e.numeric[:, None], e.left_over)
        count = order.size
        shift = int(order[0]) if count else 0
        if count and np.array_equal(order, np.arange(count)[::-1]):
            yield "is the numeric one reversed"
        elif count and shift and np.array_equal(order, np.roll(np.arange(count), -shift)):
            places = shift if 2 * shift <= count else shift - count
            yield f"is the numeric one rolled by {places} places"
        elif count:
            yield from _moved(order, "entries")
        return
    analytic, numeric = e.analytic.reshape(-1, shape[-1]), e.numeric.reshape(-1, shape[-1])
    rows, columns = (
        _order(analytic, numeric, e.left_over),
        _order(analytic.T, numeric.T, e.left_over),
    )
    yield from _moved(rows, "rows")
    yield from _moved(columns, "columns")


def _order(analytic: Host, numeric: Host, slack: float) -> Host:
    """Return where each numeric row stands in the analytic ones; empty if they are not the same."""
    # Rows are matched by the order of a weighted sum of each.
    weights = np.sqrt(np.arange(analytic.shape[1]) + 2.0)
    here = np.argsort(analytic @ weights, kind="stable")
    there = np.argsort(numeric @ weights, kind="stable")
    if np.max(np.abs(analytic[here] - numeric[there])) > slack:
        return np.zeros(0, dtype=int)
    order = np.empty_like(here)
    order[there] = here
    # Rows that are equal are where they stand.
    alike = np.max(np.abs(analytic - numeric), axis=-1) <= slack
    return np.where(alike, np.arange(order.size), order)


def _moved(order: Host, kind: str) -> Iterator[str]:
    moved = np.flatnonzero(order != np.arange(order.size)).tolist()
    if len(moved) == 2:
        yield f"has {kind} {moved[0]} and {moved[1]} swapped"
    elif moved:
        yield f"has its {kind} permuted: {len(moved)} {kind} hold the derivatives of others"


def _other_row(e: Evidence) -> Iterator[str]:
    """Find a row that holds another's derivatives, by the entries of one that were judged."""
    columns = e.gradient.shape[-1]
    rows = e.gradient.reshape(-1, columns)
    wrong = int(e.places[np.argmax(np.abs(e.analytic - e.numeric))]) // columns
    inside = e.places // columns == wrong
    if int(np.sum(inside)) < _ENOUGH or len(rows) == 1:
        return
    off = np.abs(rows[:, e.places[inside] % columns] - e.numeric[inside]).max(axis=1)
    other = int(np.argmin(off))
    if off[other] <= e.left_over:
        yield f"has its rows permuted: row {other} holds the derivatives of row {wrong}"


def _block(e: Evidence, context: Context) -> Iterator[str]:
    """Find entries that share a factor, where the others are right."""
    wrong = np.abs(e.analytic - e.numeric) > e.left_over
    count = int(np.sum(wrong))
    if not (e.is_whole and _ENOUGH <= count < wrong.size):
        return
    part = e._replace(places=e.places[wrong], numeric=e.numeric[wrong])
    found = part.fit(np.zeros(count), part.analytic)
    if found:
        words = _factor_words(1.0 / found, context)
        first = list(unravel(int(np.argmax(wrong)), e.gradient.shape))
        yield f"holds {count} entries, from {first} on, that are {words}; the others are right"


def _per_entry(e: Evidence) -> Iterator[str]:
    """Find a factor for each entry: the parameter itself, or units of measurement."""
    wrong, point = np.abs(e.analytic - e.numeric) > e.left_over, e.there(e.point)
    used = (e.numeric != 0.0) & (e.analytic != 0.0) & wrong
    if int(np.sum(used)) < _ENOUGH:
        return
    if np.all(point):
        if e.agrees(e.analytic / point):
            yield "is the numeric one times the parameter: a derivative by its logarithm?"
        elif e.agrees(e.analytic * point):
            yield "is the numeric one divided by the parameter: not by its logarithm?"
    ratios = e.analytic[used] / e.numeric[used]
    large = np.maximum(ratios, 1.0 / ratios).tolist()
    if all(any(math.isclose(r, unit, rel_tol=1e-4) for unit in _UNITS) for r in large):
        shown = ", ".join(f"{r:.6g}" for r in ratios[:5].tolist())
        more = ", ..." if ratios.size > 5 else ""
        yield f"is off by a factor for each entry ({shown}{more}): units?"


def _near(value: float | None, other: float | None) -> bool:
    return value is not None and other is not None and math.isclose(value, other, rel_tol=_CLOSE)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plural(words: str) -> str:
    """Return words of which a verb is the first, as they are said of several."""
    verb, _, rest = words.partition(" ")
    plurals = {"is": "are", "has": "have", "lacks": "lack", "holds": "hold"}
    return f"{plurals[verb]} {rest.replace('it is', 'they are')}"
