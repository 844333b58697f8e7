"""JAX: arrays that XLA compiles, on CPUs, GPUs and TPUs."""

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from backprop_xp.backends.dtypes_and_devices import imported, tried
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    Device,
    DType,
    DTypeNotKeptError,
    Memory,
    Namespace,
    Probe,
)

_NOTE = (
    "backprop_xp compiles this for JAX as a whole: a layer, loss or optimiser of your own may not "
    "look at the values of its arrays. To look at them while you search for a mistake: with "
    "jax.disable_jit():"
)
_FEW = 2**14  # elements; measured on networks of 340 to 670,000


def _pack(layout: Any, values: Sequence[Sequence[Array]], stack: tuple[int, ...]) -> Array:
    """Replace ``networks.layout.pack`` so that XLA does not fuse it with what follows.

    Joined in the open, the parts of a gradient are fused into whatever uses it, which then looks
    for the part that each element lies in: four times the rest of a step for a network of 670,000
    parameters on a CPU (JAX 0.10). A branch is not fused; it costs more than it saves where there
    are few parameters. Branches are functions of this module: where nothing is traced, JAX would
    compile new ones at each call, and keep them.
    """
    import jax
    from jax import numpy as xp

    lengths = [place.length for places in layout for place in places]
    flat = [
        xp.reshape(value, (*stack, length))
        for value, length in zip((v for layer in values for v in layer), lengths, strict=True)
    ]
    if math.prod(stack) * sum(lengths) < _FEW:
        return xp.concat(flat, axis=-1)
    barrier: Any = jax.lax.optimization_barrier
    always = barrier(xp.asarray(True))  # the compiler cannot tell
    return jax.lax.cond(always, _concat, _empty, flat)


def _concat(flat: list[Array]) -> Array:
    import jax

    return jax.numpy.concat(flat, axis=-1)


def _empty(flat: list[Array]) -> Array:
    import jax

    return jax.numpy.zeros_like(_concat(flat))


def _copy_of(array: Array) -> Array:
    """Replace ``backprop_xp.training.pytrees.copy_of``: nothing is compiled for the array's shape.

    What JAX compiles it keeps for ever, more than 1 MB for each shape.
    """
    import jax

    if isinstance(array, jax.core.Tracer):
        return jax.numpy.array(array, copy=True)
    return jax.device_put(array, array.sharding, may_alias=False)


def _zeros_like(array: Array) -> Array:
    """Replace ``training.pytrees.zeros_like``: nothing is compiled, as in ``_copy_of``."""
    import jax

    if isinstance(array, jax.core.Tracer):
        return jax.numpy.zeros_like(array)
    return jax.device_put(np.zeros(array.shape, array.dtype), array.sharding, may_alias=False)


