"""dpnp: GPUs of Intel and others, and CPUs, by SYCL.

Each array has a queue of its device, on which its operations wait for one another.
"""

import functools
import importlib
import os
from collections.abc import Sequence
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
from backprop_xp.backends.namespaces import namespace_with
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
        _register_runtime()
        probe = try_library("dpnp", "dpnp", install_command("dpnp"), _product)
        if probe.usable or module_if_imported("dpnp") is None or dpctl.get_devices():
            return probe
        return Probe(False, str(dpnp.__version__), "no SYCL device answers", _way_to_a_device())

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
        wanted = name.split(":") if isinstance(name, str) else [name]
        for device in self.devices():
            parts = iter(self.device_name(device).split(":"))  # each is found after those before
            if name == device or all(part in parts for part in wanted):
                return device
        return super().device(name)  # which raises

    def device_name(self, device: Device) -> str:
        """Return SYCL's name, ``"opencl:cpu:0"``."""
        return str(device.sycl_device.filter_string)

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


def _product(library: Any) -> None:
    ones = library.ones((1, 1))
    library.asnumpy(ones @ ones)


def _runtime() -> str | None:
    """Return the file of the CPU's OpenCL runtime, if it comes from PyPI."""
    import importlib.metadata  # 15 ms

    try:
        files = importlib.metadata.files("intel-opencl-rt")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (file.locate() for file in files or () if file.name == "libintelocl.so")
    return next((os.path.realpath(path) for path in found), None)


def _register_runtime() -> None:
    """Show the CPU's runtime to SYCL, which looks for devices once.

    The package registers itself only in Conda's environments.
    """
    if "OCL_ICD_FILENAMES" not in os.environ and (runtime := _runtime()):
        os.environ["OCL_ICD_FILENAMES"] = runtime


def _way_to_a_device() -> str:
    runtime = _runtime()
    cpu = f"set OCL_ICD_FILENAMES={runtime} before" if runtime else "pip install intel-opencl-rt"
    return f"{cpu} for the CPU, or install a GPU's driver"


@functools.cache
def _namespace() -> Namespace:
    """Return a copy of dpnp that broadcasts by copies.

    Products of stacks misread an array with strides of 0 along a matrix, and those of two matrices
    refuse it (dpnp 0.20).
    """
    _let_vector_functions_wait()

    def broadcast_to(x: Array, /, shape: tuple[int, ...]) -> Array:
        return dpnp.broadcast_to(x, shape).copy()

    def broadcast_arrays(*arrays: Array) -> list[Array]:
        return [array.copy() for array in dpnp.broadcast_arrays(*arrays)]

    return namespace_with(dpnp, broadcast_to=broadcast_to, broadcast_arrays=broadcast_arrays)


def _let_vector_functions_wait() -> None:
    """Make dpnp wait for the CPU before each call of a vector function of oneMKL.

    On a CPU these functions wait, with the lock of Python's interpreter (GIL), for work in SYCL's
    pool of threads. All threads of the pool may wait for that lock, to release arrays: a training
    then hangs (dpnp 0.20). A device's own ``wait`` releases the lock. dpnp's kernels without oneMKL
    do not hang, but they lose digits of complex functions.
    """
    vector_functions: Any = importlib.import_module("dpnp.backend.extensions.vm._vm_impl")
    is_available = vector_functions._is_available  # which dpnp asks before each call
    processors = [device for device in backend.devices() if device.sycl_device.is_cpu]

    def is_available_now() -> bool:
        for device in processors:
            device.wait()
        return bool(is_available())

    vector_functions._is_available = is_available_now


def _is_array(array: Any, *rest: Any, **options: Any) -> bool:
    return isinstance(array, dpnp.ndarray)


backend = DPNPBackend()
