"""The diagnosis: what a wrong gradient looks like, in a sentence that names the tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted import with_entries

METHODS = ["auto", "directional"]
every_method = pytest.mark.parametrize("method", METHODS)

Gradient = dict[str, Any]

# The strength of the penalty on the matrices.
L2 = 0.1
generator = np.random.default_rng(71)
# The matrices are square, so that a transposed gradient has the right shape.
SHAPES = {"first": (3, 3), "bias": (1, 3), "second": (3, 3), "number": (1, 1)}
COEFFICIENTS = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
POINT = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
NOISE = generator.normal(size=(3, 3))


class Problem:
    """``sum(c * sin(p))`` over a dict of arrays, with a penalty on the matrices among them."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp.namespace
        self.c = {name: xp.asarray(c) for name, c in COEFFICIENTS.items()}
        self.point = {name: xp.asarray(p) for name, p in POINT.items()}
        self.noise = xp.asarray(NOISE)

    def value(self, point: Gradient) -> Any:
        parts = [self.xp.sum(self.c[name] * self.xp.sin(p)) for name, p in point.items()]
        squares = [self.xp.sum(point[name] * point[name]) for name in ("first", "second")]
        return sum(parts) + 0.5 * L2 * sum(squares)

    def gradient(self, point: Gradient) -> Gradient:
        gradient = {name: self.c[name] * self.xp.cos(p) for name, p in point.items()}
        for name in ("first", "second"):
            gradient[name] = gradient[name] + L2 * point[name]
        return gradient

    def rows(self, g: Any, *order: int) -> Any:
        device = bx.backends.device_of(g)
        return self.xp.take(g, self.xp.asarray(order, device=device), axis=0)

    def columns(self, g: Any, *order: int) -> Any:
        return self.xp.matrix_transpose(self.rows(self.xp.matrix_transpose(g), *order))


Plant = Callable[[Problem, Gradient], Gradient]


def _every(change: Callable[[Any], Any]) -> Plant:
    return lambda problem, gradient: {name: change(g) for name, g in gradient.items()}


def _in(*names: str, change: Callable[[Problem, Any, Any], Any]) -> Plant:
    """Change some tensors' gradients; ``change`` is given the point there, too."""
    return lambda problem, gradient: {
        name: change(problem, g, problem.point[name]) if name in names else g
        for name, g in gradient.items()
    }


def _diagnosis(xp: Any, plant: Plant, method: str) -> str | None:
    """Return what is said of a gradient that must fail."""
    problem = Problem(xp)
    report = bx.check_gradient(
        problem.value,
        lambda point: plant(problem, problem.gradient(point)),
        problem.point,
        method=method,
    )
    assert (report.verdict, report.passed) == ("fail", False)
    found: str | None = report.diagnosis
    return found


class Mistake(NamedTuple):
    """How it is planted, and what is said of it: entry by entry, and in ``along`` by directions."""

    plant: Plant
    says: tuple[str, ...]
    along: tuple[str, ...] | None = None


FIRST = "['first']"
MISTAKES = {
    # All of the gradient times a number.
    "factor 2": Mistake(_every(lambda g: 2.0 * g), ("whole gradient", "factor of 2")),
    "factor 1/2": Mistake(_every(lambda g: 0.5 * g), ("whole gradient", "factor of 1/2")),
    "sign": Mistake(_every(lambda g: -g), ("whole gradient", "factor of -1", "sign is wrong")),
    "sum for a mean": Mistake(
        _every(lambda g: 7.0 * g), ("whole gradient", "factor of 7", "a sum where a mean belongs")
    ),
    "mean for a sum": Mistake(
        _every(lambda g: g / 7.0), ("whole gradient", "factor of 1/7", "a mean where a sum belongs")
    ),
    # A tensor of it.
    "factor 2 in one": Mistake(
        _in("first", change=lambda problem, g, p: 2.0 * g), (FIRST, "factor of 2")
    ),
    "sign in a row": Mistake(
        _in("bias", change=lambda problem, g, p: -g), ("['bias']", "sign is wrong")
    ),
    "factor 2 in a number": Mistake(
        _in("number", change=lambda problem, g, p: 2.0 * g), ("['number']", "factor of 2")
    ),
    # Its entries.
    "transpose": Mistake(
        _in("first", change=lambda problem, g, p: problem.xp.matrix_transpose(g)),
        (FIRST, "is the transpose"),
    ),
    "swapped rows": Mistake(
        _in("first", change=lambda problem, g, p: problem.rows(g, 2, 1, 0)),
        (FIRST, "rows", "0", "2", "swapped"),
    ),
    "permuted rows": Mistake(
        _in("first", change=lambda problem, g, p: problem.rows(g, 2, 0, 1)),
        (FIRST, "rows permuted", "3 rows"),
        (FIRST, "rows permuted"),
    ),
    "swapped columns": Mistake(
        _in("first", change=lambda problem, g, p: problem.columns(g, 1, 0, 2)),
        (FIRST, "columns", "0", "1", "swapped"),
        (),
    ),
    "permuted columns": Mistake(
        _in("first", change=lambda problem, g, p: problem.columns(g, 2, 0, 1)),
        (FIRST, "columns permuted", "3 columns"),
        (),
    ),
    "zero tensor": Mistake(
        _in("first", change=lambda problem, g, p: 0.0 * g), (FIRST, "is zero, and should not be")
    ),
    "zero entries": Mistake(
        _in("first", change=lambda problem, g, p: with_entries(g, lambda e: 0.0 * e, 1, 5)),
        (FIRST, "zero block", "2 entries"),
        # Which of the two is found depends on the directions.
        (FIRST, "is zero at ["),
    ),
    "not finite": Mistake(
        _in("first", change=lambda problem, g, p: with_entries(g, lambda e: e + np.nan, 1, 5)),
        (FIRST, "2", "not finite"),
        ("2", "not finite", "['first'][0, 1] is nan"),
    ),
    # The penalty: without a network nothing is known of it but what the parameter shows.
    "penalty missing": Mistake(
        _in("first", change=lambda problem, g, p: g - L2 * p),
        (FIRST, "lacks 0.1 times the parameter", "penalty (L2)"),
    ),
    "penalty halved": Mistake(
        _in("first", change=lambda problem, g, p: g - 0.5 * L2 * p),
        (FIRST, "lacks 0.05 times the parameter", "penalty (L2)"),
    ),
    "penalty doubled": Mistake(
        _in("first", change=lambda problem, g, p: g + L2 * p),
        (FIRST, "0.1 times the parameter too much", "penalty (L2)"),
    ),
    "penalty on a bias": Mistake(
        _in("bias", change=lambda problem, g, p: g + L2 * p),
        ("['bias']", "0.1 times the parameter too much", "penalty (L2)"),
    ),
}


