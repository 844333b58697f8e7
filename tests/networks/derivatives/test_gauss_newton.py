"""The Gauss-Newton matrix beside closed forms, the complex step, JAX and PyTorch.

Specifies ``row_jacobians``.
"""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.derivatives import gauss_newton
from backprop_xp.networks.losses.loss import LOSSES
from tests.user_layers import Doubled, Factors, sample_data, sample_network, sample_theta

# Some hundred roundings, relative to the largest entry.
PARITY = 2e-13
# A solution has as many digits less as the condition number has, here about a thousand.
SOLVED = 1e-11
# A step that no rounding sees: the complex step of an analytic function is exact.
STEP = 1e-30
CURVED = [name for name, loss in LOSSES.items() if loss.curvature is not None]
generator = np.random.default_rng(60)


def jacobian_of(network: bx.Network, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the derivatives of the outputs by theta, ``(batch, n_out, P)``, by complex steps."""
    steps = theta + 1j * STEP * np.eye(network.size)
    return np.stack([network.forward(t, x).imag / STEP for t in steps], axis=-1)


def matrix_of(
    network: bx.Network, theta: np.ndarray, x: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Return ``J^T D J`` plus the penalty's part, with D a matrix for each row."""
    jacobian = jacobian_of(network, theta, x)
    curvature = network.loss_function.curvature
    assert curvature is not None
    d = curvature(network.forward(theta, x), y)
    d = d if d.ndim == 3 else d[..., None] * np.eye(d.shape[-1])
    shares = weight / weight.sum()
    curved = np.einsum("r,rap,rab,rbq->pq", shares, jacobian, d, jacobian)
    return curved + network.l2 * np.diag(network.weight_mask(theta))


def assert_relatively_close(xp: Any, found: Any, expected: np.ndarray, close: float) -> None:
    size = np.max(np.abs(expected))
    xp.assert_close(xp.host(found) / size, expected / size, close)


@pytest.mark.parametrize("loss", CURVED)
def test_the_matrix_is_that_of_an_independent_jacobian(xp: Any, loss: str) -> None:
    network = sample_network(loss=loss)
    theta, (x, y, weight) = sample_theta(network), sample_data(loss)
    given = xp.put(theta, x, y)
    gradient, matrix = network.gauss_newton(*given, sample_weight=xp.asarray(weight))
    expected = matrix_of(network, theta, x, y, weight)
    assert_relatively_close(xp, matrix, expected, PARITY)
    _, backward = network.loss_and_gradient(*given, sample_weight=xp.asarray(weight))
    assert_relatively_close(xp, gradient, xp.host(backward), PARITY)


def test_the_matrix_has_a_weight_for_each_entry_of_y(xp: Any) -> None:
    network = sample_network(loss="mean_squared_error")
    theta, (x, y, _) = sample_theta(network), sample_data("mean_squared_error")
    weight = generator.uniform(0.0, 2.0, size=y.shape) * (generator.random(y.shape) < 0.7)
    _, matrix = network.gauss_newton(*xp.put(theta, x, y), sample_weight=xp.asarray(weight))
    jacobian = jacobian_of(network, theta, x)
    curved = np.einsum("rap,ra,raq->pq", jacobian, 2.0 * weight / weight.sum(), jacobian)
    expected = curved + network.l2 * np.diag(network.weight_mask(theta))
    assert_relatively_close(xp, matrix, expected, PARITY)


class FactorsByRow(Factors):
    """Factors with a rule for all rows at once."""

    def row_gradients(
        self, parameters: Any, cache: Any, g: Any, out: Any = (None,), *, wants_input: bool = True
    ) -> Any:
        each = (g * cache)[..., None, :]
        if out[0] is not None:
            out[0][...] = each
        return (g * parameters[0] if wants_input else None), (each,)


class Halves(FactorsByRow):
    """Half of the factors: the rule that it inherits is not its own."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return super().forward(parameters, 0.5 * x, rng)

    def backward(self, parameters: Any, cache: Any, g: Any, **options: Any) -> Any:
        back, gradients = super().backward(parameters, cache, g, **options)
        return (None if back is None else 0.5 * back), gradients


CODES = np.stack([generator.integers(0, 4, 6), generator.normal(size=6)], axis=-1)
TWO = [bx.Dense(2, 3, "tanh"), bx.Dense(3, 1)]
EQUATIONS = [
    bx.Equation(TWO, one, "tx") for one in (lambda s: s.u_t - s.u_xx, lambda s: (s.u, s.u_x))
]
GROUPS = bx.Groups(EQUATIONS, [3, 2])
# Networks with each kind of layer that sample_network lacks, and their rows.
OTHERS = {
    "user's layer": (bx.Network([bx.Dense(2, 4, "gelu"), Factors(), bx.Dense(4, 2)], "huber"), 2),
    "user's rule of rows": (bx.Network([*TWO[:1], FactorsByRow(3), *TWO[1:]], "huber"), 2),
    "inherited rule of rows": (bx.Network([*TWO[:1], Halves(3), *TWO[1:]], "huber"), 2),
    "subclass": (bx.Network([bx.Dense(2, 3, "tanh"), Doubled(3, 2, "silu")], "huber"), 2),
    "first layer without parameters": (
        bx.Network([bx.Standardize([1.0, 2.0], [3.0, 4.0]), Factors(2), *TWO], "huber"),
        2,
    ),
    "columns": (
        bx.Network(
            [bx.Columns(bx.Embedding([4], 3), bx.NumericEmbedding(1)), bx.Dense(7, 2)],
            "half_squared_error",
        ),
        0,
    ),
    "derivatives": (
        bx.Network([bx.Derivatives(TWO, [(0,), (0, 1)])], "mean_squared_error"),
        2,
    ),
    "equation": (
        bx.Network(
            [bx.Equation(TWO, lambda s: s.u_t - s.kappa * s.u_xx, "tx", unknown={"kappa": 1.0})],
            "half_squared_error",
        ),
        2,
    ),
    "groups": (bx.Network([GROUPS], "mean_squared_error"), 10),
    "groups in a chain": (bx.Network([GROUPS, bx.Activate("tanh")], "half_squared_error"), 10),
    "a loss that couples groups": (bx.Network([GROUPS], "categorical_cross_entropy"), 10),
    "scale": (bx.Network([bx.Scale(2), bx.Dense(2, 2, "silu"), bx.Dense(2, 2)], "log_cosh"), 2),
}


def test_a_class_with_a_rule_of_rows_needs_no_backward_pass_for_each() -> None:
    theta, (x, y) = (
        sample_theta(OTHERS["user's rule of rows"][0]),
        (np.ones((6, 2)), np.ones((6, 1))),
    )
    wanted = []
    for name in ("user's rule of rows", "inherited rule of rows"):
        layer: Any = OTHERS[name][0].layers[1]
        layer.input_wanted.clear()
        OTHERS[name][0].gauss_newton(theta, x, y)
        wanted.append(layer.input_wanted[:])
    assert wanted == [[], [True]]


@pytest.mark.parametrize("name", OTHERS)
def test_the_matrix_of_any_layer_is_that_of_an_independent_jacobian(xp: Any, name: str) -> None:
    network, n_in = OTHERS[name]
    x = generator.normal(size=(6, n_in)) if n_in else CODES
    y = generator.uniform(size=(6, network.widths[1]))
    theta, weight = sample_theta(network), np.ones(6)
    _, matrix = network.gauss_newton(*xp.put(theta, x, y))
    assert_relatively_close(xp, matrix, matrix_of(network, theta, x, y, weight), PARITY)


def test_the_matrix_of_a_linear_model_is_its_second_derivative(xp: Any) -> None:
    network = bx.Network([bx.Dense(2, 1)], "half_squared_error", l2=0.5)
    x = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]])
    design = np.concatenate([x, np.ones((3, 1))], axis=1)
    theta, y = np.array([1.0, -2.0, 0.5]), np.array([[1.0], [2.0], [0.0]])
    gradient, matrix = network.gauss_newton(*xp.put(theta, x, y))
    penalty = np.diag([0.5, 0.5, 0.0])
    xp.assert_close(matrix, design.T @ design / 3.0 + penalty)
    xp.assert_close(gradient, design.T @ (design @ theta - y[:, 0]) / 3.0 + penalty @ theta)


def test_each_network_of_a_stack_has_the_matrix_that_it_has_alone(xp: Any) -> None:
    network = sample_network()
    theta, (x, y, weight) = sample_theta(network, (2, 3)), sample_data(stack=(2, 3))
    theta, x, y, weight = xp.put(theta, x, y, weight)
    l2 = xp.asarray(np.arange(6.0).reshape(2, 3))
    gradient, matrix = network.gauss_newton(theta, x, y, sample_weight=weight, l2=l2)
    assert tuple(matrix.shape) == (2, 3, network.size, network.size)
    for i, j in np.ndindex(2, 3):
        one = theta[i, j, :], x[i, j, :, :], y[i, j, :, :]
        own = {"sample_weight": weight[i, j, :], "l2": l2[i, j]}
        alone, of_alone = network.gauss_newton(*one, **own)
        xp.assert_close(gradient[i, j, :], alone, PARITY)
        xp.assert_close(matrix[i, j, :, :], of_alone, PARITY)


def test_networks_of_a_stack_share_x(xp: Any) -> None:
    layers = bx.Standardize([0.5, 1.0, 2.0], [2.0, 3.0, 4.0]), Factors(3), bx.Dense(3, 2, "tanh")
    network = bx.Network([*layers, bx.Dense(2, 2)], "mean_squared_error")
    theta, (x, y, _) = xp.put(sample_theta(network, (3,)))[0], sample_data()
    x, y = xp.put(x, y)
    _, matrix = network.gauss_newton(theta, x, y)
    for i in range(3):
        xp.assert_close(matrix[i, :, :], network.gauss_newton(theta[i, :], x, y)[1], PARITY)


def test_a_block_of_rows_has_no_more_derivatives_than_the_matrix_has_entries(xp: Any) -> None:
    network = bx.mlp([1, 100, 20])
    theta, x, y = xp.initialize(network), *xp.put(np.zeros((900, 1)), np.zeros((900, 20)))
    rows = gauss_newton._rows_at_once(network.definition, theta, Rows(x, y))
    most = max(network.size**2, gauss_newton._NUMBERS_AT_ONCE)
    assert 0 < rows * 20 * network.size <= most


@pytest.mark.once
def test_numpy_takes_the_rows_of_64_small_networks_at_once() -> None:
    """Products of fewer rows take half of the time again."""
    network = bx.mlp([1, 10, 1])
    theta = network.initialize(stack=(64,), backend="numpy")
    rows = Rows(np.zeros((94, 1)), np.zeros((94, 1)))
    assert gauss_newton._rows_at_once(network.definition, theta, rows) >= 94


def test_blocks_of_rows_give_the_same_matrix(xp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = bx.mlp([3, 2, 2], hidden="tanh", loss="categorical_cross_entropy")
    x, y = generator.normal(size=(50, 3)), generator.dirichlet(np.ones(2), 50)
    theta, x, y = xp.put(sample_theta(network), x, y)
    weight = xp.asarray(generator.uniform(size=50))
    whole = network.gauss_newton(theta, x, y, sample_weight=weight)
    monkeypatch.setattr(gauss_newton, "_rows_at_once", lambda *_: 7)
    for once, blocks in zip(
        whole, network.gauss_newton(theta, x, y, sample_weight=weight), strict=True
    ):
        xp.assert_close(once, blocks, PARITY)


@pytest.mark.parametrize("loss", ["mean_squared_error", "categorical_cross_entropy"])
@pytest.mark.parametrize("l2", [None, 0.3, "stacked"])
def test_both_forms_of_the_model_take_the_same_steps(xp: Any, loss: str, l2: Any) -> None:
    network = bx.mlp([3, 5, 4, 2], hidden="tanh", loss=loss)
    theta, x, y, weight = xp.put(sample_theta(network, (2,)), *sample_data(loss))
    strength = xp.asarray([0.1, 0.2]) if l2 == "stacked" else l2
    rows, damping = Rows(x, y, weight), xp.asarray([[0.1], [1.0]])
    primal, dual = (
        form(network.definition, theta, rows, strength)
        for form in (gauss_newton.primal, gauss_newton.dual)
    )
    xp.assert_close(dual.loss, primal.loss, PARITY)
    xp.assert_close(dual.gradient, primal.gradient, PARITY)
    xp.assert_close(dual.diagonal, primal.diagonal, PARITY)
    steps = [model.step(model.damped(damping)) for model in (dual, primal)]
    xp.assert_close(*steps, SOLVED)
    matrix, shift = xp.host(primal.matrix), xp.host(damping)[..., None] * np.eye(network.size)
    expected = -np.linalg.solve(matrix + shift, xp.host(primal.gradient)[..., None])[..., 0]
    xp.assert_close(steps[1], expected, SOLVED)


def test_the_form_with_the_smaller_equations_is_chosen() -> None:
    network, x, y = bx.mlp([1, 3, 1]), np.ones((12, 1)), np.ones((12, 1))
    theta = network.initialize(backend="numpy")
    kinds = [
        type(gauss_newton.quadratic(network.definition, theta, Rows(x[:n], y[:n]), None))
        for n in (9, 10)
    ]
    assert kinds == [gauss_newton.Dual, gauss_newton.Primal]


def test_a_row_of_weight_0_adds_nothing_even_if_it_overflows(xp: Any) -> None:
    network = bx.mlp([1, 2, 1], hidden="relu")
    large = {"float64": 1e300, "float32": 1e38}[xp.dtype]
    theta, x, y = xp.put(sample_theta(network), [[0.5], [-2.0], [large]], [[1.0], [0.0], [0.0]])
    _, matrix = network.gauss_newton(theta, x, y, sample_weight=xp.asarray([1.0, 1.0, 0.0]))
    _, expected = network.gauss_newton(theta, x[:2, :], y[:2, :])
    xp.assert_close(matrix, expected)


def test_a_negative_curvature_counts_as_0(xp: Any) -> None:
    half = LOSSES["half_squared_error"]
    odd = bx.Loss(half.value, half.gradient, curvature=lambda o, t: o)
    network = bx.Network([bx.Dense(1, 1)], odd)
    theta, x, y = xp.put([2.0, 0.0], [[1.0], [-1.0]], [[0.0], [0.0]])
    # The outputs are 2 and -2: half of 2 for the first row's (1, 1), nothing for the second's.
    _, matrix = network.gauss_newton(theta, x, y)
    xp.assert_close(matrix, np.ones((2, 2)))


def test_a_loss_without_a_curvature_is_an_error_with_the_way_out(xp: Any) -> None:
    network = bx.mlp([1, 1], loss="mean_absolute_error")
    theta, x, y = xp.put(sample_theta(network), [[1.0]], [[0.0]])
    with pytest.raises(ValueError, match=r"has no curvature, .* such as huber .* bx\.Adam\(\)"):
        network.gauss_newton(theta, x, y)


def test_the_matrix_is_that_of_jaxs_jacobian_and_hessian(jax: Any) -> None:
    network = sample_network("softplus", loss="categorical_cross_entropy")
    theta, (x, y, weight) = sample_theta(network), sample_data()
    _, matrix = network.gauss_newton(theta, x, y, sample_weight=weight, l2=0.0)
    with jax.enable_x64(True):
        at, rows, targets = map(jax.numpy.asarray, (theta, x, y))
        of_row = jax.hessian(lambda o, t: network.loss_function.value(o[None], t[None])[0])
        jacobian, d = jax.jit(
            lambda t: (
                jax.jacrev(lambda u: network.forward(u, rows))(t),
                jax.vmap(of_row)(network.forward(t, rows), targets),
            )
        )(at)
        expected = np.einsum("r,rap,rab,rbq->pq", weight / weight.sum(), jacobian, d, jacobian)
    np.testing.assert_allclose(matrix, expected, rtol=0.0, atol=PARITY * np.abs(expected).max())


def test_the_jacobian_is_that_of_pytorch(torch: Any) -> None:
    network = sample_network("softplus", loss="half_squared_error")
    theta, (x, y, _) = sample_theta(network), sample_data()
    _, matrix = network.gauss_newton(theta, x, y, l2=0.0)
    rows = torch.tensor(x)
    jacobian = torch.autograd.functional.jacobian(
        lambda t: network.forward(t, rows), torch.tensor(theta)
    ).numpy()
    # The mean over two outputs and five rows of half a square has the curvature 1 / 10.
    expected = np.einsum("rap,raq->pq", jacobian, jacobian) / 10.0
    np.testing.assert_allclose(matrix, expected, rtol=0.0, atol=PARITY * np.abs(expected).max())
