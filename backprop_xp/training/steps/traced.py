"""The functions of a training that a library traces and compiles, such as JAX by XLA."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import Array, Backend, array_namespace, content_of, device_of
from backprop_xp.networks.chain.batch_rows import Rows, rows_at_once
from backprop_xp.networks.derivatives.bound import loss_and_gradient_of
from backprop_xp.networks.derivatives.objective import loss_and_gradients_of
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.process_protocol import Forward
from backprop_xp.training.measures.metrics import Metric
from backprop_xp.training.optimizers.protocol import AnyOptimizer, Traits
from backprop_xp.training.optimizers.pytrees import put_together, take_apart
from backprop_xp.training.rows.batches import batch_at
from backprop_xp.training.steps.accumulation import accumulate
from backprop_xp.training.steps.function_cache import kept, read_by_methods
from backprop_xp.training.steps.step import (
    Carry,
    Shared,
    StepInput,
    Updated,
    descend,
    evaluate,
    measured_theta,
    piece_by_piece,
    step,
    step_of,
    update_of,
)


class Constants(NamedTuple):
    """The inputs of compiled steps that do not differ from step to step.

    ``learning_rate`` is an array, None for a rate in the input of each step.
    """

    learning_rate: Array | None = None
    hyperparameters: Mapping[str, Any] = {}


def compiled_steps(
    backend: Backend,
    network: Network,
    optimizer: AnyOptimizer,
    traits: Traits,
    metrics: Mapping[str, Metric],
    size: int | None,
) -> tuple[Any, ...]:
    """Return compiled ``step``, ``loop`` and ``evaluate``, and the hyperparameters of both steps.

    ``loop(carry, columns, first, last, shared, constants)`` takes the steps ``first`` to ``last``
    of the columns, and evaluates theta after each if ``shared.evaluated`` is set. Functions that
    were compiled before are used again.
    """
    hyperparameters, make, kind = _hyperparameters_of(optimizer, traits)

    def build() -> tuple[Any, ...]:
        traced = functools.partial(_traced, network, make, traits, size)
        measure = functools.partial(evaluate, network, metrics, functools.partial(_looped, backend))
        loop = backend.loop(functools.partial(_evaluated, traced, measure))
        loop = functools.partial(_in_parts, loop, traits, network.parts)
        compile_step = functools.partial(backend.compile, donate=(0,))
        return compile_step(traced), compile_step(loop), backend.compile(measure)

    parts = network.layers, network.loss_function, *metrics.values()
    return *kept((backend.name, size, *metrics, *kind), parts, build), hyperparameters


def _traced(
    network: Network,
    make: Callable[..., AnyOptimizer],
    traits: Traits,
    size: int | None,
    carry: Carry,
    varying: StepInput,
    shared: Shared,
    constants: Constants,
) -> tuple[Carry, Array]:
    """Return what ``step`` does, given arrays instead of numbers, hyperparameters included.

    Theta and the optimizer's state may be tuples of their parts.
    """
    in_parts = isinstance(carry[0], tuple)
    number_of = functools.partial(_in_precision_of, carry[0][0] if in_parts else carry[0])
    numbers = {name: number_of(getattr(shared, name)) for name in ("l2", "l2_of_sum", "clip")}
    shared = shared._replace(**numbers)
    rate = varying.learning_rate if constants.learning_rate is None else constants.learning_rate
    varying = varying._replace(learning_rate=number_of(rate), weight=number_of(varying.weight))
    given = {name: number_of(value) for name, value in constants.hyperparameters.items()}
    if not in_parts:
        gradient: Any = functools.partial(loss_and_gradient_of, network.definition)
        gradient = gradient if size is None else accumulate(gradient, size)
        own = step_of(make(**given), traits, network, gradient, carry[0])
        return step(own, carry, varying, shared)
    each = take_apart(given, network.parts)
    made: Callable[..., Any] = make

    def update(thetas: Any, gradients: Any, states: Any, rate: Any) -> Updated:
        parts = zip(each, thetas, gradients, states, take_apart(rate, network.parts), strict=True)
        updated = [update_of(made(**part), t)(t, g, s, alpha) for part, t, g, s, alpha in parts]
        thetas, states = zip(*updated, strict=True)
        return thetas, states

    def gradients(thetas: Any, batch: Rows, l2: Any) -> tuple[Array, list[Array]]:
        return loss_and_gradients_of(network.definition, thetas, batch, l2)

    of_batch = gradients if size is None else accumulate(gradients, size)
    return step(functools.partial(descend, of_batch, update), carry, varying, shared)


def _evaluated(
    traced: Callable[..., tuple[Carry, Array]],
    measure: Callable[..., dict[str, Array]],
    carry: Carry,
    varying: StepInput,
    shared: Shared,
    constants: Constants,
) -> tuple[Carry, tuple[Array, dict[str, Array]]]:
    """Return the carry after a step, the batch's loss, and what ``evaluate`` finds after it."""
    carry, loss = traced(carry, varying, shared, constants)
    if not shared.evaluated:
        return carry, (loss, {})
    whole: Any = carry
    if isinstance(carry[0], tuple):
        whole = tuple(put_together(parts) for parts in carry)
    return carry, (loss, measure(measured_theta(whole), shared.evaluated))


