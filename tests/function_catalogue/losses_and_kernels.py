"""Losses and kernels of scikit-learn, with its own gradients, and other losses."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp
from sklearn._loss import loss as losses
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.metrics import pairwise

from tests.function_catalogue.functions import (
    MP,
    REAL,
    Array,
    Function,
    known,
    matrix,
    summed,
    written,
)

RAW = {"ordinary": [0.3, -1.2, 2.1, 0.8], "tiny": [1e-13, -2e-13, 3e-13, 5e-13]}
LABELS = np.array([1.0, 0.0, 1.0, 0.0])
TARGETS = np.array([0.5, -2.0, 1.3, 4.0])
SURE = {"saturated": [30.0, -32.0, 28.0, -25.0]}
WRONG_AND_SURE = {"huge": [-1e6, 2e6, -3e6, 5e6]}
RESIDUALS = {"huge": [1e9, -2e9, 3e9, 5e9]}


def of_sklearn(name: str, loss: Any, truth: Any, targets: Any, **points: Any) -> Function:
    """The sum of a loss of scikit-learn; ``truth`` is the loss of one target and prediction."""
    numbers = np.frompyfunc(truth, 2, 1)
    return known(
        f"sklearn {name}",
        lambda raw: np.sum(loss.loss(targets, np.ascontiguousarray(raw))),
        lambda raw: loss.gradient(targets, np.ascontiguousarray(raw)),
        lambda raw: numbers(targets, raw).sum(),
        **RAW | points,
    )


def multinomial(raw: Array) -> Any:
    rows = zip(np.array([0, 2, 1, 1]), raw, strict=True)
    return sum(mp.log(sum(map(mp.exp, row))) - row[label] for label, row in rows)


MULTINOMIAL = losses.HalfMultinomialLoss(n_classes=3)
CLASSES = np.array([0.0, 2.0, 1.0, 1.0])
SCORES = np.array([[0.3, -1.2, 2.1], [0.8, 0.1, -0.4], [1.5, 1.1, 0.2], [-0.6, 0.9, 0.5]])
SKLEARN_LOSSES = [
    of_sklearn(
        "HalfSquaredError",
        losses.HalfSquaredError(),
        lambda t, r: (t - r) ** 2 / 2,
        TARGETS,
        optimal=TARGETS,
        **RESIDUALS,
    ),
    of_sklearn(
        "AbsoluteError", losses.AbsoluteError(), lambda t, r: abs(t - r), TARGETS, **RESIDUALS
    ),
    of_sklearn(
        "HuberLoss",
        losses.HuberLoss(delta=1.5),
        lambda t, r: (t - r) ** 2 / 2 if abs(t - r) <= 1.5 else 1.5 * (abs(t - r) - 0.75),
        TARGETS,
        optimal=TARGETS,
        **RESIDUALS,
    ),
    of_sklearn(
        "HalfBinomialLoss",
        losses.HalfBinomialLoss(),
        lambda t, r: mp.log1p(mp.exp(r)) - t * r,
        LABELS,
        **SURE,
        **WRONG_AND_SURE,
    ),
    known(
        "sklearn HalfMultinomialLoss",
        lambda raw: np.sum(MULTINOMIAL.loss(CLASSES, np.ascontiguousarray(raw))),
        lambda raw: MULTINOMIAL.gradient(CLASSES, np.ascontiguousarray(raw)),
        multinomial,
        ordinary=SCORES,
        tiny=1e-13 * SCORES,
        saturated=30.0 * SCORES,
    ),
]

X = np.array([[0.5, -1.2], [1.1, 0.3], [-0.7, 0.8], [0.2, 1.9], [-1.5, -0.4]])
RESPONSE = np.array([0.6, 1.9, -0.3, 0.8, -2.2])
LEAST_SQUARES = np.linalg.solve(X.T @ X, X.T @ RESPONSE)
COEFFICIENTS = {"ordinary": [0.4, -0.9], "tiny": [1e-13, -2e-13]}


def group_lasso(m: Any, w: Array) -> Any:
    """Least squares with a penalty on the norms of two rows, ``w (2, 2)``."""
    fit = m.sum((X @ w - X * 0.7) ** 2) / 2.0
    return fit + 0.3 * m.sum(m.sqrt(m.sum(w * w, axis=1)))


def pull_back(slope: Any) -> Any:
    """The slope by coefficients of a loss with this slope by the predictions."""
    return lambda w: X.T @ slope(X @ w)


REGRESSION_LOSSES = [
    summed(
        "Tukey's biweight",
        lambda m, r: 3.62 * (1.0 - (1.0 - (r / 4.685) ** 2) ** 3),
        lambda r: 6.0 * 3.62 * r / 4.685**2 * (1.0 - (r / 4.685) ** 2) ** 2,
        {"ordinary": REAL["ordinary"]},
        optimal=[0.0] * 3,
    ),
    summed(
        "a parabola beside absolute values",
        lambda m, x: (x - 1.0) ** 2 + m.abs(x),
        (lambda x: 2.0 * (x - 1.0), np.sign),
        {"ordinary": [1.3, -0.4, 0.2], "tiny": [1e-13, -2e-13, 3e-13]},
        optimal=[0.5] * 3,
    ),
    summed(
        "elastic net",
        lambda m, x: (x - 2.0) ** 2 / 2.0 + 0.3 * m.abs(x) + 0.1 * x**2,
        (lambda x: x - 2.0, lambda x: 0.3 * np.sign(x), lambda x: 0.2 * x),
        REAL,
        optimal=[1.7 / 1.2] * 3,
        huge=[1e9, -2e9, 3e9],
    ),
    written(
        "least squares",
        lambda m, w: m.sum((X @ w - RESPONSE) ** 2),
        pull_back(lambda z: 2.0 * (z - RESPONSE)),
        **COEFFICIENTS,
        optimal=LEAST_SQUARES,
        huge=[1e9, -2e9],
    ),
    written(
        "group lasso",
        group_lasso,
        lambda w: X.T @ (X @ w - X * 0.7),
        lambda w: 0.3 * w / np.linalg.norm(w, axis=1, keepdims=True),
        ordinary=[[0.4, -0.9], [1.1, 0.2]],
        tiny=[[1e-13, -2e-13], [3e-13, 1e-13]],
    ),
]


def log_sum_exp(m: Any, x: Array) -> Any:
    return m.log(m.sum(m.exp(x)))


Y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])


def kl_of_gaussians(m: Any, p: Array) -> Any:
    """The divergence of a variational autoencoder, by means and log variances."""
    return m.sum(p[0] ** 2 + m.exp(p[1]) - 1.0 - p[1]) / 2.0


def logistic(m: Any, w: Array) -> Any:
    return m.sum(m.log1p(m.exp(-Y * (X @ w))))


CLASSIFICATION_LOSSES = [
    written(
        "logistic regression with a penalty",
        lambda m, w: logistic(m, w) + 0.1 * m.sum(w * w),
        pull_back(lambda z: -Y * sp.expit(-Y * z)),
        lambda w: 0.2 * w,
        **COEFFICIENTS,
    ),
    written(
        "savage",
        lambda m, z: m.sum(1.0 / (1.0 + m.exp(SIGNS * z)) ** 2),
        lambda z: -2.0 * SIGNS * sp.expit(-SIGNS * z) ** 2 * sp.expit(SIGNS * z),
        **RAW,
        **SURE,
    ),
    written(
        "divergence of an autoencoder",
        kl_of_gaussians,
        lambda p: np.array([p[0], np.expm1(p[1]) / 2.0]),
        ordinary=[[0.3, -1.2], [0.1, 0.6]],
        optimal=[[0.0, 0.0], [0.0, 0.0]],
    ),
    written(
        "label smoothing",
        lambda m, z: log_sum_exp(m, z) - m.sum(np.array([0.85, 0.05, 0.05, 0.05]) * z),
        sp.softmax,
        lambda z: -np.array([0.85, 0.05, 0.05, 0.05]),
        **RAW,
        optimal=np.log([0.85, 0.05, 0.05, 0.05]),
        saturated=[30.0, 0.5, -1.0, 2.0],
    ),
]

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
IDENTITY = np.eye(len(X))


def rbf(length: Array, squares: Array = EXACT_SQUARES) -> Any:
    return MP.exp(-squares / (2 * length**2))


def log_marginal_likelihood(theta: Array) -> Any:
    amplitude, length, noise = MP.exp(theta)
    k = matrix(amplitude * rbf(length) + (noise + mp.mpf(1e-10)) * IDENTITY)
    y = mp.matrix(RESPONSE.tolist())
    return -(y.T * k**-1 * y)[0] / 2 - mp.log(mp.det(k)) / 2 - len(X) * mp.log(2 * mp.pi) / 2


PROCESS = GaussianProcessRegressor(
    kernels.ConstantKernel() * kernels.RBF() + kernels.WhiteKernel(), optimizer=None
).fit(X, RESPONSE)

ONE, TWO = {"ordinary": [0.3], "saturated": [-1.5]}, {"ordinary": [0.3, -0.4]}


def by_row(name: str, kernel: Any, slope: Any, truth: Any, **points: Any) -> Function:
    """``sum(kernel(x, X))`` of scikit-learn by the row x."""
    return known(
        f"sklearn {name}",
        lambda x: np.sum(kernel(x[None], X)),
        slope,
        truth,
        **points,
    )


ROW = {"ordinary": [0.4, -0.9], "tiny": [1e-13, -2e-13]}


def cosine_row(x: Array) -> Any:
    u, n = X / np.linalg.norm(X, axis=1, keepdims=True), np.linalg.norm(x)
    return u.sum(0) / n - (u @ x).sum() * x / n**3


KERNELS = [
    by_theta("RBF", kernels.RBF(), rbf, **ONE),
    by_theta(
        "DotProduct", kernels.DotProduct(), lambda s: s**2 + X @ X.T, ordinary=[0.3], huge=[12.0]
    ),
    known(
        "sklearn log_marginal_likelihood",
        lambda t: PROCESS.log_marginal_likelihood(t),
        lambda t: PROCESS.log_marginal_likelihood(t, eval_gradient=True)[1],
        log_marginal_likelihood,
        ordinary=[0.3, -0.4, -1.5],
    ),
    by_row(
        "laplacian_kernel",
        lambda x, y: pairwise.laplacian_kernel(x, y, gamma=0.5),
        lambda x: -0.5 * (np.sign(x - X) * np.exp(-0.5 * np.abs(x - X).sum(1))[:, None]).sum(0),
        lambda x: MP.exp(-np.abs(x[None] - X).sum(-1) / 2).sum(),
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
]


FUNCTIONS = [*SKLEARN_LOSSES, *REGRESSION_LOSSES, *CLASSIFICATION_LOSSES, *KERNELS]
