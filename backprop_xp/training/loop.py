"""The loop of a training: steps one by one, or many in one compiled call."""

import functools
import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backprop_xp.backends import (
    Array,
    agreed,
    array_namespace,
    integer_array,
    like,
    require_owner,
    stack,
    to_host,
)
from backprop_xp.networks.compiled_layers import compiled_network
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import Views, loss_and_gradient_of, views_of
from backprop_xp.training.accumulation import accumulate
from backprop_xp.training.averages import Average
from backprop_xp.training.compiled import compiled
from backprop_xp.training.early_stopping import Slowed
from backprop_xp.training.gradient_monitor import GradientMonitor
from backprop_xp.training.interrupt import Interrupt
from backprop_xp.training.learning_rates import learning_rates
from backprop_xp.training.metrics import Metric
from backprop_xp.training.optimizers import Optimizer
from backprop_xp.training.pytrees import copied, mapped
from backprop_xp.training.ranks import Ranks
from backprop_xp.training.row_shares import joined_pieces
from backprop_xp.training.steps import (
    Carry,
    Shared,
    StepInput,
    evaluate,
    is_built_in,
    judged,
    step,
    update_of,
)

# Numbers in the arrays of a schedule that one compiled call takes.
_MOST_RATES = 2**22
# Seconds of work that may be queued on an asynchronous library before the loop waits.
_SECONDS_AHEAD = 1.0


class Queue:
    """The number of steps that may be queued on an asynchronous library before the loop waits.

    It is what the library computes in about a second, as measured. Ctrl-C waits no longer.
    """

    def __init__(self) -> None:
        self._allowed, self._given, self._since = 1, 0, time.perf_counter()

    @property
    def room(self) -> int:
        """The number of steps that may follow without waiting."""
        return self._allowed - self._given

    def add(self, steps: int, losses: Array) -> None:
        """Count queued steps; wait for their losses if the queue is full."""
        self._given += steps
        if self.room > 0:
            return
        to_host(losses)
        seconds, most = time.perf_counter() - self._since, 10 * self._given
        # The first call compiles, which takes longer than any step.
        allowed = max(1, min(most, int(self._given / seconds * _SECONDS_AHEAD)))
        self._allowed = agreed(losses, allowed)
        self._given, self._since = 0, time.perf_counter()


@dataclass
class Stepper:
    """The functions that compute a training's steps, and the buffers that they reuse.

    ``one`` takes a step; ``many``, None without a compiler, takes steps in one compiled call.
    ``evaluate(theta, sets)`` returns the loss and the metrics by name. ``batches`` is
    the number of steps in an epoch, None if it is not known. ``is_compiled`` tells whether the
    functions use a backend's compiled loops.
    """

    network: Network
    optimizer: Optimizer
    one: Callable[[Carry, StepInput, Shared], tuple[Carry, Array]]
    many: Callable[..., Any] | None
    evaluate: Callable[..., dict[str, Array]]
    hyperparameters: Mapping[str, Any] | None = None
    average: Average | None = None
    monitor: GradientMonitor | None = None
    batches: int | None = 1
    views: Views | None = None
    is_compiled: bool = False
    queue: Queue = field(default_factory=Queue)

    def take_over(self, other: "Stepper") -> None:
        """Take the functions of another stepper, which computes the same in another way."""
        self.network, self.one, self.evaluate = other.network, other.one, other.evaluate
        self.views, self.is_compiled = None, other.is_compiled
        if self.monitor is not None:
            self.monitor = self.monitor._replace(network=other.network)

    @property
    def keeps_views(self) -> bool:
        """Whether all steps share the gradient's buffer: built-in optimizers keep no gradient."""
        return self.many is None and is_built_in(self.optimizer)

    @property
    def may_fail_midway(self) -> bool:
        """Whether an update may leave theta half written: a compiled or built-in one does not."""
        return self.many is None and not is_built_in(self.optimizer)


