"""Laws of physics and chemistry: thermodynamics, kinetics, optics, electronics."""

import numpy as np

from tests.function_catalogue.functions import POSITIVE, REAL, summed, written

ANGLES = {"ordinary": [0.3, -1.2, 2.1], "tiny": [1e-13, -2e-13, 3e-13]}

THERMODYNAMICS = [
    summed(
        "Planck's law",
        lambda m, x: x**3 / m.expm1(x),
        (lambda x: 3.0 * x**2 / np.expm1(x), lambda x: -(x**3) * np.exp(x) / np.expm1(x) ** 2),
        POSITIVE,
        optimal=[2.8214393721220787] * 2,
        saturated=[30.0, 32.0, 35.0],
    ),
    summed(
        "Fermi-Dirac",
        lambda m, e: 1.0 / (m.exp((e - 0.5) / 0.3) + 1.0),
        lambda e: -1.0 / 0.3 / (4.0 * np.cosh((e - 0.5) / 0.6) ** 2),
        {"ordinary": [0.3, 1.2, 2.1]},
        saturated=[-8.0, -9.0, 9.0],
    ),
    summed(
        "Bose-Einstein",
        lambda m, e: 1.0 / m.expm1(e / 0.3),
        lambda e: -1.0 / 0.3 / (4.0 * np.sinh(e / 0.6) ** 2),
        POSITIVE,
    ),
    summed(
        "Maxwell-Boltzmann",
        lambda m, v: v**2 * m.exp(-(v**2) / 1.6),
        (
            lambda v: 2.0 * v * np.exp(-(v**2) / 1.6),
            lambda v: -2.0 * v**3 / 1.6 * np.exp(-(v**2) / 1.6),
        ),
        {"ordinary": [0.3, 1.2, 2.1], "tiny": POSITIVE["tiny"]},
        optimal=[np.sqrt(1.6)] * 2,
    ),
    written(
        "free energy of levels",
        lambda m, b: -m.log(m.sum(m.exp(-b[0] * np.array([0.0, 0.7, 1.9])))) / b[0],
        lambda b: (lambda w, e: np.array([np.log(w.sum()) / b[0] ** 2 + (e @ w) / w.sum() / b[0]]))(
            np.exp(-b[0] * np.array([0.0, 0.7, 1.9])), np.array([0.0, 0.7, 1.9])
        ),
        ordinary=[1.3],
    ),
    summed(
        "mean field of Ising",
        lambda m, s: -0.6 * s**2 + 0.5 * ((1.0 + s) * m.log1p(s) + (1.0 - s) * m.log1p(-s)),
        (lambda s: -1.2 * s, np.arctanh),
        {"ordinary": [0.3, -0.8, 0.55], "tiny": REAL["tiny"]},
    ),
    summed(
        "van der Waals",
        lambda m, v: 2.4 / (v - 0.3) - 1.1 / v**2,
        (lambda v: -2.4 / (v - 0.3) ** 2, lambda v: 2.2 / v**3),
        {"ordinary": [0.7, 1.7, 5.2]},
        huge=[1e9, 2e9, 5e9],
    ),
    summed(
        "Redlich-Kwong",
        lambda m, v: 2.4 / (v - 0.3) - 1.1 / (v * (v + 0.3)),
        (lambda v: -2.4 / (v - 0.3) ** 2, lambda v: 1.1 * (2.0 * v + 0.3) / (v * (v + 0.3)) ** 2),
        {"ordinary": [0.7, 1.7, 5.2]},
    ),
    summed(
        "Flory-Huggins",
        lambda m, f: f * m.log(f) / 20.0 + (1.0 - f) * m.log1p(-f) + 0.9 * f * (1.0 - f),
        (lambda f: (np.log(f) + 1.0) / 20.0 - np.log1p(-f) - 1.0, lambda f: 0.9 * (1.0 - 2.0 * f)),
        {"ordinary": [0.2, 0.55, 0.85], "tiny": POSITIVE["tiny"]},
    ),
    summed(
        "Landau",
        lambda m, s: -0.5 * s**2 + 0.25 * s**4 - 0.1 * s,
        (lambda s: -s + s**3, lambda s: -0.1 + 0.0 * s),
        REAL,
        huge=[1e9, -2e9, 5e9],
    ),
    summed(
        "Arrhenius",
        lambda m, t: 1e13 * m.exp(-9000.0 / t),
        lambda t: 1e13 * 9000.0 / t**2 * np.exp(-9000.0 / t),
        {"ordinary": [300.0, 350.0, 420.0]},
        saturated=[1e8, 2e8, 5e8],
    ),
    summed(
        "Antoine",
        lambda m, t: 10.0 ** (8.07 - 1730.6 / (233.4 + t)),
        lambda t: np.log(10.0) * 1730.6 / (233.4 + t) ** 2 * 10.0 ** (8.07 - 1730.6 / (233.4 + t)),
        {"ordinary": [20.0, 55.0, 95.0]},
    ),
    summed(
        "barometric formula",
        lambda m, h: 101325.0 * (1.0 - 2.2558e-5 * h) ** 5.2559,
        lambda h: -101325.0 * 5.2559 * 2.2558e-5 * (1.0 - 2.2558e-5 * h) ** 4.2559,
        {"ordinary": [120.0, 1500.0, 8800.0]},
    ),
    summed(
        "radiation balance",
        lambda m, t: (5.67e-8 * t**4 - 240.0) ** 2,
        lambda t: 8.0 * 5.67e-8 * t**3 * (5.67e-8 * t**4 - 240.0),
        {"ordinary": [210.0, 255.0, 310.0]},
        optimal=[(240.0 / 5.67e-8) ** 0.25] * 2,
    ),
]

