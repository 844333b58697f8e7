"""The residual of a differential equation as a layer.

Specifies ``quantity_names``.
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.user_layers import require_stack_of, sample_theta

# Some hundred roundings, relative to the largest entry.
PARITY = 1e-12
generator = np.random.default_rng(70)
TWO = bx.mlp([2, 6, 1], hidden="tanh").layers
THREE = bx.mlp([2, 6, 3], hidden="silu").layers


def heat(s: Any) -> Any:
    return s.u_t - s.kappa * s.u_xx


def burgers(s: Any) -> Any:
    return s.u_t + s.u * s.u_x - s.nu * s.u_xx - s.xp.sin(s.x) * s.source


def flow(s: Any) -> Any:
    return s.u_x + s.v_y, s.u * s.u_x + s.v * s.u_y + s.p_x - s.mu**2 * s.u_xy, s.mu * s.rho


def poisson(s: Any) -> Any:
    return s.laplacian("u", "x", "y") - s.u_xy * s.u_t, s.laplacian("u") + s.u_yy


def of_long_names(s: Any) -> Any:
    return s.d("u", "time") - s.d("u", "x1", "x1") + s.d("u", "x1", "time") * s.d("u")


EQUATIONS = {
    "heat": functools.partial(bx.Equation, TWO, heat, "tx", unknown={"kappa": 0.5}),
    "burgers": functools.partial(
        bx.Equation, TWO, burgers, "tx", given=["source"], unknown={"nu": 0.1}
    ),
    "flow": functools.partial(
        *(bx.Equation, THREE, flow, "xy"), outputs="uvp", unknown={"mu": 0.5, "rho": 2.0}
    ),
    "poisson": functools.partial(
        bx.Equation, bx.mlp([3, 6, 1], hidden="gelu").layers, poisson, "txy"
    ),
    "of_long_names": functools.partial(bx.Equation, TWO, of_long_names, ["time", "x1"]),
}


@pytest.mark.float64  # which confirms the complex step by real differences
@pytest.mark.parametrize("name", EQUATIONS)
def test_backpropagation_through_a_residual_passes_the_check(xp: Any, name: str) -> None:
    layer = EQUATIONS[name]()
    x = xp.asarray(generator.normal(size=(5, layer.n_in)))
    report = bx.check_layer(layer, x, method="complex_step")
    assert report.passed, str(report)


def test_a_residual_is_made_of_the_networks_derivatives(xp: Any) -> None:
    equation = EQUATIONS["burgers"]()
    network = bx.Network([equation], "mean_squared_error")
    theta, x = sample_theta(network), generator.normal(size=(5, 3))
    of_u, unknown = equation.split(xp.asarray(theta))
    at = xp.asarray(x[:, :2])
    u = xp.host(equation.network.predict(of_u, at))[:, 0]
    u_t, u_x = xp.host(equation.network.input_jacobian(of_u, at))[:, 0, :].T
    u_xx = xp.host(equation.network.input_hessian(of_u, at))[:, 1, 1]
    assert float(unknown["nu"]) == pytest.approx(theta[-1])
    expected = u_t + u * u_x - theta[-1] * u_xx - np.sin(x[:, 1]) * x[:, 2]
    xp.assert_close(network.forward(*xp.put(theta, x)), expected[:, None], PARITY)


def test_a_laplacian_is_the_sum_of_second_derivatives(xp: Any) -> None:
    layers = bx.mlp([3, 6, 1], hidden="gelu").layers
    summed, at = EQUATIONS["poisson"](), generator.normal(size=(5, 3))
    by_hand = bx.Equation(
        layers, lambda s: (s.u_xx + s.u_yy - s.u_xy * s.u_t, s.u_tt + s.u_xx + 2.0 * s.u_yy), "txy"
    )
    weight = xp.asarray(generator.normal(size=(5, 2)))
    networks = [bx.Network([one], "mean_squared_error") for one in (summed, by_hand)]
    given = xp.put(sample_theta(networks[0]), at)
    for found, expected in zip(*(one.vjp(*given, weight) for one in networks), strict=True):
        xp.assert_close(found, expected, PARITY)
    found, expected = (one.forward(*given) for one in networks)
    xp.assert_close(found, expected, PARITY)


def test_only_the_derivatives_that_a_residual_uses_are_computed() -> None:
    terms = {name: make()._passes[0][0] for name, make in EQUATIONS.items()}
    assert terms["heat"] == ((0,), (1, 1))
    assert terms["poisson"] == ((1, 1, 2, 2), (1, 2), (0,), (0, 0, 1, 1, 2, 2), (2, 2))
    assert terms["flow"] == ((0,), (1,), (), (0, 1))
    assert EQUATIONS["flow"]().n_out == 3


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_stack_is_its_equations_one_by_one(xp: Any, name: str) -> None:
    equation = EQUATIONS[name]()
    network = bx.Network([equation], "huber", l2=0.1)
    theta, x = sample_theta(network, (2,)), generator.normal(size=(5, equation.n_in))
    y = generator.normal(size=(5, equation.n_out))
    require_stack_of(xp, network, theta, x, y, PARITY)
    split = equation.split(xp.asarray(theta))
    assert split[0].shape == (2, equation.network.size)
    assert {value.shape for value in split[1].values()} <= {(2,)}


def decay(s: Any) -> Any:
    return s.u_t + s.rate * s.u, s.u


@pytest.mark.long
def test_a_training_finds_an_unknown_coefficient(xp: Any) -> None:
    layers = bx.mlp([1, 12, 1], hidden="tanh").layers
    equation = bx.Equation(layers, decay, "t", unknown={"rate": 1.0})
    network = bx.Network([equation], "mean_squared_error")
    t = np.linspace(0.0, 1.0, 20)[:, None]
    y = np.concatenate([0.0 * t, np.exp(-2.0 * t)], axis=-1)
    options: Any = {"optimizer": bx.LBFGS(), "epochs": 100}
    result = bx.fit(network, xp.initialize(network), *xp.put(t, y), **options)
    _, unknown = equation.split(result.theta)
    # The training has not converged to all digits.
    assert float(unknown["rate"]) == pytest.approx(2.0, abs=0.1)


def test_a_file_names_a_registered_residual(xp: Any, tmp_path: Path) -> None:
    bx.register("residual of heat", heat)
    network = bx.Network([EQUATIONS["heat"]()], "mean_squared_error")
    theta, x = xp.initialize(network), xp.asarray(generator.normal(size=(4, 2)))
    bx.save(tmp_path / "heat", network, theta)
    read = bx.load(tmp_path / "heat")
    assert read.network == network
    xp.assert_close(read.predict(x), network.predict(theta, x))
    nameless = bx.Network([bx.Equation(TWO, lambda s: s.u_t, "tx")], "huber")
    message = (
        r"residual is a lambda, .*residual = lambda .*bx\.register\(\"my residual\", residual\)"
    )
    with pytest.raises(TypeError, match=message):
        bx.save(tmp_path / "other", nameless, theta[:-1])


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "function of the library": (lambda s: np.sin(s.u), TypeError, r"s\.xp\.sin\(s\.u\)"),
    "function of numbers": (lambda s: math.sin(s.u), TypeError, r"s\.xp\.sin\(s\.u\)"),
    "remainder": (lambda s: s.u - s.x % 1.0, TypeError, r"no rule for x % y.* given= of an Eq"),
    "if": (lambda s: s.u if s.x > 0 else s.u_t, TypeError, r"takes one boolean.* it is s\.xp\."),
    "if of an unknown": (lambda s: s.u if s.kappa > 0 else s.u_t, TypeError, "takes one boolean"),
    "condition": (lambda s: s.u_t > 0.0, TypeError, "residual returned a condition, but"),
    "without a rule": (lambda s: s.xp.atan2(s.u, s.t), TypeError, "no rule for atan2"),
    "unknown": (lambda s: s.u_t - s.kapa, AttributeError, "no 'kapa'.*'kappa'"),
    "variable": (lambda s: s.u_tz, AttributeError, r"no 'u_tz'.*s\.d\(\"u\", \"time\""),
    "output": (lambda s: s.d("v", "t"), AttributeError, "'v' is not an output"),
    "name": (lambda s: s.d("u", "time"), AttributeError, "'time' is not a variable"),
    "laplacian": (lambda s: s.laplacian("u", "y"), AttributeError, "'y' is not a variable"),
    "order": (lambda s: s.u_xxt, AttributeError, "of order 3.*makes a system"),
    "number": (lambda s: 0.0, TypeError, "residual returned float"),
    "mean of rows": (lambda s: s.u - s.xp.mean(s.u, axis=-2), ValueError, "that row alone"),
    "sum of all": (lambda s: s.xp.sum(s.u_t), ValueError, "that row alone"),
    "row before": (lambda s: s.u[1:] - s.u[:-1], ValueError, "that row alone"),
    "no output": (lambda s: s.kappa * s.x, ValueError, "uses none of the outputs u"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_residual_is_an_error_at_construction(name: str) -> None:
    residual, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        bx.Equation(TWO, residual, "tx", unknown={"kappa": 1.0})


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (TWO, {"variables": "txy"}, "layers take 2 columns, but there are 3 variables: t, x, y"),
        (TWO, {"variables": "tt"}, "'t' is the name of two quantities"),
        (TWO, {"variables": "ut"}, "'u' is the name of two quantities"),
        (TWO, {"variables": ["time", "x 1"]}, "'x 1' cannot be the name"),
        (TWO, {"variables": "tx", "unknown": {"xp": 1.0}}, "'xp' cannot be the name"),
        (TWO, {"variables": "tx", "given": ["u_x"]}, "'u_x' cannot .* a derivative of u"),
        (TWO, {"variables": "tx", "unknown": {"u_tx": 1.0}}, "'u_tx' cannot .* a derivative of u"),
        (TWO, {"variables": "tx", "outputs": "uv"}, "1 outputs, but 2 names: u, v"),
        (bx.mlp([2, 5]).layers, {"variables": "tx"}, "5 outputs, but 3 names.*outputs="),
        (bx.mlp([2, 4, 1]).layers, {"variables": "tx"}, "second derivatives, but 'relu' has none"),
        ([bx.Embedding([2, 3], 1)], {"variables": "tx"}, "layers of numbers, but Embedding takes"),
    ],
)
def test_wrong_names_and_layers_are_errors(layers: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bx.Equation(layers, lambda s: s.u_tt, **options)


@pytest.mark.parametrize(
    ("residual", "variables", "options", "message"),
    [
        ("u_t", "tx", {}, "residual must be a function of a point s, not 'u_t'"),
        (heat, 2, {}, "variables must be a sequence such as .*, not 2"),
        (heat, "tx", {"given": 1}, "given must be a sequence"),
        (heat, "tx", {"unknown": ["kappa"]}, r"unknown must be a dictionary .*, not \['kappa'\]"),
    ],
)
def test_a_wrong_kind_of_argument_is_named(
    residual: Any, variables: Any, options: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        bx.Equation(TWO, residual, variables, **options)


def test_a_given_column_may_have_a_name_of_several_letters() -> None:
    equation = bx.Equation(TWO, lambda s: s.u - s.reading, "tx", given="reading")
    assert (equation.given, equation.n_in) == (("reading",), 3)


def test_split_gives_each_unknown_its_own_values(xp: Any) -> None:
    equation = EQUATIONS["flow"]()
    theta = np.arange(2.0 * equation.network.size + 4.0).reshape(2, -1)
    of_u, unknown = equation.split(xp.asarray(theta))
    xp.assert_equal(of_u, xp.asarray(theta[:, :-2]))
    assert {name: xp.host(value).tolist() for name, value in unknown.items()} == {
        "mu": theta[:, -2].tolist(),
        "rho": theta[:, -1].tolist(),
    }
    # The residual of the last part is mu times rho: a start of each is where it was named.
    start = equation.split(xp.initialize(bx.Network([equation], "huber")))[1]
    assert {name: float(value) for name, value in start.items()} == {"mu": 0.5, "rho": 2.0}


def test_split_takes_theta_of_the_equation_alone(xp: Any) -> None:
    equation = EQUATIONS["heat"]()
    with pytest.raises(ValueError, match=r"theta has 25 numbers, but the equation has 26"):
        equation.split(xp.asarray(np.zeros(25)))
    with pytest.raises(TypeError, match=r"theta must be an array, not list\."):
        equation.split([0.0] * 26)
