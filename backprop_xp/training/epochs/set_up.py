"""The set-up of a training: its data, the sets that are measured, and its stepper."""

import functools
import itertools
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backprop_xp.backends import Array, Backend, holding, require_owner
from backprop_xp.checks import stacklevel
from backprop_xp.display.reprs import argument_text
from backprop_xp.networks.chain.array_checks import check_entries, check_l2
from backprop_xp.networks.chain.batch_rows import Blocks, Rows, counted
from backprop_xp.networks.derivatives.objective import strength_of
from backprop_xp.networks.equations.derivative_layers import learned_kinks
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.options import Options, full_batch_message
from backprop_xp.training.interfaces.orders import keys_of
from backprop_xp.training.interfaces.process_protocol import Processes
from backprop_xp.training.interfaces.states import TrainingState, initial_state, resumed_state
from backprop_xp.training.optimizers.first_order import optimizer_on_device
from backprop_xp.training.optimizers.full_batch import Objective
from backprop_xp.training.rows.batches import mean_over
from backprop_xp.training.rows.training_set import TrainingData, data_of
from backprop_xp.training.steps.compiled import Compiled
from backprop_xp.training.steps.eager import Method, OneByOne, Stepper, eager_functions
from backprop_xp.training.steps.gradient_monitor import GradientMonitor
from backprop_xp.training.steps.step import Sets, Shared


@dataclass(frozen=True)
class Training:
    """The parts of a training that are the same in all epochs.

    ``evaluated`` are the sets on which theta is measured after an epoch.
    """

    options: Options
    data: TrainingData
    evaluated: Sets
    shared: Shared
    stepper: Stepper
    backend: Backend
    mean_over: Callable[..., Array]


def prepare(
    network: Network,
    theta: Array,
    x: Any,
    y: Any,
    options: Options,
    processes: Processes,
    *,
    steps: int | None = None,
) -> tuple[Training, TrainingState]:
    """Check the arguments; return the training with its initial state.

    ``steps`` is their number if it is not that of all epochs.
    """
    data = data_of(network, theta, x, y, options, processes)
    if processes.is_first and (options.start is None or options.start.epoch == 0):
        _warn_of_kinks(network)
    if options.traits.takes_objective:
        _check_full_batch(network, data, options)
    l2, l2_of_sum = (check_strength(theta, options, name) for name in ("l2", "l2_of_sum"))
    l2 = network.l2 or None if options.l2 is None else l2
    key = keys_of(options.seed, theta)
    optimizer = optimizer_on_device(options.optimizer, theta)
    every = options.check_every
    method = Method(
        network=network,
        optimizer=optimizer,
        traits=options.traits,
        metrics=options.metrics or {},
        size=options.batch_size if options.accumulate > 1 else None,
        batches=data.batches,
        average=options.average,
        monitor=None if every is None else GradientMonitor(every, key, l2, l2_of_sum),
        plateau=options.plateau,
    )
    if steps is None and data.batches is not None:
        steps = options.epochs * data.batches
    stepper = stepper_of(method, theta, processes, steps, data.size)
    evaluated = _measured_sets(theta, data, options, (l2, l2_of_sum), processes)
    # Several batches are evaluated at the end of their epoch, a full one with its step.
    with_steps = evaluated if data.batches == 1 and data.source is None else None
    rows, seed = data.rows or Rows(None, None), key if network.is_random else None
    shared = Shared(rows, l2, l2_of_sum, options.clip, seed, with_steps)
    backend = require_owner(theta, "theta")
    state = _first_state(theta, optimizer, options, data)
    if options.traits.takes_objective:
        state, shared = _begun(network, optimizer, state, shared, is_new=options.start is None)
    mean = backend.compile(mean_over)
    return Training(options, data, evaluated, shared, stepper, backend, mean), state


def _warn_of_kinks(network: Network) -> None:
    """Warn of a training on derivatives by x that are constant between the kinks of relu."""
    for activation in itertools.islice(learned_kinks(network.layers), 1):
        warnings.warn(
            "the network learns derivatives by x, but those of "
            f"{argument_text(activation)} are constant between its kinks: it may fit worse than "
            'without them. Use a smooth activation, such as "tanh".',
            stacklevel=stacklevel(),
        )


def _first_state(
    theta: Array, optimizer: Any, options: Options, data: TrainingData
) -> TrainingState:
    """Return the state before the first step."""
    start, averages = options.start, options.average is not None
    if start is not None:
        return resumed_state(start, optimizer, theta, data.batches, data.size, averages=averages)
    return initial_state(optimizer, theta, averages=averages)


def _begun(
    network: Network, optimizer: Any, state: TrainingState, shared: Shared, *, is_new: bool
) -> tuple[TrainingState, Shared]:
    """Return the state with the theta of the next step, and ``shared`` with its units."""
    theta, rows = state.theta, counted(shared.rows)
    with require_owner(theta, "theta").no_grad(), holding(None):
        objective = Objective(network, rows, strength_of(rows, shared.l2, shared.l2_of_sum))
        if is_new:
            objective.warn_if_saturated(theta)
            objective.warn_of_few_residuals(theta)
            if hasattr(optimizer, "begin"):
                theta = optimizer.begin(theta, objective)
        units = objective.units(theta)
    kept = None if isinstance(units, float) else units
    return state._replace(theta=theta), shared._replace(units=kept)


def _check_full_batch(network: Network, data: TrainingData, options: Options) -> None:
    """Raise ValueError unless the objective is the same at each step, and all rows are here."""
    faults = {
        "x that gives batches": data.source is not None,
        "a table that is streamed": isinstance(getattr(data.rows, "x", None), Blocks),
        "a network with dropout": network.is_random,
    }
    if found := [fault for fault, is_given in faults.items() if is_given]:
        raise ValueError(full_batch_message(options.optimizer, found[0]))


def stepper_of(
    method: Method, theta: Array, processes: Processes, steps: int | None, rows: int
) -> Stepper:
    """Return the stepper of a training that takes so many steps of so many rows.

    The number of steps is None if it is not known.
    """
    backend = require_owner(theta, "theta")
    if backend.loop(operator.add) is not None:
        return Compiled(method, theta)
    backend.prepare_training()
    takes = method.traits.takes_objective  # the reference computes its Jacobians
    replacements = None if takes else backend.training_replacements(theta, steps, rows)
    processes.check_loops(are_compiled=replacements is not None)
    functions_with = functools.partial(eager_functions, method, processes)
    # Ranks must round alike, and may count other rows.
    may_compile = replacements is None and method.batches is None and processes.is_alone
    functions = functions_with(theta, replacements)
    return OneByOne(method, functions, functions_with if may_compile else None)


def _measured_sets(
    theta: Array,
    data: TrainingData,
    options: Options,
    strengths: tuple[Any, Any],
    processes: Processes,
) -> Sets:
    """Return the sets on which theta is measured, by the beginning of their measures' names."""
    sets: dict[str, tuple[Rows, Any]] = {}
    if data.validation is not None:
        sets[""] = processes.with_all_targets(theta, data.validation), None
    is_measured = options.of_training or (data.validation is None and options.metrics)
    if data.rows is not None and is_measured:
        rows = processes.with_all_targets(theta, data.rows)
        sets["training_" if sets else ""] = rows, strength_of(rows, *strengths)
    return sets


def check_strength(theta: Array, options: Options, name: str) -> Any:
    """Return the strength of a penalty, the option ``name``, on theta's device; None without."""
    strength = getattr(options, name)
    strength = None if strength is None else check_l2(theta, strength)
    if strength is not None and not isinstance(strength, float):
        check_entries(strength, name, low=0.0)
    return strength
