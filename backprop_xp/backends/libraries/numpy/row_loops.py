"""Loops over the rows of a batch that Numba compiles: losses, dropout, LayerNorm.

``one`` is 1 in the arrays' precision: a literal would widen float32.
"""

import functools
import math
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import numpy as np

from backprop_xp.backends.libraries.numpy.compilers import jit, summing
from backprop_xp.backends.protocol import Array, DType, Function
from backprop_xp.backends.replacements import qualified_name

_RULES = "backprop_xp.networks.losses.rules"
# The codes of the losses of each output alone, by the names of their rules.
_CODES = {f"{_RULES}.squared": 0, f"{_RULES}.half_squared": 1, f"{_RULES}.binary_cross_entropy": 2}


@jit
def _loss(code: int, o: Any, t: Any, one: Any) -> Any:
    """Return the loss of an output, and its derivative."""
    r = o - t
    if code == 0:
        return r * r, r + r
    if code == 1:
        return r * r * (one / (one + one)), r
    e = math.exp(-abs(o))
    if o >= 0.0:
        return (one - t) * o + math.log1p(e), ((one - t) - t * e) / (one + e)
    return math.log1p(e) - t * o, ((one - t) * e - t) / (one + e)


@jit
def _mean_over_outputs(code: int, o: Array, t: Array, share: Array, value: Array, g: Array) -> None:
    one, width, k, m = o.dtype.type(1), o.dtype.type(o.shape[1]), 0, 0
    for i in range(o.shape[0]):
        total, part = one - one, share[m] / width
        for j in range(o.shape[1]):
            each, slope = _loss(code, o[i, j], t[k, j], one)
            total += each
            g[i, j] = slope * part
        value[i] = total / width
        k, m = _after(k, t.shape[0]), _after(m, share.size)


@jit
def _after(i: int, count: int) -> int:
    """Return the next of so many indices, and the first one after the last."""
    return i + 1 if i + 1 < count else 0


@jit
def _shifted(o: Array, top: Array, s: Array) -> None:
    """Write the outputs less the largest of their row, which goes into ``top``."""
    for i in range(o.shape[0]):
        largest = o[i, 0]
        for j in range(o.shape[1]):
            if not o[i, j] <= largest:  # NaN, too
                largest = o[i, j]
        top[i] = largest
        for j in range(o.shape[1]):
            s[i, j] = o[i, j] - largest


@jit
def _categorical(o: Array, t: Array, share: Array, value: Array, g: Array) -> None:
    """Finish categorical cross-entropy: g has the exponentials, value each row's largest output."""
    one, tiny, k, m = o.dtype.type(1), o.dtype.type(1e-37), 0, 0
    for i in range(o.shape[0]):
        total, r, weighted = one - one, one - one, one - one
        for j in range(o.shape[1]):
            total += t[k, j]
        for j in range(o.shape[1]):
            g[i, j] -= t[k, j] / (total + tiny)
            r += g[i, j]
            weighted += t[k, j] * (o[i, j] - value[i])
        factor = total * share[m] / (one + r)
        for j in range(o.shape[1]):
            g[i, j] = (g[i, j] - t[k, j] / (total + tiny) * r) * factor
        value[i] = total * math.log1p(r) - weighted
        k, m = _after(k, t.shape[0]), _after(m, share.size)


def _mean_rule(o: Array, t: Array, share: Any, each: Any, blocks: int = 1) -> Any:
    code = _code_of(each) if type(each) is FunctionType else None
    arrays = _by_rows(o, t, share)
    if code is None or blocks > 1 or arrays is None:
        return NotImplemented
    _mean_over_outputs(code, *arrays)
    *_, value, g = arrays
    return (value, g) if o.ndim == 2 else (value.reshape(o.shape[:-1]), g.reshape(o.shape))


def _categorical_rule(o: Array, t: Array, share: Any) -> Any:
    arrays = _by_rows(o, t, share)
    if arrays is None:
        return NotImplemented
    outputs, targets, shares, value, g = arrays
    _shifted(outputs, value, g)
    np.exp(g, out=g)
    _categorical(outputs, targets, shares, value, g)
    return value.reshape(o.shape[:-1]), g.reshape(o.shape)


@functools.lru_cache(maxsize=256)
def _code_of(each: Function) -> int | None:
    return _CODES.get(qualified_name(each))


def _by_rows(o: Array, t: Array, share: Any) -> tuple[Array, ...] | None:
    """Return the loops' arrays, with one axis of rows, those of the value and of the gradient last.

    None for arrays that the loops do not take, such as targets with shares of the columns.
    """
    dtype, n = o.dtype, o.shape[-1]
    if t.shape[-1] != n or t.dtype != dtype or dtype.char not in "fd":
        return None
    shares = _share(share, dtype) if type(share) is float else share
    if o.ndim > 2:
        t = np.broadcast_to(t, o.shape) if t.ndim > 2 else t
        if shares.ndim > 2:
            shares = np.broadcast_to(shares, (*o.shape[:-1], 1))
        o, t = o.reshape(-1, n), t.reshape(-1, n)
    return o, t, shares.reshape(-1), np.empty(o.shape[0], dtype), np.empty(o.shape, dtype)


