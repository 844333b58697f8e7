"""The options of a training: their types, their defaults, and their checks."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Required, TypeAlias, TypedDict

from backprop_xp.backends import Array
from backprop_xp.checks import boolean, choose, integer, nearest, real
from backprop_xp.training.interfaces.orders import seeds_of
from backprop_xp.training.interfaces.states import FitResult, TrainingState
from backprop_xp.training.measures.averages import Average
from backprop_xp.training.measures.class_weights import ClassWeight
from backprop_xp.training.measures.early_stopping import EarlyStopping
from backprop_xp.training.measures.metrics import METRICS, Metric, Mode
from backprop_xp.training.measures.plateau import Plateau
from backprop_xp.training.optimizers.first_order import named_optimizer
from backprop_xp.training.optimizers.protocol import AnyOptimizer, Traits, traits_of

# ``(x, y)`` or ``(x, y, sample_weight)``.
Batch: TypeAlias = Sequence[Array]
# The batches of an epoch: a function of the epoch's number, from 0, or the same for all epochs.
Batches: TypeAlias = Callable[[int], Iterable[Batch]] | Iterable[Batch]
# ``(x, y, sample_weight, seed) -> batch``.
Augment: TypeAlias = Callable[[Array, Array, Array | None, int], Batch]
# What watches a measure of each epoch.
Rule: TypeAlias = EarlyStopping | Plateau


class TrainingOptions(TypedDict, total=False):
    """The keyword arguments of ``train`` and ``fit``, for type checkers; see ``bx.fit``."""

    optimizer: Required[AnyOptimizer | str]
    epochs: Required[int]
    batch_size: int | None
    accumulate: int
    shuffle: bool | Callable[[int], Sequence[int] | Array]
    augment: Augment | None
    seed: int | Sequence[int] | Sequence[Sequence[int]] | Array
    sample_weight: Array | None
    class_weight: ClassWeight | None
    validation: Sequence[Array] | Array | float | None
    clip: float | None
    l2: float | Array | None
    l2_of_sum: float | Array | None
    metrics: Mapping[str, Metric] | Sequence[str | Metric] | None
    train_metrics: bool
    early_stopping: EarlyStopping | None
    plateau: Plateau | None
    average: Average | None
    start: TrainingState | FitResult | None
    check_every: int | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int
    read_ahead: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """The checked options of a training.

    - ``optimizer`` is one of ``bx.optimizers``, such as ``bx.Adam()``, your own, or a name: that of
      one with its defaults, such as ``"adam"``. ``bx.LevenbergMarquardt()`` and ``bx.LBFGS()`` take
      one full batch in an epoch, and end the training when every network has converged.
    - ``epochs`` counts from the beginning of the training, also when it is resumed.
    - ``batch_size`` is the number of rows per update; None is the full batch.
    - ``accumulate`` k updates theta by the gradient of ``k * batch_size`` rows, in the memory of
      one batch. Each batch draws dropout masks of its own.
    - ``shuffle`` draws a new order for each epoch, from ``seed`` and the epoch's number. Or it is a
      function of the epoch's number, from 0, that returns an array of row indices, ``(rows,)`` or
      ``(*stack, rows)``; it must return the same order each time it is called for an epoch.
    - ``seed`` also sets the dropout masks, with the number of the update. Ints of shape ``stack``,
      such as ``range(32)``, make the networks independent: each has its own order of rows and
      masks, as if it were trained alone. Own orders take 4 bytes for each row and network.
    - ``augment(x, y, sample_weight, seed)`` returns the batch to train on, ``(x, y)`` or ``(x, y,
      sample_weight)``, such as one with noise. It receives arrays on theta's device, or None for
      the weights. Its int ``seed`` depends on ``seed``, the epoch and the batch alone. With a seed
      for each network, it is called for each network's own batch. What it returns is checked as
      batches that x gives are, with a transfer for each batch.
    - ``sample_weight`` is ``(batch,)`` or ``(*stack, batch)``. A loss that treats each output by
      itself, such as ``mean_squared_error``, also takes weights of the entries of y, ``(batch,
      n_out)``: the loss is the mean over all entries. NaN in y, in some of several columns, was not
      measured: its weight is 0, also in ``validation``.
    - ``class_weight`` multiplies each row's weight by its class's, in the validation set too: a
      mapping from class numbers, 1 for missing ones, one number for each class, or ``"balanced"``,
      which gives each class the same total weight in the training set. A single output has the
      classes 0 and 1.
    - ``validation`` is ``(x, y)`` or ``(x, y, sample_weight)``; or a share of the rows, such as
      0.2, which ``seed`` draws, from each class alike; or an array of row indices, ``(count,)`` or,
      with its own for each network, ``(*stack, count)``. Rows of a share or of indices are not
      trained on.
    - ``clip`` bounds the norm of each network's gradient.
    - ``l2``, a number or ``(*stack,)``, overrides the network's.
    - ``l2_of_sum`` replaces it by a penalty on the *sum* of a batch's losses: it is divided by the
      sum of the batch's weights, or by its number of rows, as scikit-learn's ``alpha`` is.
    - ``metrics`` are names of ``bx.metrics``, or functions ``(predictions, targets, weights) ->
      (*stack,)``: a list, or a mapping from names of your own. They are computed on the validation
      set, or else the training set.
    - ``train_metrics`` also measures the training set after each epoch, without dropout, as
      ``"training_loss"`` and, for the metric ``"accuracy"``, ``"training_accuracy"``.
    - ``early_stopping`` is a ``bx.EarlyStopping``, and ``plateau`` a ``bx.Plateau``, which lowers
      the learning rate. Each watches a measure of the epochs, by its name in the history.
    - ``average`` is ``bx.EMA(decay)`` or ``bx.SWA(start_epoch)``: the average of theta is measured
      after each epoch, and returned; training moves theta itself.
    - ``start`` is the ``TrainingState``, or the ``FitResult``, of an earlier training to resume.
      Theta is then one of that training: the first, the last or the best one, or the average.
      A ``FitResult`` that has run all ``epochs`` already is a warning.
    - ``check_every`` k checks the gradient of every k-th update, by one difference of the loss
      and, in doubt, along random directions. A failed check ends the training with a
      ``GradientCheckError``, whose ``report`` has the details.
    - ``checkpoint`` is the path of a model file, written after every ``checkpoint_every``-th epoch
      and after the last: ``start=bx.load(path).state`` resumes from it.

    Without ``y``, x gives the batches of each epoch, ``(x, y)`` or ``(x, y, sample_weight)``: as an
    iterable, or as a function of the epoch's number, from 0, which alone can be resumed. Batches
    are arrays of any library; each is copied, so x may refill its own. A thread makes the next one
    and moves it to theta's device during a step. With ``read_ahead`` False there is no thread, for
    an x that is bound to the caller's, such as a connection of ``sqlite3``. ``shuffle`` does not
    apply. Ctrl-C also ends an x that waits, by an exception in it if there is no thread.

    Raises TypeError or ValueError for arguments that do not fit, for a value of x, y or
    sample_weight that is not finite, and for a target outside the loss's range.
    """

    optimizer: AnyOptimizer
    epochs: int
    batch_size: int | None = None
    accumulate: int = 1
    shuffle: bool | Callable[[int], Sequence[int] | Array] = True
    augment: Augment | None = None
    seed: int | Sequence[int] | Sequence[Sequence[int]] | Array = 0
    sample_weight: Array | None = None
    class_weight: ClassWeight | None = None
    validation: Sequence[Array] | Array | float | None = None
    clip: float | None = None
    l2: float | Array | None = None
    l2_of_sum: float | Array | None = None
    metrics: Mapping[str, Metric] | None = None
    train_metrics: bool = False
    early_stopping: EarlyStopping | None = None
    plateau: Plateau | None = None
    average: Average | None = None
    start: TrainingState | None = None
    check_every: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 1
    read_ahead: bool = True

    def __post_init__(self) -> None:
        self._set("optimizer", named_optimizer(self.optimizer))
        if isinstance(self.optimizer, type) or not hasattr(self.optimizer, "initialize"):
            raise TypeError(
                f"optimizer must be an object like bx.Adam(), not {self.optimizer!r}: it needs the "
                "methods initialize, and update or advance."
            )
        method = "advance" if self.traits.takes_objective else "update"
        if not hasattr(self.optimizer, method):
            raise TypeError(f"{type(self.optimizer).__name__} has no method {method}.")
        for name, kind, example in (
            ("early_stopping", EarlyStopping, "EarlyStopping"),
            ("plateau", Plateau, "Plateau"),
            ("average", Average, "EMA"),
        ):
            if not isinstance(value := getattr(self, name), kind | None):
                raise TypeError(f"{name} must be an object like bx.{example}(), not {value!r}.")
        if not isinstance(self.checkpoint, str | os.PathLike | None):
            raise TypeError(f"checkpoint must be the path of a file, not {self.checkpoint!r}.")
        if self.checkpoint == "":
            raise ValueError("checkpoint must be the path of a file, not ''.")
        start: Any = self.start
        start = start.state if isinstance(start, FitResult) else start
        if not isinstance(start, TrainingState | None):
            raise TypeError(
                "start must be a state of bx.train or a result of bx.fit, not "
                f"{type(start).__name__}."
            )
        self._set("start", start)
        self._set("epochs", integer(self.epochs, "epochs"))
        self._set("seed", seeds_of(self.seed))
        self._set("metrics", {} if self.metrics is None else _checked_metrics(self.metrics))
        for name in ("train_metrics", "read_ahead"):
            self._set(name, boolean(getattr(self, name), name))
        if self.clip is not None:
            self._set("clip", real(self.clip, "clip", above=0.0))
        if not (self.augment is None or callable(self.augment)):
            raise TypeError(
                "augment must be a function (x, y, sample_weight, seed) -> batch, not "
                f"{self.augment!r}."
            )
        if not callable(self.shuffle):
            self._set("shuffle", boolean(self.shuffle, "shuffle"))
        for name in ("batch_size", "accumulate", "check_every", "checkpoint_every"):
            if (value := getattr(self, name)) is not None:
                self._set(name, integer(value, name))
        _check_together(self)
        for rule in self.rules:
            _check_rule(self, rule)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @functools.cached_property
    def traits(self) -> Traits:
        """How the optimizer runs."""
        return traits_of(self.optimizer)

    @functools.cached_property
    def rules(self) -> list[Rule]:
        """The rules that watch each epoch, with what each watches and its mode, None if unknown."""
        rules = self.early_stopping, self.plateau
        return [self._decided(rule) for rule in rules if rule is not None]

    def _decided(self, rule: Rule) -> Rule:
        """Return a rule with what it watches, and the mode of that."""
        watch = rule.watch
        if watch is None:
            watch = "training_loss" if self.validation is None else "validation_loss"
        metric = (self.metrics or {}).get(watch.removeprefix("training_"))
        own_mode: Mode | None = "min" if metric is None else getattr(metric, "mode", None)
        return replace(rule, watch=watch, mode=own_mode if rule.mode is None else rule.mode)

    @functools.cached_property
    def measures(self) -> list[str]:
        """The names of the measures of an epoch, which are those of the history.

        The training set is measured after an epoch for ``train_metrics``, and for a rule.
        """
        watched = {rule.watch for rule in self.rules}
        return [
            name
            for name in self.watchable
            if not name.startswith("training_") or self.train_metrics or name in watched
        ]

    @property
    def of_training(self) -> list[str]:
        """The names of the measures of the training set after an epoch."""
        return [name for name in self.measures if name.startswith("training_")]

    @property
    def watchable(self) -> list[str]:
        """The names of the measures that a rule may watch."""
        names = ["loss", *(self.metrics or {})]
        of_validation = [] if self.validation is None else ["validation_loss"]
        return [*names, *(f"training_{name}" for name in names), *of_validation]


def full_batch_message(optimizer: AnyOptimizer, option: str) -> str:
    """Return the error message for an option that needs an optimizer with an ``update``."""
    return (
        f"{type(optimizer).__name__} evaluates the objective of all rows at points of its own: it "
        f"does not take {option}. Leave it out, or use an optimizer such as bx.Adam()."
    )


def are_indices(validation: Any) -> bool:
    """Whether the option ``validation`` is an array, of row indices."""
    return hasattr(validation, "shape") and not isinstance(validation, Real)


OPTION_NAMES = tuple(field.name for field in fields(Options))


def _check_together(options: Options) -> None:
    """Raise ValueError for options that do not go with one another."""
    optimizer, start = options.optimizer, options.start
    if options.plateau is not None and not hasattr(optimizer, "learning_rate"):
        raise ValueError(
            f"plateau lowers the learning rate, but {type(optimizer).__name__} has none."
        )
    if options.l2 is not None and options.l2_of_sum is not None:
        raise ValueError("l2 and l2_of_sum are two strengths of one penalty: give one of them.")
    if options.accumulate > 1 and options.batch_size is None:
        raise ValueError(f"accumulate={options.accumulate} needs batch_size, such as 32.")
    if start is not None and start.epoch > options.epochs:
        raise ValueError(
            f"start has run {start.epoch} epochs, but epochs={options.epochs} counts from the "
            f"beginning of the training: for {options.epochs} more, "
            f"epochs={start.epoch + options.epochs}."
        )
    if options.traits.takes_objective:
        for name in ("batch_size", "augment", "clip"):
            if getattr(options, name) is not None:
                raise ValueError(full_batch_message(optimizer, name))


def _check_rule(options: Options, rule: Rule) -> None:
    """Raise ValueError for a rule that watches no measure, or watched another before ``start``."""
    is_early = isinstance(rule, EarlyStopping)
    name, field = ("early_stopping", "best") if is_early else ("plateau", "slowed")
    if rule.watch not in options.watchable:
        choices, way_out = nearest(str(rule.watch), options.watchable), _way_to(str(rule.watch))
        raise ValueError(f"{name} watches {rule.watch!r}. {choices}{way_out}")
    if rule.mode not in ("min", "max"):
        raise ValueError(
            f"{name} watches {rule.watch!r}, a metric that does not tell whether larger values "
            'are better: give the rule mode="max" or mode="min", or the metric its own mode.'
        )
    earlier = getattr(options.start, field, None)
    if earlier is not None and (earlier.watch, earlier.mode) != (rule.watch, rule.mode):
        raise ValueError(
            f"{name} watches {rule.watch!r} (mode={rule.mode!r}), but start has watched "
            f"{earlier.watch!r} (mode={earlier.mode!r}): their values cannot be compared. Watch "
            f"the same, or discard the old values: start=state._replace({field}=None)."
        )


def _way_to(watch: str) -> str:
    """Return the option with which a training would have a measure; nothing for an unknown name."""
    if watch == "validation_loss":
        return " That one needs validation=, such as 0.2."
    metric = watch.removeprefix("training_")
    return f" That one needs metrics=[{metric!r}]." if metric in METRICS else ""


def _checked_metrics(metrics: Any) -> dict[str, Metric]:
    if isinstance(metrics, str) or not isinstance(metrics, Mapping | Sequence):
        raise TypeError(
            'metrics must be a list such as ["accuracy", bx.metrics.r2], or a mapping from names, '
            f"not {metrics!r}."
        )
    is_named = isinstance(metrics, Mapping)
    entries: dict[Any, Any] = dict(metrics if is_named else enumerate(metrics))
    checked = {key: choose(METRICS, metric, f"metrics[{key!r}]") for key, metric in entries.items()}
    if not is_named:
        checked = {_name_of(metric): metric for metric in checked.values()}
    if not all(isinstance(name, str) for name in checked):
        raise TypeError(f"metrics must have strings as names, not {list(checked)!r}.")
    reserved = {"loss", "validation_loss", "gradient_error", "gradient_verdict"} & set(checked)
    reserved |= {name for name in checked if name.startswith("training_")}
    if reserved:
        raise ValueError(f"metrics cannot be named {min(reserved)!r}: the history uses that name.")
    return checked


def _name_of(metric: Metric) -> str:
    """Return the name of a metric in the history: that of its function."""
    name = getattr(metric, "__name__", None)
    if name is None or name == "<lambda>":
        raise TypeError(
            f'metrics has {metric!r}, which has no name: give a mapping, {{"a name": ...}}.'
        )
    return str(name)
