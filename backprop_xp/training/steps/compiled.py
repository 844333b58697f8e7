"""The steps of a training where the library compiles: one, or many in one call.

``traced`` has the functions that are compiled.
"""

import math
import operator
import time
from collections.abc import Sequence
from typing import Any

from backprop_xp.backends import (
    Array,
    agreed,
    array_namespace,
    integer_array,
    like,
    require_owner,
    to_host,
)
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.measures.plateau import Slowed
from backprop_xp.training.optimizers.pytrees import mapped
from backprop_xp.training.steps.eager import Method, OneByOne, Outcome, StepFunctions, check_updated
from backprop_xp.training.steps.step import Carry, Shared, StepInput
from backprop_xp.training.steps.traced import Constants, compiled_steps

# Numbers in the arrays of a schedule that one compiled call takes.
_MOST_RATES = 2**22
# The length to which shorter columns of numbers are repeated. For many networks it is shorter, so
# that their losses are about so many numbers.
_LEAST_STEPS, _MOST_LOSSES = 2**10, 2**13
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


class Compiled:
    """A stepper whose library compiles one step, and a loop of many."""

    def __init__(self, method: Method, theta: Array) -> None:
        self._method = method
        functions = compiled_steps(
            require_owner(theta, "theta"),
            method.network,
            method.optimizer,
            method.traits,
            method.metrics,
            method.size,
        )
        self._step, self._loop, self.evaluate, hyperparameters = functions
        self._constants, self._queue = Constants(None, hyperparameters), Queue()
        self._single = OneByOne(method, StepFunctions(self._queued, self.evaluate))

    def take(
        self,
        carry: Carry,
        batches: int | Array,
        first: int,
        shared: Shared,
        interrupt: Interrupt,
        slowed: Slowed | None = None,
    ) -> Outcome:
        """Take a step for each batch, as ``eager.Stepper`` says."""
        theta, count = carry[0], batches if isinstance(batches, int) else batches.shape[0]
        if count > 1 and self._method.monitor is None:
            steps, constants = range(first, first + count), self._constants
            rates, weights = self._method.rates(steps, theta, slowed), self._method.weights(steps)
            if hasattr(rates[0], "shape") and all(rate is rates[0] for rate in rates):
                constants, rates = constants._replace(learning_rate=rates[0]), [None] * count
            columns = _columns(theta, batches, steps, rates, weights)
            if columns is not None:
                return self._in_calls(count, carry, columns, (shared, constants), interrupt)
        return self._single.take(carry, batches, first, shared, interrupt, slowed)

    def _queued(self, carry: Carry, varying: StepInput, shared: Shared) -> tuple[Carry, Array]:
        """Take one compiled step, which counts in the queue."""
        (theta, state, average), loss = self._step(carry, varying, shared, self._constants)
        self._queue.add(1, loss)
        return (theta, _with_int_step(carry[1], state, 1), average), loss

    def _in_calls(
        self,
        count: int,
        carry: Carry,
        columns: StepInput,
        shared: tuple[Shared, Constants],
        interrupt: Interrupt,
    ) -> Outcome:
        """Take the steps of the first ``count`` columns in compiled calls of a second at most."""
        given, done = carry[0], 0
        outcomes: Any = None
        while done < count and not (done and interrupt.is_pending):
            last, before = min(count, done + self._queue.room), carry[1]
            (theta, state, average), found = self._loop(carry, columns, done, last, *shared)
            # An int again: the compiler would make another function for an array in its place.
            carry = theta, _with_int_step(before, state, last - done), average
            # A call returns zeros for the steps that it did not take.
            outcomes = found if outcomes is None else mapped(operator.add, outcomes, found)
            self._queue.add(last - done, found[0])
            done = last
        check_updated(given, carry[0])
        losses, found = outcomes
        return Outcome(carry, done, losses, found, [])


def _with_int_step(before: Any, state: Any, steps: int) -> Any:
    """Return a state whose ``step`` is an int again, if it was one before a compiled call."""
    count = getattr(before, "step", None)
    if not isinstance(count, int) or not hasattr(state, "_replace") or isinstance(state.step, int):
        return state
    return state._replace(step=count + steps)


def _columns(
    theta: Array,
    batches: int | Array,
    steps: range,
    rates: Sequence[Any],
    weights: Sequence[float | None],
) -> StepInput | None:
    """Return the inputs of many steps, along a new first axis; None for rates that do not stack.

    Full batches are repeated up to a power of two, beside numbers to at least ``_LEAST_STEPS``,
    since a compiler makes a function for each length.
    """
    xp, count, column = array_namespace(theta), len(rates), rates[0]
    are_floats = all(isinstance(rate, float) for rate in rates)
    if column is not None and not are_floats:
        shapes = {getattr(rate, "shape", None) for rate in rates}
        if len(shapes) > 1 or math.prod(column.shape) * count > _MOST_RATES:
            return None
    if isinstance(batches, int):
        networks, least = math.prod(theta.shape[:-1]), count
        if column is None or are_floats:
            least = min(_LEAST_STEPS, _MOST_LOSSES // networks)
        count = 1 << (max(count, least) - 1).bit_length()
        rates, weights = ([*each, *[each[-1]] * (count - len(each))] for each in (rates, weights))
    if are_floats:
        column = like(theta, rates, "learning_rate")
    elif column is not None:
        column = xp.stack(rates)
    # From the host: on the device, arithmetic would be compiled for each length.
    numbers = integer_array(theta, [*range(steps.start, steps.start + count)], "numbers")
    weight = None if weights[0] is None else like(theta, weights, "weights")
    return StepInput(None if isinstance(batches, int) else batches, numbers, column, weight)