@every_method
@pytest.mark.parametrize("name", MISTAKES)
def test_a_common_mistake_is_called_by_its_name(xp: Any, name: str, method: str) -> None:
    mistake = MISTAKES[name]
    along = method == "directional" and mistake.along is not None
    diagnosis = _diagnosis(xp, mistake.plant, method)
    for words in (mistake.along if along else mistake.says) or ():
        assert words in (diagnosis or "")
    # No more is said where nothing is known, and nothing of the tensors that are right.
    assert (diagnosis is None) == (along and not mistake.along)
    assert "['second']" not in (diagnosis or "")


def test_tensors_with_the_same_mistake_are_named_together(xp: Any) -> None:
    def plant(problem: Problem, gradient: Gradient) -> Gradient:
        zeros = 0.0 * gradient["second"]
        doubled = {name: 2.0 * gradient[name] for name in ("first", "bias")}
        return {**gradient, **doubled, "second": zeros}

    diagnosis = _diagnosis(xp, plant, "auto") or ""
    both, other = diagnosis.split("; ")
    assert both.startswith("['first'] and ['bias'] ")
    assert "factor of 2" in both
    assert other.startswith("['second'] ")
    assert "zero" in other


@every_method
def test_a_tensor_that_is_zero_but_for_a_penalty_is_said_to_lack_it(xp: Any, method: str) -> None:
    total, square = xp.namespace.sum, L2 / 2.0
    report = bx.check_gradient(
        lambda p: total(p[0] * p[0] * p[0]) + square * total(p[1] * p[1]),
        lambda p: [3.0 * p[0] * p[0], 0.0 * p[1]],
        [xp.asarray(POINT["first"]), xp.asarray(POINT["second"])],
        method=method,
    )
    for words in ("[1]", "zero", "0.1 times the parameter", "penalty"):
        assert words in (report.diagnosis or "")


UNEXPLAINED: dict[str, Plant] = {
    "noise": _in("first", change=lambda problem, g, p: g + problem.noise),
    "noise in proportion": _in("first", change=lambda problem, g, p: g * (1.0 + problem.noise)),
    "one entry off": _in(
        "first", change=lambda problem, g, p: with_entries(g, lambda e: e + 0.5, 4)
    ),
    "magnitudes": _in("first", change=lambda problem, g, p: problem.xp.abs(g)),
    "twice, but for half a percent": _in(
        "first", change=lambda problem, g, p: 2.0 * g * (1.0 + 0.005 * problem.noise)
    ),
    "the cube of the parameter": _in("first", change=lambda problem, g, p: g + 0.1 * p * p * p),
}


@every_method
@pytest.mark.parametrize("name", UNEXPLAINED)
def test_nothing_is_said_of_a_mistake_that_nothing_simple_explains(
    xp: Any, name: str, method: str
) -> None:
    assert _diagnosis(xp, UNEXPLAINED[name], method) is None


def test_nothing_is_made_of_a_difference_not_far_above_a_loose_tolerance(xp: Any) -> None:
    problem = Problem(xp)

    def wrong(point: Gradient) -> Gradient:
        gradient = problem.gradient(point)
        sizes = [
            float(problem.xp.max(problem.xp.abs(a))) for a in (gradient["first"], problem.noise)
        ]
        off = 0.08 * sizes[0] / sizes[1] * problem.noise
        return {**gradient, "first": gradient["first"] + off}

    report = bx.check_gradient(problem.value, wrong, problem.point, tolerance=0.05)
    assert (report.verdict, report.diagnosis) == ("fail", None)


@pytest.mark.parametrize(
    "method",
    [
        "auto",
        "directional",
    ],
)
def test_no_factor_is_said_of_a_number(xp: Any, method: str) -> None:
    """Any number is any other times a factor."""
    plant = _in("number", change=lambda problem, g, p: 1.37 * g)
    assert _diagnosis(xp, plant, method) is None


@pytest.mark.parametrize(
    "method",
    [
        "auto",
        "directional",
    ],
)
@pytest.mark.parametrize("factor", [1.5, -2.0, 0.3])
def test_a_number_takes_part_in_a_factor_of_the_whole_gradient(
    xp: Any, factor: float, method: str
) -> None:
    diagnosis = _diagnosis(xp, _every(lambda g: factor * g), method) or ""
    assert "whole gradient" in diagnosis
    assert f"factor of {factor:g}" in diagnosis


@pytest.mark.parametrize("method", [*METHODS, "complex_step", "centered", "taylor"])
def test_nothing_is_said_of_a_right_gradient(xp: Any, method: str) -> None:
    problem = Problem(xp)
    report = bx.check_gradient(problem.value, problem.gradient, problem.point, method=method)
    assert (report.verdict, report.diagnosis) == ("pass", None)
