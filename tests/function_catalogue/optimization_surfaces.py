"""Test problems of optimization with many minima, and polynomials."""

from typing import Any

import numpy as np

from tests.function_catalogue.functions import Array, of_residuals, summed, written

FOUR = {"ordinary": [-1.2, 1.0, 0.7, 1.3]}
TWO = {"ordinary": [0.7, -0.4]}
TINY, HUGE = {"tiny": [1e-13, -2e-13]}, {"huge": [1e6, -2e6]}


def rosenbrock(m: Any, x: Array) -> Any:
    return m.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_slope(x: Array) -> Any:
    g, r = np.zeros(x.shape), x[1:] - x[:-1] ** 2
    g[1:] += 200.0 * r
    g[:-1] += -400.0 * x[:-1] * r - 2.0 * (1.0 - x[:-1])
    return g


def ackley(m: Any, x: Array) -> Any:
    root = m.sqrt(m.sum(x * x) / 2.0)
    return -20.0 * m.exp(-0.2 * root) - m.exp(m.sum(m.cos(2.0 * np.pi * x)) / 2.0)


def ackley_near(x: Array) -> Any:
    root = np.sqrt(np.sum(x * x) / 2.0)
    return 2.0 * np.exp(-0.2 * root) * x / root


def ackley_waves(x: Array) -> Any:
    return np.pi * np.exp(np.sum(np.cos(2.0 * np.pi * x)) / 2.0) * np.sin(2.0 * np.pi * x)


def griewank(m: Any, x: Array) -> Any:
    return m.sum(x * x) / 4000.0 - m.cos(x[0]) * m.cos(x[1] / np.sqrt(2.0))


def griewank_waves(x: Array) -> Any:
    a, b = x[0], x[1] / np.sqrt(2.0)
    return np.array([np.sin(a) * np.cos(b), np.cos(a) * np.sin(b) / np.sqrt(2.0)])


def goldstein_price(m: Any, x: Array) -> Any:
    a, b = x
    first = 1.0 + (a + b + 1.0) ** 2 * (
        19.0 - 14.0 * a + 3.0 * a**2 - 14.0 * b + 6.0 * a * b + 3.0 * b**2
    )
    second = 30.0 + (2.0 * a - 3.0 * b) ** 2 * (
        18.0 - 32.0 * a + 12.0 * a**2 + 48.0 * b - 36.0 * a * b + 27.0 * b**2
    )
    return first * second


def goldstein_price_slope(x: Array) -> Any:
    a, b = x
    s, t = a + b + 1.0, 2.0 * a - 3.0 * b
    p = 19.0 - 14.0 * a + 3.0 * a**2 - 14.0 * b + 6.0 * a * b + 3.0 * b**2
    q = 18.0 - 32.0 * a + 12.0 * a**2 + 48.0 * b - 36.0 * a * b + 27.0 * b**2
    first, second = 1.0 + s * s * p, 30.0 + t * t * q
    dp, dq = (
        -14.0 + 6.0 * a + 6.0 * b,
        np.array([-32.0 + 24.0 * a - 36.0 * b, 48.0 - 36.0 * a + 54.0 * b]),
    )
    return (2.0 * s * p + s * s * dp) * second + first * (
        np.array([4.0, -6.0]) * t * q + t * t * dq
    )


def branin(m: Any, x: Array) -> Any:
    a, b = x
    return (b - 0.129 * a**2 + 1.59 * a - 6.0) ** 2 + 9.6 * m.cos(a) + 10.0


def michalewicz(m: Any, x: Array) -> Any:
    return -m.sum(m.sin(x) * m.sin(np.array([1.0, 2.0]) * x**2 / np.pi) ** 4)


def michalewicz_slope(x: Array) -> Any:
    c = np.array([1.0, 2.0])
    s = np.sin(c * x**2 / np.pi)
    return -np.cos(x) * s**4 - np.sin(x) * 8.0 * s**3 * np.cos(c * x**2 / np.pi) * c * x / np.pi


