"""PyTorch: its tensors, through array-api-compat's wrapper."""

import importlib.util
from typing import Any, ClassVar

import numpy as np
from array_api_compat import is_torch_array

from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    DType,
    Namespace,
    Probe,
)


class TorchBackend(Backend):
    """Only PyTorch's arrays are used, never its autograd."""

    name: ClassVar[str] = "torch"

    def probe(self) -> Probe:
        """Add two numbers."""
        if importlib.util.find_spec("torch") is None:
            hint = "pip install 'backprop_xp[torch]'"
            return Probe(False, None, "PyTorch is not installed", hint)
        try:
            import torch

            torch.ones(1).add(1).numpy()
        except Exception as error:
            return Probe(False, None, f"{type(error).__name__}: {error}", "reinstall torch")
        return Probe(True, str(torch.__version__))

    def namespace(self) -> Namespace:
        """Return array_api_compat.torch."""
        import array_api_compat.torch

        return array_api_compat.torch

    def devices(self) -> list[Device]:
        """Return the CPU and every GPU that CUDA shows."""
        import torch

        cuda = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        return [torch.device("cpu"), *cuda]

    def default_dtype(self, device: Device) -> DType:
        """Return float32, as PyTorch does."""
        import torch

        return torch.float32

    def owns(self, array: Any) -> bool:
        """Say whether ``array`` is a tensor."""
        return bool(is_torch_array(array))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        """Return the array's values on a device."""
        import torch

        # PyTorch warns when it shares a read-only array, and refuses some strides and byte orders.
        contiguous = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        writable = contiguous if contiguous.flags.writeable else contiguous.copy()
        return torch.from_numpy(writable.reshape(array.shape)).to(device=device, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray:
        """Return the values as NumPy's, once they are computed."""
        return np.asarray(array.detach().cpu().numpy())

    def synchronize(self, device: Device | None = None) -> None:
        """Wait for the GPU, where there is one."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize(device)


backend = TorchBackend()
