"""How many error bars of numeric derivatives contain the truth, on 1,000 functions of 25 families.

``python -m benchmarks.derivative_bars`` prints a table: the share of the bars that contain mpmath's
derivative of 50 digits, the share of those that are at most 1 % of it, and the median evaluations.
A function has a random point between 0.5 and 2, and varies over a random width between 1e-5 and 1
of the point: so narrow features and fast waves are as frequent as smooth functions.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mpmath
import numpy as np

import backprop_xp as bx

DIGITS, DRAWS, SHARP = 50, 40, 1e-2


def _arctan(m: Any, z: Any) -> Any:
    return m.arctan(z) if m is np else m.atan(z)


# Functions of a number z that is of size 1 within a width of the point, and of the point x itself.
FAMILIES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "wave": lambda m, z, x: m.sin(z),
    "wave beside a parabola": lambda m, z, x: x**2 + 1e-3 * m.sin(z),
    "wave on a level": lambda m, z, x: 1e3 + m.cos(z),
    "chirp": lambda m, z, x: m.sin(z * z / 2),
    "two waves": lambda m, z, x: m.sin(z) * m.cos(z / 7),
    "damped wave": lambda m, z, x: m.exp(-z / 3) * m.cos(2 * z),
    "peak": lambda m, z, x: m.exp(-z * z),
    "peak on a line": lambda m, z, x: x + m.exp(-z * z) / 10,
    "resonance": lambda m, z, x: 1 / (1 + z * z),
    "dispersion": lambda m, z, x: z / (1 + z * z),
    "step": lambda m, z, x: _arctan(m, z),
    "logistic step": lambda m, z, x: 1 / (1 + m.exp(-z)),
    "tanh": lambda m, z, x: m.tanh(z) + x,
    "bent line": lambda m, z, x: m.log(1 + m.exp(z)),
    "corner": lambda m, z, x: m.sqrt(z * z + 1),
    "Huber's corner": lambda m, z, x: m.sqrt(z * z + 1) - z / 2,
    "logarithm": lambda m, z, x: m.log(z + 4),
    "root": lambda m, z, x: m.sqrt(z + 4),
    "pole": lambda m, z, x: 1 / (z + 4),
    "power": lambda m, z, x: (z + 4) ** 2.7,
    "exponential": lambda m, z, x: m.exp(z / 2),
    "polynomial": lambda m, z, x: z**5 - 3 * z**2 + x,
    "cancelled cosine": lambda m, z, x: 1 - m.cos(z),
    "cancelled exponential": lambda m, z, x: m.exp(z) - 1 - z,
    "likelihood": lambda m, z, x: z * z / 2 + m.log(2 + m.cos(z)) + m.log(x),
}


class Case(NamedTuple):
    """A function of one number, its point, and its first and second derivatives there."""

    value: Callable[[Any], float]
    point: float
    exact: tuple[float, float]


def cases(draws: int = DRAWS) -> Iterator[Case]:
    """Yield so many functions of each family."""
    draw = np.random.default_rng(59)
    for formula, _ in itertools.product(FAMILIES.values(), range(draws)):
        point, width = draw.uniform(0.5, 2.0), 10.0 ** draw.uniform(-5.0, 0.0)
        scale, start = 1.0 / (point * width), draw.uniform(-1.5, 1.5)

        def value(m: Any, x: Any, f: Any = formula, of: Any = (scale, point, start)) -> Any:
            scale, point, start = of
            return f(m, (x - point) * scale + start, x)

        with mpmath.workdps(DIGITS):
            exact = [float(mpmath.diff(lambda x: value(mpmath, x), point, k)) for k in (1, 2)]
        yield Case(lambda p, f=value: float(f(np, p[0])), point, (exact[0], exact[1]))


def row(name: str, found: list[tuple[bool, bool, int]]) -> str:
    """Return a row of the table."""
    holds, sharp, evaluations = np.transpose(found)
    shares = f"{100 * np.mean(holds):.1f} % | {100 * np.mean(sharp):.1f} %"
    return f"| {name} | {shares} | {np.median(evaluations):.0f} |"


def rows() -> Iterator[str]:
    """Yield the rows of the table."""
    functions = list(cases())
    yield f"{len(functions)} functions of {len(FAMILIES)} families"
    yield "| derivative | bars hold | sharp bars | evaluations |\n|---|---|---|---|"
    for order, derivative in ((1, bx.numeric_gradient), (2, bx.numeric_hessian)):
        for place, is_edge in (("on both sides", False), ("at an edge", True)):
            found = []
            for value, point, exact in functions:
                bounds = ([point], [np.inf]) if is_edge else None
                with np.errstate(all="ignore"):
                    number, bar, count = derivative(value, np.full(1, point), bounds=bounds)
                error, truth = abs(np.asarray(number).item() - exact[order - 1]), exact[order - 1]
                width = np.asarray(bar).item()
                found.append((error <= width, width <= SHARP * abs(truth), count))
            yield row(f"{'first' if order == 1 else 'second'}, {place}", found)


if __name__ == "__main__":
    for line in rows():
        sys.stdout.write(f"{line}\n")
