"""Model files of the scikit-learn estimators: what ``bx.save`` writes, and the estimator beside it.

``bx.load`` reads such a file, too: without scikit-learn its network predicts what each output says.
Of two classes with one output that is the second's probability, and of several by a sigmoid each
its own, which ``predict_proba`` divides by their sum.
"""

import os
from typing import Any

import numpy as np
import scipy.sparse

from backprop_xp.backends import owner, to_host
from backprop_xp.checks import integer
from backprop_xp.estimators.architecture import (
    attributes_of,
    hidden_sizes,
    network_of,
    parameters_of,
)
from backprop_xp.estimators.stochastic import state_beside
from backprop_xp.estimators.targets import binarizer_of, outputs_of, word_of
from backprop_xp.files.checkpoint import Checkpoint, load, write_checked
from backprop_xp.files.container import CheckpointError
from backprop_xp.networks.losses import Loss, binary_cross_entropy, half_squared_error, poisson
from backprop_xp.networks.network import Network
from backprop_xp.training.optimizers import (
    SGD,
    Adam,
    AdamState,
    RMSProp,
    RMSPropState,
    SGDState,
    check_state,
)
from backprop_xp.training.states import TrainingState

# Where it ran is no part of a model: a file is read on other machines.
_WHERE = ("backend", "device")
# The fitted attributes that are counts, of every fit, and those that are numbers or None.
_COUNTS = ("n_features_in_", "n_outputs_", "n_iter_", "t_")
_NUMBERS = ("loss_", "best_loss_", "best_validation_score_", "_learning_rate")
# Those that are None or a number for each epoch: arrays of the file, whose JSON is short.
_CURVES = ("loss_curve_", "validation_loss_curve_", "validation_scores_")
# What a training in epochs goes on from, which L-BFGS has not.
_OF_EPOCHS = {*_CURVES, "best_loss_", "best_validation_score_", "_no_improvement_count"}
# Those that are arrays of labels or of names, and how many letters all may have if all are as long
# as the longest: NumPy gives each as many.
_LABELS, _LETTERS = ("classes_", "feature_names_in_"), 2**24
# Of losses with one link, the one of the table: a file's network predicts.
_LINKS = {loss.link: loss for loss in (half_squared_error, binary_cross_entropy, poisson)}
# What goes on from the state of an optimiser; AdamW from Adam's.
_OPTIMIZERS: dict[type, Any] = {SGDState: SGD(1.0), RMSPropState: RMSProp(), AdamState: Adam()}


