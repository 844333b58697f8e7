"""Bringing data where a computation runs, and refusing to mix what lives in two places."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from backprop_xp.backends.doors import explicit
from backprop_xp.backends.importing import ask
from backprop_xp.backends.libraries import dtype_name
from backprop_xp.backends.places import (
    device_of,
    is_computed_in,
    place,
    precision_of,
    repair,
    same_device,
)
from backprop_xp.backends.plain import plain, require_dtype, require_plain
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    DType,
    DTypeNotKeptError,
    Namespace,
)
from backprop_xp.backends.registry import built_in, owner
from backprop_xp.backends.selection import Selection, resolve

# Made once: building the union at each call would cost as much as a small product.
_NUMPY = (np.ndarray, np.generic)
# The letters of float32, float64, complex64 and complex128.
_NUMPY_COMPUTES_IN = "fdFD"


def array_namespace(array: Array) -> Namespace:
    """Return the array API namespace of an array: its backend's, or what it says itself.

    NumPy's is NumPy itself, without array-api-compat's wrapper, which would cost calls and its
    import 50 ms for nothing: NumPy 2 keeps the standard.
    """
    if isinstance(array, _NUMPY):
        return np
    home = owner(array)
    return ask(array_api_compat.array_namespace, array) if home is None else home.namespace()


def asarray(
    x: Any, *, backend: str | Backend | None = None, device: Any = None, dtype: Any = None
) -> Array:
    """Return ``x`` as an array where the choice of backend, device and dtype says.

    ``x`` is a number, nested lists, or an array of any library, which is moved if need be; the
    result may share its memory. x itself does not choose: without a choice it goes to NumPy.
    Integers and booleans keep their dtype unless ``dtype`` is given;
    floating values take the dtype chosen, complex ones the complex dtype of that precision.
    Raises TypeError for values that are not numbers.

    >>> import backprop_xp as bx
    >>> bx.asarray([[0.25, 1.0]], dtype="float32")
    array([[0.25, 1.  ]], dtype=float32)
    """
    choice = resolve(backend=backend, device=device, dtype=dtype)
    xp = choice.backend.namespace()
    source = owner(x)
    if source is None or source.name == "numpy":
        x = plain(x, "x")
        source = require_owner(x, "x")
    else:
        require_dtype(x, "x")
    kind = _kind(source.namespace(), x, choice, asked=dtype is not None)
    if source is not choice.backend:
        return choice.backend.from_host(source.to_host(x), kind, choice.device)
    array = xp.asarray(x)
    if device_of(array) != choice.device:
        if kind is not None and not _keeps(choice.backend, array.dtype, choice.device):
            array = xp.astype(array, kind)  # where it is: it cannot arrive as it is
        array = _to_device(array, choice.device)
    return array if kind is None else xp.astype(array, kind, copy=False)


def require_owner(array: Any, name: str) -> Backend:
    """Return the backend whose array this is; anything else is a TypeError."""
    home = owner(array)
    if home is None:
        is_like_one = isinstance(array, list | tuple) or hasattr(array, "__array__")
        way_out = f" Make it one: {name} = bx.asarray({name})." if is_like_one else ""
        raise TypeError(f"{name} must be an array, not {type(array).__name__}.{way_out}")
    return home


def require_floating(array: Any, name: str, beside: Array | None = None) -> Namespace:
    """Return the namespace of an array of float32 or float64, or of the complex dtype of either.

    Anything else is a TypeError, which shows the call that casts it, to the precision of ``beside``
    if that is given. An array on a device that its library does not compute on now is a ValueError.
    """
    is_numpy = isinstance(array, np.ndarray)
    if is_numpy and (type(array) is not np.ndarray or not array.dtype.isnative):
        require_plain(array, name)
    if is_numpy and array.dtype.char in _NUMPY_COMPUTES_IN:
        return np
    home = require_owner(array, name)
    home.require_current(device_of(array), name)
    xp = home.namespace()
    if not is_computed_in(xp, array.dtype):
        usual = home.default_dtype(device_of(array))
        other = array if beside is None else beside
        wanted = usual if beside is None else precision_of(array_namespace(other), other.dtype)
        raise TypeError(
            f"{name} is {dtype_name(array.dtype)}, but a floating dtype is expected, float32 or "
            f"float64. Cast it: {repair(name, array, other, dtype_name(wanted))}."
        )
    return xp


def require_beside(theta: Array, value: Array, name: str, other: str = "theta") -> None:
    """Raise ValueError, showing the repairing call, unless two arrays live in the same place."""
    home, where = owner(theta), device_of(theta)
    if home is not None and (owner(value) is not home or not same_device(device_of(value), where)):
        raise ValueError(
            f"{name} is {place(value)}, but {other} is {place(theta)}. Move it: "
            f"{repair(name, value, theta)}."
        )


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
    raise TypeError(
        f"{name} is {dtype_name(value.dtype)}, but theta is {dtype_name(theta.dtype)}; precisions "
        f"are not mixed. Cast it: {repair(name, value, theta)}."
    )


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


def beside(array: Array, host: np.ndarray, dtype: DType | None = None) -> Array:
    """Return host numbers where an array is; complex ones in the precision of ``dtype``.

    By default they are in float64, or in float32 where the device keeps no float64.
    """
    home, where = require_owner(array, "array"), device_of(array)
    xp = home.namespace()
    if dtype is None:
        dtype = xp.float64 if _keeps(home, xp.float64, where) else xp.float32
    if host.dtype.kind == "c":
        dtype = xp.complex64 if dtype == xp.float32 else xp.complex128
    return home.from_host(host, dtype, where)


def require_like(theta: Array, value: Array, name: str, other: str = "theta") -> None:
    """Raise, showing the repairing call, unless an array lives where theta does, in its dtype.

    ValueError for another library or device, TypeError for another dtype.
    """
    alike = type(value) is type(theta) and value.dtype == theta.dtype
    if alike and getattr(value, "device", None) == getattr(theta, "device", None):
        return  # as nearly always, at a twentieth of what asking whose they are costs
    require_floating(value, name, theta)
    require_beside(theta, value, name, other)
    if value.dtype != theta.dtype:
        raise TypeError(
            f"{name} is {dtype_name(value.dtype)}, but {other} is {dtype_name(theta.dtype)}; "
            f"precisions are not mixed. Cast it: {repair(name, value, theta)}."
        )


def replaced(function: Callable[..., Any], array: Array) -> Callable[..., Any]:
    """Return what the backend of an array has in the place of a reference function, or itself."""
    if isinstance(array, _NUMPY):
        return _replaced_on_numpy(function)
    home = owner(array)
    return function if home is None else _replaced(function, home)


def _replaced(function: Callable[..., Any], home: Backend) -> Callable[..., Any]:
    return home.replacements.get(f"{function.__module__}.{function.__qualname__}", function)


@functools.lru_cache(maxsize=64)
def _replaced_on_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    return _replaced(function, built_in("numpy"))


def replaceable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let backends have faster functions in the place of one whose first argument is an array.

    One that returns NotImplemented leaves its arguments to the function. On NumPy that is called
    itself: to look for another would take as long as a small product.
    """

    @functools.wraps(function)
    def call(array: Array, *arguments: Any) -> Any:
        if isinstance(array, np.ndarray):
            return function(array, *arguments)
        result = replaced(function, array)(array, *arguments)
        return function(array, *arguments) if result is NotImplemented else result

    return call


