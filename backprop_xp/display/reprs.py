"""How what a user makes prints: as one would write it, ``Dense(2, 8, 'tanh')``.

Files hold the same calls: ``call_of`` says what was called, ``name_of`` how that is named.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backprop_xp.backends import dtype_name

Record = TypeVar("Record")
Table = TypeVar("Table", bound=Mapping[str, Any])

_tables: dict[str, Mapping[str, Any]] = {}


def named(home: str, table: Table) -> Table:
    """Return a table of things by their names, which print by those from now on."""
    _tables[home] = table
    return table


def made(record: Record, maker: Callable[..., Any], *arguments: Any) -> Record:
    """Return a record that prints, and is written to files, as the call of the function given."""
    object.__setattr__(record, "made_by", (maker, arguments))
    return record


def shown(record: Any) -> str:
    """Return the call that makes a record, or what it is called in a table: a ``__repr__``."""
    home, name = place_of(record)
    if name:
        return f"{home}.{name}"
    maker, bound = call_of(record)
    if bound is None:
        return f"{maker.__qualname__}(...)"
    return call(maker, *bound.args, **bound.kwargs)


def call_of(record: Any) -> tuple[Any, inspect.BoundArguments | None]:
    """Return the function or class that makes a record, and the arguments that it is called with.

    Those of a class are looked up as attributes of their names; None if one is not there, as in a
    class derived by a user.
    """
    maker, arguments = getattr(record, "made_by", (type(record), None))
    signature = inspect.signature(maker)
    if arguments is not None:
        return maker, signature.bind(*arguments)
    plain, by_name = [], {}
    for name, parameter in signature.parameters.items():
        if not hasattr(record, name):
            return maker, None
        value = getattr(record, name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            plain += value
        elif parameter.kind is parameter.KEYWORD_ONLY:
            by_name[name] = value
        else:
            plain.append(value)
    return maker, signature.bind(*plain, **by_name)


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
    return f"{name_of(function)}({', '.join(words)})"


def word(value: Any) -> str:
    """Return an argument as one would write it; of an array its dtype and shape, without a copy."""
    name = place_of(value)[1]
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


def name_of(function: Callable[..., Any]) -> str:
    """Return what stands behind ``bx.`` where a class, or a function of a module, is called."""
    if isinstance(function, type):
        return function.__qualname__
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def place_of(value: Any) -> tuple[str, str]:
    """Return which table a value is in, and its name there, or nothing twice."""
    for home, table in _tables.items():
        for name, known in table.items():
            # Equal, since one that was pickled is another object; of arrays nothing is asked.
            if type(known) is type(value) and known == value:
                return home, name
    return "", ""
