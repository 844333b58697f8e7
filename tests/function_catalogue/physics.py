"""Potentials, and laws of physics and chemistry, some in SI units."""

from typing import Any

import numpy as np

from tests.function_catalogue.functions import POSITIVE, REAL, Array, summed, written

DISTANCES = {"ordinary": [1.1, 1.3, 1.7]}
MINIMUM = 2.0 ** (1.0 / 6.0)
PAIR_POTENTIALS = [
    summed(
        "Lennard-Jones",
        lambda m, r: 4.0 * (r**-12 - r**-6),
        (lambda r: -48.0 * r**-13, lambda r: 24.0 * r**-7),
        DISTANCES,
        optimal=[MINIMUM] * 3,
        huge=[50.0, 80.0, 100.0],
    ),
    summed(
        "Lennard-Jones of a distance's absolute value",
        lambda m, r: 4.0 * (m.abs(r) ** -12 - m.abs(r) ** -6) + 0.0 * r,
        (lambda r: -48.0 * r**-13, lambda r: 24.0 * r**-7),
        DISTANCES,
    ),
    summed(
        "a repulsion beside a slope",
        lambda m, r: r**-4 + 0.3 * r,
        (lambda r: -4.0 * r**-5, lambda r: 0.3 + 0.0 * r),
        DISTANCES,
        optimal=[(4.0 / 0.3) ** 0.2] * 3,
    ),
    summed(
        "a pole beside a parabola",
        lambda m, r: r**-9 + 0.05 * (r - 1.0) ** 2,
        (lambda r: -9.0 * r**-10, lambda r: 0.1 * (r - 1.0)),
        DISTANCES,
    ),
    summed(
        "Morse",
        lambda m, r: 2.5 * (1.0 - m.exp(-1.4 * (r - 1.2))) ** 2,
        lambda r: 7.0 * (1.0 - np.exp(-1.4 * (r - 1.2))) * np.exp(-1.4 * (r - 1.2)),
        DISTANCES,
        optimal=[1.2] * 3,
        saturated=[18.0, 20.0, 22.0],
    ),
    summed(
        "double well",
        lambda m, x: (x**2 - 1.0) ** 2,
        lambda x: 4.0 * x * (x**2 - 1.0),
        REAL,
        optimal=[1.0, -1.0, 1.0],
        huge=[1e12, -2e12, 5e12],
    ),
]

CHARGES = np.array([1.0, -2.0, 1.5])


def coulomb(m: Any, x: Array) -> Any:
    """The energy of three charges at ``x (3, 2)``."""
    pairs = ((0, 1), (0, 2), (1, 2))
    return sum(CHARGES[i] * CHARGES[j] / m.sqrt(m.sum((x[i] - x[j]) ** 2)) for i, j in pairs)


def coulomb_force(x: Array) -> Any:
    g = np.zeros(x.shape)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        d = x[i] - x[j]
        f = -CHARGES[i] * CHARGES[j] * d / np.sum(d * d) ** 1.5
        g[i] += f
        g[j] -= f
    return g


SQUARE = [[0.1, 0.0], [1.2, 0.2], [0.9, 1.4]]
BODIES = [
    written(
        "charges",
        coulomb,
        coulomb_force,
        ordinary=SQUARE,
        huge=(1e6 * np.array(SQUARE)),
        tiny=1e-13 * np.array(SQUARE),
    ),
    written(
        "gravitation in SI units",
        lambda m, r: m.sum(-6.674e-11 * 5.97e24 * 7.35e22 / r),
        lambda r: 6.674e-11 * 5.97e24 * 7.35e22 / r**2,
        ordinary=[3.84e8, 4.1e8, 1.5e11],
    ),
    written(
        "relativistic energy in SI units",
        lambda m, p: m.sum(m.sqrt((p * 2.998e8) ** 2 + (9.109e-31 * 2.998e8**2) ** 2)),
        lambda p: p * 2.998e8**2 / np.sqrt((p * 2.998e8) ** 2 + (9.109e-31 * 2.998e8**2) ** 2),
        ordinary=[1e-22, -3e-22, 2.7e-21],
        optimal=[0.0] * 2,
    ),
]

LAWS = [
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
        "Arrhenius",
        lambda m, t: 1e13 * m.exp(-9000.0 / t),
        lambda t: 1e13 * 9000.0 / t**2 * np.exp(-9000.0 / t),
        {"ordinary": [300.0, 350.0, 420.0]},
        saturated=[1e8, 2e8, 5e8],
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
    summed(
        "Michaelis-Menten",
        lambda m, s: 2.0 * s / (0.7 + s),
        lambda s: 1.4 / (0.7 + s) ** 2,
        POSITIVE,
        saturated=[1e9, 2e9, 5e9],
    ),
    summed(
        "Breit-Wigner",
        lambda m, e: 1.0 / ((e - 1.0) ** 2 + 0.04),
        lambda e: -2.0 * (e - 1.0) / ((e - 1.0) ** 2 + 0.04) ** 2,
        {"ordinary": [0.3, 1.2, 2.1]},
        optimal=[1.0] * 2,
        huge=[1e6, 2e6, 5e6],
    ),
    summed(
        "diode",
        lambda m, v: 1e-12 * m.expm1(v / 0.02585),
        lambda v: 1e-12 / 0.02585 * np.exp(v / 0.02585),
        {"ordinary": [0.3, 0.55, 0.7]},
        saturated=[-0.9, -0.8, -0.7],
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


FUNCTIONS = [*PAIR_POTENTIALS, *BODIES, *LAWS]
