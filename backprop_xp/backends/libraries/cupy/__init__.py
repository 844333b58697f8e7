"""CuPy: NVIDIA GPUs by CUDA.

Work is queued on CuPy's current stream and computed on its current device. The user chooses both
(``with stream:``, ``with cupy.cuda.Device(1):``). Only ``to_host`` and ``synchronize`` wait.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.dtypes_and_devices import LazyModule, is_installed, module_if_imported
from backprop_xp.backends.guard import CONVERSION_METHODS, explicit, leaves_by_dlpack
from backprop_xp.backends.libraries.cupy.fused import FUSED
from backprop_xp.backends.libraries.cupy.update_kernels import launch, rules
from backprop_xp.backends.namespaces import device_aware
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Conversion,
    Device,
    DType,
    Function,
    Memory,
    Namespace,
    Probe,
)
from backprop_xp.backends.scopes import process_wide
from backprop_xp.extras import install_command

cupy = LazyModule("cupy")
_DRIVER = "check that nvidia-smi lists a GPU and that its driver fits CuPy's CUDA version"
_PEDANTIC_MATH = 2  # cuBLAS's CUBLAS_PEDANTIC_MATH, which CuPy has no name for


class CuPyBackend(Backend):
    """CuPy's arrays by array-api-compat's wrapper: CuPy lacks the standard's entry point."""

    name: ClassVar[str] = "cupy"
    slices_are_views: ClassVar[bool] = True
    device_kinds: ClassVar[Sequence[str]] = ("cuda",)
    replacements: ClassVar[dict[str, Function]] = {**FUSED, **rules(launch)}

    @explicit
    def probe(self) -> Probe:
        """Run one kernel and one product; CuPy imports without a driver too.

        The product loads cuBLAS and the kernel NVRTC, which are wheels of their own.
        """
        if not is_installed("cupy"):
            return Probe(False, None, "CuPy is not installed", _install())
        version = None
        try:
            version = str(cupy.__version__)
            cupy.asnumpy(cupy.ones((1, 1)) @ cupy.ones((1, 1)))
        except Exception as error:
            # CuPy puts a page of advice around the cause of a failed import.
            cause = (isinstance(error, ImportError) and error.__cause__) or error
            reason = f"{type(cause).__name__}: {str(cause).strip()}".splitlines()[0].rstrip(".: ")
            libraries = f"install CUDA's libraries beside CuPy: {_install()}"
            return Probe(False, version, reason, _DRIVER if "cudaError" in reason else libraries)
        return Probe(True, version)

    def namespace(self) -> Namespace:
        """Return array_api_compat.cupy with functions that honour ``device=``."""
        return _namespace()

    def devices(self) -> list[Device]:
        """Return every GPU that CUDA shows, the current one first."""
        devices = [cupy.cuda.Device(i) for i in range(cupy.cuda.runtime.getDeviceCount())]
        return sorted(devices, key=lambda device: bool(device != cupy.cuda.Device()))

    def device_name(self, device: Device) -> str:
        return f"cuda:{device.id}"

    def require_current(self, device: Device, name: str) -> None:
        """Raise ValueError unless CuPy computes on ``device`` now: results would be elsewhere."""
        current = cupy.cuda.runtime.getDevice()
        if device.id != current:
            raise ValueError(
                f"{name} is on cuda:{device.id}, but CuPy computes on its current device, "
                f"cuda:{current}. Work inside `with cupy.cuda.Device({device.id}):`, or hide the "
                f"other GPUs: CUDA_VISIBLE_DEVICES={device.id}."
            )

    def default_dtype(self, device: Device) -> DType:
        """Return float32: most GPUs compute float64 at a small fraction of that speed."""
        return np.float32

    def owns(self, array: Any) -> bool:
        """Return whether ``array`` is a CuPy array, or a variable of ``cupy.fuse``."""
        is_array = isinstance(array, getattr(module_if_imported("cupy"), "ndarray", ()))
        return is_array or type(array).__module__ == "cupy._core.fusion"

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        with cupy.cuda.Device(device):
            return cupy.asarray(array, dtype=dtype)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        """Return the values as NumPy's, after waiting for the current stream of the array's GPU."""
        with array.device:
            return np.asarray(cupy.asnumpy(array))

    def device_of(self, array: Array) -> Device:
        """Return the GPU; a variable of ``cupy.fuse`` has none."""
        return getattr(array, "device", None)

    def accelerators(self) -> Sequence[Device]:
        return self.devices()

    def mpi_buffers(self) -> bool:
        """Return True: mpi4py reads the CUDA array interface."""
        return True

    def synchronize(self, device: Device | None = None) -> None:
        """Wait for every stream of the GPU."""
        cupy.cuda.Device(device).synchronize()

    @contextlib.contextmanager
    def background_copies(self, device: Device | None = None) -> Iterator[None]:
        """Copy on a separate stream, after the work that is queued now; at the end, wait for it.

        CuPy copies from pinned memory, into memory that its pool keeps for that stream. The pool
        reuses it once an array is released, although other streams may still read it.
        """
        self.synchronize(device)
        with cupy.cuda.Device(device) as current, _copy_stream(int(current)) as stream:
            yield
            stream.synchronize()

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        """Compute pedantic products under any CUPY_TF32.

        That rules out TF32. It also rules out Gauss' three products for a complex one, which lose
        the complex step's tiny imaginary part. It holds for products of two matrices in the whole
        process, for those of stacks in this thread and on the current GPU.
        """
        cublas = cupy.cuda.cublas
        handle = cupy.cuda.get_cublas_handle()  # this thread's, for products of stacks
        before = cublas.getMathMode(handle)
        with _pedantic_compute_types():
            cublas.setMathMode(handle, _PEDANTIC_MATH)
            try:
                yield
            finally:
                cublas.setMathMode(handle, before)

    def memory(self, device: Device | None = None) -> Memory:
        """Return the GPU's memory, as CUDA counts it: all that CuPy's pool holds is in use."""
        free, total = cupy.cuda.Device(device).mem_info
        return Memory(total - free, total)

    def details(self) -> dict[str, str]:
        """Return CUDA's versions and other facts that decide speed and precision."""
        runtime = cupy.cuda.runtime
        # CuPy reads the variable once, and has no public function that returns it.
        tf32 = "off" if os.environ.get("CUPY_TF32", "0") in ("", "0") else "on"
        versions = {
            "CUDA driver supports": runtime.driverGetVersion(),
            "CUDA runtime": runtime.runtimeGetVersion(),
        }
        details = {  # CUDA's 13020 is 13.2
            name: f"{number // 1000}.{number % 1000 // 10}" if number else "none"
            for name, number in versions.items()
        } | {"TF32": tf32}
        with contextlib.suppress(runtime.CUDARuntimeError):  # no driver, or no card
            details["compute capability"] = ", ".join(
                f"{self.device_name(device)} {int(device.compute_capability) / 10}"
                for device in self.devices()
            )
            pool = cupy.get_default_memory_pool()
            details["memory pool"] = f"{pool.used_bytes()} of {pool.total_bytes()} bytes in use"
        return details

    def host_conversions(self) -> Sequence[Conversion]:
        """Return the conversions of CuPy's arrays; ``cupy.asnumpy`` goes through ``get``."""
        if module_if_imported("cupy") is None:
            return ()
        own = ("get", "item", "tolist", "tobytes", "tofile", "dump", "dumps")
        shows = ("__repr__", "__str__", "__format__")
        return [
            *(Conversion(cupy.ndarray, name) for name in (*CONVERSION_METHODS, *own)),
            *(Conversion(cupy.ndarray, name, shows=True) for name in shows),
            Conversion(cupy.ndarray, "__dlpack__", leaves_by_dlpack),
        ]


