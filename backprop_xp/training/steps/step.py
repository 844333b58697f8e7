"""One step of a training, a pure function, and the evaluation of a theta.

``step(carry, varying, shared)`` is one update. The carry is theta, the optimizer's state and
theta's average. ``varying`` differs from step to step, ``shared`` is the same in all steps of a
training. Every value that may be an array is in one of the three, so that no value is compiled in.
"""

import functools
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

from backprop_xp.backends import Array, array_namespace, is_host_number, like, replaceable
from backprop_xp.networks.chain.batch_rows import Rows, cut, row_slices, rows_at_once
from backprop_xp.networks.derivatives.objective import (
    loss_of_values,
    outputs_of,
    strength_of,
)
from backprop_xp.networks.losses.column_weights import targets_of, without_shares
from backprop_xp.networks.losses.loss import Loss, point_of, sample_losses
from backprop_xp.networks.losses.targets import in_columns
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.random_bits import Key, as_int32, fold_in
from backprop_xp.training.interfaces.process_protocol import Forward
from backprop_xp.training.measures.averages import averaged
from backprop_xp.training.measures.metrics import OF_NUMBERS, Metric
from backprop_xp.training.optimizers.first_order import Optimizer, rule_of
from backprop_xp.training.optimizers.full_batch import Objective
from backprop_xp.training.optimizers.protocol import ObjectiveOptimizer, Traits
from backprop_xp.training.optimizers.pytrees import mapped
from backprop_xp.training.rows.batches import batch_at, concat

# Theta, the optimizer's state, and theta's average or None; in a compiled loop each may be a tuple
# of its parts.
Carry: TypeAlias = tuple[Any, Any, Any]
Updated: TypeAlias = tuple[Any, Any]
# ``(theta, state, batch, l2, rate, shared) -> (theta, state, loss)``: an optimizer's step.
OptimizerStep: TypeAlias = Callable[..., tuple[Any, Any, Array]]

# The rows and the penalty of each set that is measured, by the beginning of its measures' names.
Sets: TypeAlias = Mapping[str, tuple[Rows, Any]]


class StepInput(NamedTuple):
    """The input of one step.

    ``indices`` are the row indices of its batch, None for all rows; ``number`` counts the steps
    before it; ``learning_rate`` is None for an optimizer without one; ``weight`` is theta's in its
    average after the step, None to leave the average.
    """

    indices: Array | None
    number: Any
    learning_rate: Any
    weight: Any = None


class Shared(NamedTuple):
    """The inputs that all steps of a training share.

    ``seed`` is None where no layer is random, else a key for all networks, or one for each.
    ``evaluated`` are the sets that ``evaluate`` measures after each step. ``units`` are
    those of ``Objective``, None if they are 1.
    """

    rows: Rows
    l2: Any = None
    l2_of_sum: Any = None
    clip: Any = None
    seed: Key | None = None
    evaluated: Sets | None = None
    units: Array | None = None


def step(
    optimizer_step: OptimizerStep, carry: Carry, varying: StepInput, shared: Shared
) -> tuple[Carry, Array]:
    """Return the carry after one step of an optimizer, and the batch's loss before it."""
    theta, state, average = carry
    rng = None
    if shared.seed is not None:
        rng = fold_in(as_int32(shared.seed), as_int32(varying.number))
    batch = batch_at(shared.rows, varying.indices, rng)
    l2 = strength_of(batch, shared.l2, shared.l2_of_sum)
    theta, state, loss = optimizer_step(theta, state, batch, l2, varying.learning_rate, shared)
    if varying.weight is not None:
        average = mapped(lambda old, new: averaged(old, new, varying.weight), average, theta)
    return (theta, state, average), loss


def descend(
    loss_and_gradient: Callable[..., tuple[Array, Any]],
    update: Callable[..., Updated],
    theta: Any,
    state: Any,
    batch: Rows,
    l2: Any,
    rate: Any,
    shared: Shared,
) -> tuple[Any, Any, Array]:
    """Return theta and the state after an update by the batch's gradient, and the loss before."""
    loss, gradient = loss_and_gradient(theta, batch, l2)
    rule = ": a loss's value is one number per sample, (..., batch)"
    _check_loss(theta, loss, "A batch's loss", rule)
    if shared.clip is not None:
        gradient = clip_norm(gradient, shared.clip)
    theta, state = update(theta, gradient, state, rate)
    return theta, state, loss


def _by_objective(
    network: Network,
    optimizer: ObjectiveOptimizer,
    theta: Array,
    state: Any,
    batch: Rows,
    l2: Any,
    rate: None,
    shared: Shared,
) -> tuple[Array, Any, Array]:
    """Return theta and the state after an optimizer's ``advance``, and the loss before."""
    found = optimizer.advance(theta, state, Objective(network, batch, l2, shared.units))
    name, parts = f"{type(optimizer).__name__}.advance", found if isinstance(found, tuple) else ()
    if len(parts) != 3 or not all(hasattr(parts[i], "shape") for i in (0, 2)):
        kinds = ", ".join(type(part).__name__ for part in parts) or type(found).__name__
        raise TypeError(
            f"{name} returned ({kinds}), but a tuple is expected: the array theta, the state, and "
            "the loss before the step, an array (*stack,)."
        )
    _check_loss(theta, found[2], f"The loss that {name} returned")
    return found


