"""The file of a model of a table: written by ``save``, and by ``fit`` during a training."""

import dataclasses
import importlib.metadata
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np

from backprop_xp.backends import Array, Selection, to_device_of, to_host, to_host_together
from backprop_xp.backends.libraries.numpy import compilation
from backprop_xp.checks import known, stacklevel
from backprop_xp.files.checkpoint import Checkpoint, load, write_checked
from backprop_xp.files.container import refusing
from backprop_xp.files.json_values import from_json, read_labels, to_json, written_labels
from backprop_xp.networks.layers.core import Dense
from backprop_xp.tables.columns.feature_records import features_of, record_of
from backprop_xp.tables.model.fitted_model import TabularModel, TargetScale
from backprop_xp.tables.model.table_network import outputs_for
from backprop_xp.tables.model.tabular_parameters import DTYPES
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.early_stopping import Best
from backprop_xp.training.optimizers.first_order import AnyOptimizer

PathLike: TypeAlias = str | os.PathLike[str]
# The libraries whose versions a file has.
_LIBRARIES = ("numpy", "pandas", "scikit-learn")
# Seconds between two writes: an epoch of a small table takes less time than a write.
_PAUSE = 1.0
# What a record has in each file.
_RECORD = {
    **dict.fromkeys(("parameters", "recipe", "rows", "data", "where", "versions"), dict),
    "seed": int,
    "epoch": int,
    "best_epoch": int | list,
    "best": float | list,
}
# The mark of a file with a model of a table.
_NAME = "tabular model"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that prepare and train."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **found, **compilation.versions()}


def write_model(
    path: PathLike,
    model: TabularModel,
    optimizer: AnyOptimizer | None = None,
    state: TrainingState | None = None,
) -> None:
    """Write a model, with the state of a training that has not ended."""
    part: dict[str, Any] = {
        "name": _NAME,
        "has_names": model.has_names,
        "features": record_of(model.features),
        "classes": None if model.classes is None else written_labels(model.classes),
        "scale": tuple(model.scale),
        "target": model.target,
        "residuals": model.residuals,
        "test_residuals": model.test_residuals,
        "record": to_json(dict(model.record)),
        "history": {name: np.asarray(v, "float64") for name, v in model.history.items()},
    }
    content = Checkpoint(
        model.network,
        model.theta,
        optimizer=optimizer,
        state=state,
        metadata=model.metadata,
        estimator=part,
    )
    write_checked(path, content)


def read_model(
    path: PathLike, selection: Selection | None = None
) -> tuple[TabularModel, TrainingState | None]:
    """Return a model and, if its training has not ended, the state, on the selected device.

    Raises CheckpointError, a ValueError, for a file without a model of a table.
    """
    where: dict[str, Any] = {"backend": "numpy"}
    if selection is not None:
        where = {"backend": selection.backend, "device": selection.device}
    file = load(path, **where)
    part = file.estimator
    with refusing(path):
        if not isinstance(part.get("name"), str) or part["name"] != _NAME:
            raise ValueError("it holds no model of a table: bx.load reads its network.")
        if not isinstance(part["features"], Mapping):
            raise ValueError("an earlier version wrote it: train again.")
        classes = part["classes"]
        model = TabularModel(
            has_names=part["has_names"],
            features=features_of(part["features"]),
            network=file.network,
            theta=to_host(file.theta),
            classes=None if classes is None else read_labels(classes, "classes"),
            scale=TargetScale(*map(float, part["scale"])),
            target=part["target"],
            record=from_json(part["record"]),
            history=part["history"] if file.state is None else file.state.history,
            metadata=file.metadata,
            residuals=part["residuals"],
            test_residuals=part["test_residuals"],
        )
        _check(model)
    return model, file.state


def _check(model: TabularModel) -> None:
    """Raise ValueError or TypeError unless a model's parts fit one another, and it can predict."""
    record, network, classes = model.record, model.network, model.classes
    for name, kind in _RECORD.items():
        if not isinstance(record[name], kind):
            raise TypeError(f"its record has {record[name]!r} as {name!r}.")
    if model.decimal not in (None, ".", ","):
        raise ValueError(f"its decimal sign is {model.decimal!r}.")
    known(record["where"]["dtype"], DTYPES, "dtype")
    count = 0 if classes is None else len(classes)
    if count == 1 or not (classes is None or np.array_equal(np.unique(classes), classes)):
        raise ValueError("its classes are not sorted, or not at least two.")
    "".join(map(str, [] if classes is None else classes.tolist())).encode()  # names of columns
    n_out, loss = outputs_for(count)
    if (network.widths, network.loss_function) != ((model.features.n_features, n_out), loss):
        raise ValueError("its network is not one of its columns and classes.")
    widths = [layer.n_out for layer in network.layers if isinstance(layer, Dense)]
    sizes = record["parameters"]["hidden_layer_sizes"]
    if [*record["recipe"]["hidden_layer_sizes"], n_out] != widths or not (
        sizes is None or [*sizes, n_out] == widths
    ):
        raise ValueError(f"hidden_layer_sizes are not those of the network, {widths[:-1]}.")
    for errors in (model.residuals, model.test_residuals):
        if errors is not None and (classes is not None or errors.shape != (len(errors), 2)):
            raise ValueError("its residuals are not those of a regression.")
    if not isinstance(model.target, str | None):
        raise TypeError(f"its target is {model.target!r}.")


