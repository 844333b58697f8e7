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


def unexplained_by_one(values: np.ndarray, nodes: Sequence[float], order: int) -> np.ndarray:
    """Return what one polynomial of degree ``order - 1`` leaves of all values ``(S, ...)``.

    The result ``(...)`` is the standard deviation from the polynomial of least squares.
    """
    left = np.tensordot(_free(tuple(nodes), order), values, 1)
    return np.asarray(np.sqrt(np.mean(left**2, axis=0)))


def unexplained_at(values: Sequence[np.ndarray], nodes: Sequence[np.ndarray]) -> np.ndarray:
    """Return what polynomials of degree ``S - 2`` leave of S tables of values, at tables of nodes.

    Each entry has nodes of its own, such as steps that are rounded.
    """
    size, left, norm = np.max(np.abs(np.stack(np.broadcast_arrays(*nodes))), axis=0), 0.0, 0.0
    for i, (value, node) in enumerate(zip(values, nodes, strict=True)):
        others = [(node - other) / size for j, other in enumerate(nodes) if j != i]
        weight = 1.0 / math.prod(others)
        left, norm = left + weight * value, norm + weight**2
    return np.asarray(np.abs(left / np.sqrt(norm)))


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


@functools.cache
def _free(nodes: tuple[float, ...], order: int) -> np.ndarray:
    """Return an orthonormal basis ``(S - order, S)`` of what no such polynomial explains."""
    return np.asarray(np.linalg.qr(_divided(nodes, order)[0].T)[0].T)
