"""The registry of backends: by name, and by array.

A backend is an object ``backend`` of a module in ``backprop_xp.backends.libraries``, or an entry
point of another distribution. A module is imported when its name is requested.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backprop_xp.backends.dtypes_and_devices import is_installed, log, text_of
from backprop_xp.backends.protocol import Array, Backend, BackendUnavailableError, Namespace, Probe
from backprop_xp.checks import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

BUILT_IN = ("numpy", "cupy", "array-api-strict", "jax", "torch", "dpnp")
AUTO = "auto"  # the one name that falls back: from an accelerator to NumPy

_plug_ins: dict[str, Backend] = {}  # the loaded ones
_usable: dict[str, Backend] = {}  # the ones that passed their probe
_owners: dict[type, Backend | None] = {}
# A transfer guard's function, while one is active. It takes each backend in use, and whether an
# array of it exists.
observers: list[Callable[[Backend, bool], None]] = []


class BackendStatus(NamedTuple):
    """One row of ``list_backends``."""

    name: str
    usable: bool
    reason: str
    hint: str


def list_backends() -> list[BackendStatus]:
    """Return for each known backend whether it runs here; if not, the reason and a hint.

    Plug-ins follow the built-in backends. A library that is not imported yet is tried in a process
    of its own: this one imports nothing and takes no GPU memory. A backend that does not answer
    within a minute is not usable.

    >>> import backprop_xp as bx
    >>> [row.name for row in bx.list_backends() if row.usable and row.name == "numpy"]
    ['numpy']
    """
    from backprop_xp.backends.probing import probe_in_children  # 6 ms

    apart = probe_in_children([name for name in names() if not _is_imported(name)])
    probes = {name: apart[name].probe if name in apart else probe(name) for name in names()}
    return [BackendStatus(name, p.usable, p.reason, p.hint) for name, p in probes.items()]


def _is_imported(name: str) -> bool:
    """Return whether a probe of that backend imports nothing new into this process."""
    if name not in BUILT_IN:
        return name in _plug_ins
    return _library(name) in sys.modules or not is_installed(_library(name))


def _library(name: str) -> str:
    """Return the module of a built-in backend's library."""
    return name.replace("-", "_")


def names() -> list[str]:
    """Return the names of all backends: the built-in ones, then plug-ins."""
    return [*BUILT_IN, *sorted(_entry_points().names - {*BUILT_IN})]


def usable_backend(name: str | Backend, source: str) -> Backend:
    """Return the backend of that name, or raise an error with the reason and ``source``."""
    if not isinstance(name, str):
        name_of(name, source)
        backend = name
    elif name in _usable:
        backend = _usable[name]
    else:
        known = [AUTO, *names()]
        if name not in known:
            raise ValueError(f"backend {name!r}, from {source}, is unknown. {nearest(name, known)}")
        result, cause = _try(name)
        if not result.usable:
            raise BackendUnavailableError(
                f"backend {name!r}, from {source}, cannot run here: {result.reason}. "
                f"Try: {result.hint}."
            ) from cause
        backend = _usable[name] = find(name)
    for observe in observers:
        observe(backend, False)
    return backend


def name_of(backend: str | Backend, source: str) -> str:
    """Return the name of a backend; a TypeError names the source of anything else."""
    if isinstance(backend, str):
        return backend
    if isinstance(backend, type) or not hasattr(backend, "probe"):
        raise TypeError(f"backend must be a name or a Backend, not {backend!r} (from {source}).")
    return backend.name


def is_name_of(name: str | Backend, backend: Backend) -> bool:
    """Return whether a name, or a Backend, means this backend; only "auto" runs a probe."""
    return automatic() is backend if name == AUTO else name in (backend, backend.name)


def find(name: str) -> Backend:
    """Return the backend of a known name, or raise the error that loading its plug-in raises."""
    if name == AUTO:
        return automatic()
    if name in BUILT_IN:
        return built_in(name)
    if name not in _plug_ins:
        backend = next(iter(_entry_points(name))).load()
        if isinstance(backend, type) or Backend not in type(backend).__mro__:
            raise TypeError("it is not an instance of a class that derives from Backend")
        if backend.name != name:
            raise ValueError(f"its entry point is named {name!r}, but its name is {backend.name!r}")
        _plug_ins[name] = backend
        _owners.clear()  # the plug-in may own arrays that had no owner
    return _plug_ins[name]


@functools.cache
def built_in(name: str) -> Backend:
    """Return a built-in backend."""
    module = f"backprop_xp.backends.libraries.{_library(name)}"
    backend: Backend = importlib.import_module(module).backend
    return backend


