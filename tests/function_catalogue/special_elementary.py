"""Exponentials, logarithms, polynomials and entropies of scipy.special."""

import mpmath as mp
import numpy as np
from scipy import special as sp

from tests.function_catalogue.functions import POSITIVE, REAL, UNIT, each, known

LARGE = [1e12, 2e12, 5e12]

EXPONENTIALS = [
    each(
        "expit",
        sp.expit,
        lambda x: sp.expit(x) * sp.expit(-x),
        lambda x: 1 / (1 + mp.exp(-x)),
        REAL,
        saturated=[30.0, -32.0, 28.0],
    ),
    each("logit", sp.logit, lambda x: 1.0 / (x * (1.0 - x)), lambda x: mp.log(x / (1 - x)), UNIT),
    each(
        "log_expit",
        sp.log_expit,
        lambda x: sp.expit(-x),
        lambda x: -mp.log(1 + mp.exp(-x)),
        REAL,
        saturated=[30.0, 32.0, 28.0],
        huge=[-1e12, -2e12, -5e12],
    ),
    each("log1p", sp.log1p, lambda x: 1.0 / (1.0 + x), mp.log1p, POSITIVE, huge=LARGE),
    each("expm1", sp.expm1, np.exp, mp.expm1, REAL, saturated=[-30.0, -25.0, -20.0]),
    each("exp2", sp.exp2, lambda x: np.log(2.0) * np.exp2(x), lambda x: mp.mpf(2) ** x, REAL),
    each("exp10", sp.exp10, lambda x: np.log(10.0) * 10.0**x, lambda x: mp.mpf(10) ** x, REAL),
    each("cbrt", sp.cbrt, lambda x: 1.0 / (3.0 * np.cbrt(x) ** 2), mp.cbrt, POSITIVE, huge=LARGE),
    each("cosm1", sp.cosm1, lambda x: -np.sin(x), lambda x: mp.cos(x) - 1, REAL, optimal=[0.0] * 3),
    each(
        "exprel",
        sp.exprel,
        (lambda x: np.exp(x) / x, lambda x: -np.expm1(x) / x**2),
        lambda x: mp.expm1(x) / x,
        {"ordinary": REAL["ordinary"]},
    ),
    each(
        "powm1",
        lambda x: sp.powm1(x, 1.7),
        lambda x: 1.7 * x**0.7,
        lambda x: x ** mp.mpf(1.7) - 1,
        POSITIVE,
    ),
    each(
        "sindg",
        sp.sindg,
        lambda x: np.pi / 180.0 * sp.cosdg(x),
        lambda x: mp.sin(x * mp.pi / 180),
        {"ordinary": [30.0, -75.0, 140.0], "tiny": REAL["tiny"]},
    ),
    each("exp1", sp.exp1, lambda x: -np.exp(-x) / x, mp.e1, POSITIVE, saturated=[30.0, 31.0, 32.0]),
    each("expi", sp.expi, lambda x: np.exp(x) / x, mp.ei, POSITIVE),
    each(
        "expn",
        lambda x: sp.expn(3, x),
        lambda x: -sp.expn(2, x),
        lambda x: mp.expint(3, x),
        POSITIVE,
    ),
    each(
        "sine integral",
        lambda x: sp.sici(x)[0],
        lambda x: np.sin(x) / x,
        mp.si,
        REAL,
        optimal=[np.pi] * 2,
    ),
    each("cosine integral", lambda x: sp.sici(x)[1], lambda x: np.cos(x) / x, mp.ci, POSITIVE),
    each("shi", lambda x: sp.shichi(x)[0], lambda x: np.sinh(x) / x, mp.shi, REAL),
    each("chi", lambda x: sp.shichi(x)[1], lambda x: np.cosh(x) / x, mp.chi, POSITIVE),
    each(
        "lambertw",
        lambda x: sp.lambertw(x).real,
        lambda x: (lambda w: w / (x * (1.0 + w)))(sp.lambertw(x).real),
        lambda x: mp.lambertw(x).real,
        POSITIVE,
        huge=LARGE,
    ),
    each(
        "wrightomega",
        sp.wrightomega,
        lambda x: (lambda w: w / (1.0 + w))(sp.wrightomega(x)),
        lambda x: mp.lambertw(mp.exp(x)).real,
        REAL,
    ),
    each(
        "spence",
        sp.spence,
        lambda x: np.log(x) / (1.0 - x),
        lambda x: mp.polylog(2, 1 - x).real,
        {"ordinary": [0.3, 1.7, 2.6], "tiny": POSITIVE["tiny"]},
    ),
    each(
        "logaddexp",
        lambda x: np.logaddexp(0.0, x),
        sp.expit,
        lambda x: mp.log(1 + mp.exp(x)),
        {"ordinary": REAL["ordinary"]},
        saturated=[-30.0, -32.0, -28.0],
        huge=LARGE,
    ),
]

