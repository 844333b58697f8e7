"""A network: layers and a loss, as functions of one vector of parameters.

Theta is one vector ``(P,)``, or a stack of them ``(*stack, P)``. The network holds no arrays: it is
a description, and every method is a function of theta.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from backprop_xp.activations import ACTIVATIONS, Activation, identity, sigmoid, softmax
from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    device_of,
    like,
    replaced,
    require_floating,
    require_like,
    resolve,
)
from backprop_xp.checks import choose, integer, real, sequence
from backprop_xp.initializers import Initializer, draw_stack
from backprop_xp.inputs import check_beside_outputs, check_l2, check_targets, check_x
from backprop_xp.layers import (
    Activate,
    Dense,
    Dropout,
    Layer,
    LayerNorm,
    backward_through,
    check_chain,
    forward_through,
)
from backprop_xp.layout import Layout, draw, lay_out, pack, unpack
from backprop_xp.losses import LOSSES, Loss
from backprop_xp.random import as_key


@dataclass(frozen=True, init=False)
class Network:
    """A chain of layers with a loss at its end; immutable, and without arrays of its own.

    ``loss`` is a name of ``bx.losses`` or a ``Loss``; ``l2`` the strength of the penalty
    ``l2 / 2 * sum(weights**2)``, over parameters named ``weights`` alone. Raises ValueError where
    neighbouring layers do not fit, and where the last activation is the loss's own link, or makes
    probabilities for a loss that makes them itself.

    >>> import backprop_xp as bx
    >>> network = bx.Network([bx.Dense(2, 3, "tanh"), bx.Dense(3, 1)], "mean_squared_error")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> theta.shape, network.forward(theta, [[0, 1], [1, 1]]).shape
    ((13,), (2, 1))
    """

    layers: tuple[Layer, ...]
    loss_function: Loss
    l2: float
    size: int = field(repr=False, compare=False)
    _layout: Layout = field(repr=False, compare=False)
    _widths: tuple[int | None, int | None] = field(repr=False, compare=False)

    def __init__(self, layers: Sequence[Layer], loss: str | Loss, *, l2: float = 0.0) -> None:
        layers = sequence(layers, "layers", "[bx.Dense(2, 1)]")
        loss_function = choose(LOSSES, loss, "loss")
        layout, size = lay_out(layers)
        if not size:
            raise ValueError("A network needs at least one layer with parameters, such as Dense.")
        _refuse_second_link(layers, loss_function)
        for name, value in {
            "layers": tuple(layers),
            "loss_function": loss_function,
            "l2": real(l2, "l2", low=0.0),
            "size": size,
            "_layout": layout,
            "_widths": check_chain(layers),
        }.items():
            object.__setattr__(self, name, value)

    def initialize(
        self,
        seed: int = 0,
        *,
        stack: Sequence[int] | int = (),
        backend: str | Backend | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> Array:
        """Draw theta: ``(P,)``, or ``(*stack, P)`` for a stack of independent starts.

        Member i of the flattened stack depends on the seed and on i alone, and member 0 is the
        unstacked draw. Values are drawn in float64 on the host, then cast and moved, so the same
        seed gives the same theta everywhere.
        """
        lengths = [stack] if isinstance(stack, Integral) else sequence(stack, "stack", "(2, 3)")
        shape = tuple(integer(n, "stack") for n in lengths)
        choice = resolve(backend=backend, device=device, dtype=dtype)
        if not choice.backend.namespace().isdtype(choice.dtype, "real floating"):
            raise ValueError(f"dtype must be a real floating one, not {choice.dtype}.")
        drawn = draw_stack(
            integer(seed, "seed", at_least=0),
            math.prod(shape),
            functools.partial(draw, self.layers, self._layout),
        )
        return choice.backend.from_host(
            drawn.reshape((*shape, self.size)), choice.dtype, choice.device
        )

    def unpack(self, theta: Array) -> list[tuple[Array, ...]]:
        """Return each layer's parameters, ``(*stack, *shape)``, as views where the library can.

        Dense gives ``(weights, bias)``, a layer without parameters ``()``.
        """
        self._check_theta(theta)
        return unpack(self._layout, theta)

    def pack(self, parameters: Sequence[Sequence[Array]]) -> Array:
        """Return theta made of each layer's parameters: the inverse of ``unpack``."""
        parameters = sequence(parameters, "parameters", "network.unpack(theta)")
        counts = [len(layer) for layer in parameters]
        if counts != [len(places) for places in self._layout]:
            raise ValueError(
                "parameters must hold, layer by layer, "
                f"{[len(places) for places in self._layout]} arrays, not {counts}."
            )
        named = [
            (f"parameters[{i}][{j}] ({place.name})", place, value)
            for i, places in enumerate(self._layout)
            for j, (place, value) in enumerate(zip(places, parameters[i], strict=True))
        ]
        name, place, first = named[0]
        require_floating(first, name)
        stack = tuple(first.shape[: len(first.shape) - len(place.shape)])
        for name, place, value in named:
            require_like(first, value, name, named[0][0])
            if tuple(value.shape) != (*stack, *place.shape):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, but {(*stack, *place.shape)} is "
                    "expected."
                )
        return pack(self._layout, parameters, stack)

    def forward(self, theta: Array, x: Array, *, rng: Any = None) -> Array:
        """Return the raw outputs (logits) ``(*stack, batch, n_out)`` for x ``(..., batch, n_in)``.

        ``rng`` None is inference; in training it is the key of the dropout masks: a non-negative
        int, or an int array ``(*stack, 1, 1)`` for masks that differ over the stack.
        """
        x, key = self._check_inputs(theta, x, rng)
        return forward_through(self.layers, unpack(self._layout, theta), x, key)[0]

    def predict(self, theta: Array, x: Array) -> Array:
        """Return the loss's link of the outputs: probabilities, rates or values."""
        return self.loss_function.link(self.forward(theta, x))

    def loss(
        self,
        theta: Array,
        x: Array,
        y: Array,
        *,
        sample_weight: Array | None = None,
        rng: Any = None,
        l2: Any = None,
    ) -> Array:
        """Return each network's loss, ``(*stack,)``: ``sum(w * loss) / sum(w)`` and the penalty.

        ``y`` is ``(batch, n_out)``, ``sample_weight`` ``(batch,)``, or either stacked; ``l2``, a
        number or ``(*stack,)``, overrides the network's own.
        """
        x, key = self._check_inputs(theta, x, rng)
        outputs, _ = forward_through(self.layers, unpack(self._layout, theta), x, key)
        y, weight = check_targets(theta, outputs.shape, y, sample_weight)
        return self._value(
            theta, outputs, y, weight, self.l2 or None if l2 is None else check_l2(theta, l2)
        )

    def loss_and_gradient(
        self,
        theta: Array,
        x: Array,
        y: Array,
        *,
        sample_weight: Array | None = None,
        rng: Any = None,
        l2: Any = None,
    ) -> tuple[Array, Array]:
        """Return the loss, ``(*stack,)``, and its gradient by theta, ``(*stack, P)``.

        Arguments as for ``loss``. No member's gradient depends on another's theta.
        """
        x, key = self._check_inputs(theta, x, rng)
        parameters = unpack(self._layout, theta)
        outputs, caches = forward_through(self.layers, parameters, x, key)
        y, weight = check_targets(theta, outputs.shape, y, sample_weight)
        strength = self.l2 or None if l2 is None else check_l2(theta, l2)
        value = self._value(theta, outputs, y, weight, strength)
        g = self.loss_function.gradient(outputs, y) * _share(weight, outputs)
        _, gradients = backward_through(self.layers, parameters, caches, g, wants_input=False)
        if strength is not None:
            gradients = self._decay(gradients, parameters, strength)
        return value, replaced(pack, theta)(self._layout, gradients, theta.shape[:-1])

    def vjp(self, theta: Array, x: Array, g: Array, *, rng: Any = None) -> tuple[Array, Array]:
        """Return dL/dtheta and dL/dx from ``g`` = dL/doutputs, for a loss of one's own.

        ``g`` is ``(..., batch, n_out)``. Both results carry the stack, dL/dx even where the stack
        shares x: ``(*stack, batch, n_in)``. The network's l2 has no part in it.
        """
        x, key = self._check_inputs(theta, x, rng)
        parameters = unpack(self._layout, theta)
        outputs, caches = forward_through(self.layers, parameters, x, key)
        g = like(theta, g, "g")
        check_beside_outputs(g, outputs.shape, "g")
        g = array_namespace(theta).broadcast_to(g, outputs.shape)
        x_gradient, gradients = backward_through(self.layers, parameters, caches, g)
        joined = replaced(pack, theta)(self._layout, gradients, theta.shape[:-1])
        return joined, x_gradient

    def weight_mask(self, theta: Array) -> Array:
        """Return ``(P,)``, in theta's dtype and place: 1 where L2 and weight decay apply or 0."""
        xp = self._check_theta(theta)
        parts = [
            (xp.ones if place.decays else xp.zeros)(
                place.length, dtype=theta.dtype, device=device_of(theta)
            )
            for places in self._layout
            for place in places
        ]
        return xp.concat(parts, axis=-1)

    def describe(self) -> str:
        """Return a table of the layers, their parameters' shapes and how many numbers they hold.

        >>> import backprop_xp as bx
        >>> print(bx.mlp([2, 3, 1], hidden="tanh").describe())
        layer  kind   parameters                   numbers
            0  Dense  weights (2, 3), bias (1, 3)        9
            1  Dense  weights (3, 1), bias (1, 1)        4
                                                        13
        """
        rows = [("layer", "kind", "parameters", "numbers")]
        for i, (layer, places) in enumerate(zip(self.layers, self._layout, strict=True)):
            shapes = ", ".join(f"{place.name} {place.shape}" for place in places)
            count = sum(place.length for place in places)
            rows.append((str(i), type(layer).__name__, shapes, str(count)))
        rows.append(("", "", "", str(self.size)))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
            for a, b, c, d in rows
        )

    def _decay(
        self,
        gradients: Sequence[Sequence[Array]],
        parameters: Sequence[Sequence[Array]],
        strength: Any,
    ) -> list[tuple[Array, ...]]:
        """Add the penalty's gradient, ``l2 * weights``, to that of each tensor of weights."""
        return [
            tuple(
                g + _against(strength, place.shape) * value if place.decays else g
                for place, g, value in zip(places, layer_gradients, values, strict=True)
            )
            for places, layer_gradients, values in zip(
                self._layout, gradients, parameters, strict=True
            )
        ]

    def _value(
        self, theta: Array, outputs: Array, y: Array, weight: Array | None, strength: Any
    ) -> Array:
        value = mean_loss(self.loss_function, outputs, y, weight)
        if strength is None:
            return value
        for places in self._layout:
            for place in places:
                if place.decays:
                    value = value + penalty(theta[..., place.part], strength)
        return value

    def _check_theta(self, theta: Array) -> Any:
        xp = require_floating(theta, "theta")
        if not theta.shape or theta.shape[-1] != self.size:
            raise ValueError(
                f"theta has shape {tuple(theta.shape)}, but this network's is (..., {self.size}). "
                "Draw one by network.initialize()."
            )
        return xp

    def _check_inputs(self, theta: Array, x: Array, rng: Any) -> tuple[Array, Any]:
        self._check_theta(theta)
        x = check_x(theta, x, self._widths[0])
        return x, None if rng is None else as_key(rng, theta)


