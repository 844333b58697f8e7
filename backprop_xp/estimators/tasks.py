"""Functions that take turns: each runs in a thread of its own until it waits for some work.

Filters of warnings are those of the whole process, so each task has its own while it runs.
"""

import contextlib
import contextvars
import ctypes
import functools
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

# The seconds in which a thread may end by itself, before an exception in it is repeated.
_PAUSE = 0.1
# What ``warnings.catch_warnings`` changes.
_OF_WARNINGS = ("filters", "showwarning", "_showwarnmsg_impl")


class Work(Protocol):
    """Work that a task waits for: the error with which it ended, and the task's share of its time.

    ``nbytes`` are those of the arrays that wait with it.
    """

    error: Exception | None
    seconds: float
    nbytes: int


class Ended(BaseException):
    """Ends a thread whose result nobody waits for."""


class Worker(threading.Thread):
    """A thread of a function, in a copy of this context, that can be ended."""

    def __init__(self, function: Callable[[], None]) -> None:
        run = functools.partial(contextvars.copy_context().run, function)
        super().__init__(target=run, daemon=True)
        self._is_over = False

    def run(self) -> None:
        """Run the function."""
        with contextlib.suppress(Ended):
            try:
                super().run()
            finally:
                self._is_over = True

    def end(self) -> None:
        """Wait for the end, and raise an exception in the function until it is over.

        An exception that arrives in a weak reference's callback, for example, is lost.
        """
        while self.is_alive():
            self.join(_PAUSE)
            if not self._is_over:
                identity = ctypes.c_ulong(self.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(Ended))


class Task:
    """A function of joblib in a thread, which runs only while ``resume`` waits for it."""

    def __init__(self, function: Callable[[], Any], callback: Callable[[Any], None] | None) -> None:
        self._function, self._callback = function, callback
        self._goes_on, self._has_stopped = _closed_gate(), _closed_gate()
        self._thread = Worker(self._run)
        self._warnings: Mapping[str, Any] | None = None
        self._began, self._waits = 0.0, list[tuple[float, float]]()
        self._result: Any = None
        self._error: BaseException | None = None
        self.work: Any = None  # that it waits for
        self.is_done = self._ends = False

    def resume(self) -> None:
        """Let the thread run until it waits for work or is done."""
        outer = _warnings_now()
        _set_warnings(self._warnings or outer)
        try:
            if self._thread.ident is None:
                self._thread.start()
            _open(self._goes_on)
            self._has_stopped.acquire()
        finally:
            self._warnings = _warnings_now()
            _set_warnings(outer)
        if self.is_done and self._callback is not None:
            self._callback(self)

    def end(self) -> None:
        """End the thread, wherever it is."""
        self._ends = True
        _open(self._goes_on)
        self._thread.end()

    def result(self) -> Any:
        """Return what the function returned, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result

    def wait_for(self, work: Work) -> None:
        """Wait, in the thread, until some work is over; raise its error."""
        start, self.work = time.perf_counter(), work
        if self._ends:
            raise Ended
        _open(self._has_stopped)
        self._goes_on.acquire()
        self.work = None
        if self._ends:
            raise Ended
        self._waits.append((start, time.perf_counter() - start - work.seconds))
        if work.error is not None:
            raise work.error

    def _run(self) -> None:
        self._goes_on.acquire()
        if self._ends:
            return
        CURRENT.set(self)
        self._began = time.perf_counter()
        try:
            self._result = [self._timed(found) for found in self._function()]
        except BaseException as error:
            self._error = error
        finally:
            self.is_done = True
            _open(self._has_stopped)

    def _timed(self, found: Any) -> Any:
        """Return a result of scikit-learn's with the times of the fit and the scores alone."""
        if not (isinstance(found, dict) and isinstance(found.get("fit_time"), float)):
            return found
        times = {**found}
        for start, seconds in self._waits:
            is_of_fit = start < self._began + found["fit_time"]
            name = "fit_time" if is_of_fit else "score_time"
            if name in times:
                times[name] -= seconds
        return times


CURRENT = contextvars.ContextVar[Task | None]("task", default=None)


def _closed_gate() -> threading.Lock:
    """Return a lock that one thread waits for and the other releases.

    Ctrl-C within a method of ``threading.Semaphore`` could leave it locked for ever.
    """
    lock = threading.Lock()
    lock.acquire()
    return lock


def _open(gate: threading.Lock) -> None:
    """Let a thread through that waits or will wait, once."""
    if gate.locked():
        gate.release()


def _warnings_now() -> Mapping[str, Any]:
    return {name: value for name, value in vars(warnings).items() if name in _OF_WARNINGS}


def _set_warnings(state: Mapping[str, Any]) -> None:
    vars(warnings).update(state)
    with warnings.catch_warnings():  # tells the interpreter that the filters have changed
        pass
