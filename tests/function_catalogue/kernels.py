"""Kernels of scikit-learn, by their theta with its own gradients, and by a row of the data."""

from typing import Any

import mpmath as mp
import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.metrics import pairwise

from tests.function_catalogue.functions import MP, Array, Function, known, matrix
from tests.function_catalogue.regression_losses import RESPONSE, X

WEIGHTS = np.array([[0.3, -0.8, 1.1, 0.4, -0.2]]).T @ np.array([[1.0, 0.5, -0.7, 0.2, 0.9]])


def by_theta(name: str, kernel: Any, truth: Any, **points: Any) -> Function:
    """``sum(WEIGHTS * K)`` by the kernel's theta, logarithms of its parameters."""

    def value(theta: Array) -> Any:
        return np.sum(WEIGHTS * kernel.clone_with_theta(theta)(X))

    def gradient(theta: Array) -> Any:
        return np.einsum(
            "ij,ijk->k", WEIGHTS, kernel.clone_with_theta(theta)(X, eval_gradient=True)[1]
        )

    def exact(theta: Array) -> Any:
        return (WEIGHTS * truth(*MP.exp(theta))).sum()

    return known(f"sklearn {name}", value, gradient, exact, **points)


DIFFERENCES = np.frompyfunc(mp.mpf, 1, 1)((X[:, None] - X[None]).astype(object))
EXACT_SQUARES = (DIFFERENCES**2).sum(-1)
EXACT_DISTANCES = MP.sqrt(EXACT_SQUARES)
IDENTITY = np.eye(len(X))


def rbf(length: Array, squares: Array = EXACT_SQUARES) -> Any:
    return MP.exp(-squares / (2 * length**2))


def matern_15(length: Array) -> Any:
    d = mp.sqrt(3) * EXACT_DISTANCES / length
    return (1 + d) * MP.exp(-d)


def matern_25(length: Array) -> Any:
    d = mp.sqrt(5) * EXACT_DISTANCES / length
    return (1 + d + d**2 / 3) * MP.exp(-d)


def log_marginal_likelihood(theta: Array) -> Any:
    amplitude, length, noise = MP.exp(theta)
    k = matrix(amplitude * rbf(length) + (noise + mp.mpf(1e-10)) * IDENTITY)
    y = mp.matrix(RESPONSE.tolist())
    return -(y.T * k**-1 * y)[0] / 2 - mp.log(mp.det(k)) / 2 - len(X) * mp.log(2 * mp.pi) / 2


PROCESS = GaussianProcessRegressor(
    kernels.ConstantKernel() * kernels.RBF() + kernels.WhiteKernel(), optimizer=None
).fit(X, RESPONSE)
HIDDEN = kernels.ConstantKernel() * kernels.RBF()
ONE, TWO = {"ordinary": [0.3], "saturated": [-1.5]}, {"ordinary": [0.3, -0.4]}


def by_row(name: str, kernel: Any, slope: Any, truth: Any, **points: Any) -> Function:
    """``sum(kernel(x, X))`` of scikit-learn by the row x."""
    return known(
        f"sklearn {name}",
        lambda x: np.sum(kernel(x[None], np.abs(X) if "chi2" in name else X)),
        slope,
        truth,
        **points,
    )


ROW = {"ordinary": [0.4, -0.9], "tiny": [1e-13, -2e-13]}


def sigmoid_row(x: Array) -> Any:
    a = np.tanh(0.5 * (X @ x) + 0.3)
    return 0.5 * (1.0 - a * a) @ X


def cosine_row(x: Array) -> Any:
    u, n = X / np.linalg.norm(X, axis=1, keepdims=True), np.linalg.norm(x)
    return u.sum(0) / n - (u @ x).sum() * x / n**3


def exact_squares(x: Array) -> Any:
    return ((x[None] - X) ** 2).sum(-1)


