"""Fits of scikit-learn's searches that are trained as stacks: a backend of joblib.

Each task of joblib, such as the fit of one candidate to one fold, runs in a thread of its own up to
its training, where it waits. When enough trainings that can share a stack wait, or no task is left,
the stack is trained, and their threads go on. One of these threads runs at a time. Stacks are
trained in the thread that called joblib, where Ctrl-C arrives, and with ``n_jobs`` in others too.

A task that trains nothing here runs to its end, as under any other backend.
"""

import contextlib
import contextvars
import ctypes
import functools
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import joblib
from joblib.parallel import ParallelBackendBase, SequentialBackend, register_parallel_backend

from backprop_xp.backends import Selection
from backprop_xp.checks import boolean, integer
from backprop_xp.display.progress import Report, phrases_of, reporting

# Tasks that joblib hands over at once: those that can share a stack may be far apart in a grid.
_TASKS = 1024
# A step of so many bytes for all networks of a stack stays in a processor's cache.
_CACHE = 2**20
_FEWEST, _MOST = 4, 64
# The share of a device's free memory for a stack's theta, its rows and a layer's outputs. The rest
# is for the other layers, the gradients and the optimizer's state.
_SHARE = 0.25

# Trains jobs as a stack, and reports each epoch if there is a report.
Train: TypeAlias = Callable[[Sequence[Any], Report | None], None]


