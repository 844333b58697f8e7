"""Backends with one fault each, and the check of the conformance kit that must notice it.

A wrong method is planted in array-api-strict's backend on device1, a wrong function of the standard
in array-api-strict itself, and a wrong operator in a subclass of NumPy's array.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np

from backprop_xp.backends import Conversion, Memory, Probe
from backprop_xp.backends.libraries.array_api_strict import ArrayAPIStrictBackend
from backprop_xp.backends.libraries.numpy import NumPyBackend

STRICT = ArrayAPIStrictBackend()
GIVE, LAST, XP = STRICT.from_host, STRICT.devices()[-1], array_api_strict


def made(change: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """Return a from_host that applies ``change(array, dtype, device)``."""
    return lambda self, array, dtype=None, device=None: change(array, dtype, device)


def taken(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    """Return a to_host that changes its array."""
    return lambda self, array: change(STRICT.to_host(array))


def raising(error: Exception) -> Any:
    raise error


def writing(array: Any, dtype: Any, device: Any) -> Any:
    there = GIVE(array.copy(), dtype, device)
    if array.flags.writeable and array.size:
        array.flat[0] = 1
    return there


def without_float64(array: Any, dtype: Any, device: Any) -> Any:
    there = GIVE(array, dtype, device)
    return raising(ValueError("no float64 here")) if "float64" in str(there.dtype) else there


def narrow(array: Any) -> Any:
    xp = STRICT.namespace()
    return xp.astype(array, xp.float32) if array.dtype == xp.float64 else array


def pinned(self: Any, array: Any, dtype: Any = None, device: Any = None, *, pin: bool) -> Any:
    raise AssertionError("nobody gives pin")


def any_device(self: Any, name: Any) -> Any:
    return STRICT.device(name) if name in ("device1", *STRICT.devices()) else STRICT.devices()[0]


def no_list(self: Any, name: Any) -> Any:
    found = any_device(self, name)
    return raising(ValueError("no such device")) if found == STRICT.devices()[0] else found


def last_row(self: Any, total: Any, rows: Any, values: Any) -> Any:
    for i in range(4):
        at = int(rows[i])
        total[at, :] = values[i, :] + 1.0
    return total


def once(self: Any, function: Any, *, donate: Any = ()) -> Any:
    first: list[Any] = []
    return lambda *arrays: (first or first.append(function(*arrays)) or first)[0]


def reusing(self: Any, function: Any, *, donate: Any = ()) -> Any:
    def compiled(state: Any, x: Any) -> Any:
        results = function(state, x)
        x *= 0.0
        return results

    return compiled if donate else function


def once_more(self: Any, step: Any) -> Any:
    def looped(carry: Any, columns: Any, first: int, last: int, *shared: Any) -> Any:
        outputs = 0.0 * columns[0]
        for i in [*range(first, last), first]:
            carry, (outputs[i, ...], _) = step(carry, (columns[0][i, ...], None), *shared)
        return carry, (outputs, None)

    return looped


ADAM = "backprop_xp.training.optimizers.first_order.Adam.rule"
TRIP, ANSWERS, DEVICES = "moving data: round trip, ", "protocol: answers", "protocol: devices"
SILENT, TRAINING = "parity: silent faults, float32", "parity: training, AdamW, float32"
NETWORK, UNKNOWN, ARRAYS = "parity: network, float", "trust: unknown devices", "protocol: arrays"

# A member of the backend, its wrong replacement, the check that notices it, and its message.
FAULTS: list[tuple[str, Any, str, str]] = [
    ("from_host", made(lambda a, t, d: GIVE(a, None, d)), TRIP + "int32", "as int32 is .*int64"),
    ("from_host", made(lambda a, t, d: GIVE(a, t)), TRIP + "float32", "CPU_.*not on .*device1"),
    ("from_host", made(lambda a, t, d: GIVE(a, t, d or LAST)), DEVICES, "goes to .*by default"),
    ("from_host", made(lambda *a: narrow(GIVE(*a))), TRIP + "float64", "comes back as float32"),
    (
        "from_host",
        made(lambda a, t, d: GIVE(a.ravel("K").reshape(a.shape), t, d)),
        TRIP + "transposed",
        r"is 1.0 at \[0, 1\], but 4.0",
    ),
    ("from_host", made(without_float64), TRIP + "float64", "ValueError: no float64 here"),
    ("from_host", made(writing), TRIP + "int32", "the host's own array was changed"),
    ("from_host", pinned, "protocol: methods", r"not \['array', 'pin'\]"),
    ("to_host", taken(lambda a: a.astype(float)), TRIP + "float32", "comes back as float64"),
    ("to_host", taken(lambda a: a.astype("f4").astype(a.dtype)), TRIP + "float64", "is 20.2600"),
    ("to_host", lambda self, a: np.from_dlpack(a), "trust: transfers", "TransferError: .*dlpack"),
    ("owns", lambda self, a: True, ARRAYS, "not False for a .*list"),
    ("device", any_device, UNKNOWN, "'nonesuch'.*ValueError is expected"),
    ("device", no_list, UNKNOWN, "does not name .*device1"),
    ("device_name", lambda self, d: "x", DEVICES, "two of one name"),
    ("default_dtype", lambda self, d: XP.int32, DEVICES, "int32 is not real"),
    ("namespace", lambda self: SimpleNamespace(**vars(XP)), ARRAYS, "another object at each call"),
    ("compile", once, "protocol: compile", r"\(5,\), but \(3,\) on NumPy"),
    ("compile", reusing, "protocol: compile", "is .* on NumPy"),
    ("loop", once_more, "protocol: loop", r"\[0\] is 37.0 at \[0\]"),
    ("replacements", {ADAM: lambda g: g}, "protocol: replacements", r"takes \(g\), not"),
    ("probe", lambda self: raising(OSError("lost")), ANSWERS, "OSError: lost"),
    ("probe", lambda self: Probe(True, "1.0", "slow"), ANSWERS, "slow"),
    ("details", lambda self: {"threads": 2}, ANSWERS, "not a dict of strings"),
    ("memory", lambda self, device=None: Memory(2, 1), ANSWERS, "more bytes in use"),
    ("synchronize", lambda self, device=None: device, ANSWERS, "returns "),
    ("mpi_buffers", lambda self: None, ANSWERS, "not a boolean"),
    ("device_kinds", ("cpu", "device1"), DEVICES, r"without \['CPU_DEVICE', 'device2'"),
    ("accelerators", lambda self: ["gpu"], DEVICES, r"\['gpu'\], which devices\(\) lacks"),
    ("device_of", lambda self, array: "gpu", DEVICES, "goes to gpu by default"),
    ("scatter_add", last_row, "protocol: scatter add", r"is 10.0 at \[2, 0\], but 16.0"),
    ("after_step", lambda self, state: state, "protocol: after step", "returns"),
    ("name", "", ANSWERS, "its name is ''"),
]


class Unfaithful(np.ndarray):
    """A NumPy array whose subclasses have wrong operators."""


class WithArrays(NumPyBackend):
    """NumPy with arrays of another class."""

    def __init__(self, kind: type[np.ndarray]) -> None:
        self.kind = kind

    def from_host(self, array: np.ndarray, dtype: Any = None, device: Any = None) -> Any:
        return np.array(array, dtype=dtype).view(self.kind)


class WithoutFloat(WithArrays):
    """A backend whose ``host_conversions`` lack the one of float."""

    name = "numpy-without-float"

    def host_conversions(self) -> Any:
        return [Conversion(Unfaithful, "__bool__")]


class Widens(Unfaithful):
    """A Python float turns float32 into float64."""

    def __rmul__(self, other: Any) -> Any:
        return np.float64(other) * self if isinstance(other, float) else super().__rmul__(other)


class Saturates(Unfaithful):
    """int32 saturates instead of wrapping around."""

    def __mul__(self, other: Any) -> Any:
        if self.dtype != np.int32:
            return super().__mul__(other)
        exact = self.view(np.ndarray).astype(object) * np.asarray(other, dtype=object)
        return np.clip(exact, -(2**31), 2**31 - 1).astype(np.int32).view(type(self))


class HalfPrecision(Unfaithful):
    """Matrix products round their factors, as TF32 does."""

    def __matmul__(self, other: Any) -> Any:
        if self.dtype != np.float32:
            return super().__matmul__(other)
        rounded = [np.asarray(a).astype(np.float16).astype(np.float32) for a in (self, other)]
        return (rounded[0] @ rounded[1]).view(type(self))


class ReturnsItself(Unfaithful):
    """Adding 0 returns the array itself, so writing to the sum writes to the array."""

    def __add__(self, other: Any) -> Any:
        return self if isinstance(other, float) and other == 0.0 else super().__add__(other)


OPERATORS = {
    Widens: "parity: update, SGD, float32",
    Saturates: NETWORK + "32",
    HalfPrecision: NETWORK + "32",
    ReturnsItself: SILENT,
}


class CopiesSlices(Unfaithful):
    """A slice is a copy."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key).copy()


