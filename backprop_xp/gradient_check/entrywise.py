"""Checking a gradient entry by entry: every derivative is taken, and every one is compared."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.directions import draw, jitter
from backprop_xp.gradient_check.engines import (
    KinkError,
    NotAnalyticError,
    complex_entries,
    complex_line,
    complex_size,
    epsilon,
    is_double,
    moved_by,
    real_entries,
    real_line,
    real_size,
)
from backprop_xp.gradient_check.findings import (
    JITTERS,
    ROUNDINGS,
    Findings,
    Subject,
    finite,
    guard_tolerance,
    relative_errors,
    tensor_at,
    tensor_errors,
    trusted_complex_line,
    verdict_of,
    worst_rows,
)
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.judgement import (
    COARSEST,
    INCONCLUSIVE,
    KINK,
    RIGHT,
    WRONG,
    error_bar,
    full_depth,
    judge,
)

# Below this part of the largest derivative of all, a tensor's derivatives count as its rounding.
NEGLIGIBLE = 1e-5
_MOSTLY = 0.1
# So many entries, the worst of each tensor first, are looked at closely before it is called a fail.
_SUSPECTS = 8


class _Engine(NamedTuple):
    """How the numeric gradient is taken, of which function, and what a right one stays below."""

    name: str
    function: Function
    is_complex: bool
    step: float
    tolerance: float
    reason: str


class _Entry(NamedTuple):
    """What became of an entry at which the two gradients do not simply agree."""

    outcome: str
    numeric: float
    bar: float


def check_entries(subject: Subject, method: str, tolerance: float | None) -> Findings:
    """Check every entry by ``"complex_step"``, ``"centered"``, or what ``"auto"`` finds fit."""
    engine = _choose(subject, method)
    if tolerance is not None:
        engine = engine._replace(tolerance=tolerance, reason="what was asked for")
    numeric, bar = _differentiate(engine, range(subject.analytic.shape[0]))
    # A numeric derivative that is mostly error says nothing of how large the derivatives are.
    sure = bar <= _MOSTLY * array_namespace(bar).abs(numeric)
    scale = _scale(subject, array_namespace(bar).where(sure, numeric, 0.0 * bar))
    entries = _resolve(subject, engine, numeric, scale, _open(subject, engine, numeric, bar, scale))
    verdict = verdict_of([entry.outcome for entry in entries.values()])
    numeric = _replaced(numeric, {i: entry.numeric for i, entry in entries.items()})
    # A kink has no derivative to be compared with.
    compared = _replaced(
        numeric,
        {i: float(subject.analytic[i]) for i, e in entries.items() if e.outcome == KINK},
    )
    scale = _scale(subject, compared, NEGLIGIBLE if verdict in ("pass", "kink") else 0.0)
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


def _choose(subject: Subject, method: str) -> _Engine:
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
            return _Engine("complex step", function, True, step, tolerance, reason)
    double = function.in_double()
    if double is not None:
        name, reason = (
            "centered difference in float64",
            "what rounding leaves of a float32 gradient",
        )
        return _Engine(name, double, False, real_size(double), 1e-4, reason)
    name, reason = "centered difference", "what a difference of fourth order leaves"
    return _Engine(name, function, False, real_size(function), 1e-8 if exact else 1e-4, reason)


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


def _differentiate(engine: _Engine, columns: Sequence[int]) -> tuple[Host, Host]:
    """Return the numeric derivatives of some entries, and their error bars: 0 by complex step."""
    if engine.is_complex:
        slopes = finite(complex_entries(engine.function, columns), math.nan)
        return slopes, array_namespace(slopes).zeros_like(slopes)
    found = real_entries(engine.function, columns, engine.step)
    return finite(found.slope, math.nan), error_bar(found)


def _scale(subject: Subject, numeric: Host, least: float = NEGLIGIBLE) -> Host:
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


def _open(subject: Subject, engine: _Engine, numeric: Host, bar: Host, scale: Host) -> list[int]:
    """Return the entries at which the gradients do not agree, or the numeric one is too rough."""
    difference = array_namespace(scale).abs(subject.analytic - numeric)
    agree = (difference <= engine.tolerance * scale) & (bar <= _roughest(engine, scale))
    return [i for i, fine in enumerate(agree.tolist()) if not fine]


def _roughest(engine: _Engine, scale: Host) -> Host:
    """Return how large an error bar may be; a gradient that is 0 throughout is compared with 1."""
    xp = array_namespace(scale)
    return max(COARSEST, engine.tolerance) * xp.where(scale > 0.0, scale, xp.ones_like(scale))


def _resolve(
    subject: Subject, engine: _Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, _Entry]:
    """Return what became of each entry that is open; after a fail, of some of them."""
    entries: dict[int, _Entry] = {}
    for look in (_look_at_numbers, _look_at_the_piece, _look_at_rounding):
        if places:
            entries |= look(subject, engine, numeric, scale, places)
            places = [i for i in places if i not in entries]
    suspects = _worst_of_each(subject, numeric, scale, places)
    entries |= _look_closer(subject, engine, numeric, scale, suspects)
    if not any(entry.outcome == WRONG for entry in entries.values()):
        rest = [i for i in places if i not in entries]
        entries |= _look_closer(subject, engine, numeric, scale, rest)
    return entries


def _look_at_numbers(
    subject: Subject, engine: _Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, _Entry]:
    """Find the entries that are no numbers."""
    finite = array_namespace(numeric).isfinite(subject.analytic)
    return {i: _Entry(WRONG, float(numeric[i]), 0.0) for i in places if not finite[i]}


def _look_at_the_piece(
    subject: Subject, engine: _Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, _Entry]:
    """Find the entries that are right on the smooth piece which the point lies on: kinks."""
    frozen = engine.function.frozen()
    if frozen is None:
        return {}
    on_piece, _ = _differentiate(engine._replace(function=frozen), places)
    return {
        i: _Entry(KINK, float(on_piece[k]), 0.0)
        for k, i in enumerate(places)
        if abs(float(subject.analytic[i] - on_piece[k])) <= engine.tolerance * float(scale[i])
    }


def _look_at_rounding(
    subject: Subject, engine: _Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, _Entry]:
    """Find the entries where rounding alone explains the difference.

    How much it is, a few entries show: their derivatives change as the point is jittered by its
    own rounding.
    """
    xp = array_namespace(numeric)
    tried = _worst_of_each(subject, numeric, scale, places)
    away = jitter(subject.function, subject.seed)
    moved = None if engine.is_complex else moved_by(engine.function, away)
    changes = abs(
        xp.asarray([_jittered(engine, moved, away, i) for i in tried])
        - xp.take(numeric, tried, axis=0)
    )
    here = xp.abs(xp.astype(engine.function.host, xp.float64))
    least = ROUNDINGS * epsilon(subject.function) * abs(engine.function.base)
    noise: dict[str, float] = {}
    for change, i in zip(changes.tolist(), tried, strict=True):
        name = tensor_at(subject.tensors, i).name
        noise[name] = max(noise.get(name, 0.0), JITTERS * change)
    roughest, entries = _roughest(engine, scale), {}
    for i in places:
        bar = noise.get(tensor_at(subject.tensors, i).name, 0.0) + least / max(1.0, float(here[i]))
        if abs(float(subject.analytic[i] - numeric[i])) <= bar:
            outcome = RIGHT if bar <= float(roughest[i]) else INCONCLUSIVE
            entries[i] = _Entry(outcome, float(numeric[i]), bar)
    return entries


def _jittered(engine: _Engine, moved: Function | None, away: Host, column: int) -> float:
    """Return the derivative of an entry at a point moved ``away``; ``moved`` is around it."""
    xp = array_namespace(away)
    unit = xp.astype(xp.arange(away.shape[0]) == column, xp.float64)
    if moved is None:
        return complex_line(engine.function, unit, away)[0]
    step = engine.step * max(1.0, abs(float(moved.host[column])))
    return float(real_line(moved, unit, step, xp.zeros_like(away)).slope[0])


def _look_closer(
    subject: Subject, engine: _Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, _Entry]:
    """Judge entries by real differences: at one step if the complex step agrees, else at several.

    The complex step and the real one are so far apart that a kink between them would show.
    """
    if not places:
        return {}
    xp = array_namespace(numeric)
    function = engine.function.in_double() or engine.function
    found = judge(
        lambda h: real_entries(function, places, h),
        xp.take(subject.analytic, places, axis=0),
        xp.take(scale, places, axis=0),
        engine.tolerance,
        real_size(function),
        depth=full_depth(function),
        confirmed=xp.take(numeric, places, axis=0) if engine.is_complex else None,
    )
    entries = {}
    for k, i in enumerate(places):
        outcome, slope, bar = found.outcomes[k], float(found.slope[k]), float(found.bar[k])
        if engine.is_complex and outcome != KINK and abs(float(numeric[i]) - slope) <= bar:
            # Of the two that agree the complex step is the sharper.
            outcome, slope, bar = WRONG, float(numeric[i]), 0.0
        entries[i] = _Entry(outcome, slope, bar)
    return entries


def _worst_of_each(subject: Subject, numeric: Host, scale: Host, places: list[int]) -> list[int]:
    """Return some of the places, in ascending order: the worst of each tensor before others."""
    relative = relative_errors(subject.analytic, numeric, scale)
    ranks: dict[str, int] = {}
    ranked = []
    for i in sorted(places, key=lambda i: -float(relative[i])):
        name = tensor_at(subject.tensors, i).name
        ranks[name] = ranks.get(name, 0) + 1
        ranked.append((ranks[name], i))
    return sorted(i for _, i in sorted(ranked)[:_SUSPECTS])


def _replaced(vector: Host, values: dict[int, float]) -> Host:
    """Return a copy of a vector with some entries replaced."""
    xp = array_namespace(vector)
    listed = vector.tolist()
    for place, value in values.items():
        listed[place] = value
    return xp.asarray(listed, dtype=vector.dtype)


def _tolerance(engine: _Engine, entries: dict[int, _Entry], scale: Host) -> tuple[float, str]:
    """Return what a right entry stays below: no less than the error bar where one was needed."""
    bars = [e.bar / (float(scale[i]) or 1.0) for i, e in entries.items() if e.outcome == RIGHT]
    roughest = max(bars, default=0.0)
    if roughest <= engine.tolerance:
        return engine.tolerance, engine.reason
    return roughest, "what can be told apart from rounding here"
