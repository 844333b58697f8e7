"""The epochs of a training: steps, losses, and the rules that watch them."""

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import Array, to_host
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.training.epochs.set_up import Training
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.early_stopping import EarlyStopping, better
from backprop_xp.training.measures.plateau import slowed
from backprop_xp.training.rows.batches import (
    concat,
    count_of,
    in_blocks,
    index_tables,
    mean_of_batches,
    without_first,
)
from backprop_xp.training.steps.step import Carry, measured_theta

# An optimizer that may converge is asked after so many epochs: each time waits for the device.
EPOCHS_BETWEEN_READS = 20


def has_ended(state: TrainingState, options: Options) -> bool:
    """Whether all epochs are done, no network has improved for the patience, or all converged."""
    if state.epoch >= options.epochs or _have_converged(state, options):
        return True
    if options.early_stopping is None or state.best is None:
        return False
    return bool(state.epoch - state.best.epoch.max() >= options.early_stopping.patience)


def _have_converged(state: TrainingState, options: Options) -> bool:
    """Whether all networks have converged by their optimizer, read from the device now and then.

    The first epochs are taken in any case: they measure the loss.
    """
    read = getattr(options.optimizer, "has_converged", None)
    if read is None or not state.epoch or state.epoch % EPOCHS_BETWEEN_READS:
        return False
    return bool(to_host(read(state.optimizer_state)).all())


def run_epochs(
    training: Training, state: TrainingState, epochs: int, interrupt: Interrupt
) -> tuple[TrainingState, dict[str, Array], list[Array]]:
    """Return the state after more epochs, their measures, and the losses of their batches.

    The measures are ``(epochs, *stack)`` by name, or longer: ``state.epoch`` counts those that are
    meant. The losses, in parts, are ``(batches, *stack)``. ``epochs`` counts epochs of one full
    batch; of several batches, one epoch is run. A pending interrupt ends it early: the state may
    then be in the middle of an epoch, without measures. The memory of the given state is reused.
    """
    data, is_cut = training.data, state.batch_losses is not None
    with training.backend.no_grad():
        if data.source is None and data.batches == 1 and not is_cut:
            reached = _full_batches(training, state, epochs, interrupt)
        else:
            reached = _one_epoch(training, state, interrupt)
        return *_measured(training, state, reached), reached.losses


class _Reached(NamedTuple):
    """The result of a call of ``run_epochs``.

    ``losses`` of the batches are in parts. ``mean`` has the losses of the whole ``epochs``, ``cut``
    those of the batches after them, or None. ``measures`` are what ``evaluate`` returned, along an
    axis of epochs. They may be longer than their number, and so may ``mean``.
    """

    carry: Carry
    step: int
    losses: list[Array]
    measures: dict[str, Array]
    checks: Sequence[tuple[str, float]]
    epochs: int
    mean: Array
    cut: Array | None


def _full_batches(
    training: Training, state: TrainingState, epochs: int, interrupt: Interrupt
) -> _Reached:
    """Take a step for each of some epochs, and evaluate theta with it."""
    shared, carry = training.shared, _carry_of(state)
    ((rows, count),) = in_blocks(shared.rows, [epochs])
    shared = shared._replace(rows=rows)
    outcome = training.stepper.take(carry, count, state.step, shared, interrupt, state.slowed)
    whole, losses, cut = outcome.steps, outcome.losses, None
    if training.evaluated:  # an error may come between a step and its evaluation
        first = next(iter(outcome.measures.values()), None)
        whole = min(whole, 0 if first is None else first.shape[0])
    if whole < outcome.steps:
        losses, cut = losses[:whole, ...], losses[whole:, ...]
    measures, checks = outcome.measures, outcome.checks
    step = state.step + outcome.steps
    return _Reached(outcome.carry, step, [outcome.losses], measures, checks, whole, losses, cut)


