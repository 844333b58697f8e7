"""The options with which Numba compiles loops; it keeps their machine code on disk."""

from typing import Any, TypeVar

import numba

from backprop_xp.backends.protocol import Function

F = TypeVar("F", bound=Function)


def jit(function: F) -> F:
    """Compile a function by the rules of NumPy: each operation is rounded, in the order written.

    The results are then the same for each layout of the arrays, and with or without vectors.
    """
    return _jitted(function, False)


def summing(function: F) -> F:
    """Compile a function that may take its sums in another order, as NumPy does."""
    return _jitted(function, {"reassoc"})


def _jitted(function: F, fastmath: set[str] | bool) -> F:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    jitted: F
    try:
        jitted = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written: the code is compiled in each process
        jitted = numba.njit(**options)(function)
    return jitted
