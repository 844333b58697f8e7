"""A backend for Dask: lazy arrays of chunks of NumPy's.

Functions that Dask lacks, or has for some chunks alone, take whole arrays of NumPy's.
"""

import functools
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends import (
    Array,
    Backend,
    Device,
    DType,
    LazyModule,
    Namespace,
    Probe,
    module_if_imported,
    namespace_with,
    try_library,
)

da = LazyModule("dask.array")


class DaskBackend(Backend):
    name: ClassVar[str] = "dask"

    def probe(self) -> Probe:
        return try_library("dask.array", "Dask", "pip install 'dask[array]'", lambda da: da.ones(1))

    def namespace(self) -> Namespace:
        return _namespace()

    def devices(self) -> list[Device]:
        return ["cpu"]

    def default_dtype(self, device: Device) -> DType:
        return np.float64

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(module_if_imported("dask.array"), "Array", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        return da.from_array(np.array(array, dtype=dtype), chunks=-1)

    def to_host(self, array: Array) -> np.ndarray:
        return np.asarray(array.compute())


def _whole(function: Any, shape: tuple[int, ...], *arrays: Array) -> Array:
    """Return NumPy's function of whole arrays; the result has the first one's dtype."""
    import dask

    made = dask.delayed(function)(*arrays)
    return da.from_delayed(made, shape, dtype=arrays[0].dtype)


def _solve(a: Array, b: Array, /) -> Array:
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return _whole(np.linalg.solve, (*stack, *b.shape[-2:]), a, b)


def _take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    shape = list(np.broadcast_shapes(*(np.delete(a.shape, axis) for a in (x, indices))))
    shape.insert(axis % x.ndim, indices.shape[axis])
    return _whole(functools.partial(np.take_along_axis, axis=axis), tuple(shape), x, indices)


def _eye(*shape: Any, dtype: DType = None, device: Device = None, k: int = 0) -> Array:
    return da.from_array(np.eye(*shape, k=k, dtype=dtype), chunks=-1)


def _svd(x: Array, /, *, full_matrices: bool = True) -> tuple[Array, Array, Array]:
    (*stack, m, n), k = x.shape, min(x.shape[-2:])
    rows, columns = (m, n) if full_matrices else (k, k)
    shapes = [(*stack, m, rows), (*stack, k), (*stack, columns, n)]

    def part(x: np.ndarray, i: int) -> np.ndarray:
        return np.linalg.svd(x, full_matrices=full_matrices)[i]

    u, s, vh = (_whole(functools.partial(part, i=i), shape, x) for i, shape in enumerate(shapes))
    return u, s, vh


@functools.cache
def _namespace() -> Namespace:
    import array_api_compat.dask.array as compat

    linalg = namespace_with(compat.linalg, solve=_solve, svd=_svd)
    return namespace_with(compat, eye=_eye, linalg=linalg, take_along_axis=_take_along_axis)


backend = DaskBackend()
