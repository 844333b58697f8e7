"""Saturated units: tanh and sigmoid of large inputs, whose slope, and so whose gradient, is 0."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace
from backprop_xp.networks.chain.propagation import Layer, Parameters, check_chain
from backprop_xp.networks.layers.activations import sigmoid, tanh

# A slope below this is 0 in single precision: |z| is above 8.7 for tanh, above 16 for sigmoid.
_NO_SLOPE = 1e-7


class Units(NamedTuple):
    """The last of these layers has tanh or sigmoid units, and the first one weighs ``inputs``."""

    layers: Sequence[Any]
    parameters: Sequence[Parameters]
    inputs: Array

    def saturated_share(self, inputs: Array) -> Array:
        """Return the share of slopes that are 0, of all units for all rows and networks."""
        a = inputs
        for layer, own in zip(self.layers, self.parameters, strict=True):
            a, _ = layer.forward(own, a, None)
        xp, activation = array_namespace(a), self.layers[-1].activation
        slope = xp.abs(activation.vjp(xp.ones_like(a), None, a))
        return xp.mean(xp.astype(slope < _NO_SLOPE, a.dtype))


def first_units(
    layers: Sequence[Layer], parameters: Sequence[Parameters], x: Array
) -> Units | None:
    """Return the first tanh or sigmoid units; None without any."""
    start, inputs = 0, x
    for i, (layer, own) in enumerate(zip(layers, parameters, strict=True)):
        chain: Any = layer
        if getattr(layer, "runs_in_order", False):
            width, _ = check_chain(chain.layers)
            found = first_units(chain.layers, chain.by_layer(own), x[..., :width])
            if found is not None:
                return found
        if own:
            start, inputs = i, x
        if getattr(layer, "activation", None) in (tanh, sigmoid):
            return Units(layers[start : i + 1], parameters[start : i + 1], inputs)
        x, _ = layer.forward(own, x, None)
    return None
