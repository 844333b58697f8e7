"""Distribution functions of scipy.stats, and likelihoods by parameters."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp, stats

from tests.function_catalogue.functions import (
    POSITIVE,
    REAL,
    UNIT,
    Array,
    array,
    each,
    known,
    matrix,
)
from tests.function_catalogue.stats_densities import log_normal

ONLY = {"ordinary": POSITIVE["ordinary"]}


DISTRIBUTION_FUNCTIONS = [
    each("norm.cdf", stats.norm.cdf, stats.norm.pdf, mp.ncdf, REAL, saturated=[6.0, 5.5, 7.0]),
    each(
        "norm.sf",
        stats.norm.sf,
        lambda x: -stats.norm.pdf(x),
        lambda x: mp.ncdf(-x),
        REAL,
        saturated=[6.0, 5.5, 7.0],
    ),
    each(
        "cauchy.cdf",
        stats.cauchy.cdf,
        stats.cauchy.pdf,
        lambda x: 0.5 + mp.atan(x) / mp.pi,
        REAL,
        saturated=[1e6, 2e6, -1e6],
    ),
    each(
        "logistic.cdf",
        stats.logistic.cdf,
        stats.logistic.pdf,
        lambda x: 1 / (1 + mp.exp(-x)),
        REAL,
        saturated=[30.0, 28.0, -30.0],
    ),
    each(
        "expon.cdf",
        stats.expon.cdf,
        stats.expon.pdf,
        lambda x: -mp.expm1(-x),
        POSITIVE,
        saturated=[30.0, 28.0, 25.0],
    ),
    each(
        "gamma.cdf",
        stats.gamma(2.5).cdf,
        stats.gamma(2.5).pdf,
        lambda x: mp.gammainc(2.5, 0, x, regularized=True),
        ONLY,
    ),
    each(
        "weibull_min.sf",
        stats.weibull_min(1.7).sf,
        lambda x: -stats.weibull_min(1.7).pdf(x),
        lambda x: mp.exp(-(x ** mp.mpf(1.7))),
        ONLY,
    ),
    each(
        "norm.pdf",
        stats.norm.pdf,
        lambda x: -x * stats.norm.pdf(x),
        lambda x: mp.exp(log_normal(x)),
        {"ordinary": REAL["ordinary"]},
        saturated=[6.0, 5.5, 7.0],
    ),
    each(
        "gumbel_r.cdf", stats.gumbel_r.cdf, stats.gumbel_r.pdf, lambda x: mp.exp(-mp.exp(-x)), REAL
    ),
    each(
        "norm.ppf",
        stats.norm.ppf,
        lambda p: 1.0 / stats.norm.pdf(stats.norm.ppf(p)),
        lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1),
        {"ordinary": UNIT["ordinary"]},
    ),
]

DATA = np.array([0.4, 1.1, 2.3, 0.7, 3.0])
SHARES = np.array([0.2, 0.5, 0.3, 0.8, 0.6])
COUNTS = np.array([0, 3, 1, 2, 5])
N = len(DATA)
MEAN_LOG, SUM = np.sum(np.log(DATA)), np.sum(DATA)


def _normal_slope(p: Array) -> Any:
    r = (DATA - p[0]) * np.exp(-p[1])
    return np.array([-np.sum(r) * np.exp(-p[1]), N - np.sum(r * r)])


def _beta_slope(p: Array) -> Any:
    both = sp.psi(p[0] + p[1])
    return np.array(
        [
            N * (sp.psi(p[0]) - both) - np.sum(np.log(SHARES)),
            N * (sp.psi(p[1]) - both) - np.sum(np.log1p(-SHARES)),
        ]
    )


def _t_slope(p: Array) -> Any:
    r = DATA - p[0]
    return np.array([-np.sum(6.0 * r / (5.0 + r * r))])


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
        "gamma by shape",
        lambda p: -np.sum(stats.gamma.logpdf(DATA, p[0])),
        lambda p: np.array([N * sp.psi(p[0]) - MEAN_LOG]),
        lambda p: -sum((p[0] - 1) * mp.log(d) - d - mp.loggamma(p[0]) for d in map(mp.mpf, DATA)),
        ordinary=[1.7],
        tiny=[1e-13],
    ),
    known(
        "beta by both shapes",
        lambda p: -np.sum(stats.beta.logpdf(SHARES, p[0], p[1])),
        _beta_slope,
        lambda p: (
            -sum(
                (p[0] - 1) * mp.log(d) + (p[1] - 1) * mp.log(1 - d) - mp.log(mp.beta(p[0], p[1]))
                for d in map(mp.mpf, SHARES)
            )
        ),
        ordinary=[1.7, 0.6],
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
        "poisson by log rate",
        lambda p: -np.sum(stats.poisson.logpmf(COUNTS, np.exp(p[0]))),
        (lambda p: N * np.exp(p), lambda p: -COUNTS.sum() + 0.0 * p),
        lambda p: -sum(k * p[0] - mp.exp(p[0]) - mp.loggamma(k + 1) for k in map(int, COUNTS)),
        ordinary=[0.4],
        optimal=[np.log(2.2)],
        tiny=[1e-13],
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
        "nbinom by probability",
        lambda p: -np.sum(stats.nbinom.logpmf(COUNTS, 2.5, p[0])),
        (lambda p: -2.5 * N / p, lambda p: COUNTS.sum() / (1.0 - p)),
        lambda p: (
            -sum(
                mp.loggamma(k + 2.5)
                - mp.loggamma(k + 1)
                - mp.loggamma(2.5)
                + 2.5 * mp.log(p[0])
                + k * mp.log(1 - p[0])
                for k in map(int, COUNTS)
            )
        ),
        ordinary=[0.6],
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
        "t by mean",
        lambda p: -np.sum(stats.t.logpdf(DATA, 5.0, loc=p[0])),
        _t_slope,
        lambda p: sum(
            3 * mp.log(1 + (d - p[0]) ** 2 / 5) + mp.log(mp.sqrt(5) * mp.beta(0.5, 2.5))
            for d in map(mp.mpf, DATA)
        ),
        ordinary=[0.9],
        tiny=[1e-13],
        huge=[1e6],
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
    known(
        "dirichlet by concentration",
        lambda p: stats.dirichlet.logpdf([0.2, 0.5, 0.3], p),
        lambda p: sp.psi(p.sum()) - sp.psi(p) + np.log([0.2, 0.5, 0.3]),
        lambda p: (
            mp.loggamma(p.sum())
            + sum(
                (a - 1) * mp.log(s) - mp.loggamma(a)
                for a, s in zip(p, [0.2, 0.5, 0.3], strict=True)
            )
        ),
        ordinary=[0.7, 1.9, 1.1],
    ),
    known(
        "entropy of gamma by shape",
        lambda p: stats.gamma(p[0]).entropy(),
        lambda p: 1.0 + (1.0 - p) * sp.polygamma(1, p),
        lambda p: p[0] + mp.loggamma(p[0]) + (1 - p[0]) * mp.digamma(p[0]),
        ordinary=[1.7],
    ),
]

FUNCTIONS = [*DISTRIBUTION_FUNCTIONS, *BY_PARAMETERS]
