"""Derivatives by the inputs, beside closed forms, the complex step, JAX and PyTorch."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from tests.user_layers import PARAMETRIC_LOSSES, Factors, sample_network, sample_theta

# Some hundred roundings, relative to the largest derivative.
PARITY = 2e-13
# A step that no rounding sees: the complex step of an analytic function is exact.
STEP = 1e-30
# A difference of this step errs by about its square, and by a rounding over it.
DIFFERENCE = 1e-5
generator = np.random.default_rng(50)


def of_jets(network: bx.Network, theta: Any, x: Any, v: Any, predict: bool = False) -> list[Any]:
    """Return every kind of derivative, with the Hessians of all outputs."""
    n_out = network.forward(theta, x).shape[-1]
    hessians = [network.input_hessian(theta, x, output=k, predict=predict) for k in range(n_out)]
    return [
        network.input_jacobian(theta, x, predict=predict),
        array_namespace(x).stack(hessians, axis=-3),
        network.laplacian(theta, x, predict=predict),
        network.directional(theta, x, v, predict=predict),
        network.directional(theta, x, v, order=2, predict=predict),
    ]


def from_hessians(jacobian: np.ndarray, hessian: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Return what ``of_jets`` does, made of the first two."""
    along = np.einsum("...bkij,bi,bj->...bk", hessian, v, v)
    laplacian = np.einsum("...kii->...k", hessian)
    return [jacobian, hessian, laplacian, np.einsum("...bki,bi->...bk", jacobian, v), along]


