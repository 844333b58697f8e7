"""Functions of the standard for which NumPy or a backend has a faster way to the same result.

Where arrays can be written, ``blank`` returns one, and results are written into it; elsewhere they
are concatenated. NumPy sums short rows faster as matrix products.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends.protocol import Array, Backend, DType
from backprop_xp.backends.registry import array_namespace, owner


def replaced(function: Callable[..., Any], array: Array) -> Callable[..., Any]:
    """Return the backend's replacement of a reference function, or the function itself."""
    home = owner(array)
    return function if home is None else _replaced(function, type(home))


@functools.lru_cache(maxsize=64)
def _replaced(function: Callable[..., Any], kind: type[Backend]) -> Callable[..., Any]:
    return kind.replacements.get(f"{function.__module__}.{function.__qualname__}", function)


def replaceable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let backends replace a function whose first argument is an array by a faster one.

    A replacement that returns NotImplemented leaves its arguments to the function. For NumPy's
    arrays the function is called directly: the look-up would take as long as a small product.
    """

    @functools.wraps(function)
    def call(array: Array, *arguments: Any) -> Any:
        if isinstance(array, np.ndarray):
            return function(array, *arguments)
        result = replaced(function, array)(array, *arguments)
        return function(array, *arguments) if result is NotImplemented else result

    return call


@replaceable
def blank(array: Array) -> Array | None:
    """Return a new array of that shape and dtype to write into; None if the library has no such."""
    # Not empty_like, which keeps the order of axes in memory: parts of it are to be views.
    return np.empty(array.shape, array.dtype) if isinstance(array, np.ndarray) else None


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a @ b``, written into ``out`` if that is given."""
    if out is None:
        return a @ b
    if isinstance(out, np.ndarray):
        return np.matmul(a, b, out=out)
    return product_into(out, a, b)


@replaceable
def product_into(out: Array, a: Array, b: Array) -> Array:
    """Return ``out``, in which ``a @ b`` is written."""
    out[...] = a @ b
    return out


def gather(array: Array, places: Array, axis: int) -> Array:
    """Return the entries at those places along an axis."""
    if isinstance(array, np.ndarray):
        return array.take(places, axis)  # NumPy's own function is three times the call
    return array_namespace(array).take(array, places, axis=axis)


def ones_where_positive(array: Array) -> Array:
    """Return 1 where a real array is positive, else 0, in its dtype."""
    if isinstance(array, np.ndarray):
        return np.greater(array, 0.0, out=np.empty_like(array))  # no booleans in between
    return array_namespace(array).astype(array > 0.0, array.dtype)


@replaceable
def sum_over_batch(array: Array, out: Array | None = None, factor: Array | None = None) -> Array:
    """Return the sum over axis -2, which stays, with length 1; written into ``out`` if given.

    With a factor, the array is multiplied by it first.
    """
    if factor is not None:
        array = array * factor
    if isinstance(array, np.ndarray):  # half the time of NumPy's own sum
        return matmul(_numpy_ones(array.shape[-2], array.dtype), array, out)
    total = array_namespace(array).sum(array, axis=-2, keepdims=True)
    if out is None:
        return total
    out[...] = total
    return out


# Numbers of which a product sums as exactly as NumPy's pairwise sum does, nearly.
_SHORT = 512


def _is_short(array: Array) -> bool:
    """Say whether rows are NumPy's, real, and short."""
    return isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.shape[-1] <= _SHORT


def sum_of_rows(array: Array, *, keepdims: bool = False) -> Array:
    """Return the sum over the last axis."""
    if not _is_short(array):
        return array_namespace(array).sum(array, axis=-1, keepdims=keepdims)
    ones = _numpy_ones(array.shape[-1], array.dtype)
    return array @ (ones.mT if keepdims else ones[0])


def sum_of_squares(array: Array, axes: int) -> Array:
    """Return the sum of the squares over the last so many axes."""
    if isinstance(array, np.ndarray) and array.ndim == axes and array.dtype.kind == "f":
        flat = array.reshape(-1)
        return flat @ flat  # a third of the time, and nothing in between
    xp = array_namespace(array)
    return xp.sum(array * array, axis=tuple(range(-axes, 0)))


def mean_of_rows(array: Array) -> Array:
    """Return the mean over the last axis."""
    if isinstance(array, np.ndarray):
        return sum_of_rows(array) / array.shape[-1]
    return array_namespace(array).mean(array, axis=-1)


def max_of_rows(array: Array) -> Array:
    """Return the largest entry over the last axis, which stays, with length 1."""
    if not _is_short(array) or array.ndim < 2:
        return array_namespace(array).max(array, axis=-1, keepdims=True)
    # Row by row NumPy takes four times as long as column by column.
    return np.maximum.reduce(np.ascontiguousarray(array.mT), axis=-2)[..., None]


@functools.lru_cache(maxsize=16)
def _numpy_ones(rows: int, dtype: DType) -> Array:
    ones = np.ones((1, rows), dtype)
    ones.flags.writeable = False
    return ones
