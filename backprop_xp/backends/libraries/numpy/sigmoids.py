"""A faster sigmoid for NumPy, that of ``backprop_xp.networks.layers.activations``."""

import numpy as np

from backprop_xp.backends.protocol import Array


def sigmoid(z: Array) -> Array:
    """Replace ``_sigmoid``, in three fifths of the time: NumPy's minimum takes as long as its exp.

    Where the reference cuts exp off, this is 0.
    """
    if z.dtype.kind != "f" or not z.ndim:
        return NotImplemented
    a: Array = np.negative(z)
    with np.errstate(over="ignore"):
        np.exp(a, out=a)
    a += 1.0
    return np.divide(1.0, a, out=a)
