"""Functions of matrices, signals and curves."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import interpolate, linalg
from scipy.special import softmax

from tests.function_catalogue.functions import (
    MP,
    Array,
    known,
    matrix,
    written,
)

A = np.array([[0.8, -0.3, 0.5], [0.2, 1.4, -0.6], [-0.7, 0.1, 0.9]])
SPD = A @ A.T + np.eye(3)
B = np.array([[1.1, 0.4, -0.2], [-0.5, 0.7, 0.3], [0.6, -0.9, 1.2]])
VECTOR, WEIGHTS = np.array([0.7, -1.3, 0.4]), np.array([1.0, -0.5, 2.0])
SQUARE = {"ordinary": A}
TINY, HUGE = {"tiny": 1e-13 * A}, {"huge": 1e9 * A}
POSITIVE = {"ordinary": SPD, "huge": 1e9 * SPD, "tiny": 1e-13 * SPD}


def symmetric(x: Array) -> Any:
    return (x + x.T) / 2.0


def eigenvalues(x: Array) -> Any:
    """The sum of WEIGHTS times the eigenvalues of the symmetric part, in ascending order."""
    return WEIGHTS @ np.linalg.eigvalsh(symmetric(x))


def eigenvalue_slope(x: Array) -> Any:
    _, v = np.linalg.eigh(symmetric(x))
    return (v * WEIGHTS) @ v.T


def exact_eigenvalues(x: Array) -> Any:
    return np.sort(MP.linalg.eigvalsh(symmetric(x)))


def power_series(x: Array, terms: int = 60) -> Any:
    """The matrix exponential, by scaling and squaring of its series."""
    x = x / mp.mpf(2) ** 10
    term = total = np.frompyfunc(mp.mpf, 1, 1)(np.eye(len(x)))
    for k in range(1, terms):
        term = term @ x / k
        total = total + term
    for _ in range(10):
        total = total @ total
    return total


def expm_slope(x: Array) -> Any:
    return linalg.expm_frechet(x.T, np.outer(WEIGHTS, VECTOR), compute_expm=False)


def rayleigh(m: Any, v: Array) -> Any:
    return (v @ SPD @ v) / (v @ v)


TOP = np.linalg.eigh(SPD)[1][:, -1]


def attention(m: Any, x: Array) -> Any:
    """Queries ``x (3, 3)`` that attend to the rows of A, with values B."""
    scores = m.exp(x @ A.T)
    return WEIGHTS @ (scores / m.sum(scores, axis=1, keepdims=True)) @ B @ VECTOR


def attention_slope(x: Array) -> Any:
    shares, slope = softmax(x @ A.T, axis=1), np.outer(WEIGHTS, B @ VECTOR)
    return shares * (slope - np.sum(shares * slope, axis=1, keepdims=True)) @ A


DETERMINANTS = [
    written(
        "quadratic form",
        lambda m, v: v @ SPD @ v / 2.0 - VECTOR @ v,
        lambda v: SPD @ v,
        lambda v: -VECTOR,
        ordinary=[0.4, -0.9, 1.2],
        optimal=np.linalg.solve(SPD, VECTOR),
        tiny=[1e-13, -2e-13, 3e-13],
        huge=[1e12, -2e12, 3e12],
    ),
    known(
        "slogdet",
        lambda x: np.linalg.slogdet(x)[1],
        lambda x: np.linalg.inv(x).T,
        lambda x: mp.log(mp.det(matrix(x))),
        **POSITIVE,
    ),
    written(
        "Gaussian likelihood by covariance",
        lambda m, x: (m.log(m.linalg.det(x)) + m.trace(m.linalg.solve(x, SPD))) / 2.0,
        lambda x: np.linalg.inv(x).T / 2.0,
        lambda x: -(np.linalg.inv(x) @ SPD @ np.linalg.inv(x)).T / 2.0,
        ordinary=2.0 * SPD + np.diag(VECTOR),
        optimal=SPD,
        huge=1e6 * SPD,
    ),
    written(
        "Rayleigh quotient",
        rayleigh,
        lambda v: 2.0 * (SPD @ v) / (v @ v),
        lambda v: -2.0 * rayleigh(np, v) * v / (v @ v),
        ordinary=[0.4, -0.9, 1.2],
        optimal=TOP,
        tiny=[1e-13, -2e-13, 3e-13],
    ),
    written(
        "attention",
        attention,
        attention_slope,
        ordinary=A,
        tiny=1e-13 * A,
        saturated=20.0 * A,
        rough={"saturated"},
    ),
]

EIGENVALUES = [
    known(
        "eigenvalues",
        eigenvalues,
        eigenvalue_slope,
        lambda x: WEIGHTS @ exact_eigenvalues(x),
        **SQUARE,
        **HUGE,
        **TINY,
    ),
    known(
        "condition number",
        lambda x: (lambda w: w[-1] / w[0])(np.linalg.eigvalsh(symmetric(x))),
        lambda x: (
            lambda w, v: (
                np.outer(v[:, -1], v[:, -1]) / w[0] - w[-1] / w[0] ** 2 * np.outer(v[:, 0], v[:, 0])
            )
        )(*np.linalg.eigh(symmetric(x))),
        lambda x: (lambda w: w[-1] / w[0])(exact_eigenvalues(x)),
        ordinary=SPD,
    ),
    known(
        "expm",
        lambda x: WEIGHTS @ linalg.expm(x) @ VECTOR,
        expm_slope,
        lambda x: WEIGHTS @ power_series(x) @ VECTOR,
        **SQUARE,
        **TINY,
    ),
]

DATA = np.array([[1.2, 0.4, 0.9, 2.1], [0.3, 1.8, 0.7, 0.5], [1.1, 0.6, 1.5, 0.2]])
SIGNAL = np.array([0.4, -1.1, 0.9, 2.3, -0.6, 0.2])
FREQUENCIES = np.array([1.0, 0.5, 2.0, 0.3, 2.0, 0.5])


def factors(m: Any, p: Array) -> Any:
    """``DATA (3, 4)`` as a product of rank 2, ``p (7, 2)``."""
    return m.sum((p[:3] @ p[3:].T - DATA) ** 2) / 2.0


def factor_slope(p: Array) -> Any:
    r = p[:3] @ p[3:].T - DATA
    return np.concatenate([r @ p[3:], r.T @ p[:3]])


def exact_power(x: Array, weights: Any = FREQUENCIES) -> Any:
    """The weighted power spectrum by sums of cosines and sines."""
    n = len(x)
    angles = [[2 * mp.pi * j * k / n for j in range(n)] for k in range(n)]
    cosines = [sum(t * mp.cos(a) for t, a in zip(x, row, strict=True)) for row in angles]
    sines = [sum(t * mp.sin(a) for t, a in zip(x, row, strict=True)) for row in angles]
    return sum(w * (c * c + s * s) for w, c, s in zip(weights, cosines, sines, strict=True))


KNOTS, INSIDE = np.array([0.0, 1.0, 2.0, 3.5, 4.0, 5.0]), np.array([0.3, 1.4, 2.9, 4.6])
BASIS = interpolate.CubicSpline(KNOTS, np.eye(6))
DESIRED = np.array([0.5, 1.0, -0.4, 0.8])
SIX = {"ordinary": [0.3, 0.8, -0.5, 1.1, 0.6, -0.9]}
SMALL, LARGE = 1e-13 * np.array(SIX["ordinary"]), 1e9 * np.array(SIX["ordinary"])


def piece(spline: Any, x: Any) -> Any:
    """A spline's value at an mpf, from the coefficients of the piece."""
    i = int(np.searchsorted(spline.x, float(x), side="right")) - 1
    i = min(max(i, 0), len(spline.x) - 2)
    return sum(c * (x - spline.x[i]) ** (3 - k) for k, c in enumerate(spline.c[:, i]))


