"""The stochastic solvers of the scikit-learn estimators: descent by ``bx.train``.

Stopping rules, learning rates and the order of random draws are scikit-learn's, so that the same
``random_state`` gives the same initial weights and the same batches. ``model`` is an estimator: its
hyperparameters are read, and what scikit-learn's calls its curves is written.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, beside, to_host, to_host_together
from backprop_xp.estimators.streaming import Table
from backprop_xp.networks.network import Network
from backprop_xp.training.early_stopping import Best, EarlyStopping
from backprop_xp.training.fit import interruptible
from backprop_xp.training.interrupt import Interrupt
from backprop_xp.training.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from backprop_xp.training.options import Options
from backprop_xp.training.pytrees import mapped
from backprop_xp.training.states import TrainingState

STOCHASTIC = ("sgd", "adam", "adamw", "rmsprop")
# Called with theta after each epoch; true ends the training.
Report = Callable[[Array], bool]


class Task(NamedTuple):
    """What a solver is given: rows beside theta, and by what held-out rows, if any, are scored.

    ``x`` of a large table is a ``Table``. ``theta`` may be a stack ``(restarts, P)``, of which the
    best network is kept.
    """

    network: Network
    theta: Array
    x: Array | Table
    y: Array
    sample_weight: Array | None
    validation: list[Any] | None
    score: Callable[..., Array]
    random_state: Any


@dataclass
class Rate:
    """A learning rate that rules may lower between two epochs, or a schedule of one's own.

    A schedule counts the updates of earlier calls, ``passed``, too.
    """

    value: float
    schedule: Callable[[int], Any] | None = None
    passed: int = 0

    def __call__(self, step: int) -> Any:
        """Return the rate, as a schedule does."""
        return self.value if self.schedule is None else self.schedule(self.passed + step)


def descend(model: Any, task: Task, report: Report | None, *, incremental: bool) -> Array:
    """Return theta after scikit-learn's epochs, or after one where the training is incremental."""
    early = model.early_stopping
    if not hasattr(model, "loss_curve_"):  # as after L-BFGS
        begin_curves(model)
    schedule = model.learning_rate if callable(model.learning_rate) else None
    rate = Rate(model.learning_rate_init, schedule)
    optimizer = _optimizer(model, task, rate)
    optimizer_state = optimizer.initialize(task.theta)
    if incremental and _is_of(optimizer_state, getattr(model, "_optimizer_state", None)):
        optimizer_state = state_beside(task.theta, model._optimizer_state)
        rate.value, rate.passed = model._learning_rate, optimizer_state.step
    state = _start(model, task, optimizer_state)
    epochs, interrupt = 1 if incremental else model.max_iter, Interrupt()
    states = _states(model, task, optimizer, state, epochs, interrupt)
    curves: dict[str, list[Any]] = {"loss": [], "validation_loss": [], "score": []}
    best = np.full(task.theta.shape[:-1], _record(model, early=early))
    stale: Any = model._no_improvement_count
    epoch, ends = 0, False
    try:
        with interrupt:
            for state in states:
                if state.epoch == epoch:  # an interrupt cut it short, and its handler lets us go on
                    interrupt.release()
                    continue
                epoch = state.epoch
                for name, value in _measured(state).items():
                    curves[name].append(value)
                model.t_ += task.x.shape[0]
                if model.verbose:
                    _tell(epoch, curves)
                # What is watched falls as the network improves.
                watched = -curves["score"][-1] if early else curves["loss"][-1]
                best, stale = _better(watched, best, stale, model.tol)
                if model.solver == "sgd" and model.learning_rate == "invscaling":
                    rate.value = model.learning_rate_init / (model.t_ + 1) ** model.power_t
                interrupt.release()
                if report is not None:
                    ends = report(state.theta[(*place_of_best(np.asarray(watched)), ...)])
                if np.all(stale > model.n_iter_no_change):
                    ends |= _is_over(model, rate)
                    stale = stale if ends else 0 * stale
                if ends:
                    break
        if not (ends or incremental):
            _warn_of_max_iter(model)
    except KeyboardInterrupt:
        if epoch == 0 or interrupt.busy:  # nothing was learnt, or a user's own code ended a step
            raise
        warnings.warn("Training interrupted by user.", stacklevel=5)
    model.n_iter_, model._learning_rate = epoch, rate.value
    place = place_of_best(best if early else _last(curves["loss"], best))
    _keep(model, curves, best[place], np.asarray(stale)[place], place)
    kept = state.best if early and state.best is not None else state
    model._optimizer_state = mapped(functools.partial(_on_host, place), kept.optimizer_state)
    return kept.theta[(*place, ...)]


