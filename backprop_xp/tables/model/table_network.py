"""The network of a table: its layers, its first theta, and the embeddings of unknown codes."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, Selection, to_device_of, to_host
from backprop_xp.networks.chain.propagation import Layer
from backprop_xp.networks.layers.columns import Columns, Scale
from backprop_xp.networks.layers.embeddings import Embedding, NumericEmbedding
from backprop_xp.networks.losses.loss import (
    Loss,
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
)
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import uniform
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.model.presets import Recipe

# Activations of which about half of the values are near 0 (He et al. 2015).
_LIKE_RELU = ("relu", "leaky_relu", "gelu", "silu")
# The factor of the output layer's first weights.
_SMALL = 0.1
# Of a class without weight.
_LEAST_SHARE = 1e-6
# First embeddings have the standard deviation 0.1, so that those of rare categories stay small.
_FIRST_EMBEDDINGS = uniform(-0.1 * 3.0**0.5, 0.1 * 3.0**0.5)


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
        parts.append(Embedding(codes, recipe.category.n_out, _FIRST_EMBEDDINGS))
    columns = Columns(*parts)
    return [columns], columns.n_out


def first_theta(
    network: Network, shares: np.ndarray, seed: int, n_members: int, selection: Selection
) -> Array:
    """Return a theta, or a stack, that predicts little more than the baseline.

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


def totals_of_codes(
    features: Features, frame: pd.DataFrame, weights: np.ndarray | None, at: np.ndarray | None
) -> np.ndarray:
    """Return the weight of the rows of each code, ``(codes,)``, or their number without weights.

    ``at`` ``(n_members, count)`` are the row indices of each member; then it is ``(n_members,
    codes)``.
    """
    n_codes = features.codes
    first = [0, *itertools.accumulate(n_codes)][:-1]
    codes = features.encoded_codes(frame) + np.asarray(first, dtype=np.intp)
    weights = np.ones(len(codes)) if weights is None else weights
    members = [slice(None)] if at is None else at
    totals = [
        np.bincount(
            codes[own].reshape(-1), np.repeat(weights[own], len(n_codes)), minlength=sum(n_codes)
        )
        for own in members
    ]
    return totals[0] if at is None else np.stack(totals)


def with_mean_embeddings(network: Network, totals: np.ndarray, theta: Array) -> np.ndarray:
    """Return theta on the host, with a mean embedding for each code that no training row has.

    It is the mean over the other codes of the column, by ``totals_of_codes`` of the training rows:
    a new category is an average one.
    """
    finished = np.array(to_host(theta))
    if totals.shape[-1]:
        columns: Any = network.layers[0]
        table = network.unpack(finished)[0][-1]  # embeddings of codes are the last parameters
        ends = [*itertools.accumulate(columns.layers[-1].codes)]
        for own, total in zip(
            np.split(table, ends[:-1], axis=-2), np.split(totals, ends[:-1], axis=-1), strict=True
        ):
            weight = total[..., None]
            mean = (weight * own).sum(-2, keepdims=True) / weight.sum(-2, keepdims=True)
            np.copyto(own, mean, where=weight == 0.0)
    return finished
