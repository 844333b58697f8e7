"""Embeddings: the columns of a table, codes of categories or numbers, as learnt features.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    matmul,
    precision_of,
    product_over_batch,
    replaceable,
    sum_at,
    sum_over_batch,
    transposed,
)
from backprop_xp.checks import choose, integer, known, real, sequence
from backprop_xp.display.reprs import remember_call, repr_of
from backprop_xp.networks.chain.batch_rows import rows_at
from backprop_xp.networks.chain.propagation import Buffers, Cache, Gradients, Parameters
from backprop_xp.networks.layers.activations import Activation, activated, identity, sent_back
from backprop_xp.networks.layers.columns import side_by_side
from backprop_xp.networks.numbers.complex_safe import real_part
from backprop_xp.networks.numbers.initializers import (
    INITIALIZERS,
    Generator,
    HostArray,
    Initializer,
)
from backprop_xp.networks.numbers.random_bits import Key

# float32 has every integer up to here, and codes are numbers of x.
_MOST_CODES = 2**24


@dataclass(frozen=True, init=False)
class Embedding:
    """A learnt row of ``n_out`` numbers for each code of a category, ``weights[code]``.

    ``n_codes`` is the number of codes of one column of x, or a sequence with a number for each.
    Codes are 0 ... n_codes - 1, as numbers in x. Several columns share one table, column by column,
    and give ``n_out`` features each, in their order.

    x is rounded to integers. A code out of range is an error in ``fit``, and for NumPy's arrays
    everywhere; on a device the nearest code counts, and 0 for NaN. dL/dx is 0. L2 and weight decay
    apply to all rows, also outside the batch. Raises ValueError for more than 2**24 codes, which
    float32 does not tell apart.

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
    n_in: int = field(compare=False)
    shapes: tuple[tuple[int, int], ...] = field(compare=False)

    names = ("weights",)
    is_random = returns_codes = False
    writes = True
    __repr__ = repr_of

    def __init__(
        self,
        n_codes: int | Sequence[int],
        n_out: int,
        initializer: str | Initializer = "standard_normal",
    ) -> None:
        columns = n_codes if isinstance(n_codes, Sequence) else [n_codes]
        codes = tuple(integer(n, "n_codes") for n in sequence(columns, "n_codes", "[12, 5]"))
        if not 0 < sum(codes) <= _MOST_CODES:
            raise ValueError(
                f"n_codes must hold 1 to {_MOST_CODES} codes, not {sum(codes)}: float32 does not "
                "tell more apart."
            )
        width, drawn = integer(n_out, "n_out"), choose(INITIALIZERS, initializer, "initializer")
        vars(self).update(codes=codes, n_in=len(codes), n_out=width * len(codes))
        vars(self).update(shapes=((sum(codes), width),), initializer=drawn)
        remember_call(self, Embedding, codes if len(codes) > 1 else codes[0], width, drawn)

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the table."""
        return (self.initializer(generator, self.shapes[0]),)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the rows of the codes, those of a sample side by side."""
        xp, table = array_namespace(x), parameters[0]
        real = xp.astype(real_part(xp, x), precision_of(xp, table.dtype), copy=False)
        indices = rows_of_codes(real, self.codes)
        rows = rows_at(table, xp.reshape(indices, (*x.shape[:-2], -1)))
        return xp.reshape(rows, (*rows.shape[:-2], -1, self.n_out)), indices

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
        return (xp.zeros_like(g[..., : self.n_in]) if wants_input else None), (gradient,)


