"""What scikit-learn's two perceptrons share: their parameters, and fitting."""

import functools
import numbers
import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._array_api import check_same_namespace
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from backprop_xp.backends import Array, Selection, to_host
from backprop_xp.estimators.architecture import (
    NAMED_ACTIVATIONS,
    attributes_of,
    drawn_theta,
    hidden_sizes,
    network_of,
    theta_of,
)
from backprop_xp.estimators.lbfgs import minimize
from backprop_xp.estimators.samples import (
    choice_for,
    goes_by_blocks,
    is_large,
    on_host,
    put,
    rows_at,
    rows_of,
    rows_of_block,
    taken,
)
from backprop_xp.estimators.stochastic import STOCHASTIC, Task, begin_curves, descend
from backprop_xp.estimators.streaming import Table
from backprop_xp.estimators.targets import dense, flat, word_of
from backprop_xp.networks.activations import Activation
from backprop_xp.networks.inputs import row_slices
from backprop_xp.networks.network import Network
from backprop_xp.training.schedules import Plateau

_POSITIVE = Interval(numbers.Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(numbers.Real, 0, None, closed="left")
_SHARE = Interval(numbers.Real, 0, 1, closed="left")
_COUNT = Interval(numbers.Integral, 1, None, closed="left")


def all_or_nothing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method that fails, or is interrupted, leave its object's attributes as they were."""

    @functools.wraps(method)
    def whole(self: Any, *arguments: Any, **named: Any) -> Any:
        before = dict(vars(self))
        try:
            return method(self, *arguments, **named)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return whole


@dataclass(eq=False, repr=False)
class Perceptron(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """What the two estimators share: their parameters, and all but what targets mean to them."""

    loss: Any = "squared_error"
    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: Any = "auto"
    learning_rate: Any = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    dropout: float = 0.0
    layer_norm: bool = False
    clip: float | None = None
    n_restarts: int = 1
    backend: Any = None
    device: Any = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", _COUNT],
        "activation": [StrOptions(set(NAMED_ACTIVATIONS)), "array-like", Activation],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC})],
        "alpha": [_NOT_NEGATIVE],
        "batch_size": [StrOptions({"auto"}), _COUNT],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"}), callable],
        "learning_rate_init": [_POSITIVE],
        "power_t": [_NOT_NEGATIVE],
        "max_iter": [_COUNT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [_NOT_NEGATIVE],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [_SHARE],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [_SHARE],
        "beta_1": [_SHARE],
        "beta_2": [_SHARE],
        "epsilon": [_POSITIVE],
        "n_iter_no_change": [_COUNT, Options(numbers.Real, {np.inf})],
        "max_fun": [_COUNT],
        "dropout": [_SHARE],
        "layer_norm": ["boolean"],
        "clip": [_POSITIVE, None],
        "n_restarts": [_COUNT],
    }

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing  # outside: callbacks are torn down first
    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Fit to X ``(batch, n)`` and y; return the estimator.

        ``X_val`` and ``y_val`` are held-out rows of one's own: their loss and score are recorded
        after each epoch, and with ``early_stopping`` they take the place of those split off.
        """
        if X_val is None and not y_val is sample_weight_val is None:
            raise ValueError("y_val and sample_weight_val are of held-out rows: give X_val, too.")
        held_out = None if X_val is None else (X_val, y_val, sample_weight_val)
        return self._fit(X, y, sample_weight, held_out, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, held_out: Any, *, incremental: bool) -> Any:
        self._check_parameters(held_out, incremental=incremental)
        goes_on = self.warm_start or incremental
        first = not (goes_on and hasattr(self, "coefs_"))
        x, columns, weight = self._validated(
            X,
            y,
            sample_weight,
            reset=first,
            defines=not (goes_on and hasattr(self, "classes_")),
            exact=self.warm_start,
        )
        random_state = check_random_state(self.random_state)
        self.n_outputs_ = columns.shape[1]
        network = network_of(self, x.shape[1])
        self.out_activation_ = word_of(network.loss_function)
        theta = self._begin(network, random_state) if first else theta_of(self, network)
        choice = choice_for(self, x)
        rows, validation = self._placed(choice, (x, columns, weight), held_out, random_state)
        given = (put(choice, theta), *rows, validation, self._score(), random_state)
        task = Task(network, *given)
        told: dict[str, Any] = {"X": X, "y": y}
        told["metadata"] = None if sample_weight is None else {"sample_weight": sample_weight}
        self._solve(task, told, incremental=incremental)
        return self

    def _placed(
        self, choice: Selection, rows: tuple[Any, ...], held_out: Any, random_state: Any
    ) -> tuple[Sequence[Any], list[Any] | None]:
        """Return X, targets and weights that are trained on, and those held out, if any are.

        They are where the choice says; X may be a table of which blocks are moved there.
        """
        (x, columns, weight), kept, validation = rows, None, None
        if held_out is not None:
            validation = taken(choice, self._validated(*held_out), None)
        elif self.early_stopping and self.solver in STOCHASTIC:
            kept, left = self._split(columns, random_state)
            validation = taken(choice, rows, left)
        if not (goes_by_blocks(choice, x) and self.solver in STOCHASTIC):
            return taken(choice, rows, kept), validation
        places = np.arange(len(columns)) if kept is None else kept
        others = taken(choice, (columns, weight), kept)
        return (Table(x, places, choice), *others), validation

    def _solve(self, task: Task, told: dict[str, Any], *, incremental: bool) -> None:
        """Train, tell scikit-learn's callbacks of it, and write the fitted attributes."""
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, **told)
        report = self._reporter(context, task.network, told)
        if self.solver in STOCHASTIC:
            theta = descend(self, task, report, incremental=incremental)
        else:
            theta = minimize(self, task, report)
        for name, value in attributes_of(task.network, theta).items():
            setattr(self, name, value)
        context.call_on_fit_task_end(estimator=self, **told, reconstruction_attributes={})
        if not np.isfinite(to_host(theta)).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

    def _check_parameters(self, held_out: Any, *, incremental: bool) -> None:
        """Raise ValueError for parameters that do not go together."""
        sizes = hidden_sizes(self)
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        if isinstance(self.learning_rate, Plateau):
            raise ValueError(
                'learning_rate="adaptive", of the solver "sgd", is what lowers the rate here where '
                "the loss stays: schedules.plateau is for bx.fit."
            )
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.solver == "lbfgs":
            for name, idle in (("dropout", 0.0), ("clip", None)):
                if getattr(self, name) != idle:
                    raise ValueError(
                        f"{name} is of the stochastic solvers alone: take one of {STOCHASTIC}, or "
                        f"leave {name} out with lbfgs."
                    )
            if callable(self.learning_rate):
                raise ValueError("A schedule is of the stochastic solvers: lbfgs has no rate.")
            if held_out is not None:
                raise ValueError("X_val is of the stochastic solvers alone: lbfgs has no epochs.")

    def _begin(self, network: Network, random_state: Any) -> np.ndarray:
        """Return the first theta, ``(P,)`` or a stack, and forget what was fitted before."""
        self.n_iter_ = self.t_ = 0
        if hasattr(self, "layer_norms_"):
            del self.layer_norms_
        self.n_layers_ = len(hidden_sizes(self)) + 2
        if self.solver in STOCHASTIC:
            begin_curves(self)
        return drawn_theta(network, random_state, self.n_restarts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a model file, without pickle; ``load`` reads it.

        All is kept that predicting, ``partial_fit`` and a warm start need; of a ``random_state``
        the number; not ``backend`` and ``device``. ``bx.load`` reads the file's network. Needs the
        extra ``files``.
        """
        from backprop_xp.estimators.persistence import save_estimator

        check_is_fitted(self)
        save_estimator(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the estimator that ``save`` wrote to a file.

        Raises CheckpointError, a ValueError, for a damaged file and for one of something else.
        """
        from backprop_xp.estimators.persistence import load_estimator

        model: Self = load_estimator(cls, path)
        return model

    def _reporter(
        self, context: Any, network: Network, told: dict[str, Any]
    ) -> Callable[[Array], bool] | None:
        """Return what tells scikit-learn's callbacks of each epoch, if there are any."""
        if not getattr(self, "_skl_callbacks", []):
            return None
        left = self.max_iter

        def begun() -> Any:
            nonlocal left
            left -= 1
            return context.subcontext(task_name="epoch").call_on_fit_task_begin(
                estimator=self, **told
            )

        epoch = begun()

        def report(theta: Array) -> bool:
            nonlocal epoch
            ends = epoch.call_on_fit_task_end(
                estimator=self,
                **told,
                reconstruction_attributes=lambda: attributes_of(network, theta),
            )
            if left and not ends:
                epoch = begun()
            return bool(ends)

        return report

    def _validated(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        reset: bool = False,
        defines: bool = False,
        exact: bool = False,
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Return X, and on the host targets in columns and weights.

        Classes are defined by y, or else are among those that are known, or are exactly these.
        """
        x, y = rows_of(self, X, y, reset=reset, **self._checks_of_y)
        y = flat(on_host(y))
        columns = self._columns(y, defines=defines, exact=exact)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(on_host(sample_weight), columns)
        return x, columns, self._weighted(dense(y), sample_weight)

    def _split(self, columns: np.ndarray, random_state: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that are trained on, and those that are held out."""
        kept, left = train_test_split(
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
        return kept, left

    def _predicted(self, X: Any, method: str) -> Array:
        """Return the loss's link of the outputs, ``(batch, n_outputs)``, where X is."""
        check_is_fitted(self)
        check_same_namespace(X, self, attribute="_first_coef", method=method)
        x = rows_of(self, X, reset=False)
        choice = choice_for(self, self.coefs_[0])
        network = network_of(self, self.coefs_[0].shape[0])
        theta = put(choice, theta_of(self, network))
        if not (isinstance(x, np.ndarray) or is_large(x)):
            return network.predict(theta, put(choice, x))
        # By the same blocks wherever the rows lie: a product of other rows may round otherwise.
        blocks = row_slices(x.shape[0], rows_of_block(x))
        parts = (network.predict(theta, put(choice, rows_at(x, block))) for block in blocks)
        return np.concatenate([to_host(part) for part in parts])

    @property
    def _first_coef(self) -> Array:
        return self.coefs_[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags
