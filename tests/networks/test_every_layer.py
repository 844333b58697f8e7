"""Each kind of layer and of equation: the check, JAX's derivatives, and the same on any backend."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.layer_examples import BATCH, EXACT, N_OUT, NETWORKS, RNG, sample_case

# Some hundred roundings of float64, relative to the largest entry.
PARITY = 1e-12
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
G = np.random.default_rng(4).normal(size=(BATCH, N_OUT))


def results(network: bx.Network, theta: Any, x: Any, y: Any, weight: Any, g: Any) -> list[Any]:
    """Return the outputs, the loss and its gradient, and the gradients of ``g * outputs``."""
    outputs = network.forward(theta, x, rng=RNG)
    of_loss = network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=RNG)
    of_outputs = [] if network is NETWORKS[EXACT] else network.vjp(theta, x, g, rng=RNG)
    return [outputs, *of_loss, *of_outputs]


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=PARITY * np.max(np.abs(theirs)))


@pytest.mark.jax
@pytest.mark.once
@every_network
def test_gradients_are_those_of_jax(network: bx.Network, jax: Any) -> None:
    theta, x, y, weight = sample_case(network)
    found = results(network, theta, x, y, weight, G)

    def loss(theta: Any) -> Any:
        return network.loss(theta, put[1], put[2], sample_weight=put[3], rng=RNG)

    def by_jax(theta: Any, x: Any) -> Any:
        outputs, pull = jax.vjp(lambda *at: network.forward(*at, rng=RNG), theta, x)
        of_outputs = [] if network is NETWORKS[EXACT] else pull(put[4])
        return [outputs, *jax.value_and_grad(loss)(theta), *of_outputs]

    with jax.enable_x64(True):
        put = [jax.numpy.asarray(array) for array in (theta, x, y, weight, G)]
        expected = [np.asarray(array) for array in jax.jit(by_jax)(*put[:2])]
    assert_equal(found, expected)


@pytest.mark.float64
@every_network
def test_a_backend_has_the_results_of_numpy(xp: Any, network: bx.Network) -> None:
    for stack in ((), (2,)):
        case = *sample_case(network, stack), np.broadcast_to(G, (*stack, *G.shape))
        found = [xp.host(array) for array in results(network, *xp.put(*case))]
        assert_equal(found, results(network, *case))


@pytest.mark.long
@pytest.mark.float64  # which confirms the complex step by real differences
@every_network
def test_the_check_of_a_layer_passes(xp: Any, network: bx.Network) -> None:
    has_slopes = network is not NETWORKS[EXACT] and not any(network.codes)
    x = xp.asarray(sample_case(network)[1])
    report = bx.check_layer(bx.Chain(*network.layers), x, wants_input=has_slopes)
    assert report.passed, str(report)
