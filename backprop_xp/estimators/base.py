"""The base class of both perceptrons, which fits and predicts for any kind of targets."""

import functools
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils._array_api import check_same_namespace
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from backprop_xp.backends import (
    Array,
    Selection,
    dtype_name,
    refuse_distributed,
    refuse_masked,
    to_host,
)
from backprop_xp.estimators import architecture, full_batch, samples, targets
from backprop_xp.estimators.bases import BaseEstimator, CallbackSupportMixin
from backprop_xp.estimators.intervals import check_interval
from backprop_xp.estimators.minimization import Minimization
from backprop_xp.estimators.parameters import STOCHASTIC, Model, check_parameters, hidden_sizes
from backprop_xp.estimators.samples import ArrayLike, MatrixLike, Samples
from backprop_xp.estimators.slopes import Slopes
from backprop_xp.estimators.stochastic import begin_curves, descend
from backprop_xp.estimators.streaming import Table
from backprop_xp.networks import ensemble
from backprop_xp.networks.chain.batch_rows import row_slices
from backprop_xp.networks.network import Network

# The classes of the targets define the classifier's, must equal them, or be among them.
Classes: TypeAlias = Literal["new", "same", "known"]
Method = TypeVar("Method", bound=Callable[..., Any])


def fit_method(method: Method) -> Method:
    """Decorate a method that fits: check the parameters first, tear down the callbacks last.

    If it fails or is interrupted, the estimator keeps the attributes that it had before.
    """
    with_teardown = with_callbacks(method)

    @functools.wraps(method)
    def whole(self: "Perceptron", *arguments: object, **keywords: object) -> object:
        names = ("X", "y", "sample_weight", "classes")
        for name, value in {**dict(zip(names, arguments, strict=False)), **keywords}.items():
            refuse_distributed(value, name)
            refuse_masked(value, name)
        before = dict(vars(self))
        try:
            return with_teardown(self, *arguments, **keywords)
        except BaseException:
            self.__dict__ = before
            raise

    checked: Method = _fit_context(prefer_skip_nested_validation=True)(whole)
    return checked


def validation_of(x: Any, y: Any, weight: Any) -> Samples | None:
    """Return the validation set, or raise ValueError for parts of one without x."""
    if x is None and not y is weight is None:
        raise ValueError("y_val and sample_weight_val belong to a validation set: pass X_val.")
    return None if x is None else Samples(x, y, weight)


