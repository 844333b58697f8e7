"""The checks of networks, layers and losses.

They run in float64 if the device has it: they judge the formula, not the dtype.
"""

import functools
from collections.abc import Sequence
from typing import Unpack

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    dtype_name,
    owner,
    plain_numbers,
    require_floating,
    resolve,
    to_device_of,
    to_host,
)
from backprop_xp.checks import choose
from backprop_xp.gradient_check.entrances.curvatures import curvature_mistake
from backprop_xp.gradient_check.entrances.perturbed_losses import as_given, perturbed_losses
from backprop_xp.gradient_check.entrances.products import random_numbers, vjp_problem
from backprop_xp.gradient_check.entrances.together import layer_mistake, loss_mistake, with_mistakes
from backprop_xp.gradient_check.inputs.points import Point, Tensor, flatten
from backprop_xp.gradient_check.inputs.problems import (
    DEFAULTS,
    CheckOptions,
    Problem,
    complete_options,
    shows_options,
)
from backprop_xp.gradient_check.verdict.report import GradientReport
from backprop_xp.gradient_check.verdict.run import check_problem
from backprop_xp.gradient_check.verdict.several_points import Build, check_points
from backprop_xp.networks.chain.batch_rows import Rows, counted
from backprop_xp.networks.chain.layout import draw, lay_out, unpack
from backprop_xp.networks.chain.propagation import Layer, Parameters, require_layer
from backprop_xp.networks.layers.activations import Activation
from backprop_xp.networks.layers.core import Activate
from backprop_xp.networks.losses.loss import LOSSES, Loss
from backprop_xp.networks.losses.targets import check_targets
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import draw_stack
from backprop_xp.networks.numbers.random_bits import fold_in

# Added to drawn parameters: a bias of 0 or a scale of 1 would hide a mistake in its rule.
_SPREAD = 0.2
# The least scale of an entry, as a part of its tensor's: all entries of a tensor have one unit.
_LEAST_SCALE = 2.0**-10


