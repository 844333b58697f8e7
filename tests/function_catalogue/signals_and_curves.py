"""Factorizations, FFT, filters, splines and fits."""

from typing import Any

import mpmath as mp
import numpy as np
from scipy import fft, interpolate

from tests.function_catalogue.functions import Array, known, written

DATA = np.array([[1.2, 0.4, 0.9, 2.1], [0.3, 1.8, 0.7, 0.5], [1.1, 0.6, 1.5, 0.2]])
TENSOR = np.arange(1.0, 13.0).reshape(3, 2, 2) / 7.0
SIGNAL = np.array([0.4, -1.1, 0.9, 2.3, -0.6, 0.2])

FREQUENCIES = np.array([1.0, 0.5, 2.0, 0.3, 2.0, 0.5])


def factors(m: Any, p: Array) -> Any:
    """``DATA (3, 4)`` as a product of rank 2, ``p (7, 2)``."""
    return m.sum((p[:3] @ p[3:].T - DATA) ** 2) / 2.0


def factor_slope(p: Array) -> Any:
    r = p[:3] @ p[3:].T - DATA
    return np.concatenate([r @ p[3:], r.T @ p[:3]])


def divergence_of_factors(m: Any, p: Array) -> Any:
    """The generalized Kullback-Leibler divergence of a non-negative factorization."""
    z = p[:3] @ p[3:].T
    return m.sum(z - DATA * m.log(z))


def divergence_slope(p: Array) -> Any:
    r = 1.0 - DATA / (p[:3] @ p[3:].T)
    return np.concatenate([r @ p[3:], r.T @ p[:3]])


def tensor(m: Any, p: Array) -> Any:
    """A tensor of rank 1, ``p = (a (3,), b (2,), c (2,))``."""
    a, b, c = p[:3], p[3:5], p[5:]
    return m.sum((a[:, None, None] * b[None, :, None] * c - TENSOR) ** 2) / 2.0


def tensor_slope(p: Array) -> Any:
    a, b, c = p[:3], p[3:5], p[5:]
    r = np.einsum("i,j,k->ijk", a, b, c) - TENSOR
    return np.concatenate(
        [
            np.einsum("ijk,j,k->i", r, b, c),
            np.einsum("ijk,i,k->j", r, a, c),
            np.einsum("ijk,i,j->k", r, a, b),
        ]
    )


def convolution(m: Any, x: Array) -> Any:
    return m.sum((sum(c * m.roll(x, k) for k, c in enumerate([0.5, 1.2, -0.4])) - SIGNAL) ** 2)


def convolution_slope(x: Array) -> Any:
    kernel = [0.5, 1.2, -0.4]
    r = 2.0 * (sum(c * np.roll(x, k) for k, c in enumerate(kernel)) - SIGNAL)
    return sum(c * np.roll(r, -k) for k, c in enumerate(kernel))


def exact_power(x: Array, weights: Any = FREQUENCIES) -> Any:
    """The weighted power spectrum by sums of cosines and sines."""
    n = len(x)
    angles = [[2 * mp.pi * j * k / n for j in range(n)] for k in range(n)]
    cosines = [sum(t * mp.cos(a) for t, a in zip(x, row, strict=True)) for row in angles]
    sines = [sum(t * mp.sin(a) for t, a in zip(x, row, strict=True)) for row in angles]
    return sum(w * (c * c + s * s) for w, c, s in zip(weights, cosines, sines, strict=True))


def exact_dct(x: Array) -> Any:
    n = len(x)
    rows = [
        sum(2 * t * mp.cos(mp.pi * k * (2 * j + 1) / (2 * n)) for j, t in enumerate(x))
        for k in range(n)
    ]
    return sum(r**4 for r in rows) / 100


KNOTS, INSIDE = np.array([0.0, 1.0, 2.0, 3.5, 4.0, 5.0]), np.array([0.3, 1.4, 2.9, 4.6])
BASIS = interpolate.CubicSpline(KNOTS, np.eye(6))
SPLINE = interpolate.CubicSpline(KNOTS, SIGNAL)
B_SPLINE = interpolate.BSpline(np.array([0.0] * 4 + [1.0, 2.5] + [5.0] * 4), SIGNAL, 3)
DESIGN = interpolate.BSpline.design_matrix(INSIDE, B_SPLINE.t, 3).toarray()
DESIRED = np.array([0.5, 1.0, -0.4, 0.8])
SIX = {"ordinary": [0.3, 0.8, -0.5, 1.1, 0.6, -0.9]}
SMALL, LARGE = 1e-13 * np.array(SIX["ordinary"]), 1e9 * np.array(SIX["ordinary"])


