"""Functions of matrices: determinants, inverses, eigenvalues, norms."""

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
from scipy import linalg
from scipy.special import softmax

from tests.function_catalogue.functions import MP, Array, known, matrix, written

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


def eigenvalue_slope(weights: Any) -> Callable[[Array], Array]:
    def slope(x: Array) -> Any:
        _, v = np.linalg.eigh(symmetric(x))
        return (v * weights) @ v.T

    return slope


def exact_eigenvalues(x: Array) -> Any:
    return np.sort(MP.linalg.eigvalsh(symmetric(x)))


def function_of_eigenvalues(x: Array, f: Any, df: Any) -> Any:
    w, v = np.linalg.eigh(symmetric(x))
    return f(w), (v * df(w)) @ v.T


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


def singular_slope(weights: Any) -> Callable[[Array], Array]:
    def slope(x: Array) -> Any:
        u, _, v = np.linalg.svd(x)
        return (u * weights) @ v

    return slope


def sylvester(m: Any, x: Array) -> Any:
    """``sum(WEIGHTS' Z VECTOR)`` where ``x Z + Z x = B``, by a system of nine equations."""
    eye = np.eye(3)
    blocks = [[x[i, j] * eye for j in range(3)] for i in range(3)]
    left = m.concatenate([m.concatenate(row, axis=1) for row in blocks], axis=0)
    zero = eye[0, 1] * x
    rows = [[x.T if i == j else zero for j in range(3)] for i in range(3)]
    right = m.concatenate([m.concatenate(row, axis=1) for row in rows], axis=0)
    z = m.linalg.solve(left + right, B.reshape(-1))
    return WEIGHTS @ z.reshape(3, 3) @ VECTOR


def sylvester_slope(x: Array) -> Any:
    z = linalg.solve_sylvester(x, x, B)
    dual = linalg.solve_sylvester(x.T, x.T, np.outer(WEIGHTS, VECTOR))
    return -dual @ z.T - z.T @ dual


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
    written(
        "bilinear form",
        lambda m, x: WEIGHTS @ x @ VECTOR,
        lambda x: np.outer(WEIGHTS, VECTOR),
        **SQUARE,
        **TINY,
        **HUGE,
    ),
    written(
        "trace of a product", lambda m, x: m.trace(B @ x), lambda x: B.T, **SQUARE, **TINY, **HUGE
    ),
    written(
        "trace of a square",
        lambda m, x: m.trace(x @ x),
        lambda x: 2.0 * x.T,
        **SQUARE,
        **TINY,
        **HUGE,
    ),
    written(
        "trace of a cube",
        lambda m, x: m.trace(x @ x @ x),
        lambda x: 3.0 * (x @ x).T,
        **SQUARE,
        **HUGE,
    ),
    written(
        "squared norm",
        lambda m, x: m.sum((x - B) ** 2),
        lambda x: 2.0 * (x - B),
        **SQUARE,
        **TINY,
        **HUGE,
        optimal=B,
    ),
    written(
        "Frobenius norm",
        lambda m, x: m.sqrt(m.sum(x * x)),
        lambda x: x / np.linalg.norm(x),
        **SQUARE,
        **TINY,
        **HUGE,
    ),
    written(
        "determinant",
        lambda m, x: m.linalg.det(x),
        lambda x: np.linalg.det(x) * np.linalg.inv(x).T,
        **SQUARE,
        **HUGE,
    ),
    written(
        "log determinant",
        lambda m, x: m.log(m.linalg.det(x)),
        lambda x: np.linalg.inv(x).T,
        **SQUARE,
        **HUGE,
    ),
    known(
        "slogdet",
        lambda x: np.linalg.slogdet(x)[1],
        lambda x: np.linalg.inv(x).T,
        lambda x: mp.log(mp.det(matrix(x))),
        **POSITIVE,
    ),
    known(
        "log determinant by Cholesky",
        lambda x: 2.0 * np.sum(np.log(np.diag(np.linalg.cholesky(symmetric(x))))),
        lambda x: np.linalg.inv(symmetric(x)),
        lambda x: mp.log(mp.det(matrix(symmetric(x)))),
        **POSITIVE,
    ),
    written(
        "bilinear form of an inverse",
        lambda m, x: WEIGHTS @ m.linalg.solve(x, VECTOR),
        lambda x: -np.outer(np.linalg.solve(x.T, WEIGHTS), np.linalg.solve(x, VECTOR)),
        **SQUARE,
        **HUGE,
    ),
    written(
        "trace of an inverse",
        lambda m, x: m.trace(m.linalg.inv(x)),
        lambda x: -(np.linalg.inv(x) @ np.linalg.inv(x)).T,
        **SQUARE,
        **TINY,
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
        "Gaussian likelihood by precision",
        lambda m, x: (m.trace(x @ SPD) - m.log(m.linalg.det(x))) / 2.0,
        lambda x: SPD / 2.0,
        lambda x: -np.linalg.inv(x).T / 2.0,
        ordinary=SPD,
        optimal=np.linalg.inv(SPD),
    ),
    written(
        "Wishart",
        lambda m, x: 1.5 * m.log(m.linalg.det(x)) - m.trace(B @ B.T @ x) / 2.0,
        lambda x: 1.5 * np.linalg.inv(x).T,
        lambda x: -B @ B.T / 2.0,
        ordinary=SPD,
    ),
    written(
        "Mahalanobis distance",
        lambda m, v: m.sqrt((v - VECTOR) @ SPD @ (v - VECTOR)),
        lambda v: SPD @ (v - VECTOR) / np.sqrt((v - VECTOR) @ SPD @ (v - VECTOR)),
        ordinary=[0.4, -0.9, 1.2],
        huge=[1e9, -2e9, 3e9],
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
        "Gram determinant",
        lambda m, x: m.log(m.linalg.det(x.T @ x)),
        lambda x: 2.0 * x @ np.linalg.inv(x.T @ x),
        ordinary=A[:, :2],
        huge=1e6 * A[:, :2],
    ),
    written(
        "orthogonality penalty",
        lambda m, x: m.sum((x.T @ x - np.eye(3)) ** 2),
        lambda x: 4.0 * x @ (x.T @ x - np.eye(3)),
        **SQUARE,
        optimal=np.eye(3),
    ),
    written(
        "Newton-Schulz residual",
        lambda m, x: m.sum((np.eye(3) - SPD @ x) ** 2) / 2.0,
        lambda x: -SPD @ (np.eye(3) - SPD @ x),
        **SQUARE,
        optimal=np.linalg.inv(SPD),
        **TINY,
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
    written("Sylvester equation", sylvester, sylvester_slope, ordinary=SPD),
]

