"""Log-densities of scipy.stats by the variable."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp, stats

from tests.function_catalogue.functions import POSITIVE, REAL, UNIT, Function, each

ROOT_2PI = np.sqrt(2.0 * np.pi)
ONLY = {"ordinary": POSITIVE["ordinary"]}
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
        "cauchy",
        stats.cauchy,
        lambda x: -2.0 * x / (1.0 + x * x),
        lambda x: -mp.log(mp.pi * (1 + x * x)),
        REAL,
        optimal=[0.0] * 3,
        **HUGE,
    ),
    log_density(
        "laplace", stats.laplace, lambda x: -np.sign(x), lambda x: -abs(x) - mp.log(2), REAL
    ),
    log_density(
        "logistic",
        stats.logistic,
        lambda x: -np.tanh(x / 2.0),
        lambda x: -x - 2 * mp.log(1 + mp.exp(-x)),
        REAL,
        saturated=[30.0, -32.0, 28.0],
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
    log_density("gumbel_l", stats.gumbel_l, lambda x: -np.expm1(x), lambda x: x - mp.exp(x), REAL),
    log_density("expon", stats.expon, lambda x: -1.0 + 0.0 * x, lambda x: -x, POSITIVE),
    log_density(
        "gamma",
        stats.gamma(2.5),
        lambda x: 1.5 / x - 1.0,
        lambda x: 1.5 * mp.log(x) - x - mp.loggamma(2.5),
        POSITIVE,
        optimal=[1.5] * 3,
    ),
    log_density(
        "beta",
        stats.beta(2.0, 3.5),
        (lambda x: 1.0 / x, lambda x: -2.5 / (1.0 - x)),
        lambda x: mp.log(x) + 2.5 * mp.log(1 - x) - mp.log(mp.beta(2, 3.5)),
        UNIT,
    ),
    log_density(
        "lognorm",
        stats.lognorm(0.8),
        lambda x: -(1.0 + np.log(x) / 0.64) / x,
        lambda x: log_normal(mp.log(x), 0, mp.mpf(0.8)) - mp.log(x),
        POSITIVE,
    ),
    log_density(
        "weibull_min",
        stats.weibull_min(1.7),
        (lambda x: 0.7 / x, lambda x: -1.7 * x**0.7),
        lambda x: mp.log(mp.mpf(1.7)) + mp.mpf(0.7) * mp.log(x) - x ** mp.mpf(1.7),
        POSITIVE,
    ),
    log_density(
        "chi2",
        stats.chi2(3.0),
        lambda x: 0.5 / x - 0.5,
        lambda x: mp.log(x) / 2 - x / 2 - 1.5 * mp.log(2) - mp.loggamma(1.5),
        POSITIVE,
    ),
    log_density(
        "f",
        stats.f(4.0, 6.0),
        lambda x: 1.0 / x - 20.0 / (6.0 + 4.0 * x),
        lambda x: (
            2 * mp.log(4)
            + 3 * mp.log(6)
            + mp.log(x)
            - 5 * mp.log(6 + 4 * x)
            - mp.log(mp.beta(2, 3))
        ),
        POSITIVE,
    ),
    log_density(
        "invgamma",
        stats.invgamma(2.5),
        lambda x: -3.5 / x + 1.0 / x**2,
        lambda x: -3.5 * mp.log(x) - 1 / x - mp.loggamma(2.5),
        ONLY,
        optimal=[1.0 / 3.5] * 3,
    ),
    log_density(
        "invgauss",
        stats.invgauss(0.9),
        lambda x: -1.5 / x - 1.0 / (2.0 * 0.81) + 1.0 / (2.0 * x**2),
        lambda x: -mp.log(2 * mp.pi * x**3) / 2 - ((x - mp.mpf(0.9)) / mp.mpf(0.9)) ** 2 / (2 * x),
        ONLY,
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
        "lomax",
        stats.lomax(2.5),
        lambda x: -3.5 / (1.0 + x),
        lambda x: mp.log(2.5) - 3.5 * mp.log(1 + x),
        POSITIVE,
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
        "maxwell",
        stats.maxwell,
        (lambda x: 2.0 / x, lambda x: -x),
        lambda x: mp.log(mp.sqrt(2 / mp.pi)) + 2 * mp.log(x) - x * x / 2,
        POSITIVE,
    ),
    log_density(
        "halfnorm", stats.halfnorm, lambda x: -x, lambda x: log_normal(x) + mp.log(2), POSITIVE
    ),
    log_density(
        "halfcauchy",
        stats.halfcauchy,
        lambda x: -2.0 * x / (1.0 + x * x),
        lambda x: mp.log(2 / mp.pi) - mp.log(1 + x * x),
        POSITIVE,
    ),
    log_density(
        "hypsecant",
        stats.hypsecant,
        lambda x: -np.tanh(x),
        lambda x: -mp.log(mp.pi * mp.cosh(x)),
        REAL,
    ),
    log_density(
        "nakagami",
        stats.nakagami(1.5),
        (lambda x: 2.0 / x, lambda x: -3.0 * x),
        lambda x: mp.log(2) + 1.5 * mp.log(1.5) - mp.loggamma(1.5) + 2 * mp.log(x) - 1.5 * x * x,
        POSITIVE,
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
        "burr12",
        stats.burr12(2.0, 1.5),
        (lambda x: 1.0 / x, lambda x: -5.0 * x / (1.0 + x * x)),
        lambda x: mp.log(3) + mp.log(x) - 2.5 * mp.log(1 + x * x),
        POSITIVE,
    ),
    log_density(
        "fisk",
        stats.fisk(2.0),
        (lambda x: 1.0 / x, lambda x: -4.0 * x / (1.0 + x * x)),
        lambda x: mp.log(2 * x) - 2 * mp.log(1 + x * x),
        POSITIVE,
    ),
    log_density(
        "levy",
        stats.levy,
        lambda x: -1.5 / x + 0.5 / x**2,
        lambda x: -mp.log(2 * mp.pi * x**3) / 2 - 1 / (2 * x),
        ONLY,
        optimal=[1.0 / 3.0] * 3,
    ),
    log_density(
        "loggamma",
        stats.loggamma(1.7),
        lambda x: 1.7 - np.exp(x),
        lambda x: mp.mpf(1.7) * x - mp.exp(x) - mp.loggamma(1.7),
        REAL,
    ),
    log_density(
        "moyal",
        stats.moyal,
        lambda x: np.expm1(-x) / 2.0,
        lambda x: -(x + mp.exp(-x)) / 2 - mp.log(2 * mp.pi) / 2,
        REAL,
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
        "skewnorm",
        stats.skewnorm(1.5),
        (lambda x: -x, lambda x: 1.5 * np.exp(-1.125 * x * x - sp.log_ndtr(1.5 * x)) / ROOT_2PI),
        lambda x: log_normal(x) + mp.log(2 * mp.ncdf(1.5 * x)),
        {"ordinary": REAL["ordinary"]},
    ),
    log_density(
        "vonmises",
        stats.vonmises(1.2),
        lambda x: -1.2 * np.sin(x),
        lambda x: mp.mpf(1.2) * mp.cos(x) - mp.log(2 * mp.pi * mp.besseli(0, mp.mpf(1.2))),
        REAL,
    ),
    log_density(
        "johnsonsu",
        stats.johnsonsu(0.5, 1.5),
        (
            lambda x: -x / (1.0 + x * x),
            lambda x: -1.5 * (0.5 + 1.5 * np.arcsinh(x)) / np.sqrt(1.0 + x * x),
        ),
        lambda x: mp.log(1.5) - mp.log(1 + x * x) / 2 + log_normal(0.5 + 1.5 * mp.asinh(x)),
        {"ordinary": REAL["ordinary"]},
    ),
    log_density(
        "johnsonsb",
        stats.johnsonsb(0.5, 1.5),
        (
            lambda x: -1.0 / x + 1.0 / (1.0 - x),
            lambda x: -1.5 * (0.5 + 1.5 * sp.logit(x)) / (x * (1.0 - x)),
        ),
        lambda x: mp.log(1.5) - mp.log(x * (1 - x)) + log_normal(0.5 + 1.5 * mp.log(x / (1 - x))),
        {"ordinary": UNIT["ordinary"]},
    ),
    log_density(
        "powerlaw",
        stats.powerlaw(1.7),
        lambda x: 0.7 / x,
        lambda x: mp.log(mp.mpf(1.7)) + mp.mpf(0.7) * mp.log(x),
        UNIT,
    ),
    log_density(
        "arcsine",
        stats.arcsine,
        lambda x: -0.5 / x + 0.5 / (1.0 - x),
        lambda x: -mp.log(mp.pi) - mp.log(x * (1 - x)) / 2,
        UNIT,
    ),
    log_density(
        "semicircular",
        stats.semicircular,
        lambda x: -x / (1.0 - x * x),
        lambda x: mp.log(2 / mp.pi) + mp.log(1 - x * x) / 2,
        UNIT,
    ),
    log_density(
        "bradford",
        stats.bradford(1.5),
        lambda x: -1.5 / (1.0 + 1.5 * x),
        lambda x: mp.log(1.5 / mp.log(2.5)) - mp.log(1 + 1.5 * x),
        UNIT,
    ),
    log_density(
        "dweibull",
        stats.dweibull(1.7),
        (lambda x: 0.7 / x, lambda x: -1.7 * np.sign(x) * np.abs(x) ** 0.7),
        lambda x: mp.log(mp.mpf(1.7) / 2) + mp.mpf(0.7) * mp.log(abs(x)) - abs(x) ** mp.mpf(1.7),
        {"ordinary": REAL["ordinary"]},
    ),
    log_density(
        "genlogistic",
        stats.genlogistic(1.5),
        (lambda x: -1.0 + 0.0 * x, lambda x: 2.5 * sp.expit(-x)),
        lambda x: mp.log(1.5) - x - 2.5 * mp.log(1 + mp.exp(-x)),
        REAL,
    ),
    log_density(
        "gompertz",
        stats.gompertz(0.7),
        lambda x: 1.0 - 0.7 * np.exp(x),
        lambda x: mp.log(mp.mpf(0.7)) + x - mp.mpf(0.7) * mp.expm1(x),
        POSITIVE,
    ),
    log_density(
        "invweibull",
        stats.invweibull(1.7),
        (lambda x: -2.7 / x, lambda x: 1.7 * x**-2.7),
        lambda x: mp.log(mp.mpf(1.7)) - mp.mpf(2.7) * mp.log(x) - x ** -mp.mpf(1.7),
        ONLY,
    ),
    log_density(
        "exponpow",
        stats.exponpow(1.5),
        (lambda x: 0.5 / x, lambda x: 1.5 * x**0.5 * (1.0 - np.exp(x**1.5))),
        lambda x: mp.log(1.5) + 0.5 * mp.log(x) + 1 + x**1.5 - mp.exp(x**1.5),
        {"ordinary": [0.3, 0.9, 1.7]},
    ),
    log_density(
        "genextreme",
        stats.genextreme(-0.2),
        (lambda x: -6.0 * 0.2 / (1.0 + 0.2 * x), lambda x: (1.0 + 0.2 * x) ** -6.0),
        lambda x: -6 * mp.log(1 + mp.mpf(0.2) * x) - (1 + mp.mpf(0.2) * x) ** -5,
        REAL,
    ),
]

FUNCTIONS = [*BY_X]
