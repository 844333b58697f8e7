"""Sums, products and other array functions that a backend may compute faster.

These references use the standard alone. ``blank`` returns a new array for results if the library
can write into slices of arrays; otherwise results are concatenated.
"""

import itertools
import math
from collections.abc import Iterable

from backprop_xp.backends.compatibility import device_of
from backprop_xp.backends.protocol import Array, Backend
from backprop_xp.backends.registry import array_namespace, owner
from backprop_xp.backends.replacements import replaceable


@replaceable
def blank(array: Array, shape: tuple[int, ...] | None = None) -> Array | None:
    """Return a new writable array of the same shape, or another, and the same dtype.

    It is None if the library does not write into slices of arrays.
    """
    return None


@replaceable
def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a @ b``, written into ``out`` if given."""
    if out is None:
        return a @ b
    out[...] = a @ b
    return out


@replaceable
def transposed(matrix: Array) -> Array:
    """Return matrices with their last two axes exchanged; not every library has ``.mT``."""
    return array_namespace(matrix).matrix_transpose(matrix)


@replaceable
def product_over_batch(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a^T @ b``, the sum of the rows' outer products, as ``matmul`` does."""
    return matmul(transposed(a), b, out)


@replaceable
def outer(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return the products of ``(..., n)`` and ``(..., m)``, ``(..., n, m)``, as ``matmul`` does."""
    return matmul(a[..., None], b[..., None, :], out)


@replaceable
def with_diagonal(matrix: Array, diagonal: Array) -> Array:
    """Return matrices ``(*stack, n, n)`` plus diagonal ones, of ``(..., n)`` or ``(..., 1)``."""
    xp, n = array_namespace(matrix), matrix.shape[-1]
    unit = xp.eye(n, dtype=matrix.dtype, device=device_of(matrix))
    return matrix + diagonal[..., None] * unit


@replaceable
def gather(array: Array, indices: Array, axis: int) -> Array:
    """Return the entries at those indices along an axis."""
    return array_namespace(array).take(array, indices, axis=axis)


@replaceable
def sum_at(values: Array, indices: Array, count: int, out: Array | None = None) -> Array:
    """Return for each index below ``count`` the sum of its rows, written into ``out`` if given.

    ``values`` is ``(*stack, rows, n)``, ``indices`` is ``(rows,)`` or ``(*stack, rows)``, and the
    result ``(*stack, count, n)``.
    """
    total = _scattered(values, indices, count)
    if total is None:
        xp = array_namespace(values)
        numbers = xp.arange(count, dtype=indices.dtype, device=device_of(values))
        one_hot = xp.astype(indices[..., None, :] == numbers[:, None], values.dtype)
        return matmul(one_hot, values, out)
    if out is None:
        return total
    out[...] = total
    return out


def _scattered(values: Array, indices: Array, count: int) -> Array | None:
    """Return ``sum_at`` by the backend's ``scatter_add``, None without one."""
    backend = owner(values)
    if backend is None or type(backend).scatter_add is Backend.scatter_add:
        return None
    xp, (*stack, _, n) = array_namespace(values), values.shape
    shape, rows = (math.prod(stack) * count, n), rows_of_members(indices, tuple(stack), count)
    total = xp.zeros(shape, dtype=values.dtype, device=device_of(values))
    flat = xp.reshape(rows, (-1,)), xp.reshape(values, (-1, n))
    total = backend.scatter_add(total, *flat)
    return None if total is None else xp.reshape(total, (*stack, count, n))


@replaceable
def stack(array: Array, *others: Array) -> Array:
    """Return arrays of one shape along a new first axis."""
    return array_namespace(array).stack([array, *others])


def rows_of_members(indices: Array, stack: tuple[int, ...], count: int) -> Array:
    """Return indices of rows of each member's table as those of all tables in one.

    ``indices`` is ``(rows,)`` or ``(..., rows)``, whose leading axes broadcast with the stack's,
    and each table has ``count`` rows. The result has the axes of both.
    """
    xp, members = array_namespace(indices), math.prod(stack)
    dtype = indices.dtype if members * count < 2**31 else xp.int64
    tables = xp.arange(members, dtype=dtype, device=device_of(indices))
    return indices + count * xp.reshape(tables, (*stack, 1))


def columns_of(array: Array, widths: Iterable[int]) -> list[Array]:
    """Return consecutive columns, the last axis cut into these widths, as views if possible."""
    ends = itertools.accumulate(widths, initial=0)
    return [array[..., start:end] for start, end in itertools.pairwise(ends)]


@replaceable
def ones_where_positive(array: Array) -> Array:
    """Return 1 where a real array is positive, else 0, in its dtype."""
    return array_namespace(array).astype(array > 0.0, array.dtype)


@replaceable
def sum_over_batch(array: Array, out: Array | None = None, factor: Array | None = None) -> Array:
    """Return the sum over axis -2, which stays with length 1; written into ``out`` if given.

    A factor multiplies the array before the sum.
    """
    terms = array if factor is None else array * factor
    total = array_namespace(array).sum(terms, axis=-2, keepdims=True)
    if out is None:
        return total
    out[...] = total
    return out


@replaceable
def sum_of_rows(array: Array, *, keepdims: bool = False) -> Array:
    """Return the sum over the last axis."""
    return array_namespace(array).sum(array, axis=-1, keepdims=keepdims)


@replaceable
def sum_of_squares(array: Array, axes: int) -> Array:
    """Return the sum of the squares over the last ``axes`` axes."""
    return array_namespace(array).sum(array * array, axis=tuple(range(-axes, 0)))


@replaceable
def mean_of_rows(array: Array) -> Array:
    """Return the mean over the last axis."""
    return array_namespace(array).mean(array, axis=-1)


@replaceable
def max_of_rows(array: Array) -> Array:
    """Return the largest entry over the last axis, which stays with length 1."""
    return array_namespace(array).max(array, axis=-1, keepdims=True)
