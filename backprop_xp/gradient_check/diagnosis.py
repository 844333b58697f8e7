"""What a wrong gradient looks like: the common mistakes, tried one after the other.

An explanation is a gradient ``u + c v`` made of what is known, the analytic gradient and the point,
which agrees with the numeric one for some number c. It is tried on each wrong tensor; by
directions, where there is no numeric gradient, on derivatives along two of them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.functions import Host
from backprop_xp.gradient_check.points import Tensor

# An explanation leaves at most this part of the difference, and less where rounding allows.
_MOST_LEFT_OVER = 0.02
_LEAST_LEFT_OVER = 1e-6
_CLOSE = 2e-3


class Context(NamedTuple):
    """What is known of the function beside its gradient; None where it is not.

    ``rows`` is the size of the batch, ``penalty`` the strength of L2, which applies to the tensors
    named in ``decays``.
    """

    rows: int | None = None
    penalty: float | None = None
    decays: frozenset[str] = frozenset()


class Evidence(NamedTuple):
    """A wrong tensor: its analytic gradient and the point, in the tensor's shape, on the host.

    ``slack`` is what rounding makes of a difference.
    ``numeric`` is the numeric gradient in that shape, or None: then ``measure`` gives its
    derivative along a direction of that shape, ``along`` are two of them, and ``place`` is an
    entry that is wrong.
    """

    tensor: Tensor
    analytic: Host
    point: Host
    slack: float
    numeric: Host | None = None
    measure: Callable[[Host], float] | None = None
    along: tuple[Host, ...] = ()
    place: int = 0

    def project(self, array: Host) -> Host:
        """Return what an array of the tensor's shape is compared by."""
        xp = array_namespace(array)
        if self.numeric is not None:
            return xp.reshape(array, (-1,))
        return xp.stack([xp.sum(array * direction) for direction in self.along])

    def measured(self) -> Host:
        """Return what the numeric gradient is compared by."""
        xp = array_namespace(self.analytic)
        if self.numeric is not None:
            return xp.reshape(self.numeric, (-1,))
        return xp.asarray([self.measure(direction) for direction in self.along])  # type: ignore[misc]


class _Case(NamedTuple):
    """Evidence, projected once: by how much it is off, and what may be left of that."""

    evidence: Evidence
    analytic: Host
    numeric: Host
    off: float
    left_over: float


def diagnose(evidence: Sequence[Evidence], context: Context) -> str | None:
    """Return a sentence on the tensors that are wrong, or None where nothing simple explains it."""
    sentences: dict[str, list[str]] = {}
    for case in map(_case, evidence):
        words = next(_explanations(case, context), None)
        if words is not None:
            sentences.setdefault(words, []).append(case.evidence.tensor.name or "the gradient")
    said = [
        f"{_listed(names)} {words if len(names) == 1 else _plural(words)}"
        for words, names in sentences.items()
    ]
    return "; ".join(said) or None


def diagnose_whole(evidence: Sequence[Evidence], context: Context) -> str | None:
    """Return a sentence on a gradient no tensor of which is right: one factor on all of it."""
    factors = [_factor(_case(e), of_any=True) for e in evidence]
    first = factors[0]
    if first is None or not all(_near(factor, first) for factor in factors):
        return None
    return f"the whole gradient is {_factor_words(first, context)}"


def _case(evidence: Evidence) -> _Case:
    analytic, numeric = evidence.project(evidence.analytic), evidence.measured()
    xp = array_namespace(analytic)
    off = float(xp.max(xp.abs(analytic - numeric)))
    left_over = min(max(_LEAST_LEFT_OVER * off, 2.0 * evidence.slack), _MOST_LEFT_OVER * off)
    return _Case(evidence, analytic, numeric, off, left_over)


def _explanations(case: _Case, context: Context) -> Iterator[str]:
    yield from _not_finite(case)
    if math.isfinite(case.off):
        yield from _zero(case)
        factor = _factor(case)
        if factor is not None:
            yield f"is {_factor_words(factor, context)}"
        yield from _transposed(case)
        yield from _penalty(case, context)
        yield from _permuted(case)
        yield from _zero_there(case)


def _not_finite(case: _Case) -> Iterator[str]:
    xp = array_namespace(case.evidence.analytic)
    count = int(xp.sum(xp.astype(~xp.isfinite(case.evidence.analytic), xp.int32)))
    if count:
        numbers = "a number that is" if count == 1 else f"{count} numbers that are"
        yield f"holds {numbers} not finite"


