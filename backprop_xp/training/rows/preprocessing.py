"""Preparing data: one-hot labels, standardized features, splits, minibatches.

Rows are along the first axis. Orders are drawn on the host, so that one seed gives the same rows
on every backend.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    like,
    owner,
    plain_array,
    plain_numbers,
    require_dense,
    require_floating,
    require_owner,
    to_host,
)
from backprop_xp.checks import boolean, integer, real
from backprop_xp.training.interfaces.orders import order_of


class Standardized(NamedTuple):
    """Standardized features, with the mean and the scale, ``(1, n)``, that were used."""

    x: Array
    mean: Array
    scale: Array


def one_hot(labels: Any, n_classes: int | None = None) -> Array:
    """Return ``(..., n_classes)``, 1 at each label and 0 elsewhere, in the labels' dtype.

    ``labels`` are integers from 0, of any shape; ``n_classes`` defaults to the largest plus one.
    The check moves two numbers to the host. ``bx.losses.smoothed`` smooths labels.

    >>> import backprop_xp as bx
    >>> bx.data.one_hot([0, 2, 1])
    array([[1, 0, 0],
           [0, 0, 1],
           [0, 1, 0]])
    """
    labels = _numbers(labels, "labels")
    xp = array_namespace(labels)
    if xp.isdtype(labels.dtype, "bool"):
        labels = xp.astype(labels, xp.int32)
    if not xp.isdtype(labels.dtype, "integral"):
        raise TypeError(
            f"labels must be integers from 0, not {labels.dtype}. Number the classes first: "
            "classes, labels = numpy.unique(labels, return_inverse=True)."
        )
    if not math.prod(labels.shape):
        raise ValueError(f"labels are empty (shape {tuple(labels.shape)}).")
    low, high = to_host(xp.stack([xp.min(labels), xp.max(labels)])).tolist()
    count = high + 1 if n_classes is None else integer(n_classes, "n_classes")
    if low < 0 or high >= count:
        raise ValueError(f"labels must lie in 0 ... {count - 1}, but range from {low} to {high}.")
    # Compared as int32: a uint8 label may be one of more classes than uint8 can count.
    classes = xp.arange(count, dtype=xp.int32, device=device_of(labels))
    return xp.astype(xp.astype(labels, xp.int32)[..., None] == classes, labels.dtype)


def standardize(x: Any, *, mean: Array | None = None, scale: Array | None = None) -> Standardized:
    """Return x, ``(batch, n)``, with each feature brought to mean 0 and variance 1.

    Pass the ``mean`` and ``scale`` of the training set's result for validation and test rows. A
    constant feature is only centred: its scale is 1. The variance is the biased one.

    >>> import backprop_xp as bx
    >>> train = bx.data.standardize([[1.0, 5.0], [3.0, 5.0]])
    >>> train.x
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> bx.data.standardize([[2.0, 6.0]], mean=train.mean, scale=train.scale).x
    array([[0., 1.]])
    """
    x = _numbers(x, "x")
    xp = array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        x = xp.astype(x, require_owner(x, "x").default_dtype(device_of(x)))
    require_floating(x, "x")
    if len(x.shape) != 2 or not x.shape[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}, but (batch, n) with rows is expected.")
    if mean is not None:
        mean = like(x, mean, "mean", "x")
    else:
        mean = xp.mean(x, axis=-2, keepdims=True)
        # Clipped to the extremes: rounding must not move the mean of a constant column.
        mean = xp.maximum(mean, xp.min(x, axis=-2, keepdims=True))
        mean = xp.minimum(mean, xp.max(x, axis=-2, keepdims=True))
    centred = x - mean
    if scale is not None:
        scale = like(x, scale, "scale", "x")
    else:
        # The squares of numbers in their own unit neither overflow nor vanish.
        unit = xp.max(xp.abs(centred), axis=-2, keepdims=True)
        unit = xp.where(unit == 0.0, xp.ones_like(unit), unit)
        ratio = centred / unit
        scale = unit * xp.sqrt(xp.mean(ratio * ratio, axis=-2, keepdims=True))
        scale = xp.where(scale == 0.0, xp.ones_like(scale), scale)
    return Standardized(centred / scale, mean, scale)


def split(*arrays: Any, test_size: float = 0.2, seed: int = 0) -> list[Array]:
    """Return the training and test rows of each array, in one order: x, x_test, y, y_test, ...

    ``test_size`` is a share between 0 and 1 (rounded up) or a number of rows.
    """
    checked, rows = _arrays_and_rows(arrays)
    count = _test_rows(test_size, rows)
    order = order_of(rows, integer(seed, "seed", at_least=0), 0)
    parts = []
    for array in checked:
        parts += [_take(array, order[count:]), _take(array, order[:count])]
    return parts


def minibatches(
    *arrays: Any, batch_size: int, shuffle: bool = True, seed: int = 0, epoch: int = 0
) -> Iterator[tuple[Array, ...]]:
    """Yield one epoch of batches, each a tuple of the arrays' rows; the last may be smaller.

    The order depends only on the seed and the epoch.

    >>> import backprop_xp as bx
    >>> [len(x) for x, in bx.data.minibatches(list(range(10)), batch_size=4)]
    [4, 4, 2]
    """
    checked, rows = _arrays_and_rows(arrays)
    size = integer(batch_size, "batch_size")
    seed = integer(seed, "seed", at_least=0)
    order = order_of(rows, seed if boolean(shuffle, "shuffle") else None, epoch)
    return (
        tuple(_take(array, order[start : start + size]) for array in checked)
        for start in range(0, rows, size)
    )


def split_rows(
    rows: int, shares: Mapping[str, float], seed: int, *, classes: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the row indices of ``"training"`` and of each part with a share, in rising order.

    With class indices ``(rows,)`` each class has its share of each part, to a row, and at least one
    training row: a class of a single row is in no other part. A part does not depend on the shares
    of later parts. The host draws the rows: the same on every backend.
    """
    order = np.random.default_rng(np.random.SeedSequence([seed, rows])).permutation(rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
        _, first = np.unique(classes[order], return_index=True)
        order = np.delete(order, first)
    counts = {name: max(1, round(share * rows)) for name, share in shares.items()}
    held_out = sum(counts.values())
    if counts and (rows < 4 or held_out > len(order) or rows - held_out < 2):
        wanted = " and ".join(f"a {name} share of {share:g}" for name, share in shares.items())
        raise ValueError(
            f"{rows} rows cannot be split into training rows and {wanted}: give more rows, smaller "
            "shares, or data of their own."
        )
    parts: dict[str, np.ndarray] = {}
    is_training = np.ones(rows, dtype=bool)
    for name, count in counts.items():
        # Evenly spaced in the order by class: each class has its share.
        spaced = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
        parts[name] = np.sort(order[spaced])
        is_training[parts[name]] = False
        order = np.delete(order, spaced)
    return {"training": np.flatnonzero(is_training), **parts}


def other_rows(held_out: np.ndarray, rows: int, stack: tuple[int, ...]) -> np.ndarray:
    """Return the indices of the rows that are not held out, for all networks or for each its own.

    ``held_out`` ``(count,)`` or ``(*stack, count)`` is the option ``validation``. Raises TypeError
    or ValueError for indices that cannot be used.
    """
    if held_out.dtype.kind not in "iu":
        raise TypeError(f"validation has {held_out.dtype}, but row indices are integers.")
    *axes, count = held_out.shape or (0,)
    if tuple(axes) not in ((), stack) or not 0 < count < rows:
        raise ValueError(
            f"validation has indices of shape {held_out.shape}, but some of the {rows} rows are "
            f"expected, for all networks or shaped as the stack {stack} with an axis behind it."
        )
    outside = held_out[(held_out < 0) | (held_out >= rows)]
    if outside.size:
        raise ValueError(f"validation has the index {outside[0]}, but x has {rows} rows.")
    is_left = np.ones((*axes, rows), dtype=bool)
    np.put_along_axis(is_left, held_out.astype("int64"), False, axis=-1)
    if (is_left.sum(axis=-1) != rows - count).any():
        raise ValueError("validation has the index of a row twice.")
    return np.nonzero(is_left)[-1].reshape(*axes, -1)


def _numbers(value: Any, name: str) -> Array:
    """Return an array of numbers; another library's array stays as it is."""
    home = owner(value)
    if home is None or home.name == "numpy":
        return plain_numbers(value, name)
    require_dense(value, name)
    home.require_current(device_of(value), name)
    return value


def _arrays_and_rows(arrays: Sequence[Any]) -> tuple[list[Array], int]:
    """Return arrays of numbers, or NumPy's arrays of any dtype, and their number of rows."""
    checked = [
        (plain_array if isinstance(array, np.ndarray) else _numbers)(array, f"arrays[{i}]")
        for i, array in enumerate(arrays)
    ]
    counts = [array.shape[0] if array.shape else 0 for array in checked]
    if not counts:
        raise ValueError("Give at least one array.")
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(f"The arrays must have equally many rows, at least 1, not {counts}.")
    return checked, int(counts[0])


def _test_rows(test_size: Any, rows: int) -> int:
    if isinstance(test_size, Integral):
        count = integer(test_size, "test_size")
    else:
        count = math.ceil(real(test_size, "test_size", above=0.0, high=1.0) * rows)
    if count >= rows:
        raise ValueError(f"test_size={test_size!r} leaves no training rows of the {rows} given.")
    return count


def _take(array: Array, order: np.ndarray) -> Array:
    home = require_owner(array, "array")
    return array_namespace(array).take(
        array, home.from_host(order, device=device_of(array)), axis=0
    )


def __dir__() -> list[str]:
    return ["Standardized", "minibatches", "one_hot", "split", "standardize"]
