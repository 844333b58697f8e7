"""dpnp: GPUs of Intel and others, and CPUs, by SYCL.

Each array has a queue of its device, on which its operations wait for one another.
"""

import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.dtypes_and_devices import (
    LazyModule,
    dtype_name,
    module_if_imported,
    try_library,
)
from backprop_xp.backends.guard import (
    CONVERSION_METHODS,
    explicit,
    holds_a_mask,
    leaves_by_dlpack,
)
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Conversion,
    Device,
    DType,
    DTypeNotKeptError,
    Namespace,
    Probe,
)
from backprop_xp.extras import install_command

dpnp, dpctl = LazyModule("dpnp"), LazyModule("dpctl")
_DOUBLE = ("float64", "complex128")
# The host waits for these: the shape of the result depends on values.
_SHAPED_BY_VALUES = (
    *("nonzero", "argwhere", "extract", "unique", "unique_all", "unique_counts", "unique_inverse"),
    *("unique_values", "flatnonzero"),
)


class DPNPBackend(Backend):
    """dpnp on SYCL's devices; without CUDA, as that needs a plug-in of SYCL's own."""

    name: ClassVar[str] = "dpnp"
    slices_are_views: ClassVar[bool] = True
    device_kinds: ClassVar[Sequence[str]] = ("opencl", "level_zero", "cpu", "gpu")

    @explicit
    def probe(self) -> Probe:
        """Run a product; dpnp imports without a device too."""
        probe = try_library("dpnp", "dpnp", install_command("dpnp"), _work)
        if probe.usable or not probe.reason.startswith("LookupError: "):
            return probe
        return Probe(False, str(dpnp.__version__), _NO_DEVICE, _way_to_a_device())

    def namespace(self) -> Namespace:
        """Return dpnp with functions whose results ``@`` reads correctly."""
        return _namespace()

    def devices(self) -> list[Device]:
        """Return SYCL's devices, the one that it selects by default first."""
        first = dpctl.select_default_device()
        every = [first, *(device for device in dpctl.get_devices() if device != first)]
        return [dpnp.tensor.Device.create_device(device) for device in every]

    def device(self, name: Any) -> Device:
        """Return the first device whose name has these parts: ``"gpu"``, ``"opencl:cpu:0"``."""
        for device in self.devices():
            parts = iter(self.device_name(device).split(":"))
            if name == device or all(part in parts for part in str(name).split(":")):
                return device
        return super().device(name)  # which raises

    def device_name(self, device: Device) -> str:
        """Return SYCL's name, ``"opencl:cpu:0"``."""
        return str(device.sycl_device.filter_string)

    def device_of(self, array: Array) -> Device:
        return array.device

    def default_dtype(self, device: Device) -> DType:
        return np.float32

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Raise for 64-bit floating numbers on a GPU that lacks them."""
        where = self.devices()[0] if device is None else device
        if dtype_name(dtype) in _DOUBLE and not where.sycl_device.has_aspect_fp64:
            raise DTypeNotKeptError(
                f"{self.device_name(where)} ({where.sycl_device.name}) has no {dtype_name(dtype)}. "
                "Use dtype='float32' or device='cpu'."
            )

    def accelerators(self) -> Sequence[Device]:
        """Return the GPUs: on a CPU, NumPy is faster."""
        return [device for device in self.devices() if device.sycl_device.is_gpu]

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(module_if_imported("dpnp"), "ndarray", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        wanted = np.dtype(array.dtype if dtype is None else dtype)
        self.require_dtype(wanted, device)
        # Cast here: a device may lack the dtype of the host.
        return dpnp.asarray(np.asarray(array, dtype=wanted), device=device)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        return np.asarray(dpnp.asnumpy(array))

    def synchronize(self, device: Device | None = None) -> None:
        (self.devices()[0] if device is None else device).wait()

    def details(self) -> dict[str, str]:
        """Return the drivers of the devices."""
        devices = dpctl.get_devices()
        return {d.filter_string: f"{d.name}, driver {d.driver_version}" for d in devices}

    def host_conversions(self) -> Sequence[Conversion]:
        """Return the conversions of arrays, on a CPU too, so that tests need no GPU."""
        library = module_if_imported("dpnp")
        if library is None:
            return ()
        kind, own = library.ndarray, ("item", "tolist", "asnumpy", "tobytes", "tofile")
        modules = (library, _namespace())
        return [
            *(Conversion(kind, name) for name in (*CONVERSION_METHODS, *own)),
            *(Conversion(kind, name, shows=True) for name in ("__repr__", "__str__", "__format__")),
            Conversion(kind, "__dlpack__", leaves_by_dlpack),
            *(Conversion(xp, name, _is_array) for xp in modules for name in _SHAPED_BY_VALUES),
            Conversion(kind, "nonzero"),
            Conversion(kind, "__getitem__", holds_a_mask(np.bool)),
        ]


_NO_DEVICE = "no SYCL device answers"


def _work(library: ModuleType) -> None:
    if not dpctl.get_devices():
        raise LookupError(_NO_DEVICE)
    ones = library.ones((1, 1))
    library.asnumpy(ones @ ones)


def _way_to_a_device() -> str:
    """Return what makes a device answer: a GPU's driver, or the CPU's runtime of PyPI.

    That package cannot register itself outside of Conda: the path in its own file is Conda's.
    """
    runtime = Path(sys.prefix, "lib", "libintelocl.so")
    if runtime.exists():
        return f"set OCL_ICD_FILENAMES={runtime} for the CPU, or install a GPU's driver"
    return "pip install intel-opencl-rt for the CPU, or install a GPU's driver"


@functools.cache
def _namespace() -> Namespace:
    """Return a copy of dpnp that broadcasts by copies.

    Products of stacks misread an array with strides of 0 along a matrix, and those of two matrices
    refuse it (dpnp 0.20).
    """

    def broadcast_to(x: Array, /, shape: tuple[int, ...]) -> Array:
        return dpnp.broadcast_to(x, shape).copy()

    def broadcast_arrays(*arrays: Array) -> list[Array]:
        return [array.copy() for array in dpnp.broadcast_arrays(*arrays)]

    namespace = ModuleType("dpnp", dpnp.__doc__)
    own = {"broadcast_to": broadcast_to, "broadcast_arrays": broadcast_arrays}
    vars(namespace).update(vars(importlib.import_module("dpnp")) | own)
    return namespace


def _is_array(array: Any, *rest: Any, **options: Any) -> bool:
    return isinstance(array, dpnp.ndarray)


backend = DPNPBackend()
