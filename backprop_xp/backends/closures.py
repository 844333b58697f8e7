"""What functions read outside themselves.

Compiled code that is kept by the identity of a user's function is stale once such a value changes.
"""

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any


def read_by(function: Any, *callers: Any) -> Iterator[tuple[str, type, Any]]:
    """Yield name, type and value of each variable outside a function that it reads.

    These are variables of enclosing functions and of its module, and those that functions of its
    module read for it. A value that cannot be hashed, such as a list, may change unseen.
    """
    if not isinstance(function, FunctionType):
        return
    code, module = function.__code__, function.__globals__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    read = {name: cell.cell_contents for name, cell in cells}
    read |= {name: module[name] for name in _names(code) if name in module}
    for name, value in read.items():
        yield name, type(value), value
        is_near = isinstance(value, FunctionType) and value.__globals__ is module
        if is_near and value not in (function, *callers):
            yield from read_by(value, function, *callers)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code, and the functions within it, may look up in the module."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