def easom(m: Any, x: Array) -> Any:
    return -m.cos(x[0]) * m.cos(x[1]) * m.exp(-m.sum((x - np.pi) ** 2))


def easom_slope(x: Array) -> Any:
    e = np.exp(-np.sum((x - np.pi) ** 2))
    c, s = np.cos(x), np.sin(x)
    return e * np.array([s[0] * c[1], c[0] * s[1]]) + 2.0 * (x - np.pi) * c[0] * c[1] * e


def drop_wave(m: Any, x: Array) -> Any:
    r = m.sum(x * x)
    return -(1.0 + m.cos(12.0 * m.sqrt(r))) / (r / 2.0 + 2.0)


def drop_wave_slope(x: Array) -> Any:
    r = np.sum(x * x)
    root, below = np.sqrt(r), r / 2.0 + 2.0
    return (
        12.0 * np.sin(12.0 * root) * x / root / below + (1.0 + np.cos(12.0 * root)) * x / below**2
    )


def levy(m: Any, x: Array) -> Any:
    w = 1.0 + (x - 1.0) / 4.0
    a, b = w[0], w[1]
    return (
        m.sin(np.pi * a) ** 2
        + (a - 1.0) ** 2 * (1.0 + 10.0 * m.sin(np.pi * a + 1.0) ** 2)
        + (b - 1.0) ** 2 * (1.0 + m.sin(2.0 * np.pi * b) ** 2)
    )


def levy_slope(x: Array) -> Any:
    a, b = 1.0 + (x - 1.0) / 4.0
    by_a = (
        np.pi * np.sin(2.0 * np.pi * a)
        + 2.0 * (a - 1.0) * (1.0 + 10.0 * np.sin(np.pi * a + 1.0) ** 2)
        + (a - 1.0) ** 2 * 10.0 * np.pi * np.sin(2.0 * np.pi * a + 2.0)
    )
    by_b = 2.0 * (b - 1.0) * (1.0 + np.sin(2.0 * np.pi * b) ** 2) + (
        b - 1.0
    ) ** 2 * 2.0 * np.pi * np.sin(4.0 * np.pi * b)
    return np.array([by_a, by_b]) / 4.0


NUMBERS = np.array([1.0, 2.0, 3.0, 4.0])


def zakharov(m: Any, x: Array) -> Any:
    s = m.sum(NUMBERS * x) / 2.0
    return m.sum(x * x) + s**2 + s**4


def dixon_price(m: Any, x: Array) -> Any:
    return (x[0] - 1.0) ** 2 + m.sum(NUMBERS[1:] * (2.0 * x[1:] ** 2 - x[:-1]) ** 2)


def dixon_price_slope(x: Array) -> Any:
    g, r = np.zeros(x.shape), NUMBERS[1:] * (2.0 * x[1:] ** 2 - x[:-1])
    g[0] = 2.0 * (x[0] - 1.0)
    g[1:] += 8.0 * r * x[1:]
    g[:-1] -= 2.0 * r
    return g