POLYNOMIALS = [
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
    each(
        "eval_chebyt",
        lambda x: sp.eval_chebyt(6, x),
        lambda x: 6.0 * sp.eval_chebyu(5, x),
        lambda x: mp.chebyt(6, x),
        {"ordinary": UNIT["ordinary"]},
    ),
    each(
        "eval_chebyu",
        lambda x: sp.eval_chebyu(3, x),
        (
            lambda x: 4.0 * sp.eval_chebyt(4, x) / (x * x - 1.0),
            lambda x: -x * sp.eval_chebyu(3, x) / (x * x - 1.0),
        ),
        lambda x: mp.chebyu(3, x),
        UNIT,
    ),
    each(
        "eval_hermite",
        lambda x: sp.eval_hermite(4, x),
        lambda x: 8.0 * sp.eval_hermite(3, x),
        lambda x: mp.hermite(4, x),
        {"ordinary": REAL["ordinary"]},
        huge=LARGE,
    ),
    each(
        "eval_hermitenorm",
        lambda x: sp.eval_hermitenorm(4, x),
        lambda x: 4.0 * sp.eval_hermitenorm(3, x),
        lambda x: x**4 - 6 * x**2 + 3,
        {"ordinary": REAL["ordinary"]},
    ),
    each(
        "eval_laguerre",
        lambda x: sp.eval_laguerre(4, x),
        lambda x: -sp.eval_genlaguerre(3, 1.0, x),
        lambda x: mp.laguerre(4, 0, x),
        POSITIVE,
    ),
    each(
        "eval_genlaguerre",
        lambda x: sp.eval_genlaguerre(3, 0.5, x),
        lambda x: -sp.eval_genlaguerre(2, 1.5, x),
        lambda x: mp.laguerre(3, 0.5, x),
        POSITIVE,
    ),
    each(
        "eval_gegenbauer",
        lambda x: sp.eval_gegenbauer(4, 0.7, x),
        lambda x: 1.4 * sp.eval_gegenbauer(3, 1.7, x),
        lambda x: mp.gegenbauer(4, 0.7, x),
        {"ordinary": UNIT["ordinary"]},
    ),
    each(
        "eval_jacobi",
        lambda x: sp.eval_jacobi(3, 0.5, 1.5, x),
        lambda x: 3.0 * sp.eval_jacobi(2, 1.5, 2.5, x),
        lambda x: mp.jacobi(3, 0.5, 1.5, x),
        UNIT,
    ),
    each(
        "eval_sh_legendre",
        lambda x: sp.eval_sh_legendre(3, x),
        lambda x: 60.0 * x * x - 60.0 * x + 12.0,
        lambda x: mp.legendre(3, 2 * x - 1),
        {"ordinary": UNIT["ordinary"]},
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
        "kl_div",
        lambda x: sp.kl_div(x, 0.7),
        lambda x: np.log(x / 0.7),
        lambda x: x * mp.log(x / 0.7) - x + 0.7,
        POSITIVE,
        optimal=[0.7] * 3,
    ),
    each(
        "xlogy",
        lambda x: sp.xlogy(x, x),
        (np.log, lambda x: 1.0 + 0.0 * x),
        lambda x: x * mp.log(x),
        POSITIVE,
    ),
    each(
        "xlog1py",
        lambda x: sp.xlog1py(x, x),
        (np.log1p, lambda x: x / (1.0 + x)),
        lambda x: x * mp.log1p(x),
        POSITIVE,
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
    each(
        "pseudo_huber",
        lambda x: sp.pseudo_huber(1.5, x),
        lambda x: x / np.sqrt(1.0 + (x / 1.5) ** 2),
        lambda x: mp.mpf(1.5) ** 2 * (mp.sqrt(1 + (x / 1.5) ** 2) - 1),
        REAL,
        huge=[1e12, -2e12, 5e12],
    ),
    each(
        "boxcox",
        lambda x: sp.boxcox(x, 0.3),
        lambda x: x**-0.7,
        lambda x: (x ** mp.mpf(0.3) - 1) / 0.3,
        POSITIVE,
        huge=LARGE,
    ),
    each(
        "boxcox1p",
        lambda x: sp.boxcox1p(x, 0.3),
        lambda x: (1.0 + x) ** -0.7,
        lambda x: ((1 + x) ** mp.mpf(0.3) - 1) / 0.3,
        POSITIVE,
    ),
    each(
        "inv_boxcox",
        lambda x: sp.inv_boxcox(x, 0.3),
        lambda x: (0.3 * x + 1.0) ** (0.7 / 0.3),
        lambda x: (mp.mpf(0.3) * x + 1) ** (1 / mp.mpf(0.3)),
        POSITIVE,
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
    known(
        "log_softmax",
        lambda x: sp.log_softmax(x)[1],
        lambda x: np.eye(4)[1] - sp.softmax(x),
        lambda x: x[1] - mp.log(sum(map(mp.exp, x))),
        **POINTS,
        saturated=[30.0, 0.5, -1.0, 2.0],
    ),
]

FUNCTIONS = [*EXPONENTIALS, *POLYNOMIALS, *ENTROPIES, *REDUCTIONS]
