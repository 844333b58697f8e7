"""The transfer guard: proof that nothing leaves the device unasked."""

import contextlib
from typing import Self

from backprop_xp.backends import doors
from backprop_xp.backends.blocks import BlockDecorator, Blocks
from backprop_xp.backends.registry import loaded
from backprop_xp.checks import nearest

_MODES = ["disallow", "log", "allow"]


class transfer_guard(BlockDecorator):  # noqa: N801 - it reads as a function
    """Say what becomes of implicit transfers to the host inside a ``with``; per thread and task.

    In a generator it holds while that runs, as ``use_backend`` does.

    ``"disallow"`` raises ``TransferError``, a RuntimeError; ``"log"`` logs a warning on the logger
    ``backprop_xp`` with the place, shape, dtype and device; ``"allow"`` opens an outer guard again.
    Implicit are ``float``, ``bool``, ``int``, an ``if``, iteration, ``numpy.asarray``, DLPack, the
    library's own ways (PyTorch's ``item``, CuPy's ``get``) and what needs to count before its shape
    is known (``nonzero``, a mask as an index); explicit are the backend's ``to_host`` and
    ``bx.asarray``. ``repr`` and ``format`` are logged, never refused.

    It holds for array-api-strict, PyTorch (on the CPU, too, as a stand-in for a GPU) and CuPy. JAX
    has a guard of its own, which is entered: it raises JAX's own error, on accelerators alone.
    NumPy's arrays are on the host.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> theta = network.initialize(seed=0)
    >>> with bx.transfer_guard("disallow"):
    ...     loss, gradient = network.loss_and_gradient(theta, [[0.0, 1.0]], [[1.0]])
    """

    def __init__(self, mode: str) -> None:
        if not isinstance(mode, str):
            raise TypeError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}.")
        if mode not in _MODES:
            raise ValueError(f"mode {mode!r} is unknown. {nearest(mode, _MODES)}")
        self._mode, self._blocks = mode, Blocks()
        self._open: list[contextlib.ExitStack] = []

    def _recreate_cm(self) -> Self:
        return type(self)(self._mode)  # for each call of what it decorates

    def __enter__(self) -> None:
        backends = loaded()
        with contextlib.ExitStack() as stack:
            if self._mode != "allow":
                stack.enter_context(doors.guarded(backends))
            for backend in backends:
                stack.enter_context(backend.transfer_guard(self._mode))
            self._open.append(stack.pop_all())
        self._blocks.enter(self._mode)

    def __exit__(self, *error: object) -> None:
        self._blocks.leave()
        self._open.pop().close()