def piece(spline: Any, x: Any) -> Any:
    """A spline's value at an mpf, from the coefficients of the piece."""
    i = int(np.searchsorted(spline.x, float(x), side="right")) - 1
    i = min(max(i, 0), len(spline.x) - 2)
    return sum(c * (x - spline.x[i]) ** (3 - k) for k, c in enumerate(spline.c[:, i]))


def of_spline(spline: Any) -> Any:
    return lambda x: sum(piece(spline, t) for t in x)


PIECES = interpolate.PPoly.from_spline(B_SPLINE)
PCHIP, AKIMA = (
    f(KNOTS, SIGNAL) for f in (interpolate.PchipInterpolator, interpolate.Akima1DInterpolator)
)
FACTORS = np.array(
    [[0.9, 0.4], [0.5, 1.3], [1.1, 0.2], [0.7, 0.3], [0.2, 0.8], [1.4, 0.6], [0.3, 0.9]]
)
FACTORIZATIONS = [
    written(
        "factorization",
        factors,
        factor_slope,
        ordinary=FACTORS,
        huge=1e6 * FACTORS,
        tiny=1e-13 * FACTORS,
    ),
    written(
        "factorization with a penalty",
        lambda m, p: factors(m, p) + 0.1 * m.sum(p * p),
        factor_slope,
        lambda p: 0.2 * p,
        ordinary=FACTORS,
    ),
    written(
        "non-negative factorization", divergence_of_factors, divergence_slope, ordinary=FACTORS
    ),
    written(
        "tensor of rank 1", tensor, tensor_slope, ordinary=[0.4, 1.1, 0.7, 0.6, 1.3, 0.9, -0.5]
    ),
    written(
        "principal component",
        lambda m, v: m.sum((DATA.T - m.outer(DATA.T @ v, v)) ** 2),
        lambda v: -4.0 * DATA @ DATA.T @ v,
        lambda v: 2.0 * (v @ v) * DATA @ DATA.T @ v + 2.0 * (v @ DATA @ DATA.T @ v) * v,
        ordinary=[0.4, -0.9, 1.2],
        optimal=np.linalg.svd(DATA)[0][:, 0],
    ),
]

