"""What the methods hand over to be reported, and what all of them need to know."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.engines import (
    Slopes,
    epsilon,
    real_size,
)
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.judgement import (
    INCONCLUSIVE,
    KINK,
    RIGHT,
    WRONG,
)
from backprop_xp.gradient_check.points import Tensor
from backprop_xp.gradient_check.report import Row, TensorErrors
from backprop_xp.gradient_check.taylor import TaylorTable

_SEVERITY = (RIGHT, KINK, INCONCLUSIVE, WRONG)
_VERDICTS = {RIGHT: "pass", KINK: "kink", INCONCLUSIVE: "inconclusive", WRONG: "fail"}

_WORST_ROWS = 5

# An analytic derivative is rounded too: to some times the rounding of the value and, where terms of
# it cancel, to what a jitter of the point by its own rounding makes of it.
ROUNDINGS = 4.0
JITTERS = 8.0


class Subject(NamedTuple):
    """A function, its analytic gradient on the host, ``(P,)`` in float64, and the tensors in it."""

    function: Function
    analytic: Host
    tensors: tuple[Tensor, ...]
    seed: int


class Findings(NamedTuple):
    """The outcome of a method, as ``GradientReport`` explains it; ``numeric`` is ``(P,)``.

    ``measure`` gives the derivative along a direction: for a diagnosis where there is no
    ``numeric``; ``place`` is the entry that was tracked down then.
    """

    verdict: str
    method: str
    engine: str
    step: float
    tolerance: float
    reason: str
    evaluations: int
    error: float
    numeric: Host | None = None
    rows: tuple[Row, ...] = ()
    tensors: tuple[TensorErrors, ...] = ()
    taylor: TaylorTable | None = None
    measure: Callable[[Host], float] | None = None
    place: int | None = None


def verdict_of(outcomes: Sequence[str]) -> str:
    """Return the verdict that the worst of several outcomes makes."""
    return _VERDICTS[max(outcomes, key=_SEVERITY.index, default=RIGHT)]


def worst_rows(
    tensors: Sequence[Tensor], analytic: Host, numeric: Host, scale: Host
) -> tuple[Row, ...]:
    """Return the entries that are off the most for their tensor, the worst first."""
    xp = array_namespace(analytic)
    relative = relative_errors(analytic, numeric, scale)
    order = xp.flip(xp.argsort(relative))[:_WORST_ROWS]
    return tuple(
        row(tensors, int(i), float(analytic[i]), float(numeric[i]), float(scale[i])) for i in order
    )


def row(
    tensors: Sequence[Tensor], place: int, analytic: float, numeric: float, scale: float
) -> Row:
    """Return the row of the entry at ``place`` of the point."""
    tensor = tensor_at(tensors, place)
    difference = abs(analytic - numeric)
    relative = difference / scale if scale else 0.0
    return Row(
        tensor.name,
        unravel(place - tensor.part.start, tensor.shape),
        analytic,
        numeric,
        difference,
        relative if math.isfinite(difference) else math.inf,
    )


def tensor_at(tensors: Sequence[Tensor], place: int) -> Tensor:
    """Return the tensor that holds the entry at ``place`` of the point."""
    return next(t for t in tensors if t.part.start <= place < t.part.stop)


def tensor_errors(
    tensors: Sequence[Tensor], analytic: Host, numeric: Host, scale: Host, tolerance: float
) -> tuple[TensorErrors, ...]:
    """Return what became of each tensor."""
    xp = array_namespace(analytic)
    relative = relative_errors(analytic, numeric, scale)
    found = []
    for t in tensors:
        count = t.part.stop - t.part.start
        if not count:
            continue
        part = relative[t.part]
        wrong = int(xp.sum(xp.astype(part > tolerance, xp.int32)))
        difference = float(xp.max(finite(xp.abs(analytic[t.part] - numeric[t.part]), math.inf)))
        found.append(TensorErrors(t.name, count, difference, float(xp.max(part)), wrong / count))
    return tuple(found)


def relative_errors(analytic: Host, numeric: Host, scale: Host) -> Host:
    """Return each entry's error relative to ``scale``; infinite where it is not a number."""
    xp = array_namespace(analytic)
    difference = xp.abs(analytic - numeric)
    relative = difference / xp.where(scale > 0.0, scale, xp.ones_like(scale))
    return finite(relative, math.inf)


def finite(vector: Host, instead: float = 0.0) -> Host:
    """Return a vector with another number where it is not finite."""
    xp = array_namespace(vector)
    return xp.where(xp.isfinite(vector), vector, xp.full_like(vector, instead))


def line_rounding(subject: Subject, slopes: Slopes) -> float:
    """Return what rounding, of the value and of the point, may make of a derivative along a line.

    The latter is seen from how the slope changes along it.
    """
    bend = abs(float(slopes.right[0] - slopes.left[0])) / float(slopes.step[0])
    largest = max(abs(subject.function.base), bend if math.isfinite(bend) else 0.0)
    return ROUNDINGS * epsilon(subject.function) * largest


def line_step(function: Function) -> float:
    """Return the step along a direction: the more entries move, the less each of them."""
    return real_size(function) * float(function.host.shape[0] ** -0.25)
