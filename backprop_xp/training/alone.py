"""The one process of a training; ``training.ranks`` has those of several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from backprop_xp.backends import Array
from backprop_xp.networks.batch_rows import Rows
from backprop_xp.networks.network import Network
from backprop_xp.training.data_checks import check_sets
from backprop_xp.training.options import Options
from backprop_xp.training.sources import Source, source_of
from backprop_xp.training.states import TrainingState
from backprop_xp.training.steps import Forward, piece_by_piece

# How several processes divide a training: by the rows of its data, or by the networks of its stack.
Split: TypeAlias = Literal["rows", "stack"]


class Alone:
    """The process of a training that has all rows and all networks.

    A subclass for several processes overrides what they do together.
    """

    is_alone = True
    # The first process writes the checkpoints and shows the progress.
    is_first = True
    # Called for Ctrl-C, where it ends the training at the next exchange with other processes.
    tell: Callable[[], None] | None = None

    def begin(
        self, network: Network, theta: Array, x: Any, y: Any, options: Options
    ) -> tuple[Array, Any, Any, Options]:
        """Return the arguments with which this process trains; several check each other's."""
        return theta, x, y, options

    def agree(self, error: BaseException | None = None) -> None:
        """Raise if another process has an error, or received Ctrl-C."""

    def end(self, theta: Array, *, has_ended: bool, stops: bool = False) -> bool:
        """Whether every process has ended, or one stops the training."""
        return has_ended or stops

    def whole(self, state: TrainingState | None) -> TrainingState | None:
        """Return the state of all networks; None if a process has none of the same epoch."""
        return state

    def check_options(self, theta: Array, y: Any, options: Options) -> None:
        """Raise for options that several processes do not take."""

    def check_loops(self, *, are_compiled: bool) -> None:
        """Raise unless all processes compile their loops, or none: they must round alike."""

    def check_sets(
        self, network: Network, theta: Array, sets: Mapping[str, Sequence[Any]]
    ) -> list[Rows]:
        """Return what ``data_checks.check_sets`` does."""
        return check_sets(network, theta, sets)

    def place(self, rows: Rows) -> tuple[int, int]:
        """Return the index of the first of these rows among all rows, and their count."""
        return 0, rows.y.shape[-2]

    def sum(self, array: Array) -> Array:
        """Return the sum of the processes' arrays."""
        return array

    def all_rows(self, array: Array | None, axis: int, like: Array) -> Array | None:
        """Return the processes' arrays, joined along the axis of their rows."""
        return array

    def source(
        self,
        network: Network,
        theta: Array,
        x: Any,
        rows: Rows | None,
        size: int,
        options: Options,
    ) -> Source | None:
        """Return the source of batches that x gives or ``augment`` makes; None for plain rows."""
        if rows is not None and options.augment is None:
            return None
        return source_of(network, theta, x, rows, size, options)

    def with_all_targets(self, theta: Array, rows: Rows) -> Rows:
        """Return these rows with the targets and the weights of all rows, to be measured."""
        return rows

    def summed(self, gradient_of: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of a batch's loss and gradient, given one of this process's part."""
        return gradient_of

    def in_pieces(self, forward: Forward, theta: Array, rows: Rows) -> tuple[Array, Array | None]:
        """Return what ``steps.piece_by_piece`` does, for all rows."""
        return piece_by_piece(forward, theta, rows)
