"""Layers of a user's own, which keep the protocol and no more."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import array_namespace


class Passing:
    """A layer that hands on what it is given; tests watch what passes."""

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
    """A layer that multiplies x by one factor for each of its units."""

    names = ("weights",)

    def __init__(self, n: int = 4) -> None:
        self.shapes = ((1, n),)
        self.asked: list[bool] = []
        self.keys: list[Any] = []

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.uniform(0.5, 1.5, self.shapes[0]),)

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        self.keys.append(rng)
        return x * parameters[0], x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        self.asked.append(wants_input)
        total = array_namespace(g).sum(g * cache, axis=-2, keepdims=True)
        return (g * parameters[0] if wants_input else None), (total,)
