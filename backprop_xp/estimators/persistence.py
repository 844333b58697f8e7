"""Model files of the scikit-learn estimators: the file of ``bx.save``, with the estimator in it.

``bx.load`` reads such a file without scikit-learn; its network predicts each output. One output for
two classes is the probability of the second. Sigmoids of several classes are not divided by their
sum; ``predict_proba`` does that.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn.preprocessing import LabelBinarizer

from backprop_xp.backends import to_host
from backprop_xp.checks import integer
from backprop_xp.estimators import intervals
from backprop_xp.estimators.architecture import attributes_of, parameters_of
from backprop_xp.estimators.parameters import Numbers, OptimizerState, hidden_sizes
from backprop_xp.estimators.stochastic import state_on_device
from backprop_xp.estimators.targets import activation_name, columns_of
from backprop_xp.files.checkpoint import Checkpoint, load, write_checked
from backprop_xp.files.container import refusing
from backprop_xp.files.json_values import from_json, read_labels, to_json, written_labels
from backprop_xp.networks.layers.core import Dense
from backprop_xp.networks.losses.loss import binary_cross_entropy, half_squared_error, poisson
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.optimizers.first_order import SGD, Adam, RMSProp, check_state

Estimator = TypeVar("Estimator")

# A file is read on other machines, so the parameters for backend and device are left out.
_WHERE = ("backend", "device")
# Fitted attributes: counts that every fit leaves, one that a training in epochs leaves, and numbers
# or None.
_COUNTS, _STALE = ("n_features_in_", "n_outputs_", "n_iter_", "t_"), "_no_improvement_count"
_NUMBERS = ("loss_", "best_loss_", "best_validation_score_", "_learning_rate")
# These are one number for all members of an ensemble, the others a list.
_SHARED = (*_COUNTS, "_learning_rate")
# A number for each epoch, or None but for the first: arrays of the file keep its JSON short.
_CURVES = ("loss_curve_", "validation_loss_curve_", "validation_scores_")
_LABELS = ("classes_", "feature_names_in_")
# The network of a file predicts: a loss of ``bx.losses`` stands for others with its inverse link.
_LOSSES = {loss.inverse_link: loss for loss in (half_squared_error, binary_cross_entropy, poisson)}
# The optimizer that checks each kind of state; AdamW has Adam's.
_OPTIMIZERS = {type(o.initialize(np.zeros(1))): o for o in (SGD(1.0), RMSProp(), Adam())}


def save_estimator(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a file."""
    model._validate_params()
    network = model._network(model.n_features_in_)
    layers = [[to_host(values) for values in layer] for layer in parameters_of(model, network)]
    theta = network.pack(layers)
    state = None
    if hasattr(model, "_optimizer_state"):
        state = TrainingState(0, 0, theta, state_on_device(theta, model._optimizer_state))
    loss = _LOSSES.get(network.loss_function.inverse_link, network.loss_function)
    network = Network(network.layers, loss)
    write_checked(path, Checkpoint(network, theta, state=state, estimator=_record(model)))


def _record(model: Any) -> dict[str, object]:
    """Return the part of the file that is about the estimator."""

    def present(*names: str) -> list[tuple[str, Any]]:
        return [(name, vars(model)[name]) for name in names if name in vars(model)]

    parameters = model.get_params(deep=False)
    sizes = parameters["hidden_layer_sizes"]
    if np.iterable(sizes) and not isinstance(sizes, list | tuple):  # a range, a Series
        parameters["hidden_layer_sizes"] = hidden_sizes(model)
    curves = [
        (name, c if c is None else np.asarray(c, np.float64)) for name, c in present(*_CURVES)
    ]
    return {
        "name": type(model).__name__,
        "parameters": {name: to_json(v) for name, v in parameters.items() if name not in _WHERE},
        "fitted": {name: to_json(v) for name, v in present(*_COUNTS, *_NUMBERS, _STALE)},
        "curves": dict(curves),
        "interval": _interval_of(model),
        "labels": {name: _written(v) for name, v in present(*_LABELS)},
        "is_multilabel": getattr(model, "_is_multilabel", False),
        "is_sparse": hasattr(model, "classes_") and model._label_binarizer.sparse_input_,
    }


