"""The backend that the environment chooses, beside NumPy on the same steps, in float32.

``BACKPROP_XP_BACKEND=jax pytest benchmarks/bench_backend.py --benchmark-only`` shows the overhead
of another library on a CPU. With ``cupy`` it shows the gain of a GPU; ``gpu.py`` measures more.
Each block of steps starts and ends with a wait for the GPU.
"""

from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Array, BackendUnavailableError, Selection
from backprop_xp.cli.bench.contenders import Case
from backprop_xp.training.optimizers.first_order import Optimizer
from benchmarks.gpu_trainings import bare_step

# Calls in a block, which a GPU may queue, and the number of blocks.
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


@pytest.mark.parametrize(
    ("case", "stack"),
    [
        (Case((784, 128, 10), 64, 1), ()),
        (Case((784, 512, 512, 10), 512, 1), ()),
        (Case((784, 32, 10), 64, 1), (32,)),
    ],
    ids=str,
)
def test_training_step(
    compare: Callable[..., object], selection: Selection, case: Case, stack: tuple[int, ...]
) -> None:
    compare(
        bare_step(case, selection.backend.name, selection.device, stack),
        bare_step(case, "numpy", stack=stack),
        "NumPy's step",
        calls=CALLS,
        rounds=ROUNDS,
        wait=lambda: selection.backend.synchronize(selection.device),
    )


@pytest.mark.parametrize("size", [100_000, 10_000_000])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_update_in_one_kernel(
    compare: Callable[..., object], selection: Selection, optimizer: Optimizer, size: int
) -> None:
    name = f"backprop_xp.training.optimizers.first_order.{type(optimizer).__name__}.rule"
    if name not in selection.backend.replacements:
        pytest.skip(f"{selection.backend.name} replaces no update")

    def updater(rule: Callable[..., tuple[Array, Array]]) -> Callable[[], None]:
        host = np.random.default_rng(0).normal(size=size).astype(np.float32)
        theta, gradient = (
            selection.backend.from_host(host, device=selection.device) for _ in range(2)
        )
        state = [theta, optimizer.initialize(theta)]

        def step() -> None:
            # The reference changes the gradient too; a GPU's time does not depend on its values.
            state[:] = rule(optimizer, state[0], gradient, state[1], optimizer.learning_rate)

        return step

    compare(
        updater(selection.backend.replacements[name]),
        updater(type(optimizer).rule),
        "the reference's rule",
        calls=CALLS,
        rounds=ROUNDS,
        wait=lambda: selection.backend.synchronize(selection.device),
    )
