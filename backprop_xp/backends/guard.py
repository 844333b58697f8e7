"""The transfer guard: proof that nothing leaves the device unasked."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from backprop_xp.backends.doors import guarded, is_ours, left_unguarded
from backprop_xp.backends.doors import mode as within
from backprop_xp.backends.protocol import Backend
from backprop_xp.backends.registry import loaded
from backprop_xp.checks import nearest

_MODES = ["disallow", "log", "allow"]


@contextlib.contextmanager
def transfer_guard(mode: str) -> Iterator[None]:
    """Say what becomes of implicit transfers to the host inside a ``with``; per thread and task.

    ``"disallow"`` raises ``TransferError``, a RuntimeError; ``"log"`` logs a warning on the logger
    ``backprop_xp`` with the place, shape, dtype and device; ``"allow"`` opens an outer guard again.
    Implicit are ``float``, ``bool``, ``int``, an ``if``, iteration, ``numpy.asarray``, DLPack and
    the library's own ways (PyTorch's ``item``, CuPy's ``get``); explicit are the backend's
    ``to_host`` and ``bx.asarray``. ``repr`` and ``format`` are logged, never refused.

    It holds for array-api-strict, PyTorch (on the CPU, too, as a stand-in for a GPU) and CuPy. JAX
    has a guard of its own, which is entered: it raises JAX's own error, on accelerators alone.
    NumPy's arrays are on the host.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> theta = network.initialize(seed=0)
    >>> with bx.transfer_guard("disallow"):
    ...     loss, gradient = network.loss_and_gradient(theta, [[0.0, 1.0]], [[1.0]])
    """
    if not isinstance(mode, str):
        raise TypeError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}.")
    if mode not in _MODES:
        raise ValueError(f"mode {mode!r} is unknown. {nearest(mode, _MODES)}")
    backends = loaded()
    with contextlib.ExitStack() as stack:
        if mode != "allow":
            stack.enter_context(guarded(backends))
        for backend in backends:
            stack.enter_context(_own(backend, mode))
        stack.enter_context(within(mode))
        yield


def _own(backend: Backend, mode: str) -> AbstractContextManager[Any]:
    """Return a library's own guard; a plug-in that has none to give harms nobody else's."""
    try:
        return backend.transfer_guard(mode)
    except Exception as error:
        if is_ours(backend):
            raise
        left_unguarded(backend, "transfer_guard", error)
        return contextlib.nullcontext()
