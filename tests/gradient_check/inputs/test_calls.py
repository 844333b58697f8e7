"""The calls of a user's functions: at copies, within the domain; a kept state is detected.

Specifies ``first_calls`` and ``functions``.
"""

import math
import threading
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from backprop_xp.gradient_check.inputs import functions
from tests.helpers import thorough
from tests.planted_mistakes import (
    assert_only_right_passes,
    check,
    difference_methods,
    entries_and_directions,
    every_dtype,
    every_method,
)


class Cubes:
    """``sum(p**3)`` of a dict of two arrays, with a record of its calls."""

    def __init__(self, xp: Any, dtype: str = "working") -> None:
        self.xp, self.calls = xp, []
        self.point = {name: xp.asarray([0.4, -1.1, 0.9], dtype=dtype) for name in ("w", "b")}
        self.before = self.bytes(self.point)

    def bytes(self, point: Any) -> list[bytes]:
        return [self.xp.host(part).tobytes() for part in point.values()]

    def value(self, p: Any) -> Any:
        self.calls.append(("value", [(tuple(part.shape), part.dtype) for part in p.values()]))
        return sum(self.xp.namespace.sum(part * part * part) for part in p.values())

    def gradient(self, p: Any) -> Any:
        self.calls.append(("gradient", [(tuple(part.shape), part.dtype) for part in p.values()]))
        return {key: 3.0 * part * part for key, part in p.items()}

    def check(self, method: str, value: Any = None, gradient: Any = None) -> Any:
        """Check, and assert that the caller's point is unchanged."""
        functions = value or self.value, gradient or self.gradient
        report = check.gradient(*functions, self.point, method=method)
        assert self.bytes(self.point) == self.before
        return report


@every_method
@every_dtype
def test_value_and_gradient_are_called_twice_and_then_in_float64(
    xp: Any, method: str, dtype: str
) -> None:
    problem = Cubes(xp, dtype)
    assert problem.check(method).passed
    first = problem.calls[: 4 if dtype == "float64" else 3]
    assert [name for name, _ in first].count("gradient") == 2
    assert all(parts == [((3,), problem.point["b"].dtype)] * 2 for _, parts in first)
    last = [parts for name, parts in problem.calls if name == "gradient"][-1]
    assert last == [((3,), getattr(xp.namespace, xp.dtype))] * 2


@entries_and_directions
@pytest.mark.parametrize("writer", ["value", "gradient"])
def test_a_function_that_writes_into_the_point_is_detected(
    xp: Any, writer: str, method: str
) -> None:
    if xp.name == "jax":
        pytest.skip("nothing writes into JAX's arrays")
    problem = Cubes(xp)

    def writes(p: Any) -> Any:
        found = getattr(problem, writer)(p)
        p["b"] += 0.125
        return found

    report = problem.check(method, **{writer: writes})
    assert (report.verdict, report.max_relative_error) == ("fail", math.inf)
    assert f"{writer} writes into the point" in str(report)


def test_a_random_value_is_reported_as_nondeterministic(xp: Any) -> None:
    problem, draw = Cubes(xp), np.random.default_rng(62).uniform
    report = problem.check("auto", lambda p: draw() * problem.value(p))
    assert report.verdict == "nondeterministic"
    assert math.isnan(report.max_relative_error)
    assert "value differs between two calls" in str(report)


WARNING: dict[str, tuple[Any, Any]] = {
    "ComplexWarning": (lambda p: sum(float(x) ** 2 for x in p), lambda p: 2.0 * p),
    "RuntimeWarning": (lambda p: np.sum(p * np.log(p)), lambda p: np.log(p) + 1.0),
}


