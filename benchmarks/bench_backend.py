"""The backend that the environment chooses, beside NumPy on the same steps, float32.

``BACKPROP_XP_BACKEND=jax pytest benchmarks/bench_backend.py --benchmark-only`` shows what another
library's calls cost on a CPU, and with ``cupy`` what a GPU gains; ``gpu.py`` measures more.
A GPU is waited for at both ends of a block of steps, so that the figure is of work done, not of
work queued.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError, Selection

# Calls that a GPU may queue before it is waited for, and how often they are timed.
CALLS, ROUNDS = 10, 9
OPTIMIZERS = [
    bx.SGD(0.1, momentum=0.9),
    bx.RMSProp(),
    bx.Adam(),
    bx.AdamW(),
]


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

    return step


@pytest.mark.parametrize(
    ("hidden", "batch", "stack"),
    [([128], 64, ()), ([512, 512], 512, ()), ([32], 64, (32,))],
    ids=["784-128-10, batch 64", "784-512-512-10, batch 512", "32 x 784-32-10, batch 64"],
)
def test_training_step(
    compare: Callable[..., object],
    show: Callable[[str], None],
    selection: Selection,
    hidden: list[int],
    batch: int,
    stack: tuple[int, ...],
) -> None:
    network = bx.mlp([784, *hidden, 10], loss="categorical_cross_entropy")
    cpu = bx.resolve(backend="numpy")
    step = stepper(network, batch, selection, stack)
    if selection.backend.name == "cupy":
        from cupyx.profiler import benchmark

        # By CUDA's events: the GPU's own time beside that of the calls.
        show(str(benchmark(step, n_repeat=CALLS * ROUNDS, name=f"a step of {network.size}")))
    compare(
        step,
        stepper(network, batch, cpu, stack),
        "NumPy's step",
        calls=CALLS,
        rounds=ROUNDS,
        wait=lambda: selection.backend.synchronize(selection.device),
    )


@pytest.mark.parametrize("size", [100_000, 10_000_000])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_update_in_one_kernel(
    compare: Callable[..., object], selection: Selection, optimizer: Any, size: int
) -> None:
    name = f"backprop_xp.training.optimizers.{type(optimizer).__name__}.rule"
    if name not in selection.backend.replacements:
        pytest.skip(f"{selection.backend.name} replaces no update")

    def updater(rule: Callable[..., Any]) -> Callable[[], None]:
        host = np.random.default_rng(0).normal(size=size).astype(np.float32)
        theta, gradient = (
            selection.backend.from_host(host, device=selection.device) for _ in range(2)
        )
        state = optimizer.initialize(theta)

        def step() -> None:
            nonlocal theta, state
            # The reference leaves another gradient; a GPU takes as long over any.
            theta, state = rule(optimizer, theta, gradient, state, optimizer.learning_rate)

        return step

    compare(
        updater(selection.backend.replacements[name]),
        updater(type(optimizer).rule),
        "the reference's rule",
        calls=CALLS,
        rounds=ROUNDS,
        wait=lambda: selection.backend.synchronize(selection.device),
    )