def refuse_other_training(path: PathLike, written: TabularModel, wanted: TabularModel) -> None:
    """Raise ValueError, with the difference, unless a file has the same training.

    ``wanted`` may have more epochs.
    """
    old, new = (
        [  # causes before effects
            {"task": one.task, "target": one.target},
            one.metadata,
            {n: v for n, v in one.record["parameters"].items() if n != "max_iter"},
            {"classes": None if one.classes is None else one.classes.tolist()},
            {f"{name} data": {"sha256": value} for name, value in one.record["data"].items()},
            one.record["recipe"],
            one.record["where"],
        ]
        for one in (written, wanted)
    )
    for before, after in zip(old, new, strict=True):
        # JSON objects, above all the SHA-256 of rows, come last: other values are causes.
        for name, value in sorted(after.items(), key=lambda item: isinstance(item[1], Mapping)):
            if value == (other := before.get(name)) or (name == "max_iter" and value > other):
                continue
            text = f"its training had other {name}: the rows, the columns or their values differ"
            if not (isinstance(value, Mapping) and "sha256" in value):
                text = f"{name} is {words_of(value)}, but the file's training has {words_of(other)}"
            raise ValueError(
                f"{os.fspath(path)} cannot be resumed: {text}. Use its data and parameters, or "
                "omit resume to start from the beginning."
            )


def words_of(value: object) -> str:
    """Return the value of a parameter for the user."""
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        value = [f"{name}={part}" for name, part in value.items()]
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def progress(state: TrainingState) -> dict[str, Any]:
    """Return the part of a record about a state: its epoch, and the best one of each member."""
    best = cast(Best, state.best)  # each epoch leaves one
    scores = best.score if best.mode == "min" else -best.score
    return {"epoch": state.epoch, "best_epoch": best.epoch.tolist(), "best": scores.tolist()}


def measures_of(state: TrainingState) -> dict[str, np.ndarray]:
    """Return the losses and the metrics of an epoch, on the host."""
    found = {"loss": state.loss, "validation_loss": state.validation_loss, **state.metrics}
    return dict(zip(found, to_host_together([*found.values()]), strict=True))


def has_ended(model: TabularModel, state: TrainingState | None) -> bool:
    """Whether a training in a file has ended: by early stopping, or after its last epoch.

    The residuals of a regression follow its last epoch.
    """
    has_all_epochs = state is None or state.epoch == model.record["recipe"]["max_iter"]
    return has_all_epochs and (model.classes is not None or model.residuals is not None)


def write_anew(path: PathLike, model: TabularModel) -> None:
    """Write the file of a model whose metadata have changed; its state stays."""
    file = load(path, backend="numpy")
    write_model(path, model, file.optimizer, file.state)


@dataclasses.dataclass
class TrainingFile:
    """A callback that writes the best networks so far, and the state, about once a second.

    ``model`` is the model without what the training finds, ``measures`` are those of the epochs
    before. ``finished`` returns the theta of a model, given the best one of the training. A file
    that cannot be written does not end the training, and warns once.
    """

    path: PathLike
    model: TabularModel
    optimizer: AnyOptimizer
    measures: dict[str, list[np.ndarray]]
    finished: Callable[[Array], np.ndarray]
    last_try: float = -math.inf
    has_failed: bool = False

    def __call__(self, state: TrainingState) -> None:
        """Record an epoch, and write the file if a second has passed."""
        for name, value in measures_of(state).items():
            self.measures.setdefault(name, []).append(value)
        if time.monotonic() - self.last_try < _PAUSE:
            return
        history = {name: np.stack(values) for name, values in self.measures.items()}
        try:
            self._write(state._replace(history=history))
            self.has_failed = False
        except OSError as error:
            if not self.has_failed:
                message = f"the model is not written: {error}. The training continues."
                warnings.warn(message, RuntimeWarning, stacklevel=stacklevel())
            self.has_failed = True
        self.last_try = time.monotonic()

    def _write(self, state: TrainingState | None) -> bool:
        """Write the file; return whether there was a network to write."""
        if state is None or state.best is None or not np.isfinite(state.best.score).all():
            return False  # an older file is better than a training that diverged
        record = {**self.model.record, **progress(state)}
        best = state.best.theta
        theta = to_device_of(best, self.finished(best), best.dtype)
        model = dataclasses.replace(self.model, theta=theta, record=record)
        write_model(self.path, model, self.optimizer, state)
        return True

    def write_interrupted(self, state: TrainingState | None) -> str:
        """Write the file of an interrupted training, and return a line for the user."""
        try:
            is_written = self._write(state)
        except OSError as error:
            return f"interrupted, and the model is not written: {error}"
        if state is None or not is_written:
            return "interrupted before there was a network to keep"
        best = progress(state)
        epoch, score = (np.mean(best[name]) for name in ("best_epoch", "best"))
        return (
            f"interrupted in epoch {state.epoch + 1}: {os.fspath(self.path)} has the best network "
            f"so far, of epoch {epoch:.6g}, validation result {score:.6g}. The same call with "
            "resume=True, or command with --resume, continues it."
        )
