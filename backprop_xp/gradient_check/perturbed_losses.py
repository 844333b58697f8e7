"""The losses of a network with one parameter moved: only its layer and what follows are computed.

Everything before that layer is computed once. A moved parameter of a Dense moves one column of its
pre-activations; what follows goes through the layers' own ``forward``.
"""

import bisect
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, beside, device_of, to_host
from backprop_xp.networks.activations import ACTIVATIONS, softmax
from backprop_xp.networks.complex_safe import is_complex
from backprop_xp.networks.inputs import Rows, check_x
from backprop_xp.networks.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.networks.layout import ParameterSlice, unpack
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import mean_loss, penalty
from backprop_xp.networks.propagation import Layer
from backprop_xp.networks.random_bits import as_key, fold_in

# These act on each number alone, so a moved column stays one.
_ELEMENTWISE = [a.value for a in ACTIVATIONS.values() if a is not softmax]


class _Trace(NamedTuple):
    """The forward pass at theta in some dtype, by layer; ``z`` are Dense's pre-activations."""

    parameters: list[tuple[Array, ...]]
    inputs: list[Array]
    z: list[Array | None]
    outputs: list[Array]


class _Setting(NamedTuple):
    """A network at a theta, and what it is checked on; ``key`` is the dropout masks' key."""

    network: Network
    theta: Array
    rows: Rows
    key: Any


class _Move(NamedTuple):
    """Copies of theta, in each of which one entry ``at`` of a parameter of a layer is ``moved``."""

    layer: int
    place: ParameterSlice
    at: Array
    moved: Array


def moved_losses(
    network: Network, theta: Array, rows: Rows, *, batched: bool | None, max_memory: int
) -> Callable[[Array, Array], Array] | None:
    """Return a function from entries ``(K,)``, ascending, and their new values to losses ``(K,)``.

    None where the layers do not take a stack; ``batched`` None tries that, unless all are built-in.
    """
    if batched is False or not _take_stacks(network, theta, rows, sure=batched is True):
        return None
    key = None if rows.rng is None else as_key(rows.rng, theta)
    setting = _Setting(network, theta, rows, key)
    traced = functools.cache(lambda dtype: _trace(setting, dtype))

    def losses(columns: Array, moved: Array) -> Array:
        values = beside(theta, moved, theta.dtype)
        found = _losses(setting, traced(values.dtype), columns.tolist(), values, max_memory)
        parts = list(found)
        return array_namespace(parts[0]).concat(parts)

    return losses


def _take_stacks(network: Network, theta: Array, rows: Rows, *, sure: bool) -> bool:
    """Say whether the layers take a stack: two networks must come out as they do one by one."""
    if sure or all(_is_built_in(layer) for layer in network.layers):
        return True
    pair = array_namespace(theta).stack([theta, (1.0 + 2.0**-10) * theta + 2.0**-10])
    alone = [float(_loss(network, pair[i, :], rows)) for i in range(2)]
    try:
        together = _loss(network, pair, rows).tolist()
        return all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(together, alone, strict=True))
    except Exception:
        return False


def _is_built_in(layer: Layer) -> bool:
    if isinstance(layer, Residual) and type(layer) is Residual:
        return all(_is_built_in(inner) for inner in layer.layers)
    return type(layer) in (Dense, Activate, Dropout, LayerNorm)


def _loss(network: Network, theta: Array, rows: Rows) -> Array:
    return to_host(
        network.loss(theta, rows.x, rows.y, sample_weight=rows.sample_weight, rng=rows.rng)
    )


