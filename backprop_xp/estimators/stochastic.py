"""The stochastic solvers of the scikit-learn estimators: gradient descent by ``bx.fit``.

Stopping rules, learning rates and the order of random draws are scikit-learn's, so that the same
``random_state`` gives the same initial weights and the same batches.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import (
    Array,
    array_namespace,
    gather,
    to_device_of,
    to_host,
    to_host_together,
)
from backprop_xp.checks import stacklevel
from backprop_xp.estimators.parameters import Model, OptimizerState
from backprop_xp.estimators.samples import Samples
from backprop_xp.networks.network import Network
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.early_stopping import Best, EarlyStopping
from backprop_xp.training.optimizers.first_order import SGD, Adam, AdamW, Optimizer, RMSProp
from backprop_xp.training.optimizers.pytrees import mapped

# Called with theta after each epoch; True ends the training.
Report = Callable[[Array], bool]


class Minimization(NamedTuple):
    """A network, and the samples that a solver trains it on and validates it with.

    ``theta`` may be a stack ``(n_members * n_restarts, P)``, member by member: the best network of
    each is kept. The samples are on its device; the x of a table that is moved by blocks is a
    ``Table``.
    """

    network: Network
    theta: Array
    samples: Samples
    validation: Samples | None
    score: Callable[[Array, Array, Array | None], Array]
    random_state: np.random.RandomState


class Orders:
    """The order of the rows in each epoch: scikit-learn shuffles the previous epoch's order."""

    def __init__(self, rows: int, random_state: np.random.RandomState) -> None:
        self._order, self._epoch, self._random_state = np.arange(rows), -1, random_state

    def __call__(self, epoch: int) -> np.ndarray:
        """Return the order in an epoch, the same for a second call in an interrupted epoch."""
        if epoch > self._epoch:
            moved = np.arange(len(self._order))
            # As sklearn.utils.shuffle does, in a quarter of its time.
            self._random_state.shuffle(moved)
            self._order, self._epoch = self._order[moved], epoch
        return self._order


class Rules:
    """scikit-learn's rules between two epochs: the learning rate, and when the training ends.

    ``best`` is the least value that was watched, the loss or the negated score, and ``stale`` the
    number of epochs since it fell by ``tol``: one for each network of a stack. ``updates`` are
    those of earlier calls, which a schedule counts too.
    """

    def __init__(self, model: Model, problem: Minimization, report: Report | None) -> None:
        self._model, self._report, self._rows = model, report, problem.samples.x.shape[0]
        self.learning_rate, self.updates = model.learning_rate_init, 0
        early = model.early_stopping
        best = getattr(model, "best_validation_score_" if early else "best_loss_", None)
        best = np.inf if best is None else np.asarray(-1.0 if early else 1.0) * best
        self.best = np.full(problem.theta.shape[:-1], best)
        self.stale = np.asarray(model._no_improvement_count)
        self.epoch, self.has_ended = 0, False
        self.has_stopped = np.zeros(self.best.shape, dtype=bool)

    def rate(self, step: int) -> float | Array:
        """Return the learning rate of an update."""
        schedule = self._model.learning_rate
        return schedule(self.updates + step) if callable(schedule) else self.learning_rate

    def after_epoch(self, state: TrainingState) -> bool:
        """Count an epoch, and return whether the training ends: a callback of ``bx.fit``."""
        watched = self.count(state)
        if self._report is not None:
            kept = index_of_best(watched, self._model.n_members)
            self.has_ended = self._report(at_index(state.theta, kept))
        # A network that once stopped improving counts as such, if noise makes it better or not.
        self.has_stopped |= self.stale > self._model.n_iter_no_change
        if np.all(self.has_stopped):
            self.has_ended |= self._ends_or_slows()
            self.has_stopped = self.has_stopped & self.has_ended
            self.stale = self.stale if self.has_ended else 0 * self.stale
        return bool(self.has_ended)

    def count(self, state: TrainingState) -> np.ndarray:
        """Count an epoch, and return what is watched: it falls as the network improves."""
        # Ctrl-C mostly comes while this line waits, so the epoch is counted after it.
        loss, *scores = to_host_together([state.loss, *state.metrics.values()])
        model, self.epoch = self._model, state.epoch
        model.t_ += self._rows
        if model.verbose:
            print(f"Iteration {state.epoch}, loss = {np.min(loss):.8f}")  # noqa: T201
            for score in scores:
                print(f"Validation score: {np.max(score):f}")  # noqa: T201
        watched = np.asarray(-scores[0] if model.early_stopping else loss)
        stays = watched > self.best - model.tol
        if stays.shape:  # in a stack a diverged network does not improve; alone it is reset
            stays |= np.isnan(watched)
        self.best, self.stale = np.fmin(self.best, watched), np.where(stays, self.stale + 1, 0)
        if model.solver == "sgd" and model.learning_rate == "invscaling":
            self.learning_rate = model.learning_rate_init / (model.t_ + 1) ** model.power_t
        return watched

    def _ends_or_slows(self) -> bool:
        """Return True to end a training that no longer improves, False if its rate was lowered."""
        model, ends, message = self._model, True, "Stopping."
        if model.solver == "sgd" and model.learning_rate == "adaptive":
            ends, message = self.learning_rate <= 1e-6, "Learning rate too small. Stopping."
            if not ends:
                self.learning_rate /= 5.0
                message = f"Setting learning rate to {self.learning_rate:f}"
        if model.verbose:
            watched = "Validation score" if model.early_stopping else "Training loss"
            print(  # noqa: T201
                f"{watched} did not improve more than tol={model.tol:f} for "
                f"{model.n_iter_no_change} consecutive epochs. {message}"
            )
        return ends


