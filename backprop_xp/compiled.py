"""The steps of a training where the library compiles: one, or many in one call.

All that is special to such libraries stands here, or behind the ``Backend`` protocol.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from backprop_xp.backends import Array, Backend, array_namespace
from backprop_xp.layers import Residual
from backprop_xp.network import Network, loss_and_gradients_of
from backprop_xp.optimizers import Optimizer
from backprop_xp.steps import batch_of, clip_norm, is_ours, step, update_of
from backprop_xp.structures import put_together, take_apart


def compiled(
    home: Backend,
    network: Network,
    optimizer: Optimizer,
    metrics: Mapping[str, Any],
    evaluate: Callable[..., Any],
) -> tuple[Any, ...]:
    """Return one step, a loop of many, ``evaluate``, and the arguments of the first two.

    ``many(carry, first, columns, shared)`` takes a step for each row of the columns, numbered from
    ``first``. All are the same functions where they were made before.
    """
    arguments, make, kind = _taken_apart(optimizer)

    def build() -> tuple[Any, ...]:
        traced = functools.partial(_traced, network, evaluate, make)
        many = functools.partial(_whole, home.loop(functools.partial(_counted, traced)), None)
        if is_ours(optimizer):
            apart = functools.partial(_traced_apart, network, evaluate, make)
            looped = home.loop(functools.partial(_counted, apart))
            many = functools.partial(_whole, looped, network.parts)
        compile_step = functools.partial(home.compile, donate=(0,))
        return compile_step(traced), compile_step(many), home.compile(evaluate)

    key = home.name, *_alike_layers(network), *kind, *metrics.items()
    return *_kept(key, build), arguments


def _traced(
    network: Network,
    evaluate: Callable[..., Any],
    make: Callable[..., Any],
    carry: tuple[Array, Any],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Do as ``step`` does, where every number is an array, and the optimiser made of such."""
    theta, (places, number, rate) = carry[0], given
    optimizer = make(**_numbers(shared["arguments"], theta))
    rate, l2, clip = (_number(n, theta) for n in (rate, shared["l2"], shared["clip"]))
    shared = {**shared, "l2": l2, "clip": clip}
    return step(
        network, evaluate, update_of(optimizer, theta), carry, (places, number, rate), shared
    )


def _traced_apart(
    network: Network,
    evaluate: Callable[..., Any],
    make: Callable[..., Any],
    carries: Sequence[tuple[Array, Any]],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Do as ``_traced`` does, parameter by parameter: a carry of ``take_apart`` goes in and out.

    To join the gradients in each step, and to cut theta in the next, would cost as much as the rest
    of a small network's step on JAX. The library's optimisers treat each entry alike.
    """
    thetas, (places, number, rate) = [theta for theta, _ in carries], given
    rate, l2, clip = (_number(n, thetas[0]) for n in (rate, shared["l2"], shared["clip"]))
    batch = batch_of(network, places, number, shared)
    gradients: Sequence[Array]
    loss, gradients = loss_and_gradients_of(network, thetas, batch, l2)
    if clip is not None:
        gradients = take_apart(clip_norm(put_together(gradients), clip), network.parts)
    moved = []
    each = take_apart(_numbers(shared["arguments"], thetas[0]), network.parts)
    for (theta, state), gradient, arguments in zip(carries, gradients, each, strict=True):
        moved.append(update_of(make(**arguments), theta)(theta, gradient, state, rate))
    judged = shared["judged"]
    found = {} if judged is None else evaluate(put_together([t for t, _ in moved]), *judged)
    return tuple(moved), (loss, found)


def _number(value: Any, theta: Array) -> Any:
    """Return a number in theta's own precision, which a compiler does not give to Python's."""
    is_number = getattr(value, "shape", None) == ()
    return array_namespace(theta).astype(value, theta.dtype) if is_number else value


def _numbers(values: Mapping[str, Any], theta: Array) -> dict[str, Any]:
    return {name: _number(value, theta) for name, value in values.items()}


def _whole(
    looped: Any,
    parts: Sequence[slice] | None,
    carry: tuple[Array, Any],
    first: Any,
    columns: Any,
    shared: Mapping[str, Any],
) -> Any:
    """Take the steps of a loop from the one numbered ``first``; one over ``parts`` takes parts."""
    if parts is None:
        (carry, _), outcomes = looped((carry, first), columns, shared)
        return carry, outcomes
    (carries, _), outcomes = looped((take_apart(carry, parts), first), columns, shared)
    return put_together(carries), outcomes


def _counted(
    traced: Callable[..., Any],
    carry: tuple[Any, Any],
    given: tuple[Any, Any, Any],
    shared: Mapping[str, Any],
) -> Any:
    """Do as ``_traced`` does, where a loop carries the number of the step."""
    (carry, number), (places, rate, _) = carry, given
    carry, outcome = traced(carry, (places, number, rate), shared)
    return (carry, number + 1), outcome


def _taken_apart(optimizer: Any) -> tuple[dict[str, Any], Callable[..., Any], tuple[Any, ...]]:
    """Return an optimiser's hyperparameters, how to make it of them, and what its kind is.

    What is 0 or no number is of the kind: an update may leave out what it would do. The learning
    rate is neither, but given to each step. One's own may do with theirs what they like, and
    change: only itself, as it is now, is of its kind.
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

    return network.layers, network.loss_function, *own(network.layers)


# Compiled functions are worth keeping from one training to the next.
_made: dict[Any, tuple[Any, ...]] = {}
_KEPT = 32
_lock = threading.Lock()


def _kept(key: Any, build: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return what was built for a key before, or is now."""
    try:
        made = _made.get(key)
    except TypeError:  # a layer or a hyperparameter that cannot be hashed
        return build()
    if made is None:
        made = build()
        with _lock:
            while len(_made) >= _KEPT:
                del _made[next(iter(_made))]
            _made[key] = made
    return made