def _better(watched: Any, best: Any, stale: Any, tol: float) -> tuple[Any, Any]:
    """Return the least that was watched, and for how many epochs it has not fallen by ``tol``."""
    stays = watched > best - tol
    if np.ndim(stays):  # of a stack a diverged network gains nothing; alone it is reset
        stays |= np.isnan(watched)
    return np.fmin(best, watched), np.where(stays, stale + 1, 0)


def _warn_of_max_iter(model: Any) -> None:
    warnings.warn(
        f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) "
        "reached and the optimization hasn't converged yet.",
        ConvergenceWarning,
        stacklevel=6,
    )


def _states(
    model: Any,
    task: Task,
    optimizer: Optimizer,
    start: TrainingState,
    epochs: int,
    interrupt: Interrupt,
) -> Iterator[TrainingState]:
    """Return the states after the epochs, as of ``train``.

    One that an interrupt has cut an epoch short at has the number of the epoch before.
    """
    judged: dict[str, Any] = {}
    if task.validation is not None:
        judged = {"validation": task.validation, "metrics": {"score": task.score}}
        if model.early_stopping:  # it keeps the best; when to end is not its matter
            judged["early_stopping"] = EarlyStopping(model.max_iter + 1, watch="score", mode="max")
    options = Options(
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size(model.batch_size, task.x.shape[0]),
        shuffle=model.shuffle and _orders(task.x.shape[0], task.random_state),
        seed=_seed(model, task),
        sample_weight=task.sample_weight,
        clip=model.clip,
        l2_of_sum=None if model.solver == "adamw" else model.alpha,
        start=start,
        **judged,
    )
    return interruptible(task.network, task.theta, task.x, task.y, options, interrupt)


def _orders(rows: int, random_state: Any) -> Callable[[int], np.ndarray]:
    """Return the function of each epoch's order, which scikit-learn shuffles anew from the last."""
    order, drawn = np.arange(rows), -1

    def order_in(epoch: int) -> np.ndarray:
        nonlocal order, drawn
        if epoch > drawn:  # an epoch that was cut short asks again
            moved = np.arange(rows)
            random_state.shuffle(moved)  # as sklearn.utils.shuffle does, in a quarter of its time
            order, drawn = order[moved], epoch
        return order

    return order_in


def _on_host(place: tuple[int, ...], value: Any) -> Any:
    """Return one network's part of an optimiser's state on the host."""
    return to_host(value[(*place, ...)]) if getattr(value, "shape", ()) else value


def begin_curves(model: Any) -> None:
    """Write the curves of a training that begins anew, under scikit-learn's names."""
    early = model.early_stopping
    model.loss_curve_, model.validation_loss_curve_ = [], None
    model.validation_scores_ = [] if early else None
    model.best_validation_score_ = -np.inf if early else None
    model.best_loss_ = None if early else np.inf
    model._no_improvement_count = 0


def batch_size(given: Any, rows: int) -> int:
    """Return how many rows a batch has; one that is larger than all is cut, with a warning."""
    if given == "auto":
        return min(200, rows)
    if given > rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=6,
        )
    return int(min(given, rows))


def _optimizer(model: Any, task: Task, rate: Any) -> Optimizer:
    betas = {"beta1": model.beta_1, "beta2": model.beta_2, "epsilon": model.epsilon}
    if model.solver == "adam":
        return Adam(rate, **betas, corrected_epsilon=False)
    if model.solver == "adamw":
        mask = task.network.weight_mask(task.theta)
        return AdamW(rate, **betas, weight_decay=model.alpha, mask=mask)
    if model.solver == "rmsprop":
        return RMSProp(rate, decay=model.beta_2, epsilon=model.epsilon)
    nesterov = model.nesterovs_momentum and model.momentum > 0.0
    return SGD(rate, momentum=model.momentum, nesterov=nesterov, rate_inside=True)


