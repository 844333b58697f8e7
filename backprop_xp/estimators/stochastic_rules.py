"""scikit-learn's rules of the stochastic solvers, between two epochs of ``bx.fit``.

Stopping rules, learning rates and the order of random draws are scikit-learn's, so that the same
``random_state`` gives the same initial weights and the same batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, to_host_together
from backprop_xp.display.progress import Report as Progress
from backprop_xp.estimators.minimization import (
    Minimization,
    at_index,
    has_quarter_ended,
    index_of_best,
    of_networks,
)
from backprop_xp.estimators.parameters import Model
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.optimizers.pytrees import Pytree, copied, mapped

# Called with theta after each epoch; True ends the training.
Report = Callable[[Array], bool]


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
