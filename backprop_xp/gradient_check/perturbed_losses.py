"""The losses of a network with one parameter perturbed, many perturbations at a time.

The layers before the perturbed one are computed once. A perturbed parameter of a Dense changes one
column of its pre-activations. The layers behind it run by their own ``forward``.
"""

import bisect
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from backprop_xp.backends import Array, DType, array_namespace, device_of, to_device_of, to_host
from backprop_xp.networks.activations import ACTIVATIONS, softmax
from backprop_xp.networks.columns import Columns, Scale
from backprop_xp.networks.complex_safe import is_complex
from backprop_xp.networks.embeddings import Embedding, NumericEmbedding
from backprop_xp.networks.inputs import Rows
from backprop_xp.networks.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.networks.layout import ParameterSlice, unpack
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import mean_loss, penalty
from backprop_xp.networks.propagation import Layer, Parameters
from backprop_xp.networks.random_bits import fold_in

# These act on each number alone, so a changed column stays one.
_ELEMENTWISE = [a.value for a in ACTIVATIONS.values() if a is not softmax]


class _Pass(NamedTuple):
    """The forward pass of a network at theta, by layer; ``z`` are Dense's pre-activations."""

    network: Network
    rows: Rows
    parameters: Sequence[Parameters]
    inputs: list[Array]
    z: list[Array | None]
    outputs: list[Array]

    def forward(self, i: int, parameters: Parameters, x: Array) -> Array:
        """Return the output of layer i."""
        key = None if self.rows.rng is None else fold_in(self.rows.rng, i)
        return self.network.layers[i].forward(parameters, x, key)[0]

    def outputs_from(self, first: int, x: Array) -> Array:
        """Return the network's outputs, given the input of layer ``first``."""
        for i in range(first, len(self.network.layers)):
            x = self.forward(i, self.parameters[i], x)
        return x

    def passes_a_column(self, i: int) -> bool:
        """Whether a column of the output of layer i is all that changes, and a Dense follows."""
        layers, layer = self.network.layers, self.network.layers[i]
        is_elementwise = type(layer) is Dense and layer.activation.value in _ELEMENTWISE
        return is_elementwise and i + 1 < len(layers) and type(layers[i + 1]) is Dense


class _Perturbation(NamedTuple):
    """K copies of a layer's parameter, with entries ``at (K,)`` set to ``entries (K,)``."""

    layer: int
    theta_slice: ParameterSlice
    parameter: Array
    at: Array
    entries: Array

    @property
    def original(self) -> Array:
        """The entries before the perturbation."""
        xp = array_namespace(self.parameter)
        return xp.take(xp.reshape(self.parameter, (-1,)), self.at, axis=0)

    def copies(self) -> Array:
        """Return the perturbed parameters ``(K, *shape)``."""
        xp = array_namespace(self.parameter)
        chosen = self.at[:, None] == _indices(self.at, range(self.theta_slice.length))
        stack = xp.where(chosen, self.entries[:, None], xp.reshape(self.parameter, (1, -1)))
        return xp.reshape(stack, (stack.shape[0], *self.theta_slice.shape))


