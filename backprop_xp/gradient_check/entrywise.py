"""Checking a gradient entry by entry: every derivative is taken, and every one is compared."""

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.directions import draw
from backprop_xp.gradient_check.engines import (
    KinkError,
    NotAnalyticError,
    complex_entries,
    complex_size,
    is_double,
    real_entries,
    real_size,
)
from backprop_xp.gradient_check.findings import (
    Findings,
    Subject,
    finite,
    tensor_errors,
    verdict_of,
    worst_rows,
)
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.guard import guard_tolerance, trusted_complex_line
from backprop_xp.gradient_check.judgement import (
    KINK,
    RIGHT,
    WRONG,
    full_depth,
    judge,
)
from backprop_xp.gradient_check.suspects import Engine, Entry, differentiate, resolve, roughest

# Below this part of the largest derivative of all, a tensor's derivatives count as its rounding.
_NEGLIGIBLE = 1e-5
# An error bar that is a larger part of a derivative leaves nothing of it.
_MOSTLY = 0.1


def check_entries(subject: Subject, method: str, tolerance: float | None) -> Findings:
    """Check every entry by ``"complex_step"``, ``"centered"``, or what ``"auto"`` finds fit."""
    engine = _choose(subject, method)
    if tolerance is not None:
        engine = engine._replace(tolerance=tolerance, reason="what was asked for")
    numeric, bar = differentiate(engine, range(subject.analytic.shape[0]))
    # A numeric derivative that may be all error does not say how large the derivatives are.
    sure = bar <= _MOSTLY * array_namespace(bar).abs(numeric)
    scale = _scale(subject, array_namespace(bar).where(sure, numeric, 0.0 * bar))
    entries = resolve(subject, engine, numeric, scale, _open(subject, engine, numeric, bar, scale))
    verdict = verdict_of([entry.outcome for entry in entries.values()])
    numeric = _replaced(numeric, {i: entry.numeric for i, entry in entries.items()})
    # A kink has no derivative to be compared with.
    compared = _replaced(
        numeric,
        {i: float(subject.analytic[i]) for i, e in entries.items() if e.outcome == KINK},
    )
    scale = _scale(subject, compared, _NEGLIGIBLE if verdict in ("pass", "kink") else 0.0)
    tolerance, reason = _tolerance(engine, entries, scale)
    errors = tensor_errors(subject.tensors, subject.analytic, compared, scale, tolerance)
    return Findings(
        verdict=verdict,
        method="complex_step" if engine.is_complex else "centered",
        engine=engine.name,
        step=engine.step,
        tolerance=tolerance,
        reason=reason,
        evaluations=subject.function.tally["value"],
        error=max((t.relative_error for t in errors), default=0.0),
        numeric=numeric,
        rows=worst_rows(subject.tensors, subject.analytic, compared, scale),
        tensors=errors,
    )


def _choose(subject: Subject, method: str) -> Engine:
    """Return the engine of a method; for auto, the complex step where it can be trusted."""
    function = subject.function
    exact = is_double(function)
    if method != "centered":
        direction, strict = draw(function, subject.seed, 0), method == "complex_step"
        beside = function.in_double() or function
        try:
            slope, _ = trusted_complex_line(
                subject, direction, beside, depth=full_depth(beside), strict=strict
            )
        except KinkError as error:
            slope = _beside_every_entry(subject, beside, error)
        if slope is not None:
            step, tolerance = complex_size(function), 1e-10 if exact else 1e-4
            reason = "what rounding leaves of an exact derivative"
            return Engine("complex step", function, True, step, tolerance, reason)
    double = function.in_double()
    if double is not None:
        name, reason = (
            "centered difference in float64",
            "what rounding leaves of a float32 gradient",
        )
        return Engine(name, double, False, real_size(double), 1e-4, reason)
    name, reason = "centered difference", "what a difference of fourth order leaves"
    return Engine(name, function, False, real_size(function), 1e-8 if exact else 1e-4, reason)


def _beside_every_entry(subject: Subject, beside: Function, error: KinkError) -> float:
    """Return 0.0 if real differences leave the complex step of each entry possible, else raise.

    Along a direction a kink hides what the complex step may miss.
    """
    columns = range(subject.analytic.shape[0])
    slopes = complex_entries(subject.function, columns)
    found = judge(
        lambda h: real_entries(beside, columns, h),
        slopes,
        _scale(subject, slopes),
        guard_tolerance(subject.function),
        real_size(beside),
        depth=full_depth(beside),
    )
    if WRONG in found.outcomes:
        raise NotAnalyticError(str(error))
    return 0.0


def _scale(subject: Subject, numeric: Host, least: float = _NEGLIGIBLE) -> Host:
    """Return for each entry the size ``(P,)`` that its error is relative to: its tensor's largest.

    At the least it is ``least`` times the largest of all tensors.
    """
    xp = array_namespace(numeric)
    sizes = xp.maximum(xp.abs(finite(subject.analytic)), xp.abs(finite(numeric)))
    floor = least * float(xp.max(sizes))
    parts = [
        xp.full(t.part.stop - t.part.start, max(float(xp.max(sizes[t.part])), floor))
        for t in subject.tensors
        if t.part.stop > t.part.start
    ]
    return xp.concat(parts, axis=-1)


def _open(subject: Subject, engine: Engine, numeric: Host, bar: Host, scale: Host) -> list[int]:
    """Return the entries at which the gradients do not agree, or the numeric one is too rough."""
    difference = array_namespace(scale).abs(subject.analytic - numeric)
    agree = (difference <= engine.tolerance * scale) & (bar <= roughest(engine, scale))
    return [i for i, fine in enumerate(agree.tolist()) if not fine]


def _replaced(vector: Host, values: dict[int, float]) -> Host:
    """Return a copy of a vector with some entries replaced."""
    xp = array_namespace(vector)
    listed = vector.tolist()
    for place, value in values.items():
        listed[place] = value
    return xp.asarray(listed, dtype=vector.dtype)


def _tolerance(engine: Engine, entries: dict[int, Entry], scale: Host) -> tuple[float, str]:
    """Return what a right entry stays below: no less than the error bar where one was needed."""
    bars = [e.bar / (float(scale[i]) or 1.0) for i, e in entries.items() if e.outcome == RIGHT]
    roughest = max(bars, default=0.0)
    if roughest <= engine.tolerance:
        return engine.tolerance, engine.reason
    return roughest, "what can be told apart from rounding here"