@difference_methods
@pytest.mark.parametrize("name", WARNING)
@pytest.mark.parametrize("action", ["always", "error"])
def test_no_warning_at_a_moved_point_is_shown(name: str, action: Any, method: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        assert_only_right_passes(*WARNING[name], np.array([1e-9, 1.0]), method=method)
    assert not caught


# A function that is NaN below 0, its slope, and the entry at or near the border.
BORDERS: list[tuple[Any, Any, float]] = [
    (lambda p: np.sum(np.sqrt(p)), lambda p: 0.5 / np.sqrt(p), 1e-8),
    (lambda p: sum(map(math.sqrt, p)), lambda p: 0.5 / np.sqrt(p), 1e-8),
    (lambda p: sum(map(math.log, p)), lambda p: 1.0 / p, 1e-3),
    (lambda p: np.sum(np.where(p.real < 0.0, np.nan, 3.0 * p)), lambda p: 3.0 + 0.0 * p, 0.0),
]


@difference_methods
@pytest.mark.parametrize(("value", "slope", "entry"), BORDERS)
def test_the_inward_slope_decides_at_a_border(
    value: Any, slope: Any, entry: float, method: str
) -> None:
    assert_only_right_passes(value, slope, np.array([entry, 0.7, 2.0]), method=method)
    if entry == 1e-8:  # a root has no slope at 0, but a gradient of 0 is wrong there
        assert not check.gradient(value, lambda p: 0.0 * p, np.zeros(1), method=method).passed


def test_a_value_that_is_nan_elsewhere_is_inconclusive_with_a_reason(xp: Any) -> None:
    problem = Cubes(xp)

    def value(p: Any, *, moved: bool = True) -> Any:
        if (problem.bytes(p) != problem.before) is moved:
            raise KeyError("mine")
        return problem.value(p)

    with pytest.raises(KeyError, match="mine"):  # at the point itself
        problem.check("auto", lambda p: value(p, moved=False))
    report = problem.check("auto", value)
    assert report.verdict == "inconclusive"
    assert "value is not finite on either side" in report.reason
    assert "KeyError('mine')" in report.reason


BOUNDS: list[tuple[Any, list[float]]] = [
    ((0.0, 2.0), [0.0, 0.7, 2.0]),
    ((np.array([0.0, -math.inf, 0.5]), np.array([math.inf, 0.7, 0.9])), [1e-9, 0.7, 0.5]),
]


@every_method
@pytest.mark.parametrize(("bounds", "point"), BOUNDS)
def test_value_is_never_called_outside_its_bounds(bounds: Any, point: Any, method: str) -> None:
    outside = []

    def value(p: Any) -> Any:
        if not np.all((bounds[0] <= p.real) & (p.real <= bounds[1])):
            outside.append(p)
        return np.sum(np.sin(p) + p * p, axis=-1)

    case = value, lambda p: np.cos(p) + 2.0 * p, np.array(point)
    assert_only_right_passes(*case, method=method, bounds=bounds)
    assert not outside


SPD = np.array([[2.0, 0.3, -0.1], [0.3, 1.0, 0.2], [-0.1, 0.2, 1.5]])
UNIT, SHARES = np.array([0.6, 0.0, 0.8]), np.array([0.2, 0.3, 0.5])


# On the sphere, the normal component does not count.
SURFACES: dict[str, tuple[Any, Any, Any, Any]] = {
    "symmetric": (
        lambda a: np.log(np.linalg.det(a)) if np.allclose(a, a.T, atol=1e-13) else np.nan,
        np.linalg.inv, SPD, lambda d: (d + d.T) / 2.0,
    ),
    "simplex": (
        lambda p: -np.sum(p * np.log(p)) if abs(p.sum() - 1.0) < 1e-12 else np.nan,
        lambda p: -np.log(p), SHARES, lambda d: d - np.mean(d),
    ),
    "sphere": (
        lambda p: np.sum(SPD @ p * p), lambda p: 2.0 * SPD @ p + UNIT, UNIT,
        lambda d: d - UNIT * (UNIT @ d),
    ),
}  # fmt: skip


@difference_methods
@pytest.mark.parametrize("name", SURFACES)
def test_a_point_moves_only_along_its_tangent(name: str, method: str) -> None:
    *case, tangent = SURFACES[name]
    assert_only_right_passes(*case, method=method, tangent=tangent)


@pytest.mark.parametrize("scale", [1e-3, np.array([1e-3, 2e-3])])
def test_scale_is_the_size_at_which_value_varies(scale: Any) -> None:
    """Near 1e6 the value varies within 1e-3: steps relative to the entry's size are too large."""
    value, gradient = lambda p: np.sum(np.sin(1e3 * p)), lambda p: 1e3 * np.cos(1e3 * p)
    point = np.array([1e6, 1e6 + 0.4])
    assert_only_right_passes(value, gradient, point, method="centered", scale=scale)


@difference_methods
def test_a_function_may_return_the_same_array_at_every_call(method: str) -> None:
    t, point = np.linspace(0.0, 2.0, 7), np.array([2.0, 0.7])
    buffer, number = np.empty(7), np.empty(1)

    def simulated(p: Any) -> Any:
        buffer[:] = p[0].real * np.exp(-p[1].real * t)
        return buffer

    def total(p: Any) -> Any:
        number[0] = np.sum(simulated(p))
        return number

    def jacobian(p: Any) -> Any:
        return np.stack([np.exp(-p[1] * t), -p[0] * t * np.exp(-p[1] * t)], axis=-1)

    assert check.jacobian(simulated, jacobian, point, method=method).verdict == "pass"
    assert_only_right_passes(total, lambda p: jacobian(p).sum(axis=0), point, method=method)


def test_checks_in_threads_restore_the_warning_filters() -> None:
    before, together = list(warnings.filters), threading.Barrier(4)

    def checked(seed: int) -> str:
        point = np.random.default_rng(seed).normal(size=5)

        def value(p: Any) -> float:
            time.sleep(0.0005 * (1 + seed))  # calls overlap, and end in another order
            return sum(float(number) ** 2 for number in p)

        together.wait()
        return str(check.gradient(value, lambda p: 2.0 * p, point, batched=False).verdict)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(checked, range(4))) == ["pass"] * 4
    assert list(warnings.filters) == before


