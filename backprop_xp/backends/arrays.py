"""Bringing data where a computation runs, and refusing to mix what lives in two places."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backprop_xp.backends.doors import explicit
from backprop_xp.backends.libraries import (
    ask,
    device_of,
    dtype_name,
    is_computed_in,
    precision_of,
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
from backprop_xp.backends.registry import (
    ARGUMENT,
    Rule,
    Selection,
    choose,
    device_for,
    dtype_for,
    owner,
    usable,
)

# Made once: building the union at each call would cost as much as a small product.
_NUMPY = (np.ndarray, np.generic)
# The letters of float32, float64, complex64 and complex128.
_NUMPY_COMPUTES_IN = "fdFD"


def array_namespace(array: Array) -> Namespace:
    """Return the array API namespace of an array: its backend's, or what it says itself.

    NumPy's is NumPy itself, without array-api-compat's wrapper, which would cost calls and its
    import 50 ms for nothing: NumPy 2 keeps the standard.
    """
    if type(array) is np.ndarray:
        return np
    home = owner(array)
    if home is not None:
        return home.namespace()
    import array_api_compat  # 4 ms, for an array of nobody's

    return ask(array_api_compat.array_namespace, array)


def resolve(
    *arrays: Any,
    backend: str | Backend | None = None,
    device: Any = None,
    dtype: Any = None,
) -> Selection:
    """Return the backend, device and floating dtype for a call, and what chose the backend.

    Of ``arrays``, those that belong to an array library decide, and must agree; lists and numbers
    do not count. Raises ValueError for an unknown name, for arrays of two libraries or devices and
    for an argument that contradicts them, TypeError for arrays of two floating precisions, and
    ``BackendUnavailableError`` (a RuntimeError) for a backend that cannot run here, and
    ``DTypeNotKeptError`` (a ValueError) for a dtype that the library or device does not keep.
    Only the name ``"auto"`` falls back from CUDA to NumPy.
    """
    argument = None
    if not backend is device is dtype is None:
        argument = Rule(ARGUMENT, backend, device, dtype)
    owned = [array for array in arrays if owner(array) is not None]
    return _with_arrays(argument or Rule(ARGUMENT), owned) if owned else choose(argument)


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


def place(array: Any) -> str:
    """Return words such as ``"cupy's on cuda:0"``."""
    home, where = owner(array), device_of(array)
    if home is None:
        return f"a {type(array).__name__}"
    return f"{home.name}'s" if where is None else f"{home.name}'s on {home.device_name(where)}"


def repair(name: str, value: Array, beside: Array, dtype: str | None = None) -> str:
    """Return the line that brings the variable ``name``, which is ``value``, beside an array.

    Of what nothing can be assigned to, it is the call alone; in ``"parameters[0][1] (bias)"`` what
    stands in brackets is for the reader. Floating values take that array's precision as well: moved
    alone, they would take the default. ``dtype`` names another one for values of any kind.
    """
    home, source = owner(beside), owner(value)
    if home is None or source is None:
        raise TypeError(f"{name} and what it is put beside must be arrays of known libraries.")
    precision = precision_of(home.namespace(), beside.dtype)
    if precision is not None and precision_of(source.namespace(), value.dtype) is not None:
        dtype = dtype or dtype_name(precision)
    name = name.partition(" (")[0]
    call = _call(name, home, device_of(beside), dtype)
    return f"{name} = {call}" if name.isidentifier() else call


def _call(name: str, home: Backend, where: Device | None, dtype: str | None) -> str:
    device = None if where is None else home.device_name(where)
    words = {"backend": home.name, "device": device, "dtype": dtype}
    given = (f", {word}={value!r}" for word, value in words.items() if value is not None)
    return f"bx.asarray({name}{''.join(given)})"


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
    raise _mixed(theta, value, name)


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
        raise _mixed(theta, value, name, other)


def _mixed(theta: Array, value: Array, name: str, other: str = "theta") -> TypeError:
    return TypeError(
        f"{name} is {dtype_name(value.dtype)}, but {other} is {dtype_name(theta.dtype)}; "
        f"precisions are not mixed. Cast it: {repair(name, value, theta)}."
    )


def replaced(function: Callable[..., Any], array: Array) -> Callable[..., Any]:
    """Return what the backend of an array has in the place of a reference function, or itself."""
    home = owner(array)
    return function if home is None else _replaced(function, type(home))


@functools.lru_cache(maxsize=64)
def _replaced(function: Callable[..., Any], kind: type[Backend]) -> Callable[..., Any]:
    return kind.replacements.get(f"{function.__module__}.{function.__qualname__}", function)


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


def _with_arrays(argument: Rule, arrays: list[Array]) -> Selection:
    """Return where arrays are and their precision, which must be one, and what is asked for."""
    first = arrays[0]
    backend, where = require_owner(first, "x"), device_of(first)
    for other in arrays[1:]:
        if owner(other) is not backend or not same_device(device_of(other), where):
            raise ValueError(
                f"arrays in two places were given together, one {place(first)} and one "
                f"{place(other)}; nothing is moved silently. Move one: {repair('x', other, first)}."
            )
    if argument.backend is not None and usable(argument.backend, ARGUMENT) is not backend:
        raise _contradiction(argument, first, "backend", f"{backend.name}'s")
    if argument.device is not None:
        wanted = device_for(backend, argument, "the arrays given")
        if not same_device(wanted, where):
            raise _contradiction(argument, first, "device", f"on {backend.device_name(where)}")
        where = wanted
    dtype = _common_precision(arrays, backend)
    if argument.dtype is not None:
        asked = dtype_for(backend, argument, where)
        if dtype is not None and asked != dtype:
            raise _contradiction(argument, first, "dtype", dtype_name(dtype))
        dtype = asked
    if dtype is None:
        dtype = backend.default_dtype(where)
    return Selection(backend, where, dtype, "the arrays given")


def _common_precision(arrays: list[Array], backend: Backend) -> DType | None:
    """Return the one floating precision of arrays; None if none of them is floating."""
    xp = backend.namespace()
    floating = [array for array in arrays if precision_of(xp, array.dtype) is not None]
    for other in floating:
        if not is_computed_in(xp, other.dtype):
            name = dtype_name(backend.default_dtype(device_of(other)))
            raise TypeError(
                f"an array of {dtype_name(other.dtype)} was given, but a floating dtype is "
                f"expected, float32 or float64. Cast it: {repair('x', other, other, name)}."
            )
        first = floating[0]
        if precision_of(xp, other.dtype) != precision_of(xp, first.dtype):
            raise TypeError(
                f"arrays of {dtype_name(first.dtype)} and of {dtype_name(other.dtype)} were given "
                f"together; precisions are not mixed. Cast one: {repair('x', other, first)}."
            )
    return precision_of(xp, floating[0].dtype) if floating else None


def _contradiction(argument: Rule, array: Array, what: str, have: str) -> ValueError:
    """Return the error of an argument that contradicts an array, with the line that moves it.

    It moves the array in its own precision, if that can be.
    """
    home = target = require_owner(array, "x")
    if argument.backend is not None:
        target = usable(argument.backend, ARGUMENT)
    where = device_of(array) if target is home else None
    if argument.device is not None:
        where = device_for(target, argument, ARGUMENT)
    kind = precision_of(home.namespace(), array.dtype)
    dtype = None if kind is None else dtype_name(kind)
    if argument.dtype is not None:
        dtype = dtype_name(dtype_for(target, argument, where))
    elif dtype is not None and not _keeps(target, getattr(target.namespace(), dtype), where):
        dtype = None
    given = {"backend": target.name, "device": argument.device, "dtype": dtype}[what]
    verb = "Cast" if what == "dtype" else "Move"
    return ValueError(
        f"{what}={given!r} contradicts the arrays given, which are {have}. {verb} each first: x = "
        f"{_call('x', target, where, dtype)}; or leave the argument out."
    )


def _keeps(home: Backend, dtype: DType, device: Device) -> bool:
    try:
        home.require_dtype(dtype, device)
    except DTypeNotKeptError:
        return False
    return True


@explicit
def _to_device(array: Array, device: Device) -> Array:
    import array_api_compat

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
