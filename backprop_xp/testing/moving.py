"""Moving data: from the host to a device, back, and between devices."""

import functools
from typing import Any

import numpy as np

from backprop_xp.backends import Backend, Device, asarray
from backprop_xp.testing.comparing import (
    REAL,
    put,
    require_dtype,
    require_same,
    require_there,
    require_values,
    widest,
)
from backprop_xp.testing.kit import Check, NotApplicable, expect

_DTYPES = ("bool", "int32", "uint8", "float32", "float64", "complex64", "complex128")
_TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)


def _read_only() -> np.ndarray:
    array = np.array([1.0, 2.0, 3.0], np.float32)
    array.flags.writeable = False
    return array


_LAYOUTS = {
    "no axes": np.array(2.5, np.float32),
    "no entries": np.zeros((0, 3), np.float32),
    "every second": _TABLE[:, ::2],
    "reversed": _TABLE[0, ::-1],
    "transposed": _TABLE.T,
    "Fortran order": np.asfortranarray(_TABLE),
    "broadcast": np.broadcast_to(np.float32(1.5), (2, 3)),
    "read-only": _read_only(),
    "a slice": _TABLE[1:, 1:3],
}


def _values(dtype: str) -> np.ndarray:
    numbers = np.array([[0, 1, 2], [3, 100, 127]])
    if dtype.startswith("complex"):
        return (0.1 * numbers - 0.3j).astype(dtype)
    return (0.1 * numbers if dtype.startswith("float") else numbers).astype(dtype)


def _round_trip(host: np.ndarray, backend: Backend, device: Device) -> None:
    require_dtype(backend, device, host.dtype.name)
    before = host.copy()
    (there,) = put(backend, device, host)
    require_there(backend, device, there, "the array of from_host")
    back = backend.to_host(there)
    expect(isinstance(back, np.ndarray), f"to_host returns a {type(back).__name__}")
    expect(back.dtype == host.dtype, f"{host.dtype} comes back as {back.dtype}")
    require_same(backend, device, there, host, "the array of from_host")
    expect(np.array_equal(back, before), "values were rounded on the way")
    expect(np.array_equal(host, before), "the host's own array was changed")


def _int64(backend: Backend, device: Device) -> None:
    """Row numbers come in NumPy's int64; a library may keep them in a smaller integer."""
    host = np.array([5, 0, 3])
    (there,) = put(backend, device, host)
    require_same(backend, device, there, host, "the array of from_host")


def _cast(dtype: str, backend: Backend, device: Device) -> None:
    wanted = require_dtype(backend, device, dtype)
    for host in (np.arange(3), np.linspace(-1, 1, 3), np.array([True, False])):
        there = backend.from_host(host, wanted, device)
        require_same(backend, device, there, host.astype(dtype), f"{host.dtype} as {dtype}")


def _views(backend: Backend, device: Device) -> None:
    """Slices and transposes of arrays that are there already."""
    (x,) = put(backend, device, _TABLE)
    xp = backend.namespace()
    for here, there in (
        (x[:, ::2], _TABLE[:, ::2]),
        (xp.matrix_transpose(x), _TABLE.T),
        (xp.broadcast_to(x[:1, :], (2, 4)), np.broadcast_to(_TABLE[:1], (2, 4))),
        (x[1, 2], _TABLE[1, 2]),
        (xp.sum(x), np.sum(_TABLE)),
    ):
        require_same(backend, device, here, there, "a view")


def _public_asarray(backend: Backend, device: Device) -> None:
    dtype = widest(backend, device)
    made = asarray([[0.5, 1.0]], backend=backend, device=device, dtype=dtype)
    require_same(backend, device, made, np.array([[0.5, 1.0]], dtype), "bx.asarray")
    again = asarray(made, backend=backend, device=device, dtype="float32")
    require_same(backend, device, again, np.array([[0.5, 1.0]], np.float32), "bx.asarray")
    back: Any = asarray(made, backend="numpy", device="cpu", dtype=dtype)
    expect(isinstance(back, np.ndarray), f"bx.asarray(x, backend='numpy') is a {type(back)}")
    require_values(back, np.array([[0.5, 1.0]], dtype), "bx.asarray(x, backend='numpy')")


def _between_devices(backend: Backend, device: Device) -> None:
    others = [other for other in backend.devices() if other != device]
    if not others:
        raise NotApplicable("there is one device")
    (array,) = put(backend, device, _TABLE)
    moved = asarray(array, backend=backend, device=others[0], dtype="float32")
    require_same(backend, others[0], moved, _TABLE, "an array moved to another device")
    require_same(backend, device, array, _TABLE, "the array that was moved")


CHECKS = [
    *(
        Check(
            "moving data",
            dtype,
            f"{dtype} goes there and back unchanged",
            functools.partial(_round_trip, _values(dtype)),
        )
        for dtype in _DTYPES
    ),
    Check("moving data", "int64", "row numbers in NumPy's int64 go there and back", _int64),
    *(
        Check(
            "moving data",
            f"layout: {name}",
            "an array of the host goes there and back, however it lies in memory",
            functools.partial(_round_trip, host),
        )
        for name, host in _LAYOUTS.items()
    ),
    *(
        Check(
            "moving data",
            f"cast to {dtype}",
            f"from_host casts to {dtype}",
            functools.partial(_cast, dtype),
        )
        for dtype in (*REAL, "int32")
    ),
    Check("moving data", "views", "to_host takes slices and transposes", _views),
    Check("moving data", "bx.asarray", "bx.asarray brings data there and back", _public_asarray),
    Check("moving data", "between devices", "bx.asarray moves between devices", _between_devices),
]
