"""The epochs of a training: steps, losses, and the rules that watch them."""

import contextlib
import functools
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
from backprop_xp.training.data_checks import check_data, check_sets, with_columns
from backprop_xp.training.early_stopping import EarlyStopping, better, slowed
from backprop_xp.training.gradient_monitor import GradientMonitor
from backprop_xp.training.hyperparameters import check_alike
from backprop_xp.training.interrupt import Interrupt
from backprop_xp.training.late_loops import LateLoops, operations_of
from backprop_xp.training.loop import Stepper, stepper_of, take_steps
from backprop_xp.training.member_shares import members_of
from backprop_xp.training.optimizers import optimizer_on_device
from backprop_xp.training.options import Options
from backprop_xp.training.ranks import Ranks, checksum
from backprop_xp.training.row_shares import (
    batches_of_share,
    check_options,
    check_shares,
    joined_batches,
    with_all_targets,
)
from backprop_xp.training.sources import Source, source_of
from backprop_xp.training.states import TrainingState, check_first_theta, initial_state
from backprop_xp.training.steps import Carry, Sets, Shared, judged


@dataclass(frozen=True)
class Training:
    """The constant parts of a training, the same in all epochs.

    ``evaluated`` are the sets by which ``evaluate`` measures theta after an epoch. A ``source``
    gives the rows of each batch; otherwise they are taken from ``shared``. ``late_loops`` counts
    the steps if their number is not known.
    """

    options: Options
    backend: Backend
    stepper: Stepper
    shared: Shared
    evaluated: Sets
    source: Source | None
    batch_size: int
    mean_over: Callable[..., Array]
    late_loops: LateLoops | None


def prepare(
    network: Network,
    theta: Array,
    x: Any,
    y: Any,
    options: Options,
    ranks: Ranks,
    *,
    updates: int | None = None,
) -> tuple[Training, TrainingState]:
    """Check the data and return the training of this rank with its initial state.

    ``updates`` is their number if it is not that of all epochs.
    """
    if callable(x) and y is not None:
        raise TypeError("x is a function, which gives batches (x, y): omit y.")
    check_options(ranks, theta, y, options)
    given = None if y is None else (x, y, options.sample_weight)
    check = functools.partial(check_shares, ranks) if ranks.shares_rows else check_sets
    rows, validation = check_data(network, theta, given, options, ranks, check)
    l2 = network.l2 or None if options.l2 is None else _checked_strength(theta, options.l2, "l2")
    l2_of_sum = _checked_strength(theta, options.l2_of_sum, "l2_of_sum")
    key = keys_of(options.seed, theta)
    # Checked with all networks, before this rank's are taken.
    optimizer_on_device(options.optimizer, theta)
    first = _first_of(theta, options.start)
    size, batches = 0, None
    if rows is not None:
        _, count = ranks.place(rows)
        size = min((options.batch_size or count) * options.accumulate, count)
        batches = math.ceil(count / size)
        if batches == 1 and options.accumulate == 1:  # a full batch is taken once
            rows = with_columns(network, theta, rows)
    if ranks.shares_stack:  # each rank has all data
        data = zip(("x", "y", "sample_weight"), rows or (), strict=False)
        ranks.require_alike({**dict(data), "validation": validation})
        members = members_of(ranks, theta)
        theta, options = members.of(theta, 1), members.of_options(options, batches)
        rows, validation = members.of_rows(rows), members.of_rows(validation)
        l2, l2_of_sum, key = members.of(l2, 0), members.of(l2_of_sum, 0), members.of(key, 2)
    optimizer = optimizer_on_device(options.optimizer, theta)
    if rows is not None and ranks.shares_rows:
        source: Source | None = batches_of_share(ranks, theta, rows, size, options)
    else:
        whole = not ranks.shares_rows
        source = source_of(network, theta, x, rows, size, options, are_whole=whole)
        if source is not None and ranks.shares_rows:
            source = joined_batches(ranks, theta, source)
    with_targets = functools.partial(with_all_targets, ranks, theta)
    evaluated: dict[str, tuple[Rows, Any]] = {}
    if validation is not None:
        evaluated[""] = with_targets(validation), None
    if rows is not None and _measures_training(options, validation):
        measured, prefix = with_targets(rows), "training_" if evaluated else ""
        evaluated[prefix] = measured, strength_of(measured, l2, l2_of_sum)
    if updates is None:
        updates = options.epochs * (batches or 0)  # 0 if the length of an epoch is not known
    backend = require_owner(theta, "theta")
    kernels = backend.kernels(theta, updates, operations_of(theta, updates * size))
    if ranks.shares_rows:  # all must round alike
        ranks.require_alike({"BACKPROP_XP_COMPILE: compiled loops": kernels is not None})
    rows_at_once = options.batch_size if options.accumulate > 1 else None
    make = functools.partial(
        stepper_of, network, optimizer, options.metrics or {}, theta, rows_at_once, ranks
    )
    stepper = make(kernels)
    stepper.average, stepper.batches = options.average, batches
    if options.check_every is not None:
        stepper.monitor = GradientMonitor(options.check_every, stepper.network, key, l2, l2_of_sum)
    # Several batches are evaluated at the end of their epoch, a full one with its step.
    with_steps = evaluated if batches == 1 and source is None else None
    rows, key = rows or Rows(None, None), key if network.is_random else None
    training = Training(
        options=options,
        backend=backend,
        stepper=stepper,
        shared=Shared(rows, l2, l2_of_sum, options.clip, key, with_steps),
        evaluated=evaluated,
        source=source,
        batch_size=size,
        mean_over=backend.compile(mean_over),
        # Ranks must round alike, and may count other rows.
        late_loops=LateLoops(make, stepper) if batches is None and ranks.is_alone else None,
    )
    averages = options.average is not None
    state = initial_state(options.start, optimizer, theta, batches, size, averages=averages)
    return training, state._replace(first=first)


