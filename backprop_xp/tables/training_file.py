"""The file of a training as it goes: the best network so far, and all that going on takes."""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.files.checkpoint import save
from backprop_xp.networks.network import Network
from backprop_xp.tables.model import BYTES, TOLD
from backprop_xp.training.optimizers import Optimizer
from backprop_xp.training.states import TrainingState

# After an epoch: its number, that of all, and by names, of each restart, "loss", "validation_loss",
# "best_loss", the least of the latter so far, and "best_epoch", when that was.
Watch: TypeAlias = Callable[[int, int, Mapping[str, np.ndarray]], Any]
# Seconds between two writings: an epoch of a small table takes less than a file's way to the disk.
_PAUSE = 1.0


@dataclass(eq=False)
class Keeper:
    """Called after each epoch with the state: it keeps the history, and the file where due.

    ``told`` is what the file tells of the model, ``path`` None for no file.
    """

    path: str | os.PathLike[str] | None
    network: Network
    optimizer: Optimizer
    epochs: int
    preparation: np.ndarray
    told: dict[str, Any]
    watches: tuple[Watch, ...] = ()
    say: Callable[[str], Any] = lambda line: None
    _history: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _tried: float = -math.inf
    _failed: bool = False

    def __call__(self, state: TrainingState) -> None:
        """Record an epoch, tell the watches of it, and write the file if a second has gone by.

        A file that cannot be written ends no training: it is said, and tried again.
        """
        self._record(state)
        losses = {name: values[-1] for name, values in self._history.items()}
        if state.best is not None:
            losses |= {"best_loss": state.best.score, "best_epoch": state.best.epoch}
        for watch in self.watches:
            watch(state.epoch, self.epochs, losses)
        if time.monotonic() - self._tried < _PAUSE:
            return
        try:
            self.write(state)
            self._failed = False
        except OSError as error:
            if not self._failed:
                self.say(f"the model is not written: {error}. The training continues.")
            self._failed = True
        self._tried = time.monotonic()

    def go_on_from(self, start: TrainingState | None) -> None:
        """Take the history of a training that goes on."""
        if start is not None:
            self._history = {name: list(values) for name, values in start.history.items()}

    def curves(self) -> dict[str, np.ndarray]:
        """Return the losses, ``(epochs,)`` or ``(epochs, restarts)``, by their names."""
        return {name: np.stack(values) for name, values in self._history.items()}

    def _record(self, state: TrainingState) -> None:
        if state.epoch > len(self._history.get("loss", ())):
            for name in ("loss", "validation_loss"):
                self._history.setdefault(name, []).append(to_host(getattr(state, name)))

    def write(self, state: TrainingState | None) -> bool:
        """Write the best network so far, and the state; say whether there was one to write."""
        if self.path is None or state is None or state.best is None:
            return False
        if not np.isfinite(state.best.score).any():
            return False  # an older file is worth more than a training that diverged
        self._record(state)  # Ctrl-C may come between an epoch's end and the call that records it
        self._save(
            state.best.theta,
            best_of(state),
            optimizer=self.optimizer,
            state=state._replace(history=self.curves()),
        )
        return True

    def finish(self, theta: Array, told: Mapping[str, Any]) -> None:
        """Write the file of a training that has ended: its best network alone, and its report."""
        if self.path is not None:
            curves = {name: _plain(values) for name, values in self.curves().items()}
            self._save(theta, {**told, "history": curves})

    def _save(self, theta: Array, told: Mapping[str, Any], **parts: Any) -> None:
        metadata = {TOLD: {**self.told, **told}}
        preparation = {BYTES: self.preparation}
        save(
            Path(self.path or ""),
            self.network,
            theta,
            preparation=preparation,
            metadata=metadata,
            **parts,
        )


def best_of(state: TrainingState) -> dict[str, Any]:
    """Return which network of the restarts is the best so far, since when, and its loss."""
    best: Any = state.best  # each epoch leaves one
    scores, epochs = best.score.reshape(-1), best.epoch.reshape(-1)
    member = int(scores.argmin())
    return {
        "member": member,
        "epoch": state.epoch,
        "best_epoch": int(epochs[member]),
        "best": float(scores[member]),
    }


def _plain(values: np.ndarray) -> Any:
    """Return numbers as JSON has them, None for what is not finite."""
    return np.where(np.isfinite(values), values, np.asarray(None)).tolist()
