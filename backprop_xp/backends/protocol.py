"""The protocol of a backend: what the maths needs beyond the array API standard."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np

# Each library spells the standard's types differently: docstrings give shapes and dtypes.
Array: TypeAlias = Any
Namespace: TypeAlias = Any
Device: TypeAlias = Any
DType: TypeAlias = Any
Function: TypeAlias = Callable[..., Any]


class BackendUnavailableError(RuntimeError):
    """A backend cannot run on this machine; the message gives the reason and a way out.

    >>> import backprop_xp as bx
    >>> try:
    ...     chosen = bx.get_backend("cupy")
    ... except bx.BackendUnavailableError:
    ...     chosen = bx.get_backend("numpy")
    """


class DTypeNotKeptError(ValueError):
    """A library or a device does not keep a dtype; the message gives the reason and a way out."""


class Probe(NamedTuple):
    """The result of trying a backend: whether it runs here; if not, the reason and a hint."""

    usable: bool
    version: str | None
    reason: str = ""
    hint: str = ""


class Memory(NamedTuple):
    """Bytes of a device's memory: those that the library uses, and the total."""

    used: int
    total: int


class Conversion(NamedTuple):
    """A function, attribute ``name`` of a class or module, through which values leave for the host.

    The array is its first argument. ``moves`` takes a call's arguments and returns whether values
    leave. ``shows`` marks ``repr`` and the like, which a guard logs and never refuses.
    """

    holder: Any
    name: str
    moves: Callable[..., bool] = lambda *args, **kwargs: True
    shows: bool = False


