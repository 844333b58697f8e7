"""A trained model of a table: a network, the preparation of the columns, and the target."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, Backend, to_device_of, to_host
from backprop_xp.files.checkpoint import Checkpoint, load as load_checkpoint
from backprop_xp.files.container import CheckpointError
from backprop_xp.networks.network import Network
from backprop_xp.tables.preparation import Preparation
from backprop_xp.tables.readers import TableData
from backprop_xp.tables.target_column import Target

# The names, in a file, of the preparation's bytes and of the metadata of the model.
PREPARATION, METADATA = "columns", "table"
# The metadata of a model in its file, as JSON.
Metadata: TypeAlias = dict[str, Any]
PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class TableModel:
    """The model that ``train`` returns and ``load`` reads: it predicts the target of rows.

    ``metadata`` is the metadata in the file, as JSON: ``target`` and ``settings`` of the training,
    ``data`` (the SHA-256 of its rows), ``held_out`` (the shares of the validation and test rows, or
    the SHA-256 of their tables), ``where``, ``rows`` of each part and ``versions``; ``member``
    (the index of the restart), ``epoch``, ``best_epoch`` and ``best`` (its validation loss); after
    the training ``report``, for classes also ``classes`` (on the test rows), and in a file
    ``history``. The attribute ``history`` has the losses ``(epochs,)``, or ``(epochs, restarts)``.
    """

    network: Network
    theta: Array
    preparation: Preparation
    target: Target
    metadata: Mapping[str, Any]
    history: Mapping[str, np.ndarray]

    def predict(self, data: TableData) -> pd.DataFrame:
        """Return a prediction for each row of a table, a path or a pandas or polars DataFrame.

        The column ``prediction`` is the class or the number; for classes the columns
        ``probability_<class>`` follow. The table may lack the target. Raises ValueError for columns
        that do not fit.
        """
        outputs = self.outputs(self.preparation.transform(data))
        classes = self.target.classes
        if not classes:
            return pd.DataFrame({"prediction": outputs})
        labels = [classes[i] for i in outputs.argmax(axis=1).tolist()]
        probabilities = {f"probability_{c}": outputs[:, i] for i, c in enumerate(classes)}
        return pd.DataFrame({"prediction": labels, **probabilities})

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Return for prepared rows the classes' probabilities ``(rows, classes)``, or numbers."""
        x = to_device_of(self.theta, x, self.theta.dtype)
        outputs = to_host(self.network.predict(self.theta, x)).astype("float64")
        if not self.target.classes:
            return self.target.decode(outputs[:, 0])
        if len(self.target.classes) == 2:
            return np.concatenate([1.0 - outputs, outputs], axis=1)
        return outputs


def load(path: PathLike, *, backend: str | Backend | None = None, device: Any = None) -> TableModel:
    """Read the model of a table from a file, onto a backend and device.

    A training that was interrupted has left its best network so far. Raises CheckpointError, a
    ValueError, for any other file.
    """
    return model_of(load_checkpoint(path, backend=backend, device=device), path)


def model_of(checkpoint: Checkpoint, path: PathLike) -> TableModel:
    """Return the model in a file's contents."""
    metadata, parts = checkpoint.metadata.get(METADATA), checkpoint.preparation or {}
    if not isinstance(metadata, dict) or PREPARATION not in parts:
        raise CheckpointError(f"{os.fspath(path)}: it holds no model of a table.")
    try:
        target = Target(**{**metadata["target"], "classes": tuple(metadata["target"]["classes"])})
        preparation = Preparation.from_bytes(to_host(parts[PREPARATION]))
        theta, state = checkpoint.theta, checkpoint.state
        theta = theta if len(theta.shape) == 1 else theta[metadata["member"], :]
        losses = metadata["history"] if state is None else state.history
        history = {name: np.asarray(values, dtype="float64") for name, values in losses.items()}
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    return TableModel(checkpoint.network, theta, preparation, target, metadata, history)
