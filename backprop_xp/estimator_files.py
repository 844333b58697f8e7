"""Model files of the scikit-learn estimators: what ``bx.save`` writes, and the estimator beside it.

``bx.load`` reads such a file, too: its network predicts probabilities or values without
scikit-learn.
"""

import os
from typing import Any

import numpy as np

from backprop_xp.backends import owner, to_host
from backprop_xp.checkpoint import Checkpoint, load, write_checked
from backprop_xp.estimator_network import attributes_of, network_of, parameters_of
from backprop_xp.losses import Loss, binary_cross_entropy, half_squared_error, poisson
from backprop_xp.model_files import CheckpointError
from backprop_xp.network import Network
from backprop_xp.options import TrainingState
from backprop_xp.targets import binarizer_of

# The fitted attributes that are numbers, words and lists of them.
_FITTED = (
    *("n_features_in_", "n_outputs_", "n_iter_", "n_layers_", "out_activation_", "t_", "loss_"),
    *("best_loss_", "best_validation_score_", "_no_improvement_count", "_learning_rate"),
)
# Those that are None or a number for each epoch: arrays of the file, whose JSON is short.
_CURVES = ("loss_curve_", "validation_loss_curve_", "validation_scores_")
# Those that are arrays of labels or of names.
_LABELS = ("classes_", "feature_names_in_")
# Of losses with one link, the one of the table: a file's network predicts.
_LINKS = {loss.link: loss for loss in (half_squared_error, binary_cross_entropy, poisson)}


def save_estimator(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a file."""
    network = network_of(model, model.n_features_in_)
    loss: Loss = _LINKS.get(network.loss_function.link, network.loss_function)
    theta = network.pack([[to_host(v) for v in layer] for layer in parameters_of(model, network)])
    state = None
    if hasattr(model, "_optimizer_state"):
        state = TrainingState(0, 0, theta, model._optimizer_state)
    labels = {name: getattr(model, name) for name in _LABELS if hasattr(model, name)}
    curves = {name: getattr(model, name) for name in _CURVES if hasattr(model, name)}
    told: dict[str, Any] = {
        "name": type(model).__name__,
        "parameters": {key: _written(value) for key, value in model.get_params(deep=False).items()},
        "fitted": {
            name: _written(getattr(model, name)) for name in _FITTED if hasattr(model, name)
        },
        "curves": {
            name: curve if curve is None else np.asarray(curve, dtype=np.float64)
            for name, curve in curves.items()
        },
        "labels": {name: [value.dtype.str, value.tolist()] for name, value in labels.items()},
        "is_multilabel": getattr(model, "_is_multilabel", False),
    }
    network = Network(network.layers, loss)
    write_checked(path, Checkpoint(network, theta, state=state, estimator=told))


def load_estimator(kind: type, path: str | os.PathLike[str]) -> Any:
    """Return the estimator that a file holds, of the given class."""
    found = load(path, backend="numpy")
    name = found.estimator.get("name")
    if name != kind.__name__:
        what = f"a {name}" if isinstance(name, str) else "a network alone, for bx.load"
        raise CheckpointError(f"{os.fspath(path)}: it holds {what}, no {kind.__name__}.")
    try:
        return _made(kind, found)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error


def _made(kind: type, found: Any) -> Any:
    told, model = found.estimator, kind()
    model.set_params(**{name: _read(value) for name, value in told["parameters"].items()})
    for name, value in told["fitted"].items():
        if name not in _FITTED:
            raise ValueError(f"{name!r} is none of its attributes.")
        setattr(model, name, _read(value))
    for name, curve in told["curves"].items():
        if name not in _CURVES or not (curve is None or curve.ndim == 1):
            raise ValueError(f"{name!r} is none of its curves.")
        setattr(model, name, None if curve is None else curve.tolist())
    for name, (dtype, values) in told["labels"].items():
        if name not in _LABELS or np.dtype(dtype).kind not in "biufUO":
            raise ValueError(f"{name!r} is none of its arrays of labels.")
        setattr(model, name, np.asarray(values, dtype=dtype))
    if "classes_" in told["labels"]:
        # Of multilabel targets a binarizer is told by their table that they are such.
        labels = model.classes_
        model._label_binarizer = binarizer_of(
            np.eye(len(labels), dtype=int) if told["is_multilabel"] else labels
        )
    network = network_of(model, model.n_features_in_)
    for name, value in attributes_of(network, found.theta).items():
        setattr(model, name, value)
    if found.state is not None:
        model._optimizer_state = found.state.optimizer_state
    return model


def _written(value: Any) -> Any:
    """Return a parameter or an attribute as JSON can be made of it."""
    if isinstance(value, np.random.RandomState):
        return None  # what it has drawn is no part of a model
    if isinstance(value, dict):
        return {"pairs": [_written(pair) for pair in value.items()]}
    if isinstance(value, list | tuple):
        return type(value)(map(_written, value))
    if isinstance(value, np.generic) or owner(value) is not None:
        return to_host(value).tolist()
    return value


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {_read(key): _read(part) for key, part in value["pairs"]}
    if isinstance(value, list | tuple):
        return type(value)(map(_read, value))
    if owner(value) is not None:
        raise ValueError("an array is in the place of a number.")
    return value
