"""Bringing data where a computation runs, and refusing to mix what lives in two places."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends.choice import (
    ARGUMENT,
    NOTHING,
    Rule,
    Selection,
    choose,
    device_for,
    dtype_for,
)
from backprop_xp.backends.compatibility import (
    mixed_precisions,
    not_computed,
    repair,
    require_beside,
    require_owner,
)
from backprop_xp.backends.doors import explicit
from backprop_xp.backends.dtypes_and_devices import (
    device_of,
    dtype_name,
    is_computed_in,
    precision_of,
    same_device,
)
from backprop_xp.backends.host_numbers import plain, require_dtype
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    DType,
    DTypeNotKeptError,
    Namespace,
)
from backprop_xp.backends.registry import array_namespace, owner, usable

_ANOTHER = "an array given together with it"


def resolve(
    *arrays: Any,
    backend: str | Backend | None = None,
    device: Any = None,
    dtype: Any = None,
) -> Selection:
    """Return the backend, device and floating dtype for a call, and what chose the backend.

    Of ``arrays``, those that belong to an array library decide, and must agree; lists and numbers
    do not count. Raises ValueError for an unknown name, for arrays of two libraries or devices and
    for an argument that contradicts them, TypeError for arrays of two floating precisions,
    ``BackendUnavailableError`` (a RuntimeError) for a backend that cannot run here, and
    ``DTypeNotKeptError`` (a ValueError) for a dtype that the library or device does not keep.
    Only the name ``"auto"`` falls back from CUDA to NumPy.
    """
    said_nothing = backend is device is dtype is None
    argument = NOTHING if said_nothing else Rule(ARGUMENT, backend, device, dtype)
    # Only NumPy has numbers of its own that are no arrays.
    owned = [a for a in arrays if owner(a) is not None and not isinstance(a, np.generic)]
    return _with_arrays(argument, owned) if owned else choose(argument)


def _with_arrays(argument: Rule, arrays: list[Array]) -> Selection:
    """Return where arrays are, and their precision; an argument that says otherwise is an error."""
    first = arrays[0]
    home, where, kind = require_owner(first, "x"), device_of(first), _common_precision(arrays)
    # What is asked for, and what the arrays have where nothing is.
    target, there, dtype, source = home, where, kind, "the arrays given"
    if argument.backend is not None and usable(argument.backend, ARGUMENT) is not home:
        target, there, source = usable(argument.backend, ARGUMENT), None, ARGUMENT
    if argument.device is not None:
        there = device_for(target, argument, source)
    if argument.dtype is not None:
        dtype = dtype_for(target, argument, there)
    if target is not home:
        contradiction = f"backend={target.name!r}", f"{home.name}'s"
    elif not same_device(there, where):
        contradiction = f"device={argument.device!r}", f"on {home.device_name(where)}"
    elif kind is not None and dtype != kind:
        contradiction = f"dtype={dtype_name(dtype)!r}", dtype_name(kind)
    else:
        dtype = home.default_dtype(there) if dtype is None else dtype
        return Selection(home, there, dtype, "the arrays given")
    name = None if dtype is None else dtype_name(dtype)
    if name is not None and not _keeps(target, getattr(target.namespace(), name), there):
        name = None
    asked, have = contradiction
    raise ValueError(
        f"{asked} contradicts the arrays given, which are {have}. "
        f"{'Cast' if asked.startswith('dtype') else 'Move'} each first: "
        f"{repair('x', target, there, name)}; or leave the argument out."
    )


def _common_precision(arrays: list[Array]) -> DType | None:
    """Return the one floating precision of arrays in one place; None if none is floating."""
    for array in arrays[1:]:
        require_beside(arrays[0], array, "x", _ANOTHER)
    xp, common = array_namespace(arrays[0]), None
    for array in arrays:
        precision = precision_of(xp, array.dtype)
        if precision is None:
            continue
        if not is_computed_in(xp, array.dtype):
            raise not_computed(array, "x")
        if common is None:
            common, first = precision, array
        elif precision != common:
            raise mixed_precisions(first, array, "x", _ANOTHER)
    return common


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
    if device_of(x) != choice.device:
        if kind is not None and not _keeps(source, x.dtype, choice.device):
            x = xp.astype(x, kind)  # where it is: it cannot arrive as it is
        x = explicit(xp.asarray)(x, device=choice.device)
    return x if kind is None else xp.astype(x, kind, copy=False)


def _kind(source: Namespace, x: Array, choice: Selection, *, asked: bool) -> DType | None:
    """Return the dtype to give ``x``; None for its own, which integers keep unless one is asked."""
    xp = choice.backend.namespace()
    if source.isdtype(x.dtype, "complex floating"):
        if xp.isdtype(choice.dtype, "complex floating"):
            return choice.dtype
        if not xp.isdtype(choice.dtype, "real floating"):
            raise TypeError(f"x is complex, but dtype {dtype_name(choice.dtype)} is asked for.")
        # An imaginary part is not dropped: it takes the precision that was chosen.
        return _complex(xp, choice.dtype)
    if asked or source.isdtype(x.dtype, "real floating"):
        return choice.dtype
    return None


def _complex(xp: Namespace, dtype: DType) -> DType:
    return xp.complex64 if dtype == xp.float32 else xp.complex128


def _keeps(home: Backend, dtype: DType, device: Device) -> bool:
    try:
        home.require_dtype(dtype, device)
    except DTypeNotKeptError:
        return False
    return True


def beside(array: Array, host: np.ndarray, dtype: DType | None = None) -> Array:
    """Return host numbers where an array is; complex ones in the precision of ``dtype``.

    By default they are in float64, or in float32 where the device keeps no float64.
    """
    home, where = require_owner(array, "array"), device_of(array)
    xp = home.namespace()
    if dtype is None:
        dtype = xp.float64 if _keeps(home, xp.float64, where) else xp.float32
    return home.from_host(host, _complex(xp, dtype) if host.dtype.kind == "c" else dtype, where)


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
