"""Moves of arrays to the chosen backend, to the device of another array, and to the host."""

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends.choice import Selection, keeps_dtype, resolve
from backprop_xp.backends.compatibility import device_of, require_owner
from backprop_xp.backends.dtypes_and_devices import dtype_name
from backprop_xp.backends.guard import explicit
from backprop_xp.backends.host_numbers import plain_numbers, require_dense, require_dtype
from backprop_xp.backends.protocol import Array, Backend, Device, DType, Namespace
from backprop_xp.backends.registry import array_namespace, owner
from backprop_xp.backends.replacements import replaceable


def asarray(
    x: Any, *, backend: str | Backend | None = None, device: Device = None, dtype: DType = None
) -> Array:
    """Return ``x`` as an array of the chosen backend, device and dtype.

    ``x`` is a number, nested lists, or an array of any library, which is moved if needed; the
    result may share its memory. x itself does not choose; the default is NumPy.
    Integers and booleans keep their dtype unless ``dtype`` is given. Floating values take the
    chosen dtype, complex ones the complex dtype of that precision. Raises TypeError for values that
    are not numbers.

    >>> import backprop_xp as bx
    >>> bx.asarray([[0.25, 1.0]], dtype="float32")
    array([[0.25, 1.  ]], dtype=float32)
    """
    choice = resolve(backend=backend, device=device, dtype=dtype)
    return chosen_array(x, choice, keep_integers=dtype is None)


def chosen_array(x: Any, choice: Selection, *, keep_integers: bool = False) -> Array:
    """Return what ``asarray`` does, for a choice that is made."""
    xp = choice.backend.namespace()
    source = owner(x)
    if source is None or source.name == "numpy":
        x = plain_numbers(x, "x")
        source = require_owner(x, "x")
    else:
        require_dtype(x, "x")
        require_dense(x, "x")
    target = _target_dtype(source.namespace(), x, choice, keep_integers=keep_integers)
    if source is not choice.backend:
        return choice.backend.from_host(source.to_host(x), target, choice.device)
    if device_of(x) != choice.device:
        if target is not None and not keeps_dtype(source, x.dtype, choice.device):
            x = xp.astype(x, target)  # before the move: the new device does not keep its dtype
        x = explicit(xp.asarray)(x, device=choice.device)
    return x if target is None else xp.astype(x, target, copy=False)


def _target_dtype(
    source: Namespace, x: Array, choice: Selection, *, keep_integers: bool
) -> DType | None:
    """Return the dtype to give ``x``; None for its own."""
    if not source.isdtype(x.dtype, "complex floating"):
        keep = keep_integers and not source.isdtype(x.dtype, "real floating")
        return None if keep else choice.dtype
    xp = choice.backend.namespace()
    if xp.isdtype(choice.dtype, "complex floating"):
        return choice.dtype
    if not xp.isdtype(choice.dtype, "real floating"):
        raise TypeError(f"x is complex, but dtype {dtype_name(choice.dtype)} is requested.")
    return _complex(xp, choice.dtype)  # which keeps the imaginary part


def _complex(xp: Namespace, dtype: DType) -> DType:
    return xp.complex64 if dtype == xp.float32 else xp.complex128


def to_device_of(array: Array, host: np.ndarray, dtype: DType | None = None) -> Array:
    """Return host numbers on an array's device, in ``dtype``; complex ones in its precision.

    The default is float64, or float32 on a device that keeps no float64.
    """
    backend, device = require_owner(array, "array"), device_of(array)
    xp = backend.namespace()
    if dtype is None:
        dtype = xp.float64 if keeps_dtype(backend, xp.float64, device) else xp.float32
    return backend.from_host(host, _complex(xp, dtype) if host.dtype.kind == "c" else dtype, device)


def is_host_number(value: object) -> bool:
    """Return whether ``value`` is a NumPy array without axes: a number on the host."""
    return isinstance(value, np.ndarray) and not value.shape


def to_host(array: Array) -> np.ndarray:
    """Return the values of an array of any library as NumPy's, after waiting for them.

    >>> import backprop_xp as bx
    >>> bx.to_host(bx.asarray([0.5, 1.0], backend="array-api-strict", device="device1"))
    array([0.5, 1. ])
    """
    backend = owner(array)
    return np.asarray(array) if backend is None else backend.to_host(array)


def host_numbers(value: Any, name: str) -> np.ndarray:
    """Return ``plain_numbers`` of a value that may be an array of any library."""
    home = owner(value)
    is_elsewhere = home is not None and home.name != "numpy"
    return plain_numbers(to_host(value) if is_elsewhere else value, name)


def checksum(array: Array) -> int:
    """Return the CRC-32 of an array's bytes."""
    values: Any = np.ascontiguousarray(to_host(array))
    return zlib.crc32(values)


@replaceable
def agreed(array: Array, number: int) -> int:
    """Return a number of this process, or that of the first of all processes that share an array.

    Such processes must make the same calls of compiled functions.
    """
    return number


def to_host_together(arrays: Sequence[Array]) -> list[np.ndarray]:
    """Return the values of arrays of one dtype and device as NumPy's, moved in one transfer."""
    return [to_host(arrays[0])] if len(arrays) == 1 else _moved(arrays[0], arrays)


@replaceable
def _moved(first: Array, arrays: Sequence[Array]) -> list[np.ndarray]:
    """Return what ``to_host_together`` does for several arrays."""
    xp = array_namespace(first)
    flat = to_host(xp.concat([xp.reshape(array, (-1,)) for array in arrays]))
    ends = itertools.accumulate(math.prod(array.shape) for array in arrays)
    parts = np.split(flat, list(ends)[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]
