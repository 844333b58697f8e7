"""The variables outside a function that it reads, as keys of compiled code.

Compiled code in a cache is stale once such a variable of a user's function changes.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from backprop_xp.backends.protocol import Array
from backprop_xp.backends.registry import owner
from backprop_xp.backends.replacements import replaceable


class Identity:
    """An object as a key: it equals itself alone, and lives as long as its key."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value


def outer_variables(function: object, *callers: object) -> Iterator[tuple[str, type, object]]:
    """Yield name, type and content of each outer variable that a function reads.

    These are variables of enclosing functions and of its module, and those that functions of its
    module read when it calls them; and the attributes of such an object, class or module. The
    content is that of ``content_of``, or ``key_of`` of such a function.
    """
    if not isinstance(function, FunctionType):
        return
    code, module = function.__code__, function.__globals__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    names = dict.fromkeys(_names(code))
    values = {name: cell.cell_contents for name, cell in cells}
    values |= {name: module[name] for name in names if name in module}
    for name, value in _with_attributes(values, names, set()):
        if not isinstance(value, FunctionType) or value.__globals__ is not module:
            yield name, type(value), content_of(value)
            continue
        yield name, type(value), key_of(value)
        if value not in (function, *callers):
            yield from outer_variables(value, function, *callers)


def _with_attributes(
    values: Mapping[str, object], names: Iterable[str], found: set[int]
) -> Iterator[tuple[str, object]]:
    """Yield names and values, each followed by its own attributes of these names.

    ``found`` has the ids of the values before: one may be an attribute of itself.
    """
    for name, value in values.items():
        yield name, value
        if id(value) not in found and owner(value) is None:
            found.add(id(value))
            own = getattr(value, "__dict__", {})
            read = {
                f"{name}.{attribute}": own[attribute] for attribute in names if attribute in own
            }
            yield from _with_attributes(read, names, found)


def key_of(function: FunctionType) -> object:
    """Return a key of a function, without its outer variables.

    It is equal for a function that is defined again, such as a lambda in a loop.
    """
    return (
        function.__code__,
        content_of(function.__defaults__),
        content_of(function.__kwdefaults__),
    )


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code, and the functions inside it, may look up in the module."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def content_of(value: object, found: dict[int, int] | None = None) -> object:
    """Return a key that is equal as long as the content of a value is.

    It is made of the parts of lists, tuples, dicts, sets and slices, and of arrays; any other value
    is its own key. A value that may change, and has no hash, stays without one. ``found`` numbers
    the lists and dicts that were found before: one may contain itself.
    """
    kind, found = type(value), {} if found is None else found
    if isinstance(value, slice):  # without a hash before Python 3.12
        value = value.start, value.stop, value.step
    if isinstance(value, set):
        return kind, frozenset(value)
    if not isinstance(value, list | tuple | dict):
        return value if owner(value) is None else content_of_array(value)
    if not isinstance(value, tuple):
        if id(value) in found:
            return found[id(value)]
        found[id(value)] = len(found)
    parts = value.items() if isinstance(value, dict) else value
    return kind, *((type(part), content_of(part, found)) for part in parts)


@replaceable
def content_of_array(array: Array) -> object:
    """Return a key of an array's content; by default the array itself, which may change."""
    return array
