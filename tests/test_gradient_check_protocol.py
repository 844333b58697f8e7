"""How the gradient check calls a user's functions, and how it finds out those that keep a state."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]
every_method = pytest.mark.parametrize("method", METHODS)

NUMBERS = [[0.4, -1.1, 0.9], [1.6, 0.2, -0.8]]
# Value and gradient are called as often before anything else.
FIRST_CALLS = 4


class Cubes:
    """``sum(p**3)`` of a dict of two arrays, and a record of the calls."""

    def __init__(self, xp: Any, dtype: str = "working") -> None:
        self.namespace = xp.namespace
        self.point = {
            "weights": xp.asarray(NUMBERS, dtype=dtype),
            "bias": xp.asarray(NUMBERS[0], dtype=dtype),
        }
        self.calls: list[tuple[str, list[tuple[Any, ...]]]] = []

    def _record(self, name: str, p: Any) -> None:
        self.calls.append((name, [(key, tuple(part.shape), part.dtype) for key, part in p.items()]))

    def value(self, p: Any) -> Any:
        self._record("value", p)
        return sum(self.namespace.sum(part * part * part) for part in p.values())

    def batched_value(self, p: Any) -> Any:
        self._record("value", p)
        weights, bias = p["weights"], p["bias"]
        total = self.namespace.sum(weights * weights * weights, axis=(-2, -1))
        return total + self.namespace.sum(bias * bias * bias, axis=-1)

    def gradient(self, p: Any) -> Any:
        self._record("gradient", p)
        return {key: 3.0 * part * part for key, part in p.items()}


def _bytes(xp: Any, point: Any) -> dict[str, bytes]:
    return {key: xp.host(part).tobytes() for key, part in point.items()}


# ---- the calls


@every_method
@pytest.mark.parametrize("batched", [True, False, None])
def test_value_and_gradient_are_first_called_twice_each(
    xp: Any, batched: bool | None, method: str
) -> None:
    problem = Cubes(xp)
    value = problem.value if batched is False else problem.batched_value
    assert bx.check_gradient(
        value, problem.gradient, problem.point, method=method, batched=batched
    ).passed
    first = [name for name, _ in problem.calls[:FIRST_CALLS]]
    assert sorted(first) == ["gradient", "gradient", "value", "value"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_method
@pytest.mark.parametrize("batched", [True, False, None])
def test_gradient_is_only_given_points_of_the_points_own_shape_and_dtype(
    xp: Any, batched: bool | None, method: str, dtype: str
) -> None:
    problem = Cubes(xp, dtype)
    value = problem.value if batched is False else problem.batched_value
    bx.check_gradient(value, problem.gradient, problem.point, method=method, batched=batched)
    own = [(key, tuple(part.shape), part.dtype) for key, part in problem.point.items()]
    given = [parts for name, parts in problem.calls if name == "gradient"]
    assert given == [own] * len(given)


@every_method
def test_gradient_is_only_given_the_numbers_of_the_point(xp: Any, method: str) -> None:
    problem, given = Cubes(xp), []

    def gradient(p: Any) -> Any:
        given.append(_bytes(xp, p))
        return problem.gradient(p)

    bx.check_gradient(problem.value, gradient, problem.point, method=method)
    assert given == [_bytes(xp, problem.point)] * len(given)


def test_a_gradient_may_return_the_very_point_that_it_was_given(xp: Any) -> None:
    report = bx.check_gradient(
        lambda p: 0.5 * xp.namespace.sum(p * p), lambda p: p, xp.asarray(NUMBERS)
    )
    assert report.verdict == "pass"


# ---- the caller's point


class _MineError(Exception):
    pass


def _fails_at_other_points(xp: Any, problem: Cubes) -> Callable[[Any], Any]:
    start = _bytes(xp, problem.point)

    def value(p: Any) -> Any:
        if _bytes(xp, p) != start:
            raise _MineError
        return problem.value(p)

    return value


def _raises(p: Any) -> Any:
    raise _MineError


@every_method
@pytest.mark.parametrize("outcome", ["pass", "fail", "error in value", "error in gradient"])
def test_the_callers_point_stays_as_it_is_whatever_happens(
    xp: Any, outcome: str, method: str
) -> None:
    problem = Cubes(xp)
    before, parts = _bytes(xp, problem.point), dict(problem.point)
    value: Callable[[Any], Any] = problem.value
    gradient: Callable[[Any], Any] = problem.gradient
    if outcome == "error in value":
        value = _fails_at_other_points(xp, problem)
    if outcome == "error in gradient":
        gradient = _raises
    if outcome == "fail":
        gradient = lambda p: {key: -g for key, g in problem.gradient(p).items()}  # noqa: E731
    if outcome.startswith("error"):
        with pytest.raises(_MineError):
            bx.check_gradient(value, gradient, problem.point, method=method)
    else:
        report = bx.check_gradient(value, gradient, problem.point, method=method)
        assert report.verdict == outcome
    assert _bytes(xp, problem.point) == before
    assert all(problem.point[key] is parts[key] for key in parts)


# ---- functions that write, or remember


@every_method
@pytest.mark.parametrize("writer", ["value", "gradient"])
def test_a_function_that_writes_into_its_point_is_found_out_and_named(
    xp: Any, writer: str, method: str
) -> None:
    if xp.name == "jax":
        pytest.skip("nothing writes into JAX's arrays")
    problem = Cubes(xp)
    before = _bytes(xp, problem.point)

    def write(p: Any) -> None:
        p["bias"] += 0.125

    def value(p: Any) -> Any:
        if writer == "value":
            write(p)
        return problem.value(p)

    def gradient(p: Any) -> Any:
        found = problem.gradient(p)
        if writer == "gradient":
            write(p)
        return found

    report = bx.check_gradient(value, gradient, problem.point, method=method)
    assert report.verdict == "fail"
    assert f"{writer} writes into the point" in str(report.diagnosis)
    assert _bytes(xp, problem.point) == before


def _accumulates(xp: Any, problem: Cubes) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Add to one buffer in each call, and return it."""
    buffer = {key: 0.0 * part for key, part in problem.point.items()}

    def gradient(p: Any) -> Any:
        for key, g in problem.gradient(p).items():
            buffer[key] += g
        return buffer

    return problem.value, gradient


