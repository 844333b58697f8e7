"""CUDA kernels that work row by row, a block of threads for each row of ``(..., rows, n)``.

Each thread takes numbers of the row at a fixed stride. The threads join their results in shared
memory, in an order that depends on n alone.
"""

import functools
from typing import NamedTuple

import numpy as np

from backprop_xp.backends.dtypes_and_devices import LazyModule
from backprop_xp.backends.protocol import Array, DType, Function

cupy = LazyModule("cupy")


class RowKernel(NamedTuple):
    """``parameters`` and ``body`` are CUDA C++ for the row ``row`` of n numbers, T their dtype."""

    name: str
    parameters: str
    body: str


_SOURCE = """
__device__ T joined(T value, T* shared, bool largest) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            const T one = shared[threadIdx.x], other = shared[threadIdx.x + half];
            // A NaN is the largest of all.
            shared[threadIdx.x] = largest ? (other > one || other != other ? other : one)
                                          : one + other;
        }
        __syncthreads();
    }
    const T found = shared[0];
    __syncthreads();
    return found;
}

#define EACH for (long long i = threadIdx.x; i < n; i += blockDim.x)
#define SUM(value) joined(value, shared, false)

extern "C" __global__ void %(name)s(const long long n, %(parameters)s) {
    extern __shared__ char memory[];
    T* shared = (T*)memory;
    const long long row = blockIdx.x, first = row * n;
    %(body)s
}
"""

# softmax(o) = exp(s) / (1 + r), as the reference has it; targets may be fewer rows than outputs.
CATEGORICAL = RowKernel(
    "backprop_xp_categorical",
    "const long long target_rows, const T share, const T* o, const T* t, T* value, T* g",
    """
    const T* target = t + row % target_rows * n;
    T total = 0, top = o[first];
    EACH {
        total += target[i];
        const T output = o[first + i];
        top = output > top || output != output ? output : top;
    }
    total = SUM(total);
    top = joined(top, shared, true);
    T r = 0, weighted = 0;
    EACH {
        const T s = o[first + i] - top;
        r += exp(s) - target[i] / (total + (T)1e-37);
        weighted += target[i] * s;
    }
    r = SUM(r);
    weighted = SUM(weighted);
    const T factor = total * share / (1 + r);
    EACH {
        const T part = target[i] / (total + (T)1e-37);
        g[first + i] = (exp(o[first + i] - top) - part - part * r) * factor;
    }
    if (threadIdx.x == 0) value[row] = total * log1p(r) - weighted;
    """,
)
NORMALIZED = RowKernel(
    "backprop_xp_normalized",
    "const long long batch, const T epsilon, const T* x, const T* scale, const T* bias, T* y, "
    "T* normed, T* inverse",
    """
    const long long network = row / batch * n;
    T sum = 0, squares = 0;
    EACH sum += x[first + i];
    const T mean = SUM(sum) / n;
    EACH squares += (x[first + i] - mean) * (x[first + i] - mean);
    const T over = 1 / sqrt(SUM(squares) / n + epsilon);
    EACH {
        const T a = (x[first + i] - mean) * over;
        normed[first + i] = a;
        y[first + i] = a * scale[network + i] + bias[network + i];
    }
    if (threadIdx.x == 0) inverse[row] = over;
    """,
)
NORMALIZED_BACK = RowKernel(
    "backprop_xp_normalized_back",
    "const long long batch, const T* g, const T* scale, const T* normed, const T* inverse, T* back",
    """
    const T* by = scale + row / batch * n;
    T sum = 0, products = 0;
    EACH {
        const T h = g[first + i] * by[i];
        sum += h;
        products += h * normed[first + i];
    }
    const T mean = SUM(sum) / n, along = SUM(products) / n;
    EACH back[first + i] = inverse[row] * (g[first + i] * by[i] - mean - normed[first + i] * along);
    """,
)
ROW_KERNELS = (CATEGORICAL, NORMALIZED, NORMALIZED_BACK)
_MOST_THREADS = 256


def source(kernel: RowKernel, dtype: DType) -> str:
    """Return the CUDA C++ of a kernel for float32 or float64."""
    name = "float" if np.dtype(dtype) == np.float32 else "double"
    return f"typedef {name} T;\n" + _SOURCE % kernel._asdict()


@functools.cache
def _compiled(kernel: RowKernel, dtype: DType) -> Function:
    # Contracted products and sums would round differently from the reference's.
    options = ("--fmad=false",)
    compiled: Function = cupy.RawKernel(source(kernel, dtype), kernel.name, options=options)
    return compiled


def launch_rows(
    kernel: RowKernel, rows: int, n: int, dtype: DType, *arguments: Array | float
) -> None:
    """Run a kernel over rows of n numbers; its arrays are contiguous, in C order.

    A Python int is the kernel's ``long long``, a float its T.
    """
    threads = 32
    while threads < min(n, _MOST_THREADS):
        threads *= 2
    values = [np.dtype(dtype).type(a) if isinstance(a, float) else a for a in (n, *arguments)]
    run = _compiled(kernel, np.dtype(dtype))
    run((rows,), (threads,), values, shared_mem=threads * np.dtype(dtype).itemsize)


def contiguous(array: Array) -> Array:
    """Return an array in C order, itself if it is."""
    return cupy.ascontiguousarray(array)
