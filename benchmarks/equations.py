"""Five equations beside DeepXDE: the error after equal CPU time, each library in its own way.

``python benchmarks/equations.py`` runs each library in a process of its own with one thread, and
prints the table of docs/benchmarks_equations.md. DeepXDE on PyTorch has the networks, points and
conditions of its own examples, but smaller ones where these are better in the time: Adam for a
third of it, then L-BFGS. Here Levenberg-Marquardt trains, as docs/equation_recipes.md does. Imports
do not count. References are closed forms, quadrature, and SciPy's solutions on fine grids.
``--seeds 1 --seconds 5`` takes two minutes. DeepXDE is left out if it is not installed.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from equation_runs import Found, Function, deepxde, line_of, main, trained_by_deepxde
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.interpolate import RegularGridInterpolator
from scipy.sparse.linalg import spsolve

import backprop_xp as bx
from backprop_xp.backends import array_namespace

VISCOSITY, DIFFUSION = 0.01 / np.pi, 0.001
TEST_ROWS = 2000
# Points that are added after so many epochs, until there are enough.
ADDED, EPOCHS_EACH, ENOUGH = 100, 30, 2000


class Problem(NamedTuple):
    """An equation on a box, without the points where ``is_inside`` is False.

    The libraries' functions take a seed and the seconds of CPU time. ``k`` is the true coefficient.
    """

    low: list[float]
    high: list[float]
    solution: Callable[[], Function]
    ours: Callable[[int, float], Found]
    deepxde: Callable[[int, float], Found]
    is_inside: Callable[[np.ndarray], np.ndarray] = lambda x: np.ones(len(x), dtype=bool)
    k: float | None = None


def drawn(low: Any, high: Any, rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (rows, len(low)))


# Trainings here.


def layers_on(low: Any, high: Any, widths: list[int], outputs: int = 1) -> list[Any]:
    """Return the layers of a solution on a box."""
    low, high = np.asarray(low), np.asarray(high)
    scaled = bx.Standardize((low + high) / 2.0, (high - low) / 2.0)
    return [scaled, *bx.mlp([len(low), *widths, outputs], hidden="tanh").layers]


def trained(
    layer: Any,
    rows: Any,
    end: float,
    *,
    theta: Any = None,
    seed: int = 0,
    epochs: int = 10**6,
    l2: float = 1e-9,
) -> Any:
    """Return theta after some epochs, or at an end of CPU time."""
    x, y, weight = rows
    network = bx.Network([layer], "mean_squared_error", l2=l2)
    theta = network.initialize(seed=seed, backend="numpy") if theta is None else theta
    options = {"optimizer": bx.LevenbergMarquardt(tolerance=0.0), "epochs": epochs}
    for state in bx.train(network, theta, x, y, sample_weight=weight, **options):
        theta = state.theta
        if time.process_time() > end:
            break
    return theta


def in_groups(
    groups: Mapping[str, Any],
    weights: Mapping[str, float],
    seed: int,
    seconds: float,
    l2: float = 1e-9,
) -> Found:
    """Return a training of groups of points."""
    end = time.process_time() + seconds
    layer, *rows = bx.group_rows(groups, weights=weights)
    theta, unknown = layer.split(trained(layer, rows, end, seed=seed, l2=l2))
    k = float(unknown["k"]) if unknown else None
    return Found(lambda x: layer.network.predict(theta, x), k)


def with_added_points(equation: Any, low: Any, high: Any, seed: int, seconds: float) -> Found:
    """Return a training that adds points where the residual is largest."""
    end, theta = time.process_time() + seconds, None
    x, alone = drawn(low, high, 4 * ADDED, seed), bx.Network([equation], "mean_squared_error")
    for i in range(10**6):
        is_last = len(x) >= ENOUGH
        epochs = 10**6 if is_last else EPOCHS_EACH
        rows = x, 0.0 * x[:, :1], None
        theta = trained(equation, rows, end, theta=theta, seed=seed, epochs=epochs)
        if is_last or time.process_time() > end:
            break
        many = drawn(low, high, 50 * ADDED, 10**4 * (seed + 1) + i)
        residual = abs(alone.predict(theta, many)[:, 0])
        x = np.concatenate([x, many[np.argsort(residual)[-ADDED:]]])
    return Found(lambda x: equation.network.predict(theta, x))


def over_time(dde: Any, until: float) -> Any:
    """Return the geometry of x from -1 to 1, and of t."""
    ends = dde.geometry.TimeDomain(0.0, until)
    return dde.geometry.GeometryXTime(dde.geometry.Interval(-1.0, 1.0), ends)


# Burgers' equation: a wave becomes a front. The columns are x and t.


def burgers_solution() -> Function:
    """Return Cole and Hopf's integrals, by quadrature of Gauss and Hermite."""
    nodes, shares = np.polynomial.hermite.hermgauss(200)

    def solution(x: np.ndarray) -> np.ndarray:
        from_ = x[:, :1] - 2.0 * np.sqrt(VISCOSITY * x[:, 1:]) * nodes
        exponents = -np.cos(np.pi * from_) / (2.0 * np.pi * VISCOSITY)
        terms = shares * np.exp(exponents - exponents.max(axis=1, keepdims=True))
        sines = np.sin(np.pi * from_)
        return -(terms * sines).sum(1, keepdims=True) / terms.sum(1, keepdims=True)

    return solution


