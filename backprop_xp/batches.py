"""The batches of an epoch: where their rows are, taking them, and means over them."""

from collections.abc import Iterator, Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, device_of, require_owner
from backprop_xp.data import order_of
from backprop_xp.inputs import Rows, row_slices, rows_at_once


def tables_of(rows: Rows, size: int, seed: int | None, epoch: int) -> list[Array]:
    """Return where the rows of an epoch's batches are, as tables ``(batches, size)``.

    The last table is that of the last batch, if it is smaller. The order is drawn from ``seed`` and
    the epoch's number; without a seed the rows keep their own.
    """
    count, home = rows.x.shape[-2], require_owner(rows.x, "x")
    order, whole = order_of(count, seed, epoch), count - count % size
    # Cut on the host: libraries that compile would do so for each way to cut.
    tables = [order[:whole].reshape(-1, size)]
    # Few of the lengths differ: a compiler takes each anew.
    if whole < count:
        tables.append(order[whole:].reshape(1, -1))
    return [home.from_host(table, device=device_of(rows.x)) for table in tables]


def remaining(tables: Sequence[Array], passed: int) -> Iterator[Array]:
    """Yield the tables without the first batches, of which so many have passed."""
    for table in tables:
        if passed < table.shape[0]:
            yield table[passed:, :] if passed else table
        passed = max(0, passed - table.shape[0])


def mean_over(tables: Sequence[Array], losses: Array, rows: Rows) -> Array:
    """Return the mean of an epoch's losses ``(batches, *stack)`` as ``(1, *stack)``.

    Each counts for its share. A share is a batch's number of rows, or the sum of their weights.
    """
    xp, weight, first = array_namespace(losses), rows.sample_weight, 0
    value, total = 0.0, 0.0
    for table in tables:
        count, size = table.shape
        part = losses[first : first + count, ...]
        first += count
        if weight is None:
            value, total = value + xp.sum(part, axis=0) * float(size), total + float(count * size)
            continue
        taken = xp.take(weight, xp.reshape(table, (-1,)), axis=-1)
        shares = xp.sum(xp.reshape(taken, (*weight.shape[:-1], count, size)), axis=-1)
        shares = xp.moveaxis(shares, -1, 0)
        missing = [1] * (len(part.shape) - len(shares.shape))
        shares = xp.reshape(shares, (count, *missing, *shares.shape[1:]))
        value, total = value + xp.sum(part * shares, axis=0), total + xp.sum(shares, axis=0)
    mean: Array = value / total
    return mean[None, ...]


def take(rows: Rows, places: Array | None, rng: Any = None) -> Rows:
    """Return the rows at those places, None for all of them."""
    x, y, weight, _ = rows
    if places is None:
        return Rows(x, y, weight, rng)
    xp = array_namespace(x)
    if weight is not None:
        weight = xp.take(weight, places, axis=-1)
    return Rows(xp.take(x, places, axis=-2), xp.take(y, places, axis=-2), weight, rng)


def in_pieces(rows: Rows, theta: Array) -> Iterator[Rows]:
    """Yield the rows piece by piece, so many as predictions are made of at once."""
    x, y, weight, _ = rows
    size = rows_at_once(theta)
    if size >= x.shape[-2]:
        yield rows
        return
    for part in row_slices(x.shape[-2], size):
        yield Rows(x[..., part, :], y[..., part, :], None if weight is None else weight[..., part])


def share(batch: Rows) -> Any:
    """Return what a batch counts for in a mean: its rows, or its weights' sum."""
    weight = batch.sample_weight
    if weight is None:
        return float(batch.x.shape[-2])
    return array_namespace(weight).sum(weight, axis=-1)


def weighted_mean(losses: Sequence[Array], shares: Sequence[Any]) -> Array:
    """Return the mean of batches' losses, each counting for its share."""
    if len(losses) == 1:
        return losses[0]
    total = sum(shares[1:], start=shares[0])
    parts = [loss * (share / total) for loss, share in zip(losses, shares, strict=True)]
    return sum(parts[1:], start=parts[0])


def joined(arrays: Sequence[Array], axis: int) -> Array:
    """Return arrays joined along an axis."""
    return arrays[0] if len(arrays) == 1 else array_namespace(arrays[0]).concat(arrays, axis=axis)