@dataclass
class Training:
    """A training that a task waits for: what is trained, and how a stack of such is trained.

    ``train(jobs, report)`` trains jobs of one ``kind`` as a stack; a job without a kind is trained
    alone, for at most ``epochs``. A network's step has ``numbers``, its arrays have ``nbytes``.
    """

    job: Any
    train: Train
    kind: Hashable
    epochs: int
    choice: Selection
    numbers: int
    nbytes: int
    error: Exception | None = None
    seconds: float = 0.0

    def networks_at_once(self) -> int:
        """Return how many networks a stack has if nothing else is said."""
        backend, device, dtype, _ = self.choice
        of_step = self.numbers * int(backend.namespace().finfo(dtype).bits) // 8
        memory = backend.memory(device)
        if memory is not None:
            free = _SHARE * (memory.total - memory.used)
            return max(1, min(_TASKS, int(free // (self.nbytes + of_step))))
        return max(_FEWEST, min(_MOST, _CACHE // of_step))


def train_together(training: Training) -> None:
    """Train a job: in a stack with others if this is a task of ``stacked``, else at once."""
    if (task := _TASK.get()) is None:
        training.train([training.job], None)
    else:
        task.wait_for(training)


def _train(stack: Sequence[Training], title: str = "") -> None:
    """Train a stack; if it fails each job alone, so that the error is that of one job.

    Its progress is shown if it has a title.
    """
    start, epochs = time.perf_counter(), max(training.epochs for training in stack)
    shown = reporting(epochs, phrases=lambda values: [title, *phrases_of(values)])
    try:
        with shown if title else contextlib.nullcontext() as report:
            stack[0].train([training.job for training in stack], report)
    except Exception as error:
        if len(stack) == 1:
            stack[0].error = error
        else:
            for training in stack:
                _train([training])
    else:
        for training in stack:
            training.seconds = (time.perf_counter() - start) / len(stack)


class _Ended(BaseException):
    """Ends a thread whose result nobody waits for."""


def _end(thread: threading.Thread) -> None:
    """Raise an exception in a thread that runs, and wait for its end."""
    identity = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(_Ended))
    thread.join()


class Task:
    """A task of joblib in a thread, which runs only while ``resume`` waits for it."""

    def __init__(self, function: Callable[[], Any], callback: Callable[[Any], None] | None) -> None:
        self._function, self._callback = function, callback
        self._goes_on, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        run = functools.partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, daemon=True)
        self._result: Any = None
        self._error: BaseException | None = None
        self._waited = 0.0  # seconds, less its share of the stacks'
        self.training: Training | None = None
        self.is_done = self._ends = False

    def resume(self) -> None:
        """Let the thread run until it waits for a training or is done."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._goes_on.release()
        self._has_stopped.acquire()
        if self.is_done and self._callback is not None:
            self._callback(self)

    def end(self) -> None:
        """End the thread, wherever it is."""
        self._ends = True
        if self._thread.ident is None or self.is_done:
            return
        if self.training is None:  # Ctrl-C came while it ran
            _end(self._thread)
        else:
            self._goes_on.release()
            self._thread.join()

    def result(self) -> Any:
        """Return what the task returned, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result

    def wait_for(self, training: Training) -> None:
        """Wait, in the thread, until a training is over; raise its error."""
        start, self.training = time.perf_counter(), training
        self._has_stopped.release()
        self._goes_on.acquire()
        self.training = None
        if self._ends:
            raise _Ended
        self._waited += time.perf_counter() - start - training.seconds
        if training.error is not None:
            raise training.error

    def _run(self) -> None:
        _TASK.set(self)
        try:
            self._result = self._function()
            for found in self._result:
                if isinstance(found, dict) and "fit_time" in found:  # of scikit-learn's searches
                    found["fit_time"] -= self._waited
        except BaseException as error:
            self._error = error
        finally:
            self.is_done = True
            self._has_stopped.release()


_TASK = contextvars.ContextVar[Task | None]("task", default=None)


class StackedBackend(ParallelBackendBase):  # type: ignore[misc]
    """The backend ``"backprop_xp"`` of joblib: see ``stacked``."""

    supports_retrieve_callback = False
    supports_sharedmem = uses_threads = True

    def __init__(
        self, n_networks: int | str = "auto", *, progress: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._is_shown, self._trained = boolean(progress, "progress"), 0
        self._networks: int | None = None
        if n_networks != "auto":
            self._networks = integer(n_networks, "n_networks", at_least=1)
        self._stacks = 1  # that are trained at a time
        self._tasks = dict.fromkeys(list[Task]())  # those that are not done, in their order
        self._ready, self._kinds = deque[Task](), dict[Hashable, list[Task]]()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks joblib hands over at once."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return _TASKS

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **_: Any) -> int:
        """Begin a call of joblib's Parallel, which trains ``n_jobs`` stacks at a time."""
        count, self.parallel = self.effective_n_jobs(n_jobs), parallel
        n_jobs = n_jobs or 1
        self._stacks = n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)
        return count

    def get_nested_backend(self) -> tuple[ParallelBackendBase, None]:
        """Return the backend of joblib's calls within a task."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def submit(self, func: Callable[[], Any], callback: Any = None) -> Task:
        """Return a task, which begins when a result is asked for."""
        task = Task(func, callback)
        self._tasks[task] = None
        self._ready.append(task)
        return task

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Keep the filters of warnings: the threads set them in turn, each for itself."""
        with warnings.catch_warnings():
            yield

    def retrieve_result(self, out: Task, timeout: float | None = None) -> Any:
        """Run tasks and train stacks until a task is done; return its result."""
        while not out.is_done:
            stacks, title = self._next_stacks(), ""
            if stacks and self._is_shown:
                title = f"stack {self._trained + 1}: {len(stacks[0])} fits"
            self._trained += len(stacks)
            trainings = [[task.training for task in stack if task.training] for stack in stacks]
            _train_all(trainings, title)
            self._ready.extendleft(task for stack in reversed(stacks) for task in reversed(stack))
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all threads."""
        with warnings.catch_warnings():
            for task in self._tasks:
                task.end()
        for left in (self._tasks, self._ready, self._kinds):
            left.clear()

    def terminate(self) -> None:
        """End all threads: a call that was completed has none."""
        self.abort_everything()

    def _next_stacks(self) -> list[list[Task]]:
        """Run tasks until stacks are full or all tasks wait; return these stacks or the fullest."""
        full = list[list[Task]]()
        while self._ready and len(full) < self._stacks:
            task = self._ready.popleft()
            task.resume()
            if task.training is None:
                del self._tasks[task]
            elif task.training.kind is None:
                full.append([task])
            else:
                stack = self._kinds.setdefault(task.training.kind, [])
                stack.append(task)
                if len(stack) >= (self._networks or task.training.networks_at_once()):
                    full.append(self._kinds.pop(task.training.kind))
        fullest = [] if full else sorted(self._kinds, key=lambda kind: len(self._kinds[kind]))
        return full + [self._kinds.pop(kind) for kind in fullest[-self._stacks :]]


def _train_all(stacks: Sequence[Sequence[Training]], title: str) -> None:
    """Train stacks at the same time, the first one in this thread, with a title if it is shown."""

    def beside(stack: Sequence[Training]) -> None:
        with contextlib.suppress(_Ended):
            _train(stack)

    threads = [threading.Thread(target=beside, args=(stack,)) for stack in stacks[1:]]
    for thread in threads:
        thread.start()
    try:
        for stack in stacks[:1]:
            _train(stack, title)
        for thread in threads:
            thread.join()
    except BaseException:
        for thread in threads:
            _end(thread)
        raise


def stacked(
    n_networks: int | str = "auto", *, n_jobs: int | None = None, progress: bool = False
) -> joblib.parallel_config:
    """Return a context in which scikit-learn's searches train perceptrons as stacks.

    Fits that differ in ``alpha``, in a number of the solver, in ``tol``, ``n_iter_no_change`` or
    ``max_iter``, in ``random_state``, in their rows or in the weights of the rows are trained at
    once, as one stack. Every other parameter, and the number of rows, is the same in a stack. A fit
    with ``n_members``, ``n_restarts``, ``dropout``, a schedule, ``warm_start``, ``verbose`` or
    callbacks is trained alone, and so is any other estimator.

    ``GridSearchCV``, ``RandomizedSearchCV``, ``HalvingGridSearchCV``, ``cross_val_score``,
    ``validation_curve`` and whatever else calls joblib choose, score, refit and report errors as
    they do without it. On NumPy the results are the same to rounding, mostly to the last bit;
    ``solver="lbfgs"`` amplifies roundings. ``mean_fit_time`` is a fit's share of its stack's time.

    - ``n_networks`` are those of a stack. ``"auto"`` are 4 to 64, whose step stays in the cache, or
      on a device with its own memory what a quarter of the free memory holds.
    - ``n_jobs`` stacks are trained at a time, each in a thread; -1 is one for each processor.
    - ``progress`` shows the epochs and losses of a stack as ``bx.fit`` does, of several at a time
      those of the first.

    Ctrl-C ends the search. ``joblib.parallel_config("backprop_xp")`` is this context, too, once
    ``bx.MLPClassifier`` or ``bx.stacked`` was used.

    >>> import backprop_xp as bx
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> model = bx.MLPClassifier(8, max_iter=1000, learning_rate_init=0.05, random_state=0)
    >>> with bx.stacked():
    ...     search = GridSearchCV(model, {"alpha": [1e-4, 1e-2, 1.0]}).fit(X, y)
    >>> bool(search.best_score_ > 0.9)
    True
    """
    return joblib.parallel_config(StackedBackend(n_networks, progress=progress), n_jobs=n_jobs)


register_parallel_backend("backprop_xp", StackedBackend)