def burgers_ours(seed: int, seconds: float) -> Found:
    low, high = [-1.0, 0.0], [1.0, 1.0]
    u = bx.Constrained(
        layers_on(low, high, [20, 20, 20]),
        lambda x: x[..., 1:] * (1.0 - x[..., :1] ** 2),
        lambda x: -array_namespace(x).sin(np.pi * x[..., :1]),
    )
    law = bx.Equation([u], lambda s: s.u_t + s.u * s.u_x - VISCOSITY * s.u_xx, "xt")
    return with_added_points(law, low, high, seed, seconds)


def burgers_deepxde(seed: int, seconds: float) -> Found:
    dde, _ = deepxde(seed)

    def law(x: Any, u: Any) -> Any:
        u_x, u_t = (dde.grad.jacobian(u, x, i=0, j=j) for j in (0, 1))
        return u_t + u * u_x - VISCOSITY * dde.grad.hessian(u, x, i=0, j=0)

    domain = over_time(dde, 1.0)
    conditions = [
        dde.icbc.DirichletBC(domain, lambda x: 0.0, lambda _, is_at: is_at),
        dde.icbc.IC(domain, lambda x: -np.sin(np.pi * x[:, :1]), lambda _, is_at: is_at),
    ]
    counts = {"num_domain": 2540, "num_boundary": 80, "num_initial": 160}
    data = dde.data.TimePDE(domain, law, conditions, **counts)
    net = dde.nn.FNN([2, 20, 20, 20, 1], "tanh", "Glorot normal")
    return trained_by_deepxde(dde, data, net, seconds)


# Poisson's equation on an L: u is 0 on the boundary.

CORNERS = [[0, 0], [1, 0], [1, -1], [-1, -1], [-1, 1], [0, 1]]


def in_the_l(x: np.ndarray) -> np.ndarray:
    return (x < 0.0).any(axis=1)


def poisson_solution(n: int = 200) -> Function:
    """Return the solution by bilinear finite elements, n along a side of length 1."""
    count = 2 * n + 1
    i, j = (x.reshape(-1) for x in np.meshgrid(*[np.arange(2 * n)] * 2, indexing="ij"))
    i, j = i[(i < n) | (j < n)], j[(i < n) | (j < n)]
    first = i * count + j
    nodes = np.stack([first, first + count, first + count + 1, first + 1], axis=1)
    element = np.array([[4, -1, -2, -1], [-1, 4, -1, -2], [-2, -1, 4, -1], [-1, -2, -1, 4]]) / 6.0
    entries = np.tile(element.reshape(-1), len(nodes))
    at = np.repeat(nodes, 4, axis=1).reshape(-1), np.tile(nodes, (1, 4)).reshape(-1)
    stiffness = sparse.csr_matrix((entries, at), shape=(count**2, count**2))
    load = np.bincount(nodes.reshape(-1), minlength=count**2) / (4.0 * n**2)
    # A node inside has four elements.
    free = np.flatnonzero(np.bincount(nodes.reshape(-1), minlength=count**2) == 4)
    u = np.zeros(count**2)
    u[free] = spsolve(stiffness[free][:, free].tocsc(), load[free])
    grid = np.linspace(-1.0, 1.0, count)
    found = RegularGridInterpolator((grid, grid), u.reshape(count, count))
    return lambda x: found(x)[:, None]


