"""A backend for MLX: lazy arrays on Apple's GPUs and on CPUs.

It computes in float32 and complex64: MLX has no complex128, and its float64 has functions, such as
``exp``, of seven digits.
"""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends import (
    CONVERSION_METHODS,
    Array,
    Backend,
    Conversion,
    Device,
    DType,
    DTypeNotKeptError,
    LazyModule,
    Namespace,
    Probe,
    device_aware,
    explicit,
    module_if_imported,
    try_library,
)

mx = LazyModule("mlx.core")


class MLXBackend(Backend):
    name: ClassVar[str] = "mlx"
    device_kinds: ClassVar[Sequence[str]] = ("cpu", "gpu")

    @explicit
    def probe(self) -> Probe:
        return try_library("mlx.core", "MLX", "pip install 'mlx[cpu]'", lambda mx: mx.ones(1) + 1)

    def namespace(self) -> Namespace:
        return _namespace()

    def devices(self) -> list[Device]:
        """Return the one device on which MLX computes: its arrays have none."""
        return ["gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"]

    def device_of(self, array: Array) -> Device:
        return self.devices()[0]

    def default_dtype(self, device: Device) -> DType:
        return mx.float32

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        if dtype in (mx.float64, "complex128"):
            name = "float64" if dtype == mx.float64 else dtype
            raise DTypeNotKeptError(f"MLX has no exact {name}. Use dtype='float32' or 'complex64'.")

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(module_if_imported("mlx.core"), "array", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        kept = array.dtype.name.replace("bool", "bool_")
        dtype = getattr(mx, kept, kept) if dtype is None else dtype
        self.require_dtype(dtype)
        return mx.array(np.ascontiguousarray(array).reshape(array.shape)).astype(dtype)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        return np.array(array)

    def accelerators(self) -> Sequence[Device]:
        return [device for device in self.devices() if device == "gpu"]

    def synchronize(self, device: Device | None = None) -> None:
        mx.synchronize()

    def after_step(self, state: Any) -> None:
        """Start to compute: otherwise the graph of a training grows until somebody reads it."""
        mx.async_eval(state)

    def scatter_add(self, total: Array, rows: Array, values: Array) -> Array:
        return total.at[rows].add(values)

    def host_conversions(self) -> Sequence[Conversion]:
        if module_if_imported("mlx.core") is None:
            return ()
        names = (*CONVERSION_METHODS, "item", "tolist", "__dlpack__")
        shown = (Conversion(mx.array, name, shows=True) for name in ("__repr__", "__str__"))
        return [*(Conversion(mx.array, name) for name in names), *shown]


def _astype(x: Array, dtype: DType, /, *, copy: bool = True, device: Device = None) -> Array:
    return mx.array(x, dtype) if copy or x.dtype != dtype else x


def _expm1(x: Array, /) -> Array:
    if x.dtype != mx.complex64:
        return mx.expm1(x)
    real, imaginary = mx.real(x), mx.imag(x)
    height = mx.expm1(real) * mx.cos(imaginary) - 2.0 * mx.sin(0.5 * imaginary) ** 2
    return height + 1j * (mx.exp(real) * mx.sin(imaginary))


def _argsort(
    x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True
) -> Array:
    return mx.argsort(-x if descending else x, axis=axis)


def _svd(x: Array, /, *, full_matrices: bool = True) -> tuple[Array, Array, Array]:
    u, s, vh = mx.linalg.svd(x, stream=mx.cpu)
    k = s.shape[-1]
    return (u, s, vh) if full_matrices else (u[..., :k], s, vh[..., :k, :])


def _solve(a: Array, b: Array, /) -> Array:
    return mx.linalg.solve(a, b, stream=mx.cpu)  # MLX has it for the CPU alone


def _iinfo(dtype: DType, /) -> SimpleNamespace:
    info = mx.iinfo(dtype)
    return SimpleNamespace(bits=8 * dtype.size, min=info.min, max=info.max, dtype=dtype)


@functools.cache
def _namespace() -> Namespace:
    """Return MLX's functions with the standard's arguments, and those that it lacks."""
    return device_aware(
        mx,
        bool=mx.bool_,
        complex128="complex128",  # a dtype that no array has
        astype=_astype,
        expm1=_expm1,
        argsort=_argsort,
        hypot=lambda x, y: mx.sqrt(x * x + y * y),
        iinfo=_iinfo,
        linalg=SimpleNamespace(
            svd=_svd, solve=_solve, diagonal=lambda x: mx.diagonal(x, axis1=-2, axis2=-1)
        ),
    )


backend = MLXBackend()
