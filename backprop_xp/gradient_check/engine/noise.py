"""The noise of values: what no polynomial of low degree through neighbouring ones explains.

The k-th divided difference of k + 1 values is 0 for every polynomial below degree k. Scaled to
weights of norm 1, it has the standard deviation of the values' noise (after More and Wild,
"Estimating computational noise", 2011, for equal steps). For a smooth function it is the Taylor
term of order k.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np


def unexplained(values: np.ndarray, nodes: Sequence[float], order: int) -> np.ndarray:
    """Return what polynomials of degree ``order - 1`` leave of values ``(S, ...)`` at nodes.

    The result is ``(S - order, ...)``: the absolute value for each ``order + 1`` neighbours.
    """
    weights, norms = _divided(tuple(nodes), order)
    return np.abs(np.tensordot(weights / norms[:, None], values, 1))


def taylor_term(values: np.ndarray, nodes: Sequence[float], order: int) -> np.ndarray:
    """Return the largest derivative of an order ``(...)``, by divided differences of values."""
    left = np.abs(np.tensordot(_divided(tuple(nodes), order)[0], values, 1))
    return np.asarray(math.factorial(order) * left.max(axis=0))


def noise_of_term(nodes: Sequence[float], order: int) -> float:
    """Return the standard deviation of a Taylor term's derivative, for noise of 1."""
    return float(math.factorial(order) * _divided(tuple(nodes), order)[1].max())


@functools.cache
def _divided(nodes: tuple[float, ...], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights ``(S - order, S)`` of divided differences, and their norms."""
    weights: np.ndarray = np.zeros((len(nodes) - order, len(nodes)))
    for row in range(len(weights)):
        some = nodes[row : row + order + 1]
        for k, a in enumerate(some):
            weights[row, row + k] = 1.0 / math.prod(a - b for b in some if b != a)
    return weights, np.linalg.norm(weights, axis=1)
