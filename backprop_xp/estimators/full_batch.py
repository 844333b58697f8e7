"""The solvers lbfgs and lm of the scikit-learn estimators, by ``bx.fit``: all rows at each step."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, to_device_of, to_host, to_host_together
from backprop_xp.checks import stacklevel
from backprop_xp.display.progress import Report as Progress
from backprop_xp.estimators import intervals
from backprop_xp.estimators.folds import train_folds
from backprop_xp.estimators.minimization import (
    Minimization,
    at_index,
    has_quarter_ended,
    index_of_best,
    joined,
    state_of,
    strengths,
)
from backprop_xp.estimators.parameters import Model, hidden_sizes
from backprop_xp.estimators.samples import Samples
from backprop_xp.estimators.scikit_learn_lbfgs import LimitedLBFGS
from backprop_xp.estimators.search_stacks import Training, train_together
from backprop_xp.estimators.stochastic_rules import Report
from backprop_xp.training.epochs.loop import EPOCHS_BETWEEN_READS
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.optimizers.first_order import LevenbergMarquardt
from backprop_xp.training.optimizers.pytrees import copied

# The parameters that are the same in all fits of a stack.
_SHARED = ("solver", "tol", "max_iter", "max_fun")


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
        return self.ends(state) if self.is_lm else to_host(own.settled > 0.0)[..., 0]

    def ends(self, state: TrainingState) -> np.ndarray:
        """Return whether each network's training is over, ``(*stack,)``."""
        ends: np.ndarray = to_host(self.optimizer.has_converged(state.optimizer_state))[..., 0]
        return ends


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
        samples = Samples(x, y / units, weight)
        if not is_drawn:
            theta = theta / to_device_of(theta, self.theta, theta.dtype)
        return problem._replace(theta=theta, samples=samples)

    def unscaled(self, theta: Array) -> Array:
        """Return theta for targets in their own units."""
        return theta * to_device_of(theta, self.theta, theta.dtype)


class Reached(NamedTuple):
    """What a training has reached: each network's loss and iterations, and how it ended."""

    epochs: int
    theta: Array
    losses: np.ndarray
    iterations: np.ndarray
    has_converged: np.ndarray
    has_ended: bool


@dataclass
class Job:
    """The training of an estimator in its units, and in the end what it has reached."""

    model: Model
    problem: Minimization
    units: Units
    solver: Solver
    report: Report | None
    is_reported: bool = False  # that a report has ended it
    reached: Reached | None = None

    def training(self) -> Training:
        """Return what ``train_together`` trains."""
        model, problem, kind = self.model, self.problem, None
        if not (self.report is not None or model._trains_alone):
            kind = problem.kind()
        if kind is not None:
            kind = kind, *(getattr(model, name) for name in _SHARED)
        numbers = problem.samples.y.shape[0] * problem.network.size  # of a Jacobian, at most
        epochs = self.solver.options["epochs"]
        return Training(self, train, kind, epochs, problem.choice, numbers, problem.nbytes)

    def reach(self, state: TrainingState, *, has_ended: bool, network: int | None = None) -> None:
        """Keep what the training has reached at a state, as a network of a stack or alone."""
        found = state.theta, *self.solver.progress(state), self.solver.has_converged(state)
        if network is not None:
            found = copied(found[0][network, ...]), *(each[network] for each in found[1:])
        self.reached = Reached(state.epoch, *found, has_ended)


