"""A network whose loops between the matrix products are compiled, for a long training.

Its layers have the parameters, the results and the errors of those that they replace, to rounding.
``kernels`` are a backend's loops.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, TypeVar

from backprop_xp.backends import Array, blank
from backprop_xp.networks.chain.containers import Chain, Residual
from backprop_xp.networks.chain.propagation import Cache, Gradients, Parameters
from backprop_xp.networks.layers import core, embeddings
from backprop_xp.networks.layers.activations import ACTIVATIONS, Activation
from backprop_xp.networks.layers.columns import Columns
from backprop_xp.networks.losses.loss import LOSSES, loss_of_rule
from backprop_xp.networks.losses.rules import Rule
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.partial import WithLast
from backprop_xp.networks.numbers.random_bits import Key, RowKey

T = TypeVar("T")


def numba_network(network: Network, kernels: Any) -> Network:
    """Return a network with the same theta, computed by the kernels where they have its parts."""
    loss, own = network.loss_function, tuple(_compiled(one, kernels) for one in network.layers)
    name, value = _name(kernels.LOSSES, LOSSES, loss), vars(loss)["value"]
    if name is not None:
        made = loss_of_rule(WithLast(_by_kernel, (kernels.loss(name), value.rule)))
        loss = _changed(loss, value=made.value, gradient=made.gradient)
    definition = dataclasses.replace(network.definition, layers=own, loss=loss)
    return _changed(network, definition=definition)


def _changed(value: T, /, **changes: Any) -> T:
    made = copy.copy(value)
    vars(made).update(changes)
    return made


def _remade(kind: type[T], layer: Any, **more: Any) -> T:
    made = object.__new__(kind)
    vars(made).update(vars(layer), **more)
    return made


def _compiled(layer: Any, kernels: Any) -> Any:
    """Return a layer by the kernels; a user's own class, also one that inherits, stays as it is."""
    kind = type(layer)
    if kind in (Chain, Residual, Columns):
        return _changed(layer, layers=tuple(_compiled(one, kernels) for one in layer.layers))
    if kind is core.Dropout:
        return _changed(layer, dropped=functools.partial(_dropped, kernels))
    if kind is core.LayerNorm:
        return _changed(layer, rules=(kernels.normalized, kernels.normalized_back))
    if kind is embeddings.NumericEmbedding and layer.kind == "pbld":
        return _remade(NumericEmbedding, layer, kernels=kernels)
    if kind in (core.Dense, core.Activate):
        name = _name(kernels.ACTIVATIONS, ACTIVATIONS, layer.activation)
        if name is not None and kind is core.Dense:
            return _remade(Dense, layer, loops=kernels.dense(name, layer.n_in, layer.n_out))
        if name is not None:
            value, vjp = kernels.activation(name)
            by_output = layer.activation.from_output
            return _changed(layer, activation=Activation(value, vjp, from_output=by_output))
    return layer


def _by_kernel(o: Array, t: Array, share: Array, kernel: Rule, reference: Rule) -> Iterable[Array]:
    """Return what a loss's rule does by its kernel, which takes no shares of columns."""
    return (kernel if t.shape[-1] == o.shape[-1] else reference)(o, t, share)


def _dropped(kernels: Any, x: Array, rng: Key, rate: float) -> tuple[Array, Array]:
    return (core.dropped if isinstance(rng, RowKey) else kernels.dropped)(x, rng, rate)


def _name(names: Iterable[str], table: dict[str, Any], value: Any) -> str | None:
    """Return the name of an entry that the kernels have, also for a copy; None for another."""
    return next((name for name in names if table[name] == value), None)


class Dense(core.Dense):
    """``core.Dense`` by the kernels."""

    loops: Any

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``activation(x @ weights + bias)``."""
        weights, bias = parameters
        if len(weights.shape) > 3:  # a stack of two axes
            return super().forward(parameters, x, rng)
        kept, a = self.loops.forward(x, weights, bias)
        return a, (x, kept, a)

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return what ``core.Dense.backward`` does."""
        weights = parameters[0]
        if len(weights.shape) > 3:
            return super().backward(parameters, cache, g, **options)
        (x, kept, a), out = cache, _buffers(parameters, options.get("out"))
        wants_input = options.get("wants_input", True)
        back = self.loops.backward(g, kept, a, x, weights, out, wants_input)
        return back, out if options.get("wants_parameters", True) else ()


class NumericEmbedding(embeddings.NumericEmbedding):
    """``embeddings.NumericEmbedding`` of the kind "pbld" by the kernels."""

    kernels: Any

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the features of each number."""
        if len(parameters[0].shape) > 4:  # a stack of two axes
            return super().forward(parameters, x, rng)
        y, kept = self.kernels.embedded(x, parameters)
        return y, (x, kept)

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return what ``embeddings.NumericEmbedding.backward`` does."""
        if len(parameters[0].shape) > 4:
            return super().backward(parameters, cache, g, **options)
        (x, kept), out = cache, _buffers(parameters, options.get("out"))
        wants_input = options.get("wants_input", True)
        return self.kernels.embedded_back(g, x, parameters, kept, out, wants_input), out


def _buffers(parameters: Parameters, out: Any) -> tuple[Array, ...]:
    """Return the arrays for a layer's gradients: the given ones, or new ones."""
    return tuple(map(blank, parameters) if out is None or out[0] is None else out)
