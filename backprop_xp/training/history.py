"""What a training measures, epoch by epoch, and the model file that it writes as it goes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, to_host_together
from backprop_xp.networks.network import Network
from backprop_xp.training.batches import joined
from backprop_xp.training.early_stopping import Best
from backprop_xp.training.options import Options, TrainingState

# Epochs whose losses are joined at once; a compiler makes a function for each number of them.
_FEW = 100


class Record:
    """What has been measured since a training's start; on the device until somebody asks for it."""

    def __init__(self, start: TrainingState) -> None:
        self._start = start
        self._measured: list[Mapping[str, Array]] = []
        self._moved: list[Mapping[str, Any]] = []

    def add(self, values: Mapping[str, Array]) -> None:
        """Keep what was measured in some epochs, ``(epochs, *stack)`` by name."""
        self._measured.append(values)

    def history(self) -> dict[str, Any]:
        """Return it on the host, empty if there is nothing; a library that computes later waits."""
        parts = range(0, len(self._measured), _FEW)
        self._moved += [on_host(self._measured[i : i + _FEW]) for i in parts]
        self._measured.clear()
        names = self._moved[0] if self._moved else ()
        return {name: joined([part[name] for part in self._moved], axis=0) for name in names}

    def completed(self, state: TrainingState) -> TrainingState:
        """Return a state with the history of the whole training, from before the start too."""
        earlier, now = self._start.history, self.history()
        if not now:
            return state._replace(history=earlier)
        ran = self._start.epoch, next(iter(now.values())).shape[0]
        whole: TrainingState = state._replace(
            history={
                name: joined(_both(earlier.get(name), now.get(name), *ran), axis=0)
                for name in {**earlier, **now}
            }
        )
        return whole


def _both(earlier: Any, now: Any, *epochs: int) -> list[Any]:
    """Return values before a start and after it; NaN where they were not measured."""
    given = next(values for values in (now, earlier) if values is not None)
    np = array_namespace(given)
    return [
        np.full((count, *given.shape[1:]), math.nan, dtype=given.dtype, device="cpu")
        if values is None
        else values
        for values, count in zip((earlier, now), epochs, strict=True)
    ]


def on_host(measured: Sequence[Mapping[str, Array]]) -> dict[str, Any]:
    """Return what was measured in some epochs, joined, and moved in one transfer."""
    moving = {name: joined([values[name] for values in measured], axis=0) for name in measured[0]}
    return dict(zip(moving, to_host_together(list(moving.values())), strict=True))


def kept(state: TrainingState, options: Options) -> TrainingState | Best:
    """Return what a training leaves: what early stopping found to be the best, or its state."""
    restores = options.early_stopping is not None and options.early_stopping.restore_best
    return state.best if restores and state.best is not None else state


# Returns what writes the file of one training. Files are above training, which imports none.
Writer = Callable[[Array, TrainingState], None]
_writers: list[Callable[[Network, TrainingState, Options], Writer]] = []


def write_checkpoints_with(
    writer_of: Callable[[Network, TrainingState, Options], Writer],
) -> None:
    """Register what makes the writer of a training's checkpoint, ``(theta, state)``."""
    _writers[:] = [writer_of]


def saving(
    network: Network, start: TrainingState, options: Options
) -> Callable[[TrainingState, Record, bool], None]:
    """Return what writes a training's file after an epoch, ``(state, record, ends)``, where due."""
    if options.checkpoint is None:
        return lambda state, record, ends: None
    keep = _writers[0](network, start, options)

    def save(state: TrainingState, record: Record, ends: bool) -> None:
        if ends or state.epoch % options.checkpoint_every == 0:
            keep(kept(state, options).theta, record.completed(state))

    return save
