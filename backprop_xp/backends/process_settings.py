"""Settings of a whole process, shared by threads that need them at overlapping times."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager


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