def _looped(
    backend: Backend, forward: Forward, theta: Array, rows: Rows
) -> tuple[Array, Array | None]:
    """Return what ``piece_by_piece`` does, by a loop that compiles a single piece.

    The last piece repeats the last row to be as large as the others.
    """
    count, size = rows.y.shape[-2], rows_at_once(theta)
    if count <= size:
        return piece_by_piece(forward, theta, rows)
    xp, pieces = array_namespace(theta), -(-count // size)
    indices = xp.arange(pieces * size, dtype=xp.int32, device=device_of(theta))
    indices = xp.reshape(xp.minimum(indices, count - 1), (pieces, size))

    def piece(carry: Any, indices: Array, theta: Array, rows: Rows) -> Any:
        return carry, forward(theta, batch_at(rows, indices))

    def as_rows(each: Array) -> Array:
        """Return ``(pieces, *stack, size, n)`` as ``(*stack, count, n)``."""
        each = xp.moveaxis(each, 0, -3)
        return xp.reshape(each, (*each.shape[:-3], -1, each.shape[-1]))[..., :count, :]

    loop: Any = backend.loop(piece)
    _, (values, predictions) = loop((), indices, 0, pieces, theta, rows)
    return as_rows(values[..., None])[..., 0], None if predictions is None else as_rows(predictions)


def _in_precision_of(theta: Array, value: Any) -> Any:
    """Return a traced number in theta's dtype; a compiler gives Python's floats another."""
    is_number = getattr(value, "shape", None) == ()
    return array_namespace(theta).astype(value, theta.dtype) if is_number else value


def _in_parts(
    loop: Any,
    traits: Traits,
    parts: Sequence[slice],
    carry: Carry,
    columns: StepInput,
    first: Any,
    last: Any,
    shared: Shared,
    constants: Constants,
) -> Any:
    """Take steps of a loop, with theta in parts if that gives the same result.

    On JAX, joining the gradients and cutting theta takes as long as the rest of a small network's
    step. An elementwise update without clipping needs neither.
    """
    if not traits.is_elementwise or shared.clip is not None:
        return loop(carry, columns, first, last, shared, constants)
    in_parts = tuple(zip(*take_apart(carry, parts), strict=True))
    in_parts, outcomes = loop(in_parts, columns, first, last, shared, constants)
    return tuple(put_together(parts) for parts in in_parts), outcomes


def _hyperparameters_of(
    optimizer: Any, traits: Traits
) -> tuple[dict[str, Any], Callable[..., AnyOptimizer], tuple[Any, ...]]:
    """Return an optimizer's hyperparameters, a function that makes it from them, and a key.

    Optimizers of one key share compiled code. The key includes hyperparameters that are 0 or no
    number: an update may skip work because of them. The learning rate is an input of each step. An
    optimizer that does not share code may do anything with its attributes: its key is the object.
    """
    if not traits.shares_code:
        own = getattr(optimizer, "__dict__", {}).items()
        contents = ((name, content_of(value)) for name, value in own)
        return {}, lambda: optimizer, (id(optimizer), *contents, *read_by_methods(optimizer))
    numbers: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for field in dataclasses.fields(optimizer):
        value = getattr(optimizer, field.name)
        is_number = hasattr(value, "shape") or (isinstance(value, float) and value != 0.0)
        if field.name != "learning_rate":
            (numbers if is_number else fixed)[field.name] = value
    kind: Callable[..., AnyOptimizer] = type(optimizer)
    rate = {"learning_rate": 0.0} if hasattr(optimizer, "learning_rate") else {}
    return numbers, functools.partial(kind, **rate, **fixed), (kind, *fixed.items())