def solve(model: Model, problem: Minimization, report: Report | None) -> Array:
    """Return theta after L-BFGS or Levenberg-Marquardt: of each member the best start.

    All members and starts are one stack. Ctrl-C ends the training after a whole step, as a report
    does.
    """
    solver, units, folds = Solver(model), Units.of(model, problem), None
    problem = units.scaled(problem, is_drawn=model.n_iter_ == 0)
    if model._interval_kind == "conformal":
        folds = train_folds(model, problem.placed(), solver.optimizer)
    job = Job(model, problem, units, solver, report)
    train_together(job.training())
    reached: Any = job.reached
    index = index_of_best(reached.losses, model.n_members)
    model.n_iter_ = int(reached.iterations[index].max())
    model.loss_ = reached.losses[index].tolist()
    if not reached.has_ended and not reached.has_converged[index].all():
        warnings.warn(
            f"{model.solver} failed to converge after {model.n_iter_} iteration(s). "
            f"{_remedy(model, solver, reached.epochs)}",
            ConvergenceWarning,
            stacklevel=stacklevel(),
        )
    # The state of an earlier optimizer does not belong to this theta.
    vars(model).pop("_optimizer_state", None)
    vars(model).pop("_learning_rate", None)
    theta = at_index(reached.theta, index)
    interval = intervals.measured(model, problem.placed(), theta, folds) if solver.is_lm else None
    if interval is not None:
        model._interval = interval.in_units(*units)
    return units.unscaled(theta)


def train(jobs: Sequence[Job], progress: Progress | None) -> None:
    """Train estimators as a stack until each has ended; those that have leave it by quarters.

    Each step's losses are shown if there is a ``progress``.
    """
    left, state = [*jobs], None
    problem = joined([job.problem for job in left]).placed()
    while left:
        try:
            state = _fitted(left, problem, state, progress)
        except KeyboardInterrupt as error:
            last = getattr(error, "state", None)
            if len(jobs) == 1 and last is not None and last.epoch > 0:
                left[0].reach(last, has_ended=True)
            raise
        if len(left) == 1:
            left[0].reach(state, has_ended=left[0].is_reported)
            return
        is_over = state.epoch >= left[0].solver.options["epochs"]
        for i in np.flatnonzero(is_over | left[0].solver.ends(state)).tolist():
            if left[i].reached is None:
                left[i].reach(state, has_ended=False, network=i)
        is_left = np.asarray([job.reached is None for job in left])
        if has_quarter_ended(is_left):
            stay = np.flatnonzero(is_left)
            left = [left[i] for i in stay]
            if left:
                state, problem = state_of(state, stay), joined([j.problem for j in left]).placed()


def _fitted(
    jobs: Sequence[Job],
    problem: Minimization,
    start: TrainingState | None,
    progress: Progress | None,
) -> TrainingState:
    """Return the last state of a training, or that of a stack when its networks are looked at."""
    job, (x, y, weight), done = jobs[0], problem.samples, 0

    def after_epoch(state: TrainingState) -> bool:
        nonlocal done
        losses, iterations = job.solver.progress(state)
        if iterations.max() == done:  # an evaluation within an iteration
            return False
        done = int(iterations.max())
        if job.model.verbose:
            print(f"Iteration {done}, loss = {np.min(losses):.8f}")  # noqa: T201
        if job.report is not None:
            index = index_of_best(losses, job.model.n_members)
            job.is_reported = job.report(job.units.unscaled(at_index(state.theta, index)))
        return job.is_reported

    def show(state: TrainingState) -> None:
        if progress is not None:
            progress(state.epoch, lambda: {"loss": job.solver.progress(state)[0]})

    callbacks: list[Any] = [after_epoch] if job.model.verbose or job.report is not None else []
    options = {**job.solver.options}
    if len(jobs) > 1:  # a training alone is looked at as often
        reached = 0 if start is None else start.epoch
        options["epochs"] = min(reached + EPOCHS_BETWEEN_READS, options["epochs"])
    return fit(
        problem.network,
        problem.theta if start is None else start.theta,
        x,
        y,
        optimizer=job.solver.optimizer,
        sample_weight=weight,
        l2_of_sum=strengths(problem.theta, [one.model for one in jobs]),
        start=start,
        callbacks=callbacks if progress is None else [*callbacks, show],
        **options,
    ).state


def _remedy(model: Model, solver: Solver, epochs: int) -> str:
    """Return what may help a training that did not converge."""
    if not np.isfinite(model.loss_).all():
        return "The loss is not finite. Scale the data."
    if solver.is_lm or model.n_iter_ >= model.max_iter:
        return "Increase the number of iterations (max_iter), or scale the data."
    if epochs >= model.max_fun:
        return "Increase the number of evaluations (max_fun), or scale the data."
    return "No step along the gradient lowers the loss. Scale the data, or increase tol."
