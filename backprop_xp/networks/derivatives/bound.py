"""A network bound to theta: the loss and its gradient, which goes into one buffer.

Of a stack of networks some are computed at a time, as many as stay in the processor's cache: an
array of all of them would leave it between two layers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from backprop_xp.backends import Array, array_namespace, blank, dispatch
from backprop_xp.networks.chain.array_checks import Strength
from backprop_xp.networks.chain.batch_rows import (
    Rows,
    cut_members,
    members_at_once,
    of_members,
    row_slices,
)
from backprop_xp.networks.chain.layout import pack
from backprop_xp.networks.chain.propagation import Link
from backprop_xp.networks.derivatives.definition import Definition
from backprop_xp.networks.derivatives.objective import chain_of, of_chain, parameters_in


class BoundNetwork(NamedTuple):
    """A network bound to theta: the chain of its layers, and a buffer for the gradient.

    The layers have views of theta and of the buffer. The buffer is None if the library does not
    write into slices of arrays. ``blocks`` are the bound networks of some members of a stack at a
    time, by their number.
    """

    definition: Definition
    theta: Array
    chain: Sequence[Link]
    gradient: Array | None
    blocks: dict[int, list["BoundNetwork"]]

    def loss_and_gradient(self, rows: Rows, l2: Strength) -> tuple[Array, Array]:
        """Return what ``Network.loss_and_gradient`` does; the gradient is in the buffer."""
        gradient, stack = self.gradient, self.theta.shape[:-1]
        if gradient is None:
            loss, gradients = of_chain(self.definition, self.chain, rows, l2)
            return loss, dispatch(pack, self.theta)(self.definition.layout, gradients, stack)
        members = self._at_once(rows) if stack else None
        if members is None:
            return of_chain(self.definition, self.chain, rows, l2)[0], gradient
        slices, losses = row_slices(stack[0], members), list[Array]()
        if members not in self.blocks:
            self.blocks[members] = [
                bind(self.definition, self.theta[part, ...], gradient[part, ...]) for part in slices
            ]
        for part, block in zip(slices, self.blocks[members], strict=True):
            own = cut_members(rows, part, len(stack))
            strength = of_members(l2, 0, part, len(stack))
            losses.append(block.loss_and_gradient(own, strength)[0])
        return array_namespace(self.theta).concat(losses), gradient

    def _at_once(self, rows: Rows) -> int | None:
        """Return how many of the first axis of the stack are computed at a time, None for all."""
        if rows.part is not None:
            return None
        widest = max(value.shape[-1] for link in self.chain for value in link.parameters)
        beside = math.prod(self.theta.shape[1:-1])
        members = members_at_once(self.theta, max(1, beside * rows.x.shape[-2] * widest))
        return None if members is None or members >= self.theta.shape[0] else members


def bind(definition: Definition, theta: Array, gradient: Array | None = None) -> BoundNetwork:
    """Return a network bound to theta and to a buffer for the gradient, by default a new one."""
    gradient = blank(theta) if gradient is None else gradient
    buffers = None if gradient is None else parameters_in(definition, gradient)
    chain = chain_of(definition, parameters_in(definition, theta), buffers)
    return BoundNetwork(definition, theta, chain, gradient, {})


def loss_and_gradient_of(
    definition: Definition, theta: Array, rows: Rows, l2: Strength
) -> tuple[Array, Array]:
    """Return the loss and its gradient by theta, as ``Network.loss_and_gradient`` does."""
    return bind(definition, theta).loss_and_gradient(rows, l2)
