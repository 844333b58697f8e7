"""A backend of joblib that trains the fits of scikit-learn's searches as stacks.

Each task of joblib, such as the fit of one candidate to one fold, runs up to its training, where it
waits. When enough trainings that can share a stack wait, the stack is trained, and the tasks go on.
Stacks are trained in the thread that called joblib, where Ctrl-C arrives, and with ``n_jobs`` in
others too.

A task that trains nothing here runs to its end, as under any other backend.
"""

import contextlib
import functools
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import joblib
from joblib.parallel import ParallelBackendBase, SequentialBackend, register_parallel_backend

from backprop_xp.backends import Selection
from backprop_xp.checks import boolean, integer, stacklevel
from backprop_xp.display.progress import Report, phrases_of, reporting
from backprop_xp.estimators.tasks import CURRENT, Task, Worker

# How many tasks wait at most, as those that can share a stack may be far apart in a grid, and the
# bytes of their samples: a large table is not held for each candidate.
_TASKS, _WAITING = 256, 2**28
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


def train_together(training: Training) -> bool:
    """Train a job: in a stack with others if this is a task of ``stacked``, else at once.

    Return False if Ctrl-C has ended it, with a warning. What the job has ``reached`` is kept; if
    that is None, Ctrl-C is raised.
    """
    if (task := CURRENT.get()) is not None:
        task.wait_for(training)
        return True
    try:
        training.train([training.job], None)
    except KeyboardInterrupt:
        if training.job.reached is None:
            raise
        warnings.warn("Training interrupted by user.", stacklevel=stacklevel())
        return False
    return True


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
        self._tasks = dict[Task, None]()  # those that are not done, in their order
        self._ready, self._kinds = deque[Task](), dict[Hashable, list[Task]]()
        self._is_called = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks joblib hands over at once.

        Whoever asks before a call divides work by the answer: a part for each network of a stack.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return _TASKS if self._is_called else _MOST

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **_: Any) -> int:
        """Begin a call of joblib's Parallel, which trains ``n_jobs`` stacks at a time."""
        self._is_called, self.parallel = True, parallel
        count = self.effective_n_jobs(n_jobs)
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

    def retrieve_result(self, out: Task, timeout: float | None = None) -> Any:
        """Run tasks and train stacks until a task is done; return its result."""
        while not out.is_done:
            stacks, title = self._next_stacks(), ""
            if stacks and self._is_shown:
                title = f"stack {self._trained + 1}: {len(stacks[0])} fits"
            self._trained += len(stacks)
            _train_all([[task.work for task in stack] for stack in stacks], title)
            self._ready.extendleft(task for stack in reversed(stacks) for task in reversed(stack))
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all threads."""
        with warnings.catch_warnings():  # those of a thread end with it
            for task in self._tasks:
                task.end()
        for left in (self._tasks, self._ready, self._kinds):
            left.clear()

    def terminate(self) -> None:
        """End a call: one that was completed has no threads."""
        self.abort_everything()
        self._is_called = False

    def _next_stacks(self) -> list[list[Task]]:
        """Run tasks until stacks are full or no more can wait; return these or the fullest."""
        full = list[list[Task]]()
        waiting = [task.work.nbytes for stack in self._kinds.values() for task in stack]
        while self._ready and len(full) < self._stacks:
            if len(waiting) >= _TASKS or sum(waiting) >= _WAITING:
                break
            task = self._ready.popleft()
            task.resume()
            if task.work is None:
                del self._tasks[task]
            elif task.work.kind is None:
                full.append([task])
            else:
                waiting.append(task.work.nbytes)
                stack = self._kinds.setdefault(task.work.kind, [])
                stack.append(task)
                if len(stack) >= (self._networks or task.work.networks_at_once()):
                    full.append(self._kinds.pop(task.work.kind))
        fullest = [] if full else sorted(self._kinds, key=lambda kind: len(self._kinds[kind]))
        return full + [self._kinds.pop(kind) for kind in fullest[-self._stacks :]]


def _train_all(stacks: Sequence[Sequence[Training]], title: str) -> None:
    """Train stacks at the same time, the first one in this thread, with a title if it is shown."""
    threads = [Worker(functools.partial(_train, stack)) for stack in stacks[1:]]
    try:
        for thread in threads:
            thread.start()
        for stack in stacks[:1]:
            _train(stack, title)
        for thread in threads:
            thread.join()
    except BaseException:
        for thread in threads:
            thread.end()
        raise


def stacked(
    n_networks: int | str = "auto", *, n_jobs: int | None = None, progress: bool = False
) -> contextlib.AbstractContextManager[None]:
    """Return a context in which scikit-learn's searches train perceptrons as stacks.

    Fits that differ in ``alpha``, in a number of the solver, in ``tol``, ``n_iter_no_change`` or
    ``max_iter``, in ``random_state``, in their rows or in the weights of the rows are trained at
    once, as one stack. Every other parameter, and the number of rows, is the same in a stack. A fit
    with ``n_members``, ``n_restarts``, ``dropout``, a schedule, ``warm_start``, ``verbose`` or
    callbacks is trained alone, and so is any other estimator.

    ``GridSearchCV``, ``RandomizedSearchCV``, ``HalvingGridSearchCV``, ``cross_val_score``,
    ``validation_curve`` and whatever else calls joblib choose, score, refit and report errors as
    they do without it. With an integer ``random_state`` the results on NumPy are the same to
    rounding, mostly to the last bit; ``solver="lbfgs"`` amplifies roundings. ``mean_fit_time`` is a
    fit's share of its stack's time; a search within a fold counts the time that its fits wait, too.

    - ``n_networks`` is the largest number of networks in a stack. ``"auto"`` chooses 4 to 64, so
      that a step fits into the processor's cache, or on a device with its own memory as many as a
      quarter of the free memory holds. Fits that wait hold at most 256 MiB of samples.
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
    return _entered(StackedBackend(n_networks, progress=progress), n_jobs)


@contextlib.contextmanager
def _entered(backend: StackedBackend, n_jobs: int | None) -> Iterator[None]:
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        yield


register_parallel_backend("backprop_xp", StackedBackend)
