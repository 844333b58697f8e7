"""Looking closer at the entries where two gradients do not simply agree."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.directions import jitter
from backprop_xp.gradient_check.engines import (
    complex_entries,
    complex_line,
    epsilon,
    moved_by,
    real_entries,
    real_line,
    real_size,
)
from backprop_xp.gradient_check.findings import (
    JITTERS,
    ROUNDINGS,
    Subject,
    finite,
    relative_errors,
    tensor_at,
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

# So many entries, the worst of each tensor first, are looked at closely before it is called a fail.
_SUSPECTS = 8


class Engine(NamedTuple):
    """How the numeric gradient is taken, of which function, and what a right one stays below."""

    name: str
    function: Function
    is_complex: bool
    step: float
    tolerance: float
    reason: str


class Entry(NamedTuple):
    """What became of an entry at which the two gradients do not simply agree."""

    outcome: str
    numeric: float
    bar: float


def differentiate(engine: Engine, columns: Sequence[int]) -> tuple[Host, Host]:
    """Return the numeric derivatives of some entries, and their error bars: 0 by complex step."""
    if engine.is_complex:
        slopes = finite(complex_entries(engine.function, columns), math.nan)
        return slopes, array_namespace(slopes).zeros_like(slopes)
    found = real_entries(engine.function, columns, engine.step)
    return finite(found.slope, math.nan), error_bar(found)


def roughest(engine: Engine, scale: Host) -> Host:
    """Return how large an error bar may be; a gradient that is 0 throughout is compared with 1."""
    xp = array_namespace(scale)
    return max(COARSEST, engine.tolerance) * xp.where(scale > 0.0, scale, xp.ones_like(scale))


def resolve(
    subject: Subject, engine: Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, Entry]:
    """Return what became of each entry that is open; after a fail, of some of them."""
    entries: dict[int, Entry] = {}
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
    subject: Subject, engine: Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, Entry]:
    """Find the entries that are no numbers."""
    finite = array_namespace(numeric).isfinite(subject.analytic)
    return {i: Entry(WRONG, float(numeric[i]), 0.0) for i in places if not finite[i]}


def _look_at_the_piece(
    subject: Subject, engine: Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, Entry]:
    """Find the entries that are right on the smooth piece which the point lies on: kinks."""
    frozen = engine.function.frozen()
    if frozen is None:
        return {}
    on_piece, _ = differentiate(engine._replace(function=frozen), places)
    return {
        i: Entry(KINK, float(on_piece[k]), 0.0)
        for k, i in enumerate(places)
        if abs(float(subject.analytic[i] - on_piece[k])) <= engine.tolerance * float(scale[i])
    }


def _look_at_rounding(
    subject: Subject, engine: Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, Entry]:
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
    limit, entries = roughest(engine, scale), {}
    for i in places:
        bar = noise.get(tensor_at(subject.tensors, i).name, 0.0) + least / max(1.0, float(here[i]))
        if abs(float(subject.analytic[i] - numeric[i])) <= bar:
            outcome = RIGHT if bar <= float(limit[i]) else INCONCLUSIVE
            entries[i] = Entry(outcome, float(numeric[i]), bar)
    return entries


def _jittered(engine: Engine, moved: Function | None, away: Host, column: int) -> float:
    """Return the derivative of an entry at a point moved ``away``; ``moved`` is around it."""
    xp = array_namespace(away)
    unit = xp.astype(xp.arange(away.shape[0]) == column, xp.float64)
    if moved is None:
        return complex_line(engine.function, unit, away)[0]
    step = engine.step * max(1.0, abs(float(moved.host[column])))
    return float(real_line(moved, unit, step, xp.zeros_like(away)).slope[0])


def _look_closer(
    subject: Subject, engine: Engine, numeric: Host, scale: Host, places: list[int]
) -> dict[int, Entry]:
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
        entries[i] = Entry(outcome, slope, bar)
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
