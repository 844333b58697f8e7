"""The network that an estimator's parameters describe, and its theta as fitted attributes.

scikit-learn keeps theta apart: as ``coefs_`` and ``intercepts_``, here with ``layer_norms_``.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.estimators.parameters import NAMED_ACTIVATIONS, Model, hidden_sizes
from backprop_xp.estimators.samples import dispatches
from backprop_xp.networks.activations import ACTIVATIONS, Activation, identity
from backprop_xp.networks.initializers import uniform
from backprop_xp.networks.layers import Activate, Dense, Dropout, LayerNorm
from backprop_xp.networks.layout import draw
from backprop_xp.networks.losses import Loss
from backprop_xp.networks.mlp import activations_of
from backprop_xp.networks.network import Network


def network_of(model: Model, n_in: int, loss: Loss) -> Network:
    """Return the network of the parameters, with ``n_in`` inputs and ``n_outputs_`` outputs."""
    widths, given = [n_in, *hidden_sizes(model)], model.activation
    given = given if isinstance(given, str | Activation) else [*given]
    activations = activations_of(given, len(widths) - 1, "activation", NAMED_ACTIVATIONS)
    layers: list[Dense | LayerNorm | Activate | Dropout] = []
    for (n, n_out), activation in zip(pairwise(widths), activations, strict=True):
        if model.layer_norm:
            layers += [_dense(n, n_out, activation), LayerNorm(n_out), Activate(activation)]
        else:
            layers += [_dense(n, n_out, activation, activation)]
        if model.dropout:
            layers += [Dropout(model.dropout)]
    # The output's weights are drawn as those of the last hidden layer.
    drawn_for = activations[-1] if activations else None
    return Network([*layers, _dense(widths[-1], model.n_outputs_, drawn_for)], loss)


def _dense(
    n_in: int, n_out: int, drawn_for: Activation | None, activation: Activation = identity
) -> Dense:
    """Return a layer drawn as in scikit-learn: Glorot and Bengio 2010, for the bias too."""
    factor = 2.0 if drawn_for is ACTIVATIONS["sigmoid"] else 6.0
    bound = float(np.sqrt(factor / (n_in + n_out)))
    drawn = uniform(-bound, bound)
    return Dense(n_in, n_out, activation, initializer=drawn, bias_initializer=drawn)


def draw_theta(network: Network, random_state: Any, count: int) -> np.ndarray:
    """Return a first theta, ``(P,)``, or a stack of several, ``(count, P)``."""
    thetas = [
        np.concatenate([v.reshape(-1) for v in draw(network.layers, network.layout, random_state)])
        for _ in range(count)
    ]
    return thetas[0] if count == 1 else np.stack(thetas)


def parameters_of(model: Model, network: Network) -> list[Sequence[Array]]:
    """Return each layer's parameters from the fitted attributes, which a user may have changed."""
    has_norms = any(isinstance(layer, LayerNorm) for layer in network.layers)
    if has_norms != hasattr(model, "layer_norms_"):
        raise ValueError(
            f"layer_norm is {model.layer_norm} now, but was not when this was fitted: fit again."
        )
    stack = (model.n_members,) if model.n_members > 1 else ()
    expected = [(*stack, *layer.shapes[0]) for layer in network.layers if isinstance(layer, Dense)]
    shapes = [tuple(weights.shape) for weights in model.coefs_]
    if shapes != expected:
        raise ValueError(
            f"The weights now have the shapes {expected} (by hidden_layer_sizes, n_members, the "
            f"targets and the loss), but had {shapes} when this was fitted: fit again."
        )
    dense = zip(model.coefs_, model.intercepts_, strict=True)
    norms = iter(getattr(model, "layer_norms_", []))
    parameters: list[Sequence[Array]] = []
    for layer in network.layers:
        if isinstance(layer, Dense):
            weights, bias = next(dense)
            parameters.append((weights, bias[..., None, :]))
        else:
            parameters.append(next(norms) if isinstance(layer, LayerNorm) else ())
    return parameters


def attributes_of(network: Network, theta: Array) -> dict[str, list[Array]]:
    """Return the fitted attributes that hold theta, on the host unless scikit-learn dispatches."""
    if not dispatches():
        theta = to_host(theta)
    layers = list(zip(network.layers, network.unpack(theta), strict=True))
    dense = [values for layer, values in layers if isinstance(layer, Dense)]
    norms = [values for layer, values in layers if isinstance(layer, LayerNorm)]
    attributes = {
        "coefs_": [weights for weights, _ in dense],
        "intercepts_": [bias[..., 0, :] for _, bias in dense],
    }
    return {**attributes, "layer_norms_": norms} if norms else attributes
