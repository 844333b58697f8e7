"""JAX: arrays that XLA compiles, on CPUs, GPUs and TPUs."""

import functools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from backprop_xp.backends.closures import Identity
from backprop_xp.backends.dtypes_and_devices import (
    LazyModule,
    module_if_imported,
    same_device,
    try_library,
)
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Conversion,
    Device,
    DType,
    DTypeNotKeptError,
    Function,
    Memory,
    Namespace,
    Probe,
)
from backprop_xp.extras import install_command

jax = LazyModule("jax")
_NOTE = (
    "backprop_xp compiles this for JAX as a whole: your own layer, loss or optimizer cannot read "
    "the values of its arrays. For debugging, disable the compilation: with jax.disable_jit():"
)
_FEW = 2**14  # elements; measured on networks of 340 to 670,000


def _concat(flat: list[Array]) -> Array:
    return jax.numpy.concat(flat, axis=-1)


def _zeros(flat: list[Array]) -> Array:
    return jax.numpy.zeros_like(_concat(flat))


def _pack(layout: Any, values: Sequence[Sequence[Array]], stack: tuple[int, ...]) -> Array:
    """Replace ``networks.chain.layout.pack`` so that XLA does not fuse it with its user.

    A fused user searches the part of the gradient that holds each element. For 670,000 parameters
    on a CPU this takes four times the rest of a step (JAX 0.10). XLA does not fuse a branch;
    for few parameters a branch costs more than it saves. The branches are functions of this module,
    since without tracing JAX would compile new ones at each call, and keep them.
    """
    arrays = [array for layer in values for array in layer]
    lengths = [part.length for parts in layout for part in parts]
    flat = [a.reshape((*stack, n)) for a, n in zip(arrays, lengths, strict=True)]
    if math.prod(stack) * sum(lengths) < _FEW:
        return _concat(flat)
    always = jax.lax.optimization_barrier(jax.numpy.asarray(True))  # the compiler cannot tell
    return jax.lax.cond(always, _concat, _zeros, flat)


def _copy_of(array: Array) -> Array:
    """Replace ``pytrees.copy_of`` of trainings without compiling anything for the array's shape.

    JAX never frees what it compiles, more than 1 MB for each shape.
    """
    if isinstance(array, jax.core.Tracer):
        return jax.numpy.array(array, copy=True)
    return jax.device_put(array, array.sharding, may_alias=False)


def _zeros_like(array: Array) -> Array:
    """Replace ``training.optimizers.pytrees.zeros_like`` for the same reason."""
    if isinstance(array, jax.core.Tracer):
        return jax.numpy.zeros_like(array)
    return jax.device_put(np.zeros(array.shape, array.dtype), array.sharding, may_alias=False)


def _sharding(mesh: Any, *spec: Any) -> Any:
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))


def _require_same_device(theta: Array, value: Array, name: str, other: str = "theta") -> Any:
    """Replace ``backends.compatibility.require_same_device`` if one of the arrays is on a mesh."""
    device = backend.device_of(theta)
    its_device = backend.device_of(value) if backend.owns(value) else ""
    mesh: Any = getattr(device, "mesh", getattr(its_device, "mesh", None))
    if mesh is None or same_device(device, its_device):
        return NotImplemented
    here, there = (name, other) if hasattr(device, "mesh") else (other, name)
    array = here if here.isidentifier() else "array"
    raise ValueError(
        f"{here} is not on the mesh of {there}. Put it there: {array} = jax.device_put({array}, "
        f"NamedSharding(mesh, P())), or P({mesh.axis_names[0]!r}) to divide its first axis."
    )


def _agreed(array: Array, number: int) -> int:
    """Replace ``backends.arrays.agreed``."""
    if array.is_fully_addressable:
        return number
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return int(broadcast_one_to_all(np.int32(number)))


def _content_of_array(array: Array) -> object:
    """Replace ``backends.closures.content_of_array``: JAX's arrays do not change."""
    return Identity(array)


def _moved(first: Array, arrays: Sequence[Array]) -> list[np.ndarray]:
    """Replace ``backends.arrays._moved``, which compiles for each number of arrays."""
    # All copies are started before the first is waited for, and kept by their arrays.
    jax.device_get([array for array in arrays if array.is_fully_addressable])
    return [backend.to_host(array) for array in arrays]


class _Divide(NamedTuple):
    """The division of rows over axes of a mesh."""

    mesh: Any
    axes: str | tuple[str, ...]

    def __call__(self, rows: Array) -> Array:
        is_traced = isinstance(rows, jax.core.Tracer)
        free = jax.sharding.PartitionSpec.UNCONSTRAINED if is_traced else None
        where = _sharding(self.mesh, *[free] * (len(rows.shape) - 2), self.axes, free)
        if is_traced:
            return jax.lax.with_sharding_constraint(rows, where)
        try:
            return jax.device_put(rows, where)
        except ValueError:  # without tracing, JAX divides only evenly
            return rows