class Backend(Protocol):
    """An array library, described by the few things that the standard leaves out.

    A device is the library's own object. Each backend writes the methods up to ``to_host``. The
    defaults of the others suit a library that computes immediately, exactly, and on the device of
    its arrays.

    ``device_kinds`` are the first words of the names that its devices may have on some machine,
    such as ``"cuda"`` of ``"cuda:0"``. An error for a device that another backend lacks names this
    one.

    ``replacements`` maps the qualified name of a reference function, such as
    ``"backprop_xp.training.optimizers.first_order.Adam.rule"``, to a faster function with the same
    signature and results.

    With ``slices_are_views`` a slice, also a reshaped one, shares the memory of its array, and
    arithmetic in place writes into that memory. A training then slices theta once. The standard
    leaves it open, so that a training on another library slices theta at each step.
    """

    name: ClassVar[str]
    device_kinds: ClassVar[Sequence[str]] = ()
    replacements: ClassVar[dict[str, Function]] = {}
    slices_are_views: ClassVar[bool] = False

    @abstractmethod
    def probe(self) -> Probe:
        """Try the library with a small computation; never raise."""

    @abstractmethod
    def namespace(self) -> Namespace:
        """Return the library's array API namespace; import the library if needed."""

    @abstractmethod
    def devices(self) -> list[Device]:
        """Return the devices that a user can name, the default one first."""

    @abstractmethod
    def default_dtype(self, device: Device) -> DType:
        """Return the floating dtype for ``device`` when nobody chooses one."""

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Return whether ``array`` is one of this library's arrays."""

    @abstractmethod
    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        """Return a NumPy array's values on ``device``; ``dtype`` None keeps the array's dtype."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """Return an array's values as a NumPy array, after waiting for them."""

    def device_of(self, array: Array) -> Device:
        """Return the device of an array of the library: its attribute, or array-api-compat's."""
        if (device := getattr(array, "device", None)) is not None:
            return device
        import array_api_compat  # 1 ms

        return array_api_compat.device(array)

    def detach(self, array: Array) -> Array:
        """Return the array without recording of automatic differentiation."""
        return array

    def no_grad(self) -> AbstractContextManager[object]:
        """Return a context without recording of automatic differentiation."""
        return nullcontext()

    def device(self, name: Any) -> Device:
        """Return the device that ``name``, a string or the library's own object, means.

        ``"cuda"`` is the first of ``"cuda:0"``, ``"cuda:1"``. An unknown name is a ValueError.
        """
        devices = self.devices()
        for device in devices:
            if name == device or name == self.device_name(device):
                return device
        for device in devices:
            if self.device_name(device).startswith(f"{name}:"):
                return device
        known = ", ".join(self.device_name(device) for device in devices)
        raise ValueError(f"device {name!r} is unknown to the {self.name} backend. Known: {known}.")

    def device_name(self, device: Device) -> str:
        """Return the name that ``device`` takes for this device."""
        return str(device)

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Raise ``DTypeNotKeptError`` for a dtype that the library or ``device`` does not keep."""
        return

    def require_current(self, device: Device, name: str) -> None:
        """Raise ValueError unless ``device`` is the library's current one.

        The message names an array, ``name``, and tells how to change the current device.
        """
        return

    def accelerators(self) -> Sequence[Device]:
        """Return the devices for which the name ``"auto"`` prefers this backend to NumPy.

        Only a backend that overrides this method is tried for that name. It is called after a probe
        that succeeds.
        """
        return ()

    def synchronize(self, device: Device | None = None) -> None:
        """Wait until the queued work on ``device`` is done."""
        return

    def memory(self, device: Device | None = None) -> Memory | None:
        """Return the memory of ``device``, or None if the library does not report it."""
        return None

    def background_copies(self, device: Device | None = None) -> AbstractContextManager[object]:
        """Return a context in which a second thread moves arrays to ``device``.

        At its end the arrays have arrived, and any stream may use them.
        """
        return nullcontext()

    def mpi_buffers(self) -> bool:
        """Return whether mpi4py can send the memory of the library's arrays as it is.

        A training of several processes then sums gradients on the devices, if the MPI library reads
        their memory. Otherwise it sums them on the host.
        """
        return False

    def full_precision(self) -> AbstractContextManager[None]:
        """Return a context in which products keep all digits of their dtype.

        A gradient check enters it. TF32 and bfloat16 keep three or two of float32's seven digits;
        three real products for a complex one lose a tiny imaginary part. Blocks of several threads
        may overlap, and each keeps its digits to its end.
        """
        return nullcontext()

    def double_precision(self) -> AbstractContextManager[None]:
        """Return a context in which arrays may be float64, if the library can turn that on.

        The checks of networks, layers and losses enter it.
        """
        return nullcontext()

    def scatter_add(self, total: Array, rows: Array, values: Array) -> Array | None:
        """Return ``total`` plus each row of ``values`` at its index; None without such a function.

        ``total`` is ``(count, n)``, a new array that may be written, ``rows`` are integers ``(k,)``
        that may repeat, and ``values`` is ``(k, n)``. With None, the rows are added by a product
        with a one-hot array.
        """
        return None

    def after_step(self, state: Any) -> None:
        """Compute what a lazy library has only recorded; called after each step of a training.

        ``state`` has theta, the optimizer's state, and the step's loss and metrics, in tuples,
        lists and dicts, with None for what is missing. It need not wait for the results. A compiled
        loop has no such steps.
        """
        return

    def compile(self, function: Function, *, donate: Sequence[int] = ()) -> Function:
        """Return ``function`` compiled, or itself if the library has no compiler.

        Its arguments are arrays, numbers, and tuples, lists and dicts of them. It may reuse the
        memory of the arguments at the positions ``donate``.
        """
        return function

    def loop(self, step: Function) -> Function | None:
        """Return a function that takes many steps in one compiled call, or None.

        ``step(carry, given, *shared)`` returns the next carry and an output. The returned function
        takes ``(carry, columns, first, last, *shared)``; ``columns`` are the ``given`` of all steps
        along a new first axis. It runs the steps from ``first`` to before ``last``; other values of
        the two do not recompile it. It returns the last carry, and the outputs along a new first
        axis with 0 for the other steps. It may reuse the memory of the carry.
        """
        return None

    def prepare_training(self) -> None:
        """Prepare the process for the steps of a training, before each one that is not compiled."""
        return

    def training_replacements(
        self, theta: Array, steps: int | None, rows: int
    ) -> Mapping[str, Function] | None:
        """Return replacements for the steps of a training; None without, or if it is too short.

        It takes so many ``steps``, None if nobody knows how many, of about so many ``rows`` each.
        The names are those of ``replacements``. One of a layer's class maps to a function of a
        layer, which returns its ``LayerFunctions``, or None. All hold for arrays of theta's type,
        while a step runs or theta is measured.
        """
        return None

    def host_conversions(self) -> Sequence[Conversion] | None:
        """Return those that a transfer guard watches; none before the library is imported.

        It is None for a backend that does not know them: its arrays are errors inside a guard.
        Mark ``to_host`` and ``probe``, which use them, by ``backprop_xp.backends.explicit``.
        """
        return None

    def transfer_guard(self, mode: str) -> AbstractContextManager[object]:
        """Return the library's own guard of transfers to the host, if it has one."""
        return nullcontext()

    def details(self) -> dict[str, str]:
        """Return versions, threads and switches of the library, for ``backprop-xp info``.

        An installed library that cannot run leaves out what it cannot report.
        """
        return {}
