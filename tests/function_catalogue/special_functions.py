"""Functions of scipy.special, and their reductions."""

import mpmath as mp
import numpy as np
from scipy import special as sp

from tests.function_catalogue.functions import POSITIVE, REAL, UNIT, each, known

ROOT_PI, ROOT_2PI = np.sqrt(np.pi), np.sqrt(2.0 * np.pi)
LARGE = [1e12, 2e12, 5e12]
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
        "erfcx",
        sp.erfcx,
        (lambda x: 2.0 * x * sp.erfcx(x), lambda x: -2.0 / ROOT_PI + 0.0 * x),
        lambda x: mp.exp(x * x) * mp.erfc(x),
        REAL,
        huge=[30.0, 40.0, 50.0],
        rough={"huge"},
    ),
    each(
        "dawsn",
        sp.dawsn,
        (lambda x: 1.0 + 0.0 * x, lambda x: -2.0 * x * sp.dawsn(x)),
        lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x),
        REAL,
        optimal=[0.9241388730045917] * 3,
    ),
    each(
        "log_ndtr",
        sp.log_ndtr,
        lambda x: np.exp(-x * x / 2.0 - sp.log_ndtr(x)) / ROOT_2PI,
        lambda x: mp.log(mp.ncdf(x)),
        REAL,
        saturated=[5.0, 6.0, 7.0],
        huge=[-10.0, -20.0, -30.0],
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
    each(
        "beta",
        lambda x: sp.beta(x, 2.5),
        (lambda x: sp.beta(x, 2.5) * sp.psi(x), lambda x: -sp.beta(x, 2.5) * sp.psi(x + 2.5)),
        lambda x: mp.beta(x, 2.5),
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
]

BESSEL_AND_OTHERS = [
    each(
        "j0",
        sp.j0,
        lambda x: -sp.j1(x),
        lambda x: mp.besselj(0, x),
        {"ordinary": REAL["ordinary"]},
        optimal=[3.8317059702075125] * 2,
    ),
    each(
        "i0",
        sp.i0,
        sp.i1,
        lambda x: mp.besseli(0, x),
        {"ordinary": REAL["ordinary"]},
        huge=[50.0, 80.0, 81.0],
    ),
    each(
        "k0",
        sp.k0,
        lambda x: -sp.k1(x),
        lambda x: mp.besselk(0, x),
        POSITIVE,
        saturated=[30.0, 31.0, 32.0],
    ),
    each(
        "airy Ai",
        lambda x: sp.airy(x)[0],
        lambda x: sp.airy(x)[1],
        mp.airyai,
        REAL,
        saturated=[9.0, 9.5, 10.0],
    ),
    each(
        "ellipk",
        sp.ellipk,
        (lambda m: sp.ellipe(m) / (2.0 * m * (1.0 - m)), lambda m: -sp.ellipk(m) / (2.0 * m)),
        mp.ellipk,
        {"ordinary": UNIT["ordinary"]},
    ),
    each(
        "hyp2f1",
        lambda x: sp.hyp2f1(0.5, 1.5, 2.5, x),
        lambda x: 0.3 * sp.hyp2f1(1.5, 2.5, 3.5, x),
        lambda x: mp.hyp2f1(0.5, 1.5, 2.5, x),
        UNIT,
    ),
]

ELEMENTARY = [
    each(
        "expit",
        sp.expit,
        lambda x: sp.expit(x) * sp.expit(-x),
        lambda x: 1 / (1 + mp.exp(-x)),
        REAL,
        saturated=[30.0, -32.0, 28.0],
    ),
    each(
        "log_expit",
        sp.log_expit,
        lambda x: sp.expit(-x),
        lambda x: -mp.log(1 + mp.exp(-x)),
        REAL,
        saturated=[30.0, 32.0, 28.0],
        huge=[-1e12, -2e12, -5e12],
    ),
    each("cbrt", sp.cbrt, lambda x: 1.0 / (3.0 * np.cbrt(x) ** 2), mp.cbrt, POSITIVE, huge=LARGE),
    each("cosm1", sp.cosm1, lambda x: -np.sin(x), lambda x: mp.cos(x) - 1, REAL, optimal=[0.0] * 3),
    each(
        "sine integral",
        lambda x: sp.sici(x)[0],
        lambda x: np.sin(x) / x,
        mp.si,
        REAL,
        optimal=[np.pi] * 2,
    ),
    each(
        "lambertw",
        lambda x: sp.lambertw(x).real,
        lambda x: (lambda w: w / (x * (1.0 + w)))(sp.lambertw(x).real),
        lambda x: mp.lambertw(x).real,
        POSITIVE,
        huge=LARGE,
    ),
    each(
        "eval_legendre",
        lambda x: sp.eval_legendre(5, x),
        (
            lambda x: 5.0 * x * sp.eval_legendre(5, x) / (x * x - 1.0),
            lambda x: -5.0 * sp.eval_legendre(4, x) / (x * x - 1.0),
        ),
        lambda x: mp.legendre(5, x),
        UNIT,
    ),
]

ENTROPIES = [
    each(
        "entr",
        sp.entr,
        (lambda x: -np.log(x), lambda x: -1.0 + 0.0 * x),
        lambda x: -x * mp.log(x),
        POSITIVE,
        optimal=[np.exp(-1.0)] * 3,
    ),
    each(
        "rel_entr",
        lambda x: sp.rel_entr(x, 0.7),
        (lambda x: np.log(x / 0.7), lambda x: 1.0 + 0.0 * x),
        lambda x: x * mp.log(x / 0.7),
        POSITIVE,
        huge=LARGE,
    ),
    each(
        "huber",
        lambda x: sp.huber(1.5, x),
        lambda x: np.clip(x, -1.5, 1.5),
        lambda x: x * x / 2 if abs(x) < 1.5 else 1.5 * (abs(x) - 0.75),
        REAL,
        optimal=[0.0] * 3,
        huge=[1e12, -2e12, 5e12],
    ),
]

POINTS = {"ordinary": [0.3, -1.2, 2.1, 0.8], "tiny": [1e-13, -2e-13, 3e-13, 5e-13]}
REDUCTIONS = [
    known(
        "logsumexp",
        sp.logsumexp,
        sp.softmax,
        lambda x: mp.log(sum(map(mp.exp, x))),
        **POINTS,
        saturated=[30.0, 0.5, -1.0, 2.0],
        huge=[1e12, 9e11, 2e11, -1e12],
    ),
    known(
        "softmax",
        lambda x: sp.softmax(x) @ [1.0, 2.0, -1.0, 0.5],
        lambda x: (lambda p, c: p * (c - p @ c))(sp.softmax(x), np.array([1.0, 2.0, -1.0, 0.5])),
        lambda x: (
            sum(mp.exp(t) * c for t, c in zip(x, [1, 2, -1, 0.5], strict=True))
            / sum(map(mp.exp, x))
        ),
        **POINTS,
        saturated=[30.0, 0.5, -1.0, 2.0],
        rough={"saturated"},
    ),
]


FUNCTIONS = [
    *ERROR_FUNCTIONS,
    *GAMMA_FUNCTIONS,
    *BESSEL_AND_OTHERS,
    *ELEMENTARY,
    *ENTROPIES,
    *REDUCTIONS,
]
