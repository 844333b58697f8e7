"""How many digits of a derivative are right, the check's and backpropagation's: against 50 of them.

The reference is the same network in mpmath, at exactly the numbers that the library computes with,
differentiated there by a step so small that the difference is right to 29 digits.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

import backprop_xp as bx

DIGITS = 50
# The difference errs by the step's square, 1e-40, and by rounding over the step, 1e-30.
STEP = "1e-20"
ENTRIES = 12  # of each tensor, or all where it has fewer

# The largest error of an entry, relative to the largest entry. Where nothing is subtracted, what is
# left are the roundings of one evaluation.
EVERY_DIGIT = {"float64": 1e-14, "float32": 1e-6}
BOUNDS = {
    **{("complex_step", dtype): bound for dtype, bound in EVERY_DIGIT.items()},
    # What truncation and rounding leave of a difference at its best step.
    ("centered", "float64"): 1e-10,
}

Rows = list[list[Any]]


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + mpmath.exp(-z))


def _binary_cross_entropy(o: Any, t: Any) -> Any:
    p = _sigmoid(o)
    return -t * mpmath.log(p) - (1 - t) * mpmath.log(1 - p)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "sigmoid": _sigmoid,
    "tanh": mpmath.tanh,
}
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "mean_squared_error": lambda o, t: (o - t) ** 2,
    "binary_cross_entropy": _binary_cross_entropy,
}


SIZES = [6, 16, 12, 3]


class Kind(NamedTuple):
    """A smooth network of 355 parameters, by names that are mpmath's too in the tables above."""

    hidden: str
    output: str
    loss: str

    def network(self) -> bx.Network:
        return bx.mlp(SIZES, hidden=self.hidden, output=self.output, loss=self.loss)


KINDS = [
    Kind("tanh", "sigmoid", "mean_squared_error"),
    Kind("sigmoid", "identity", "binary_cross_entropy"),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.hidden}, {kind.loss}")


def _case(xp: Any, kind: Kind, dtype: str) -> tuple[Any, Any, Any]:
    """Draw theta, its biases too, with x and y."""
    network, generator = kind.network(), np.random.default_rng(53)
    theta = xp.initialize(network, seed=4, dtype=dtype)
    theta = theta + xp.asarray(generator.normal(0.0, 0.2, network.size), dtype=dtype)
    x, y = generator.normal(size=(4, SIZES[0])), generator.uniform(size=(4, SIZES[-1]))
    return theta, xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=dtype)


def _entries() -> list[int]:
    """Return places in theta, spread over each of its tensors."""
    sizes = [n for pair in itertools.pairwise(SIZES) for n in (pair[0] * pair[1], pair[1])]
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        int(start + place)
        for start, size in zip(starts, sizes, strict=True)
        for place in np.unique(np.linspace(0, size - 1, ENTRIES).astype(int))
    ]


def _loss(kind: Kind, theta: list[Any], x: Rows, y: Rows) -> Any:
    values, rows = iter(theta), x
    activations = [kind.hidden] * (len(SIZES) - 2) + [kind.output]
    for (n_in, n_out), activation in zip(itertools.pairwise(SIZES), activations, strict=True):
        weights = [[next(values) for _ in range(n_out)] for _ in range(n_in)]
        bias = [next(values) for _ in range(n_out)]
        columns = list(zip(*weights, strict=True))
        rows = [
            [
                ACTIVATIONS[activation](mpmath.fdot(row, column) + b)
                for column, b in zip(columns, bias, strict=True)
            ]
            for row in rows
        ]
    per_output = [
        LOSSES[kind.loss](o, t)
        for outputs, targets in zip(rows, y, strict=True)
        for o, t in zip(outputs, targets, strict=True)
    ]
    return mpmath.fsum(per_output) / len(per_output)


@functools.cache
def _exact(kind: Kind, theta: tuple[float, ...], x: Any, y: Any) -> np.ndarray:
    """Return the derivatives by the chosen entries of theta, rounded once, to float64."""
    with mpmath.workdps(DIGITS):
        numbers = [mpmath.mpf(value) for value in theta]
        x, y = ([[mpmath.mpf(value) for value in row] for row in rows] for rows in (x, y))
        step = mpmath.mpf(STEP)

        def at(place: int, change: Any) -> Any:
            moved = [*numbers[:place], numbers[place] + change, *numbers[place + 1 :]]
            return _loss(kind, moved, x, y)

        slopes = [(at(i, step) - at(i, -step)) / (2 * step) for i in _entries()]
        return np.array([float(slope) for slope in slopes])


def _reference(xp: Any, kind: Kind, case: tuple[Any, Any, Any]) -> np.ndarray:
    # Python's floats hold float32 and float64 exactly.
    theta, x, y = (xp.host(array).tolist() for array in case)
    return _exact(kind, tuple(theta), tuple(map(tuple, x)), tuple(map(tuple, y)))


def _error(actual: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(actual - exact)) / np.max(np.abs(exact)))


@pytest.mark.float64
def test_the_reference_is_the_same_network(xp: Any) -> None:
    for kind in KINDS:
        theta, x, y = _case(xp, kind, "float64")
        with mpmath.workdps(DIGITS):
            expected = _loss(kind, *(xp.host(array).tolist() for array in (theta, x, y)))
        assert float(kind.network().loss(theta, x, y)) == pytest.approx(float(expected), rel=1e-14)
        assert len(_entries()) >= 40


@every_kind
@pytest.mark.parametrize(("method", "dtype"), BOUNDS)
def test_a_numeric_derivative_has_the_digits_its_method_promises(
    xp: Any, kind: Kind, method: str, dtype: str
) -> None:
    case = _case(xp, kind, dtype)
    # JAX compiles each operation anew for every shape; of one copy at a time there is one.
    frugal = {"max_memory": 1} if xp.name == "jax" else {}
    report = bx.check_network(kind.network(), *case, method=method, **frugal)
    numeric = xp.host(report.numeric)[_entries()]
    error = _error(numeric, _reference(xp, kind, case))
    assert report.verdict == "pass"
    assert error <= BOUNDS[method, dtype]


@every_kind
@pytest.mark.parametrize("dtype", EVERY_DIGIT)
def test_backpropagation_has_every_digit(xp: Any, kind: Kind, dtype: str) -> None:
    case = _case(xp, kind, dtype)
    _, gradient = kind.network().loss_and_gradient(*case)
    error = _error(xp.host(gradient)[_entries()], _reference(xp, kind, case))
    assert error <= EVERY_DIGIT[dtype]
