"""Layers on the columns of a table: a factor for each, and layers side by side.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backprop_xp.backends import Array, array_namespace, columns_of, sum_over_batch
from backprop_xp.checks import integer
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks import propagation
from backprop_xp.networks.initializers import Generator, HostArray, ones
from backprop_xp.networks.propagation import Buffers, Cache, Gradients, Layer, Parameters
from backprop_xp.networks.random_bits import Key


@dataclass(frozen=True)
class Scale:
    """``x * scale``, a learnt factor for each feature, which starts at 1.

    The scaling layer of RealMLP (Holzmüller et al. 2024), which gives it a larger
    learning rate than the other layers. Weight decay and L2 do not apply to ``scale``.

    >>> import backprop_xp as bx
    >>> network = bx.Network([bx.Scale(2), bx.Dense(2, 1)], "mean_squared_error")
    >>> network.unpack(network.initialize())[0]
    (array([[1., 1.]]),)
    """

    n: int
    n_in: int = field(init=False, compare=False)
    n_out: int = field(init=False, compare=False)
    shapes: tuple[tuple[int, int]] = field(init=False, compare=False)

    names = ("scale",)
    is_random = False
    __repr__ = repr_of

    def __post_init__(self) -> None:
        n = integer(self.n, "n")
        vars(self).update(n=n, n_in=n, n_out=n, shapes=((1, n),))

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Return scale 1."""
        return (ones(generator, self.shapes[0]),)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``x * scale``."""
        return x * parameters[0], x

    def backward(
        self, parameters: Parameters, cache: Cache, g: Array, *, wants_input: bool = True
    ) -> Gradients:
        """Return ``g * scale``, and the sum of ``g * x`` over the batch."""
        gradient = sum_over_batch(g, None, cache)
        return (g * parameters[0] if wants_input else None), (gradient,)


@dataclass(frozen=True, init=False)
class Columns:
    """Layers side by side: each has its own columns of x, and their outputs are side_by_side.

    The layers take the columns in order, each its ``n_in``. The parameters are named
    ``"layers[0].weights"`` and so on. Raises ValueError for a layer without ``n_in`` and ``n_out``.

    >>> import backprop_xp as bx
    >>> columns = bx.Columns(bx.Embedding([12, 5], 8), bx.NumericEmbedding(3))
    >>> columns.n_in, columns.n_out
    (5, 28)
    """

    layers: tuple[Any, ...]
    names: tuple[str, ...] = field(compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(compare=False)
    n_in: int = field(compare=False)
    n_out: int = field(compare=False)
    is_random: bool = field(compare=False)

    writes = True
    __repr__ = repr_of

    def __init__(self, *layers: Layer) -> None:
        attributes = propagation.attributes_of(layers, "Columns")
        for i, layer in enumerate(layers):
            if None in (getattr(layer, "n_in", None), getattr(layer, "n_out", None)):
                raise ValueError(
                    f"layers[{i}] ({type(layer).__name__}) does not define n_in and n_out, which "
                    "Columns needs to split x. bx.Scale passes numbers on."
                )
        n_in, n_out = (sum(getattr(layer, n) for layer in layers) for n in ("n_in", "n_out"))
        vars(self).update(attributes, n_in=n_in, n_out=n_out)

    @functools.cached_property
    def codes(self) -> tuple[int, ...]:
        """The number of codes in each column of x, 0 for numbers."""
        each = (getattr(layer, "codes", None) or (0,) * layer.n_in for layer in self.layers)
        return tuple(itertools.chain.from_iterable(each))

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the layers' parameters, one layer after the other."""
        return tuple(value for layer in self.layers for value in layer.initialize(generator))

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the outputs of the layers side by side."""
        parts = columns_of(x, [layer.n_in for layer in self.layers])
        own = propagation.split(self.layers, parameters)
        caches: list[Cache] = []
        outputs = [
            propagation.forward_through([layer], [own[i]], parts[i], rng, caches, start=i)
            for i, layer in enumerate(self.layers)
        ]
        return side_by_side(outputs), caches

    def backward(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        out: Buffers | None = None,
    ) -> Gradients:
        """Return the layers' dL/dx side by side, and their gradients."""
        parts = columns_of(g, [layer.n_out for layer in self.layers])
        own = propagation.split(self.layers, parameters)
        buffers = propagation.split(self.layers, out or [None] * len(self.names))
        passes = [
            propagation.backward_through(
                *([layer], [own[i]], [cache[i]], parts[i]),
                wants_input=wants_input,
                out=[buffers[i]],
                start=i,
            )
            for i, layer in enumerate(self.layers)
        ]
        gradients = tuple(value for _, (found,) in passes for value in found)
        return (side_by_side([back for back, _ in passes]) if wants_input else None), gradients


def side_by_side(parts: Sequence[Array]) -> Array:
    """Return arrays of one batch side by side; those without a stack's axes are repeated."""
    xp = array_namespace(parts[0])
    stack = max((part.shape[:-2] for part in parts), key=lambda axes: (math.prod(axes), len(axes)))
    repeated = [
        part if part.shape[:-2] == stack else xp.broadcast_to(part, (*stack, *part.shape[-2:]))
        for part in parts
    ]
    return xp.concat(repeated, axis=-1)