def _first_of(theta: Array, start: TrainingState | None) -> int | None:
    """Return the checksum of the theta that a training began with, after a check of ``start``."""
    if start is None:
        return checksum(theta)
    way_out = " start belongs to another network or another stack."
    check_alike(theta, start.theta, "start.theta", way_out)
    check_first_theta(start, theta)
    return start.first


def _measures_training(options: Options, validation: Rows | None) -> bool:
    """Whether theta is measured on the training rows after an epoch."""
    rules = options.rules.values()
    if validation is None:
        return options.train_metrics or bool(options.metrics or rules)
    return options.train_metrics or any(rule.watch == "loss" for rule in rules)


def _checked_strength(theta: Array, strength: Any, name: str) -> Any:
    strength = None if strength is None else check_l2(theta, strength)
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
) -> tuple[TrainingState, dict[str, Array], list[Array]]:
    """Return the state after more epochs, their measures, and the losses of their batches.

    The measures are ``(epochs, *stack)`` by name, or longer: ``state.epoch`` counts those that are
    meant. The losses are ``(batches, *stack)`` when they are joined. ``epochs`` counts epochs of
    one full batch; of several batches, one epoch is run. A pending interrupt ends it early: the
    state may then be in the middle of an epoch, without measures. The memory of the given state is
    reused.
    """
    with training.backend.no_grad():
        run = _run(training, state, epochs, interrupt)
        return *_measured(training, state, run), run.losses


class _Run(NamedTuple):
    """The steps of a call of ``advance``, with those of an epoch that was cut short before.

    ``tables`` are the row indices of several batches, ``counts`` what each batch of a source
    counts. ``losses`` are to be joined. ``found`` is what ``evaluate`` returned, along an axis of
    epochs; it may be longer than ``epochs``, the number of epochs that are whole, and so may the
    losses unless the last epoch ``is_cut`` short.
    """

    tables: list[Array]
    counts: list[Array]
    carry: Carry
    step: int
    losses: list[Array]
    found: dict[str, Array]
    checks: list[tuple[str, float]]
    epochs: int
    is_cut: bool


def _run(training: Training, state: TrainingState, epochs: int, interrupt: Interrupt) -> _Run:
    """Take the steps of one or more epochs, or of the rest of an epoch that was cut short."""
    options, shared, stepper = training.options, training.shared, training.stepper
    resumed, tables = state.batch_losses, list[Array]()
    losses, checks, passed = list[Array](), list[tuple[str, float]](), 0
    if resumed is not None:
        losses, checks, passed = [resumed], [*state.checks], resumed.shape[0]
    several = training.source is not None or stepper.batches != 1
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
        pieces = _batches(training.source(state.epoch, interrupt), passed, counts)
    try:
        for rows, batches in pieces:
            if training.late_loops is not None:
                training.late_loops.count(carry[0], rows)
            taken = take_steps(
                *(stepper, carry, batches, step, shared._replace(rows=rows), interrupt),
                slowed=state.slowed,
            )
            carry, found = taken.carry, taken.found
            checks += taken.checks
            is_longer = at_end and taken.losses.shape[0] > taken.steps
            losses.append(taken.losses[: taken.steps, ...] if is_longer else taken.losses)
            step += taken.steps
            if interrupt.is_pending:
                break
        else:
            ends_epoch = at_end
        ends_epoch = ends_epoch or (at_end and step == (state.epoch + 1) * (stepper.batches or 0))
        if ends_epoch and training.evaluated:
            last = stepper.evaluate(judged(carry), training.evaluated)
            found = {name: value[None, ...] for name, value in last.items()}
    except BaseException as error:
        if not losses:  # the state is as it was
            raise
        interrupt.error, ends_epoch = error, False
    finally:
        pieces.close()
    whole, is_cut = int(ends_epoch), at_end and not ends_epoch
    if not at_end:
        whole = step - state.step
        if training.evaluated:  # an error may come between a step and its evaluation
            whole = min(whole, next(iter(found.values())).shape[0] if found else 0)
        is_cut = whole < step - state.step
    return _Run(tables, counts, carry, step, losses, found, checks, whole, is_cut)


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
    cut = None
    if run.tables and run.epochs:
        losses = training.mean_over(run.tables, run.losses, training.shared.rows.sample_weight)
    else:
        losses = joined(run.losses, axis=0)
        if run.counts and run.epochs:
            losses = mean_of_batches(losses, run.counts)
        elif run.is_cut:
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
    last = {name: values[run.epochs - 1, ...] for name, values in measures.items()}
    state = _watched(training, state, run)._replace(
        loss=last.pop("loss"), validation_loss=last.pop("validation_loss", None), metrics=last
    )
    return state, measures


def _measure(found: dict[str, Array], name: str) -> Array:
    """Return a measure by its name in the history.

    ``found`` names a measure of the validation set, or else the training set, without a prefix.
    """
    name = {"validation_loss": "loss", "loss": "training_loss"}.get(name, name)
    return found[name] if name in found else found[name.removeprefix("training_")]


def _watched(training: Training, state: TrainingState, run: _Run) -> TrainingState:
    """Return the state with the best networks and the slowed rates after its last epoch."""
    best, slow = state.best, state.slowed
    for rule in training.options.rules.values():
        watched = _measure(run.found, str(rule.watch))[run.epochs - 1, ...]
        if isinstance(rule, EarlyStopping):
            best = better(rule, best, watched, state.epoch, (judged(run.carry), run.carry[1]))
        else:
            slow = slowed(rule, slow, watched, state.epoch)
    return state._replace(best=best, slowed=slow)
