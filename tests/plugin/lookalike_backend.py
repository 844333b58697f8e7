"""A backend for an array library of the standard, in a package of its own."""

import importlib.util
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends import Array, Backend, Device, DType, Namespace, Probe


class LookalikeBackend(Backend):
    name: ClassVar[str] = "lookalike"  # as the entry point has it

    def probe(self) -> Probe:
        if importlib.util.find_spec("lookalike_arrays") is None:
            return Probe(False, None, "lookalike_arrays is not installed", "pip install it")
        return Probe(True, self.namespace().__version__)

    def namespace(self) -> Namespace:
        import lookalike_arrays  # here, so that naming the backend imports no library

        return lookalike_arrays

    def devices(self) -> list[Device]:
        return list(self.namespace().__array_namespace_info__().devices())

    def device_name(self, device: Device) -> str:
        return str(device).split("'")[1]  # of Device('CPU_DEVICE')

    def default_dtype(self, device: Device) -> DType:
        info = self.namespace().__array_namespace_info__()
        return info.default_dtypes(device=device)["real floating"]

    def owns(self, array: Any) -> bool:
        return type(array).__module__.startswith("lookalike_arrays")

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        return self.namespace().asarray(np.asarray(array), dtype=dtype, device=device)

    def to_host(self, array: Array) -> np.ndarray:
        return np.from_dlpack(array.to_device(self.devices()[0]))


backend = LookalikeBackend()