def _is_of(begun: Any, old: Any) -> bool:
    """Say whether an earlier call left a state of the optimiser that begins with another.

    The state of a solver that was another then is of no use to this one, which begins anew;
    scikit-learn goes on by the old solver. Adam and AdamW have the same.
    """
    return type(old) is type(begun) and all(
        (one is None) == (other is None) for one, other in zip(old, begun, strict=True)
    )


def state_beside(theta: Array, state: Any) -> Any:
    """Return an optimiser's state, kept on the host, where theta is and in its dtype."""

    def moved(value: Any) -> Any:
        return beside(theta, value, theta.dtype) if isinstance(value, np.ndarray) else value

    return mapped(moved, state)


def _start(model: Any, task: Task, optimizer_state: Any) -> TrainingState:
    """Return where a training begins: a warm start remembers the best network, too."""
    best = None
    record = _record(model, early=True)
    if model.early_stopping and np.isfinite(record):
        best = Best(np.asarray(record), np.asarray(0), task.theta, optimizer_state, "score", "max")
    return TrainingState(0, 0, task.theta, optimizer_state, best=best)


def _seed(model: Any, task: Task) -> int:
    """Return the seed of the dropout masks, another for each call; none is drawn without them."""
    if not task.network.is_random:
        return 0
    return int((task.random_state.randint(2**31 - 1) + model.t_) % 2**31)


def _record(model: Any, *, early: bool) -> float:
    """Return the least that was watched so far, as a warm start or ``partial_fit`` knows it."""
    record = getattr(model, "best_validation_score_" if early else "best_loss_", None)
    if record is None:
        return np.inf
    return float(-record if early else record)


def _measured(state: TrainingState) -> dict[str, np.ndarray]:
    """Return what an epoch has measured, moved to the host in one transfer."""
    values = {"loss": state.loss, "validation_loss": state.validation_loss, **state.metrics}
    there = {name: value for name, value in values.items() if value is not None}
    return dict(zip(there, map(np.asarray, to_host_together(list(there.values()))), strict=True))


def _tell(epoch: int, curves: dict[str, list[Any]]) -> None:
    print(f"Iteration {epoch}, loss = {np.min(curves['loss'][-1]):.8f}")  # noqa: T201
    if curves["score"]:
        print(f"Validation score: {np.max(curves['score'][-1]):f}")  # noqa: T201


def _is_over(model: Any, rate: Rate) -> bool:
    """Say whether a training that no longer improves ends, or goes on at a lower rate."""
    what = "Validation score" if model.early_stopping else "Training loss"
    reason = (
        f"{what} did not improve more than tol={model.tol:f} for {model.n_iter_no_change} "
        "consecutive epochs."
    )
    ends, then = True, "Stopping."
    if model.solver == "sgd" and model.learning_rate == "adaptive":
        ends = rate.value <= 1e-6
        then = "Learning rate too small. Stopping."
        if not ends:
            rate.value /= 5.0
            then = f"Setting learning rate to {rate.value:f}"
    if model.verbose:
        print(reason, then)  # noqa: T201
    return ends


def _last(values: Sequence[np.ndarray], otherwise: np.ndarray) -> np.ndarray:
    return values[-1] if values else otherwise


def place_of_best(values: np.ndarray) -> tuple[int, ...]:
    """Return the index of the least of some values, ``(restarts,)`` or one; NaN is the greatest."""
    if not values.shape:
        return ()
    return (int(np.argmin(np.where(np.isnan(values), np.inf, values))),)


def _keep(
    model: Any, curves: dict[str, list[Any]], best: Any, stale: Any, place: tuple[int, ...]
) -> None:
    """Write the curves of the network that is kept, under scikit-learn's names."""
    loss, validation, score = (_of_one(values, place) for values in curves.values())
    model.loss_curve_ = [*model.loss_curve_, *loss]
    if loss:
        model.loss_ = loss[-1]
    model._no_improvement_count = int(stale)
    for name, more in {"validation_loss_curve_": validation, "validation_scores_": score}.items():
        curve = getattr(model, name, None)
        setattr(model, name, curve if not more else [*(curve or []), *more])
    if model.early_stopping:
        model.best_validation_score_ = -float(best)
    else:
        model.best_loss_ = float(best)


def _of_one(values: Sequence[np.ndarray], place: tuple[int, ...]) -> list[float]:
    return [float(value[place]) for value in values]
