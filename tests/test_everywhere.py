"""What the library computes on any backend lives there, in the dtype given, and equals NumPy's."""

import re
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.backends import device_of, owner
from backprop_xp.losses import LOSSES

# Rounding of some hundred operations, relative to the largest entry.
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
OPTIMIZERS = [
    bx.SGD(0.05, momentum=0.9, nesterov=True),
    bx.RMSProp(1e-3),
    bx.Adam(bx.schedules.warmup(bx.schedules.cosine(1e-2, 20), 3)),
    bx.AdamW(1e-2, weight_decay=0.1),
]

generator = np.random.default_rng(0)
X = generator.normal(size=(6, 3))
Y = generator.uniform(0.1, 0.9, size=(6, 2))
WEIGHT = generator.uniform(0.5, 2.0, size=6)


def _network(activation: str, loss: str) -> bx.Network:
    return bx.Network(
        [
            bx.Dense(3, 4, activation),
            bx.LayerNorm(4),
            bx.Dropout(0.3),
            bx.Residual(bx.Dense(4, 4, "tanh"), bx.Dropout(0.2)),
            bx.Activate("silu"),
            bx.Dense(4, 2),
        ],
        loss,
        l2=0.1,
    )


def _assert_same(xp: Any, here: Any, there: Any, dtype: str) -> None:
    assert owner(here) is xp.selection.backend
    assert device_of(here) == xp.selection.device
    assert here.dtype == getattr(xp.namespace, dtype)
    scale = np.max(np.abs(there))
    np.testing.assert_allclose(xp.host(here), there, rtol=0, atol=TOLERANCES[dtype] * scale)


def _on_both(xp: Any, network: bx.Network, dtype: str) -> list[tuple[Any, ...]]:
    """Return theta, x, y and the weights, here and on NumPy."""
    here = (
        xp.initialize(network, stack=(2,), dtype=dtype),
        *(xp.asarray(array, dtype) for array in (X, Y, WEIGHT)),
    )
    return [here, tuple(xp.host(array) for array in here)]


def test_the_suite_works_in_float64_save_where_there_is_none(xp: Any) -> None:
    """Else tests of float64 would skip without a word."""
    x64 = xp.name != "jax" or xp.namespace.asarray(1.0).dtype == np.float64
    keeps = x64 and not re.search("no_float64|no_x64", str(xp.selection.device))
    assert xp.dtype == ("float64" if keeps else "float32")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_loss_gradient_and_predictions_are_numpys(
    xp: Any, activation: str, loss: str, dtype: str
) -> None:
    if xp.name == "jax" and (activation, dtype) != ("silu", "float64"):
        pytest.skip("JAX compiles each operation anew: here one activation with each loss")
    network = _network(activation, loss)
    results = []
    for theta, x, y, weight in _on_both(xp, network, dtype):
        value, gradient = network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=3)
        results.append((value, gradient, network.predict(theta, x)))
    for here, there in zip(*results, strict=True):
        _assert_same(xp, here, there, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_training_is_numpys(xp: Any, optimizer: Any, dtype: str) -> None:
    network = _network("gelu", "binary_cross_entropy")
    results = []
    for theta, x, y, weight in _on_both(xp, network, dtype):
        result = bx.fit(
            network,
            theta,
            x,
            y,
            optimizer=optimizer,
            epochs=2,
            batch_size=4,
            sample_weight=weight,
            validation=(x, y),
            clip=0.5,
            early_stopping=bx.EarlyStopping(5),
        )
        results.append(result)
    here, there = results
    # Rounding of float32 grows over the updates: Adam divides by a root that may be tiny.
    _assert_same(xp, here.theta, there.theta, dtype)
    np.testing.assert_allclose(
        here.history["validation_loss"], there.history["validation_loss"], rtol=TOLERANCES[dtype]
    )


@pytest.mark.parametrize("method", ["complex_step", "centered"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_gradient_check_passes_and_its_arrays_live_there(
    xp: Any, method: str, dtype: str
) -> None:
    network = _network("tanh", "log_cosh")
    (theta, x, y, weight), _ = _on_both(xp, network, dtype)
    report = bx.check_network(
        network, theta[0, :], x, y, sample_weight=weight, rng=3, method=method
    )
    # A difference of float32 that cannot be taken in float64 may not tell.
    unknown = (method, xp.dtype, report.verdict) == ("centered", "float32", "inconclusive")
    assert report.passed or unknown
    for array in (report.analytic, report.numeric):
        assert owner(array) is xp.selection.backend
        assert device_of(array) == xp.selection.device
        # The formula is judged in float64, where the device keeps it.
        assert array.dtype == getattr(xp.namespace, xp.dtype)
