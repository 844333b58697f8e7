"""The steps of a training, taken one by one."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from backprop_xp.backends import Array, TrainingTable, holding, require_owner, stack
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.chain.propagation import every_layer
from backprop_xp.networks.derivatives.bound import BoundNetwork, bind, loss_and_gradient_of
from backprop_xp.networks.derivatives.definition import Definition
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.process_protocol import Processes
from backprop_xp.training.measures.averages import Average
from backprop_xp.training.measures.metrics import Metric
from backprop_xp.training.measures.plateau import Plateau, Slowed, lowered
from backprop_xp.training.optimizers.learning_rates import learning_rates
from backprop_xp.training.optimizers.protocol import AnyOptimizer, Traits
from backprop_xp.training.optimizers.pytrees import copied
from backprop_xp.training.steps.accumulation import Gradient, accumulate
from backprop_xp.training.steps.gradient_monitor import GradientMonitor
from backprop_xp.training.steps.step import (
    Carry,
    Sets,
    Shared,
    StepInput,
    evaluate,
    measured_theta,
    step,
    step_of,
)


class Method(NamedTuple):
    """The parts of a training's steps that are no arrays.

    The gradient of ``size`` rows is computed at a time, None for a whole batch. ``batches`` is the
    number of steps in an epoch, None if it is not known.
    """

    network: Network
    optimizer: AnyOptimizer
    traits: Traits
    metrics: Mapping[str, Metric]
    size: int | None
    batches: int | None
    average: Average | None
    monitor: GradientMonitor | None
    plateau: Plateau | None

    def rates(self, steps: range, theta: Array, slowed: Slowed | None) -> list[Any]:
        """Return the learning rate of each step, as ``StepInput`` has it."""
        # Asked each time: a callback may change the rate of a user's own optimizer.
        rates = learning_rates(self.optimizer, self.batches, steps, theta)
        if self.plateau is None or slowed is None:
            return rates
        return lowered(self.plateau, slowed, rates, theta)

    def weights(self, steps: range) -> list[float | None]:
        """Return theta's weight in its average after each step; None without an average."""
        if self.average is None:
            return [None] * len(steps)
        return [self.average.weight(step + 1, self.batches or 1) for step in steps]


class Outcome(NamedTuple):
    """The result of some steps: the carry after them, their number, and the measures of each.

    ``losses`` are each batch's loss before its step, ``(steps, *stack)``; ``measures`` are what
    ``evaluate`` returned after each step, along such an axis; ``checks`` are gradient checks. Both
    arrays may be longer than ``steps``.
    """

    carry: Carry
    steps: int
    losses: Array
    measures: dict[str, Array]
    checks: list[tuple[str, float]]


class Stepper(Protocol):
    """What takes the steps of a training, and measures theta."""

    def evaluate(self, theta: Array, sets: Sets) -> dict[str, Array]:
        """Return the loss and the metrics on each set by name, as ``step.evaluate`` does."""
        ...

    def take(
        self,
        carry: Carry,
        batches: int | Array,
        first: int,
        shared: Shared,
        interrupt: Interrupt,
        slowed: Slowed | None = None,
    ) -> Outcome:
        """Take a step for each batch, numbered from ``first``.

        ``batches`` is a table of row indices, ``(batches, size)``, or a number of full batches. No
        more steps are taken once ``interrupt`` is pending. It delays an error that comes after the
        first step: the steps before it are complete.
        """
        ...


class StepFunctions(NamedTuple):
    """The functions that a stepper calls, and the replacements that hold while they run.

    ``take_one`` is ``step.step`` for one optimizer. If an update may fail midway, with theta half
    written, a stepper begins each epoch with a copy, which an error restores.
    """

    take_one: Callable[[Carry, StepInput, Shared], tuple[Carry, Array]]
    evaluate: Callable[[Array, Sets], dict[str, Array]]
    may_fail_midway: bool = False
    replacements: TrainingTable | None = None


def eager_functions(
    method: Method,
    processes: Processes,
    theta: Array,
    replacements: Mapping[str, Callable[..., Any]] | None,
) -> StepFunctions:
    """Return the functions of an eager library, and a backend's replacements for their steps."""
    network, traits = method.network, method.traits
    table = None
    if replacements is not None:
        table = TrainingTable(replacements, theta, every_layer(network.layers))
    gradient: Gradient = functools.partial(loss_and_gradient_of, network.definition)
    if traits.works_in_place and require_owner(theta, "theta").slices_are_views:
        gradient = into_one_buffer(network.definition)
    if method.size is not None:
        gradient = accumulate(gradient, method.size)
    summed = processes.summed(gradient)
    with holding(table):
        own = step_of(method.optimizer, traits, network, summed, theta)
    return StepFunctions(
        functools.partial(step, own),
        functools.partial(evaluate, network, method.metrics, processes.in_pieces),
        # What takes the objective writes in no place.
        may_fail_midway=not (traits.works_in_place or traits.takes_objective),
        replacements=table,
    )