def _stale(xp: Any, problem: Cubes) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Use the last point that value saw, wherever the gradient is asked for."""
    kept: list[Any] = []

    def value(p: Any) -> Any:
        kept[:] = [p]
        return problem.value(p)

    return value, lambda p: problem.gradient(kept[0])


def _stale_if_real(xp: Any, problem: Cubes) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Use the last point of real numbers that value saw."""
    value, gradient = _stale(xp, problem)

    def choose(p: Any) -> Any:
        is_complex = xp.namespace.isdtype(p["bias"].dtype, "complex floating")
        return problem.value(p) if is_complex else value(p)

    return choose, gradient


def _resampled(xp: Any, problem: Cubes) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Draw a mask in each gradient."""
    generator = np.random.default_rng(62)

    def gradient(p: Any) -> Any:
        masks = {key: xp.asarray(generator.uniform(size=part.shape)) for key, part in p.items()}
        return {key: 2.0 * masks[key] * g for key, g in problem.gradient(p).items()}

    return problem.value, gradient


def _noisy(xp: Any, problem: Cubes) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Draw in each value."""
    generator = np.random.default_rng(63)
    return lambda p: problem.value(p) * float(generator.uniform()), problem.gradient


STATES = {
    "an accumulated gradient": (_accumulates, "accumulates"),
    "a stale cache": (_stale, "stale cache"),
    "a stale cache of real numbers": (_stale_if_real, "stale cache"),
    "a mask drawn anew": (_resampled, "gradient changes from call to call"),
    "a value drawn anew": (_noisy, "value changes from call to call"),
}


@every_method
@pytest.mark.parametrize("state", STATES)
def test_a_state_kept_from_call_to_call_is_found_out_and_said(
    xp: Any, state: str, method: str
) -> None:
    plant, words = STATES[state]
    problem = Cubes(xp)
    before = _bytes(xp, problem.point)
    report = bx.check_gradient(*plant(xp, problem), problem.point, method=method)
    assert report.verdict in ("fail", "nondeterministic")
    assert words in str(report.diagnosis)
    assert words in str(report)
    assert _bytes(xp, problem.point) == before
