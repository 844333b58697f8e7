"""Verdicts on 100 functions with planted mistakes; the right gradients agree with mpmath.

The functions are in ``tests/function_catalogue``, with points of five kinds. Each is also checked
as a twin that ends in ``float(...)``. ``verdicts.py`` says which mistakes a check can see.
"""

import functools
import itertools
from collections.abc import Iterable

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from tests.function_catalogue.functions import KINDS, true_gradient, true_value
from tests.function_catalogue.verdicts import (
    GROUPS,
    WAYS,
    Case,
    Verdict,
    cases,
    functions_of,
    is_visible,
    verdicts,
)

every_group = pytest.mark.parametrize("group", GROUPS)

# SciPy's functions round to some ten or hundred eps; the check's tolerance is 1e-7.
RIGHT = 1e-11
# A gradient whose terms cancel is right to the rounding of the terms.
OF_TERMS = 1e-12
# Below this part of the largest entry the sixty digits of the truth may end.
DIGITS = 1e-30
MOST_INCONCLUSIVE = 0.02  # of the verdicts at ordinary points


@functools.cache
def _truth(case: Case) -> tuple[float, np.ndarray]:
    return true_value(case.function, case.point), true_gradient(case.function, case.point)


def _scale(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0.0, 1.0, np.abs(x))


def _size_of_terms(case: Case) -> float:
    """The size of the value's terms, by its value and slopes at this point and the ordinary one."""
    sizes = []
    for here in (case, case._replace(kind="ordinary")):
        value, slope = _truth(here)
        sizes.append(max(abs(value), np.sum(np.abs(slope) * _scale(here.point))))
    return max(sizes)


# About the catalogue alone, not about the check.
@pytest.mark.thorough
@every_group
def test_right_gradients_and_values_agree_with_mpmath(group: str) -> None:
    for case in cases([group]):
        function, x, (value, truth) = case.function, case.point, _truth(case)
        allowed = RIGHT * np.abs(truth) + DIGITS * np.abs(truth).max()
        if case.kind in function.rough:
            allowed = allowed + OF_TERMS * _size_of_terms(case) / _scale(x)
        assert function.gradient(x).shape == x.shape, case
        assert np.all(np.abs(function.gradient(x) - truth) <= allowed), case
        assert abs(float(function.value(x)) - value) <= OF_TERMS * _size_of_terms(case), case


def test_the_catalogue_has_each_kind_of_point_in_each_group() -> None:
    assert sum(len(functions_of(group)) for group in GROUPS) >= 100
    for group in GROUPS:
        assert {case.kind for case in cases([group])} == set(KINDS)


def test_a_mistake_counts_if_it_is_above_the_tolerance_and_the_rounding() -> None:
    x = right = np.array([1.0, 2.0])
    see = functools.partial(is_visible, x, right, method="auto")
    assert see(1.001 * right, rounding=1e-16)
    assert see(1.5 * right, rounding=1e-2)
    assert not see(right, rounding=0.0)
    assert not see((1.0 + 1e-8) * right, rounding=0.0)  # below the tolerance
    assert not see(1.001 * right, rounding=1e-5)  # small, and near the rounding
    assert not see(1.5 * right, rounding=1.0)  # the value does not change by it
    tiny = np.array([1e-7, 2.0])
    assert not is_visible(x, tiny, np.array([2e-7, 2.0]), "auto", 0.0)  # an entry too small


def _assert_right_ones_get_through_and_mistakes_do_not(found: Iterable[Verdict]) -> None:
    found = [*found]
    wrong = [str(verdict) for verdict in found if verdict.is_wrong]
    assert not wrong, "\n".join(wrong)
    for is_planted in (False, True):
        ordinary = [v for v in found if v.case.kind == "ordinary" and bool(v.mistake) is is_planted]
        undecided = [str(v) for v in ordinary if v.verdict == "inconclusive"]
        assert len(undecided) <= MOST_INCONCLUSIVE * len(ordinary), "\n".join(undecided)


EVERY = 16  # of the mistakes; the sweep plants all


def test_verdicts_on_some_functions_of_each_group_and_kind() -> None:
    """Each group and kind of point has one function, in one half of the ways or the other."""
    found: list[Verdict] = []
    for i, (group, kind) in enumerate(itertools.product(GROUPS, KINDS)):
        of_kind = [case for case in cases([group]) if case.kind == kind]
        for way in [*WAYS][i % 2 :: 2]:
            found += verdicts(of_kind[i % len(of_kind)], way, every=EVERY, first=i)
    _assert_right_ones_get_through_and_mistakes_do_not(found)


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@every_group
def test_verdicts_on_every_function_and_mistake(group: str, way: str) -> None:
    found = itertools.chain.from_iterable(verdicts(case, way) for case in cases([group]))
    _assert_right_ones_get_through_and_mistakes_do_not(found)
