"""The epochs of a training: steps, losses, and the rules that watch them."""

import contextlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import Array, Backend, require_owner
from backprop_xp.networks.inputs import Rows, check_entries, check_l2
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import strength_of
from backprop_xp.training.batches import (
    count_of,
    in_blocks,
    index_tables,
    joined,
    mean_of_batches,
    mean_over,
    without_first,
)
from backprop_xp.training.data import keys_of
from backprop_xp.training.data_checks import check_data
from backprop_xp.training.early_stopping import EarlyStopping, better, slowed
from backprop_xp.training.gradient_monitor import GradientMonitor
from backprop_xp.training.interrupt import Interrupt
from backprop_xp.training.loop import Stepper, stepper_of, take_steps
from backprop_xp.training.optimizers import optimizer_on_device
from backprop_xp.training.options import Options
from backprop_xp.training.schedules import Plateau
from backprop_xp.training.sources import Source, source_of
from backprop_xp.training.states import TrainingState, initial_state, with_average
from backprop_xp.training.steps import Carry, Shared, judged


@dataclass(frozen=True)
class Training:
    """The constant parts of a training, the same in all epochs.

    ``evaluated`` are the rows and the penalty by which theta is measured after an epoch, and those
    of the training set if it is measured too, None if nothing is measured; ``batches`` is the
    number of batches of an epoch, None if it is not known. A ``source`` gives the rows of each
    batch; otherwise they are taken from ``shared``.
    """

    options: Options
    backend: Backend
    stepper: Stepper
    shared: Shared
    evaluated: tuple[Rows, Any, tuple[Rows, Any] | None] | None
    monitor: GradientMonitor | None
    source: Source | None
    batch_size: int
    batches: int | None
    mean_over: Callable[..., Array]
    early_stopping: EarlyStopping | None
    plateau: Plateau | None


def prepare(
    network: Network, theta: Array, x: Any, y: Any, options: Options
) -> tuple[Training, TrainingState]:
    """Check the data and return the training with its initial state."""
    if callable(x) and y is not None:
        raise TypeError("x is a function, which gives batches (x, y): omit y.")
    given = None if y is None else (x, y, options.sample_weight)
    rows, validation = check_data(network, theta, given, options)
    source = source_of(network, theta, x, rows, options)
    l2 = network.l2 or None if options.l2 is None else _checked_strength(theta, options.l2, "l2")
    l2_of_sum = options.l2_of_sum
    if l2_of_sum is not None:
        l2_of_sum = _checked_strength(theta, l2_of_sum, "l2_of_sum")
    optimizer = optimizer_on_device(options.optimizer, theta)
    size, batches = 0, None
    if rows is not None:
        count = rows.x.shape[-2]
        size = min((options.batch_size or count) * options.accumulate, count)
        batches = math.ceil(count / size)
    early_stopping = options.watching(options.early_stopping)
    plateau = options.watching(options.plateau)
    evaluated: tuple[Rows, Any, tuple[Rows, Any] | None] | None = None
    own = None if rows is None else (rows, strength_of(rows, l2, l2_of_sum))
    if validation is not None:
        watched = [rule.watch for rule in (early_stopping, plateau) if rule is not None]
        evaluated = validation, None, own if options.train_metrics or "loss" in watched else None
    elif own and (options.metrics or early_stopping or plateau or options.train_metrics):
        evaluated = *own, None
    key, monitor = keys_of(options.seed, theta), None
    if options.check_every is not None:
        monitor = GradientMonitor(options.check_every, network, key, l2, l2_of_sum)
    backend = require_owner(theta, "theta")
    shared = Shared(rows or Rows(None, None), l2, l2_of_sum, options.clip)
    rows_at_once = options.batch_size if options.accumulate > 1 else None
    stepper = stepper_of(network, optimizer, options.metrics or {}, theta, rows_at_once)
    stepper.average, stepper.batches = options.average, batches
    training = Training(
        options=options,
        backend=backend,
        stepper=stepper,
        shared=shared._replace(
            seed=key if network.is_random else None,
            # Several batches are evaluated at the end of their epoch, a full one with its step.
            evaluated=evaluated if batches == 1 and source is None else None,
        ),
        evaluated=evaluated,
        monitor=monitor,
        source=source,
        batch_size=size,
        batches=batches,
        mean_over=backend.compile(mean_over),
        early_stopping=early_stopping,
        plateau=plateau,
    )
    state = initial_state(options.start, optimizer, theta, batches, size)
    return training, state if options.average is None else with_average(state, options.start)


def _checked_strength(theta: Array, strength: Any, name: str) -> Any:
    strength = check_l2(theta, strength)
    if strength is not None and not isinstance(strength, float):
        check_entries(strength, name, low=0.0)
    return strength


def has_ended(state: TrainingState, options: Options) -> bool:
    """Whether all epochs are done, or no network has improved for the patience."""
    if state.epoch >= options.epochs or options.early_stopping is None or state.best is None:
        return state.epoch >= options.epochs
    return bool(state.epoch - state.best.epoch.max() >= options.early_stopping.patience)


def advance(
    training: Training, state: TrainingState, epochs: int, interrupt: Interrupt
) -> tuple[TrainingState, dict[str, Array]]:
    """Return the state after more epochs, and their measures, ``(epochs, *stack)`` by name.

    ``epochs`` counts epochs of one full batch; of several batches, one epoch is run. A pending
    interrupt ends it early: the state may then be in the middle of an epoch, without measures. The
    memory of the given state is reused.
    """
    with training.backend.no_grad():
        run = _run(training, state, epochs, interrupt)
        return _measured(training, state, run)


