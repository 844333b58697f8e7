"""The processes of a training: ranks of an MPI communicator, which act alike or raise alike.

Each exchange between them begins with a sum of flags. A rank that has failed since the last one, or
received Ctrl-C, raises its flag: every rank then raises an error instead of waiting for another.
"""

import functools
import pickle
import traceback
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    dtype_name,
    owner,
    require_owner,
    to_host as host_values,
)
from backprop_xp.checks import choose
from backprop_xp.training.batches import joined
from backprop_xp.training.pytrees import Pytree, mapped

# How the ranks divide a training: by the rows of its data, or by the networks of its stack.
Split: TypeAlias = Literal["rows", "stack"]


class Ranks:
    """The ranks of a communicator, or this process alone.

    ``interrupted`` tells the others at the next exchange that this rank received Ctrl-C.
    ``have_begun`` is whether the arguments of all ranks were found to be alike.
    """

    def __init__(self, communicator: Any = None, split: Split = "rows") -> None:
        choose({"rows": 0, "stack": 0}, split, "split")
        self.shares_rows = communicator is not None and split == "rows"
        self.shares_stack = communicator is not None and split == "stack"
        self._communicator = communicator
        if communicator is None:
            self.rank, self.size = 0, 1
        elif all(hasattr(communicator, name) for name in ("Allreduce", "allgather", "Get_size")):
            self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())
        else:
            raise TypeError(
                "communicator must be one of mpi4py, such as mpi4py.MPI.COMM_WORLD, not "
                f"{communicator!r}."
            )
        self.is_alone, self.interrupted = communicator is None, False
        self._has_ended, self.have_begun = communicator is None, False

    def agree(self, error: BaseException | None = None) -> None:
        """Raise on every rank if one has an error or received Ctrl-C: it raises its own error."""
        if self._has_ended:
            return
        flag, flags = np.zeros(1, dtype="i4"), np.zeros(1, dtype="i4")
        flag[0] = self.interrupted or error is not None
        self._communicator.Allreduce(flag, flags)
        if not flags[0]:
            return
        self._has_ended = True
        message = "" if self.interrupted or error is not None else None  # "" for Ctrl-C
        if error is not None and not isinstance(error, KeyboardInterrupt):
            # Also of an error that cannot be printed: the other ranks wait for it.
            message = traceback.format_exception_only(error)[0].strip()
            error.add_note(f"On rank {self.rank} of {self.size}.")
        told = self._communicator.allgather((message, self.have_begun))
        self.have_begun = all(begun for _, begun in told)
        if error is not None:
            return
        for rank, (message, _) in enumerate(told):
            if message:
                raise RuntimeError(f"Rank {rank} of {self.size} raised {message}")
        rank = [message for message, _ in told].index("")
        raise KeyboardInterrupt(f"Rank {rank} of {self.size} received Ctrl-C.")

    def exchange(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of the ranks."""
        self.agree()
        values: list[Any] = self._communicator.allgather(value)
        return values

    def broadcast(self, structure: Pytree, like: Array) -> Pytree:
        """Return the first rank's pytree, with its arrays on the device of this rank's array."""
        # Pickled first: an error of that must not leave the others waiting.
        sent = pickle.dumps(packed(structure)) if self.rank == 0 else None
        return unpacked(pickle.loads(self.exchange(sent)[0]), like)  # noqa: S301

    def sum(self, array: Array) -> Array:
        """Return the sum of the arrays of ranks that share rows, the same to the bit on each."""
        if not self.shares_rows:
            return array
        home, device = require_owner(array, "array"), device_of(array)
        if direct := home.name == "cupy" and takes_gpu_arrays():
            home.synchronize(device)
        part = array if direct else np.ascontiguousarray(host_values(array))
        total = array_namespace(part).empty_like(part)
        self.agree()
        self._communicator.Allreduce(part, total)
        return total if direct else home.from_host(total, device=device)

    def join(self, array: Array | None, axis: int, like: Array) -> Array | None:
        """Return the arrays of ranks that share rows, joined along an axis; None is no part."""
        if not self.shares_rows:
            return array
        host = None if array is None else host_values(array)
        parts = [part for part in self.exchange(host) if part is not None]
        if not parts:
            return None
        return require_owner(like, "like").from_host(joined(parts, axis), device=device_of(like))

    def require_alike(self, given: Mapping[str, Any]) -> None:
        """Raise ValueError, on every rank, for a value that differs from the first rank's."""
        own = {name: described(value) for name, value in given.items()}
        first, *others = self.exchange(own)
        for rank, other in enumerate(others, 1):
            for name in first:
                if other[name] != first[name]:
                    raise ValueError(
                        f"{name} is {_shortened(other[name])} on rank {rank}, but "
                        f"{_shortened(first[name])} on rank 0. Give every rank the same."
                    )
        self.have_begun = True

    def place(self, rows: Any) -> tuple[int, int]:
        """Return the index of this rank's first row among those of all ranks, and their count."""
        if not self.shares_rows:
            return 0, rows.x.shape[-2]
        counts = self.exchange(rows.x.shape[-2])
        return sum(counts[: self.rank]), sum(counts)

    def end(self, theta: Array, *, has_ended: bool, stops: bool = False) -> bool:
        """Whether every rank has ended, or one stops the training.

        Raises RuntimeError if ranks that share the rows differ in theta.
        """
        if self.is_alone:
            return has_ended or stops
        own = checksum(theta) if self.shares_rows else 0
        sums, ended, stopped = zip(*self.exchange((own, has_ended, stops)), strict=True)
        if len(set(sums)) > 1:
            rank = next(i for i, each in enumerate(sums) if each != sums[0])
            raise RuntimeError(
                f"theta on rank {rank} differs from that on rank 0, so the ranks no longer train "
                "one network: their processors or libraries round differently. Use equal machines."
            )
        return all(ended) or any(stopped)

    def summed(self, gradient_of: Callable[..., tuple[Array, Array]]) -> Callable[..., Any]:
        """Return a function whose loss and gradient are the sums of every rank's parts.

        The first rank adds the penalty.
        """

        def whole(theta: Array, batch: Any, l2: Any, views: Any) -> tuple[Array, Array]:
            own_l2 = l2 if self.rank == 0 else None
            loss, gradient = gradient_of(theta, batch, own_l2, views)
            xp = array_namespace(gradient)
            flat = [xp.reshape(part, (-1,)) for part in (loss, gradient)]
            total, count = self.sum(xp.concat(flat)), flat[0].shape[0]
            return xp.reshape(total[:count], loss.shape), xp.reshape(total[count:], gradient.shape)

        return whole if self.shares_rows else gradient_of


@dataclass
class _Moved:
    """An array's values on the host, in transit to another rank's device."""

    values: np.ndarray


def packed(structure: Pytree) -> Pytree:
    """Return a pytree whose arrays of other libraries are on the host, marked to be moved back."""

    def pack(leaf: Any) -> Any:
        home = owner(leaf) if hasattr(leaf, "shape") else None
        return leaf if home is None or home.name == "numpy" else _Moved(host_values(leaf))

    return mapped(pack, structure)


def unpacked(structure: Pytree, like: Array) -> Pytree:
    """Return a pytree that was packed, with its arrays on another array's device."""
    move = functools.partial(require_owner(like, "like").from_host, device=device_of(like))
    return mapped(lambda leaf: move(leaf.values) if isinstance(leaf, _Moved) else leaf, structure)


def described(value: Any) -> str:
    """Return a string that is the same on every rank for values that are the same."""
    if isinstance(value, str | int | float | complex | None):
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{dtype_name(value.dtype)} {tuple(value.shape)} #{checksum(value):08x}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {described(value[key])}' for key in value)}}}"
    if isinstance(value, Sequence):
        return f"({', '.join(map(described, value))})"
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    kind = type(value)
    known = kind.__module__.startswith("backprop_xp.") and hasattr(value, "__dict__")
    return f"{kind.__name__}({described(vars(value)) if known else ''})"


def checksum(array: Array) -> int:
    """Return the CRC-32 of an array's bytes."""
    values: Any = np.ascontiguousarray(host_values(array))
    return zlib.crc32(values)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:50]}... (#{zlib.crc32(text.encode()):08x})"


@functools.cache
def takes_gpu_arrays() -> bool:
    """Whether the MPI library reads a GPU's memory itself; not tried on a card."""
    import ctypes

    try:
        from mpi4py import MPI
    except ImportError:  # a communicator of another package
        return False
    query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return bool(query and query())
