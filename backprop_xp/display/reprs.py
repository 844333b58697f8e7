"""Reprs: an object prints as the call that makes it, ``Dense(2, 8, 'tanh')``.

Files hold the same names and calls.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

from backprop_xp.backends import dtype_name

Record = TypeVar("Record")
Maker = TypeVar("Maker", bound=Callable[..., object])
Table = TypeVar("Table", bound=Mapping[str, object])

# The registry of the library's named objects, such as "activations.tanh".
NAMES: dict[str, object] = {}


def register_table(home: str, table: Table) -> Table:
    """Return a table of objects by name, after entering each as ``home.name`` in the registry."""
    NAMES.update({f"{home}.{name}": value for name, value in table.items()})
    return table


def entry_of(home: str) -> Callable[[Maker], Maker]:
    """Return a decorator for what users reach as ``bx.home.name``: it prints by that name."""

    def mark(maker: Maker) -> Maker:
        vars(maker)["home"] = home
        return maker

    return mark


def remember_call(record: Record, maker: Callable[..., object], *arguments: object) -> Record:
    """Return a record that prints, and is written to files, as a call of ``maker``."""
    object.__setattr__(record, "made_by", (maker, arguments))
    return record


def repr_of(record: object) -> str:
    """Return the registered name of a record, or the call that makes it: a ``__repr__``."""
    name = name_of(record)
    if name:
        return name
    maker, bound = call_of(record)
    if bound is None:
        return f"{maker.__qualname__}(...)"
    return call_text(maker, *bound.args, **bound.kwargs)


def is_same_call(record: object, other: object) -> bool:
    """Whether two records are made by equal calls: an ``__eq__``.

    An array equals only itself: a comparison of values would move them from the device.
    """
    return type(record) is type(other) and bool(_key(record) == _key(other))


def call_hash(record: object) -> int:
    """Return a hash that fits ``is_same_call``: a ``__hash__``."""
    return hash((type(record), *(part for part in _key(record) if isinstance(part, float))))


def _key(record: object) -> list[object]:
    maker, bound = call_of(record)
    values = [id(record)] if bound is None else bound.arguments.values()
    return [maker, *(id(value) if hasattr(value, "shape") else value for value in values)]


def call_of(record: object) -> tuple[Callable[..., object], inspect.BoundArguments | None]:
    """Return the function or class that makes a record, with its arguments.

    The arguments of a class are the attributes of the same names. They are None if an attribute is
    missing, as it may be in a class that a user derived.
    """
    maker, arguments = getattr(record, "made_by", (type(record), None))
    signature = inspect.signature(maker)
    if arguments is not None:
        return maker, signature.bind(*arguments)
    values: OrderedDict[str, object] = OrderedDict()
    for name, parameter in signature.parameters.items():
        if not hasattr(record, name):
            return maker, None
        value = getattr(record, name)
        values[name] = tuple(value) if parameter.kind is parameter.VAR_POSITIONAL else value
    return maker, inspect.BoundArguments(signature, values)


def call_text(maker: Callable[..., object], *arguments: object, **by_name: object) -> str:
    """Return the text of a call without arguments that have their defaults, except the first."""
    texts: list[str] = []
    signature, skips = inspect.signature(maker), False
    for i, (name, value) in enumerate(signature.bind(*arguments, **by_name).arguments.items()):
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            texts += map(argument_text, value)
        elif i and argument_text(value) == argument_text(parameter.default):
            skips = True
        else:
            # A boolean is always named: True alone says little.
            is_named = skips or parameter.kind is parameter.KEYWORD_ONLY or isinstance(value, bool)
            texts.append(f"{name}={argument_text(value)}" if is_named else argument_text(value))
    return f"{maker_name(maker)}({', '.join(texts)})"


def argument_text(value: object) -> str:
    """Return an argument as written in code; an array is its dtype and shape, without a copy."""
    name = name_of(value).rpartition(".")[2]
    if name:
        return repr(name)
    if isinstance(value, list):
        return f"[{', '.join(map(argument_text, value))}]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{dtype_name(value.dtype)} {tuple(value.shape)}>"
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    text = repr(value)
    return f"<{type(value).__qualname__}>" if " object at 0x" in text else text


def maker_name(maker: Callable[..., object]) -> str:
    """Return the name that follows ``bx.`` in a call of a class or of a module's function."""
    home = getattr(maker, "home", "")
    return f"{home}.{maker.__qualname__}" if home else maker.__qualname__


def name_of(value: object) -> str:
    """Return an object's name in the registry, such as ``"activations.tanh"``; empty if none."""
    for name, known in NAMES.items():
        # Equal, not identical: unpickling makes another object. The type guards against arrays.
        if type(known) is type(value) and known == value:
            return name
    return ""
