"""A network's loss as a function near theta: a moved parameter touches its layer and what follows.

Everything before that layer is computed once. A moved parameter of a Dense moves one column of its
pre-activations; what follows goes through the layers' own ``forward``.
"""

import bisect
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from backprop_xp.activations import ACTIVATIONS, LEAK, Activation, leaky_relu, relu, softmax
from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    require_owner,
    to_host,
)
from backprop_xp.complex_safe import is_complex, positive
from backprop_xp.gradient_check.functions import (
    Function,
    Host,
    Tally,
    chunks,
    doubled,
    index,
    joined,
    moved_copies,
    nothing,
    takes_stacks,
)
from backprop_xp.inputs import Rows, check_x
from backprop_xp.layers import Activate, Dense, Dropout, Layer, LayerNorm, Parameters, Residual
from backprop_xp.layout import Layout, Place, lay_out, split
from backprop_xp.network import Network, mean_loss, penalty
from backprop_xp.random import as_key, fold_in

# These act on each number alone, so a moved column stays one.
_ELEMENTWISE = [a.value for a in ACTIVATIONS.values() if a is not softmax]
# Functions that are lines through 0 and bend there, and their slopes below.
_BENT = [(relu.value, 0.0), (leaky_relu.value, LEAK)]


class _Trace(NamedTuple):
    """The forward pass at theta in some dtype, by layer; ``z`` are Dense's pre-activations."""

    parameters: list[tuple[Array, ...]]
    inputs: list[Array]
    z: list[Array | None]
    outputs: list[Array]


class _Setting(NamedTuple):
    """A network at a theta, and what it is checked on; ``key`` is the dropout masks' key."""

    network: Network
    layout: Layout
    theta: Array
    rows: Rows
    key: Any


class _Move(NamedTuple):
    """Copies of theta, in each of which one entry ``at`` of a parameter of a layer is ``moved``."""

    layer: int
    place: Place
    at: Array
    moved: Array


def of_network(
    network: Network,
    theta: Array,
    rows: Rows,
    base: float,
    tally: Tally,
    *,
    batched: bool | None,
    max_memory: int,
) -> Function:
    """Return the loss of a network as a ``Function`` of theta ``(P,)``; ``base`` is its value.

    ``batched`` None tries whether the layers take a stack, where not all of them are built-in.
    """
    layout, _ = lay_out(network.layers)
    key = None if rows.rng is None else as_key(rows.rng, theta)
    setting = _Setting(network, layout, theta, rows, key)
    traced = functools.cache(lambda dtype: _trace(setting, dtype))
    same: Any = {"tally": tally, "batched": batched, "max_memory": max_memory}

    @functools.cache
    def at_once() -> bool:
        if batched is not None or all(_is_built_in(layer) for layer in network.layers):
            return batched is not False
        tally["value"] += 4
        return takes_stacks(lambda at: _loss(network, at, rows), theta)

    def at(points: Array) -> Host:
        tally["value"] += points.shape[0]
        return to_host([_loss(network, points[i, :], rows) for i in range(points.shape[0])])

    def entries(columns: Sequence[int], moved: Host) -> Host:
        values = require_owner(theta, "theta").from_host(moved, None, device_of(theta))
        if not at_once():
            parts = chunks(len(columns), _copies(max_memory, network.size, values))
            return joined([at(moved_copies(theta, columns[p], values[p])) for p in parts])
        tally["value"] += len(columns)
        trace = traced(values.dtype)
        return joined(list(_moved_losses(setting, trace, columns, values, max_memory)))

    @functools.cache
    def in_double() -> Function | None:
        double = doubled(theta)
        if double is None:
            return None
        raised = rows._replace(
            x=doubled(rows.x),
            y=doubled(rows.y),
            sample_weight=None if rows.sample_weight is None else doubled(rows.sample_weight),
        )
        tally["value"] += 1
        there = float(_loss(network, double, raised))
        function = of_network(network, double, raised, there, **same)
        piece = frozen()
        # The piece that the float32 point is on: in float64 another may be a rounding away.
        return function._replace(
            is_raised=True, frozen=nothing if piece is None else piece.in_double
        )

    @functools.cache
    def frozen() -> Function | None:
        parameters = traced(theta.dtype).parameters
        layers, _ = _freeze(network.layers, parameters, rows.x, setting.key)
        if layers == list(network.layers):
            return None
        piece = Network(layers, network.loss_function, l2=network.l2)
        return of_network(piece, theta, rows, base, **same)._replace(frozen=nothing)

    return Function(theta, to_host(theta), base, at, entries, tally, in_double, frozen)


