"""2,000 full-batch steps of a stack on JAX in one call, beside the same written by hand.

One step beside one by hand is in ``bench_training.py``, in processes of their own.
"""

from collections.abc import Callable
from typing import Any

import pytest

import backprop_xp as bx

jax = pytest.importorskip("jax")
jnp = jax.numpy


def test_2000_steps_of_256_networks(compare: Callable[..., object]) -> None:
    network = bx.mlp([2, 2, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, stack=(256,), backend="jax", dtype="float32")
    x = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]], jnp.float32)
    y = jnp.asarray([[0], [1], [1], [0]], jnp.float32)

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
