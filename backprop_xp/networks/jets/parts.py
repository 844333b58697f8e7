"""The derivatives that jets have: arrays (K, ...), and their sums of products.

The first derivatives are (D, ...), along D directions. A second-order operator is the sum of the
second derivatives along some pairs of directions; the second derivatives are (Q, ...), one for each
operator. The axes behind the first one broadcast with those of the value.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from backprop_xp.backends import Array, Namespace, array_namespace, replaceable

# A second-order operator, by its pairs of directions (i, j).
Pairs: TypeAlias = tuple[tuple[int, int], ...]
Operators: TypeAlias = tuple[Pairs, ...]
# ``operator.mul`` or ``operator.matmul``.
Times: TypeAlias = Callable[[Any, Any], Any]


@replaceable
def rows_in_cache(array: Array, numbers: int) -> int | None:
    """Return how many rows of so many numbers each stay in the cache; None if it does not count."""
    return None


def full(part: Array, value: Array, xp: Namespace) -> Array:
    """Return derivatives with all axes of their value."""
    whole = (part.shape[0], *value.shape)
    if tuple(part.shape) == whole:
        return part
    part = lifted(part, len(value.shape))
    if None in whole:  # a recorded graph has no number of rows
        return part + xp.zeros_like(value)
    return xp.broadcast_to(part, whole)


def lifted(part: Array, ndim: int) -> Array:
    """Return derivatives of a value that gets more axes in front, ``ndim`` in all."""
    missing = ndim + 1 - len(part.shape)
    return part[(slice(None), *(None,) * missing, ...)] if missing > 0 else part


def total(*terms: Array | None) -> Array | None:
    """Return the sum of derivatives; None stands for 0."""
    found = [term for term in terms if term is not None]
    return functools.reduce(operator.add, found) if found else None


def multiplied(times: Times, a: Array | None, b: Array | None) -> Array | None:
    """Return a product of derivatives; None stands for 0."""
    return None if a is None or b is None else times(a, b)


@replaceable
def summed(part: Array) -> Array:
    """Return the sum over the first axis, which stays."""
    return part if part.shape[0] == 1 else array_namespace(part).sum(part, axis=0, keepdims=True)


@functools.lru_cache(maxsize=1024)
def _run(pairs: Pairs) -> slice | None:
    """Return the directions of ``((i, i), (i + 1, i + 1), ...)`` as a slice; None for others."""
    start, stop = pairs[0][0], pairs[0][0] + len(pairs)
    is_run = pairs == tuple((i, i) for i in range(start, stop))
    return slice(start, stop) if is_run else None


def crossed(xp: Namespace, operators: Operators, a: Array, b: Array, times: Times) -> Array:
    """Return what first derivatives add to the second ones of a product: (Q, ...).

    It is the sum of ``a_i b_j + a_j b_i`` over each operator's pairs.
    """
    rows = []
    for pairs in operators:
        run = _run(pairs)
        if run is not None:
            rows.append(2.0 * summed(times(a[run, ...], b[run, ...])))
            continue
        terms = (times(_row(a, i), _row(b, j)) + times(_row(a, j), _row(b, i)) for i, j in pairs)
        rows.append(functools.reduce(operator.add, terms))
    return rows[0] if len(rows) == 1 else xp.concat(rows, axis=0)


def spread(
    xp: Namespace,
    operators: Operators,
    back: Array | None,
    g: Array,
    first: Array,
    times: Times,
) -> Array:
    """Return ``back`` (D, ...) plus the transpose of ``crossed``, which sends g (Q, ...) back."""
    if len(operators) == 1 and _run(operators[0]) == slice(0, first.shape[0]):
        return total(back, times(2.0 * g, first))
    rows = [None if back is None else _row(back, i) for i in range(first.shape[0])]
    for k, pairs in enumerate(operators):
        for i, j in pairs:
            rows[i] = total(rows[i], times(_row(g, k), _row(first, j)))
            rows[j] = total(rows[j], times(_row(g, k), _row(first, i)))
    some = next(row for row in rows if row is not None)
    return xp.concat([xp.zeros_like(some) if row is None else row for row in rows], axis=0)


def _row(part: Array, i: int) -> Array:
    return part[i : i + 1, ...]