def into_one_buffer(definition: Definition) -> Gradient:
    """Return ``loss_and_gradient_of`` for a theta that is updated in place.

    All calls with the same theta write into one gradient.
    """
    bound: BoundNetwork | None = None

    def loss_and_gradient(theta: Array, batch: Rows, l2: Any) -> tuple[Array, Array]:
        nonlocal bound
        if bound is None or bound.theta is not theta:
            bound = bind(definition, theta)
        return bound.loss_and_gradient(batch, l2)

    return loss_and_gradient


class OneByOne:
    """A stepper that takes the steps one by one.

    ``functions_with(theta, replacements)`` returns other functions. If the number of a training's
    steps is not known, they follow the first ones once it has lasted long; it is taken to last as
    long again.
    """

    def __init__(
        self,
        method: Method,
        functions: StepFunctions,
        functions_with: Callable[[Array, Any], StepFunctions] | None = None,
    ) -> None:
        self._method, self._functions, self._functions_with = method, functions, functions_with
        self._taken, self._rows = 0, 0

    def evaluate(self, theta: Array, sets: Sets) -> dict[str, Array]:
        """Return the loss and the metrics on each set by name."""
        with holding(self._functions.replacements):
            return self._functions.evaluate(theta, sets)

    def take(
        self,
        carry: Carry,
        batches: int | Array,
        first: int,
        shared: Shared,
        interrupt: Interrupt,
        slowed: Slowed | None = None,
    ) -> Outcome:
        """Take a step for each batch, as ``Stepper`` says."""
        method, theta = self._method, carry[0]
        if self._functions_with is not None:
            self._compile_if_long(theta, shared.rows.x.shape[-2])
        take_one, evaluate, may_fail_midway, replacements = self._functions
        after_step = require_owner(theta, "theta").after_step
        count = batches if isinstance(batches, int) else batches.shape[0]
        steps = range(first, first + count)
        weights = [weight or None for weight in method.weights(steps)]  # 0 takes no work
        rates, indices = method.rates(steps, theta, slowed), _rows_of_batches(batches)
        losses: list[Array] = []
        found: list[dict[str, Array]] = []
        checks: list[tuple[str, float]] = []
        whole, kept = 0, carry
        with holding(replacements):
            for varying in map(StepInput, indices, steps, rates, weights):
                if may_fail_midway and (varying.indices is None or not losses):
                    whole, kept, carry = len(losses), carry, copied(carry)
                try:
                    if method.monitor is not None:
                        batch = shared.rows, varying.indices, varying.number
                        checks += method.monitor.check(method.network, carry[0], *batch)
                    carry, loss = take_one(carry, varying, shared)
                    losses.append(loss)
                    if shared.evaluated:
                        found.append(evaluate(measured_theta(carry), shared.evaluated))
                    after_step((carry, loss, found[-1:]))
                except BaseException as error:
                    if may_fail_midway:
                        carry, losses, found = kept, losses[:whole], found[:whole]
                    if not losses:
                        raise
                    interrupt.error = error
                if interrupt.is_pending:
                    break
        names = found[0] if found else ()
        measures = {name: stack(*(each[name] for each in found)) for name in names}
        check_updated(theta, carry[0])
        return Outcome(carry, len(losses), stack(*losses), measures, checks)

    def _compile_if_long(self, theta: Array, rows: int) -> None:
        """Count a step on these rows, and ask for replacements if it is time."""
        self._taken += 1
        self._rows += rows
        if self._taken & (self._taken - 1):  # asked rarely
            return
        rows = self._rows // self._taken
        backend, steps = require_owner(theta, "theta"), 2 * self._taken
        replacements = backend.training_replacements(theta, steps, rows)
        if replacements is not None and self._functions_with is not None:
            self._functions = self._functions_with(theta, replacements)
            self._functions_with = None


def _rows_of_batches(batches: int | Array) -> Iterable[Array | None]:
    """Return the row indices of each batch, None for a full one."""
    if isinstance(batches, int):
        return [None] * batches
    return (batches[i, ...] for i in range(batches.shape[0]))


def check_updated(theta: Array, updated: Array) -> None:
    """Raise ValueError unless an update kept theta's dtype and shape.

    Theta may have been donated: it has both, and no device.
    """
    if updated.dtype != theta.dtype or tuple(updated.shape) != tuple(theta.shape):
        raise ValueError(
            f"The optimizer returned a theta of {updated.dtype} and shape "
            f"{tuple(updated.shape)}, but it was given one of {theta.dtype} and "
            f"{tuple(theta.shape)}."
        )