def edge_of_the_l(per_length: int) -> np.ndarray:
    """Return points between the corners, so many on a length of 1."""
    corners, sides = np.array([*CORNERS, CORNERS[0]], dtype=float), []
    for first, last in itertools.pairwise(corners):
        count = int(per_length * abs(last - first).sum())
        shares = (np.arange(count) + 0.5)[:, None] / count
        sides.append(first + (last - first) * shares)
    return np.concatenate(sides)


def poisson_ours(seed: int, seconds: float) -> Found:
    box = drawn([-1.0, -1.0], [1.0, 1.0], 1600, seed)
    layers = layers_on([-1.0, -1.0], [1.0, 1.0], [16, 16])
    law = bx.Equation(layers, lambda s: s.laplacian("u", "x", "y") + 1.0, "xy")
    zero = bx.Equation(layers, lambda s: s.u, "xy")
    groups = {"inside": (law, box[in_the_l(box)]), "edge": (zero, edge_of_the_l(30))}
    return in_groups(groups, {"edge": 100.0}, seed, seconds, l2=1e-7)


def poisson_deepxde(seed: int, seconds: float) -> Found:
    dde, _ = deepxde(seed)

    def law(x: Any, u: Any) -> Any:
        return -sum(dde.grad.hessian(u, x, i=i, j=i) for i in (0, 1)) - 1.0

    domain = dde.geometry.Polygon(CORNERS)
    condition = dde.icbc.DirichletBC(domain, lambda x: 0.0, lambda _, is_at: is_at)
    data = dde.data.PDE(domain, law, condition, num_domain=1200, num_boundary=120)
    net = dde.nn.FNN([2, 20, 20, 20, 1], "tanh", "Glorot uniform")
    return trained_by_deepxde(dde, data, net, seconds)


# Prey and predators, by Lotka and Volterra.

START, UNTIL = [1.5, 1.0], 8.0


def predators_solution() -> Function:
    def slopes(t: float, state: np.ndarray) -> list[float]:
        u, v = state
        return [u * (1.0 - v), v * (u - 1.0)]

    found = solve_ivp(
        slopes, (0.0, UNTIL), START, "DOP853", rtol=1e-12, atol=1e-12, dense_output=True
    )
    return lambda t: found.sol(t[:, 0]).T


