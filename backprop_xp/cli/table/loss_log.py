"""The file of ``train --log``: a line of JSON for each epoch."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np

from backprop_xp.checks import stacklevel
from backprop_xp.training.interfaces.states import TrainingState


@dataclasses.dataclass
class LossLog:
    """A callback that writes a line for each epoch; a resumed training keeps its earlier lines.

    A file that cannot be written does not end the training: it warns once, and the next epoch
    writes all lines that are missing. ``size`` are the bytes of complete lines in the file.
    """

    path: Path
    size: int | None = None
    missing: bytes = b""
    error: OSError | None = None

    def __call__(self, state: TrainingState) -> None:
        """Write the line of an epoch, with null for what is not finite."""
        from backprop_xp.tables.model.model_file import measures_of  # pandas takes half a second

        line: dict[str, object] = {"epoch": state.epoch}
        for name, values in measures_of(state).items():
            line[name] = np.where(np.isfinite(values), values, np.asarray(None)).tolist()
        self.missing += json.dumps(line).encode() + b"\n"
        try:
            self._write(state.epoch)
            self.error = None
        except OSError as error:
            if self.error is None:
                message = f"{self.path} is not written: {error}. The training continues."
                warnings.warn(message, RuntimeWarning, stacklevel=stacklevel())
            self.error = error

    def _write(self, epoch: int) -> None:
        """Write the missing lines behind the complete ones."""
        if self.size is None:
            lines = self.path.read_bytes().splitlines(True) if self.path.exists() else []
            self.size = len(b"".join(lines[: epoch - 1]))
        with self.path.open("ab") as file:
            if file.tell() > self.size:  # another training's lines, or a part of a line
                file.truncate(self.size)
            file.write(self.missing)
            file.flush()
            self.size, self.missing = file.tell(), b""

    def require_all_lines(self) -> None:
        """Raise OSError if lines are missing."""
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror, str(self.path))


def is_log(path: Path) -> bool:
    """Whether a file begins as one that ``LossLog`` has written."""
    with path.open("rb") as file:
        return file.read(10) == b'{"epoch": '
