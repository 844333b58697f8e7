"""Which backends there are, by their names and by their arrays.

A backend is a line ``name = "module:object"``: of the built-in table, or an entry point of another
distribution. Nothing is imported before its name is asked for.
"""

import functools
import importlib
import operator
import sys
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends.doors import watch
from backprop_xp.backends.dtypes_and_devices import in_words, is_installed, log
from backprop_xp.backends.protocol import Array, Backend, BackendUnavailableError, Namespace, Probe
from backprop_xp.checks import nearest

# Names rather than imports, so that no library is imported before it is asked for; a table rather
# than metadata, so that they work from a checkout that nobody installed.
BUILT_IN = {
    "numpy": "backprop_xp.backends.libraries.numpy:backend",
    "cupy": "backprop_xp.backends.libraries.cupy:backend",
    "array-api-strict": "backprop_xp.backends.libraries.array_api_strict:backend",
    "jax": "backprop_xp.backends.libraries.jax:backend",
    "torch": "backprop_xp.backends.libraries.torch:backend",
}

_plug_ins: dict[str, Backend] = {}  # those that are loaded
_usable: dict[str, Backend] = {}  # those whose probe found nothing wrong
_owners: dict[type, Backend | None] = {}


class BackendStatus(NamedTuple):
    """One row of ``list_backends``."""

    name: str
    usable: bool
    reason: str
    hint: str


def list_backends() -> list[BackendStatus]:
    """Return each known backend with whether it can run here, and if not, why and what helps.

    Plug-ins come after the built-in ones. One whose library is not imported yet is tried in a
    process of its own, so that listing it imports nothing into this one, and takes no GPU's memory;
    no answer in a minute counts as unusable.
    """
    from backprop_xp.backends.probing import probe_apart  # 6 ms, for who lists them

    apart = probe_apart([name for name in names() if not _is_here(name)])
    probes = {name: apart[name].probe if name in apart else probe(name) for name in names()}
    return [
        BackendStatus(name, found.usable, found.reason, found.hint)
        for name, found in probes.items()
    ]


def _is_here(name: str) -> bool:
    """Say whether trying that backend in this process imports nothing new into it."""
    if name in BUILT_IN:
        module = name.replace("-", "_")
        return module in sys.modules or not is_installed(module)
    return name in _plug_ins


# From a name to a backend


def usable(name: str | Backend, source: str) -> Backend:
    """Return the backend of that name, or raise what says why it cannot be had."""
    if not isinstance(name, str):
        name_of(name, source)
        watch(name)
        return name
    backend = _usable.get(name)
    if backend is None:
        known = ["auto", *names()]
        if name not in known:
            raise ValueError(f"backend {name!r}, from {source}, is unknown. {nearest(name, known)}")
        found, cause = _tried(name)
        if not found.usable:
            raise BackendUnavailableError(
                f"backend {name!r}, from {source}, cannot run here: {found.reason}. "
                f"Try: {found.hint}."
            ) from cause
        backend = _usable[name] = find(name)
    watch(backend)
    return backend


def name_of(backend: str | Backend, source: str) -> str:
    """Return the name of what should be a name or a Backend; a TypeError names the source."""
    if isinstance(backend, str):
        return backend
    if isinstance(backend, type) or not hasattr(backend, "probe"):
        raise TypeError(f"backend must be a name or a Backend, not {backend!r} (from {source}).")
    return backend.name


def find(name: str) -> Backend:
    """Return the backend of a known name, or raise what keeps its plug-in from being loaded."""
    if name == "auto":
        return built_in(automatic())
    if name in BUILT_IN:
        return built_in(name)
    if name not in _plug_ins:
        ((_, target), *_) = offers()[name]
        backend = _load(target)
        if isinstance(backend, type) or Backend not in type(backend).__mro__:
            raise TypeError("it is no instance of a class that derives from Backend")
        if backend.name != name:
            raise ValueError(f"its entry point is named {name!r}, but its name is {backend.name!r}")
        _plug_ins[name] = backend
        _owners.clear()  # what was nobody's may be its
    return _plug_ins[name]


@functools.cache
def built_in(name: str) -> Backend:
    """Return a backend of the built-in table, whoever else offers its name."""
    backend: Backend = _load(BUILT_IN[name])
    return backend


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


