"""NumPy: the reference, on the CPU."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.libraries.numpy import compilation
from backprop_xp.backends.libraries.numpy.in_place import IN_PLACE
from backprop_xp.backends.libraries.numpy.memory import keep_freed_memory
from backprop_xp.backends.libraries.numpy.reductions import REDUCTIONS
from backprop_xp.backends.libraries.numpy.sigmoids import sigmoid
from backprop_xp.backends.libraries.numpy.updates import RULES
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Conversion,
    Device,
    DType,
    Function,
    Namespace,
    Probe,
)


def _unpack(layout: Any, theta: Array) -> list[tuple[Array, ...]]:
    """Replace ``networks.chain.layout.unpack`` by NumPy's own methods, in half the time."""
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


def _content_of_array(array: Array) -> object:
    """Replace ``backends.closures.content_of_array`` by a digest of the numbers."""
    if array.dtype.hasobject:
        return array
    import hashlib  # 5 ms

    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
    return array.dtype.str, array.shape, digest


@functools.cache
def _classes(n: int) -> Array:
    return np.arange(n, dtype=np.int32)


def _in_columns(outputs: Array, y: Array) -> Array:
    """Replace ``networks.losses.targets.in_columns``, in a fifth of the time."""
    if y.dtype.kind != "i":
        return y
    if outputs.dtype.kind != "f":
        return NotImplemented
    shape = (*y.shape[:-1], outputs.shape[-1])
    return np.equal(y, _classes(shape[-1]), out=np.empty(shape, outputs.dtype))


def _rows_in_cache(array: Array, numbers: int) -> int:
    """Replace ``networks.jets.parts.rows_in_cache``: 256 kB at once are fastest."""
    return max(16, 2**15 // numbers)


def _members_at_once(theta: Array, numbers: int) -> int:
    """Replace ``networks.chain.batch_rows.members_at_once``.

    So many numbers were fastest in ten stacks; half as many took up to 3 % longer, twice as many
    up to 17 %, four times as many up to twice as long.
    """
    return max(1, 2**18 // numbers)


class NumPyBackend(Backend):
    """NumPy 2's own namespace keeps the standard and needs no wrapper."""

    name: ClassVar[str] = "numpy"
    slices_are_views: ClassVar[bool] = True
    device_kinds: ClassVar[Sequence[str]] = ("cpu",)
    replacements: ClassVar[dict[str, Function]] = {
        "backprop_xp.backends.closures.content_of_array": _content_of_array,
        "backprop_xp.networks.layers.activations._sigmoid": sigmoid,
        "backprop_xp.networks.jets.parts.rows_in_cache": _rows_in_cache,
        "backprop_xp.networks.chain.batch_rows.members_at_once": _members_at_once,
        "backprop_xp.networks.chain.layout.unpack": _unpack,
        "backprop_xp.networks.losses.targets.in_columns": _in_columns,
        **IN_PLACE,
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

    def host_conversions(self) -> Sequence[Conversion]:
        """Return none: the arrays are on the host."""
        return ()

    def prepare_training(self) -> None:
        keep_freed_memory()

    def training_replacements(
        self, theta: Array, steps: int | None, rows: int
    ) -> Mapping[str, Function] | None:
        return compilation.replacements_for(theta, steps, rows)

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
