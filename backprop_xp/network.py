"""A network: layers and a loss, as functions of one vector of parameters.

Theta is one vector ``(P,)``, or a stack of them ``(*stack, P)``. The network holds no arrays: it is
a description, and every method is a function of theta.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

from backprop_xp.activations import identity, sigmoid, softmax
from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    blank,
    device_of,
    like,
    replaced,
    require_floating,
    require_like,
    resolve,
    sum_of_rows,
)
from backprop_xp.chain import (
    Layer,
    Parameters,
    backward_through,
    check_chain,
    forward_through,
    is_random,
    output_of,
)
from backprop_xp.checks import choose, integer, real, sequence
from backprop_xp.initializers import draw_stack
from backprop_xp.inputs import (
    Rows,
    check_beside_outputs,
    check_l2,
    check_targets,
    check_x,
    row_slices,
    rows_at_once,
)
from backprop_xp.layers import Activate, Dense, Dropout
from backprop_xp.layout import Layout, cut, draw, flattened, lay_out, pack, shaped, unpack
from backprop_xp.losses import LOSSES, Loss, value_and_gradient
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
    is_random: bool = field(repr=False, compare=False)
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
            "is_random": any(is_random(layer) for layer in layers),
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
        x, key = self.check_inputs(theta, x, rng)
        return output_of(self.layers, unpack(self._layout, theta), x, key)

    def predict(self, theta: Array, x: Array, *, batch_size: int | None = None) -> Array:
        """Return the loss's link of the outputs: probabilities, rates or values.

        It is made of ``batch_size`` rows at a time, by default so many that rows times networks of
        the stack are some thousands: memory grows with the result alone.
        """
        x, _ = self.check_inputs(theta, x, None)
        size = rows_at_once(theta) if batch_size is None else integer(batch_size, "batch_size")
        parameters = unpack(self._layout, theta)
        parts = [
            self.loss_function.link(output_of(self.layers, parameters, x[..., rows, :], None))
            for rows in row_slices(x.shape[-2], size)
        ]
        return parts[0] if len(parts) == 1 else array_namespace(theta).concat(parts, axis=-2)

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
        number or ``(*stack,)``, overrides the network's own. With categorical cross-entropy ``y``
        may be integer class labels, ``(batch,)`` or stacked; one outside 0 ... n_out - 1, which
        ``fit`` refuses, adds nothing here.
        """
        rows = self._check_rows(theta, x, y, sample_weight, rng)
        return loss_of(self, theta, rows, self._check_l2(theta, l2))

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
        rows = self._check_rows(theta, x, y, sample_weight, rng)
        return loss_and_gradient_of(self, theta, rows, self._check_l2(theta, l2))

    def vjp(self, theta: Array, x: Array, g: Array, *, rng: Any = None) -> tuple[Array, Array]:
        """Return dL/dtheta and dL/dx from ``g`` = dL/doutputs, for a loss of one's own.

        ``g`` is ``(..., batch, n_out)``. Both results carry the stack, dL/dx even where the stack
        shares x: ``(*stack, batch, n_in)``. The network's l2 has no part in it.
        """
        x, key = self.check_inputs(theta, x, rng)
        parameters = unpack(self._layout, theta)
        outputs, caches = forward_through(self.layers, parameters, x, key)
        g = like(theta, g, "g")
        check_beside_outputs(g, outputs.shape, "g")
        g = array_namespace(theta).broadcast_to(g, outputs.shape)
        x_gradient, gradients = backward_through(self.layers, parameters, caches, g)
        joined = replaced(pack, theta)(self._layout, gradients, theta.shape[:-1])
        return joined, x_gradient

    def outputs_shape(self, theta: Array, x: Array) -> tuple[int, ...]:
        """Return the shape of ``forward(theta, x)``: a row is sent if no layer says its width."""
        n_out = self._widths[1]
        if n_out is None:
            n_out = self.forward(theta, array_namespace(x).zeros_like(x[..., :1, :])).shape[-1]
        return (*theta.shape[:-1], x.shape[-2], n_out)

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

    @property
    def parts(self) -> list[slice]:
        """Where each parameter lies along theta's last axis, layer by layer."""
        return [place.part for places in self._layout for place in places]

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

    def _check_theta(self, theta: Array) -> Any:
        xp = require_floating(theta, "theta")
        if not theta.shape or theta.shape[-1] != self.size:
            raise ValueError(
                f"theta has shape {tuple(theta.shape)}, but this network's is (..., {self.size}). "
                "Draw one by network.initialize()."
            )
        return xp

    def check_inputs(self, theta: Array, x: Array, rng: Any = None) -> tuple[Array, Any]:
        """Return x beside theta, and the key, checked as at every entrance."""
        self._check_theta(theta)
        x = check_x(theta, x, self._widths[0])
        return x, None if rng is None else as_key(rng, theta)

    def _check_rows(self, theta: Array, x: Array, y: Array, weight: Any, rng: Any) -> Rows:
        x, key = self.check_inputs(theta, x, rng)
        outputs = self.outputs_shape(theta, x)
        labels = self.loss_function.labels
        return Rows(x, *check_targets(theta, outputs, y, weight, labels=labels), key)

    def _check_l2(self, theta: Array, l2: Any) -> Any:
        return self.l2 or None if l2 is None else check_l2(theta, l2)


