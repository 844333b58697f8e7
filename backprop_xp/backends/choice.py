"""The choice of a backend, a device and a dtype for each call.

The order of precedence: an argument of the call, the arrays given, ``use_backend``,
``set_default_backend``, the environment, NumPy. The first source that names a backend decides the
backend, the first with a dtype the dtype, and the first with a device the device. A device counts
only if its source, or else the next weaker one that names a backend, chooses the same backend.
"""

import os
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends.compatibility import (
    common_precision,
    device_of,
    repair_line,
    require_owner,
)
from backprop_xp.backends.dtypes_and_devices import (
    dtype_name,
    is_computed_in,
    precision_of,
    same_device,
)
from backprop_xp.backends.protocol import Array, Backend, Device, DType, DTypeNotKeptError
from backprop_xp.backends.registry import (
    backends_with,
    built_in,
    is_name_of,
    name_of,
    owner,
    usable_backend,
)
from backprop_xp.backends.scopes import Scope
from backprop_xp.checks import nearest

_ARGUMENT = "the argument of the call"
# The device comes before the backend: the next weaker source names the backend of a device.
_VARIABLES = {what: f"BACKPROP_XP_{what.upper()}" for what in ("dtype", "device", "backend")}
_DTYPES = ["float32", "float64", "complex64", "complex128", "bool"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]


class Selection(NamedTuple):
    """The backend, device and dtype of a computation, and the source of the choice."""

    backend: Backend
    device: Device
    dtype: DType
    source: str


class Request(NamedTuple):
    """The choice of one source; None leaves a part to the next source."""

    source: str
    backend: str | Backend | None = None
    device: Device = None
    dtype: DType = None

    def is_empty(self) -> bool:
        """Return whether nothing is chosen; not by ``==``, since NumPy's float64 equals None."""
        return self.backend is self.device is self.dtype is None


_NOTHING = Request("no source")
_active: ContextVar[tuple[Request, ...]] = ContextVar("backprop_xp.use_backend", default=())
_default = _NOTHING


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend called ``name``, or the one that ``resolve()`` chooses now.

    A device or dtype that the backend lacks does not raise here.

    >>> import backprop_xp as bx
    >>> bx.get_backend("numpy").name
    'numpy'
    """
    return _backend(_requests(Request(_ARGUMENT, name)))[0]


class use_backend(Scope[Request]):  # noqa: N801 - it reads as a function
    """Choose the backend of calls without arrays inside a ``with``; per thread and per task.

    Other parts do not change: ``use_backend(dtype="float32")`` keeps the backend. Like
    ``numpy.errstate``, a ``with`` inside a generator also holds for the caller while the generator
    is suspended. It decorates functions too; a generator or an async function is a TypeError.

    >>> import backprop_xp as bx
    >>> with bx.use_backend("numpy", dtype="float32"):
    ...     print(bx.asarray([0.5]).dtype)
    float32
    """

    def __init__(
        self, name: str | Backend | None = None, device: Device = None, dtype: DType = None
    ) -> None:
        super().__init__(_active, _request("use_backend", name, device, dtype))

    def __enter__(self) -> Selection:
        if self.value.is_empty():
            raise TypeError(
                "use_backend needs a name or a Backend, such as use_backend('numpy'), or a device "
                "or a dtype."
            )
        selection = _select([self.value, *_requests()])  # an unusable name is an error here
        super().__enter__()
        return selection


def set_default_backend(
    name: str | Backend | None, device: Device = None, dtype: DType = None
) -> None:
    """Choose the default of the whole process, for calls without arguments or a ``with``.

    ``None`` removes the choice.

    >>> import backprop_xp as bx
    >>> bx.set_default_backend("array-api-strict", dtype="float32")
    >>> bx.asarray([0.5]).dtype
    array_api_strict.float32
    >>> bx.set_default_backend(None)
    """
    global _default
    request = _request("set_default_backend", name, device, dtype)
    if name is not None:
        _select([request])
    _default = request


def resolve(
    *arrays: Any,
    backend: str | Backend | None = None,
    device: Device = None,
    dtype: DType = None,
) -> Selection:
    """Return the backend, device and floating dtype for a call, and the source of the choice.

    Arrays of an array library decide, and must agree; lists and numbers are ignored. Raises
    ValueError for an unknown name, for arrays of two libraries or devices and for an argument that
    contradicts them, TypeError for arrays of two floating precisions, ``BackendUnavailableError``
    (a RuntimeError) for a backend that cannot run here, and ``DTypeNotKeptError`` (a ValueError)
    for a dtype that the library or device does not keep. Only the name ``"auto"`` falls back, from
    CuPy, dpnp on a GPU and plug-ins with accelerators to NumPy. It does not try JAX and PyTorch.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> choice = bx.resolve(np.asarray([0.5], dtype="float32"))
    >>> choice.backend.name, choice.device, choice.source
    ('numpy', 'cpu', 'the arrays given')
    """
    argument = Request(_ARGUMENT, backend, device, dtype)
    # NumPy also owns scalars, which are not arrays.
    owned = [a for a in arrays if owner(a) is not None and not isinstance(a, np.generic)]
    if owned:
        return _select_by_arrays(argument, owned)
    return _select(_requests(argument))


def keeps_dtype(backend: Backend, dtype: DType, device: Device) -> bool:
    """Return whether a device keeps a dtype."""
    try:
        backend.require_dtype(dtype, device)
    except DTypeNotKeptError:
        return False
    return True


def _request(function: str, name: str | Backend | None, device: Device, dtype: DType) -> Request:
    """Return the request of a call of ``use_backend`` or ``set_default_backend``."""
    parts = {"device": device, "dtype": dtype}
    shown = ", ".join(f"{part}={value!r}" for part, value in parts.items() if value is not None)
    if name is not None:
        shown = repr(name_of(name, function))
    return Request(f"{function}({shown})", name, device, dtype)


def _requests(argument: Request = _NOTHING) -> list[Request]:
    """Return the requests for a call without arrays, the strongest first."""
    requests = [argument, *_active.get(), _default]
    for part, variable in _VARIABLES.items():
        value = os.environ.get(variable, "").strip() or None
        requests.append(Request(f"the environment variable {variable}", **{part: value}))
    return [request for request in requests if not request.is_empty()]


def _select(requests: Sequence[Request]) -> Selection:
    """Return the backend, device and dtype that the strongest requests choose."""
    backend, source = _backend(requests)
    devices, dtypes = [], []
    for i, request in enumerate(requests):
        # The backend that the request means: its own, or that of the next weaker one.
        meant = next((r.backend for r in requests[i:] if r.backend is not None), "numpy")
        if request.device is not None and is_name_of(meant, backend):
            devices.append(request)
        # A dtype's name is the same on every backend; a dtype object belongs to one library.
        is_any = isinstance(request.dtype, str)
        if is_any or (request.dtype is not None and is_name_of(meant, backend)):
            dtypes.append(request)
    device = _device(backend, devices[0], source) if devices else backend.devices()[0]
    dtype = _dtype(backend, dtypes[0], device) if dtypes else backend.default_dtype(device)
    return Selection(backend, device, dtype, source)


def _backend(requests: Sequence[Request]) -> tuple[Backend, str]:
    """Return the backend of the first request that names one, and the request's source."""
    for request in requests:
        if request.backend is not None:
            return usable_backend(request.backend, request.source), request.source
    return built_in("numpy"), "the default"


