"""The smallest network there is: what a step costs beside the tutorial's own.

The aims: at most 1.5 tutorial steps for one network's step (loss, gradient, update), at most 6 for
a step of 256 networks at once; NumPy, float64.
"""

from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx
from benchmarks import tutorial

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])


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
    thetas = tutorial.start([2, 2, 1], seed=0)
    return lambda: tutorial.step(thetas, X, Y, 0.1)


@pytest.mark.parametrize("stack", [(), (256,)], ids=["one network", "a stack of 256"])
def test_step(compare: Callable[..., object], stack: tuple[int, ...]) -> None:
    compare(stepper(stack), tutorial_stepper(), "tutorial's step", calls=200)


def test_gradient_check(compare: Callable[..., object]) -> None:
    """Every entry by complex step, beside the tutorial's loop over THETA by centred differences."""
    network = bx.mlp([2, 16, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    thetas = tutorial.start([2, 16, 1], seed=0)
    compare(
        lambda: bx.check_network(network, theta, X, Y, method="complex_step"),
        lambda: tutorial.numeric_gradient(thetas, X, Y),
        "tutorial's loop",
    )
