"""Plain NumPy arrays of numbers, made from lists, tables and NumPy's other arrays."""

import numpy as np

from backprop_xp.backends.protocol import Array
from backprop_xp.checks import unravel

_NUMBERS = (bool, int, float, complex, np.number, np.bool)
_MISSING = ("NoneType", "NAType", "NaTType")


def plain_numbers(value: object, name: str) -> np.ndarray:
    """Return a plain array of numbers from a list, a table or any of NumPy's arrays.

    A subclass, an array of objects that are numbers, and another byte order are converted. A masked
    value is a ValueError, and any other value that is not a number is a TypeError.
    """
    host = plain_array(value, name)
    if host.dtype.kind == "O":
        host = _unbox(host, name)
    if host.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} has dtype {host.dtype}, but numbers are expected. {_way_out(host, name)}"
        )
    return host


def plain_array(value: object, name: str) -> np.ndarray:
    """Return a plain array of any dtype in the machine's byte order; refuse masked values."""
    refuse_distributed(value, name)
    refuse_masked(value, name)
    try:
        host = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name} is not an array of numbers: {error}") from None
    return host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("="))


def refuse_masked(value: object, name: str) -> None:
    """Raise ValueError for an array, or a list of arrays, with masked values."""
    for part in value if isinstance(value, list | tuple) else (value,):
        # Only NumPy's masked arrays have a mask. The attribute is asked first, since the import of
        # numpy.ma takes 10 ms.
        if isinstance(part, np.ndarray) and hasattr(part, "mask") and np.ma.is_masked(part):
            count = f"{np.count_nonzero(part.mask)} of {part.size}"
            raise ValueError(
                f"{name} has masked values ({count}), and a mask would be lost. Fill them in, "
                f"{name} = {name}.filled(0.0), or drop their rows."
            )


def refuse_distributed(value: object, name: str) -> None:
    """Raise TypeError for rows that may not fit into the memory: of Dask, Ray, or a LazyFrame."""
    kind, graph = type(value), getattr(value, "__dask_graph__", None)
    if kind.__module__.partition(".")[0] == "polars" and kind.__name__ == "LazyFrame":
        raise TypeError(
            f"{name} is a LazyFrame of polars, which nothing collects silently: give the DataFrame "
            "that its method collect() returns."
        )
    # An object of xarray has the method too; without a graph its rows are in memory.
    if kind.__module__.partition(".")[0] == "ray" or (graph is not None and graph() is not None):
        raise TypeError(
            f"{name} is distributed ({kind.__module__}.{kind.__name__}), and nothing gathers it "
            "silently: docs/dask_and_ray.md shows how to train and predict by its parts."
        )


def require_plain(array: np.ndarray, name: str) -> None:
    """Refuse masked values, and arrays whose arithmetic differs from a plain array's.

    A ``numpy.matrix`` has another product, a masked array keeps axes that an index should drop. A
    dtype in another byte order equals no native dtype.
    """
    plain_array(array, name)
    name = name.partition(" (")[0]  # without a remark in brackets
    kind = "numpy.matrix" if type(array).__name__ == "matrix" else "masked array without a mask"
    if kind == "numpy.matrix" or hasattr(array, "mask"):
        line = f"numpy.asarray({name})"
        line = f"{name} = {line}" if name.isidentifier() else line
        raise TypeError(f"{name} is a {kind}. Make it an array: {line}.")
    if not array.dtype.isnative:
        native = array.dtype.newbyteorder("=")
        raise TypeError(
            f"{name} is {native} in the other byte order ({array.dtype.str}). Convert it to the "
            f"machine's: {name}.astype({native.name!r})."
        )


def require_dtype(array: Array, name: str) -> None:
    """Raise TypeError for random keys of JAX, whose dtype the standard does not know."""
    if str(getattr(array, "dtype", "")).startswith("key<"):
        raise TypeError(
            f"{name} is a random key of JAX ({array.dtype}), but integers are expected. Draw one "
            f"for each key: {name} = jax.random.bits({name}), or jax.vmap of it for several."
        )


def require_dense(array: Array, name: str) -> None:
    """Raise TypeError for a sparse tensor of PyTorch, which few functions take."""
    layout = str(getattr(array, "layout", ""))
    if layout.startswith("torch.") and layout != "torch.strided":
        raise TypeError(
            f"{name} has the layout {layout}, but a dense tensor is expected: {name} = "
            f"{name}.to_dense()."
        )


def _unbox(host: np.ndarray, name: str) -> np.ndarray:
    """Return an array of Python objects as numbers; the first other object is a TypeError."""
    values = host.reshape(-1).tolist()
    others = {i: value for i, value in enumerate(values) if not isinstance(value, _NUMBERS)}
    if not others:
        # Integers that do not fit in 64 bits remain of kind "O".
        return np.asarray(values).reshape(host.shape)
    if not host.shape:
        raise TypeError(f"{name} must be an array of numbers, not {type(host.item()).__name__}.")
    index, first = next(iter(others.items()))
    entry = f"{name}{list(unravel(index, host.shape))}"
    # By name, since pandas' NA and NaT would need an import.
    kinds = [type(value).__name__ for value in others.values()]
    if kinds[0] in _MISSING:
        missing = sum(kind in _MISSING for kind in kinds)
        raise TypeError(
            f"{name} has missing values ({missing} of {host.size}), the first {first} at {entry}. "
            "Drop such rows, or fill them in."
        )
    raise TypeError(
        f"{name} has dtype object, but numbers are expected: {first!r} at {entry} is of "
        f"{type(first).__name__}. {_way_out(host, name)}"
    )


def _way_out(host: np.ndarray, name: str) -> str:
    """Return a sentence with the line of code that converts other values to numbers."""
    kind = host.dtype.kind
    if kind == "M":
        return f'Convert to days: {name} = ({name} - {name}.min()) / numpy.timedelta64(1, "D").'
    if kind == "m":
        return f'Convert to days: {name} = {name} / numpy.timedelta64(1, "D").'
    if kind == "V":
        return f"Unpack it: {name} = numpy.lib.recfunctions.structured_to_unstructured({name})."
    try:
        host.astype(np.float64)
    except OverflowError:
        return "An integer of it is larger than all of float64: choose a larger unit."
    except (ValueError, TypeError):
        if kind == "O" and not all(isinstance(value, str) for value in host.flat):
            return "Encode the categories of each such column as numbers, or drop it."
        return f"Number the classes: classes, {name} = numpy.unique({name}, return_inverse=True)."
    return f"Convert them: {name} = numpy.asarray({name}, dtype=float)."
