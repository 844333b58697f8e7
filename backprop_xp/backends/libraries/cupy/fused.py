"""The small functions of the maths, each as one CUDA kernel; the references launch many.

``cupy.fuse`` makes a kernel of a function that acts on each number alone, a user's own included. It
calls the function once for each kind of arguments, with variables that record the operations. The
functions of rows (the softmax with its loss, LayerNorm) have kernels of their own. Each replacement
leaves other arguments to its reference: complex arrays, and arrays of two precisions.
"""

import functools
import itertools
from collections.abc import Hashable
from typing import Any, TypeAlias

import numpy as np

from backprop_xp.backends.closures import Identity, outer_variables
from backprop_xp.backends.dtypes_and_devices import LazyModule
from backprop_xp.backends.libraries.cupy.row_kernels import (
    CATEGORICAL,
    NORMALIZED,
    NORMALIZED_BACK,
    contiguous,
    launch_rows,
)
from backprop_xp.backends.libraries.cupy.table_kernels import elementwise, rows_of_codes, sum_at
from backprop_xp.backends.protocol import Array, Function
from backprop_xp.backends.sums_and_products import columns_of

cupy = LazyModule("cupy")
Result: TypeAlias = Any  # that of a reference function, or NotImplemented
Share: TypeAlias = Array | float  # of each sample in the mean
Activation: TypeAlias = Any  # of networks.activations, which is in a higher layer


class _Fused:
    """A function of single numbers in one kernel; unchanged if CuPy cannot fuse it."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.fused = cupy.fuse(kernel_name="backprop_xp_fused")(function)
        # By the dtypes and axes of the arguments: CuPy records the function for each.
        self.is_fusible: dict[Hashable, bool] = {}

    def __call__(self, *arrays: Array) -> Result:
        kinds = tuple((a.dtype.char, a.ndim) for a in arrays if hasattr(a, "ndim"))
        if self.is_fusible.get(kinds, True):
            try:
                result = self.fused(*arrays)
            except Exception:
                # CuPy cannot fuse a function that reads shapes or sums. Any other error appears
                # again in the unchanged function.
                if kinds in self.is_fusible:
                    raise
                self.is_fusible[kinds] = False
            else:
                self.is_fusible[kinds] = True
                return result
        return self.function(*arrays)


def _fused(wrap: Function, function: Function) -> Function:
    """Return the kernel of ``wrap(function)``, a function that calls a user's one."""
    variables = _variables(function)
    # A variable without a hash may change, and the kernel would keep its old value.
    return wrap(function) if variables is None else _kernel(wrap, Identity(function), variables)


def _variables(function: Function) -> tuple[Hashable, ...] | None:
    """Return the outer variables that a user's function reads, None if one has no hash."""
    if str(getattr(function, "__module__", "")).startswith("backprop_xp."):
        return ()
    variables = tuple(outer_variables(function))
    try:
        hash(variables)
    except TypeError:
        return None
    return variables


@functools.lru_cache(maxsize=256)
def _kernel(wrap: Function, key: Identity, variables: tuple[Hashable, ...]) -> _Fused:
    return _Fused(wrap(key.value))


@functools.lru_cache(maxsize=256)
def _is_identity(key: Identity, variables: tuple[Hashable, ...] | None) -> bool:
    """Return whether a rule returns its first argument; arithmetic would raise."""
    try:
        g = object()
        return key.value(g, object(), object()) is g
    except Exception:
        return False


def _are_plain(first: Array, *others: Array) -> bool:
    """Return whether arrays are real floating ones of one dtype; None and numbers do not count."""
    return first.dtype in (np.float32, np.float64) and all(
        other.dtype == first.dtype for other in others if hasattr(other, "dtype")
    )


def _activated(z: Array, activation: Activation, bias: Array | None = None) -> Result:
    if not _are_plain(z, bias):
        return NotImplemented
    if bias is None:
        cache = None if activation.from_output else z
        return cache, _fused(_alone, activation.value)(z)
    if activation.from_output:
        return None, _fused(_of_sum, activation.value)(z, bias)
    return _fused(_sum_and_of_sum, activation.value)(z, bias)


def _alone(function: Function) -> Function:
    return function


def _of_sum(value: Function) -> Function:
    return lambda z, bias: value(z + bias)


def _sum_and_of_sum(value: Function) -> Function:
    def both(z: Array, bias: Array) -> tuple[Array, Array]:
        z = z + bias
        return z, value(z)

    return both


def _sent_back(g: Array, activation: Activation, z: Array | None, a: Array) -> Result:
    if _is_identity(Identity(activation.vjp), _variables(activation.vjp)):
        return g
    if not _are_plain(g, z, a):
        return NotImplemented
    if z is None:
        return _fused(_of_output, activation.vjp)(g, a)
    return _fused(_alone, activation.vjp)(g, z, a)


def _of_output(vjp: Function) -> Function:
    return lambda g, a: vjp(g, None, a)


def _mean_over_outputs(o: Array, t: Array, share: Share, each: Function, blocks: int = 1) -> Result:
    n = o.shape[-1] // blocks
    if t.shape[-1] != n or not _are_plain(o, t, share):
        return NotImplemented
    outputs = columns_of(o, [n] * blocks)
    value, *slopes = _fused(_shared, each)(share / n, 1.0 / n, *outputs, t)
    g = slopes[0] if blocks == 1 else cupy.concatenate(slopes, axis=-1)
    return value[..., 0] if n == 1 else value.sum(axis=-1), g


def _shared(each: Function) -> Function:
    def all_of(share: Share, part: float, *arrays: Array) -> tuple[Array, ...]:
        # As many as the arrays, outputs and targets: not the curvature after them.
        value, *slopes = itertools.islice(each(*arrays), len(arrays))
        return value * part, *(slope * share for slope in slopes)

    return all_of


