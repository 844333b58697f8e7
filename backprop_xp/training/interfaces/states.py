"""The state of a training after each epoch, and the result that ``fit`` returns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, checksum, require_like
from backprop_xp.training.measures.early_stopping import Best
from backprop_xp.training.measures.plateau import Slowed
from backprop_xp.training.optimizers.first_order import AnyOptimizer, check_state
from backprop_xp.training.optimizers.hyperparameters import check_alike
from backprop_xp.training.optimizers.pytrees import copied

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from backprop_xp.display.summaries import Summary


class TrainingState(NamedTuple):
    """The state of a training after an epoch; valid until the next state is requested.

    - ``epoch`` and ``step`` count epochs and updates from the beginning of the training.
    - ``loss``, ``(*stack,)`` on the device, is the mean over the epoch's batches, each measured
      before its own update.
    - ``validation_loss`` and ``metrics``, ``(*stack,)`` on the device, are measured after the
      epoch, without dropout and penalty.
    - ``checks`` are the verdicts and errors of the epoch's gradient checks.
    - ``best`` is each network at its best epoch, with early stopping; ``slowed`` is how far a
      plateau has lowered the learning rates.
    - ``batch_losses``, one row per batch, belong to an epoch that Ctrl-C or an error cut short.
      ``start=`` resumes with the next batch, of ``batch_size`` rows as before.
    - ``average`` is that of theta with ``average=``, ``(*stack, P)``: ``validation_loss`` and
      ``metrics`` are measured on it, and ``best`` has it in the place of theta.
    - ``first`` is the CRC-32 of the theta that the training began with, which ``start=`` compares
      with the theta beside it; None if it is not known.
    - ``history`` is set in the state that ``fit`` ends with, in that of an exception, and in files.
      It covers the whole training: NumPy arrays ``(epoch, *stack)``, NaN for an epoch that was not
      measured.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> x, y = bx.asarray([[0.0], [1.0]]), bx.asarray([[0.0], [2.0]])
    >>> options = {"optimizer": bx.SGD(0.5), "epochs": 2}
    >>> for state in bx.train(network, network.initialize(), x, y, **options):
    ...     print(state.epoch, state.step)
    1 1
    2 2
    """

    epoch: int
    step: int
    theta: Array
    optimizer_state: Any
    loss: Array | None = None
    validation_loss: Array | None = None
    checks: tuple[tuple[str, float], ...] = ()
    metrics: Mapping[str, Array] = {}
    best: Best | None = None
    batch_losses: Array | None = None
    batch_size: int = 0
    slowed: Slowed | None = None
    history: Mapping[str, Any] = {}
    average: Array | None = None
    first: int | None = None

    def __repr__(self) -> str:
        return self.summary().text()

    def _repr_html_(self) -> str:
        return self.summary().html()

    def summary(self) -> "Summary":
        """Return shapes and losses for people; without a history, one transfer moves the losses."""
        from backprop_xp.display.summaries import training

        current = {"loss": self.loss, "validation_loss": self.validation_loss, **self.metrics}
        best = {}
        if self.best is not None:
            sign = 1.0 if self.best.mode == "min" else -1.0
            best[self.best.watch] = sign * self.best.score
        return training("TrainingState", self.epoch, self.theta, self.history, current, best)


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """The result of ``fit``.

    - ``theta`` and ``optimizer_state`` share no memory with ``state``. With early stopping and
      ``restore_best`` they are those of each network's best epoch. With ``average=`` theta is the
      average; ``state.theta`` is the theta that training moves.
    - ``history`` maps ``"loss"``, with validation rows ``"validation_loss"``, each metric's name,
      and the training set's measures of ``train_metrics`` or a rule, such as ``"training_loss"``,
      to a NumPy array ``(epochs, *stack)`` over the whole training. With ``check_every`` it has
      ``"gradient_error"`` and ``"gradient_verdict"``, ``(checks,)``, of this call's checks.
    - ``epochs`` counts from the beginning of the training.
    - ``state`` is the last state: ``start=result`` resumes there.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> x, y = bx.asarray([[0.0], [1.0]]), bx.asarray([[0.0], [2.0]])
    >>> result = bx.fit(network, network.initialize(), x, y, optimizer=bx.SGD(0.5), epochs=50)
    >>> result.epochs, result.history["loss"].shape, result.theta.round(2)
    (50, (50,), array([2., 0.]))
    """

    theta: Array
    history: dict[str, Any]
    optimizer_state: Any
    epochs: int
    state: TrainingState

    def best_member(self) -> Array:
        """Return theta, ``(P,)``, of the network of the stack with the lowest loss.

        That is the last loss on the validation set, or else on the training set. With early
        stopping it is what that watched, at its best. Restarts are one training of a stack:

        >>> import backprop_xp as bx
        >>> network = bx.mlp([1, 4, 1], hidden="tanh")
        >>> x = bx.asarray([[0.0], [0.5], [1.0], [1.5]])
        >>> theta, optimizer = network.initialize(stack=(16,)), bx.LevenbergMarquardt()
        >>> result = bx.fit(network, theta, x, x**3, optimizer=optimizer, epochs=30)
        >>> result.best_member().shape
        (13,)
        """
        best = self.state.best
        name = "validation_loss" if "validation_loss" in self.history else "loss"
        scores = self.history[name][-1, ...] if best is None else best.score
        # A network that diverged is no candidate; indices count through the whole stack.
        np, size = array_namespace(scores), self.theta.shape[-1]
        index = int(np.argmin(np.where(np.isnan(scores), math.inf, scores)))
        members = array_namespace(self.theta).reshape(self.theta, (-1, size))
        return members[index, :]

    def __repr__(self) -> str:
        return self.summary().text()

    def _repr_html_(self) -> str:
        return self.summary().html()

    def summary(self) -> "Summary":
        """Return shapes, last and best losses for people."""
        from backprop_xp.display.summaries import training

        return training("FitResult", self.epochs, self.theta, self.history)

    def plot(self) -> "Figure":
        """Return a matplotlib figure of the losses and the metrics over the epochs."""
        from backprop_xp.plots import canvas, curves  # matplotlib is optional

        figure = canvas.new_figure()
        curves.learning_curves(self, ax=figure.subplots())
        return figure


def initial_state(optimizer: AnyOptimizer, theta: Array, *, averages: bool) -> TrainingState:
    """Return the state before the first step, in memory of its own.

    With ``averages`` it has theta as the average.
    """
    first, fresh = checksum(theta), optimizer.initialize(theta)
    # The optimizer's state may hold theta itself, or one array twice.
    average = copied(theta) if averages else None
    return TrainingState(0, 0, copied(theta), copied(fresh), average=average, first=first)


def resumed_state(
    start: TrainingState,
    optimizer: AnyOptimizer,
    theta: Array,
    batches: int | None,
    size: int,
    *,
    averages: bool,
) -> TrainingState:
    """Return the state ``start`` in memory of its own, with an average if there is to be one.

    Raises ValueError or TypeError for a ``start`` that does not fit theta, the optimizer, or epochs
    of ``batches`` batches of ``size`` rows. ``batches`` is None for a number that is not known.
    """
    check_training(theta, start)
    fresh, resumed = optimizer.initialize(theta), start.optimizer_state
    if isinstance(fresh, tuple | list | dict) and type(resumed) is not type(fresh):
        raise TypeError(
            f"start.optimizer_state is {type(resumed).__name__}, but {type(optimizer).__name__} "
            f"resumes from {type(fresh).__name__}."
        )
    check_state(optimizer, theta, resumed)
    passed = 0 if start.batch_losses is None else start.batch_losses.shape[0]
    fits = batches is None or start.step == start.epoch * batches + passed
    if not fits or (passed and start.batch_size != size):
        raise ValueError(
            f"start has made {start.step} updates in {start.epoch} epochs, but with these rows and "
            f"this batch_size an epoch has {batches}: resume with the data it was trained on."
        )
    average = start.theta if start.average is None else start.average
    require_like(theta, average, "start.average")
    return start._replace(
        theta=copied(start.theta),
        optimizer_state=copied(resumed),
        average=copied(average) if averages else None,
    )


def check_training(theta: Array, start: TrainingState) -> None:
    """Raise ValueError for a theta beside ``start`` that is not one of its training.

    It is the first, the last or the best one, or the average.
    """
    way_out = " start belongs to another network or another stack."
    check_alike(theta, start.theta, "start.theta", way_out)
    own_sum, best = checksum(theta), None if start.best is None else start.best.theta
    sums = (checksum(each) for each in (start.theta, start.average, best) if each is not None)
    if start.first not in (None, own_sum) and own_sum not in sums:
        raise ValueError(
            "theta is not one of the training that start resumes, and would be ignored: give "
            "start.theta, or the theta that it began with. To train another theta with the state "
            "of the optimizer, start=start._replace(theta=theta)."
        )