def by_complex_step(network: bx.Network, theta: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    """Return the outputs' slopes, and the slopes of the gradients that ``vjp`` returns."""
    n_in, firsts, seconds = x.shape[-1], [], []
    for i in range(n_in):
        at = x + 1j * STEP * np.eye(n_in)[i]
        outputs = network.forward(theta + 0j, at)
        firsts.append(outputs.imag / STEP)
        units = np.eye(outputs.shape[-1])
        gradients = [
            network.vjp(theta + 0j, at, np.broadcast_to(u, at.shape[:-1] + u.shape))[1]
            for u in units
        ]
        seconds.append(np.stack(gradients, axis=-2).imag / STEP)
    return [np.stack(firsts, axis=-1), np.stack(seconds, axis=-1)]


def assert_relatively_close(xp: Any, found: Any, expected: np.ndarray) -> None:
    size = np.max(np.abs(expected), initial=1e-6)
    xp.assert_close(xp.host(found) / size, expected / size, PARITY)


def bent(x: Any) -> Any:
    return array_namespace(x).sin(x[..., :1]) * x[..., 1:2] - x[..., 2:] ** 2


def at_the_edge(x: Any) -> Any:
    return array_namespace(x).exp(x[..., :1]) * x[..., 1:2]


def constrained(loss: Any = "mean_squared_error") -> bx.Network:
    """A network whose second derivatives are computed forwards."""
    layer = bx.Constrained([bx.Dense(3, 3, "tanh")], bent, at_the_edge)
    return bx.Network([bx.Residual(layer), *sample_network("softplus").layers], loss)


BOTH = {"backwards": sample_network("softplus"), "forwards": constrained()}


@pytest.mark.parametrize("predict", [False, True])
def test_second_derivatives_forwards_are_those_of_central_differences(predict: bool) -> None:
    """Of the jacobian, which the complex step confirms; the trace is the Laplacian."""
    network = constrained("poisson")
    theta, x = sample_theta(network), generator.normal(size=(5, 3))
    for k in range(2):
        found = network.input_hessian(theta, x, output=k, predict=predict)
        sides = [
            network.input_jacobian(theta, x + side * np.eye(3)[i], predict=predict)[:, k, :]
            for side in (DIFFERENCE, -DIFFERENCE)
            for i in range(3)
        ]
        expected = (np.stack(sides[:3], axis=1) - np.stack(sides[3:], axis=1)) / (2.0 * DIFFERENCE)
        size = np.max(np.abs(expected))
        np.testing.assert_allclose(found / size, expected / size, atol=DIFFERENCE)
        trace = np.trace(found, axis1=-2, axis2=-1)
        laplacian = network.laplacian(theta, x, predict=predict)[:, k]
        np.testing.assert_allclose(trace, laplacian, rtol=PARITY, atol=PARITY * size)
        np.testing.assert_array_equal(found, np.swapaxes(found, -1, -2))


@pytest.mark.long
def test_second_derivatives_forwards_of_a_stack_are_those_of_each_network(xp: Any) -> None:
    network, x = constrained(), generator.normal(size=(5, 3))
    theta = sample_theta(network, (2,))
    found = network.input_hessian(*xp.put(theta, x), output=1)
    assert tuple(found.shape) == (2, 5, 3, 3)
    for i in range(2):
        alone = network.input_hessian(*xp.put(theta[i], x), output=1)
        assert_relatively_close(xp, found[i, ...], xp.host(alone))


@pytest.mark.parametrize("hidden", bx.activations.ACTIVATIONS)
def test_derivatives_are_those_of_the_complex_step(xp: Any, hidden: str) -> None:
    network = sample_network(hidden)
    theta, x, v = sample_theta(network), *generator.normal(size=(2, 5, 3))
    expected = from_hessians(*by_complex_step(network, theta, x), v)
    for ours, theirs in zip(of_jets(network, *xp.put(theta, x, v)), expected, strict=True):
        assert_relatively_close(xp, ours, theirs)


CUBE = bx.Activation(lambda z: z**3, lambda g, z, a: 3.0 * z**2 * g)


def test_derivatives_of_a_cubic_have_their_closed_forms(xp: Any) -> None:
    network = bx.Network([bx.Dense(3, 2, CUBE)], "mean_squared_error")
    theta, x = generator.normal(size=network.size), generator.normal(size=(4, 3))
    w, z = theta[:6].reshape(3, 2), x @ theta[:6].reshape(3, 2) + theta[6:]
    jacobian = 3.0 * z[..., None] ** 2 * w.T
    hessian = 6.0 * z[..., None, None] * (w.T[:, :, None] * w.T[:, None, :])
    v = np.array([1.0, -2.0, 0.5])
    expected = from_hessians(jacobian, hessian, np.broadcast_to(v, x.shape))
    for ours, theirs in zip(of_jets(network, *xp.put(theta, x, v)), expected, strict=True):
        xp.assert_close(ours, theirs, 1e-13)


def test_second_derivatives_of_a_linear_network_are_0(xp: Any) -> None:
    network = bx.mlp([3, 2])
    theta, x = xp.initialize(network), xp.asarray(generator.normal(size=(4, 3)))
    found = of_jets(network, theta, x, xp.asarray([1.0, 0.0, 2.0]))
    assert [one.shape for one in found] == [(4, 2, 3), (4, 2, 3, 3), (4, 2), (4, 2), (4, 2)]
    for second in (found[1], found[2], found[4]):
        assert not np.any(xp.host(second))


@pytest.mark.parametrize("shares_x", [True, False])
def test_derivatives_of_a_stack_are_those_of_its_networks(xp: Any, shares_x: bool) -> None:
    # The first layer has no parameters: its gradient alone would have no stack.
    layers = [bx.Activate("tanh"), *sample_network("gelu").layers]
    network = bx.Network(layers, "binary_cross_entropy")
    theta, v = sample_theta(network, (2, 3)), generator.normal(size=(5, 3))
    x = generator.normal(size=(5, 3) if shares_x else (2, 3, 5, 3))
    found = of_jets(network, *xp.put(theta, x, v), predict=True)
    for at in np.ndindex(2, 3):
        one = xp.put(theta[at], x if shares_x else x[at], v)
        for ours, theirs in zip(found, of_jets(network, *one, predict=True), strict=True):
            assert_relatively_close(xp, xp.host(ours)[at], xp.host(theirs))


class Divided(Factors):
    """A layer that divides each unit of x by its own divisor."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return x / parameters[0], x

    def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
        slope = -g * cache / (parameters[0] * parameters[0])
        total = array_namespace(g).sum(slope, axis=-2, keepdims=True)
        return g / parameters[0], (total,)


def test_a_stack_that_shares_x_may_divide_it_by_parameters(xp: Any) -> None:
    # Three networks and three inputs: their axes must not be taken for each other.
    network = bx.Network([Divided(3), bx.Dense(3, 4, "tanh"), bx.Dense(4, 2)], "huber")
    theta = sample_theta(network, (3,))
    x, v = generator.normal(size=(5, 3)), generator.normal(size=(5, 3))
    found = of_jets(network, *xp.put(theta, x, v))
    for i in range(3):
        one = of_jets(network, *xp.put(theta[i], x, v))
        for ours, theirs in zip(found, one, strict=True):
            assert_relatively_close(xp, xp.host(ours)[i], xp.host(theirs))


WIDE = bx.Network([bx.Dense(2, 6, "silu"), bx.Dense(6, 3)], "mean_squared_error")


def test_both_ways_to_a_jacobian_agree(xp: Any) -> None:
    theta, x = sample_theta(WIDE), generator.normal(size=(5, 2))
    tall = bx.Network([*WIDE.layers, bx.Dense(3, 1)], "mean_squared_error")
    last = np.concatenate([[1.0, 0.0, 0.0], [0.0]])
    forward = WIDE.input_jacobian(*xp.put(theta, x))
    backward = tall.input_jacobian(*xp.put(np.concatenate([theta, last]), x))
    xp.assert_close(forward[..., :1, :], backward, PARITY)


class Skipping(Factors):
    """A layer that may leave its gradients out."""

    skips = True

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n_in = self.n_out = n
        self.asked: list[bool] = []

    def backward(self, parameters: Any, cache: Any, g: Any, **options: Any) -> Any:
        self.asked.append(options.pop("wants_parameters", True))
        back, gradients = super().backward(parameters, cache, g, **options)
        return back, gradients if self.asked[-1] else ()


@pytest.mark.parametrize("inside", ["chain", "Residual", "Columns"])
def test_gradients_of_parameters_are_left_out_of_derivatives(xp: Any, inside: str) -> None:
    own, plain = Skipping(3), Skipping(3)
    plain.skips = False
    wrap: Any = {"chain": lambda x: x, "Residual": bx.Residual, "Columns": bx.Columns}[inside]
    ours, theirs = (
        bx.Network([wrap(layer), bx.Dense(3, 2, "tanh")], "huber") for layer in (own, plain)
    )
    theta, x = sample_theta(ours), generator.normal(size=(4, 3))
    for method in ("input_jacobian", "input_hessian"):
        found, expected = (getattr(one, method)(*xp.put(theta, x)) for one in (ours, theirs))
        xp.assert_close(found, expected, PARITY)
    assert own.asked == [False] * 3
    ours.loss_and_gradient(*xp.put(theta, x, np.ones((4, 2))))
    assert own.asked[3:] == [True]


def test_the_rows_of_a_large_x_are_computed_alike_in_parts(xp: Any) -> None:
    theta, x = xp.put(sample_theta(WIDE), generator.normal(size=(5000, 2)))
    v = xp.asarray([1.0, 1.0])
    some = [slice(0, 3), slice(4990, 5000)]
    for whole, *parts in zip(
        of_jets(WIDE, theta, x, v),
        *(of_jets(WIDE, theta, x[rows, :], v) for rows in some),
        strict=True,
    ):
        for rows, part in zip(some, parts, strict=True):
            xp.assert_close(whole[rows, ...], part, PARITY)


def test_an_embedding_has_derivatives_of_0_by_codes(xp: Any) -> None:
    layers = [bx.Columns(bx.Embedding(4, 2), bx.Scale(2)), bx.Dense(4, 3, "tanh")]
    network = bx.Network([*layers, bx.Dense(3, 5)], "mean_squared_error")
    theta, x = xp.put(sample_theta(network), [[3.0, 0.5, -1.0], [1.0, 0.2, 0.7]])
    jacobian = xp.host(network.input_jacobian(theta, x))
    assert not np.any(jacobian[..., 0])
    moved = xp.asarray([[0.0, 1e-3, 0.0]])
    slope = (network.forward(theta, x + moved) - network.forward(theta, x - moved)) / 2e-3
    np.testing.assert_allclose(jacobian[..., 1], xp.host(slope), rtol=1e-2, atol=1e-4)
    hessian = xp.host(network.input_hessian(theta, x, output=1))
    assert not np.any(hessian[:, 0, :])
    assert not np.any(hessian[:, :, 0])
    above, below = (network.input_jacobian(theta, x + s * moved) for s in (1.0, -1.0))
    curvature = (xp.host(above) - xp.host(below))[:, 1, 1] / 2e-3
    np.testing.assert_allclose(hessian[:, 1, 1], curvature, rtol=1e-2, atol=1e-4)
    trace = hessian[:, 1, 1] + hessian[:, 2, 2]
    xp.assert_close(network.laplacian(theta, x)[:, 1], trace, PARITY)
    along = network.directional(theta, x, xp.asarray([1.0, 2.0, 0.0]), order=2)
    expected = np.einsum("rij,i,j->r", hessian, [1.0, 2.0, 0.0], [1.0, 2.0, 0.0])
    xp.assert_close(along[:, 1], expected, PARITY)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, t, x: n.input_hessian(t, x, output=3), "output is 3, but the network has 3"),
        (lambda n, t, x: n.directional(t, x, x, order=3), "order must be 1 or 2, not 3"),
        (lambda n, t, x: n.directional(t, x, x[0, :1]), r"v has shape \(1,\), but a direction"),
        (lambda n, t, x: n.laplacian(t, x[:, :1]), "x has 1 features"),
    ],
)
def test_a_wrong_argument_is_named(xp: Any, call: Any, message: str) -> None:
    theta, x = xp.put(sample_theta(WIDE), generator.normal(size=(5, 2)))
    with pytest.raises(ValueError, match=message):
        call(WIDE, theta, x)


def mixing_link(o: Any) -> Any:
    """Return predictions whose derivatives by the outputs are not symmetric, unlike softmax's."""
    xp, first, second = array_namespace(o), o[..., :1], o[..., 1:]
    return xp.concat([first * xp.exp(second), second + xp.sin(first)], axis=-1)


LINKS = {**bx.losses.LOSSES, **PARAMETRIC_LOSSES}
LINKS["mixing"] = bx.Loss(bx.losses.huber.value, bx.losses.huber.gradient, mixing_link)


@pytest.mark.parametrize("name", LINKS)
def test_predictions_have_the_derivatives_of_the_link(xp: Any, name: str) -> None:
    loss = LINKS[name]
    n_out = max(2, loss.least_outputs, loss.outputs_per_target)
    network = bx.Network([bx.Dense(3, 4, "tanh"), bx.Dense(4, n_out)], loss)
    theta, x, v = sample_theta(network), *generator.normal(size=(2, 5, 3))
    found = of_jets(network, *xp.put(theta, x, v), predict=True)
    firsts, seconds = [], []
    for direction in np.eye(3):
        at = x + 1j * STEP * direction
        firsts.append(network.predict(theta + 0j, at).imag / STEP)
        # The slope of the jets' own Jacobian, which the line above confirms.
        seconds.append(network.input_jacobian(theta + 0j, at, predict=True).imag / STEP)
    expected = from_hessians(np.stack(firsts, axis=-1), np.stack(seconds, axis=-1), v)
    for ours, theirs in zip(found, expected, strict=True):
        assert_relatively_close(xp, ours, theirs)


def test_a_layer_and_a_link_of_ones_own_are_differentiated(xp: Any) -> None:
    def link(o: Any) -> Any:
        return array_namespace(o).sinh(o)

    loss = bx.Loss(bx.losses.huber.value, bx.losses.huber.gradient, link)
    network = bx.Network([bx.Dense(3, 4), Factors(4), bx.Activate("tanh"), bx.Dense(4, 1)], loss)
    theta, x, v = sample_theta(network), *generator.normal(size=(2, 5, 3))
    outputs = network.forward(theta, x)
    jacobian, hessian = by_complex_step(network, theta, x)
    outer = jacobian[..., :, None] * jacobian[..., None, :]
    o = outputs[..., None, None]
    of_link = np.cosh(o[..., 0]) * jacobian, np.sinh(o) * outer + np.cosh(o) * hessian
    found = of_jets(network, *xp.put(theta, x, v), predict=True)
    for ours, theirs in zip(found, from_hessians(*of_link, v), strict=True):
        assert_relatively_close(xp, ours, theirs)


@pytest.mark.parametrize("kind", BOTH)
def test_derivatives_are_those_of_jax(kind: str, jax: Any) -> None:
    network = BOTH[kind]
    theta, x, v = sample_theta(network), *generator.normal(size=(2, 5, 3))
    found = of_jets(network, theta, x, v)
    with jax.enable_x64(True):
        put = jax.numpy.asarray(theta)
        jacobian, hessian = jax.jit(
            jax.vmap(
                lambda row: (
                    jax.jacfwd(lambda at: network.forward(put, at[None])[0])(row),
                    jax.hessian(lambda at: network.forward(put, at[None])[0])(row),
                )
            )
        )(jax.numpy.asarray(x))
    by_jax = from_hessians(np.asarray(jacobian), np.asarray(hessian), v)
    for ours, theirs in zip(found, by_jax, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=PARITY, atol=PARITY)


@pytest.mark.parametrize("kind", BOTH)
def test_derivatives_are_those_of_pytorch_twice_backward(kind: str, torch: Any) -> None:
    network = BOTH[kind]
    theta, x, v = sample_theta(network), *generator.normal(size=(2, 5, 3))
    found = of_jets(network, theta, x, v)
    there = torch.tensor(theta)
    rows = [torch.tensor(row) for row in x]
    ways = torch.autograd.functional
    jacobians = [ways.jacobian(lambda at: network.forward(there, at[None])[0], row) for row in rows]
    hessians = [
        torch.stack(
            [
                ways.hessian(lambda at, k=k: network.forward(there, at[None])[0, k], row)
                for k in (0, 1)
            ]
        )
        for row in rows
    ]
    by_torch = from_hessians(torch.stack(jacobians).numpy(), torch.stack(hessians).numpy(), v)
    for ours, theirs in zip(found, by_torch, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=PARITY, atol=PARITY)