KERNELS = [
    by_theta("RBF", kernels.RBF(), rbf, **ONE),
    by_theta("Matern 1/2", kernels.Matern(nu=0.5), lambda s: MP.exp(-EXACT_DISTANCES / s), **ONE),
    by_theta("Matern 3/2", kernels.Matern(nu=1.5), matern_15, **ONE),
    by_theta("Matern 5/2", kernels.Matern(nu=2.5), matern_25, **ONE),
    by_theta(
        "RationalQuadratic",
        kernels.RationalQuadratic(),
        lambda a, s: MP.exp(-a * MP.log1p(EXACT_SQUARES / (2 * a * s**2))),
        **TWO,
    ),
    by_theta(
        "ExpSineSquared",
        kernels.ExpSineSquared(),
        lambda s, p: MP.exp(-2 * (MP.sin(mp.pi * EXACT_DISTANCES / p) / s) ** 2),
        **TWO,
    ),
    by_theta(
        "DotProduct", kernels.DotProduct(), lambda s: s**2 + X @ X.T, ordinary=[0.3], huge=[12.0]
    ),
    by_theta("ConstantKernel times RBF", HIDDEN, lambda c, s: c * rbf(s), **TWO),
    by_theta(
        "RBF plus WhiteKernel",
        kernels.RBF() + kernels.WhiteKernel(),
        lambda s, n: rbf(s) + n * IDENTITY,
        **TWO,
    ),
    by_theta(
        "RBF with two lengths",
        kernels.RBF([1.0, 1.0]),
        lambda a, b: rbf(1, ((X[:, None] - X[None]) ** 2 / np.array([a, b]) ** 2).sum(-1)),
        **TWO,
    ),
    by_theta(
        "Exponentiation", kernels.Exponentiation(kernels.RBF(), 2), lambda s: rbf(s) ** 2, **ONE
    ),
    known(
        "sklearn log_marginal_likelihood",
        lambda t: PROCESS.log_marginal_likelihood(t),
        lambda t: PROCESS.log_marginal_likelihood(t, eval_gradient=True)[1],
        log_marginal_likelihood,
        ordinary=[0.3, -0.4, -1.5],
    ),
    by_row(
        "rbf_kernel",
        lambda x, y: pairwise.rbf_kernel(x, y, gamma=0.5),
        lambda x: -((x - X) * np.exp(-0.5 * ((x - X) ** 2).sum(1))[:, None]).sum(0),
        lambda x: MP.exp(-exact_squares(x) / 2).sum(),
        **ROW,
    ),
    by_row(
        "laplacian_kernel",
        lambda x, y: pairwise.laplacian_kernel(x, y, gamma=0.5),
        lambda x: -0.5 * (np.sign(x - X) * np.exp(-0.5 * np.abs(x - X).sum(1))[:, None]).sum(0),
        lambda x: MP.exp(-np.abs(x[None] - X).sum(-1) / 2).sum(),
        **ROW,
    ),
    by_row(
        "polynomial_kernel",
        lambda x, y: pairwise.polynomial_kernel(x, y, degree=3, gamma=0.5, coef0=1.0),
        lambda x: 1.5 * (0.5 * X @ x + 1.0) ** 2 @ X,
        lambda x: ((X @ x / 2 + 1) ** 3).sum(),
        **ROW,
        huge=[1e6, -2e6],
    ),
    by_row(
        "sigmoid_kernel",
        lambda x, y: pairwise.sigmoid_kernel(x, y, gamma=0.5, coef0=0.3),
        sigmoid_row,
        lambda x: MP.tanh(X @ x / 2 + 0.3).sum(),
        **ROW,
    ),
    by_row(
        "cosine_similarity",
        pairwise.cosine_similarity,
        cosine_row,
        lambda x: ((X @ x) / MP.sqrt((X**2).sum(1)) / mp.sqrt(x @ x)).sum(),
        **ROW,
        huge=[1e6, -2e6],
    ),
    by_row(
        "additive_chi2_kernel",
        pairwise.additive_chi2_kernel,
        lambda x: -((x - np.abs(X)) * (x + 3.0 * np.abs(X)) / (x + np.abs(X)) ** 2).sum(0),
        lambda x: -((x[None] - np.abs(X)) ** 2 / (x[None] + np.abs(X))).sum(),
        ordinary=[0.4, 0.9],
    ),
]

FUNCTIONS = [*KERNELS]
