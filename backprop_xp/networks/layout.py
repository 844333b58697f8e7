"""Where each parameter lies in theta, and the way there and back.

Theta is, layer by layer, each parameter flattened in C order: ``(..., P)``.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from backprop_xp.backends import Array, array_namespace
from backprop_xp.networks.initializers import Generator, HostArray, as_drawn
from backprop_xp.networks.propagation import Layer, require_layer


class Place(NamedTuple):
    """Where a parameter lies in theta; ``decays`` if L2 and weight decay apply to it."""

    name: str
    shape: tuple[int, ...]
    part: slice
    decays: bool

    @property
    def length(self) -> int:
        """How many numbers the parameter holds."""
        return int(self.part.stop - self.part.start)


Layout: TypeAlias = tuple[tuple[Place, ...], ...]


def lay_out(layers: Sequence[Layer]) -> Layout:
    """Return the places of each layer's parameters."""
    layout, start = [], 0
    for i, layer in enumerate(layers):
        require_layer(layer, f"layers[{i}]")
        if len(layer.names) != len(layer.shapes):
            raise ValueError(
                f"layers[{i}] ({type(layer).__name__}) has the names {layer.names!r} and the "
                f"shapes {layer.shapes!r}, but one shape for each name is expected."
            )
        places = []
        for name, shape in zip(layer.names, layer.shapes, strict=True):
            stop = start + math.prod(shape)
            # A Residual's names are dotted: "layers[0].weights".
            decays = name.rpartition(".")[2] == "weights"
            places.append(Place(name, tuple(shape), slice(start, stop), decays))
            start = stop
        layout.append(tuple(places))
    return tuple(layout)


def draw(layers: Sequence[Layer], layout: Layout, generator: Generator) -> Iterator[HostArray]:
    """Yield the parameters that the layers draw on the host, checked to have their shapes."""
    for i, (layer, places) in enumerate(zip(layers, layout, strict=True)):
        values, names = tuple(layer.initialize(generator)), [place.name for place in places]
        if len(values) != len(names):
            raise ValueError(
                f"layers[{i}] ({type(layer).__name__}) drew {len(values)} parameters, but "
                f"{len(names)} are expected, as its names are {names}."
            )
        for place, value in zip(places, values, strict=True):
            yield as_drawn(value, place.shape, f"layers[{i}].{place.name}")


def unpack(layout: Layout, theta: Array) -> list[tuple[Array, ...]]:
    """Return each layer's parameters, ``(*stack, *shape)``, as views where the library can."""
    return shaped(layout, [theta[..., place.part] for places in layout for place in places])


def pack(layout: Layout, values: Sequence[Sequence[Array]], stack: tuple[int, ...]) -> Array:
    """Return theta, ``(*stack, P)``, made of each layer's parameters: the inverse of ``unpack``."""
    parts = flattened(layout, values, stack)
    return array_namespace(parts[0]).concat(parts, axis=-1)


def shaped(layout: Layout, parts: Sequence[Array]) -> list[tuple[Array, ...]]:
    """Return each layer's parameters, given theta's parts ``(*stack, length)`` in their order."""
    xp, stack, left = array_namespace(parts[0]), parts[0].shape[:-1], iter(parts)
    return [
        tuple(xp.reshape(next(left), (*stack, *place.shape)) for place in places)
        for places in layout
    ]


def flattened(
    layout: Layout, values: Sequence[Sequence[Array]], stack: tuple[int, ...]
) -> list[Array]:
    """Return theta's parts, given each layer's parameters: the inverse of ``shaped``."""
    xp = array_namespace(next(itertools.chain.from_iterable(values)))
    return [
        xp.reshape(value, (*stack, place.length))
        for places, layer in zip(layout, values, strict=True)
        for place, value in zip(places, layer, strict=True)
    ]