def _one_epoch(training: Training, state: TrainingState, interrupt: Interrupt) -> _Reached:
    """Take the steps of an epoch of several batches, or those that are left, and evaluate theta."""
    stepper, epoch = training.stepper, _epoch_of(training, state, interrupt)
    carry, step, found, is_whole = _carry_of(state), state.step, dict[str, Array](), False
    losses = [] if state.batch_losses is None else [state.batch_losses]
    checks = [] if state.batch_losses is None else [*state.checks]
    last_step = (state.epoch + 1) * (training.data.batches or 0)
    try:
        for rows, batches in epoch.pieces:
            shared = training.shared._replace(rows=rows)
            outcome = stepper.take(carry, batches, step, shared, interrupt, state.slowed)
            carry, step = outcome.carry, step + outcome.steps
            checks += outcome.checks
            is_longer = outcome.losses.shape[0] > outcome.steps
            losses.append(outcome.losses[: outcome.steps, ...] if is_longer else outcome.losses)
            if interrupt.is_pending:
                break
        else:
            is_whole = True
        is_whole = is_whole or step == last_step
        if is_whole and training.evaluated:
            last = stepper.evaluate(measured_theta(carry), training.evaluated)
            found = {name: value[None, ...] for name, value in last.items()}
    except BaseException as error:
        if not losses:  # the state is as it was
            raise
        interrupt.error, is_whole = error, False
    finally:
        epoch.pieces.close()
    mean = epoch.mean(losses) if is_whole else concat(losses, axis=0)
    cut = None if is_whole else mean
    return _Reached(carry, step, losses, found, checks, int(is_whole), mean, cut)


class _Epoch(NamedTuple):
    """The batches of an epoch that are left: their rows in pieces, and the mean of all losses.

    Each piece is rows, and the table of its batches' indices, or a number of full batches.
    """

    pieces: Generator[tuple[Rows, Any]]
    mean: Callable[[Sequence[Array]], Array]


def _epoch_of(training: Training, state: TrainingState, interrupt: Interrupt) -> _Epoch:
    """Return the rest of the epoch that a state has begun, or the next one."""
    data, options, rows = training.data, training.options, training.shared.rows
    done = 0 if state.batch_losses is None else state.batch_losses.shape[0]
    if data.source is not None:
        counts = list[Array]()
        pieces = _batches(data.source(state.epoch, interrupt), done, counts)
        return _Epoch(pieces, lambda losses: mean_of_batches(concat(losses, axis=0), counts))
    if data.batches == 1:  # its one batch was taken before
        return _Epoch(in_blocks(rows, []), functools.partial(concat, axis=0))
    stack = tuple(state.theta.shape[:-1])
    tables = index_tables(rows, data.size, options.shuffle, options.seed, state.epoch, stack)
    pieces = in_blocks(rows, without_first(tables, done))
    return _Epoch(pieces, lambda losses: training.mean_over(tables, losses, rows.sample_weight))


def _batches(
    batches: Generator[Rows], done: int, counts: list[Array]
) -> Generator[tuple[Rows, int]]:
    """Yield a source's batches but those that are done; ``counts`` gets what each counts."""
    with contextlib.closing(batches):
        for rows in batches:
            counts.append(count_of(rows))
            if len(counts) > done:
                yield rows, 1


def _carry_of(state: TrainingState) -> Carry:
    return state.theta, state.optimizer_state, state.average


def _measured(
    training: Training, state: TrainingState, reached: _Reached
) -> tuple[TrainingState, dict[str, Array]]:
    """Return the state after some steps, and the measures of their whole epochs."""
    theta, optimizer_state, average = reached.carry
    state = state._replace(
        epoch=state.epoch + reached.epochs,
        step=reached.step,
        theta=theta,
        optimizer_state=optimizer_state,
        average=average,
        checks=tuple(reached.checks),
        batch_losses=reached.cut,
        batch_size=training.data.size,
    )
    if not reached.epochs:
        return state, {}
    _, *names = training.options.measures
    measures = {"loss": reached.mean, **{name: _measure(reached.measures, name) for name in names}}
    last = {name: values[reached.epochs - 1, ...] for name, values in measures.items()}
    if training.options.rules:
        state = _watched(training, state, reached.carry, last)
    state = state._replace(
        loss=last.pop("loss"), validation_loss=last.pop("validation_loss", None), metrics=last
    )
    return state, measures


def _measure(found: dict[str, Array], name: str) -> Array:
    """Return a measure by its name in the history.

    ``found`` names a measure of the validation set, or else the training set, without a prefix.
    """
    name = "loss" if name == "validation_loss" else name
    return found[name] if name in found else found[name.removeprefix("training_")]


def _watched(
    training: Training, state: TrainingState, carry: Carry, measures: dict[str, Array]
) -> TrainingState:
    """Return the state with the best networks and the slowed rates after its last epoch."""
    best, slow = state.best, state.slowed
    for rule in training.options.rules:
        watched = measures[str(rule.watch)]
        if isinstance(rule, EarlyStopping):
            kept = measured_theta(carry), state.optimizer_state
            best = better(rule, best, watched, state.epoch, kept)
        else:
            slow = slowed(rule, slow, watched, state.epoch)
    return state._replace(best=best, slowed=slow)
