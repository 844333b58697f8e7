"""Checks that arrays can be computed with theta: the same library, device and precision.

Nothing is moved or cast silently. An error shows the line of code that repairs it.
"""

from collections.abc import Sequence

import numpy as np

from backprop_xp.backends.dtypes_and_devices import (
    dtype_name,
    is_computed_in,
    precision_of,
    same_device,
)
from backprop_xp.backends.host_numbers import plain_numbers, require_dense, require_plain
from backprop_xp.backends.protocol import Array, Backend, Device, DType, Namespace
from backprop_xp.backends.registry import array_namespace, owner
from backprop_xp.backends.replacements import replaceable

# A constant: to build the union at each call would take as long as a small product.
_NUMPY = (np.ndarray, np.generic)
_NUMPY_COMPUTES_IN = "fdFD"  # float32, float64, complex64 and complex128


def device_of(array: Array) -> Device:
    """Return an array's device, as its backend says; None for a JAX tracer, which has none yet."""
    if type(array) is np.ndarray:
        return "cpu"
    backend = owner(array)
    return getattr(array, "device", None) if backend is None else backend.device_of(array)


def require_owner(array: Array, name: str) -> Backend:
    """Return the backend that owns an array; anything else is a TypeError."""
    backend = owner(array)
    if backend is None:
        can_be_one = isinstance(array, list | tuple) or hasattr(array, "__array__")
        way_out = f" Make it one: {repair_line(name)}." if can_be_one else ""
        raise TypeError(f"{name} must be an array, not {type(array).__name__}.{way_out}")
    return backend


def require_floating(array: Array, name: str) -> Namespace:
    """Return the namespace of an array of float32, float64, complex64 or complex128.

    Anything else is a TypeError that shows the repairing call. An array that is not on its
    library's current device is a ValueError.
    """
    if isinstance(array, np.ndarray):
        if type(array) is not np.ndarray or not array.dtype.isnative:
            require_plain(array, name)
        if array.dtype.char in _NUMPY_COMPUTES_IN:
            return np
    backend = require_owner(array, name)
    require_dense(array, name)
    backend.require_current(device_of(array), name)
    if not is_computed_in(backend.namespace(), array.dtype):
        raise _unsupported_precision(array, name)
    return backend.namespace()


@replaceable
def require_same_device(theta: Array, value: Array, name: str, other: str = "theta") -> None:
    """Raise ValueError, with the repairing call, unless two arrays share library and device."""
    backend, device = require_owner(theta, other), device_of(theta)
    source, its_device = require_owner(value, name), device_of(value)
    require_dense(value, name)
    if source is not backend or not same_device(its_device, device):
        # Without a dtype, bx.asarray would give floating values the default precision.
        dtype = _precision_name(value) and _precision_name(theta)
        raise ValueError(
            f"{name} is {_home(source, its_device)}, but {other} is {_home(backend, device)}. "
            f"Move it: {repair_line(name, backend, device, dtype)}."
        )


def require_like(theta: Array, value: Array, name: str, other: str = "theta") -> None:
    """Raise, with the repairing call, unless an array has theta's library, device and dtype.

    ValueError for another library or device, TypeError for another dtype.
    """
    alike = type(value) is type(theta) and value.dtype == theta.dtype
    if alike and device_of(value) == device_of(theta):
        return  # the common case, at a twentieth of the cost
    if isinstance(value, np.ndarray):
        require_plain(value, name)
    require_same_device(theta, value, name, other)
    if value.dtype != theta.dtype:
        raise _mixed_precisions(theta, value, name, other)


def like(theta: Array, value: object, name: str, other: str = "theta") -> Array:
    """Return ``value`` as an array that can be computed with ``theta``, a floating array.

    Lists, integers and booleans are cast to theta's precision. A real array stays real if theta is
    complex and of its precision. Another library, device or floating precision is an error with the
    repairing call, in which theta has the name ``other``.
    """
    if type(value) is np.ndarray is type(theta) and value.dtype == theta.dtype:
        return value
    xp, backend = require_floating(theta, other), require_owner(theta, other)
    precision = precision_of(xp, theta.dtype)
    array: Array = value
    if isinstance(value, _NUMPY):
        array = plain_numbers(value, name)
    elif owner(value) is None:
        host = plain_numbers(value, name)
        dtype = None if host.dtype.kind == "c" else precision
        array = backend.from_host(host, dtype, device_of(theta))
    require_same_device(theta, array, name, other)
    if xp.isdtype(array.dtype, ("bool", "integral")):
        return xp.astype(array, precision)
    if array.dtype in (precision, theta.dtype):
        return array
    if xp.isdtype(array.dtype, "complex floating"):
        raise TypeError(
            f"{name} is {dtype_name(array.dtype)}, but {other} is {dtype_name(theta.dtype)}. "
            "Take its real part."
        )
    raise _mixed_precisions(theta, array, name, other)


