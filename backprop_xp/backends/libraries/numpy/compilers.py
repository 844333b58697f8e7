"""The options with which Numba compiles loops; it keeps their machine code on disk."""

from typing import Any, TypeVar

import numba

from backprop_xp.backends.protocol import Function

F = TypeVar("F", bound=Function)

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def compiled(function: F) -> F:
    """Compile a function; a product and a sum may be rounded once.

    NumPy's rules for NaN, infinity and the order of operations hold.
    """
    made: F = numba.njit(**_OPTIONS, fastmath={"contract"})(function)
    return made


def summing(function: F) -> F:
    """Compile a function that may also take its sums in another order, as NumPy does."""
    made: F = numba.njit(**_OPTIONS, fastmath={"contract", "reassoc"})(function)
    return made
