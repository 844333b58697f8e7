"""Numeric derivatives beside numdifftools and SciPy, as a table: evaluations, errors, and bars.

The truth is mpmath's derivative of the same formula at the same numbers, with 50 digits. Every
library uses its defaults. An error is relative to the largest entry, with each entry measured in
units of its parameter. A failure counts as an infinite error.
"""

import itertools
import math
from collections.abc import Callable, Iterator
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


# Models of a time, with three positive parameters of size 1, for NumPy and mpmath.
MODELS: dict[str, Callable[[Any, Any, float], Any]] = {
    "decay": lambda m, p, t: p[0] * m.exp(-p[1] * t) + p[2],
    "oscillator": lambda m, p, t: p[0] * m.exp(-0.3 * t) * m.cos(p[1] * t + p[2]),
    "saturation": lambda m, p, t: p[0] * t / (p[1] + t) + p[2] * t,
    "peak": lambda m, p, t: p[0] * m.exp(-(((t - p[1]) / p[2]) ** 2)),
}


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
    "normal likelihood": lambda m, p: (
        sum(m.log(p[1]) + (y - p[0]) ** 2 / (2 * p[1] ** 2) for y in LEVELS) + p[2] ** 2
    ),
    "Lennard-Jones": lambda m, p: 4 * p[0] * ((p[1] / (2 * p[2])) ** 12 - (p[1] / (2 * p[2])) ** 6),
    "Planck": lambda m, p: p[0] ** 3 / (m.exp(p[0] / p[1]) - 1) * p[2],
    **{name: _fit(model) for name, model in MODELS.items()},
}
Value = Callable[[Any], Any]


class Case(NamedTuple):
    """A value of NumPy's points, a point, and the derivatives by mpmath: which ones."""

    value: Value
    point: np.ndarray
    exact: np.ndarray
    which: str = "Gradient"


def _derivatives(formula: Callable[[Any, Any], Any], point: np.ndarray, order: int) -> np.ndarray:
    """Return mpmath's gradient or Hessian."""
    rows = np.eye(point.size, dtype=int)
    with mpmath.workdps(DIGITS):
        x = [mpmath.mpf(number) for number in point.tolist()]

        def exact(orders: np.ndarray) -> float:
            return float(mpmath.diff(lambda *p: formula(mpmath, p), x, tuple(orders.tolist())))

        if order == 1:
            return np.asarray([exact(row) for row in rows])
        return np.asarray([[exact(a + b) for b in rows] for a in rows])


def _scaled(formula: Callable[[Any, Any], Any], scale: np.ndarray) -> Callable[[Any, Any], Any]:
    scales = scale.tolist()
    return lambda m, p: formula(m, [a / s for a, s in zip(p, scales, strict=True)])


def _tilted(formula: Callable[[Any, Any], Any], point: np.ndarray) -> Callable[[Any, Any], Any]:
    """Return a formula plus a linear term that moves an optimum to the point."""
    slopes = _derivatives(formula, point, 1).tolist()
    return lambda m, p: formula(m, p) - sum(s * a for s, a in zip(slopes, p, strict=True))


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "complex numbers accepted": lambda v: v,
    "rounded to 8 digits": lambda v: float(f"{float(v):.8g}"),
    "float32": np.float32,
}
GRADIENTS = ["float", *CONVERSIONS, "entries of 1e-20 to 1e20", "near an optimum"]