class Perceptron(CallbackSupportMixin, BaseEstimator, Model):
    """A multilayer perceptron.

    A subclass defines its targets by ``_checks_of_y``, ``_columns``, ``_loss`` and ``_score``.
    """

    def _weights(self, y: Array, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """Return the samples' weights, multiplied by those of their classes if there are any."""
        return sample_weight

    def _strata(self, columns: np.ndarray) -> np.ndarray | None:
        """Return the labels whose shares a validation set keeps; None for any shares."""
        return None

    @fit_method
    def fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit to X, ``(batch, n_features)``, and y; return the estimator.

        ``X_val``, ``y_val`` and ``sample_weight_val`` are a validation set: its loss and score are
        recorded after each epoch, and ``early_stopping`` uses it instead of a part of X. Rows of
        weight 0 are left out.
        """
        validation = validation_of(X_val, y_val, sample_weight_val)
        return self._fit(Samples(X, y, sample_weight), validation, incremental=False)

    def _fit(
        self,
        data: Samples,
        validation: Samples | None,
        *,
        incremental: bool,
        dy: ArrayLike | None = None,
    ) -> Self:
        check_parameters(self, has_validation=validation is not None, incremental=incremental)
        continues = self.warm_start or incremental
        begins = not (continues and hasattr(self, "coefs_"))
        classes: Classes = "same" if self.warm_start else "known"
        if not (continues and hasattr(self, "classes_")):
            classes = "new"
        checked = self._validate(data, classes, reset=begins)
        check_interval(self, checked, has_slopes=dy is not None)
        random_state = check_random_state(self.random_state)
        self.n_outputs_ = checked.y.shape[1]
        network = self._network(checked.x.shape[1])
        self.out_activation_ = targets.activation_name(network.loss_function)
        if begins:
            theta = self._begin(network, random_state)
        else:
            theta = network.pack(architecture.parameters_of(self, network))
        choice, score, trained = samples.choice_for(self, checked.x), self._score(), network
        targets.refuse_tiny_spread(checked.y, dtype_name(choice.dtype))
        if validation is not None:
            validation = self._validate(validation, "known")
        if dy is not None:
            names = getattr(self, "feature_names_in_", ())
            slopes = Slopes.of(dy, checked, names, are_scaled=not incremental)
            trained, score = slopes.network(network, self.loss), slopes.score(score)
            checked, validation = slopes.samples(checked), slopes.validation(validation)
        rows = self._rows(choice, checked, validation, random_state)
        problem = Minimization(trained, choice, theta, *rows, score, random_state)
        self._solve(problem, network, data, incremental=incremental)
        return self

    def _network(self, n_in: int) -> Network:
        return architecture.network_of(self, n_in, self._loss())

    def _begin(self, network: Network, random_state: np.random.RandomState) -> np.ndarray:
        """Return the first theta, ``(P,)`` or a stack, and forget what was fitted before."""
        self.n_iter_ = self.t_ = 0
        if hasattr(self, "layer_norms_"):
            del self.layer_norms_
        self.n_layers_ = len(hidden_sizes(self)) + 2
        if self.solver in STOCHASTIC:
            begin_curves(self)
        return architecture.draw_theta(self, network, random_state)

    def _validate(self, data: Samples, classes: Classes, *, reset: bool = False) -> Samples:
        """Return X as it is validated, and on the host targets in columns and weights."""
        x, y = samples.validate(self, data.x, data.y, reset=reset, **self._checks_of_y)
        y, weight = targets.as_column(samples.on_host(y)), data.sample_weight
        columns = self._columns(y, classes)
        if weight is not None:
            weight = _check_sample_weight(samples.on_host(weight), columns)
        return Samples(x, columns, self._weights(targets.to_dense(y), weight))

    def _rows(
        self,
        choice: Selection,
        data: Samples,
        validation: Samples | None,
        random_state: np.random.RandomState,
    ) -> tuple[Samples, Samples | None]:
        """Return the rows to train on, and those of the validation set, if there is one.

        The x of a table that is moved by blocks becomes a ``Table``.
        """
        rows, is_stochastic = samples.counted(data), self.solver in STOCHASTIC
        if validation is not None:
            validation = samples.rows_of(choice, validation, samples.counted(validation))
        elif self.early_stopping and is_stochastic:
            rows = np.arange(len(data.y)) if rows is None else rows
            rows, left = (rows[part] for part in self._split(data.y[rows], random_state))
            validation = samples.rows_of(choice, data, left)
        if not (is_stochastic and samples.moves_by_blocks(choice, data.x)):
            return samples.rows_of(choice, data, rows), validation
        table = Table(data.x, np.arange(len(data.y)) if rows is None else rows, choice)
        return samples.rows_of(choice, data._replace(x=None), rows)._replace(x=table), validation

    def _split(
        self, columns: np.ndarray, random_state: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the training rows and of the validation set."""
        rows, left = train_test_split(
            np.arange(len(columns)),
            random_state=random_state,
            test_size=self.validation_fraction,
            stratify=self._strata(columns),
        )
        if len(left) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return rows, left

    def _solve(
        self, problem: Minimization, network: Network, data: Samples, *, incremental: bool
    ) -> None:
        """Train, tell scikit-learn's callbacks about it, and write the network's attributes."""
        weight = data.sample_weight
        details = {"estimator": self, "X": data.x, "y": data.y}
        details["metadata"] = None if weight is None else {"sample_weight": weight}
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(**details)
        report = None
        if getattr(self, "_skl_callbacks", []):
            reports = self._reports(context, network, details)
            next(reports)
            report = reports.send
        vars(self).pop("_interval", None)  # of an earlier fit
        if self.solver in STOCHASTIC:
            theta = descend(self, problem, report, incremental=incremental)
        else:
            theta = full_batch.solve(self, problem, report)
        self.__dict__.update(architecture.attributes_of(network, theta))
        context.call_on_fit_task_end(**details, reconstruction_attributes={})
        if not np.isfinite(to_host(theta)).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

    def _reports(
        self, context: Any, network: Network, details: dict[str, object]
    ) -> Generator[bool, Array, None]:
        """Tell scikit-learn's callbacks about each epoch.

        It is sent theta after an epoch, and yields whether a callback ends the training.
        """
        left, ends = self.max_iter, False
        while True:
            if left and not ends:
                left -= 1
                epoch = context.subcontext(task_name="epoch").call_on_fit_task_begin(**details)
            theta = yield ends
            attributes = functools.partial(architecture.attributes_of, network, theta)
            ends = bool(epoch.call_on_fit_task_end(**details, reconstruction_attributes=attributes))

    def _predict_rows(self, X: MatrixLike, method: str) -> Array:
        """Return the predictions, ``(batch, n_outputs)``, where X is: the mean over the members."""
        if self.n_members > 1:
            return self._applied(X, method, ensemble.predict)[0]
        return self._applied(X, method, lambda network, *given: [network.predict(*given)])[0]

    def _applied(
        self, X: MatrixLike, method: str, predict: Callable[..., Sequence[Array]]
    ) -> list[Array]:
        """Return what ``predict(network, theta, x)`` returns, arrays of a row for each of X's."""
        check_is_fitted(self)
        check_same_namespace(X, self, attribute="_first_coef", method=method)
        x = samples.validate(self, X, reset=False)
        choice = samples.choice_for(self, self.coefs_[0])
        network, theta = self._fitted_network()
        theta = samples.put(choice, theta)
        if not (isinstance(x, np.ndarray) or samples.is_large(x)):
            return [*predict(network, theta, samples.put(choice, x))]
        # The same blocks in any memory: products of other rows may round differently.
        blocks = row_slices(x.shape[0], samples.rows_of_block(x))
        parts = (samples.put(choice, samples.rows_at(x, block)) for block in blocks)
        found = ([*map(to_host, predict(network, theta, part))] for part in parts)
        return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    def _fitted_network(self) -> tuple[Network, Array]:
        network = self._network(self.coefs_[0].shape[-2])
        return network, network.pack(architecture.parameters_of(self, network))

    def _export_c(self, path: str | os.PathLike[str], options: Any) -> None:
        """Write the fitted network as a file of C, for ``bx.export_c``."""
        from backprop_xp.files.c_export.c_file import export_network

        check_is_fitted(self)
        names = ", ".join(map(ascii, getattr(self, "feature_names_in_", ())))
        notes = [*([f"x has the features {names}."] if names else []), *self._notes_on_outputs()]
        export_network(path, *self._fitted_network(), options, notes)

    def _notes_on_outputs(self) -> list[str]:
        """Return sentences on the outputs of the network, for the comments of a file of C."""
        return []

    @property
    def _first_coef(self) -> Array:
        return self.coefs_[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a model file, without pickle; ``load`` reads it.

        Prediction, ``partial_fit`` and a warm start work from the file. ``random_state`` is
        kept if it is an integer; ``backend`` and ``device`` are not kept. ``bx.load`` reads the
        network alone. Needs the extra ``files``.
        """
        from backprop_xp.estimators.persistence import save_estimator

        check_is_fitted(self)
        save_estimator(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the estimator that ``save`` wrote to a file.

        Raises CheckpointError, a ValueError, for a damaged file and for any other file.
        """
        from backprop_xp.estimators.persistence import load_estimator

        return load_estimator(cls, path)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags
