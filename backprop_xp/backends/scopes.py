"""Context managers that hold per thread and per task, as ``numpy.errstate`` does."""

import inspect
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


class Scope(ContextDecorator, Generic[T]):
    """A context manager that may be entered again, also inside itself; it decorates functions too.

    ``active`` holds the values of this thread's or task's scopes, the innermost first.
    """

    def __init__(self, active: ContextVar[tuple[T, ...]], value: T) -> None:
        self.active, self.value = active, value

    def begin(self) -> None:
        """Add the value as the innermost one."""
        self.active.set((self.value, *self.active.get()))

    def end(self) -> None:
        """Remove the value; generators may end in any order, and in another thread."""
        values = list(self.active.get())
        if self.value in values:
            values.remove(self.value)
        self.active.set(tuple(values))

    def __call__(self, function: F) -> F:
        """Return the function in a scope of its own at each call."""
        for runs_later, kind in (
            (inspect.iscoroutinefunction, "an async function"),
            (inspect.isasyncgenfunction, "an async generator"),
            (inspect.isgeneratorfunction, "a generator"),
        ):
            if runs_later(function):
                name = type(self).__name__
                raise TypeError(
                    f"@{name} decorates {function.__name__}, {kind}: the context would end before "
                    f"the body runs. Put `with {name}(...):` inside."
                )
        return super().__call__(function)
