"""Automatic differentiation of other libraries through networks, beside the gradients by hand."""

from typing import Any

import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.activations import ACTIVATIONS
from tests.layer_examples import BATCH, EXACT, N_IN, N_OUT, NETWORKS as OF_LAYERS, RNG, sample_case
from tests.user_layers import PARAMETRIC_LOSSES

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

# Some hundred roundings of float64, relative to the largest entry.
PARITY = 1e-12
# The central difference of a gradient errs by the step's square and by 1e-16 over the step.
STEP, DIFFERENCE = 1e-5, 1e-8
STACK = 2

NETWORKS = {
    **{name: network for name, network in OF_LAYERS.items() if name != EXACT},
    **{
        f"{hidden} hidden": bx.Network([bx.Dense(N_IN, 4, hidden), bx.Dense(4, N_OUT)], "huber")
        for hidden in ACTIVATIONS
    },
    **{
        loss: bx.Network([bx.Dense(N_IN, N_OUT, "tanh")], rule)
        for loss, rule in {**bx.losses.LOSSES, **PARAMETRIC_LOSSES}.items()
        if rule.outputs_per_target < 3
    },
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def _case(network: bx.Network, stack: tuple[int, ...] = ()) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Return theta, x, y and options of a loss, as tensors."""
    theta, x, y, weight = map(torch.asarray, sample_case(network, stack))
    return theta, x, y, {"sample_weight": weight, "rng": RNG}


def _assert_close(found: Any, expected: Any, tolerance: float = PARITY) -> None:
    allowed = tolerance * float(expected.abs().max())
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= allowed


@every_network
def test_the_gradient_of_the_loss_is_the_one_by_hand(network: bx.Network) -> None:
    theta, x, y, options = _case(network)
    expected, gradient = network.loss_and_gradient(theta, x, y, **options)
    loss = network.loss(theta.requires_grad_(), x, y, **options)
    _assert_close(loss.detach(), expected)
    _assert_close(*torch.autograd.grad(loss, theta), gradient)


def _direction(theta: Any) -> Any:
    return torch.cos(torch.arange(theta.shape[-1], dtype=theta.dtype))


@every_network
def test_the_derivative_of_the_gradient_by_hand_is_its_difference(network: bx.Network) -> None:
    theta, x, y, options = _case(network)
    v = _direction(theta)
    above, below = (
        network.loss_and_gradient(theta + h * v, x, y, **options)[1] for h in (STEP, -STEP)
    )
    _, gradient = network.loss_and_gradient(theta.requires_grad_(), x, y, **options)
    (found,) = torch.autograd.grad(v @ gradient, theta)
    _assert_close(found, (above - below) / (2.0 * STEP), DIFFERENCE)


# PyTorch imports its compiler for them, which takes seconds.
@pytest.mark.thorough
@every_network
def test_second_derivatives_of_the_loss_are_those_of_the_gradient_by_hand(
    network: bx.Network,
) -> None:
    theta, x, y, options = _case(network)
    v = _direction(theta)
    _, gradient = network.loss_and_gradient(theta.requires_grad_(), x, y, **options)
    (expected,) = torch.autograd.grad(v @ gradient, theta)
    loss = network.loss(theta, x, y, **options)
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    _assert_close(*torch.autograd.grad(v @ gradient, theta), expected)


@every_network
def test_the_derivatives_of_outputs_and_predictions_are_those_by_hand(network: bx.Network) -> None:
    theta, x, *_ = _case(network)
    outputs = network.forward(theta.requires_grad_(), x.requires_grad_())
    g = _direction(outputs) + outputs.detach()
    found = torch.autograd.grad(outputs, (theta, x), g, allow_unused=True)
    with torch.no_grad():
        expected = network.vjp(theta, x, g)
        jacobian = network.input_jacobian(theta, x, predict=True)
    for one, other in zip(found, expected, strict=True):
        _assert_close(torch.zeros_like(other) if one is None else one, other)
    predictions = network.predict(theta, x)
    for k in range(predictions.shape[-1]):
        (of_x,) = torch.autograd.grad(
            predictions[:, k].sum(), x, retain_graph=True, allow_unused=True
        )
        _assert_close(torch.zeros_like(x) if of_x is None else of_x, jacobian[:, k, :])


@every_network
def test_gradients_vectorized_over_theta_are_those_of_a_stack(network: bx.Network) -> None:
    theta, x, y, options = _case(network, (STACK,))
    gradient = torch.func.grad(lambda one: network.loss(one, x, y, **options))
    _, expected = network.loss_and_gradient(theta, x, y, **options)
    _assert_close(torch.func.vmap(gradient)(theta), expected)
    _, found = torch.func.vmap(lambda one: network.loss_and_gradient(one, x, y, **options))(theta)
    _assert_close(found, expected)


def test_a_layer_is_vectorized_over_its_bias_alone() -> None:
    weights, bias, x = torch.ones(N_IN, N_OUT), torch.rand(STACK, 1, N_OUT), torch.rand(BATCH, N_IN)
    layer = bx.Dense(N_IN, N_OUT, "tanh")
    found = torch.func.vmap(lambda one: layer.forward((weights, one), x, None)[0])(bias)
    assert torch.equal(found, torch.stack([layer.forward((weights, b), x, None)[0] for b in bias]))
