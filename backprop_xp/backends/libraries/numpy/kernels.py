"""Loops that Numba compiles: what lies between the matrix products, in one pass over the arrays.

NumPy passes over its arrays once for each operation. The loops run on one thread, because threads
of their own would wait busily beside those of BLAS. They are functions of a module: Numba keeps no
code of functions that are made within another.

``REPLACEMENTS`` are those of ``Backend.training_replacements``. Each returns NotImplemented for
what its loop does not take: another activation or loss, a stack of two axes, complex numbers.
"""

from backprop_xp.backends.libraries.numpy.dense_loops import DENSE
from backprop_xp.backends.libraries.numpy.row_loops import ROWS
from backprop_xp.backends.libraries.numpy.update_loops import UPDATES
from backprop_xp.backends.libraries.numpy.wave_loops import WAVES
from backprop_xp.backends.protocol import Function

REPLACEMENTS: dict[str, Function] = {**DENSE, **ROWS, **UPDATES, **WAVES}
