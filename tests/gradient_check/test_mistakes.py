"""Every mistake of the catalogue fails its check, and right gradients never fail.

A planted mistake is *equivalent* in a case where it changes nothing, such as a swap of two rows of
zeros. The tests compute both gradients to find these cases, and leave them out. The gradient at a
trained point is a sum of terms that cancel. A change counts there only if it is larger than a
visible part of an entry and larger than the rounding of the terms. The size of the terms is the
largest entry of the tensor at the start of the training.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests import mistake_catalogue
from tests.mistake_catalogue import (
    BATCHES,
    MISTAKES,
    Case,
    Parameters,
    elsewhere,
    gradient_of,
    value_of,
)

EPOCHS = 300
# Right gradients differ by at most rounding, relative to a tensor's largest entry.
ROUNDING = {"float64": 1e-12, "float32": 1e-5}
MUST_SHOW = 0.01  # of an entry, however small training made it
# The method, and whether value accepts only real numbers, so that differences are used.
WAYS = {
    "auto": ("auto", False),
    "directional": ("directional", False),
    "differences": ("auto", True),
    "differences along directions": ("directional", True),
}
entries_and_directions = pytest.mark.parametrize("way", WAYS)
draw = functools.cache(mistake_catalogue.draw)


def _copies(value: Any, *others: Parameters) -> list[np.ndarray]:
    """Return copies of a value, a gradient and a point."""
    return [np.array(value), *(np.array(part[name]) for part in others for name in sorted(part))]


def _changes_nothing(name: str, case: Case) -> bool:
    """Whether value and gradient are right at every call, and leave the point unchanged."""
    problem, point = draw(case)
    points = [point, draw(case._replace(steps=0))[1]]
    right, start = (_copies(value_of(problem)(p), gradient_of(problem)(p), p) for p in points)
    part_of = MUST_SHOW if case.steps else 0.0
    slack = [
        np.fmax(ROUNDING[case.dtype] * np.max(np.abs(s)), part_of * np.abs(r))
        for s, r in zip(start, right, strict=True)
    ]
    value, gradient = MISTAKES[name].plant(problem)
    for _ in range(2):
        here = {key: p.copy() for key, p in point.items()}
        wrong = gradient(here)
        found = _copies(value(here), wrong, here)
        if any(np.any(np.abs(f - r) > s) for f, r, s in zip(found, right, slack, strict=True)):
            return False
        value(elsewhere(point))
    return True


# Above this part of a derivative, error bars leave room for several explanations.
_UNCERTAIN = 1e-2


def _grid(activations: Any, losses: Any, steps: int, extras: tuple[str, ...]) -> list[Case]:
    kinds = itertools.product(activations, losses, BATCHES, ROUNDING)
    return [Case(*kind[:3], seed, kind[3], steps, extras) for seed, kind in enumerate(kinds)]


def _report(planted: Any, case: Case, way: str) -> bx.GradientReport:
    (value, gradient), (method, is_real) = planted, WAYS[way]

    def checked(parameters: Parameters) -> Any:
        if is_real and any(np.iscomplexobj(p) for p in parameters.values()):
            raise TypeError("real numbers only")
        return value(parameters)

    point = {name: p.copy() for name, p in draw(case)[1].items()}
    report = bx.check_gradient(checked, gradient, point, method=method)
    assert (report.verdict == "fail") == (report.max_relative_error > report.tolerance)
    return report


@entries_and_directions
@pytest.mark.parametrize("extras", [(), mistake_catalogue.EXTRAS], ids=["plain", "with all extras"])
@pytest.mark.parametrize("steps", [0, EPOCHS])
@pytest.mark.parametrize("every", [23, pytest.param(3, marks=pytest.mark.thorough)])
def test_nothing_right_fails(every: int, steps: int, extras: tuple[str, ...], way: str) -> None:
    right = {"pass", "kink"} | ({"inconclusive"} if steps else set())
    grid = _grid(mistake_catalogue.ACTIVATIONS, mistake_catalogue.LOSSES, steps, extras)
    for case in grid[list(WAYS).index(way) % 3 :: every]:
        problem, _ = draw(case)
        report = _report((value_of(problem), gradient_of(problem)), case, way)
        assert report.verdict in right, f"{case}\n{report}"
        assert report.verdict != "kink" or "relu" in case.activation
        assert report.diagnosis is None


def _sample_cases(name: str, steps: int, way: str) -> Iterator[Case]:
    """Yield some of the cases in which a mistake has an effect, other ones for each method."""
    _, _, extras, activations, losses = MISTAKES[name]
    grid = _grid(activations, losses, steps, extras)[list(WAYS).index(way) :: len(WAYS)]
    return (case for case in grid if not _changes_nothing(name, case))


def _find(name: str, case: Case, way: str) -> None:
    plant, says, *_ = MISTAKES[name]
    report = _report(plant(draw(case)[0]), case, way)
    # Rounding may hide the mistake in a trained gradient.
    found = {"fail", "nondeterministic"} | ({"inconclusive"} if case.steps else set())
    assert report.verdict in found, f"{case}\n{report}"
    if says and report.verdict != "inconclusive":
        named = {says}
        if case.steps and says == "penalty":  # it may be all that a saturated gradient consists of
            named |= {"a constant factor of"} | (
                {"none"} if report.tolerance > _UNCERTAIN else set()
            )
        assert any(name in str(report.diagnosis).lower() for name in named), f"{case}\n{report}"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_and_named(name: str) -> None:
    """Use the methods in turn; the sweep uses all."""
    way = [*WAYS][[*MISTAKES].index(name) % len(WAYS)]
    _find(name, next(_sample_cases(name, 0, way)), way)


@pytest.mark.thorough
@entries_and_directions
@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("steps", [0, EPOCHS])
def test_a_mistake_is_found_and_named_in_many_cases(steps: int, name: str, way: str) -> None:
    for case in itertools.islice(_sample_cases(name, steps, way), 3):
        _find(name, case, way)
