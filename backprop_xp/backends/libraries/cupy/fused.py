"""The small functions of the maths as one CUDA kernel each; the references launch many.

What acts on each number alone is fused from the reference itself, a user's own included, by
``cupy.fuse``: it is called once for each kind of arguments, with variables that record what is done
to them. What works row by row (the softmax with its loss, LayerNorm) has a kernel of its own.
Each replacement leaves to its reference what it does not know: complex arrays, as of a complex
step, or arrays of two precisions.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends.closures import read_by
from backprop_xp.backends.libraries.cupy.row_kernels import (
    CATEGORICAL,
    NORMALIZED,
    NORMALIZED_BACK,
    contiguous,
    launch_rows,
)
from backprop_xp.backends.protocol import Array


class _Fused:
    """A function of arrays, number by number, in one kernel, or as it is if it cannot be fused."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import cupy

        self.function = function
        self.fused = cupy.fuse(kernel_name="backprop_xp_fused")(function)
        # By the arguments' dtypes and axes, for each of which it is recorded anew.
        self.is_fusible: dict[tuple[Any, ...], bool] = {}

    def __call__(self, *arrays: Any) -> Any:
        kinds = tuple((a.dtype.char, a.ndim) for a in arrays if hasattr(a, "ndim"))
        if self.is_fusible.get(kinds, True):
            try:
                result = self.fused(*arrays)
            except Exception:
                # What reads shapes or sums cannot be fused. What is wrong otherwise shows when it
                # is called as it is.
                if kinds in self.is_fusible:
                    raise
                self.is_fusible[kinds] = False
            else:
                self.is_fusible[kinds] = True
                return result
        return self.function(*arrays)


