"""Accumulated gradients: those of a large batch, computed for some of its rows at a time."""

import functools
import operator
from collections.abc import Callable
from typing import Any

from backprop_xp.backends import Array, array_namespace
from backprop_xp.networks.inputs import Rows, row_slices
from backprop_xp.networks.random_bits import fold_in
from backprop_xp.training.pytrees import mapped

# ``(theta, batch, l2, views) -> (loss, gradient)``; a compiled loop's gradient is a list of parts.
Gradient = Callable[..., tuple[Array, Any]]


def accumulating(gradient_of: Gradient, size: int | None) -> Gradient:
    """Return a loss and gradient with its results, computed for ``size`` rows of a batch at a time.

    Each part counts by the sum of its weights. It draws dropout masks of its own.
    """
    return gradient_of if size is None else functools.partial(_accumulated, gradient_of, size)


def _accumulated(
    gradient_of: Gradient, size: int, theta: Any, batch: Rows, l2: Any, views: Any
) -> tuple[Array, Any]:
    parts, weight, rng, total = row_slices(batch.x.shape[-2], size), None, None, None
    for i, (part, share) in enumerate(zip(parts, _shares(batch, parts), strict=True)):
        if batch.sample_weight is not None:
            weight = batch.sample_weight[..., part]
        if batch.rng is not None:
            rng = fold_in(batch.rng, i)
        rows = Rows(batch.x[..., part, :], batch.y[..., part, :], weight, rng)
        loss, gradient = gradient_of(theta, rows, l2, views)
        along = share if isinstance(share, float) else share[..., None]
        # In memory of its own: the next part's gradient may be written over this one.
        scaled = loss * share, mapped(functools.partial(operator.mul, along), gradient)
        total = scaled if total is None else mapped(operator.iadd, total, scaled)
    assert total is not None  # noqa: S101 - a batch has rows
    return total


def _shares(batch: Rows, parts: list[slice]) -> list[Any]:
    """Return each part's share of the weights, ``(*stack,)``; equal shares if all weights are 0."""
    if batch.sample_weight is None:
        return [(part.stop - part.start) / parts[-1].stop for part in parts]
    xp = array_namespace(batch.x)
    sums = [xp.sum(batch.sample_weight[..., part], axis=-1) for part in parts]
    whole = sum(sums[1:], start=sums[0])
    none = xp.astype(whole == 0.0, whole.dtype)
    return [(one + none) / (whole + len(parts) * none) for one in sums]
