"""The transfer guard: proof that no value leaves the device implicitly.

While a guard is active, each conversion of the imported libraries has a wrapper, which checks the
guard of its own thread or task. Without a guard nothing is wrapped.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, Self, TypeVar

from backprop_xp.backends.compatibility import device_of
from backprop_xp.backends.dtypes_and_devices import dtype_name, log
from backprop_xp.backends.protocol import Array, Backend, Conversion, DType, Function
from backprop_xp.backends.registry import loaded_backends, observers
from backprop_xp.backends.scopes import Scope, process_wide
from backprop_xp.checks import known

P = ParamSpec("P")
R = TypeVar("R")

# The methods of an array class that are conversions in every library.
CONVERSION_METHODS = (
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__iter__", "__array__"),
)

_active: ContextVar[tuple[str, ...]] = ContextVar("backprop_xp.transfer_guard", default=())
_lock = threading.Lock()
_wrapped: set[str] = set()  # names of backends
_unwatched: set[str] = set()  # those that a log names as unwatched
_unwrapping = contextlib.ExitStack()


class TransferError(RuntimeError):
    """An implicit transfer to the host inside ``transfer_guard("disallow")``.

    >>> import backprop_xp as bx
    >>> x = bx.asarray([1.0], backend="array-api-strict", device="device1")
    >>> with bx.transfer_guard("disallow"):
    ...     try:
    ...         float(x[0])
    ...     except bx.TransferError:
    ...         print("a transfer")
    a transfer
    """


class transfer_guard(Scope[str]):  # noqa: N801 - it reads as a function
    """Refuse, log or allow implicit transfers to the host inside a ``with``; per thread and task.

    ``"disallow"`` raises ``TransferError``, a RuntimeError. ``"log"`` logs a warning on the logger
    ``backprop_xp`` with the line of code, shape, dtype and device. ``"allow"`` lifts an outer
    guard. Implicit transfers are ``float``, ``bool``, ``int``, an ``if``, iteration,
    ``numpy.asarray``, DLPack, the library's own methods (PyTorch's ``item``, CuPy's ``get``), and
    results whose shape depends on values (``nonzero``, a mask as an index). Explicit transfers are
    ``to_host`` and ``bx.asarray``. ``repr`` and ``format`` are logged, never refused.

    It covers array-api-strict, CuPy, PyTorch and dpnp, the last two on the CPU too, as a test
    without a GPU. For JAX it enters JAX's own guard, which raises its own error, on accelerators
    alone. NumPy's arrays are on the host already. An array of another backend without
    ``host_conversions`` is an error too, as its transfers cannot be seen.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> theta = network.initialize(seed=0)
    >>> with bx.transfer_guard("disallow"):
    ...     loss, gradient = network.loss_and_gradient(theta, [[0.0, 1.0]], [[1.0]])
    """

    def __init__(self, mode: str) -> None:
        super().__init__(_active, known(mode, ["disallow", "log", "allow"], "mode"))
        self._entered: list[contextlib.ExitStack] = []

    def _recreate_cm(self) -> Self:
        return type(self)(self.value)  # for each call of a decorated function

    def __enter__(self) -> None:
        backends = loaded_backends()
        with contextlib.ExitStack() as stack:
            if self.value != "allow":
                stack.enter_context(_wrap_in_use())
                for backend in backends:
                    watch(backend)
            for backend in backends:
                stack.enter_context(backend.transfer_guard(self.value))
            self._entered.append(stack.pop_all())
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__()
        self._entered.pop().close()


def explicit(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that may move values to the host."""

    @functools.wraps(function)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> R:
        token = _active.set(("allow",))
        try:
            return function(*args, **kwargs)
        finally:
            _active.reset(token)

    return allowed


def leaves_by_dlpack(array: Array, **options: Any) -> bool:
    """Return whether ``array.__dlpack__`` exports to the CPU; a GPU's memory may stay there."""
    return bool((options.get("dl_device") or (None,))[0] == 1)


def holds_a_mask(*dtypes: DType) -> Callable[..., bool]:
    """Return a test for a mask of these dtypes in an index: the host counts its entries."""

    def moves(array: Array, index: Any, *values: Any) -> bool:
        parts = index if isinstance(index, tuple) else (index,)
        has_mask = any(hasattr(part, "dtype") and part.dtype in dtypes for part in parts)
        # The library writes a single number under a mask without counting.
        return has_mask and all(getattr(value, "ndim", 0) for value in values)

    return moves


@process_wide
@contextlib.contextmanager
def _wrap_in_use() -> Iterator[None]:
    """Wrap the conversions of each backend in use; unwrap them at the end."""
    observers.append(watch)
    try:
        yield
    finally:
        with _lock:
            observers.clear()
            _wrapped.clear()
            _unwatched.clear()
            _unwrapping.close()


def watch(backend: Backend, has_array: bool = False) -> None:
    """Wrap a library's conversions if a guard is active: the library may be imported inside one.

    The next call asks a backend without conversions again, until an array of it exists.
    """
    if backend.name in _wrapped:
        return
    with _lock:
        if not observers or backend.name in _wrapped:
            return
        conversions = backend.host_conversions()
        if conversions is None:
            if has_array:
                _report_unwatched(backend)
            return
        for one in conversions:
            original = getattr(one.holder, one.name, None)
            if original is None:  # in this version of the library
                continue
            if one.name in vars(one.holder):
                own = vars(one.holder)[one.name]
                _unwrapping.callback(setattr, one.holder, one.name, own)
            else:
                _unwrapping.callback(delattr, one.holder, one.name)  # a base class has it
            setattr(one.holder, one.name, _with_guard(backend, one, original))
        if conversions or has_array:
            _wrapped.add(backend.name)


def _report_unwatched(backend: Backend) -> None:
    """Refuse or log, as the guard of this thread says, an array whose transfers nothing shows."""
    mode = next(iter(_active.get()), "allow")
    what = f"bx.transfer_guard cannot watch {backend.name}'s arrays"
    if mode == "disallow":
        raise TransferError(
            f"{what}: the backend has no host_conversions(). Add them to it, or lift the guard by "
            'bx.transfer_guard("allow").'
        )
    if mode == "log" and backend.name not in _unwatched:
        _unwatched.add(backend.name)
        log().warning("%s: the backend has no host_conversions().", what)


def _with_guard(backend: Backend, one: Conversion, original: Function) -> Function:
    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        mode = next(iter(_active.get()), "allow")
        if mode == "allow" or not one.moves(*args, **kwargs):
            return original(*args, **kwargs)
        if mode == "disallow" and not one.shows:
            raise TransferError(
                f'{_transfer(backend, one, args[0])}, inside bx.transfer_guard("disallow"). '
                "Keep it on the device, or move it on purpose by bx.to_host(array)."
            )
        result = explicit(original)(*args, **kwargs)  # which may call others: log one line
        log().warning("%s.", _transfer(backend, one, args[0]))
        return result

    return guarded


def _transfer(backend: Backend, one: Conversion, array: Array) -> str:
    """Return a description with the line of the call, outside this module and array libraries."""
    holder = getattr(one.holder, "__module__", one.holder.__name__)
    libraries = {holder.partition(".")[0], "numpy", "array_api_compat"}
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__"))
        if module != __name__ and module.partition(".")[0] not in libraries:
            break
        frame = frame.f_back
    return (
        f"{one.holder.__name__}.{one.name} takes {backend.name}'s array of shape "
        f"{tuple(array.shape)}, {dtype_name(array.dtype)}, on "
        f"{backend.device_name(device_of(array))} to the host at "
        f"{frame.f_code.co_filename}:{frame.f_lineno}"
    )
