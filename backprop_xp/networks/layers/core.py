"""Layers: each is a forward function and its backward rule, side by side.

``x`` is a layer's input, ``y`` its output, ``z`` a pre-activation, ``a`` an activation, and
``g = dL/dy``; all are ``(..., batch, n)``. The stack's axes come first in parameters: Dense's
weights are ``(*stack, n_in, n_out)``, its bias ``(*stack, 1, n_out)``.
"""

from dataclasses import dataclass, field

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    outer,
    product_over_batch,
    replaceable,
    sum_over_batch,
    transposed,
)
from backprop_xp.checks import choose, integer, real
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain.propagation import Buffers, Cache, Gradients, Parameters
from backprop_xp.networks.layers.activations import ACTIVATIONS, Activation, activated, sent_back
from backprop_xp.networks.numbers.initializers import (
    INITIALIZERS,
    Generator,
    HostArray,
    Initializer,
)
from backprop_xp.networks.numbers.random_bits import Key, keep_mask


@replaceable
def dropped(x: Array, rng: Key, rate: float) -> tuple[Array, Array]:
    """Return x times Dropout's scaled mask, and the mask."""
    xp, (rows, columns) = array_namespace(x), x.shape[-2:]
    mask = keep_mask(rng, rate, rows, columns, xp=xp, device=device_of(x))
    scaled = xp.astype(mask, x.dtype) * (1.0 / (1.0 - rate))
    return x * scaled, scaled


@replaceable
def normalized(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, Array]]:
    """Return LayerNorm's output, with the normalized x and 1 / its standard deviation before."""
    xp, n = array_namespace(x), x.shape[-1]
    centred = x - xp.sum(x, axis=-1, keepdims=True) / n
    # Not xp.var, which takes magnitudes of complex numbers and would not be analytic.
    variance = xp.sum(centred * centred, axis=-1, keepdims=True) / n
    inverse = 1.0 / xp.sqrt(variance + epsilon)
    normed = centred * inverse
    return normed * scale + bias, (normed, inverse)


@replaceable
def normalized_back(g: Array, scale: Array, normed: Array, inverse: Array) -> Array:
    """Return dL/dx of LayerNorm."""
    xp, n = array_namespace(g), g.shape[-1]
    h = g * scale
    along = xp.sum(h * normed, axis=-1, keepdims=True) / n
    mean = xp.sum(h, axis=-1, keepdims=True) / n
    return inverse * (h - mean - normed * along)


@dataclass(frozen=True, init=False)
class Dense:
    """``activation(x @ weights + bias)``: ``(..., batch, n_in)`` to ``(..., batch, n_out)``.

    >>> import backprop_xp as bx
    >>> network = bx.Network([bx.Dense(4, 8, "tanh"), bx.Dense(8, 1)], "mean_squared_error")
    >>> [tuple(one.shape for one in layer) for layer in network.unpack(network.initialize())]
    [((4, 8), (1, 8)), ((8, 1), (1, 1))]
    """

    n_in: int
    n_out: int
    activation: Activation
    initializer: Initializer
    bias_initializer: Initializer
    shapes: tuple[tuple[int, int], tuple[int, int]] = field(compare=False)

    names = ("weights", "bias")
    is_random = returns_codes = False
    writes = skips = True
    is_affine = True  # before its activation: a part of the outputs can be computed by itself
    __repr__ = repr_of

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: str | Activation = "identity",
        *,
        initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
    ) -> None:
        n_in, n_out = integer(n_in, "n_in"), integer(n_out, "n_out")
        # The class is frozen: __init__ fills its attributes in directly, as in other layers.
        vars(self).update(
            n_in=n_in,
            n_out=n_out,
            shapes=((n_in, n_out), (1, n_out)),
            activation=choose(ACTIVATIONS, activation, "activation"),
            initializer=choose(INITIALIZERS, initializer, "initializer"),
            bias_initializer=choose(INITIALIZERS, bias_initializer, "bias_initializer"),
        )

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the weights, then the bias."""
        weights, bias = self.shapes
        return self.initializer(generator, weights), self.bias_initializer(generator, bias)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``activation(x @ weights + bias)``."""
        weights, bias = parameters
        z, a = activated(x @ weights, self.activation, bias)
        return a, (x, z, a)

    def backward(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        wants_parameters: bool = True,
        out: Buffers = (None, None),
    ) -> Gradients:
        """Return ``g_z @ weights^T`` and ``(x^T @ g_z, sum of g_z over the batch)``."""
        weights, _ = parameters
        x, z, a = cache
        g = sent_back(g, self.activation, z, a)
        gradients: tuple[Array, ...] = ()
        if wants_parameters:
            gradients = product_over_batch(x, g, out[0]), sum_over_batch(g, out[1])
        return (g @ transposed(weights) if wants_input else None), gradients

    def row_gradients(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        out: Buffers = (None, None),
        *,
        wants_input: bool = True,
    ) -> Gradients:
        """Return what ``backward`` does, with the gradients of each row, not their sums."""
        weights, _ = parameters
        x, z, a = cache
        g = sent_back(g, self.activation, z, a)
        bias, each = out[1], g[..., None, :]
        if bias is not None:
            bias[...] = each
        gradients = outer(x, g, out[0]), each if bias is None else bias
        return (g @ transposed(weights) if wants_input else None), gradients


