"""What may be a point, and a gradient: any structure of numbers, in any library's arrays."""

import itertools
import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.planted import by_differences, check, every_way, mapped, tell_apart

Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - as users' older code has them


def _leaves(structure: Any) -> list[Any]:
    found: list[Any] = []
    mapped(structure, found.append)
    return found


def _cubes(xp: Any, point: Any) -> Any:
    """Return ``sum(p**3)`` over all leaves, one after the other weighted 1, 2, 3."""
    return sum(k * xp.sum(p * p * p) for k, p in enumerate(_leaves(point), start=1))


def _by_hand(point: Any) -> Any:
    counter = itertools.count(1)
    return mapped(point, lambda p: 3.0 * next(counter) * p * p)


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "a number's array": lambda a: a(()),
    "a list": lambda a: [a((2, 3)), a(()), a((1, 3))],
    "a named tuple": lambda a: Pair(a((2, 3)), a((3,))),
    "nested": lambda a: {"a": [a((2,)), (a(()),)], "b": Pair(a((1,)), {"c": a((3,))})},
    "an empty part": lambda a: [a((0, 3)), a((1, 3))],
}


@every_way
@pytest.mark.parametrize("kind", ARRAYS)
def test_a_point_may_be_any_structure_of_arrays(xp: Any, kind: str, method: str) -> None:
    draw = np.random.default_rng(51).normal
    point = ARRAYS[kind](lambda shape: xp.asarray(draw(size=shape)))
    case = lambda p: _cubes(xp.namespace, p), _by_hand, point
    tell_apart(*case, method=method)
    report = check.gradient(*case)
    for found in (report.analytic, report.numeric):
        assert type(found) is type(point)
        for one, other in zip(_leaves(found), _leaves(_by_hand(point)), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(xp.host(one), xp.host(other), rtol=xp.rounding(1e-13))


NUMBERS: dict[str, Any] = {
    "numbers": (0.5, 2, np.float64(1.5)),
    "nested lists": [[0.5, -1.0], [2.0, 1.5]],
    "floats by name": {"a": 0.5, "b": [1.0, 2.0]},
    "a number beside an array": [np.array([0.5, -1.0]), 2.0],
}


@by_differences
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_a_point(nothing_chosen: None, kind: str, method: str) -> None:
    case = lambda p: _cubes(np, p), _by_hand, NUMBERS[kind]
    tell_apart(*case, method=method)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_whole_numbers_are_cast_and_a_note_says_so(xp: Any, dtype: str) -> None:
    whole = getattr(xp.namespace, dtype)
    point = xp.namespace.astype(xp.asarray([1, 2, 3], dtype=None), whole)
    report = check.gradient(lambda p: xp.namespace.sum(p**3), lambda p: 3.0 * p * p, point)
    assert report.verdict == "pass"
    assert f"the point was cast from {dtype} to floating numbers" in report.notes[0]
    assert report.notes[0] in str(report)


def test_tables_of_pandas_are_points_and_come_back_as_tables() -> None:
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([0.5, -1.0, 2.0], index=["a", "b", "c"])
    labels = lambda p: p["a"] * p["b"], lambda p: pandas.Series([p["b"], p["a"], 0.0])
    tell_apart(*labels, series)
    frame = {"table": pandas.DataFrame({"u": [0.5, 1.0], "v": [-1.0, 2.0]})}
    cubes = lambda p: (p["table"] ** 3).sum().sum(), lambda p: {"table": 3 * p["table"] ** 2}
    tell_apart(*cubes, frame)
    assert list(check.gradient(*cubes, frame).numeric["table"].columns) == ["u", "v"]


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda g: g.tolist(),
    "a column": lambda g: g[:, None],
    "in float32": lambda g: g.astype(np.float32),
    "whole numbers": lambda g: g.astype(np.int64),
}


@by_differences
@pytest.mark.parametrize("kind", GRADIENTS)
def test_a_gradient_may_be_any_array_of_its_numbers(kind: str, method: str) -> None:
    value, gradient = lambda p: np.sum(p * p), lambda p: GRADIENTS[kind](2.0 * p)
    for wrong, verdict in ((gradient, "pass"), (lambda p: gradient(2.0 * p), "fail")):
        assert check.gradient(value, wrong, np.array([1.5, -1.0]), method=method).verdict == verdict


# Of the point {"a": (2,), "b": (2, 3)}.
MISFITS: dict[str, Callable[[Any], Any]] = {
    "is not structured like point: the keys .* are expected": lambda p: p["a"],
    r"not the keys \['a', 'B'\]": lambda p: {"a": p["a"], "B": p["b"]},
    r"\['b'\] must be an array of .*numbers, not None": lambda p: {**p, "b": None},
    r"\['b'\] has shape \(\), but \(2, 3\) is expected": lambda p: {**p, "b": 1.0},
    r"\['b'\] has shape \(6,\), but \(2, 3\)": lambda p: {**p, "b": [1.0] * 6},
    r"\['b'\] has shape \(3, 2\), but \(2, 3\)": lambda p: {**p, "b": p["b"].T},
    r"\['a'\] must be an array of .*numbers, not of": lambda p: {**p, "a": [1j, 2.0]},
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_gradient_structured_otherwise_is_refused_by_name(xp: Any, message: str) -> None:
    point = {"a": xp.asarray([1.0, 2.0]), "b": xp.asarray([[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])}
    with pytest.raises((TypeError, ValueError), match=r"gradient\(point\).*" + message):
        check.gradient(lambda p: _cubes(xp.namespace, p), MISFITS[message], point)


NO_POINTS: list[tuple[Any, str]] = [
    (np.zeros((0, 3)), "point holds no numbers"),
    (np.array([1j, 2.0]), "point is complex128, but real floating numbers are expected"),
    ({"a": np.ones(2), "b": np.ones(2, np.float32)}, r"\['b'\] is float32.*\['a'\].* float64"),
    ([np.ones(2), np.array([1.0, math.nan])], r"point\[1\] is nan at \[1\]"),
    ({"w": np.array([[1.0, 2.0], [math.inf, 3.0]])}, r"point\['w'\] is inf at \[1, 0\]"),
    (-math.inf, "point is -inf"),
]


@pytest.mark.parametrize(("point", "message"), NO_POINTS, ids=[repr(p[0]) for p in NO_POINTS])
def test_what_is_no_point_is_refused(nothing_chosen: None, point: Any, message: str) -> None:
    called: list[Any] = []
    with pytest.raises((TypeError, ValueError), match=message):
        check.gradient(called.append, called.append, point)
    assert not called
