"""How what a user makes prints: as one would write it, ``Dense(2, 8, 'tanh')``."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backprop_xp.backends import dtype_name

Table = TypeVar("Table", bound=Mapping[str, Any])

_tables: dict[str, Mapping[str, Any]] = {}


def named(home: str, table: Table) -> Table:
    """Return a table of things by their names, which print by those from now on."""
    _tables[home] = table
    return table


def shown(record: Any) -> str:
    """Return the call that makes a record, or what it is called in a table: a ``__repr__``.

    Each argument is looked up as the attribute of its name.
    """
    home, name = _place(record)
    if name:
        return f"{home}.{name}"
    wanted = inspect.signature(type(record)).parameters.values()
    if not all(hasattr(record, p.name) for p in wanted):  # of a class derived by a user
        return f"{type(record).__qualname__}(...)"
    plain = [getattr(record, p.name) for p in wanted if p.kind is not p.KEYWORD_ONLY]
    by_name = {p.name: getattr(record, p.name) for p in wanted if p.kind is p.KEYWORD_ONLY}
    return call(type(record), *plain, **by_name)


def call(function: Callable[..., Any], *arguments: Any, **by_name: Any) -> str:
    """Return the text of a call; arguments at their defaults are left out, but for the first."""
    words: list[str] = []
    parameters, skips = inspect.signature(function).parameters, False
    bound = inspect.signature(function).bind(*arguments, **by_name).arguments
    for i, (name, value) in enumerate(bound.items()):
        parameter = parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            words += map(word, value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            words += [f"{key}={word(one)}" for key, one in value.items()]
        elif i and word(value) == word(parameter.default):
            skips = True
        else:
            # True alone would say little.
            is_named = skips or parameter.kind is parameter.KEYWORD_ONLY or isinstance(value, bool)
            words.append(f"{name}={word(value)}" if is_named else word(value))
    return f"{_name_of(function)}({', '.join(words)})"


def word(value: Any) -> str:
    """Return an argument as one would write it; of an array its dtype and shape, without a copy."""
    name = _place(value)[1]
    if name:
        return repr(name)
    if isinstance(value, list):
        return f"[{', '.join(map(word, value))}]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{dtype_name(value.dtype)} {tuple(value.shape)}>"
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    text = repr(value)
    return f"<{type(value).__qualname__}>" if " object at 0x" in text else text


def _name_of(function: Callable[..., Any]) -> str:
    """Return what stands behind ``bx.`` where a class, or a function of a module, is called."""
    if isinstance(function, type):
        return function.__qualname__
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def _place(value: Any) -> tuple[str, str]:
    """Return which table a value is in, and its name there, or nothing twice."""
    for home, table in _tables.items():
        for name, known in table.items():
            # Equal, since one that was pickled is another object; of arrays nothing is asked.
            if type(known) is type(value) and known == value:
                return home, name
    return "", ""
