"""A trained model of a table: a network, the preparation of its columns, and what it predicts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, beside, to_host
from backprop_xp.files.checkpoint import Checkpoint, load as load_file
from backprop_xp.files.container import CheckpointError
from backprop_xp.networks.network import Network
from backprop_xp.tables.columns import Target, in_its_unit
from backprop_xp.tables.preparation import Preparation

# The names, in a file, of the preparation's bytes and of what is told of the model.
BYTES, TOLD = "columns", "table"


@dataclass(frozen=True, eq=False)
class TableModel:
    """What ``train`` makes and ``load`` reads: it predicts the target of a table's rows.

    ``told`` is what the file tells of it, as JSON: ``target`` and ``settings`` of the training,
    ``data`` (the SHA-256 of its rows), ``held_out`` (the shares of the validation and the test
    rows, or the SHA-256 of their own), ``where``, ``rows`` of each part and ``versions``;
    ``member`` (which restart), ``epoch``, ``best_epoch`` and ``best`` (the validation loss there);
    once it is finished ``report``, of classes ``classes`` (of the test rows) too, and in a file
    ``history``. The attribute ``history`` has the losses ``(epochs,)``, of restarts ``(epochs,
    restarts)``.
    """

    network: Network
    theta: Array
    preparation: Preparation
    target: Target
    told: Mapping[str, Any]
    history: Mapping[str, np.ndarray]

    def predict(self, data: Any) -> pd.DataFrame:
        """Return a prediction for each row of a table, a path or a pandas or polars frame.

        The column ``prediction`` is the class or the number; of classes ``probability_<class>``
        follow. The target need not be there. Raises ValueError for columns that do not fit.
        """
        found = self.outputs(self.preparation.transform(data))
        if self.target.task == "regression":
            return pd.DataFrame({"prediction": found})
        guessed = [self.target.classes[i] for i in found.argmax(axis=1).tolist()]
        columns: dict[str, Any] = {"prediction": guessed}
        for i, name in enumerate(self.target.classes):
            columns[f"probability_{name}"] = found[:, i]
        return pd.DataFrame(columns)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Return for prepared rows the classes' probabilities ``(rows, classes)``, or numbers."""
        placed = beside(self.theta, x, self.theta.dtype)
        return in_units(self.target, to_host(self.network.predict(self.theta, placed)))


def in_units(target: Target, predicted: np.ndarray) -> np.ndarray:
    """Return a network's predictions as probabilities of each class, or in the target's unit."""
    predicted = predicted.astype("float64")
    if target.task == "regression":
        return in_its_unit(target, predicted[:, 0])
    if len(target.classes) == 2:
        return np.concatenate([1.0 - predicted, predicted], axis=1)
    return predicted


def load(path: str | os.PathLike[str], *, backend: Any = None, device: Any = None) -> TableModel:
    """Read the model of a table from a file, onto the backend and device that are chosen.

    A training that was cut short has left its best network so far. Raises CheckpointError, a
    ValueError, for what is no such file.
    """
    return model_of(load_file(path, backend=backend, device=device), path)


def model_of(found: Checkpoint, path: Any) -> TableModel:
    """Return the model that is in a file's contents."""
    told = found.metadata.get(TOLD)
    if not isinstance(told, dict) or BYTES not in (found.preparation or {}):
        raise CheckpointError(f"{os.fspath(path)}: it holds no model of a table.")
    try:
        target = target_from(told["target"])
        preparation = Preparation.from_bytes(to_host((found.preparation or {})[BYTES]))
        theta = found.theta if len(found.theta.shape) == 1 else found.theta[told["member"], :]
        curves = told["history"] if found.state is None else found.state.history
        history = {name: np.asarray(values, dtype="float64") for name, values in curves.items()}
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    return TableModel(found.network, theta, preparation, target, told, history)


def target_from(told: Mapping[str, Any]) -> Target:
    """Return the target that a file tells of."""
    return Target(**{**told, "classes": tuple(told["classes"])})