def step_of(
    optimizer: Any,
    traits: Traits,
    network: Network,
    loss_and_gradient: Callable[..., tuple[Array, Any]],
    theta: Array,
) -> OptimizerStep:
    """Return the function of an optimizer's step: its ``advance``, or an update by a gradient."""
    if traits.takes_objective:
        return functools.partial(_by_objective, network, optimizer)
    return functools.partial(descend, loss_and_gradient, update_of(optimizer, theta))


def _check_loss(theta: Any, loss: Array, name: str, rule: str = "") -> None:
    """Raise ValueError unless a loss is one number for each network."""
    stack = tuple((theta[0] if isinstance(theta, tuple) else theta).shape[:-1])
    if tuple(loss.shape) != stack:
        raise ValueError(
            f"{name} has shape {tuple(loss.shape)}, but {stack}, one for each network, is "
            f"expected{rule}."
        )


def measured_theta(carry: Carry) -> Array:
    """Return the theta that is measured and returned: the average, if there is one."""
    return carry[0] if carry[2] is None else carry[2]


@replaceable
def clip_norm(gradient: Array, bound: Any) -> Array:
    """Return each network's gradient, ``(..., P)``, scaled to a norm of at most ``bound``."""
    xp = array_namespace(gradient)
    # Scaled by its largest entry first: squares overflow float32 above 1e19.
    largest = xp.max(xp.abs(gradient), axis=-1, keepdims=True)
    largest = largest + xp.astype(largest == 0.0, gradient.dtype)
    scaled = gradient / largest
    # At least 1, the largest entry's own part, but for a gradient that is 0.
    norm = xp.maximum(xp.sqrt(xp.sum(scaled * scaled, axis=-1, keepdims=True)), 1.0)
    allowed = bound / norm
    return xp.where(largest <= allowed, gradient, scaled * allowed)


def evaluate(
    network: Network,
    metrics: Mapping[str, Metric],
    in_pieces: Callable[[Forward, Array, Rows], tuple[Array, Array | None]],
    theta: Array,
    sets: Sets,
) -> dict[str, Array]:
    """Return theta's loss, without dropout, and metrics on each set, ``(*stack,)`` by name.

    ``in_pieces(forward, theta, rows)`` computes the forward pass for a piece of the rows at a time.
    """
    loss, measures = network.loss_function, {}

    def forward(theta: Array, part: Rows) -> tuple[Array, Array | None]:
        outputs = outputs_of(network.definition, theta, part)
        values = sample_losses(loss, outputs, in_columns(outputs, part.y))
        return values, loss.inverse_link(outputs) if metrics else None

    for start, (rows, l2) in sets.items():
        predicted: Any
        each, predicted = in_pieces(
            forward, theta, Rows(rows.x, rows.y, divide=rows.divide, at=rows.at)
        )
        weight = rows.sample_weight
        measures[f"{start}loss"] = loss_of_values(network.definition, theta, each, weight, l2)
        for name, metric in metrics.items():
            y, n = in_columns(predicted, rows.y), targets_of(loss, predicted.shape[-1])
            arguments = predicted, *without_shares(y, weight, n)
            measures[start + name] = _metric_value(theta, name, metric, loss, arguments)
    return measures


def _metric_value(
    theta: Array, name: str, metric: Metric, loss: Loss, arguments: tuple[Any, Array, Array | None]
) -> Array:
    """Return a metric's value, ``(*stack,)``."""
    predicted, targets, weight = arguments
    try:
        if metric in OF_NUMBERS:
            predicted = point_of(loss, predicted)
        value = metric(predicted, targets, weight)
    except Exception as error:
        error.add_note(f"In metrics[{name!r}].")
        raise
    is_number = isinstance(value, Real) or is_host_number(value)
    value = like(theta, float(value) if is_number else value, f"metrics[{name!r}]")
    if tuple(value.shape) != tuple(theta.shape[:-1]):
        raise ValueError(
            f"metrics[{name!r}] returned an array of shape {tuple(value.shape)}, but one "
            f"number for each network, {tuple(theta.shape[:-1])}, is expected."
        )
    return value


def piece_by_piece(forward: Forward, theta: Array, rows: Rows) -> tuple[Array, Array | None]:
    """Return what ``forward`` returns for all rows, computed piece by piece."""
    slices = row_slices(rows.y.shape[-2], rows_at_once(theta))
    parts = [forward(theta, cut(rows, part)) for part in slices]
    values, predictions = zip(*parts, strict=True)
    return concat(values, -1), None if predictions[0] is None else concat(predictions, -2)


def update_of(optimizer: Optimizer, theta: Array) -> Callable[..., Updated]:
    """Return an optimizer's unchecked ``(theta, gradient, state, rate) -> (theta, state)``."""

    def update(theta: Array, gradient: Array, state: Any, rate: Any) -> Updated:
        options = {} if rate is None else {"learning_rate": rate}
        return optimizer.update(theta, gradient, state, **options)

    return rule_of(optimizer, theta) or update
