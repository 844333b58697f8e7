"""Custom layers that have only the protocol, and a network of every kind of layer with data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import array_namespace


class PassThrough:
    """A layer that returns its input; tests derive from it."""

    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return ()

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        return x, None

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        return g, ()


class Factors:
    """A layer that multiplies each unit of x by its own factor."""

    names = ("weights",)

    def __init__(self, n: int = 4) -> None:
        self.shapes = ((1, n),)
        self.input_wanted: list[bool] = []
        self.keys: list[Any] = []

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.uniform(0.5, 1.5, self.shapes[0]),)

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        self.keys.append(rng)
        return x * parameters[0], x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        self.input_wanted.append(wants_input)
        total = array_namespace(g).sum(g * cache, axis=-2, keepdims=True)
        return (g * parameters[0] if wants_input else None), (total,)


class Doubled(bx.Dense):
    """A layer with rules of its own, which inherits from one that has others, too: in loops."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return super().forward(parameters, 2.0 * x, rng)

    def backward(self, parameters: Any, cache: Any, g: Any, **options: Any) -> Any:
        back, gradients = super().backward(parameters, cache, g, **options)
        return (None if back is None else 2.0 * back), gradients


class Gated(bx.Chain):
    """A layer of layers: ``x * f(x)``."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        y, cache = super().forward(parameters, x, rng)
        return x * y, (x, y, cache)

    def backward(self, parameters: Any, cache: Any, g: Any, **options: Any) -> Any:
        x, y, inner = cache
        back, gradients = super().backward(parameters, inner, g * x, **options)
        return (None if back is None else back + g * y), gradients


# Losses that functions make, beside those of the table.
PARAMETRIC_LOSSES = {
    "huber_with": bx.losses.huber_with(2.5),
    "quantile": bx.losses.quantile(0.2),
    "quantiles": bx.losses.quantile(0.1, 0.5, 0.9),
    "tweedie": bx.losses.tweedie(),
    "tweedie of power 1": bx.losses.tweedie(1.0),
    "tweedie of power 2": bx.losses.tweedie(2.0),
    "focal": bx.losses.focal(),
    "focal of gamma 0.5": bx.losses.focal(0.5),
    "smoothed classes": bx.losses.smoothed("categorical_cross_entropy", 0.1),
    "smoothed labels": bx.losses.smoothed("binary_cross_entropy", 0.1),
    "smoothed focal": bx.losses.smoothed(bx.losses.focal(1.0), 0.2),
}


def sample_targets(loss: bx.Loss, outputs: tuple[int, ...]) -> np.ndarray:
    """Return targets for outputs of a shape that suit the loss: shares, probabilities, counts."""
    generator, shape = np.random.default_rng(6), (*outputs[:-1], outputs[-1])
    if loss.labels and shape[-1] > 1:
        return generator.dirichlet(np.ones(shape[-1]), shape[:-1])
    if loss.targets == (0.0, 1.0):
        return generator.uniform(size=shape)
    if loss.targets[0] >= 0.0:
        return generator.poisson(2.0, shape) + (0.5 if loss.targets[0] else 0.0)
    return generator.normal(size=(*shape[:-1], shape[-1] // loss.outputs_per_target))


def sample_network(
    hidden: str = "tanh", output: str = "identity", loss: str = "mean_squared_error"
) -> bx.Network:
    """Return a network with a layer of every kind and a penalty."""
    residual = bx.Residual(bx.Dense(4, 3, hidden), bx.Dropout(0.3), bx.Dense(3, 4))
    layers = [
        bx.Dense(3, 4),
        bx.LayerNorm(4),
        bx.Activate(hidden),
        bx.Dropout(0.4),
        residual,
        bx.Dense(4, 2, output),
    ]
    return bx.Network(layers, loss, l2=0.3)


def sample_theta(network: bx.Network, stack: tuple[int, ...] = ()) -> np.ndarray:
    """Return a theta without biases of 0 and scales of 1, which could hide a wrong rule."""
    return np.random.default_rng(20).normal(0.0, 0.7, (*stack, network.size))


def require_stack_of(xp: Any, network: bx.Network, theta: Any, x: Any, y: Any, most: float) -> None:
    """Assert that losses and gradients of a stack are those of its networks, one by one.

    ``most`` is the largest difference, relative to the largest entry.
    """
    found = [*network.loss_and_gradient(*xp.put(theta, x, y)), *network.vjp(*xp.put(theta, x, y))]
    for i in range(len(theta)):
        alone = xp.put(theta[i], x, y)
        expected = [*network.loss_and_gradient(*alone), *network.vjp(*alone)]
        for ours, theirs in zip(found, expected, strict=True):
            size = float(np.max(np.abs(xp.host(theirs))))
            xp.assert_close(xp.host(ours)[i] / size, theirs / size, most)


def sample_data(
    loss: str = "", stack: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and sample_weight; y has probabilities, which every loss accepts."""
    generator = np.random.default_rng(21)
    x = generator.normal(size=(*stack, 5, 3))
    y = generator.dirichlet(np.ones(2), (*stack, 5))
    if loss == "huber":
        y = y * 4.0 - 2.0  # residuals on both sides of delta
    if loss == "gaussian_nll":
        y = y[..., :1]  # two outputs for each
    return x, y, generator.uniform(0.5, 2.0, (*stack, 5))
