"""Differential equations solved by networks: the error after equal CPU time.

``python benchmarks/equation_trainings.py`` runs each contender in a process of its own with one
thread and prints the table of docs/benchmarks_equations.md: Levenberg-Marquardt here, one start or
a stack of four; a loop of JAX with SciPy's L-BFGS-B; and DeepXDE on PyTorch, Adam for a third of
the time, then L-BFGS. All have the same network, points, start (but DeepXDE, which draws its own),
and conditions that hold exactly. ``equations.py`` compares whole ways of solving. Compilation does
not count. DeepXDE is left out if it is not installed. ``--seeds 1 --seconds 1`` takes a minute.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from equation_runs import Found, deepxde, line_of, main, trained_by_deepxde
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

import backprop_xp as bx

WIDTHS, POINTS, READINGS, TEST_ROWS = [24, 24, 1], 300, 40, 1000
# The readings' weight beside that of the residuals.
READINGS_COUNT = 100.0
WAVES = 4.0


class Problem(NamedTuple):
    """An equation on a box, whose solution is known; ``k`` is its unknown coefficient, if any.

    ``residual(s)`` is made of ``s.u``, its derivatives, the variables and ``s.xp``. Solutions are
    ``value + factor * network``.
    """

    variables: str
    low: list[float]
    high: list[float]
    residual: Callable[[Any], Any]
    solution: Callable[[np.ndarray], np.ndarray]
    factor: Callable[[Any], Any]
    value: float = 0.0
    k: float | None = None

    def points(self, rows: int, seed: int) -> np.ndarray:
        shape = (rows, len(self.low))
        return np.random.default_rng(seed).uniform(self.low, self.high, shape)


def sines(x: np.ndarray, first: float, second: float) -> np.ndarray:
    return np.sin(first * np.pi * x[:, :1]) * np.sin(second * np.pi * x[:, 1:])


def poisson(s: Any) -> Any:
    source = 2.0 * np.pi**2 * s.xp.sin(np.pi * s.x) * s.xp.sin(np.pi * s.y)
    return (s.u_xx + s.u_yy + source) / (2.0 * np.pi**2)


def helmholtz(s: Any) -> Any:
    factor = (1.0 + WAVES**2) * np.pi**2
    source = (factor - 1.0) * s.xp.sin(np.pi * s.x) * s.xp.sin(WAVES * np.pi * s.y)
    return (s.u_xx + s.u_yy + s.u + source) / factor


def pendulum(x: np.ndarray) -> np.ndarray:
    def slopes(t: float, state: np.ndarray) -> list[float]:
        return [state[1], -np.sin(state[0])]

    found = solve_ivp(slopes, (0.0, 8.0), [2.0, 0.0], "DOP853", rtol=1e-12, dense_output=True)
    return found.sol(x[:, 0])[:1].T


def edges(x: Any) -> Any:
    return x[..., :1] * (1.0 - x[..., :1]) * x[..., 1:] * (1.0 - x[..., 1:])


def wide_edges(x: Any) -> Any:
    return (1.0 - x[..., :1] ** 2) * (1.0 - x[..., 1:] ** 2)


PROBLEMS = {
    "Poisson": Problem("xy", [0.0] * 2, [1.0] * 2, poisson, lambda x: sines(x, 1.0, 1.0), edges),
    "Helmholtz": Problem(
        "xy", [-1.0] * 2, [1.0] * 2, helmholtz, lambda x: sines(x, 1.0, WAVES), wide_edges
    ),
    "heat": Problem(
        "tx",
        [0.0] * 2,
        [0.5, 1.0],
        lambda s: s.u_t - s.k * s.u_xx,
        lambda x: np.exp(-0.3 * np.pi**2 * x[:, :1]) * np.sin(np.pi * x[:, 1:]),
        lambda x: x[..., 1:] * (1.0 - x[..., 1:]),
        k=0.1,
    ),
    "pendulum": Problem(
        "t",
        [0.0],
        [8.0],
        lambda s: s.u_tt + s.xp.sin(s.u),
        pendulum,
        lambda x: (x / 8.0) ** 2,
        2.0,
    ),
}
TRUE_K = 0.3


class Data(NamedTuple):
    """The points of the residuals, and readings, for a problem with an unknown coefficient."""

    inside: np.ndarray
    at: np.ndarray
    readings: np.ndarray


def data_of(problem: Problem, seed: int) -> Data:
    at = problem.points(READINGS, seed + 1000)
    return Data(problem.points(POINTS, seed), at, problem.solution(at))


def standardized(problem: Problem) -> bx.Standardize:
    low, high = np.asarray(problem.low), np.asarray(problem.high)
    return bx.Standardize((low + high) / 2.0, (high - low) / 2.0)


def layer_of(problem: Problem) -> tuple[Any, ...]:
    """Return the equation, and that of the readings."""
    layers = bx.mlp([len(problem.low), *WIDTHS], hidden="tanh").layers
    inner = [standardized(problem), *layers]
    u = bx.Constrained(inner, problem.factor, lambda x: problem.value)
    options = {"unknown": {"k": problem.k}} if problem.k else {}
    residuals = problem.residual, lambda s: s.u
    return tuple(bx.Equation([u], each, problem.variables, **options) for each in residuals)


def ours(starts: int) -> Callable[[Problem, int, float], Found]:
    """Return a training by Levenberg-Marquardt, the best of some starts, which share the time."""

    def solve(problem: Problem, seed: int, seconds: float) -> Found:
        data, (equation, reading) = data_of(problem, seed), layer_of(problem)
        groups: dict[str, Any] = {"inside": (equation, data.inside)}
        if problem.k:
            groups["readings"] = reading, data.at, data.readings
        weights = {"readings": READINGS_COUNT} if problem.k else None
        layer, x, y, weight = bx.group_rows(groups, weights=weights)
        network = bx.Network([layer], "mean_squared_error")
        theta = network.initialize(seed=seed, stack=(starts,), backend="numpy")
        optimizer = bx.LevenbergMarquardt(tolerance=0.0)
        options = {"optimizer": optimizer, "epochs": 10**6, "sample_weight": weight}
        start = time.process_time()
        for state in bx.train(network, theta, x, y, **options):
            theta = state.theta
            if time.process_time() - start > seconds:
                break
        best = np.argmin(network.loss(theta, x, y, sample_weight=weight))
        own, unknown = layer.split(theta[best])
        k = float(unknown["k"]) if problem.k else None
        return Found(lambda x: layer.network.predict(own, x), k)

    return solve


def jax_lbfgs(problem: Problem, seed: int, seconds: float) -> Found:
    """Return a training by a compiled loss of JAX, jvp of jvp, and SciPy's L-BFGS-B."""
    import jax

    jax.config.update("jax_enable_x64", True)
    xp, data = jax.numpy, data_of(problem, seed)
    network = layer_of(problem)[0].network
    sizes = [len(problem.low), *WIDTHS]
    start = network.initialize(seed=seed, backend="numpy")
    theta = np.append(start, problem.k or 0.0)
    ends = np.asarray([problem.low, problem.high])
    middle, half = ends.mean(0), np.diff(ends, axis=0)[0] / 2.0

    def u(theta: Any, x: Any) -> Any:
        a, i = (x - middle) / half, 0
        for n, m in itertools.pairwise(sizes):
            weights, bias = theta[i : i + n * m].reshape(n, m), theta[i + n * m : i + n * m + m]
            a, i = a @ weights + bias, i + n * m + m
            a = xp.tanh(a) if i < len(start) else a
        return problem.value + problem.factor(x)[..., 0] * a[..., 0]

    class Point:
        """The argument of a residual, at a row."""

        def __init__(self, theta: Any, row: Any) -> None:
            self.xp, self.k, self._row, self._u = xp, theta[-1], row, lambda x: u(theta, x)

        def __getattr__(self, name: str) -> Any:
            if name in problem.variables:
                return self._row[problem.variables.index(name)]
            function = self._u
            for letter in name[2:]:
                function = along(function, problem.variables.index(letter), self._row)
            return function(self._row)

    def along(function: Any, column: int, row: Any) -> Any:
        unit = xp.eye(len(problem.low))[column]
        return lambda x: jax.jvp(function, (x,), (unit,))[1]

    @jax.jit
    @jax.value_and_grad
    def loss(theta: Any) -> Any:
        residuals = jax.vmap(lambda row: problem.residual(Point(theta, row)))(data.inside)
        value = xp.mean(residuals**2)
        if problem.k:
            errors = u(theta, xp.asarray(data.at)) - data.readings[:, 0]
            value = (value + READINGS_COUNT * xp.mean(errors**2)) / (1.0 + READINGS_COUNT)
        return value

    loss(theta)
    best, begin = (np.inf, theta), time.process_time()

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        found, gradient = loss(theta)
        if time.process_time() - begin > seconds:
            raise TimeoutError
        best = min(best, (float(found), theta.copy()), key=lambda each: each[0])
        return float(found), np.asarray(gradient)

    options = {"maxiter": 10**6, "maxfun": 10**6, "ftol": 0.0, "gtol": 0.0, "maxcor": 50}
    with contextlib.suppress(TimeoutError):
        minimize(value, theta, jac=True, method="L-BFGS-B", options=options)
    return Found(lambda x: np.asarray(u(best[1], x))[:, None], float(best[1][-1]))