WIGGLY = [
    written("Ackley", ackley, ackley_near, ackley_waves, **TWO, **TINY),
    summed(
        "Rastrigin",
        lambda m, x: x**2 - 10.0 * m.cos(2.0 * np.pi * x),
        (lambda x: 2.0 * x, lambda x: 20.0 * np.pi * np.sin(2.0 * np.pi * x)),
        TWO,
        optimal=[0.0, 0.0],
        **TINY,
    ),
    written(
        "Griewank",
        griewank,
        lambda x: x / 2000.0,
        griewank_waves,
        **TWO,
        **TINY,
        optimal=[0.0, 0.0],
        huge=[5e3, -7e3],
    ),
    written("Levy", levy, levy_slope, **TWO, optimal=[1.0, 1.0]),
    written("Michalewicz", michalewicz, michalewicz_slope, ordinary=[2.1, 1.3]),
    written(
        "Easom",
        easom,
        easom_slope,
        ordinary=[2.6, 3.9],
        optimal=[np.pi, np.pi],
        saturated=[-3.0, 8.5],
    ),
    written("drop wave", drop_wave, drop_wave_slope, **TWO),
    summed(
        "Styblinski-Tang",
        lambda m, x: (x**4 - 16.0 * x**2 + 5.0 * x) / 2.0,
        (lambda x: 2.0 * x**3, lambda x: -16.0 * x, lambda x: 2.5 + 0.0 * x),
        TWO,
        optimal=[-2.9035340277711770] * 2,
        **TINY,
        **HUGE,
    ),
    written(
        "McCormick",
        lambda m, x: m.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1.0,
        lambda x: np.cos(x[0] + x[1]) + 0.0 * x,
        lambda x: 2.0 * (x[0] - x[1]) * np.array([1.0, -1.0]),
        lambda x: np.array([-1.5, 2.5]),
        **TWO,
        **TINY,
    ),
    written(
        "Schaffer",
        lambda m, x: (m.sin(x[0] ** 2 - x[1] ** 2) ** 2 - 0.5) / (1.0 + 0.001 * m.sum(x * x)) ** 2,
        lambda x: (
            2.0
            * np.sin(2.0 * (x[0] ** 2 - x[1] ** 2))
            * np.array([x[0], -x[1]])
            / (1.0 + 0.001 * np.sum(x * x)) ** 2
        ),
        lambda x: (
            -0.004
            * x
            * (np.sin(x[0] ** 2 - x[1] ** 2) ** 2 - 0.5)
            / (1.0 + 0.001 * np.sum(x * x)) ** 3
        ),
        **TWO,
    ),
]

