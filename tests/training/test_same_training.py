"""The same seed trains a network to the same theta on every backend.

The order of minibatches and the dropout masks have the same bits on every backend. The rest is
rounding: libraries sum in other orders and round exp and tanh differently.
"""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import compiled

# How far an entry may be from NumPy's, relative to the largest of theta, which is near 1. After 145
# updates PyTorch and JAX on a CPU were 3e-16 and 2.4e-7 off, a rounding or two; the rest is room
# for the orders of sums of other machines, still far below one update, which is of the size of the
# learning rate.
SAME_THETA = {"float64": 1e-12, "float32": 1e-5}
LEARNING_RATE = 3e-3
EPOCHS, BATCH_SIZE = 5, 64

NETWORK = bx.mlp([64, 32, 10], dropout=0.3, layer_norm=True, loss="categorical_cross_entropy")


def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    return digits.data / 16, bx.data.one_hot(digits.target, 10)


def _trained(theta: Any, x: Any, y: Any, *, seed: int = 3) -> Any:
    optimizer = bx.AdamW(LEARNING_RATE)
    options: Any = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "seed": seed}
    return bx.fit(NETWORK, theta, x, y, optimizer=optimizer, **options)


def _distance(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("dtype", [compiled("float32"), "float64"])
def test_the_same_seed_trains_to_numpys_theta(xp: Any, dtype: str) -> None:
    x, y = _digits()
    here = _trained(xp.initialize(NETWORK, dtype=dtype), xp.asarray(x, dtype), xp.asarray(y, dtype))
    x, y = x.astype(dtype), y.astype(dtype)
    there = _trained(NETWORK.initialize(backend="numpy", device="cpu", dtype=dtype), x, y)
    assert _distance(xp.host(here.theta), there.theta) <= SAME_THETA[dtype]
    # Another seed, without which the bounds could be too wide to say anything.
    other = _trained(NETWORK.initialize(backend="numpy", device="cpu", dtype=dtype), x, y, seed=4)
    assert _distance(other.theta, there.theta) > 1000 * SAME_THETA[dtype]
    losses = there.history["loss"]
    np.testing.assert_allclose(here.history["loss"], losses, rtol=SAME_THETA[dtype])
    assert losses[-1] < 0.5 * losses[0]
