"""Potentials of physics and chemistry, and energies of several bodies."""

from typing import Any

import numpy as np

from tests.function_catalogue.functions import POSITIVE, REAL, Array, summed, written

DISTANCES = {"ordinary": [1.1, 1.3, 1.7]}
ANGLES = {"ordinary": [0.3, -1.2, 2.1], "tiny": [1e-13, -2e-13, 3e-13]}
FAR = {"huge": [1e6, 2e6, 5e6]}
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
        "Lennard-Jones in a trap",
        lambda m, r: 4.0 * (r**-12 - r**-6) + 0.5 * r**2,
        (lambda r: -48.0 * r**-13 + 24.0 * r**-7, lambda r: r),
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
        "Mie",
        lambda m, r: 6.75 * (r**-9 - r**-6),
        (lambda r: -60.75 * r**-10, lambda r: 40.5 * r**-7),
        DISTANCES,
        optimal=[1.5 ** (1.0 / 3.0)] * 3,
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
        "Buckingham",
        lambda m, r: 500.0 * m.exp(-4.0 * r) - 2.0 * r**-6,
        (lambda r: -2000.0 * np.exp(-4.0 * r), lambda r: 12.0 * r**-7),
        DISTANCES,
    ),
    summed(
        "Born-Mayer with Coulomb",
        lambda m, r: 30.0 * m.exp(-r / 0.3) - 1.0 / r,
        (lambda r: -100.0 * np.exp(-r / 0.3), lambda r: r**-2),
        DISTANCES,
    ),
    summed("Coulomb", lambda m, r: 1.44 / r, lambda r: -1.44 / r**2, POSITIVE, **FAR),
    summed(
        "Yukawa",
        lambda m, r: m.exp(-1.5 * r) / r,
        (lambda r: -1.5 * np.exp(-1.5 * r) / r, lambda r: -np.exp(-1.5 * r) / r**2),
        POSITIVE,
    ),
    summed(
        "Stillinger-Weber, two bodies",
        lambda m, r: 7.05 * (0.602 * r**-4 - 1.0) * m.exp(1.0 / (r - 1.8)),
        (
            lambda r: -7.05 * 4.0 * 0.602 * r**-5 * np.exp(1.0 / (r - 1.8)),
            lambda r: -7.05 * (0.602 * r**-4 - 1.0) * np.exp(1.0 / (r - 1.8)) / (r - 1.8) ** 2,
        ),
        {"ordinary": [1.1, 1.3, 1.5]},
    ),
    summed(
        "Woods-Saxon",
        lambda m, r: -50.0 / (1.0 + m.exp((r - 4.0) / 0.6)),
        lambda r: (50.0 / 0.6) * np.exp((r - 4.0) / 0.6) / (1.0 + np.exp((r - 4.0) / 0.6)) ** 2,
        {"ordinary": [1.5, 3.8, 5.2]},
        saturated=[20.0, 22.0, 24.0],
    ),
    summed(
        "FENE",
        lambda m, r: -15.0 * 2.25 * m.log1p(-((r / 1.5) ** 2)),
        lambda r: 30.0 * r / (1.0 - (r / 1.5) ** 2),
        {"ordinary": [0.3, 0.9, 1.3], "tiny": POSITIVE["tiny"]},
    ),
    summed(
        "Poschl-Teller",
        lambda m, x: -3.0 / m.cosh(x) ** 2,
        lambda x: 6.0 * np.tanh(x) / np.cosh(x) ** 2,
        REAL,
        saturated=[18.0, -19.0, 20.0],
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


def springs(m: Any, x: Array) -> Any:
    """A ring of points ``x (n, 2)`` with springs of length 1."""
    d = m.sqrt(m.sum((x - m.roll(x, 1, 0)) ** 2, axis=1))
    return m.sum((d - 1.0) ** 2) / 2.0


def spring_force(x: Array) -> Any:
    d = x - np.roll(x, 1, 0)
    size = np.sqrt(np.sum(d * d, axis=1, keepdims=True))
    f = (size - 1.0) * d / size
    return f - np.roll(f, -1, 0)


def bending(m: Any, x: Array) -> Any:
    """The energy of the angle at ``x[1]`` of three points ``(3, 2)``."""
    a, b = x[0] - x[1], x[2] - x[1]
    cosine = m.sum(a * b) / (m.sqrt(m.sum(a * a)) * m.sqrt(m.sum(b * b)))
    return (cosine + 0.3) ** 2 / 2.0


def bending_force(x: Array) -> Any:
    a, b = x[0] - x[1], x[2] - x[1]
    na, nb = np.linalg.norm(a), np.linalg.norm(b)
    c = a @ b / (na * nb)
    ga, gb = (b / (na * nb) - c * a / na**2), (a / (na * nb) - c * b / nb**2)
    return (c + 0.3) * np.array([ga, -ga - gb, gb])


def xy_model(m: Any, x: Array) -> Any:
    """Spins on a ring with a field."""
    return -m.sum(m.cos(x - m.roll(x, 1))) - 0.4 * m.sum(m.cos(x))


def pendulum(m: Any, s: Array) -> Any:
    """The energy of a double pendulum, ``s = (angles, speeds)``."""
    a, b, u, v = s
    return u**2 + v**2 / 2.0 + u * v * m.cos(a - b) - 9.81 * (2.0 * m.cos(a) + m.cos(b))


def pendulum_slope(s: Array) -> Any:
    a, b, u, v = s
    turn = u * v * np.sin(a - b)
    return np.array(
        [
            -turn + 19.62 * np.sin(a),
            turn + 9.81 * np.sin(b),
            2.0 * u + v * np.cos(a - b),
            v + u * np.cos(a - b),
        ]
    )


def string(m: Any, u: Array) -> Any:
    """The length of a string through the points u, with fixed ends."""
    d = m.diff(m.concatenate([u[:1] * 0.0, u, u[:1] * 0.0]))
    return m.sum(m.sqrt(1.0 + d**2))


def string_slope(u: Array) -> Any:
    d = np.diff(u, prepend=0.0, append=0.0)
    return -np.diff(d / np.sqrt(1.0 + d * d))


def phase_field(m: Any, u: Array) -> Any:
    """Cahn and Hilliard's free energy on a ring."""
    return m.sum((u**2 - 1.0) ** 2 / 4.0 + 0.3 * (u - m.roll(u, 1)) ** 2)


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
        "springs",
        springs,
        spring_force,
        ordinary=[*SQUARE, [-0.3, 1.1]],
        optimal=[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
        huge=1e8 * np.array([*SQUARE, [-0.3, 1.1]]),
    ),
    written("bond angle", bending, bending_force, ordinary=[[0.1, 0.9], [0.2, -0.1], [1.3, 0.4]]),
    written(
        "XY model",
        xy_model,
        lambda x: np.sin(x - np.roll(x, 1)) - np.sin(np.roll(x, -1) - x),
        lambda x: 0.4 * np.sin(x),
        ordinary=[0.3, -1.2, 2.1, 0.8],
        optimal=[0.0] * 4,
        tiny=[1e-13, -2e-13, 3e-13, 5e-13],
    ),
    written(
        "double pendulum",
        pendulum,
        pendulum_slope,
        ordinary=[0.4, -0.7, 1.1, 0.6],
        optimal=[0.0] * 4,
    ),
    written(
        "string",
        string,
        string_slope,
        ordinary=[0.3, 0.8, -0.4, 0.5],
        huge=[1e9, -2e9, 3e9, 1e9],
        rough={"huge"},
    ),
    written(
        "Cahn-Hilliard",
        phase_field,
        (lambda u: u * (u**2 - 1.0)),
        lambda u: 0.6 * (2.0 * u - np.roll(u, 1) - np.roll(u, -1)),
        ordinary=[0.3, -0.8, 0.6, 1.1],
        optimal=[1.0] * 4,
        tiny=[1e-13, -2e-13, 3e-13, 5e-13],
    ),
    written(
        "dihedral torsion",
        lambda m, x: m.sum(1.5 * (1.0 + m.cos(3.0 * x - 0.5)) + 0.7 * (1.0 - m.cos(2.0 * x))),
        lambda x: -4.5 * np.sin(3.0 * x - 0.5),
        lambda x: 1.4 * np.sin(2.0 * x),
        **ANGLES,
    ),
    written(
        "Kepler's effective potential",
        lambda m, r: m.sum(0.6 / r**2 - 1.0 / r),
        lambda r: -1.2 / r**3,
        lambda r: r**-2,
        ordinary=[0.7, 1.7, 5.2],
        optimal=[1.2] * 2,
        **FAR,
    ),
    written(
        "Schwarzschild's effective potential",
        lambda m, r: m.sum((1.0 - 2.0 / r) * (1.0 + 16.0 / r**2)),
        lambda r: 2.0 / r**2 * (1.0 + 16.0 / r**2),
        lambda r: -(1.0 - 2.0 / r) * 32.0 / r**3,
        ordinary=[3.1, 7.5, 20.0],
        optimal=[4.0] * 2,
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
    summed(
        "Lorentz factor",
        lambda m, v: 1.0 / m.sqrt(1.0 - v**2),
        lambda v: v * (1.0 - v**2) ** -1.5,
        {"ordinary": [0.2, -0.6, 0.9], "tiny": REAL["tiny"]},
    ),
    summed(
        "Rindler's clock",
        lambda m, t: m.arcsinh(t),
        lambda t: 1.0 / np.sqrt(1.0 + t * t),
        {"ordinary": [0.3, 1.2, 2.1]},
        huge=[1e6, 2e6, 5e6],
    ),
]

FUNCTIONS = [*PAIR_POTENTIALS, *BODIES]
