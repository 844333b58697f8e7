"""Losses of scikit-learn with its own gradients, and losses of residuals."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp
from sklearn._loss import loss as losses

from tests.function_catalogue.functions import REAL, Array, Function, known, summed, written

RAW = {"ordinary": [0.3, -1.2, 2.1, 0.8], "tiny": [1e-13, -2e-13, 3e-13, 5e-13]}
POSITIVE_TARGETS = np.array([0.5, 2.0, 1.3, 4.0])
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
        "PinballLoss",
        losses.PinballLoss(quantile=0.3),
        lambda t, r: 0.3 * (t - r) if t >= r else 0.7 * (r - t),
        TARGETS,
        **RESIDUALS,
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
        "HalfPoissonLoss",
        losses.HalfPoissonLoss(),
        lambda t, r: mp.exp(r) - t * r,
        POSITIVE_TARGETS,
        optimal=np.log(POSITIVE_TARGETS),
        saturated=[-30.0, -32.0, -28.0, -35.0],
    ),
    of_sklearn(
        "HalfGammaLoss",
        losses.HalfGammaLoss(),
        lambda t, r: r + t * mp.exp(-r),
        POSITIVE_TARGETS,
        optimal=np.log(POSITIVE_TARGETS),
        saturated=[30.0, 32.0, 28.0, 35.0],
    ),
    of_sklearn(
        "HalfTweedieLoss",
        losses.HalfTweedieLoss(power=1.5),
        lambda t, r: 2 * mp.exp(r / 2) + 2 * t * mp.exp(-r / 2),
        POSITIVE_TARGETS,
        optimal=np.log(POSITIVE_TARGETS),
    ),
    of_sklearn(
        "HalfTweedieLossIdentity",
        losses.HalfTweedieLossIdentity(power=1.5),
        lambda t, r: 4 * mp.sqrt(t) * -1 + 2 * mp.sqrt(r) + 2 * t / mp.sqrt(r),
        POSITIVE_TARGETS,
        ordinary=[0.3, 1.2, 2.1, 0.8],
        tiny=None,
        optimal=POSITIVE_TARGETS,
    ),
    of_sklearn(
        "HalfBinomialLoss",
        losses.HalfBinomialLoss(),
        lambda t, r: mp.log1p(mp.exp(r)) - t * r,
        LABELS,
        **SURE,
        **WRONG_AND_SURE,
    ),
    of_sklearn(
        "ExponentialLoss",
        losses.ExponentialLoss(),
        lambda t, r: t * mp.exp(-r) + (1 - t) * mp.exp(r),
        LABELS,
        **SURE,
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


def gaussian_nll(m: Any, p: Array) -> Any:
    """The negative log-likelihood by means and log variances, ``p (2, 4)``."""
    return m.sum((TARGETS - p[0]) ** 2 * m.exp(-p[1]) + p[1]) / 2.0


def gaussian_nll_slope(p: Array) -> Any:
    r, w = TARGETS - p[0], np.exp(-p[1])
    return np.array([-r * w, (1.0 - r * r * w) / 2.0])


def group_lasso(m: Any, w: Array) -> Any:
    """Least squares with a penalty on the norms of two rows, ``w (2, 2)``."""
    fit = m.sum((X @ w - X * 0.7) ** 2) / 2.0
    return fit + 0.3 * m.sum(m.sqrt(m.sum(w * w, axis=1)))


def pull_back(slope: Any) -> Any:
    """The slope by coefficients of a loss with this slope by the predictions."""
    return lambda w: X.T @ slope(X @ w)


REGRESSION_LOSSES = [
    summed(
        "log-cosh",
        lambda m, r: m.log(m.cosh(r)),
        np.tanh,
        {"ordinary": REAL["ordinary"]},
        saturated=[18.0, -19.0, 20.0],
    ),
    summed(
        "Cauchy's loss",
        lambda m, r: m.log1p((r / 1.5) ** 2),
        lambda r: 2.0 * r / (2.25 + r * r),
        REAL,
        optimal=[0.0] * 3,
        **RESIDUALS,
    ),
    summed(
        "Geman-McClure",
        lambda m, r: r**2 / (1.0 + r**2),
        lambda r: 2.0 * r / (1.0 + r**2) ** 2,
        REAL,
        optimal=[0.0] * 3,
        saturated=[1e4, -2e4, 3e4],
    ),
    summed(
        "Welsch",
        lambda m, r: -m.expm1(-(r**2) / 2.0),
        lambda r: r * np.exp(-(r**2) / 2.0),
        REAL,
        saturated=[6.0, -6.5, 7.0],
    ),
    summed(
        "Charbonnier",
        lambda m, r: m.sqrt(r**2 + 1e-6),
        lambda r: r / np.sqrt(r**2 + 1e-6),
        {"ordinary": REAL["ordinary"]},
        optimal=[0.0] * 3,
        **RESIDUALS,
    ),
    summed(
        "Tukey's biweight",
        lambda m, r: 3.62 * (1.0 - (1.0 - (r / 4.685) ** 2) ** 3),
        lambda r: 6.0 * 3.62 * r / 4.685**2 * (1.0 - (r / 4.685) ** 2) ** 2,
        {"ordinary": REAL["ordinary"]},
        optimal=[0.0] * 3,
    ),
    summed(
        "smooth quantile",
        lambda m, r: 0.3 * r + 0.2 * m.log1p(m.exp(-r / 0.2)),
        (lambda r: 0.3 + 0.0 * r, lambda r: -sp.expit(-r / 0.2)),
        {"ordinary": REAL["ordinary"]},
        saturated=[6.0, 5.0, 7.0],
    ),
    summed(
        "linex",
        lambda m, r: m.expm1(0.8 * r) - 0.8 * r,
        lambda r: 0.8 * np.expm1(0.8 * r),
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
    summed(
        "minimax concave penalty",
        lambda m, x: m.abs(x) - x**2 / 8.0,
        (np.sign, lambda x: -x / 4.0),
        REAL,
    ),
    summed(
        "Itakura-Saito",
        lambda m, x: 0.7 / x - m.log(0.7 / x) - 1.0,
        (lambda x: -0.7 / x**2, lambda x: 1.0 / x),
        {"ordinary": [0.3, 1.7, 5.2]},
        optimal=[0.7] * 3,
        huge=[1e9, 2e9, 5e9],
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
        "ridge",
        lambda m, w: m.sum((X @ w - RESPONSE) ** 2) / 2.0 + 0.3 * m.sum(w * w),
        pull_back(lambda z: z - RESPONSE),
        lambda w: 0.6 * w,
        **COEFFICIENTS,
        optimal=np.linalg.solve(X.T @ X + 0.6 * np.eye(2), X.T @ RESPONSE),
    ),
    written(
        "lasso away from its kinks",
        lambda m, w: m.sum((X @ w - RESPONSE) ** 2) / 2.0 + 0.3 * m.sum(m.abs(w)),
        pull_back(lambda z: z - RESPONSE),
        lambda w: 0.3 * np.sign(w),
        **COEFFICIENTS,
    ),
    written(
        "Gaussian likelihood",
        gaussian_nll,
        gaussian_nll_slope,
        ordinary=[[0.3, -1.2, 2.1, 0.8], [0.1, 0.6, -0.4, 0.9]],
        optimal=[TARGETS - 1.0, [0.0] * 4],
    ),
    written(
        "Poisson regression",
        lambda m, w: m.sum(m.exp(X @ w) - np.abs(RESPONSE) * (X @ w)),
        pull_back(np.exp),
        pull_back(lambda z: -np.abs(RESPONSE)),
        **COEFFICIENTS,
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

FUNCTIONS = [*SKLEARN_LOSSES, *REGRESSION_LOSSES]
