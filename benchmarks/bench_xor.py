"""The smallest network there is: what a step costs beside the tutorial's own.

The aims: at most 1.5 tutorial steps for one network's step (loss, gradient, update), at most 6 for
a step of 256 networks at once; NumPy, float64.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx

# The peer: the tutorial's algorithm, bias columns and all, in plain NumPy.
X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])


def tutorial_start(sizes: list[int], seed: int) -> list[np.ndarray]:
    """Parameters ``(n_out, n_in + 1)``, the bias in column 0."""
    generator = np.random.default_rng(seed)
    return [
        generator.uniform(-1.0, 1.0, (n_out, n_in + 1)) for n_in, n_out in itertools.pairwise(sizes)
    ]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z: np.ndarray) -> np.ndarray:
    return sigmoid(z) * (1.0 - sigmoid(z))


def tutorial_forward(
    thetas: list[np.ndarray], x: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    ones = np.ones((x.shape[0], 1))
    activations, logits = [np.hstack((ones, x))], []
    for theta in thetas:
        logits.append(activations[-1] @ theta.T)
        activations.append(np.hstack((ones, sigmoid(logits[-1]))))
    activations[-1] = activations[-1][:, 1:]
    return activations, logits


def tutorial_step(thetas: list[np.ndarray], x: np.ndarray, y: np.ndarray, eta: float) -> None:
    """One epoch as the tutorial trains: deltas with bias columns, update; no cost."""
    activations, logits = tutorial_forward(thetas, x)
    error = activations[-1] - y
    deltas = [error * sigmoid_prime(logits[-1])]
    for i in range(len(thetas) - 1, 0, -1):
        upstream = deltas[0] if i == len(thetas) - 1 else deltas[0][:, 1:]
        ones = np.ones((x.shape[0], 1))
        deltas.insert(0, upstream @ thetas[i] * np.hstack((ones, sigmoid_prime(logits[i - 1]))))
    for i in range(len(thetas)):
        delta = deltas[i] if i == len(thetas) - 1 else deltas[i][:, 1:]
        thetas[i] = thetas[i] - eta * (delta.T @ activations[i])


def stepper(stack: tuple[int, ...]) -> Callable[[], None]:
    network = bx.mlp([2, 2, 1], hidden="sigmoid", output="sigmoid")
    optimizer = bx.SGD(0.2)
    theta = network.initialize(0, stack=stack, backend="numpy", dtype="float64")
    state = optimizer.initialize(theta)

    def step() -> None:
        nonlocal theta, state
        _, gradient = network.loss_and_gradient(theta, X, Y)
        theta, state = optimizer.update(theta, gradient, state)

    return step


def tutorial_stepper() -> Callable[[], None]:
    thetas = tutorial_start([2, 2, 1], seed=0)
    return lambda: tutorial_step(thetas, X, Y, 0.1)


@pytest.mark.parametrize("stack", [(), (256,)], ids=["one network", "a stack of 256"])
def test_step(compare: Callable[..., object], stack: tuple[int, ...]) -> None:
    compare(stepper(stack), tutorial_stepper(), "tutorial's step", calls=200)


def test_gradient_check(compare: Callable[..., object]) -> None:
    """Every entry by complex step, beside the tutorial's loop over THETA by centred differences."""
    network = bx.mlp([2, 16, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    thetas = tutorial_start([2, 16, 1], seed=0)

    def cost() -> float:
        return float(((tutorial_forward(thetas, X)[0][-1] - Y) ** 2).mean())

    def loop() -> None:
        for matrix in thetas:
            for i in range(matrix.shape[0]):
                for j in range(matrix.shape[1]):
                    matrix[i, j] += 0.01
                    up = cost()
                    matrix[i, j] -= 0.02
                    (up - cost()) / 0.02
                    matrix[i, j] += 0.01

    compare(
        lambda: bx.check_network(network, theta, X, Y, method="complex_step"),
        loop,
        "tutorial's loop",
    )
