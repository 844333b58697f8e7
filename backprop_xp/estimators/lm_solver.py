"""The solver Levenberg-Marquardt of the scikit-learn estimators, by ``bx.fit``."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, to_host
from backprop_xp.checks import stacklevel
from backprop_xp.estimators import intervals
from backprop_xp.estimators.folds import train_folds
from backprop_xp.estimators.parameters import Model
from backprop_xp.estimators.stochastic import Report, Task, at_index, index_of_best
from backprop_xp.training.fit import fit
from backprop_xp.training.optimizers import LevenbergMarquardt
from backprop_xp.training.states import TrainingState


def solve(model: Model, task: Task, report: Report | None) -> Array:
    """Return theta after Levenberg-Marquardt: of all members and their starts at once, the best.

    Ctrl-C ends the training after a whole step, as a report does.
    """
    (x, y, weight), has_ended, folds = task.samples, False, None
    intervals.check_interval(model, task)
    optimizer = LevenbergMarquardt(tolerance=min(model.tol, 0.5))
    if model.alpha == "auto" or model._interval_kind == "conformal":
        folds = train_folds(model, task, optimizer)

    def after_epoch(state: TrainingState) -> bool:
        nonlocal has_ended
        losses = to_host(state.metrics["training_loss"])
        if model.verbose:
            print(f"Iteration {state.epoch}, loss = {np.min(losses):.8f}")  # noqa: T201
        if report is not None:
            index = index_of_best(losses, model.n_members)
            has_ended = report(at_index(state.theta, index))
        return has_ended

    try:
        state = fit(
            task.network,
            task.theta,
            x,
            y,
            optimizer=optimizer,
            epochs=model.max_iter,
            sample_weight=weight,
            l2_of_sum=model._l2,
            train_metrics=True,
            callbacks=[after_epoch] if model.verbose or report is not None else [],
        ).state
    except KeyboardInterrupt as error:
        reached: TrainingState | None = getattr(error, "state", None)
        if reached is None or reached.epoch == 0:  # nothing was learnt
            raise
        state, has_ended = reached, True
        warnings.warn("Training interrupted by user.", stacklevel=stacklevel())
    losses = state.history["training_loss"][-1]
    index = index_of_best(losses, model.n_members)
    if (
        not has_ended
        and not to_host(optimizer.has_converged(state.optimizer_state))[..., 0][index].all()
    ):
        warnings.warn(
            f"lm failed to converge after {state.epoch} iteration(s). Increase the number of "
            "iterations (max_iter), or scale the data.",
            ConvergenceWarning,
            stacklevel=stacklevel(),
        )
    model.n_iter_, model.loss_ = state.epoch, losses[index].tolist()
    # The state of an earlier optimizer does not belong to this theta.
    vars(model).pop("_optimizer_state", None)
    vars(model).pop("_learning_rate", None)
    theta = at_index(state.theta, index)
    if (interval := intervals.measured(model, task, theta, folds)) is not None:
        model._interval = interval
    return theta
