"""The network that an estimator's parameters describe, and its theta as fitted attributes.

scikit-learn keeps theta apart: as ``coefs_`` and ``intercepts_``, here with ``layer_norms_``.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import Array, Identity, to_host
from backprop_xp.estimators.parameters import NAMED_ACTIVATIONS, Model, hidden_sizes
from backprop_xp.estimators.samples import dispatches
from backprop_xp.networks.layers.activations import ACTIVATIONS, Activation
from backprop_xp.networks.layers.core import Dense, LayerNorm
from backprop_xp.networks.losses.loss import Loss
from backprop_xp.networks.mlp import activations_of, mlp
from backprop_xp.networks.network import Network


def network_of(model: Model, n_in: int, loss: Loss) -> Network:
    """Return the network of the parameters, with ``n_in`` inputs and ``n_outputs_`` outputs."""
    sizes = n_in, *hidden_sizes(model), model.n_outputs_
    given = *_activations(model), loss, model.dropout, model.layer_norm
    return _network(sizes, *map(Identity, given))


@functools.lru_cache(maxsize=64)  # each prediction asks for it
def _network(sizes: tuple[int, ...], *given: Identity) -> Network:
    *hidden, loss, dropout, layer_norm = (one.value for one in given)
    return mlp(sizes, hidden=hidden, loss=loss, dropout=dropout, layer_norm=layer_norm)


def _activations(model: Model) -> list[Activation]:
    chosen = model.activation
    given = chosen if isinstance(chosen, str | Activation) else [*chosen]
    return activations_of(given, len(hidden_sizes(model)), "activation", NAMED_ACTIVATIONS)


def draw_theta(model: Model, network: Network, random_state: Any) -> np.ndarray:
    """Return a first theta, ``(P,)``, or a stack with one for each start of each member.

    The bounds are scikit-learn's, for a bias too: Glorot and Bengio 2010, with a smaller factor for
    sigmoids. The output is drawn as the last hidden layer.
    """
    hidden = _activations(model)
    factors = [2.0 if a is ACTIVATIONS["sigmoid"] else 6.0 for a in [*hidden, *hidden[-1:]]]

    def draw_one() -> np.ndarray:
        values, left = list[np.ndarray](), iter(factors or [6.0])
        for layer in network.layers:
            if isinstance(layer, Dense):
                bound = float(np.sqrt(next(left) / (layer.n_in + layer.n_out)))
                values += [random_state.uniform(-bound, bound, shape) for shape in layer.shapes]
            else:
                values += layer.initialize(random_state)
        return np.concatenate([value.reshape(-1) for value in values])

    thetas = [draw_one() for _ in range(model.n_members * model.n_restarts)]
    return thetas[0] if len(thetas) == 1 else np.stack(thetas)


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