def loss_of(network: Network, theta: Array, rows: Rows, l2: Any) -> Array:
    """Return what ``Network.loss`` does, of rows that are checked and in theta's dtype.

    ``rows.rng`` is None or a key; ``l2`` None, a float or an array ``(*stack,)``.
    """
    return loss_of_outputs(network, theta, outputs_of(network, theta, rows), rows, l2)


def outputs_of(network: Network, theta: Array, rows: Rows) -> Array:
    """Return what ``Network.forward`` does, of rows as for ``loss_of``."""
    return output_of(
        network.layers, replaced(unpack, theta)(network._layout, theta), rows.x, rows.rng
    )


def loss_of_outputs(network: Network, theta: Array, outputs: Array, rows: Rows, l2: Any) -> Array:
    """Return the loss of rows whose outputs are known; arguments as for ``loss_of``."""
    value = mean_loss(network.loss_function, outputs, rows.y, rows.sample_weight)
    return _penalized(network, theta, value, l2)


class Views(NamedTuple):
    """Theta and its parameters, and, where the library writes into arrays, its gradient's."""

    theta: Array
    parameters: Sequence[Parameters]
    gradient: Array | None
    places: Sequence[Parameters] | None


def views_of(network: Network, theta: Array) -> Views:
    """Return theta and memory for its gradient, taken apart."""
    parts, gradient = functools.partial(replaced(unpack, theta), network._layout), blank(theta)
    return Views(theta, parts(theta), gradient, None if gradient is None else parts(gradient))


def loss_and_gradient_of(
    network: Network, theta: Array, rows: Rows, l2: Any, views: Views | None = None
) -> tuple[Array, Array]:
    """Return what ``Network.loss_and_gradient`` does; arguments as for ``loss_of``.

    ``views`` of this very theta say where the gradient is written, step after step.
    """
    if views is None or views.theta is not theta:
        views = views_of(network, theta)
    _, parameters, gradient, places = views
    value, gradients = _mean_and_gradients(network, parameters, rows, l2, places)
    if gradient is None:
        gradient = replaced(pack, theta)(network._layout, gradients, theta.shape[:-1])
    return _penalized(network, theta, value, l2), gradient


def loss_and_gradients_of(
    network: Network, parts: Sequence[Array], rows: Rows, l2: Any
) -> tuple[Array, list[Array]]:
    """Return what ``loss_and_gradient_of`` does, of a theta taken apart, and as much apart."""
    layout, stack = network._layout, parts[0].shape[:-1]
    value, gradients = _mean_and_gradients(network, shaped(layout, parts), rows, l2)
    return _with_penalties(layout, parts, value, l2), flattened(layout, gradients, stack)


def _mean_and_gradients(
    network: Network,
    parameters: Sequence[Parameters],
    rows: Rows,
    l2: Any,
    places: Sequence[Parameters] | None = None,
) -> tuple[Array, Sequence[tuple[Array, ...]]]:
    """Return the loss without its penalty, and each layer's gradients with that one's."""
    x, y, weight, key = rows
    layers, loss = network.layers, network.loss_function
    outputs, caches = forward_through(layers, parameters, x, key)
    each, g = value_and_gradient(loss, outputs, y)
    g = g * _share(weight, outputs)
    _, gradients = backward_through(layers, parameters, caches, g, wants_input=False, out=places)
    if l2 is not None:
        add = operator.add if places is None else operator.iadd
        gradients = _decayed(network._layout, gradients, parameters, l2, add)
    return _mean(each, weight), gradients


def _decayed(
    layout: Layout,
    gradients: Sequence[Sequence[Array]],
    parameters: Sequence[Sequence[Array]],
    strength: Any,
    add: Callable[[Array, Array], Array],
) -> list[tuple[Array, ...]]:
    """Add the penalty's gradient, ``l2 * weights``, to that of each tensor of weights."""
    return [
        tuple(
            add(g, _against(strength, place.shape) * value) if place.decays else g
            for place, g, value in zip(places, layer_gradients, values, strict=True)
        )
        for places, layer_gradients, values in zip(layout, gradients, parameters, strict=True)
    ]


def _penalized(network: Network, theta: Array, value: Array, strength: Any) -> Array:
    if strength is None:
        return value
    return _with_penalties(network._layout, cut(network._layout, theta), value, strength)


def _with_penalties(layout: Layout, parts: Sequence[Array], value: Array, strength: Any) -> Array:
    if strength is None:
        return value
    for place, part in zip(itertools.chain(*layout), parts, strict=True):
        if place.decays:
            value = value + penalty(part, strength)
    return value


def mean_loss(loss: Loss, outputs: Array, y: Array, weight: Array | None) -> Array:
    """Return the mean over the batch, ``(*stack,)``: ``sum(w * loss) / sum(w)``."""
    return _mean(loss.value(outputs, y), weight)


def _mean(each: Array, weight: Array | None) -> Array:
    xp = array_namespace(each)
    if weight is None:
        return sum_of_rows(each) / each.shape[-1]
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
