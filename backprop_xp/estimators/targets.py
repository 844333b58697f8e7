"""What the scikit-learn estimators make of targets: losses, scores, and classes as columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import unique_labels

from backprop_xp.backends import Array, array_namespace
from backprop_xp.checks import choose
from backprop_xp.networks.activations import identity, sigmoid, softmax
from backprop_xp.networks.losses import (
    LOSSES,
    Loss,
    binary_cross_entropy,
    categorical_cross_entropy,
    half_squared_error,
    poisson,
)
from backprop_xp.training.metrics import r2


@dataclass(frozen=True)
class _Sum:
    """The sum over the outputs of what is their mean: scikit-learn's losses are sums."""

    mean: Any

    def __call__(self, o: Array, t: Array) -> Array:
        return o.shape[-1] * self.mean(o, t)


def _deviance(o: Array, t: Array) -> Array:
    # Half of Poisson's deviance: its loss, and what that is at the best of rates taken off.
    xp = array_namespace(o)
    logarithm = xp.log(xp.maximum(t, float(xp.finfo(t.dtype).smallest_normal)))
    return o.shape[-1] * poisson.value(o, t) + xp.sum(t * logarithm - t, axis=-1)


_MULTILABEL = Loss(
    _Sum(binary_cross_entropy.value),
    _Sum(binary_cross_entropy.gradient),
    link=binary_cross_entropy.link,
    targets=binary_cross_entropy.targets,
)
_SQUARED = Loss(_Sum(half_squared_error.value), _Sum(half_squared_error.gradient))
# Of several outputs scikit-learn descends by the sum of the errors and reports their mean, which is
# what its stopping rule sees.
_REPORTED_SQUARED = Loss(half_squared_error.value, _Sum(half_squared_error.gradient))
_DEVIANCE = Loss(_deviance, _Sum(poisson.gradient), link=poisson.link, targets=poisson.targets)

_WORDS = {
    identity.value: "identity",
    sigmoid.value: "logistic",
    softmax.value: "softmax",
    poisson.link: "exp",
}

_OF_PROBABILITIES = (sigmoid.value, softmax.value)


def loss_of_classes(name: Any, n_outputs: int, *, is_multilabel: bool) -> Loss:
    """Return a classifier's loss: the log-loss by its name, or one of ``bx.losses``.

    The log-loss is that of one output for two classes, of one for each, or of a label each.
    """
    if name == "log_loss":
        if n_outputs == 1:
            return binary_cross_entropy
        return _MULTILABEL if is_multilabel else categorical_cross_entropy
    chosen: Loss = choose(LOSSES, name, "loss")
    if is_multilabel and chosen.least_outputs > 1:
        raise ValueError(
            f"loss={name!r} is of one class for each row, but y has several labels for each: take "
            '"binary_cross_entropy", or leave loss out.'
        )
    return chosen


def gives_probabilities(name: Any) -> bool:
    """Say whether a classifier's outputs are probabilities by the link of its loss."""
    return name == "log_loss" or getattr(_known(name), "link", None) in _OF_PROBABILITIES


def _known(name: Any) -> Any:
    return LOSSES.get(name) if isinstance(name, str) else name


def as_distribution(probabilities: Array) -> Array:
    """Return probabilities of classes each against the others so that they sum to 1."""
    xp = array_namespace(probabilities)
    # Of a row whose probabilities have all underflowed, equal ones; any other stays what it is.
    p = probabilities + float(xp.finfo(probabilities.dtype).smallest_normal)
    return p / xp.sum(p, axis=-1, keepdims=True)


def loss_of_values(name: Any, n_outputs: int, solver: str) -> Loss:
    """Return a regressor's loss: scikit-learn's by its name, or one of ``bx.losses``."""
    if name == "poisson":
        return _DEVIANCE
    if name != "squared_error":
        chosen: Loss = choose(LOSSES, name, "loss")
        return chosen
    if n_outputs == 1:
        return half_squared_error
    # A line search needs the loss whose gradient it is given.
    return _SQUARED if solver == "lbfgs" else _REPORTED_SQUARED


