"""The epochs of a training: batch after batch, or in few compiled calls where the library can."""

import math
from collections.abc import Iterator
from numbers import Number
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner
from backprop_xp.batches import order_of, parts_of, table_of
from backprop_xp.gradient_check.live import Watch, draw_sizes, no_watch
from backprop_xp.inputs import Rows
from backprop_xp.network import Network
from backprop_xp.optimizers import Optimizer
from backprop_xp.random import as_int32
from backprop_xp.updates import (
    Carry,
    Given,
    Shared,
    Updates,
    columns,
    constant_rate,
    rates_are_numbers,
    scheduled_rate,
    weighted_mean,
)

# Epochs in one compiled call, which cannot be interrupted.
_BLOCK = 2000


class TrainingState(NamedTuple):
    """Where training stands after an epoch; valid until the next state is drawn.

    ``loss`` is the mean over the epoch's batches, each measured before its own update;
    ``validation_loss`` is measured after the epoch, without dropout and penalty. Both are
    ``(*stack,)`` on the device. ``watch`` is what gradient checks found in the epoch, if any was
    made: its ``errors`` are arrays ``(*stack,)`` on the device, one for each.
    """

    epoch: int
    step: int
    theta: Array
    optimizer_state: Any
    loss: Array
    validation_loss: Array | None
    watch: Watch | None = None


class Plan(NamedTuple):
    """The checked options of a training run."""

    optimizer: Optimizer
    epochs: int
    batch_size: int
    shuffle: bool
    seed: int
    clip: float | None
    check_every: int | None


class Run(NamedTuple):
    """A training run, checked: theta is a copy, the rows are beside it."""

    network: Network
    theta: Array
    rows: Rows
    held_out: Rows | None
    plan: Plan
    updates: Updates

    def order(self, epoch: int) -> Array | None:
        """Return the order of an epoch's rows, None for their own."""
        plan, rows = self.plan, self.rows
        order = order_of(rows, plan.batch_size, plan.seed if plan.shuffle else None, epoch)
        count = rows.x.shape[-2]
        if order is None and self.updates.many is not None and plan.batch_size < count:
            # A compiled call is given places, not slices.
            xp = array_namespace(rows.x)
            return xp.arange(count, dtype=xp.int32, device=device_of(rows.x))
        return order


def _start(run: Run) -> tuple[Carry, Shared]:
    """Return what a training begins with."""
    # A state may hold an array twice, theta, or the caller's own, and its memory is reused.
    carry = Carry(run.theta, _copied(run.plan.optimizer.initialize(run.theta)))
    return carry, Shared(run.rows, run.held_out, as_int32(run.plan.seed))


def _with_rate(shared: Shared, run: Run, theta: Array) -> Shared:
    """Return what updates share, with the rate as it is now: a callback may change one's own."""
    return shared._replace(learning_rate=constant_rate(run.plan.optimizer, theta))


def _copied(state: Any) -> Any:
    """Return an optimiser's state, tuples, lists and dicts of anything, with its arrays copied."""
    if type(state) is dict:
        return {name: _copied(value) for name, value in state.items()}
    if type(state) in (list, tuple) or hasattr(state, "_make"):
        make = getattr(state, "_make", type(state))
        return make([_copied(value) for value in state])
    if isinstance(state, Number) or owner(state) is None:
        return state
    return array_namespace(state).asarray(state, copy=True)


def epoch_by_epoch(run: Run) -> Iterator[tuple[TrainingState, tuple[Array, Array | None]]]:
    """Yield the state after each epoch, and its losses along a first axis of one."""
    carry, shared = _start(run)
    plan, updates = run.plan, run.updates
    first = _count_of(carry.optimizer_state)
    sizes = None if plan.check_every is None else draw_sizes(run.theta, plan.seed)
    number = 0
    for epoch in range(plan.epochs):
        order = run.order(epoch)
        shared = _with_rate(shared, run, carry.theta)
        watched = None
        if updates.many is not None and order is not None and sizes is None:
            carry, loss, number = _in_one_call(run, carry, shared, order, number)
        else:
            carry, loss, number, watched = _one_by_one(run, carry, shared, order, number, sizes)
        held_out = None if run.held_out is None else updates.evaluate(carry.theta, run.held_out)
        state = _with_count(carry.optimizer_state, first, number)
        losses = loss[None, ...], None if held_out is None else held_out[None, ...]
        yield TrainingState(epoch + 1, number, carry.theta, state, loss, held_out, watched), losses


