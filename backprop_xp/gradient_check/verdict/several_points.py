"""A check at several points: those of the caller, and drawn ones."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from backprop_xp.backends import to_device_of
from backprop_xp.gradient_check.inputs.functions import Function, around, quiet
from backprop_xp.gradient_check.inputs.points import Point
from backprop_xp.gradient_check.inputs.problems import CheckOptions, Problem
from backprop_xp.gradient_check.inputs.structures import Structure
from backprop_xp.gradient_check.verdict.report import GradientReport
from backprop_xp.gradient_check.verdict.run import check_problem

# Verdicts, the worst last.
ORDER = ("pass", "kink", "inconclusive", "nondeterministic", "fail")

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
    report = _check(build(point))
    if not (options["points"] or options["samples"] or drawn):
        return report
    places = {f"points[{i}]": other for i, other in enumerate(options["points"])}
    others = {place: start(other, place) for place, other in places.items()}
    reports = {"the point": report}
    reports |= {place: _check(make(other)) for place, (other, make) in others.items()}
    base, undecided = around(point, options), []
    bounds = base.problem.bounds or (-np.inf, np.inf)
    for place, vector in {**drawn, **dict(_samples(base, zeros))}.items():
        vector = base.on_surface(np.clip(vector, *bounds))
        flat = to_device_of(point.flat, vector, point.flat.dtype)
        try:
            with quiet():
                found = _check(build(point._replace(flat=flat)))
        except Exception as error:
            undecided.append(f"{place} (outside of the domain: {error!r:.80})")
            continue
        if found.verdict == "inconclusive":
            undecided.append(f"{place} (inconclusive)")
        else:
            reports[place] = found
    return _of_all(reports, undecided)


def _check(problem: Problem) -> GradientReport:
    return replace(check_problem(problem), subject=problem.subject)


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
    calls = {
        name: sum(getattr(each, name) for each in reports.values())
        for name in ("evaluations", "gradient_calls")
    }
    shown = reports[place]
    place = "" if shown.verdict == "pass" else place
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