POLYNOMIALS = [
    written(
        "Rosenbrock",
        rosenbrock,
        rosenbrock_slope,
        **FOUR,
        optimal=[1.0] * 4,
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
        huge=[1e6, -2e6, 3e6, 1e6],
    ),
    written(
        "Himmelblau",
        lambda m, x: (x[0] ** 2 + x[1] - 11.0) ** 2 + (x[0] + x[1] ** 2 - 7.0) ** 2,
        lambda x: 2.0 * (x[0] ** 2 + x[1] - 11.0) * np.array([2.0 * x[0], 1.0]),
        lambda x: 2.0 * (x[0] + x[1] ** 2 - 7.0) * np.array([1.0, 2.0 * x[1]]),
        **TWO,
        **TINY,
        **HUGE,
        optimal=[3.0, 2.0],
    ),
    of_residuals(
        "Beale",
        lambda m, x: [c - x[0] * (1.0 - x[1] ** k) for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))],
        lambda x: [[x[1] ** k - 1.0, k * x[0] * x[1] ** (k - 1)] for k in (1, 2, 3)],
        **TWO,
        optimal=[3.0, 0.5],
        **HUGE,
    ),
    of_residuals(
        "Booth",
        lambda m, x: [x[0] + 2.0 * x[1] - 7.0, 2.0 * x[0] + x[1] - 5.0],
        lambda x: [[1.0, 2.0], [2.0, 1.0]],
        **TWO,
        **TINY,
        **HUGE,
        optimal=[1.0, 3.0],
    ),
    written(
        "Matyas",
        lambda m, x: 0.26 * m.sum(x * x) - 0.48 * x[0] * x[1],
        lambda x: 0.52 * x,
        lambda x: -0.48 * x[::-1],
        **TWO,
        **TINY,
        **HUGE,
        optimal=[0.0, 0.0],
    ),
    written(
        "Goldstein-Price",
        goldstein_price,
        goldstein_price_slope,
        **TWO,
        optimal=[0.0, -1.0],
        huge=[1e3, -2e3],
    ),
    written(
        "Branin",
        branin,
        lambda x: (
            2.0
            * (x[1] - 0.129 * x[0] ** 2 + 1.59 * x[0] - 6.0)
            * np.array([-0.258 * x[0] + 1.59, 1.0])
        ),
        lambda x: np.array([-9.6 * np.sin(x[0]), 0.0]),
        ordinary=[2.2, 3.7],
        **TINY,
    ),
    written(
        "three-hump camel",
        lambda m, x: 2.0 * x[0] ** 2 - 1.05 * x[0] ** 4 + x[0] ** 6 / 6.0 + x[0] * x[1] + x[1] ** 2,
        lambda x: np.array([4.0 * x[0] - 4.2 * x[0] ** 3 + x[0] ** 5 + x[1], x[0] + 2.0 * x[1]]),
        **TWO,
        **TINY,
        **HUGE,
        optimal=[0.0, 0.0],
    ),
    written(
        "six-hump camel",
        lambda m, x: (
            (4.0 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3.0) * x[0] ** 2
            + x[0] * x[1]
            + (4.0 * x[1] ** 2 - 4.0) * x[1] ** 2
        ),
        lambda x: np.array(
            [8.0 * x[0] - 8.4 * x[0] ** 3 + 2.0 * x[0] ** 5, 16.0 * x[1] ** 3 - 8.0 * x[1]]
        ),
        lambda x: x[::-1],
        **TWO,
        **TINY,
    ),
    written(
        "Zakharov",
        zakharov,
        lambda x: 2.0 * x,
        lambda x: (lambda s: (s + 2.0 * s**3) * NUMBERS)(NUMBERS @ x / 2.0),
        **FOUR,
        optimal=[0.0] * 4,
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
    ),
    written("Dixon-Price", dixon_price, dixon_price_slope, **FOUR, huge=[1e6, -2e6, 3e6, 1e6]),
    written(
        "different powers",
        lambda m, x: m.sum(m.abs(x[0]) ** 2 + m.abs(x[1]) ** 3),
        lambda x: np.array([2.0 * x[0], 3.0 * x[1] * abs(x[1])]),
        **TWO,
        **HUGE,
    ),
    written(
        "ellipsoid",
        lambda m, x: m.sum(np.array([1.0, 1e2, 1e4, 1e6]) * x * x),
        lambda x: 2.0 * np.array([1.0, 1e2, 1e4, 1e6]) * x,
        **FOUR,
        optimal=[0.0] * 4,
        huge=[1e12, 2e12, -3e12, 1e12],
    ),
    written(
        "Trid",
        lambda m, x: m.sum((x - 1.0) ** 2) - m.sum(x[1:] * x[:-1]),
        lambda x: 2.0 * (x - 1.0),
        lambda x: -np.append(x[1:], 0.0) - np.append(0.0, x[:-1]),
        **FOUR,
        optimal=[4.0, 6.0, 6.0, 4.0],
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
    ),
    written(
        "variably dimensioned",
        lambda m, x: (
            m.sum((x - 1.0) ** 2)
            + m.sum(NUMBERS * (x - 1.0)) ** 2
            + m.sum(NUMBERS * (x - 1.0)) ** 4
        ),
        lambda x: 2.0 * (x - 1.0),
        lambda x: (lambda s: (2.0 * s + 4.0 * s**3) * NUMBERS)(NUMBERS @ (x - 1.0)),
        **FOUR,
        optimal=[1.0] * 4,
    ),
    written(
        "penalty",
        lambda m, x: 1e-5 * m.sum((x - 1.0) ** 2) + (m.sum(x * x) - 0.25) ** 2,
        lambda x: 2e-5 * (x - 1.0),
        lambda x: 4.0 * x * (np.sum(x * x) - 0.25),
        **FOUR,
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
    ),
]

FUNCTIONS = [*WIGGLY, *POLYNOMIALS]
