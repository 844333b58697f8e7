"""Loops of Dense layers that Numba compiles: bias and activation, and the rule with its sum.

A small product is computed in the loop too: a call of BLAS takes longer.

The formulas are those of single numbers. ``one`` is 1 in the arrays' precision: a literal would
widen float32. ``kept`` is what a rule needs beside the output: silu's gate, else the output itself.
"""

import functools
import math
from types import FunctionType
from typing import Any

import numpy as np

from backprop_xp.backends.libraries.numpy.compilers import jit
from backprop_xp.backends.libraries.numpy.sigmoids import sigmoid
from backprop_xp.backends.protocol import Array, Function
from backprop_xp.backends.replacements import LayerFunctions, qualified_name

# A network's product of at most so many multiplications is computed in the loop.
_SMALL = 2048
# Of so many numbers or fewer, the loop computes the transcendental functions too.
_FEW = 256
# So many rows are added before their sum is added to the others: float32 keeps its digits.
_ROWS = 128

_LAYERS = "backprop_xp.networks.layers"
# The codes of the activations, by the names of their values.
_NAMES = "identity", "relu", "tanh", "sigmoid", "silu"
_CODES = {f"{_LAYERS}.activations._{name}": code for code, name in enumerate(_NAMES)}
# NumPy's functions are many times as fast on long arrays: a code's formula, before and after it.
_BY_NUMPY = {2: (0, np.tanh, None), 3: (5, np.exp, 6), 4: (0, None, None)}
_SILU = 4


@jit
def _simple(code: int, z: Any, one: Any) -> Any:
    """Return a formula without a function: a loop with a call of one would have no vectors."""
    if code == 0:
        return z
    if code == 1:
        return one - one if z <= 0.0 else z
    return -z if code == 5 else one / (one + z)


@jit
def _value(code: int, z: Any, one: Any) -> Any:
    if code == 2:
        return math.tanh(z)
    if code == 3:
        return one / (one + math.exp(-z))
    return _simple(code, z, one)


@jit
def _vjp(code: int, g: Any, kept: Any, a: Any, one: Any) -> Any:
    if code == 0:
        return g
    if code == 1:
        return g * (one if a > 0.0 else one - one)
    if code == 2:
        return g * (one - a * a)
    if code == 3:
        return g * ((one - a) * a)
    return g * (kept + a * (one - kept))


@jit
def _stacked(array: Array) -> Array:
    """Return an array with the axis of a stack."""
    return np.expand_dims(array, 0) if array.ndim == 2 else array


@jit
def _whole(code: int, x: Array, w: Array, b: Array, a: Array) -> None:
    x, w, b, a = _stacked(x), _stacked(w), _stacked(b), _stacked(a)
    one = w.dtype.type(1)
    for s in range(a.shape[0]):
        m = s if x.shape[0] > 1 else 0  # one x for all
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                z = b[s, 0, j]
                for k in range(w.shape[1]):
                    z += x[m, i, k] * w[s, k, j]
                a[s, i, j] = _value(code, z, one)


@jit
def _whole_back(
    code: int, g: Array, kept: Array, a: Array, x: Array, w: Array, out: tuple[Array, Array, Array]
) -> None:
    g, kept, a = _stacked(g), _stacked(kept), _stacked(a)
    x, w = _stacked(x), _stacked(w)
    dw, db, dx = _stacked(out[0]), _stacked(out[1]), _stacked(out[2])
    one, h = w.dtype.type(1), np.empty(a.shape[1:], a.dtype)
    for s in range(a.shape[0]):
        m = s if x.shape[0] > 1 else 0  # one x for all
        for j in range(a.shape[2]):
            total = one - one
            for i in range(a.shape[1]):
                h[i, j] = _vjp(code, g[s, i, j], kept[s, i, j], a[s, i, j], one)
                total += h[i, j]
            db[s, 0, j] = total
            for k in range(w.shape[1]):
                total = one - one
                for i in range(a.shape[1]):
                    total += x[m, i, k] * h[i, j]
                dw[s, k, j] = total
        for i in range(dx.shape[1]):
            for k in range(dx.shape[2]):
                total = one - one
                for j in range(a.shape[2]):
                    total += h[i, j] * w[s, k, j]
                dx[s, i, k] = total


