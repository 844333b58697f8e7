"""CUDA kernels of embeddings: the row of each code in a table, and the sums of equal codes."""

import functools
from typing import Any

import numpy as np

from backprop_xp.backends.dtypes_and_devices import LazyModule
from backprop_xp.backends.libraries.cupy.row_kernels import contiguous
from backprop_xp.backends.protocol import Array, DType, Function

cupy = LazyModule("cupy")
AT = (
    "backprop_xp_at",
    "T x, T first, T last",
    "int32 at",
    "const T k = rint(x) + first; at = k > first ? (k < last ? k : last) : first;",
)
# A thread for each sum reads all rows in order, so that equal calls give equal bits.
SUM_AT = (
    "backprop_xp_sum_at",
    "raw T values, raw int32 at, int64 rows, int64 count, int64 n, int64 step",
    "T total",
    """
    const long long column = i % n, code = i / n % count, member = i / n / count;
    T sum = 0;
    for (long long r = 0; r < rows; ++r)
        if (at[member * step + r] == code) sum += values[(member * rows + r) * n + column];
    total = sum;
    """,
)


@functools.cache
def elementwise(name: str, inputs: str, outputs: str, body: str, **options: Any) -> Function:
    """Return a kernel for each element, compiled once."""
    kernel: Function = cupy.ElementwiseKernel(inputs, outputs, body, name, **options)
    return kernel


@functools.lru_cache(maxsize=64)
def _ends(codes: tuple[int, ...], dtype: DType, device: int) -> tuple[Array, Array]:
    """Return each column's first and last row, on the current device, copied there once."""
    after = np.cumsum(codes)
    return cupy.asarray(after - codes, dtype=dtype), cupy.asarray(after - 1, dtype=dtype)


def rows_of_codes(x: Array, codes: tuple[int, ...]) -> Array:
    """Replace ``networks.layers.embeddings.rows_of_codes`` by one kernel."""
    return elementwise(*AT)(x, *_ends(codes, x.dtype, x.device.id))


def sum_at(values: Array, indices: Array, count: int, out: Array | None = None) -> Array:
    """Replace ``backends.sums_and_products.sum_at`` by one kernel, without a one-hot array."""
    if values.dtype not in (np.float32, np.float64):
        return NotImplemented
    (*stack, rows, n) = values.shape
    if out is None:
        out = cupy.empty((*stack, count, n), values.dtype)
    indices, step = indices.astype(np.int32, copy=False), 0 if indices.ndim == 1 else rows
    if step:
        indices = cupy.broadcast_to(indices, (*stack, rows))
    return elementwise(*SUM_AT)(contiguous(values), contiguous(indices), rows, count, n, step, out)
