"""The cache of compiled functions, and their keys: what a result depends on beside the arrays."""

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from backprop_xp.backends import Identity, content_of, key_of, outer_variables
from backprop_xp.checks import stacklevel
from backprop_xp.networks.chain.propagation import layers_in

# The cache of compiled functions, for later trainings.
_cache: dict[Any, tuple[Any, ...]] = {}
_KEPT = 32
_lock = threading.Lock()


def kept(
    names: tuple[Any, ...], parts: tuple[Any, ...], build: Callable[[], tuple[Any, ...]]
) -> tuple[Any, ...]:
    """Return what was built for these names and parts of a training; build it the first time."""
    key = *names, *map(_hashable, parts), *_variables_of(parts)
    if unknown := [part for part in key if not _has_hash(part)]:
        name, *_, value = unknown[0]
        is_named = isinstance(name, str)
        reads = f"{name} ({type(value).__name__})" if is_named else "an argument given before"
        warnings.warn(
            f"This training is compiled anew at every call: your own function or optimizer reads "
            f"{reads}, whose changes cannot be noticed. Make it an array, a number, or a list or "
            "dict of them.",
            stacklevel=stacklevel(),
        )
        return build()
    with _lock:
        if key not in _cache:
            while len(_cache) >= _KEPT:
                del _cache[next(iter(_cache))]
            _cache[key] = build()
        return _cache[key]


def _variables_of(value: Any) -> Iterator[Any]:
    """Yield what keys of a network, its loss and the metrics lack about a user's own objects.

    These are the outer variables that a function or a method reads, since its result depends on
    them, and the ids of other objects, which may compare equal and still differ. They live as long
    as the cached network.
    """
    if _is_ours(value):
        for part in vars(value).values():
            yield from _variables_of(part)
    elif type(value) is tuple:
        for part in value:
            yield from _variables_of(part)
    elif isinstance(value, functools.partial):
        yield from _variables_of(value.func)
    elif isinstance(value, FunctionType):
        yield from outer_variables(value)
    elif callable(value) or hasattr(value, "forward"):
        yield id(value)
        yield from read_by_methods(value)
        yield from _variables_of(tuple(layers_in(value)))


def read_by_methods(value: Any) -> Iterator[Any]:
    """Yield the outer variables that the methods of a user's layer, optimizer or metric read."""
    for name in ("forward", "backward", "update", "__call__"):
        method = getattr(type(value), name, None)
        if isinstance(method, FunctionType) and not _is_ours(method):
            yield from outer_variables(method)


def _hashable(value: Any) -> Any:
    """Return a key of a part of a network, or of a metric: itself, if it has a hash.

    A user's own function is the same if it is defined again. A user's own object is used as it is
    when a network gets it: it must not change.
    """
    is_ours = _is_ours(value)
    if isinstance(value, FunctionType) and not is_ours:
        return key_of(value)
    if isinstance(value, functools.partial):
        return _hashable(value.func), content_of(value.args), content_of(value.keywords)
    if _has_hash(value):
        return value
    if type(value) is tuple:
        return tuple(map(_hashable, value))
    if is_ours:
        return type(value), *map(_hashable, vars(value).values())
    return Identity(value)


def _is_ours(value: Any) -> bool:
    """Whether a function, or the class of an object, is the library's own."""
    is_function = isinstance(value, FunctionType)
    module = value.__globals__["__name__"] if is_function else type(value).__module__
    return bool(module.startswith("backprop_xp."))


def _has_hash(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