class Taken(NamedTuple):
    """The result of some steps: the carry after them, their number, and the measures of each.

    ``losses`` are each batch's loss before its step, ``(steps, *stack)``; ``found`` is what
    ``evaluate`` returned after each step, along such an axis; ``checks`` are gradient checks. Both
    arrays may be longer than ``steps``.
    """

    carry: Carry
    steps: int
    losses: Array
    found: dict[str, Array]
    checks: list[tuple[str, float]]


def stepper_of(
    network: Network,
    optimizer: Optimizer,
    metrics: Mapping[str, Metric],
    theta: Array,
    size: int | None,
    ranks: Ranks,
    kernels: Any = None,
) -> Stepper:
    """Return a training's stepper, compiled where the library compiles.

    ``size`` is the number of rows whose gradient is computed at a time, None for a whole batch.
    """
    backend = require_owner(theta, "theta")
    if kernels is not None:
        network = compiled_network(network, kernels)
    gradient = ranks.summed(accumulate(functools.partial(loss_and_gradient_of, network), size))
    one = functools.partial(step, gradient, update_of(optimizer, theta, kernels))
    if backend.loop(one) is None:
        in_pieces = functools.partial(joined_pieces, ranks)
        judge = functools.partial(evaluate, network, dict(metrics), in_pieces)
        return Stepper(network, optimizer, one, None, judge, is_compiled=kernels is not None)
    made = compiled(backend, network, optimizer, dict(metrics), size)
    return Stepper(network, optimizer, *made)


def take_steps(
    stepper: Stepper,
    carry: Carry,
    batches: int | Array,
    first: int,
    shared: Shared,
    interrupt: Interrupt,
    slowed: Slowed | None = None,
) -> Taken:
    """Take a step for each batch, numbered from ``first``.

    ``batches`` is a table of row indices, ``(batches, size)``, or a number of full batches. No more
    steps are taken once ``interrupt`` is pending. It delays an error that comes after the first
    step: the steps before it are complete.
    """
    theta, table = carry[0], None if isinstance(batches, int) else batches
    count = batches if isinstance(batches, int) else batches.shape[0]
    steps = range(first, first + count)
    rates = learning_rates(stepper.optimizer, steps, theta, slowed, stepper.batches)
    if stepper.keeps_views and (stepper.views is None or stepper.views.theta is not theta):
        stepper.views = views_of(stepper.network, theta)
    shared = shared._replace(views=stepper.views, hyperparameters=stepper.hyperparameters)
    if hasattr(rates[0], "shape") and all(rate is rates[0] for rate in rates):
        shared, rates = shared._replace(learning_rate=rates[0]), [None] * count
    weights: list[Any] = [None] * count
    if stepper.average is not None:
        weights = [stepper.average.weight(step + 1, stepper.batches or 1) for step in steps]
    columns = None
    if stepper.many is not None and count > 1 and stepper.monitor is None:
        columns = _columns(theta, table, first, rates, weights)
    if stepper.many is None or columns is None:
        if stepper.many is None:  # a weight of 0 takes no work
            weights = [weight or None for weight in weights]
        indices = [None] * count if table is None else (table[i, ...] for i in range(count))
        inputs = map(StepInput, indices, steps, rates, weights)
        taken = _one_by_one(stepper, carry, inputs, shared, interrupt)
    else:
        taken = _in_calls(stepper, count, carry, columns, shared, interrupt)
    updated = taken.carry[0]  # theta may have been donated: it has a dtype and a shape, no device
    if updated.dtype != theta.dtype or tuple(updated.shape) != tuple(theta.shape):
        raise ValueError(
            f"The optimizer's update returned a theta of {updated.dtype} and shape "
            f"{tuple(updated.shape)}, but it was given one of {theta.dtype} and "
            f"{tuple(theta.shape)}."
        )
    return taken