def _trace(setting: _Setting, dtype: Any) -> _Trace:
    network, theta, rows, key = setting
    theta = array_namespace(theta).astype(theta, dtype)
    parameters = unpack(network.layout, theta)
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
    """Return how many copies, each of so many numbers, fit into a quarter of the memory.

    The rest is for a layer's temporaries; and copies that stay in the cache are faster.
    """
    xp = array_namespace(like)
    size = xp.finfo(like.dtype).bits // 8 * (2 if is_complex(xp, like.dtype) else 1)
    return max(1, max_memory // int(4 * numbers * size))


def _losses(
    setting: _Setting, trace: _Trace, columns: Sequence[int], values: Array, max_memory: int
) -> Iterator[Array]:
    """Yield the losses ``(K,)`` with entries of theta moved, parameter by parameter."""
    network, theta, rows, _ = setting
    layout, l2 = network.layout, network.l2
    fixed = penalty(layout, unpack(layout, theta), l2) if l2 else 0.0
    for i, places in enumerate(layout):
        for place in places:
            first, last = (
                bisect.bisect_left(columns, end) for end in (place.part.start, place.part.stop)
            )
            numbers = _numbers(setting, trace, i, place)
            for chosen in _chunks(first, last, _copies(max_memory, numbers, values)):
                moved = values[chosen]
                at = _index(moved, [c - place.part.start for c in columns[chosen]])
                move = _Move(i, place, at, moved)
                outputs = _moved_outputs(setting, trace, move)
                each = network.loss_function.value(outputs, rows.y)
                loss = mean_loss(each, rows.sample_weight)
                yield to_host(loss + _moved_penalty(setting, fixed, move))


def _numbers(setting: _Setting, trace: _Trace, i: int, place: ParameterSlice) -> int:
    """Return the largest number of values that a copy with a moved parameter holds at a time."""
    layers, batch = setting.network.layers, int(setting.rows.x.shape[-2])
    first = i + 1 if _sends_a_column(layers, i) else i
    # A layer's input, pre-activation and output; of the moved one the parameter, or a column.
    numbers = 3 * batch * max(int(output.shape[-1]) for output in trace.outputs[first:])
    return numbers + (batch if type(layers[i]) is Dense else place.length)


def _sends_a_column(layers: Sequence[Layer], i: int) -> bool:
    """Say whether a move in layer i changes one column of its output, and a Dense comes next."""
    layer = layers[i]
    return (
        type(layer) is Dense
        and layer.activation.value in _ELEMENTWISE
        and i + 1 < len(layers)
        and type(layers[i + 1]) is Dense
    )


def _chunks(first: int, last: int, most: int) -> Iterator[slice]:
    """Yield slices of at most ``most``, as equal as can be: a library may compile each length."""
    count = last - first
    parts = -(-count // most)
    for i in range(parts):
        yield slice(first + i * count // parts, first + (i + 1) * count // parts)


def _index(array: Array, numbers: Sequence[int]) -> Array:
    """Return whole numbers as an int32 array beside ``array``."""
    xp = array_namespace(array)
    return xp.asarray(list(numbers), dtype=xp.int32, device=device_of(array))


def _moved_penalty(setting: _Setting, fixed: Any, move: _Move) -> Any:
    """Return the penalty ``(K,)``; only the term of the moved weight differs from theta's own."""
    strength, moved = setting.network.l2, move.moved
    if not move.place.decays or not strength:
        return fixed
    here = array_namespace(moved).take(setting.theta[move.place.part], move.at, axis=0)
    return fixed + 0.5 * strength * (moved * moved - here * here)


def _moved_outputs(setting: _Setting, trace: _Trace, move: _Move) -> Array:
    """Return the network's outputs ``(K, batch, n_out)``."""
    layer = setting.network.layers[move.layer]
    if isinstance(layer, Dense) and type(layer) is Dense:
        return _from_column(setting, trace, move, layer)
    places, values = setting.network.layout[move.layer], trace.parameters[move.layer]
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
    chosen = move.at[:, None] == _index(value, range(move.place.length))[None, :]
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
    is_column = column[:, None, None] == _index(moved, range(layer.n_out))[None, None, :]
    if layer.activation.value in _ELEMENTWISE:
        a = layer.activation.value(moved_z)
        return _onwards(setting, trace, i + 1, xp.where(is_column, a[:, :, None], before))
    a = layer.activation.value(xp.where(is_column, moved_z[:, :, None], z))
    return _onwards(setting, trace, i + 1, a)
