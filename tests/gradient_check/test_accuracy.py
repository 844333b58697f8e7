"""The correct digits of derivatives, by the check and by backpropagation, against 50 digits.

The reference is the same network in mpmath, at exactly the library's numbers. It is differentiated
with a step so small that the difference is right to 29 digits.
"""

import functools
import itertools
from typing import Any

import mpmath
import numpy as np
import pytest

import backprop_xp as bx
from tests.planted_mistakes import check

DIGITS = 50
# The difference errs by the step's square, 1e-40, and by rounding over the step, 1e-30.
STEP = "1e-20"
# A smooth network of 355 parameters; the tests compare the derivative by every ninth one.
SIZES, EVERY = [6, 16, 12, 3], 9
NETWORK = bx.mlp(SIZES, hidden="tanh", output="sigmoid", loss="mean_squared_error")

# The largest error relative to the largest entry: the roundings of one evaluation, and the error of
# a difference at its best step.
BACKPROPAGATION = 1e-14
METHODS = {"complex_step": 1e-14, "centered": 1e-10}


def _case(xp: Any) -> tuple[Any, Any, Any]:
    """Draw theta with its biases, and x and y."""
    draw = np.random.default_rng(53).normal
    noise, x, y = (draw(0.0, 0.2, NETWORK.size), draw(size=(4, 6)), draw(size=(4, 3)))
    return xp.initialize(NETWORK, seed=4) + xp.asarray(noise), xp.asarray(x), xp.asarray(y)


def _loss(theta: Any, rows: Any, y: Any) -> Any:
    values = iter(theta)
    for n_in, n_out in itertools.pairwise(SIZES):
        weights = [[next(values) for _ in range(n_out)] for _ in range(n_in)]
        columns = list(zip(*weights, [next(values) for _ in range(n_out)], strict=True))
        rows = [[mpmath.fdot([*row, 1], column) for column in columns] for row in rows]
        last = n_out == SIZES[-1]
        rows = [[1 / (1 + mpmath.exp(-z)) if last else mpmath.tanh(z) for z in r] for r in rows]
    pairs = zip(itertools.chain(*rows), itertools.chain(*y), strict=True)
    squares = [(o - t) ** 2 for o, t in pairs]
    return mpmath.fsum(squares) / len(squares)


@functools.cache
def _exact(theta: Any, x: Any, y: Any) -> np.ndarray:
    """Return the derivatives by the chosen entries of theta, rounded once."""
    with mpmath.workdps(DIGITS):
        numbers = [mpmath.mpf(value) for value in theta]
        x, y = ([[mpmath.mpf(value) for value in row] for row in rows] for rows in (x, y))
        step, slopes = mpmath.mpf(STEP), []
        for i in range(0, len(numbers), EVERY):
            ends = ([*numbers[:i], numbers[i] + h, *numbers[i + 1 :]] for h in (step, -step))
            ahead, behind = (_loss(moved, x, y) for moved in ends)
            slopes.append(float((ahead - behind) / (2 * step)))
        return np.array(slopes)


def _error(xp: Any, gradient: Any, case: tuple[Any, Any, Any]) -> float:
    # Python's floats hold float32 and float64 exactly.
    theta, x, y = (xp.host(array).tolist() for array in case)
    exact = _exact(tuple(theta), tuple(map(tuple, x)), tuple(map(tuple, y)))
    return float(np.max(np.abs(xp.host(gradient)[::EVERY] - exact)) / np.max(np.abs(exact)))


@pytest.mark.float64
@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_derivative_has_the_digits_that_its_method_promises(xp: Any, method: str) -> None:
    case = _case(xp)
    # JAX compiles each operation for every shape; one copy at a time has one shape.
    frugal = {"max_memory": 1} if xp.name == "jax" else {}
    report = check.network(NETWORK, *case, method=method, **frugal)
    assert report.verdict == "pass"
    assert _error(xp, report.numeric, case) <= METHODS[method]
    assert _error(xp, report.analytic, case) <= BACKPROPAGATION
