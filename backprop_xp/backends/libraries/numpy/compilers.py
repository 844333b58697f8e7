"""The options with which Numba compiles loops; it keeps their machine code on disk."""

from typing import Any, TypeVar

import numba

from backprop_xp.backends.protocol import Function

F = TypeVar("F", bound=Function)


def compiled(function: F) -> F:
    """Compile a function; a product and a sum may be rounded once.

    NumPy's rules for NaN, infinity and the order of operations hold.
    """
    return _made(function, {"contract"})


def summing(function: F) -> F:
    """Compile a function that may also take its sums in another order, as NumPy does."""
    return _made(function, {"contract", "reassoc"})


def _made(function: F, fastmath: set[str]) -> F:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    made: F
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written: the code is compiled in each process
        made = numba.njit(**options)(function)
    return made
