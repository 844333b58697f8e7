"""What is shown to the diagnosis: each wrong tensor, by its entries or along directions."""

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.diagnosis import Evidence, diagnose, diagnose_whole
from backprop_xp.gradient_check.directional import direction_of
from backprop_xp.gradient_check.directions import norm
from backprop_xp.gradient_check.findings import Findings, Subject, tensor_at
from backprop_xp.gradient_check.functions import Host
from backprop_xp.gradient_check.points import Tensor
from backprop_xp.gradient_check.problems import Problem


def explain(problem: Problem, subject: Subject, found: Findings) -> str | None:
    """Return what the mistake looks like, and which piece of the function it is in."""
    words = None
    if found.numeric is not None:
        evidence, whole = _from_entries(subject, found, found.numeric)
        if whole and len(evidence) > 1:
            words = diagnose_whole(evidence, problem.context)
        words = words or diagnose(evidence, problem.context)
    elif found.place is not None:
        size = subject.analytic.shape[0]
        everything = Tensor("", (size,), slice(0, size))
        one = tensor_at(subject.tensors, found.place)
        if len(subject.tensors) > 1:
            evidence = [_along(subject, found, everything, found.place)]
            words = diagnose_whole(evidence, problem.context)
        words = words or diagnose([_along(subject, found, one, found.place)], problem.context)
    return "; ".join(filter(None, [words, problem.blame()])) or None


def _from_entries(subject: Subject, found: Findings, numeric: Host) -> tuple[list[Evidence], bool]:
    """Return the wrong tensors, and whether none is right but such as are zero."""
    xp = array_namespace(subject.analytic)
    point = xp.astype(subject.function.host, xp.float64)
    evidence, whole = [], True
    for errors in found.tensors:
        tensor = next(t for t in subject.tensors if t.name == errors.tensor)
        analytic, there, here = (
            xp.reshape(vector[tensor.part], tensor.shape)
            for vector in (subject.analytic, numeric, point)
        )
        size = float(xp.max(xp.maximum(xp.abs(analytic), xp.abs(there))))
        if errors.fraction_wrong:
            slack = found.tolerance * size
            evidence.append(Evidence(tensor, analytic, here, slack, there))
        elif size > 0.0:
            whole = False
    return evidence, whole


def _along(subject: Subject, found: Findings, tensor: Tensor, place: int) -> Evidence:
    """Return a tensor, in which the entry at ``place`` is wrong, along two directions."""
    xp = array_namespace(subject.analytic)
    size = subject.analytic.shape[0]
    here = xp.astype(subject.function.host, xp.float64)
    analytic, point = (
        xp.reshape(vector[tensor.part], tensor.shape) for vector in (subject.analytic, here)
    )
    along = [direction_of(subject, number)[tensor.part] for number in (2, 3)]

    def measure(direction: Host) -> float:
        return found.measure(_embedded(direction, tensor, size))  # type: ignore[misc]

    return Evidence(
        tensor,
        analytic,
        point,
        found.tolerance * max(norm(subject.analytic[tensor.part] * d) for d in along),
        measure=measure,
        along=tuple(xp.reshape(d, tensor.shape) for d in along),
        place=place - tensor.part.start,
    )


def _embedded(direction: Host, tensor: Tensor, size: int) -> Host:
    """Return a direction of a tensor as one of the point ``(P,)``."""
    xp = array_namespace(direction)
    flat = xp.reshape(direction, (-1,))
    before, after = xp.zeros(tensor.part.start), xp.zeros(size - tensor.part.stop)
    return xp.concat([before, flat, after], axis=-1)
