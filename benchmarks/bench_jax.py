"""Training on JAX beside the same written by hand with ``jax.value_and_grad`` in one ``jit``.

The aims: at most 1.1 of the hand-written time for one Adam step of [784, 512, 512, 10] with a batch
of 256 in float32, at most 1.5 for 2,000 full-batch steps of XOR by a stack of 256 in one call.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import asarray
from backprop_xp.inputs import Rows
from backprop_xp.updates import Carry, Given, Shared, updates_of

jax = pytest.importorskip("jax")
jnp = jax.numpy

BATCH, RATE = 256, 1e-6  # so small that the timed steps all do the same work


def _weights_and_biases(network: bx.Network, theta: Any) -> list[tuple[Any, Any]]:
    return [
        (jnp.array(weights), jnp.array(bias[..., 0, :]))
        for weights, bias in filter(None, network.unpack(theta))
    ]


def _hand_written_adam_step() -> Callable[..., Any]:
    """Parameters as a list of weights and biases, as a JAX user writes it."""

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        *hidden, (weights, bias) = parameters
        for w, b in hidden:
            x = jax.nn.relu(x @ w + b)
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x @ weights + bias), axis=-1))

    def step(parameters: Any, state: Any, x: Any, y: Any, rate: Any) -> Any:
        count, means, squares = state
        value, gradients = jax.value_and_grad(loss)(parameters, x, y)
        count = count + 1
        tree = jax.tree.map
        means = tree(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = tree(lambda s, g: 0.999 * s + 0.001 * g * g, squares, gradients)
        m_part, s_part = 1.0 - 0.9**count, 1.0 - 0.999**count

        def moved(p: Any, m: Any, s: Any) -> Any:
            return p - rate * (m / m_part) / (jnp.sqrt(s / s_part) + 1e-8)

        return tree(moved, parameters, means, squares), (count, means, squares), value

    return jax.jit(step, donate_argnums=(0, 1))


def test_one_adam_step(compare: Callable[..., object]) -> None:
    generator = np.random.default_rng(0)
    network = bx.mlp([784, 512, 512, 10], loss="categorical_cross_entropy")
    theta = network.initialize(0, backend="jax", dtype="float32")
    x, y = (
        asarray(array, backend="jax", dtype="float32")
        for array in (
            generator.normal(size=(BATCH, 784)),
            np.eye(10)[generator.integers(0, 10, BATCH)],
        )
    )
    optimizer = bx.Adam(RATE)
    one = updates_of(network, optimizer, None, theta).one
    shared = Shared(Rows(x, y), None, 0, RATE)
    carry = Carry(jnp.array(theta), optimizer.initialize(theta))
    number = 0

    def ours() -> None:
        nonlocal carry, number
        carry, _ = one(carry, Given(None, number, None), shared)
        number += 1
        jax.block_until_ready(carry.theta)

    parameters = _weights_and_biases(network, theta)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (jnp.int32(0), zeros, jax.tree.map(jnp.zeros_like, parameters))
    step = _hand_written_adam_step()

    def theirs() -> None:
        nonlocal parameters, state
        parameters, state, _ = step(parameters, state, x, y, RATE)
        jax.block_until_ready(parameters)

    compare(ours, theirs, "hand-written JAX", calls=10)


def test_2000_steps_of_256_networks(compare: Callable[..., object]) -> None:
    network = bx.mlp([2, 2, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, stack=(256,), backend="jax", dtype="float32")
    x, y = (
        asarray(rows, backend="jax", dtype="float32")
        for rows in ([[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]])
    )
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

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

    parameters = _weights_and_biases(network, theta)
    compare(
        lambda: bx.fit(network, theta, x, y, optimizer=bx.SGD(0.2), epochs=2000),
        lambda: jax.block_until_ready(theirs(parameters)),
        "hand-written JAX",
    )
