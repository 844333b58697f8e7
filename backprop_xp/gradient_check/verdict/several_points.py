"""A check at several points: those of the caller, and drawn ones."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from backprop_xp.backends import to_device_of
from backprop_xp.gradient_check.engine.analytic import scale_of
from backprop_xp.gradient_check.engine.constants import MOVES, STEP_AWAY, TINY, TYPICAL
from backprop_xp.gradient_check.inputs.functions import Function, around, quiet
from backprop_xp.gradient_check.inputs.points import Point
from backprop_xp.gradient_check.inputs.problems import CheckOptions, Problem
from backprop_xp.gradient_check.inputs.structures import Structure
from backprop_xp.gradient_check.verdict.judge import FAIL, PASS, Comparison, is_stationary
from backprop_xp.gradient_check.verdict.report import GradientReport
from backprop_xp.gradient_check.verdict.run import Checked, check_at

# Verdicts, the worst last.
ORDER = ("pass", "kink", "inconclusive", "nondeterministic", "fail")

# Where a stationary point is judged as well, and the stream of that point's random numbers.
_AWAY, _STEP = "one natural step away", 2

# Makes the problem at a point.
Build: TypeAlias = Callable[[Point], Problem]


def check_points(
    start: Callable[[Structure, str], tuple[Point, Build]],
    first: Structure,
    options: CheckOptions,
    *,
    name: str = "point",
    drawn: Mapping[str, np.ndarray] = MappingProxyType({}),
    zeros: bool = True,
) -> GradientReport:
    """Check a problem at a point, and at the others of the options; report the worst.

    ``start`` takes what the caller gives as a point, and its ``name`` for messages. It returns the
    point, and what makes the problem at any point of the same shape. ``drawn`` are further vectors
    ``(P,)`` by name. They move into the bounds, and only where the options allow it. As with
    samples, what they cannot decide is only noted. Without ``zeros``, no sample is 0.
    """
    point, build = start(first, name)
    report = _check_with_step(build, point, options)
    if not (options["points"] or options["samples"] or drawn):
        return replace(report, place=f"the point, {report.place}") if report.place else report
    places = {f"points[{i}]": other for i, other in enumerate(options["points"])}
    others = {place: start(other, place) for place, other in places.items()}
    reports = {"the point": report}
    reports |= {
        place: _check_with_step(make, other, options) for place, (other, make) in others.items()
    }
    base, undecided = around(point, options), []
    bounds = base.problem.bounds or (-np.inf, np.inf)
    for place, vector in {**drawn, **dict(_samples(base, zeros))}.items():
        vector = base.on_surface(np.clip(vector, *bounds))
        flat = to_device_of(point.flat, vector, point.flat.dtype)
        try:
            with quiet():
                found = _check(build(point._replace(flat=flat))).report
        except Exception as error:
            undecided.append(f"{place} (outside of the domain: {error!r:.80})")
            continue
        if found.verdict == "inconclusive":
            undecided.append(f"{place} (inconclusive)")
        else:
            reports[place] = found
    return _of_all(reports, undecided)


def _check(problem: Problem) -> Checked:
    checked = check_at(problem)
    return checked._replace(report=replace(checked.report, subject=problem.subject))


def _check_with_step(build: Build, point: Point, options: CheckOptions) -> GradientReport:
    """Check a problem at a point and, if that is stationary, one natural step away as well.

    Mistakes hide in a gradient that is zero to rounding. A pass there decides what is in doubt
    here. A fail there decides, too.
    """
    here = _check(build(point))
    if here.comparison is None or not is_stationary(here.comparison):
        return here.report
    if (base := around(point, options)).is_limited:
        return here.report
    flat = to_device_of(point.flat, _one_step_away(base), point.flat.dtype)
    try:
        with quiet():
            there = _check(build(point._replace(flat=flat)))
    except Exception:  # it is outside of the domain
        return here.report
    noun, calls = here.report.subject.split()[-1], _sums([here.report, there.report])
    note = f"mistakes hide in a {noun} that is zero to rounding: "
    if not _decides(here.comparison, there.comparison):
        notes = (*here.report.notes, f"{note}nothing was decided {_AWAY}")
        return replace(here.report, notes=notes, **calls)
    notes = (*here.report.notes, f"{note}judged {_AWAY} as well")
    if there.report.verdict == "fail":
        return replace(there.report, place=_AWAY, notes=notes, **calls)
    reason = there.report.reason
    return replace(here.report, verdict="pass", reason=reason, notes=notes, **calls)


def _decides(here: Comparison, there: Comparison | None) -> bool:
    """Whether a comparison one step away from a stationary point decides on the gradient.

    It must be a pass or a fail, and the decisive result must move: saturated values do not. A
    gradient that does not change may be a constant, computed for the point alone.
    """
    if there is None or there.verdict not in (PASS, FAIL) or is_stationary(there):
        return False
    before, after, result = here.lines.function, there.lines.function, there.decisive[1]
    size = max(abs(before.fx[result]), abs(after.fx[result]))
    is_moved = abs(after.fx[result] - before.fx[result]) > MOVES * size
    return bool(is_moved) and not np.array_equal(before.gx, after.gx)


def _one_step_away(base: Function) -> np.ndarray:
    """Return a point ``(P,)`` to which each entry has moved by a part of its natural size.

    An entry of about that size moves towards 0, and a smaller one away from it: none changes its
    sign. Where all entries are tiny, terms vary at a size of about 1.
    """
    base.problem = base.problem._replace(least_scale=TYPICAL)
    size, x, draw = scale_of(base), base.x, np.random.default_rng([base.options["seed"], _STEP])
    if base.problem.scale is None and size.max() < TINY:
        size = np.maximum(size, 1.0)
    outwards = np.where(x == 0.0, draw.uniform(-1.0, 1.0, x.size), x)
    direction = base.inwards(np.where(np.abs(x) < size, outwards, -x))
    moved = x + np.copysign(size * draw.uniform(*STEP_AWAY, x.size), direction)
    return base.on_surface(np.clip(moved, *(base.problem.bounds or (-np.inf, np.inf))))


def _sums(reports: Iterable[GradientReport]) -> dict[str, Any]:
    """Return the calls of all reports, by the names of their numbers."""
    names, every = ("evaluations", "gradient_calls"), [*reports]
    return {name: sum(getattr(each, name) for each in every) for name in names}


def _samples(base: Function, zeros: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Yield vectors to try, by name: zeros, large entries, then entries of random other sizes."""
    draw, x = np.random.default_rng(base.options["seed"]), base.x
    special = [("every entry 0", 0.0 * x)] * zeros + [("entries 100 times", 100.0 * x)]
    for i in range(base.options["samples"]):
        near = x * 2.0 ** draw.uniform(-1.0, 1.0, x.size) + (x == 0.0) * draw.normal(size=x.size)
        words, sample = special[i] if i < len(special) else ("near the point", near)
        yield f"sample {i}, {words}", sample


