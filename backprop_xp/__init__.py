"""Neural networks whose backpropagation is written by hand, once, for every array library."""

from backprop_xp import activations, initializers, losses
from backprop_xp.activations import Activation
from backprop_xp.backends import (
    asarray,
    get_backend,
    list_backends,
    resolve,
    set_default_backend,
    use_backend,
)
from backprop_xp.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.losses import Loss
from backprop_xp.network import Network, mlp

__version__ = "0.1.0.dev0"

__all__ = [
    "Activate",
    "Activation",
    "Dense",
    "Dropout",
    "LayerNorm",
    "Loss",
    "Network",
    "Residual",
    "activations",
    "asarray",
    "get_backend",
    "initializers",
    "list_backends",
    "losses",
    "mlp",
    "resolve",
    "set_default_backend",
    "use_backend",
]
