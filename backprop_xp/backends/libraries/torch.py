"""PyTorch: its tensors, through array-api-compat's wrapper. No computation needs its autograd."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.dtypes_and_devices import (
    LazyModule,
    dtype_name,
    module_if_imported,
    try_library,
)
from backprop_xp.backends.guard import CONVERSION_METHODS, explicit, holds_a_mask, leaves_by_dlpack
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Conversion,
    Device,
    DType,
    DTypeNotKeptError,
    Memory,
    Namespace,
    Probe,
)
from backprop_xp.backends.scopes import process_wide
from backprop_xp.extras import install_command

torch = LazyModule("torch")
_COMPARISONS = ("equal", "allclose", "is_nonzero")
# The host waits for these: the shape of the result depends on values.
_SHAPED_BY_VALUES = (
    *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"),
)


class TorchBackend(Backend):
    """PyTorch on CPUs, on GPUs of CUDA, and on Apple's GPU (MPS)."""

    name: ClassVar[str] = "torch"
    slices_are_views: ClassVar[bool] = True
    device_kinds: ClassVar[Sequence[str]] = ("cpu", "cuda", "mps")

    @explicit
    def probe(self) -> Probe:
        install = install_command("torch")
        return try_library("torch", "PyTorch", install, lambda torch: torch.ones(1).add(1).numpy())

    def namespace(self) -> Namespace:
        import array_api_compat.torch

        return array_api_compat.torch

    def devices(self) -> list[Device]:
        cuda = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        # With its index, as its tensors have it: torch.device("mps") is not equal.
        mps = [torch.device("mps", 0)] if torch.backends.mps.is_available() else []
        return [torch.device("cpu"), *cuda, *mps]

    def device(self, name: Any) -> Device:
        """Return the device; an error for a missing GPU says whether PyTorch could use one."""
        try:
            return super().device(name)
        except ValueError as error:
            if not str(name).startswith("cuda") or torch.cuda.device_count():
                raise
            reason = "finds no GPU" if torch.backends.cuda.is_built() else "was built without CUDA"
            raise ValueError(f"{error} This PyTorch {reason}.") from None

    def default_dtype(self, device: Device) -> DType:
        return self.namespace().float32

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Raise for 64-bit floating numbers on Apple's GPU, which lacks them."""
        name = dtype_name(dtype)
        if device is not None and device.type == "mps" and name in ("float64", "complex128"):
            raise DTypeNotKeptError(
                f"PyTorch has no {name} on {device}: Apple's GPUs lack it. Use "
                "dtype='float32' or device='cpu'."
            )

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(module_if_imported("torch"), "Tensor", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        self.require_dtype(array.dtype if dtype is None else dtype, device)
        # PyTorch warns when it shares a read-only array, and refuses some strides and byte orders.
        contiguous = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        writable = contiguous if contiguous.flags.writeable else contiguous.copy()
        return torch.from_numpy(writable.reshape(array.shape)).to(device=device, dtype=dtype)

    @explicit
    def to_host(self, array: Array) -> np.ndarray:
        """Return the values; those of a dtype that NumPy lacks, such as bfloat16, as float32."""
        array = array.detach().cpu().resolve_conj().resolve_neg()
        if array.dtype.is_floating_point and not hasattr(np, dtype_name(array.dtype)):
            array = array.float()
        return np.asarray(array.numpy())

    def detach(self, array: Array) -> Array:
        return array.detach()

    def no_grad(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = torch.no_grad()
        return context

    def full_precision(self) -> AbstractContextManager[None]:
        """Forbid TF32 and bfloat16 in float32 products, in the whole process."""
        return _ieee_products()

    def scatter_add(self, total: Array, rows: Array, values: Array) -> Array:
        """Add by ``index_add``; on CUDA the order of a sum may vary."""
        return total.index_add(0, rows, values)  # a new array, which torch.func.vmap needs

    def synchronize(self, device: Device | None = None) -> None:
        kind = None if device is None else device.type
        if kind in (None, "cuda") and torch.cuda.is_available():
            torch.cuda.synchronize(device)
        if kind in (None, "mps") and torch.backends.mps.is_available():
            torch.mps.synchronize()

    def memory(self, device: Device | None = None) -> Memory | None:
        """Return a CUDA device's memory, as CUDA counts it; None for others."""
        if device is None or device.type != "cuda":
            return None  # the default device is the CPU
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total - free, total)

    def details(self) -> dict[str, str]:
        return {"CUDA": torch.version.cuda or "none", "threads": str(torch.get_num_threads())}

    def host_conversions(self) -> Sequence[Conversion]:
        """Return the conversions of tensors, on the CPU too, so that tests need no GPU."""
        modules = [xp for xp in map(module_if_imported, ("torch", "array_api_compat.torch")) if xp]
        if not modules:
            return ()
        tensor, has_mask = torch.Tensor, holds_a_mask(torch.bool, torch.uint8)
        return [
            *(Conversion(tensor, name) for name in (*CONVERSION_METHODS, *_COMPARISONS)),
            *(Conversion(tensor, name) for name in ("item", "tolist", "numpy", "cpu")),
            # The wrapper's equal is entrywise.
            *(Conversion(modules[0], name) for name in _COMPARISONS),
            *(Conversion(tensor, name, shows=True) for name in ("__repr__", "__format__")),
            # A GPU's memory may stay there.
            Conversion(tensor, "__dlpack__", lambda x, **to: x.is_cpu or leaves_by_dlpack(x, **to)),
            Conversion(tensor, "to", _to_cpu),
            *(Conversion(xp, "asarray", _to_cpu) for xp in modules),
            *(Conversion(xp, name) for xp in (tensor, *modules) for name in _SHAPED_BY_VALUES),
            *(Conversion(xp, "where", lambda *args, **kwargs: len(args) == 1) for xp in modules),
            *(Conversion(tensor, name, has_mask) for name in ("__getitem__", "__setitem__")),
        ]


@process_wide
@contextlib.contextmanager
def _ieee_products() -> Iterator[None]:
    settings = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    values = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, values, strict=True):
            setting.fp32_precision = value


def _to_cpu(array: Array, *args: Any, **options: Any) -> bool:
    """Return whether ``x.to`` or ``asarray(x)`` brings a tensor from a GPU to the CPU."""
    if not isinstance(array, torch.Tensor) or array.device.type == "cpu":
        return False
    target = options.get("device", options.get("other", args[0] if args else None))
    if isinstance(target, torch.Tensor):
        target = target.device
    return isinstance(target, str | torch.device) and torch.device(target).type == "cpu"


backend = TorchBackend()