def integer_array(theta: Array, value: object, name: str) -> Array | None:
    """Return ``value`` as integers on theta's device, None if it holds anything else.

    Lists of integers are moved there. An array of another library or device is an error.
    """
    array: Array = value
    is_numpy = isinstance(value, _NUMPY)
    if is_numpy or owner(value) is None:
        try:
            host = plain_numbers(value, name)
        except (ValueError, TypeError):
            return None  # the caller raises its own error
        if host.dtype.kind not in "iu":
            return None
        backend = require_owner(theta, "theta")
        array = host if is_numpy else backend.from_host(host, device=device_of(theta))
    if not array_namespace(array).isdtype(array.dtype, "integral"):
        return None
    require_same_device(theta, array, name)
    return array


def common_precision(arrays: Sequence[Array]) -> DType | None:
    """Return the floating precision of arrays on one device; None if none of them is floating."""
    another = "an array given together with it"
    for array in arrays[1:]:
        require_same_device(arrays[0], array, "x", another)
    xp, common, first = array_namespace(arrays[0]), None, None
    for array in arrays:
        precision = precision_of(xp, array.dtype)
        if precision is None:
            continue
        if not is_computed_in(xp, array.dtype):
            raise _unsupported_precision(array, "x")
        if common is None:
            common, first = precision, array
        elif precision != common:
            raise _mixed_precisions(first, array, "x", another)
    return common


def _unsupported_precision(array: Array, name: str) -> TypeError:
    """Return the error for an array that is neither float32 nor float64."""
    backend, device = require_owner(array, name), device_of(array)
    line = repair_line(name, backend, device, dtype_name(backend.default_dtype(device)))
    return TypeError(
        f"{name} is {dtype_name(array.dtype)}, but a floating dtype is expected, float32 or "
        f"float64. Cast it: {line}."
    )


def _mixed_precisions(theta: Array, value: Array, name: str, other: str = "theta") -> TypeError:
    """Return the error for an array whose dtype differs from theta's."""
    line = repair_line(name, require_owner(theta, other), device_of(theta), _precision_name(theta))
    return TypeError(
        f"{name} is {dtype_name(value.dtype)}, but {other} is {dtype_name(theta.dtype)}; "
        f"precisions are not mixed. Cast it: {line}."
    )


def _precision_name(array: Array) -> str | None:
    """Return ``"float32"`` or ``"float64"``; None for an array that is not floating."""
    precision = precision_of(array_namespace(array), array.dtype)
    return None if precision is None else dtype_name(precision)


def _home(backend: Backend, device: Device | None) -> str:
    """Return words such as ``"cupy's on cuda:0"``."""
    return f"{backend.name}'s" + ("" if device is None else f" on {backend.device_name(device)}")


def repair_line(
    name: str,
    backend: Backend | None = None,
    device: Device | None = None,
    dtype: str | None = None,
) -> str:
    """Return the line of code that moves the variable ``name`` and casts it, if a dtype is given.

    It is the call alone if ``name`` is not an identifier. A remark in brackets, as in
    ``"parameters[0][1] (bias)"``, is left out.
    """
    name = name.rpartition(" (")[0] or name
    place = None if backend is None or device is None else repr(backend.device_name(device))
    if hasattr(device, "mesh"):  # a sharding over devices has no name
        place = f"{name}.device"
    library = None if backend is None else repr(backend.name)
    options = {"backend": library, "device": place, "dtype": dtype and repr(dtype)}
    given = (f", {option}={value}" for option, value in options.items() if value is not None)
    call = f"bx.asarray({name}{''.join(given)})"
    return f"{name} = {call}" if name.isidentifier() else call
