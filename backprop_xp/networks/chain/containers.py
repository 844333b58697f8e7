"""Layers one behind the other as one layer, the base of every layer that is made of layers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from backprop_xp.backends import Array
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain import propagation
from backprop_xp.networks.chain.propagation import Buffers, Cache, Gradients, Layer, Parameters
from backprop_xp.networks.numbers.initializers import Generator, HostArray
from backprop_xp.networks.numbers.random_bits import Key


@dataclass(frozen=True, init=False)
class Chain:
    """Layers one behind the other, as one layer; also the base of layers that are made of layers.

    Its parameters are those of its layers, named ``"layers[0].weights"`` and so on. Your own layer
    of layers extends it: ``forward`` and ``backward`` call those of ``Chain``, and ``backward``
    passes its ``**options`` on. Raises ValueError if neighbouring layers do not fit.

    >>> import backprop_xp as bx
    >>> hidden = bx.Chain(bx.Dense(4, 8, "tanh"), bx.Dropout(0.1))
    >>> bx.Network([hidden, bx.Dense(8, 1)], "mean_squared_error").size
    49
    """

    layers: tuple[Layer, ...]
    # Stored, because computing them from the inner layers at each level takes 2^depth steps.
    names: tuple[str, ...] = field(compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(compare=False)
    n_in: int | None = field(compare=False)
    n_out: int | None = field(compare=False)
    keeps_width: bool = field(compare=False)
    is_random: bool = field(compare=False)
    returns_codes: bool = field(compare=False)

    writes: ClassVar[bool] = True
    skips: ClassVar[bool] = True
    # Whether the first layer takes the first columns of x, and each other the outputs before it.
    runs_in_order: ClassVar[bool] = True
    __repr__ = repr_of

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError(f"{type(self).__name__} needs at least one layer.")
        for i, layer in enumerate(layers):
            propagation.require_layer(layer, f"layers[{i}]")
        named = ((f"layers[{i}]", name) for i, one in enumerate(layers) for name in one.names)
        vars(self).update(
            layers=layers,
            names=tuple(map(".".join, named)),
            shapes=tuple(shape for one in layers for shape in one.shapes),
            is_random=any(map(propagation.is_random, layers)),
            returns_codes=propagation.returns_codes(layers[-1]),
        )
        in_order = self.runs_in_order
        n_in, n_out = propagation.check_chain(layers) if in_order else (None, None)
        keeps_width = in_order and all(getattr(one, "keeps_width", False) for one in layers)
        vars(self).update(n_in=n_in, n_out=n_out, keeps_width=keeps_width)

    @property
    def codes(self) -> tuple[int, ...]:
        """The number of codes in each column of x, 0 for numbers; empty without an Embedding."""
        first: Any = self.layers[0]
        return tuple(first.codes) if propagation.takes_codes(first) else ()

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the layers' parameters, one layer after the other."""
        return tuple(value for layer in self.layers for value in layer.initialize(generator))

    def by_layer(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the parameters, or the buffers, of each layer."""
        rest = iter(values)
        return [tuple(itertools.islice(rest, len(layer.names))) for layer in self.layers]

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the output of the last layer."""
        own, caches = self.by_layer(parameters), list[Cache]()
        chain = propagation.linked(self.layers, own)
        return propagation.forward_through(chain, x, rng, caches), caches

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
        """Return dL/dx and the layers' gradients."""
        chain = propagation.linked(
            *(self.layers, self.by_layer(parameters)),
            wants_input=wants_input,
            wants_parameters=wants_parameters,
            out=self.by_layer(out or [None] * len(self.names)),
        )
        back, gradients = propagation.backward_through(chain, cache, g)
        return back, tuple(itertools.chain.from_iterable(gradients))


class Residual(Chain):
    """``x + f(x)``, where f is a chain of layers that keeps the width: He et al. 2016.

    Its parameters are those of its layers, named ``"layers[0].weights"`` and so on.

    >>> import backprop_xp as bx
    >>> block = bx.Residual(bx.LayerNorm(8), bx.Dense(8, 8, "silu"), bx.Dropout(0.1))
    >>> bx.Network([bx.Dense(4, 8), block, bx.Dense(8, 1)], "mean_squared_error").size
    137
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        if any(map(propagation.takes_codes, layers)):
            raise ValueError(
                "Residual adds its input to its output, but its layers take codes of categories. "
                "Put their Embedding before it."
            )
        if None not in (self.n_in, self.n_out) and self.n_in != self.n_out:
            raise ValueError(
                f"Residual adds its input to its output, but its layers take {self.n_in} features "
                f"and return {self.n_out}. End with a layer that returns {self.n_in}."
            )
        vars(self).update(n_out=self.n_in)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``x + f(x)``."""
        y, cache = super().forward(parameters, x, rng)
        return x + y, cache

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return g plus f's dL/dx, and f's gradients."""
        back, gradients = super().backward(parameters, cache, g, **options)
        return (None if back is None else g + back), gradients
