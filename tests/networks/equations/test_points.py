"""The argument of a residual, and conditions between several points of a row."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.user_layers import require_stack_of, sample_theta

# Some hundred roundings, relative to the largest entry.
PARITY = 1e-12
generator = np.random.default_rng(72)
ONE, TWO = (bx.mlp([n, 6, 1], hidden="tanh").layers for n in (1, 2))
SYSTEM = bx.mlp([2, 6, 2], hidden="tanh").layers
SHARES = np.array([0.2, 0.5, 0.3])


def periodic(s: Any) -> Any:
    return s[0].u - s[1].u, s[0].u_x - s[1].u_x


def delay(s: Any) -> Any:
    return s[0].u_t + s[0].k * s[1].u * s[0].t


def norm(s: Any) -> Any:
    return sum(float(share) * one.u**2 for share, one in zip(SHARES, s, strict=True)) - 1.0


def interface(s: Any) -> Any:
    return s[0].q * s[0].u_x - s[1].q * s[1].u_x, s[0].u - s[1].u - s[0].k * s[2].t


def system(s: Any) -> Any:
    return s[0].u_xx * s[1].v + s[2].u, s[1].v_t - s[0].u_t * s[2].v_xx


CONDITIONS = {
    "periodic": functools.partial(bx.Equation, TWO, periodic, "tx", points=2),
    "delay": functools.partial(bx.Equation, ONE, delay, "t", unknown={"k": 0.7}, points=2),
    "norm": functools.partial(bx.Equation, ONE, norm, "t", points=3),
    "interface": functools.partial(
        *(bx.Equation, TWO, interface, "tx"), given="q", unknown={"k": 0.7}, points=3
    ),
    "system": functools.partial(bx.Equation, SYSTEM, system, "tx", points=3),
}
by_condition = pytest.mark.parametrize("name", CONDITIONS)


def sample(name: str, rows: int = 4) -> tuple[bx.Equation, bx.Network, Any, Any]:
    """Return an equation, its network, theta and x."""
    layer = CONDITIONS[name]()
    network = bx.Network([layer], "mean_squared_error")
    return layer, network, sample_theta(network), generator.normal(size=(rows, layer.n_in))


@by_condition
def test_a_row_has_the_columns_of_each_point(name: str) -> None:
    layer = CONDITIONS[name]()
    assert layer.n_in == layer.points * (len(layer.variables) + len(layer.given))


@pytest.mark.jax
@pytest.mark.once
@by_condition
def test_residuals_and_gradients_are_those_of_automatic_differentiation(name: str) -> None:
    jax = pytest.importorskip("jax")
    layer, network, theta, x = sample(name)
    weight = generator.normal(size=(len(x), layer.n_out))
    found = [network.forward(theta, x), *network.vjp(theta, x, weight)]
    shapes = [shape for one in layer.layers for shape in one.shapes]
    n, size = len(layer.variables), layer.network.size

    def outputs(theta: Any, at: Any) -> Any:
        ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
        parts = jax.numpy.split(theta[:size], ends)
        first, bias, last, shift = (
            part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        return (jax.numpy.tanh(at[None, :] @ first + bias) @ last + shift)[0, :]

    def point(theta: Any, own: Any) -> Any:
        at, names = own[:n], layer.variables
        slopes = jax.jacobian(outputs, argnums=1)(theta, at)
        curvatures = jax.hessian(outputs, argnums=1)(theta, at)
        given = dict(zip([*names, *layer.given], own, strict=True))
        for k, u in enumerate(layer.outputs):
            given[u] = outputs(theta, at)[k]
            given.update({f"{u}_{names[i]}": slopes[k, i] for i in range(n)})
            given.update({f"{u}_{names[i] * 2}": curvatures[k, i, i] for i in range(n)})
        unknown = dict(zip(layer.unknown, theta[size:], strict=True))
        return SimpleNamespace(**given, **unknown)

    def residuals(theta: Any, x: Any) -> Any:
        def of_row(row: Any) -> Any:
            parts = layer.residual([point(theta, own) for own in row.reshape(layer.points, -1)])
            return jax.numpy.stack(parts if isinstance(parts, tuple) else (parts,))

        return jax.vmap(of_row)(x)

    with jax.enable_x64(True):
        expected, pull = jax.vjp(residuals, *map(jax.numpy.asarray, (theta, x)))
        for ours, theirs in zip(found, [expected, *pull(jax.numpy.asarray(weight))], strict=True):
            scale = np.max(np.abs(theirs))
            np.testing.assert_allclose(ours / scale, theirs / scale, rtol=PARITY, atol=PARITY)


@pytest.mark.float64  # which confirms the complex step by real differences
@by_condition
def test_backpropagation_through_several_points_passes_the_check(xp: Any, name: str) -> None:
    layer, _, _, x = sample(name)
    report = bx.check_layer(layer, xp.asarray(x), method="complex_step")
    assert report.passed, str(report)


@by_condition
def test_a_stack_is_its_equations_one_by_one(xp: Any, name: str) -> None:
    layer, network, _, x = sample(name)
    theta, y = sample_theta(network, (2,)), generator.normal(size=(4, layer.n_out))
    require_stack_of(xp, network, theta, x, y, PARITY)


@pytest.mark.long
@by_condition
def test_the_gauss_newton_matrix_has_the_residuals_derivatives(xp: Any, name: str) -> None:
    layer, network, theta, x = sample(name)
    y = generator.normal(size=(4, layer.n_out))
    _, matrix = network.gauss_newton(*xp.put(theta, x, y))
    rows = []
    for i, k in np.ndindex(4, layer.n_out):
        g = np.zeros((4, layer.n_out))
        g[i, k] = 1.0
        rows.append(xp.host(network.vjp(*xp.put(theta, x, g))[0]))
    jacobian = np.stack(rows)
    expected = 2.0 / (4.0 * layer.n_out) * jacobian.T @ jacobian
    size = np.max(np.abs(expected))
    xp.assert_close(xp.host(matrix) / size, expected / size, PARITY)


def test_each_point_has_the_derivatives_that_it_uses() -> None:
    passes = {name: make()._passes for name, make in CONDITIONS.items()}
    assert passes["periodic"] == ((((), (1,)), (0, 1)),)
    assert passes["delay"] == ((((0,),), (0,)), (((),), (1,)))
    assert passes["norm"] == ((((),), (0, 1, 2)),)
    # The third point has a variable alone, and no pass through the layers.
    assert passes["interface"] == ((((1,), ()), (0, 1)),)


def test_groups_take_conditions_between_points(xp: Any) -> None:
    inside = bx.Equation(TWO, lambda s: s.u_t - s.u_xx, "tx")
    at, pairs = generator.normal(size=(7, 2)), generator.normal(size=(3, 4))
    ends = CONDITIONS["periodic"]()
    groups = {"inside": (inside, xp.asarray(at)), "ends": (ends, xp.asarray(pairs))}
    layer, x, y, weight = bx.group_rows(groups)
    network = bx.Network([layer], "mean_squared_error")
    theta = xp.asarray(sample_theta(network))
    losses = [
        bx.Network([one], "mean_squared_error").loss(
            theta, *xp.put(points, np.zeros((len(points), one.n_out)))
        )
        for one, points in ((inside, at), (ends, pairs))
    ]
    loss = network.loss(theta, x, y, sample_weight=weight)
    xp.assert_close(loss, 0.5 * sum(map(xp.host, losses)), PARITY)
    with pytest.raises(ValueError, match=r"\(n, 4\) is .* columns, of each of the 2 points in a"):
        bx.group_rows({"ends": (ends, xp.asarray(at))})


def test_several_points_are_not_one(xp: Any) -> None:
    two, three = (bx.Equation(ONE, lambda s: s[0].u, "t", points=n) for n in (2, 3))
    assert (two.points, three.points, two.n_in, three.n_in) == (2, 3, 2, 3)
    assert two != three


WRONG: dict[str, tuple[Any, int, type[Exception], str]] = {
    "call": (lambda s: s.u_t + s.u(s.t - 1.0), 1, TypeError, r"points=2.*: lambda s: s\[0\]\.u_t"),
    "one point": (lambda s: s[0].u - s[1].u, 1, TypeError, r"one point s, without s\[0\].*points="),
    "loop": (lambda s: sum(p.u for p in s), 1, TypeError, r"one point s, without s\[0\]"),
    "no point": (lambda s: s.u_t, 2, AttributeError, r"sequence of 2 points.*: s\[0\]\.u_t\."),
    "rows": (lambda s: s.u[:1, :] - s.u[1:, :], 1, ValueError, "points=2 or more"),
    "no output": (lambda s: s[0].t - s[1].t, 2, ValueError, "uses none of the outputs u"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_residual_is_an_error_that_shows_points(name: str) -> None:
    residual, points, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        bx.Equation(ONE, residual, "t", points=points)


@pytest.mark.once
def test_a_wrong_number_of_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="points must be an integer of at least 1"):
        bx.Equation(ONE, delay, "t", points=0)


def trained(groups: dict[str, Any], epochs: int, seeds: int) -> tuple[Any, Any]:
    """Return the result of some trainings, and the layer."""
    layer, x, y, weight = bx.group_rows(groups)
    network = bx.Network([layer], "mean_squared_error")
    theta = network.initialize(seed=0, stack=(seeds,), backend="numpy")
    options: Any = {"optimizer": bx.LevenbergMarquardt(), "epochs": epochs, "l2": 1e-12}
    return bx.fit(network, theta, x, y, sample_weight=weight, **options), layer


def solution(groups: dict[str, Any], epochs: int, at: np.ndarray) -> np.ndarray:
    """Return the solution at points that the best of two trainings found."""
    result, layer = trained(groups, epochs, 2)
    found: np.ndarray = layer.network.predict(layer.split(result.best_member())[0], at)
    return found


def column(low: float, high: float, count: int) -> np.ndarray:
    return np.linspace(low, high, count)[:, None]


def solving(n_in: int, width: int, low: float, high: float) -> Sequence[Any]:
    scaled = bx.Standardize(0.5 * (low + high), 0.5 * (high - low))
    return [scaled, *bx.mlp([n_in, width, 1], hidden="tanh").layers]


@pytest.mark.once
def test_a_norm_by_quadrature_finds_an_oscillators_eigenvalues() -> None:
    """-u''/2 + x^2 u / 2 = E u has E = 1/2, 3/2, ... on the whole line."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    layers, unknown = solving(1, 16, -5.0, 5.0), {"e": 1.0}
    inside = bx.Equation(
        layers, lambda s: -0.5 * s.u_xx + (0.5 * s.x**2 - s.e) * s.u, "x", unknown=unknown
    )
    ends = bx.Equation(layers, lambda s: s.u, "x", unknown=unknown)

    def one(s: Any) -> Any:
        return sum(5.0 * float(w) * p.u**2 for w, p in zip(weights, s, strict=True)) - 1.0

    norm = bx.Equation(layers, one, "x", unknown=unknown, points=32)
    groups = {
        "inside": (inside, column(-5.0, 5.0, 60)),
        "ends": (ends, np.array([[-5.0], [5.0]])),
        "norm": (norm, 5.0 * nodes[None, :]),
    }
    result, layer = trained(groups, 150, 8)
    energies = layer.split(result.theta)[1]["e"]
    levels = np.round(energies - 0.5)
    np.testing.assert_allclose(energies, levels + 0.5, atol=1e-5)
    assert len({*levels.tolist()}) > 1  # several starts find several of them


