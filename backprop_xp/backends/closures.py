"""The variables outside a function that it reads.

Compiled code in a cache is stale once such a variable of a user's function changes.
"""

from collections.abc import Iterator
from types import CodeType, FunctionType


def outer_variables(function: object, *callers: object) -> Iterator[tuple[str, type, object]]:
    """Yield name, type and value of each outer variable that a function reads.

    These are variables of enclosing functions and of its module, and those that functions of its
    module read when it calls them. Changes inside a mutable value, such as a list, are not visible.
    """
    if not isinstance(function, FunctionType):
        return
    code, module = function.__code__, function.__globals__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    values = {name: cell.cell_contents for name, cell in cells}
    values |= {name: module[name] for name in _names(code) if name in module}
    for name, value in values.items():
        yield name, type(value), value
        in_module = isinstance(value, FunctionType) and value.__globals__ is module
        if in_module and value not in (function, *callers):
            yield from outer_variables(value, function, *callers)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code, and the functions inside it, may look up in the module."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
