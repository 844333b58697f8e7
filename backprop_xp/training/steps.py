"""One step of a training, a pure function, and the evaluation of a theta.

``step(carry, given, shared)`` is one update. ``carry`` is ``(theta, optimizer_state)``, what it
leaves to the next; ``given`` is ``(places, number, learning_rate)``: where the batch's rows are
(None for all of them), how many steps came before, and the rate; ``shared`` is a dict of what all
steps of a training have in common. Whatever may be an array is in one of the three, so that no
value of it compiles anything anew.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from backprop_xp.backends import Array, array_namespace, is_host_number, like
from backprop_xp.networks.inputs import Rows, row_slices, rows_at, rows_at_once
from backprop_xp.networks.losses import value_of
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import loss_of_values, outputs_of, strength_of
from backprop_xp.networks.random_bits import as_int32, fold_in
from backprop_xp.training.batches import joined, take
from backprop_xp.training.optimizers import Optimizer, rule_of


def step(
    loss_and_gradient: Callable[..., Any],
    update: Callable[..., Any],
    carry: tuple[Any, Any],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Return the carry after one update, and the batch's loss before it."""
    theta, state = carry
    places, number, learning_rate = given
    # Where no layer is random there is no seed.
    seed = shared["seed"]
    rng = None if seed is None else fold_in(as_int32(seed), as_int32(number))
    batch = take(shared["rows"], places, rng)
    l2 = strength_of(batch, shared["l2"], shared["l2_of_sum"])
    loss, gradient = loss_and_gradient(theta, batch, l2, shared["views"])
    _require_one_for_each((theta[0] if isinstance(theta, tuple) else theta).shape[:-1], loss.shape)
    if shared["clip"] is not None:
        gradient = clip_norm(gradient, shared["clip"])
    return update(theta, gradient, state, learning_rate), loss


def _require_one_for_each(stack: Sequence[int], loss: Sequence[int]) -> None:
    """Raise ValueError, before anything is updated, where a user's loss has another shape."""
    if tuple(loss) != tuple(stack):
        raise ValueError(
            f"A batch's loss has shape {tuple(loss)}, but {tuple(stack)}, one for each network, is "
            "expected: a loss's value is one number per sample, (..., batch)."
        )


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
    metrics: Mapping[str, Any],
    piecewise: Callable[..., Any],
    theta: Array,
    rows: Rows,
    l2: Any,
) -> dict[str, Array]:
    """Return the loss of theta and its metrics; ``piecewise`` sends some rows at a time forward."""
    loss = network.loss_function

    def forward(theta: Array, part: Rows) -> tuple[Array, Array | None]:
        outputs = outputs_of(network, theta, part)
        return value_of(loss, outputs, part.y), loss.link(outputs) if metrics else None

    each, predicted = piecewise(forward, theta, Rows(rows.x, rows.y))
    if rows.stand_ins is not None:
        each = rows_at(each[..., None], rows.stand_ins)[..., 0]
    found = {"loss": loss_of_values(network, theta, each, rows.sample_weight, l2)}
    for name, metric in metrics.items():
        try:
            value = metric(predicted, rows.y, rows.sample_weight)
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


def piece_by_piece(forward: Callable[..., Any], theta: Array, rows: Rows) -> tuple[Array, Any]:
    """Return each sample's loss, ``(*stack, batch)``, and predictions or None, as ``forward``."""
    slices = row_slices(rows.x.shape[-2], rows_at_once(theta))
    parts = [forward(theta, Rows(rows.x[..., p, :], rows.y[..., p, :])) for p in slices]
    values, predictions = zip(*parts, strict=True)
    return joined(values, -1), None if predictions[0] is None else joined(predictions, -2)


def update_of(optimizer: Any, theta: Array) -> Callable[..., Any]:
    """Return an optimiser's update as a function of theta, gradient, state and rate, unchecked."""

    def update(theta: Array, gradient: Array, state: Any, rate: Any) -> Any:
        if rate is None:
            return optimizer.update(theta, gradient, state)
        return optimizer.update(theta, gradient, state, learning_rate=rate)

    return rule_of(optimizer, theta) or update


def is_ours(optimizer: Any) -> bool:
    """Say whether an optimiser is the library's own: elementwise, and it keeps no gradient."""
    return type(optimizer).__module__ == Optimizer.__module__
