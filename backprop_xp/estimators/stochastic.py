"""The stochastic solvers of the scikit-learn estimators: gradient descent by ``bx.fit``.

Stopping rules, learning rates and the order of random draws are scikit-learn's, so that the same
``random_state`` gives the same initial weights and the same batches. Fits of a search may be one
stack: each keeps its own rules.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import (
    Array,
    to_device_of,
    to_host,
    to_host_together,
)
from backprop_xp.checks import stacklevel
from backprop_xp.display.progress import Report as Progress
from backprop_xp.estimators.minimization import (
    Minimization,
    at_index,
    has_quarter_ended,
    index_of_best,
    joined,
    of_networks,
    state_of,
    strengths,
)
from backprop_xp.estimators.parameters import Model, OptimizerState, hidden_sizes
from backprop_xp.estimators.search_stacks import Training, train_together
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.early_stopping import Best, EarlyStopping
from backprop_xp.training.optimizers.first_order import SGD, Adam, AdamW, Optimizer, RMSProp
from backprop_xp.training.optimizers.pytrees import Pytree, copied, mapped

# Called with theta after each epoch; True ends the training.
Report = Callable[[Array], bool]

# The parameters that are the same in all fits of a stack.
_SHARED = (
    *("solver", "batch_size", "learning_rate", "power_t", "shuffle", "nesterovs_momentum"),
    *("early_stopping", "clip"),
)


class Reached(NamedTuple):
    """What a training has reached, with theta and the optimizer's state of the best epoch.

    ``curves`` are ``(epochs, *stack)`` by name, ``best`` and ``stale`` as in ``Rules``.
    """

    epochs: int
    theta: Array
    optimizer_state: Pytree
    curves: dict[str, np.ndarray]
    best: np.ndarray
    stale: np.ndarray
    learning_rate: float
    has_ended: bool


@dataclass
class Descent:
    """The training of an estimator, and in the end what it has reached."""

    model: Model
    problem: Minimization
    report: Report | None
    is_incremental: bool
    reached: Reached | None = None

    @property
    def epochs(self) -> int:
        """The largest number of epochs."""
        return 1 if self.is_incremental else self.model.max_iter

    def training(self) -> Training:
        """Return what ``train_together`` trains."""
        model, problem, kind = self.model, self.problem, None
        is_alone = self.is_incremental or self.report is not None or model._trains_alone
        if not is_alone and (kind := problem.kind()) is not None:
            kind = kind, model.momentum > 0.0, *(getattr(model, name) for name in _SHARED)
        rows, n_in = problem.samples.x.shape
        numbers = _batch_size(model, rows) * max(n_in, *hidden_sizes(model), model.n_outputs_)
        return Training(self, train, kind, self.epochs, problem.choice, numbers, problem.nbytes)


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
    """scikit-learn's rules between two epochs: learning rates, and when each training ends.

    For k trainings of n networks each, ``best``, ``(k, n)``, is the least value that was watched,
    the loss or the negated score, and ``stale`` the number of epochs since it fell by ``tol``. A
    training ends when all its networks have stopped improving. ``updates`` are those of earlier
    calls, which a schedule counts too.
    """

    def __init__(self, descents: Sequence[Descent], progress: Progress | None) -> None:
        models, theta = [descent.model for descent in descents], descents[0].problem.theta
        self.descents, self._model, self._progress = descents, models[0], progress
        self.learning_rates, self.updates = [one.learning_rate_init for one in models], 0
        self.stack, self._rows = theta.shape[:-1], descents[0].problem.samples.x.shape[0]
        self.best = self._of_each([_best_of(one) for one in models])
        self.stale = self._of_each([one._no_improvement_count for one in models])
        self._tol = np.asarray([[one.tol] for one in models])
        self._patience = np.asarray([[one.n_iter_no_change] for one in models])
        self._epochs = np.asarray([descent.epochs for descent in descents])
        self.has_stopped = np.zeros(self.best.shape, dtype=bool)
        self.is_left = np.ones(len(models), dtype=bool)
        self.epoch, self._curves = 0, dict[str, list[np.ndarray]]()
        self._rates: Array | None = None  # on the device

    def _of_each(self, values: Sequence[Any]) -> np.ndarray:
        """Return values ``(k, n)``, from a number or ``(n,)`` for each training."""
        return np.stack([np.full(self.stack, value).reshape(-1) for value in values])

    def keep_left(self) -> None:
        """Keep the trainings that have not ended."""
        left = np.flatnonzero(self.is_left)
        self.descents = [self.descents[i] for i in left.tolist()]
        self.learning_rates = [self.learning_rates[i] for i in left]
        for name in ("best", "stale", "_tol", "_patience", "_epochs", "has_stopped", "is_left"):
            setattr(self, name, getattr(self, name)[left])
        self._curves = {name: [v[left] for v in values] for name, values in self._curves.items()}
        self._rates = None

    def rate(self, theta: Array) -> Callable[[int], float | Array]:
        """Return the function of an update's number that is its learning rate."""
        schedule = self._model.learning_rate

        def of_update(step: int) -> float | Array:
            if callable(schedule):
                return schedule(self.updates + step)
            if len(self.descents) == 1:
                return self.learning_rates[0]
            if self._rates is None:
                self._rates = of_networks(theta, self.learning_rates)
            return self._rates

        return of_update

    def after_epoch(self, state: TrainingState) -> bool:
        """Count an epoch: a callback of ``bx.fit``, which a quarter of the trainings ends."""
        watched = self.count(state)
        ends = np.zeros(len(self.descents), dtype=bool)
        if (report := self.descents[0].report) is not None:  # of a training alone
            kept = index_of_best(watched.reshape(self.stack), self._model.n_members)
            ends[0] = report(at_index(state.theta, kept))
        # A network that once stopped improving counts as such, if noise makes it better or not.
        self.has_stopped |= self.stale > self._patience
        for i in np.flatnonzero(self.has_stopped.all(axis=-1) & self.is_left).tolist():
            ends[i] |= self._ends_or_slows(i)
            if not ends[i]:
                self.has_stopped[i], self.stale[i] = False, 0
        for i in np.flatnonzero(self.is_left & (ends | (state.epoch >= self._epochs))).tolist():
            self.reach(i, state, has_ended=bool(ends[i]))
        return has_quarter_ended(self.is_left)

    def count(self, state: TrainingState) -> np.ndarray:
        """Count an epoch, and return what is watched: it falls as the network improves."""
        measures = {"loss": state.loss, "validation_loss": state.validation_loss, **state.metrics}
        measures = {name: value for name, value in measures.items() if value is not None}
        # Ctrl-C mostly comes while this line waits, so the epoch is counted after it.
        values = to_host_together([*measures.values()])
        model, self.epoch = self._model, state.epoch
        for name, value in zip(measures, values, strict=True):
            self._curves.setdefault(name, []).append(value.reshape(self.best.shape))
        loss = self._curves["loss"][-1]
        if self._progress is not None:
            self._progress(state.epoch, lambda: {"loss": loss})
        if model.verbose:
            print(f"Iteration {state.epoch}, loss = {np.min(loss):.8f}")  # noqa: T201
            if "score" in measures:
                print(f"Validation score: {np.max(self._curves['score'][-1]):f}")  # noqa: T201
        watched = -self._curves["score"][-1] if model.early_stopping else loss
        stays = watched > self.best - self._tol
        if self.stack:  # among starts a diverged network does not improve; alone it is reset
            stays |= np.isnan(watched)
        self.best, self.stale = np.fmin(self.best, watched), np.where(stays, self.stale + 1, 0)
        if model.solver == "sgd" and model.learning_rate == "invscaling":
            for i, one in enumerate(descent.model for descent in self.descents):
                rows = one.t_ + self._rows * state.epoch
                self.learning_rates[i] = one.learning_rate_init / (rows + 1) ** one.power_t
            self._rates = None
        return watched

    def _ends_or_slows(self, i: int) -> bool:
        """Return True to end a training that no longer improves, False if its rate was lowered."""
        model, ends, message = self.descents[i].model, True, "Stopping."
        if model.solver == "sgd" and model.learning_rate == "adaptive":
            ends, message = self.learning_rates[i] <= 1e-6, "Learning rate too small. Stopping."
            if not ends:
                self.learning_rates[i] /= 5.0
                self._rates = None
                message = f"Setting learning rate to {self.learning_rates[i]:f}"
        if model.verbose:
            watched = "Validation score" if model.early_stopping else "Training loss"
            print(  # noqa: T201
                f"{watched} did not improve more than tol={model.tol:f} for "
                f"{model.n_iter_no_change} consecutive epochs. {message}"
            )
        return ends

    def reach(self, i: int, state: TrainingState, *, has_ended: bool) -> None:
        """Keep what a training has reached at a state."""
        kept = state if state.best is None else state.best
        arrays = kept.theta, kept.optimizer_state
        if len(self.descents) > 1:  # those of the others move on

            def of_network(leaf: Any) -> Any:
                return leaf[i, ...] if getattr(leaf, "shape", ()) else leaf

            arrays = copied(mapped(of_network, arrays))
        curves = {
            name: np.stack([value[i] for value in values]).reshape(-1, *self.stack)
            for name, values in self._curves.items()
        }
        best, stale = (values[i].reshape(self.stack) for values in (self.best, self.stale))
        self.descents[i].reached = Reached(
            state.epoch, *arrays, curves, best, stale, self.learning_rates[i], has_ended
        )
        self.is_left[i] = False


def _best_of(model: Model) -> Any:
    """Return the least value that an estimator has watched in earlier fits."""
    early = model.early_stopping
    best = getattr(model, "best_validation_score_" if early else "best_loss_", None)
    return np.inf if best is None else np.asarray(-1.0 if early else 1.0) * best


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
    is_complete = train_together(descent.training())
    if is_complete and not (incremental or (descent.reached and descent.reached.has_ended)):
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({model.max_iter}) "
            "reached and the optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=stacklevel(),
        )
    return _keep(descent)


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
