"""The protocol of the processes of a training: one, or several that act alike or raise alike."""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from backprop_xp.backends import Array
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.states import TrainingState

# How several processes divide a training: by the rows of its data, or by the networks of its stack.
Split: TypeAlias = Literal["rows", "stack"]
# The rows of an epoch's batches, by the epoch's number from 0.
Source: TypeAlias = Callable[[int, Interrupt], Generator[Rows]]
# ``(theta, rows) -> (losses, predictions)``: each sample's loss, and the predictions or None.
Forward: TypeAlias = Callable[[Array, Rows], tuple[Array, Array | None]]


class Processes(Protocol):
    """The processes of a training, as each of them sees them.

    ``OneProcess`` is a single one; ``RowRanks`` and ``MemberRanks`` are those of several. The first
    process writes the checkpoints and shows the progress.
    """

    @property
    def is_alone(self) -> bool:
        """Whether there is one process."""
        ...

    @property
    def is_first(self) -> bool:
        """Whether this process is the first one."""
        ...

    @property
    def tell(self) -> Callable[[], None] | None:
        """The function for Ctrl-C, which ends the training at the next exchange; None if alone."""
        ...

    def begin(
        self, network: Network, theta: Array, x: Any, y: Any, options: Options
    ) -> tuple[Array, Any, Any, Options]:
        """Return the arguments with which this process trains; several check each other's."""
        ...

    def agree(self, error: BaseException | None = None) -> None:
        """Raise if another process has an error, or received Ctrl-C."""
        ...

    def end(self, theta: Array, *, has_ended: bool, stops: bool = False) -> bool:
        """Whether every process has ended, or one stops the training."""
        ...

    def whole(self, state: TrainingState | None) -> TrainingState | None:
        """Return the state of all networks; None if a process has none of the same epoch."""
        ...

    def check_options(self, theta: Array, y: Any, options: Options) -> None:
        """Raise for options that several processes do not take."""
        ...

    def check_loops(self, *, are_compiled: bool) -> None:
        """Raise unless all processes compile their loops, or none: they must round alike."""
        ...

    def check_sets(
        self, network: Network, theta: Array, sets: Mapping[str, Sequence[Any]]
    ) -> list[Rows]:
        """Return the rows that this process has of sets, as ``data_checks.check_sets`` does."""
        ...

    def place(self, rows: Rows) -> tuple[int, int]:
        """Return the index of the first of these rows among all rows, and their count."""
        ...

    def sum(self, array: Array) -> Array:
        """Return the sum of the processes' arrays."""
        ...

    def all_rows(self, array: Array | None, axis: int, like: Array) -> Array | None:
        """Return the processes' arrays, joined along the axis of their rows."""
        ...

    def source(
        self,
        network: Network,
        theta: Array,
        x: Any,
        rows: Rows | None,
        size: int,
        options: Options,
    ) -> Source | None:
        """Return the source of this process's part of each batch; None for plain rows."""
        ...

    def with_all_targets(self, theta: Array, rows: Rows) -> Rows:
        """Return these rows with the targets and the weights of all rows, to be measured."""
        ...

    def summed(self, gradient_of: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of a batch's loss and gradient, given one of this process's part."""
        ...

    def in_pieces(self, forward: Forward, theta: Array, rows: Rows) -> tuple[Array, Array | None]:
        """Return what ``step.piece_by_piece`` does, for all rows."""
        ...