def mlp(
    sizes: Sequence[int],
    *,
    hidden: str | Activation = "relu",
    output: str | Activation = "identity",
    loss: str | Loss = "mean_squared_error",
    dropout: float = 0.0,
    layer_norm: bool = False,
    l2: float = 0.0,
    initializer: str | Initializer = "glorot_uniform",
) -> Network:
    """Return a multilayer perceptron of the given layer sizes, inputs first and outputs last.

    Each hidden layer is Dense, LayerNorm if asked for, the ``hidden`` activation, Dropout if its
    rate is not 0; after the last Dense comes the ``output`` activation alone. The cross-entropies
    and poisson take raw outputs: leave ``output="identity"`` with them.

    >>> import backprop_xp as bx
    >>> bx.mlp([64, 32, 10], loss="categorical_cross_entropy").size
    2410
    """
    widths = [
        integer(size, f"sizes[{i}]") for i, size in enumerate(sequence(sizes, "sizes", "[2, 3, 1]"))
    ]
    hidden = choose(ACTIVATIONS, hidden, "hidden")
    output = choose(ACTIVATIONS, output, "output")
    dropout = real(dropout, "dropout", low=0.0, below=1.0)
    if len(widths) < 2:
        raise ValueError(f"sizes needs at least inputs and outputs, such as [2, 1], not {sizes!r}.")
    layers: list[Layer] = []
    for n_in, n_out in itertools.pairwise(widths[:-1]):
        if layer_norm:
            layers += [Dense(n_in, n_out, initializer=initializer), LayerNorm(n_out)]
            layers += [Activate(hidden)]
        else:
            layers += [Dense(n_in, n_out, hidden, initializer=initializer)]
        if dropout != 0.0:
            layers += [Dropout(dropout)]
    layers += [Dense(widths[-2], widths[-1], output, initializer=initializer)]
    return Network(layers, loss, l2=l2)


