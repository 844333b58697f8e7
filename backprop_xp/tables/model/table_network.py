"""The network of a table: its layers, and its first theta."""

import numpy as np

from backprop_xp.backends import Array, Selection, to_device_of
from backprop_xp.networks.column_layers import Columns, Scale
from backprop_xp.networks.embeddings import Embedding, NumericEmbedding
from backprop_xp.networks.losses import (
    Loss,
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
)
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.networks.propagation import Layer
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.model.presets import Recipe

# Activations of which about half of the values are near 0 (He et al. 2015).
_LIKE_RELU = ("relu", "leaky_relu", "gelu", "silu")
# The factor of the output layer's first weights.
_SMALL = 0.1
# Of a class without weight.
_LEAST_SHARE = 1e-6


def network_for(features: Features, recipe: Recipe, n_classes: int) -> Network:
    """Return the network of a recipe for these features and so many classes, 0 for a number."""
    n_outputs, loss = outputs_for(n_classes)
    inputs, n_in = _input_layers(features, recipe)
    network = mlp(
        [n_in, *recipe.hidden_layer_sizes, n_outputs],
        hidden=recipe.activation,
        loss=loss,
        dropout=recipe.dropout,
        layer_norm=recipe.layer_norm,
        initializer="he_uniform" if recipe.activation in _LIKE_RELU else "glorot_uniform",
    )
    l2 = 0.0 if recipe.decays else recipe.alpha
    return Network([*inputs, *network.layers], loss, l2=l2)


def outputs_for(n_classes: int) -> tuple[int, Loss]:
    """Return the number of outputs, and the loss, for so many classes, 0 for a number."""
    if n_classes > 2:
        return n_classes, categorical_cross_entropy
    return 1, binary_cross_entropy if n_classes else mean_squared_error


def _input_layers(features: Features, recipe: Recipe) -> tuple[list[Layer], int]:
    """Return the embeddings of numbers and codes, and the number of features behind them."""
    codes, width = features.codes, features.n_features
    numbers = len(features.scaling.medians) if recipe.numeric else 0
    if not (numbers or codes):
        return [], width
    parts: list[Layer] = []
    if recipe.numeric and numbers:
        n_out, n_frequencies, scale = recipe.numeric
        parts.append(
            NumericEmbedding(numbers, n_out, n_frequencies=n_frequencies, frequency_scale=scale)
        )
    if others := width - numbers - len(codes):
        parts.append(Scale(others))
    if recipe.category and codes:
        parts.append(Embedding(codes, recipe.category.n_out))
    columns = Columns(*parts)
    return [columns], columns.n_out


def first_theta(
    network: Network, shares: np.ndarray, seed: int, n_members: int, selection: Selection
) -> Array:
    """Return a theta, or a stack, that predicts little more than the trivial baseline.

    ``shares`` are those of the classes, empty for a number. From there early stopping finds
    improvements even if a table has more columns than rows.
    """
    theta = network.initialize(
        seed,
        stack=(n_members,) if n_members > 1 else (),
        backend=selection.backend,
        device=selection.device,
        dtype=selection.dtype,
    )
    *others, (weights, bias) = network.unpack(theta)
    if len(shares):
        logits = np.log(shares + _LEAST_SHARE)
        logits = logits if bias.shape[-1] > 1 else logits[1:] - logits[:1]
        bias = bias + to_device_of(theta, logits, theta.dtype)
    return network.pack([*others, (weights * _SMALL, bias)])