def word_of(loss: Loss) -> str:
    """Return what scikit-learn calls a loss's link, the output's activation."""
    return _WORDS.get(loss.link, "custom")


def score_of_labels(predictions: Array, targets: Array, weights: Array | None) -> Array:
    """Return the share of samples all of whose labels are right."""
    xp = array_namespace(predictions)
    right = xp.all((predictions > 0.5) == (targets > 0.5), axis=-1)
    right = xp.astype(right, predictions.dtype)
    weights = xp.ones_like(right) if weights is None else weights
    return xp.sum(right * weights, axis=-1) / xp.sum(weights, axis=-1)


def score_of_values(predictions: Array, targets: Array, weights: Array | None) -> Array:
    """Return R squared, or NaN for predictions that are not finite."""
    # 0 times what is not finite is NaN.
    nothing = array_namespace(predictions).sum(0.0 * predictions, axis=(-2, -1))
    return r2(predictions, targets, weights) + nothing


def binarizer_of(y: Any) -> LabelBinarizer:
    """Return what makes columns of classes, and classes of columns again."""
    return LabelBinarizer().fit(y)


def columns_of(binarizer: LabelBinarizer, y: Any, loss: Any) -> np.ndarray:
    """Return targets ``(batch, n_outputs)``, 0 and 1.

    Two classes have a single column, unless the loss, a name or an object, needs two.
    """
    columns = np.asarray(binarizer.transform(y), dtype=bool).reshape(y.shape[0], -1)
    enough = columns.shape[1] >= getattr(_known(loss), "least_outputs", 1)
    return columns if enough else np.concatenate([~columns, columns], axis=1)


def outputs_of(classes: int, loss: Any) -> int:
    """Return how many columns ``columns_of`` has, of so many classes."""
    return classes if classes > 2 else int(getattr(_known(loss), "least_outputs", 1))


def flat(y: Any) -> Any:
    """Return a column of targets as scikit-learn does, with its warning, and all else as it is."""
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def check_classes(binarizer: LabelBinarizer, y: Any, *, exact: bool) -> None:
    """Raise ValueError for targets of other classes than the binarizer knows, or not all of them.

    The messages are scikit-learn's.
    """
    known, found = binarizer.classes_, unique_labels(y)
    if exact:
        if set(found) != set(known):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {known}, `y` has {found}"
            )
    elif len(np.setdiff1d(found, known, assume_unique=True)):
        raise ValueError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has {found}."
        )


def dense(y: Any) -> Any:
    """Return sparse targets as an array, and all else as it is."""
    return y.toarray() if hasattr(y, "toarray") else y


def weighted(
    class_weight: Any, y: Any, sample_weight: np.ndarray | None, classes: np.ndarray
) -> np.ndarray | None:
    """Return the samples' weights times those of their classes; 1 of a class that has none."""
    if class_weight is None:
        return sample_weight
    if isinstance(class_weight, str):  # "balanced"
        weights = np.asarray(compute_sample_weight(class_weight, y))
    else:
        weights = _weights_of_dicts(class_weight, y, classes)
    return weights if sample_weight is None else weights * sample_weight


def _weights_of_dicts(class_weight: Any, y: Any, classes: np.ndarray) -> np.ndarray:
    """Return the product of the weights that a dict, or one for each label, gives the rows.

    Not by compute_sample_weight, which wants all of the classes among these rows.
    """
    columns, known = ([y], classes.tolist()) if y.ndim == 1 else ([*y.T], [0, 1])
    dicts = [class_weight] if y.ndim == 1 else class_weight
    is_list = isinstance(dicts, list) and all(isinstance(each, dict) for each in dicts)
    if not is_list or len(dicts) != len(columns):
        expected = (
            "a dict" if y.ndim == 1 else f"a list of {len(columns)} dicts, one for each label"
        )
        raise ValueError(f"class_weight must be {expected}, or 'balanced', not {class_weight!r}.")
    weights = np.ones(len(y))
    for by_class, column in zip(dicts, columns, strict=True):
        unknown = [name for name in by_class if name not in known]
        if unknown:
            raise ValueError(f"class_weight has {unknown}, but the classes are {known}.")
        for name, weight in by_class.items():
            weights[column == name] *= weight
    return weights