@pytest.mark.parametrize("digits", [2, 3, None])
def test_the_number_of_calls_for_a_jacobian_does_not_grow_with_its_results(
    digits: int | None,
) -> None:
    calls: dict[int, int] = {}
    for results in (5, 500):
        t, counted = np.linspace(0.0, 4.0, results), [0]

        def curve(p: Any, t: Any = t, counted: Any = counted) -> Any:
            counted[0] += 1
            found = p[0].real * np.exp(-p[1].real * t) + p[2].real
            return found if digits is None else np.round(found, digits)

        def jacobian(p: Any, t: Any = t) -> Any:
            return np.stack([np.exp(-p[1] * t), -p[0] * t * np.exp(-p[1] * t), 1.0 + 0 * t], -1)

        verdict = check.jacobian(curve, jacobian, np.array([2.0, 0.7, 0.3])).verdict
        assert verdict == ("pass" if digits is None else "inconclusive")
        calls[results] = counted[0]
    # Each of the three lines bisects a few results, to both sides.
    assert calls[500] <= 3.5 * calls[5] < 4500


def _counted_cubes() -> tuple[Any, Any, list[str]]:
    """Return a value of real numbers, a gradient that is doubled, and the list of their calls."""
    calls: list[str] = []

    def value(p: Any) -> float:
        calls.append("value")
        return float(np.sum(p**3)) if not np.iscomplexobj(p) else float(p[0])

    def doubled(p: Any) -> Any:
        calls.append("gradient")
        return 6.0 * p * p

    return value, doubled, calls


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_a_fail_costs_little_more_than_a_pass(method: str) -> None:
    for count in (20, 100, 1000):
        value, doubled, calls = _counted_cubes()
        report = check.gradient(value, doubled, np.linspace(0.5, 1.5, count), method=method)
        assert report.verdict == "fail"
        # How coarse the values are: 52 values. The search along directions: 80 entries at most,
        # and a bisection, by four values each.
        most = 4 * count + 172 if method == "auto" else 492
        assert calls.count("value") <= most
        assert report.gradient_calls <= calls.count("gradient") <= 12
        assert report.evaluations <= calls.count("value") <= report.evaluations + 2


# A value, a gradient that is doubled, the evaluations of an entry, and those that suffice along
# directions.
LIMITED: dict[str, tuple[Any, Any, int, int]] = {
    "real": (_counted_cubes()[0], lambda p: 6.0 * p * p, 4, 32),
    "complex": (lambda p: np.sum(p**3), lambda p: 6.0 * p * p, 1, 32),
    "beside a large constant": (lambda p: float(1e6 + p.real @ p.real), lambda p: 4.0 * p, 4, 64),
}


