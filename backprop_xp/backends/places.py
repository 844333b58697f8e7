"""Where an array is, said in words, and the line of code that brings another one there."""

from typing import Any

import array_api_compat

from backprop_xp.backends.importing import ask
from backprop_xp.backends.libraries import dtype_name
from backprop_xp.backends.protocol import Array, Device, DType, Namespace
from backprop_xp.backends.registry import owner


def device_of(array: Any) -> Device:
    """Return an array's device; None for a JAX tracer, which has none yet."""
    return ask(array_api_compat.device, array)


def same_device(one: Device, other: Device) -> bool:
    """Say whether two devices of arrays are one; a JAX tracer's, not known yet, may be any."""
    return one is None or other is None or bool(one == other)


def place(array: Any) -> str:
    """Return words such as ``"cupy's on cuda:0"``."""
    home, where = owner(array), device_of(array)
    if home is None:
        return f"a {type(array).__name__}"
    return f"{home.name}'s" if where is None else f"{home.name}'s on {home.device_name(where)}"


def precision_of(xp: Namespace, dtype: DType) -> DType | None:
    """Return the real dtype of a floating dtype's precision, or None for any other dtype.

    A complex dtype that is neither complex64 nor complex128 is returned itself.
    """
    if xp.isdtype(dtype, "complex floating"):
        if dtype == xp.complex64:
            return xp.float32
        return xp.float64 if dtype == xp.complex128 else dtype
    return dtype if xp.isdtype(dtype, "real floating") else None


def is_computed_in(xp: Namespace, dtype: DType) -> bool:
    """Say whether a dtype is float32, float64 or the complex dtype of either.

    float16, bfloat16 and long doubles are floating dtypes as well, to those who have them.
    """
    return precision_of(xp, dtype) in (xp.float32, xp.float64)


def repair(name: str, value: Array, beside: Array, dtype: str | None = None) -> str:
    """Return the line that brings the variable ``name``, which is ``value``, beside an array.

    Of what nothing can be assigned to, it is the call alone; in ``"parameters[0][1] (bias)"`` what
    stands in brackets is for the reader. Floating values take that array's precision as well: moved
    alone, they would take the default. ``dtype`` names another one for values of any kind.
    """
    home, source, where = owner(beside), owner(value), device_of(beside)
    if home is None or source is None:
        raise TypeError(f"{name} and what it is put beside must be arrays of known libraries.")
    name = name.partition(" (")[0]
    call = f"bx.asarray({name}, backend={home.name!r}"
    if where is not None:
        call += f", device={home.device_name(where)!r}"
    precision = precision_of(home.namespace(), beside.dtype)
    if precision is not None and precision_of(source.namespace(), value.dtype) is not None:
        dtype = dtype or dtype_name(precision)
    if dtype is not None:
        call += f", dtype={dtype!r}"
    return f"{name} = {call})" if name.isidentifier() else f"{call})"
