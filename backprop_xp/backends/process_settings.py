"""Settings of a whole process, shared by threads that want them at overlapping times."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any


def process_wide(
    setting: Callable[[], AbstractContextManager[Any]],
) -> Callable[[], AbstractContextManager[None]]:
    """Return ``setting`` as a context that threads share, however their blocks overlap.

    The first to come in enters the setting, and the last to go leaves it. Were each to save and
    restore it, the first to go would take it from the others, and the last restore it for good.
    """
    lock, inside, entered = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def shared() -> Iterator[None]:
        nonlocal inside
        with lock:
            if not inside:
                entered.enter_context(setting())
            inside += 1
        try:
            yield
        finally:
            with lock:
                inside -= 1
                if not inside:
                    entered.close()

    return shared