@dataclass(frozen=True, init=False)
class NumericEmbedding:
    """``n_out`` features of each number: learnt waves, then a linear layer for each number.

    With frequencies f, phases b, weights W and bias c of each number x:

    - ``"pbld"``: ``[x, cos(2 pi f x + b) W + c]``, Holzmüller et al. 2024 ("Better by default");
      f is normal with standard deviation ``frequency_scale``, b uniform in [-pi, pi].
    - ``"pl"``: ``[cos(2 pi f x), sin(2 pi f x)] W + c``, Gorishniy et al. 2022; an
      ``Activate("relu")`` behind it makes it their "PLR".

    W and c are uniform in ±1 / sqrt(rows of W); the defaults are RealMLP's. y has all x first
    (``"pbld"``), then the other features number by number. Standardize x before.

    >>> import backprop_xp as bx
    >>> layer = bx.NumericEmbedding(3)
    >>> layer.n_out, layer.names
    (12, ('frequencies', 'phases', 'weights', 'bias'))
    """

    n_in: int
    n_out: int
    kind: str
    n_frequencies: int
    frequency_scale: float
    names: tuple[str, ...] = field(compare=False)
    # The first axis is that of the numbers.
    shapes: tuple[tuple[int, int, int], ...] = field(compare=False)

    is_random = returns_codes = False
    writes = True
    __repr__ = repr_of

    def __init__(
        self,
        n_in: int,
        n_out: int = 4,
        kind: str = "pbld",
        n_frequencies: int = 16,
        frequency_scale: float = 0.1,
    ) -> None:
        is_pbld = known(kind, ("pbld", "pl"), "kind") == "pbld"
        # The first feature of "pbld" is the number itself.
        width = integer(n_out, "n_out", at_least=2 if is_pbld else 1)
        n, k = integer(n_in, "n_in"), integer(n_frequencies, "n_frequencies")
        scale = real(frequency_scale, "frequency_scale", above=0.0)
        shapes = dict.fromkeys(("frequencies", "phases") if is_pbld else ["frequencies"], (n, 1, k))
        rows, columns = (k, width - 1) if is_pbld else (2 * k, width)
        shapes |= {"weights": (n, rows, columns), "bias": (n, 1, columns)}
        vars(self).update(n_in=n, n_out=n * width, kind=kind, n_frequencies=k)
        vars(self).update(frequency_scale=scale, names=(*shapes,), shapes=(*shapes.values(),))
        remember_call(self, NumericEmbedding, n, width, kind, k, scale)

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the parameters in their order."""
        waves, *phases, weights, bias = self.shapes
        bound = 1.0 / math.sqrt(weights[1])
        return (
            generator.normal(0.0, self.frequency_scale, waves),
            *(generator.uniform(-math.pi, math.pi, shape) for shape in phases),
            *(generator.uniform(-bound, bound, shape) for shape in (weights, bias)),
        )

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the features of each number; inner arrays are ``(..., n_in, batch, k)``."""
        xp, (frequencies, *phases, weights, bias) = array_namespace(x), parameters
        turns = 2.0 * math.pi * transposed(x)
        z = turns[..., None] * frequencies
        # cos(z) as sin(z + pi / 2): ONNX Runtime has no cosine of float64.
        if self.kind == "pl":
            z = xp.concat([z + 0.5 * math.pi, z], axis=-1)
        z, waves = activated(z, _SINE, *(phase + 0.5 * math.pi for phase in phases))
        _, y = activated(waves @ weights, identity, bias)
        stack, width = weights.shape[:-3], self.n_in * weights.shape[-1]
        y = xp.reshape(_rows_and_numbers(y), (*stack, -1, width))
        return (y if self.kind == "pl" else side_by_side([x, y])), (turns, z, waves)

    def backward(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        out: Buffers = (None, None, None, None),
    ) -> Gradients:
        """Return the gradients by the chain rule, from the linear layer back to the numbers."""
        xp, frequencies, weights = array_namespace(g), parameters[0], parameters[-2]
        (turns, z, waves), n, k = cache, self.n_in, self.n_frequencies
        own, rest = (0.0, g) if self.kind == "pl" else (g[..., :n], g[..., n:])
        rest = _rows_and_numbers(xp.reshape(rest, (*g.shape[:-1], n, weights.shape[-1])))
        g_z = sent_back(rest @ transposed(weights), _SINE, z, waves)
        if self.kind == "pl":
            g_z = g_z[..., :k] + g_z[..., k:]
        gradients = (
            matmul(turns[..., None, :], g_z, out[0]),
            *([] if self.kind == "pl" else [sum_over_batch(g_z, out[1])]),
            product_over_batch(waves, rest, out[-2]),
            sum_over_batch(rest, out[-1]),
        )
        if not wants_input:
            return None, gradients
        slopes = transposed((g_z @ transposed(frequencies))[..., 0])
        return own + 2.0 * math.pi * slopes, gradients


def _rows_and_numbers(array: Array) -> Array:
    """Exchange axes -3 and -2; not by ``moveaxis``, which ``torch.func.vmap`` lacks."""
    *stack, i, j, k = range(array.ndim)
    return array_namespace(array).permute_dims(array, (*stack, j, i, k))


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


def _sine(z: Array) -> Array:
    return array_namespace(z).sin(z)


def _sine_vjp(g: Array, z: Array, a: Array) -> Array:
    return array_namespace(z).cos(z) * g


_SINE = Activation(_sine, _sine_vjp)
