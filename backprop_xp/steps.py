"""One step of a training, a pure function, and what a theta is judged by.

``step(carry, given, shared)`` is one update. ``carry`` is ``(theta, optimizer_state)``, what it
leaves to the next; ``given`` is ``(places, number, learning_rate)``: where the batch's rows are
(None for all of them), how many steps came before, and the rate; ``shared`` is a dict of what all
steps of a training have in common. Whatever may be an array is in one of the three, so that no
value of it compiles anything anew.
"""

import functools
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from backprop_xp.backends import Array, array_namespace, is_host_number, like, replaced
from backprop_xp.batches import in_pieces, joined, share, take, weighted_mean
from backprop_xp.inputs import Rows
from backprop_xp.network import Network, loss_and_gradient_of, loss_of_outputs, outputs_of
from backprop_xp.optimizers import Optimizer
from backprop_xp.random import as_int32, fold_in


def step(
    network: Network,
    evaluate: Callable[..., Any],
    update: Callable[..., Any],
    carry: tuple[Array, Any],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Return the carry after one update, the batch's loss before it, and what was found after."""
    theta, state = carry
    places, number, learning_rate = given
    batch = batch_of(network, places, number, shared)
    l2, views = shared["l2"], shared["views"]
    loss, gradient = loss_and_gradient_of(network, theta, batch, l2, views)
    if shared["clip"] is not None:
        gradient = clip_norm(gradient, shared["clip"])
    carry = update(theta, gradient, state, learning_rate)
    judged = shared["judged"]
    return carry, (loss, {} if judged is None else evaluate(carry[0], *judged))


def batch_of(network: Network, places: Any, number: Any, shared: Mapping[str, Any]) -> Rows:
    """Return the rows of a step, and its key where a layer is random."""
    rng = fold_in(as_int32(shared["seed"]), as_int32(number)) if network.is_random else None
    return take(shared["rows"], places, rng)


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
    network: Network, metrics: Mapping[str, Any], theta: Array, rows: Rows, l2: Any
) -> dict[str, Array]:
    """Return the loss of theta and its metrics; the rows go by batches, of which outputs remain."""
    losses, shares, predictions = [], [], []
    for batch in in_pieces(rows, theta):
        outputs = outputs_of(network, theta, batch)
        losses.append(loss_of_outputs(network, theta, outputs, batch, l2))
        shares.append(share(batch))
        if metrics:
            predictions.append(network.loss_function.link(outputs))
    found = {"loss": weighted_mean(losses, shares)}
    for name, metric in metrics.items():
        try:
            value = metric(joined(predictions, axis=-2), rows.y, rows.sample_weight)
        except Exception as error:
            error.add_note(f"In metrics[{name!r}].")
            raise
        is_number = isinstance(value, Real) or is_host_number(value)
        found[name] = like(theta, float(value) if is_number else value, f"metrics[{name!r}]")
        if tuple(found[name].shape) != tuple(theta.shape[:-1]):
            raise ValueError(
                f"metrics[{name!r}] returned an array of shape {tuple(found[name].shape)}, but one "
                f"number for each network, {tuple(theta.shape[:-1])}, is expected."
            )
    return found


def update_of(optimizer: Any, theta: Array) -> Callable[..., Any]:
    """Return an optimiser's update, unchecked: the library's rule, or the backend's own for it."""
    method = getattr(optimizer.update, "__func__", None)
    update: Callable[..., Any] = optimizer.update
    if method is not None and (faster := replaced(method, theta)) is not method:
        update = functools.partial(faster, optimizer)
    elif method is not None and method.__module__ == Optimizer.__module__:
        update = optimizer.rule
        return update

    def with_rate(theta: Array, gradient: Array, state: Any, rate: Any) -> Any:
        if rate is None:
            return update(theta, gradient, state)
        return update(theta, gradient, state, learning_rate=rate)

    return with_rate


def is_ours(optimizer: Any) -> bool:
    """Say whether an optimiser is the library's own: elementwise, and it keeps no gradient."""
    return type(optimizer).__module__ == Optimizer.__module__
