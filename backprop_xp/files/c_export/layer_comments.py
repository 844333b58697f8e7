"""Comments in C that say which layers of the network the lines and the parameters belong to."""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from backprop_xp.files.c_export.lazy_arrays import LazyArray
from backprop_xp.files.c_export.plan import Kernel, Plan, operands
from backprop_xp.networks.network import Network


@dataclass(frozen=True)
class LayerComments:
    """The kinds of the layers, and a description of each parameter by its first index in theta.

    ``starts`` are the indices where layers begin in theta, and ``owners`` these layers.
    """

    kinds: list[str]
    starts: list[int]
    owners: list[int]
    parameters: Mapping[int, str]

    @classmethod
    def of(cls, network: Network) -> Self:
        """Return the comments on a network."""
        kinds = [type(layer).__name__ for layer in network.layers]
        slices = [(i, one) for i, some in enumerate(network.layout) for one in some]
        starts = {some[0].part.start: i for i, some in enumerate(network.layout) if some}
        parameters = {
            one.part.start: f"layer {i}, {kinds[i]}: {one.name} {one.shape}" for i, one in slices
        }
        return cls(kinds, [*starts], [*starts.values()], parameters)

    def title(self, kernel: Kernel, made: Plan) -> str:
        """Return the layers of a kernel, "" for a kernel that belongs to none.

        Behind the forward pass they are those whose parameters it reads, or whose gradient it
        computes.
        """
        computed = {kernel.node, *kernel.fused}
        found = {made.layers[array] for array in computed & made.layers.keys()}
        if computed - made.layers.keys():
            place = made.places[kernel.node]
            offsets = [one.layout[1] for one in operands(kernel) if _is_theta(one.layout[0])]
            if place.name == "gradient":
                offsets.append(place.offset + kernel.target.layout[1])
            found = {self.owners[bisect.bisect(self.starts, one) - 1] for one in offsets}
        return "; ".join(f"layer {i}: {self.kinds[i]}" for i in sorted(found))


def _is_theta(array: LazyArray) -> bool:
    return array.operation == "input" and str(array.detail).rpartition("_")[2] == "theta"
