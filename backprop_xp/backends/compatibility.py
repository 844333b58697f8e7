"""Arrays that are computed with theta: of its library, on its device and in its precision.

Nothing is moved or cast silently. What does not fit is an error that shows the repairing line.
"""

from typing import Any

import numpy as np

from backprop_xp.backends.dtypes_and_devices import (
    device_of,
    dtype_name,
    is_computed_in,
    precision_of,
    same_device,
)
from backprop_xp.backends.host_numbers import plain, require_plain
from backprop_xp.backends.protocol import Array, Backend, Device, Namespace
from backprop_xp.backends.registry import array_namespace, owner

# Made once: building the union at each call would cost as much as a small product.
_NUMPY = (np.ndarray, np.generic)
# The letters of float32, float64, complex64 and complex128.
_NUMPY_COMPUTES_IN = "fdFD"


def require_owner(array: Any, name: str) -> Backend:
    """Return the backend whose array this is; anything else is a TypeError."""
    home = owner(array)
    if home is None:
        is_like_one = isinstance(array, list | tuple) or hasattr(array, "__array__")
        way_out = f" Make it one: {name} = bx.asarray({name})." if is_like_one else ""
        raise TypeError(f"{name} must be an array, not {type(array).__name__}.{way_out}")
    return home


def require_floating(array: Any, name: str) -> Namespace:
    """Return the namespace of an array of float32 or float64, or of the complex dtype of either.

    Anything else is a TypeError, which shows the call that casts it. An array on a device that its
    library does not compute on now is a ValueError.
    """
    if isinstance(array, np.ndarray):
        if type(array) is not np.ndarray or not array.dtype.isnative:
            require_plain(array, name)
        if array.dtype.char in _NUMPY_COMPUTES_IN:
            return np
    home = require_owner(array, name)
    home.require_current(device_of(array), name)
    if not is_computed_in(home.namespace(), array.dtype):
        raise not_computed(array, name)
    return home.namespace()


def require_beside(theta: Array, value: Array, name: str, other: str = "theta") -> None:
    """Raise ValueError, showing the repairing call, unless two arrays live in the same place."""
    home, where = require_owner(theta, other), device_of(theta)
    source, there = require_owner(value, name), device_of(value)
    if source is not home or not same_device(there, where):
        # Moved alone, floating values would take the default precision.
        dtype = precision_name(value) and precision_name(theta)
        raise ValueError(
            f"{name} is {_place(source, there)}, but {other} is {_place(home, where)}. Move it: "
            f"{repair(name, home, where, dtype)}."
        )


def require_like(theta: Array, value: Array, name: str, other: str = "theta") -> None:
    """Raise, showing the repairing call, unless an array lives where theta does, in its dtype.

    ValueError for another library or device, TypeError for another dtype.
    """
    alike = type(value) is type(theta) and value.dtype == theta.dtype
    if alike and getattr(value, "device", None) == getattr(theta, "device", None):
        return  # as nearly always, at a twentieth of what asking whose they are costs
    if isinstance(value, np.ndarray):
        require_plain(value, name)
    require_beside(theta, value, name, other)
    if value.dtype != theta.dtype:
        raise mixed_precisions(theta, value, name, other)


def like(theta: Array, value: Any, name: str) -> Array:
    """Return ``value`` as an array that can be computed with ``theta``, a floating array.

    Lists, integers and booleans are cast to theta's precision; a real array beside a complex theta
    of its precision stays real. Another library, device or floating precision is an error that
    shows the call that repairs it.
    """
    if type(value) is np.ndarray is type(theta) and value.dtype == theta.dtype:
        return value
    xp, home = require_floating(theta, "theta"), require_owner(theta, "theta")
    precision = precision_of(xp, theta.dtype)
    if isinstance(value, _NUMPY):
        value = plain(value, name)
    elif owner(value) is None:
        host = plain(value, name)
        kind = None if host.dtype.kind == "c" else precision
        value = home.from_host(host, kind, device_of(theta))
    require_beside(theta, value, name)
    if xp.isdtype(value.dtype, ("bool", "integral")):
        return xp.astype(value, precision)
    if value.dtype in (precision, theta.dtype):
        return value
    if xp.isdtype(value.dtype, "complex floating"):
        raise TypeError(
            f"{name} is {dtype_name(value.dtype)}, but theta is {dtype_name(theta.dtype)}. "
            "Take its real part."
        )
    raise mixed_precisions(theta, value, name)


def whole_numbers(theta: Array, value: Any, name: str) -> Array | None:
    """Return ``value`` as an array of integers where ``theta`` is, None if it holds anything else.

    Lists of integers are moved there. An array of another library or device is an error.
    """
    is_numpy = isinstance(value, _NUMPY)
    if is_numpy or owner(value) is None:
        try:
            host = plain(value, name)
        except (ValueError, TypeError):
            return None  # who takes it for something else says what is wrong
        if host.dtype.kind not in "iu":
            return None
        home = require_owner(theta, "theta")
        value = host if is_numpy else home.from_host(host, device=device_of(theta))
    if not array_namespace(value).isdtype(value.dtype, "integral"):
        return None
    require_beside(theta, value, name)
    return value


# What is said of arrays that cannot be computed with


def not_computed(array: Array, name: str) -> TypeError:
    """Return the error for an array that is neither float32 nor float64."""
    home, where = require_owner(array, name), device_of(array)
    line = repair(name, home, where, dtype_name(home.default_dtype(where)))
    return TypeError(
        f"{name} is {dtype_name(array.dtype)}, but a floating dtype is expected, float32 or "
        f"float64. Cast it: {line}."
    )


def mixed_precisions(theta: Array, value: Array, name: str, other: str = "theta") -> TypeError:
    """Return the error for an array whose dtype differs from theta's."""
    line = repair(name, require_owner(theta, other), device_of(theta), precision_name(theta))
    return TypeError(
        f"{name} is {dtype_name(value.dtype)}, but {other} is {dtype_name(theta.dtype)}; "
        f"precisions are not mixed. Cast it: {line}."
    )


def precision_name(array: Array) -> str | None:
    """Return ``"float32"`` or ``"float64"``; None for an array that is not floating."""
    kind = precision_of(array_namespace(array), array.dtype)
    return None if kind is None else dtype_name(kind)


def _place(home: Backend, where: Device | None) -> str:
    """Return words such as ``"cupy's on cuda:0"``."""
    return f"{home.name}'s" if where is None else f"{home.name}'s on {home.device_name(where)}"


def repair(name: str, home: Backend, where: Device | None, dtype: str | None) -> str:
    """Return the line of code that brings the variable ``name`` to a device and a dtype, if given.

    It is the call alone if ``name`` is no identifier; a remark in brackets, as in
    ``"parameters[0][1] (bias)"``, is left out.
    """
    name = name.partition(" (")[0]
    device = None if where is None else home.device_name(where)
    words = {"backend": home.name, "device": device, "dtype": dtype}
    given = (f", {word}={value!r}" for word, value in words.items() if value is not None)
    call = f"bx.asarray({name}{''.join(given)})"
    return f"{name} = {call}" if name.isidentifier() else call
