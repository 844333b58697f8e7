"""Loops that Numba compiles: what lies between the matrix products, in one pass over the arrays.

NumPy passes over its arrays once for each operation. The loops run on one thread, because threads
of their own would wait busily beside those of BLAS. They are functions of a module: Numba keeps no
code of functions that are made within another.

``ACTIVATIONS`` and ``LOSSES`` are the names of the formulas that the loops have.
"""

from backprop_xp.backends.libraries.numpy.dense_loops import (
    ACTIVATIONS as ACTIVATIONS,
    activation as activation,
    dense as dense,
)
from backprop_xp.backends.libraries.numpy.row_loops import (
    LOSSES as LOSSES,
    dropped as dropped,
    loss as loss,
    normalized as normalized,
    normalized_back as normalized_back,
)
from backprop_xp.backends.libraries.numpy.update_loops import rule_of as rule_of
from backprop_xp.backends.libraries.numpy.wave_loops import (
    embedded as embedded,
    embedded_back as embedded_back,
)
