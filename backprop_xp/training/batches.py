"""The batches of an epoch: where their rows are, taking them, and means over them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, device_of, gather, require_owner
from backprop_xp.networks.inputs import Blocks, Rows, counted, rows_at
from backprop_xp.training.data import chosen_order, order_of


def tables_of(
    rows: Rows, size: int, shuffle: bool | Callable[[int], Any], seed: int, epoch: int
) -> list[Array]:
    """Return where the rows of an epoch's batches are, as tables ``(batches, size)``.

    A smaller last batch has a table of its own. The order is what the function ``shuffle`` returns
    for the epoch, or drawn from ``seed`` and the epoch's number, or that of the rows.
    """
    count, home = rows.x.shape[-2], require_owner(rows.y, "y")
    if callable(shuffle):
        order = chosen_order(count, shuffle, epoch)
    else:
        order = order_of(count, seed if shuffle else None, epoch)
    whole = count - count % size
    # Cut on the host: libraries that compile would do so for each way to cut.
    tables = [order[:whole].reshape(-1, size)]
    # Few of the lengths differ: a compiler takes each anew.
    if whole < count:
        tables.append(order[whole:].reshape(1, -1))
    return [home.from_host(table, device=device_of(rows.y)) for table in tables]


def remaining(tables: Sequence[Array], passed: int) -> Iterator[Array]:
    """Yield the tables without the batches that have passed already."""
    for table in tables:
        if passed < table.shape[0]:
            yield table[passed:, :] if passed else table
        passed = max(0, passed - table.shape[0])


def pieces(rows: Rows, tables: Iterable[Any]) -> Iterator[tuple[Rows, Any]]:
    """Yield the tables of an epoch, each beside the rows that it counts: all, or a block's."""
    if isinstance(rows.x, Blocks):
        return rows.x.pieces(rows, tables)
    return ((rows, table) for table in tables)


def mean_over(tables: Sequence[Array], losses: Array, weight: Array | None) -> Array:
    """Return the mean of an epoch's losses ``(batches, *stack)`` as ``(1, *stack)``.

    Each counts for the sum of its rows' weights, ``weight`` being those of all rows, or for its
    rows.
    """
    xp = array_namespace(losses)
    share = joined([_shares(table, losses, weight) for table in tables], axis=-1)
    mean: Array = xp.sum(xp.moveaxis(losses, 0, -1) * share, axis=-1) / xp.sum(share, axis=-1)
    return mean[None, ...]


def _shares(table: Array, losses: Array, weight: Array | None) -> Array:
    """Return for what each batch of a table counts, ``(batches,)`` or stacked."""
    xp = array_namespace(losses)
    if weight is None:
        batches, size = table.shape
        return xp.full((batches,), float(size), dtype=losses.dtype, device=device_of(losses))
    weights = gather(weight, xp.reshape(table, (-1,)), -1)
    return xp.sum(xp.reshape(weights, (*weight.shape[:-1], *table.shape)), axis=-1)


def take(rows: Rows, places: Array | None, rng: Any = None) -> Rows:
    """Return the rows at those places, None for all of them; of one of weight 0 its stand-in."""
    x, y, weight, _, at = rows
    if places is None:
        return counted(Rows(x, y, weight, rng, at))
    if at is None:
        at = places
    else:
        weight, at = gather(weight, places, -1), gather(at, places, -1)
    return Rows(rows_at(x, at), rows_at(y, at), weight, rng)


def joined(arrays: Sequence[Array], axis: int) -> Array:
    """Return arrays joined along an axis."""
    return arrays[0] if len(arrays) == 1 else array_namespace(arrays[0]).concat(arrays, axis=axis)
