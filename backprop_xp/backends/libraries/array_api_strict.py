"""array-api-strict: nothing but the standard, on devices that refuse to mix; for testing."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.doors import explicit
from backprop_xp.backends.dtypes_and_devices import dtype_name, imported, tried
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    Door,
    DType,
    DTypeNotKeptError,
    Namespace,
    Probe,
)

_CONVERSIONS = (
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__iter__"),
    *("__array__", "__buffer__", "__dlpack__"),
)
# What these return has a shape that depends on values, for which the host waits on a GPU.
_SHAPED_BY_VALUES = (
    "nonzero",
    *(f"unique_{what}" for what in ("all", "counts", "inverse", "values")),
)


class ArrayAPIStrictBackend(Backend):
    """A stand-in for a GPU on a machine without one: a wrong transfer or dtype raises."""

    name: ClassVar[str] = "array-api-strict"

    def probe(self) -> Probe:
        return tried("array_api_strict", "array-api-strict", "strict", lambda xp: xp.ones(1) + 1.0)

    def namespace(self) -> Namespace:
        import array_api_strict

        return array_api_strict

    def _info(self) -> Any:
        return self.namespace().__array_namespace_info__()

    def devices(self) -> list[Device]:
        return list(self._info().devices())

    def device(self, name: Any) -> Device:
        """Return the device of that name; ``"cpu"`` is ``CPU_DEVICE``."""
        return super().device("CPU_DEVICE" if name == "cpu" else name)

    def device_name(self, device: Device) -> str:
        return str(device).split("'")[1]

    def default_dtype(self, device: Device) -> DType:
        """Return the device's own default: float64, or float32 where float64 is missing."""
        return self._info().default_dtypes(device=device)["real floating"]

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Refuse 64 bits on the devices that pretend to have none."""
        where = self.devices()[0] if device is None else device
        if dtype not in self._info().dtypes(device=where).values():
            raise DTypeNotKeptError(
                f"array-api-strict keeps no {dtype_name(dtype)} on {self.device_name(where)}. Ask "
                "for one of half the bits, or for another device."
            )

    def owns(self, array: Any) -> bool:
        return type(array).__module__.partition(".")[0] == "array_api_strict"

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        xp = self.namespace()
        return xp.asarray(np.asarray(array), dtype=dtype, device=device)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        return np.from_dlpack(array.to_device(self.device("CPU_DEVICE")))

    def details(self) -> dict[str, str]:
        return {"standard": self.namespace().__array_api_version__}

    def doors(self) -> Sequence[Door]:
        """Return the conversions of the array class, and the ways from a device to the CPU's."""
        xp = imported("array_api_strict")
        if xp is None:
            return ()
        host, kind = self.device("CPU_DEVICE"), type(xp.empty(0))

        def moves(array: Any, device: Any = None, **options: Any) -> bool:
            return isinstance(array, kind) and array.device != host == device

        def masks(array: Any, index: Any, *values: Any) -> bool:
            parts = index if isinstance(index, tuple) else (index,)
            return any(getattr(part, "dtype", None) == xp.bool for part in parts)

        return [
            *(Door(kind, name) for name in _CONVERSIONS),
            *(Door(xp, name) for name in _SHAPED_BY_VALUES),
            Door(kind, "__getitem__", masks),
            *(Door(kind, name, shows=True) for name in ("__repr__", "__str__")),
            Door(kind, "to_device", moves),
            Door(xp, "asarray", moves),
        ]


backend = ArrayAPIStrictBackend()
