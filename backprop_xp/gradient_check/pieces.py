"""A network, a layer and a loss as problems of a value and its gradient.

A layer's backward rule is the transpose of its Jacobian J: for any directions v of its input and
parameters and any u of its output, ``<J v, u> = <v, J^T u>`` (Claerbout 1992, "the dot-product
test"). The left side is the derivative along v of ``<y, u>``, a scalar function like any other.

They are judged in float64 where the device keeps it: it is the formula that is judged.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import Array, array_namespace, device_of, require_owner, to_host
from backprop_xp.gradient_check.functions import Context, Problem
from backprop_xp.gradient_check.points import Point, Tensor, flatten
from backprop_xp.initializers import draw_stack
from backprop_xp.inputs import Rows
from backprop_xp.layers import Layer, Parameters
from backprop_xp.layout import lay_out
from backprop_xp.losses import Loss
from backprop_xp.moved_losses import moved_losses
from backprop_xp.network import Network

# Added to drawn parameters: a bias of 0 or a scale of 1 would hide a mistake in its rule.
_SPREAD = 0.2
# Entries of a tensor have one unit: none is taken to vary at less than this part of their size.
_LEAST_SIZE = 2.0**-10


def network_problem(
    network: Network, theta: Array, rows: Rows, *, batched: bool | None, max_memory: int
) -> Problem:
    """Return the problem of a network's loss as a function of theta ``(P,)``."""
    given = {"sample_weight": rows.sample_weight, "rng": rows.rng}
    names = [
        (f"layers[{i}].{place.name}", place)
        for i, places in enumerate(lay_out(network.layers)[0])
        for place in places
    ]
    tensors = tuple(Tensor(name, place.shape, place.part) for name, place in names)
    point = flatten(theta)._replace(tensors=tensors)
    return Problem(
        point,
        lambda flat: network.loss(flat, rows.x, rows.y, **given),
        lambda flat: network.loss_and_gradient(flat, rows.x, rows.y, **given)[1],
        moved=moved_losses(network, theta, rows, batched=batched, max_memory=max_memory),
        least_size=_LEAST_SIZE,
        context=Context(
            rows.x.shape[-2], network.l2, frozenset(n for n, place in names if place.decays)
        ),
    )


def layer_problem(layer: Layer, parameters: Parameters, x: Array, rng: Any, seed: int) -> Problem:
    """Return the problem of a layer at some parameters and input."""
    y, _ = layer.forward(parameters, x, rng)
    upstream = _beside(y, _random(tuple(y.shape), seed))

    def value(point: list[Array]) -> Array:
        y, _ = layer.forward(point[1:], point[0], rng)
        return array_namespace(y).sum(y * upstream, axis=(-2, -1))

    def gradient(point: list[Array]) -> list[Array | None]:
        _, cache = layer.forward(point[1:], point[0], rng)
        by_input, by_parameters = layer.backward(point[1:], cache, upstream, wants_input=True)
        return [by_input, *by_parameters]

    point = _named([x, *parameters], ["input", *layer.names])
    return Problem(point, value, gradient, least_size=_LEAST_SIZE)


def loss_problem(loss: Loss, outputs: Array, targets: Array, seed: int) -> Problem:
    """Return the problem of a loss at some outputs, each sample weighted at random."""
    weight = _beside(outputs, _random(tuple(outputs.shape[:-1]), seed))

    def value(point: list[Array]) -> Array:
        each = loss.value(point[0], targets)
        return array_namespace(each).sum(each * weight, axis=-1)

    def gradient(point: list[Array]) -> list[Array]:
        return [loss.gradient(point[0], targets) * weight[..., None]]

    return Problem(_named([outputs], ["outputs"]), value, gradient)


def drawn_parameters(layer: Layer, x: Array, seed: int) -> list[Array]:
    """Return parameters of a layer beside x, none of them at a special value."""
    if not layer.names:
        return []
    drawn = draw_stack(seed, 1, layer.initialize)[0]
    moved, parts, start = drawn + _SPREAD * _random(drawn.shape, seed), [], 0
    for shape in layer.shapes:
        parts.append(_beside(x, moved[start : start + math.prod(shape)].reshape(shape)))
        start += math.prod(shape)
    return parts


def in_double(arrays: Sequence[Array | None]) -> list[Any]:
    """Return arrays in float64, or as they are where their device keeps none."""
    given = [array for array in arrays if array is not None]
    try:
        made = iter([_beside(array, to_host(array), double=True) for array in given])
    except Exception:
        made = iter(given)
    return [None if array is None else next(made) for array in arrays]


def _beside(array: Array, host: np.ndarray, *, double: bool = False) -> Array:
    """Return host numbers where an array is, in its dtype or in float64."""
    home = require_owner(array, "x")
    dtype = home.namespace().float64 if double else array.dtype
    return home.from_host(host, dtype, device_of(array))


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return numbers of random sign and of size 0.5 to 1.5."""
    generator = np.random.default_rng([seed, 1])
    return generator.uniform(0.5, 1.5, shape) * (1.0 - 2.0 * generator.integers(2, size=shape))


def _named(arrays: list[Array], names: Sequence[str]) -> Point:
    point = flatten(arrays)
    tensors = [t._replace(name=name) for t, name in zip(point.tensors, names, strict=True)]
    return point._replace(tensors=tuple(tensors))
