"""Faster functions with which a backend replaces reference functions.

``Backend.replacements`` is the table: it maps a reference function's qualified name to them. A type
of arrays without a backend may have such a table itself.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from backprop_xp.backends.protocol import Array, Function
from backprop_xp.backends.registry import owner

R = TypeVar("R")


def dispatch(function: Callable[..., R], array: Array) -> Callable[..., R]:
    """Return the replacement that the array's backend has for a function, or the function."""
    backend = owner(array)
    kind: Any = type(array) if backend is None else type(backend)
    return _replacement(function, kind)


@functools.lru_cache(maxsize=64)
def _replacement(function: Function, kind: type) -> Function:
    table: dict[str, Function] = getattr(kind, "replacements", {})
    return table.get(qualified_name(function), function)


def qualified_name(function: Function) -> str:
    """Return the name of a reference function in a table of replacements."""
    return f"{function.__module__}.{function.__qualname__}"


def replaceable(function: Callable[..., R]) -> Callable[..., R]:
    """Allow backends to replace a function whose first argument is an array.

    If a replacement returns NotImplemented, the function computes the result.
    """
    by_type: dict[type, Callable[..., R]] = {}

    @functools.wraps(function)
    def call(array: Array, *arguments: object, **options: object) -> R:
        try:
            chosen = by_type[type(array)]
        except KeyError:
            chosen = dispatch(function, array)
            # A plug-in that is loaded later may own the others.
            if owner(array) is not None or hasattr(type(array), "replacements"):
                by_type[type(array)] = chosen
        result = chosen(array, *arguments, **options)
        return function(array, *arguments, **options) if result is NotImplemented else result

    return call
