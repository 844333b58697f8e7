"""Test problems of optimization."""

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


def easom(m: Any, x: Array) -> Any:
    return -m.cos(x[0]) * m.cos(x[1]) * m.exp(-m.sum((x - np.pi) ** 2))


def easom_slope(x: Array) -> Any:
    e = np.exp(-np.sum((x - np.pi) ** 2))
    c, s = np.cos(x), np.sin(x)
    return e * np.array([s[0] * c[1], c[0] * s[1]]) + 2.0 * (x - np.pi) * c[0] * c[1] * e


WIGGLY = [
    written("Ackley", ackley, ackley_near, ackley_waves, **TWO, **TINY),
    written(
        "Easom",
        easom,
        easom_slope,
        ordinary=[2.6, 3.9],
        optimal=[np.pi, np.pi],
        saturated=[-3.0, 8.5],
    ),
    summed(
        "Styblinski-Tang",
        lambda m, x: (x**4 - 16.0 * x**2 + 5.0 * x) / 2.0,
        (lambda x: 2.0 * x**3, lambda x: -16.0 * x, lambda x: 2.5 + 0.0 * x),
        TWO,
        optimal=[-2.9035340277711770] * 2,
        **TINY,
        **HUGE,
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
]

TIMES = np.array([0.1, 0.4, 0.9, 1.6])
HEIGHTS = np.array([0.3, 0.9, 0.7, 0.2])


def bell(m: Any, x: Array) -> Any:
    return list(x[0] * m.exp(-x[1] * (TIMES - x[2]) ** 2 / 2.0) - HEIGHTS)


def bell_jacobian(x: Array) -> Any:
    d = TIMES - x[2]
    e = np.exp(-x[1] * d * d / 2.0)
    return np.stack([e, -x[0] * d * d / 2.0 * e, x[0] * x[1] * d * e], axis=1)


def broyden(m: Any, x: Array) -> Any:
    y = m.concatenate([0.0 * x[:1], x, 0.0 * x[:1]])
    return list((3.0 - 2.0 * x) * x - y[:-2] - 2.0 * y[2:] + 1.0)


def broyden_jacobian(x: Array) -> Any:
    n = len(x)
    return np.diag(3.0 - 4.0 * x) - np.eye(n, k=-1) - 2.0 * np.eye(n, k=1)


def barrier(m: Any, x: Array) -> Any:
    return x @ np.array([1.0, -0.5]) - m.sum(m.log(x)) - m.log(4.0 - m.sum(x))


SUMS_OF_SQUARES = [
    of_residuals(
        "Brown badly scaled",
        lambda m, x: [x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0],
        lambda x: [[1.0, 0.0], [0.0, 1.0], [x[1], x[0]]],
        ordinary=[1.3, 0.7],
        optimal=[1e6, 2e-6],
        huge=[2e6, 3e-6],
    ),
    of_residuals(
        "Powell badly scaled",
        lambda m, x: [1e4 * x[0] * x[1] - 1.0, m.exp(-x[0]) + m.exp(-x[1]) - 1.0001],
        lambda x: [[1e4 * x[1], 1e4 * x[0]], [-np.exp(-x[0]), -np.exp(-x[1])]],
        ordinary=[0.2, 1.0],
        tiny=[1e-5, 9.1],
    ),
    of_residuals(
        "bell curve", bell, bell_jacobian, ordinary=[0.8, 1.3, 0.6], saturated=[0.8, 1.3, 9.0]
    ),
    of_residuals(
        "Broyden tridiagonal",
        broyden,
        broyden_jacobian,
        ordinary=[-1.0, -0.7, 0.4, -1.3],
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
        huge=[1e6, -2e6, 3e6, 1e6],
        rough={"tiny"},
    ),
]

CONSTRAINED = [
    written(
        "log barrier",
        barrier,
        lambda x: np.array([1.0, -0.5]),
        lambda x: -1.0 / x + 1.0 / (4.0 - np.sum(x)),
        ordinary=[0.7, 1.9],
        tiny=[1e-13, 2e-13],
    ),
    written(
        "geometric program",
        lambda m, y: m.log(m.exp(y[0] - 2.0 * y[1]) + 3.0 * m.exp(y[1]) + 0.5 * m.exp(-y[0])),
        lambda y: (lambda a, b, c: np.array([a - c, -2.0 * a + b]) / (a + b + c))(
            np.exp(y[0] - 2.0 * y[1]), 3.0 * np.exp(y[1]), 0.5 * np.exp(-y[0])
        ),
        **TWO,
        saturated=[30.0, 1.0],
    ),
    written(
        "portfolio",
        lambda m, w: (
            w @ np.array([[0.04, 0.01], [0.01, 0.09]]) @ w
            - 0.3 * m.sum(np.array([0.05, 0.08]) * w)
            + 0.002 * m.sum(m.abs(w))
        ),
        lambda w: 2.0 * np.array([[0.04, 0.01], [0.01, 0.09]]) @ w,
        lambda w: -np.array([0.015, 0.024]),
        lambda w: 0.002 * np.sign(w),
        **TWO,
        **TINY,
    ),
]


FUNCTIONS = [*WIGGLY, *POLYNOMIALS, *SUMS_OF_SQUARES, *CONSTRAINED]
