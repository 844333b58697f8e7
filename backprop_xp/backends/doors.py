"""Doors: the functions of an array library by which an array's values leave for the host.

While a transfer guard is active, the doors of the libraries that are loaded are wrapped by a
function that asks how things stand in its own thread or task; without one nothing is wrapped.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from backprop_xp.backends.blocks import Blocks, standing
from backprop_xp.backends.dtypes_and_devices import device_of, dtype_name, log
from backprop_xp.backends.protocol import Backend, Door

P = ParamSpec("P")
R = TypeVar("R")

# How many guards are active, in all threads together; whose doors need no more looking at, and
# what puts back what stood where one is wrapped.
_lock = threading.Lock()
_guards = 0
_seen: set[str] = set()
_unwrapping = contextlib.ExitStack()


class TransferError(RuntimeError):
    """An implicit transfer to the host inside ``transfer_guard("disallow")``."""


@contextlib.contextmanager
def mode(name: str) -> Iterator[None]:
    """Let ``name`` say what becomes of transfers inside a ``with``."""
    blocks = Blocks()
    blocks.enter(name)
    try:
        yield
    finally:
        blocks.leave()


def explicit(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that may move values to the host, since doing so is what it is for."""

    @functools.wraps(function)
    def opened(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _guards:
            return function(*args, **kwargs)
        with mode("allow"):
            return function(*args, **kwargs)

    return opened


def leaves_by_dlpack(array: Any, **options: Any) -> bool:
    """Say whether ``array.__dlpack__`` is asked for memory of the CPU: a GPU's may stay there."""
    return bool((options.get("dl_device") or (None,))[0] == 1)


@contextlib.contextmanager
def guarded(backends: list[Backend]) -> Iterator[None]:
    """Wrap the doors of these backends' libraries until the last such block has ended."""
    global _guards
    with _lock:
        _guards += 1
    try:
        for backend in backends:
            watch(backend)
        yield
    finally:
        with _lock:
            _guards -= 1
            if not _guards:
                _seen.clear()
                _unwrapping.close()


def watch(backend: Backend, *, is_there: bool = False) -> None:
    """Wrap a library's doors if a guard is active: it may have been imported inside one.

    One without doors is not asked again if an array shows that it ``is_there``: it has none.
    """
    if not _guards or backend.name in _seen:
        return
    with _lock:
        if not _guards or backend.name in _seen:
            return
        doors = backend.doors()
        for door in doors:
            if hasattr(door.holder, door.name):  # in this version of the library
                _wrap(backend, door)
        if doors or is_there:
            _seen.add(backend.name)


def _wrap(backend: Backend, door: Door) -> None:
    holder, name = door.holder, door.name
    if name in vars(holder):
        _unwrapping.callback(setattr, holder, name, vars(holder)[name])
    else:
        _unwrapping.callback(delattr, holder, name)  # a base class has it
    setattr(holder, name, _through(backend, door, getattr(holder, name)))


def _through(backend: Backend, door: Door, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def through(*args: Any, **kwargs: Any) -> Any:
        said = next(iter(standing(str)), "allow")
        if said == "allow" or not door.moves(*args, **kwargs):
            return original(*args, **kwargs)
        if said == "disallow" and not door.shows:
            raise TransferError(
                f'{_moved(backend, door, args[0])}, inside bx.transfer_guard("disallow"). Keep it '
                "on the device, or move it on purpose by bx.to_host(array)."
            )
        with mode("allow"):  # a door may lead through others: one transfer, one line
            result = original(*args, **kwargs)
        log().warning("%s.", _moved(backend, door, args[0]))
        return result

    return through


def _moved(backend: Backend, door: Door, array: Any) -> str:
    return (
        f"{door.holder.__name__}.{door.name} takes {backend.name}'s array of shape "
        f"{tuple(array.shape)}, {dtype_name(array.dtype)}, on "
        f"{backend.device_name(device_of(array))} to the host at {_where_called(door)}"
    )


def _where_called(door: Door) -> str:
    """Return the file and line that called, outside this module and the array libraries."""
    holder = getattr(door.holder, "__module__", door.holder.__name__)
    libraries = {holder.partition(".")[0], "numpy", "array_api_compat"}
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__"))
        if module != __name__ and module.partition(".")[0] not in libraries:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