def _of_all(reports: Mapping[str, GradientReport], undecided: list[str]) -> GradientReport:
    """Return the report of the most telling point, with notes about the others."""
    place = _most_telling(reports)
    notes = [f"{len(reports)} points; this report is about {place}"]
    notes += [f"nothing was decided at {'; '.join(undecided)}"] if undecided else []
    calls = _sums(reports.values())
    shown = reports[place]
    place = "" if shown.verdict == "pass" else ", ".join(filter(None, (place, shown.place)))
    return replace(shown, place=place, notes=(*shown.notes, *notes), **calls)


def _most_telling(reports: Mapping[str, GradientReport]) -> str:
    """Return the place of the worst verdict; of several fails, one with the commonest diagnosis.

    A mistake can look like another at one point: where a wrong gradient is 0, as at the result of a
    minimization with it, any term may be missing. No other mistake looks alike at most points.
    """
    verdict = max((each.verdict for each in reports.values()), key=ORDER.index)
    worst = {place: each for place, each in reports.items() if each.verdict == verdict}
    if verdict != "fail":
        return max(worst, key=lambda place: worst[place].excess)
    votes = Counter[str | None](each.diagnosis for each in worst.values() if each.diagnosis)
    return max(worst, key=lambda place: votes[worst[place].diagnosis])  # the first of equals