def mean_loss(loss: Loss, outputs: Array, y: Array, weight: Array | None) -> Array:
    """Return the mean over the batch, ``(*stack,)``: ``sum(w * loss) / sum(w)``."""
    xp = array_namespace(outputs)
    each = loss.value(outputs, y)
    if weight is None:
        return xp.sum(each, axis=-1) / outputs.shape[-2]
    return xp.sum(weight * each, axis=-1) / _total(weight)[..., 0]


def penalty(weights: Array, strength: Any) -> Array:
    """Return ``strength / 2 * sum(weights**2)`` over the last axis."""
    return 0.5 * strength * array_namespace(weights).sum(weights * weights, axis=-1)


def _refuse_second_link(layers: Sequence[Layer], loss: Loss) -> None:
    # A Dropout, or an identity, behind the last activation changes nothing about it.
    behind = (layer for layer in reversed(layers) if not isinstance(layer, Dropout))
    last = next((layer for layer in behind if layer != Activate(identity)), None)
    value = last.activation.value if isinstance(last, Dense | Activate) else identity.value
    to_probabilities = (sigmoid.value, softmax.value)
    if value is loss.link and value is not identity.value:
        doubled = "the same function: it would be applied twice"
    elif value in to_probabilities and loss.link in to_probabilities:
        doubled = "a link too: probabilities would be taken for logits"
    else:
        return
    raise ValueError(
        f"The loss applies its link to raw outputs itself, and the last layer applies {doubled}. "
        'Use output="identity" (network.predict applies the link).'
    )


def _share(weight: Array | None, outputs: Array) -> Any:
    """Return each sample's share in the mean over the batch, ``(..., batch, 1)`` or a number."""
    if weight is None:
        return 1.0 / outputs.shape[-2]
    return (weight / _total(weight))[..., None]


def _total(weight: Array) -> Array:
    """Return the sum of the weights, ``(..., 1)``; 1 where it is 0, as in a batch of weights 0."""
    xp = array_namespace(weight)
    total = xp.sum(weight, axis=-1, keepdims=True)
    return total + xp.astype(total == 0.0, total.dtype)


def _against(strength: Any, shape: tuple[int, ...]) -> Any:
    """Return an array ``(*stack,)`` with axes to broadcast against ``(*stack, *shape)``."""
    if isinstance(strength, float):
        return strength
    xp = array_namespace(strength)
    return xp.reshape(strength, (*strength.shape, *(1 for _ in shape)))
