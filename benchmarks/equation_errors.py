"""How often intervals of ``bx.standard_errors`` contain the truth, on three equations.

``python benchmarks/equation_errors.py`` draws the noise of the readings many times, trains a
network to each draw, all as one stack, and counts the intervals of 90 % that contain the true
coefficient, and those that contain the solution at 20 points. The least squares of the equation's
own solution, by SciPy's ``curve_fit``, are beside it. A share of 0.90 over 200 draws scatters by
0.02.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import curve_fit
from scipy.stats import t as student

import backprop_xp as bx

COVERAGE = 0.9
WEIGHTS = (0.1, 1.0, 10.0)


class Problem(NamedTuple):
    """An equation, its true coefficients by name, and its solution at points by all parameters.

    ``solution(points, *parameters)`` has the coefficients first, then the initial values, which
    ``curve_fit`` learns, too. ``layers`` are those of the solution, ``x`` the points of the
    readings and ``inside`` those of the equation.
    """

    layers: Sequence[Any]
    law: Callable[[Any], Any]
    variables: str
    coefficients: dict[str, float]
    initial: tuple[float, ...]
    solution: Callable[..., np.ndarray]
    x: np.ndarray
    inside: np.ndarray
    noise: float


def heat() -> Problem:
    """A rod that cools, with both ends at 0 and a start that is known but for its size."""
    generator, until = np.random.default_rng(0), np.array([0.5, 1.0])
    scaled = bx.Standardize(until / 2.0, until / 2.0)
    layers = [scaled, *bx.mlp([2, 10, 10, 1], hidden="tanh").layers]
    u = bx.Constrained(layers, lambda x: x[..., 1:] * (1.0 - x[..., 1:]))

    def solution(x: np.ndarray, k: float, size: float) -> np.ndarray:
        return size * np.exp(-k * np.pi**2 * x[:, 0]) * np.sin(np.pi * x[:, 1])

    readings, inside = (until * generator.uniform(size=(n, 2)) for n in (40, 200))
    law = lambda s: s.u_t - s.k * s.u_xx  # noqa: E731
    return Problem([u], law, "tx", {"k": 0.3}, (1.0,), solution, readings, inside, 0.02)


def logistic() -> Problem:
    """A population that grows to a limit."""

    def solution(t: np.ndarray, rate: float, limit: float, start: float) -> np.ndarray:
        return limit / (1.0 + (limit / start - 1.0) * np.exp(-rate * t[:, 0]))

    layers = [bx.Standardize(3.0, 3.0), *bx.mlp([1, 12, 1], hidden="tanh").layers]
    law = lambda s: s.u_t - s.r * s.u * (1.0 - s.u / s.m)  # noqa: E731
    t, inside = (np.linspace(0.0, 6.0, n)[:, None] for n in (25, 80))
    true = {"r": 1.2, "m": 2.0}
    return Problem(layers, law, "t", true, (0.2,), solution, t, inside, 0.05)


def oscillator() -> Problem:
    """Duffing's oscillator with damping."""

    def solution(t: np.ndarray, c: float, k: float, b: float, u: float, slope: float) -> np.ndarray:
        def change(_: float, y: np.ndarray) -> list[float]:
            return [y[1], -c * y[1] - k * y[0] - b * y[0] ** 3]

        times = t[:, 0]
        span = (0.0, float(times.max()))
        found = solve_ivp(change, span, [u, slope], t_eval=times, rtol=1e-8, atol=1e-10)
        return found.y[0]

    layers = [bx.Standardize(3.0, 3.0), *bx.mlp([1, 20, 1], hidden="tanh").layers]
    law = lambda s: s.u_tt + s.c * s.u_t + s.k * s.u + s.b * s.u * s.u * s.u  # noqa: E731
    t, inside = (np.linspace(0.0, 6.0, n)[:, None] for n in (40, 120))
    true = {"c": 0.3, "k": 1.0, "b": 0.8}
    return Problem(layers, law, "t", true, (1.0, 0.0), solution, t, inside, 0.05)