@jit
def _biased(code: int, z: Array, b: Array) -> None:
    one = z.dtype.type(1)
    for s in range(z.shape[0]):
        for i in range(z.shape[1]):
            for j in range(z.shape[2]):
                z[s, i, j] = _simple(code, z[s, i, j] + b[s, 0, j], one)


@jit
def _each(code: int, z: Array, out: Array) -> None:
    one = z.dtype.type(1)
    for i in range(z.size):
        out[i] = _simple(code, z[i], one)


@jit
def _each_back(code: int, g: Array, kept: Array, a: Array, h: Array) -> None:
    one = a.dtype.type(1)
    for i in range(a.size):
        h[i] = _vjp(code, g[i], kept[i], a[i], one)


@jit
def _sent_back(code: int, g: Array, kept: Array, a: Array, h: Array, db: Array) -> None:
    one = a.dtype.type(1)
    block = np.empty(a.shape[2], a.dtype)
    for s in range(a.shape[0]):
        db[s] = one - one
        for start in range(0, a.shape[1], _ROWS):
            block[:] = one - one
            for i in range(start, min(start + _ROWS, a.shape[1])):
                for j in range(a.shape[2]):
                    h[s, i, j] = _vjp(code, g[s, i, j], kept[s, i, j], a[s, i, j], one)
                for j in range(a.shape[2]):
                    block[j] += h[s, i, j]
            for j in range(a.shape[2]):
                db[s, 0, j] += block[j]


def _finished(code: int, z: Array) -> tuple[Array | None, Array]:
    """Apply, in place, what the loop left to do; return z, if it is kept, and the output."""
    if code == _SILU:
        a = sigmoid(z)
        a *= z
        return z, a
    _, function, after = _BY_NUMPY.get(code, (code, None, None))
    if function is not None:
        with np.errstate(over="ignore"):
            function(z, out=z)
    if after is not None:
        flat = z.ravel("K")
        _each(after, flat, flat)
    return None, z


class _Gated(tuple[Array, ...]):
    """The cache of a Dense layer, x, z and a, that keeps silu's gate for the rule, too."""

    gate: Array


def _gate(cache: Any) -> Array:
    """Return silu's gate; that of another function's cache is computed."""
    return cache.gate if type(cache) is _Gated else sigmoid(cache[1])


