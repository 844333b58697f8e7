"""The one process of most trainings; ``row_shares`` and ``member_shares`` have several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backprop_xp.backends import Array
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.process_protocol import Forward, Source
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.rows.data_checks import check_sets
from backprop_xp.training.rows.sources import source_of
from backprop_xp.training.steps.step import piece_by_piece


class AllRows:
    """The rows of a process that has all of them, as ``Processes`` explains."""

    def check_sets(
        self, network: Network, theta: Array, sets: Mapping[str, Sequence[Any]]
    ) -> list[Rows]:
        """Return what ``data_checks.check_sets`` does."""
        return check_sets(network, theta, sets)

    def place(self, rows: Rows) -> tuple[int, int]:
        """Return 0, and the number of rows."""
        return 0, rows.y.shape[-2]

    def sum(self, array: Array) -> Array:
        """Return the array."""
        return array

    def all_rows(self, array: Array | None, axis: int, like: Array) -> Array | None:
        """Return the array."""
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
        """Return the rows."""
        return rows

    def summed(self, gradient_of: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function."""
        return gradient_of

    def in_pieces(self, forward: Forward, theta: Array, rows: Rows) -> tuple[Array, Array | None]:
        """Return what ``step.piece_by_piece`` does."""
        return piece_by_piece(forward, theta, rows)


class OneProcess(AllRows):
    """The process of a training that has all rows and all networks: it agrees with itself."""

    is_alone = is_first = True
    rank, size = 0, 1
    tell: Callable[[], None] | None = None

    def begin(
        self, network: Network, theta: Array, x: Any, y: Any, options: Options
    ) -> tuple[Array, Any, Any, Options]:
        """Return the arguments."""
        return theta, x, y, options

    def exchange(self, value: Any) -> list[Any]:
        """Return the value, in a list."""
        return [value]

    def agree(self, error: BaseException | None = None) -> None:
        """Raise nothing."""

    def end(self, theta: Array, *, has_ended: bool, stops: bool = False) -> bool:
        """Whether the training has ended or stops."""
        return has_ended or stops

    def whole(self, state: TrainingState | None) -> TrainingState | None:
        """Return the state."""
        return state

    def check_options(self, theta: Array, y: Any, options: Options) -> None:
        """Take all options."""

    def check_loops(self, *, are_compiled: bool) -> None:
        """Take loops of both kinds."""
