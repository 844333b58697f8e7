"""The layer that holds values exactly where a factor is 0."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from tests.user_layers import sample_theta

# Some hundred roundings, relative to the largest entry.
PARITY = 1e-12
# A step that no rounding sees: the complex step of an analytic function is exact.
STEP = 1e-30
generator = np.random.default_rng(72)
LAYERS = [bx.Dense(2, 6, "tanh"), bx.Dropout(0.3), bx.Dense(6, 3)]


def ends(x: Any) -> Any:
    return x[..., 1:] * (1.0 - x[..., 1:])


def start(x: Any) -> Any:
    return array_namespace(x).sin(3.0 * x[..., 1:]) * x[..., :1]


bx.register("tests.ends", ends)
bx.register("tests.start", start)


@pytest.mark.parametrize("value", [None, start])
@pytest.mark.parametrize("stack", [(), (2,)])
def test_the_values_hold_where_the_factor_is_0(xp: Any, value: Any, stack: Any) -> None:
    network = bx.Network([bx.Constrained(LAYERS, ends, value)], "mean_squared_error")
    theta, x = sample_theta(network, stack), np.array([[0.3, 0.0], [0.8, 1.0], [0.5, 0.5]])
    found = network.forward(*xp.put(theta, x))
    expected = np.zeros((2, 3)) if value is None else np.repeat(start(x[:2]), 3, axis=-1)
    # The sine of another library, or of another number of rows, may round differently.
    xp.assert_close(found[..., :2, :], np.broadcast_to(expected, (*stack, 2, 3)))


@pytest.mark.parametrize("value", [None, start])
def test_backpropagation_passes_the_check(xp: Any, value: Any) -> None:
    x = xp.asarray(generator.normal(size=(5, 2)))
    report = bx.check_layer(bx.Constrained(LAYERS, ends, value), x, method="complex_step")
    assert report.passed, str(report)


@pytest.mark.parametrize(("factor", "value"), [(ends, 1.5), (2.0, start), (2.0, 1.5)])
def test_a_function_may_return_a_number(xp: Any, factor: Any, value: Any) -> None:
    functions = [
        (lambda x, made=made: made) if isinstance(made, float) else made for made in (factor, value)
    ]
    x = xp.asarray(generator.normal(size=(5, 2)))
    report = bx.check_layer(bx.Constrained(LAYERS, *functions), x, method="complex_step")
    assert report.passed, str(report)


def test_derivatives_by_the_inputs_are_those_of_the_complex_step(xp: Any) -> None:
    network = bx.Network([bx.Constrained(LAYERS, ends, start)], "mean_squared_error")
    theta, x = sample_theta(network), generator.normal(size=(5, 2))
    steps = [x + 1j * STEP * np.eye(2)[i] for i in range(2)]
    jacobian = [network.forward(theta + 0j, step).imag / STEP for step in steps]
    given = xp.put(theta, x)
    xp.assert_close(network.input_jacobian(*given), np.stack(jacobian, axis=-1), PARITY)
    # The second derivatives along an axis are those of the gradient, which vjp returns.
    unit = np.eye(3)[0] * np.ones((5, 1))
    slopes = network.vjp(theta + 0j, steps[1], unit)[1].imag / STEP
    found = network.directional(*given, xp.asarray([0.0, 1.0]), order=2)
    xp.assert_close(found[:, 0], slopes[:, 1], PARITY)
    hessian = network.input_hessian(*given)
    xp.assert_close(hessian[..., 1], slopes, PARITY)


def test_the_error_of_derivatives_of_an_equation_names_those_of_u(xp: Any, tmp_path: Path) -> None:
    """Also in C, where the way out is not that of a function that cannot be recorded."""
    layers = [bx.Constrained([bx.Dense(2, 6, "tanh"), bx.Dense(6, 1)], ends, start)]
    equation = bx.Equation(layers, lambda s: s.u_t - s.u_xx, "tx")
    network = bx.Network([equation], "mean_squared_error")
    theta, x = xp.put(sample_theta(network), generator.normal(size=(5, 2)))
    way_out = r"no derivatives by x.*such as equation\.network, has input_jacobian, input_hessian"
    with pytest.raises(TypeError, match=way_out):
        network.input_jacobian(theta, x)
    with pytest.raises(TypeError, match=way_out) as caught:
        bx.export_c(tmp_path / "network.c", network, theta, derivatives=True)
    assert "recorded" not in str(caught.value)
    assert tuple(equation.network.input_hessian(theta, x).shape) == (5, 2, 2)
    bx.export_c(tmp_path / "network.c", equation.network, theta, derivatives=True)


def test_an_equation_of_it_passes_the_check(xp: Any) -> None:
    layers = [bx.Constrained([bx.Dense(2, 6, "tanh"), bx.Dense(6, 1)], ends, start)]
    for residual in (lambda s: s.u_t - s.u_xx, lambda s: s.u_t + s.u * s.u_x):
        x = xp.asarray(generator.normal(size=(5, 2)))
        equation = bx.Equation(layers, residual, "tx")
        report = bx.check_layer(equation, x, method="complex_step", wants_input=False)
        assert report.passed, str(report)


def test_a_file_has_the_layer_and_its_functions(xp: Any, tmp_path: Path) -> None:
    network = bx.Network([bx.Constrained(LAYERS, ends, start)], "mean_squared_error")
    theta, x = xp.initialize(network), xp.asarray(generator.normal(size=(5, 2)))
    bx.save(tmp_path / "network", network, theta)
    read = bx.load(tmp_path / "network")
    assert read.network == network
    xp.assert_close(read.predict(x), network.predict(theta, x))


def test_wrong_functions_are_an_error(xp: Any) -> None:
    with pytest.raises(TypeError, match=r"factor must be a function of x, not 1\.0"):
        bx.Constrained(LAYERS, 1.0)  # type: ignore[arg-type]
    for factor, shape in ((lambda x: x, r"\(1, 2\)"), (lambda x: x[None, :, :1], r"\(1, 1, 1\)")):
        network = bx.Network([bx.Constrained([bx.Dense(2, 1)], factor)], "mean_squared_error")
        with pytest.raises(ValueError, match=f"with one column are expected.* they make {shape}"):
            network.forward(xp.initialize(network), xp.asarray([[0.1, 0.2]]))


MIXING = {
    "mean": lambda x: x[..., :1] - array_namespace(x).mean(x, axis=-2, keepdims=True)[..., :1],
    "sum": lambda x: array_namespace(x).sum(x[..., :1] ** 2, axis=-2, keepdims=True),
    "number": lambda x: array_namespace(x).sum(x),
    "maximum": lambda x: x[..., :1] / array_namespace(x).max(x),
    "minimum": lambda x: x[..., :1] - array_namespace(x).min(x[..., :1], axis=-2, keepdims=True),
    "first row": lambda x: x[..., :1] * x[..., :1, :1],
    "earlier rows": lambda x: array_namespace(x).cumulative_sum(x, axis=-2)[..., :1],
    "later rows": lambda x: x[..., :1] * x[..., -1:, :1],
    "order": lambda x: array_namespace(x).flip(x, axis=-2)[..., :1],
}


@pytest.mark.once
@pytest.mark.parametrize("name", MIXING)
def test_a_function_that_mixes_rows_is_refused(name: str) -> None:
    mixing = MIXING[name]
    with pytest.raises(ValueError, match="factor must make each row of that row of x alone"):
        bx.Constrained(LAYERS, mixing)
    with pytest.raises(ValueError, match="value must make each row of that row of x alone"):
        bx.Constrained([bx.Activate("tanh"), bx.Dense(2, 1)], ends, mixing)


@pytest.mark.once
def test_functions_of_a_row_and_of_other_libraries_arrays_are_accepted() -> None:
    def of_another_library(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            raise TypeError("an array of another library is expected")
        return x[..., :1]

    for function in (
        lambda x: 1.0,
        lambda x: x[..., :1] / (x[..., :1] - x[..., :1]),  # NaN
        lambda x: array_namespace(x).sum(x, axis=-1, keepdims=True),
        lambda x: array_namespace(x).ones_like(x)[..., :1],
        of_another_library,
    ):
        assert bx.Constrained(LAYERS, function, function).n_in == 2
