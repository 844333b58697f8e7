"""CuPy: NVIDIA GPUs by CUDA.

Everything is queued on CuPy's current stream and computed on its current device, which are the
user's to choose (``with stream:``, ``with cupy.cuda.Device(1):``); only ``to_host`` and
``synchronize`` wait.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.doors import explicit, leaves_by_dlpack
from backprop_xp.backends.dtypes_and_devices import imported, is_installed
from backprop_xp.backends.libraries.cupy.fused import FUSED
from backprop_xp.backends.libraries.cupy.namespace import placing
from backprop_xp.backends.libraries.cupy.update_kernels import Kernel, rules
from backprop_xp.backends.process_settings import process_wide
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    Door,
    DType,
    Memory,
    Namespace,
    Probe,
)

_CONVERSIONS = (
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__iter__", "__array__"),
    *("get", "item", "tolist", "tobytes", "tofile", "dump", "dumps"),
)
_PEDANTIC_MATH = 2  # cuBLAS's CUBLAS_PEDANTIC_MATH, which CuPy has no name for


@functools.cache
def _compiled(kernel: Kernel) -> Callable[..., Any]:
    import cupy

    # Contracted products and sums would round otherwise than the reference's.
    compiled: Callable[..., Any] = cupy.ElementwiseKernel(
        kernel.inputs,
        kernel.outputs,
        kernel.body,
        kernel.name,
        no_return=True,
        options=("--fmad=false",),
    )
    return compiled


def _launch(kernel: Kernel, inputs: list[Any], outputs: list[Array]) -> None:
    with outputs[0].device:
        _compiled(kernel)(*inputs, *outputs)


class CuPyBackend(Backend):
    """CuPy's arrays, through array-api-compat's wrapper: CuPy itself lacks the standard's entry."""

    name: ClassVar[str] = "cupy"
    replacements: ClassVar[dict[str, Callable[..., Any]]] = {**FUSED, **rules(_launch)}

    @explicit
    def probe(self) -> Probe:
        """Run one kernel and one product: that CuPy imports, without a driver too, shows nothing.

        The product loads cuBLAS and the kernel NVRTC, which are wheels of their own.
        """
        if not is_installed("cupy"):
            hint = "pip install 'backprop_xp[cuda13]' (or cuda12, after your driver)"
            return Probe(False, None, "CuPy is not installed", hint)
        version = None
        try:
            import cupy

            version = str(cupy.__version__)
            cupy.asnumpy(cupy.ones((1, 1)) @ cupy.ones((1, 1)))
        except Exception as error:
            reason = _reason(error)
            return Probe(False, version, reason, _hint(reason))
        return Probe(True, version)

    def namespace(self) -> Namespace:
        """Return array_api_compat.cupy, with ``device=`` honoured where an array is made."""
        return _namespace()

    def devices(self) -> list[Device]:
        """Return every GPU that CUDA shows, the current one first."""
        import cupy

        devices = [cupy.cuda.Device(i) for i in range(cupy.cuda.runtime.getDeviceCount())]
        return sorted(devices, key=lambda device: bool(device != cupy.cuda.Device()))

    def device_name(self, device: Device) -> str:
        return f"cuda:{device.id}"

    def require_current(self, device: Device, name: str) -> None:
        """Raise ValueError unless CuPy computes on ``device`` now.

        Results would be made on the current device, from memory of the other, if at all.
        """
        import cupy

        current = cupy.cuda.runtime.getDevice()
        if device.id != current:
            raise ValueError(
                f"{name} is on cuda:{device.id}, but CuPy computes on its current device, "
                f"cuda:{current}. Work inside `with cupy.cuda.Device({device.id}):`, or show CUDA "
                f"that GPU alone: CUDA_VISIBLE_DEVICES={device.id}."
            )

    def default_dtype(self, device: Device) -> DType:
        """Return float32: most GPUs compute float64 at a small fraction of that speed."""
        return np.float32

    def owns(self, array: Any) -> bool:
        """Say whether ``array`` is a CuPy array, or a variable of what ``cupy.fuse`` records."""
        is_array = isinstance(array, getattr(imported("cupy"), "ndarray", ()))
        return is_array or type(array).__module__ == "cupy._core.fusion"

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        import cupy

        with cupy.cuda.Device(device):
            return cupy.asarray(array, dtype=dtype)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        """Return the values as NumPy's, waiting for the current stream of the array's GPU."""
        import cupy

        with array.device:
            return np.asarray(cupy.asnumpy(array))

    def synchronize(self, device: Device | None = None) -> None:
        """Wait for every stream of the GPU."""
        import cupy

        cupy.cuda.Device(device).synchronize()

    @contextlib.contextmanager
    def apart(self, device: Device | None = None) -> Iterator[None]:
        """Copy on a stream of its own, and wait for that one alone.

        CuPy copies from pinned memory, into memory that its pool keeps for that stream: it is used
        again once the array is let go, so work on the array has to be waited for before.
        """
        import cupy

        with cupy.cuda.Device(device) as current, _stream_of_copies(int(current)) as stream:
            yield
            stream.synchronize()

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        """Keep products pedantic, whatever CUPY_TF32 says.

        That rules out TF32, and for complex arrays Gauss' three products for four, in which the
        complex step's tiny imaginary part would be lost. It holds for products of two matrices in
        the whole process, for those of stacks in this thread and on the GPU that is current now.
        """
        import cupy
        from cupy.cuda import cublas

        handle = cupy.cuda.get_cublas_handle()  # this thread's, which stacks are multiplied by
        before = cublas.getMathMode(handle)
        with _pedantic_compute_types():
            cublas.setMathMode(handle, _PEDANTIC_MATH)
            try:
                yield
            finally:
                cublas.setMathMode(handle, before)

    def memory(self, device: Device | None = None) -> Memory:
        """Return the GPU's memory, as CUDA counts it: what CuPy's pool holds is in use."""
        import cupy

        free, total = cupy.cuda.Device(device).mem_info
        return Memory(total - free, total)

    def details(self) -> dict[str, str]:
        """Return CUDA's versions, and what else decides how fast and how exact a GPU computes."""
        import cupy

        runtime = cupy.cuda.runtime
        # Read once per process by CuPy, which has no public way to ask.
        tf32 = "off" if os.environ.get("CUPY_TF32", "0") in ("", "0") else "on"
        details = {
            "CUDA driver supports": _cuda_version(runtime.driverGetVersion()),
            "CUDA runtime": _cuda_version(runtime.runtimeGetVersion()),
            "TF32": tf32,
        }
        with contextlib.suppress(runtime.CUDARuntimeError):  # no driver, or no card
            capabilities = (
                f"{self.device_name(device)} {int(device.compute_capability) / 10}"
                for device in self.devices()
            )
            details["compute capability"] = ", ".join(capabilities)
            pool = cupy.get_default_memory_pool()
            details["memory pool"] = f"{pool.used_bytes()} of {pool.total_bytes()} bytes in use"
        return details

    def doors(self) -> Sequence[Door]:
        """Return the conversions of CuPy's arrays; ``cupy.asnumpy`` goes through ``get``."""
        cupy = imported("cupy")
        if cupy is None:
            return ()
        shown = ("__repr__", "__str__", "__format__")
        return [
            *(Door(cupy.ndarray, name) for name in _CONVERSIONS),
            *(Door(cupy.ndarray, name, shows=True) for name in shown),
            Door(cupy.ndarray, "__dlpack__", leaves_by_dlpack),
        ]


