"""The derivatives of a network's outputs by theta, row by row.

A layer whose class has ``row_gradients``, as ``Dense`` has, computes those of all rows at once. Any
other layer with parameters gets the rows as one more axis of the stack: each row is a batch of its
own. A layer whose outputs are made of columns of x of their own has the method ``apart``, as
``Groups`` does: these columns are rows of another network.
"""

from collections.abc import Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, blank, device_of, dispatch
from backprop_xp.networks.chain.layout import pack, unpack
from backprop_xp.networks.chain.propagation import (
    Buffers,
    Cache,
    Layer,
    Parameters,
    backward_through,
    defines,
    forward_through,
    linked,
)
from backprop_xp.networks.derivatives.definition import Definition


def outputs_and_jacobian(definition: Definition, theta: Array, x: Array) -> tuple[Array, Array]:
    """Return the outputs, ``(*stack, rows, n_out)``, and J, ``(*stack, rows, n_out, P)``."""
    layer: Any = definition.layers[0]
    if len(definition.layers) > 1 or not hasattr(layer, "apart"):
        return _of_all_columns(definition, theta, x)
    xp, each, parts = array_namespace(theta), (*theta.shape[:-1], x.shape[-2]), []
    for own, own_x in layer.apart(x):
        outputs, jacobian = _of_all_columns(own, theta, own_x)
        shaped = xp.reshape(outputs, (*each, -1)), xp.reshape(jacobian, (*each, -1, own.size))
        parts.append(shaped)
    all_outputs, jacobians = zip(*parts, strict=True)
    return xp.concat(all_outputs, axis=-1), xp.concat(jacobians, axis=-2)


def _of_all_columns(definition: Definition, theta: Array, x: Array) -> tuple[Array, Array]:
    """Return what ``outputs_and_jacobian`` does, with each row of x as a row."""
    xp, layout, caches = array_namespace(theta), definition.layout, list[Cache]()
    each = (*theta.shape[:-1], x.shape[-2])
    parameters = _parameters(definition, theta, each)
    outputs = _forward(definition.layers, parameters, x, each, caches)
    n_out, given = outputs.shape[-1], (definition.layers, parameters, caches)
    unit = xp.eye(n_out, dtype=theta.dtype, device=device_of(theta))
    jacobian, columns = blank(theta, (*each, n_out, theta.shape[-1])), list[Array]()
    for k in range(n_out):
        g = xp.zeros_like(outputs) + unit[k, :]
        out = None if jacobian is None else dispatch(unpack, theta)(layout, jacobian[..., k, :])
        found = _gradients(*given, g, out)
        if jacobian is None:
            columns.append(dispatch(pack, theta)(layout, found, each))
    return outputs, xp.stack(columns, axis=-2) if jacobian is None else jacobian


def _takes_rows(layer: Layer) -> bool:
    """Whether a layer takes the rows as a batch."""
    return not layer.names or defines(layer, "row_gradients")


def _parameters(
    definition: Definition, theta: Array, each: tuple[int, ...]
) -> Sequence[Parameters]:
    """Return each layer's parameters, with an axis of rows, as in ``each``, where it needs one."""
    own: Sequence[Parameters] = dispatch(unpack, theta)(definition.layout, theta)
    if all(map(_takes_rows, definition.layers)):
        return own
    rows = array_namespace(theta).broadcast_to(theta[..., None, :], (*each, theta.shape[-1]))
    apart: Sequence[Parameters] = dispatch(unpack, theta)(definition.layout, rows)
    layers = zip(definition.layers, own, apart, strict=True)
    return [of_all if _takes_rows(layer) else of_each for layer, of_all, of_each in layers]


def _forward(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    x: Array,
    each: tuple[int, ...],
    caches: list[Cache],
) -> Array:
    """Return the outputs, ``(*stack, rows, n_out)``."""
    for i, layer in enumerate(layers):
        takes_rows = _takes_rows(layer)
        if not takes_rows:
            x = array_namespace(x).broadcast_to(x[..., None, :], (*each, 1, x.shape[-1]))
        x = forward_through(linked([layer], [parameters[i]], start=i), x, None, caches)
        x = x if takes_rows else x[..., 0, :]
    return x


def _gradients(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    caches: Sequence[Cache],
    g: Array,
    out: Sequence[Buffers] | None,
) -> list[tuple[Array, ...]]:
    """Return each row's gradients, ``(*stack, rows, *shape)``, from g by the outputs."""
    first = next(i for i, layer in enumerate(layers) if layer.names)
    gradients: list[tuple[Array, ...]] = [()] * len(layers)
    back: Any = g
    for i in reversed(range(first, len(layers))):
        layer: Any = layers[i]
        buffers, wanted = () if out is None else (out[i],), i > first
        if defines(layer, "row_gradients"):
            given = parameters[i], caches[i][1], back, *buffers
            back, gradients[i] = layer.row_gradients(*given, wants_input=wanted)
            continue
        takes_rows = _takes_rows(layer)
        back = back if takes_rows else back[..., None, :]
        options: dict[str, Any] = {"wants_input": wanted, "out": buffers or None, "start": i}
        chain = linked([layer], [parameters[i]], **options)
        back, (gradients[i],) = backward_through(chain, [caches[i]], back)
        back = back if takes_rows or not wanted else back[..., 0, :]
    return gradients
