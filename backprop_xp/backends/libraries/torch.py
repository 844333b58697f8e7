"""PyTorch: its tensors, through array-api-compat's wrapper."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.doors import explicit, leaves_by_dlpack
from backprop_xp.backends.dtypes_and_devices import dtype_name, imported, tried
from backprop_xp.backends.process_settings import process_wide
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    Door,
    DType,
    DTypeNotKeptError,
    Memory,
    Namespace,
    Probe,
)

_ANSWERS = ("equal", "allclose", "is_nonzero")
_CONVERSIONS = (
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__iter__", "__array__"),
    *("item", "tolist", "numpy", "cpu", *_ANSWERS),
)
# What these return has a shape that depends on values, for which the host waits.
_SHAPED_BY_VALUES = (
    "nonzero",
    "argwhere",
    "masked_select",
    "unique",
    "unique_consecutive",
    "bincount",
)


class TorchBackend(Backend):
    """Only PyTorch's arrays are used, never its autograd."""

    name: ClassVar[str] = "torch"

    @explicit
    def probe(self) -> Probe:
        return tried("torch", "PyTorch", "torch", lambda torch: torch.ones(1).add(1).numpy())

    def namespace(self) -> Namespace:
        from array_api_compat import torch

        return torch

    def devices(self) -> list[Device]:
        """Return the CPU, every GPU that CUDA shows, and Apple's GPU (MPS)."""
        import torch

        cuda = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        # With its index, as its tensors have it: without, the two would not be equal.
        mps = [torch.device("mps", 0)] if torch.backends.mps.is_available() else []
        return [torch.device("cpu"), *cuda, *mps]

    def default_dtype(self, device: Device) -> DType:
        import torch

        return torch.float32

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Refuse 64-bit floating numbers on Apple's GPU, which lacks them."""
        name = dtype_name(dtype)
        if device is not None and device.type == "mps" and name in ("float64", "complex128"):
            raise DTypeNotKeptError(
                f"PyTorch keeps no {name} on {device}: Apple's GPUs lack it. Ask for "
                "dtype='float32', or for device='cpu'."
            )

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(imported("torch"), "Tensor", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        import torch

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

    def detached(self, array: Array) -> Array:
        return array.detach()

    def unrecorded(self) -> AbstractContextManager[Any]:
        import torch

        context: AbstractContextManager[Any] = torch.no_grad()
        return context

    def full_precision(self) -> AbstractContextManager[None]:
        """Forbid TF32 and bfloat16 in float32 products, in the whole process."""
        return _ieee_products()

    def synchronize(self, device: Device | None = None) -> None:
        import torch

        kind = None if device is None else device.type
        if kind in (None, "cuda") and torch.cuda.is_available():
            torch.cuda.synchronize(device)
        if kind in (None, "mps") and torch.backends.mps.is_available():
            torch.mps.synchronize()

    def memory(self, device: Device | None = None) -> Memory | None:
        """Return a CUDA device's memory, as CUDA counts it; None for others."""
        import torch

        where = self.devices()[0] if device is None else device
        if where.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(where)
        return Memory(total - free, total)

    def details(self) -> dict[str, str]:
        import torch

        return {"CUDA": torch.version.cuda or "none", "threads": str(torch.get_num_threads())}

    def doors(self) -> Sequence[Door]:
        """Return the conversions of tensors, also those of the CPU: there they stand in."""
        torch = imported("torch")
        if torch is None:
            return ()
        compat = imported("array_api_compat.torch")
        moves, masks = _moves(torch), _masks(torch)
        modules = [xp for xp in (torch, compat) if xp is not None]
        return [
            *(Door(torch.Tensor, name) for name in _CONVERSIONS),
            *(Door(torch, name) for name in _ANSWERS),  # the wrapper's equal is another: entrywise
            *(Door(torch.Tensor, name, shows=True) for name in ("__repr__", "__format__")),
            Door(torch.Tensor, "__dlpack__", _exports),
            Door(torch.Tensor, "to", moves),
            *(Door(xp, "asarray", moves) for xp in modules),
            *(Door(xp, name) for xp in (torch.Tensor, *modules) for name in _SHAPED_BY_VALUES),
            *(Door(xp, "where", lambda *given, **by_name: len(given) == 1) for xp in modules),
            *(Door(torch.Tensor, name, masks) for name in ("__getitem__", "__setitem__")),
        ]


@process_wide
@contextlib.contextmanager
def _ieee_products() -> Iterator[None]:
    import torch

    cuda = torch.backends.cuda.matmul
    if not hasattr(cuda, "fp32_precision"):  # before PyTorch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    onednn: Any = torch.backends.mkldnn
    libraries = (cuda, onednn.matmul)
    settings = [library.fp32_precision for library in libraries]
    for library in libraries:
        library.fp32_precision = "ieee"
    try:
        yield
    finally:
        for library, setting in zip(libraries, settings, strict=True):
            library.fp32_precision = setting


def _moves(torch: Any) -> Callable[..., bool]:
    """Return what says whether ``x.to`` or ``asarray(x)`` brings a tensor from a GPU to the CPU."""

    def moves(array: Any, *args: Any, **options: Any) -> bool:
        if not isinstance(array, torch.Tensor) or array.device.type == "cpu":
            return False
        target = options.get("device", options.get("other", args[0] if args else None))
        if isinstance(target, str | torch.device):
            return bool(torch.device(target).type == "cpu")
        return isinstance(target, torch.Tensor) and bool(target.device.type == "cpu")

    return moves


def _masks(torch: Any) -> Callable[..., bool]:
    """Return what says whether an index holds a mask, whose entries the host counts."""

    def masks(array: Any, index: Any, *values: Any) -> bool:
        parts = index if isinstance(index, tuple) else (index,)
        is_one = any(getattr(part, "dtype", None) in (torch.bool, torch.uint8) for part in parts)
        # One number is written under a mask where it is.
        return is_one and all(getattr(value, "ndim", 0) for value in values)

    return masks


def _exports(array: Any, **options: Any) -> bool:
    """Say whether DLPack hands a tensor to the host: a GPU's may stay where it is."""
    return bool(array.device.type == "cpu") or leaves_by_dlpack(array, **options)


backend = TorchBackend()
