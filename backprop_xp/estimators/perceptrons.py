"""scikit-learn's multilayer perceptrons, trained by this library wherever it runs.

Parameters, defaults, fitted attributes, stopping rules and random draws are those of
``sklearn.neural_network``: what its perceptrons do, these do too, and more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from backprop_xp.backends import Array, array_namespace, owner, to_host
from backprop_xp.estimators.base import Perceptron, all_or_nothing
from backprop_xp.estimators.samples import on_host
from backprop_xp.estimators.stochastic import STOCHASTIC
from backprop_xp.estimators.targets import (
    as_distribution,
    binarizer_of,
    check_classes,
    columns_of,
    dense,
    gives_probabilities,
    loss_of_classes,
    loss_of_values,
    score_of_labels,
    score_of_values,
    weighted,
)
from backprop_xp.networks.activations import softmax
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.training.metrics import accuracy


def _has_partial_fit(model: Any) -> bool:
    if model.solver not in STOCHASTIC:
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{model.solver} is not stochastic."
        )
    return True


def _has_probabilities(model: Any) -> bool:
    if not gives_probabilities(model.loss):
        raise AttributeError(
            f"loss={model.loss!r} gives no probabilities: there is decision_function, which "
            "sklearn.calibration.CalibratedClassifierCV makes probabilities of."
        )
    return True


def _has_scores(model: Any) -> bool:
    return not gives_probabilities(model.loss)


@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, Perceptron):  # type: ignore[misc]
    """A multilayer perceptron for classes or multilabel targets: scikit-learn's, and more.

    What it has beyond ``sklearn.neural_network.MLPClassifier``: any loss of ``bx.losses`` by its
    name, of targets 0 and 1 (``predict_proba`` is there where its link is sigmoid or softmax,
    elsewhere ``decision_function`` is), ``class_weight``, ``dropout``,
    ``layer_norm``, a list of activations (any of ``bx.activations``), the solvers ``"adamw"``
    (``alpha`` is its decoupled decay of the weights) and ``"rmsprop"``, a schedule as
    ``learning_rate``, ``clip`` of the gradient's norm, ``n_restarts`` networks trained at once of
    which the best is kept, held-out rows of one's own in ``fit``, and ``backend`` and ``device``.

    >>> import backprop_xp as bx
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = bx.MLPClassifier(16, "tanh", solver="lbfgs", random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    """

    loss: Any = field(default="log_loss", kw_only=True)
    class_weight: Any = field(default=None, kw_only=True)

    _checks_of_y: ClassVar[dict[str, Any]] = {"multi_output": True}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Perceptron._parameter_constraints,
        "loss": [StrOptions({"log_loss", *LOSSES}), Loss],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    @available_if(_has_partial_fit)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing
    @with_callbacks  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """Train for one epoch on X and y; ``classes`` are all there are, for the first call."""
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: a part of the rows has "
                "other shares of the classes. Give their weights in a dict."
            )
        classes = on_host(classes)
        if _check_partial_fit_first_call(self, classes):
            y = on_host(y)
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = binarizer_of(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, None, incremental=True)

    def _columns(self, y: Any, *, defines: bool, exact: bool) -> np.ndarray:
        if defines:
            self._label_binarizer = binarizer_of(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            check_classes(self._label_binarizer, y, exact=exact)
        return columns_of(self._label_binarizer, y, self.loss)

    def _weighted(self, y: Any, sample_weight: np.ndarray | None) -> np.ndarray | None:
        return weighted(self.class_weight, y, sample_weight, self.classes_)

    def _strata(self, columns: np.ndarray) -> Any:
        return columns if self.n_outputs_ == 1 else None

    @property
    def _is_multilabel(self) -> bool:
        return bool(self._label_binarizer.y_type_.startswith("multilabel"))

    def _loss(self) -> Loss:
        return loss_of_classes(self.loss, self.n_outputs_, is_multilabel=self._is_multilabel)

    def _score(self) -> Callable[..., Array]:
        return score_of_labels if self._is_multilabel else accuracy

    def predict(self, X: Any) -> Any:
        """Return the class, or the labels, of each row; labels are sparse if those of fit were."""
        predicted = self._predicted(X, "predict")
        host = to_host(predicted)
        labels = self._label_binarizer.inverse_transform(
            host[:, 0] if self.n_outputs_ == 1 else host
        )
        home = owner(predicted)
        is_numbers = isinstance(labels, np.ndarray) and labels.dtype.kind in "biuf"
        if home is None or home.name == "numpy" or not is_numbers:
            return labels
        return home.from_host(labels, device=predicted.device)

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """Return each class's probability, ``(batch, n_classes)``, or each label's."""
        return self._probabilities(X, "predict_proba")

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of ``predict_proba``."""
        probabilities = self._probabilities(X, "predict_log_proba")
        with np.errstate(divide="ignore"):
            return array_namespace(probabilities).log(probabilities)

    def _probabilities(self, X: Any, method: str) -> Array:
        predicted = self._predicted(X, method)
        if self.n_outputs_ == 1:
            return array_namespace(predicted).concat([1.0 - predicted, predicted], axis=-1)
        each = self._is_multilabel or self._loss().link is softmax.value
        return predicted if each else as_distribution(predicted)

    @available_if(_has_scores)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> Array:
        """Return by how much a class, of each of several or the second of two, is above 1/2."""
        scores = self._predicted(X, "decision_function") - 0.5
        is_of_two = len(self.classes_) <= 2 and not self._is_multilabel
        return scores[:, -1] if is_of_two else scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, Perceptron):  # type: ignore[misc]
    """A multilayer perceptron for values, one or several: scikit-learn's, and more.

    What it has beyond ``sklearn.neural_network.MLPRegressor``: any loss of ``bx.losses`` by its
    name, and what ``MLPClassifier`` has but ``class_weight``.

    >>> import backprop_xp as bx
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = bx.MLPRegressor("huber", 8, solver="lbfgs", alpha=1.0, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.4
    True
    """

    _checks_of_y: ClassVar[dict[str, Any]] = {"multi_output": True, "y_numeric": True}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Perceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", *LOSSES}), Loss],
    }

    @available_if(_has_partial_fit)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing
    @with_callbacks  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch on X and y."""
        return self._fit(X, y, sample_weight, None, incremental=True)

    def _columns(self, y: Any, *, defines: bool, exact: bool) -> np.ndarray:
        return np.asarray(dense(y)).reshape(y.shape[0], -1)

    def _weighted(self, y: Any, sample_weight: np.ndarray | None) -> np.ndarray | None:
        return sample_weight

    def _strata(self, columns: np.ndarray) -> Any:
        return None

    def _loss(self) -> Loss:
        return loss_of_values(self.loss, self.n_outputs_, self.solver)

    def _score(self) -> Callable[..., Array]:
        return score_of_values

    def predict(self, X: Any) -> Array:
        """Return the values of each row, ``(batch,)`` or ``(batch, n_outputs)``."""
        predicted = self._predicted(X, "predict")
        return predicted[:, 0] if self.n_outputs_ == 1 else predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
