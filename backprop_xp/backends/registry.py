"""Which backends there are: the built-in table, and plug-ins that other distributions offer.

Either is a line ``name = "module:object"``, and nothing is imported before its name is asked for.
Which plug-ins there are is read from the metadata of the installed distributions: once, since that
takes some 20 ms, and never for the default or for an array of a built-in backend.
"""

import functools
import importlib
import logging
import operator
from typing import Any, NamedTuple

from backprop_xp.backends.doors import watch
from backprop_xp.backends.libraries import in_words
from backprop_xp.backends.protocol import Backend, Probe

_log = logging.getLogger("backprop_xp")

GROUP = "backprop_xp.backends"

# Names rather than imports, so that no library is imported before it is asked for; a table rather
# than metadata, so that they work from a checkout that nobody installed.
BUILT_IN = {
    "numpy": "backprop_xp.backends.numpy:backend",
    "cupy": "backprop_xp.backends.cupy:backend",
    "array-api-strict": "backprop_xp.backends.array_api_strict:backend",
    "jax": "backprop_xp.backends.jax:backend",
    "torch": "backprop_xp.backends.torch:backend",
}
_RESERVED = {"auto", *BUILT_IN}
_NEEDED = [name for name in vars(Backend) if not name.startswith("_")]

_loaded: dict[str, Backend] = {}  # plug-ins


class Offer(NamedTuple):
    """An entry point: the distribution that has it, and its ``module:object``."""

    distribution: str
    target: str


@functools.cache
def offers() -> dict[str, list[Offer]]:
    """Return who offers which name, by the metadata of the distributions alone."""
    import importlib.metadata  # 15 ms, for who names a backend

    found: dict[str, list[Offer]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        distribution = entry.dist.name if entry.dist is not None else "an unknown distribution"
        found.setdefault(entry.name, []).append(Offer(distribution, entry.value))
    return found


def names() -> list[str]:
    """Return the names of all backends: the built-in ones, then plug-ins."""
    return [*BUILT_IN, *sorted(offers().keys() - BUILT_IN.keys())]


@functools.cache
def built_in(name: str) -> Backend:
    """Return a backend of the built-in table, whoever else offers its name."""
    backend: Backend = _load(BUILT_IN[name])
    return backend


@functools.cache
def find(name: str) -> Backend | Probe:
    """Return the backend of a known name, or, where it cannot be loaded, why and what helps."""
    dispute = _dispute(name)
    if dispute is not None:
        return dispute
    if name in _RESERVED:
        return built_in(automatic() if name == "auto" else name)
    offer = offers()[name][0]
    try:
        backend = _load(offer.target)
        flaw = _flaw(backend, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a broken plug-in harms nobody else
        flaw = f"cannot be imported: {in_words(error)}"
    if flaw is not None:
        return _broken(name, flaw)
    _loaded[name] = backend
    return _loaded[name]


def probe(name: str) -> Probe:
    """Try the backend of a known name; a plug-in that breaks its promises is not usable."""
    found = find(name)
    if isinstance(found, Probe):
        return found
    try:
        answer: Any = found.probe()
    except Exception as error:
        return _broken(name, f"raised in probe(): {in_words(error)}")
    if not isinstance(answer, Probe):
        return _broken(name, f"returned {answer!r} from probe(), not a Probe")
    return answer


def owner(array: Any) -> Backend | None:
    """Return the backend whose array this is, or None for anything else.

    Plug-ins that nobody asked for are loaded only for an array that keeps the standard and is of no
    other backend.
    """
    for name in BUILT_IN:
        if built_in(name).owns(array):
            watch(built_in(name))
            return built_in(name)
    home = _owner_among_plug_ins(array)
    if home is None and hasattr(type(array), "__array_namespace__"):
        _load_plug_ins()
        home = _owner_among_plug_ins(array)
    return home


def loaded() -> list[Backend]:
    """Return the built-in backends, and the plug-ins that are loaded."""
    return [*map(built_in, BUILT_IN), *_loaded.values()]


def is_loaded(name: str) -> bool:
    """Say whether trying that backend here imports no plug-in that is not imported yet."""
    return name in BUILT_IN or name in _loaded or _dispute(name) is not None


@functools.cache
def automatic() -> str:
    """Return the backend that ``"auto"`` means on this machine, and log it the first time."""
    answer = built_in("cupy").probe()
    if answer.usable:
        _log.info("backend 'auto' is cupy: a CUDA device answers.")
        return "cupy"
    _log.warning("backend 'auto' is numpy: %s.", answer.reason)
    return "numpy"


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def _dispute(name: str) -> Probe | None:
    """Say why a name that several offer is nobody's, and what ends the dispute."""
    who = sorted({offer.distribution for offer in offers().get(name, [])})
    removals = [f"pip uninstall {distribution}" for distribution in who]
    told = " and ".join(f"the distribution {distribution!r}" for distribution in who)
    if name in _RESERVED and who:
        reason = f"the name is built in, and offered by {told} as well"
        return Probe(False, None, reason, ", and ".join(removals))
    if len(who) > 1:
        hint = f"uninstall one of them: {', or '.join(removals)}"
        return Probe(False, None, f"it is offered by {told}", hint)
    return None


def _flaw(backend: Any, name: str) -> str | None:
    """Return what keeps an object from being the backend that its entry point promises."""
    if isinstance(backend, type):
        return "is a class; the entry point must name an instance of it"
    lacking = [needed for needed in _NEEDED if not hasattr(backend, needed)]
    if lacking:
        return (
            f"is a {type(backend).__name__} that lacks {', '.join(lacking)}; "
            "its class must derive from backprop_xp.backends.Backend"
        )
    if backend.name != name:
        return f"calls itself {backend.name!r}, but its entry point is {name!r}"
    return None


def _broken(name: str, flaw: str) -> Probe:
    distribution, target = offers()[name][0]
    reason = f"{target!r}, of the distribution {distribution!r}, {flaw}"
    hint = f"upgrade {distribution}, or pip uninstall {distribution}"
    return Probe(False, None, reason, hint)


@functools.cache
def _load_plug_ins() -> None:
    for name in offers():
        found = find(name)
        if isinstance(found, Probe):
            _log.warning("backend %r is passed over: %s. Try: %s.", name, found.reason, found.hint)


def _owner_among_plug_ins(array: Any) -> Backend | None:
    for name, backend in [*_loaded.items()]:
        try:
            if backend.owns(array):
                return backend
        except Exception as error:
            _pass_over(name, in_words(error))
    return None


@functools.cache
def _pass_over(name: str, words: str) -> None:
    _log.warning("backend %r is passed over: it raised in owns(): %s.", name, words)