def is_host_number(value: Any) -> bool:
    """Say whether ``value`` is a NumPy array of no axes: a number, which is on the host already."""
    return isinstance(value, np.ndarray) and not value.shape


def to_host(array: Any) -> np.ndarray:
    """Return the values of an array of any library as NumPy's, waiting for them."""
    home = owner(array)
    return np.asarray(array) if home is None else home.to_host(array)


def to_host_together(arrays: Sequence[Array]) -> list[np.ndarray]:
    """Return the values of arrays of one dtype and place as NumPy's, moved in one transfer."""
    if len(arrays) == 1:
        return [to_host(arrays[0])]
    xp = array_namespace(arrays[0])
    flat = to_host(xp.concat([xp.reshape(array, (-1,)) for array in arrays]))
    ends = itertools.accumulate(math.prod(array.shape) for array in arrays)
    pieces = np.split(flat, list(ends)[:-1])
    return [piece.reshape(array.shape) for piece, array in zip(pieces, arrays, strict=True)]


def _keeps(home: Backend, dtype: DType, device: Device) -> bool:
    try:
        home.require_dtype(dtype, device)
    except DTypeNotKeptError:
        return False
    return True


@explicit
def _to_device(array: Array, device: Device) -> Array:
    moved: Array = ask(lambda x: array_api_compat.to_device(x, device), array)
    return moved


def _kind(source: Namespace, x: Array, choice: Selection, *, asked: bool) -> DType | None:
    """Return the dtype to give ``x``: the choice's, where it was asked for or x is floating."""
    xp = choice.backend.namespace()
    if source.isdtype(x.dtype, "complex floating"):
        if xp.isdtype(choice.dtype, "complex floating"):
            return choice.dtype
        if not xp.isdtype(choice.dtype, "real floating"):
            raise TypeError(f"x is complex, but dtype {dtype_name(choice.dtype)} is asked for.")
        # An imaginary part is not dropped: it takes the precision that was chosen.
        return xp.complex64 if choice.dtype == xp.float32 else xp.complex128
    if asked or source.isdtype(x.dtype, "real floating"):
        return choice.dtype
    return None
