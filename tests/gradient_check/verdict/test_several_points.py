"""A stationary point, where mistakes hide, is judged one natural step away as well."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted_mistakes import check, entries_and_directions

pytestmark = pytest.mark.float64  # in float32 more points are stationary

AT = np.array([1.0, -2.0, 3.0])
NOTE = "mistakes hide in a gradient that is zero to rounding: "
JUDGED, UNDECIDED = f"{NOTE}judged one natural step away as well", f"{NOTE}nothing was decided"


def _value(p: Any) -> Any:
    return 1e3 + np.sum((p - AT) ** 4 + (p - AT) ** 2)


def _gradient(p: Any) -> Any:
    return 4.0 * (p - AT) ** 3 + 2.0 * (p - AT)


@entries_and_directions
@pytest.mark.parametrize("convert", [float, lambda v: v])
@pytest.mark.parametrize("distance", [0.0, 1e-13, 1e-10])
def test_the_end_of_a_minimization_passes_and_mistakes_fail(
    distance: float, convert: Any, method: str
) -> None:
    point, value = AT + distance, lambda p: convert(_value(p))
    right = bx.check_gradient(value, _gradient, point, method=method)
    assert (right.verdict, right.place) == ("pass", "")
    assert JUDGED in right.notes or distance > 0.0  # a complex step may see more
    bx.assert_gradient(value, _gradient, point, method=method)
    for wrong in (
        lambda p: 2.0 * _gradient(p),
        lambda p: _gradient(p) - 2.0 * (p - AT),
        lambda p: _gradient(p) * [1.0, 1.0, 1.1],
    ):
        report = bx.check_gradient(value, wrong, point, method=method)
        assert report.verdict == "fail"
        if JUDGED in report.notes:
            assert report.place == "the point, one natural step away"
            assert "fail at the point, one natural step away (" in str(report)


def test_a_network_is_judged_at_the_end_of_its_training() -> None:
    x, y = (np.random.default_rng(0).normal(size=(6, n)) for n in (3, 1))
    network = bx.mlp([3, 16, 1], hidden="tanh", loss="half_squared_error")
    start = network.initialize(0, backend="numpy")
    theta = bx.fit(network, start, x, y, optimizer=bx.LBFGS(), epochs=300).theta
    report = bx.check_network(network, theta, x, y, method="centered")
    assert report.passed
    assert JUDGED in report.notes


def test_the_calls_at_both_points_count() -> None:
    calls: list[Any] = []
    report = bx.check_gradient(
        lambda p: calls.append(p) or float(_value(p)), _gradient, AT, method="directional"
    )
    assert JUDGED in report.notes
    assert report.evaluations == len(calls) - 2  # the last call at each sees changes alone


def test_a_step_stays_inside_of_bounds_and_among_allowed_entries() -> None:
    points: list[Any] = []

    def value(p: Any) -> float:
        points.append(np.array(p))
        return float(_value(p))

    low = np.array([0.9, -3.0, 0.0])
    report = bx.check_gradient(
        value, _gradient, AT, bounds=(low, np.inf), mask=[True, False, True], method="directional"
    )
    assert report.verdict == "pass"
    assert JUDGED in report.notes
    assert np.all(np.asarray(points)[:-2] >= low)
    assert np.all(np.asarray(points)[:-2, 1] == -2.0)


@pytest.mark.parametrize("entries", [0.0, 1e-9])
def test_entries_near_0_move_away_from_it(entries: float) -> None:
    case = lambda p: float(3.0 + np.sum(np.cosh(p))), np.sinh
    point = np.full(3, entries)
    assert bx.check_gradient(*case, point).passed
    assert bx.check_gradient(case[0], lambda p: np.sinh(p) + p, point).verdict == "fail"


@entries_and_directions
@pytest.mark.parametrize("convert", [float, lambda v: v])
def test_terms_that_cancel_beside_tiny_entries_are_judged_where_they_do_not(
    convert: Any, method: str
) -> None:
    point, value = 1e-9 * np.array([1.0, -2.0, 3.0]), lambda p: convert(np.sum(np.exp(p) - 1.0 - p))
    right = bx.check_gradient(value, np.expm1, point, method=method)
    assert right.verdict == "pass"
    assert JUDGED in right.notes
    for wrong in (np.exp, lambda p: 0.0 * p - 1.0, lambda p: 2.0 * np.expm1(p)):
        assert bx.check_gradient(value, wrong, point, method=method).verdict == "fail"


def test_no_entry_changes_its_sign() -> None:
    def value(p: Any) -> float:
        if np.any(p < -1e-3):
            raise ValueError("outside of the domain")
        return float(3.0 + (p[0] - 1.0) ** 2 + p[1] ** 2)

    report = bx.check_gradient(value, lambda p: 2.0 * (p - [1.0, 0.0]), np.array([1.0, 1e-20]))
    assert report.verdict == "pass"
    assert JUDGED in report.notes


def test_nothing_is_decided_by_a_step_that_cannot_decide() -> None:
    cases = {
        # A constant may be computed for the point alone.
        "a constant gradient": (_value, lambda p: 0.0 * AT, AT),
        "another stationary point": (lambda p: 5.0 + 0.0 * np.sum(p), lambda p: 0.0 * p, AT),
        "saturated": (
            lambda p: float(np.sum(np.tanh(p))), lambda p: 1.0 - np.tanh(p) ** 2, 1e3 * AT,
        ),
    }  # fmt: skip
    for name, case in cases.items():
        report = bx.check_gradient(*case)
        assert report.verdict in ("pass", "inconclusive"), name
        assert JUDGED not in report.notes, name
        assert any(note.startswith(UNDECIDED) for note in report.notes), name

    def near(p: Any) -> float:
        if np.any(np.abs(p - AT) > 0.1):
            raise ValueError("outside of the domain")
        return float(_value(p))

    outside = bx.check_gradient(near, _gradient, AT)
    limited = bx.check_gradient(
        lambda p: float(_value(p)), _gradient, AT + 1e-10, max_evaluations=1000
    )
    for report in (outside, limited):
        assert report.verdict in ("pass", "inconclusive")
        assert not any(note.startswith(NOTE) for note in report.notes)


def test_one_of_several_points_may_be_stationary() -> None:
    wrong = check.gradient(
        lambda p: float(_value(p)), lambda p: 1.1 * _gradient(p), AT, points=[AT + 1e-13]
    )
    assert wrong.verdict == "fail"
    assert wrong.place.endswith(", one natural step away")
    right = check.gradient(lambda p: float(_value(p)), _gradient, AT, points=[AT + 1e-13])
    assert (right.verdict, right.place) == ("pass", "")
