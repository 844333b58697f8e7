"""Layers and losses on two cases together: each must get the results that it has alone."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import Array, array_namespace, to_device_of, to_host
from backprop_xp.gradient_check.entrances.products import random_numbers
from backprop_xp.gradient_check.inputs.functions import quiet
from backprop_xp.gradient_check.inputs.problems import Problem
from backprop_xp.gradient_check.verdict.judge import KINK, Comparison
from backprop_xp.networks.chain.propagation import Layer
from backprop_xp.networks.jets.errors import NotLinearError
from backprop_xp.networks.jets.jet import Jet
from backprop_xp.networks.jets.passes import namespace_of
from backprop_xp.networks.losses.loss import Loss, curvature_of, sample_losses

# A function of arrays that returns its results by name; and its arrays in two cases.
_Results: TypeAlias = Callable[..., dict[str, Array]]
_Pair: TypeAlias = tuple[list[Array], list[Array]]


class _Join(NamedTuple):
    """How two arrays, and two results on the host, become one."""

    arrays: Callable[[list[Array]], Array]
    results: Callable[[list[np.ndarray]], np.ndarray]


def with_mistakes(problem: Problem, find: Callable[[], str | None]) -> Problem:
    """Return a problem that fails, too, for the mistake that ``find`` returns, unless None."""

    def verify(entries: Comparison) -> str | None:
        return find() if entries.verdict <= KINK else None

    return problem._replace(verify=verify, locate=lambda entries: find())


def layer_mistake(
    layer: Layer, arrays: list[Array], held: Array | None, rng: Any, *, stacks: bool
) -> str | None:
    """Return what a layer does to g that is not linear, or wrong for a stack of two networks.

    None if it is right. ``arrays`` are its input, unless that is ``held``, and its parameters.
    """

    def results(*arrays: Array) -> dict[str, Array]:
        *given, u = arrays
        x, *parameters = given if held is None else (held, *given)
        y, cache = layer.forward(parameters, x, rng)
        by_input, by_parameters = layer.backward(parameters, cache, u, wants_input=held is None)
        found = dict(zip(layer.names, by_parameters, strict=True))
        found |= {} if held is not None else {"input": by_input}
        return {"forward's output": y} | {f"backward's {name}": g for name, g in found.items()}

    x, *parameters = arrays if held is None else (held, *arrays)
    y, _ = layer.forward(parameters, x, rng)
    u = to_device_of(y, random_numbers(tuple(y.shape), 0), y.dtype)
    pair = [*arrays, u], [*map(_other, arrays), _other(u)]
    found = _non_linearity(layer, x, parameters, rng, u)
    return found or (_stack_mistake(results, pair) if stacks else None)


def _non_linearity(
    layer: Layer, x: Array, parameters: list[Array], rng: Any, u: Array
) -> str | None:
    """Return what a backward rule does to g that is not linear, found by the type of g, or None.

    The differences for one g do not show it: a rule that clips g is right for a small one.
    """
    namespace = namespace_of(array_namespace(u), ())
    own = [Jet(namespace, parameter) for parameter in parameters]
    with quiet(), contextlib.suppress(Exception):  # of a layer that takes no jets
        _, cache = layer.forward(own, Jet(namespace, x), rng)
        try:
            layer.backward(own, cache, Jet(namespace, u, is_dual=True))
        except NotLinearError as error:
            return str(error)
    return None


def loss_mistake(loss: Loss, outputs: Array, targets: Array, *, stacks: bool) -> str | None:
    """Return what a loss does wrong for its batch as a whole or for a stack of two, or None."""

    def results(outputs: Array, targets: Array) -> dict[str, Array]:
        names = ["value", "gradient", *["curvature"] * (loss.curvature is not None)]
        return {name: getattr(loss, name)(outputs, targets) for name in names}

    try:
        sample_losses(loss, outputs, targets)
        if loss.curvature is not None:
            curvature_of(loss, outputs, targets)
    except ValueError as error:
        return str(error)
    xp = array_namespace(outputs)
    pair = [outputs, targets], [_other(outputs), targets]
    # The rows of outputs and targets are joined as those of every result.
    rows = _Join(lambda two: xp.concat(two, axis=-2), np.concatenate)
    if found := _difference(results, pair, rows):
        return f"a sample's loss depends on the other samples of the batch: {found}"
    return _stack_mistake(results, pair) if stacks else None


def _other(array: Array) -> Array:
    """Return numbers that differ from those of an array, of the same signs."""
    return 0.75 * array + array_namespace(array).astype(array == 0.0, array.dtype)


def _stack_mistake(results: _Results, pair: _Pair) -> str | None:
    """Return what differs if two cases become a stack, or None."""
    stack = _Join(array_namespace(pair[0][0]).stack, np.stack)
    found = _difference(results, pair, stack)
    return found and f"it is wrong on a stack of two networks, use axes -1 and -2: {found}"


def _difference(results: _Results, pair: _Pair, join: _Join) -> str | None:
    """Return which result of a joined pair differs from the joined results of each, or None.

    A pair that raises an error has no wrong result.
    """
    with quiet(), contextlib.suppress(Exception):
        alone = [results(*arrays) for arrays in pair]
        together = results(*map(join.arrays, map(list, zip(*pair, strict=True))))
        for name, found in together.items():
            expected = join.results([to_host(each[name]) for each in alone])
            shape = tuple(found.shape)
            if shape != expected.shape:
                return f"{name} has shape {shape}, but {expected.shape} is expected"
            # Products of other shapes round differently; half of the digits may differ.
            largest = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
            slack = math.sqrt(np.finfo(expected.dtype).eps) * largest
            if not np.allclose(to_host(found), expected, rtol=0.0, atol=slack, equal_nan=True):
                return f"{name} differs from that of each alone"
    return None