@functools.cache
def automatic() -> Backend:
    """Return the first backend whose accelerator answers, plug-ins last; NumPy's without any."""
    reasons = []
    for backend in _every():
        if type(backend).accelerators is Backend.accelerators:
            continue
        result = probe(backend.name)
        if result.usable and (devices := backend.accelerators()):
            names = ", ".join(map(backend.device_name, devices))
            log().info("backend 'auto' is %s, on %s.", backend.name, names)
            return backend
        reasons.append(result.reason or f"{backend.name} has no accelerator here")
    log().warning("backend 'auto' is numpy: %s.", "; ".join(reasons))
    return built_in("numpy")


def backends_with(kind: str) -> list[str]:
    """Return the names of the backends that may have devices of a kind, such as ``"cuda"``."""
    return [backend.name for backend in _every() if kind in backend.device_kinds]


def _every() -> Iterator[Backend]:
    """Yield the built-in backends, then all plug-ins that can be loaded."""
    yield from map(built_in, BUILT_IN)
    _load_plug_ins()
    yield from list(_plug_ins.values())


@functools.cache
def _entry_points(name: str | None = None) -> "EntryPoints":
    """Return the entry points by which distributions offer backends, or a backend of that name.

    Reading the metadata takes some 20 ms. It never happens for the default backend or an array of a
    built-in one.
    """
    from importlib.metadata import entry_points  # 15 ms

    group = "backprop_xp.backends"
    return entry_points(group=group) if name is None else _entry_points().select(name=name)


def _distributions(name: str) -> list[str]:
    """Return the distributions that offer a backend of that name."""
    ours = ["backprop_xp"] if name in (AUTO, *BUILT_IN) else []
    found = {entry.dist.name if entry.dist else "an unknown one" for entry in _entry_points(name)}
    return ours + sorted(found)


def probe(name: str) -> Probe:
    """Return the probe of the backend of a known name; an error of a plug-in is its reason."""
    return _try(name)[0]


def _try(name: str) -> tuple[Probe, Exception | None]:
    """Return the probe of a backend, and the exception that its plug-in raised, if any."""
    distributions = _distributions(name)
    others = [distribution for distribution in distributions if distribution != "backprop_xp"]
    hint = ", or ".join(f"pip uninstall {distribution}" for distribution in others)
    if len(distributions) > 1:
        reason = f"the distributions {' and '.join(map(repr, distributions))} offer that name"
        return Probe(False, None, reason, hint), None
    try:
        return find(name).probe(), None
    except Exception as error:
        if not others:
            raise
        target = next(iter(_entry_points(name))).value
        reason = f"{target!r}, of the distribution {others[0]!r}, raised {text_of(error)}"
        return Probe(False, None, reason, f"upgrade {others[0]}, or {hint}"), error


def owner(array: Any) -> Backend | None:
    """Return the backend that owns an array, or None for anything else.

    The registry keeps the answer for each type. It loads plug-ins only for an array of the standard
    that no loaded backend owns.
    """
    try:
        backend = _owners[type(array)]
    except KeyError:
        backend = _owners[type(array)] = _owner(array)
    if backend is not None:
        for observe in observers:
            observe(backend, True)
    return backend


def _owner(array: Any) -> Backend | None:
    backend = next((backend for backend in loaded_backends() if _owns(backend, array)), None)
    # A type with replacements of its own is this library's.
    is_ours = hasattr(type(array), "replacements")
    if backend is None and hasattr(type(array), "__array_namespace__") and not is_ours:
        _load_plug_ins()
        backend = next((backend for backend in loaded_backends() if _owns(backend, array)), None)
    return backend


def _owns(backend: Backend, array: Any) -> bool:
    try:
        return backend.owns(array)
    except Exception as error:
        error.add_note(f"The backend {backend.name!r} raised this.")
        raise


@functools.cache
def _load_plug_ins() -> None:
    """Load all plug-ins once; skip and log those with an error or a name that two offer."""
    for name in sorted(_entry_points().names):
        try:
            if len(_distributions(name)) == 1:
                find(name)
        except Exception as error:
            log().warning("backend %r is skipped: %s.", name, text_of(error))


def loaded_backends() -> list[Backend]:
    """Return the built-in backends whose library is imported, and the loaded plug-ins.

    No other backend can have an array.
    """
    imported = [name for name in BUILT_IN if _library(name) in sys.modules]
    return [*map(built_in, imported), *_plug_ins.values()]


def array_namespace(array: Array) -> Namespace:
    """Return the array API namespace of an array: from its backend, else from the array."""
    if type(array) is np.ndarray:
        return np
    backend = owner(array)
    if backend is not None:
        return backend.namespace()
    if not hasattr(array, "__array_namespace__"):
        raise TypeError(f"an array is expected, not {type(array).__name__}.")
    return array.__array_namespace__()
