"""Samples, targets and weights beside theta, and the batches they are trained on."""

import math
from collections.abc import Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, device_of, like, require_owner
from backprop_xp.checks import unravel
from backprop_xp.data import permutation
from backprop_xp.inputs import Rows, check_targets, check_x
from backprop_xp.network import Network


def check_rows(network: Network, theta: Array, x: Any, y: Any, sample_weight: Any) -> Rows:
    """Return x, y and the weights beside theta, or raise for what does not fit or is not finite."""
    x = check_x(theta, x, None)
    xp = array_namespace(theta)
    if not xp.isdtype(theta.dtype, "real floating"):
        raise TypeError(f"theta is {theta.dtype}, but only real networks are trained.")
    named = {"x": x, "y": like(theta, y, "y")}
    if sample_weight is not None:
        named["sample_weight"] = like(theta, sample_weight, "sample_weight")
    fine = [xp.all(xp.isfinite(array)) for array in named.values()]
    weight = named.get("sample_weight")
    if weight is not None:
        fine += [xp.all(weight >= 0.0), xp.all(xp.sum(weight, axis=-1) > 0.0)]
    # The one transfer before the first epoch.
    if not bool(xp.all(xp.stack(fine))):
        for name, array in named.items():
            _refuse_non_finite(name, array)
        raise ValueError("sample_weight must not be negative, and not all 0.")
    n_out = network.forward(theta, x[..., :1, :]).shape[-1]
    outputs = (*theta.shape[:-1], x.shape[-2], n_out)
    return Rows(x, *check_targets(theta, outputs, named["y"], weight))


def check_validation(network: Network, theta: Array, validation: Sequence[Array]) -> Rows:
    """Return held-out x, y and weights beside theta, or raise as ``check_rows`` does."""
    expected = "validation must be (x, y) or (x, y, sample_weight)"
    if isinstance(validation, str) or not isinstance(validation, Sequence):
        raise TypeError(f"{expected}, not {validation!r}.")
    if len(validation) not in (2, 3):
        raise ValueError(f"{expected}, not {len(validation)} items.")
    try:
        x, y, weight = (*validation, None)[:3]
        return check_rows(network, theta, x, y, weight)
    except (TypeError, ValueError) as error:
        raise type(error)(f"In validation: {error}") from None


def _refuse_non_finite(name: str, array: Array) -> None:
    xp = array_namespace(array)
    finite = xp.astype(xp.reshape(xp.isfinite(array), (-1,)), xp.int32)
    first = int(xp.argmin(finite))
    if int(finite[first]):
        return
    count = math.prod(array.shape) - int(xp.sum(finite))
    value = float(xp.reshape(array, (-1,))[first])
    said = "value that is not finite," if count == 1 else "values that are not finite, the first"
    raise ValueError(
        f"{name} has {count} {said} {value} at {name}{list(unravel(first, array.shape))}. "
        "Drop such rows, or fill them in."
    )


def order_of(rows: Rows, size: int, seed: int | None, epoch: int) -> Array | None:
    """Return the places of an epoch's rows in their order, beside the rows; None for their own.

    Each epoch's is drawn from ``seed`` and the epoch's number. Without a seed, and in a full batch,
    the rows keep their own.
    """
    count = rows.x.shape[-2]
    if seed is None or size >= count:
        return None
    home = require_owner(rows.x, "x")
    return home.from_host(permutation(count, seed, epoch), device=device_of(rows.x))


def parts_of(rows: Rows, size: int, order: Array | None) -> list[Any]:
    """Return where each batch's rows are: None for all of them, a slice, or a piece of an order.

    The last batch is smaller if the rows do not divide.
    """
    count = rows.x.shape[-2]
    if size >= count:
        return [None]
    if order is None:
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]
    table, rest = table_of(order, size)
    parts = [table[i, ...] for i in range(table.shape[0])]
    return parts if rest is None else [*parts, rest]


def table_of(order: Array, size: int) -> tuple[Array, Array | None]:
    """Return an order as the places of full batches, ``(batches, size)``, and those left over."""
    count = order.shape[0]
    whole = count - count % size
    table = array_namespace(order).reshape(order[:whole], (-1, size))
    return table, None if whole == count else order[whole:]


def take(rows: Rows, part: Any) -> Rows:
    """Return the rows at those places."""
    if part is None:
        return rows
    weight = rows.sample_weight
    return Rows(
        _take(rows.x, part, -2),
        _take(rows.y, part, -2),
        None if weight is None else _take(weight, part, -1),
    )


def member(rows: Rows, place: tuple[int, ...], stack: tuple[int, ...]) -> Rows:
    """Return the rows of one network of a stack."""

    def of_one(array: Array, axes: int) -> Array:
        shape = (*stack, *array.shape[len(array.shape) - axes :])
        return array_namespace(array).broadcast_to(array, shape)[(*place, ...)]

    weight = None if rows.sample_weight is None else of_one(rows.sample_weight, 1)
    return Rows(of_one(rows.x, 2), of_one(rows.y, 2), weight)


def _take(array: Array, rows: Any, axis: int) -> Array:
    if isinstance(rows, slice):
        return array[..., rows, :] if axis == -2 else array[..., rows]
    return array_namespace(array).take(array, rows, axis=axis)


def share(batch: Rows) -> Any:
    """Return what a batch counts for in an epoch's mean: its rows, or its weights' sum."""
    if batch.sample_weight is None:
        return batch.x.shape[-2]
    return array_namespace(batch.sample_weight).sum(batch.sample_weight, axis=-1)
