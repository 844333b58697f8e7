"""The multilayer perceptron: a network made from layer sizes and a few options."""

import itertools
from collections.abc import Mapping, Sequence

from backprop_xp.checks import boolean, choose, explains_arguments, integer, real, sequence
from backprop_xp.networks.chain.propagation import Layer
from backprop_xp.networks.layers.activations import ACTIVATIONS, Activation
from backprop_xp.networks.layers.core import Activate, Dense, Dropout, LayerNorm
from backprop_xp.networks.losses.loss import Loss
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import Initializer


@explains_arguments
def mlp(
    sizes: Sequence[int],
    *,
    hidden: str | Activation | Sequence[str | Activation] = "relu",
    output: str | Activation = "identity",
    loss: str | Loss = "mean_squared_error",
    dropout: float = 0.0,
    layer_norm: bool = False,
    l2: float = 0.0,
    initializer: str | Initializer = "glorot_uniform",
) -> Network:
    """Return a multilayer perceptron of the given layer sizes, inputs first and outputs last.

    Each hidden layer is Dense, LayerNorm (with ``layer_norm``), the ``hidden`` activation, and
    Dropout (unless its rate is 0). ``hidden`` may have one activation for each of them. The last
    Dense has the ``output`` activation alone. The cross-entropies and poisson take raw outputs:
    keep ``output="identity"`` for them.

    >>> import backprop_xp as bx
    >>> bx.mlp([64, 32, 10], loss="categorical_cross_entropy").size
    2410
    """
    widths = [
        integer(size, f"sizes[{i}]") for i, size in enumerate(sequence(sizes, "sizes", "[2, 3, 1]"))
    ]
    output = choose(ACTIVATIONS, output, "output")
    dropout = real(dropout, "dropout", low=0.0, below=1.0)
    layer_norm = boolean(layer_norm, "layer_norm")
    if len(widths) < 2:
        raise ValueError(f"sizes needs at least inputs and outputs, such as [2, 1], not {sizes!r}.")
    layers: list[Layer] = []
    activations = activations_of(hidden, len(widths) - 2, "hidden")
    for (n_in, n_out), activation in zip(itertools.pairwise(widths[:-1]), activations, strict=True):
        if layer_norm:
            layers += [Dense(n_in, n_out, initializer=initializer), LayerNorm(n_out)]
            layers += [Activate(activation)]
        else:
            layers += [Dense(n_in, n_out, activation, initializer=initializer)]
        if dropout != 0.0:
            layers += [Dropout(dropout)]
    layers += [Dense(widths[-2], widths[-1], output, initializer=initializer)]
    return Network(layers, loss, l2=l2)


def activations_of(
    chosen: str | Activation | Sequence[str | Activation],
    count: int,
    name: str,
    table: Mapping[str, Activation] = ACTIVATIONS,
) -> list[Activation]:
    """Return the activation of each hidden layer: one for all, or one for each."""
    if isinstance(chosen, str | Activation) or not isinstance(chosen, Sequence):
        return [choose(table, chosen, name)] * count
    if len(chosen) != count:
        raise ValueError(
            f"{name} has {len(chosen)} activations, but there are {count} hidden layers: give one "
            "for all of them, or one for each."
        )
    return [choose(table, each, f"{name}[{i}]") for i, each in enumerate(chosen)]
