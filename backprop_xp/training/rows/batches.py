"""The batches of an epoch: their row indices, their rows, and means over them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, device_of, require_owner
from backprop_xp.networks.chain.batch_rows import Rows, counted, entries_at, selected
from backprop_xp.networks.derivatives.objective import total_of
from backprop_xp.networks.numbers.random_bits import RowKey
from backprop_xp.training.interfaces.orders import Seed, chosen_order, order_of


def index_tables(
    rows: Rows,
    size: int,
    shuffle: bool | Callable[[int], Any],
    seed: Seed,
    epoch: int,
    stack: tuple[int, ...] = (),
) -> list[Array]:
    """Return the row indices of an epoch's batches, in tables ``(batches, size)``.

    If each network of a stack has its own order, they are ``(batches, *stack, size)``. A smaller
    last batch has a table of its own. ``shuffle`` True draws the order from ``seed`` and the
    epoch's number; a function returns the order of the epoch, or one for each network of ``stack``.
    """
    count, backend = rows.y.shape[-2], require_owner(rows.y, "y")
    order = epoch_order(count, shuffle, seed, epoch, stack)
    # Cut on the host: on the device, each shape would be compiled.
    xp, whole = array_namespace(order), count - count % size
    parts = [order[..., :whole].reshape(*order.shape[:-1], -1, size)]
    if whole < count:
        parts.append(order[..., None, whole:])
    tables = [xp.moveaxis(part, -2, 0) if part.ndim > 2 else part for part in parts]
    return [backend.from_host(table, device=device_of(rows.y)) for table in tables]


def epoch_order(
    count: int,
    shuffle: bool | Callable[[int], Any],
    seed: Seed,
    epoch: int,
    stack: tuple[int, ...] = (),
) -> Array:
    """Return the order of an epoch's rows on the host, ``(rows,)`` or ``(*stack, rows)``."""
    if callable(shuffle):
        return chosen_order(count, shuffle, epoch, stack)
    return order_of(count, seed if shuffle else None, epoch)


def without_first(tables: Sequence[Array], batches: int) -> Iterator[Array]:
    """Yield the tables of an epoch without its first batches."""
    for table in tables:
        if batches < table.shape[0]:
            yield table[batches:, ...] if batches else table
        batches = max(0, batches - table.shape[0])


def in_blocks(rows: Rows, tables: Iterable[Any]) -> Generator[tuple[Rows, Any]]:
    """Yield each table with the rows that its indices count: all rows, or those of a block."""
    if hasattr(rows.x, "pieces"):  # Blocks: a check of the protocol takes ten times as long
        yield from rows.x.pieces(rows, tables)
    else:
        yield from ((rows, table) for table in tables)


def mean_over(tables: Sequence[Array], parts: Sequence[Array], weight: Array | None) -> Array:
    """Return the mean of an epoch's losses as ``(1, *stack)``.

    The losses are ``(batches, *stack)`` when their parts are joined. A batch counts by the sum of
    its rows' weights, or by its number of rows without ``weight``.
    """
    losses = concat(parts, axis=0)
    if weight is None and len({table.shape[-1] for table in tables}) == 1:
        return array_namespace(losses).mean(losses, axis=0, keepdims=True)
    return _mean(losses, concat([_batch_weights(table, losses, weight) for table in tables], -1))


def mean_of_batches(losses: Array, batches: Sequence[Array]) -> Array:
    """Return the same mean, of batches that count ``batches``, each a number or ``(*stack,)``."""
    xp = array_namespace(losses)
    return _mean(losses, xp.stack([xp.broadcast_to(b, losses.shape[1:]) for b in batches], axis=-1))


def count_of(rows: Rows) -> Array:
    """Return what a batch counts: the sum of its weights, or its number of rows."""
    total, x = total_of(rows), rows.x
    if type(total) is not float:
        return total
    return array_namespace(x).asarray(total, dtype=x.dtype, device=device_of(x))


def _mean(losses: Array, share: Array) -> Array:
    """Return the mean of losses ``(batches, *stack)`` by shares ``(..., batches)``."""
    xp = array_namespace(losses)
    if len(losses.shape) > 1:
        losses = xp.moveaxis(losses, 0, -1)
    mean: Array = xp.sum(losses * share, axis=-1) / xp.sum(share, axis=-1)
    return mean[None, ...]


def _batch_weights(table: Array, losses: Array, weight: Array | None) -> Array:
    """Return the weight of each batch of a table, ``(batches,)`` or ``(*stack, batches)``."""
    xp = array_namespace(losses)
    if weight is None:
        batches, size = table.shape[0], table.shape[-1]
        return xp.full((batches,), float(size), dtype=losses.dtype, device=device_of(losses))
    table = xp.moveaxis(table, 0, -2)  # (*stack, batches, size)
    weights = entries_at(weight, xp.reshape(table, (*table.shape[:-2], -1)))
    return xp.sum(xp.reshape(weights, (*weights.shape[:-1], *table.shape[-2:])), axis=-1)


def batch_at(rows: Rows, indices: Array | None, rng: Any = None) -> Rows:
    """Return the rows at ``indices``, all for None, with others in place of those of weight 0."""
    if indices is None:
        if rng is not None and rows.part is not None:
            rng = RowKey(rng, rows.part.positions)
        return counted(rows if rng is rows.rng else rows._replace(rng=rng))
    weight = rows.sample_weight
    weight = None if weight is None else entries_at(weight, indices)
    return counted(selected(rows, indices, weight, rng))


def concat(arrays: Sequence[Array], axis: int) -> Array:
    """Return arrays joined along an axis; a single one is not copied."""
    return arrays[0] if len(arrays) == 1 else array_namespace(arrays[0]).concat(arrays, axis=axis)


def of_member(array: Array, axes: int, member: tuple[int, ...], stack: tuple[int, ...]) -> Array:
    """Return one network's part of an array whose last ``axes`` axes follow the stack's."""
    shape = (*stack, *array.shape[len(array.shape) - axes :])
    return array_namespace(array).broadcast_to(array, shape)[(*member, ...)]


def parts_of_member(
    parts: Sequence[Array | None], member: tuple[int, ...], stack: tuple[int, ...]
) -> list[Array | None]:
    """Return one network's x, y and weights, which may be None."""
    pairs = zip(parts, (2, 2, 1), strict=True)
    return [None if part is None else of_member(part, axes, member, stack) for part, axes in pairs]