def _interval_of(model: Any) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of the prediction intervals by their kind, if the model has some."""
    found = getattr(model, "_interval", None)
    kinds = {kind: name for name, kind in intervals.INTERVALS.items()}
    return {} if found is None else {kinds[type(found)]: found._asdict()}


def load_estimator(kind: type[Estimator], path: str | os.PathLike[str]) -> Estimator:
    """Return the estimator of the given class that a file holds."""
    file = load(path, backend="numpy")
    model = kind()
    with refusing(path):
        name = file.estimator.get("name")
        if not isinstance(name, str) or name != kind.__name__:
            what = f"a {name}" if isinstance(name, str) else "a network alone, for bx.load"
            raise ValueError(f"it holds {what}, not a {kind.__name__}.")
        _rebuild(model, file, file.estimator)
    return model


def _rebuild(model: Any, file: Checkpoint, record: Mapping[str, Any]) -> None:
    """Make an estimator that of a file, checked to be one that a fit may have left."""
    model.set_params(**{name: from_json(value) for name, value in record["parameters"].items()})
    model._validate_params()
    sections = {"fitted": _number, "curves": _curve, "labels": _labels}
    attributes: dict[str, Any] = {
        name: read(name, value)
        for section, read in sections.items()
        for name, value in record[section].items()
    }
    needed = {*_COUNTS}
    if record["curves"]:  # a training in epochs, which continues from these
        needed |= {*_CURVES, "best_loss_", "best_validation_score_", _STALE}
    if file.state is not None:
        model._optimizer_state = _check_state(file.theta, file.state.optimizer_state)
        needed.add("_learning_rate")
    if not needed <= attributes.keys():
        raise ValueError(f"it lacks the attribute {min(needed - attributes.keys())!r}.")
    # Before a network is made of them: the parameters of the file's network are those of theta.
    widths = [layer.n_out for layer in file.network.layers if isinstance(layer, Dense)]
    if widths != [*hidden_sizes(model), attributes["n_outputs_"]]:
        raise ValueError(f"hidden_layer_sizes and outputs are not those of the network, {widths}.")
    members = (model.n_members,) if model.n_members > 1 else ()
    for name in {*record["fitted"], *record["curves"]}:
        value, expected = attributes[name], () if name in _SHARED else members
        if value is not None and np.shape(value)[name in _CURVES :] != expected:
            raise ValueError(f"{name!r} is not that of {model.n_members} members.")
    vars(model).update(attributes)
    if hasattr(model, "classes_"):
        flags = {name: record[name] for name in ("is_multilabel", "is_sparse")}
        model._label_binarizer = _binarizer(model, **flags)
    if (
        len(getattr(model, "feature_names_in_", range(model.n_features_in_)))
        != model.n_features_in_
    ):
        raise ValueError(f"feature_names_in_ does not have {model.n_features_in_} names.")
    network = model._network(model.n_features_in_)
    model.n_layers_ = len(hidden_sizes(model)) + 2
    model.out_activation_ = activation_name(network.loss_function)
    vars(model).update(attributes_of(network, file.theta))
    for kind, arrays in record.get("interval", {}).items():
        model._interval = intervals.INTERVALS[kind](**arrays)
        model._interval.check(network.size, model.n_outputs_)


def _number(name: str, value: Any) -> object:
    value = from_json(value)
    if isinstance(value, list):
        return [_number(name, each) for each in value]
    if name in (*_COUNTS, _STALE):
        return integer(value, name, at_least=0)
    if name not in _NUMBERS:
        raise ValueError(f"{name!r} is not one of its attributes.")
    return value if value is None else float(value)


def _curve(name: str, values: Any) -> list[Numbers] | None:
    if values is None and name in _CURVES[1:]:
        return None
    if name not in _CURVES or values.ndim not in (1, 2) or values.dtype != np.float64:
        raise ValueError(f"{name!r} is not one of its curves.")
    curve: list[Numbers] = values.tolist()
    return curve


def _labels(name: str, written: Sequence[Any]) -> np.ndarray:
    if name not in _LABELS:
        raise ValueError(f"{name!r} is not one of its arrays of labels.")
    dtype, values = written
    if np.dtype(dtype).kind in "mM":
        return read_labels(("i8", values), name).view(dtype)
    return read_labels(written, name)


def _written(labels: np.ndarray) -> list[Any]:
    """Return labels as their dtype and a list; dates are integers there."""
    values = labels.view("i8") if labels.dtype.kind in "mM" else labels
    return [labels.dtype.str, written_labels(values)[1]]


def _binarizer(model: Any, *, is_multilabel: bool, is_sparse: bool) -> LabelBinarizer:
    """Return the binarizer of the classes, checked to be sorted, and as many as the outputs."""
    classes, outputs = model.classes_, model.n_outputs_
    if not np.array_equal(np.unique(classes), classes):
        raise ValueError("classes_ are not sorted, or contain duplicates.")
    if is_multilabel:  # a binarizer learns this from a table of labels
        table = np.eye(2, outputs, dtype=int)
        return LabelBinarizer().fit(scipy.sparse.csr_array(table) if is_sparse else table)
    binarizer = LabelBinarizer().fit(classes)
    if outputs != columns_of(binarizer, classes[:1], model.loss).shape[1]:
        raise ValueError(f"{outputs} outputs do not fit {len(classes)} classes.")
    return binarizer


def _check_state(theta: np.ndarray, state: Any) -> OptimizerState:
    if type(state) not in _OPTIMIZERS:
        raise TypeError(f"the optimizer's state is of {type(state).__name__}.")
    integer(state.step, "the optimizer's step", at_least=0)
    check_state(_OPTIMIZERS[type(state)], theta, state)
    return state  # type: ignore[no-any-return]
