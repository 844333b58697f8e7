"""What the maths needs of an array library beyond the array API standard."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np

# The standard's own types are structural and every library spells them differently, so to a type
# checker an array is Any; shapes stand in the docstrings.
Array: TypeAlias = Any
Namespace: TypeAlias = Any
Device: TypeAlias = Any
DType: TypeAlias = Any


class BackendUnavailableError(RuntimeError):
    """A backend that was asked for cannot run on this machine; the message says what to do."""


class DTypeNotKeptError(ValueError):
    """A dtype that a library or a device does not keep; the message says why, and what to do."""


class Probe(NamedTuple):
    """What trying a backend showed: can it run here, and if not, why and what would help."""

    usable: bool
    version: str | None
    reason: str = ""
    hint: str = ""


class Memory(NamedTuple):
    """Bytes of a device's memory: in use by the library, and in all."""

    used: int
    total: int


class Door(NamedTuple):
    """A function, attribute ``name`` of a class or module, by which an array leaves for the host.

    The array is its first argument. ``moves`` says of a call's arguments whether it leaves.
    ``shows`` marks what people and tracebacks look at arrays by: a guard logs it, never refuses it.
    """

    holder: Any
    name: str
    moves: Callable[..., bool] = lambda *args, **kwargs: True
    shows: bool = False


class Backend(Protocol):
    """An array library, seen through the few things that the standard leaves out.

    Everything else goes through ``namespace()``. A device here is the library's own object.
    The methods up to ``to_host`` are every backend's own to write. Those behind it have defaults,
    right for a library that computes at once, exactly, and on the device of its arrays.

    ``replacements`` maps the qualified name of a reference function, such as
    ``"backprop_xp.training.optimizers.Adam.rule"``, to a faster one with the same signature and
    results.
    """

    name: ClassVar[str]
    replacements: ClassVar[dict[str, Callable[..., Any]]] = {}

    @abstractmethod
    def probe(self) -> Probe:
        """Try the library by doing a little work with it; never raises."""
        ...

    @abstractmethod
    def namespace(self) -> Namespace:
        """Return the library's array API namespace, importing the library if need be."""
        ...

    @abstractmethod
    def devices(self) -> list[Device]:
        """Return the devices that can be named, the default one first."""
        ...

    @abstractmethod
    def default_dtype(self, device: Device) -> DType:
        """Return the floating dtype used on ``device`` where nobody chose one."""
        ...

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Say whether ``array`` is one of this library's arrays."""
        ...

    @abstractmethod
    def from_host(
        self, array: np.ndarray, dtype: DType | None = None, device: Device | None = None
    ) -> Array:
        """Return a NumPy array's values on ``device``; ``dtype`` None keeps the array's own."""
        ...

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """Return an array's values as a NumPy array, waiting for them."""
        ...

    def detached(self, array: Array) -> Array:
        """Return an array that records no automatic differentiation of what is done with it."""
        return array

    def unrecorded(self) -> AbstractContextManager[Any]:
        """Return a context in which nothing records automatic differentiation."""
        return nullcontext()

    def device(self, name: Any) -> Device:
        """Return the device that ``name`` (a string or the library's own object) stands for.

        ``"cuda"`` is the first of ``"cuda:0"``, ``"cuda:1"``. A name that fits no device is a
        ValueError.
        """
        devices = self.devices()
        for device in devices:
            if name == device or name == self.device_name(device):
                return device
        for device in devices:
            if self.device_name(device).startswith(f"{name}:"):
                return device
        known = ", ".join(self.device_name(device) for device in devices)
        raise ValueError(f"device {name!r} is none of the {self.name} backend's devices: {known}.")

    def device_name(self, device: Device) -> str:
        """Return the name that ``device`` takes for this device."""
        return str(device)

    def require_dtype(self, dtype: DType, device: Device | None = None) -> None:
        """Raise ``DTypeNotKeptError`` for a dtype that the library, or ``device``, does not keep.

        The message says why, and what to ask for instead.
        """
        return

    def require_current(self, device: Device, name: str) -> None:
        """Raise ValueError unless arrays on ``device`` can be computed with now, as they can here.

        Where a library computes on a current device only, the message says how to change it;
        ``name`` is the array's.
        """
        return

    def synchronize(self, device: Device | None = None) -> None:
        """Wait until the work queued on ``device`` is done; at once where nothing is queued."""
        return

    def memory(self, device: Device | None = None) -> Memory | None:
        """Return the memory of ``device``, or None where the library cannot tell."""
        return None

    def apart(self, device: Device | None = None) -> AbstractContextManager[Any]:
        """Return a context in which a second thread moves arrays to ``device`` as another computes.

        At its end what was moved has arrived, whatever stream it is then used on.
        """
        return nullcontext()

    def full_precision(self) -> AbstractContextManager[None]:
        """Return a context in which products keep all the digits of their dtype.

        A gradient check enters it: TF32 and bfloat16 keep three or two of float32's seven digits,
        and three real products for a complex one lose a tiny imaginary part. Blocks of several
        threads may overlap: each keeps its digits to its end.
        """
        return nullcontext()

    def compile(
        self, function: Callable[..., Any], *, donate: Sequence[int] = ()
    ) -> Callable[..., Any]:
        """Return ``function`` compiled, or itself where the library has no compiler.

        It is given arrays, numbers, and tuples, lists and dicts of them; the memory of the
        arguments at the positions ``donate`` may be reused.
        """
        return function

    def loop(self, step: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return a function that takes many steps in one compiled call, or None without a compiler.

        ``step(carry, given, *shared)`` returns the next carry and an output. The function is called
        as ``(carry, columns, first, last, *shared)``: ``columns`` are the steps' ``given`` along a
        new first axis, of which it takes those from ``first`` to before ``last``. No value of the
        two compiles anything anew. It returns the last carry and the outputs along such an axis, 0
        of the steps that it did not take, and may reuse the memory of the carry.
        """
        return None

    def doors(self) -> Sequence[Door]:
        """Return what a transfer guard watches; nothing while the library is not imported.

        ``to_host`` and ``probe``, which go through them, are then marked by ``doors.explicit``.
        """
        return ()

    def transfer_guard(self, mode: str) -> AbstractContextManager[Any]:
        """Return the library's own guard of transfers to the host, where it has one."""
        return nullcontext()

    def details(self) -> dict[str, str]:
        """Return what else tells how the library would compute here: versions, threads, switches.

        For people who read ``backprop-xp info``. It may be asked of a library that is installed
        but cannot run, and then leaves out what cannot be told.
        """
        return {}
