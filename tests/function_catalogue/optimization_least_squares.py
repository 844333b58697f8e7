"""Test problems of optimization: sums of squares, barriers and penalties."""

from typing import Any

import numpy as np

from tests.function_catalogue.functions import Array, of_residuals, written

TWO = {"ordinary": [0.7, -0.4]}
TINY, HUGE = {"tiny": [1e-13, -2e-13]}, {"huge": [1e6, -2e6]}


def powell_singular(m: Any, x: Array) -> Any:
    return [
        x[0] + 10.0 * x[1],
        np.sqrt(5.0) * (x[2] - x[3]),
        (x[1] - 2.0 * x[2]) ** 2,
        np.sqrt(10.0) * (x[0] - x[3]) ** 2,
    ]


def powell_jacobian(x: Array) -> Any:
    b, d = 2.0 * (x[1] - 2.0 * x[2]), 2.0 * np.sqrt(10.0) * (x[0] - x[3])
    return [
        [1.0, 10.0, 0.0, 0.0],
        [0.0, 0.0, np.sqrt(5.0), -np.sqrt(5.0)],
        [0.0, b, -2.0 * b, 0.0],
        [d, 0.0, 0.0, -d],
    ]


def wood(m: Any, x: Array) -> Any:
    a, b, c, d = x
    return [
        10.0 * (b - a**2),
        1.0 - a,
        np.sqrt(90.0) * (d - c**2),
        1.0 - c,
        np.sqrt(10.0) * (b + d - 2.0),
        (b - d) / np.sqrt(10.0),
    ]


def wood_jacobian(x: Array) -> Any:
    p, q = np.sqrt(90.0), np.sqrt(10.0)
    return [
        [-20.0 * x[0], 10.0, 0.0, 0.0],
        [-1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, -2.0 * p * x[2], p],
        [0.0, 0.0, -1.0, 0.0],
        [0.0, q, 0.0, q],
        [0.0, 1.0 / q, 0.0, -1.0 / q],
    ]


TIMES = np.array([0.1, 0.4, 0.9, 1.6])


def box(m: Any, x: Array) -> Any:
    return list(
        m.exp(-x[0] * TIMES)
        - m.exp(-x[1] * TIMES)
        - x[2] * (np.exp(-TIMES) - np.exp(-10.0 * TIMES))
    )


def box_jacobian(x: Array) -> Any:
    return np.stack(
        [
            -TIMES * np.exp(-x[0] * TIMES),
            TIMES * np.exp(-x[1] * TIMES),
            np.exp(-10.0 * TIMES) - np.exp(-TIMES),
        ],
        axis=1,
    )


HEIGHTS = np.array([0.3, 0.9, 0.7, 0.2])


def bell(m: Any, x: Array) -> Any:
    return list(x[0] * m.exp(-x[1] * (TIMES - x[2]) ** 2 / 2.0) - HEIGHTS)


def bell_jacobian(x: Array) -> Any:
    d = TIMES - x[2]
    e = np.exp(-x[1] * d * d / 2.0)
    return np.stack([e, -x[0] * d * d / 2.0 * e, x[0] * x[1] * d * e], axis=1)


def enzyme(m: Any, x: Array) -> Any:
    return list(HEIGHTS - x[0] * (TIMES**2 + TIMES * x[1]) / (TIMES**2 + TIMES * x[2] + x[3]))


def enzyme_jacobian(x: Array) -> Any:
    n, d = TIMES**2 + TIMES * x[1], TIMES**2 + TIMES * x[2] + x[3]
    return np.stack([-n / d, -x[0] * TIMES / d, x[0] * n * TIMES / d**2, x[0] * n / d**2], axis=1)


def broyden(m: Any, x: Array) -> Any:
    y = m.concatenate([0.0 * x[:1], x, 0.0 * x[:1]])
    return list((3.0 - 2.0 * x) * x - y[:-2] - 2.0 * y[2:] + 1.0)


def broyden_jacobian(x: Array) -> Any:
    n = len(x)
    return np.diag(3.0 - 4.0 * x) - np.eye(n, k=-1) - 2.0 * np.eye(n, k=1)


def trigonometric(m: Any, x: Array) -> Any:
    n = len(x)
    total = m.sum(m.cos(x))
    return [n - total + (i + 1) * (1.0 - m.cos(x[i])) - m.sin(x[i]) for i in range(n)]