@functools.cache
def automatic() -> str:
    """Return the backend that ``"auto"`` means on this machine, and log it the first time."""
    answer = built_in("cupy").probe()
    if answer.usable:
        log().info("backend 'auto' is cupy: a CUDA device answers.")
        return "cupy"
    log().warning("backend 'auto' is numpy: %s.", answer.reason)
    return "numpy"


def names() -> list[str]:
    """Return the names of all backends: the built-in ones, then plug-ins."""
    return [*BUILT_IN, *sorted(offers().keys() - BUILT_IN.keys())]


@functools.cache
def offers() -> dict[str, list[tuple[str, str]]]:
    """Return the backends that installed distributions offer: by name, ``(distribution, target)``.

    The metadata are read once, since that takes some 20 ms, and never for the default or for an
    array of a built-in backend.
    """
    import importlib.metadata  # 15 ms, for who names a backend

    found: dict[str, list[tuple[str, str]]] = {}
    for entry in importlib.metadata.entry_points(group="backprop_xp.backends"):
        distribution = entry.dist.name if entry.dist is not None else "an unknown distribution"
        found.setdefault(entry.name, []).append((distribution, entry.value))
    return found


def probe(name: str) -> Probe:
    """Try the backend of a known name; an error of its plug-in makes it unusable."""
    return _tried(name)[0]


def _tried(name: str) -> tuple[Probe, Exception | None]:
    """Return what trying a backend showed, and the exception that its plug-in raised, if any."""
    if dispute := _dispute(name):
        return dispute, None
    try:
        return find(name).probe(), None
    except Exception as error:
        if name not in offers():
            raise
        ((distribution, target), *_) = offers()[name]
        reason = f"{target!r}, of the distribution {distribution!r}, raised {in_words(error)}"
        hint = f"upgrade {distribution}, or pip uninstall {distribution}"
        return Probe(False, None, reason, hint), error


def _dispute(name: str) -> Probe | None:
    """Return why a name that several distributions offer cannot be used, or None."""
    others = sorted({distribution for distribution, _ in offers().get(name, [])})
    who = ["backprop_xp"] * (name == "auto" or name in BUILT_IN) + others
    if len(who) < 2:
        return None
    hint = ", or ".join(f"pip uninstall {distribution}" for distribution in others)
    reason = f"the distributions {' and '.join(map(repr, who))} offer that name"
    return Probe(False, None, reason, hint)


# From an array to its backend


def owner(array: Any) -> Backend | None:
    """Return the backend whose array this is, or None for anything else.

    The answer is kept for each type. Plug-ins are loaded only for an array that keeps the standard
    and belongs to no backend loaded so far.
    """
    try:
        home = _owners[type(array)]
    except KeyError:
        home = _owners[type(array)] = _owner(array)
    if home is not None:
        watch(home, is_there=True)
    return home


def _owner(array: Any) -> Backend | None:
    home = next((backend for backend in loaded() if _owns(backend, array)), None)
    if home is None and hasattr(type(array), "__array_namespace__"):
        _load_plug_ins()
        home = next((backend for backend in _plug_ins.values() if _owns(backend, array)), None)
    return home


def _owns(backend: Backend, array: Any) -> bool:
    try:
        return backend.owns(array)
    except Exception as error:
        error.add_note(f"The backend {backend.name!r} raised this.")
        raise


@functools.cache
def _load_plug_ins() -> None:
    """Load all plug-ins, once; one that cannot be loaded is left out, with a warning."""
    for name in offers():
        try:
            if _dispute(name) is None:
                find(name)
        except Exception as error:
            log().warning("backend %r is passed over: %s.", name, in_words(error))


def array_namespace(array: Array) -> Namespace:
    """Return the array API namespace of an array: its backend's, or what it says itself."""
    if type(array) is np.ndarray:
        return np
    home = owner(array)
    if home is not None:
        return home.namespace()
    if not hasattr(array, "__array_namespace__"):
        raise TypeError(f"an array is expected, not {type(array).__name__}.")
    return array.__array_namespace__()


def loaded() -> list[Backend]:
    """Return the built-in backends, and the plug-ins that are loaded."""
    return [*map(built_in, BUILT_IN), *_plug_ins.values()]
