"""A loss of derivatives by the inputs with its gradient, beside PyTorch and JAX.

The network is 2-64-64-64-1 with tanh, and the loss that of u, u_t, u_x and u_xx on 1,000 rows in
float64. PyTorch differentiates backward, twice and once more; JAX takes a jvp of a jvp, compiled.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx

ROUNDS = 21
SIZES, ROWS = [2, 64, 64, 64, 1], 1000
WHAT = "a loss of u, u_t, u_x, u_xx of 2-64-64-64-1 and its gradient, 1,000 rows"
# The largest good ratios to a peer's time.
AIMS = {"torch": 1.0, "jax": 1.25, "jax, ours compiled by it": 1.25}
# Rounding of a loss near 1.
CLOSE = 1e-12


class Case(NamedTuple):
    """The network with derivatives as its outputs, and the arguments of its loss."""

    network: bx.Network
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def loss_and_gradient(self) -> Any:
        return self.network.loss_and_gradient(*self[1:])

    @property
    def parameters(self) -> list[np.ndarray]:
        """The weights and biases of the layers, in turn."""
        return list(self.network.unpack(self.theta)[0])


@pytest.fixture
def case() -> Case:
    generator = np.random.default_rng(0)
    layers = bx.mlp(SIZES, hidden="tanh").layers
    terms = [(), (0,), (1,), (1, 1)]
    network = bx.Network([bx.Derivatives(layers, terms)], "mean_squared_error")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    return Case(network, theta, *(generator.normal(size=(ROWS, n)) for n in (2, 4)))


@pytest.fixture
def torch() -> Iterator[Any]:
    """Return PyTorch on one thread."""
    module = pytest.importorskip("torch", reason="the peer, PyTorch, is not installed")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


def outputs(xp: Any, parameters: list[Any], x: Any) -> Any:
    for i in range(0, len(parameters), 2):
        x = x @ parameters[i] + parameters[i + 1]
        x = x if i == len(parameters) - 2 else xp.tanh(x)
    return x


def test_a_loss_of_derivatives_beside_torch(
    compare: Callable[..., object], torch: Any, case: Case
) -> None:
    parameters = [torch.tensor(p, requires_grad=True) for p in case.parameters]
    x, y = torch.tensor(case.x, requires_grad=True), torch.tensor(case.y)

    def slopes(column: Any) -> Any:
        return torch.autograd.grad(column.sum(), x, create_graph=True)[0]

    def loss_and_gradient() -> Any:
        u = outputs(torch, parameters, x)
        first = slopes(u)
        columns = torch.cat([u, first, slopes(first[:, 1])[:, 1:]], 1)
        loss = torch.mean((columns - y) ** 2)
        return loss, torch.autograd.grad(loss, parameters)

    loss, _ = case.loss_and_gradient()
    assert loss_and_gradient()[0].item() == pytest.approx(float(loss), rel=CLOSE)
    name = "torch"
    compare(
        case.loss_and_gradient, loss_and_gradient, name, what=WHAT, aim=AIMS[name], rounds=ROUNDS
    )


@pytest.mark.parametrize("name", ["jax", "jax, ours compiled by it"])
def test_a_loss_of_derivatives_beside_jax(
    compare: Callable[..., object], case: Case, name: str
) -> None:
    jax = pytest.importorskip("jax", reason="the peer, JAX, is not installed")

    def columns(parameters: list[Any], row: Any) -> Any:
        def u(row: Any) -> Any:
            return outputs(jax.numpy, parameters, row[None])[0, 0]

        along_t, along_x = jax.numpy.eye(2)
        value, u_t = jax.jvp(u, (row,), (along_t,))
        u_x, u_xx = jax.jvp(lambda at: jax.jvp(u, (at,), (along_x,))[1], (row,), (along_x,))
        return jax.numpy.stack([value, u_t, u_x, u_xx])

    with jax.enable_x64(True):
        parameters = [jax.numpy.asarray(p) for p in case.parameters]
        theta, x, y = map(jax.numpy.asarray, case[1:])

        @jax.jit
        @jax.value_and_grad
        def of_jax(parameters: list[Any]) -> Any:
            return jax.numpy.mean((jax.vmap(columns, (None, 0))(parameters, x) - y) ** 2)

        compiled = jax.jit(lambda theta: case.network.loss_and_gradient(theta, x, y))

        def ours() -> Any:
            return jax.block_until_ready(compiled(theta))

        loss, _ = case.loss_and_gradient()
        assert float(of_jax(parameters)[0]) == pytest.approx(float(loss), rel=CLOSE)
        compare(
            case.loss_and_gradient if name == "jax" else ours,
            lambda: jax.block_until_ready(of_jax(parameters)),
            name,
            what=WHAT,
            aim=AIMS[name],
            rounds=ROUNDS,
        )
