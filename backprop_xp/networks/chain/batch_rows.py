"""The rows of a batch: their record, rows found from them, and pieces of many rows."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from backprop_xp.backends import Array, array_namespace, gather, replaceable, rows_of_members
from backprop_xp.networks.numbers.complex_safe import real_part
from backprop_xp.networks.numbers.random_bits import Key

# Rows of one network: few enough for wide layers to stay in the cache, where they are fastest.
_ROWS_AT_ONCE = 2**12


class Part(NamedTuple):
    """The place of some rows of a batch whose other rows other processes have.

    ``positions`` are their indices in the batch, ``(rows,)`` or ``(*stack, rows)``. ``total`` is
    the sum of the weights of the whole batch, a number or ``(*stack,)``.
    """

    positions: Array
    total: float | Array


class Rows(NamedTuple):
    """The arrays on theta's device; ``sample_weight`` None for equal weights.

    ``part`` is None for a whole batch. ``divide`` is what ``divider`` returned for the x of a
    training. ``at`` ``(*stack, rows)`` are the indices in x of the rows that y and the weights
    have, None for those of x in their order: networks with rows of their own share one x.
    """

    x: Array
    y: Array
    sample_weight: Array | None = None
    rng: Key | None = None
    part: Part | None = None
    divide: Callable[[Array], Array] | None = None
    at: Array | None = None


@runtime_checkable
class Blocks(Protocol):
    """The x of a training whose rows are moved to theta's device a block of batches at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape ``(rows, n_in)`` of all rows together."""

    def pieces(self, rows: Rows, tables: Iterable[Any]) -> Iterator[tuple[Rows, Any]]:
        """Yield each block's rows, and a table of its batches' row indices within the block.

        ``rows`` has y and the weights of all rows. ``tables`` are those of an epoch, ``(batches,
        size)``, or numbers of full-batch epochs, which are yielded unchanged.
        """


def without_ignored(weight: Array, *arrays: Array) -> list[Array]:
    """Return arrays ``(..., batch, n)`` with the heaviest row in place of each row of weight 0.

    A row of weight 0 is left out. Its own values could overflow, and 0 times infinity is NaN; those
    of a row that counts do not. The first row is in the place of all if all weights are 0.
    """
    xp = array_namespace(weight)
    ignored = (weight == 0.0)[..., None]
    heaviest = xp.argmax(real_part(xp, weight), axis=-1, keepdims=True)
    return [xp.where(ignored, rows_at(array, heaviest), array) for array in arrays]


def rows_at(array: Array, indices: Array) -> Array:
    """Return the rows of an array ``(..., batch, n)`` at indices ``(rows,)`` or stacked."""
    if len(indices.shape) == 1:
        return gather(array, indices, -2)
    xp, (*stack, count, n) = array_namespace(array), array.shape
    # Indices count through all rows of the stack: along an axis a gather takes much longer.
    rows = rows_of_members(indices, tuple(stack), count) if stack else indices
    found = gather(xp.reshape(array, (-1, n)), xp.reshape(rows, (-1,)), -2)
    return xp.reshape(found, (*rows.shape[:-1], -1, n))  # a recorded graph has no number of rows


def entries_at(array: Array, indices: Array) -> Array:
    """Return the entries of an array ``(..., batch)`` at indices ``(rows,)`` or stacked."""
    return rows_at(array[..., None], indices)[..., 0]


@replaceable
def divider(x: Array) -> Callable[[Array], Array] | None:
    """Return the function that divides rows over the devices that share x's; None on one device."""
    return None


def selected(rows: Rows, indices: Array, weight: Array | None, rng: Key | None) -> Rows:
    """Return the rows at indices with these weights, divided over the devices as all rows are."""
    at = indices if rows.at is None else entries_at(rows.at, indices)
    x, y, divide = rows_at(rows.x, at), rows_at(rows.y, indices), rows.divide
    if divide is not None:
        x, y = divide(x), divide(y)
    return Rows(x, y, weight, rng, divide=divide)


def cut(rows: Rows, part: slice) -> Rows:
    """Return x and y of a slice of the rows."""
    x = rows.x[..., part, :] if rows.at is None else rows_at(rows.x, rows.at[..., part])
    return Rows(x, rows.y[..., part, :])


def gathered(rows: Rows) -> Rows:
    """Return rows whose x has the rows of y, in their order."""
    return rows if rows.at is None else rows._replace(x=rows_at(rows.x, rows.at), at=None)


def counted(rows: Rows) -> Rows:
    """Return rows with another row in place of each row of weight 0.

    If all weights are 0, x is 0, which cannot overflow; y stays in the range of the loss.
    """
    weight = rows.sample_weight
    if weight is None or not weight.shape[-1]:
        return rows
    xp, (x, y) = array_namespace(weight), without_ignored(weight, rows.x, rows.y)
    none_counts = xp.all(weight == 0.0, axis=-1)[..., None, None]
    return rows._replace(x=xp.where(none_counts, xp.zeros_like(x), x), y=y)


def of_members(array: Any, axes: int, members: slice, stack: int) -> Any:
    """Return the part of some members of a stack of so many axes: a slice of its first axis.

    ``axes`` axes of the array follow the stack's. What is no array, or is the same for all members,
    is returned unchanged.
    """
    shape: tuple[int, ...] = getattr(array, "shape", ())
    is_stacked = len(shape) == stack + axes and shape[0] > 1
    return array[members, ...] if is_stacked else array


def cut_members(rows: Rows, members: slice, stack: int) -> Rows:
    """Return the rows of some members of a stack, as ``of_members`` does."""
    parts = zip(rows[:4], (2, 2, 1, 2), strict=True)
    return Rows(*(of_members(part, axes, members, stack) for part, axes in parts))


@replaceable
def members_at_once(theta: Array, numbers: int) -> int | None:
    """Return how many networks to compute at once, by the numbers of each in its largest array.

    It is None if all are computed at once.
    """
    return None


def row_slices(rows: int, size: int) -> list[slice]:
    """Return the slices of batches of ``size`` rows, in order; the last may be smaller."""
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def rows_at_once(theta: Array) -> int:
    """Return how many rows to predict at once: the more networks in a stack, the fewer rows."""
    return max(1, _ROWS_AT_ONCE // int(math.prod(theta.shape[:-1])))
