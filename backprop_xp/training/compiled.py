"""The steps of a training where the library compiles: one, or many in one call.

All that is special to such libraries stands here, or behind the ``Backend`` protocol.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from backprop_xp.backends import Array, Backend, array_namespace, device_of, read_by
from backprop_xp.networks.inputs import Rows, rows_at_once
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import loss_and_gradient_of, loss_and_gradients_of
from backprop_xp.training.batches import take
from backprop_xp.training.optimizers import Optimizer
from backprop_xp.training.pytrees import put_together, take_apart
from backprop_xp.training.steps import evaluate, is_ours, piece_by_piece, step, update_of


def compiled(
    home: Backend, network: Network, optimizer: Optimizer, metrics: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return a compiled step, a compiled loop of steps, ``evaluate``, and the arguments of the two.

    The loop, ``many(carry, columns, first, last, shared)``, takes steps of those columns and judges
    theta after each where ``shared`` says by what. What was compiled before is used again.
    """
    arguments, make, kind = _taken_apart(optimizer)

    def build() -> tuple[Any, ...]:
        traced = functools.partial(_traced, network, make)
        judge = functools.partial(evaluate, network, metrics, functools.partial(_looped, home))
        loop = home.loop(functools.partial(_judged, traced, judge))
        many = functools.partial(_many, loop, is_ours(optimizer), network.parts)
        compile_step = functools.partial(home.compile, donate=(0,))
        return compile_step(traced), compile_step(many), home.compile(judge)

    key = home.name, network.layers, network.loss_function, *kind, *metrics.items()
    key += (*_own((network.layers, network.loss_function, *metrics.values())),)
    return *_kept(key, build), arguments


