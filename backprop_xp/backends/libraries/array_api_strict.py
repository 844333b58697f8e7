"""array-api-strict: exactly the standard, on devices whose arrays do not mix; for testing."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.dtypes_and_devices import dtype_name, module_if_imported, try_library
from backprop_xp.backends.guard import CONVERSION_METHODS, explicit, holds_a_mask
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

# The host waits for these on a GPU: the shape of the result depends on values.
_SHAPED_BY_VALUES = (
    *("nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values"),
)


class ArrayAPIStrictBackend(Backend):
    """A stand-in for a GPU on a machine without one: a wrong transfer or dtype raises."""

    name: ClassVar[str] = "array-api-strict"
    device_kinds: ClassVar[Sequence[str]] = (
        *("cpu", "CPU_DEVICE", "device1", "device2", "no_float64", "no_x64"),
    )

    def probe(self) -> Probe:
        library = "array-api-strict"
        install = install_command("strict")
        return try_library("array_api_strict", library, install, lambda xp: xp.ones(1) + 1.0)

    def namespace(self) -> Namespace:
        import array_api_strict

        return array_api_strict

    def devices(self) -> list[Device]:
        return list(self.namespace().__array_namespace_info__().devices())

    def device(self, name: Any) -> Device:
        """Return the device of that name; ``"cpu"`` is ``CPU_DEVICE``."""
        return super().device("CPU_DEVICE" if name == "cpu" else name)

    def device_name(self, device: Device) -> str:
        return str(device).split("'")[1]

    def default_dtype(self, device: Device) -> DType:
        """Return the device's own default: float64, or float32 where float64 is missing."""
        info = self.namespace().__array_namespace_info__()
        return info.default_dtypes(device=device)["real floating"]

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Raise for 64 bits on the devices that simulate hardware without them."""
        where = self.devices()[0] if device is None else device
        if dtype not in self.namespace().__array_namespace_info__().dtypes(device=where).values():
            raise DTypeNotKeptError(
                f"array-api-strict has no {dtype_name(dtype)} on {self.device_name(where)}. Use a "
                "dtype of half the bits, or another device."
            )

    def owns(self, array: Any) -> bool:
        return type(array).__module__.partition(".")[0] == "array_api_strict"

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        return self.namespace().asarray(np.asarray(array), dtype=dtype, device=device)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        return np.from_dlpack(array.to_device(self.device("CPU_DEVICE")))

    def details(self) -> dict[str, str]:
        return {"standard": self.namespace().__array_api_version__}

    def host_conversions(self) -> Sequence[Conversion]:
        """Return the conversions of the array class, and the ways from a device to the CPU's."""
        xp = module_if_imported("array_api_strict")
        if xp is None:
            return ()
        host, kind = self.device("CPU_DEVICE"), type(xp.empty(0))

        def moves(array: Array, device: Device = None, **options: object) -> bool:
            return isinstance(array, kind) and array.device != host == device

        return [
            *(Conversion(kind, name) for name in (*CONVERSION_METHODS, "__buffer__", "__dlpack__")),
            *(Conversion(xp, name) for name in _SHAPED_BY_VALUES),
            *(Conversion(kind, name, shows=True) for name in ("__repr__", "__str__")),
            *(
                Conversion(holder, name, moves)
                for holder, name in ((kind, "to_device"), (xp, "asarray"))
            ),
            Conversion(kind, "__getitem__", holds_a_mask(xp.bool)),
        ]


backend = ArrayAPIStrictBackend()
