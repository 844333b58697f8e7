"""scikit-learn's multilayer perceptrons, trained by this library on any device.

Parameters, defaults, fitted attributes, stopping rules and random draws are those of
``sklearn.neural_network``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target
from sklearn.utils.validation import check_is_fitted

from backprop_xp.backends import Array, array_namespace, owner, to_host
from backprop_xp.checks import real
from backprop_xp.estimators import targets
from backprop_xp.estimators.base import Classes, Perceptron, fit_method, validation_of
from backprop_xp.estimators.bases import ClassifierMixin, RegressorMixin
from backprop_xp.estimators.intervals import INTERVALS
from backprop_xp.estimators.parameters import STOCHASTIC, Parameters, with_parameters
from backprop_xp.estimators.samples import ArrayLike, MatrixLike, Samples, on_host
from backprop_xp.networks import ensemble
from backprop_xp.networks.derivatives.input_derivatives import slopes_through
from backprop_xp.networks.layers.activations import softmax
from backprop_xp.networks.losses.loss import LOSSES, Loss
from backprop_xp.networks.network import Network
from backprop_xp.training.measures.metrics import accuracy


def _has_partial_fit(parameters: Parameters) -> bool:
    if parameters.solver not in STOCHASTIC:
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{parameters.solver} is not stochastic."
        )
    return True


def _has_probabilities(parameters: Parameters) -> bool:
    if not targets.gives_probabilities(parameters.loss):
        raise AttributeError(
            f"loss={parameters.loss!r} gives no probabilities. Use decision_function, from which "
            "sklearn.calibration.CalibratedClassifierCV makes probabilities."
        )
    return True


@with_parameters
@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, Perceptron):
    """A multilayer perceptron for classes or multilabel targets: scikit-learn's with additions.

    >>> import backprop_xp as bx
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = bx.MLPClassifier(16, "tanh", solver="lbfgs", max_iter=1000, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.score(X, y) > 0.95
    True

    Its parameters:

    - ``loss``: ``"log_loss"``, or a name or an object of ``bx.losses``, for targets 0 and 1.
      If its inverse link is sigmoid or softmax there is ``predict_proba``, else
      ``decision_function``.
    - ``class_weight``: a dict of weights by class, 1 for any other class; a list of such dicts for
      multilabel targets; ``"balanced"``, by the number of samples of each class; None for 1.
    {parameters}
    """

    loss: Annotated[str | Loss, StrOptions({"log_loss", *LOSSES}), Loss] = field(
        default="log_loss", kw_only=True
    )
    class_weight: Annotated[targets.ClassWeight, dict, list, StrOptions({"balanced"}), None] = (
        field(default=None, kw_only=True)
    )

    _checks_of_y: ClassVar[dict[str, bool]] = {"multi_output": True}

    @available_if(_has_partial_fit)  # type: ignore[untyped-decorator]
    @fit_method
    def partial_fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on X and y; the first call needs all ``classes``."""
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: a part of the rows has "
                "other shares of the classes. Give their weights in a dict."
            )
        classes = on_host(classes)
        if _check_partial_fit_first_call(self, classes):
            y = on_host(y)
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(Samples(X, y, sample_weight), None, incremental=True)

    def _columns(self, y: Array, classes: Classes) -> np.ndarray:
        targets.refuse_missing_dates(y)
        if classes == "new":
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            targets.check_classes(self._label_binarizer, y, exact=classes == "same")
        return targets.columns_of(self._label_binarizer, y, self.loss)

    def _weights(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray | None:
        return targets.class_weights(self.class_weight, y, sample_weight, self.classes_)

    def _strata(self, columns: np.ndarray) -> np.ndarray | None:
        return columns if self.n_outputs_ == 1 else None

    @property
    def _is_multilabel(self) -> bool:
        return bool(self._label_binarizer.y_type_.startswith("multilabel"))

    def _loss(self) -> Loss:
        return targets.loss_of_classes(
            self.loss, self.n_outputs_, is_multilabel=self._is_multilabel
        )

    def _score(self) -> Callable[[Array, Array, Array | None], Array]:
        return targets.score_of_labels if self._is_multilabel else accuracy

    def _notes_on_outputs(self) -> list[str]:
        y, classes = "y" if self.n_members == 1 else "mean", self.classes_.tolist()
        each = ", ".join(f"{i}: {one!a}" for i, one in enumerate(classes))
        if self._is_multilabel:
            return [f"A row has the label i if {y}[i] is above 0.5. The labels are {each}."]
        if self.n_outputs_ == 1:
            return [f"The class is {classes[-1]!a} if {y}[0] is above 0.5, else {classes[0]!a}."]
        return [f"The class is that of the largest {y}[i]. The classes are {each}."]

    def predict(self, X: MatrixLike) -> Array:
        """Return the class, or the labels, of each row; labels are sparse if those of fit were."""
        predicted = self._predict_rows(X, "predict")
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
    def predict_proba(self, X: MatrixLike) -> Array:
        """Return each class's probability, ``(batch, n_classes)``, or each label's."""
        return self._probabilities(X, "predict_proba")

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: MatrixLike) -> Array:
        """Return the logarithm of ``predict_proba``."""
        probabilities = self._probabilities(X, "predict_log_proba")
        with np.errstate(divide="ignore"):
            return array_namespace(probabilities).log(probabilities)

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def input_gradient(self, X: MatrixLike) -> Array:
        """Return the derivatives of ``predict_proba`` by the features of each row.

        They are ``(batch, n_classes, n_features)``; those of the classes of a row add up to 0. For
        multilabel targets they are ``(batch, n_labels, n_features)``.
        """

        def slopes(network: Network, theta: Array, x: Array) -> list[Array]:
            mean, _ = ensemble.predict(network, theta, x)
            return [
                slopes_through(self._distribution, mean, ensemble.mean_slopes(network, theta, x))
            ]

        return self._applied(X, "input_gradient", slopes)[0]

    def _probabilities(self, X: MatrixLike, method: str) -> Array:
        return self._distribution(self._predict_rows(X, method))

    def _distribution(self, predicted: Array) -> Array:
        """Return the probabilities that predictions stand for."""
        if self.n_outputs_ == 1:
            return array_namespace(predicted).concat([1.0 - predicted, predicted], axis=-1)
        is_whole = self._is_multilabel or self._loss().inverse_link is softmax.value
        return predicted if is_whole else targets.as_distribution(predicted)

    @available_if(lambda model: not targets.gives_probabilities(model.loss))  # type: ignore[untyped-decorator]
    def decision_function(self, X: MatrixLike) -> Array:
        """Return each class's or label's output minus 1/2; for two classes only the second's."""
        scores = self._predict_rows(X, "decision_function") - 0.5
        is_of_two = len(self.classes_) <= 2 and not self._is_multilabel
        return scores[:, -1] if is_of_two else scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@with_parameters
