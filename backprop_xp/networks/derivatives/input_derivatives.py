"""Derivatives of a network's outputs by its inputs: the functions behind ``Network``'s methods.

``x`` is ``(*stack, batch, n_in)``, or shared by the stack, in theta's dtype; nothing is checked
here. The inverse link, if there is one, makes them the derivatives of the predictions.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from backprop_xp.backends import Array, array_namespace, device_of
from backprop_xp.checks import integer
from backprop_xp.networks.chain import propagation
from backprop_xp.networks.chain.array_checks import beside_x
from backprop_xp.networks.chain.batch_rows import row_slices
from backprop_xp.networks.chain.layout import unpack
from backprop_xp.networks.chain.propagation import Cache, Layer, Parameters
from backprop_xp.networks.derivatives.definition import Definition
from backprop_xp.networks.jets.jet import Jet, as_jet
from backprop_xp.networks.jets.parts import Operators, rows_in_cache
from backprop_xp.networks.jets.passes import constants, plan_of, seeded, unit_directions, whole
from backprop_xp.networks.layers.activations import identity

# So many numbers of a layer are computed at once, unless fewer stay in the cache.
_NUMBERS_AT_ONCE = 2**22

Function: TypeAlias = Callable[[Array], Array]


class _Chain(NamedTuple):
    """The layers of a network with their parameters, the stack, and the inverse link or None."""

    layers: Sequence[Layer]
    parameters: Sequence[Parameters]
    stack: tuple[int, ...]
    inverse_link: Function | None


def jacobian(definition: Definition, theta: Array, x: Array, predict: bool) -> Array:
    """Return the first derivatives, ``(*stack, batch, n_out, n_in)``, by the shorter way."""
    chain = _chain_of(definition, theta, predict)
    n_in, n_out = x.shape[-1], definition.outputs_shape(theta, x)[-1]
    if n_out <= n_in or not _takes_jets(definition.layers):
        return _by_rows(chain, x, 1, -3, functools.partial(_jacobian_backward, chain))
    return _by_rows(chain, x, 1 + n_in, -3, functools.partial(_jacobian_forward, chain))


def _takes_jets(layers: Sequence[Layer]) -> bool:
    """Whether all layers run forward on jets, which take no further derivatives."""
    return not any(map(propagation.differentiates, layers))


def hessian(definition: Definition, theta: Array, x: Array, output: int, predict: bool) -> Array:
    """Return the second derivatives of an output, ``(*stack, batch, n_in, n_in)``."""
    chain = _chain_of(definition, theta, predict)
    n_out = definition.outputs_shape(theta, x)[-1]
    if integer(output, "output", at_least=0) >= n_out:
        raise ValueError(f"output is {output}, but the network has {n_out}, numbered from 0.")
    n = x.shape[-1]
    if any(map(propagation.goes_back_once, definition.layers)):
        operators = _pairs(n)
        of_rows = functools.partial(_hessian_forward, chain, operators, output=output)
        return _by_rows(chain, x, 1 + n + len(operators), -3, of_rows)
    of_rows = functools.partial(_hessian, chain, output=output)
    return _by_rows(chain, x, 1 + n, -3, of_rows)


def laplacian(definition: Definition, theta: Array, x: Array, predict: bool) -> Array:
    """Return the sum of the second derivatives by each input, ``(*stack, batch, n_out)``."""
    chain = _chain_of(definition, theta, predict)
    n = x.shape[-1]
    operators = (tuple((i, i) for i in range(n)),)  # one, the sum over all inputs

    def of_rows(rows: Array) -> Array:
        y, _ = _outputs(chain, seeded(rows, unit_directions(rows, range(n)), operators))
        return whole(y, y.second, 1)[0, ...]

    return _by_rows(chain, x, 2 + n, -2, of_rows)


def directional(
    definition: Definition, theta: Array, x: Array, v: Array, order: int, predict: bool
) -> Array:
    """Return the first or the second derivative along v, ``(*stack, batch, n_out)``."""
    chain = _chain_of(definition, theta, predict)
    if integer(order, "order") > 2:
        raise ValueError(f"order must be 1 or 2, not {order}.")
    x, v = beside_x(theta, x, v, "v")
    if order == 1 and not _takes_jets(definition.layers):
        return (jacobian(definition, theta, x, predict) @ v[..., None])[..., 0]
    n, operators = x.shape[-1], (((0, 0),),) if order == 2 else ()

    def of_rows(rows: Array) -> Array:
        y, _ = _outputs(chain, seeded(rows[..., :n], rows[None, ..., n:], operators))
        return whole(y, y.first if order == 1 else y.second, 1)[0, ...]

    joined = array_namespace(x).concat([x, v], axis=-1)
    return _by_rows(chain, joined, 1 + order, -2, of_rows)


def _chain_of(definition: Definition, theta: Array, predict: bool) -> _Chain:
    inverse_link = definition.loss.inverse_link if predict else identity.value
    parameters, stack = unpack(definition.layout, theta), tuple(theta.shape[:-1])
    last = None if inverse_link is identity.value else inverse_link
    return _Chain(definition.layers, parameters, stack, last)


def _by_rows(
    chain: _Chain, x: Array, parts: int, axis: int, of_rows: Callable[[Array], Array]
) -> Array:
    """Return a function of rows for all rows of x, joined along an axis.

    ``parts`` is the number of parts of a jet: each layer has so many arrays.
    """
    widest = max(value.shape[-1] for own in chain.parameters for value in own)
    numbers = parts * max(widest, x.shape[-1]) * math.prod(chain.stack)
    size = rows_in_cache(x, numbers) or max(1, _NUMBERS_AT_ONCE // numbers)
    slices = row_slices(x.shape[-2], size)
    if len(slices) == 1:
        return of_rows(x)
    return array_namespace(x).concat([of_rows(x[..., rows, :]) for rows in slices], axis=axis)


def _outputs(chain: _Chain, x: Jet) -> tuple[Jet, list[Cache]]:
    """Return the outputs, or the predictions, of a jet, and the layers' caches."""
    caches: list[Cache] = []
    parameters = constants(x.namespace, chain.parameters)
    links = propagation.linked(chain.layers, parameters)
    y = propagation.forward_through(links, x, None, caches)
    return as_jet(x.namespace, y if chain.inverse_link is None else chain.inverse_link(y)), caches


