"""The file of a training: its metadata, the writes after epochs, and the check before a resume."""

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import numpy as np

from backprop_xp.backends import Array, Selection, dtype_name, to_host
from backprop_xp.files.checkpoint import Checkpoint, load, save
from backprop_xp.files.container import CheckpointError
from backprop_xp.networks.network import Network
from backprop_xp.tables.model import METADATA, PREPARATION, Metadata, PathLike, model_of
from backprop_xp.tables.problem import Problem
from backprop_xp.tables.settings import Settings
from backprop_xp.training.early_stopping import Best
from backprop_xp.training.optimizers import Optimizer
from backprop_xp.training.states import TrainingState

# Called after each epoch with its number, the number of epochs, and arrays of one value for each
# restart: "loss", "validation_loss", "best_loss" (the least so far) and "best_epoch" (its epoch).
Watch: TypeAlias = Callable[[int, int, Mapping[str, np.ndarray]], object]
# The libraries whose versions a file has.
_LIBRARIES = ("numpy", "pandas", "scikit-learn", "skrub")
# Seconds between two writes: an epoch of a small table takes less time than a write.
_PAUSE = 1.0


def metadata_of(problem: Problem, settings: Settings, selection: Selection) -> Metadata:
    """Return the metadata of a training from its beginning, as they will be read."""
    metadata: Metadata = {
        "target": problem.target._asdict(),
        "settings": dataclasses.asdict(settings),
        "data": problem.data,
        "held_out": problem.held_out,
        "where": {"backend": selection.backend.name, "dtype": dtype_name(selection.dtype)},
        "rows": {name: len(part.target) for name, part in problem.parts.items()},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
    }
    return dict(json.loads(json.dumps(metadata)))


def read_checkpoint(
    path: PathLike | None, metadata: Metadata, selection: Selection
) -> Checkpoint | None:
    """Return the training in a file, None without a file.

    Raises ValueError, with the difference, unless it has the same problem and settings.
    """
    if path is None or not Path(path).exists():
        return None
    checkpoint = load(path, backend=selection.backend, device=selection.device)
    model_of(checkpoint, path)  # raises for a file without a model of a table
    name = os.fspath(path)
    try:
        difference = next(_differences(checkpoint.metadata[METADATA], metadata), None)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{name}: its metadata lack {error}: another version wrote it. Omit --resume to start "
            "from the beginning."
        ) from error
    if difference is not None:
        raise ValueError(
            f"{name} cannot be resumed: {difference}. Use its data and settings, or omit "
            "--resume to start from the beginning."
        )
    return checkpoint


def _differences(written: Metadata, wanted: Metadata) -> Iterator[str]:
    """Yield the differences between a file's training and another, causes before effects."""
    target, before = wanted["target"], written["target"]
    if target["name"] != before["name"]:
        yield f"the target is {target['name']!r}, but the file's training has {before['name']!r}"
    if written["data"] != wanted["data"]:
        yield "its training had other data: the rows, the columns or their values have changed"
    for part in ("held_out", "settings"):
        for name, value in wanted[part].items():
            other = written[part][name]
            if isinstance(value, dict) and isinstance(other, dict) and value != other:
                yield f"its training had other {name} rows"
            elif value != other:
                yield f"{name} is {_words(value)}, but the file's training has {_words(other)}"
    # The reason of a task, inferred or given, is not compared.
    if {**target, "reason": ""} != {**before, "reason": ""}:
        yield f"the task is {target['task']}, but the file's is {before['task']}"
    if written["where"] != wanted["where"]:
        yield "its training ran on another backend, or in another dtype"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return "a table of its own"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class BestNetwork(NamedTuple):
    """The best of the restarts so far, after ``epoch``: its epoch and validation loss there."""

    member: int
    epoch: int
    best_epoch: int
    best: float


