"""Layers on the columns of a table: a factor for each, and layers side by side.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from backprop_xp.backends import Array, array_namespace, sum_over_batch
from backprop_xp.checks import integer, sequence
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks import propagation
from backprop_xp.networks.initializers import INITIALIZERS, Generator, HostArray
from backprop_xp.networks.propagation import Buffers, Cache, Gradients, Layer, Parameters
from backprop_xp.networks.random_bits import Key


@dataclass(frozen=True)
class Scale:
    """``x * scale``, a learnt factor for each feature, which starts at 1.

    The scaling layer of RealMLP (Holzmüller et al. 2024, section 3), which gives it a larger
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

    The layers take the columns in order, each its ``n_in``; ``widths`` has the numbers of columns
    for layers that do not define theirs. The parameters are named ``"layers[0].weights"`` and so
    on. Raises ValueError if a layer's number of columns is unknown, or another one in ``widths``.

    >>> import backprop_xp as bx
    >>> columns = bx.Columns(bx.Embedding([12, 5], 8), bx.NumericEmbedding(3))
    >>> columns.n_in, columns.n_out
    (5, 28)
    """

    layers: tuple[Layer, ...]
    widths: tuple[int, ...] | None
    names: tuple[str, ...] = field(compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(compare=False)
    n_in: int = field(compare=False)
    n_out: int | None = field(compare=False)
    codes: tuple[int, ...] = field(compare=False)
    is_random: bool = field(compare=False)
    _parts: tuple[slice, ...] = field(compare=False)

    writes = True
    __repr__ = repr_of

    def __init__(self, *layers: Layer, widths: Sequence[int] | None = None) -> None:
        names, shapes = propagation.joined_parameters(layers, "Columns")
        known = [getattr(layer, "n_in", None) for layer in layers]
        given = known if widths is None else sequence(widths, "widths", "(2, 3)")
        if len(given) != len(known) or any(
            n is None or own not in (None, n) for n, own in zip(given, known, strict=True)
        ):
            raise ValueError(
                f"widths must hold the number of columns of each layer, which are {known} by their "
                f"n_in (None: not defined), not {widths!r}."
            )
        counts = [integer(n, "widths") for n in given]
        outs = [
            n if getattr(layer, "keeps_width", False) else getattr(layer, "n_out", None)
            for layer, n in zip(layers, counts, strict=True)
        ]
        codes = (getattr(layer, "codes", (0,) * n) for layer, n in zip(layers, counts, strict=True))
        vars(self).update(layers=layers, widths=widths if widths is None else tuple(counts))
        vars(self).update(names=names, shapes=shapes, codes=tuple(itertools.chain(*codes)))
        vars(self).update(is_random=any(map(propagation.is_random, layers)), n_in=sum(counts))
        n_out = None if None in outs else sum(n for n in outs if n is not None)
        vars(self).update(n_out=n_out, _parts=_slices(counts))

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the layers' parameters, one layer after the other."""
        return tuple(value for layer in self.layers for value in layer.initialize(generator))

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the outputs of the layers side by side."""
        outputs, caches = [], []
        for i, own in enumerate(propagation.split(self.layers, parameters)):
            part = x[..., self._parts[i]]
            y, cache = propagation.forward_through([self.layers[i]], [own], part, rng, i)
            outputs.append(y)
            caches.append(cache)
        return joined(outputs), (caches, _slices([y.shape[-1] for y in outputs]))

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
        caches, parts = cache
        backs: list[Array | None] = []
        gradients: list[Array] = []
        buffers = None if out is None else propagation.split(self.layers, out)
        for i, own in enumerate(propagation.split(self.layers, parameters)):
            back, (found,) = propagation.backward_through(
                *([self.layers[i]], [own], caches[i], g[..., parts[i]]),
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


def _slices(counts: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        itertools.starmap(slice, itertools.pairwise(itertools.accumulate(counts, initial=0)))
    )