def _jacobian_forward(chain: _Chain, x: Array) -> Array:
    n = x.shape[-1]
    y, _ = _outputs(chain, seeded(x, unit_directions(x, range(n)), ()))
    return array_namespace(x).moveaxis(whole(y, y.first, n), 0, -1)


def _jacobian_backward(chain: _Chain, x: Array) -> Array:
    xp, caches = array_namespace(x), list[Cache]()
    # Layers before the first parameters would give a gradient without the stack.
    x = xp.broadcast_to(x, (*chain.stack, *x.shape[-2:]))
    links = propagation.linked(chain.layers, chain.parameters, wants_parameters=False)
    o = propagation.forward_through(links, x, None, caches)
    gs = (xp.broadcast_to(unit, o.shape) for unit in _units(o))
    slopes = xp.stack([propagation.backward_through(links, caches, g)[0] for g in gs], axis=-2)
    return slopes if chain.inverse_link is None else slopes_of(chain.inverse_link, o) @ slopes


def _units(o: Array) -> list[Array]:
    """Return the unit vectors of the outputs."""
    xp, n = array_namespace(o), o.shape[-1]
    unit = xp.eye(n, dtype=o.dtype, device=device_of(o))
    return [unit[i, :] for i in range(n)]


def slopes_of(inverse_link: Function, o: Array) -> Array:
    """Return the derivatives of the predictions by the outputs, ``(..., n_out, n_out)``."""
    return slopes_through(inverse_link, o, array_namespace(o).stack(_units(o)))


def slopes_through(function: Function, y: Array, slopes: Array) -> Array:
    """Return the derivatives of a function of y, ``(..., n, n_in)``, from those of y."""
    xp, n_in = array_namespace(y), slopes.shape[-1]
    jet = seeded(y, xp.moveaxis(slopes, -1, 0), ())
    found = as_jet(jet.namespace, function(jet))
    return xp.moveaxis(whole(found, found.first, n_in), 0, -1)


def _hessian(chain: _Chain, x: Array, output: int) -> Array:
    """Differentiate the gradient of the output: jets of one order run forward and backward."""
    xp, n = array_namespace(x), x.shape[-1]
    x = xp.broadcast_to(x, (*chain.stack, *x.shape[-2:]))
    jet = seeded(x, unit_directions(x, range(n)), ())
    y, caches = _outputs(chain._replace(inverse_link=None), jet)
    if chain.inverse_link is None:
        g = Jet(jet.namespace, xp.broadcast_to(_units(y.value)[output], y.shape))
    else:
        g = _gradient_of(chain.inverse_link, y, output)
    parameters = constants(jet.namespace, chain.parameters)
    links = propagation.linked(chain.layers, parameters, wants_parameters=False)
    back, _ = propagation.backward_through(links, caches, g)
    found = as_jet(jet.namespace, back)
    return xp.moveaxis(whole(found, found.first, n), 0, -1)


def _hessian_forward(chain: _Chain, operators: Operators, x: Array, output: int) -> Array:
    """Return what ``_hessian`` does, by jets of the second order: more work for many inputs."""
    y, _ = _outputs(chain, seeded(x, unit_directions(x, range(x.shape[-1])), operators))
    return _symmetric(whole(y, y.second, len(operators))[..., output], operators)


def _gradient_of(inverse_link: Function, y: Jet, output: int) -> Jet:
    """Return the gradient of a prediction by the outputs, a jet as the outputs are."""
    xp, n = y.namespace.base, y.shape[-1]
    operators = _pairs(n)
    jet = seeded(y.value, unit_directions(y.value, range(n)), operators)
    made = as_jet(jet.namespace, inverse_link(jet))
    first, slope = whole(y, y.first, 1), whole(made, made.first, n)[..., output]  # (n, ..., batch)
    curvature = _symmetric(whole(made, made.second, len(operators))[..., output], operators)
    parts = (first[..., i : i + 1] * curvature[..., i, :] for i in range(n))
    return Jet(y.namespace, xp.moveaxis(slope, 0, -1), sum(parts, start=0.0))


def _pairs(n: int) -> Operators:
    """Return the second derivatives by each pair of n columns."""
    return plan_of(tuple((i, j) for i in range(n) for j in range(i, n))).operators


def _symmetric(part: Array, operators: Operators) -> Array:
    """Return second derivatives as matrices ``(..., n, n)``, from ``(operators, ...)``."""
    xp, n = array_namespace(part), 1 + operators[-1][0][0]
    at = [[operators.index(((min(i, j), max(i, j)),)) for j in range(n)] for i in range(n)]
    rows = [xp.stack([part[k, ...] for k in row], axis=-1) for row in at]
    return xp.stack(rows, axis=-2)
