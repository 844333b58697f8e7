"""The backend that the environment chooses, beside NumPy on the same steps, float32.

Meant for a GPU: ``nox -s bench_gpu``. On a CPU it shows what another library's calls cost.
"""

from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError, Selection


@pytest.fixture
def selection() -> Selection:
    try:
        selection = bx.resolve()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    if selection.backend.name == "numpy":
        pytest.skip("BACKPROP_XP_BACKEND is numpy, the peer itself")
    return selection


def stepper(
    network: bx.Network, batch: int, where: Selection, stack: tuple[int, ...]
) -> Callable[[], None]:
    with bx.use_backend(where.backend, where.device, "float32"):
        generator = np.random.default_rng(0)
        x = bx.asarray(generator.normal(size=(batch, 784)))
        y = bx.asarray(bx.data.one_hot(generator.integers(0, 10, batch)), dtype="float32")
        theta = network.initialize(0, stack=stack)
    optimizer = bx.Adam()
    state = optimizer.initialize(theta)

    def step() -> None:
        nonlocal theta, state
        _, gradient = network.loss_and_gradient(theta, x, y)
        theta, state = optimizer.update(theta, gradient, state)
        where.backend.synchronize(where.device)

    return step


@pytest.mark.parametrize(
    ("hidden", "batch", "stack"),
    [([128], 64, ()), ([512, 512], 512, ()), ([32], 64, (32,))],
    ids=["784-128-10, batch 64", "784-512-512-10, batch 512", "32 x 784-32-10, batch 64"],
)
def test_training_step(
    compare: Callable[..., object],
    selection: Selection,
    hidden: list[int],
    batch: int,
    stack: tuple[int, ...],
) -> None:
    network = bx.mlp([784, *hidden, 10], loss="categorical_cross_entropy")
    cpu = bx.resolve(backend="numpy")
    compare(
        stepper(network, batch, selection, stack),
        stepper(network, batch, cpu, stack),
        "NumPy's step",
    )
