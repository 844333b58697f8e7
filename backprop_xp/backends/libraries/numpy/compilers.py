"""The options with which Numba compiles loops. Their machine code is kept on disk."""

from typing import Any

import numba

# A product and a sum may be rounded once. No other freedom: NaN, infinity and order are kept.
compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
# Sums of a row may also be taken in another order, as NumPy's are.
summing: Any = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"}
)
