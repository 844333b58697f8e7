"""Plain arrays of numbers, made of lists, tables and NumPy's other arrays where that is safe."""

from typing import Any

import numpy as np


def plain(value: Any, name: str) -> np.ndarray:
    """Return a plain array of numbers from a list, a table or any of NumPy's arrays.

    A subclass, an array of objects that are numbers and one in another byte order are converted. A
    masked value is a ValueError, what is no number a TypeError; either says the way out.
    """
    host = unmasked(value, name)
    if host.dtype.kind == "O":
        host = _unboxed(host, name)
    if host.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} has dtype {host.dtype}, but numbers are expected. {_way_out(host, name)}"
        )
    return host


def unmasked(value: Any, name: str) -> np.ndarray:
    """Return a plain array of whatever it holds, in the machine's byte order; refuse a mask."""
    for part in value if isinstance(value, list | tuple) else (value,):
        # Only NumPy's masked arrays have a mask: numpy.ma takes 10 ms to import.
        if isinstance(part, np.ndarray) and hasattr(part, "mask") and np.ma.is_masked(part):
            count = f"{np.count_nonzero(part.mask)} of {part.size}"
            raise ValueError(
                f"{name} has masked values ({count}), and a mask would be lost. Fill them in, "
                f"{name} = {name}.filled(0.0), or drop their rows."
            )
    try:
        host = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name} is not an array of numbers: {error}") from None
    return host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("="))


def require_plain(array: np.ndarray, name: str) -> None:
    """Refuse masked values, and arrays with which NumPy would compute something else.

    A ``numpy.matrix`` multiplies by another rule; in another byte order a dtype equals no other.
    """
    unmasked(array, name)
    name = name.partition(" (")[0]  # what stands in brackets is for the reader
    if type(array).__name__ == "matrix":
        raise TypeError(f"{name} is a numpy.matrix. Make it an array: numpy.asarray({name}).")
    if not array.dtype.isnative:
        native = array.dtype.newbyteorder("=")
        raise TypeError(
            f"{name} is {native} in the other byte order ({array.dtype.str}). Make it the "
            f"machine's own: {name}.astype({native.name!r})."
        )


def require_dtype(array: Any, name: str) -> None:
    """Raise TypeError for an array of JAX's random keys, whose dtype the standard does not know."""
    if str(getattr(array, "dtype", "")).startswith("key<"):
        raise TypeError(
            f"{name} is a random key of JAX ({array.dtype}), but integers are expected. Draw one "
            f"for each key: {name} = jax.random.bits({name}), or jax.vmap of it for several."
        )


def _unboxed(host: np.ndarray, name: str) -> np.ndarray:
    """Return an array of Python objects as numbers; the first that is none is a TypeError."""
    values = host.reshape(-1).tolist()
    strange = [i for i, value in enumerate(values) if not _is_number(value)]
    if not strange:
        # What is left of kind "O" is integers that do not fit in 64 bits.
        return np.asarray(values).reshape(host.shape)
    if not host.shape:
        raise TypeError(f"{name} must be an array of numbers, not {type(host.item()).__name__}.")
    first = values[strange[0]]
    place = f"{name}{[int(i) for i in np.unravel_index(strange[0], host.shape)]}"
    if _is_missing(first):
        missing = sum(_is_missing(values[i]) for i in strange)
        raise TypeError(
            f"{name} has missing values ({missing} of {host.size}), the first {first} at {place}. "
            "Drop such rows, or fill them in."
        )
    raise TypeError(
        f"{name} has dtype object, but numbers are expected: {first!r} at {place} is of "
        f"{type(first).__name__}. {_way_out(host, name)}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex | np.number | np.bool)


def _is_missing(value: Any) -> bool:
    # pandas' NA and NaT are known by name: no table library is imported for them.
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _way_out(host: np.ndarray, name: str) -> str:
    """Return a sentence with the line that makes numbers of an array of something else."""
    kind, values = host.dtype.kind, host.reshape(-1).tolist() if host.dtype.kind == "O" else []
    if kind == "M":
        return f'Count from a day: {name} = ({name} - {name}.min()) / numpy.timedelta64(1, "D").'
    if kind == "m":
        return f'Count in days: {name} = {name} / numpy.timedelta64(1, "D").'
    if kind == "V":
        return f"Unpack it: {name} = numpy.lib.recfunctions.structured_to_unstructured({name})."
    try:
        host.astype(np.float64)
    except (ValueError, TypeError):
        pass
    else:
        return f"They can be read as such: {name} = numpy.asarray({name}, dtype=float)."
    if kind == "O" and not all(isinstance(value, str) for value in values):
        return "Number the categories of each such column by itself, or drop it."
    return f"Number the classes: classes, {name} = numpy.unique({name}, return_inverse=True)."
