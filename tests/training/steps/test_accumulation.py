"""Accumulated gradients: k batches are one batch of k times as many rows."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import long
from tests.user_layers import Factors

# Sums in another order.
SAME = 1e-12
ROWS = 23  # with batches of 3 and updates of 9 or 12 rows, a group and a batch in it are smaller

generator = np.random.default_rng(9)
X, Y = generator.normal(size=(ROWS, 3)), generator.uniform(0.1, 0.9, size=(ROWS, 2))
WEIGHT = generator.uniform(0.1, 2.0, size=(2, ROWS)) * (generator.uniform(size=(2, ROWS)) > 0.3)
WEIGHT[:, :3] = 0.0

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {"sample_weight": WEIGHT[0], "l2": 0.1},
    "weights of each network": {"sample_weight": WEIGHT, "l2_of_sum": 0.1, "clip": 0.1},
    "rows in order, with an average": {"shuffle": False, "average": bx.EMA(0.5), "l2": 0.1},
    "a validation set": {"validation": (X[:5], Y[:5]), "metrics": {"r2": bx.metrics.r2}},
}


def _fit(xp: Any, network: bx.Network, **options: Any) -> bx.FitResult:
    theta = xp.initialize(network, stack=(2,))
    given = {"optimizer": bx.Adam(0.05), "epochs": 3, **options}
    if "sample_weight" in given:
        given["sample_weight"] = xp.asarray(given["sample_weight"])
    if "validation" in given:
        given["validation"] = xp.put(*given["validation"])
    return bx.fit(network, theta, xp.asarray(X), xp.asarray(Y), **given)


@pytest.mark.parametrize("accumulate", [long(3), 4, long(100)])
@pytest.mark.parametrize("name", OPTIONS)
def test_k_batches_are_one_batch_of_k_times_as_many_rows(
    xp: Any, name: str, accumulate: int
) -> None:
    network = bx.mlp([3, 5, 2], hidden="tanh", layer_norm=True)
    parts = _fit(xp, network, batch_size=3, accumulate=accumulate, **OPTIONS[name])
    whole = _fit(xp, network, batch_size=3 * accumulate, **OPTIONS[name])
    assert parts.state.step == whole.state.step
    xp.assert_close(parts.theta, whole.theta, SAME)
    for key, values in whole.history.items():
        xp.assert_close(parts.history[key], values, SAME)


def test_a_penalty_stays_where_all_weights_of_a_batch_are_0(xp: Any) -> None:
    network = bx.mlp([3, 2], l2=0.5)
    weight = 1.0 * (np.arange(ROWS) == ROWS - 1)
    options: dict[str, Any] = {"sample_weight": weight, "optimizer": bx.SGD(0.1)}
    options |= {"shuffle": False}  # the first update has rows of weight 0 alone
    parts = _fit(xp, network, batch_size=5, accumulate=3, **options)
    xp.assert_close(parts.theta, _fit(xp, network, batch_size=15, **options).theta, SAME)


def test_a_training_resumes_and_each_part_has_its_own_key(xp: Any) -> None:
    factors = Factors(5)
    network = bx.Network([bx.Dense(3, 5), bx.Dropout(0.5), factors, bx.Dense(5, 2)], "huber")
    options: dict[str, Any] = {"batch_size": 3, "accumulate": 4}
    begun, whole = (_fit(xp, network, epochs=epochs, **options) for epochs in (2, 4))
    resumed = _fit(xp, network, epochs=4, start=begun, **options)
    xp.assert_close(resumed.theta, whole.theta, SAME)
    if xp.name == "jax":
        return  # the keys were traced
    factors.keys.clear()
    _fit(xp, network, epochs=1, **options)
    assert len({*factors.keys}) == len(factors.keys) == 8  # of four batches in each of two updates


def test_an_accumulation_without_batches_is_refused() -> None:
    for wrong, error, message in (
        (2, ValueError, "accumulate=2 needs batch_size, such as 32"),
        (0, ValueError, "accumulate must be an integer of at least 1, not 0"),
        (1.5, TypeError, "accumulate must be an integer"),
    ):
        with pytest.raises(error, match=message):
            bx.fit(bx.mlp([3, 2]), None, X, Y, optimizer=bx.SGD(1), epochs=1, accumulate=wrong)
