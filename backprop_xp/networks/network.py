"""A network: layers and a loss, as functions of one vector of parameters.

Theta is one vector ``(P,)``, or a stack of them ``(*stack, P)``. The network holds no arrays: it is
a description, and every method is a function of theta.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

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
from backprop_xp.display.reprs import call, word
from backprop_xp.networks.activations import identity, sigmoid, softmax
from backprop_xp.networks.initializers import draw_stack
from backprop_xp.networks.inputs import (
    Rows,
    check_beside_outputs,
    check_l2,
    check_targets,
    check_x,
    counted,
    row_slices,
    rows_at_once,
    stand_ins,
)
from backprop_xp.networks.layers import Activate, Dense, Dropout
from backprop_xp.networks.layout import Layout, draw, lay_out, pack, unpack
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.networks.objective import loss_and_gradient_of, loss_of
from backprop_xp.networks.propagation import (
    Layer,
    backward_through,
    check_chain,
    forward_through,
    is_random,
    output_of,
)
from backprop_xp.networks.random_bits import as_key


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
    size: int = field(compare=False)
    is_random: bool = field(compare=False)
    layout: Layout = field(compare=False)
    _widths: tuple[int | None, int | None] = field(compare=False)

    def __init__(self, layers: Sequence[Layer], loss: str | Loss, *, l2: float = 0.0) -> None:
        layers = sequence(layers, "layers", "[bx.Dense(2, 1)]")
        loss_function = choose(LOSSES, loss, "loss")
        layout = lay_out(layers)
        size = sum(place.length for places in layout for place in places)
        if not size:
            raise ValueError("A network needs at least one layer with parameters, such as Dense.")
        _refuse_second_link(layers, loss_function)
        for name, value in {
            "layers": tuple(layers),
            "loss_function": loss_function,
            "l2": real(l2, "l2", low=0.0),
            "size": size,
            "is_random": any(is_random(layer) for layer in layers),
            "layout": layout,
            "_widths": check_chain(layers),
        }.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return call(type(self), [*self.layers], self.loss_function, l2=self.l2)

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
            functools.partial(draw, self.layers, self.layout),
        )
        return choice.backend.from_host(
            drawn.reshape((*shape, self.size)), choice.dtype, choice.device
        )

    def unpack(self, theta: Array) -> list[tuple[Array, ...]]:
        """Return each layer's parameters, ``(*stack, *shape)``, as views where the library can.

        Dense gives ``(weights, bias)``, a layer without parameters ``()``.
        """
        self._check_theta(theta)
        return unpack(self.layout, theta)

    def pack(self, parameters: Sequence[Sequence[Array]]) -> Array:
        """Return theta made of each layer's parameters: the inverse of ``unpack``."""
        parameters = sequence(parameters, "parameters", "network.unpack(theta)")
        counts = [len(layer) for layer in parameters]
        if counts != [len(places) for places in self.layout]:
            raise ValueError(
                "parameters must hold, layer by layer, "
                f"{[len(places) for places in self.layout]} arrays, not {counts}."
            )
        named = [
            (f"parameters[{i}][{j}] ({place.name})", place, value)
            for i, places in enumerate(self.layout)
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
        return pack(self.layout, parameters, stack)

    def forward(self, theta: Array, x: Array, *, rng: Any = None) -> Array:
        """Return the raw outputs (logits) ``(*stack, batch, n_out)`` for x ``(..., batch, n_in)``.

        ``rng`` None is inference; in training it is the key of the dropout masks: a non-negative
        int, or an int array ``(*stack, 1, 1)`` for masks that differ over the stack.
        """
        x, key = self.check_inputs(theta, x, rng)
        return output_of(self.layers, unpack(self.layout, theta), x, key)

    def predict(self, theta: Array, x: Array, *, batch_size: int | None = None) -> Array:
        """Return the loss's link of the outputs: probabilities, rates or values.

        ``batch_size`` rows are taken at a time; by default as many as make some thousands of rows,
        counting each network of the stack, so that only the result grows with the data.
        """
        x, _ = self.check_inputs(theta, x, None)
        size = rows_at_once(theta) if batch_size is None else integer(batch_size, "batch_size")
        parameters = unpack(self.layout, theta)
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
        number or ``(*stack,)``, overrides the network's own. A row of weight 0 is left out, even
        if its values overflow. With categorical cross-entropy ``y`` may be integer class labels,
        ``(batch,)`` or stacked; one outside 0 ... n_out - 1, which ``fit`` refuses, adds nothing
        here.
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
        # Before the first parameters a layer gives back what it is given, stacked or not.
        x = array_namespace(theta).broadcast_to(x, (*theta.shape[:-1], *x.shape[-2:]))
        parameters = unpack(self.layout, theta)
        outputs, caches = forward_through(self.layers, parameters, x, key)
        g = like(theta, g, "g")
        check_beside_outputs(g, outputs.shape, "g", labels=False)
        g = array_namespace(theta).broadcast_to(g, outputs.shape)
        x_gradient, gradients = backward_through(self.layers, parameters, caches, g)
        joined = replaced(pack, theta)(self.layout, gradients, theta.shape[:-1])
        return joined, x_gradient

    def outputs_shape(self, theta: Array, x: Array) -> tuple[int, ...]:
        """Return the shape of ``forward(theta, x)``; a row is sent through if no layer tells it."""
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
            for places in self.layout
            for place in places
        ]
        return xp.concat(parts, axis=-1)

    @property
    def parts(self) -> list[slice]:
        """Where each parameter lies along theta's last axis, layer by layer."""
        return [place.part for places in self.layout for place in places]

    def describe(self) -> str:
        """Return a table of the layers, their parameters' shapes and how many numbers they hold.

        >>> import backprop_xp as bx
        >>> print(bx.mlp([2, 3, 1], hidden="tanh").describe())
        layer  kind   parameters                   numbers
            0  Dense  weights (2, 3), bias (1, 3)        9
            1  Dense  weights (3, 1), bias (1, 1)        4
                                                        13
        """
        kinds = (type(layer).__name__ for layer in self.layers)
        rows = [("layer", "kind", "parameters", "numbers"), *self._rows(kinds)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
            for a, b, c, d in rows
        )

    def _repr_html_(self) -> str:
        from backprop_xp.display import html  # for notebooks alone

        heads = ("", "layer", "parameters", "numbers")
        text = f"of {self.size} parameters; loss {word(self.loss_function)}, l2 {self.l2:g}"
        table = html.table(heads, self._rows(map(word, self.layers)), align="rllr")
        return html.section(html.paragraph(text, begins=type(self).__name__), table)

    def _rows(self, kinds: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
        """Yield a row for each layer: number, kind, parameters and how many numbers, then all."""
        for i, (kind, places) in enumerate(zip(kinds, self.layout, strict=True)):
            shapes = ", ".join(f"{place.name} {place.shape}" for place in places)
            yield str(i), kind, shapes, str(sum(place.length for place in places))
        yield "", "", "", str(self.size)

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
        y, weight = check_targets(theta, outputs, y, weight, labels=labels)
        if weight is None:
            return Rows(x, y, None, key)
        return counted(Rows(x, y, weight, key, stand_ins(weight, theta.shape[:-1])))

    def _check_l2(self, theta: Array, l2: Any) -> Any:
        return self.l2 or None if l2 is None else check_l2(theta, l2)


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
