"""Losses of labels, margins, similarities and probabilities."""

from typing import Any

import numpy as np
from scipy import special as sp

from tests.function_catalogue.functions import Array, written
from tests.function_catalogue.regression_losses import (
    COEFFICIENTS,
    LABELS,
    RAW,
    SURE,
    TARGETS,
    X,
    pull_back,
)


def log_sum_exp(m: Any, x: Array) -> Any:
    return m.log(m.sum(m.exp(x)))


Y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])


def focal(m: Any, z: Array) -> Any:
    p = 1.0 / (1.0 + m.exp(-SIGNS * z))
    return -m.sum((1.0 - p) ** 2 * m.log(p))


def focal_slope(z: Array) -> Any:
    p, q = sp.expit(SIGNS * z), sp.expit(-SIGNS * z)
    return SIGNS * (2.0 * q * q * p * np.log(p) - q**3)


def dice(m: Any, z: Array) -> Any:
    p = 1.0 / (1.0 + m.exp(-z))
    return 1.0 - 2.0 * m.sum(p * LABELS) / (m.sum(p) + 2.0)


def dice_slope(z: Array) -> Any:
    p, q = sp.expit(z), sp.expit(-z)
    total = p.sum() + 2.0
    return -2.0 * p * q * (LABELS / total - (p @ LABELS) / total**2)


def cosine_loss(m: Any, x: Array) -> Any:
    return 1.0 - m.sum(x * TARGETS) / m.sqrt(m.sum(x * x)) / np.sqrt(np.sum(TARGETS**2))


def cosine_slope(x: Array) -> Any:
    n, t = np.linalg.norm(x), TARGETS / np.linalg.norm(TARGETS)
    return -t / n + (x @ t) * x / n**3


def kl_of_gaussians(m: Any, p: Array) -> Any:
    """The divergence of a variational autoencoder, by means and log variances."""
    return m.sum(p[0] ** 2 + m.exp(p[1]) - 1.0 - p[1]) / 2.0


def contrastive(m: Any, x: Array) -> Any:
    """InfoNCE of rows with themselves as positives, ``x (3, 2)``."""
    s = (x @ X[:3].T) / 0.5
    return sum(log_sum_exp(m, s[i]) - s[i, i] for i in range(3))


def contrastive_slope(x: Array) -> Any:
    p = sp.softmax(x @ X[:3].T / 0.5, axis=1) - np.eye(3)
    return p @ X[:3] / 0.5


def triplet(m: Any, x: Array) -> Any:
    """Three points ``(3, 2)``: anchor, positive and negative, with a smooth margin."""
    d = m.sum((x[0] - x[1]) ** 2) - m.sum((x[0] - x[2]) ** 2)
    return m.log1p(m.exp(d))


def triplet_slope(x: Array) -> Any:
    a, b, c = x
    p = sp.expit(np.sum((a - b) ** 2) - np.sum((a - c) ** 2))
    return 2.0 * p * np.array([c - b, b - a, a - c])


def logistic(m: Any, w: Array) -> Any:
    return m.sum(m.log1p(m.exp(-Y * (X @ w))))


def hinge(m: Any, w: Array) -> Any:
    """The squared hinge of a linear SVM."""
    margin = 1.0 - Y * (X @ w)
    return m.sum(m.where(margin > 0.0, margin, 0.0 * margin) ** 2)


CLASSIFICATION_LOSSES = [
    written(
        "logistic regression",
        logistic,
        pull_back(lambda z: -Y * sp.expit(-Y * z)),
        **COEFFICIENTS,
        saturated=[20.0, -25.0],
    ),
    written(
        "logistic regression with a penalty",
        lambda m, w: logistic(m, w) + 0.1 * m.sum(w * w),
        pull_back(lambda z: -Y * sp.expit(-Y * z)),
        lambda w: 0.2 * w,
        **COEFFICIENTS,
    ),
    written(
        "squared hinge",
        hinge,
        pull_back(lambda z: -2.0 * Y * np.maximum(1.0 - Y * z, 0.0)),
        **COEFFICIENTS,
        huge=[1e9, -2e9],
    ),
    written(
        "exponential loss",
        lambda m, w: m.sum(m.exp(-Y * (X @ w))),
        pull_back(lambda z: -Y * np.exp(-Y * z)),
        **COEFFICIENTS,
    ),
    written(
        "probit",
        lambda m, p: -m.sum(LABELS * m.log(p) + (1.0 - LABELS) * m.log(1.0 - p)),
        lambda p: -LABELS / p,
        lambda p: (1.0 - LABELS) / (1.0 - p),
        ordinary=[0.3, 0.6, 0.9, 0.2],
    ),
    written("focal loss", focal, focal_slope, **RAW),
    written("Dice", dice, dice_slope, **RAW),
    written(
        "savage",
        lambda m, z: m.sum(1.0 / (1.0 + m.exp(SIGNS * z)) ** 2),
        lambda z: -2.0 * SIGNS * sp.expit(-SIGNS * z) ** 2 * sp.expit(SIGNS * z),
        **RAW,
        **SURE,
    ),
    written(
        "tangent loss",
        lambda m, z: m.sum((2.0 * m.arctan(SIGNS * z) - 1.0) ** 2),
        lambda z: 4.0 * SIGNS * (2.0 * np.arctan(SIGNS * z) - 1.0) / (1.0 + z * z),
        **RAW,
        huge=[1e6, -2e6, -3e6, 5e6],
    ),
    written("triplet", triplet, triplet_slope, ordinary=[[0.5, -1.2], [1.1, 0.3], [-0.7, 0.8]]),
    written(
        "contrastive",
        contrastive,
        contrastive_slope,
        ordinary=[[0.5, -1.2], [1.1, 0.3], [-0.7, 0.8]],
        tiny=1e-13 * X[:3],
    ),
    written(
        "cosine distance",
        cosine_loss,
        cosine_slope,
        ordinary=[0.3, -1.2, 2.1, 0.8],
        huge=[3e8, -1.2e9, 2.1e9, 8e8],
        tiny=[1e-13, -2e-13, 3e-13, 5e-13],
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
    written(
        "divergence of a softmax",
        lambda m, z: m.sum(m.exp(z) * (z - log_sum_exp(m, z) - np.log(0.25))) / m.sum(m.exp(z)),
        lambda z: (lambda p, q: p * (q - p @ q))(sp.softmax(z), sp.log_softmax(z)),
        ordinary=[0.3, -1.2, 2.1, 0.8],
    ),
    written(
        "negative log margin",
        lambda m, w: -m.sum(m.log(m.log1p(m.exp(w)))),
        lambda w: -sp.expit(w) / np.log1p(np.exp(w)),
        **RAW,
    ),
]

FUNCTIONS = [*CLASSIFICATION_LOSSES]
