"""The layout of theta: the slice of each parameter, and conversions to parameters and back.

Theta is, layer by layer, each parameter flattened in C order: ``(..., P)``.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from backprop_xp.backends import Array, array_namespace, device_of
from backprop_xp.checks import integer, known, sequence
from backprop_xp.networks.chain.propagation import Layer, require_layer
from backprop_xp.networks.numbers.initializers import Generator, HostArray, checked_draw


class ParameterSlice(NamedTuple):
    """A parameter's slice of theta; ``decays`` if L2 and weight decay apply to it."""

    name: str
    shape: tuple[int, ...]
    part: slice
    decays: bool

    @property
    def length(self) -> int:
        """The parameter's number of entries."""
        return int(self.part.stop - self.part.start)


Layout: TypeAlias = tuple[tuple[ParameterSlice, ...], ...]


def lay_out(layers: Sequence[Layer]) -> Layout:
    """Return the slices of each layer's parameters."""
    layout, start = [], 0
    for i, layer in enumerate(layers):
        require_layer(layer, f"layers[{i}]")
        if len(layer.names) != len(layer.shapes):
            raise ValueError(
                f"layers[{i}] ({type(layer).__name__}) has the names {layer.names!r} and the "
                f"shapes {layer.shapes!r}, but one shape for each name is expected."
            )
        slices = []
        for name, shape in zip(layer.names, layer.shapes, strict=True):
            stop = start + math.prod(shape)
            # A Residual's names are dotted: "layers[0].weights".
            decays = name.rpartition(".")[2] == "weights"
            slices.append(ParameterSlice(name, tuple(shape), slice(start, stop), decays))
            start = stop
        layout.append(tuple(slices))
    return tuple(layout)


def chosen(
    layout: Layout, layers: Sequence[int] | None, names: Sequence[str] | None
) -> list[ParameterSlice]:
    """Return the slices of some layers, by index, with some names; None is all of them."""
    count, all_names = len(layout), [one.name for one in itertools.chain(*layout)]
    all_names += [name.rpartition(".")[2] for name in all_names]  # of any layer in a Residual
    given = range(count) if layers is None else sequence(layers, "layers", "[0, 1]")
    indices = [integer(i, "layers", at_least=-count) for i in given]
    if max(indices, default=0) >= count:
        raise ValueError(f"layers has {max(indices)}, but the network has {count} layers.")
    wanted = all_names if names is None else sequence(names, "names", '["weights"]')
    for name in wanted:
        known(name, dict.fromkeys(all_names), "names")
    found = [
        one
        for i in sorted({i % count for i in indices})
        for one in layout[i]
        if {one.name, one.name.rpartition(".")[2]} & {*wanted}
    ]
    if not found:
        raise ValueError(f"No parameter is in layers={layers!r} with names={names!r}.")
    return found


def mask_of(layout: Layout, theta: Array, slices: Sequence[ParameterSlice]) -> Array:
    """Return ``(P,)``, like theta: 1 on some slices, else 0."""
    xp, where = array_namespace(theta), {"dtype": theta.dtype, "device": device_of(theta)}
    parts = [
        (xp.ones if one in slices else xp.zeros)(one.length, **where)
        for one in itertools.chain(*layout)
    ]
    return xp.concat(parts, axis=-1)


def weight_mask(layout: Layout, theta: Array) -> Array:
    """Return ``(P,)``, like theta: 1 where L2 and weight decay apply, else 0."""
    return mask_of(layout, theta, [one for one in itertools.chain(*layout) if one.decays])


def draw(layers: Sequence[Layer], layout: Layout, generator: Generator) -> Iterator[HostArray]:
    """Yield the parameters that the layers draw on the host, with checked shapes."""
    for i, (layer, slices) in enumerate(zip(layers, layout, strict=True)):
        values, names = tuple(layer.initialize(generator)), [one.name for one in slices]
        if len(values) != len(names):
            raise ValueError(
                f"layers[{i}] ({type(layer).__name__}) drew {len(values)} parameters, but "
                f"{len(names)} are expected, as its names are {names}."
            )
        for one, value in zip(slices, values, strict=True):
            yield checked_draw(value, one.shape, f"layers[{i}].{one.name}")


def unpack(layout: Layout, theta: Array) -> list[tuple[Array, ...]]:
    """Return each layer's parameters, ``(*stack, *shape)``, as views where the library can."""
    return parameters_of(layout, [theta[..., one.part] for one in itertools.chain(*layout)])


def pack(layout: Layout, values: Sequence[Sequence[Array]], stack: tuple[int, ...]) -> Array:
    """Return theta, ``(*stack, P)``, made of each layer's parameters: the inverse of ``unpack``."""
    parts = parts_of(layout, values, stack)
    return array_namespace(parts[0]).concat(parts, axis=-1)


def parameters_of(layout: Layout, parts: Sequence[Array]) -> list[tuple[Array, ...]]:
    """Return each layer's parameters, given the parts of theta, ``(*stack, length)``, in order."""
    xp, stack, rest = array_namespace(parts[0]), parts[0].shape[:-1], iter(parts)
    return [
        tuple(xp.reshape(next(rest), (*stack, *one.shape)) for one in slices) for slices in layout
    ]


def parts_of(
    layout: Layout, values: Sequence[Sequence[Array]], stack: tuple[int, ...]
) -> list[Array]:
    """Return the parts of theta, given each layer's parameters: undo ``parameters_of``."""
    slices, arrays = itertools.chain(*layout), [*itertools.chain(*values)]
    xp = array_namespace(arrays[0])
    return [
        xp.reshape(value, (*stack, one.length)) for one, value in zip(slices, arrays, strict=True)
    ]