@functools.lru_cache(maxsize=16)
def _share(share: float, dtype: DType) -> Array:
    return np.array([share], dtype)


@jit
def _dropped(
    x: Array, keys: Array, rows: int, bound: int, factor: float, y: Array, mask: Array
) -> None:
    kept, columns = x.dtype.type(factor), np.empty(x.shape[1], np.uint32)
    for j in range(x.shape[1]):
        columns[j] = _mixed(_mixed(np.uint32(j)))
    for i in range(x.shape[0]):
        row = _mixed(np.uint32(i % rows) + _mixed(keys[(i // rows) % keys.size]))
        for j in range(x.shape[1]):
            h = _mixed(row ^ columns[j]) & np.uint32(0x7FFFFFFF)
            mask[i, j] = kept if h >= bound else kept - kept
            y[i, j] = x[i, j] * mask[i, j]


@jit
def _mixed(h: Any) -> Any:
    """Return the hash of ``networks.numbers.random_bits``."""
    h = np.uint32(h - np.uint32(0x61C88647))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


def _dropout(x: Array, key: Any, rate: float) -> Any:
    if hasattr(key, "positions") or x.dtype.char not in "fd":  # a RowKey
        return NotImplemented
    rows, n = x.shape[-2:]
    if getattr(key, "shape", ()):  # x may be one for all networks
        x = np.broadcast_to(x, np.broadcast_shapes(x.shape, (*key.shape[:-2], 1, 1)))
    keys = np.asarray(key, np.int64).reshape(-1).astype(np.uint32)
    y, mask = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    scale = rows, int(rate * 2**31), 1.0 / (1.0 - rate)
    _dropped(x.reshape(-1, n), keys, *scale, y.reshape(-1, n), mask.reshape(-1, n))
    return y, mask


@summing
def _normalized(
    epsilon: float, x: Array, scale: Array, bias: Array, y: Array, normed: Array, inverse: Array
) -> None:
    one, width = x.dtype.type(1), x.dtype.type(x.shape[2])
    added = x.dtype.type(epsilon)
    for s in range(x.shape[0]):
        for i in range(x.shape[1]):
            mean, square = one - one, one - one
            for j in range(x.shape[2]):
                mean += x[s, i, j]
            mean /= width
            for j in range(x.shape[2]):
                square += (x[s, i, j] - mean) * (x[s, i, j] - mean)
            over = one / np.sqrt(square / width + added)
            inverse[s, i, 0] = over
            for j in range(x.shape[2]):
                normed[s, i, j] = (x[s, i, j] - mean) * over
                y[s, i, j] = normed[s, i, j] * scale[s, 0, j] + bias[s, 0, j]


def _layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    if x.dtype != scale.dtype or x.dtype.char not in "fd":
        return NotImplemented
    x = np.broadcast_to(x, (*scale.shape[:-2], *x.shape[-2:]))  # one x for a stack
    y, normed = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    inverse = np.empty((*x.shape[:-1], 1), x.dtype)
    arrays: Any = _in_c_order(x, scale, bias, y, normed, inverse)
    _normalized(epsilon, *arrays)
    return y, (normed, inverse)


def _in_c_order(*arrays: Array) -> Iterator[Array]:
    """Yield arrays of three axes in C order: in another, a sum could take another order, too."""
    for array in arrays:
        yield np.ascontiguousarray(array).reshape(-1, *array.shape[-2:])


@summing
def _normalized_back(g: Array, scale: Array, normed: Array, inverse: Array, dx: Array) -> None:
    zero, width = g.dtype.type(0), g.dtype.type(g.shape[2])
    for s in range(g.shape[0]):
        for i in range(g.shape[1]):
            along, mean = zero, zero
            for j in range(g.shape[2]):
                h = g[s, i, j] * scale[s, 0, j]
                along += h * normed[s, i, j]
                mean += h
            along, mean = along / width, mean / width
            for j in range(g.shape[2]):
                h = g[s, i, j] * scale[s, 0, j]
                dx[s, i, j] = inverse[s, i, 0] * (h - mean - normed[s, i, j] * along)


def _layer_norm_back(g: Array, scale: Array, normed: Array, inverse: Array) -> Any:
    if not g.dtype == scale.dtype == normed.dtype or g.dtype.char not in "fd":
        return NotImplemented
    dx = np.empty(g.shape, g.dtype)
    arrays: Any = _in_c_order(g, scale, normed, inverse, dx)
    _normalized_back(*arrays)
    return dx


_CORE = "backprop_xp.networks.layers.core"
ROWS: dict[str, Function] = {
    f"{_RULES}.mean_over_outputs": _mean_rule,
    f"{_RULES}.categorical": _categorical_rule,
    f"{_CORE}.dropped": _dropout,
    f"{_CORE}.normalized": _layer_norm,
    f"{_CORE}.normalized_back": _layer_norm_back,
}