PCHIP = interpolate.PchipInterpolator(KNOTS, SIGNAL)

FACTORS = np.array(
    [[0.9, 0.4], [0.5, 1.3], [1.1, 0.2], [0.7, 0.3], [0.2, 0.8], [1.4, 0.6], [0.3, 0.9]]
)

FACTORIZATIONS = [
    written(
        "factorization",
        factors,
        factor_slope,
        ordinary=FACTORS,
        huge=1e6 * FACTORS,
        tiny=1e-13 * FACTORS,
    ),
    written(
        "principal component",
        lambda m, v: m.sum((DATA.T - m.outer(DATA.T @ v, v)) ** 2),
        lambda v: -4.0 * DATA @ DATA.T @ v,
        lambda v: 2.0 * (v @ v) * DATA @ DATA.T @ v + 2.0 * (v @ DATA @ DATA.T @ v) * v,
        ordinary=[0.4, -0.9, 1.2],
        optimal=np.linalg.svd(DATA)[0][:, 0],
    ),
]

SIGNALS_AND_CURVES = [
    known(
        "power spectrum",
        lambda x: np.sum(FREQUENCIES * np.abs(np.fft.fft(x)) ** 2),
        lambda x: 2.0 * 6.0 * np.fft.ifft(FREQUENCIES * np.fft.fft(x)).real,
        exact_power,
        **SIX,
        tiny=SMALL,
        huge=LARGE,
    ),
    written(
        "total variation, smooth",
        lambda m, x: m.sum(m.sqrt(m.diff(x) ** 2 + 1e-4)),
        lambda x: -np.diff(np.diff(x) / np.sqrt(np.diff(x) ** 2 + 1e-4), prepend=0.0, append=0.0),
        **SIX,
        huge=[1e9, 8e9, -5e9, 1e10, 2e10, -9e9],
        rough={"huge"},
    ),
    known(
        "PchipInterpolator",
        lambda x: np.sum(PCHIP(x)),
        lambda x: PCHIP(x, 1),
        lambda x: sum(piece(PCHIP, t) for t in x),
        ordinary=[0.3, 2.9, 4.6],
    ),
    known(
        "CubicSpline by its values",
        lambda y: np.sum((interpolate.CubicSpline(KNOTS, y)(INSIDE) - DESIRED) ** 2),
        lambda y: 2.0 * BASIS(INSIDE).T @ (BASIS(INSIDE) @ y - DESIRED),
        lambda y: sum(r**2 for r in BASIS(INSIDE) @ y - DESIRED),
        **SIX,
        huge=LARGE,
    ),
]


FUNCTIONS = [*DETERMINANTS, *EIGENVALUES, *FACTORIZATIONS, *SIGNALS_AND_CURVES]
