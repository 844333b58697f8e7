"""Layers on the columns of a table: a factor for each, and layers side by side.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backprop_xp.backends import (
    Array,
    array_namespace,
    columns_of,
    device_of,
    host_numbers,
    sum_over_batch,
)
from backprop_xp.checks import integer, real
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain import propagation
from backprop_xp.networks.chain.containers import Chain
from backprop_xp.networks.chain.propagation import Buffers, Cache, Gradients, Layer, Parameters
from backprop_xp.networks.numbers.initializers import Generator, HostArray, ones
from backprop_xp.networks.numbers.random_bits import Key


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
    is_random = returns_codes = False
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
class Standardize:
    """``(x - mean) / scale``, with a given mean and scale, which are not learned.

    ``mean`` and ``scale`` are numbers, or sequences with one for each feature. In front of other
    layers it takes x in the user's units; its ``inverse`` behind them returns y in such units.
    Derivatives and equations are then in the user's units too.

    >>> import backprop_xp as bx
    >>> of_x, of_y = bx.Standardize([300.0, 2.0], [25.0, 0.5]), bx.Standardize([1e5], [2e4])
    >>> hidden = bx.mlp([2, 16, 1], hidden="tanh").layers
    >>> network = bx.Network([of_x, *hidden, of_y.inverse], "mean_squared_error")
    >>> network.input_jacobian(network.initialize(), [[310.0, 1.8]]).shape  # in units of y over x
    (1, 1, 2)
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    n_in: int | None = field(compare=False)
    n_out: int | None = field(compare=False)
    keeps_width: bool = field(compare=False)

    names = shapes = ()
    is_random = returns_codes = False
    __repr__ = repr_of

    def __init__(
        self, mean: float | Sequence[float] | Array, scale: float | Sequence[float] | Array
    ) -> None:
        means, scales = _numbers(mean, "mean"), _numbers(scale, "scale")
        if 0.0 in scales:
            raise ValueError(
                f"scale[{scales.index(0.0)}] is 0: a constant feature has the scale 1, or is left "
                "out."
            )
        n = max(len(means), len(scales))
        if {len(means), len(scales)} - {1, n}:
            raise ValueError(
                f"mean has {len(means)} numbers and scale has {len(scales)}, but one for each "
                "feature is expected in both."
            )
        # A single number is that of every feature.
        width = None if n == 1 else n
        vars(self).update(mean=means, scale=scales, n_in=width, n_out=width)
        vars(self).update(keeps_width=n == 1)

    @property
    def inverse(self) -> "Standardize":
        """The layer of ``y * scale + mean``."""
        n = max(len(self.mean), len(self.scale))
        means, scales = (one * n if len(one) == 1 else one for one in (self.mean, self.scale))
        shifts = [-mean / scale for mean, scale in zip(means, scales, strict=True)]
        return Standardize(shifts, [1.0 / scale for scale in scales])

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw nothing."""
        return ()

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``(x - mean) / scale``."""
        return (x - _row(self.mean, x)) / _row(self.scale, x), None

    def backward(
        self, parameters: Parameters, cache: Cache, g: Array, *, wants_input: bool = True
    ) -> Gradients:
        """Return ``g / scale``."""
        return (g / _row(self.scale, g) if wants_input else None), ()


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    """Return finite numbers of a number, a sequence, or an array ``(n,)`` or ``(1, n)``."""
    host = host_numbers(values, name)
    if not host.size or host.size != (host.shape or (1,))[-1]:
        raise ValueError(
            f"{name} has shape {host.shape}, but a number or one for each feature is expected."
        )
    return tuple(real(value, f"{name}[{i}]") for i, value in enumerate(host.reshape(-1).tolist()))


def _row(numbers: tuple[float, ...], x: Array) -> Array:
    return array_namespace(x).asarray([numbers], dtype=x.dtype, device=device_of(x))


class Columns(Chain):
    """Layers side by side: each has its own columns of x, and their outputs stand side by side.

    The layers take the columns in order, each its ``n_in``. The parameters are named
    ``"layers[0].weights"`` and so on. Raises ValueError for a layer without ``n_in`` and ``n_out``.

    >>> import backprop_xp as bx
    >>> columns = bx.Columns(bx.Embedding([12, 5], 8), bx.NumericEmbedding(3))
    >>> columns.n_in, columns.n_out
    (5, 28)
    """

    runs_in_order = False
    layers: tuple[Any, ...]
    n_in: int
    n_out: int

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        for i, layer in enumerate(layers):
            if None in (getattr(layer, "n_in", None), getattr(layer, "n_out", None)):
                raise ValueError(
                    f"layers[{i}] ({type(layer).__name__}) does not define n_in and n_out, which "
                    "Columns needs to split x. bx.Scale passes numbers on."
                )
        n_in, n_out = (sum(getattr(layer, n) for layer in layers) for n in ("n_in", "n_out"))
        vars(self).update(n_in=n_in, n_out=n_out)

    @functools.cached_property
    def codes(self) -> tuple[int, ...]:
        """The number of codes in each column of x, 0 for numbers."""
        each = (getattr(layer, "codes", None) or (0,) * layer.n_in for layer in self.layers)
        return tuple(itertools.chain.from_iterable(each))

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the outputs of the layers side by side."""
        parts = columns_of(x, [layer.n_in for layer in self.layers])
        own, caches = self.by_layer(parameters), list[Cache]()
        each = propagation.linked(self.layers, own)
        outputs = [
            propagation.forward_through([link], part, rng, caches)
            for link, part in zip(each, parts, strict=True)
        ]
        return side_by_side(outputs), caches

    def backward(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        wants_parameters: bool = True,
        out: Buffers | None = None,
    ) -> Gradients:
        """Return the layers' dL/dx side by side, and their gradients."""
        parts = columns_of(g, [layer.n_out for layer in self.layers])
        own, buffers = self.by_layer(parameters), self.by_layer(out or [None] * len(self.names))
        wanted = {"wants_input": wants_input, "wants_parameters": wants_parameters}
        passes = []
        for i, layer in enumerate(self.layers):
            chain = propagation.linked([layer], [own[i]], out=[buffers[i]], start=i, **wanted)
            passes.append(propagation.backward_through(chain, [cache[i]], parts[i]))
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
