"""The stochastic solvers of the scikit-learn estimators: gradient descent by ``bx.fit``.

Fits of a search may be one stack: each keeps its own rules, those of ``stochastic_rules``.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, to_device_of, to_host
from backprop_xp.checks import stacklevel
from backprop_xp.display.progress import Report as Progress
from backprop_xp.estimators.minimization import (
    Minimization,
    at_index,
    index_of_best,
    joined,
    of_networks,
    state_of,
    strengths,
)
from backprop_xp.estimators.parameters import Model, OptimizerState, hidden_sizes
from backprop_xp.estimators.search_stacks import Training, train_together
from backprop_xp.estimators.stochastic_rules import Descent, Orders, Report, Rules
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.early_stopping import Best, EarlyStopping
from backprop_xp.training.optimizers.first_order import SGD, Adam, AdamW, Optimizer, RMSProp
from backprop_xp.training.optimizers.pytrees import mapped

# The parameters that are the same in all fits of a stack.
_SHARED = (
    *("solver", "batch_size", "learning_rate", "power_t", "shuffle", "nesterovs_momentum"),
    *("early_stopping", "clip"),
)


def descend(
    model: Model, problem: Minimization, report: Report | None, *, incremental: bool
) -> Array:
    """Return theta after scikit-learn's epochs, or after one epoch if ``incremental``.

    The curves and the other attributes that scikit-learn's solvers leave are written to the model.
    """
    if not hasattr(model, "loss_curve_"):  # as after L-BFGS
        begin_curves(model)
    descent = Descent(model, problem, report, incremental)
    if model.batch_size != "auto" and model.batch_size > problem.samples.x.shape[0]:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=stacklevel(),
        )
    is_complete = train_together(_training(descent))
    if is_complete and not (incremental or (descent.reached and descent.reached.has_ended)):
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) "
            "reached and the optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=stacklevel(),
        )
    return _keep(descent)


def _training(descent: Descent) -> Training:
    """Return what ``train_together`` trains."""
    model, problem, kind = descent.model, descent.problem, None
    is_alone = descent.is_incremental or descent.report is not None or model._trains_alone
    if not is_alone and (kind := problem.kind()) is not None:
        kind = kind, model.momentum > 0.0, *(getattr(model, name) for name in _SHARED)
    rows, n_in = problem.samples.x.shape
    numbers = _batch_size(model, rows) * max(n_in, *hidden_sizes(model), model.n_outputs_)
    return Training(descent, train, kind, descent.epochs, problem.choice, numbers, problem.nbytes)


def train(descents: Sequence[Descent], progress: Progress | None) -> None:
    """Train estimators as a stack until each has ended; those that have leave it by quarters.

    Each epoch's losses are shown if there is a ``progress``. If it fails, the random states are
    those of before.
    """
    randoms = [descent.problem.random_state for descent in descents]
    before = [one.get_state() for one in randoms]
    try:
        _train(Rules(descents, progress))
    except Exception:
        for one, state in zip(randoms, before, strict=True):
            one.set_state(state)
        raise


def _train(rules: Rules) -> None:
    problem = joined([descent.problem for descent in rules.descents]).placed()
    rows = problem.samples.x.shape[-2]
    orders = [Orders(rows, one.problem.random_state) for one in rules.descents]
    state = _first_state(rules, problem)
    while True:
        try:
            state = _fit(rules, problem, orders, state)
        except KeyboardInterrupt as error:
            last = getattr(error, "state", None)
            if len(rules.descents) == 1 and last is not None and last.epoch > 0:
                if rules.epoch < last.epoch:
                    rules.count(last)
                rules.reach(0, last, has_ended=False)
            raise
        if not rules.is_left.any():
            return
        left = np.flatnonzero(rules.is_left)
        state, orders = state_of(state, left), [orders[i] for i in left]
        rules.keep_left()
        problem = joined([descent.problem for descent in rules.descents]).placed()


def _first_state(rules: Rules, problem: Minimization) -> TrainingState:
    """Return the state before the first step; of ``partial_fit`` that after the call before."""
    descent, theta = rules.descents[0], problem.theta
    start = _optimizer(rules, problem).initialize(theta)
    before: OptimizerState | None = getattr(descent.model, "_optimizer_state", None)
    if descent.is_incremental and before is not None and _continues(start, before):
        start = state_on_device(theta, before)
        rules.learning_rates, rules.updates = [descent.model._learning_rate], start.step
    best = None
    if descent.model.early_stopping and np.isfinite(rules.best).all():  # of a warm start
        known = rules.best.reshape(rules.stack), np.asarray(0), theta, start
        best = Best(*known, "score", "max")
    return TrainingState(0, 0, theta, start, best=best)


def _optimizer(rules: Rules, problem: Minimization) -> Optimizer:
    models, theta = [descent.model for descent in rules.descents], problem.theta
    model, rate = models[0], rules.rate(theta)

    def each(name: str) -> Any:
        return of_networks(theta, [getattr(one, name) for one in models])

    if model.solver in ("adam", "adamw"):
        options = {"beta1": each("beta_1"), "beta2": each("beta_2"), "epsilon": each("epsilon")}
        if model.solver == "adam":
            return Adam(rate, **options, corrected_epsilon=False)
        options |= {"weight_decay": each("alpha"), "mask": problem.network.weight_mask(theta)}
        return AdamW(rate, **options)
    if model.solver == "rmsprop":
        return RMSProp(rate, decay=each("beta_2"), epsilon=each("epsilon"))
    nesterov = model.nesterovs_momentum and model.momentum > 0.0
    return SGD(rate, momentum=each("momentum"), nesterov=nesterov, rate_inside=True)


def _continues(initial: OptimizerState, before: OptimizerState) -> bool:
    """Whether an optimizer can continue from the state of an earlier call.

    Another solver starts over, where scikit-learn continues with the old one. Adam and AdamW have
    the same state.
    """
    return type(before) is type(initial) and all(
        (one is None) == (other is None) for one, other in zip(before, initial, strict=True)
    )


def state_on_device(theta: Array, state: OptimizerState) -> Any:
    """Return an optimizer's state from the host, on theta's device and in its dtype."""

    def moved(value: Array) -> Array:
        return to_device_of(theta, value, theta.dtype) if isinstance(value, np.ndarray) else value

    return mapped(moved, state)


def _batch_size(model: Model, rows: int) -> int:
    return min(200 if isinstance(model.batch_size, str) else model.batch_size, rows)


def _fit(
    rules: Rules, problem: Minimization, orders: Sequence[Orders], state: TrainingState
) -> TrainingState:
    """Return the state after ``bx.fit`` with the options that the parameters choose."""
    (x, y, weight), models = problem.samples, [descent.model for descent in rules.descents]
    model, epochs = models[0], max(descent.epochs for descent in rules.descents)
    # fit keeps the best network; the rules end the training.
    early = EarlyStopping(epochs + 1, watch="score", mode="max") if model.early_stopping else None
    # Other masks in each call. Several members have a seed each, for the order of the rows too.
    members = problem.theta.shape[0] if model.n_members > 1 else None
    seed = np.asarray(0)
    if members or problem.network.is_random:
        seed = np.asarray(
            (problem.random_state.randint(2**31 - 1, size=members) + model.t_) % 2**31
        )

    def order(epoch: int) -> np.ndarray:
        each = [one(epoch) for one in orders]
        return each[0] if len(each) == 1 else np.stack(each)

    return fit(
        problem.network,
        problem.theta,
        x,
        y,
        optimizer=_optimizer(rules, problem),
        epochs=epochs,
        batch_size=_batch_size(model, x.shape[-2]),
        shuffle=model.shuffle and (members is not None or order),
        seed=seed.tolist(),
        sample_weight=weight,
        validation=problem.validation,
        metrics=None if problem.validation is None else {"score": problem.score},
        clip=model.clip,
        l2_of_sum=None if model.solver == "adamw" else strengths(problem.theta, models),
        early_stopping=early,
        start=state,
        callbacks=[rules.after_epoch],
    ).state


def _keep(descent: Descent) -> Array:
    """Write the attributes of the best networks, under scikit-learn's names; return their theta."""
    model, reached = descent.model, descent.reached
    if reached is None:
        raise RuntimeError("the training has not reached an epoch.")
    watched = reached.best if model.early_stopping else reached.curves["loss"][-1]
    index = index_of_best(watched, model.n_members)
    curves = {name: values[:, *index].tolist() for name, values in reached.curves.items()}
    model.loss_curve_ = [*model.loss_curve_, *curves["loss"]]
    model.loss_, model.n_iter_ = curves["loss"][-1], reached.epochs
    model.t_ += reached.epochs * descent.problem.samples.x.shape[0]
    if "score" in curves:
        model.validation_scores_ = [*(model.validation_scores_ or []), *curves["score"]]
        earlier = model.validation_loss_curve_ or []
        model.validation_loss_curve_ = [*earlier, *curves["validation_loss"]]
    if model.early_stopping:
        model.best_validation_score_ = (-reached.best[index]).tolist()
    else:
        model.best_loss_ = reached.best[index].tolist()
    model._no_improvement_count = reached.stale[index].tolist()
    model._learning_rate = reached.learning_rate

    def on_host(value: Array) -> Array:
        return to_host(at_index(value, index)) if getattr(value, "shape", ()) else value

    model._optimizer_state = mapped(on_host, reached.optimizer_state)
    return at_index(reached.theta, index)


def begin_curves(model: Model) -> None:
    """Write the empty curves of a new training, under scikit-learn's names."""
    early = model.early_stopping
    model.loss_curve_, model.validation_loss_curve_ = [], None
    model.validation_scores_ = [] if early else None
    model.best_validation_score_ = -np.inf if early else None
    model.best_loss_ = None if early else np.inf
    model._no_improvement_count = 0
