"""The checks of the kit, the cases that they run on, and the comparison with NumPy's values."""

import functools
import itertools
import unittest
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import Array, Backend, DTypeNotKeptError, device_of, get_backend, text_of

# Rounding of some hundred operations, relative to the largest entry that NumPy computes.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
# The likely cause of an error of up to that share of the largest entry: a lower precision.
_CAUSES = {
    "float32": (1e-2, "TF32 or half precision, see Backend.full_precision"),
    "float64": (1e-5, "float32"),
}
# Imaginary parts as small as those of the gradient check's complex step: they must not be lost.
_IMAGINARY = {"complex64": 2.0**-40, "complex128": 2.0**-66}
FLOATING = (*TOLERANCES, *_IMAGINARY)


# From arrays to an array, or a list of arrays.
Computation: TypeAlias = Callable[..., object]


class NotApplicable(unittest.SkipTest):  # pytest and unittest show it with its reason
    """The outcome of a check that does not apply to a backend or device; the message says why."""


class Outcome(NamedTuple):
    """The outcome of a check."""

    group: str
    check: str
    status: str  # "holds", "fails" or "not applicable"
    detail: str = ""  # the fault, or the reason why it does not apply


class Check(NamedTuple):
    """One requirement of a backend; call it with the backend and, optionally, a device.

    It returns None if the requirement holds, raises ``NotApplicable`` if it does not apply, and any
    other exception if it fails.
    """

    group: str
    name: str
    sentence: str
    function: Callable[["Case"], None]

    def __call__(self, backend: str | Backend, device: object = None) -> None:
        """Run on a device given by name or as the library's object; None is the default one."""
        backend = get_backend(backend) if isinstance(backend, str) else backend
        case = Case(backend, backend.devices()[0] if device is None else backend.device(device))
        with np.errstate(all="ignore"):  # only NumPy warns; the values are compared
            self.function(case)

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def run(check: Check, backend: str | Backend, device: object = None) -> Outcome:
    """Return the outcome of a check; an exception of the backend is its detail."""
    try:
        check(backend, device)
    except NotApplicable as reason:
        return Outcome(check.group, check.name, "not applicable", str(reason))
    except Exception as error:  # of the library's own kinds too: the other checks still run
        kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
        return Outcome(check.group, check.name, "fails", f"{kind}{error}")
    return Outcome(check.group, check.name, "holds")


def checks_of(
    group: str, functions: Iterable[Callable[..., None]], *tables: Iterable[str]
) -> list[Check]:
    """Return a check for each function and each combination of the tables' names.

    A function is called with the names and the case; its name and docstring are the check's.
    """
    checks = []
    for function, *names in itertools.product(functions, *tables):
        name = ", ".join((function.__name__.strip("_").replace("_", " "), *names))
        sentence = (function.__doc__ or "").rstrip(".")
        checks.append(Check(group, name, sentence, functools.partial(function, *names)))
    return checks


def expect(holds: object, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds; ``-O`` or not."""
    if not holds:
        raise AssertionError(message)


class Case(NamedTuple):
    """The case that a check runs on: a backend, and one of its library's devices."""

    backend: Backend
    device: object

    def put(self, *hosts: np.ndarray) -> list[Array]:
        """Return arrays of the host on the device, in their own dtypes."""
        return [self.backend.from_host(host, device=self.device) for host in hosts]

    def others(self) -> list["Case"]:
        """Return another of the backend's devices, if there is one."""
        return [Case(self.backend, d) for d in self.backend.devices() if d != self.device][:1]

    def has_views(self) -> bool:
        """Return whether a slice shows what is written to its array, as a training relies on."""
        (array,) = self.put(np.ones((2, 3), np.float32))
        part = self.backend.namespace().reshape(array[..., 1:3], (2, 2, 1))
        array -= 1.0
        return not self.backend.to_host(part).any()

    def dtype(self, name: str) -> object:
        """Return a dtype; NotApplicable for one not kept, except bool, int32 and float32."""
        xp = self.backend.namespace()
        try:
            self.backend.require_dtype(getattr(xp, name), self.device)
        except (AttributeError, DTypeNotKeptError) as error:
            reason = f"no {name} here: {text_of(error)}"
            expect(name not in ("bool", "int32", "float32"), reason)
            raise NotApplicable(reason) from None
        return getattr(xp, name)

    def require_same(self, here: Any, there: Any, what: str = "the result") -> None:
        """Raise AssertionError unless an array, or each of a list, equals NumPy's."""
        if isinstance(there, list | tuple):
            for i, (one, other) in enumerate(zip(here, there, strict=True)):
                self.require_same(one, other, f"{what}[{i}]")
            return
        owned = self.backend.owns(here)
        expect(owned, f"{what} is a {type(here)}, not an array of {self.backend.name}")
        device, name = device_of(here), there.dtype.name
        expect(device == self.device, f"{what} is on {device}, not on {self.device}")
        right = here.dtype == getattr(self.backend.namespace(), name)
        expect(right, f"{what} is {here.dtype}, but {name} on NumPy")
        require_values(self.backend.to_host(here), there, what)

    def require_computed(self, dtype: str, compute: Computation, *hosts: np.ndarray) -> None:
        """Raise AssertionError unless ``compute(*arrays)`` equals NumPy's result.

        Floating arrays are cast to ``dtype``. Complex ones are computed in full precision, as in a
        gradient check.
        """
        self.dtype(dtype)
        arrays = [_cast(host, dtype) if host.dtype.kind == "f" else host for host in hosts]
        with self.backend.full_precision() if dtype in _IMAGINARY else nullcontext():
            here = compute(*self.put(*arrays))
        self.require_same(here, compute(*arrays))


def require_values(host: np.ndarray, there: np.ndarray, what: str) -> None:
    """Raise AssertionError unless an array of the host has NumPy's shape and values.

    Booleans and integers must be equal, floating values within ``TOLERANCES`` of the largest entry,
    real and imaginary parts separately.
    """
    if there.dtype.kind == "c":
        require_values(np.real(host), there.real, f"the real part of {what}")
        require_values(np.imag(host), there.imag, f"the imaginary part of {what}")
        return
    expect(host.shape == there.shape, f"{what} has shape {host.shape}, but {there.shape} on NumPy")
    # In float64 the difference of two float32 numbers is exact, and that of two int32 as well.
    ours, numpys = np.asarray(host, np.float64), np.asarray(there, np.float64)
    share = TOLERANCES.get(there.dtype.name, 0.0)
    largest = float(np.max(np.abs(numpys), initial=0.0, where=np.isfinite(numpys)))
    wrong = ~np.isclose(ours, numpys, rtol=0.0, atol=share * largest, equal_nan=True)
    for index in np.argwhere(wrong)[:1].tolist():
        found, right = host[tuple(index)], there[tuple(index)]
        rule = f"{np.sum(wrong)} of {wrong.size} differ by more than {share:g} of the largest"
        if share:
            upper, cause = _CAUSES[there.dtype.name]
            error = float(np.max(np.abs(ours - numpys)))
            rule += f": computed in {cause}?" if error <= upper * largest else ""
        expect(False, f"{what} is {found} at {index}, but {right} on NumPy ({rule})")


def _cast(host: np.ndarray, dtype: str) -> np.ndarray:
    tiny = _IMAGINARY.get(dtype, 0.0) * (1.0 + np.arange(host.size).reshape(host.shape) % 3)
    return (host + 1j * tiny if tiny.any() else host).astype(dtype)