def _categorical(o: Array, t: Array, share: Share) -> Result:
    if not (_are_plain(o, t, share) and o.size and _repeats(t, o)):
        return NotImplemented
    is_number = isinstance(share, float)
    rows, n = o.size // o.shape[-1], o.shape[-1]
    value, g = cupy.empty(o.shape[:-1], o.dtype), cupy.empty(o.shape, o.dtype)
    arrays = contiguous(o), contiguous(t), value, g
    launch_rows(CATEGORICAL, rows, n, o.dtype, t.size // n, share if is_number else 1.0, *arrays)
    if not is_number:
        g *= share
    return value, g


def _repeats(part: Array, whole: Array) -> bool:
    """Return whether ``whole`` has the rows of ``part``, repeated along leading axes."""
    shape = part.shape[next((i for i, n in enumerate(part.shape) if n != 1), part.ndim) :]
    return bool(
        whole.shape[whole.ndim - len(shape) :] == shape and part.shape[-1] == whole.shape[-1]
    )


# The bits of ``networks.numbers.random_bits``: uint32 wraps around as int32 does, and shifts in no
# sign.
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
_DROPPED = """
    const unsigned int column = i % columns;
    const unsigned int h = mixed(mixed(row + mixed(key)) ^ mixed(mixed(column)));
    mask = (int)(h & 0x7FFFFFFFu) >= bound ? kept : (T)0;
    y = x * mask;
    """
DROPOUT = (
    "backprop_xp_dropout",
    "T x, int32 key, int64 rows, int64 columns, int32 bound, T kept",
    "T y, T mask",
    "const unsigned int row = i / columns % rows;" + _DROPPED,
)
# For a part of a batch: the positions of its rows.
DROPOUT_AT = (
    "backprop_xp_dropout_at",
    "T x, int32 key, int32 row, int64 columns, int32 bound, T kept",
    "T y, T mask",
    _DROPPED,
)


def _dropped(x: Array, rng: Any, rate: float) -> Result:
    if not _are_plain(x):
        return NotImplemented
    row, columns = x.shape[-2:]
    source: Any = DROPOUT
    if hasattr(rng, "positions"):  # a RowKey
        source, row, rng = DROPOUT_AT, rng.positions[..., None], rng.key
    key = rng if hasattr(rng, "shape") else np.int32(rng & 0x7FFFFFFF)
    kernel = elementwise(*source, preamble=DROPOUT_HASH)
    y, mask = kernel(x, key, row, columns, int(rate * 2**31), 1.0 / (1.0 - rate))
    return y, mask


def _normalized(x: Array, scale: Array, bias: Array, epsilon: float) -> Result:
    if not (_are_plain(x, scale, bias) and x.size and x.shape[:-2] == scale.shape[:-2]):
        return NotImplemented
    batch, n = x.shape[-2:]
    y, normed = cupy.empty(x.shape, x.dtype), cupy.empty(x.shape, x.dtype)
    inverse = cupy.empty((*x.shape[:-1], 1), x.dtype)
    arrays = contiguous(x), contiguous(scale), contiguous(bias), y, normed, inverse
    launch_rows(NORMALIZED, x.size // n, n, x.dtype, batch, epsilon, *arrays)
    return y, (normed, inverse)


def _normalized_back(g: Array, scale: Array, normed: Array, inverse: Array) -> Result:
    alike = g.shape == normed.shape and g.shape[:-2] == scale.shape[:-2]
    if not (_are_plain(g, scale, normed, inverse) and g.size and alike):
        return NotImplemented
    batch, n = g.shape[-2:]
    back = cupy.empty(g.shape, g.dtype)
    arrays = *map(contiguous, (g, scale, normed, inverse)), back
    launch_rows(NORMALIZED_BACK, g.size // n, n, g.dtype, batch, *arrays)
    return back


def _blank(array: Array, shape: tuple[int, ...] | None = None) -> Array:
    return cupy.empty(array.shape if shape is None else shape, array.dtype)


def _matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    return cupy.matmul(a, b, out=out)


def _sum_over_batch(array: Array, out: Array | None = None, factor: Array | None = None) -> Array:
    if factor is None or factor.dtype != array.dtype:
        array = array if factor is None else array * factor
        return array.sum(axis=-2, keepdims=True, out=out)
    return _sum_of_products()(array, factor, axis=array.ndim - 2, keepdims=True, out=out)


@functools.cache
def _sum_of_products() -> Any:
    name = "backprop_xp_sum_of_products"
    return cupy.ReductionKernel("T x, T y", "T z", "x * y", "a + b", "z = a", "0", name)


FUSED: dict[str, Function] = {
    "backprop_xp.networks.layers.activations.activated": _activated,
    "backprop_xp.networks.layers.activations.sent_back": _sent_back,
    "backprop_xp.networks.losses.rules.mean_over_outputs": _mean_over_outputs,
    "backprop_xp.networks.losses.rules.categorical": _categorical,
    "backprop_xp.networks.layers.core.dropped": _dropped,
    "backprop_xp.networks.layers.core.normalized": _normalized,
    "backprop_xp.networks.layers.core.normalized_back": _normalized_back,
    "backprop_xp.networks.layers.embeddings.rows_of_codes": rows_of_codes,
    "backprop_xp.backends.sums_and_products.sum_at": sum_at,
    "backprop_xp.backends.sums_and_products.blank": _blank,
    "backprop_xp.backends.sums_and_products.matmul": _matmul,
    "backprop_xp.backends.sums_and_products.sum_over_batch": _sum_over_batch,
}