def perturbed_losses(
    network: Network, theta: Array, rows: Rows, *, batched: bool | None, max_memory: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return a function of ascending entries ``(K,)`` of theta and their new values: the losses.

    Returns None if the layers do not take stacks; with ``batched`` None, a user's layers are tried.
    """
    if batched is False or not (batched or _take_stacks(network, theta, rows)):
        return None
    l2, parameters = network.l2, unpack(network.layout, theta)
    fixed = penalty(network.layout, parameters, l2) if l2 else 0.0
    forward_pass = functools.cache(functools.partial(_forward_pass, network, theta, rows))

    def losses(columns: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        entries, found = to_device_of(theta, numbers, theta.dtype), []
        run = forward_pass(entries.dtype)
        for p in _perturbations(run, columns.tolist(), entries, max_memory):
            each = network.loss_function.value(_outputs(run, p), rows.y)
            term = fixed
            if l2 and p.theta_slice.decays:
                term = fixed + 0.5 * l2 * (p.entries * p.entries - p.original * p.original)
            found.append(to_host(mean_loss(each, rows.sample_weight) + term))
        return np.concatenate(found)

    return losses


def _take_stacks(network: Network, theta: Array, rows: Rows) -> bool:
    """Whether the layers take a stack: two networks must have the losses that each has alone."""
    if all(_is_built_in(layer) for layer in network.layers):
        return True

    def losses(theta: Array) -> list[float]:
        weight, rng = rows.sample_weight, rows.rng
        loss = to_host(network.loss(theta, rows.x, rows.y, sample_weight=weight, rng=rng))
        return loss.reshape(-1).tolist()

    pair = array_namespace(theta).stack([theta, (1.0 + 2.0**-10) * theta + 2.0**-10])
    single = losses(pair[0, :]) + losses(pair[1, :])
    try:
        pairs = zip(losses(pair), single, strict=True)
        return all(math.isclose(a, b, rel_tol=1e-5) for a, b in pairs)
    except Exception:
        return False


def _is_built_in(layer: Layer) -> bool:
    if isinstance(layer, Residual | Columns) and type(layer) in (Residual, Columns):
        return all(_is_built_in(inner) for inner in layer.layers)
    of_columns = (Scale, Embedding, NumericEmbedding)
    return type(layer) in (Dense, Activate, Dropout, LayerNorm, *of_columns)


def _forward_pass(network: Network, theta: Array, rows: Rows, dtype: DType) -> _Pass:
    xp = array_namespace(theta)
    theta, x = xp.astype(theta, dtype), xp.astype(rows.x, dtype)
    run = _Pass(network, rows, unpack(network.layout, theta), [], [], [])
    for i, (layer, parameters) in enumerate(zip(network.layers, run.parameters, strict=True)):
        run.inputs.append(x)
        run.z.append(x @ parameters[0] + parameters[1] if type(layer) is Dense else None)
        x = run.forward(i, parameters, x)
        run.outputs.append(x)
    return run


def _perturbations(
    run: _Pass, columns: Sequence[int], entries: Array, max_memory: int
) -> Iterator[_Perturbation]:
    """Yield perturbations, parameter by parameter, in parts that fit the memory."""
    for i, slices in enumerate(run.network.layout):
        for theta_slice, parameter in zip(slices, run.parameters[i], strict=True):
            start, stop = theta_slice.part.start, theta_slice.part.stop
            first = bisect.bisect_left(columns, start)
            count = bisect.bisect_left(columns, stop) - first
            # Parts as equal as possible, since a library may compile each length anew.
            parts = -(-count // _most_copies(run, i, theta_slice, entries, max_memory))
            for k in range(parts):
                part = slice(first + k * count // parts, first + (k + 1) * count // parts)
                at = _indices(entries, [c - start for c in columns[part]])
                yield _Perturbation(i, theta_slice, parameter, at, entries[part])


def _most_copies(
    run: _Pass, i: int, theta_slice: ParameterSlice, entries: Array, max_memory: int
) -> int:
    """Return how many perturbed copies fit into a quarter of the memory.

    The rest is for a layer's temporary arrays; copies that fit in the cache are also faster.
    """
    batch, first = run.rows.x.shape[-2], i + 1 if run.passes_a_column(i) else i
    # A layer's input, pre-activation and output; the perturbed parameter, or its column.
    numbers = 3 * batch * max(output.shape[-1] for output in run.outputs[first:])
    numbers += batch if type(run.network.layers[i]) is Dense else theta_slice.length
    xp = array_namespace(entries)
    size = xp.finfo(entries.dtype).bits // 8 * (2 if is_complex(xp, entries.dtype) else 1)
    return max(1, max_memory // int(4 * numbers * size))


def _indices(like: Array, numbers: Sequence[int]) -> Array:
    """Return integers as an int32 array on the device of ``like``."""
    xp = array_namespace(like)
    return xp.asarray(list(numbers), dtype=xp.int32, device=device_of(like))


def _outputs(run: _Pass, p: _Perturbation) -> Array:
    """Return the network's outputs ``(K, batch, n_out)``."""
    layer = run.network.layers[p.layer]
    if isinstance(layer, Dense) and type(layer) is Dense:
        return _outputs_of_dense(run, p, layer)
    xp, copies = array_namespace(p.entries), p.entries.shape[0]
    # All of them stacked: a layer may add a bias to a product in place.
    parameters = tuple(
        p.copies() if value is p.parameter else xp.broadcast_to(value, (copies, *value.shape))
        for value in run.parameters[p.layer]
    )
    return run.outputs_from(p.layer + 1, run.forward(p.layer, parameters, run.inputs[p.layer]))


def _outputs_of_dense(run: _Pass, p: _Perturbation, layer: Dense) -> Array:
    """Return the outputs with entries of a Dense's weights or bias perturbed.

    Each changes one column of the pre-activations. A following Dense receives that column alone,
    with its row of the weights, and with its own old pre-activations as the bias.
    """
    i, xp = p.layer, array_namespace(p.entries)
    x, z, output, value = run.inputs[i], run.z[i], run.outputs[i], layer.activation.value
    column, change = p.at % layer.n_out, p.entries - p.original
    if p.theta_slice.name == "weights":
        change = xp.take(x, p.at // layer.n_out, axis=1) * change
    new_z = xp.matrix_transpose(xp.take(z, column, axis=1) + change)
    if run.passes_a_column(i):
        change = value(new_z) - xp.matrix_transpose(xp.take(output, column, axis=1))
        row = xp.take(run.parameters[i + 1][0], column, axis=0)[:, None, :]
        x = run.forward(i + 1, (row, run.z[i + 1]), change[:, :, None])
        return run.outputs_from(i + 2, x)
    is_column = column[:, None, None] == _indices(p.entries, range(layer.n_out))[None, None, :]
    if value in _ELEMENTWISE:
        x = xp.where(is_column, value(new_z)[:, :, None], output)
    else:
        x = value(xp.where(is_column, new_z[:, :, None], z))
    return run.outputs_from(i + 1, x)
