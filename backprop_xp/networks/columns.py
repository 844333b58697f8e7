"""Layers on the columns of a table: a factor for each, and layers side by side.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from backprop_xp.backends import Array, array_namespace, sum_over_batch
from backprop_xp.checks import integer
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks import propagation
from backprop_xp.networks.initializers import INITIALIZERS, Generator, HostArray
from backprop_xp.networks.propagation import Buffers, Cache, Gradients, Layer, Parameters
from backprop_xp.networks.random_bits import Key


@dataclass(frozen=True)
class Scale:
    """``x * scale``, a learnt factor for each feature, which starts at 1.

    The scaling layer of RealMLP (Holzmüller et al. 2024), which gives it a larger
    learning rate than the other layers. Weight decay and L2 do not apply to ``scale``.
    """

    n: int

    names = ("scale",)
    is_random = False
    __repr__ = repr_of

    def __post_init__(self) -> None:
        vars(self).update(n=integer(self.n, "n"))

    @property
    def n_in(self) -> int:
        """The number of features, in and out."""
        return self.n

    n_out = n_in

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of scale."""
        return ((1, self.n),)

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Return scale 1."""
        return (INITIALIZERS["ones"](generator, (1, self.n)),)

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
    """Layers side by side: each has its own columns of x, and their outputs are joined.

    The layers take the columns in order, each its ``n_in``. The parameters are named
    ``"layers[0].weights"`` and so on. Raises ValueError for a layer without ``n_in`` and ``n_out``.

    >>> import backprop_xp as bx
    >>> columns = bx.Columns(bx.Embedding([12, 5], 8), bx.NumericEmbedding(3))
    >>> columns.n_in, columns.n_out
    (5, 28)
    """

    layers: tuple[Layer, ...]
    names: tuple[str, ...] = field(compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(compare=False)
    n_in: int = field(compare=False)
    n_out: int = field(compare=False)
    codes: tuple[int, ...] = field(compare=False)
    is_random: bool = field(compare=False)
    # The columns of x, and those of y, of each layer.
    _parts: tuple[tuple[slice, slice], ...] = field(compare=False)

    writes = True
    __repr__ = repr_of

    def __init__(self, *layers: Layer) -> None:
        names, shapes = propagation.joined_parameters(layers, "Columns")
        codes: list[int] = []
        parts: list[tuple[slice, slice]] = []
        n_in = n_out = 0
        for i, layer in enumerate(layers):
            before, after = getattr(layer, "n_in", None), getattr(layer, "n_out", None)
            if before is None or after is None:
                raise ValueError(
                    f"layers[{i}] ({type(layer).__name__}) does not define n_in and n_out, which "
                    "Columns needs to split x. bx.Scale passes numbers on."
                )
            codes += getattr(layer, "codes", (0,) * before)
            parts += [(slice(n_in, n_in + before), slice(n_out, n_out + after))]
            n_in, n_out = n_in + before, n_out + after
        vars(self).update(layers=layers, names=names, shapes=shapes, n_in=n_in, n_out=n_out)
        vars(self).update(is_random=any(map(propagation.is_random, layers)))
        vars(self).update(codes=tuple(codes), _parts=tuple(parts))

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the layers' parameters, one layer after the other."""
        return tuple(value for layer in self.layers for value in layer.initialize(generator))

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the outputs of the layers side by side."""
        outputs, caches = [], []
        for i, own in enumerate(propagation.split(self.layers, parameters)):
            part = x[..., self._parts[i][0]]
            y, cache = propagation.forward_through([self.layers[i]], [own], part, rng, i)
            outputs.append(y)
            caches.append(cache)
        return joined(outputs), caches

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
        backs: list[Array | None] = []
        gradients: list[Array] = []
        buffers = None if out is None else propagation.split(self.layers, out)
        for i, own in enumerate(propagation.split(self.layers, parameters)):
            back, (found,) = propagation.backward_through(
                *([self.layers[i]], [own], cache[i], g[..., self._parts[i][1]]),
                wants_input=wants_input,
                out=None if buffers is None else [buffers[i]],
                start=i,
            )
            backs.append(back)
            gradients += found
        return (joined(backs) if wants_input else None), tuple(gradients)


def joined(parts: Sequence[Array]) -> Array:
    """Return arrays of one batch side by side; those without a stack's axes are repeated."""
    xp = array_namespace(parts[0])
    stack = max((part.shape[:-2] for part in parts), key=lambda axes: (math.prod(axes), len(axes)))
    repeated = [
        part if part.shape[:-2] == stack else xp.broadcast_to(part, (*stack, *part.shape[-2:]))
        for part in parts
    ]
    return xp.concat(repeated, axis=-1)
