"""What watching the gradient at every 100th update costs a training."""

from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx

EPOCHS, BATCH, ROWS = 25, 32, 640  # 500 updates, five of them watched


@pytest.mark.parametrize("width", [100, 400])
@pytest.mark.parametrize("hidden", ["relu", "tanh"])
def test_a_watched_training(compare: Callable[..., object], hidden: str, width: int) -> None:
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