def trigonometric_jacobian(x: Array) -> Any:
    n = len(x)
    own = np.arange(1.0, n + 1.0) * np.sin(x) - np.cos(x)
    return np.tile(np.sin(x), (n, 1)) + np.diag(own)


def barrier(m: Any, x: Array) -> Any:
    return x @ np.array([1.0, -0.5]) - m.sum(m.log(x)) - m.log(4.0 - m.sum(x))


SUMS_OF_SQUARES = [
    of_residuals(
        "Powell's singular function",
        powell_singular,
        powell_jacobian,
        ordinary=[3.0, -1.0, 0.2, 1.0],
        optimal=[0.0] * 4,
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
    ),
    of_residuals("Wood", wood, wood_jacobian, ordinary=[-3.0, -1.0, -3.0, -1.5], optimal=[1.0] * 4),
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
    of_residuals("Box", box, box_jacobian, ordinary=[0.5, 8.0, 1.7], optimal=[1.0, 10.0, 1.0]),
    of_residuals(
        "bell curve", bell, bell_jacobian, ordinary=[0.8, 1.3, 0.6], saturated=[0.8, 1.3, 9.0]
    ),
    of_residuals(
        "Kowalik-Osborne",
        enzyme,
        enzyme_jacobian,
        ordinary=[0.25, 0.39, 0.41, 0.39],
        huge=[0.25, 1e6, 2e6, 0.39],
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
    of_residuals(
        "trigonometric",
        trigonometric,
        trigonometric_jacobian,
        ordinary=[0.25, 0.3, -0.2, 0.9],
        optimal=[0.0] * 4,
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
    ),
    of_residuals(
        "Freudenstein-Roth",
        lambda m, x: [
            x[0] - 13.0 + ((5.0 - x[1]) * x[1] - 2.0) * x[1],
            x[0] - 29.0 + ((x[1] + 1.0) * x[1] - 14.0) * x[1],
        ],
        lambda x: [
            [1.0, 10.0 * x[1] - 3.0 * x[1] ** 2 - 2.0],
            [1.0, 3.0 * x[1] ** 2 + 2.0 * x[1] - 14.0],
        ],
        ordinary=[0.5, -2.0],
        optimal=[5.0, 4.0],
    ),
    of_residuals(
        "Jennrich-Sampson",
        lambda m, x: [2.0 + 2.0 * i - m.exp(i * x[0]) - m.exp(i * x[1]) for i in range(1, 6)],
        lambda x: [[-i * np.exp(i * x[0]), -i * np.exp(i * x[1])] for i in range(1, 6)],
        ordinary=[0.3, 0.4],
        tiny=[1e-13, 2e-13],
    ),
    of_residuals(
        "Meyer",
        lambda m, x: [
            x[0] * m.exp(x[1] / (t + x[2])) - y
            for t, y in ((50.0, 34780.0), (80.0, 16370.0), (125.0, 3307.0))
        ],
        lambda x: [
            [
                np.exp(x[1] / (t + x[2])),
                x[0] / (t + x[2]) * np.exp(x[1] / (t + x[2])),
                -x[0] * x[1] / (t + x[2]) ** 2 * np.exp(x[1] / (t + x[2])),
            ]
            for t in (50.0, 80.0, 125.0)
        ],
        ordinary=[0.02, 4000.0, 250.0],
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
        "maximum entropy",
        lambda m, p: m.sum(p * m.log(p)) + 5.0 * (m.sum(p) - 1.0) ** 2,
        lambda p: np.log(p) + 1.0,
        lambda p: 10.0 * (np.sum(p) - 1.0) + 0.0 * p,
        ordinary=[0.2, 0.5, 0.4],
        tiny=[1e-13, 2e-13, 5e-13],
    ),
    written(
        "augmented Lagrangian",
        lambda m, x: x[0] + x[1] + 0.8 * (m.sum(x * x) - 2.0) + 5.0 * (m.sum(x * x) - 2.0) ** 2,
        lambda x: 1.0 + 0.0 * x,
        lambda x: 1.6 * x + 20.0 * x * (np.sum(x * x) - 2.0),
        **TWO,
        **TINY,
        huge=[1e6, -2e6],
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

FUNCTIONS = [*SUMS_OF_SQUARES, *CONSTRAINED]
