"""A network: layers and a loss, as functions of one vector of parameters.

Theta is one vector ``(P,)``, or a stack of them ``(*stack, P)``. The network holds no arrays: every
method is a function of theta.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from backprop_xp.backends import (
    Array,
    Backend,
    Device,
    DType,
    Namespace,
    array_namespace,
    dispatch,
    like,
    require_floating,
    require_like,
    resolve,
)
from backprop_xp.checks import choose, integer, real, sequence
from backprop_xp.display.reprs import argument_text, call_text
from backprop_xp.networks.chain import array_checks, batch_rows, propagation
from backprop_xp.networks.chain.layout import (
    Layout,
    chosen,
    draw,
    mask_of,
    pack,
    unpack,
    weight_mask,
)
from backprop_xp.networks.chain.propagation import Cache, Layer, forward_through, linked
from backprop_xp.networks.derivatives import gauss_newton, input_derivatives
from backprop_xp.networks.derivatives.bound import loss_and_gradient_of
from backprop_xp.networks.derivatives.definition import Definition, define
from backprop_xp.networks.derivatives.objective import loss_of
from backprop_xp.networks.losses.loss import LOSSES, Loss
from backprop_xp.networks.losses.targets import check_targets
from backprop_xp.networks.numbers.initializers import draw_stack
from backprop_xp.networks.numbers.random_bits import Key, as_key


@dataclass(frozen=True, init=False)
class Network:
    """A chain of layers with a loss at its end; immutable and without arrays.

    ``loss`` is a name of ``bx.losses`` or a ``Loss``; ``l2`` is the strength of the penalty
    ``l2 / 2 * sum(weights**2)`` over the parameters named ``weights``. Raises ValueError if
    neighbouring layers do not fit, and if the last activation and the loss's inverse link would
    both make probabilities.

    >>> import backprop_xp as bx
    >>> network = bx.Network([bx.Dense(2, 3, "tanh"), bx.Dense(3, 1)], "mean_squared_error")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> theta.shape, network.forward(theta, [[0, 1], [1, 1]]).shape
    ((13,), (2, 1))
    """

    # What the functions of the modules beside this one take in the network's place.
    definition: Definition
    l2: float
    is_random: bool = field(compare=False)

    def __init__(self, layers: Sequence[Layer], loss: str | Loss, *, l2: float = 0.0) -> None:
        layers = sequence(layers, "layers", "[bx.Dense(2, 1)]")
        definition = define(layers, choose(LOSSES, loss, "loss"))
        # The class is frozen: __init__ fills its attributes in directly.
        vars(self).update(definition=definition, l2=real(l2, "l2", low=0.0))
        vars(self).update(is_random=any(map(propagation.is_random, layers)))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in their order."""
        return self.definition.layers

    @property
    def loss_function(self) -> Loss:
        """The loss at the end of the layers."""
        return self.definition.loss

    @property
    def size(self) -> int:
        """The number of parameters, P."""
        return self.definition.size

    @property
    def layout(self) -> Layout:
        """The slices of theta that each layer's parameters are."""
        return self.definition.layout

    @property
    def widths(self) -> tuple[int | None, int | None]:
        """The numbers of features that the network takes and gives; None if no layer defines it."""
        return self.definition.widths

    @functools.cached_property
    def codes(self) -> tuple[int, ...]:
        """The number of codes in each column of x, 0 for numbers; empty without an Embedding."""
        # As late as this: a file may describe a layer of any width, and theta was not checked yet.
        return tuple(getattr(self.layers[0], "codes", ()))

    def __repr__(self) -> str:
        return call_text(type(self), [*self.layers], self.loss_function, l2=self.l2)

    def initialize(
        self,
        seed: int = 0,
        *,
        stack: Sequence[int] | int = (),
        backend: str | Backend | None = None,
        device: Device | None = None,
        dtype: DType | None = None,
    ) -> Array:
        """Draw theta: ``(P,)``, or ``(*stack, P)`` for a stack of independent starts.

        Member i of the flattened stack depends on the seed and i alone, and member 0 is the
        unstacked draw. Values are drawn in float64 on the host, then cast and moved, so the same
        seed gives the same theta on every backend.
        """
        lengths = [stack] if isinstance(stack, Integral) else sequence(stack, "stack", "(2, 3)")
        shape = tuple(integer(n, "stack") for n in lengths)
        choice = resolve(backend=backend, device=device, dtype=dtype)
        if not choice.backend.namespace().isdtype(choice.dtype, "real floating"):
            raise ValueError(f"dtype must be a real floating one, not {choice.dtype}.")
        draw_one = functools.partial(draw, self.layers, self.layout)
        drawn = draw_stack(integer(seed, "seed", at_least=0), math.prod(shape), draw_one)
        theta = drawn.reshape((*shape, self.size))
        return choice.backend.from_host(theta, choice.dtype, choice.device)

    def unpack(self, theta: Array) -> list[tuple[Array, ...]]:
        """Return each layer's parameters, ``(*stack, *shape)``; for Dense ``(weights, bias)``."""
        self.check_theta(theta)
        return unpack(self.layout, theta)

    def pack(self, parameters: Sequence[Sequence[Array]]) -> Array:
        """Return theta made of each layer's parameters: the inverse of ``unpack``."""
        parameters = sequence(parameters, "parameters", "network.unpack(theta)")
        counts, expected = ([len(one) for one in whole] for whole in (parameters, self.layout))
        if counts != expected:
            raise ValueError(f"parameters must hold, by layer, {expected} arrays, not {counts}.")
        arrays = {
            f"parameters[{i}][{j}] ({one.name})": (one, parameters[i][j])
            for i, slices in enumerate(self.layout)
            for j, one in enumerate(slices)
        }
        first_name, (one, first) = next(iter(arrays.items()))
        require_floating(first, first_name)
        stack = tuple(first.shape[: len(first.shape) - len(one.shape)])
        for name, (one, value) in arrays.items():
            require_like(first, value, name, first_name)
            if tuple(value.shape) != (*stack, *one.shape):
                found, expected_shape = tuple(value.shape), (*stack, *one.shape)
                raise ValueError(f"{name} has shape {found}, but {expected_shape} is expected.")
        return pack(self.layout, parameters, stack)

    def forward(self, theta: Array, x: Array, *, rng: Key | None = None) -> Array:
        """Return the raw outputs (logits) ``(*stack, batch, n_out)`` for x ``(..., batch, n_in)``.

        ``rng`` None is inference; in training it is the key of the dropout masks: a non-negative
        int, or an int array ``(*stack, 1, 1)`` for masks that differ over the stack.
        """
        x, key = self.check_inputs(theta, x, rng)
        return forward_through(linked(self.layers, unpack(self.layout, theta)), x, key)

    def predict(self, theta: Array, x: Array, *, batch_size: int | None = None) -> Array:
        """Return the loss's inverse link of the outputs: probabilities, rates or values.

        ``batch_size`` rows are computed at a time. The default is some thousands, divided by the
        number of networks, so that only the result grows with the data.
        """
        x, _ = self.check_inputs(theta, x, None)
        if batch_size is None:
            batch_size = batch_rows.rows_at_once(theta)
        chain = linked(self.layers, unpack(self.layout, theta))
        inverse_link = self.loss_function.inverse_link
        divide = batch_rows.divider(x) or (lambda rows: rows)
        parts = [
            inverse_link(forward_through(chain, divide(x[..., rows, :]), None))
            for rows in batch_rows.row_slices(x.shape[-2], integer(batch_size, "batch_size"))
        ]
        return parts[0] if len(parts) == 1 else array_namespace(theta).concat(parts, axis=-2)

    def loss(
        self,
        theta: Array,
        x: Array,
        y: Array,
        *,
        sample_weight: Array | None = None,
        rng: Key | None = None,
        l2: float | Array | None = None,
    ) -> Array:
        """Return each network's loss, ``(*stack,)``: ``sum(w * loss) / sum(w)`` and the penalty.

        ``y`` is ``(batch, n_out)``, ``sample_weight`` ``(batch,)``, or either stacked; ``l2``, a
        number or ``(*stack,)``, overrides the network's own. A loss that treats each output by
        itself also takes ``sample_weight`` ``(batch, n_out)``, a weight for each entry of y: the
        mean is over all entries. What has the weight 0 is left out, even if it is NaN or
        overflows. With categorical cross-entropy ``y`` may be integer class labels,
        ``(batch,)`` or stacked. Raises ValueError for a label outside 0 ... n_out - 1 and a target
        outside the loss's range in a list or NumPy's array. To find one elsewhere takes a transfer,
        as ``fit`` does: such a label adds nothing.
        """
        rows = self.check_rows(theta, x, y, sample_weight, rng)
        l2 = array_checks.check_l2(theta, self.l2 if l2 is None else l2)
        return loss_of(self.definition, theta, rows, l2)

    def loss_and_gradient(
        self,
        theta: Array,
        x: Array,
        y: Array,
        *,
        sample_weight: Array | None = None,
        rng: Key | None = None,
        l2: float | Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the loss, ``(*stack,)``, and its gradient by theta, ``(*stack, P)``.

        The arguments are those of ``loss``. No member's gradient depends on another's theta.
        """
        rows = self.check_rows(theta, x, y, sample_weight, rng)
        l2 = array_checks.check_l2(theta, self.l2 if l2 is None else l2)
        return loss_and_gradient_of(self.definition, theta, rows, l2)

    def gauss_newton(
        self,
        theta: Array,
        x: Array,
        y: Array,
        *,
        sample_weight: Array | None = None,
        l2: float | Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the gradient, ``(*stack, P)``, and Gauss-Newton matrix, ``(*stack, P, P)``.

        The matrix ``J^T D J`` has the derivatives J of the outputs by theta and the loss's
        ``curvature`` D; l2 is added for weights. The arguments are those of ``loss``.
        """
        rows = self.check_rows(theta, x, y, sample_weight, None)
        l2 = array_checks.check_l2(theta, self.l2 if l2 is None else l2)
        return gauss_newton.gradient_and_matrix(self.definition, theta, rows, l2)

    def vjp(
        self, theta: Array, x: Array, g: Array, *, rng: Key | None = None
    ) -> tuple[Array, Array]:
        """Return dL/dtheta and dL/dx from ``g`` = dL/doutputs, for your own loss.

        ``g`` is ``(..., batch, n_out)``. Both results are stacked: dL/dx is ``(*stack, batch,
        n_in)`` even if the stack shares x. The network's l2 is ignored.
        """
        x, key = self.check_inputs(theta, x, rng)
        # Layers before the first parameters return a gradient without the stack for such an x.
        x = array_namespace(theta).broadcast_to(x, (*theta.shape[:-1], *x.shape[-2:]))
        chain, caches = linked(self.layers, unpack(self.layout, theta)), list[Cache]()
        outputs = forward_through(chain, x, key, caches)
        g = like(theta, g, "g")
        array_checks.check_beside_outputs(g, outputs.shape, "g", labels=False)
        g = array_namespace(theta).broadcast_to(g, outputs.shape)
        x_gradient, gradients = propagation.backward_through(chain, caches, g)
        gradient = dispatch(pack, theta)(self.layout, gradients, theta.shape[:-1])
        return gradient, x_gradient

    def input_jacobian(self, theta: Array, x: Array, *, predict: bool = False) -> Array:
        """Return the Jacobian with respect to x, ``(*stack, batch, n_out, n_in)``.

        These input gradients are exact, by the layers' own rules. With ``predict`` they are those
        of ``predict(theta, x)``. They are 0 for a column of codes of an Embedding.

        >>> import backprop_xp as bx
        >>> network = bx.mlp([2, 3, 1], hidden="tanh")
        >>> theta = network.initialize(seed=0, backend="numpy")
        >>> network.input_jacobian(theta, [[0.5, 1.0], [0.0, -1.0]]).shape
        (2, 1, 2)
        """
        x, _ = self.check_inputs(theta, x)
        return input_derivatives.jacobian(self.definition, theta, x, predict)

    def input_hessian(
        self, theta: Array, x: Array, *, output: int = 0, predict: bool = False
    ) -> Array:
        """Return the Hessian of an output with respect to x, ``(*stack, batch, n_in, n_in)``.

        It takes as long as ``n_in`` gradients. Those of relu are 0 between its kinks, and so are
        those of a column of codes of an Embedding.
        """
        x, _ = self.check_inputs(theta, x)
        return input_derivatives.hessian(self.definition, theta, x, output, predict)

    def laplacian(self, theta: Array, x: Array, *, predict: bool = False) -> Array:
        """Return the sum of the second derivatives over the inputs, ``(*stack, batch, n_out)``."""
        x, _ = self.check_inputs(theta, x)
        return input_derivatives.laplacian(self.definition, theta, x, predict)

    def directional(
        self, theta: Array, x: Array, v: Array, *, order: int = 1, predict: bool = False
    ) -> Array:
        """Return the first or second derivative along v, ``(*stack, batch, n_out)``.

        It is that of ``forward(theta, x + t * v)`` by t at 0. ``v`` is ``(n_in,)`` or has a
        direction for each row of x; its length counts.
        """
        x, _ = self.check_inputs(theta, x)
        return input_derivatives.directional(self.definition, theta, x, v, order, predict)

    def outputs_shape(self, theta: Array, x: Array) -> tuple[int, ...]:
        """Return the shape of ``forward(theta, x)``, from one row's if no layer defines it."""
        return self.definition.outputs_shape(theta, x)

    def weight_mask(self, theta: Array) -> Array:
        """Return ``(P,)``, like theta: 1 where L2 and weight decay apply, else 0."""
        self.check_theta(theta)
        return weight_mask(self.layout, theta)

    def mask(
        self,
        theta: Array,
        *,
        layers: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> Array:
        """Return ``(P,)``, like theta: 1 on the parameters of some layers with some names, else 0.

        ``layers`` are indices as of a list, ``names`` those of ``describe()``; None is all. Raises
        ValueError for an unknown layer or name, and if nothing is chosen.

        >>> import backprop_xp as bx
        >>> network = bx.mlp([1, 2, 1])
        >>> theta = network.initialize(backend="numpy")
        >>> network.mask(theta, layers=[-1], names=["bias"])
        array([0., 0., 0., 0., 0., 0., 1.])
        >>> only_last = bx.Adam(1e-3 * network.mask(theta, layers=[-1]))  # the rest is frozen
        """
        self.check_theta(theta)
        return mask_of(self.layout, theta, chosen(self.layout, layers, names))

    @property
    def parts(self) -> list[slice]:
        """The slice of each parameter along theta's last axis, layer by layer."""
        return [one.part for one in itertools.chain(*self.layout)]

    def describe(self) -> str:
        """Return a table of the layers with the shapes and sizes of their parameters.

        >>> import backprop_xp as bx
        >>> print(bx.mlp([2, 3, 1], hidden="tanh").describe())
        layer  kind   arrays                       parameters
            0  Dense  weights (2, 3), bias (1, 3)           9
            1  Dense  weights (3, 1), bias (1, 1)           4
                                                           13
        """
        from backprop_xp.display.summaries import text_table

        kinds = (type(layer).__name__ for layer in self.layers)
        rows = [["layer", "kind", "arrays", "parameters"], *self._rows(kinds)]
        return "\n".join(text_table(rows, "rllr"))

    def _repr_html_(self) -> str:
        from backprop_xp.display.summaries import paragraph, section, table

        heads = ("", "layer", "arrays", "parameters")
        text = (
            f"of {self.size} parameters; loss {argument_text(self.loss_function)}, l2 {self.l2:g}"
        )
        rows = self._rows(map(argument_text, self.layers))
        return section(paragraph(text, begins=type(self).__name__), table(heads, rows, "rllr"))

    def _rows(self, kinds: Iterable[str]) -> Iterator[list[str]]:
        """Yield a row for each layer, or for each of more than two parameters; then the total."""
        for i, (kind, slices) in enumerate(zip(kinds, self.layout, strict=True)):
            groups = [slices] if len(slices) <= 2 else [[one] for one in slices]
            for j, group in enumerate(groups):
                shapes = ", ".join(f"{one.name} {one.shape}" for one in group)
                first = ["", ""] if j else [str(i), kind]
                yield [*first, shapes, str(sum(one.length for one in group))]
        yield ["", "", "", str(self.size)]

    def check_theta(self, theta: Array) -> Namespace:
        """Return theta's namespace, or raise unless theta has this network's shape."""
        shape = getattr(theta, "shape", (self.size,))
        if shape[-1:] != (self.size,) or 0 in shape:  # x in its place may have any dtype
            raise ValueError(
                f"theta has shape {tuple(shape)}, but this network's is (..., {self.size}) "
                "with at least one member. Draw one by network.initialize()."
            )
        return require_floating(theta, "theta")

    def check_inputs(
        self, theta: Array, x: Array, rng: Key | None = None
    ) -> tuple[Array, Key | None]:
        """Return x on theta's device, and the key, checked as in every public method."""
        self.check_theta(theta)
        x = array_checks.check_x(theta, x, self.widths[0], self.codes)
        return x, None if rng is None else as_key(rng, theta)

    def check_rows(
        self, theta: Array, x: Array, y: Array, weight: Array | None, rng: Key | None
    ) -> batch_rows.Rows:
        """Return x, y and the weights on theta's device, checked as in every public method."""
        x, key = self.check_inputs(theta, x, rng)
        outputs = self.outputs_shape(theta, x)
        y, weight = check_targets(theta, outputs, y, weight, self.loss_function)
        return batch_rows.counted(batch_rows.Rows(x, y, weight, key))
