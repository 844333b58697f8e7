"""The history of a training, and the checkpoints that it writes as it runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from backprop_xp.backends import Array, array_namespace, to_host, to_host_together
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.process_protocol import Processes
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.early_stopping import Best
from backprop_xp.training.optimizers.pytrees import copied
from backprop_xp.training.rows.batches import concat


class Record:
    """The state of a training, and its measures, which stay on the device until they are needed.

    ``checks`` are the verdicts and the errors of its gradient checks.
    """

    def __init__(self, start: TrainingState) -> None:
        self.state = start
        self.checks: list[tuple[str, float]] = []
        self._start = start
        self._measured: list[tuple[int, Mapping[str, Array]]] = []
        self._moved: list[Mapping[str, Any]] = []

    def add(self, state: TrainingState, measures: Mapping[str, Array]) -> None:
        """Keep the state after some epochs, and their measures, ``(epochs, *stack)`` by name."""
        epochs, self.state = state.epoch - self.state.epoch, state
        if measures:
            self._measured.append((epochs, measures))
            self.checks += state.checks

    def _history(self) -> dict[str, Any]:
        """Return the measures on the host; an asynchronous library is waited for."""
        if self._measured:
            self._moved.append(on_host(self._measured))
        self._measured.clear()
        names = self._moved[0] if self._moved else ()
        return {name: concat([part[name] for part in self._moved], axis=0) for name in names}

    def completed(self) -> TrainingState:
        """Return the state with the history of the whole training, from before the start too."""
        earlier, now = self._start.history, self._history()
        if not now:
            return self.state._replace(history=earlier)
        epochs = self._start.epoch, next(iter(now.values())).shape[0]
        history = {
            name: concat(_filled(earlier.get(name), now.get(name), epochs), axis=0)
            for name in {**earlier, **now}
        }
        return self.state._replace(history=history)


def _filled(earlier: Any, now: Any, epochs: tuple[int, int]) -> list[Any]:
    """Return the values before and after the start; NaN where they were not measured."""
    measured = next(values for values in (now, earlier) if values is not None)
    np = array_namespace(measured)
    return [
        np.full((count, *measured.shape[1:]), math.nan, dtype=measured.dtype, device="cpu")
        if values is None
        else values
        for values, count in zip((earlier, now), epochs, strict=True)
    ]


def on_host(measured: Sequence[tuple[int, Mapping[str, Array]]]) -> dict[str, Any]:
    """Return the measures of some epochs, joined, and moved to the host in one transfer.

    Each part is a number of epochs, and their measures, which may be longer.
    """
    names = list(measured[0][1])
    moved = iter(to_host_together([part[name] for _, part in measured for name in names]))
    # Copies: a view would keep the whole of a longer part.
    parts = [[next(moved)[:epochs].copy() for _ in names] for epochs, _ in measured]
    return {
        name: concat(each, 0) for name, each in zip(names, zip(*parts, strict=True), strict=True)
    }


def history_of(state: TrainingState, record: Record, options: Options) -> dict[str, Any]:
    """Return the history of a result: that of a completed state, and this call's checks."""
    history: dict[str, Any] = copied(dict(state.history))
    if not history:  # of a start that has ended, and has none
        history = _of_last_epoch(state, options.measures)
    if options.check_every is not None:
        history["gradient_error"] = to_host([error for _, error in record.checks])
        history["gradient_verdict"] = to_host([verdict for verdict, _ in record.checks])
    return history


def _of_last_epoch(state: TrainingState, names: Sequence[str]) -> dict[str, Any]:
    """Return the history of a state without one: its last measures, and NaN before."""
    measured = {"loss": state.loss, "validation_loss": state.validation_loss, **state.metrics}
    first = to_host(state.theta[..., 0])
    np, history = array_namespace(first), {}
    for name in names:
        history[name] = np.full(
            (state.epoch, *first.shape), math.nan, dtype=first.dtype, device="cpu"
        )
        if state.epoch and measured.get(name) is not None:
            history[name][-1, ...] = to_host(measured[name])
    return history


def returned(state: TrainingState, options: Options) -> TrainingState | Best:
    """Return what early stopping kept of each network, or else the last state.

    Theta is its average, if there is one.
    """
    if options.early_stopping is not None and state.best is not None:
        return state.best
    return state if state.average is None else state._replace(theta=state.average)


# Writes the checkpoint of a theta and a state. The package ``files``, above training, registers it.
Writer: TypeAlias = Callable[[Array, TrainingState], None]
WriterOf: TypeAlias = Callable[[Network, TrainingState, Options], Writer]
_registered: list[WriterOf] = []


def write_checkpoints_with(writer_of: WriterOf) -> None:
    """Register the function that returns the writer of a training's checkpoints."""
    _registered[:] = [writer_of]


def checkpoint_writer(
    network: Network, start: TrainingState, options: Options, processes: Processes
) -> Writer | None:
    """Return the writer of a training's checkpoints; None if this process writes none.

    Raises OSError, before the first epoch, for a path that cannot be written.
    """
    if options.checkpoint is None or not processes.is_first:
        return None
    return _registered[0](network, start, options)


def write_if_due(
    write: Writer | None, record: Record, options: Options, processes: Processes, *, ends: bool
) -> None:
    """Write the checkpoint of an epoch, at the end of the training or of ``checkpoint_every``."""
    is_due = ends or record.state.epoch % options.checkpoint_every == 0
    if options.checkpoint is None or not is_due:
        return
    state = processes.whole(record.completed())
    if write is not None and state is not None:
        write(returned(state, options).theta, state)