KINETICS = [
    summed(
        "Michaelis-Menten",
        lambda m, s: 2.0 * s / (0.7 + s),
        lambda s: 1.4 / (0.7 + s) ** 2,
        POSITIVE,
        saturated=[1e9, 2e9, 5e9],
    ),
    summed(
        "Hill",
        lambda m, s: s**2.5 / (0.7**2.5 + s**2.5),
        lambda s: 2.5 * 0.7**2.5 * s**1.5 / (0.7**2.5 + s**2.5) ** 2,
        POSITIVE,
        saturated=[1e4, 2e4, 5e4],
    ),
    summed(
        "Haldane's inhibition",
        lambda m, s: s / (0.7 + s + s**2 / 3.0),
        lambda s: (0.7 - s**2 / 3.0) / (0.7 + s + s**2 / 3.0) ** 2,
        POSITIVE,
        optimal=[np.sqrt(2.1)] * 2,
        huge=[1e9, 2e9, 5e9],
    ),
    summed(
        "Langmuir",
        lambda m, p: 1.3 * p / (1.0 + 1.3 * p),
        lambda p: 1.3 / (1.0 + 1.3 * p) ** 2,
        POSITIVE,
        saturated=[1e9, 2e9, 5e9],
    ),
    summed(
        "Nernst",
        lambda m, c: 0.0257 * m.log(c / 0.145),
        lambda c: 0.0257 / c,
        POSITIVE,
        huge=[1e12, 2e12, 5e12],
    ),
    summed(
        "Debye-Hückel",
        lambda m, s: -0.51 * m.sqrt(s) / (1.0 + 1.3 * m.sqrt(s)),
        lambda s: -0.51 / (2.0 * np.sqrt(s) * (1.0 + 1.3 * np.sqrt(s)) ** 2),
        POSITIVE,
    ),
    summed(
        "Goldman's current",
        lambda m, v: v / -m.expm1(-v),
        lambda v: (1.0 - np.exp(-v) - v * np.exp(-v)) / np.expm1(-v) ** 2,
        {"ordinary": REAL["ordinary"]},
        saturated=[40.0, 45.0, 50.0],
    ),
    summed(
        "logistic growth",
        lambda m, t: 1000.0 / (1.0 + 99.0 * m.exp(-0.8 * t)),
        lambda t: 79200.0 * np.exp(-0.8 * t) / (1.0 + 99.0 * np.exp(-0.8 * t)) ** 2,
        {"ordinary": [1.0, 4.5, 9.0]},
        saturated=[40.0, 42.0, 45.0],
    ),
    written(
        "decay chain",
        lambda m, k: m.sum(
            k[0]
            / (k[1] - k[0])
            * (m.exp(-k[0] * np.array([0.5, 1.5, 4.0])) - m.exp(-k[1] * np.array([0.5, 1.5, 4.0])))
        ),
        lambda k: (
            lambda t, a, b: np.array(
                [
                    np.sum(
                        b / (b - a) ** 2 * (np.exp(-a * t) - np.exp(-b * t))
                        - a / (b - a) * t * np.exp(-a * t)
                    ),
                    np.sum(
                        -a / (b - a) ** 2 * (np.exp(-a * t) - np.exp(-b * t))
                        + a / (b - a) * t * np.exp(-b * t)
                    ),
                ]
            )
        )(np.array([0.5, 1.5, 4.0]), *k),
        ordinary=[0.4, 1.3],
    ),
]