@dataclass(frozen=True, init=False)
class Activate:
    """An activation as a layer of its own, for example after a LayerNorm.

    >>> import backprop_xp as bx
    >>> layers = [bx.Dense(4, 8), bx.LayerNorm(8), bx.Activate("relu"), bx.Dense(8, 1)]
    >>> bx.Network(layers, "huber").size
    65
    """

    activation: Activation

    names = shapes = ()
    keeps_width = True
    is_random = returns_codes = False
    __repr__ = repr_of

    def __init__(self, activation: str | Activation) -> None:
        vars(self).update(activation=choose(ACTIVATIONS, activation, "activation"))

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw nothing."""
        return ()

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``activation(x)``."""
        z, a = activated(x, self.activation)
        return a, (z, a)

    def backward(
        self, parameters: Parameters, cache: Cache, g: Array, *, wants_input: bool = True
    ) -> Gradients:
        """Return the activation's vector-Jacobian product."""
        z, a = cache
        return (sent_back(g, self.activation, z, a) if wants_input else None), ()


@dataclass(frozen=True)
class Dropout:
    """In training, sets each unit to 0 with probability ``rate`` and divides by ``1 - rate``.

    In inference (``rng`` None) it returns x. "Inverted" dropout, after Srivastava et al. 2014,
    section 10. The mask depends on the key, the sample's row and the unit alone.

    >>> import backprop_xp as bx
    >>> network = bx.Network([bx.Dense(4, 8, "relu"), bx.Dropout(0.5), bx.Dense(8, 1)], "huber")
    >>> theta, x = network.initialize(), bx.asarray([[1.0, 2.0, 3.0, 4.0]])
    >>> bool((network.forward(theta, x) == network.forward(theta, x, rng=0)).all())
    False
    """

    rate: float
    is_random: bool = field(init=False, compare=False)

    names = shapes = ()
    keeps_width = True
    returns_codes = False
    __repr__ = repr_of

    def __post_init__(self) -> None:
        rate = real(self.rate, "rate", low=0.0, below=1.0)
        vars(self).update(rate=rate, is_random=rate != 0.0)

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw nothing."""
        return ()

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return x times the scaled mask."""
        return (x, None) if rng is None or self.rate == 0.0 else dropped(x, rng, self.rate)

    def backward(
        self, parameters: Parameters, cache: Cache, g: Array, *, wants_input: bool = True
    ) -> Gradients:
        """Return g times the same mask."""
        return (None if not wants_input else g if cache is None else g * cache), ()


@dataclass(frozen=True)
class LayerNorm:
    """Features of each sample with mean 0 and variance 1, then an affine map of each.

    ``scale * (x - mean) / sqrt(variance + epsilon) + bias`` over the last axis, with the biased
    variance: Ba, Kiros and Hinton 2016, equation 4.

    >>> import backprop_xp as bx
    >>> network = bx.Network([bx.LayerNorm(3)], "mean_squared_error")
    >>> network.forward(network.initialize(), bx.asarray([[1.0, 2.0, 3.0]])).round(3)
    array([[-1.225,  0.   ,  1.225]])
    """

    n: int
    epsilon: float = 1e-5
    n_in: int = field(init=False, compare=False)
    n_out: int = field(init=False, compare=False)
    shapes: tuple[tuple[int, int], tuple[int, int]] = field(init=False, compare=False)

    names = ("scale", "bias")
    is_random = returns_codes = False
    writes = True
    __repr__ = repr_of

    def __post_init__(self) -> None:
        epsilon = real(self.epsilon, "epsilon", above=0.0)
        n = integer(self.n, "n")
        if n == 1:
            raise ValueError(
                "LayerNorm needs two features or more: the deviation of one from its own mean is "
                "0, so that it would return its bias for every x."
            )
        vars(self).update(n=n, n_in=n, n_out=n, epsilon=epsilon, shapes=((1, n), (1, n)))

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Return scale 1 and bias 0."""
        scale, bias = self.shapes
        return INITIALIZERS["ones"](generator, scale), INITIALIZERS["zeros"](generator, bias)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the normalized, scaled and shifted x."""
        return normalized(x, *parameters, self.epsilon)

    def backward(
        self,
        parameters: Parameters,
        cache: Cache,
        g: Array,
        *,
        wants_input: bool = True,
        out: Buffers = (None, None),
    ) -> Gradients:
        """Return g without its components along 1 and along the normalized x, over the width."""
        scale, _ = parameters
        normed, inverse = cache
        gradients = sum_over_batch(g, out[0], normed), sum_over_batch(g, out[1])
        return (normalized_back(g, scale, normed, inverse) if wants_input else None), gradients
