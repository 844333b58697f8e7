"""Arrays on the backend under test, and their comparison with NumPy's."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from backprop_xp.backends import Array, Backend, Device, DType, device_of
from backprop_xp.testing.kit import NotApplicable, expect

# Rounding of some hundred operations, relative to the largest entry that NumPy computes.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12, "complex64": 1e-5, "complex128": 1e-12}
REAL = ("float32", "float64")
FLOATING = ("float32", "float64", "complex64", "complex128")

# Imaginary parts as small as those of the gradient check's complex step: they must not be lost.
_IMAGINARY = {"complex64": 2.0**-40, "complex128": 2.0**-66}
_REQUIRED = ("bool", "int32", "float32")


def require_dtype(backend: Backend, device: Device, name: str) -> DType:
    """Return the backend's dtype of that name; NotApplicable where a device may lack it and does.

    Every device must have bool, int32 and float32.
    """
    dtype = getattr(backend.namespace(), name, None)
    if name in _REQUIRED:
        expect(dtype is not None, f"the namespace has no {name}")
        return dtype
    if dtype is None:
        raise NotApplicable(f"the namespace has no {name}")
    try:
        there = backend.from_host(np.zeros(1, name), dtype, device)
    except Exception as error:
        raise NotApplicable(f"no {name} on this device: {' '.join(str(error).split())}") from None
    expect(there.dtype == dtype, f"{name} silently became {there.dtype}")
    return dtype


def precision_for(backend: Backend, dtype: str) -> AbstractContextManager[None]:
    """Return full precision for complex numbers, which are a gradient check's, and what is usual.

    Outside of a check a GPU's products may lose the complex step's imaginary part.
    """
    return backend.full_precision() if dtype in _IMAGINARY else nullcontext()


def widest(backend: Backend, device: Device) -> str:
    """Return ``"float64"`` where the device has it, else ``"float32"``."""
    try:
        require_dtype(backend, device, "float64")
    except NotApplicable:
        return "float32"
    return "float64"


def has_complex(backend: Backend, device: Device, precision: str) -> bool:
    """Say whether the device has the complex dtype of a precision."""
    try:
        require_dtype(backend, device, {"float32": "complex64", "float64": "complex128"}[precision])
    except NotApplicable:
        return False
    return True


def cast(host: np.ndarray, dtype: str) -> np.ndarray:
    """Return a floating array in another dtype, a complex one with tiny imaginary parts."""
    if host.dtype.kind != "f":
        return host
    if dtype not in _IMAGINARY:
        return host.astype(dtype)
    tiny = _IMAGINARY[dtype] * (1.0 + np.arange(host.size).reshape(host.shape) % 3)
    return np.asarray(host + 1j * tiny, dtype)


def put(backend: Backend, device: Device, *hosts: np.ndarray) -> list[Array]:
    """Return arrays of the host, in their own dtypes, on the device."""
    return [backend.from_host(host, device=device) for host in hosts]


def require_same(backend: Backend, device: Device, here: Any, there: Any, what: str = "it") -> None:
    """Raise AssertionError unless ``here`` is an array on the device with the values of NumPy's.

    Booleans and integers must be equal, floating values within ``TOLERANCES`` of the largest entry,
    real and imaginary parts each for itself. Python numbers and strings must be equal; lists and
    tuples agree item by item.
    """
    if isinstance(there, list | tuple):
        expect(len(here) == len(there), f"{what} has {len(here)} items, not {len(there)}")
        for i, (one, other) in enumerate(zip(here, there, strict=True)):
            require_same(backend, device, one, other, f"{what}[{i}]")
        return
    if not isinstance(there, np.ndarray | np.generic):
        expect(here == there, f"{what} is {here!r}, but {there!r} on NumPy")
        return
    require_there(backend, device, here, what)
    _require_dtype_of(backend, here, np.asarray(there), what)
    host = backend.to_host(here)
    shape = tuple(here.shape)
    expect(shape == there.shape, f"{what} has shape {shape}, but {there.shape} on NumPy")
    require_values(host, np.asarray(there), what)


def require_computed(
    backend: Backend, device: Device, compute: Callable[..., Any], *hosts: np.ndarray
) -> None:
    """Raise AssertionError unless ``compute(*arrays)`` on the device is what it is on NumPy."""
    here = compute(*put(backend, device, *hosts))
    require_same(backend, device, here, compute(*hosts), "the result")


def require_computed_in(
    compute: Callable[..., Any],
    hosts: tuple[np.ndarray, ...],
    dtype: str,
    backend: Backend,
    device: Device,
) -> None:
    """Do as ``require_computed`` in a dtype; NotApplicable where the device lacks it.

    With complex numbers it is done in full precision, as the gradient check that needs them is.
    """
    require_dtype(backend, device, dtype)
    with precision_for(backend, dtype):
        require_computed(backend, device, compute, *(cast(host, dtype) for host in hosts))


def require_there(backend: Backend, device: Device, here: Any, what: str = "it") -> None:
    """Raise AssertionError unless ``here`` is an array of the backend on the device."""
    kind = f"{type(here).__module__}.{type(here).__qualname__}"
    expect(backend.owns(here), f"{what} is a {kind}, no array of {backend.name}")
    where = device_of(here)
    expect(where == device, f"{what} is on {where}, not on {device}")


def require_values(host: np.ndarray, there: np.ndarray, what: str = "it") -> None:
    """Raise AssertionError unless an array of the host has NumPy's values."""
    if there.dtype.kind == "c":
        require_values(np.asarray(host).real, there.real, f"the real part of {what}")
        require_values(np.asarray(host).imag, there.imag, f"the imaginary part of {what}")
        return
    expect(host.shape == there.shape, f"{what} has shape {host.shape}, but {there.shape} on NumPy")
    if there.dtype.kind != "f":
        _refuse_first(host != there, host, there, what, "")
        return
    # In float64 the difference of two float32 numbers is exact.
    ours, numpys = host.astype(np.float64), there.astype(np.float64)
    finite = np.isfinite(numpys)
    tolerance = TOLERANCES[there.dtype.name]
    allowed = tolerance * float(np.max(np.abs(numpys), initial=0.0, where=finite))
    same = np.where(finite, np.abs(ours - numpys) <= allowed, ours == numpys)
    same |= np.isnan(ours) & np.isnan(numpys)
    _refuse_first(~same, host, there, what, f"; {tolerance:g} of the largest entry is allowed")


def _refuse_first(
    wrong: np.ndarray, host: np.ndarray, there: np.ndarray, what: str, rule: str
) -> None:
    if not np.any(wrong):
        return
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = int(np.sum(wrong))
    expect(
        False,
        f"{what} is {host[place]} at {list(place)}, but {there[place]} on NumPy "
        f"({count} of {wrong.size} entries differ{rule})",
    )


def _require_dtype_of(backend: Backend, here: Array, there: np.ndarray, what: str) -> None:
    xp, name = backend.namespace(), there.dtype.name
    if name == "int64":
        # Where NumPy counts in its own default integer, a library may count in another.
        right = xp.isdtype(here.dtype, "integral")
    else:
        right = here.dtype == getattr(xp, name)
    expect(right, f"{what} is {here.dtype}, but {name} on NumPy")