@functools.cache
def _copy_stream(device: int) -> Any:
    """Return the current GPU's one stream for copies; CuPy's pool has memory for each stream."""
    return cupy.cuda.Stream(non_blocking=True)


@process_wide
@contextlib.contextmanager
def _pedantic_compute_types() -> Iterator[None]:
    """Set the mode of CuPy's products of two matrices; those of stacks ask the handle alone."""
    core, pedantic = cupy._core, cupy._core._routines_linalg.COMPUTE_TYPE_PEDANTIC
    before = [(dtype, core.get_compute_type(dtype)) for dtype in (np.float32, np.float64)]
    for dtype, _ in before:
        core.set_compute_type(dtype, pedantic)
    try:
        yield
    finally:
        for dtype, kind in before:
            core.set_compute_type(dtype, kind)


def _install() -> str:
    return f"{install_command('cuda13')}, or for a driver of CUDA 12: {install_command('cuda12')}"


@functools.cache
def _namespace() -> Namespace:
    import array_api_compat.cupy

    def clip(x: Array, /, min: Array = None, max: Array = None) -> Array:  # noqa: A002
        return cupy.clip(x, min, max)

    # The wrapper's clip and sign select by masks, for which the host waits up to four times.
    return device_aware(array_api_compat.cupy, cupy.cuda.Device, clip=clip, sign=cupy.sign)


backend = CuPyBackend()