@pytest.mark.once
def test_a_delay_is_a_second_point() -> None:
    """u' = -u(t - 1) with u = 1 before 0 has a polynomial on each unit of time."""
    layers = solving(1, 16, -1.0, 2.0)
    law = bx.Equation(layers, lambda s: s[0].u_t + s[1].u, "t", points=2)
    past = bx.Equation(layers, lambda s: s.u - 1.0, "t")
    t = column(0.0, 2.0, 61)
    # The slope of u jumps at 0: u there is 1, and before it the past is given.
    first, later = t[t[:, 0] <= 1.0], t[t[:, 0] > 1.0]
    known = bx.Equation(layers, lambda s: s.u_t + 1.0, "t")
    groups = {
        "first": (known, first),
        "later": (law, np.concatenate([later, later - 1.0], axis=1)),
        "past": (past, np.zeros((1, 1))),
    }
    expected = np.where(t <= 1.0, 1.0 - t, 1.0 - t + 0.5 * (t - 1.0) ** 2)
    np.testing.assert_allclose(solution(groups, 100, t), expected, atol=2e-3)


@pytest.mark.once
def test_an_integral_is_a_sum_over_points() -> None:
    """u' = 1 - (the integral of u from 0 to t) with u(0) = 0 is the sine."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    layers, shares = solving(1, 12, 0.0, 3.0), 0.5 * (nodes + 1.0)

    def law(s: Any) -> Any:
        integral = sum(0.5 * float(w) * p.u for w, p in zip(weights, s[1:], strict=True))
        return s[0].u_t - 1.0 + s[0].t * integral

    t = column(0.0, 3.0, 40)
    groups = {
        "inside": (
            bx.Equation(layers, law, "t", points=9),
            np.concatenate([t, t * shares], axis=1),
        ),
        "start": (bx.Equation(layers, lambda s: s.u, "t"), np.zeros((1, 1))),
    }
    np.testing.assert_allclose(solution(groups, 100, t), np.sin(t), atol=1e-5)


@pytest.mark.once
def test_periodic_boundaries_are_two_points() -> None:
    """Heat on a ring: u(0, x) = sin(2 pi x) decays by exp(-4 pi^2 k t)."""
    rate = 0.5
    layers = [bx.Standardize([0.5, 0.5], [0.5, 0.5]), *bx.mlp([2, 16, 1], hidden="tanh").layers]
    heat = bx.Equation(layers, lambda s: s.u_t - rate / (4.0 * np.pi**2) * s.u_xx, "tx")
    ring = bx.Equation(layers, periodic, "tx", points=2)
    start = bx.Equation(layers, lambda s: s.u - s.xp.sin(2.0 * np.pi * s.x), "tx")
    t, x = column(0.0, 1.0, 11), column(0.0, 1.0, 21)
    grid = np.stack(np.meshgrid(t[:, 0], x[:, 0], indexing="ij"), axis=-1).reshape(-1, 2)
    zeros = np.zeros_like(t)
    groups = {
        "inside": (heat, grid),
        "ends": (ring, np.concatenate([t, zeros, t, zeros + 1.0], axis=1)),
        "start": (start, np.concatenate([np.zeros_like(x), x], axis=1)),
    }
    expected = np.exp(-rate * grid[:, :1]) * np.sin(2.0 * np.pi * grid[:, 1:])
    np.testing.assert_allclose(solution(groups, 150, grid), expected, atol=2e-3)