EIGENVALUES = [
    known(
        "eigenvalues",
        eigenvalues,
        eigenvalue_slope(WEIGHTS),
        lambda x: WEIGHTS @ exact_eigenvalues(x),
        **SQUARE,
        **HUGE,
        **TINY,
    ),
    known(
        "largest eigenvalue",
        lambda x: np.linalg.eigvalsh(symmetric(x))[-1],
        eigenvalue_slope(np.eye(3)[2]),
        lambda x: exact_eigenvalues(x)[-1],
        **SQUARE,
    ),
    known(
        "entropy of eigenvalues",
        lambda x: function_of_eigenvalues(x, lambda w: -np.sum(w * np.log(w)), np.log)[0],
        lambda x: function_of_eigenvalues(x, np.sum, lambda w: -np.log(w) - 1.0)[1],
        lambda x: (lambda w: -(w * MP.log(w)).sum())(exact_eigenvalues(x)),
        ordinary=SPD,
        tiny=1e-13 * SPD,
    ),
    known(
        "trace of a square root",
        lambda x: function_of_eigenvalues(x, lambda w: np.sum(np.sqrt(w)), np.sqrt)[0],
        lambda x: function_of_eigenvalues(x, np.sum, lambda w: 0.5 / np.sqrt(w))[1],
        lambda x: MP.sqrt(exact_eigenvalues(x)).sum(),
        ordinary=SPD,
        huge=1e9 * SPD,
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
    known(
        "trace of expm",
        lambda x: np.trace(linalg.expm(x)),
        lambda x: linalg.expm(x).T,
        lambda x: np.trace(power_series(x)),
        **SQUARE,
    ),
    known(
        "nuclear norm",
        lambda x: np.sum(np.linalg.svd(x, compute_uv=False)),
        singular_slope(np.ones(3)),
        lambda x: MP.linalg.svdvals(x).sum(),
        **SQUARE,
        **HUGE,
    ),
    known(
        "spectral norm",
        lambda x: np.linalg.norm(x, 2),
        singular_slope(np.eye(3)[0]),
        lambda x: max(MP.linalg.svdvals(x)),
        **SQUARE,
        **TINY,
    ),
]

FUNCTIONS = [*DETERMINANTS, *EIGENVALUES]
