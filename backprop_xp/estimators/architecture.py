"""The network that an estimator's parameters describe, and its theta as fitted attributes.

``model`` is an estimator. scikit-learn keeps theta apart, as ``coefs_`` and ``intercepts_``, with
``layer_norms_`` beside them.
"""

import operator
from typing import Any

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.estimators.samples import dispatches
from backprop_xp.networks.activations import ACTIVATIONS, Activation
from backprop_xp.networks.initializers import uniform
from backprop_xp.networks.layers import Activate, Dense, Dropout, LayerNorm
from backprop_xp.networks.layout import draw
from backprop_xp.networks.network import Network

# scikit-learn's name of what is called sigmoid here.
NAMED_ACTIVATIONS = {**ACTIVATIONS, "logistic": ACTIVATIONS["sigmoid"]}


def hidden_sizes(model: Any) -> list[int]:
    """Return the width of each hidden layer."""
    sizes = model.hidden_layer_sizes
    sizes = sizes if hasattr(sizes, "__iter__") else [sizes]
    return [operator.index(size) for size in sizes]


def network_of(model: Any, n_in: int) -> Network:
    """Return the network that the parameters and the outputs' number describe."""
    widths, activations = [n_in, *hidden_sizes(model)], _activations(model)
    layers: list[Any] = []
    for n, n_out, activation in zip(widths, widths[1:], activations, strict=False):
        drawn = _drawn(n, n_out, activation)
        if model.layer_norm:
            layers += [Dense(n, n_out, **drawn), LayerNorm(n_out), Activate(activation)]
        else:
            layers += [Dense(n, n_out, activation, **drawn)]
        if model.dropout:
            layers += [Dropout(model.dropout)]
    # The output's weights are drawn as the last hidden layer's.
    drawn = _drawn(widths[-1], model.n_outputs_, activations[-1] if activations else None)
    layers += [Dense(widths[-1], model.n_outputs_, **drawn)]
    return Network(layers, model._loss())


def _activations(model: Any) -> list[Activation]:
    """Return the activation of each hidden layer."""
    count, given = len(hidden_sizes(model)), model.activation
    given = [given] * count if isinstance(given, str | Activation) else list(given)
    if len(given) != count:
        raise ValueError(
            f"activation has {len(given)} entries, but there are {count} hidden layers: give "
            "one name for all of them, or one for each."
        )
    for name in given:
        if isinstance(name, str) and name not in NAMED_ACTIVATIONS:
            raise ValueError(f"activation {name!r} is none of {sorted(NAMED_ACTIVATIONS)}.")
    return [NAMED_ACTIVATIONS[name] if isinstance(name, str) else name for name in given]


def _drawn(n_in: int, n_out: int, activation: Activation | None) -> dict[str, Any]:
    """Return how weights and bias are drawn: Glorot and Bengio 2010, as scikit-learn does."""
    factor = 2.0 if activation is ACTIVATIONS["sigmoid"] else 6.0
    bound = float(np.sqrt(factor / (n_in + n_out)))
    return {"initializer": uniform(-bound, bound), "bias_initializer": uniform(-bound, bound)}


def drawn_theta(network: Network, random_state: Any, starts: int) -> np.ndarray:
    """Return a first theta, ``(P,)``, or a stack of several starts, ``(starts, P)``."""
    thetas = [
        np.concatenate([v.reshape(-1) for v in draw(network.layers, network.layout, random_state)])
        for _ in range(starts)
    ]
    return thetas[0] if starts == 1 else np.stack(thetas)


def theta_of(model: Any, network: Network) -> Array:
    """Return theta of the fitted attributes, which a user may have changed."""
    return network.pack(parameters_of(model, network))


def parameters_of(model: Any, network: Network) -> list[Any]:
    """Return each layer's parameters of the fitted attributes."""
    has_norms = any(isinstance(layer, LayerNorm) for layer in network.layers)
    if has_norms != hasattr(model, "layer_norms_"):
        raise ValueError(
            f"layer_norm is {model.layer_norm} now, but was not when this was fitted: fit anew."
        )
    wanted = [layer.shapes[0] for layer in network.layers if isinstance(layer, Dense)]
    shapes = [tuple(weights.shape) for weights in model.coefs_]
    if shapes != wanted:
        raise ValueError(
            f"The layers' weights are of shapes {wanted} now (hidden_layer_sizes, the targets and "
            f"loss say which), but were of {shapes} when this was fitted: fit anew."
        )
    dense = zip(model.coefs_, model.intercepts_, strict=True)
    norms = iter(getattr(model, "layer_norms_", []))
    parameters: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, Dense):
            weights, bias = next(dense)
            parameters.append((weights, bias[None, :]))
        else:
            parameters.append(next(norms) if isinstance(layer, LayerNorm) else ())
    return parameters


def attributes_of(network: Network, theta: Array) -> dict[str, Any]:
    """Return the fitted attributes that hold theta: views, where the choice says."""
    if not dispatches():
        theta = to_host(theta)
    layers = list(zip(network.layers, network.unpack(theta), strict=True))
    dense = [values for layer, values in layers if isinstance(layer, Dense)]
    norms = [values for layer, values in layers if isinstance(layer, LayerNorm)]
    attributes = {
        "coefs_": [weights for weights, _ in dense],
        "intercepts_": [bias[0, :] for _, bias in dense],
    }
    return {**attributes, "layer_norms_": norms} if norms else attributes