def by_deepxde(problem: Problem, seed: int, seconds: float) -> Found:
    """Return a training by DeepXDE."""
    dde, torch = deepxde(seed)
    data, names = data_of(problem, seed), problem.variables
    k = dde.Variable(problem.k, dtype=torch.float64) if problem.k else None

    class Point:
        """The argument of a residual, at all rows."""

        xp = torch

        def __init__(self, x: Any, y: Any) -> None:
            self.x_, self.u, self.k = x, y, k

        def __getattr__(self, name: str) -> Any:
            columns = [names.index(letter) for letter in name.rpartition("_")[2]]
            if len(name) == 1:
                return self.x_[:, columns]
            if len(columns) == 1:
                return dde.grad.jacobian(self.u, self.x_, i=0, j=columns[0])
            return dde.grad.hessian(self.u, self.x_, i=columns[0], j=columns[1])

    geometry = (
        dde.geometry.Interval(problem.low[0], problem.high[0])
        if len(names) == 1
        else dde.geometry.Rectangle(problem.low, problem.high)
    )
    readings = [dde.icbc.PointSetBC(data.at, data.readings)] if problem.k else []
    rows = dde.data.PDE(
        geometry,
        lambda x, y: problem.residual(Point(x, y)),
        readings,
        num_domain=0,
        anchors=data.inside,
    )
    net = dde.nn.FNN([len(names), *WIDTHS], "tanh", "Glorot uniform")
    ends = torch.tensor([problem.low, problem.high], dtype=torch.float64)
    middle, half = ends.mean(0), (ends[1] - ends[0]) / 2.0
    net.apply_feature_transform(lambda x: (x - middle) / half)
    net.apply_output_transform(lambda x, y: problem.value + problem.factor(x) * y)
    weights = [1.0, READINGS_COUNT] if problem.k else [1.0]
    return trained_by_deepxde(dde, rows, net, seconds, k, maxcor=50, loss_weights=weights)


CONTENDERS: dict[str, Callable[[Problem, int, float], Found]] = {
    "`LevenbergMarquardt`": ours(1),
    "`LevenbergMarquardt`, 4 starts": ours(4),
    "JAX and L-BFGS": jax_lbfgs,
    "DeepXDE": by_deepxde,
}


COLUMNS = {name: (name, "error") for name in PROBLEMS} | {"k of heat": ("heat", "k")}


def lines_of(contender: str, problems: Sequence[str], seeds: int, seconds: float) -> Iterator[Any]:
    """Yield the errors of each solution."""
    for name in problems:
        problem = PROBLEMS[name]
        at = problem.points(TEST_ROWS, 10**6)
        true = problem.solution(at)
        for seed in range(seeds):
            found = CONTENDERS[contender](problem, seed, seconds)
            k = TRUE_K if problem.k else None
            yield line_of(contender, name, seed, found, at, true, k)


if __name__ == "__main__":
    main(__doc__, [*CONTENDERS], [*PROBLEMS], COLUMNS, lines_of, seeds=5, seconds=4.0)
