"""Layers for the columns of a table: numbers, codes of categories, and both side by side.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

from dataclasses import dataclass

from backprop_xp.backends import Array, sum_over_batch
from backprop_xp.checks import integer
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.initializers import INITIALIZERS, Generator, HostArray
from backprop_xp.networks.propagation import Buffers, Cache, Gradients, Parameters
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
    writes = True
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
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        out: Buffers = (None,),
    ) -> Gradients:
        """Return ``g * scale`` and the sum of ``g * x`` over the batch."""
        back = g * parameters[0] if wants_input else None
        return back, (sum_over_batch(g, out[0], cache),)