def _one_by_one(
    run: Run, carry: Carry, shared: Shared, order: Array | None, number: int, sizes: Array | None
) -> tuple[Carry, Array, int, Watch | None]:
    """Do an epoch's updates from ``number`` on.

    Returns the carry after it, its mean loss, the next number, and what watching it found.
    """
    plan, updates = run.plan, run.updates
    losses, shares, watched = [], [], None
    for part in parts_of(run.rows, plan.batch_size, order):
        given = Given(part, number, scheduled_rate(plan.optimizer, number, carry.theta))
        if plan.check_every is not None and number % plan.check_every == 0:
            watched = no_watch(carry.theta) if watched is None else watched
            carry, (loss, share), worst, error = updates.watched(
                carry, given, shared, sizes, watched.worst
            )
            watched = Watch([*watched.numbers, number], [*watched.errors, error], worst)
        else:
            carry, (loss, share) = updates.one(carry, given, shared)
        number += 1
        losses.append(loss)
        shares.append(share)
    return carry, weighted_mean(losses, shares), number, watched


def _in_one_call(
    run: Run, carry: Carry, shared: Shared, order: Array, number: int
) -> tuple[Carry, Array, int]:
    """Do as ``_one_by_one``, with all full batches in one compiled call."""
    plan, updates = run.plan, run.updates
    table, rest = table_of(order, plan.batch_size)
    given = columns(carry.theta, table, number, table.shape[0], plan.optimizer)
    carry, (loss, share) = updates.many(carry, given, shared)
    number += table.shape[0]
    if rest is None:
        return carry, loss, number
    last = Given(rest, number, scheduled_rate(plan.optimizer, number, carry.theta))
    carry, (last_loss, last_share) = updates.one(carry, last, shared)
    return carry, weighted_mean([loss, last_loss], [share, last_share]), number + 1


def are_one_call(run: Run) -> bool:
    """Say whether epochs that nobody looks at can be one compiled call: each is one update."""
    plan, rows = run.plan, run.rows.x.shape[-2]
    whole = plan.batch_size >= rows and plan.check_every is None
    return run.updates.epochs is not None and whole and rates_are_numbers(plan.optimizer)


def blocks(run: Run) -> Iterator[tuple[TrainingState, tuple[Array, Array | None]]]:
    """Yield the state after many epochs of one update each, and the losses of all of them."""
    carry, shared = _start(run)
    shared = _with_rate(shared, run, carry.theta)
    epochs, first_count = run.plan.epochs, _count_of(carry.optimizer_state)
    size = math.ceil(epochs / math.ceil(epochs / _BLOCK))  # nearly equal: two lengths at most
    for first in range(0, epochs, size):
        done = min(first + size, epochs)
        given = columns(carry.theta, None, first, done - first, run.plan.optimizer)
        carry, (losses, held_out) = run.updates.epochs(carry, given, shared)
        state = _with_count(carry.optimizer_state, first_count, done)
        last = losses[-1, ...], None if held_out is None else held_out[-1, ...]
        yield TrainingState(done, done, carry.theta, state, *last), (losses, held_out)


def _count_of(state: Any) -> int | None:
    """Return the updates that an optimiser's state has counted, None if it does not."""
    step = getattr(state, "step", None)
    return step if isinstance(step, int) and hasattr(state, "_replace") else None


def _with_count(state: Any, first: int | None, number: int) -> Any:
    """Return a state whose ``step`` is an int again, if it began as one and a compiler took it."""
    if first is None or isinstance(state.step, int):
        return state
    return state._replace(step=first + number)