def _is_built_in(layer: Layer) -> bool:
    if isinstance(layer, Residual) and type(layer) is Residual:
        return all(_is_built_in(inner) for inner in layer.layers)
    return type(layer) in (Dense, Activate, Dropout, LayerNorm)


def _loss(network: Network, theta: Array, rows: Rows) -> Host:
    return to_host(
        network.loss(theta, rows.x, rows.y, sample_weight=rows.sample_weight, rng=rows.rng)
    )


def _trace(setting: _Setting, dtype: Any) -> _Trace:
    network, layout, theta, rows, key = setting
    theta = array_namespace(theta).astype(theta, dtype)
    parameters = split(layout, theta)
    x = check_x(theta, rows.x, None)
    trace = _Trace(parameters, [], [], [])
    for i, layer in enumerate(network.layers):
        trace.inputs.append(x)
        trace.z.append(x @ parameters[i][0] + parameters[i][1] if type(layer) is Dense else None)
        x, _ = layer.forward(parameters[i], x, _layer_key(key, i))
        trace.outputs.append(x)
    return trace


def _layer_key(key: Any, i: int) -> Any:
    return None if key is None else fold_in(key, i)


def _copies(max_memory: int, numbers: int, like: Array) -> int:
    """Return how many copies of so many numbers are made at once, in a quarter of the memory.

    The rest is for what a layer makes in passing, and copies that stay in the cache are faster.
    """
    xp = array_namespace(like)
    size = xp.finfo(like.dtype).bits // 8 * (2 if is_complex(xp, like.dtype) else 1)
    return max(1, max_memory // int(4 * numbers * size))


def _moved_losses(
    setting: _Setting, trace: _Trace, columns: Sequence[int], values: Array, max_memory: int
) -> Iterator[Host]:
    """Yield the losses ``(K,)`` with entries of theta moved, parameter by parameter."""
    fixed = _penalty(setting)
    for i, places in enumerate(setting.layout):
        for place in places:
            first, last = (
                bisect.bisect_left(columns, end) for end in (place.part.start, place.part.stop)
            )
            numbers = _numbers(setting, trace, i, place)
            for part in chunks(last - first, _copies(max_memory, numbers, values)):
                chosen = slice(first + part.start, first + part.stop)
                moved = values[chosen]
                at = index(moved, [c - place.part.start for c in columns[chosen]])
                move = _Move(i, place, at, moved)
                outputs = _moved_outputs(setting, trace, move)
                rows = setting.rows
                loss = mean_loss(setting.network.loss_function, outputs, rows.y, rows.sample_weight)
                yield to_host(loss + _moved_penalty(setting, fixed, move))


def _numbers(setting: _Setting, trace: _Trace, i: int, place: Place) -> int:
    """Return how many numbers a copy with a moved parameter holds at a time, at the most."""
    layers, batch = setting.network.layers, int(setting.rows.x.shape[-2])
    first = i + 1 if _sends_a_column(layers, i) else i
    # A layer's input, pre-activation and output; of the moved one the parameter, or a column.
    numbers = 3 * batch * max(int(output.shape[-1]) for output in trace.outputs[first:])
    return numbers + (batch if type(layers[i]) is Dense else place.length)


def _sends_a_column(layers: Sequence[Layer], i: int) -> bool:
    """Say whether layer i is a Dense of which a single column moves, and a Dense takes it."""
    layer = layers[i]
    return (
        type(layer) is Dense
        and layer.activation.value in _ELEMENTWISE
        and i + 1 < len(layers)
        and type(layers[i + 1]) is Dense
    )


def _penalty(setting: _Setting) -> Any:
    """Return the penalty of theta, 0.0 without one."""
    network, layout, theta, _, _ = setting
    decaying = [place for places in layout for place in places if place.decays and network.l2]
    return sum((penalty(theta[place.part], network.l2) for place in decaying), start=0.0)


def _moved_penalty(setting: _Setting, fixed: Any, move: _Move) -> Any:
    """Return the penalty ``(K,)``: of a sum over weights only the moved one's term changes."""
    strength = setting.network.l2
    if not move.place.decays or not strength:
        return fixed
    here = array_namespace(move.moved).take(setting.theta[move.place.part], move.at, axis=0)
    return fixed + (penalty(move.moved[:, None], strength) - penalty(here[:, None], strength))


def _moved_outputs(setting: _Setting, trace: _Trace, move: _Move) -> Array:
    """Return the network's outputs ``(K, batch, n_out)``."""
    layer = setting.network.layers[move.layer]
    if isinstance(layer, Dense) and type(layer) is Dense:
        return _from_column(setting, trace, move, layer)
    places, values = setting.layout[move.layer], trace.parameters[move.layer]
    copies = move.moved.shape[0]
    xp = array_namespace(move.moved)
    # All of them stacked: a layer may add a bias to a product in place.
    parameters = [
        _moved_parameter(value, move)
        if place is move.place
        else xp.broadcast_to(value, (copies, *place.shape))
        for place, value in zip(places, values, strict=True)
    ]
    x, _ = layer.forward(parameters, trace.inputs[move.layer], _layer_key(setting.key, move.layer))
    return _onwards(setting, trace, move.layer + 1, x)


def _moved_parameter(value: Array, move: _Move) -> Array:
    """Return copies ``(K, *shape)`` of a parameter, in each one entry moved."""
    xp = array_namespace(value)
    chosen = move.at[:, None] == index(value, range(move.place.length))[None, :]
    stack = xp.where(chosen, move.moved[:, None], xp.reshape(value, (1, -1)))
    return xp.reshape(stack, (stack.shape[0], *move.place.shape))


def _onwards(setting: _Setting, trace: _Trace, first: int, x: Array) -> Array:
    """Send the input of layer ``first`` through it and the rest."""
    layers = setting.network.layers
    for i in range(first, len(layers)):
        x, _ = layers[i].forward(trace.parameters[i], x, _layer_key(setting.key, i))
    return x


def _from_column(setting: _Setting, trace: _Trace, move: _Move, layer: Dense) -> Array:
    """Return the outputs with entries of a Dense's weights or bias moved.

    Each moves one column of the pre-activations. If only that column of the layer's output moves
    and a Dense is next, that Dense is sent the column alone: with its row of the weights, and with
    its pre-activations as they were for a bias.
    """
    i, place, at, moved = move
    xp, layers = array_namespace(moved), setting.network.layers
    x, z, before = trace.inputs[i], trace.z[i], trace.outputs[i]
    column = at % layer.n_out
    away = moved - xp.take(setting.theta[place.part], at, axis=0)
    if place.name == "weights":
        away = xp.take(x, at // layer.n_out, axis=1) * away
    moved_z = xp.matrix_transpose(xp.take(z, column, axis=1) + away)
    if _sends_a_column(layers, i):
        away = layer.activation.value(moved_z) - xp.matrix_transpose(
            xp.take(before, column, axis=1)
        )
        row = xp.take(trace.parameters[i + 1][0], column, axis=0)[:, None, :]
        x, _ = layers[i + 1].forward((row, trace.z[i + 1]), away[:, :, None], None)
        return _onwards(setting, trace, i + 2, x)
    is_column = column[:, None, None] == index(moved, range(layer.n_out))[None, None, :]
    if layer.activation.value in _ELEMENTWISE:
        a = layer.activation.value(moved_z)
        return _onwards(setting, trace, i + 1, xp.where(is_column, a[:, :, None], before))
    a = layer.activation.value(xp.where(is_column, moved_z[:, :, None], z))
    return _onwards(setting, trace, i + 1, a)


def _freeze(
    layers: Sequence[Layer], parameters: Sequence[Parameters], x: Array, key: Any
) -> tuple[list[Layer], Array]:
    """Return the layers, each bend replaced by the line that the point is on, and the output."""
    frozen: list[Layer] = []
    for i, layer in enumerate(layers):
        piece, x = freeze(layer, parameters[i], x, _layer_key(key, i))
        frozen.append(piece)
    return frozen, x


def freeze(layer: Layer, parameters: Parameters, x: Array, key: Any) -> tuple[Layer, Array]:
    """Return a layer with the line that each of its units is on for its activation, and its output.

    A layer without a bend is returned as it is.
    """
    y, _ = layer.forward(parameters, x, key)
    if isinstance(layer, Residual) and type(layer) is Residual:
        inner, _ = _freeze(layer.layers, layer.split(parameters), x, key)
        return (Residual(*inner) if inner != list(layer.layers) else layer), y
    if isinstance(layer, Dense | Activate) and type(layer) in (Dense, Activate):
        line = _line_of(layer.activation, y)
        if line is not None and isinstance(layer, Dense):
            return Dense(layer.n_in, layer.n_out, line), y
        if line is not None:
            return Activate(line), y
    return layer, y


def _line_of(activation: Activation, a: Array) -> Activation | None:
    """Return the line through 0 that each output of a bent activation lies on; None for others."""
    below = next((below for value, below in _BENT if activation.value is value), None)
    if below is None:
        return None
    slope = below + (1.0 - below) * positive(array_namespace(a), a)
    return Activation(lambda z: z * slope, lambda g, z, a: g * slope)