@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, Perceptron):
    """A multilayer perceptron for one or several values: scikit-learn's with additions.

    >>> import backprop_xp as bx
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = bx.MLPRegressor("huber", 8, "tanh", solver="lm", alpha=1.0, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.score(X, y) > 0.4
    True

    Its parameters:

    - ``loss``: ``"squared_error"`` (half of it, as in scikit-learn), ``"poisson"``, or another name
      or an object of ``bx.losses``. For ``"squared_error"`` ``solver="lm"`` divides each of several
      targets by its standard deviation, and so the errors in ``loss_``.
    - ``interval``: what ``predict_interval`` needs of a fit with ``solver="lm"``: ``"conformal"``,
      ``"laplace"`` or None.
    {parameters}
    """

    interval: Annotated[str | None, StrOptions({*INTERVALS}), None] = field(
        default=None, kw_only=True
    )

    _checks_of_y: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    @fit_method
    def fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        dy: ArrayLike | None = None,
        X_val: MatrixLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit to X, ``(batch, n_features)``, and y; return the estimator.

        ``dy`` are derivatives of y by the features, which are learned too: ``(batch, n_features)``
        or ``(batch, n_outputs, n_features)``, NaN where not measured. Each counts as much as a
        value of y, multiplied by the standard deviation of its feature. With one output the cost
        does not depend on the number of features. Take a smooth ``activation``, such as "tanh":
        derivatives of relu, the default, hardly teach it, which is a warning.

        ``X_val``, ``y_val`` and ``sample_weight_val`` are a validation set: its loss and score are
        recorded after each epoch, and ``early_stopping`` uses it instead of a part of X. Rows of
        weight 0 are left out.

        >>> import backprop_xp as bx
        >>> import numpy as np
        >>> X = np.linspace(-2.0, 2.0, 9)[:, None]
        >>> model = bx.MLPRegressor(hidden_layer_sizes=20, activation="tanh", solver="lbfgs")
        >>> model = model.set_params(random_state=0, max_iter=1000)
        >>> model = model.fit(X, np.sin(3.0 * X[:, 0]), dy=3.0 * np.cos(3.0 * X))
        >>> at = np.linspace(-2.0, 2.0, 50)[:, None]
        >>> bool(np.max(np.abs(model.predict(at) - np.sin(3.0 * at[:, 0]))) < 0.05)
        True
        """
        validation = validation_of(X_val, y_val, sample_weight_val)
        return self._fit(Samples(X, y, sample_weight), validation, incremental=False, dy=dy)

    @property
    def _interval_kind(self) -> str | None:
        return self.interval

    @available_if(_has_partial_fit)  # type: ignore[untyped-decorator]
    @fit_method
    def partial_fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        dy: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on X and y, and on ``dy`` as in ``fit``.

        Each derivative counts as it is: some of the rows do not show the deviations of the
        features. Standardize X, and multiply ``dy`` by the deviations.
        """
        return self._fit(Samples(X, y, sample_weight), None, incremental=True, dy=dy)

    def _columns(self, y: Array, classes: Classes) -> np.ndarray:
        return np.asarray(targets.to_dense(y)).reshape(y.shape[0], -1)

    def _loss(self) -> Loss:
        return targets.loss_of_values(self.loss, self.n_outputs_, self.solver)

    def _score(self) -> Callable[[Array, Array, Array | None], Array]:
        return targets.score_of_values

    def predict(self, X: MatrixLike, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return the values of each row, ``(batch,)`` or ``(batch, n_outputs)``.

        With ``return_std`` return the members' mean and their standard deviation. It is the
        disagreement of the members, without the noise of the targets, and not an interval.
        """
        if not return_std:
            return self._columns_of(self._predict_rows(X, "predict"))
        if self.n_members == 1:
            raise ValueError(
                "return_std needs several members, such as n_members=8: one network has no spread."
            )
        mean, deviation = self._applied(X, "predict", ensemble.predict)
        return self._columns_of(mean), self._columns_of(deviation)

    def predict_interval(self, X: MatrixLike, coverage: float = 0.9) -> tuple[Array, Array]:
        """Return the lower and upper bounds of new targets, each of the shape of ``predict(X)``.

        A new row's target is between them with the probability ``coverage``, for each output alone.

        - ``interval="conformal"`` uses the errors of left-out rows, by five folds' networks (CV+ of
          Barber et al. 2021; Vovk 2015). It does not assume a distribution of the noise. At least
          ``1 - 2 * (1 - coverage) - sqrt(2 / rows)`` is guaranteed, and mostly it is close to
          ``coverage``. It takes ``dy``.
        - ``interval="laplace"`` linearizes the network at its weights (MacKay 1992, Immer et al.
          2021), for normal noise of one variance and ``loss="squared_error"``. It refuses ``dy``,
          whose noise has another variance. It is wider far from the training rows, and too narrow
          for a network with about as many weights as rows.

        Raises ValueError if the model was fitted without ``interval``, or to too few rows.
        """
        coverage = real(coverage, "coverage", above=0.0, below=1.0)
        check_is_fitted(self)
        if not hasattr(self, "_interval"):
            raise ValueError(
                "predict_interval needs a fit with solver='lm' and interval='conformal' or "
                "interval='laplace'."
            )

        def bounds(network: Network, theta: Array, x: Array) -> Sequence[Array]:
            found: Sequence[Array] = self._interval.bounds(network, theta, x, coverage)
            return found

        lower, upper = self._applied(X, "predict_interval", bounds)
        return self._columns_of(lower), self._columns_of(upper)

    def input_gradient(self, X: MatrixLike) -> Array:
        """Return the derivatives of ``predict`` by the features of each row.

        They are ``(batch, n_features)``, or ``(batch, n_outputs, n_features)`` for several outputs.
        """
        slopes, *_ = self._applied(
            X, "input_gradient", lambda *given: [ensemble.mean_slopes(*given)]
        )
        return self._columns_of(slopes)

    def input_hessian(self, X: MatrixLike) -> Array:
        """Return the second derivatives of ``predict`` by the features of each row.

        They are ``(batch, n_features, n_features)``, or ``(batch, n_outputs, n_features,
        n_features)`` for several outputs. Those of relu, the default, are 0.
        """
        curvatures, *_ = self._applied(
            X, "input_hessian", lambda *given: [ensemble.mean_curvatures(*given)]
        )
        return self._columns_of(curvatures)

    def _columns_of(self, values: Array) -> Array:
        return values[:, 0] if self.n_outputs_ == 1 else values

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
