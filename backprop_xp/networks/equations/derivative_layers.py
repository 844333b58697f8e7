"""The layer whose outputs are derivatives of other layers by their inputs.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from backprop_xp.backends import Array, array_namespace, columns_of
from backprop_xp.checks import integer, sequence
from backprop_xp.display.reprs import argument_text, repr_of
from backprop_xp.networks.chain import propagation
from backprop_xp.networks.chain.containers import Chain
from backprop_xp.networks.chain.propagation import Cache, Gradients, Layer, Parameters
from backprop_xp.networks.jets.passes import Term, backward, forward, plan_of
from backprop_xp.networks.layers.activations import Activation, is_piecewise_linear
from backprop_xp.networks.numbers.random_bits import Key


@dataclass(frozen=True, init=False)
class Derivatives(Chain):
    """Layers' outputs and their derivatives, side by side: ``u, u_0, u_01, ...``.

    A term is a tuple of columns of x: ``()`` is the output, ``(0,)`` its derivative by column 0,
    ``(0, 1)`` the second derivative by columns 0 and 1. The layer returns all outputs of the first
    term, then all of the second one, and so on. The derivatives are exact, by the layers' own
    rules. A training on them is one on more columns of y. The parameters are those of the layers,
    named ``"layers[0].weights"`` and so on.

    Raises ValueError for a column that x lacks or that has codes of an Embedding, and for second
    derivatives of relu or leaky_relu, which are 0 between the kinks.

    >>> import backprop_xp as bx
    >>> layers = bx.mlp([2, 16, 1], hidden="tanh").layers
    >>> network = bx.Network([bx.Derivatives(layers, [(), (0,), (1,)])], "mean_squared_error")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> network.forward(theta, [[0.5, 1.0], [0.0, -1.0]]).shape  # u, du/dx_0, du/dx_1
    (2, 3)
    """

    differentiates: ClassVar[bool] = True
    writes = False
    terms: tuple[Term, ...]
    order: int = field(compare=False)

    __repr__ = repr_of

    def __init__(self, layers: Sequence[Layer], terms: Sequence[Sequence[int]]) -> None:
        layers = tuple(sequence(layers, "layers", 'bx.mlp([2, 16, 1], hidden="tanh").layers'))
        super().__init__(*layers)
        wanted = tuple(_terms(sequence(terms, "terms", "[(), (0,), (0, 0)]"), self.n_in))
        order = max(map(len, wanted))
        check_differentiable(layers, wanted, "Derivatives")
        n_out = None if self.n_out is None else self.n_out * len(wanted)
        vars(self).update(terms=wanted, n_out=n_out, keeps_width=False, order=order)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the terms side by side."""
        own, plan = self.by_layer(parameters), plan_of(self.terms)
        found, passes = forward(self.layers, own, x, plan, rng)
        return array_namespace(x).concat(found, axis=-1), passes

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return dL/dx and the layers' gradients."""
        own, count = self.by_layer(parameters), len(self.terms)
        gs = columns_of(g, [g.shape[-1] // count] * count)
        return backward(self.layers, own, cache, gs, plan_of(self.terms), **options)


def _terms(terms: Sequence[Any], n_in: int | None) -> Iterator[Term]:
    """Yield checked terms, with the columns of each in order."""
    if not terms:
        raise ValueError("terms is empty, but at least one is expected, such as (0,).")
    for i, term in enumerate(terms):
        columns = [
            integer(column, f"terms[{i}]", at_least=0)
            for column in sequence(term, f"terms[{i}]", "(0, 1)")
        ]
        if len(columns) > 2:
            raise ValueError(
                f"terms[{i}] is {tuple(columns)}, of order {len(columns)}, but derivatives of "
                "order 0, 1 and 2 are possible."
            )
        if n_in is not None and max(columns, default=0) >= n_in:
            raise ValueError(
                f"terms[{i}] has column {max(columns)}, but the layers take {n_in} columns, "
                "numbered from 0."
            )
        yield tuple(sorted(columns))


def check_differentiable(layers: Sequence[Layer], terms: Iterable[Term], kind: str) -> None:
    """Raise ValueError for layers without some derivatives, or without those to learn from."""
    terms = [*terms]
    for i, n_codes in enumerate(getattr(layers[0], "codes", ())):
        if n_codes and any(i in term for term in terms):
            raise ValueError(
                f"{kind} differentiates by column {i} of x, but {type(layers[0]).__name__} takes "
                "codes of categories there: derivatives are by columns of numbers."
            )
    _check_orders(layers, max(map(len, terms)), kind)


def _check_orders(layers: Iterable[Layer], order: int, kind: str) -> None:
    for layer in layers:
        if propagation.differentiates(layer):
            raise ValueError(
                f"{kind} of {type(layer).__name__} is not possible, which returns derivatives "
                "itself. Give one layer all the terms."
            )
        if order > 1 and (activation := _kinked(layer)) is not None:
            raise ValueError(
                f"{kind} takes second derivatives, but {argument_text(activation)} has none to "
                'learn from: they are 0 between its kinks. Use a smooth one, such as "tanh".'
            )
        _check_orders(propagation.layers_in(layer), order, kind)


def learned_kinks(layers: Iterable[Layer], *, are_slopes: bool = False) -> Iterator[Activation]:
    """Yield each relu or leaky_relu in layers that return first derivatives.

    These are constant between the kinks, so that biases hardly learn from them.
    """
    for layer in layers:
        returns_slopes = getattr(layer, "differentiates", False) and getattr(layer, "order", 0) > 0
        activation = _kinked(layer)
        if activation is not None and (are_slopes or returns_slopes):
            yield activation
        inner = propagation.layers_in(layer)
        yield from learned_kinks(inner, are_slopes=are_slopes or returns_slopes)


def _kinked(layer: Layer) -> Activation | None:
    """Return the activation of a layer if its second derivative is 0 between kinks."""
    activation = getattr(layer, "activation", None)
    is_kinked = isinstance(activation, Activation) and is_piecewise_linear(activation)
    return activation if is_kinked else None