class IsNotWritten(Unfaithful):
    """Arithmetic in place makes a new array."""

    def __isub__(self, other: Any) -> Any:
        return self - other


class Silent(WithArrays):
    """A backend that does not say that its slices are views, although it writes into them."""

    slices_are_views = False


VIEWS: list[tuple[WithArrays, str]] = [
    (WithArrays(CopiesSlices), "slices are copies, but slices_are_views is True"),
    (WithArrays(IsNotWritten), "makes a new array, but slices_are_views is True"),
    (Silent(Unfaithful), "blank.* whose slices are written"),
]


def without_nan(x: Any) -> Any:
    return XP.where(XP.isnan(x), XP.zeros_like(x), x)


def real_alone(z: Any) -> Any:
    return XP.astype(XP.real(z), z.dtype) if XP.isdtype(z.dtype, "complex floating") else z


# A function of the standard, a wrong version of it, and the check that notices it.
FUNCTIONS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("maximum", lambda f: lambda x, y: without_nan(f(x, y)), SILENT),
    ("isfinite", lambda f: lambda x: f(XP.zeros_like(x)), SILENT),
    ("sum", lambda f: lambda x, **axes: XP.astype(f(narrow(x), **axes), x.dtype), NETWORK + "64"),
    ("sum", lambda f: lambda x, **axes: f(x, axis=axes.get("axis")), NETWORK + "32"),
    ("ones", lambda f: lambda shape, **there: f(shape, dtype=there["dtype"]), NETWORK + "32"),
    ("take", lambda f: lambda x, i, *, axis: f(x, i, axis=max(axis, 0)), TRAINING),
    ("exp", lambda f: lambda z: f(real_alone(z)), "parity: function, sigmoid, complex128"),
    ("expm1", lambda f: lambda z: XP.exp(z) - 1.0, SILENT),
    ("log1p", lambda f: lambda x: XP.log(1.0 + x), SILENT),
]


class NothingWorks:
    """An object that raises at every attribute."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name}: no library here")