def descend(
    model: Model, problem: Minimization, report: Report | None, *, incremental: bool
) -> Array:
    """Return theta after scikit-learn's epochs, or after one epoch if ``incremental``.

    The curves and the other attributes that scikit-learn's solvers leave are written to the model.
    """
    if not hasattr(model, "loss_curve_"):  # as after L-BFGS
        begin_curves(model)
    rules = Rules(model, problem, report)
    optimizer = _optimizer(model, problem, rules.rate)
    start = optimizer.initialize(problem.theta)
    before: OptimizerState | None = getattr(model, "_optimizer_state", None)
    if incremental and before is not None and _continues(start, before):
        start = state_on_device(problem.theta, before)
        rules.learning_rate, rules.updates = model._learning_rate, start.step
    state: TrainingState | None
    try:
        state = _fit(model, problem, rules, optimizer, start, 1 if incremental else model.max_iter)
    except KeyboardInterrupt as error:
        state = getattr(error, "state", None)
        if state is None or state.epoch == 0:  # nothing was learnt
            raise
        if rules.epoch < state.epoch:
            rules.count(state)
        warnings.warn("Training interrupted by user.", stacklevel=stacklevel())
    else:
        if not (rules.has_ended or incremental):
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) "
                "reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=stacklevel(),
            )
    return _keep(model, rules, state)


def _optimizer(
    model: Model, problem: Minimization, rate: Callable[[int], float | Array]
) -> Optimizer:
    betas: dict[str, Any] = {"beta1": model.beta_1, "beta2": model.beta_2, "epsilon": model.epsilon}
    if model.solver == "adam":
        return Adam(rate, **betas, corrected_epsilon=False)
    if model.solver == "adamw":
        mask = problem.network.weight_mask(problem.theta)
        return AdamW(rate, **betas, weight_decay=model._l2, mask=mask)
    if model.solver == "rmsprop":
        return RMSProp(rate, decay=model.beta_2, epsilon=model.epsilon)
    nesterov = model.nesterovs_momentum and model.momentum > 0.0
    return SGD(rate, momentum=model.momentum, nesterov=nesterov, rate_inside=True)


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