OPTICS_AND_ELECTRONICS = [
    summed(
        "Breit-Wigner",
        lambda m, e: 1.0 / ((e - 1.0) ** 2 + 0.04),
        lambda e: -2.0 * (e - 1.0) / ((e - 1.0) ** 2 + 0.04) ** 2,
        {"ordinary": [0.3, 1.2, 2.1]},
        optimal=[1.0] * 2,
        huge=[1e6, 2e6, 5e6],
    ),
    summed(
        "Gaussian beam",
        lambda m, z: 1.0 / (1.0 + z**2) * m.exp(-0.8 / (1.0 + z**2)),
        lambda z: (
            2.0 * z * (0.8 / (1.0 + z**2) - 1.0) / (1.0 + z**2) ** 2 * np.exp(-0.8 / (1.0 + z**2))
        ),
        REAL,
        huge=[1e4, -2e4, 5e4],
    ),
    summed(
        "diffraction by a slit",
        lambda m, x: (m.sin(x) / x) ** 2,
        (lambda x: 2.0 * np.sin(x) * np.cos(x) / x**2, lambda x: -2.0 * np.sin(x) ** 2 / x**3),
        {"ordinary": [0.6, -1.2, 2.1]},
    ),
    summed(
        "Malus behind a wave plate",
        lambda m, x: m.cos(x - 0.4) ** 2 * m.sin(2.0 * x) ** 2,
        (
            lambda x: -2.0 * np.cos(x - 0.4) * np.sin(x - 0.4) * np.sin(2.0 * x) ** 2,
            lambda x: 4.0 * np.cos(x - 0.4) ** 2 * np.sin(2.0 * x) * np.cos(2.0 * x),
        ),
        ANGLES,
    ),
    summed(
        "Sellmeier",
        lambda m, w: m.sqrt(1.0 + 1.04 * w**2 / (w**2 - 0.006)),
        lambda w: (
            -1.04 * 0.006 * w / (w**2 - 0.006) ** 2 / np.sqrt(1.0 + 1.04 * w**2 / (w**2 - 0.006))
        ),
        {"ordinary": [0.4, 0.6, 1.5]},
    ),
    summed(
        "diode",
        lambda m, v: 1e-12 * m.expm1(v / 0.02585),
        lambda v: 1e-12 / 0.02585 * np.exp(v / 0.02585),
        {"ordinary": [0.3, 0.55, 0.7]},
        saturated=[-0.9, -0.8, -0.7],
    ),
    summed(
        "solar cell's power",
        lambda m, v: v * (3.0 - 1e-9 * m.expm1(v / 0.0259)),
        (
            lambda v: 3.0 - 1e-9 * np.expm1(v / 0.0259),
            lambda v: -v * 1e-9 / 0.0259 * np.exp(v / 0.0259),
        ),
        {"ordinary": [0.1, 0.4, 0.53]},
    ),
    summed(
        "low-pass filter",
        lambda m, w: 1.0 / m.sqrt(1.0 + (w / 2e4) ** 2),
        lambda w: -w / 4e8 * (1.0 + (w / 2e4) ** 2) ** -1.5,
        {"ordinary": [3e3, 2.5e4, 1e5]},
        huge=[1e12, 2e12, 5e12],
    ),
    written(
        "resonance of a circuit",
        lambda m, p: 1.0 / m.sqrt(p[0] ** 2 + (1e5 * p[1] - 1.0 / (1e5 * p[2])) ** 2),
        lambda p: (
            lambda x: -np.array([p[0], 1e5 * x, x / (1e5 * p[2] ** 2)]) * (p[0] ** 2 + x**2) ** -1.5
        )(1e5 * p[1] - 1.0 / (1e5 * p[2])),
        ordinary=[50.0, 1.2e-3, 1e-7],
    ),
]

FUNCTIONS = [*THERMODYNAMICS, *KINETICS, *OPTICS_AND_ELECTRONICS]
