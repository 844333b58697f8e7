"""A network, a layer and a loss as problems of a value and its gradient.

A layer's backward rule is the transpose of its Jacobian J: for any directions v of its input and
parameters and any u of its output, ``<J v, u> = <v, J^T u>`` (Claerbout 1992, "the dot-product
test"). The left side is the derivative along v of ``<y, u>``, a scalar function.

The checks run in float64 if the device has it: they judge the formula, not the dtype.
"""

import functools
from collections.abc import Sequence

import numpy as np

from backprop_xp.backends import Array, array_namespace, to_device_of, to_host
from backprop_xp.gradient_check.perturbed_losses import perturbed_losses
from backprop_xp.gradient_check.points import Point, Tensor, flatten
from backprop_xp.gradient_check.problems import DEFAULTS, CheckOptions, Problem
from backprop_xp.gradient_check.run import check_problem
from backprop_xp.networks.initializers import draw_stack
from backprop_xp.networks.inputs import Rows
from backprop_xp.networks.layout import draw, lay_out, unpack
from backprop_xp.networks.losses import Loss
from backprop_xp.networks.network import Network
from backprop_xp.networks.propagation import Layer, Parameters
from backprop_xp.networks.random_bits import fold_in

# Added to drawn parameters: a bias of 0 or a scale of 1 would hide a mistake in its rule.
_SPREAD = 0.2
# The least scale of an entry, as a part of its tensor's: all entries of a tensor have one unit.
_LEAST_SCALE = 2.0**-10


def network_problem(network: Network, theta: Array, rows: Rows, options: CheckOptions) -> Problem:
    """Return the problem of a network's loss as a function of theta ``(P,)``.

    ``rows`` are in theta's dtype, and ``rows.rng`` is a key.
    """
    data = {"sample_weight": rows.sample_weight, "rng": rows.rng}
    places = [(f"layers[{i}].{p.name}", p) for i, each in enumerate(network.layout) for p in each]
    tensors = tuple(Tensor(name, p.shape, p.part) for name, p in places)
    return Problem(
        flatten(theta)._replace(tensors=tensors),
        lambda flat: network.loss(flat, rows.x, rows.y, **data),
        lambda flat: network.loss_and_gradient(flat, rows.x, rows.y, **data)[1],
        {**options, "batched": None},
        perturbed_values=perturbed_losses(
            network, theta, rows, batched=options["batched"], max_memory=options["max_memory"]
        ),
        least_scale=_LEAST_SCALE,
        batch_size=rows.x.shape[-2],
        l2=network.l2,
        decays=frozenset(name for name, p in places if p.decays),
        wrong_layers=lambda: _wrong_layers(network, theta, rows, options["seed"]),
    )


def _wrong_layers(network: Network, theta: Array, rows: Rows, seed: int) -> str | None:
    """Return which layers of a network, or whether its loss, fail a check along a direction."""
    options: CheckOptions = {**DEFAULTS, "method": "directional", "seed": seed}
    pieces, x = [], rows.x
    for i, (layer, parameters) in enumerate(
        zip(network.layers, unpack(network.layout, theta), strict=True)
    ):
        key = None if rows.rng is None else fold_in(rows.rng, i)
        if i > 0 or layer.names:  # the first layer's input is not trained
            problem = layer_problem(layer, parameters, x, key, options, wants_input=i > 0)
            pieces.append((f"layers[{i}] ({type(layer).__name__})", problem))
        x, _ = layer.forward(parameters, x, key)
    pieces.append(("the loss", loss_problem(network.loss_function, x, rows.y, options)))
    wrong = []
    for name, problem in pieces:
        report = check_problem(problem)
        if report.verdict in ("fail", "nondeterministic"):
            tensor = f", in the derivative by its {report.worst[0].tensor}" if report.worst else ""
            wrong.append(f"{name} fails a check of its own{tensor}")
    return "; ".join(wrong) or None


def layer_problem(
    layer: Layer,
    parameters: Parameters,
    x: Array,
    rng: Array | int | None,
    options: CheckOptions,
    *,
    wants_input: bool = True,
) -> Problem:
    """Return the problem of a layer as a function of its parameters, and its input if wanted."""
    y, _ = layer.forward(parameters, x, rng)
    upstream = to_device_of(y, _random(tuple(y.shape), options["seed"]), y.dtype)
    inputs = [x] if wants_input else []
    is_real = array_namespace(x).isdtype(x.dtype, "real floating")

    def forward(point: list[Array]) -> tuple[Array, Array]:
        here = point[0] if wants_input else x
        if is_real and not wants_input:  # parameters may be complex
            here = array_namespace(x).astype(x, point[0].dtype)
        return layer.forward(point[len(inputs) :], here, rng)

    def value(point: list[Array]) -> Array:
        y, _ = forward(point)
        return array_namespace(y).sum(y * upstream, axis=(-2, -1))

    def gradient(point: list[Array]) -> list[Array | None]:
        by_input, by_parameters = layer.backward(
            point[len(inputs) :], forward(point)[1], upstream, wants_input=wants_input
        )
        return [by_input, *by_parameters] if wants_input else list(by_parameters)

    point = _named([*inputs, *parameters], [*["input"][: len(inputs)], *layer.names])
    return Problem(point, value, gradient, options, least_scale=_LEAST_SCALE)


def loss_problem(loss: Loss, outputs: Array, targets: Array, options: CheckOptions) -> Problem:
    """Return the problem of a loss as a function of the outputs, each sample randomly weighted."""
    weight = to_device_of(
        outputs, _random(tuple(outputs.shape[:-1]), options["seed"]), outputs.dtype
    )

    def value(point: list[Array]) -> Array:
        each = loss.value(point[0], targets)
        return array_namespace(each).sum(each * weight, axis=-1)

    def gradient(point: list[Array]) -> list[Array]:
        return [loss.gradient(point[0], targets) * weight[..., None]]

    return Problem(_named([outputs], ["outputs"]), value, gradient, options)


def draw_parameters(layer: Layer, x: Array, seed: int) -> Parameters:
    """Return parameters of a layer on x's device, with noise so that none has a special value."""
    if not layer.names:
        return ()
    layout = lay_out([layer])
    drawn = draw_stack(seed, 1, functools.partial(draw, [layer], layout))[0]
    return unpack(layout, to_device_of(x, drawn + _SPREAD * _random(drawn.shape, seed)))[0]


def in_double(array: Array) -> Array:
    """Return an array in float64, or in float32 if its device has no float64."""
    return to_device_of(array, to_host(array))


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return numbers with random signs and magnitudes of 0.5 to 1.5."""
    generator = np.random.default_rng([seed, 1])
    return generator.uniform(0.5, 1.5, shape) * (1.0 - 2.0 * generator.integers(2, size=shape))


def _named(arrays: list[Array], names: Sequence[str]) -> Point:
    point = flatten(arrays)
    tensors = [t._replace(name=name) for t, name in zip(point.tensors, names, strict=True)]
    return point._replace(tensors=tuple(tensors))
