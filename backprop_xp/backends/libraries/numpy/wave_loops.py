"""Loops of NumericEmbedding that Numba compiles: waves of each number, and their linear layer.

A wave is ``cos(pi u)`` with ``u = 2 f x + b / pi``. The difference of u and the nearest whole
number has no rounding error, and its series is a loop with vectors, which a call of a function
would not be. The rows are the last axis of the loops' own arrays.
"""

import math
from typing import Any, TypeAlias

import numpy as np

from backprop_xp.backends.libraries.numpy.compilers import jit, summing
from backprop_xp.backends.libraries.numpy.dense_loops import buffers
from backprop_xp.backends.protocol import Array, Function
from backprop_xp.backends.replacements import LayerFunctions

Numbers: TypeAlias = tuple[Any, ...]  # of the arrays' precision


def _series(first: int, terms: int, dtype: str) -> Numbers:
    """Return Taylor's coefficients of cos(pi r), from power 0 on, or of sin(pi r), from 1 on."""
    powers = range(first, first + 2 * terms, 2)
    signed = [(-1.0) ** (n // 2) * math.pi**n / math.factorial(n) for n in powers]
    return tuple(np.asarray(signed, dtype))


# For abs(r) <= 1/2 the terms that are left out are below a tenth of a rounding of 1.
_SERIES = {
    dtype: (_series(0, terms + 1, dtype), _series(1, terms, dtype))
    for dtype, terms in {"f": 7, "d": 11}.items()
}


@jit
def _polynomial(coefficients: Numbers, x: Any) -> Any:
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = total * x + coefficients[k]
    return total


@jit
def _write_waves(
    x: Array, f: Any, b: Any, series: tuple[Numbers, Numbers], waves: Array, slopes: Array
) -> None:
    """Write ``cos(pi (f x + b))`` and ``-sin(pi (f x + b))``."""
    cosine, sine = series
    one = x.dtype.type(1)
    two = one + one
    for i in range(x.size):
        u = f * x[i] + b
        whole = np.rint(u)
        odd = whole - two * np.rint(whole / two)  # -1, 0 or 1
        r, sign = u - whole, one - two * odd * odd
        waves[i] = sign * _polynomial(cosine, r * r)
        slopes[i] = -sign * r * _polynomial(sine, r * r)


@jit
def _embed(
    x: Array,
    parameters: tuple[Array, Array, Array, Array],
    series: tuple[Numbers, Numbers],
    waves: Array,
    slopes: Array,
    y: Array,
) -> None:
    f, b, w, c = parameters
    rows, n, width = x.shape[1], x.shape[2], w.shape[3]
    pi = w.dtype.type(math.pi)
    column, sums = np.empty(rows, w.dtype), np.empty((width, rows), w.dtype)
    for s in range(w.shape[0]):
        m = s if x.shape[0] > 1 else 0  # one x for all
        for j in range(n):
            for i in range(rows):
                column[i] = y[s, i, j] = x[m, i, j]
                for o in range(width):
                    sums[o, i] = c[s, j, 0, o]
            for k in range(w.shape[2]):
                frequency, phase = f[s, j, 0, k] + f[s, j, 0, k], b[s, j, 0, k] / pi
                wave = waves[s, j, k]
                _write_waves(column, frequency, phase, series, wave, slopes[s, j, k])
                for o in range(width):
                    weight = w[s, j, k, o]
                    for i in range(rows):
                        sums[o, i] += weight * wave[i]
            for i in range(rows):
                for o in range(width):
                    y[s, i, n + j * width + o] = sums[o, i]


@summing
def _dot(a: Array, b: Array) -> Any:
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@jit
def _embed_back(
    g: Array,
    x: Array,
    parameters: tuple[Array, Array],
    waves: Array,
    slopes: Array,
    out: tuple[Array, Array, Array, Array],
    dx: Array,
) -> None:
    (f, w), (df, db, dw, dc) = parameters, out
    rows, n, width = x.shape[1], x.shape[2], w.shape[3]
    turn, zero = w.dtype.type(2.0 * math.pi), w.dtype.type(0)
    column, h, own = np.empty(rows, w.dtype), np.empty(rows, w.dtype), np.empty(rows, w.dtype)
    rest, ones = np.empty((width, rows), w.dtype), np.ones(rows, w.dtype)
    for s in range(w.shape[0]):
        m = s if x.shape[0] > 1 else 0  # one x for all
        for j in range(n):
            for i in range(rows):
                column[i], own[i] = x[m, i, j], g[s, i, j]
                for o in range(width):
                    rest[o, i] = g[s, i, n + j * width + o]
            for o in range(width):
                dc[s, j, 0, o] = _dot(rest[o], ones)
            for k in range(w.shape[2]):
                wave, slope, frequency = waves[s, j, k], slopes[s, j, k], turn * f[s, j, 0, k]
                for i in range(rows):
                    h[i] = zero
                for o in range(width):
                    weight, part = w[s, j, k, o], rest[o]
                    for i in range(rows):
                        h[i] += weight * part[i]
                    dw[s, j, k, o] = _dot(wave, part)
                for i in range(rows):
                    h[i] *= slope[i]
                    own[i] += frequency * h[i]
                df[s, j, 0, k], db[s, j, 0, k] = turn * _dot(h, column), _dot(h, ones)
            for i in range(rows if dx.size else 0):
                dx[s, i, j] = own[i]


def _numeric_embedding(layer: Any) -> LayerFunctions | None:
    """Return the functions of a NumericEmbedding; None for another kind than "pbld"."""
    if layer.kind != "pbld":
        return None

    def forward(parameters: Any, x: Array, rng: object) -> Any:
        if not _fit(parameters[0], x):
            return layer.forward(parameters, x, rng)
        frequencies, phases, weights, bias = _ready(parameters)
        rows, (stack, n, k, width) = x.shape[-2], weights.shape
        waves = np.empty((stack, n, k, rows), x.dtype)
        slopes, y = np.empty_like(waves), np.empty((stack, rows, n * (1 + width)), x.dtype)
        own, series = (frequencies, phases, weights, bias), _SERIES[x.dtype.char]
        _embed(_stacked(x, 3), own, series, waves, slopes, y)
        return y.reshape(*parameters[0].shape[:-3], *y.shape[1:]), (x, (waves, slopes))

    def backward(
        parameters: Any, cache: Any, g: Array, *, wants_input: bool = True, out: Any = (None,)
    ) -> Any:
        if len(cache) != 2:  # that of the layer has three parts
            more = {} if out[0] is None else {"out": out}
            return layer.backward(parameters, cache, g, wants_input=wants_input, **more)
        x, (waves, slopes) = cache
        out = buffers(parameters) if out[0] is None else out
        frequencies, _, weights, _ = _ready(parameters)
        dx = np.empty((len(weights), *x.shape[-2:-1], x.shape[-1] if wants_input else 0), g.dtype)
        own: Any = tuple(_stacked(one, 4) for one in out)
        given = _stacked(g, 3), _stacked(x, 3), (frequencies, weights), waves, slopes
        _embed_back(*given, own, dx)
        back = dx.reshape(*parameters[0].shape[:-3], *dx.shape[1:]) if wants_input else None
        return back, out

    return LayerFunctions(forward, backward)


def _fit(frequencies: Array, x: Array) -> bool:
    """Whether the loops take a layer's frequencies, with one stack axis or none, and an input."""
    is_plain = type(x) is np.ndarray and x.dtype == frequencies.dtype
    return is_plain and x.dtype.char in _SERIES and frequencies.ndim <= 4


def _ready(parameters: tuple[Array, ...]) -> list[Array]:
    """Return contiguous copies with a stack's axis: a loop is compiled for each kind of strides."""
    return [_stacked(np.ascontiguousarray(one), 4) for one in parameters]


def _stacked(array: Array, n_axes: int) -> Array:
    return array if array.ndim == n_axes else array[None]


WAVES: dict[str, Function] = {
    "backprop_xp.networks.layers.embeddings.NumericEmbedding": _numeric_embedding
}