SIGNALS_AND_CURVES = [
    written("convolution", convolution, convolution_slope, **SIX, tiny=SMALL, huge=LARGE),
    known(
        "power spectrum",
        lambda x: np.sum(FREQUENCIES * np.abs(np.fft.fft(x)) ** 2),
        lambda x: 2.0 * 6.0 * np.fft.ifft(FREQUENCIES * np.fft.fft(x)).real,
        exact_power,
        **SIX,
        tiny=SMALL,
        huge=LARGE,
    ),
    known(
        "filter by FFT",
        lambda x: np.sum((np.fft.ifft(FREQUENCIES * np.fft.fft(x)) - SIGNAL).real ** 2),
        lambda x: (
            2.0
            * np.fft.ifft(
                FREQUENCIES * np.fft.fft(np.fft.ifft(FREQUENCIES * np.fft.fft(x)).real - SIGNAL)
            ).real
        ),
        lambda x: (
            lambda c: sum(
                (sum(c[(i - j) % 6] * x[j] for j in range(6)) - SIGNAL[i]) ** 2 for i in range(6)
            )
        )(
            [
                sum(f * mp.cos(2 * mp.pi * k * j / 6) for k, f in enumerate(FREQUENCIES)) / 6
                for j in range(6)
            ]
        ),
        **SIX,
        tiny=SMALL,
        huge=LARGE,
    ),
    known(
        "rfft",
        lambda x: np.sum(np.abs(np.fft.rfft(x)) ** 2),
        lambda x: (
            2.0 * 6.0 * np.fft.ifft(np.array([1.0, 0.5, 0.5, 1.0, 0.5, 0.5]) * np.fft.fft(x)).real
        ),
        lambda x: exact_power(x, [1, 0.5, 0.5, 1, 0.5, 0.5]),
        **SIX,
    ),
    known(
        "DCT",
        lambda x: np.sum(fft.dct(x) ** 4) / 100.0,
        lambda x: (
            lambda r: (
                2.0
                * np.cos(np.pi * np.outer(2.0 * np.arange(6.0) + 1.0, np.arange(6.0)) / 12.0)
                @ r
            )
        )(4.0 * fft.dct(x) ** 3 / 100.0),
        exact_dct,
        **SIX,
        huge=LARGE,
    ),
    written(
        "total variation, smooth",
        lambda m, x: m.sum(m.sqrt(m.diff(x) ** 2 + 1e-4)),
        lambda x: -np.diff(np.diff(x) / np.sqrt(np.diff(x) ** 2 + 1e-4), prepend=0.0, append=0.0),
        **SIX,
        huge=[1e9, 8e9, -5e9, 1e10, 2e10, -9e9],
        rough={"huge"},
    ),
    written(
        "smoothing",
        lambda m, x: m.sum((x - SIGNAL) ** 2) + 3.0 * m.sum(m.diff(x, n=2) ** 2),
        lambda x: 2.0 * (x - SIGNAL),
        lambda x: 6.0 * np.diff(np.diff(x, n=2), n=2, prepend=[0.0] * 2, append=[0.0] * 2),
        **SIX,
        tiny=SMALL,
    ),
    written(
        "cumulative sum",
        lambda m, x: m.sum((m.cumsum(x) - SIGNAL) ** 2),
        lambda x: np.cumsum((2.0 * (np.cumsum(x) - SIGNAL))[::-1])[::-1],
        **SIX,
        huge=LARGE,
    ),
    written(
        "autocorrelation",
        lambda m, x: m.sum(x * m.roll(x, 2)),
        lambda x: np.roll(x, 2) + np.roll(x, -2),
        **SIX,
        tiny=SMALL,
    ),
    written(
        "polynomial fit",
        lambda m, c: m.sum((c[0] + INSIDE * (c[1] + INSIDE * c[2]) - DESIRED) ** 2),
        lambda c: (lambda v: v.T @ (2.0 * (v @ c - DESIRED)))(
            np.stack([INSIDE**0.0, INSIDE, INSIDE**2], axis=1)
        ),
        ordinary=[0.4, -0.9, 0.2],
        optimal=np.polyfit(INSIDE, DESIRED, 2)[::-1],
        huge=[1e9, -2e9, 3e9],
    ),
    written(
        "rational fit",
        lambda m, c: m.sum(((c[0] + c[1] * INSIDE) / (1.0 + c[2] * INSIDE) - DESIRED) ** 2),
        lambda c: (
            lambda q, p, r: np.array(
                [
                    2.0 * np.sum(r / q),
                    2.0 * np.sum(r * INSIDE / q),
                    -2.0 * np.sum(r * p * INSIDE / q**2),
                ]
            )
        )(
            1.0 + c[2] * INSIDE,
            c[0] + c[1] * INSIDE,
            (c[0] + c[1] * INSIDE) / (1.0 + c[2] * INSIDE) - DESIRED,
        ),
        ordinary=[0.4, -0.9, 0.2],
    ),
    known(
        "CubicSpline",
        lambda x: np.sum(SPLINE(x)),
        lambda x: SPLINE(x, 1),
        of_spline(SPLINE),
        ordinary=[0.3, 2.9, 4.6],
        tiny=[1e-13, 2e-13, 3e-13],
    ),
    known(
        "BSpline",
        lambda x: np.sum(B_SPLINE(x)),
        lambda x: B_SPLINE(x, 1),
        of_spline(PIECES),
        ordinary=[0.3, 1.9, 4.1],
    ),
    known(
        "PchipInterpolator",
        lambda x: np.sum(PCHIP(x)),
        lambda x: PCHIP(x, 1),
        of_spline(PCHIP),
        ordinary=[0.3, 2.9, 4.6],
    ),
    known(
        "Akima1DInterpolator",
        lambda x: np.sum(AKIMA(x)),
        lambda x: AKIMA(x, 1),
        of_spline(AKIMA),
        ordinary=[0.3, 2.9, 4.6],
    ),
    known(
        "CubicSpline by its values",
        lambda y: np.sum((interpolate.CubicSpline(KNOTS, y)(INSIDE) - DESIRED) ** 2),
        lambda y: 2.0 * BASIS(INSIDE).T @ (BASIS(INSIDE) @ y - DESIRED),
        lambda y: sum(r**2 for r in BASIS(INSIDE) @ y - DESIRED),
        **SIX,
        huge=LARGE,
    ),
    known(
        "BSpline by its coefficients",
        lambda c: np.sum((interpolate.BSpline(B_SPLINE.t, c, 3)(INSIDE) - DESIRED) ** 2),
        lambda c: 2.0 * DESIGN.T @ (DESIGN @ c - DESIRED),
        lambda c: sum(r**2 for r in DESIGN @ c - DESIRED),
        **SIX,
    ),
    written(
        "Bernstein polynomial",
        lambda m, c: m.sum(
            (
                np.array(
                    [
                        [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3]
                        for t in (0.2, 0.5, 0.9)
                    ]
                )
                @ c
                - 1.0
            )
            ** 2
        ),
        lambda c: (lambda b: 2.0 * b.T @ (b @ c - 1.0))(
            np.array(
                [
                    [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3]
                    for t in (0.2, 0.5, 0.9)
                ]
            )
        ),
        ordinary=[0.4, -0.9, 1.2, 0.3],
        tiny=[1e-13, -2e-13, 3e-13, 1e-13],
    ),
]

FUNCTIONS = [*FACTORIZATIONS, *SIGNALS_AND_CURVES]