def _divider(x: Array) -> Function | None:
    """Replace ``chain.batch_rows.divider`` of networks; compiled functions keep it constant."""
    spec = dict(enumerate(getattr(getattr(x, "sharding", None), "spec", ())))
    axes = spec.get(len(x.shape) - 2)
    return jax.tree_util.Partial(_Divide(x.sharding.mesh, axes)) if axes else None


def _summed(part: Array) -> Array:
    """Replace ``networks.jets.parts.summed`` by sums of halves, which XLA fuses with their users.

    A CPU writes the terms of a sum over the first axis, and reads them far apart: a Laplacian of
    2 to 128 inputs with its gradient took 1.4 to 1.7 times as long (JAX 0.10).
    """
    if not isinstance(part, jax.core.Tracer):
        return NotImplemented
    odd = []
    while (count := part.shape[0]) > 1:
        half = count // 2
        odd += [part[-1:]] if count % 2 else []
        part = part[:half] + part[half : 2 * half]
    return sum(odd, part)


class JAXBackend(Backend):
    """jax.numpy keeps the standard; float64 needs JAX_ENABLE_X64, which the user sets."""

    name: ClassVar[str] = "jax"
    device_kinds: ClassVar[Sequence[str]] = ("cpu", "cuda", "tpu")
    replacements: ClassVar[dict[str, Function]] = {
        "backprop_xp.backends.arrays.agreed": _agreed,
        "backprop_xp.backends.arrays._moved": _moved,
        "backprop_xp.backends.closures.content_of_array": _content_of_array,
        "backprop_xp.backends.compatibility.require_same_device": _require_same_device,
        "backprop_xp.networks.chain.batch_rows.divider": _divider,
        "backprop_xp.networks.jets.parts.summed": _summed,
        "backprop_xp.networks.chain.layout.pack": _pack,
        "backprop_xp.training.optimizers.pytrees.copy_of": _copy_of,
        "backprop_xp.training.optimizers.pytrees.zeros_like": _zeros_like,
    }

    def probe(self) -> Probe:
        probe = try_library("jax", "JAX", install_command("jax"), _work)
        platforms = None if module_if_imported("jax") is None else jax.config.jax_platforms
        if probe.usable or not platforms:
            return probe
        hint = f"unset JAX_PLATFORMS, or install what JAX needs for {platforms!r}"
        return probe._replace(hint=hint)

    def namespace(self) -> Namespace:
        return jax.numpy

    def devices(self) -> list[Device]:
        """Return the devices of the default platform, then the CPU."""
        devices: list[Device] = jax.devices()
        return devices + [device for device in jax.devices("cpu") if device not in devices]

    def device(self, name: Any) -> Device:
        """Return the device, or the sharding over several as it is.

        An error has JAX's reason for a missing platform.
        """
        if isinstance(name, jax.sharding.Sharding):
            return name
        try:
            return super().device(name)
        except ValueError as error:
            try:
                jax.devices(str(name).partition(":")[0])
            except RuntimeError as cause:
                raise ValueError(f"{error} JAX finds no such platform: {cause}.") from None
            raise

    def require_current(self, device: Device, name: str) -> None:
        """Raise ValueError for a mesh of ``AxisType.Explicit``, on which JAX refuses a gather."""
        mesh: Any = getattr(device, "mesh", None)
        if "Explicit" in str(getattr(mesh, "axis_types", "")):
            raise ValueError(
                f"{name} is on a mesh of AxisType.Explicit, the default of jax.make_mesh. Make one "
                f"of AxisType.Auto: jax.make_mesh({tuple(mesh.shape.values())}, {mesh.axis_names}, "
                f"axis_types=(AxisType.Auto,) * {len(mesh.axis_names)})."
            )

    def device_name(self, device: Device) -> str:
        """Return ``"cpu:0"``, ``"cuda:0"`` and so on; a sharding over several as it is."""
        platform = getattr(device, "platform", None)
        kind = "cuda" if platform == "gpu" else platform
        return str(device) if kind is None else f"{kind}:{device.id}"

    def default_dtype(self, device: Device) -> DType:
        return self.namespace().float32

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Raise for 64 bits without x64: JAX would halve them with only a warning."""
        kept = jax.dtypes.canonicalize_dtype(dtype)
        if kept != np.dtype(dtype):
            raise DTypeNotKeptError(f"{_needs_x64(dtype)}, or use dtype={kept.name!r}.")

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(module_if_imported("jax"), "Array", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        """Return the array's values on a device; float64 without x64 is an error.

        Integers then become int32, as JAX keeps them; values that do not fit are an error.
        """
        wanted = array.dtype if dtype is None else dtype
        kept = jax.dtypes.canonicalize_dtype(wanted)
        if dtype is not None or array.dtype.kind in "fc":
            self.require_dtype(wanted)
        elif kept != wanted:
            _require_fit(array, kept)
        return jax.device_put(np.asarray(array, dtype=kept), device)

    def to_host(self, array: Array) -> np.ndarray:
        """Return the values; those of a dtype that NumPy lacks, such as bfloat16, as float32."""
        if not (array.is_fully_addressable or array.is_fully_replicated):
            array = jax.device_put(array, self.device_of(array))  # by a call of every process
        host = np.asarray(jax.device_get(array))  # the one explicit transfer for JAX's own guard
        is_floating = jax.numpy.issubdtype(host.dtype, jax.numpy.floating)
        return host.astype(np.float32) if is_floating and host.dtype.kind != "f" else host

    def host_conversions(self) -> Sequence[Conversion]:
        """Return none: JAX has its own guard."""
        return ()

    def transfer_guard(self, mode: str) -> AbstractContextManager[object]:
        """Return JAX's guard, which does nothing on the CPU."""
        context: AbstractContextManager[object] = nullcontext()
        if module_if_imported("jax") is not None:
            context = jax.transfer_guard_device_to_host(mode)
        return context

    def device_of(self, array: Array) -> Device:
        """Return the device; of an array on a mesh, the sharding that replicates over the mesh.

        It is None for a tracer.
        """
        device: Any = getattr(array, "device", None)
        return _sharding(device.mesh) if hasattr(device, "mesh") else device

    def scatter_add(self, total: Array, rows: Array, values: Array) -> Array:
        return total.at[rows].add(values)

    def synchronize(self, device: Device | None = None) -> None:
        jax.device_put(0, device).block_until_ready()

    def full_precision(self) -> AbstractContextManager[None]:
        """Compute float32 products in full: on GPUs and TPUs JAX's default is TF32 or bfloat16."""
        context: AbstractContextManager[None] = jax.default_matmul_precision("highest")
        return context

    def double_precision(self) -> AbstractContextManager[None]:
        """Return JAX's context of x64, in this thread alone."""
        context: AbstractContextManager[None] = jax.enable_x64(True)
        return context

    def compile(self, function: Function, *, donate: Sequence[int] = ()) -> Function:
        """Return ``jax.jit(function)``, whose errors of tracing explain the compilation."""
        compiled = jax.jit(function, donate_argnums=tuple(donate))

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            try:
                return compiled(*arguments)
            except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
                if _NOTE not in getattr(error, "__notes__", ()):  # from a function compiled within
                    error.add_note(_NOTE)
                raise

        return call

    def loop(self, step: Function) -> Function:
        """Return ``jax.lax.fori_loop`` over steps, compiled; ``jax.lax.scan`` takes all of them."""
        traced, tree = jax.jit(step), jax.tree.map  # once, for the outputs' shapes and for the loop

        def loop(carry: Any, columns: Any, first: Any, last: Any, *shared: Any) -> Any:
            def take(number: Any, now: tuple[Any, Any]) -> tuple[Any, Any]:
                given = tree(lambda column: column[number], columns)
                carry, output = traced(now[0], given, *shared)
                return carry, tree(lambda a, new: a.at[number].set(new), now[1], output)

            row = tree(lambda column: column[0], columns)
            count = jax.tree.leaves(columns)[0].shape[0]
            outputs = tree(
                lambda output: jax.numpy.zeros((count, *output.shape), output.dtype),
                jax.eval_shape(traced, carry, row, *shared)[1],
            )
            return jax.lax.fori_loop(first, last, take, (carry, outputs))

        return self.compile(loop, donate=(0,))

    def memory(self, device: Device | None = None) -> Memory | None:
        """Return the bytes in use by XLA's allocator, and its limit; None on a CPU or a mesh."""
        stats: Any = getattr(device or self.devices()[0], "memory_stats", dict)() or {}
        used, total = stats.get("bytes_in_use"), stats.get("bytes_limit")
        return None if used is None or total is None else Memory(used, total)

    def details(self) -> dict[str, str]:
        x64 = "on" if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 else "off"
        return {"default platform": jax.default_backend(), "x64": x64}


def _work(_: ModuleType) -> None:
    try:
        jax.numpy.ones(1).block_until_ready()
    except AssertionError as error:  # without a message, if JAX_PLATFORMS names a missing platform
        platforms = jax.config.jax_platforms
        raise RuntimeError(f"no device of JAX_PLATFORMS={platforms!r} answers") from error


def _require_fit(array: np.ndarray, kept: np.dtype) -> None:
    """Raise DTypeNotKeptError for integers that would wrap around in a smaller dtype."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < np.iinfo(kept).min or high > np.iinfo(kept).max:
        raise DTypeNotKeptError(
            f"integers from {low} to {high} do not fit in {kept}. {_needs_x64(array.dtype)}, or "
            "use dtype='float32'."
        )


def _needs_x64(dtype: DType) -> str:
    return (
        f"JAX has no {np.dtype(dtype)} unless the environment sets JAX_ENABLE_X64=1 before JAX "
        "is imported. Set it"
    )


backend = JAXBackend()
