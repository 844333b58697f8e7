"""Samples, targets and weights beside theta, and the batches they are trained on."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    like,
    require_floating,
    require_owner,
    to_host,
)
from backprop_xp.checks import unravel
from backprop_xp.data import permutation
from backprop_xp.inputs import Rows, check_targets, check_x
from backprop_xp.losses import LOSSES, Loss
from backprop_xp.network import Network

# Targets that are probabilities come with float32's rounding.
_SLACK = 1e-6


def check_data(
    network: Network, theta: Array, x: Any, y: Any, sample_weight: Any, validation: Any
) -> tuple[Rows, Rows | None]:
    """Return training rows and held-out rows, if there are any, beside theta.

    Raises TypeError or ValueError for what does not fit, is not finite, or is no target that the
    loss can mean. One transfer answers for all values of both: the only one before the first epoch.
    """
    if not require_floating(theta, "theta").isdtype(theta.dtype, "real floating"):
        raise TypeError(f"theta is {theta.dtype}, but only real networks are trained.")
    rows = _placed(theta, x, y, sample_weight)
    if validation is None:
        _require_usable(network.loss_function, rows, None)
        return _fitting(network, theta, rows), None
    parts = _parts(validation)
    with _in_validation():
        held_out = _placed(theta, *parts)
    _require_usable(network.loss_function, rows, held_out)
    rows = _fitting(network, theta, rows)
    with _in_validation():
        return rows, _fitting(network, theta, held_out)


def _placed(theta: Array, x: Any, y: Any, sample_weight: Any = None) -> Rows:
    weight = None if sample_weight is None else like(theta, sample_weight, "sample_weight")
    alone = require_owner(theta, "theta").detached
    rows = alone(check_x(theta, x, None)), alone(like(theta, y, "y"))
    return Rows(*rows, None if weight is None else alone(weight))


def _parts(validation: Any) -> Sequence[Any]:
    expected = "validation must be (x, y) or (x, y, sample_weight)"
    if isinstance(validation, str) or not isinstance(validation, Sequence):
        raise TypeError(f"{expected}, not {validation!r}.")
    if len(validation) not in (2, 3):
        raise ValueError(f"{expected}, not {len(validation)} items.")
    return validation


def _fitting(network: Network, theta: Array, rows: Rows) -> Rows:
    """Return the rows, once targets and weights are seen to fit the network's outputs."""
    n_out = network.forward(theta, rows.x[..., :1, :]).shape[-1]
    loss = network.loss_function
    if n_out < loss.least_outputs:
        raise ValueError(
            f"The network has {n_out} output, but {_name_of(loss)} needs {loss.least_outputs} or "
            "more, one for each class: use binary_cross_entropy with a single output."
        )
    outputs = (*theta.shape[:-1], rows.x.shape[-2], n_out)
    return Rows(rows.x, *check_targets(theta, outputs, rows.y, rows.sample_weight))


@contextlib.contextmanager
def _in_validation() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"In validation: {error}") from None


def _require_usable(loss: Loss, rows: Rows, held_out: Rows | None) -> None:
    questions = [*_questions(loss, rows, ""), *_questions(loss, held_out, "In validation: ")]
    flags = array_namespace(rows.x).stack([flag for flag, _, _ in questions])
    for fine, (_, where, complaint) in zip(to_host(flags).tolist(), questions, strict=True):
        if not fine:
            raise ValueError(f"{where}{complaint()}")


def _questions(
    loss: Loss, rows: Rows | None, where: str
) -> Iterator[tuple[Array, str, Callable[[], str]]]:
    """Yield flags, on the device, that should be true, and what to say where one is not."""
    if rows is None:
        return
    xp, weight = array_namespace(rows.x), rows.sample_weight
    named = {"x": rows.x, "y": rows.y, "sample_weight": weight}
    for name, array in named.items():
        if array is not None:
            yield xp.all(xp.isfinite(array)), where, functools.partial(_not_finite, name, array)
    low, high = loss.targets
    if (low, high) != (-math.inf, math.inf):
        meant = xp.all(rows.y >= low - _SLACK) & xp.all(rows.y <= high + _SLACK)
        yield meant, where, functools.partial(_not_meant, rows.y, loss)
    if weight is not None:
        usable = xp.all(weight >= 0.0) & xp.all(xp.sum(weight, axis=-1) > 0.0)
        yield usable, where, lambda: "sample_weight must not be negative, and not all 0."


def _not_finite(name: str, array: Array) -> str:
    host = to_host(array)
    wrong = ~array_namespace(host).isfinite(host)
    return f"{_wrong_values(name, host, wrong, 'not finite')} Drop such rows, or fill them in."


def _not_meant(y: Array, loss: Loss) -> str:
    host, (low, high) = to_host(y), loss.targets
    wrong = (host < low - _SLACK) | (host > high + _SLACK)
    found = _wrong_values("y", host, wrong, f"not in [{low:g}, {high:g}]")
    return (
        f"{found} To {_name_of(loss)} such targets mean nothing: encode them otherwise, or choose "
        "another loss."
    )


def _wrong_values(name: str, host: Any, wrong: Any, fault: str) -> str:
    """Return how many values of an array on the host are wrong, and the first with its place."""
    places = wrong.reshape(-1).nonzero()[0].tolist()
    said = "value that is" if len(places) == 1 else "values that are"
    first = ", the first" if len(places) > 1 else ","
    place = unravel(places[0], host.shape)
    return f"{name} has {len(places)} {said} {fault}{first} {host[place]} at {name}{list(place)}."


def _name_of(loss: Loss) -> str:
    return next((name for name, known in LOSSES.items() if known == loss), "this loss")


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
