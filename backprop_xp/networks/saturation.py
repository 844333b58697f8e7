"""Saturated units: tanh and sigmoid of large inputs, whose slope, and so whose gradient, is 0."""

from collections.abc import Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace
from backprop_xp.networks import propagation
from backprop_xp.networks.activations import sigmoid, tanh
from backprop_xp.networks.column_layers import Columns
from backprop_xp.networks.propagation import Layer, Parameters

# A slope below this is 0 in single precision: |z| is above 8.7 for tanh, above 16 for sigmoid.
_NO_SLOPE = 1e-7


def saturated_share(
    layers: Sequence[Layer], parameters: Sequence[Parameters], x: Array
) -> Array | None:
    """Return the share of slopes that are 0 in the first layer of tanh or sigmoid units.

    The slopes are those of all its units for all rows and networks. None without such a layer.
    """
    found = _first_units(layers, parameters, x)
    if found is None:
        return None
    activation, a = found
    xp = array_namespace(a)
    slope = xp.abs(activation.vjp(xp.ones_like(a), None, a))
    return xp.mean(xp.astype(slope < _NO_SLOPE, a.dtype))


def _first_units(
    layers: Sequence[Layer], parameters: Sequence[Parameters], x: Array
) -> tuple[Any, Array] | None:
    """Return the activation and the output of the first layer of such units."""
    for layer, own in zip(layers, parameters, strict=True):
        inner = () if isinstance(layer, Columns) else getattr(layer, "layers", ())
        if inner:
            width, _ = propagation.check_chain(inner)
            found = _first_units(inner, propagation.split(inner, own), x[..., :width])
            if found is not None:
                return found
        x, _ = layer.forward(own, x, None)
        activation = getattr(layer, "activation", None)
        if activation in (tanh, sigmoid):
            return activation, x
    return None
