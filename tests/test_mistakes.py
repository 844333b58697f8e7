"""Every mistake of the catalogue fails its check, and what is right never does.

A planted mistake is *equivalent* in a case where it changes nothing, as a swap of two rows of zeros
does: such cases are found by computing both gradients, and are left out.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from tests.mistakes import (
    ACTIVATIONS,
    BATCHES,
    EXTRAS,
    LOSSES,
    MISTAKES,
    Case,
    Mistake,
    Parameters,
    Value,
    draw,
    elsewhere,
    gradient_of,
    value_of,
)

METHODS = ["auto", "directional"]
# What is right differs by no more than rounding, relative to a tensor's largest entry.
EQUIVALENT = {"float64": 1e-12, "float32": 1e-5}
SEEDS = {"float64": range(20), "float32": range(5)}
SEEDS_OF_REAL_VALUES = range(2)
SEEDS_OF_RIGHT = range(20)
FOUND = ("fail", "nondeterministic")
KINKED = ("relu", "leaky_relu")
# So many offending cases are listed when a test fails.
SHOWN = 5

every_method = pytest.mark.parametrize("method", METHODS)
every_dtype = pytest.mark.parametrize("dtype", EQUIVALENT)
every_mistake = pytest.mark.parametrize("name", MISTAKES)


@pytest.fixture(autouse=True)
def _numpy_only(xp: Any) -> None:
    if xp.name != "numpy":
        pytest.skip("the networks of the catalogue are plain NumPy")


class Outcome(NamedTuple):
    """What a check says of a case."""

    case: Case
    verdict: str
    diagnosis: str | None


def _grid(
    activations: Iterable[str], losses: Iterable[str], seeds: Iterable[int], dtype: str
) -> list[Case]:
    return [Case(*of, dtype) for of in itertools.product(activations, losses, BATCHES, seeds)]


def _copied(arrays: Parameters) -> list[np.ndarray]:
    return [arrays[name].copy() for name in sorted(arrays)]


def _equal(some: Sequence[Any], others: Sequence[Any], dtype: str) -> bool:
    return all(
        np.max(np.abs(a - b)) <= EQUIVALENT[dtype] * max(np.max(np.abs(a)), np.max(np.abs(b)))
        for a, b in zip(some, others, strict=True)
    )


def _changes_nothing(mistake: Mistake, case: Case) -> bool:
    """Say whether value and gradient are right whenever they are called, and the point is kept."""
    problem, point = draw(case, mistake.extras)
    start, gradient = _copied(point), _copied(gradient_of(problem)(point))
    right = [value_of(problem)(point), *gradient, *start]
    planted_value, planted_gradient = mistake.plant(problem, point)
    seen = []
    for _ in range(2):
        found = _copied(planted_gradient(point))
        seen.append([planted_value(point), *found, *_copied(point)])
        planted_value(elsewhere(point))
    return all(_equal(one, right, case.dtype) for one in seen)


@functools.cache
def _cases(name: str, dtype: str) -> tuple[list[Case], int]:
    """Return the cases that show a mistake, and of how many they are."""
    mistake = MISTAKES[name]
    cases = _grid(mistake.activations, mistake.losses, SEEDS[dtype], dtype)
    return [case for case in cases if not _changes_nothing(mistake, case)], len(cases)


def _real_only(value: Value) -> Value:
    def real_value(parameters: Parameters) -> Any:
        if any(np.iscomplexobj(p) for p in parameters.values()):
            raise TypeError("real numbers only")
        return value(parameters)

    return real_value


@functools.cache
def _outcomes(name: str, method: str, dtype: str, real: bool = False) -> list[Outcome]:
    """Check a mistake in every case that shows it; in some, if value takes real numbers only."""
    mistake, outcomes = MISTAKES[name], []
    for case in _cases(name, dtype)[0]:
        if not real or case.seed in SEEDS_OF_REAL_VALUES:
            problem, point = draw(case, mistake.extras)
            value, gradient = mistake.plant(problem, point)
            value = _real_only(value) if real else value
            report = bx.check_gradient(value, gradient, point, method=method)
            outcomes.append(Outcome(case, report.verdict, report.diagnosis))
    return outcomes


def _fail_if_any(offenders: list[Outcome]) -> None:
    if offenders:
        lines = [f"{tuple(case)}: {verdict}, {diagnosis}" for case, verdict, diagnosis in offenders]
        pytest.fail("\n".join([f"{len(lines)} cases, the first of them:", *lines[:SHOWN]]))


# ---- the catalogue


def test_the_catalogue_is_long() -> None:
    assert len(MISTAKES) >= 30


@every_dtype
@every_mistake
def test_a_mistake_shows_in_at_least_half_of_its_cases(name: str, dtype: str) -> None:
    shown, of = _cases(name, dtype)
    assert 2 * len(shown) >= of


# ---- a value of real and complex numbers


@every_dtype
@every_method
@pytest.mark.parametrize("extras", [(), EXTRAS], ids=["plain", "with all extras"])
def test_with_nothing_planted_the_gradient_passes(
    extras: tuple[str, ...], method: str, dtype: str
) -> None:
    offenders = []
    for case in _grid(ACTIVATIONS, LOSSES, SEEDS_OF_RIGHT, dtype):
        problem, point = draw(case, extras)
        report = bx.check_gradient(value_of(problem), gradient_of(problem), point, method=method)
        verdicts = ("pass", "kink") if case.activation in KINKED else ("pass",)
        if report.verdict not in verdicts or report.diagnosis is not None:
            offenders.append(Outcome(case, report.verdict, report.diagnosis))
    _fail_if_any(offenders)


@every_dtype
@every_method
@every_mistake
def test_a_mistake_is_found(name: str, method: str, dtype: str) -> None:
    outcomes = _outcomes(name, method, dtype)
    _fail_if_any([found for found in outcomes if found.verdict not in FOUND])


@every_dtype
@every_method
@pytest.mark.parametrize("name", [name for name, mistake in MISTAKES.items() if mistake.says])
def test_the_diagnosis_names_the_kind_of_mistake(name: str, method: str, dtype: str) -> None:
    word = str(MISTAKES[name].says)
    outcomes = _outcomes(name, method, dtype)
    _fail_if_any([found for found in outcomes if word not in (found.diagnosis or "").lower()])


# ---- a value of real numbers only, which leaves differences


@every_method
@every_mistake
def test_a_mistake_is_found_by_differences(name: str, method: str) -> None:
    outcomes = _outcomes(name, method, "float64", real=True)
    _fail_if_any([found for found in outcomes if found.verdict not in FOUND])


@every_method
@every_mistake
def test_no_mistake_passes_by_differences_of_few_digits(name: str, method: str) -> None:
    outcomes = _outcomes(name, method, "float32", real=True)
    _fail_if_any([found for found in outcomes if found.verdict in ("pass", "kink")])


@every_dtype
@every_method
def test_nothing_right_fails_by_differences(method: str, dtype: str) -> None:
    offenders = []
    for case in _grid(ACTIVATIONS, LOSSES, SEEDS_OF_RIGHT, dtype):
        problem, point = draw(case)
        value = _real_only(value_of(problem))
        report = bx.check_gradient(value, gradient_of(problem), point, method=method)
        if report.verdict not in ("pass", "kink", "inconclusive"):
            offenders.append(Outcome(case, report.verdict, report.diagnosis))
    _fail_if_any(offenders)
