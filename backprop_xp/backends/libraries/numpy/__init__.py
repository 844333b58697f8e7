"""NumPy: the reference, on the CPU."""

from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.libraries.numpy import compilation
from backprop_xp.backends.libraries.numpy.reductions import REDUCTIONS
from backprop_xp.backends.libraries.numpy.updates import RULES
from backprop_xp.backends.protocol import Array, Backend, Device, DType, Function, Namespace, Probe


def _unpack(layout: Any, theta: Array) -> list[tuple[Array, ...]]:
    """Replace ``networks.layout.unpack`` by NumPy's own methods, in half the time."""
    stack = theta.shape[:-1]
    return [
        tuple(
            [
                theta[..., None, parameter.part]
                if parameter.shape[:-1] == (1,)
                else theta[..., parameter.part].reshape(stack + parameter.shape)
                for parameter in layer
            ]
        )
        for layer in layout
    ]


def _rows_at(array: Array, indices: Array) -> Array:
    """Replace ``networks.inputs.rows_at``; NumPy takes rows by axis 0 in half the time."""
    return array.take(indices, array.ndim - 2) if indices.ndim == 1 else NotImplemented


# By the names of the activations' functions: the same, written over z.
_IN_PLACE: dict[str, Function] = {
    "_relu": lambda z: np.maximum(z, 0.0, out=z),
    "_tanh": lambda z: np.tanh(z, out=z),
}


def _activated(z: Array, activation: Any, bias: Array | None = None) -> Any:
    """Replace ``networks.activations.activated`` by functions that need no memory of their own."""
    function = activation.value
    in_place = _IN_PLACE.get(getattr(function, "__name__", ""))
    is_ours = getattr(function, "__module__", "") == "backprop_xp.networks.activations"
    may_write = activation.from_output and bias is not None and z.dtype.kind == "f"
    if in_place is None or not is_ours or not may_write:
        return NotImplemented
    z += bias
    return None, in_place(z)


class NumPyBackend(Backend):
    """NumPy 2's own namespace keeps the standard and needs no wrapper."""

    name: ClassVar[str] = "numpy"
    replacements: ClassVar[dict[str, Function]] = {
        "backprop_xp.networks.activations.activated": _activated,
        "backprop_xp.networks.inputs.rows_at": _rows_at,
        "backprop_xp.networks.layout.unpack": _unpack,
        **REDUCTIONS,
        **RULES,
    }

    def probe(self) -> Probe:
        return Probe(True, np.__version__)

    def namespace(self) -> Namespace:
        return np

    def devices(self) -> list[Device]:
        return ["cpu"]

    def default_dtype(self, device: Device) -> DType:
        return np.float64

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray | np.generic)

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        return np.asarray(array, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def kernels(self, theta: Array, updates: float, operations: float) -> Any:
        return compilation.kernels_for(theta, updates, operations)

    def details(self) -> dict[str, str]:
        """Return NumPy's BLAS, its threads if threadpoolctl is there, and what is compiled."""
        config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
        blas = config.get("Build Dependencies", {}).get("blas", {})
        words = (str(blas[key]) for key in ("name", "version") if blas.get(key))
        found = {"BLAS": " ".join(words) or "unknown", "BLAS threads": _blas_threads()}
        return {**found, "compiled loops": compilation.state()}


def _blas_threads() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return "unknown (pip install threadpoolctl)"
    # Another library may bring a BLAS of its own.
    counts = {str(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"}
    return ", ".join(sorted(counts)) or "unknown to threadpoolctl"


backend = NumPyBackend()
