"""Numeric derivatives beside numdifftools and SciPy, as a table: evaluations, errors, and bars.

The truth is mpmath's derivative of the same formula at 50 digits, at the same float64 numbers. Every
library uses its defaults. An error is relative to the largest entry, with each entry measured in
units of its parameter. A failure counts as an infinite error.
"""

import itertools
import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx

DIGITS, POINTS = 50, 12
TIMES, LEVELS = (0.5, 1.0, 2.0, 4.0), (1.3, 0.7, 0.4, 0.1)


def _fit(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return the sum of squares of a model at four times."""

    def loss(m: Any, p: Any) -> Any:
        return sum((model(m, p, t) - y) ** 2 for t, y in zip(TIMES, LEVELS, strict=True))

    return loss


# Functions of three positive parameters of size 1, for NumPy and mpmath.
FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "products": lambda m, p: m.exp(p[0] * p[1]) + m.sin(p[2]) * p[0] ** 2,
    "logarithms": lambda m, p: m.log(p[0] + p[1]) / p[2] + p[0] * m.log(p[0]),
    "fractions": lambda m, p: p[0] / (1 + p[1] ** 2) + 1 / (p[2] + p[0]),
    "powers": lambda m, p: p[0] ** 2.5 * p[1] ** -1.5 + p[2] ** 0.3,
    "waves": lambda m, p: m.cos(3 * p[0]) * m.sin(p[1]) + m.sin(p[0] * p[2]),
    "distance": lambda m, p: m.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2),
    "Rosenbrock": lambda m, p: sum(
        100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(p)
    ),
    "logistic": lambda m, p: sum(
        m.log(1 + m.exp(-(a * p[0] + b * p[1] + p[2]))) for a, b in ((1, 2), (-0.5, 1), (0.2, -1))
    ),
    "network": lambda m, p: (m.tanh(p[0] * m.tanh(p[1] + 0.5)) * p[2] - 0.3) ** 2,
    "normal likelihood": lambda m, p: sum(
        m.log(p[1]) + (y - p[0]) ** 2 / (2 * p[1] ** 2) for y in LEVELS
    )
    + p[2] ** 2,
    "decay": _fit(lambda m, p, t: p[0] * m.exp(-p[1] * t) + p[2]),
    "oscillator": _fit(lambda m, p, t: p[0] * m.exp(-0.3 * t) * m.cos(p[1] * t + p[2])),
    "saturation": _fit(lambda m, p, t: p[0] * t / (p[1] + t) + p[2] * t),
    "peak": _fit(lambda m, p, t: p[0] * m.exp(-(((t - p[1]) / p[2]) ** 2))),
    "Lennard-Jones": lambda m, p: 4 * p[0] * ((p[1] / (2 * p[2])) ** 12 - (p[1] / (2 * p[2])) ** 6),
    "Planck": lambda m, p: p[0] ** 3 / (m.exp(p[0] / p[1]) - 1) * p[2],
}
Value = Callable[[Any], Any]


class Case(NamedTuple):
    """A value of NumPy's points, a point, and the derivatives by mpmath."""

    value: Value
    point: np.ndarray
    exact: np.ndarray


def _gradient(formula: Callable[[Any, Any], Any], point: np.ndarray) -> list[float]:
    with mpmath.workdps(DIGITS):
        x, rows = [mpmath.mpf(v) for v in point.tolist()], np.eye(point.size, dtype=int).tolist()
        return [mpmath.diff(lambda *p: formula(mpmath, p), x, tuple(row)) for row in rows]


def _hessian(formula: Callable[[Any, Any], Any], point: np.ndarray) -> np.ndarray:
    with mpmath.workdps(DIGITS):
        x, rows = [mpmath.mpf(v) for v in point.tolist()], np.eye(point.size, dtype=int)
        orders = [[tuple((a + b).tolist()) for b in rows] for a in rows]
        return np.asarray(
            [[float(mpmath.diff(lambda *p: formula(mpmath, p), x, o)) for o in r] for r in orders]
        )


def _scaled(formula: Callable[[Any, Any], Any], scale: np.ndarray) -> Callable[[Any, Any], Any]:
    scales = scale.tolist()
    return lambda m, p: formula(m, [a / s for a, s in zip(p, scales, strict=True)])


def _tilted(formula: Callable[[Any, Any], Any], point: np.ndarray) -> Callable[[Any, Any], Any]:
    """Return a formula plus a linear term that moves an optimum to the point."""
    slopes = [float(slope) for slope in _gradient(formula, point)]
    return lambda m, p: formula(m, p) - sum(s * a for s, a in zip(slopes, p, strict=True))


def _cases(kind: str) -> list[Case]:
    """Return the cases of a row of the table."""
    draw, cases = np.random.default_rng(7), []
    convert = CONVERSIONS.get(kind, float)
    for formula in FORMULAS.values():
        for _ in range(POINTS):
            f, x = formula, np.exp(draw.normal(0.0, 0.5, 3))
            if kind == "entries of 1e-20 to 1e20":
                scale = 10.0 ** draw.uniform(-20.0, 20.0, 3)
                f, x = _scaled(f, scale), x * scale
            if kind == "near an optimum":
                f, x = _tilted(f, x), x * (1.0 + 1e-4 * draw.normal(size=3))
            exact = _hessian(f, x) if kind == "Hessians" else np.float64(_gradient(f, x))
            cases.append(Case(lambda p, f=f: convert(f(np, p)), x, exact))
    return cases


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "complex numbers accepted": lambda v: v,
    "rounded to 8 digits": lambda v: float(f"{float(v):.8g}"),
    "float32": np.float32,
}
KINDS = ["float", *CONVERSIONS, "entries of 1e-20 to 1e20", "near an optimum", "Hessians"]


