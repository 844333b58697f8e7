"""Accumulated gradients: the gradient of a large batch, computed for some rows at a time."""

import functools
import operator
from collections.abc import Callable
from typing import Any

from backprop_xp.backends import Array, array_namespace, device_of, gather, require_owner
from backprop_xp.networks.chain.batch_rows import Rows, row_slices, selected
from backprop_xp.networks.numbers.random_bits import fold_in
from backprop_xp.training.optimizers.pytrees import mapped

# ``(theta, batch, l2) -> (loss, gradient)``; a compiled loop's gradient is a list of parts.
Gradient = Callable[..., tuple[Array, Any]]


def accumulate(gradient_of: Gradient, size: int) -> Gradient:
    """Return a function with the same results that computes ``size`` rows of a batch at a time.

    Each part counts by the sum of its weights, and draws dropout masks of its own.
    """
    return functools.partial(_gradient_by_parts, gradient_of, size)


def _gradient_by_parts(
    gradient_of: Gradient, size: int, theta: Any, batch: Rows, l2: Any
) -> tuple[Array, Any]:
    parts = row_slices(batch.x.shape[-2], size)
    shares = _shares(batch, parts)

    def of_part(own: tuple[Any, ...], theta: Any, batch: Rows, l2: Any) -> tuple[Array, Any]:
        """Return what a part adds, in memory of its own: the next gradient may be written over."""
        i, where, share = own
        rng = None if batch.rng is None else fold_in(batch.rng, i)
        loss, gradient = gradient_of(theta, _rows(batch, where, rng), l2)
        along = share if isinstance(share, float) else share[..., None]
        return loss * share, mapped(functools.partial(operator.mul, along), gradient)

    def add(total: Any, own: tuple[Any, ...], *shared: Any) -> tuple[Any, tuple[()]]:
        return mapped(operator.iadd, total, of_part(own, *shared)), ()

    each, shared = [*zip(range(len(parts)), parts, shares, strict=True)], (theta, batch, l2)
    total: Any = of_part(each[0], *shared)
    loop, whole = require_owner(batch.x, "x").loop(add), parts[-1].stop // size
    if loop is not None and whole > 2:  # compiled once, instead of once for each part
        xp, device = array_namespace(batch.x), device_of(batch.x)
        indices = xp.arange(whole * size, dtype=xp.int32, device=device)
        column = xp.stack(
            [xp.asarray(share, dtype=batch.x.dtype, device=device) for share in shares[:whole]]
        )
        columns = indices[:whole], xp.reshape(indices, (whole, size)), column
        total, _ = loop(total, columns, 1, whole, *shared)
        each = each[whole - 1 :]
    for own in each[1:]:
        total, _ = add(total, own, *shared)
    loss, gradient = total
    return loss, gradient


def _rows(batch: Rows, where: Any, rng: Any) -> Rows:
    """Return the rows of a batch at a slice, or at indices in a compiled loop."""
    x, y, weight, *_ = batch
    if isinstance(where, slice):
        weight = None if weight is None else weight[..., where]
        return Rows(x[..., where, :], y[..., where, :], weight, rng)
    weight = None if weight is None else gather(weight, where, -1)
    return selected(batch, where, weight, rng)


def _shares(batch: Rows, parts: list[slice]) -> list[Any]:
    """Return each part's share of the weights, ``(*stack,)``; equal shares if all weights are 0."""
    if batch.sample_weight is None:
        return [(part.stop - part.start) / parts[-1].stop for part in parts]
    xp = array_namespace(batch.x)
    sums = [xp.sum(batch.sample_weight[..., part], axis=-1) for part in parts]
    whole = sum(sums[1:], start=sums[0])
    none = xp.astype(whole == 0.0, whole.dtype)
    return [(one + none) / (whole + len(parts) * none) for one in sums]
