"""``fit`` on XOR beside the tutorial's steps and a scan by hand, and ``fit`` with gradient checks.

A step is loss, gradient and update. NumPy runs in float64, JAX in float32.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from benchmarks import tutorial

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])
STEPS = 1000  # full-batch epochs: enough to make the checks of the arguments negligible


def ours(stack: tuple[int, ...]) -> Callable[[], object]:
    network = bx.mlp([2, 2, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, stack=stack, backend="numpy", dtype="float64")
    return lambda: bx.fit(network, theta, X, Y, optimizer=bx.SGD(0.2), epochs=STEPS)


def tutorial_training() -> None:
    thetas = tutorial.start([2, 2, 1], seed=0)
    for _ in range(STEPS):
        tutorial.step(thetas, X, Y, 0.1)


@pytest.mark.parametrize("compiles", ["0", "1"])
@pytest.mark.parametrize(("stack", "aims"), [((), (1.0, None)), ((256,), (3.0, 1.5))])
def test_training(
    compare: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    stack: tuple[int, ...],
    aims: tuple[float | None, ...],
    compiles: str,
) -> None:
    if compiles == "1":
        pytest.importorskip("numba")
    monkeypatch.setenv("BACKPROP_XP_COMPILE", compiles)
    who = f"a stack of {stack[0]}" if stack else "one network"
    what = f"XOR: {STEPS:,} steps of {who}, float64" + ", with Numba" * int(compiles)
    aim = aims[int(compiles)]
    compare(ours(stack), tutorial_training, "tutorial's steps", what=what, aim=aim)


def test_gradient_check(compare: Callable[..., object]) -> None:
    """Check every entry by the complex step, beside the tutorial's loop of centred differences."""
    network = bx.mlp([2, 16, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    thetas = tutorial.start([2, 16, 1], seed=0)
    compare(
        lambda: bx.check_network(network, theta, X, Y, method="complex_step"),
        lambda: tutorial.numeric_gradient(thetas, X, Y),
        "tutorial's loop",
        what="XOR: a gradient check of 2-16-1, every entry",
    )


def test_2000_steps_of_256_networks(compare: Callable[..., object]) -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    network = bx.mlp([2, 2, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, stack=(256,), backend="jax", dtype="float32")
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)

    def loss(parameters: Any) -> Any:
        (w1, b1), (w2, b2) = parameters
        hidden = jax.nn.sigmoid(x @ w1 + b1)
        return jnp.mean((jax.nn.sigmoid(hidden @ w2 + b2) - y) ** 2)

    value_and_grad = jax.vmap(jax.value_and_grad(loss))

    @jax.jit
    def theirs(parameters: Any) -> Any:
        def step(parameters: Any, _: None) -> Any:
            value, gradients = value_and_grad(parameters)
            return jax.tree.map(lambda p, g: p - 0.2 * g, parameters, gradients), value

        return jax.lax.scan(step, parameters, None, length=2000)

    parameters = [
        (jnp.array(weights), jnp.array(bias[..., 0, :]))
        for weights, bias in filter(None, network.unpack(theta))
    ]
    compare(
        lambda: bx.fit(network, theta, x, y, optimizer=bx.SGD(0.2), epochs=2000),
        lambda: jax.block_until_ready(theirs(parameters)),
        "vmap and lax.scan by hand",
        what="JAX: fit of 256 networks on XOR, 2,000 steps",
        aim=1.3,
    )


EPOCHS, BATCH, ROWS = 25, 32, 640  # 500 updates, five of them checked


@pytest.mark.parametrize("width", [100, 400])
@pytest.mark.parametrize("hidden", ["relu", "tanh"])
def test_checked_training(compare: Callable[..., object], hidden: str, width: int) -> None:
    network = bx.mlp([64, width, 10], hidden=hidden, loss="categorical_cross_entropy")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 64))
    y = np.eye(10)[generator.integers(0, 10, ROWS)]
    theta = network.initialize(0, backend="numpy", dtype="float64")

    def train(check_every: int | None) -> None:
        optimizer = bx.Adam(1e-3)
        bx.fit(
            network, theta, x, y, optimizer=optimizer, epochs=EPOCHS, batch_size=BATCH,
            check_every=check_every,
        )  # fmt: skip

    compare(
        lambda: train(100), lambda: train(None), "the same without", rounds=21,
        what=f"a training of 64-{width}-10, {hidden}, with check_every=100", aim=1.03,
    )  # fmt: skip