@pytest.mark.parametrize("every", [40, thorough(8)])
@pytest.mark.parametrize("count", [1, 10, 100, *map(thorough, (2, 20, 1000))])
@pytest.mark.parametrize("kind", LIMITED)
def test_a_limit_on_evaluations_costs_the_search_for_an_entry_not_the_verdict(
    count: int, kind: str, every: int
) -> None:
    value, doubled, each, least = LIMITED[kind]
    point = np.linspace(0.5, 1.5, count)
    around = each * count + np.arange(0, 160, every)
    for limit in (least, 100, 300, 1000, *around[around > least].tolist()):
        report = check.gradient(value, doubled, point, max_evaluations=limit)
        assert report.verdict == "fail", limit
        assert report.method == "directional" or report.diagnosis, limit
        # Entries show more than directions: they come first where they have room.
        assert (report.method == "directional") <= (limit < each * count + 70), limit
        assert report.evaluations + report.gradient_calls - 2 <= limit


@pytest.mark.parametrize("count", [1, 2, 10, 30])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_limit_that_a_check_keeps_changes_no_verdict_at_a_kink(count: int, factor: float) -> None:
    def value(p: Any) -> float:
        return float(np.sum(np.maximum(p.real - 1.0, 0.0) + p.real**2))

    point = np.linspace(0.5, 1.5, count)
    point[count // 2] = 1.0  # directions meet the kink, too
    options = {"value": value, "gradient": lambda p: factor * ((p > 1.0) + 2.0 * p), "point": point}
    free = check.gradient(**options)
    limit = free.evaluations + free.gradient_calls
    assert check.gradient(**options, max_evaluations=limit).verdict == free.verdict


@pytest.mark.parametrize("limit", [0.4, 0.9, 1.4, 1.6])
def test_a_limit_on_seconds_costs_no_verdict_either(
    monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    now = time.perf_counter()

    def value(p: Any) -> float:  # takes a hundredth of a second on the check's clock
        nonlocal now
        now += 0.01
        return float(np.sum(p**3)) if not np.iscomplexobj(p) else float(p[0])

    clock = types.SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(functions, "time", clock)
    point = np.linspace(0.5, 1.5, 20)
    report = check.gradient(value, lambda p: 6.0 * p * p, point, max_seconds=limit)
    method = "directional" if limit < 0.02 + 0.8 + 0.64 else "centered"
    assert (report.verdict, report.method) == ("fail", method)


def test_calls_of_gradient_count_for_the_limit() -> None:
    calls = []

    def gradient(p: Any) -> Any:
        calls.append(1)
        return 6.0 * p * p

    x = np.linspace(0.5, 1.5, 10)
    report = check.gradient(lambda p: np.sum(p**3), gradient, x, max_evaluations=14)
    assert report.verdict == "inconclusive"
    assert len(calls) < 14


@pytest.mark.parametrize("size", [200_000, thorough(1_000_000)])
def test_one_wrong_entry_of_very_many_takes_a_few_hundred_evaluations(size: int) -> None:
    point, calls = np.random.default_rng(0).uniform(0.5, 1.5, size), []

    def value(p: Any) -> Any:
        calls.append(1)
        return float(np.dot(p, p)) if not np.iscomplexobj(p) else float(p[0])

    def gradient(p: Any) -> Any:
        found = 2.0 * p
        found[123_456] *= 0.5
        return found

    report = check.gradient(value, gradient, point)
    assert (report.verdict, report.worst[0].name) == ("fail", "[123456]")
    assert len(calls) < 600  # the rounding of so many terms is searched for jumps, too


@pytest.mark.parametrize("method", ["auto", "centered", "directional"])
def test_calls_that_raise_count_too(method: str) -> None:
    number = 0

    def value(p: Any) -> float:
        nonlocal number
        number += 1
        if not np.array_equal(p, [1.0, 2.0, 3.0]):
            raise ValueError("outside")
        return 14.0

    report = check.gradient(value, lambda p: 2.0 * p, [1.0, 2.0, 3.0], method=method)
    assert report.verdict == "inconclusive"
    assert report.evaluations == number - 2  # the last calls see whether value has changed
    number = 0
    limited = check.gradient(
        value, lambda p: 2.0 * p, [1.0, 2.0, 3.0], method=method, max_evaluations=20
    )
    assert limited.verdict == "inconclusive"
    assert limited.evaluations <= number <= 20