def _fit(
    model: Model,
    problem: Minimization,
    rules: Rules,
    optimizer: Optimizer,
    optimizer_state: OptimizerState,
    epochs: int,
) -> TrainingState:
    """Return the state after ``bx.fit`` with the options that the parameters choose."""
    (x, y, weight), rows = problem.samples, problem.samples.x.shape[0]
    size = min(200, rows) if isinstance(model.batch_size, str) else model.batch_size
    if size > rows:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=stacklevel(),
        )
    early = best = None
    if model.early_stopping:  # fit keeps the best network; the rules end the training
        early = EarlyStopping(model.max_iter + 1, watch="score", mode="max")
        if np.isfinite(rules.best).all():  # of a warm start
            known = rules.best, np.asarray(0), problem.theta, optimizer_state
            best = Best(*known, "score", "max")
    # Other masks in each call. Several members have a seed each, for the order of the rows too.
    members = problem.theta.shape[0] if model.n_members > 1 else None
    seed = np.asarray(0)
    if members or problem.network.is_random:
        seed = np.asarray(
            (problem.random_state.randint(2**31 - 1, size=members) + model.t_) % 2**31
        )
    return fit(
        problem.network,
        problem.theta,
        x,
        y,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=min(size, rows),
        shuffle=model.shuffle and (members is not None or Orders(rows, problem.random_state)),
        seed=seed.tolist(),
        sample_weight=weight,
        validation=problem.validation,
        metrics=None if problem.validation is None else {"score": problem.score},
        clip=model.clip,
        l2_of_sum=None if model.solver == "adamw" else model._l2,
        early_stopping=early,
        start=TrainingState(0, 0, problem.theta, optimizer_state, best=best),
        callbacks=[rules.after_epoch],
    ).state


def _keep(model: Model, rules: Rules, state: TrainingState) -> Array:
    """Write the attributes of the best networks, under scikit-learn's names; return their theta."""
    last = state.history["loss"][-1]
    index = index_of_best(rules.best if model.early_stopping else last, model.n_members)
    curves = {name: values[:, *index].tolist() for name, values in state.history.items()}
    model.loss_curve_ = [*model.loss_curve_, *curves["loss"]]
    model.loss_, model.n_iter_ = curves["loss"][-1], state.epoch
    if "score" in curves:
        model.validation_scores_ = [*(model.validation_scores_ or []), *curves["score"]]
        earlier = model.validation_loss_curve_ or []
        model.validation_loss_curve_ = [*earlier, *curves["validation_loss"]]
    if model.early_stopping:
        model.best_validation_score_ = (-rules.best[index]).tolist()
    else:
        model.best_loss_ = rules.best[index].tolist()
    model._no_improvement_count = rules.stale[index].tolist()
    model._learning_rate = rules.learning_rate
    kept = state if state.best is None else state.best

    def on_host(value: Array) -> Array:
        return to_host(at_index(value, index)) if getattr(value, "shape", ()) else value

    model._optimizer_state = mapped(on_host, kept.optimizer_state)
    return at_index(kept.theta, index)


def begin_curves(model: Model) -> None:
    """Write the empty curves of a new training, under scikit-learn's names."""
    early = model.early_stopping
    model.loss_curve_, model.validation_loss_curve_ = [], None
    model.validation_scores_ = [] if early else None
    model.best_validation_score_ = -np.inf if early else None
    model.best_loss_ = None if early else np.inf
    model._no_improvement_count = 0


def index_of_best(values: np.ndarray, members: int = 1) -> tuple[Any, ...]:
    """Return the index of each member's least of ``(members * restarts,)`` values; NaN is greatest.

    It is () for one network, and has an integer for one member and an array for several.
    """
    if not values.shape:
        return ()
    starts = np.where(np.isnan(values), np.inf, values).reshape(members, -1)
    best = np.argmin(starts, axis=-1) + starts.shape[1] * np.arange(members)
    return (best if members > 1 else int(best[0]),)


def at_index(array: Array, index: tuple[Any, ...]) -> Array:
    """Return the entries of a stack at the index of ``index_of_best``, on its device."""
    if not index or isinstance(index[0], int):
        return array[(*index, ...)]
    return gather(array, to_device_of(array, index[0], array_namespace(array).int32), 0)
