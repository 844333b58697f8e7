"""The losses of a network with one parameter perturbed, many perturbations at a time.

The layers before the perturbed one are computed once. A perturbed parameter of a Dense changes one
column of its pre-activations. The layers behind it run by their own ``forward``.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, DType, array_namespace, device_of, to_device_of, to_host
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.chain.layout import ParameterSlice, unpack
from backprop_xp.networks.chain.propagation import Layer, Parameters, defines, layers_in
from backprop_xp.networks.derivatives.objective import mean_loss, penalty
from backprop_xp.networks.layers.activations import ACTIVATIONS, softmax
from backprop_xp.networks.losses.column_weights import targets_of, without_shares
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.random_bits import fold_in

# These act on each number alone, so a changed column stays one.
_ELEMENTWISE = [a.value for a in ACTIVATIONS.values() if a is not softmax]


class _Pass(NamedTuple):
    """The forward pass of a network at theta.

    Layer i has the input ``x[i]`` and the output ``x[i + 1]``; ``z`` are Dense's pre-activations.
    """

    network: Network
    rows: Rows
    parameters: Sequence[Parameters]
    x: list[Array]
    z: list[Array | None]

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
        layer: Any = self.network.layers[i]
        after = self.network.layers[i + 1 : i + 2]
        is_elementwise = defines(layer, "is_affine") and layer.activation.value in _ELEMENTWISE
        return is_elementwise and any(defines(one, "is_affine") for one in after)


class _Perturbation(NamedTuple):
    """K copies of parameter ``number`` of a layer, with entries ``at (K,)`` set to ``entries``."""

    layer: int
    number: int
    theta_slice: ParameterSlice
    at: Array
    entries: Array
    original: Array


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
        for p in _perturbations(run, columns, entries, max_memory // numbers.itemsize):
            each = network.loss_function.value(_outputs(run, p), rows.y)
            term = fixed
            if l2 and p.theta_slice.decays:
                term = fixed + 0.5 * l2 * (p.entries * p.entries - p.original * p.original)
            found.append(to_host(mean_loss(each, rows.sample_weight) + term))
        return np.concatenate(found)

    return losses


def as_given(network: Network, theta: Array, rows: Rows) -> dict[str, Any]:
    """Return rows as arguments of a network's methods."""
    n = targets_of(network.loss_function, network.outputs_shape(theta, rows.x)[-1])
    y, weight = without_shares(rows.y, rows.sample_weight, n)
    return {"x": rows.x, "y": y, "sample_weight": weight, "rng": rows.rng}


def _take_stacks(network: Network, theta: Array, rows: Rows) -> bool:
    """Whether the layers take a stack: two networks must have the losses that each has alone."""
    if all(map(_is_built_in, network.layers)):
        return True
    data = as_given(network, theta, rows)
    pair = array_namespace(theta).stack([theta, (1.0 + 2.0**-10) * theta + 2.0**-10])
    try:
        both, *single = (
            to_host(network.loss(thetas, **data)) for thetas in (pair, pair[0, :], pair[1, :])
        )
        return np.allclose(both.reshape(2), single, rtol=1e-5, atol=0.0)
    except Exception:
        return False


def _is_built_in(layer: Layer) -> bool:
    is_ours = type(layer).__module__.startswith("backprop_xp.")
    return is_ours and all(map(_is_built_in, layers_in(layer)))


def _forward_pass(network: Network, theta: Array, rows: Rows, dtype: DType) -> _Pass:
    xp = array_namespace(theta)
    parameters = unpack(network.layout, xp.astype(theta, dtype))
    run = _Pass(network, rows, parameters, [xp.astype(rows.x, dtype)], [])
    for i, layer in enumerate(network.layers):
        x, each = run.x[i], parameters[i]
        run.z.append(x @ each[0] + each[1] if defines(layer, "is_affine") else None)
        run.x.append(run.forward(i, each, x))
    return run


def _perturbations(
    run: _Pass, columns: np.ndarray, entries: Array, most_numbers: int
) -> Iterator[_Perturbation]:
    """Yield perturbations, parameter by parameter, in parts that fit the memory."""
    xp, batch = array_namespace(entries), run.rows.x.shape[-2]
    for i, slices in enumerate(run.network.layout):
        for number, theta_slice in enumerate(slices):
            start, stop = np.searchsorted(columns, [theta_slice.part.start, theta_slice.part.stop])
            # A layer's input, pre-activation and output; the perturbed parameter, or its column.
            after = run.x[i + 1 + run.passes_a_column(i) :]
            numbers = 3 * batch * max(x.shape[-1] for x in after)
            numbers += batch if defines(run.network.layers[i], "is_affine") else theta_slice.length
            # A quarter of the memory: a layer has temporary arrays, and caches are small.
            most = max(1, most_numbers // (4 * numbers))
            # Parts as equal as possible, since a library may compile each length anew.
            bounds = np.linspace(start, stop, -(-(stop - start) // most) + 1).astype(int).tolist()
            parameter = xp.reshape(run.parameters[i][number], (-1,))
            for first, last in itertools.pairwise(bounds):
                at = _indices(entries, columns[first:last] - theta_slice.part.start)
                original = xp.take(parameter, at, axis=0)
                yield _Perturbation(i, number, theta_slice, at, entries[first:last], original)


def _indices(like: Array, numbers: np.ndarray) -> Array:
    """Return integers as an int32 array on the device of ``like``."""
    xp = array_namespace(like)
    return xp.asarray(numbers, dtype=xp.int32, device=device_of(like))


def _outputs(run: _Pass, p: _Perturbation) -> Array:
    """Return the network's outputs ``(K, batch, n_out)``.

    A perturbed entry of a Dense changes one column of the pre-activations. A following Dense
    receives that column alone, with its row of the weights, and with its own old pre-activations as
    the bias.
    """
    i, xp = p.layer, array_namespace(p.entries)
    layer: Any = run.network.layers[i]
    if not defines(layer, "is_affine"):
        # All of them stacked: a layer may add a bias to a product in place.
        stacks = [xp.broadcast_to(v, (p.at.shape[0], *v.shape)) for v in run.parameters[i]]
        chosen = p.at[:, None] == _indices(p.at, np.arange(p.theta_slice.length))
        parameter = xp.reshape(run.parameters[i][p.number], (1, -1))
        stack = xp.where(chosen, p.entries[:, None], parameter)
        stacks[p.number] = xp.reshape(stack, stacks[p.number].shape)
        return run.outputs_from(i + 1, run.forward(i, tuple(stacks), run.x[i]))
    column, change = p.at % layer.n_out, p.entries - p.original
    if p.theta_slice.name == "weights":
        change = xp.take(run.x[i], p.at // layer.n_out, axis=1) * change
    old, new = run.z[i], xp.matrix_transpose(xp.take(run.z[i], column, axis=1) + change)
    value = layer.activation.value
    if value in _ELEMENTWISE:
        old, new = run.x[i + 1], value(new)
    if run.passes_a_column(i):
        change = new - xp.matrix_transpose(xp.take(old, column, axis=1))
        row = xp.take(run.parameters[i + 1][0], column, axis=0)[:, None, :]
        x = run.forward(i + 1, (row, run.z[i + 1]), change[:, :, None])
        return run.outputs_from(i + 2, x)
    is_column = column[:, None, None] == _indices(p.at, np.arange(layer.n_out))
    x = xp.where(is_column, new[:, :, None], old)
    return run.outputs_from(i + 1, x if value in _ELEMENTWISE else value(x))
