"""Functions of scipy.special around the error function and the gamma function."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp

from tests.function_catalogue.functions import POSITIVE, REAL, UNIT, Array, each

ROOT_PI, ROOT_2PI = np.sqrt(np.pi), np.sqrt(2.0 * np.pi)
NEAR_1 = {"ordinary": [1.3, 1.9, 3.4]}
LARGE = [1e12, 2e12, 5e12]


def density(x: Array) -> Any:
    return np.exp(-x * x / 2.0) / ROOT_2PI


ERROR_FUNCTIONS = [
    each(
        "erf",
        sp.erf,
        lambda x: 2.0 / ROOT_PI * np.exp(-x * x),
        mp.erf,
        REAL,
        saturated=[4.0, -4.5, 5.0],
    ),
    each(
        "erfc",
        sp.erfc,
        lambda x: -2.0 / ROOT_PI * np.exp(-x * x),
        mp.erfc,
        REAL,
        saturated=[5.0, 5.5, 6.0],
    ),
    each(
        "erfcx",
        sp.erfcx,
        (lambda x: 2.0 * x * sp.erfcx(x), lambda x: -2.0 / ROOT_PI + 0.0 * x),
        lambda x: mp.exp(x * x) * mp.erfc(x),
        REAL,
        huge=[30.0, 40.0, 50.0],
        rough={"huge"},
    ),
    each("erfi", sp.erfi, lambda x: 2.0 / ROOT_PI * np.exp(x * x), mp.erfi, REAL),
    each(
        "dawsn",
        sp.dawsn,
        (lambda x: 1.0 + 0.0 * x, lambda x: -2.0 * x * sp.dawsn(x)),
        lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x),
        REAL,
        optimal=[0.9241388730045917] * 3,
    ),
    each(
        "erfinv",
        sp.erfinv,
        lambda x: ROOT_PI / 2.0 * np.exp(sp.erfinv(x) ** 2),
        mp.erfinv,
        {"ordinary": [0.3, -0.6, 0.9], "tiny": REAL["tiny"]},
    ),
    each(
        "erfcinv",
        sp.erfcinv,
        lambda x: -ROOT_PI / 2.0 * np.exp(sp.erfcinv(x) ** 2),
        lambda x: mp.erfinv(1 - x),
        {"ordinary": [0.3, 0.8, 1.6]},
    ),
    each("ndtr", sp.ndtr, density, mp.ncdf, REAL, saturated=[6.0, 5.5, 7.0]),
    each(
        "log_ndtr",
        sp.log_ndtr,
        lambda x: np.exp(-x * x / 2.0 - sp.log_ndtr(x)) / ROOT_2PI,
        lambda x: mp.log(mp.ncdf(x)),
        REAL,
        saturated=[5.0, 6.0, 7.0],
        huge=[-10.0, -20.0, -30.0],
    ),
    each(
        "ndtri",
        sp.ndtri,
        lambda p: ROOT_2PI * np.exp(sp.ndtri(p) ** 2 / 2.0),
        lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1),
        {"ordinary": UNIT["ordinary"]},
    ),
    each(
        "owens_t",
        lambda x: sp.owens_t(x, 0.7),
        lambda x: -density(x) * sp.erf(0.7 * x / np.sqrt(2.0)) / 2.0,
        lambda x: mp.quad(
            lambda t: mp.exp(-x * x * (1 + t * t) / 2) / (1 + t * t) / (2 * mp.pi), [0, 0.7]
        ),
        {"ordinary": [0.3, 1.2, 2.1]},
    ),
    each(
        "fresnel S",
        lambda x: sp.fresnel(x)[0],
        lambda x: np.sin(np.pi * x * x / 2.0),
        mp.fresnels,
        {"ordinary": [0.3, -1.2, 2.1]},
    ),
    each(
        "fresnel C",
        lambda x: sp.fresnel(x)[1],
        lambda x: np.cos(np.pi * x * x / 2.0),
        mp.fresnelc,
        REAL,
    ),
]

GAMMA_FUNCTIONS = [
    each(
        "gamma",
        sp.gamma,
        lambda x: sp.gamma(x) * sp.psi(x),
        mp.gamma,
        POSITIVE,
        optimal=[1.4616321449683623] * 3,
    ),
    each(
        "gammaln",
        sp.gammaln,
        sp.psi,
        mp.loggamma,
        POSITIVE,
        huge=LARGE,
        optimal=[1.4616321449683623] * 3,
    ),
    each("loggamma", sp.loggamma, sp.psi, mp.loggamma, POSITIVE, huge=[1e3, 2e3, 5e3]),
    each("rgamma", sp.rgamma, lambda x: -sp.psi(x) * sp.rgamma(x), mp.rgamma, POSITIVE),
    each("psi", sp.psi, lambda x: sp.polygamma(1, x), mp.digamma, POSITIVE, huge=LARGE),
    each(
        "trigamma",
        lambda x: sp.polygamma(1, x),
        lambda x: sp.polygamma(2, x),
        lambda x: mp.psi(1, x),
        POSITIVE,
    ),
    each(
        "polygamma 2",
        lambda x: sp.polygamma(2, x),
        lambda x: sp.polygamma(3, x),
        lambda x: mp.psi(2, x),
        {"ordinary": [0.6, 1.7, 5.2]},
    ),
    each(
        "beta",
        lambda x: sp.beta(x, 2.5),
        (lambda x: sp.beta(x, 2.5) * sp.psi(x), lambda x: -sp.beta(x, 2.5) * sp.psi(x + 2.5)),
        lambda x: mp.beta(x, 2.5),
        POSITIVE,
    ),
    each(
        "betaln",
        lambda x: sp.betaln(x, 2.5),
        (sp.psi, lambda x: -sp.psi(x + 2.5)),
        lambda x: mp.log(mp.beta(x, 2.5)),
        POSITIVE,
    ),
    each(
        "gammainc",
        lambda x: sp.gammainc(2.5, x),
        lambda x: x**1.5 * np.exp(-x) / sp.gamma(2.5),
        lambda x: mp.gammainc(2.5, 0, x, regularized=True),
        POSITIVE,
        saturated=[30.0, 32.0, 28.0],
    ),
    each(
        "gammaincc",
        lambda x: sp.gammaincc(2.5, x),
        lambda x: -(x**1.5) * np.exp(-x) / sp.gamma(2.5),
        lambda x: mp.gammainc(2.5, x, mp.inf, regularized=True),
        {"ordinary": POSITIVE["ordinary"]},
        saturated=[30.0, 32.0, 28.0],
    ),
    each(
        "betainc",
        lambda x: sp.betainc(2.0, 3.5, x),
        lambda x: x * (1.0 - x) ** 2.5 / sp.beta(2.0, 3.5),
        lambda x: mp.betainc(2, 3.5, 0, x, regularized=True),
        UNIT,
    ),
    each(
        "poch",
        lambda x: sp.poch(x, 2.5),
        lambda x: sp.poch(x, 2.5) * (sp.psi(x + 2.5) - sp.psi(x)),
        lambda x: mp.rf(x, 2.5),
        {"ordinary": POSITIVE["ordinary"]},
    ),
    each(
        "multigammaln",
        lambda x: sum(sp.multigammaln(t, 3) for t in x),
        lambda x: sp.psi(x) + sp.psi(x - 0.5) + sp.psi(x - 1.0),
        lambda x: mp.log(mp.pi) * 1.5 + sum(mp.loggamma(x - j / 2) for j in range(3)),
        NEAR_1,
    ),
    each(
        "zeta",
        lambda x: sp.zeta(3.0, x),
        lambda x: -3.0 * sp.zeta(4.0, x),
        lambda x: mp.zeta(3, x),
        {"ordinary": POSITIVE["ordinary"]},
    ),
    each(
        "pdtr",
        lambda x: sp.pdtr(3, x),
        lambda x: -np.exp(-x) * x**3 / 6.0,
        lambda x: mp.gammainc(4, x, mp.inf, regularized=True),
        {"ordinary": [0.6, 1.7, 5.2]},
    ),
    each(
        "gdtr",
        lambda x: sp.gdtr(1.5, 3.0, x),
        lambda x: 1.5**3 * x**2 * np.exp(-1.5 * x) / 2.0,
        lambda x: mp.gammainc(3, 0, 1.5 * x, regularized=True),
        {"ordinary": [0.6, 1.7, 5.2]},
    ),
    each(
        "chdtr",
        lambda x: sp.chdtr(3.0, x),
        lambda x: np.sqrt(x) * np.exp(-x / 2.0) / ROOT_2PI,
        lambda x: mp.gammainc(1.5, 0, x / 2, regularized=True),
        POSITIVE,
    ),
    each(
        "stdtr",
        lambda x: sp.stdtr(5.0, x),
        lambda x: (1.0 + x * x / 5.0) ** -3.0 / (np.sqrt(5.0) * sp.beta(0.5, 2.5)),
        lambda x: (
            0.5 + mp.sign(x) / 2 * mp.betainc(0.5, 2.5, 0, x * x / (5 + x * x), regularized=True)
        ),
        {"ordinary": REAL["ordinary"]},
    ),
    each(
        "fdtr",
        lambda x: sp.fdtr(4.0, 6.0, x),
        lambda x: (4.0 / 6.0) ** 2 * x * (1.0 + 4.0 * x / 6.0) ** -5.0 / sp.beta(2.0, 3.0),
        lambda x: mp.betainc(2, 3, 0, 4 * x / (4 * x + 6), regularized=True),
        POSITIVE,
    ),
]

FUNCTIONS = [*ERROR_FUNCTIONS, *GAMMA_FUNCTIONS]
