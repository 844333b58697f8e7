"""The options of a training, the states that it goes through, and what it leaves."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from backprop_xp.backends import Array, require_like
from backprop_xp.checks import boolean, integer, nearest, real
from backprop_xp.training.early_stopping import Best, EarlyStopping, Slowed
from backprop_xp.training.optimizers import Optimizer, check_state
from backprop_xp.training.pytrees import copied
from backprop_xp.training.schedules import Plateau

if TYPE_CHECKING:
    from backprop_xp.display.summaries import Summary

Rule = TypeVar("Rule", bound=EarlyStopping | Plateau | None)


class TrainingState(NamedTuple):
    """Where training stands after an epoch; valid until the next state is drawn.

    ``epoch`` and ``step`` count epochs and updates from the beginning of the training, ``loss`` is
    the mean over the epoch's batches, each measured before its own update; ``validation_loss`` and
    ``metrics`` are measured after the epoch, without dropout and penalty. All are ``(*stack,)`` on
    the device. ``checks`` are the verdicts and errors of the epoch's gradient checks, ``best`` is
    what early stopping has found, ``slowed`` how far a plateau has lowered the rates.

    ``batch_losses``, one row for each batch, are those of an epoch that Ctrl-C or an error cut
    short: ``start=`` goes on with its next batch, of as many rows, ``batch_size``.

    ``history``, in the state that ``fit`` ends with, or leaves with an exception, and in files, is
    that of the whole training: NumPy arrays ``(epoch, *stack)``, NaN where an epoch was not
    measured.
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


class FitResult(NamedTuple):
    """What ``fit`` leaves: the trained theta, and NumPy arrays ``(epochs, *stack)`` of losses.

    ``history`` has ``"loss"`` and, with validation rows, ``"validation_loss"``, and the metrics by
    their names, of the whole training, as ``state.history`` has them; with ``check_every``,
    ``"gradient_error"`` and ``"gradient_verdict"``, ``(checks,)``, of each check of this call.
    ``epochs`` counts from the beginning of the training, and ``state`` is where it ended:
    ``start=result`` goes on from there. theta and the optimiser's state share no memory with it.
    """

    theta: Array
    history: dict[str, Any]
    optimizer_state: Any
    epochs: int
    state: TrainingState

    def __repr__(self) -> str:
        return self.summary().text()

    def _repr_html_(self) -> str:
        return self.summary().html()

    def summary(self) -> "Summary":
        """Return shapes, last and best losses for people."""
        from backprop_xp.display.summaries import training

        return training("FitResult", self.epochs, self.theta, self.history)


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """The options of a training, checked, and shared by ``train`` and ``fit``.

    - ``epochs`` counts from the beginning of the training, of a resumed one too.
    - ``batch_size`` None is the full batch. Each epoch's order is drawn from ``seed`` and the
      epoch's number, unless ``shuffle`` is False; dropout masks from ``seed`` and the update's.
      ``shuffle`` may also be a function that is given the epoch's number, from 0, and returns the
      order: an array of row numbers, the same each time that it is asked for the same epoch.
    - ``sample_weight`` is ``(batch,)`` or stacked; ``validation`` is ``(x, y)`` or ``(x, y,
      sample_weight)``.
    - ``clip`` bounds the norm of each network's own gradient; ``l2``, a number or ``(*stack,)``,
      overrides the network's. ``l2_of_sum`` takes its place where the penalty belongs to the *sum*
      of a batch's losses: divided by the sum of the batch's weights (its rows, without weights), as
      scikit-learn's ``alpha`` is.
    - ``metrics`` are functions of predictions, targets and weights, as in ``bx.metrics``, that
      return ``(*stack,)``: of the validation rows, or without them of the training rows.
    - ``start`` is the state, or the result, from which an earlier training goes on.
    - ``checkpoint`` names a model file that is written at the end of every ``checkpoint_every``-th
      epoch and of the last: ``start=bx.load(path).state`` goes on from it.
    - ``check_every`` k compares the gradient of every k-th update's batch with one difference of
      the loss and, where that leaves a doubt, checks it along directions: a fail ends the training
      by ``GradientCheckError``, whose ``report`` says what is wrong.
    """

    optimizer: Optimizer
    epochs: int
    batch_size: int | None = None
    shuffle: bool | Callable[[int], Any] = True
    seed: int = 0
    sample_weight: Array | None = None
    validation: Sequence[Array] | None = None
    clip: float | None = None
    l2: Any = None
    l2_of_sum: Any = None
    metrics: Mapping[str, Callable[..., Array]] | None = None
    early_stopping: EarlyStopping | None = None
    start: TrainingState | FitResult | None = None
    check_every: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, type) or not hasattr(self.optimizer, "initialize"):
            raise TypeError(f"optimizer must be one such as bx.Adam(), not {self.optimizer!r}.")
        if not isinstance(self.early_stopping, EarlyStopping | None):
            raise TypeError(
                "early_stopping must be one such as bx.EarlyStopping(), not "
                f"{self.early_stopping!r}."
            )
        if self.l2 is not None and self.l2_of_sum is not None:
            raise ValueError("l2 and l2_of_sum are two strengths of one penalty: give one of them.")
        start = self.start.state if isinstance(self.start, FitResult) else self.start
        if not isinstance(start, TrainingState | None):
            raise TypeError(
                "start must be a state of bx.train or a result of bx.fit, not "
                f"{type(start).__name__}."
            )
        checked: dict[str, Any] = {
            "epochs": integer(self.epochs, "epochs"),
            "seed": integer(self.seed, "seed", at_least=0),
            "clip": None if self.clip is None else real(self.clip, "clip", above=0.0),
            "metrics": _checked_metrics(self.metrics),
            "start": start,
        }
        if not isinstance(self.checkpoint, str | os.PathLike | None):
            raise TypeError(f"checkpoint must be the path of a file, not {self.checkpoint!r}.")
        if not callable(self.shuffle):
            checked["shuffle"] = boolean(self.shuffle, "shuffle")
        for name in ("batch_size", "check_every", "checkpoint_every"):
            if (value := getattr(self, name)) is not None:
                checked[name] = integer(value, name)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if start is not None and start.epoch > self.epochs:
            raise ValueError(
                f"start has run {start.epoch} epochs, but epochs={self.epochs} counts from the "
                "beginning of the training."
            )
        for name, rule in (("early_stopping", self.early_stopping), ("plateau", self.plateau)):
            if rule is not None and rule.watch is not None and rule.watch not in self.judged:
                raise ValueError(
                    f"{name} watches {rule.watch!r}. {nearest(rule.watch, self.judged)}"
                )
        for name, memory in (("early_stopping", "best"), ("plateau", "slowed")):
            rule, known = self.named(getattr(self, name)), getattr(start, memory, None)
            if (
                rule is None
                or known is None
                or (known.watch, known.mode) == (rule.watch, rule.mode)
            ):
                continue
            raise ValueError(
                f"{name} watches {rule.watch!r} (mode={rule.mode!r}), but start has watched "
                f"{known.watch!r} (mode={known.mode!r}): their values do not compare. Watch the "
                f"same, or let it begin anew: start=state._replace({memory}=None)."
            )

    @property
    def plateau(self) -> Plateau | None:
        """The learning rate, if it depends on how training goes."""
        rate = getattr(self.optimizer, "learning_rate", None)
        return rate if isinstance(rate, Plateau) else None

    def named(self, rule: Rule) -> Rule:
        """Return a rule that names what it watches, by default a loss."""
        if rule is None or rule.watch is not None:
            return rule
        named: Rule = replace(rule, watch=self.judged[0])
        return named

    @property
    def judged(self) -> list[str]:
        """The names of what the theta after an epoch is judged by."""
        return ["loss" if self.validation is None else "validation_loss", *(self.metrics or {})]


