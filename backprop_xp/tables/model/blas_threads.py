"""One BLAS thread during trainings of small products, also where trainings overlap in threads."""

import contextlib
import threading
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

from backprop_xp.backends.scopes import process_wide


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside a ``with``; the last of overlapping blocks restores its own.

    Some builds of BLAS have one number of threads for the process, others one for each thread.
    """
    with _one_in_the_process(), threadpool_limits(1, user_api="blas"):
        yield


@process_wide
@contextlib.contextmanager
def _one_in_the_process() -> Iterator[None]:
    """Hold the limit in a thread of its own.

    While the thread that entered a limit lives, threadpoolctl lets no other thread remove it.
    """
    is_held, ends = threading.Event(), threading.Event()

    def hold() -> None:
        with threadpool_limits(1, user_api="blas"):
            is_held.set()
            ends.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        is_held.wait()
        yield
    finally:
        ends.set()
        thread.join()
