"""The epochs of a training: batch after batch, or in few compiled calls where the library can."""

import math
from collections.abc import Callable, Iterator
from numbers import Number
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner, to_host
from backprop_xp.batches import member, order_of, parts_of, table_of, take
from backprop_xp.checks import unravel
from backprop_xp.gradient_check import GradientCheckError, check_network
from backprop_xp.inputs import Rows
from backprop_xp.network import Network
from backprop_xp.optimizers import Optimizer
from backprop_xp.random import as_int32, fold_in
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
# A difference so near to the gradient, in float64 and float32, leaves no doubt about it. Rounding
# makes less; near a kink or an optimum there may be doubts, which a check along directions settles.
_NEAR = {8: 1e-6, 4: 1e-3}


class TrainingState(NamedTuple):
    """Where training stands after an epoch; valid until the next state is drawn.

    ``loss`` is the mean over the epoch's batches, each measured before its own update;
    ``validation_loss`` is measured after the epoch, without dropout and penalty. Both are
    ``(*stack,)`` on the device. ``checks`` are the verdicts and errors of the epoch's gradient
    checks.
    """

    epoch: int
    step: int
    theta: Array
    optimizer_state: Any
    loss: Array
    validation_loss: Array | None
    checks: tuple[tuple[str, float], ...] = ()


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
    carry = Carry(run.theta, copied(run.plan.optimizer.initialize(run.theta)))
    return carry, Shared(run.rows, run.held_out, as_int32(run.plan.seed))


def _with_rate(shared: Shared, run: Run, theta: Array) -> Shared:
    """Return what updates share, with the rate as it is now: a callback may change one's own."""
    return shared._replace(learning_rate=constant_rate(run.plan.optimizer, theta))


def copied(state: Any) -> Any:
    """Return a structure, an optimiser's state, say, with its arrays copied, without any graph."""

    def copy(value: Any) -> Any:
        home = None if isinstance(value, Number) else owner(value)
        if home is None:
            return value
        alone = home.detached(value)
        return array_namespace(alone).asarray(alone, copy=True)

    return mapped(copy, state)


def mapped(function: Callable[..., Any], state: Any, *others: Any) -> Any:
    """Return a structure of what a function makes of the leaves of one, or several alike."""
    if type(state) is dict:
        return {k: mapped(function, state[k], *(other[k] for other in others)) for k in state}
    if type(state) in (list, tuple) or hasattr(state, "_make"):
        make = getattr(state, "_make", type(state))
        return make([mapped(function, *parts) for parts in zip(state, *others, strict=True)])
    return function(state, *others)


def epoch_by_epoch(run: Run) -> Iterator[tuple[TrainingState, tuple[Array, Array | None]]]:
    """Yield the state after each epoch, and its losses along a first axis of one."""
    carry, shared = _start(run)
    plan, updates = run.plan, run.updates
    first = _count_of(carry.optimizer_state)
    number = 0
    for epoch in range(plan.epochs):
        order = run.order(epoch)
        shared = _with_rate(shared, run, carry.theta)
        checks: list[tuple[str, float]] = []
        if updates.many is not None and order is not None and plan.check_every is None:
            carry, loss, number = _in_one_call(run, carry, shared, order, number)
        else:
            carry, loss, number, checks = _one_by_one(run, carry, shared, order, number)
        held_out = None if run.held_out is None else updates.evaluate(carry.theta, run.held_out)
        state = _with_count(carry.optimizer_state, first, number)
        losses = loss[None, ...], None if held_out is None else held_out[None, ...]
        yield (
            TrainingState(epoch + 1, number, carry.theta, state, loss, held_out, tuple(checks)),
            losses,
        )


def _one_by_one(
    run: Run, carry: Carry, shared: Shared, order: Array | None, number: int
) -> tuple[Carry, Array, int, list[tuple[str, float]]]:
    """Do an epoch's updates from ``number`` on.

    Returns the carry after it, its mean loss, the next number, and what its checks found.
    """
    plan, updates = run.plan, run.updates
    losses, shares, checks = [], [], []
    for part in parts_of(run.rows, plan.batch_size, order):
        if plan.check_every is not None and number % plan.check_every == 0:
            checks.append(_checked(run, carry.theta, part, number))
        given = Given(part, number, scheduled_rate(plan.optimizer, number, carry.theta))
        carry, (loss, share) = updates.one(carry, given, shared)
        number += 1
        losses.append(loss)
        shares.append(share)
    return carry, weighted_mean(losses, shares), number, checks


def _checked(run: Run, theta: Array, part: Any, number: int) -> tuple[str, float]:
    """Check the gradient of an update's batch; return the verdict and the relative error.

    A network of a stack whose gradient one difference leaves in doubt is checked along directions;
    GradientCheckError is raised if it is wrong. One that has diverged has no gradient.
    """
    batch = take(run.rows, part)._replace(rng=fold_in(run.plan.seed, number))
    errors = to_host(_difference(run.network, theta, batch))
    stack, each = errors.shape, errors.reshape(-1).tolist()
    worst = max(each)
    if worst <= _NEAR[errors.dtype.itemsize]:
        return "pass", worst
    place = tuple(unravel(each.index(worst), stack))
    one = member(batch, place, stack)
    report = check_network(
        run.network, theta[(*place, ...)], one.x, one.y, sample_weight=one.sample_weight,
        rng=batch.rng, method="directional",
    )  # fmt: skip
    if report.verdict == "fail":
        error = GradientCheckError(f"In the batch of update {number}:\n{report}")
        error.report = report
        raise error
    return report.verdict, report.max_relative_error


def _difference(network: Network, theta: Array, batch: Rows) -> Array:
    """Return how far one central difference is from each network's gradient, ``(*stack,)``.

    The direction has the gradient's signs; along it the loss changes by a small part of itself. It
    is infinite where that is no number, as where nothing changes, and 0 of a theta that is not
    finite.
    """
    x, y, weight, rng = batch
    loss, gradient = network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=rng)
    xp = array_namespace(theta)
    direction, slope = xp.sign(gradient), xp.sum(xp.abs(gradient), axis=-1)
    change = float(xp.finfo(theta.dtype).eps) ** (1.0 / 3.0) * xp.abs(loss)
    nothing = xp.astype((slope == 0.0) | (change == 0.0), theta.dtype)
    away = (change / (slope + nothing))[..., None] * direction
    ahead, behind = (
        network.loss(moved, x, y, sample_weight=weight, rng=rng)
        for moved in (theta + away, theta - away)
    )
    error = xp.abs((ahead - behind) / 2.0 - change) / (change + nothing) + nothing
    error = xp.where(xp.isnan(error), xp.full_like(error, math.inf), error)
    return xp.where(xp.all(xp.isfinite(theta), axis=-1), error, xp.zeros_like(error))


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