@shows_options()
def check_network(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    sample_weight: Array | None = None,
    rng: Array | int | None = None,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare ``network.loss_and_gradient`` with numeric derivatives of ``network.loss``.

    - ``network``: any network, also with layers of your own.
    - ``theta``: the parameters ``(P,)`` of one network, not of a stack.
    - ``x``, ``y``: the samples ``(batch, n_in)`` and targets ``(batch, n_out)``; class labels
      ``(batch,)`` for a categorical cross-entropy.
    - ``sample_weight``: the weights of the samples, ``(batch,)``, by default equal ones, or those
      of the entries of y, ``(batch, n_out)``.
    - ``rng``: the key of the dropout masks, a non-negative integer. Without it there is no dropout.
    - The options are those of ``check_gradient``. ``batched`` here means that the layers take
      stacked parameters, as the built-in ones do.

    The check runs in float64 if the device has it: it judges the formula, not the dtype. A
    perturbed parameter runs through its own and the later layers only. If the check fails, the
    diagnosis names the wrong layer. Raises TypeError or ValueError for arrays that do not fit the
    network.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> bx.check_network(network, theta, [[0, 1], [1, 1]], [[1], [0]]).passed
    True
    """
    checked = complete_options(options)
    _require_theta(network, theta, "theta")
    x, key = network.check_inputs(theta, x, rng)
    outputs = network.outputs_shape(theta, x)
    y, weight = check_targets(theta, outputs, y, sample_weight, network.loss_function)

    def start(theta: Array, name: str) -> tuple[Point, Build]:
        _require_theta(network, theta, name)
        given = None if weight is None else _in_double(weight)
        rows = counted(Rows(_in_double(x), _in_double(y), given, key))
        point = flatten(_in_double(theta), name)
        return point, lambda p: _network_problem(network, p.flat, rows, checked)

    with resolve(theta).backend.double_precision():
        return check_points(start, theta, checked, name="theta")


@shows_options()
def check_layer(
    layer: Layer | Activation,
    x: Array,
    *,
    wants_input: bool = True,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Check a layer's backward rule, by its input and its parameters, without a network.

    - ``layer``: a layer, or an ``Activation``.
    - ``x``: its input ``(batch, n_in)``; ``points`` are further inputs, ``samples`` move x and the
      parameters.
    - ``wants_input``: False leaves out the derivative by the input and passes x unchanged, as a
      layer of integer codes needs it.
    - The options are those of ``check_gradient``. ``seed`` also draws the parameters, by the
      layer's initializer plus noise, and the dropout masks.

    The check draws an upstream gradient u and compares ``backward(u)`` with the derivatives of
    ``<y, u>``. With ``method="directional"`` that is the dot-product test. A stack of two must give
    the results of each alone, unless the layer raises an error for it, or ``batched`` is False. The
    report calls the tensors ``input`` and as the layer names its parameters. Raises TypeError for
    an object that is not a layer, and ValueError for an x of another shape.

    >>> import backprop_xp as bx
    >>> print(bx.check_layer(bx.LayerNorm(3), bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    pass
    >>> wrong = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 2 * z**2 * g)
    >>> print(bx.check_layer(wrong, bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    fail
    """
    checked = complete_options(options)
    if isinstance(layer, Activation):
        layer = Activate(layer)
    require_layer(layer, "layer")
    if not wants_input and not layer.names:
        raise ValueError("layer has no parameters: without its input there is nothing to check.")
    seed, width = checked["seed"], getattr(layer, "n_in", None)

    def start(x: Array, name: str) -> tuple[Point, Build]:
        x = _rows(x, name, width, is_floating=wants_input)
        if array_namespace(x).isdtype(x.dtype, "real floating"):
            x = _in_double(x)
        point = _layer_point(layer, _draw_parameters(layer, x, seed), x if wants_input else None)
        return point, lambda p: _layer_problem(layer, p, None if wants_input else x, seed, checked)

    # Parameters of 0 beside an x that is not: the kinks of all rows of a relu meet.
    with resolve(x).backend.double_precision():
        return check_points(start, x, checked, name="x", zeros=wants_input)


@shows_options()
def check_loss(
    loss: str | Loss, outputs: Array, targets: Array, **options: Unpack[CheckOptions]
) -> GradientReport:
    """Check a loss's gradient and curvature by the outputs, with random weights of the samples.

    The curvature, if there is one, must be positive semidefinite. It must be the derivative of the
    gradient, or the weight W of ``gradient = W (outputs - targets)``. A sample's results must not
    depend on the other samples, nor on a second network in a stack.

    - ``loss``: a name in ``bx.losses``, or a ``Loss``.
    - ``outputs``: the network's outputs ``(batch, n_out)``, logits for a cross-entropy; ``points``
      are further ones for the same targets.
    - ``targets``: the targets ``(batch, n_out)``, or class labels ``(batch,)``, as the loss takes
      them.
    - The options are those of ``check_gradient``.

    Raises ValueError for an unknown name and for shapes that do not fit.

    >>> import backprop_xp as bx
    >>> print(bx.check_loss("huber", bx.asarray([[0.3, 2.0]]), bx.asarray([[0.0, 0.0]])).verdict)
    pass
    """
    checked = complete_options(options)
    loss = choose(LOSSES, loss, "loss")

    def start(outputs: Array, name: str) -> tuple[Point, Build]:
        outputs = _rows(outputs, name)
        of, _ = check_targets(outputs, outputs.shape, targets, None, loss, name="targets")
        of = _in_double(of)
        point = _named([_in_double(outputs)], ["outputs"])
        return point, lambda p: _loss_problem(loss, p, of, checked)

    with resolve(outputs).backend.double_precision():
        return check_points(start, outputs, checked, name="outputs")


def _network_problem(network: Network, theta: Array, rows: Rows, options: CheckOptions) -> Problem:
    """Return the problem of a network's loss as a function of theta ``(P,)``.

    ``rows`` are in theta's dtype, and ``rows.rng`` is a key.
    """
    data = as_given(network, theta, rows)
    places = [(f"layers[{i}].{p.name}", p) for i, each in enumerate(network.layout) for p in each]
    tensors = tuple(Tensor(name, p.shape, p.part) for name, p in places)
    return Problem(
        flatten(theta)._replace(tensors=tensors),
        lambda flat: network.loss(flat, **data),
        lambda flat: network.loss_and_gradient(flat, **data)[1],
        {**options, "batched": None},
        perturbed_values=perturbed_losses(
            network, theta, rows, batched=options["batched"], max_memory=options["max_memory"]
        ),
        least_scale=_LEAST_SCALE,
        batch_size=rows.x.shape[-2],
        l2=network.l2,
        decays=frozenset(name for name, p in places if p.decays),
        locate=lambda entries: _wrong_layers(network, theta, rows, options["seed"]),
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
            point = _layer_point(layer, parameters, x if i > 0 else None)
            problem = _layer_problem(layer, point, None if i > 0 else x, key, options)
            pieces.append((f"layers[{i}] ({type(layer).__name__})", problem))
        x, _ = layer.forward(parameters, x, key)
    outputs = _named([x], ["outputs"])
    pieces.append(("the loss", _loss_problem(network.loss_function, outputs, rows.y, options)))
    wrong = []
    for name, problem in pieces:
        report = check_problem(problem)
        if report.verdict in ("fail", "nondeterministic"):
            tensor = f", in the derivative by its {report.worst[0].tensor}" if report.worst else ""
            wrong.append(f"{name} fails a check of its own{tensor}")
    return "; ".join(wrong) or None


def _layer_point(layer: Layer, parameters: Parameters, x: Array | None) -> Point:
    """Return the point of a layer: its input, unless that is None, and its parameters."""
    inputs, names = ([], []) if x is None else ([x], ["input"])
    return _named([*inputs, *parameters], [*names, *layer.names])


def _layer_problem(
    layer: Layer, point: Point, held: Array | None, rng: Array | int | None, options: CheckOptions
) -> Problem:
    """Return the problem of a layer as a function of its point.

    ``held`` is an input that is not differentiated, None if the point begins with the input.
    """

    def parts(arrays: list[Array]) -> tuple[Array, list[Array]]:
        if held is None:
            return arrays[0], arrays[1:]
        xp = array_namespace(held)
        is_real = xp.isdtype(held.dtype, "real floating")  # parameters may be complex
        return (xp.astype(held, arrays[0].dtype) if is_real else held), arrays

    def forward(arrays: list[Array]) -> tuple[Array, Array]:
        x, parameters = parts(arrays)
        return layer.forward(parameters, x, rng)

    def backward(arrays: list[Array], upstream: Array) -> list[Array | None]:
        _, parameters = parts(arrays)
        by_input, by_parameters = layer.backward(
            parameters, forward(arrays)[1], upstream, wants_input=held is None
        )
        return [by_input, *by_parameters] if held is None else list(by_parameters)

    problem = vjp_problem(point, lambda p: forward(p)[0], backward, options, is_one=True)
    problem = problem._replace(least_scale=_LEAST_SCALE)
    arrays, stacks = point.restore(point.flat), options["batched"] is not False
    return with_mistakes(problem, lambda: layer_mistake(layer, arrays, held, rng, stacks=stacks))


def _loss_problem(loss: Loss, point: Point, targets: Array, options: CheckOptions) -> Problem:
    """Return the problem of a loss as a function of the outputs, each sample randomly weighted."""
    problem = vjp_problem(
        point,
        lambda arrays: loss.value(arrays[0], targets),
        lambda arrays, weight: [loss.gradient(arrays[0], targets) * weight[..., None]],
        options,
        is_one=True,
    )
    (outputs,), stacks = point.restore(point.flat), options["batched"] is not False

    def mistake() -> str | None:
        found = loss_mistake(loss, outputs, targets, stacks=stacks)
        return found or curvature_mistake(loss, point, targets, options)

    return with_mistakes(problem, mistake)


def _draw_parameters(layer: Layer, x: Array, seed: int) -> Parameters:
    """Return parameters of a layer on x's device, with noise so that none has a special value."""
    if not layer.names:
        return ()
    layout = lay_out([layer])
    drawn = draw_stack(seed, 1, functools.partial(draw, [layer], layout))[0]
    return unpack(layout, to_device_of(x, drawn + _SPREAD * random_numbers(drawn.shape, seed)))[0]


def _in_double(array: Array) -> Array:
    """Return an array in float64, or in float32 if its device has no float64."""
    return to_device_of(array, to_host(array))


def _require_theta(network: Network, theta: Array, name: str) -> None:
    _require_real(theta, name)
    shape, expected = tuple(theta.shape), f"({network.size},)"
    if len(shape) > 1:
        one = f"the check takes one network, {expected}. Pass {name}[i]"
        raise ValueError(f"{name} has shape {shape}, but {one}.")
    if shape != (network.size,):
        raise ValueError(f"{name} has shape {shape}, but this network's is {expected}.")


def _require_real(array: Array, name: str) -> None:
    require_floating(array, name)
    if array_namespace(array).isdtype(array.dtype, "complex floating"):
        kind = dtype_name(array.dtype)
        raise TypeError(f"{name} is {kind}, but real floating numbers are expected.")


def _named(arrays: list[Array], names: Sequence[str]) -> Point:
    point = flatten(arrays)
    tensors = [t._replace(name=name) for t, name in zip(point.tensors, names, strict=True)]
    return point._replace(tensors=tuple(tensors))


def _rows(x: Array, name: str, width: int | None = None, *, is_floating: bool = True) -> Array:
    """Return x as an array ``(batch, width)``; numbers take the chosen backend and dtype."""
    choice = resolve(x) if is_floating else None
    x = plain_numbers(x, name) if owner(x) is None else x
    if choice is None:
        x = asarray(x)
    else:
        x = asarray(x, backend=choice.backend, device=choice.device, dtype=choice.dtype)
        _require_real(x, name)
    if len(x.shape) != 2 or 0 in x.shape or width not in (None, x.shape[-1]):
        shape, expected = tuple(x.shape), f"(batch, {width or 'n'})"
        raise ValueError(f"{name} has shape {shape}, but {expected} with rows is expected.")
    return x
