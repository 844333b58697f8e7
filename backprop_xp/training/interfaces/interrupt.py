"""Ctrl-C and errors, delayed until a training's state is complete."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Interrupt:
    """A context that delays Ctrl-C, or the error of a step, while ``busy`` is True.

    ``pressed`` keeps the arguments of the signal handler, ``error`` the exception of a step. Python
    delivers signals in the main thread only; elsewhere none is delayed. ``release`` calls the
    handler that was installed before, such as asyncio's. A handler that a callback installs stays.
    It is never delayed while a source of batches makes the next one, which may wait. After
    ``tell_by`` Ctrl-C calls a function, which ends the training later, with those of other
    processes.
    """

    def __init__(self) -> None:
        self.busy = False
        self.pressed: tuple[Any, ...] = ()
        self.error: BaseException | None = None
        self._tell: Callable[[], None] | None = None
        self._has_told = False
        self._handler: Any = None
        self._is_entered = self._waits = False

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._handler, self._is_entered = handler, True
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_entered and signal.getsignal(signal.SIGINT) == self._press:
            signal.signal(signal.SIGINT, self._handler)
        self._is_entered = False

    def tell_by(self, tell: Callable[[], None] | None) -> None:
        """Call a function at Ctrl-C from now on, also for one that is delayed; None calls none."""
        self._tell, self.busy = tell, False
        signalled, self.pressed = self.pressed, ()
        if signalled:
            self._press(*signalled)

    def _press(self, *signalled: Any) -> None:
        # A handler that a callback installed may call this one after the training.
        if self._waits or not self._is_entered:
            self._handler(*signalled)
        elif self._tell is not None:
            self._has_told = True
            self._tell()
        elif self.busy:
            self.pressed = signalled
        else:
            self._handler(*signalled)

    @property
    def is_pending(self) -> bool:
        """Whether Ctrl-C or an error is delayed."""
        return bool(self.pressed) or self.error is not None

    def waiting_for(self, items: Generator[T]) -> Generator[T]:
        """Yield items; the next one is made while Ctrl-C calls its handler at once."""
        end: Any = object()
        with contextlib.closing(items):
            while (item := self._next(items, end)) is not end:
                yield item

    def _next(self, items: Generator[T], end: T) -> T:
        self._waits = True
        try:
            if self._has_told:
                raise KeyboardInterrupt
            self._call_handler()
            return next(items, end)
        finally:
            self._waits = False

    def _call_handler(self) -> None:
        """Call the handler of the delayed Ctrl-C, if there is one."""
        signalled, self.pressed = self.pressed, ()
        if signalled:
            self._handler(*signalled)

    def raise_error(self) -> None:
        """Raise the delayed error, if there is one."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def release(self) -> None:
        """Raise the delayed error, or call the handler of the delayed Ctrl-C."""
        self.busy = False
        self.raise_error()
        self._call_handler()
