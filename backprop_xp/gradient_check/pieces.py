"""Checking a layer or a loss alone, and naming the piece of a network that is wrong.

A layer's backward rule is the transpose of its Jacobian J: for any directions v of its input and
parameters and any u of its output, ``<J v, u> = <v, J^T u>`` (Claerbout 1992, "the dot-product
test"). The left side is the derivative along v of ``<y, u>``, a scalar function like any other.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

from backprop_xp.activations import Activation
from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    device_of,
    like,
    owner,
    require_floating,
    require_owner,
    resolve,
)
from backprop_xp.checks import choose
from backprop_xp.gradient_check.directions import random_like
from backprop_xp.gradient_check.network import freeze
from backprop_xp.gradient_check.points import Point, flatten
from backprop_xp.gradient_check.problems import (
    CheckOptions,
    Options,
    Problem,
    check_options,
    of_functions,
)
from backprop_xp.gradient_check.report import GradientReport
from backprop_xp.gradient_check.run import run
from backprop_xp.initializers import draw_stack
from backprop_xp.inputs import Rows, check_beside_outputs, check_x
from backprop_xp.layers import Activate, Layer, Parameters, require_layer
from backprop_xp.layout import lay_out, split
from backprop_xp.losses import LOSSES, Loss
from backprop_xp.network import Network
from backprop_xp.random import as_key, fold_in

# Added to drawn parameters: a bias of 0 or a scale of 1 would hide a mistake in its rule.
_SPREAD = 0.2


def check_layer(
    layer: Layer | Activation, x: Array, **options: Unpack[CheckOptions]
) -> GradientReport:
    """Check a layer's backward rule by its input and its parameters, without a network.

    ``x`` is ``(batch, n_in)``; the parameters are the layer's own draw of ``seed`` and some noise,
    and dropout masks have it for a key. An ``Activation`` is checked as a layer of its own. What is
    compared is ``backward`` of a random upstream gradient u with the derivatives of ``<y, u>``: by
    ``method="directional"`` that is the dot test. ``options`` are those of ``check_gradient``; the
    tensors are called ``input`` and as the layer names its parameters.

    >>> import backprop_xp as bx
    >>> print(bx.check_layer(bx.LayerNorm(3), bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    pass
    >>> wrong = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 2 * z**2 * g)
    >>> print(bx.check_layer(wrong, bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    fail
    """
    chosen = check_options(options)
    if isinstance(layer, Activation):
        layer = Activate(layer)
    require_layer(layer, "layer")
    x = _samples(x, "x", getattr(layer, "n_in", None))
    parameters = _drawn(layer, x, chosen.seed)
    return run(layer_problem(layer, parameters, x, chosen.seed, chosen), chosen)


def check_loss(
    loss: str | Loss, outputs: Array, targets: Array, **options: Unpack[CheckOptions]
) -> GradientReport:
    """Check a loss's gradient by the outputs, ``(batch, n_out)``, each sample weighted at random.

    ``loss`` is a name of ``bx.losses`` or a ``Loss``; ``options`` are those of ``check_gradient``.

    >>> import backprop_xp as bx
    >>> print(bx.check_loss("huber", bx.asarray([[0.3, 2.0]]), bx.asarray([[0.0, 0.0]])).verdict)
    pass
    """
    chosen = check_options(options)
    loss = choose(LOSSES, loss, "loss")
    outputs = _samples(outputs, "outputs", None)
    targets = like(outputs, targets, "targets")
    check_beside_outputs(targets, outputs.shape, "targets")
    return run(loss_problem(loss, outputs, targets, chosen), chosen)


def _samples(x: Any, name: str, width: int | None) -> Array:
    """Return x as a floating array ``(batch, n)``; whole numbers in the precision chosen."""
    x = asarray(x) if owner(x) is None else x
    xp = array_namespace(x)
    if xp.isdtype(x.dtype, ("bool", "integral")):
        x = xp.astype(x, resolve(x).dtype)
    require_floating(x, name)
    if len(x.shape) != 2 or 0 in x.shape or width not in (None, x.shape[-1]):
        wanted = "n" if width is None else width
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but (batch, {wanted}) with rows is expected."
        )
    return x


def layer_problem(
    layer: Layer, parameters: Parameters, x: Array, rng: Any, options: Options
) -> Problem:
    """Return the problem of a layer at some parameters and input."""
    y, _ = layer.forward(parameters, x, rng)
    upstream = random_like(y, options.seed)
    point = _named(flatten([x, *parameters]), ["input", *layer.names])

    def value_of(layer: Layer) -> Callable[[list[Array]], Array]:
        def value(point: list[Array]) -> Array:
            y, _ = layer.forward(point[1:], point[0], rng)
            return array_namespace(y).sum(y * upstream, axis=(-2, -1))

        return value

    def gradient(point: list[Array]) -> list[Array | None]:
        _, cache = layer.forward(point[1:], point[0], rng)
        by_input, by_parameters = layer.backward(point[1:], cache, upstream, wants_input=True)
        return [by_input, *by_parameters]

    piece, _ = freeze(layer, parameters, x, rng)
    smooth = None if piece is layer else of_functions(value_of(piece), gradient, point, options)
    return of_functions(value_of(layer), gradient, point, options, smooth)


def loss_problem(loss: Loss, outputs: Array, targets: Array, options: Options) -> Problem:
    """Return the problem of a loss at some outputs."""
    weight = random_like(outputs, options.seed)[..., 0]

    def value(point: list[Array]) -> Array:
        each = loss.value(point[0], targets)
        return array_namespace(each).sum(each * weight, axis=-1)

    def gradient(point: list[Array]) -> list[Array]:
        return [loss.gradient(point[0], targets) * weight[..., None]]

    return of_functions(value, gradient, _named(flatten([outputs]), ["outputs"]), options)


def _named(point: Point, names: Sequence[str]) -> Point:
    tensors = [t._replace(name=name) for t, name in zip(point.tensors, names, strict=True)]
    return point._replace(tensors=tuple(tensors))


def _drawn(layer: Layer, x: Array, seed: int) -> list[Array]:
    """Return parameters of a layer beside x, none of them at a special value."""
    if not layer.names:
        return []
    drawn = draw_stack(seed, 1, layer.initialize)[0]
    moved = drawn + _SPREAD * random_like(drawn[None, :], seed)[0, :]
    home, parts, start = require_owner(x, "x"), [], 0
    for shape in layer.shapes:
        part = moved[start : start + math.prod(shape)].reshape(shape)
        parts.append(home.from_host(part, x.dtype, device_of(x)))
        start += math.prod(shape)
    return parts


def blame(network: Network, theta: Array, rows: Rows, options: Options) -> str | None:
    """Return which layers of a network fail a check of their own, or the loss; None if none does.

    Each is checked along directions, at the parameters and the input that it has in the network.
    """
    along = options._replace(method="directional", directions=None, batched=None)
    layout, _ = lay_out(network.layers)
    parameters, x = split(layout, theta), check_x(theta, rows.x, None)
    key = None if rows.rng is None else as_key(rows.rng, theta)
    wrong = []
    for i, layer in enumerate(network.layers):
        inner = None if key is None else fold_in(key, i)
        problem = layer_problem(layer, parameters[i], x, inner, along)
        wrong += _fault(f"layers[{i}] ({type(layer).__name__})", problem, along)
        x, _ = layer.forward(parameters[i], x, inner)
    wrong += _fault("the loss", loss_problem(network.loss_function, x, rows.y, along), along)
    return "; ".join(wrong) or None


def _fault(name: str, problem: Problem, options: Options) -> list[str]:
    report = run(problem, options)
    if report.passed or report.verdict == "inconclusive":
        return []
    tensor = f", in the derivative by its {report.worst[0].tensor}" if report.worst else ""
    return [f"{name} fails a check of its own{tensor}"]