class JAXBackend(Backend):
    """jax.numpy keeps the standard; float64 needs JAX_ENABLE_X64, which is the user's to set."""

    name: ClassVar[str] = "jax"
    replacements: ClassVar[dict[str, Callable[..., Any]]] = {
        "backprop_xp.networks.layout.pack": _pack,
        "backprop_xp.training.pytrees.copy_of": _copy_of,
        "backprop_xp.training.pytrees.zeros_like": _zeros_like,
    }

    def probe(self) -> Probe:
        found = tried("jax", "JAX", "jax", _work)
        jax = imported("jax")
        asked = None if jax is None else jax.config.jax_platforms
        if found.usable or not asked:
            return found
        return found._replace(hint=f"unset JAX_PLATFORMS, or install what JAX needs for {asked!r}")

    def namespace(self) -> Namespace:
        from jax import numpy as xp

        return xp

    def devices(self) -> list[Device]:
        """Return the devices of the default platform, then the CPU."""
        import jax

        devices: list[Device] = jax.devices()
        return devices + [device for device in jax.devices("cpu") if device not in devices]

    def device_name(self, device: Device) -> str:
        """Return ``"cpu:0"``, ``"cuda:0"`` and so on; a sharding over several as it is."""
        platform = getattr(device, "platform", None)
        kind = "cuda" if platform == "gpu" else platform
        return str(device) if kind is None else f"{kind}:{device.id}"

    def default_dtype(self, device: Device) -> DType:
        return self.namespace().float32

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Refuse 64 bits without x64: JAX would halve them with a mere warning."""
        import jax

        kept = jax.dtypes.canonicalize_dtype(dtype)
        if kept != np.dtype(dtype):
            raise DTypeNotKeptError(f"{_needs_x64(dtype)}, or ask for dtype={kept.name!r}.")

    def owns(self, array: Any) -> bool:
        return isinstance(array, getattr(imported("jax"), "Array", ()))

    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        """Return the array's values on a device; float64 without x64 is an error.

        So are integers that 32 bits do not hold; others become int32, as JAX keeps them.
        """
        import jax

        wanted = array.dtype if dtype is None else dtype
        kept = jax.dtypes.canonicalize_dtype(wanted)
        if dtype is not None or array.dtype.kind in "fc":
            self.require_dtype(wanted)
        elif kept != wanted:
            _require_fit(array, kept)
        return jax.device_put(np.asarray(array, dtype=kept), device)

    def to_host(self, array: Array) -> np.ndarray:
        """Return the values; those of a dtype that NumPy lacks, such as bfloat16, as float32."""
        import jax

        # The one transfer that JAX's own guard takes for explicit.
        host = np.asarray(jax.device_get(array))
        is_floating = jax.numpy.issubdtype(host.dtype, jax.numpy.floating)
        return host.astype(np.float32) if is_floating and host.dtype.kind != "f" else host

    def transfer_guard(self, mode: str) -> AbstractContextManager[Any]:
        """Return JAX's guard, which does nothing on the CPU."""
        jax = imported("jax")
        guard: AbstractContextManager[Any] = (
            nullcontext() if jax is None else jax.transfer_guard_device_to_host(mode)
        )
        return guard

    def synchronize(self, device: Device | None = None) -> None:
        import jax

        jax.device_put(0, device).block_until_ready()

    def full_precision(self) -> AbstractContextManager[None]:
        """Ask for float32 products in full: on GPUs and TPUs JAX's default is TF32 or bfloat16."""
        import jax

        context: AbstractContextManager[None] = jax.default_matmul_precision("highest")
        return context

    def compile(
        self, function: Callable[..., Any], *, donate: Sequence[int] = ()
    ) -> Callable[..., Any]:
        """Return ``jax.jit(function)``, whose errors of tracing say what is compiled."""
        import jax

        compiled: Callable[..., Any] = jax.jit(function, donate_argnums=tuple(donate))

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            try:
                return compiled(*arguments)
            except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
                if _NOTE not in getattr(error, "__notes__", ()):  # by a function compiled within
                    error.add_note(_NOTE)
                raise

        return call

    def loop(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``jax.lax.fori_loop`` over steps, compiled; ``jax.lax.scan`` takes all of them."""
        import jax

        traced = jax.jit(step)  # once, for the outputs' shapes and for the loop

        def loop(carry: Any, columns: Any, first: Any, last: Any, *shared: Any) -> Any:
            def take(number: Any, now: tuple[Any, Any]) -> tuple[Any, Any]:
                given = jax.tree.map(lambda column: column[number], columns)
                carry, output = traced(now[0], given, *shared)
                return carry, jax.tree.map(lambda a, new: a.at[number].set(new), now[1], output)

            row = jax.tree.map(lambda column: column[0], columns)
            count = jax.tree.leaves(columns)[0].shape[0]
            outputs = jax.tree.map(
                lambda output: jax.numpy.zeros((count, *output.shape), output.dtype),
                jax.eval_shape(traced, carry, row, *shared)[1],
            )
            return jax.lax.fori_loop(first, last, take, (carry, outputs))

        return self.compile(loop, donate=(0,))

    def memory(self, device: Device | None = None) -> Memory | None:
        """Return what XLA's allocator has given out, and its limit; None on a CPU."""
        stats = (self.devices()[0] if device is None else device).memory_stats() or {}
        used, total = stats.get("bytes_in_use"), stats.get("bytes_limit")
        return None if used is None or total is None else Memory(used, total)

    def details(self) -> dict[str, str]:
        import jax

        x64 = "on" if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 else "off"
        return {"default platform": jax.default_backend(), "x64": x64}


def _work(jax: Any) -> None:
    try:
        jax.numpy.ones(1).block_until_ready()
    except AssertionError as error:  # without a word, where JAX_PLATFORMS names what is not here
        asked = jax.config.jax_platforms
        raise RuntimeError(f"no device of JAX_PLATFORMS={asked!r} answers") from error


def _require_fit(array: np.ndarray, kept: np.dtype) -> None:
    """Raise ValueError unless a smaller integer dtype holds the array's values: it would wrap."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < np.iinfo(kept).min or high > np.iinfo(kept).max:
        raise DTypeNotKeptError(
            f"integers from {low} to {high} do not fit in {kept}. {_needs_x64(array.dtype)}, or "
            "ask for dtype='float32'."
        )


def _needs_x64(dtype: DType) -> str:
    return (
        f"JAX keeps no {np.dtype(dtype)} unless the environment sets JAX_ENABLE_X64=1 before JAX "
        "is imported. Set that"
    )


backend = JAXBackend()
