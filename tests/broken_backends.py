"""Backends with one fault each, for the tests of the conformance kit.

A fault of moving or naming is planted in array-api-strict's backend, one of a function in its
namespace, and one of an operator in a kind of NumPy array.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends import Door, Memory, Probe
from backprop_xp.backends.array_api_strict import ArrayAPIStrictBackend
from backprop_xp.backends.numpy import NumPyBackend


class Namespace:
    """array_api_strict with some functions replaced by others."""

    def __init__(self, **functions: Any) -> None:
        self.functions = functions

    def __getattr__(self, name: str) -> Any:
        import array_api_strict

        functions = self.__dict__["functions"]
        return functions[name] if name in functions else getattr(array_api_strict, name)


class WithFunctions(ArrayAPIStrictBackend):
    """array-api-strict with some functions of its namespace replaced."""

    def __init__(self, **functions: Any) -> None:
        self.wrong = Namespace(**functions)

    def namespace(self) -> Any:
        return self.wrong


class Unfaithful(np.ndarray):
    """A NumPy array some of whose operators a subclass gets wrong."""


class WithArrays(NumPyBackend):
    """NumPy with arrays of another class."""

    def __init__(self, kind: type[np.ndarray]) -> None:
        self.kind = kind

    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        return np.array(array, dtype=dtype).view(self.kind)


class DropsDtype(ArrayAPIStrictBackend):
    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        return super().from_host(array, None, device)


class DropsDevice(ArrayAPIStrictBackend):
    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        return super().from_host(array, dtype, None)


class ReturnsFloat64(ArrayAPIStrictBackend):
    def to_host(self, array: Any) -> np.ndarray:
        host = super().to_host(array)
        return host.astype(np.float64) if host.dtype == np.float32 else host


class RoundsOnTheWay(ArrayAPIStrictBackend):
    def to_host(self, array: Any) -> np.ndarray:
        host = super().to_host(array)
        return host.astype(np.float32).astype(np.float64) if host.dtype == np.float64 else host


class LosesStrides(ArrayAPIStrictBackend):
    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        return super().from_host(array.ravel(order="K").reshape(array.shape), dtype, device)


class WritesToTheHost(ArrayAPIStrictBackend):
    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        there = super().from_host(array.copy(), dtype, device)
        if array.flags.writeable and array.size:
            array.flat[0] = 1
        return there


class KeepsNoFloat64(ArrayAPIStrictBackend):
    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        there = super().from_host(array, dtype, device)
        xp = self.namespace()
        return xp.astype(there, xp.float32) if there.dtype == xp.float64 else there


class OwnsEverything(ArrayAPIStrictBackend):
    def owns(self, array: Any) -> bool:
        return True


class TakesAnyDevice(ArrayAPIStrictBackend):
    def device(self, name: Any) -> Any:
        try:
            return super().device(name)
        except ValueError:
            return self.devices()[0]


class NamesNoDevices(ArrayAPIStrictBackend):
    def device(self, name: Any) -> Any:
        try:
            return super().device(name)
        except ValueError:
            raise ValueError("no such device") from None


class OneNameForAll(ArrayAPIStrictBackend):
    def device_name(self, device: Any) -> str:
        return "device"


class AnotherDeviceByDefault(ArrayAPIStrictBackend):
    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        return super().from_host(array, dtype, self.devices()[-1] if device is None else device)


class ProbeRaises(ArrayAPIStrictBackend):
    def probe(self) -> Probe:
        raise ImportError("no driver")


class ProbeComplains(ArrayAPIStrictBackend):
    def probe(self) -> Probe:
        return Probe(True, "1.0", "slow")


class IntegersByDefault(ArrayAPIStrictBackend):
    def default_dtype(self, device: Any) -> Any:
        return self.namespace().int32


class CompilesWrongly(ArrayAPIStrictBackend):
    def compile(self, function: Callable[..., Any], *, donate: Any = ()) -> Callable[..., Any]:
        first: list[Any] = []

        def compiled(*arrays: Any) -> Any:
            if not first:
                first.append(function(*arrays))
            return first[0]

        return compiled


class ReusesWhatIsNotDonated(ArrayAPIStrictBackend):
    def compile(self, function: Callable[..., Any], *, donate: Any = ()) -> Callable[..., Any]:
        def compiled(*arguments: Any) -> Any:
            results = function(*arguments)
            for argument in arguments:
                if hasattr(argument, "shape"):
                    argument *= 0.0
            return results

        return compiled if donate else function


class LoopsOnceTooOften(ArrayAPIStrictBackend):
    def loop(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def looped(carry: Any, columns: Any, *shared: Any) -> Any:
            outputs = []
            for i in [*range(columns.shape[0]), 0]:
                carry, output = step(carry, columns[i, ...], *shared)
                outputs.append(output)
            return carry, self.namespace().stack(outputs[:-1])

        return looped


class LacksFloat64(ArrayAPIStrictBackend):
    """Refuses float64 when an array is made, and says nothing of it before."""

    def from_host(self, array: Any, dtype: Any = None, device: Any = None) -> Any:
        made = super().from_host(array, dtype, device)
        if made.dtype == self.namespace().float64:
            raise ValueError("no float64 here")
        return made


class HasNoFloatDoor(WithArrays):
    name = "numpy-without-float"

    def __init__(self) -> None:
        super().__init__(Unfaithful)

    def doors(self) -> Any:
        return [Door(Unfaithful, "__bool__")]


class LeavesUnmarked(ArrayAPIStrictBackend):
    def to_host(self, array: Any) -> Any:
        return np.from_dlpack(array)


class TellsNumbers(ArrayAPIStrictBackend):
    def details(self) -> Any:
        return {"threads": 2}


class UsesMoreThanThereIs(ArrayAPIStrictBackend):
    def memory(self, device: Any = None) -> Memory | None:
        return Memory(2, 1)


class HandsOutTheDevice(ArrayAPIStrictBackend):
    def synchronize(self, device: Any = None) -> Any:
        return self.devices()


class AsksForMore(ArrayAPIStrictBackend):
    def from_host(  # type: ignore[override]
        self, array: np.ndarray, dtype: Any = None, device: Any = None, *, pinned: bool
    ) -> Any:
        raise AssertionError("nobody gives pinned")


class ReplacesByAnother(ArrayAPIStrictBackend):
    replacements = {"backprop_xp.optimizers.Adam.rule": lambda theta, gradient: theta}  # noqa: RUF012


class Nameless(ArrayAPIStrictBackend):
    name = ""


class NewNamespaces(ArrayAPIStrictBackend):
    def namespace(self) -> Any:
        return Namespace()


class Widens(Unfaithful):
    """A Python float makes float64 of float32."""

    def __rmul__(self, other: Any) -> Any:
        return np.float64(other) * self if isinstance(other, float) else super().__rmul__(other)


class Saturates(Unfaithful):
    """int32 stops at its ends instead of wrapping around."""

    def __mul__(self, other: Any) -> Any:
        if self.dtype != np.int32:
            return super().__mul__(other)
        exact = self.view(np.ndarray).astype(object) * np.asarray(other, dtype=object)
        return np.clip(exact, -(2**31), 2**31 - 1).astype(np.int32).view(type(self))


class HalfPrecision(Unfaithful):
    """Products of matrices are computed from rounded factors, as TF32's are."""

    def __matmul__(self, other: Any) -> Any:
        if self.dtype != np.float32:
            return super().__matmul__(other)
        rounded = [np.asarray(a).astype(np.float16).astype(np.float32) for a in (self, other)]
        return (rounded[0] @ rounded[1]).view(type(self))


class ReturnsItself(Unfaithful):
    """Adding 0 copies nothing, so that writing to the sum writes to the array."""

    def __add__(self, other: Any) -> Any:
        return self if isinstance(other, float) and other == 0.0 else super().__add__(other)


class NothingWorks:
    """An object that raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name}: no library here")
