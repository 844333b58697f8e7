"""The objective of a training: the mean loss over a batch plus the penalty, and its gradient.

Nothing is checked here: ``rows`` have theta's device and dtype, ``rows.rng`` is None or a key, and
``l2`` is None, a float or an array ``(*stack,)``. ``parameters`` and their gradients are
``(*stack, *shape)``, layer by layer, as ``unpack`` returns them.
"""

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from backprop_xp.backends import (
    Array,
    array_namespace,
    dispatch,
    mean_of_rows,
    sum_of_squares,
)
from backprop_xp.networks.chain.array_checks import Strength
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.chain.layout import Layout, parameters_of, parts_of, unpack
from backprop_xp.networks.chain.propagation import (
    Cache,
    Link,
    Parameters,
    backward_through,
    forward_through,
    linked,
)
from backprop_xp.networks.derivatives.definition import Definition
from backprop_xp.networks.losses.loss import Loss, sample_losses, value_and_gradient
from backprop_xp.networks.losses.targets import in_columns


def outputs_of(definition: Definition, theta: Array, rows: Rows) -> Array:
    """Return the raw outputs, as ``Network.forward`` does."""
    chain = linked(definition.layers, parameters_in(definition, theta))
    return forward_through(chain, rows.x, rows.rng)


def loss_of(definition: Definition, theta: Array, rows: Rows, l2: Strength) -> Array:
    """Return the loss, as ``Network.loss`` does."""
    return loss_and_outputs_of(definition, theta, rows, l2)[0]


def loss_and_outputs_of(
    definition: Definition, theta: Array, rows: Rows, l2: Strength
) -> tuple[Array, Array]:
    """Return the loss, and the raw outputs that it is of."""
    outputs = outputs_of(definition, theta, rows)
    values = sample_losses(definition.loss, outputs, in_columns(outputs, rows.y))
    return loss_of_values(definition, theta, values, rows.sample_weight, l2), outputs


def loss_of_values(
    definition: Definition, theta: Array, values: Array, weight: Array | None, l2: Strength
) -> Array:
    """Return the loss, given that of each sample, ``(*stack, batch)``."""
    loss = mean_loss(values, weight)
    return (
        loss
        if l2 is None
        else loss + penalty(definition.layout, parameters_in(definition, theta), l2)
    )


def loss_and_gradients_of(
    definition: Definition, parts: Sequence[Array], rows: Rows, l2: Strength
) -> tuple[Array, list[Array]]:
    """Return the loss and its gradient, for theta and its gradient in parts."""
    layout = definition.layout
    chain = chain_of(definition, parameters_of(layout, parts))
    loss, gradients = of_chain(definition, chain, rows, l2)
    return loss, parts_of(layout, gradients, parts[0].shape[:-1])


def chain_of(
    definition: Definition,
    parameters: Sequence[Parameters],
    buffers: Sequence[Parameters] | None = None,
) -> Sequence[Link]:
    """Return a network's chain for its gradients, which are written into buffers if given."""
    return linked(definition.layers, parameters, wants_input=False, out=buffers)


def of_chain(
    definition: Definition, chain: Sequence[Link], rows: Rows, l2: Strength
) -> tuple[Array, Sequence[Parameters]]:
    """Return the loss and its gradients by the parameters, in the chain's buffers if it has any."""
    if rows.x.shape[-2]:
        loss, gradients = _of_rows(definition.loss, chain, rows)
    else:  # a part of a batch without rows
        loss, gradients = _of_none(definition.layout, chain)
    if l2 is None:
        return loss, gradients
    parameters = [link.parameters for link in chain]
    loss = loss + penalty(definition.layout, parameters, l2)
    add = operator.add if chain[0].buffers is None else operator.iadd
    return loss, _decayed(definition.layout, gradients, parameters, l2, add)


def _of_rows(
    loss_function: Loss, chain: Sequence[Link], rows: Rows
) -> tuple[Array, Sequence[Parameters]]:
    """Return the mean loss of rows, or their part of a batch's, and its gradients."""
    weight, caches = rows.sample_weight, list[Cache]()
    outputs = forward_through(chain, rows.x, rows.rng, caches)
    y = in_columns(outputs, rows.y)
    each, g = value_and_gradient(loss_function, outputs, y, shares_of(rows))
    g = g if weight is None else where_counted(weight[..., None], g)
    if rows.part is None:
        loss = mean_loss(each, weight)
    else:
        each = each if weight is None else where_counted(weight, weight * each)
        loss = array_namespace(each).sum(each, axis=-1) / _not_zero(total_of(rows))
    _, gradients = backward_through(chain, caches, g)
    return loss, gradients