def _zero(case: _Case) -> Iterator[str]:
    evidence = case.evidence
    xp = array_namespace(case.analytic)
    if not bool(xp.any(evidence.analytic != 0.0)):
        strength = _fit(case, case.analytic, evidence.project(evidence.point))
        times = "" if strength is None else f", but {strength:.6g} times the parameter (a penalty?)"
        yield f"is zero, and should not be{times}"
        return
    if evidence.numeric is None:
        return
    wrong = xp.abs(case.analytic - case.numeric) > case.left_over
    if not bool(xp.any(wrong & (case.analytic != 0.0))):
        count = int(xp.sum(xp.astype(wrong, xp.int32)))
        yield f"holds a zero block: {count} entries are zero, and should not be"


def _zero_there(case: _Case) -> Iterator[str]:
    """Say that the entry which was tracked down is zero: no more is known along directions."""
    evidence = case.evidence
    if evidence.numeric is None:
        flat = array_namespace(evidence.analytic).reshape(evidence.analytic, (-1,))
        if float(flat[evidence.place]) == 0.0:
            index = list(unravel(evidence.place, evidence.tensor.shape))
            yield f"is zero at {index}, and perhaps elsewhere, and should not be"


def _factor(case: _Case, *, of_any: bool = False) -> float | None:
    """Return what the analytic gradient is times the numeric one, if it is one number.

    Of a single number any factor can be said: unless it is ``of_any``, only a usual one is.
    """
    if not math.isfinite(case.off):
        return None
    xp = array_namespace(case.analytic)
    found = _fit(case, xp.zeros_like(case.analytic), case.analytic)
    # So near 1 it is what rounding makes of a tiny derivative.
    if found is None or abs(found) < 1e-12 or abs(found - 1.0) < 1e-6:
        return None
    factor = 1.0 / found
    large = max(abs(factor), 1.0 / abs(factor))
    slack = max(1e-6, case.evidence.slack / float(xp.max(xp.abs(case.numeric))))
    usual = math.isclose(large, round(large), rel_tol=slack) and (factor > 0.0 or large < 1.5)
    numbers = int(xp.sum(xp.astype(case.evidence.analytic != 0.0, xp.int32)))
    return factor if of_any or usual or numbers > 1 else None


def _factor_words(factor: float, context: Context) -> str:
    whole = round(1.0 / factor) if abs(factor) < 1.0 else round(factor)
    inverse = abs(factor) < 1.0
    exact = _near(factor, 1.0 / whole if inverse and whole else float(whole))
    shown = f"1/{whole}" if inverse and exact and whole > 0 else f"{factor:.6g}"
    words = f"the numeric one times a constant factor of {shown}"
    if _near(factor, -1.0):
        return f"{words}: the sign is wrong"
    if exact and (whole == context.rows or (whole > 2 and context.rows is None)):
        rows = ", the number of rows" if whole == context.rows else ""
        kind = "a mean where a sum belongs" if inverse else "a sum where a mean belongs"
        return f"{words}{rows}: {kind}"
    return words


def _transposed(case: _Case) -> Iterator[str]:
    evidence = case.evidence
    if len(evidence.tensor.shape) < 2 or 1 in evidence.tensor.shape[-2:]:
        return
    xp = array_namespace(case.analytic)
    *before, rows, columns = evidence.tensor.shape
    flipped = xp.matrix_transpose(xp.reshape(evidence.analytic, (*before, columns, rows)))
    if _explains(case, evidence.project(flipped)):
        yield "is the transpose of the numeric one"


def _penalty(case: _Case, context: Context) -> Iterator[str]:
    point = case.evidence.project(case.evidence.point)
    strength = _fit(case, case.analytic, point)
    if strength is None:
        return
    known, name = context.penalty, case.evidence.tensor.name
    if known:
        if name not in context.decays and _near(strength, -known):
            yield "holds the penalty (L2), which does not apply to it"
            return
        shares = {1.0: "lacks", 0.5: "holds half of", -1.0: "holds twice", 2.0: "holds minus"}
        for share, words in shares.items():
            if name in context.decays and _near(strength, share * known):
                yield f"{words} the penalty (L2), {known:g} times the parameter"
                return
    if math.prod(case.evidence.tensor.shape) > 1:
        times = f"{abs(strength):.6g} times the parameter"
        if strength > 0.0:
            yield f"lacks {times}: a penalty (L2) is missing or halved"
        else:
            yield f"holds {times} too much: a penalty (L2) is doubled, or does not belong there"


