"""Context managers that hold per thread and task, as ``numpy.errstate``, or per process."""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator
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

    def __enter__(self) -> object:
        """Add the value as the innermost one."""
        self.active.set((self.value, *self.active.get()))
        return None

    def __exit__(self, *error: object) -> None:
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


class process_wide:  # noqa: N801 - a decorator
    """A context manager that threads share, however their blocks overlap.

    The first thread enters the setting; the last one to leave exits it. If each thread saved and
    restored the setting itself, the first to leave would reset it for the others.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[object]]) -> None:
        self._setting = setting
        self._lock, self._users, self._entered = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the setting inside a ``with``."""
        with self._lock:
            if not self._users:
                self._entered.enter_context(self._setting())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._entered.close()