def _cases(kind: str) -> Iterator[Case]:
    """Yield the cases of a row of the table."""
    draw, convert = np.random.default_rng(7), CONVERSIONS.get(kind, float)
    for formula in FORMULAS.values() if kind != "Jacobian" else ():
        for _ in range(POINTS):
            f, x = formula, np.exp(draw.normal(0.0, 0.5, 3))
            if kind == "entries of 1e-20 to 1e20":
                scale = 10.0 ** draw.uniform(-20.0, 20.0, 3)
                f, x = _scaled(f, scale), x * scale
            if kind == "near an optimum":
                f, x = _tilted(f, x), x * (1.0 + 1e-4 * draw.normal(size=3))
            value = lambda p, f=f: convert(f(np, p))  # noqa: E731
            if kind == "Hessian":
                yield Case(value, x, _derivatives(f, x, 2), kind)
            else:
                yield Case(value, x, _derivatives(f, x, 1))
    for model in MODELS.values() if kind == "Jacobian" else ():
        for _ in range(4 * POINTS):
            x, several = np.exp(draw.normal(0.0, 0.5, 3)), [_at(model, t) for t in TIMES]
            exact = np.stack([_derivatives(f, x, 1) for f in several])
            yield Case(
                lambda p, s=several: np.asarray([f(np, p) for f in s], float), x, exact, kind
            )


def _at(model: Callable[[Any, Any, float], Any], t: float) -> Callable[[Any, Any], Any]:
    return lambda m, p: model(m, p, t)


class Answer(NamedTuple):
    """Derivatives and their error bars; the evaluations are counted from outside."""

    value: np.ndarray
    bar: np.ndarray


def ours(case: Case) -> Answer:
    return Answer(*getattr(bx, f"numeric_{case.which.lower()}")(case.value, case.point)[:2])


def numdifftools(case: Case) -> Answer:
    method = getattr(import_module("numdifftools"), case.which)
    found = method(case.value, full_output=True)(case.point)
    return Answer(found.estimate, np.resize(found.error_estimate, case.exact.shape))


def scipy(case: Case) -> Answer:
    library = import_module("scipy.differentiate")
    method = library.hessian if case.which == "Hessian" else library.jacobian
    found = method(lambda p: np.apply_along_axis(case.value, 0, p), case.point)
    return Answer(found.ddf if case.which == "Hessian" else found.df, found.error)


LIBRARIES = {"backprop_xp": ours, "numdifftools": numdifftools, "scipy": scipy}


def row(kind: str, library: str, cases: list[Case]) -> str:
    """Return a row of the table: evaluations for each entry, errors, and how many bars hold."""
    counts, errors, bars, holds = [], [], [], []
    for case in cases:
        calls: list[Any] = []
        counted = case._replace(value=lambda p, f=case.value, c=calls: c.append(p) or f(p))
        with np.errstate(all="ignore"):
            found = LIBRARIES[library](counted)
            error = np.abs(found.value - case.exact)
            is_square = case.which == "Hessian"
            units = np.outer(case.point, case.point) if is_square else case.point
            largest = np.max(np.abs(case.exact) * units)
            errors += (np.nan_to_num(error, nan=math.inf) * units / largest).ravel().tolist()
            bars += (np.nan_to_num(found.bar, nan=math.inf) * units / largest).ravel().tolist()
        counts.append(len(calls) / case.point.size ** (2 if is_square else 1))
        holds += (error <= found.bar).ravel().tolist()
    numbers = np.quantile(errors, [0.5, 0.95], method="higher").tolist()
    cells = [f"{np.mean(counts):.1f}", *(f"{n:.1e}" for n in numbers), f"{np.median(bars):.0e}"]
    return f"| {kind} | {library} | {' | '.join(cells)} | {100 * np.mean(holds):.1f} % |"


@pytest.mark.filterwarnings("ignore")  # of steps outside of the domain
def test_numeric_derivatives_beside_other_libraries(
    benchmark: BenchmarkFixture, show: Callable[[str], None]
) -> None:
    libraries = [name for name in LIBRARIES if find_spec(name)]

    def rows() -> list[str]:
        found = []
        for kind in [*GRADIENTS, "Jacobian", "Hessian"]:
            cases = list(_cases(kind))
            found += [row(kind, library, cases) for library in libraries]
        return found

    lines = benchmark.pedantic(rows, rounds=1)
    head = "| values | library | evaluations | error, median | 95 % | bar, median | bars hold |"
    show("\n".join([head, "|---" * 7 + "|", *lines]))
