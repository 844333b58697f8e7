"""One update of a training: loss, gradient, clipping, the optimiser's step.

Where the library compiles, the whole of it is one compiled call, and so are many in a row. Steps,
seeds and learning rates are arguments there, so that none of them compiles it anew.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    device_of,
    is_host_number,
    like,
    replaced,
    require_owner,
)
from backprop_xp.batches import share, take
from backprop_xp.inputs import Rows
from backprop_xp.layers import Residual
from backprop_xp.network import Network
from backprop_xp.optimizers import Optimizer
from backprop_xp.random import as_int32, fold_in
from backprop_xp.schedules import rate_at


class Carry(NamedTuple):
    """What an update leaves to the next."""

    theta: Array
    optimizer_state: Any


class Given(NamedTuple):
    """What an update is given: the places of its rows (None for all), its number, a scheduled rate.

    For many updates in one call each is a column, with an axis of updates in front.
    """

    part: Any
    number: Any
    learning_rate: Any


class Shared(NamedTuple):
    """What all updates of a training share; the learning rate, if there is one and no schedule."""

    rows: Rows
    held_out: Rows | None
    seed: int
    learning_rate: Any = None


class Updates(NamedTuple):
    """The functions of a training, compiled where the library compiles.

    ``one(carry, given, shared)`` returns the next carry, the batch's loss and its share in a mean;
    ``evaluate(theta, rows)`` is the validation loss, ``training_loss(theta, rows)`` that which is
    trained, penalty included, of one theta.

    ``many(carry, columns, shared)`` does an update for each row of the columns and returns their
    mean loss and its share; ``epochs(carry, columns, shared)`` does epochs of one update each and
    returns their losses and validation losses, ``(epochs, *stack)``. Both are None where nothing is
    compiled.
    """

    one: Callable[..., Any]
    evaluate: Callable[..., Any]
    training_loss: Callable[..., Any]
    many: Any
    epochs: Any


def updates_of(network: Network, optimizer: Optimizer, clip: float | None, theta: Array) -> Updates:
    """Return the functions of a training; the same ones where they were made before."""
    home = require_owner(theta, "theta")
    built = functools.partial(_build, home, network, optimizer, clip, theta)
    key = (home.name, *_alike_layers(network), *_alike_optimizer(optimizer), clip)
    try:
        made = _made.get(key)
    except TypeError:  # a layer or a hyperparameter that cannot be hashed
        return built()
    if made is None:
        made = built()
        with _lock:
            while len(_made) >= _KEPT:
                del _made[next(iter(_made))]
            _made[key] = made
    return made


# Compiled functions are worth keeping from one training to the next.
_made: dict[Any, Updates] = {}
_KEPT = 32
_lock = threading.Lock()


def _alike_layers(network: Network) -> tuple[Any, ...]:
    """Return what is the same of networks that compute alike; of a user's own layers, themselves.

    Those may be equal and differ: as two NamedTuples do, or an attribute that is no field.
    """

    def own(layers: Sequence[Any]) -> Iterator[int]:
        for layer in layers:
            if type(layer) is Residual:
                yield from own(layer.layers)
            elif type(layer).__module__ != Residual.__module__:
                yield id(layer)  # in use as long as the network is, which is kept

    return network, *own(network.layers)


def _alike_optimizer(optimizer: Any) -> tuple[Any, ...]:
    """Return what is the same of optimisers whose updates are alike.

    That is all but the learning rate, an argument. One's own may do with theirs what they like, and
    change: only itself, as it is now, is like it.
    """
    if type(optimizer).__module__ != Optimizer.__module__:
        return id(optimizer), optimizer, *getattr(optimizer, "__dict__", {}).items()
    names = [field.name for field in dataclasses.fields(optimizer) if field.name != "learning_rate"]
    return type(optimizer), *((name, getattr(optimizer, name)) for name in names)


def _build(
    home: Backend, network: Network, optimizer: Optimizer, clip: float | None, theta: Array
) -> Updates:
    move = _update_of(optimizer, theta)

    def moved(carry: Carry, gradient: Array, given: Given, shared: Shared) -> Carry:
        theta, state = carry
        scheduled = given.learning_rate is not None
        learning_rate = given.learning_rate if scheduled else shared.learning_rate
        if clip is not None:
            gradient = clip_norm(gradient, clip)
        if learning_rate is None:
            return Carry(*move(theta, gradient, state))
        if getattr(learning_rate, "shape", None) == ():
            # Compiled calls are given numbers in the library's own precision.
            learning_rate = array_namespace(theta).astype(learning_rate, theta.dtype)
        return Carry(*move(theta, gradient, state, learning_rate=learning_rate))

    def one(carry: Carry, given: Given, shared: Shared) -> tuple[Carry, Any]:
        rng = fold_in(as_int32(shared.seed), as_int32(given.number))
        batch = take(shared.rows, given.part)
        loss, gradient = network.loss_and_gradient(
            carry.theta, batch.x, batch.y, sample_weight=batch.sample_weight, rng=rng
        )
        return moved(carry, gradient, given, shared), (loss, share(batch))

    def evaluate(theta: Array, rows: Rows) -> Array:
        return network.loss(theta, rows.x, rows.y, sample_weight=rows.sample_weight, l2=0.0)

    def training_loss(theta: Array, rows: Rows) -> Array:
        return network.loss(theta, rows.x, rows.y, sample_weight=rows.sample_weight)

    def epoch(carry: Carry, given: Given, shared: Shared) -> tuple[Carry, Any]:
        carry, (loss, _) = one(carry, given, shared)
        held_out = shared.held_out
        return carry, (loss, None if held_out is None else evaluate(carry.theta, held_out))

    loop = home.loop(one)
    return Updates(
        home.compile(one, donate=(0,)),
        home.compile(evaluate),
        home.compile(training_loss),
        None if loop is None else functools.partial(_many, loop, home.compile(_mean_of_many)),
        home.loop(epoch),
    )


def _update_of(optimizer: Optimizer, theta: Array) -> Callable[..., Any]:
    """Return an optimiser's ``update``, or what theta's backend has in its place."""
    written = getattr(optimizer.update, "__func__", None)
    if written is None:  # no method, but a function that the optimiser holds
        return optimizer.update
    chosen = replaced(written, theta)
    return optimizer.update if chosen is written else functools.partial(chosen, optimizer)


def _many(
    loop: Callable[..., Any],
    mean: Callable[..., Any],
    carry: Carry,
    columns: Given,
    shared: Shared,
) -> tuple[Carry, Any]:
    carry, (losses, shares) = loop(carry, columns, shared)
    return carry, mean(losses, shares)


def columns(theta: Array, parts: Any, first: int, count: int, optimizer: Optimizer) -> Given:
    """Return what ``count`` updates are given, from number ``first`` on, as columns."""
    xp = array_namespace(theta)
    numbers = xp.arange(first, first + count, dtype=xp.int32, device=device_of(theta))
    rates = [scheduled_rate(optimizer, first + i, theta) for i in range(count)]
    if rates[0] is None:
        return Given(parts, numbers, None)
    if all(isinstance(rate, float) for rate in rates):
        return Given(parts, numbers, like(theta, rates, "learning_rate"))
    arrays = [like(theta, rate, "learning_rate") for rate in rates]
    shape = max((tuple(array.shape) for array in arrays), key=len)  # numbers have none
    return Given(parts, numbers, xp.stack([xp.broadcast_to(array, shape) for array in arrays]))


def constant_rate(optimizer: Optimizer, theta: Array) -> Any:
    """Return the learning rate of every update; None if it has a schedule, or no rate at all."""
    rate = getattr(optimizer, "learning_rate", None)
    return None if callable(rate) else _rate(rate, theta)


def scheduled_rate(optimizer: Optimizer, number: int, theta: Array) -> Any:
    """Return the learning rate of an update, evaluated on the host; None without a schedule."""
    schedule = getattr(optimizer, "learning_rate", None)
    return _rate(rate_at(schedule, number), theta) if callable(schedule) else None


def _rate(rate: Any, theta: Array) -> Any:
    if _is_number(rate):
        # One kind of number: a compiler would make a function for each, and NumPy's widen float32.
        return float(rate)
    # An array is beside theta: a compiler would take one of another library unseen.
    return like(theta, rate, "learning_rate") if hasattr(rate, "shape") else rate


def rates_are_numbers(optimizer: Optimizer) -> bool:
    """Say whether the learning rates of a schedule, if there is one, are numbers, not arrays."""
    schedule = getattr(optimizer, "learning_rate", None)
    return not callable(schedule) or _is_number(schedule(0))


def _is_number(rate: Any) -> bool:
    return isinstance(rate, Real) or is_host_number(rate)


def clip_norm(gradient: Array, bound: float) -> Array:
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


def _mean_of_many(losses: Array, shares: Array) -> tuple[Array, Array]:
    """Return the mean of losses ``(batches, *stack)``, each counting for its share, and its own."""
    xp = array_namespace(losses)
    missing = len(losses.shape) - len(shares.shape)
    shares = xp.reshape(shares, (shares.shape[0], *([1] * missing), *shares.shape[1:]))
    shares = xp.astype(shares, losses.dtype)
    total = xp.sum(shares, axis=0)
    # A smaller last batch may have all the weight.
    counted = total + xp.astype(total == 0.0, total.dtype)
    return xp.sum(losses * (shares / counted), axis=0), total


def weighted_mean(losses: Sequence[Array], shares: Sequence[Any]) -> Array:
    """Return the mean of batches' losses, each counting for its share."""
    if len(losses) == 1:
        return losses[0]
    total = sum(shares[1:], start=shares[0])
    parts = [loss * (share / total) for loss, share in zip(losses, shares, strict=True)]
    return sum(parts[1:], start=parts[0])