class Answer(NamedTuple):
    """Derivatives and their error bars; the evaluations are counted from outside."""

    value: np.ndarray
    bar: np.ndarray


def ours(case: Case) -> Answer:
    function = bx.numeric_hessian if case.exact.ndim == 2 else bx.numeric_gradient
    return Answer(*function(case.value, case.point)[:2])


def numdifftools(case: Case) -> Answer:
    library = import_module("numdifftools")
    method = library.Hessian if case.exact.ndim == 2 else library.Gradient
    found = method(case.value, full_output=True)(case.point)
    bar = np.reshape(found.error_estimate, -1)
    return Answer(found.estimate, np.resize(bar, case.exact.shape))


def scipy(case: Case) -> Answer:
    library = import_module("scipy.differentiate")
    method = library.hessian if case.exact.ndim == 2 else library.jacobian
    found = method(lambda p: np.apply_along_axis(case.value, 0, p), case.point)
    return Answer(found.ddf if case.exact.ndim == 2 else found.df, found.error)


LIBRARIES = {"backprop_xp": ours, "numdifftools": numdifftools, "scipy": scipy}


def row(kind: str, library: str, cases: list[Case]) -> str:
    """Return a row of the table: evaluations for each entry, errors, and how many bars hold."""
    counts, errors, holds = [], [], []
    for case in cases:
        calls: list[Any] = []
        counted = case._replace(value=lambda p, f=case.value, c=calls: c.append(p) or f(p))
        with np.errstate(all="ignore"):
            found = LIBRARIES[library](counted)
            error = np.abs(found.value - case.exact)
            units = case.point if case.exact.ndim == 1 else np.outer(case.point, case.point)
            relative = error * units / np.max(np.abs(case.exact) * units)
        counts.append(len(calls) / case.exact.size)
        errors += np.nan_to_num(relative, nan=math.inf, posinf=math.inf).ravel().tolist()
        holds += (error <= found.bar).ravel().tolist()
    median, most = np.quantile(errors, [0.5, 0.95], method="higher").tolist()
    words = f"{np.mean(counts):.1f} | {median:.0e} | {most:.0e} | {100 * np.mean(holds):.1f} %"
    return f"| {kind} | {library} | {words} |"


@pytest.mark.filterwarnings("ignore")  # of steps outside of the domain
def test_numeric_derivatives_beside_other_libraries(
    benchmark: BenchmarkFixture, show: Callable[[str], None]
) -> None:
    libraries = [name for name in LIBRARIES if find_spec(name)]

    def rows() -> list[str]:
        found = []
        for kind in KINDS:
            cases = _cases(kind)
            found += [row(kind, library, cases) for library in libraries]
        return found

    lines = benchmark.pedantic(rows, rounds=1)
    head = "| values | library | evaluations | median error | 95 % | bars that hold |"
    show("\n".join([head, "|---" * 6 + "|", *lines]))
