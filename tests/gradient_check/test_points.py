"""Points and gradients: any pytree of numbers, in any library's arrays."""

import itertools
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.planted_mistakes import (
    assert_only_right_passes,
    check,
    difference_methods,
    entries_and_directions,
    map_leaves,
)

Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - as users' older code has them


def _leaves(structure: Any) -> list[Any]:
    found: list[Any] = []
    map_leaves(structure, found.append)
    return found


def _cubes(xp: Any, point: Any) -> Any:
    """Return ``sum(p**3)`` over all leaves, with the weights 1, 2, 3."""
    return sum(k * xp.sum(p * p * p) for k, p in enumerate(_leaves(point), start=1))


def _by_hand(point: Any) -> Any:
    counter = itertools.count(1)
    return map_leaves(point, lambda p: 3.0 * next(counter) * p * p)


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "a number's array": lambda a: a(()),
    "a list": lambda a: [a((2, 3)), a(()), a((1, 3))],
    "nested": lambda a: {"a": [a((2,)), (a(()),)], "b": Pair(a((1,)), {"c": a((3,))})},
    "an empty part": lambda a: [a((0, 3)), a((1, 3))],
}


@entries_and_directions
@pytest.mark.parametrize("kind", ARRAYS)
def test_a_point_may_be_any_pytree_of_arrays(xp: Any, kind: str, method: str) -> None:
    draw = np.random.default_rng(51).normal
    point = ARRAYS[kind](lambda shape: xp.asarray(draw(size=shape)))
    case = lambda p: _cubes(xp.namespace, p), _by_hand, point
    assert_only_right_passes(*case, method=method)
    report = check.gradient(*case)
    for found in (report.analytic, report.numeric):
        assert type(found) is type(point)
        for one, other in zip(_leaves(found), _leaves(_by_hand(point)), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(xp.host(one), xp.host(other), rtol=xp.rounding(1e-13))


NUMBERS: dict[str, Any] = {
    "numbers": (0.5, 2, np.float64(1.5)),
    "nested": [[0.5, -1.0], {"a": 2.0}],
    "a number beside an array": [np.array([0.5, -1.0]), 2.0],
}


@difference_methods
@pytest.mark.parametrize("kind", NUMBERS)
def test_a_point_may_be_plain_numbers(nothing_chosen: None, kind: str, method: str) -> None:
    case = lambda p: _cubes(np, p), _by_hand, NUMBERS[kind]
    assert_only_right_passes(*case, method=method)


def test_a_masked_array_is_an_error_as_its_mask_would_be_lost() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    with pytest.raises(ValueError, match=r"^point has masked values \(1 of 2\)"):
        check.gradient(np.sum, np.ones_like, masked)
    with pytest.raises(ValueError, match=r"^gradient\(point\) has masked values \(1 of 2\)"):
        check.gradient(np.sum, lambda p: masked, np.ones(2))


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_integers_are_cast_and_the_report_has_a_note(xp: Any, dtype: str) -> None:
    whole = getattr(xp.namespace, dtype)
    point = xp.namespace.astype(xp.asarray([1, 2, 3], dtype=None), whole)
    report = check.gradient(lambda p: xp.namespace.sum(p**3), lambda p: 3.0 * p * p, point)
    assert report.verdict == "pass"
    assert f"the point was cast from {dtype} to floating numbers" in report.notes[0]
    assert report.notes[0] in str(report)


def test_a_pandas_point_stays_a_dataframe_in_the_calls(nothing_chosen: None) -> None:
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([0.5, -1.0, 2.0], index=["a", "b", "c"])
    labels = lambda p: p["a"] * p["b"], lambda p: pandas.Series([p["b"], p["a"], 0.0])
    assert_only_right_passes(*labels, series)
    frame = {"table": pandas.DataFrame({"u": [0.5, 1.0], "v": [-1.0, 2.0]})}
    cubes = lambda p: (p["table"] ** 3).sum().sum(), lambda p: {"table": 3 * p["table"] ** 2}
    assert_only_right_passes(*cubes, frame)
    assert list(check.gradient(*cubes, frame).numeric["table"].columns) == ["u", "v"]


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda g: g.tolist(),
    "a column": lambda g: g[:, None],
    "in float32": lambda g: g.astype(np.float32),
    "whole numbers": lambda g: g.astype(np.int64),
}


@difference_methods
@pytest.mark.parametrize("kind", GRADIENTS)
def test_a_gradient_may_have_another_array_type(kind: str, method: str) -> None:
    value, gradient = lambda p: np.sum(p * p), lambda p: GRADIENTS[kind](2.0 * p)
    for wrong, verdict in ((gradient, "pass"), (lambda p: gradient(2.0 * p), "fail")):
        assert check.gradient(value, wrong, np.array([1.5, -1.0]), method=method).verdict == verdict