def predators_ours(seed: int, seconds: float) -> Found:
    """Return a training of windows of time, each of which begins where the last one ended."""
    length, at, theta, found = 1.0, np.array([START]), None, []
    ends = np.arange(0.0, UNTIL, length).tolist()
    for start in ends:
        inner = layers_on([start], [start + length], [20], 2)
        u = bx.Constrained(
            inner, lambda t, start=start: (t - start) / length, lambda t, at=at: 0.0 * t + at
        )
        law = bx.Equation(
            [u], lambda s: (s.u_t - s.u * (1.0 - s.v), s.v_t - s.v * (s.u - 1.0)), "t"
        )
        t = np.linspace(start, start + length, 60)[:, None]
        end = time.process_time() + seconds / len(ends)
        theta = trained(law, (t, np.zeros((60, 2)), None), end, theta=theta, seed=seed)
        at = law.network.predict(theta, t[-1:])
        found.append((law.network, theta))

    def solution(t: np.ndarray) -> np.ndarray:
        own = np.minimum(t // length, len(ends) - 1)
        parts = [network.predict(theta, t) * (own == i) for i, (network, theta) in enumerate(found)]
        return np.asarray(sum(parts))

    return Found(solution)


def predators_deepxde(seed: int, seconds: float) -> Found:
    dde, torch = deepxde(seed)

    def law(t: Any, both: Any) -> Any:
        u, v = both[:, :1], both[:, 1:]
        u_t, v_t = (dde.grad.jacobian(both, t, i=i) for i in (0, 1))
        return [u_t - u * (1.0 - v), v_t - v * (u - 1.0)]

    domain = dde.geometry.TimeDomain(0.0, UNTIL)
    data = dde.data.PDE(domain, law, [], 400, 2)
    net = dde.nn.FNN([7, *[32] * 3, 2], "tanh", "Glorot normal")
    net.apply_feature_transform(
        lambda t: torch.cat([t / UNTIL, *(torch.sin(k * t) for k in range(1, 7))], dim=1)
    )
    start = torch.tensor([START])
    net.apply_output_transform(lambda t, y: start + torch.tanh(t) * y)
    return trained_by_deepxde(dde, data, net, seconds)


# Diffusion whose coefficient k, 1, is unknown: ten readings at t = 1. The columns are x and t.

READ_AT = np.stack([np.linspace(-1.0, 1.0, 10), np.ones(10)], axis=1)


def diffused(x: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * x[:, :1]) * np.exp(-x[:, 1:])


def diffusion(s: Any) -> Any:
    source = (1.0 - np.pi**2) * s.xp.exp(-s.t) * s.xp.sin(np.pi * s.x)
    return s.u_t - s.k * s.u_xx + source


def diffusion_ours(seed: int, seconds: float) -> Found:
    low, high = [-1.0, 0.0], [1.0, 1.0]
    layers, unknown = layers_on(low, high, [32]), {"k": 2.0}
    law = bx.Equation(layers, diffusion, "xt", unknown=unknown)
    value = bx.Equation(layers, lambda s: s.u, "xt", unknown=unknown)
    t, x = np.linspace(0.0, 1.0, 20)[:, None], np.linspace(-1.0, 1.0, 20)[:, None]
    sides = np.concatenate([np.concatenate([0.0 * t + end, t], axis=1) for end in (-1.0, 1.0)])
    first = np.concatenate([x, 0.0 * x], axis=1)
    known = np.concatenate([sides, first])
    groups = {
        "inside": (law, drawn(low, high, 200, seed)),
        "known": (value, known, diffused(known)),
        "readings": (value, READ_AT, diffused(READ_AT)),
    }
    return in_groups(groups, {"known": 10.0, "readings": 10.0}, seed, seconds)


def diffusion_deepxde(seed: int, seconds: float) -> Found:
    dde, torch = deepxde(seed)
    k = dde.Variable(2.0)

    def law(x: Any, u: Any) -> Any:
        u_t, u_xx = dde.grad.jacobian(u, x, i=0, j=1), dde.grad.hessian(u, x, i=0, j=0)
        source = (1.0 - np.pi**2) * torch.exp(-x[:, 1:]) * torch.sin(np.pi * x[:, :1])
        return u_t - k * u_xx + source

    domain = over_time(dde, 1.0)
    conditions = [
        dde.icbc.DirichletBC(domain, diffused, lambda _, is_at: is_at),
        dde.icbc.IC(domain, diffused, lambda _, is_at: is_at),
        dde.icbc.PointSetBC(READ_AT, diffused(READ_AT)),
    ]
    counts = {"num_domain": 40, "num_boundary": 20, "num_initial": 10}
    data = dde.data.TimePDE(domain, law, conditions, anchors=READ_AT, **counts)
    net = dde.nn.FNN([2, 32, 32, 32, 1], "tanh", "Glorot uniform")
    return trained_by_deepxde(dde, data, net, seconds, k)


# Allen and Cahn's equation: phases separate, with steep walls. The columns are x and t.


def phases_solution(n: int = 2000) -> Function:
    """Return SciPy's solution of central differences."""
    x, h = np.linspace(-1.0, 1.0, n + 1), 2.0 / n
    ones = np.ones(n - 1)
    second = sparse.diags([ones[1:], -2.0 * ones, ones[1:]], [-1, 0, 1], format="csc") / h**2
    ends = np.zeros(n - 1)
    ends[[0, -1]] = -1.0 / h**2

    def slopes(t: float, u: np.ndarray) -> np.ndarray:
        return np.asarray(DIFFUSION * (second @ u + ends) + 5.0 * (u - u**3))

    def jacobian(t: float, u: np.ndarray) -> Any:
        return DIFFUSION * second + sparse.diags(5.0 - 15.0 * u**2, format="csc")

    times = np.linspace(0.0, 1.0, 401)
    start = (x**2 * np.cos(np.pi * x))[1:-1]
    options = {"method": "BDF", "jac": jacobian, "rtol": 1e-8, "atol": 1e-10}
    inside = solve_ivp(slopes, (0.0, 1.0), start, t_eval=times, **options).y
    u = np.pad(inside, ((1, 1), (0, 0)), constant_values=-1.0)
    found = RegularGridInterpolator((x, times), u, method="linear")
    return lambda at: found(at)[:, None]


def phases_ours(seed: int, seconds: float) -> Found:
    low, high = [-1.0, 0.0], [1.0, 1.0]
    u = bx.Constrained(
        layers_on(low, high, [20, 20, 20]),
        lambda x: x[..., 1:] * (1.0 - x[..., :1] ** 2),
        lambda x: x[..., :1] ** 2 * array_namespace(x).cos(np.pi * x[..., :1]),
    )
    law = bx.Equation([u], lambda s: s.u_t - DIFFUSION * s.u_xx - 5.0 * (s.u - s.u**3), "xt")
    return with_added_points(law, low, high, seed, seconds)


def phases_deepxde(seed: int, seconds: float) -> Found:
    dde, torch = deepxde(seed)

    def law(x: Any, u: Any) -> Any:
        u_t, u_xx = dde.grad.jacobian(u, x, i=0, j=1), dde.grad.hessian(u, x, i=0, j=0)
        return u_t - DIFFUSION * u_xx - 5.0 * (u - u**3)

    counts = {"num_domain": 2000, "num_boundary": 100, "num_initial": 200}
    data = dde.data.TimePDE(over_time(dde, 1.0), law, [], **counts)
    net = dde.nn.FNN([2, 20, 20, 20, 1], "tanh", "Glorot normal")

    def phases(x: Any, y: Any) -> Any:
        at, t = x[:, :1], x[:, 1:]
        return at**2 * torch.cos(np.pi * at) + t * (1.0 - at**2) * y

    net.apply_output_transform(phases)
    return trained_by_deepxde(dde, data, net, seconds)


IN_TIME: dict[str, Any] = {"low": [-1.0, 0.0], "high": [1.0, 1.0]}
IN_SQUARE: dict[str, Any] = {"low": [-1.0, -1.0], "high": [1.0, 1.0]}
PROBLEMS = {
    "Burgers": Problem(
        **IN_TIME, solution=burgers_solution, ours=burgers_ours, deepxde=burgers_deepxde
    ),
    "L-shape": Problem(
        **IN_SQUARE,
        solution=poisson_solution,
        ours=poisson_ours,
        deepxde=poisson_deepxde,
        is_inside=in_the_l,
    ),
    "Lotka-Volterra": Problem(
        [0.0], [UNTIL], predators_solution, predators_ours, predators_deepxde
    ),
    "diffusion": Problem(
        **IN_TIME,
        solution=lambda: diffused,
        ours=diffusion_ours,
        deepxde=diffusion_deepxde,
        k=1.0,
    ),
    "Allen-Cahn": Problem(
        **IN_TIME, solution=phases_solution, ours=phases_ours, deepxde=phases_deepxde
    ),
}
CONTENDERS = {"this library": "ours", "DeepXDE": "deepxde"}
COLUMNS = {
    **{name: (name, "error") for name in PROBLEMS if name != "Allen-Cahn"},
    "its k": ("diffusion", "k"),
    "Allen-Cahn": ("Allen-Cahn", "error"),
}


def lines_of(contender: str, problems: Sequence[str], seeds: int, seconds: float) -> Iterator[Any]:
    """Yield the errors of each solution."""
    for name in problems:
        problem = PROBLEMS[name]
        at = drawn(problem.low, problem.high, TEST_ROWS, 10**6)
        at = at[problem.is_inside(at)]
        true = problem.solution()(at)
        for seed in range(seeds):
            found = getattr(problem, CONTENDERS[contender])(seed, seconds)
            yield line_of(contender, name, seed, found, at, true, problem.k)


if __name__ == "__main__":
    main(__doc__, [*CONTENDERS], [*PROBLEMS], COLUMNS, lines_of, seeds=3, seconds=40.0)
