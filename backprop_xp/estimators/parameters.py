"""The estimators' parameters: their meaning, valid values and defaults."""

import inspect
import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar, get_type_hints

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from backprop_xp.backends import Array, Backend, Device
from backprop_xp.networks.layers.activations import ACTIVATIONS, Activation
from backprop_xp.networks.losses.loss import LOSSES, Loss
from backprop_xp.training.optimizers.first_order import AdamState, RMSPropState, SGDState

STOCHASTIC = ("sgd", "adam", "adamw", "rmsprop")
# scikit-learn calls the sigmoid "logistic".
NAMED_ACTIVATIONS = {**ACTIVATIONS, "logistic": ACTIVATIONS["sigmoid"]}
OptimizerState: TypeAlias = SGDState | RMSPropState | AdamState
# A number, or an ensemble's list of one for each member.
Numbers: TypeAlias = float | list[float]
Kind = TypeVar("Kind", bound="type[Parameters]")

_POSITIVE = Interval(numbers.Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(numbers.Real, 0, None, closed="left")
_FRACTION = Interval(numbers.Real, 0, 1, closed="left")
_COUNT = Interval(numbers.Integral, 1, None, closed="left")
_RATES = StrOptions({"constant", "invscaling", "adaptive"})


@dataclass(eq=False, repr=False)
class Parameters:
    """The parameters of both estimators, each with its type, the values it takes and its default.

    - ``hidden_layer_sizes``: the width of each hidden layer, or one number for a single layer.
    - ``activation`` of the hidden layers: a name or an object of ``bx.activations``,
      ``"logistic"``, or a list with one for each layer.
    - ``solver``: ``"adam"``, ``"sgd"``, ``"adamw"`` or ``"rmsprop"``, which train in batches, or
      ``"lbfgs"`` or ``"lm"``, which use all rows at once. They are ``bx.LBFGS``, and
      ``bx.LevenbergMarquardt`` for networks of up to some thousand weights and a loss with a
      curvature.
    - ``alpha``: strength of the L2 penalty on the weights; with adamw, the weight decay.
    - ``batch_size``: rows of a batch; ``"auto"`` is 200, or all rows if there are fewer. lbfgs
      ignores it.
    - ``learning_rate``: ``"constant"``, or a function of the update's number, such as those of
      ``bx.schedules``. With sgd also ``"invscaling"``, which divides it by the number of rows seen
      to the power ``power_t``, or ``"adaptive"``, which divides it by 5 when the training stops
      improving.
    - ``learning_rate_init``: the learning rate of the first update.
    - ``power_t``: the exponent of ``"invscaling"``.
    - ``max_iter``: the largest number of epochs, or of iterations of lbfgs and lm.
    - ``shuffle``: whether each epoch takes the rows in a new order.
    - ``random_state``: an integer makes weights, batches and dropout reproducible.
    - ``tol``: an epoch improves if its loss, or its validation score, is better by at least this;
      lbfgs stops at a gradient whose largest entry is at most this, or at a step that lowers the
      loss by at most 2.2e-9 of it or of 1, as in scikit-learn, or 1.2e-7 in float32; lm at a step
      that lowers the loss by at most this part of it.
    - ``verbose``: whether to print the loss of each epoch.
    - ``warm_start``: whether ``fit`` continues from the weights of the last ``fit``.
    - ``momentum``, ``nesterovs_momentum``: of sgd.
    - ``early_stopping``: whether to stop by the score of a validation set, and to keep the weights
      of the best score. By default the training stops by its loss. lbfgs ignores it.
    - ``validation_fraction``: the share of the rows that ``early_stopping`` takes as that set.
    - ``beta_1``, ``beta_2``, ``epsilon``: of adam and adamw; rmsprop uses the last two.
    - ``n_iter_no_change``: epochs without improvement before the training stops.
    - ``max_fun``: the largest number of evaluations of the loss by lbfgs, for each start.
    - ``dropout``: the share of each hidden layer's outputs that a training step sets to 0.
    - ``layer_norm``: whether to normalize each hidden layer before its activation.
    - ``clip``: the largest norm of a gradient; None for no limit.
    - ``n_members``: networks of an ensemble, each with its own first weights, order of the rows and
      dropout masks. They are trained at once, and predictions are their mean.
    - ``n_restarts``: starts of each member, trained at once; the best is kept.
    - ``backend``, ``device``: where to compute, as in ``bx.use_backend``.
    """

    loss: Annotated[str | Loss, StrOptions({"squared_error", *LOSSES}), Loss] = "squared_error"
    hidden_layer_sizes: Annotated[int | Sequence[int], "array-like", _COUNT] = (100,)
    activation: Annotated[
        str | Activation | Sequence[str | Activation],
        *(StrOptions(set(NAMED_ACTIVATIONS)), "array-like", Activation),
    ] = "relu"
    _: KW_ONLY
    solver: Annotated[str, StrOptions({"lbfgs", "lm", *STOCHASTIC})] = "adam"
    alpha: Annotated[float, _NOT_NEGATIVE] = 0.0001
    batch_size: Annotated[int | str, StrOptions({"auto"}), _COUNT] = "auto"
    learning_rate: Annotated[str | Callable[[int], float | Array], _RATES, callable] = "constant"
    learning_rate_init: Annotated[float, _POSITIVE] = 0.001
    power_t: Annotated[float, _NOT_NEGATIVE] = 0.5
    max_iter: Annotated[int, _COUNT] = 200
    shuffle: Annotated[bool, "boolean"] = True
    random_state: Annotated[int | np.random.RandomState | None, "random_state"] = None
    tol: Annotated[float, _NOT_NEGATIVE] = 1e-4
    verbose: Annotated[bool, "verbose"] = False
    warm_start: Annotated[bool, "boolean"] = False
    momentum: Annotated[float, _FRACTION] = 0.9
    nesterovs_momentum: Annotated[bool, "boolean"] = True
    early_stopping: Annotated[bool, "boolean"] = False
    validation_fraction: Annotated[float, _FRACTION] = 0.1
    beta_1: Annotated[float, _FRACTION] = 0.9
    beta_2: Annotated[float, _FRACTION] = 0.999
    epsilon: Annotated[float, _POSITIVE] = 1e-8
    n_iter_no_change: Annotated[float, _COUNT, Options(numbers.Real, {np.inf})] = 10
    max_fun: Annotated[int, _COUNT] = 15000
    dropout: Annotated[float, _FRACTION] = 0.0
    layer_norm: Annotated[bool, "boolean"] = False
    clip: Annotated[float | None, _POSITIVE, None] = None
    n_members: Annotated[int, _COUNT] = 1
    n_restarts: Annotated[int, _COUNT] = 1
    backend: str | Backend | None = None
    device: Device = None

    _parameter_constraints: ClassVar[dict[str, list[object]]]


class Model(Parameters):
    """The interface of an estimator for its solvers: parameters and fitted attributes.

    An ensemble's attributes of a network have an axis of members: ``coefs_[0]`` is ``(n_members,
    n_in, n_out)``, ``loss_`` and each epoch of a curve are lists.
    """

    coefs_: list[Array]
    intercepts_: list[Array]
    layer_norms_: list[tuple[Array, Array]]
    n_outputs_: int
    n_iter_: int
    t_: int
    loss_: Numbers
    loss_curve_: list[Numbers]
    validation_loss_curve_: list[Numbers] | None
    validation_scores_: list[Numbers] | None
    best_loss_: Numbers | None
    best_validation_score_: Numbers | None
    _no_improvement_count: int | list[int]
    _learning_rate: float
    _optimizer_state: OptimizerState
    _interval: Any

    @property
    def _trains_alone(self) -> bool:
        """Whether a fit in a search cannot be a network of a stack."""
        is_several = self.n_members > 1 or self.n_restarts > 1
        is_special = self.dropout > 0.0 or callable(self.learning_rate) or self.verbose
        return bool(is_several or is_special or self.warm_start)

    @property
    def _interval_kind(self) -> str | None:
        """The kind of prediction intervals that a fit prepares; None for none."""
        return None


def with_parameters(kind: Kind) -> Kind:
    """Give a class the values that scikit-learn checks, and its docstring the parameters' list."""
    kind._parameter_constraints = {
        field.name: list(field.type.__metadata__)
        for field in fields(kind)
        if hasattr(field.type, "__metadata__")
    }
    # Without the values that it takes: signatures show the type alone.
    kind.__init__.__annotations__ = {**get_type_hints(kind.__init__), "return": None}
    listed = inspect.cleandoc(Parameters.__doc__ or "").partition("\n\n")[2]
    kind.__doc__ = inspect.cleandoc(kind.__doc__ or "").replace("{parameters}", listed)
    return kind


def hidden_sizes(parameters: Parameters) -> list[int]:
    """Return the width of each hidden layer."""
    sizes = parameters.hidden_layer_sizes
    return [operator.index(size) for size in (sizes if np.iterable(sizes) else [sizes])]


def check_parameters(parameters: Model, *, has_validation: bool, incremental: bool) -> None:
    """Raise ValueError for parameters that contradict each other."""
    sizes = hidden_sizes(parameters)
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    if parameters.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    if parameters._interval_kind is not None and parameters.solver != "lm":
        raise ValueError(
            f"interval={parameters._interval_kind!r} trains or measures networks by "
            f"Levenberg-Marquardt: it needs solver='lm', not {parameters.solver!r}."
        )
    if parameters.solver in STOCHASTIC:
        return
    unused = {
        "dropout": parameters.dropout != 0.0,
        "clip": parameters.clip is not None,
        "A schedule as learning_rate": callable(parameters.learning_rate),
        "X_val": has_validation,
        # scikit-learn's lbfgs ignores both.
        "early_stopping": parameters.early_stopping and parameters.solver == "lm",
        "batch_size": parameters.batch_size != "auto" and parameters.solver == "lm",
    }
    for name, is_given in unused.items():
        if is_given:
            raise ValueError(
                f"{name} works only with the stochastic solvers: use one of {STOCHASTIC}, or "
                f"leave it out with {parameters.solver}."
            )
