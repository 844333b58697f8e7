"""Layers for the columns of a table: numbers, codes of categories, and both side by side.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    gather,
    precision_of,
    replaceable,
    rows_of_members,
    sum_at,
    sum_over_batch,
)
from backprop_xp.checks import choose, integer, sequence
from backprop_xp.display.reprs import remember_call, repr_of
from backprop_xp.networks.complex_safe import real_part
from backprop_xp.networks.initializers import INITIALIZERS, Generator, HostArray, Initializer
from backprop_xp.networks.propagation import Buffers, Cache, Gradients, Parameters
from backprop_xp.networks.random_bits import Key

# float32 has every integer up to here, and codes are numbers of x.
_MOST_CODES = 2**24


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


@dataclass(frozen=True, init=False)
class Embedding:
    """A learnt row of ``n_out`` numbers for each code of a category, ``weights[code]``.

    ``n_codes`` is the number of codes of one column of x, or a sequence with that of each column.
    Codes are 0 ... n_codes - 1, as numbers in x. Several columns have their rows in one table, one
    column's after the other's, and give ``n_out`` features each, in the order of the columns.

    x is rounded to whole numbers. A code out of range is an error in ``fit``, and everywhere for
    arrays on the host; on a device the nearest code counts, and 0 for NaN. dL/dx is 0. L2 and
    weight decay apply to all rows, also to those that a batch does not have. Raises ValueError for
    more than 2**24 codes, which float32 does not tell apart.

    >>> import backprop_xp as bx
    >>> layers = [bx.Embedding([12, 5], 8), bx.Dense(16, 1)]
    >>> network = bx.Network(layers, "binary_cross_entropy")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> network.predict(theta, [[0, 4], [11, 0], [3, 2]]).shape
    (3, 1)
    """

    codes: tuple[int, ...]
    n_out: int
    initializer: Initializer

    names = ("weights",)
    is_random = False
    writes = True
    __repr__ = repr_of

    def __init__(
        self,
        n_codes: int | Sequence[int],
        n_out: int,
        initializer: str | Initializer = "standard_normal",
    ) -> None:
        is_one = not isinstance(n_codes, Sequence)
        columns = [n_codes] if is_one else sequence(n_codes, "n_codes", "[12, 5]")
        codes = tuple(integer(n, "n_codes") for n in columns)
        if not 0 < sum(codes) <= _MOST_CODES:
            raise ValueError(
                f"n_codes must hold 1 to {_MOST_CODES} codes, not {sum(codes)}: float32 does not "
                "tell more apart."
            )
        width, drawn = integer(n_out, "n_out"), choose(INITIALIZERS, initializer, "initializer")
        vars(self).update(codes=codes, n_out=width * len(codes), initializer=drawn)
        remember_call(self, Embedding, codes[0] if is_one else codes, width, drawn)

    @property
    def n_in(self) -> int:
        """The number of columns."""
        return len(self.codes)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of the table of all columns."""
        return ((sum(self.codes), self.n_out // self.n_in),)

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the table."""
        return (self.initializer(generator, self.shapes[0]),)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the rows of the codes, those of a sample side by side."""
        xp, table = array_namespace(x), parameters[0]
        real = xp.astype(real_part(xp, x), precision_of(xp, table.dtype), copy=False)
        indices = rows_of_codes(real, self.codes)
        stack, lead = table.shape[:-2], x.shape[:-2]
        flat = xp.reshape(indices, (*lead, -1))
        if stack and lead:
            flat = rows_of_members(flat, stack, table.shape[-2])
            table = xp.reshape(table, (-1, table.shape[-1]))
        rows = gather(table, xp.reshape(flat, (-1,)), -2)
        return xp.reshape(rows, (*(stack or lead), -1, self.n_out)), indices

    def backward(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        out: Buffers = (None,),
    ) -> Gradients:
        """Return 0, and the sum of g over the samples of each code."""
        xp, (codes, width) = array_namespace(g), self.shapes[0]
        rows = xp.reshape(g, (*g.shape[:-2], -1, width))
        gradient = sum_at(rows, xp.reshape(cache, (*cache.shape[:-2], -1)), codes, out[0])
        return (xp.zeros_like(cache, dtype=g.dtype) if wants_input else None), (gradient,)


@replaceable
def rows_of_codes(x: Array, codes: tuple[int, ...]) -> Array:
    """Return the rows of the codes x ``(..., n)`` in a table of ``codes`` rows for each column."""
    xp, ends = array_namespace(x), [*itertools.accumulate(codes, initial=0)]
    first = xp.asarray(ends[:-1], dtype=x.dtype, device=device_of(x))
    last = xp.asarray([end - 1 for end in ends[1:]], dtype=x.dtype, device=device_of(x))
    at = xp.round(x) + first
    # No comparison holds for NaN, so that it becomes the first code.
    at = xp.minimum(xp.where(at > first, at, first), last)
    return xp.astype(at, xp.__array_namespace_info__().default_dtypes()["indexing"])
