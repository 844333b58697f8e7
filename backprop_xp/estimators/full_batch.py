"""The solvers lbfgs and lm of the scikit-learn estimators, by ``bx.fit``: all rows at each step."""

import warnings
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, to_device_of, to_host, to_host_together
from backprop_xp.checks import stacklevel
from backprop_xp.estimators import intervals
from backprop_xp.estimators.folds import train_folds
from backprop_xp.estimators.parameters import Model, hidden_sizes
from backprop_xp.estimators.samples import Samples
from backprop_xp.estimators.scikit_learn_lbfgs import LimitedLBFGS
from backprop_xp.estimators.stochastic import Minimization, Report, at_index, index_of_best
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.optimizers.first_order import LevenbergMarquardt


class Solver:
    """A solver: its optimizer, the options of ``bx.fit``, and what a state tells the estimator."""

    def __init__(self, model: Model) -> None:
        self.is_lm = model.solver == "lm"
        self.optimizer: Any = LimitedLBFGS(model.tol, model.max_iter)
        self.options: dict[str, Any] = {"epochs": model.max_fun}
        if self.is_lm:
            self.optimizer = LevenbergMarquardt(tolerance=min(model.tol, 0.5))
            self.options = {"epochs": model.max_iter, "train_metrics": True}

    def progress(self, state: TrainingState) -> tuple[np.ndarray, np.ndarray]:
        """Return each network's loss and number of iterations, ``(*stack,)``."""
        if self.is_lm:
            losses = to_host(state.metrics["training_loss"])
            return losses, np.full(losses.shape, state.epoch)
        own = state.optimizer_state
        losses, iterations = to_host_together([own.loss[..., 0], own.iterations[..., 0]])
        return losses, iterations.astype(int)

    def has_converged(self, state: TrainingState) -> np.ndarray:
        """Return whether each network has converged, ``(*stack,)``."""
        own = state.optimizer_state
        settled: np.ndarray
        settled = to_host(self.optimizer.has_converged(own) if self.is_lm else own.settled > 0.0)
        return settled[..., 0]


class Units(NamedTuple):
    """The unit of each output, ``(n_outputs,)``, and of each entry of theta, ``(P,)``."""

    outputs: np.ndarray
    theta: np.ndarray

    @classmethod
    def of(cls, model: Model, problem: Minimization) -> Self:
        """Return the deviations of several targets whose squared errors lm adds, else 1.

        Levenberg-Marquardt ends when the sum hardly falls: it would not learn an output of small
        numbers beside one of large numbers.
        """
        (x, y, weight), n, theta = problem.samples, model.n_outputs_, np.ones(problem.network.size)
        if n == 1 or model.solver != "lm" or model.loss != "squared_error":
            return cls(np.ones(n), theta)
        values = to_host(y)[:, :n]
        counts = np.ones((len(values), 1)) if weight is None else to_host(weight)
        counts = np.broadcast_to(counts.reshape(len(values), -1)[:, :n], values.shape)
        centred = values - np.average(values, axis=0, weights=counts)
        deviations = np.sqrt(np.average(centred * centred, axis=0, weights=counts))
        outputs = np.where(deviations > 0.0, deviations, 1.0)
        rows = [x.shape[-1], *hidden_sizes(model)][-1] + 1  # of the last layer, with its bias
        theta[-rows * n :] = np.tile(outputs, rows)
        return cls(outputs, theta)

    def scaled(self, problem: Minimization, *, is_drawn: bool) -> Minimization:
        """Return the problem in these units; derivatives of the targets follow them in y.

        A theta that ``is_drawn`` is one for targets of any unit.
        """
        theta, (x, y, weight) = problem.theta, problem.samples
        units = np.tile(self.outputs, y.shape[-1] // self.outputs.size)
        samples = Samples(x, y / to_device_of(y, units, y.dtype), weight)
        if not is_drawn:
            theta = theta / to_device_of(theta, self.theta, theta.dtype)
        return problem._replace(theta=theta, samples=samples)

    def unscaled(self, theta: Array) -> Array:
        """Return theta for targets in their own units."""
        return theta * to_device_of(theta, self.theta, theta.dtype)


def solve(model: Model, problem: Minimization, report: Report | None) -> Array:
    """Return theta after L-BFGS or Levenberg-Marquardt: of each member the best start.

    All members and starts are one stack. Ctrl-C ends the training after a whole step, as a report
    does.
    """
    solver, units, folds = Solver(model), Units.of(model, problem), None
    problem = units.scaled(problem, is_drawn=model.n_iter_ == 0)
    if solver.is_lm and (model.alpha == "auto" or model._interval_kind == "conformal"):
        folds = train_folds(model, problem, solver.optimizer)
    state, has_ended = _fitted(model, problem, report, solver, units)
    losses, iterations = solver.progress(state)
    index = index_of_best(losses, model.n_members)
    model.n_iter_, model.loss_ = int(iterations[index].max()), losses[index].tolist()
    if not has_ended and not solver.has_converged(state)[index].all():
        warnings.warn(
            f"{model.solver} failed to converge after {model.n_iter_} iteration(s). "
            f"{_remedy(model, solver, state)}",
            ConvergenceWarning,
            stacklevel=stacklevel(),
        )
    # The state of an earlier optimizer does not belong to this theta.
    vars(model).pop("_optimizer_state", None)
    vars(model).pop("_learning_rate", None)
    theta = at_index(state.theta, index)
    if solver.is_lm and (interval := intervals.measured(model, problem, theta, folds)) is not None:
        model._interval = interval.in_units(*units)
    return units.unscaled(theta)


def _fitted(
    model: Model, problem: Minimization, report: Report | None, solver: Solver, units: Units
) -> tuple[TrainingState, bool]:
    """Return the last state of a training, and whether a report or Ctrl-C has ended it."""
    (x, y, weight), has_ended, done = problem.samples, False, 0

    def after_epoch(state: TrainingState) -> bool:
        nonlocal has_ended, done
        losses, iterations = solver.progress(state)
        if iterations.max() == done:  # an evaluation within an iteration
            return False
        done = int(iterations.max())
        if model.verbose:
            print(f"Iteration {done}, loss = {np.min(losses):.8f}")  # noqa: T201
        if report is not None:
            index = index_of_best(losses, model.n_members)
            has_ended = report(units.unscaled(at_index(state.theta, index)))
        return has_ended

    try:
        state = fit(
            problem.network,
            problem.theta,
            x,
            y,
            optimizer=solver.optimizer,
            sample_weight=weight,
            l2_of_sum=model._l2,
            callbacks=[after_epoch] if model.verbose or report is not None else [],
            **solver.options,
        ).state
    except KeyboardInterrupt as error:
        reached: TrainingState | None = getattr(error, "state", None)
        if reached is None or reached.epoch == 0:  # nothing was learnt
            raise
        state, has_ended = reached, True
        warnings.warn("Training interrupted by user.", stacklevel=stacklevel())
    return state, has_ended


def _remedy(model: Model, solver: Solver, state: TrainingState) -> str:
    """Return what may help a training that did not converge."""
    if not np.isfinite(model.loss_).all():
        return "The loss is not finite. Scale the data."
    if solver.is_lm or model.n_iter_ >= model.max_iter:
        return "Increase the number of iterations (max_iter), or scale the data."
    if state.epoch >= model.max_fun:
        return "Increase the number of evaluations (max_fun), or scale the data."
    return "No step along the gradient lowers the loss. Scale the data, or increase tol."