@functools.cache
def _stream_of_copies(device: int) -> Any:
    """Return the current GPU's stream for copies: one, as CuPy's pool has memory for each."""
    import cupy

    return cupy.cuda.Stream(non_blocking=True)


@process_wide
@contextlib.contextmanager
def _pedantic_compute_types() -> Iterator[None]:
    """Set what CuPy multiplies two matrices by; for stacks it asks the handle alone."""
    from cupy import _core
    from cupy._core import _routines_linalg

    before = [(dtype, _core.get_compute_type(dtype)) for dtype in (np.float32, np.float64)]
    for dtype, _ in before:
        _core.set_compute_type(dtype, _routines_linalg.COMPUTE_TYPE_PEDANTIC)
    try:
        yield
    finally:
        for dtype, kind in before:
            _core.set_compute_type(dtype, kind)


def _cuda_version(number: int) -> str:
    """Return ``"13.2"`` for CUDA's 13020."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"


def _reason(error: BaseException) -> str:
    """Return what went wrong in one line: a failed import's cause, a compiler's first line."""
    if isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__  # CuPy puts a page of advice around it, between rulers
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].rstrip(".: ")


def _hint(reason: str) -> str:
    if "cudaError" in reason:
        return "check that nvidia-smi lists a GPU and that its driver fits CuPy's CUDA version"
    return "install CUDA's libraries beside CuPy: pip install 'backprop_xp[cuda13]' (or cuda12)"


@functools.cache
def _namespace() -> Namespace:
    import array_api_compat.cupy
    import cupy

    def clip(x: Array, /, min: Any = None, max: Any = None) -> Array:  # noqa: A002
        return cupy.clip(x, min, max)

    return placing(array_api_compat.cupy, cupy.cuda.Device, clip=clip, sign=cupy.sign)


backend = CuPyBackend()