def _of_none(layout: Layout, chain: Sequence[Link]) -> tuple[Array, Sequence[Parameters]]:
    """Return the zeros that no rows add to a batch's loss and its gradients."""
    zeros = [tuple(array_namespace(w).zeros_like(w) for w in link.parameters) for link in chain]
    buffers: Iterator[Any] = itertools.chain.from_iterable(link.buffers or () for link in chain)
    for buffer in buffers:
        buffer[...] = 0.0
    one, zero = next((one[0], each[0]) for one, each in zip(layout, zeros, strict=True) if one)
    gradients = [link.buffers or own for link, own in zip(chain, zeros, strict=True)]
    return sum_of_squares(zero, len(one.shape)), gradients


def mean_loss(each: Array, weight: Array | None) -> Array:
    """Return the mean over the batch, ``(*stack,)``: ``sum(w * loss) / sum(w)``."""
    if weight is None:
        return mean_of_rows(each)
    total = _not_zero(array_namespace(each).sum(weight, axis=-1))
    shares = weight / total[..., None]
    return array_namespace(each).sum(where_counted(weight, shares * each), axis=-1)


def where_counted(weight: Array, values: Array) -> Array:
    """Return values, but 0 where the weight is: the loss of such a row may overflow."""
    xp = array_namespace(values)
    return xp.where(weight == 0.0, xp.zeros_like(values), values)


def total_of(rows: Rows) -> float | Array:
    """Return what a batch counts: the sum of its weights, ``(...,)``, or its number of rows."""
    if rows.part is not None:
        return rows.part.total
    if rows.sample_weight is None:
        return float(rows.y.shape[-2])
    return array_namespace(rows.y).sum(rows.sample_weight, axis=-1)


def shares_of(rows: Rows) -> float | Array:
    """Return each row's share in the batch, ``(..., batch, 1)``, or a number for equal ones."""
    weight = rows.sample_weight
    if weight is None and rows.part is None:
        return 1.0 / rows.y.shape[-2]
    total = _not_zero(total_of(rows))
    return 1.0 / total if weight is None else (weight / total[..., None])[..., None]


def _not_zero(total: Any) -> Any:
    """Return the sum of a batch's weights, or 1 if all are 0."""
    if type(total) is float:  # not NumPy's, which is a float too
        return total
    return total + array_namespace(total).astype(total == 0.0, total.dtype)


def strength_of(rows: Rows, l2: Strength, l2_of_sum: Strength) -> Strength:
    """Return the penalty's strength: ``l2``, or ``l2_of_sum`` over the sum of the weights."""
    if l2_of_sum is None:
        return l2
    return l2_of_sum / _not_zero(total_of(rows))


def penalty(layout: Layout, parameters: Sequence[Parameters], strength: float | Array) -> Array:
    """Return ``strength / 2 * sum(weights**2)``, ``(*stack,)``, over all tensors of weights."""
    squares = (
        sum_of_squares(w, len(one.shape))
        for slices, values in zip(layout, parameters, strict=True)
        for one, w in zip(slices, values, strict=True)
        if one.decays
    )
    return 0.5 * strength * sum(squares, start=0.0)


def _decayed(
    layout: Layout,
    gradients: Sequence[Parameters],
    parameters: Sequence[Parameters],
    strength: float | Array,
    add: Callable[[Array, Array], Array],
) -> list[Parameters]:
    """Return the gradients plus the penalty's, ``strength * weights``, for tensors of weights."""
    return [
        tuple(
            add(g, _against(strength, one.shape) * w) if one.decays else g
            for one, g, w in zip(*layer, strict=True)
        )
        for layer in zip(layout, gradients, parameters, strict=True)
    ]


def _against(strength: float | Array, shape: tuple[int, ...]) -> float | Array:
    """Return an array ``(*stack,)`` with axes to broadcast against ``(*stack, *shape)``."""
    return strength if isinstance(strength, float) else strength[(..., *(None for _ in shape))]


def parameters_in(definition: Definition, theta: Array) -> list[tuple[Array, ...]]:
    """Return each layer's parameters, views of theta where the library can."""
    parameters: list[tuple[Array, ...]] = dispatch(unpack, theta)(definition.layout, theta)
    return parameters
