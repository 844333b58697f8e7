"""Layers, activations, losses and networks of a user's own, with mistakes planted in them.

They run on any backend, for the tests of what the gradient check says of pieces; ``mistakes.py``
is the catalogue of mistakes in a network written in plain NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import array_namespace, device_of


class Affine:
    """A layer ``x * scale + shift`` of three columns, with a mistake in a rule, if one is named.

    It starts as the identity, which hides the mistake in the rule of its input. ``real`` takes no
    complex numbers; ``after`` counts the calls of ``backward`` that are still right.
    """

    names = ("scale", "shift")
    shapes = ((1, 3), (1, 3))

    def __init__(self, mistake: str = "", *, real: bool = False, after: int = 0) -> None:
        self.mistake, self.real, self.after = mistake, real, after

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return np.ones((1, 3)), np.zeros((1, 3))

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        scale, shift = parameters
        xp = array_namespace(x)
        if self.real and any(xp.isdtype(a.dtype, "complex floating") for a in (x, scale, shift)):
            raise TypeError("real numbers only")
        return x * scale + shift, x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        xp = array_namespace(g)
        self.after -= 1
        mistake = self.mistake if self.after < 0 else ""
        by_input = g if mistake == "input" else g * parameters[0]
        by_scale = xp.sum(g if mistake == "scale" else g * cache, axis=-2, keepdims=True)
        by_shift = xp.sum(g, axis=-2, keepdims=True)
        if mistake == "shift":
            by_shift = by_shift / g.shape[-2]
        return (by_input if wants_input else None), (by_scale, by_shift)


class Unmasked(bx.Dropout):
    """Dropout whose mask is forgotten on the way back."""

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        return (g if wants_input else None), ()


def _square(z: Any) -> Any:
    return z * z


SQUARE = bx.Activation(_square, lambda g, z, a: 2.0 * z * g)
HALF_A_SQUARE = bx.Activation(_square, lambda g, z, a: z * g)


def with_gradient(change: Callable[[Any], Any]) -> bx.Loss:
    """Return the mean squared error with another gradient."""
    right = bx.losses.mean_squared_error
    return bx.Loss(right.value, lambda o, t: change(right.gradient(o, t)))


def first_column_doubled(g: Any) -> Any:
    return array_namespace(g).concat([2.0 * g[..., :1], g[..., 1:]], axis=-1)


def with_entries(array: Any, change: Callable[[Any], Any], *places: int) -> Any:
    """Return the array with some entries, by their places in C order, changed."""
    xp = array_namespace(array)
    flat = xp.reshape(array, (-1,))
    numbers = xp.arange(flat.shape[0], device=device_of(array))
    chosen = xp.zeros(flat.shape, dtype=xp.bool, device=device_of(array))
    for place in places:
        chosen = chosen | (numbers == place)
    return xp.reshape(xp.where(chosen, change(flat), flat), array.shape)


class Tampered(bx.Network):
    """A network whose pieces are right; ``change(gradient, theta)`` is what it returns."""

    def __init__(self, change: Callable[[Any, Any], Any], layers: Any, **options: Any) -> None:
        super().__init__(layers, "half_squared_error", **options)
        object.__setattr__(self, "change", change)

    def loss_and_gradient(self, theta: Any, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        loss, gradient = super().loss_and_gradient(theta, *arguments, **options)
        return loss, self.change(gradient, theta)  # type: ignore[attr-defined]