def save_estimator(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a file."""
    model._validate_params()
    network = network_of(model, model.n_features_in_)
    loss: Loss = _LINKS.get(network.loss_function.link, network.loss_function)
    theta = network.pack([[to_host(v) for v in layer] for layer in parameters_of(model, network)])
    state = None
    if hasattr(model, "_optimizer_state"):
        state = TrainingState(0, 0, theta, state_beside(theta, model._optimizer_state))
    parameters = model.get_params(deep=False)
    fitted = (*_COUNTS, *_NUMBERS, "_no_improvement_count")
    curves = {name: getattr(model, name) for name in _CURVES if hasattr(model, name)}
    labels = {name: getattr(model, name) for name in _LABELS if hasattr(model, name)}
    told: dict[str, Any] = {
        "name": type(model).__name__,
        "parameters": {key: _written(v) for key, v in parameters.items() if key not in _WHERE},
        "fitted": {name: _written(getattr(model, name)) for name in fitted if hasattr(model, name)},
        "curves": {
            name: curve if curve is None else np.asarray(curve, dtype=np.float64)
            for name, curve in curves.items()
        },
        "labels": {name: [value.dtype.str, value.tolist()] for name, value in labels.items()},
        "is_multilabel": getattr(model, "_is_multilabel", False),
        "is_sparse": hasattr(model, "classes_") and model._label_binarizer.sparse_input_,
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
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error


def _made(kind: type, found: Checkpoint) -> Any:
    """Return the estimator of a file, checked to be one that a fit may have left."""
    told, model = found.estimator, kind()
    model.set_params(**{name: _read(value) for name, value in told["parameters"].items()})
    model._validate_params()
    given = {name: _attribute(name, value) for name, value in told["fitted"].items()}
    given |= {name: _curve(name, values) for name, values in told["curves"].items()}
    given |= {name: _labels(name, *written) for name, written in told["labels"].items()}
    needed = {*_COUNTS} | (_OF_EPOCHS if told["curves"] else set())
    if found.state is not None:
        model._optimizer_state = _checked_state(found.theta, found.state.optimizer_state)
        needed.add("_learning_rate")
    if not needed <= given.keys():
        raise ValueError(f"it lacks the attribute {min(needed - given.keys())!r}.")
    if given["n_outputs_"] > found.theta.shape[-1]:
        raise ValueError(f"theta has not enough entries for {given['n_outputs_']} outputs.")
    vars(model).update(given)
    if "classes_" in given:
        kind_of_labels = {name: told[name] for name in ("is_multilabel", "is_sparse")}
        model._label_binarizer = _binarizer(model, **kind_of_labels)
    if len(given.get("feature_names_in_", range(model.n_features_in_))) != model.n_features_in_:
        raise ValueError(f"feature_names_in_ are not {model.n_features_in_}.")
    network = network_of(model, model.n_features_in_)
    model.n_layers_ = len(hidden_sizes(model)) + 2
    model.out_activation_ = word_of(network.loss_function)
    vars(model).update(attributes_of(network, found.theta))
    return model


def _attribute(name: str, value: Any) -> Any:
    value = _read(value)
    if name in (*_COUNTS, "_no_improvement_count"):
        return integer(value, name, at_least=0)
    if name not in _NUMBERS:
        raise ValueError(f"{name!r} is none of its attributes.")
    return value if value is None else float(value)


def _curve(name: str, values: Any) -> list[float] | None:
    if values is None and name in _CURVES[1:]:
        return None
    if name not in _CURVES or values.ndim != 1 or values.dtype != np.float64:
        raise ValueError(f"{name!r} is none of its curves.")
    curve: list[float] = values.tolist()
    return curve


def _labels(name: str, dtype: Any, values: list[Any]) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if name not in _LABELS or kind not in "biufUO":
        raise ValueError(f"{name!r} is none of its arrays of labels.")
    if kind == "U" and len(values) * max(map(len, values), default=0) > _LETTERS:
        raise ValueError(f"{name} have more than {_LETTERS} letters, if each has the most of any.")
    labels = np.asarray(values, dtype="U" if kind == "U" else dtype)
    if labels.ndim != 1:
        raise ValueError(f"{name} has {labels.ndim} axes, not 1.")
    return labels


def _binarizer(model: Any, *, is_multilabel: bool, is_sparse: bool) -> Any:
    """Return what makes columns of the classes, which are sorted, and as many as the outputs."""
    classes, outputs = model.classes_, model.n_outputs_
    if not np.array_equal(np.unique(classes), classes):
        raise ValueError("classes_ are not sorted, or not each there once.")
    if is_multilabel:  # which a binarizer is told by a table of labels
        table = np.eye(2, outputs, dtype=int)
        return binarizer_of(scipy.sparse.csr_array(table) if is_sparse else table)
    if outputs != outputs_of(len(classes), model.loss):
        raise ValueError(f"{outputs} outputs are not those of {len(classes)} classes.")
    return binarizer_of(classes)


def _checked_state(theta: np.ndarray, state: Any) -> Any:
    if type(state) not in _OPTIMIZERS:
        raise TypeError(f"the optimiser's state is of {type(state).__name__}.")
    integer(state.step, "the optimiser's step", at_least=0)
    check_state(_OPTIMIZERS[type(state)], theta, state)
    return state


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