def _dense(layer: Any) -> LayerFunctions | None:
    """Return the functions of a Dense layer; None for an activation that has no loop."""
    code, n_in, n_out = _code_of(layer.activation), layer.n_in, layer.n_out
    if code is None:
        return None
    before, *_ = _BY_NUMPY.get(code, (code, None, None))
    # A transcendental function takes as long as some eight multiplications.
    most_rows = min(_ROWS, _SMALL // (n_out * (n_in + 8)))

    def forward(parameters: Any, x: Array, rng: object) -> Any:
        w, b = parameters
        if not _fit(w, x):
            return layer.forward(parameters, x, rng)
        rows = x.shape[-2]
        if rows <= most_rows:
            a = np.empty((*w.shape[:-2], rows, n_out), w.dtype)
            # A network's bits must not depend on the number of others in its stack.
            if before == code or (code != _SILU and w.ndim == 2 and a.size <= _FEW):
                _whole(code, x, w, b, a)
                return a, (x, None, a)
            _whole(before, x, w, b, a)
        else:
            a = x @ w
            # A stack's biases have gaps between them, with which the loop has no vectors.
            own = np.ascontiguousarray(b).reshape(-1, 1, n_out)
            _biased(before, a.reshape(-1, rows, n_out), own)
        if code == _SILU:
            gate = sigmoid(a)
            cache = _Gated((x, a, gate * a))
            cache.gate = gate
            return cache[-1], cache
        _, a = _finished(code, a)
        return a, (x, None, a)

    def backward(
        parameters: Any,
        cache: Any,
        g: Array,
        *,
        wants_input: bool = True,
        wants_parameters: bool = True,
        out: Any = (None, None),
    ) -> Any:
        w, (x, z, a) = parameters[0], cache
        if type(x) is not np.ndarray or not _fit(w, g):
            wanted = {"wants_input": wants_input, "wants_parameters": wants_parameters}
            return layer.backward(parameters, cache, g, out=out, **wanted)
        dw, db = out = buffers(parameters) if out[0] is None else out
        gradients = out if wants_parameters else ()
        rows, kept = x.shape[-2], a if z is None else _gate(cache)
        if rows <= most_rows:
            dx = np.empty((*w.shape[:-2], rows, n_in if wants_input else 0), w.dtype)
            _whole_back(code, g, kept, a, x, w, (dw, db, dx))
            return (dx if wants_input else None), gradients
        h, shape = np.empty(a.shape, a.dtype), (-1, rows, n_out)
        # The bias's gradient may be a part of a stack's: no view has this shape.
        sums = db if db.ndim == 3 else db[None]
        rule = g.reshape(shape), kept.reshape(shape), a.reshape(shape), h.reshape(shape), sums
        _sent_back(code, *rule)
        np.matmul(x.mT, h, out=dw)
        if not wants_input:
            return None, gradients
        # BLAS takes three times as long for one output.
        return (h * w.mT if n_out == 1 else h @ w.mT), gradients

    return LayerFunctions(forward, backward)


def _fit(weights: Array, x: Array) -> bool:
    """Whether the loops take a layer's weights, with one stack axis or none, and an input."""
    dtype = weights.dtype
    return type(x) is np.ndarray and x.dtype == dtype and dtype.char in "fd" and weights.ndim <= 3


def buffers(parameters: Any) -> tuple[Array, ...]:
    """Return new arrays for the gradients of parameters."""
    return tuple(np.empty(one.shape, one.dtype) for one in parameters)


def _code_of(activation: Any) -> int | None:
    """Return the code of an activation, also of a copy; None without."""
    value, vjp = activation.value, activation.vjp
    # The hash of another kind of object may take long.
    if type(value) is not FunctionType or type(vjp) is not FunctionType:
        return None
    return _code_of_functions(value, vjp, activation.from_output)


@functools.lru_cache(maxsize=256)
def _code_of_functions(value: Function, vjp: Function, from_output: bool) -> int | None:
    name = qualified_name(value)
    code = _CODES.get(name)
    is_known = qualified_name(vjp) == f"{name}_vjp" and from_output == (code != _SILU)
    return code if is_known else None


def _activated(z: Array, activation: Any, bias: Array | None = None) -> Any:
    code = _code_of(activation)
    # The identity computes nothing.
    if not code or bias is not None or z.dtype.char not in "fd":
        return NotImplemented
    if code == _SILU:
        return _finished(code, z)
    a = np.empty(z.shape, z.dtype)
    _each(_BY_NUMPY.get(code, (code,))[0], z.reshape(-1), a.reshape(-1))
    return _finished(code, a)


def _sent_back_alone(g: Array, activation: Any, z: Array | None, a: Array) -> Any:
    code, dtype = _code_of(activation), g.dtype
    if not code or dtype.char not in "fd" or type(a) is not np.ndarray or a.dtype != dtype:
        return NotImplemented
    h, kept = np.empty(a.shape, a.dtype), a if z is None else sigmoid(z)
    _each_back(code, g.reshape(-1), kept.reshape(-1), a.reshape(-1), h.reshape(-1))
    return h


DENSE: dict[str, Function] = {
    f"{_LAYERS}.core.Dense": _dense,
    f"{_LAYERS}.activations.activated": _activated,
    f"{_LAYERS}.activations.sent_back": _sent_back_alone,
}