def _checked_metrics(metrics: Any) -> dict[str, Callable[..., Array]]:
    items = (metrics or {}).items() if isinstance(metrics, Mapping | None) else [(None, None)]
    if not all(isinstance(name, str) and callable(metric) for name, metric in items):
        raise TypeError(
            'metrics must be functions by their names, such as {"accuracy": bx.metrics.accuracy}, '
            f"not {metrics!r}."
        )
    taken = {"loss", "validation_loss", "gradient_error", "gradient_verdict"} & set(metrics or {})
    if taken:
        raise ValueError(f"metrics may not be named {min(taken)!r}: the history has one already.")
    return dict(metrics or {})


def started(
    start: Any, optimizer: Optimizer, theta: Array, batches: int, size: int
) -> TrainingState:
    """Return the state in which a training begins, copied: its memory is used again.

    One to go on from has to fit theta, the optimiser and the epochs' batches.
    """
    made = optimizer.initialize(theta)
    if start is None:
        # It may hold an array twice, theta, or the caller's own.
        return TrainingState(0, 0, copied(theta), copied(made))
    require_like(theta, start.theta, "start.theta")
    if tuple(start.theta.shape) != tuple(theta.shape):
        raise ValueError(
            f"start.theta has shape {tuple(start.theta.shape)}, but theta {tuple(theta.shape)}: "
            "start is of another network, or of another stack."
        )
    given = start.optimizer_state
    if isinstance(made, tuple | list | dict) and type(given) is not type(made):
        raise TypeError(
            f"start.optimizer_state is of {type(given).__name__}, but {type(optimizer).__name__} "
            f"goes on from {type(made).__name__}."
        )
    check_state(optimizer, theta, given)
    cut = 0 if start.batch_losses is None else start.batch_losses.shape[0]
    if start.step != start.epoch * batches + cut or (cut and start.batch_size != size):
        raise ValueError(
            f"start has made {start.step} updates in {start.epoch} epochs, but with these rows and "
            f"this batch_size an epoch has {batches}: give it the data that it was trained on."
        )
    begun: TrainingState = start._replace(theta=copied(start.theta), optimizer_state=copied(given))
    return begun