def best_network(state: TrainingState) -> BestNetwork:
    """Return the best network of a state."""
    best = cast(Best, state.best)  # each epoch leaves one
    scores, epochs = best.score.reshape(-1), best.epoch.reshape(-1)
    member = int(scores.argmin())
    return BestNetwork(member, state.epoch, int(epochs[member]), float(scores[member]))


@dataclass(eq=False, kw_only=True)
class TrainingFile:
    """A callback that records the losses, calls the watches, and writes the file as it goes.

    ``path`` is None for no file, ``start`` the state that is resumed.
    """

    path: PathLike | None
    network: Network
    optimizer: Optimizer
    preparation: np.ndarray  # its bytes
    metadata: Metadata
    settings: Settings
    start: TrainingState | None
    watches: Sequence[Watch]
    say: Callable[[str], object]

    def __post_init__(self) -> None:
        history = {} if self.start is None else self.start.history
        self._losses = {name: list(values) for name, values in history.items()}
        self._last_try, self._has_failed = -math.inf, False

    def __call__(self, state: TrainingState) -> None:
        """Record an epoch, call the watches, and write the file if a second has passed.

        A file that cannot be written does not end the training, and prints one line.
        """
        self._record(state)
        values = {name: losses[-1] for name, losses in self._losses.items()}
        if state.best is not None:
            values |= {"best_loss": state.best.score, "best_epoch": state.best.epoch}
        for watch in self.watches:
            watch(state.epoch, self.epochs, values)
        if time.monotonic() - self._last_try < _PAUSE:
            return
        try:
            self.write(state)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                self.say(f"the model is not written: {error}. The training continues.")
            self._has_failed = True
        self._last_try = time.monotonic()

    @property
    def epochs(self) -> int:
        """The maximum number of epochs."""
        return self.settings.epochs or 0

    def history(self) -> dict[str, np.ndarray]:
        """Return the losses, ``(epochs,)`` or ``(epochs, restarts)``, by their names."""
        return {name: np.stack(losses) for name, losses in self._losses.items()}

    def _record(self, state: TrainingState) -> None:
        if state.epoch > len(self._losses.get("loss", ())):
            for name in ("loss", "validation_loss"):
                self._losses.setdefault(name, []).append(to_host(getattr(state, name)))

    def write(self, state: TrainingState | None) -> bool:
        """Write the best network so far and the state; return whether there was a network."""
        best = None if state is None else state.best
        if self.path is None or state is None or best is None:
            return False
        if not np.isfinite(best.score).any():
            return False  # an older file is better than a training that diverged
        self._record(state)  # Ctrl-C may come between an epoch's end and the callback
        state = state._replace(history=self.history())
        self._save(best.theta, best_network(state)._asdict(), state)
        return True

    def write_interrupted(self, state: TrainingState | None) -> str:
        """Write the file of an interrupted training, and return a line for the user."""
        try:
            is_written = self.write(state)
        except OSError as error:
            return f"interrupted, and the model is not written: {error}"
        if state is None or not is_written:
            return "interrupted before there was a network to keep"
        best = best_network(state)
        return (
            f"interrupted in epoch {state.epoch + 1}: {os.fspath(self.path or '')} has the best "
            f"network so far, of epoch {best.best_epoch}, validation loss {best.best:.6g}. "
            "The same command with --resume continues it."
        )

    def finish(self, theta: Array, metadata: Metadata) -> None:
        """Write the best network and the metadata of a training that has ended."""
        history = {
            name: np.where(np.isfinite(values), values, np.asarray(None)).tolist()
            for name, values in self.history().items()
        }
        self._save(theta, {**metadata, "history": history}, None)

    def _save(self, theta: Array, metadata: Metadata, state: TrainingState | None) -> None:
        if self.path is not None:
            save(
                self.path,
                self.network,
                theta,
                optimizer=None if state is None else self.optimizer,
                state=state,
                preparation={PREPARATION: self.preparation},
                metadata={METADATA: {**self.metadata, **metadata}},
            )
