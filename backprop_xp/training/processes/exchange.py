"""The processes of a training: ranks of an MPI communicator, which act alike or raise alike.

Each exchange between them begins with a sum of flags. A rank that has failed since the last one, or
received Ctrl-C, raises its flag: every rank then raises an error instead of waiting for another.
"""

import functools
import pickle
import traceback
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from backprop_xp.backends import (
    Array,
    checksum,
    device_of,
    dtype_name,
    owner,
    require_floating,
    require_owner,
    to_host,
)
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.options import OPTION_NAMES, Options
from backprop_xp.training.interfaces.process_protocol import Split
from backprop_xp.training.optimizers.pytrees import Pytree, mapped


class Ranks:
    """What the ranks of a communicator do together; their kinds divide rows or networks.

    ``interrupted`` tells the others at the next exchange that this rank received Ctrl-C.
    ``have_begun`` is whether the arguments of all ranks were found to be alike.
    """

    is_alone = False
    split: Split

    def __init__(self, communicator: Any) -> None:
        if not all(hasattr(communicator, name) for name in ("Allreduce", "allgather", "Get_size")):
            raise TypeError(
                "communicator must be one of mpi4py, such as mpi4py.MPI.COMM_WORLD, not "
                f"{communicator!r}."
            )
        self.communicator = communicator
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())
        self.is_first = self.rank == 0
        self.interrupted = self.have_begun = self._has_ended = False

    def tell(self) -> None:
        """Note that this rank received Ctrl-C."""
        self.interrupted = True

    def begin(
        self, network: Network, theta: Array, x: Any, y: Any, options: Options
    ) -> tuple[Array, Any, Any, Options]:
        """Return the arguments with the first rank's theta and start, after a check of the others.

        Raises ValueError, on every rank, for arguments that are not the same.
        """
        require_floating(theta, "theta")
        given = {name: getattr(options, name) for name in OPTION_NAMES}
        del given["start"], given["sample_weight"]
        given |= {"checkpoint": options.checkpoint is not None, "y": y is not None}
        if not isinstance(options.validation, Real | None):
            given["validation"] = "arrays"
        kind = require_owner(theta, "theta").name, dtype_name(theta.dtype), tuple(theta.shape)
        self.require_alike({"split": self.split, "theta": kind, "network": network, **given})
        theta, start = self.broadcast((theta, options.start), theta)
        return theta, x, y, replace(options, start=start)

    def agree(self, error: BaseException | None = None) -> None:
        """Raise on every rank if one has an error or received Ctrl-C: it raises its own error."""
        if self._has_ended:
            return
        flag, flags = np.zeros(1, dtype="i4"), np.zeros(1, dtype="i4")
        flag[0] = self.interrupted or error is not None
        self.communicator.Allreduce(flag, flags)
        if not flags[0]:
            return
        self._has_ended = True
        message = "" if self.interrupted or error is not None else None  # "" for Ctrl-C
        if error is not None and not isinstance(error, KeyboardInterrupt):
            # Also of an error that cannot be printed: the other ranks wait for it.
            message = traceback.format_exception_only(error)[0].strip()
            error.add_note(f"On rank {self.rank} of {self.size}.")
        told = self.communicator.allgather((message, self.have_begun))
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
        values: list[Any] = self.communicator.allgather(value)
        return values

    def broadcast(self, structure: Pytree, like: Array) -> Pytree:
        """Return the first rank's pytree, with its arrays on the device of this rank's array."""
        # Pickled first: an error of that must not leave the others waiting.
        sent = pickle.dumps(packed(structure)) if self.is_first else None
        return unpacked(pickle.loads(self.exchange(sent)[0]), like)  # noqa: S301

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

    def end(self, theta: Array, *, has_ended: bool, stops: bool = False) -> bool:
        """Whether every rank has ended, or one stops the training.

        Raises RuntimeError if ranks that train one network differ in theta.
        """
        told = self.exchange((self.signature(theta), has_ended, stops))
        sums, ended, stopped = zip(*told, strict=True)
        if len(set(sums)) > 1:
            rank = next(i for i, each in enumerate(sums) if each != sums[0])
            raise RuntimeError(
                f"theta on rank {rank} differs from that on rank 0, so the ranks no longer train "
                "one network: their processors or libraries round differently. Use equal machines."
            )
        return all(ended) or any(stopped)

    def signature(self, theta: Array) -> int:
        """Return a number that must be the same on each rank."""
        return 0

    def check_options(self, theta: Array, y: Any, options: Options) -> None:
        """Raise for options that a training on several ranks does not take."""
        by_hand = "check the gradient by bx.check_network"
        refuse(
            (options.augment is not None, "augment", "augment the rows before"),
            (options.check_every is not None, "check_every", by_hand),
        )


def refuse(*options: tuple[bool, str, str]) -> None:
    """Raise ValueError for the first option that is given, with its name and a way out."""
    for is_given, name, way_out in options:
        if is_given:
            raise ValueError(f"{name} is not for a training with communicator=: {way_out}.")


@dataclass
class _Moved:
    """An array's values on the host, in transit to another rank's device."""

    values: np.ndarray


def packed(structure: Pytree) -> Pytree:
    """Return a pytree whose arrays of other libraries are on the host, marked to be moved back."""

    def pack(leaf: Any) -> Any:
        home = owner(leaf) if hasattr(leaf, "shape") else None
        return leaf if home is None or home.name == "numpy" else _Moved(to_host(leaf))

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
    # Not what a frozen record has cached: a rank without rows has done less with it.
    names = [one.name for one in fields(value)] if is_dataclass(value) else ()
    own = {name: getattr(value, name, None) for name in names}
    return f"{type(value).__name__}({described(own) if own else ''})"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:50]}... (#{zlib.crc32(text.encode()):08x})"
