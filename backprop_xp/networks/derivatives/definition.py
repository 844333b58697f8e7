"""What defines a network: its layers, its loss, and the layout of its theta."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from backprop_xp.backends import Array, array_namespace, device_of
from backprop_xp.networks.chain.layout import Layout, lay_out, unpack
from backprop_xp.networks.chain.propagation import Layer, check_chain, forward_through, linked
from backprop_xp.networks.losses.loss import Loss, refuse_second_inverse_link


@dataclass(frozen=True)
class Definition:
    """The layers, the loss, and what follows from the layers: theta's layout and its size.

    ``widths`` are the numbers of features that the network takes and gives; None if no layer
    defines one.
    """

    layers: tuple[Layer, ...]
    loss: Loss
    layout: Layout = field(compare=False)
    size: int = field(compare=False)
    widths: tuple[int | None, int | None] = field(compare=False)

    def outputs_shape(self, theta: Array, x: Array) -> tuple[int, ...]:
        """Return the shape of the outputs for x, from those of one row if no layer defines it."""
        n_out = self.widths[1]
        if n_out is None:
            shape, where = (*x.shape[:-2], 1, x.shape[-1]), {"dtype": theta.dtype}
            row = array_namespace(theta).zeros(shape, device=device_of(theta), **where)
            chain = linked(self.layers, unpack(self.layout, theta))
            n_out = forward_through(chain, row, None).shape[-1]
        return (*theta.shape[:-1], x.shape[-2], n_out)


def define(layers: Sequence[Layer], loss: Loss) -> Definition:
    """Return the definition of a network, or raise unless its layers and its loss fit."""
    layout = lay_out(layers)
    size = sum(one.length for one in itertools.chain(*layout))
    if not size:
        raise ValueError("A network needs at least one layer with parameters, such as Dense.")
    refuse_second_inverse_link(layers, loss)
    return Definition(tuple(layers), loss, layout, size, check_chain(layers))