def _device(backend: Backend, request: Request, source: str) -> Device:
    """Return the device that a request chooses; ``source`` chose the backend."""
    try:
        return backend.device(request.device)
    except ValueError as error:
        sources = f"The device came from {request.source}, the backend from {source}"
        if request.source == source:
            sources = f"Device and backend came from {source}"
        way_out = "Choose another device"
        others = backends_with(str(request.device).partition(":")[0])
        if others and backend.name not in others:
            *first, last = map(repr, others)
            either = f"{', '.join(first)} or {last}" if first else last
            way_out += f", or a backend that may have it: {either}"
        raise ValueError(f"{error} {sources}. {way_out}.") from None


def _dtype(backend: Backend, request: Request, device: Device) -> DType:
    """Return the backend's dtype of a request, or raise an error with the reason."""
    xp, dtype, source = backend.namespace(), request.dtype, request.source
    kind = getattr(xp, dtype, None) if isinstance(dtype, str) else dtype
    name = dtype_name(kind)
    try:
        is_known = kind is not None and bool(xp.isdtype(kind, ("bool", "numeric")))
    except (TypeError, AttributeError):
        is_known = False
    is_floating = is_known and precision_of(xp, kind) is not None
    if is_floating and not is_computed_in(xp, kind):
        raise ValueError(
            f"dtype {name!r}, from {source}, is floating, but float32 or float64 is expected: "
            "no other precision is supported. Use dtype='float32'."
        )
    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}, from {source}, is unknown. {nearest(dtype, _DTYPES)}")
    if not is_known:
        raise TypeError(
            f"dtype {dtype!r}, from {source}, is not a dtype of {backend.name}. "
            "A name such as 'float32' works with every backend."
        )
    try:
        backend.require_dtype(kind, device)
    except DTypeNotKeptError as error:
        raise DTypeNotKeptError(
            f"dtype {name!r}, from {source}, is not available: {error}"
        ) from None
    if source != _ARGUMENT and not xp.isdtype(kind, "real floating"):
        raise ValueError(
            f"dtype {name!r}, from {source}, is not real floating: as a default it would "
            f"truncate all data. Choose 'float32' or 'float64' there, or pass dtype={name!r} to "
            "the calls that need it."
        )
    return kind


def _select_by_arrays(argument: Request, arrays: Sequence[Array]) -> Selection:
    """Return the backend, device and precision of arrays; an argument must not contradict them."""
    backend, device = require_owner(arrays[0], "x"), device_of(arrays[0])
    precision = common_precision(arrays)
    # The parts that the argument chooses, otherwise those of the arrays.
    target = backend if argument.backend is None else _backend([argument])[0]
    source = "the arrays given" if target is backend else _ARGUMENT
    wanted_device = device if target is backend else None
    if argument.device is not None:
        wanted_device = _device(target, argument, source)
    wanted_dtype = precision if argument.dtype is None else _dtype(target, argument, wanted_device)
    if target is not backend:
        wanted, found = f"backend={target.name!r}", f"{backend.name}'s"
    elif not same_device(wanted_device, device):
        wanted, found = f"device={argument.device!r}", f"on {backend.device_name(device)}"
    elif precision is not None and wanted_dtype != precision:
        wanted, found = f"dtype={dtype_name(wanted_dtype)!r}", dtype_name(precision)
    else:
        dtype = backend.default_dtype(wanted_device) if wanted_dtype is None else wanted_dtype
        return Selection(backend, wanted_device, dtype, source)
    name = None if wanted_dtype is None else dtype_name(wanted_dtype)
    if name and not keeps_dtype(target, getattr(target.namespace(), name), wanted_device):
        name = None
    raise ValueError(
        f"{wanted} contradicts the arrays given, which are {found}. "
        f"{'Cast' if wanted.startswith('dtype') else 'Move'} each first: "
        f"{repair_line('x', target, wanted_device, name)}; or omit the argument."
    )
