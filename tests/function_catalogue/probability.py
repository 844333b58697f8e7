"""Densities and distribution functions of scipy.stats, and likelihoods by parameters."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp, stats

from tests.function_catalogue.functions import (
    POSITIVE,
    REAL,
    UNIT,
    Array,
    Function,
    array,
    each,
    known,
    matrix,
)

HUGE = {"huge": [1e12, -2e12, 5e12]}
ABOVE_1 = {"ordinary": [1.3, 1.9, 3.4]}


def log_density(
    name: str, distribution: Any, slope: Any, truth: Any, points: Any, **more: Any
) -> Function:
    """The sum of ``distribution.logpdf``, and its slope by x."""
    return each(f"{name}.logpdf", distribution.logpdf, slope, truth, points, **more)


def log_normal(x: Any, mean: Any = 0, scale: Any = 1) -> Any:
    return -(((x - mean) / scale) ** 2) / 2 - mp.log(scale * mp.sqrt(2 * mp.pi))


BY_X = [
    log_density("norm", stats.norm, lambda x: -x, log_normal, REAL, optimal=[0.0] * 3, **HUGE),
    log_density(
        "t",
        stats.t(3.5),
        lambda x: -4.5 * x / (3.5 + x * x),
        lambda x: -2.25 * mp.log(1 + x * x / 3.5) - mp.log(mp.sqrt(3.5) * mp.beta(0.5, 1.75)),
        REAL,
        **HUGE,
    ),
    log_density(
        "laplace", stats.laplace, lambda x: -np.sign(x), lambda x: -abs(x) - mp.log(2), REAL
    ),
    log_density(
        "gumbel_r",
        stats.gumbel_r,
        (lambda x: np.exp(-x), lambda x: -1.0 + 0.0 * x),
        lambda x: -x - mp.exp(-x),
        {"ordinary": REAL["ordinary"]},
        saturated=[30.0, 32.0, 28.0],
        optimal=[0.0] * 3,
    ),
    log_density(
        "beta",
        stats.beta(2.0, 3.5),
        (lambda x: 1.0 / x, lambda x: -2.5 / (1.0 - x)),
        lambda x: mp.log(x) + 2.5 * mp.log(1 - x) - mp.log(mp.beta(2, 3.5)),
        UNIT,
    ),
    log_density(
        "pareto",
        stats.pareto(2.5),
        lambda x: -3.5 / x,
        lambda x: mp.log(2.5) - 3.5 * mp.log(x),
        ABOVE_1,
        huge=[1e12, 2e12, 5e12],
    ),
    log_density(
        "rayleigh",
        stats.rayleigh,
        (lambda x: 1.0 / x, lambda x: -x),
        lambda x: mp.log(x) - x * x / 2,
        POSITIVE,
        optimal=[1.0] * 3,
    ),
    log_density(
        "gennorm",
        stats.gennorm(1.5),
        lambda x: -1.5 * np.sign(x) * np.abs(x) ** 0.5,
        lambda x: mp.log(1.5 / (2 * mp.gamma(1 / mp.mpf(1.5)))) - abs(x) ** mp.mpf(1.5),
        REAL,
        **HUGE,
    ),
    log_density(
        "rice",
        stats.rice(0.8),
        (lambda x: 1.0 / x, lambda x: -x, lambda x: 0.8 * sp.i1e(0.8 * x) / sp.i0e(0.8 * x)),
        lambda x: (
            mp.log(x) - (x * x + mp.mpf(0.8) ** 2) / 2 + mp.log(mp.besseli(0, mp.mpf(0.8) * x))
        ),
        POSITIVE,
    ),
    log_density(
        "semicircular",
        stats.semicircular,
        lambda x: -x / (1.0 - x * x),
        lambda x: mp.log(2 / mp.pi) + mp.log(1 - x * x) / 2,
        UNIT,
    ),
]

DISTRIBUTION_FUNCTIONS = [
    each("norm.cdf", stats.norm.cdf, stats.norm.pdf, mp.ncdf, REAL, saturated=[6.0, 5.5, 7.0]),
    each(
        "norm.pdf",
        stats.norm.pdf,
        lambda x: -x * stats.norm.pdf(x),
        lambda x: mp.exp(log_normal(x)),
        {"ordinary": REAL["ordinary"]},
        saturated=[6.0, 5.5, 7.0],
    ),
]

DATA = np.array([0.4, 1.1, 2.3, 0.7, 3.0])
COUNTS = np.array([0, 3, 1, 2, 5])
N = len(DATA)
MEAN_LOG, SUM = np.sum(np.log(DATA)), np.sum(DATA)


def _normal_slope(p: Array) -> Any:
    r = (DATA - p[0]) * np.exp(-p[1])
    return np.array([-np.sum(r) * np.exp(-p[1]), N - np.sum(r * r)])


SCATTER = np.array([[1.2, 0.3], [0.3, 0.8]])
INVERSE = np.linalg.inv(SCATTER)
BY_PARAMETERS = [
    known(
        "norm by mean and log scale",
        lambda p: -np.sum(stats.norm.logpdf(DATA, p[0], np.exp(p[1]))),
        _normal_slope,
        lambda p: -sum(log_normal(d, p[0], mp.exp(p[1])) for d in map(mp.mpf, DATA)),
        ordinary=[0.9, -0.3],
        optimal=[1.5, 0.5 * np.log(np.mean((DATA - 1.5) ** 2))],
        tiny=[1e-13, 2e-13],
    ),
    known(
        "poisson by rate",
        lambda p: -np.sum(stats.poisson.logpmf(COUNTS, p[0])),
        (lambda p: N + 0.0 * p, lambda p: -COUNTS.sum() / p),
        lambda p: -sum(k * mp.log(p[0]) - p[0] - mp.loggamma(int(k) + 1) for k in map(int, COUNTS)),
        ordinary=[1.7],
        tiny=[1e-13],
        huge=[1e12],
        optimal=[2.2],
    ),
    known(
        "binom by probability",
        lambda p: -np.sum(stats.binom.logpmf(COUNTS, 7, p[0])),
        (lambda p: -COUNTS.sum() / p, lambda p: (7 * N - COUNTS.sum()) / (1.0 - p)),
        lambda p: (
            -sum(
                mp.log(mp.binomial(7, k)) + k * mp.log(p[0]) + (7 - k) * mp.log(1 - p[0])
                for k in map(int, COUNTS)
            )
        ),
        ordinary=[0.6],
        optimal=[COUNTS.sum() / (7 * N)],
        tiny=[1e-13],
    ),
    known(
        "expon by scale",
        lambda p: -np.sum(stats.expon.logpdf(DATA, scale=p[0])),
        (lambda p: N / p, lambda p: -SUM / p**2),
        lambda p: sum(d / p[0] + mp.log(p[0]) for d in map(mp.mpf, DATA)),
        ordinary=[0.9],
        optimal=[1.5],
        tiny=[1e-13],
        huge=[1e12],
    ),
    known(
        "multivariate_normal by mean",
        lambda p: stats.multivariate_normal.logpdf([0.3, -0.5], p, SCATTER),
        lambda p: INVERSE @ (np.array([0.3, -0.5]) - p),
        lambda p: (
            lambda r: (
                -(r @ array(matrix(SCATTER) ** -1) @ r) / 2
                - mp.log(mp.det(matrix(SCATTER))) / 2
                - mp.log(2 * mp.pi)
            )
        )(np.array([0.3, -0.5]) - p),
        ordinary=[0.9, -0.2],
        optimal=[0.3, -0.5],
        tiny=[1e-13, 2e-13],
        huge=[1e6, -2e6],
    ),
]


FUNCTIONS = [*BY_X, *DISTRIBUTION_FUNCTIONS, *BY_PARAMETERS]
