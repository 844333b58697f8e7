"""The smallest network there is: what a step of a training costs beside the tutorial's own.

A step is loss, gradient and update in ``bx.fit``; NumPy, float64.
"""

from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx
from benchmarks import tutorial

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])


# Full-batch epochs of a training: so many that its checks at the entrance weigh nothing.
STEPS = 1000


def ours(stack: tuple[int, ...]) -> Callable[[], object]:
    network = bx.mlp([2, 2, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, stack=stack, backend="numpy", dtype="float64")
    return lambda: bx.fit(network, theta, X, Y, optimizer=bx.SGD(0.2), epochs=STEPS)


def the_tutorials() -> None:
    thetas = tutorial.start([2, 2, 1], seed=0)
    for _ in range(STEPS):
        tutorial.step(thetas, X, Y, 0.1)


@pytest.mark.parametrize(("stack", "aim"), [((), 1.0), ((256,), 3.0)])
def test_training(compare: Callable[..., object], stack: tuple[int, ...], aim: float) -> None:
    who = f"a stack of {stack[0]}" if stack else "one network"
    what = f"XOR: {STEPS:,} steps of {who}, float64"
    compare(ours(stack), the_tutorials, "tutorial's steps", what=what, aim=aim)


def test_gradient_check(compare: Callable[..., object]) -> None:
    """Every entry by complex step, beside the tutorial's loop over THETA by centred differences."""
    network = bx.mlp([2, 16, 1], hidden="sigmoid", output="sigmoid")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    thetas = tutorial.start([2, 16, 1], seed=0)
    compare(
        lambda: bx.check_network(network, theta, X, Y, method="complex_step"),
        lambda: tutorial.numeric_gradient(thetas, X, Y),
        "tutorial's loop",
        what="XOR: a gradient check of 2-16-1, every entry",
    )
