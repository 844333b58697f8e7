"""Bessel functions, elliptic integrals and hypergeometric functions of scipy.special."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import special as sp

from tests.function_catalogue.functions import POSITIVE, REAL, UNIT, Function, each


def spherical(name: str, bessel: Any, of_mpmath: Any) -> Function:
    """A spherical Bessel function of order 2: ``sqrt(pi / (2 x)) B(2.5, x)``."""
    return each(
        name,
        lambda x: bessel(2, x),
        lambda x: bessel(2, x, derivative=True),
        lambda x: mp.sqrt(mp.pi / (2 * x)) * of_mpmath(2.5, x),
        {"ordinary": [0.3, 1.7, 5.2]},
    )


BESSEL_FUNCTIONS = [
    each(
        "j0",
        sp.j0,
        lambda x: -sp.j1(x),
        lambda x: mp.besselj(0, x),
        {"ordinary": REAL["ordinary"]},
        optimal=[3.8317059702075125] * 2,
    ),
    each("j1", sp.j1, (sp.j0, lambda x: -sp.j1(x) / x), lambda x: mp.besselj(1, x), REAL),
    each(
        "jv of order 2",
        lambda x: sp.jv(2, x),
        lambda x: (sp.jv(1, x) - sp.jv(3, x)) / 2.0,
        lambda x: mp.besselj(2, x),
        POSITIVE,
    ),
    each(
        "jv of order 1.5",
        lambda x: sp.jv(1.5, x),
        lambda x: (sp.jv(0.5, x) - sp.jv(2.5, x)) / 2.0,
        lambda x: mp.besselj(1.5, x),
        POSITIVE,
    ),
    each("y0", sp.y0, lambda x: -sp.y1(x), lambda x: mp.bessely(0, x), POSITIVE),
    each(
        "y1",
        sp.y1,
        (sp.y0, lambda x: -sp.y1(x) / x),
        lambda x: mp.bessely(1, x),
        {"ordinary": POSITIVE["ordinary"]},
    ),
    each(
        "yv of order 1.5",
        lambda x: sp.yv(1.5, x),
        lambda x: (sp.yv(0.5, x) - sp.yv(2.5, x)) / 2.0,
        lambda x: mp.bessely(1.5, x),
        {"ordinary": [0.6, 1.7, 5.2]},
    ),
    each(
        "i0",
        sp.i0,
        sp.i1,
        lambda x: mp.besseli(0, x),
        {"ordinary": REAL["ordinary"]},
        huge=[50.0, 80.0, 81.0],
    ),
    each("i1", sp.i1, (sp.i0, lambda x: -sp.i1(x) / x), lambda x: mp.besseli(1, x), REAL),
    each(
        "iv of order 1.5",
        lambda x: sp.iv(1.5, x),
        lambda x: (sp.iv(0.5, x) + sp.iv(2.5, x)) / 2.0,
        lambda x: mp.besseli(1.5, x),
        POSITIVE,
    ),
    each(
        "i0e",
        sp.i0e,
        (lambda x: sp.i1e(x), lambda x: -np.sign(x) * sp.i0e(x)),
        lambda x: mp.exp(-abs(x)) * mp.besseli(0, x),
        REAL,
    ),
    each(
        "ive of order 1.5",
        lambda x: sp.ive(1.5, x),
        lambda x: (sp.ive(0.5, x) + sp.ive(2.5, x)) / 2.0 - sp.ive(1.5, x),
        lambda x: mp.exp(-abs(x)) * mp.besseli(1.5, x),
        {"ordinary": POSITIVE["ordinary"]},
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
        "k1",
        sp.k1,
        (lambda x: -sp.k0(x), lambda x: -sp.k1(x) / x),
        lambda x: mp.besselk(1, x),
        POSITIVE,
    ),
    each(
        "kv of order 1.5",
        lambda x: sp.kv(1.5, x),
        lambda x: -(sp.kv(0.5, x) + sp.kv(2.5, x)) / 2.0,
        lambda x: mp.besselk(1.5, x),
        POSITIVE,
    ),
    each(
        "k0e",
        sp.k0e,
        (lambda x: sp.k0e(x), lambda x: -sp.k1e(x)),
        lambda x: mp.exp(x) * mp.besselk(0, x),
        POSITIVE,
    ),
    spherical("spherical_jn", sp.spherical_jn, mp.besselj),
    spherical("spherical_yn", sp.spherical_yn, mp.bessely),
    spherical("spherical_in", sp.spherical_in, mp.besseli),
    spherical("spherical_kn", sp.spherical_kn, mp.besselk),
    each(
        "struve",
        lambda x: sp.struve(1, x),
        (lambda x: sp.struve(0, x), lambda x: -sp.struve(1, x) / x),
        lambda x: mp.struveh(1, x),
        POSITIVE,
    ),
    each(
        "modstruve",
        lambda x: sp.modstruve(1, x),
        (lambda x: sp.modstruve(0, x), lambda x: -sp.modstruve(1, x) / x),
        lambda x: mp.struvel(1, x),
        POSITIVE,
    ),
    each("ber", sp.ber, sp.berp, lambda x: mp.ber(0, x), {"ordinary": [0.6, 1.7, 5.2]}),
    each("bei", sp.bei, sp.beip, lambda x: mp.bei(0, x), {"ordinary": [0.6, 1.7, 5.2]}),
    each("ker", sp.ker, sp.kerp, lambda x: mp.ker(0, x), {"ordinary": [0.6, 1.7, 2.4]}),
    each("kei", sp.kei, sp.keip, lambda x: mp.kei(0, x), {"ordinary": [0.6, 1.7, 2.4]}),
    each(
        "airy Ai",
        lambda x: sp.airy(x)[0],
        lambda x: sp.airy(x)[1],
        mp.airyai,
        REAL,
        saturated=[9.0, 9.5, 10.0],
    ),
    each("airy Bi", lambda x: sp.airy(x)[2], lambda x: sp.airy(x)[3], mp.airybi, REAL),
    each(
        "airy Ai'",
        lambda x: sp.airy(x)[1],
        lambda x: x * sp.airy(x)[0],
        lambda x: mp.airyai(x, derivative=1),
        {"ordinary": REAL["ordinary"]},
    ),
]

ELLIPTIC_INTEGRALS = [
    each(
        "ellipk",
        sp.ellipk,
        (lambda m: sp.ellipe(m) / (2.0 * m * (1.0 - m)), lambda m: -sp.ellipk(m) / (2.0 * m)),
        mp.ellipk,
        {"ordinary": UNIT["ordinary"]},
    ),
    each(
        "ellipe",
        sp.ellipe,
        (lambda m: sp.ellipe(m) / (2.0 * m), lambda m: -sp.ellipk(m) / (2.0 * m)),
        mp.ellipe,
        {"ordinary": UNIT["ordinary"]},
    ),
    each(
        "ellipkinc",
        lambda x: sp.ellipkinc(x, 0.4),
        lambda x: 1.0 / np.sqrt(1.0 - 0.4 * np.sin(x) ** 2),
        lambda x: mp.ellipf(x, 0.4),
        REAL,
    ),
    each(
        "ellipeinc",
        lambda x: sp.ellipeinc(x, 0.4),
        lambda x: np.sqrt(1.0 - 0.4 * np.sin(x) ** 2),
        lambda x: mp.ellipe(x, 0.4),
        REAL,
    ),
    each(
        "ellipj sn",
        lambda x: sp.ellipj(x, 0.4)[0],
        lambda x: sp.ellipj(x, 0.4)[1] * sp.ellipj(x, 0.4)[2],
        lambda x: mp.ellipfun("sn", x, m=0.4),
        REAL,
    ),
    each(
        "ellipj cn",
        lambda x: sp.ellipj(x, 0.4)[1],
        lambda x: -sp.ellipj(x, 0.4)[0] * sp.ellipj(x, 0.4)[2],
        lambda x: mp.ellipfun("cn", x, m=0.4),
        {"ordinary": REAL["ordinary"]},
    ),
    each(
        "ellipj dn",
        lambda x: sp.ellipj(x, 0.4)[2],
        lambda x: -0.4 * sp.ellipj(x, 0.4)[0] * sp.ellipj(x, 0.4)[1],
        lambda x: mp.ellipfun("dn", x, m=0.4),
        {"ordinary": REAL["ordinary"]},
    ),
    each(
        "elliprf",
        lambda x: sp.elliprf(x, 1.0, 2.0),
        lambda x: -sp.elliprd(1.0, 2.0, x) / 6.0,
        lambda x: mp.elliprf(x, 1, 2),
        {"ordinary": POSITIVE["ordinary"]},
    ),
]

HYPERGEOMETRIC_FUNCTIONS = [
    each(
        "hyp0f1",
        lambda x: sp.hyp0f1(1.5, x),
        lambda x: sp.hyp0f1(2.5, x) / 1.5,
        lambda x: mp.hyp0f1(1.5, x),
        REAL,
    ),
    each(
        "hyp1f1",
        lambda x: sp.hyp1f1(1.5, 2.5, x),
        lambda x: 0.6 * sp.hyp1f1(2.5, 3.5, x),
        lambda x: mp.hyp1f1(1.5, 2.5, x),
        REAL,
    ),
    each(
        "hyp2f1",
        lambda x: sp.hyp2f1(0.5, 1.5, 2.5, x),
        lambda x: 0.3 * sp.hyp2f1(1.5, 2.5, 3.5, x),
        lambda x: mp.hyp2f1(0.5, 1.5, 2.5, x),
        UNIT,
    ),
    each(
        "hyperu",
        lambda x: sp.hyperu(1.5, 2.2, x),
        lambda x: -1.5 * sp.hyperu(2.5, 3.2, x),
        lambda x: mp.hyperu(1.5, 2.2, x),
        {"ordinary": POSITIVE["ordinary"]},
    ),
]

FUNCTIONS = [*BESSEL_FUNCTIONS, *ELLIPTIC_INTEGRALS, *HYPERGEOMETRIC_FUNCTIONS]