def _in_calls(
    stepper: Stepper,
    count: int,
    carry: Carry,
    columns: StepInput,
    shared: Shared,
    interrupt: Interrupt,
) -> Taken:
    """Take the steps of the first ``count`` columns in compiled calls of a second at most."""
    many: Any = stepper.many
    outcomes: Any = None
    done, queue = 0, stepper.queue
    while done < count and not (done and interrupt.is_pending):
        last, before = min(count, done + queue.room), carry[1]
        (theta, state, average), found = many(carry, columns, done, last, shared)
        # An int again: the compiler would make another function for an array in its place.
        carry = theta, _with_int_step(before, state, last - done), average
        # A call returns zeros for the steps that it did not take.
        outcomes = found if outcomes is None else mapped(operator.add, outcomes, found)
        queue.add(last - done, found[0])
        done = last
    losses, found = outcomes
    return Taken(carry, done, losses, found, [])


def _one_by_one(
    stepper: Stepper,
    carry: Carry,
    inputs: Iterable[StepInput],
    shared: Shared,
    interrupt: Interrupt,
) -> Taken:
    """Take steps one by one, and delay an error that comes after the first of them.

    If an update may fail midway, each epoch begins with a copy, which an error restores.
    """
    losses: list[Array] = []
    found: list[dict[str, Array]] = []
    checks: list[tuple[str, float]] = []
    whole, kept, may_fail = 0, carry, stepper.may_fail_midway
    take_one = stepper.one if stepper.many is None else functools.partial(_queued_step, stepper)
    for own in inputs:
        if may_fail and (own.indices is None or not losses):
            whole, kept, carry = len(losses), carry, copied(carry)
        try:
            if stepper.monitor is not None:
                checks += stepper.monitor.check(carry[0], shared.rows, own.indices, own.number)
            carry, loss = take_one(carry, own, shared)
            losses.append(loss)
            if shared.evaluated:
                found.append(stepper.evaluate(judged(carry), shared.evaluated))
        except BaseException as error:
            if may_fail:
                carry, losses, found = kept, losses[:whole], found[:whole]
            if not losses:
                raise
            interrupt.error = error
        if interrupt.is_pending:
            break
    joined = {name: stack(*(each[name] for each in found)) for name in (found[0] if found else ())}
    return Taken(carry, len(losses), stack(*losses), joined, checks)


def _queued_step(
    stepper: Stepper, carry: Carry, own: StepInput, shared: Shared
) -> tuple[Carry, Array]:
    """Take one compiled step, which counts in the queue."""
    (theta, state, average), loss = stepper.one(carry, own, shared)
    stepper.queue.add(1, loss)
    return (theta, _with_int_step(carry[1], state, 1), average), loss


def _with_int_step(before: Any, state: Any, steps: int) -> Any:
    """Return a state whose ``step`` is an int again, if it was one before a compiled call."""
    count = getattr(before, "step", None)
    if not isinstance(count, int) or not hasattr(state, "_replace") or isinstance(state.step, int):
        return state
    return state._replace(step=count + steps)


def _columns(
    theta: Array,
    table: Array | None,
    first: int,
    rates: Sequence[Any],
    weights: Sequence[float | None],
) -> StepInput | None:
    """Return the inputs of many steps, along a new first axis; None for rates that do not stack.

    Full batches are repeated up to a power of two, since a compiler makes a function for each
    length.
    """
    xp, count, column = array_namespace(theta), len(rates), rates[0]
    are_floats = all(isinstance(rate, float) for rate in rates)
    if column is not None and not are_floats:
        shapes = {getattr(rate, "shape", None) for rate in rates}
        if len(shapes) > 1 or math.prod(column.shape) * count > _MOST_RATES:
            return None
    if table is None:
        count = 1 << (count - 1).bit_length()
        rates, weights = ([*each, *[each[-1]] * (count - len(each))] for each in (rates, weights))
    if are_floats:
        column = like(theta, rates, "learning_rate")
    elif column is not None:
        column = xp.stack(rates)
    # From the host: on the device, arithmetic would be compiled for each length.
    numbers = integer_array(theta, [*range(first, first + count)], "numbers")
    weight = None if weights[0] is None else like(theta, weights, "weights")
    return StepInput(table, numbers, column, weight)