def batch_losses(
    training: Training, state: TrainingState, interrupt: Interrupt
) -> tuple[TrainingState, Array]:
    """Return the state after one more epoch, and its batches' losses, ``(batches, *stack)``."""
    with training.backend.no_grad():
        run = _run(training, state, 1, interrupt)
        return _measured(training, state, run)[0], run.losses


class _Run(NamedTuple):
    """The steps of a call of ``advance``, with those of an epoch that was cut short before.

    ``tables`` are the row indices of several batches, ``counts`` what each batch of a source
    counts. ``found`` is what ``evaluate`` returned, along an axis of epochs. ``epochs`` is the
    number of epochs that are whole.
    """

    tables: list[Array]
    counts: list[Array]
    carry: Carry
    step: int
    losses: Array
    found: dict[str, Array]
    checks: list[tuple[str, float]]
    epochs: int


def _run(training: Training, state: TrainingState, epochs: int, interrupt: Interrupt) -> _Run:
    """Take the steps of one or more epochs, or of the rest of an epoch that was cut short."""
    options, shared, stepper = training.options, training.shared, training.stepper
    resumed, tables = state.batch_losses, list[Array]()
    losses, checks, passed = list[Array](), list[tuple[str, float]](), 0
    if resumed is not None:
        losses, checks, passed = [resumed], [*state.checks], resumed.shape[0]
    several = training.source is not None or training.batches != 1
    if several and training.source is None:
        size, seed = training.batch_size, options.seed
        tables = index_tables(shared.rows, size, options.shuffle, seed, state.epoch)
    at_end = several or resumed is not None
    carry, step = (state.theta, state.optimizer_state, state.average), state.step
    found: dict[str, Array] = {}
    counts, ends_epoch = list[Array](), False
    left = without_first(tables, passed) if at_end else [epochs]
    pieces = in_blocks(shared.rows, left)
    if training.source is not None:
        pieces = _batches(training.source(state.epoch), passed, counts)
    try:
        for rows, batches in pieces:
            taken = take_steps(
                stepper,
                carry,
                batches,
                step,
                shared._replace(rows=rows),
                interrupt,
                monitor=training.monitor,
                slowed=state.slowed,
            )
            carry, found = taken.carry, taken.found
            checks += taken.checks
            losses.append(taken.losses)
            step += taken.losses.shape[0]
            if interrupt.is_pending:
                break
        else:
            ends_epoch = at_end
        ends_epoch = ends_epoch or (at_end and step == (state.epoch + 1) * (training.batches or 0))
        if ends_epoch and training.evaluated is not None:
            last = stepper.evaluate(judged(carry), *training.evaluated)
            found = {name: value[None, ...] for name, value in last.items()}
    except BaseException as error:
        if not losses:  # the state is as it was
            raise
        interrupt.error, ends_epoch = error, False
    finally:
        pieces.close()
    joined_losses = joined(losses, axis=0)
    if at_end:
        whole = int(ends_epoch)
    elif training.evaluated is None:
        whole = joined_losses.shape[0]
    else:  # an error may come between a step and its evaluation
        whole = next(iter(found.values())).shape[0] if found else 0
    return _Run(tables, counts, carry, step, joined_losses, found, checks, whole)


def _batches(
    batches: Generator[Rows], passed: int, counts: list[Array]
) -> Generator[tuple[Rows, int]]:
    """Yield a source's batches but those that are passed; ``counts`` gets what each counts."""
    with contextlib.closing(batches):
        for rows in batches:
            counts.append(count_of(rows))
            if len(counts) > passed:
                yield rows, 1


def _measured(
    training: Training, state: TrainingState, run: _Run
) -> tuple[TrainingState, dict[str, Array]]:
    """Return the state after a run, and the measures of its whole epochs."""
    losses, cut = run.losses, None
    if run.tables and run.epochs:
        losses = training.mean_over(run.tables, losses, training.shared.rows.sample_weight)
    elif run.counts and run.epochs:
        losses = mean_of_batches(losses, run.counts)
    elif run.epochs < losses.shape[0]:
        losses, cut = losses[: run.epochs, ...], losses[run.epochs :, ...]
    state = state._replace(
        epoch=state.epoch + run.epochs,
        step=run.step,
        theta=run.carry[0],
        optimizer_state=run.carry[1],
        average=run.carry[2],
        checks=tuple(run.checks),
        batch_losses=cut,
        batch_size=training.batch_size,
    )
    if not run.epochs:
        return state, {}
    first, *others = training.options.judged
    names = [name for name in (*others, first) if name != "loss"]
    measures = {"loss": losses, **{name: _measure(run.found, name) for name in names}}
    last = {name: values[-1, ...] for name, values in measures.items()}
    state = _watched(training, state, run)._replace(
        loss=last.pop("loss"), validation_loss=last.pop("validation_loss", None), metrics=last
    )
    return state, measures


def _measure(found: dict[str, Array], name: str) -> Array:
    """Return a measure by its name in the history; ``found`` names those of a validation set.

    Without a validation set they are those of the training set.
    """
    name = {"validation_loss": "loss", "loss": "training_loss"}.get(name, name)
    return found[name] if name in found else found[name.removeprefix("training_")]


def _watched(training: Training, state: TrainingState, run: _Run) -> TrainingState:
    """Return the state with the best networks and the slowed rates after its last epoch."""
    best, slow = state.best, state.slowed

    def last(rule: EarlyStopping | Plateau) -> Array:
        return _measure(run.found, str(rule.watch))[-1, ...]

    if training.early_stopping is not None:
        rule = training.early_stopping
        best = better(rule, best, last(rule), state.epoch, (judged(run.carry), run.carry[1]))
    if training.plateau is not None:
        slow = slowed(training.plateau, slow, last(training.plateau), state.epoch)
    return state._replace(best=best, slowed=slow)