class _Itself(NamedTuple):
    """A user's function as a key: equal ones may differ, and some cannot be hashed."""

    function: Callable[..., Any]

    def __hash__(self) -> int:
        return id(self.function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.function is other.function


def _fused(
    make: Callable[[Callable[..., Any]], Callable[..., Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    read = _read_by(function)
    # What cannot be hashed may change unseen: the kernel would keep its values.
    return make(function) if read is None else _kept(make, _Itself(function), read)


def _read_by(function: Callable[..., Any]) -> tuple[Any, ...] | None:
    """Return what a user's function reads outside itself, None where that cannot be hashed."""
    if str(getattr(function, "__module__", "")).startswith("backprop_xp."):
        return ()
    read = tuple(read_by(function))
    try:
        hash(read)
    except TypeError:
        return None
    return read


@functools.lru_cache(maxsize=256)
def _kept(make: Callable[..., Callable[..., Any]], key: _Itself, read: tuple[Any, ...]) -> _Fused:
    return _Fused(make(key.function))


@functools.lru_cache(maxsize=256)
def _passes_on(key: _Itself, read: tuple[Any, ...] | None) -> bool:
    """Say whether a rule returns its first argument, as identity's; arithmetic would raise."""
    try:
        g = object()
        return key.function(g, object(), object()) is g
    except Exception:
        return False


def _are_plain(first: Array, *others: Any) -> bool:
    """Say whether arrays are real, floating, and of one dtype; None and numbers do not count."""
    return first.dtype in (np.float32, np.float64) and all(
        other.dtype == first.dtype for other in others if hasattr(other, "dtype")
    )


def _activated(z: Array, activation: Any, bias: Array | None = None) -> Any:
    if not _are_plain(z, bias):
        return NotImplemented
    if bias is None:
        kept = None if activation.from_output else z
        return kept, _fused(_alone, activation.value)(z)
    if activation.from_output:
        return None, _fused(_of_sum, activation.value)(z, bias)
    return _fused(_sum_and_of_sum, activation.value)(z, bias)


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _of_sum(value: Callable[[Array], Array]) -> Callable[..., Any]:
    return lambda z, bias: value(z + bias)


def _sum_and_of_sum(value: Callable[[Array], Array]) -> Callable[..., Any]:
    def both(z: Array, bias: Array) -> tuple[Array, Array]:
        z = z + bias
        return z, value(z)

    return both


def _sent_back(g: Array, activation: Any, z: Array | None, a: Array) -> Any:
    if _passes_on(_Itself(activation.vjp), _read_by(activation.vjp)):
        return g
    if not _are_plain(g, z, a):
        return NotImplemented
    if z is None:
        return _fused(_of_output, activation.vjp)(g, a)
    return _fused(_alone, activation.vjp)(g, z, a)


def _of_output(vjp: Callable[..., Array]) -> Callable[..., Array]:
    return lambda g, a: vjp(g, None, a)


def _mean_over_outputs(o: Array, t: Array, share: Any, each: Callable[..., Any]) -> Any:
    if not _are_plain(o, t, share):
        return NotImplemented
    n_out = o.shape[-1]
    value, g = _fused(_shared, each)(o, t, share / n_out, 1.0 / n_out)
    return value[..., 0] if n_out == 1 else value.sum(axis=-1), g


def _shared(each: Callable[..., Any]) -> Callable[..., Any]:
    def both(o: Array, t: Array, share: Any, part: Any) -> tuple[Array, Array]:
        value, slope = each(o, t)
        return value * part, slope * share

    return both


def _categorical(o: Array, t: Array, share: Any) -> Any:
    if not (_are_plain(o, t, share) and o.size and _repeats(t, o)):
        return NotImplemented
    import cupy

    is_number = isinstance(share, float)
    rows, n = o.size // o.shape[-1], o.shape[-1]
    value, g = cupy.empty(o.shape[:-1], o.dtype), cupy.empty(o.shape, o.dtype)
    given = contiguous(o), contiguous(t), value, g
    launch_rows(CATEGORICAL, rows, n, o.dtype, t.size // n, share if is_number else 1.0, *given)
    if not is_number:
        g *= share
    return value, g


def _repeats(part: Array, whole: Array) -> bool:
    """Say whether the rows of ``whole`` are those of ``part``, repeated along leading axes."""
    shape = part.shape[next((i for i, n in enumerate(part.shape) if n != 1), part.ndim) :]
    return bool(
        whole.shape[whole.ndim - len(shape) :] == shape and part.shape[-1] == whole.shape[-1]
    )


# The bits of ``random.bits``: uint32 wraps around as int32 does, and its shifts drag no sign in.
DROPOUT_HASH = """
__device__ unsigned int mixed(unsigned int h) {
    h -= 0x61C88647u;
    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return h ^ (h >> 16);
}
"""
DROPOUT = (
    "backprop_xp_dropout",
    "T x, int32 key, int64 rows, int64 columns, int32 bound, T kept",
    "T y, T mask",
    """
    const unsigned int row = i / columns % rows, column = i % columns;
    const unsigned int h = mixed(mixed(row + mixed(key)) ^ mixed(mixed(column)));
    mask = (int)(h & 0x7FFFFFFFu) >= bound ? kept : (T)0;
    y = x * mask;
    """,
)


@functools.cache
def _dropout() -> Any:
    import cupy

    name, inputs, outputs, body = DROPOUT
    return cupy.ElementwiseKernel(inputs, outputs, body, name, preamble=DROPOUT_HASH)


def _dropped(x: Array, rng: Any, rate: float) -> Any:
    if not _are_plain(x):
        return NotImplemented
    rows, columns = x.shape[-2:]
    key = rng if hasattr(rng, "shape") else np.int32(rng & 0x7FFFFFFF)
    y, mask = _dropout()(x, key, rows, columns, int(rate * 2**31), 1.0 / (1.0 - rate))
    return y, mask


def _normalized(x: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    if not (_are_plain(x, scale, bias) and x.size and x.shape[:-2] == scale.shape[:-2]):
        return NotImplemented
    import cupy

    batch, n = x.shape[-2:]
    y, normed = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    inverse = cupy.empty((*x.shape[:-1], 1), x.dtype)
    given = contiguous(x), contiguous(scale), contiguous(bias), y, normed, inverse
    launch_rows(NORMALIZED, x.size // n, n, x.dtype, batch, epsilon, *given)
    return y, (normed, inverse)


def _normalized_back(g: Array, scale: Array, normed: Array, inverse: Array) -> Any:
    alike = g.shape == normed.shape and g.shape[:-2] == scale.shape[:-2]
    if not (_are_plain(g, scale, normed, inverse) and g.size and alike):
        return NotImplemented
    import cupy

    batch, n = g.shape[-2:]
    back = cupy.empty(g.shape, g.dtype)
    given = *map(contiguous, (g, scale, normed, inverse)), back
    launch_rows(NORMALIZED_BACK, g.size // n, n, g.dtype, batch, *given)
    return back


def _blank(array: Array) -> Array:
    import cupy

    return cupy.empty(array.shape, array.dtype)


def _product_into(out: Array, a: Array, b: Array) -> Array:
    import cupy

    return cupy.matmul(a, b, out=out)


def _sum_over_batch(array: Array, out: Array | None = None, factor: Array | None = None) -> Array:
    if factor is None or factor.dtype != array.dtype:
        array = array if factor is None else array * factor
        return array.sum(axis=-2, keepdims=True, out=out)
    return _sum_of_products()(array, factor, axis=array.ndim - 2, keepdims=True, out=out)


@functools.cache
def _sum_of_products() -> Any:
    import cupy

    name = "backprop_xp_sum_of_products"
    return cupy.ReductionKernel("T x, T y", "T z", "x * y", "a + b", "z = a", "0", name)


FUSED: dict[str, Callable[..., Any]] = {
    "backprop_xp.networks.activations.activated": _activated,
    "backprop_xp.networks.activations.sent_back": _sent_back,
    "backprop_xp.networks.losses.mean_over_outputs": _mean_over_outputs,
    "backprop_xp.networks.losses.categorical": _categorical,
    "backprop_xp.networks.layers.dropped": _dropped,
    "backprop_xp.networks.layers.normalized": _normalized,
    "backprop_xp.networks.layers.normalized_back": _normalized_back,
    "backprop_xp.backends.sums_and_products.blank": _blank,
    "backprop_xp.backends.sums_and_products.product_into": _product_into,
    "backprop_xp.backends.sums_and_products.sum_over_batch": _sum_over_batch,
}