PROBLEMS = {"heat": heat, "logistic": logistic, "oscillator": oscillator}


def drawn(problem: Problem, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the true solution at the readings, and the readings of each draw."""
    true = problem.solution(problem.x, *problem.coefficients.values(), *problem.initial)
    noise = np.random.default_rng(1).normal(0.0, problem.noise, (draws, len(true)))
    return true, true + noise


def ours(problem: Problem, readings: np.ndarray, weight: float, epochs: int) -> dict[str, float]:
    """Return the shares of intervals that contain the truth, and the effective parameters."""
    unknown = dict.fromkeys(problem.coefficients, 0.5)
    law = bx.Equation(problem.layers, problem.law, problem.variables, unknown=unknown)
    read = bx.Equation(problem.layers, lambda s: s.u, problem.variables, unknown=unknown)
    groups = {"law": (law, problem.inside), "readings": (read, problem.x, readings[0][:, None])}
    layer, x, y, weights = bx.group_rows(groups, weights={"readings": weight})
    # The other draws have their readings at the same places.
    y = np.stack(
        [
            bx.group_rows({**groups, "readings": (read, problem.x, one[:, None])}).y
            for one in readings
        ]
    )
    network = bx.Network([layer], "mean_squared_error", l2=1e-9)
    theta = network.initialize(seed=3, backend="numpy")
    options = {"optimizer": bx.LevenbergMarquardt(), "sample_weight": weights}
    first = bx.fit(network, theta, x, y[0], epochs=600, **options).theta
    # All draws begin at the first one's solution: a start of its own may end elsewhere.
    theta = np.repeat(first[None, :], len(readings), axis=0)
    theta = bx.fit(network, theta, x, y, epochs=epochs, **options).theta
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        errors = bx.standard_errors(network, theta, x, y, sample_weight=weights, measured=[read])
    times, (of_u, found) = errors.quantile(COVERAGE), layer.split(theta)
    shares = {
        name: float(np.mean(abs(found[name] - value) <= times * errors.unknown[name]))
        for name, value in problem.coefficients.items()
    }
    at = problem.inside[:: len(problem.inside) // 20]
    true = problem.solution(at, *problem.coefficients.values(), *problem.initial)
    band = times[:, None] * errors.of(at)[..., 0]
    predicted = layer.network.predict(of_u, at)[..., 0]
    shares["solution"] = float(np.mean(abs(predicted - true) <= band))
    shares["parameters"] = float(np.median(errors.parameters))
    shares["noise"] = float(np.median(errors.noise)) / problem.noise
    return shares


def least_squares(problem: Problem, readings: np.ndarray) -> dict[str, float]:
    """Return the shares of ``curve_fit``'s intervals for the coefficients."""
    start = (*problem.coefficients.values(), *problem.initial)
    times = student.ppf(0.5 + 0.5 * COVERAGE, readings.shape[1] - len(start))
    hits = []
    for one in readings:
        found, covariance = curve_fit(problem.solution, problem.x, one, p0=start)
        hits.append(abs(found - start) <= times * np.sqrt(np.diag(covariance)))
    return dict(zip(problem.coefficients, np.mean(hits, axis=0).tolist(), strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60, help="of all draws, after the first's")
    parser.add_argument("--problem", choices=PROBLEMS, action="append")
    options = parser.parse_args()
    for name in options.problem or PROBLEMS:
        problem = PROBLEMS[name]()
        _, readings = drawn(problem, options.draws)
        _show(name, "curve_fit", least_squares(problem, readings))
        for weight in WEIGHTS:
            found = ours(problem, readings, weight, options.epochs)
            _show(name, f"weight {weight:g}", found)


def _show(name: str, way: str, shares: dict[str, float]) -> None:
    figures = ", ".join(f"{one} {value:.3g}" for one, value in shares.items())
    sys.stdout.write(f"{name}, {way}: {figures}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