def _permuted(case: _Case) -> Iterator[str]:
    shape = case.evidence.tensor.shape
    if len(shape) < 2 or math.prod(shape) == max(shape):
        return
    if case.evidence.numeric is None:
        yield from _permuted_along(case)
        return
    xp = array_namespace(case.analytic)
    rows = (-1, shape[-1])
    analytic = xp.reshape(case.evidence.analytic, rows)
    numeric = xp.reshape(case.evidence.numeric, rows)
    for kind in ("rows", "columns"):
        moved = _moved_rows(analytic, numeric, case.left_over)
        if moved:
            yield _permuted_words(kind, moved)
            return
        analytic, numeric = xp.matrix_transpose(analytic), xp.matrix_transpose(numeric)


def _moved_rows(analytic: Host, numeric: Host, slack: float) -> list[int]:
    """Return the rows that stand elsewhere, if the analytic rows are the numeric ones reordered."""
    xp = array_namespace(analytic)
    # Rows are matched by the order of a weighted sum of each.
    weights = xp.sqrt(xp.arange(analytic.shape[1], dtype=analytic.dtype) + 2.0)
    here = xp.argsort(xp.sum(analytic * weights, axis=-1), stable=True)
    there = xp.argsort(xp.sum(numeric * weights, axis=-1), stable=True)
    left_over = xp.abs(xp.take(analytic, here, axis=0) - xp.take(numeric, there, axis=0))
    if float(xp.max(left_over)) > slack:
        return []
    far = xp.max(xp.abs(analytic - numeric), axis=-1) > slack
    return [i for i, moved in enumerate(far.tolist()) if moved]


def _permuted_along(case: _Case) -> Iterator[str]:
    """Find a row that holds another's derivatives, by directions along one row at a time."""
    evidence = case.evidence
    xp = array_namespace(evidence.analytic)
    columns = evidence.tensor.shape[-1]
    analytic = xp.reshape(evidence.analytic, (-1, columns))
    row = evidence.place // columns
    expected = _along_row(evidence, row)
    slack = case.left_over
    for other in range(analytic.shape[0]):
        found = _row_project(evidence, analytic, other, row)
        if other != row and float(xp.max(xp.abs(found - expected))) <= slack:
            back = _row_project(evidence, analytic, row, other) - _along_row(evidence, other)
            swapped = float(xp.max(xp.abs(back))) <= slack
            yield _permuted_words("rows", sorted([row, other]) if swapped else [row])
            return


def _along_row(evidence: Evidence, row: int) -> Host:
    """Return the numeric derivatives along the directions' part in one row."""
    xp = array_namespace(evidence.analytic)
    shape = (-1, evidence.tensor.shape[-1])
    measured = []
    for direction in evidence.along:
        rows = xp.reshape(direction, shape)
        chosen = xp.astype(xp.arange(rows.shape[0]) == row, rows.dtype)[:, None]
        measured.append(evidence.measure(xp.reshape(rows * chosen, direction.shape)))  # type: ignore[misc]
    return xp.asarray(measured)


def _row_project(evidence: Evidence, analytic: Host, source: int, target: int) -> Host:
    """Return the derivatives along row ``target`` as they would be with row ``source`` there."""
    xp = array_namespace(analytic)
    shape = (-1, evidence.tensor.shape[-1])
    return xp.stack(
        [xp.sum(analytic[source, :] * xp.reshape(d, shape)[target, :]) for d in evidence.along]
    )


def _permuted_words(kind: str, moved: Sequence[int]) -> str:
    if len(moved) == 2:
        return f"has {kind} {moved[0]} and {moved[1]} swapped"
    if len(moved) == 1:
        return f"has its {kind} permuted: {kind[:-1]} {moved[0]} holds another's derivatives"
    return f"has its {kind} permuted: {len(moved)} {kind} hold the derivatives of others"


def _fit(case: _Case, start: Host, part: Host) -> float | None:
    """Return the number c for which ``start + c part`` is the numeric gradient, if there is one."""
    xp = array_namespace(part)
    size = float(xp.sum(part * part))
    if not 0.0 < size < math.inf:
        return None
    factor = float(xp.sum(part * (case.numeric - start))) / size
    return factor if _explains(case, start + factor * part) else None


def _explains(case: _Case, candidate: Host) -> bool:
    xp = array_namespace(candidate)
    return float(xp.max(xp.abs(candidate - case.numeric))) <= case.left_over


def _near(value: float | None, other: float) -> bool:
    return value is not None and math.isclose(value, other, rel_tol=_CLOSE)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plural(words: str) -> str:
    """Return words of which a verb is the first, as they are said of several."""
    verb, _, rest = words.partition(" ")
    plurals = {"is": "are", "has": "have", "lacks": "lack", "holds": "hold"}
    return f"{plurals[verb]} {rest.replace('it is', 'they are')}"