def _traced(
    network: Network,
    make: Callable[..., Any],
    carry: tuple[Any, Any],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Do what ``step`` does, with arrays in the place of numbers, hyperparameters included.

    The carry may be taken apart: theta, and the optimiser's state, are then tuples of its parts.
    """
    apart, (places, number, rate) = isinstance(carry[0], tuple), given
    number_of = functools.partial(_number, carry[0][0] if apart else carry[0])
    numbers = {name: number_of(shared[name]) for name in ("l2", "l2_of_sum", "clip")}
    shared = {**shared, **numbers}
    arguments = {name: number_of(value) for name, value in shared["arguments"].items()}
    given = places, number, number_of(rate)
    if not apart:
        gradient = functools.partial(loss_and_gradient_of, network)
        return step(gradient, update_of(make(**arguments), carry[0]), carry, given, shared)
    each = take_apart(arguments, network.parts)

    def update(thetas: Any, gradients: Any, states: Any, rate: Any) -> Any:
        parts = zip(each, thetas, gradients, states, strict=True)
        moved = [update_of(make(**own), t)(t, g, state, rate) for own, t, g, state in parts]
        return tuple(zip(*moved, strict=True))

    def gradients(thetas: Any, batch: Rows, l2: Any, _: None) -> Any:
        return loss_and_gradients_of(network, thetas, batch, l2)

    return step(gradients, update, carry, given, shared)


def _judged(
    traced: Callable[..., Any],
    judge: Callable[..., Any],
    carry: tuple[Any, Any],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Return the carry after a step, and its loss with what theta is judged by."""
    carry, loss = traced(carry, given, shared)
    if shared["judged"] is None:
        return carry, (loss, {})
    theta = put_together(carry[0]) if isinstance(carry[0], tuple) else carry[0]
    return carry, (loss, judge(theta, *shared["judged"]))


def _looped(
    home: Backend, forward: Callable[..., Any], theta: Array, rows: Rows
) -> tuple[Array, Any]:
    """Do what ``piece_by_piece`` does, in a loop: only one piece is compiled, however many rows.

    The last piece repeats the last row to be as large as the others.
    """
    count, size = rows.x.shape[-2], rows_at_once(theta)
    if count <= size:
        return piece_by_piece(forward, theta, rows)
    xp, pieces = array_namespace(theta), -(-count // size)
    places = xp.arange(pieces * size, dtype=xp.int32, device=device_of(theta))
    places = xp.reshape(xp.minimum(places, count - 1), (pieces, size))

    def piece(carry: Any, places: Array, theta: Array, rows: Rows) -> Any:
        return carry, forward(theta, take(rows, places))

    def joined(each: Array) -> Array:
        """Return ``(pieces, *stack, size, n)`` as ``(*stack, count, n)``."""
        each = xp.moveaxis(each, 0, -3)
        return xp.reshape(each, (*each.shape[:-3], -1, each.shape[-1]))[..., :count, :]

    loop: Any = home.loop(piece)
    _, (values, predictions) = loop((), places, 0, pieces, theta, rows)
    return joined(values[..., None])[..., 0], None if predictions is None else joined(predictions)


def _number(theta: Array, value: Any) -> Any:
    """Return a number in theta's own precision, which a compiler does not give to Python's."""
    is_number = getattr(value, "shape", None) == ()
    return array_namespace(theta).astype(value, theta.dtype) if is_number else value


def _many(
    looped: Any,
    is_elementwise: bool,
    parts: Sequence[slice],
    carry: tuple[Array, Any],
    columns: Any,
    first: Any,
    last: Any,
    shared: Mapping[str, Any],
) -> Any:
    """Take steps of a loop.

    To join the gradients in each step, and to cut theta in the next, would cost as much as the rest
    of a small network's step on JAX. An optimiser that treats each entry alike, as the library's
    do, needs neither, unless the gradient's norm is bounded.
    """
    if not is_elementwise or shared["clip"] is not None:
        return looped(carry, columns, first, last, shared)
    apart = tuple(zip(*take_apart(carry, parts), strict=True))
    (thetas, states), outcomes = looped(apart, columns, first, last, shared)
    return (put_together(thetas), put_together(states)), outcomes


def _taken_apart(optimizer: Any) -> tuple[dict[str, Any], Callable[..., Any], tuple[Any, ...]]:
    """Return an optimiser's hyperparameters, a function that makes it of them, and a key.

    Optimisers of one key share compiled code. A hyperparameter of 0, or one that is no number, is
    part of the key, since an update may leave out work because of it; the learning rate is given to
    each step instead. A user's own optimiser may do anything with its attributes, and change: its
    key is the object itself.
    """
    if not is_ours(optimizer):
        return {}, lambda: optimizer, (id(optimizer), *getattr(optimizer, "__dict__", {}).items())
    given: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for field in dataclasses.fields(optimizer):
        value = getattr(optimizer, field.name)
        is_given = hasattr(value, "shape") or (isinstance(value, float) and value != 0.0)
        (given if is_given else fixed)[field.name] = value
    for values in (given, fixed):
        values.pop("learning_rate", None)
    kind: Callable[..., Any] = type(optimizer)
    return given, functools.partial(kind, learning_rate=0.0, **fixed), (kind, *fixed.items())


def _own(value: Any) -> Iterator[Any]:
    """Yield a user's own objects in a network, its loss or the metrics, as keys by identity.

    Those may be equal and differ: as two NamedTuples do, or an attribute that is no field. They are
    in use as long as the network is, which is kept. Of a function, also what it reads outside
    itself: with other values of that it is another, and who cannot be hashed may have changed.
    """
    if type(value).__module__.startswith("backprop_xp."):
        for part in vars(value).values():
            yield from _own(part)
    elif type(value) is tuple:
        for part in value:
            yield from _own(part)
    elif callable(value) or hasattr(value, "forward"):
        yield id(value)
        yield from read_by(value)


# Compiled functions are worth keeping from one training to the next.
_made: dict[Any, tuple[Any, ...]] = {}
_KEPT = 32
_lock = threading.Lock()


def _kept(key: Any, build: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return what was built for a key; build it the first time."""
    try:
        hash(key)
    except TypeError:  # a layer or a hyperparameter that cannot be hashed
        return build()
    with _lock:
        if key not in _made:
            while len(_made) >= _KEPT:
                del _made[next(iter(_made))]
            _made[key] = build()
        return _made[key]
