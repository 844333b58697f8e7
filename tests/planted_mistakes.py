"""Custom layers, losses and networks with planted mistakes, on any backend.

The tests of the gradient check call it by ``check``, which asserts the properties of every report.
``mistake_catalogue.py`` has the mistakes in a network in plain NumPy.
"""

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace, device_of

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]
every_method = pytest.mark.parametrize("method", METHODS)
difference_methods = pytest.mark.parametrize("method", ["auto", "centered", "directional"])
entries_and_directions = pytest.mark.parametrize("method", ["auto", "directional"])
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def _with_assertions(kind: str) -> Callable[..., Any]:
    """Return a check of the library that also asserts the properties of every report."""

    def checked(*arguments: Any, **options: Any) -> Any:
        report = getattr(bx, f"check_{kind}")(*arguments, **options)
        assert (report.verdict == "fail") == (report.max_relative_error > report.tolerance)
        assert report.passed == (report.verdict in ("pass", "kink"))
        assert report.diagnosis is None or not report.passed
        return report

    return checked


KINDS = ("gradient", "jacobian", "network", "layer", "loss")
check = SimpleNamespace(**{kind: _with_assertions(kind) for kind in KINDS})


def map_leaves(structure: Any, change: Callable[[Any], Any]) -> Any:
    """Return the same dicts, lists and tuples with changed leaves."""
    if isinstance(structure, dict):
        return {key: map_leaves(part, change) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        parts = [map_leaves(part, change) for part in structure]
        return getattr(type(structure), "_make", type(structure))(parts)
    return change(structure)


def assert_only_right_passes(value: Any, gradient: Any, point: Any, **options: Any) -> None:
    """Assert that a gradient passes, and fails when it is 10 % larger."""
    wrong = lambda *a: map_leaves(gradient(*a), lambda g: 1.1 * g)  # noqa: E731
    found = [check.gradient(value, g, point, **options).verdict for g in (gradient, wrong)]
    assert found == ["pass", "fail"]


class Affine:
    """A layer ``x * scale + shift`` of three columns; ``mistake`` names a wrong gradient.

    Its initial parameters make it the identity, which hides a mistake in the gradient of the input.
    ``real`` raises for complex numbers, ``alone`` for stacks.
    """

    names = ("scale", "shift")
    shapes = ((1, 3), (1, 3))

    def __init__(self, mistake: str = "", *, real: bool = False, alone: bool = False) -> None:
        self.mistake, self.real, self.alone = mistake, real, alone

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return np.ones((1, 3)), np.zeros((1, 3))

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        xp, (scale, shift) = array_namespace(x), parameters
        if self.real and any(xp.isdtype(a.dtype, "complex floating") for a in (x, scale, shift)):
            raise TypeError("real numbers only")
        if self.alone and max(len(x.shape), len(scale.shape)) > 2:
            raise ValueError("one at a time")
        return x * scale + shift, x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        xp = array_namespace(g)
        by_input = g if self.mistake == "input" else g * parameters[0]
        by_scale = xp.sum(g if self.mistake == "scale" else g * cache, axis=-2, keepdims=True)
        by_shift = xp.sum(g, axis=-2, keepdims=True)
        by_shift = by_shift / g.shape[-2] if self.mistake == "shift" else by_shift
        return (by_input if wants_input else None), (by_scale, by_shift)


class DropoutWithoutMask(bx.Dropout):
    """Dropout without its mask in the backward pass."""

    def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
        return (g if wants_input else None), ()


SQUARE = bx.Activation(lambda z: z * z, lambda g, z, a: 2.0 * z * g)
WRONG_SQUARE = bx.Activation(lambda z: z * z, lambda g, z, a: z * g)


def _first_column_doubled(outputs: Any, targets: Any) -> Any:
    g = bx.losses.mean_squared_error.gradient(outputs, targets)
    return array_namespace(g).concat([2.0 * g[..., :1], g[..., 1:]], axis=-1)


WRONG_LOSS = bx.Loss(bx.losses.mean_squared_error.value, _first_column_doubled)


def change_entries(array: Any, change: Callable[[Any], Any], *indices: int) -> Any:
    """Return the array with the entries at some flat indices, in C order, changed."""
    xp, device = array_namespace(array), device_of(array)
    flat = xp.reshape(array, (-1,))
    numbers = xp.arange(flat.shape[0], device=device)
    chosen = functools.reduce(lambda a, b: a | b, [numbers == i for i in indices])
    return xp.reshape(xp.where(chosen, change(flat), flat), array.shape)


class WrongGradientNetwork(bx.Network):
    """A network with right pieces whose gradient is ``change(gradient, theta)``."""

    def __init__(self, change: Callable[[Any, Any], Any], layers: Any, **options: Any) -> None:
        super().__init__(layers, "half_squared_error", **options)
        object.__setattr__(self, "change", change)

    def loss_and_gradient(self, theta: Any, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        loss, gradient = super().loss_and_gradient(theta, *arguments, **options)
        return loss, self.change(gradient, theta)  # type: ignore[attr-defined]
