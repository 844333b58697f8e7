"""Faster NumPy replacements for ``backprop_xp.backends.sums_and_products``.

A matrix product sums short rows in less time than NumPy's own sum.
"""

import functools

import numpy as np

from backprop_xp.backends.protocol import Array, DType, Function
from backprop_xp.backends.sums_and_products import rows_of_members

# A product of at most so many numbers sums nearly as exactly as NumPy's pairwise sum.
_SHORT = 512


def _blank(array: Array, shape: tuple[int, ...] | None = None) -> Array:
    """Return an array in C order, so that its parts are views; empty_like would keep the order."""
    return np.empty(array.shape if shape is None else shape, array.dtype)


def _matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    if a.ndim == b.ndim == 2:
        try:
            return a.dot(b, out)  # a third of matmul's time before it comes to BLAS
        except ValueError:  # out has another dtype, or another order
            pass
    return np.matmul(a, b, out=out)


def _product_over_batch(a: Array, b: Array, out: Array | None = None) -> Array:
    return _matmul(a.mT, b, out)


def _transposed(matrix: Array) -> Array:
    return matrix.mT  # a sixth of numpy.matrix_transpose's time


def _outer(a: Array, b: Array, out: Array | None = None) -> Array:
    return np.einsum("...i,...j->...ij", a, b, out=out)  # half of matmul's time


def _with_diagonal(matrix: Array, diagonal: Array) -> Array:
    *stack, n, _ = matrix.shape
    total = np.empty((*stack, n * n), matrix.dtype)
    total.reshape(matrix.shape)[...] = matrix
    total[..., :: n + 1] += diagonal  # a third of the time, and no diagonal matrices
    return total.reshape(matrix.shape)


def _gather(array: Array, indices: Array, axis: int) -> Array:
    return array.take(indices, axis)  # a third of numpy.take's time


def _stack(array: Array, *others: Array) -> Array:
    return np.array([array, *others])  # a tenth of numpy.stack's time for numbers


def _sum_at(values: Array, indices: Array, count: int, out: Array | None = None) -> Array:
    (*stack, _, n), writes = values.shape, out is not None and out.flags.c_contiguous
    total: Array = out if writes else np.empty((*stack, count, n), values.dtype)
    total[...] = 0.0
    rows = rows_of_members(indices, tuple(stack), count).reshape(-1)
    # Index by index: NumPy's ufunc.at is three times as fast on one axis.
    np.add.at(total.reshape(-1), (rows[:, None] * n + np.arange(n)).reshape(-1), values.reshape(-1))
    if out is None or writes:
        return total
    out[...] = total
    return out


def _ones_where_positive(array: Array) -> Array:
    return (array > 0.0).astype(array.dtype)  # half of numpy.astype's time


def _sum_over_batch(array: Array, out: Array | None = None, factor: Array | None = None) -> Array:
    terms = array if factor is None else array * factor
    return _matmul(_ones(terms.shape[-2], terms.dtype), terms, out)


def _sum_of_rows(array: Array, *, keepdims: bool = False) -> Array:
    if not _is_short(array):
        return np.sum(array, axis=-1, keepdims=keepdims)
    ones = _ones(array.shape[-1], array.dtype)
    return array.dot(ones.T if keepdims else ones[0])


def _mean_of_rows(array: Array) -> Array:
    n = array.shape[-1]
    total = array.dot(_ones(n, array.dtype)[0]) if _is_short(array) else np.sum(array, axis=-1)
    return total / n


def _max_of_rows(array: Array) -> Array:
    if not _is_short(array) or array.ndim < 2:
        return np.max(array, axis=-1, keepdims=True)
    # NumPy takes a quarter of the time column by column.
    return np.maximum.reduce(np.ascontiguousarray(array.mT), axis=-2)[..., None]


def _sum_of_squares(array: Array, axes: int) -> Array:
    if array.ndim != axes or array.dtype.kind != "f":
        return np.sum(array * array, axis=tuple(range(-axes, 0)))
    flat = array.reshape(-1)
    return flat @ flat  # a third of the time, and no squares in between


def _is_short(array: Array) -> bool:
    return bool(array.dtype.kind == "f" and array.shape[-1] <= _SHORT)


@functools.lru_cache(maxsize=16)
def _ones(rows: int, dtype: DType) -> Array:
    ones = np.ones((1, rows), dtype)
    ones.flags.writeable = False
    return ones


_FUNCTIONS: tuple[Function, ...] = (
    *(
        _blank,
        _matmul,
        _product_over_batch,
        _transposed,
        _outer,
        _with_diagonal,
        _gather,
        _stack,
        _sum_at,
    ),
    *(_ones_where_positive, _sum_over_batch),
    *(_sum_of_rows, _mean_of_rows, _max_of_rows, _sum_of_squares),
)
REDUCTIONS = {
    f"backprop_xp.backends.sums_and_products.{function.__name__[1:]}": function
    for function in _FUNCTIONS
}
