"""What a check of the kit is, where it computes, and how arrays there are compared with NumPy's."""

import functools
import itertools
import unittest
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Backend, DTypeNotKeptError, device_of, get_backend, in_words

# Rounding of some hundred operations, relative to the largest entry that NumPy computes.
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
# Imaginary parts as small as those of the gradient check's complex step: they must not be lost.
_IMAGINARY = {"complex64": 2.0**-40, "complex128": 2.0**-66}
FLOATING = (*TOLERANCES, *_IMAGINARY)


class NotApplicable(unittest.SkipTest):  # which pytest and unittest show with its reason
    """A check that has nothing to ask of this backend or device; the message says why."""


class Outcome(NamedTuple):
    """What came of a check."""

    group: str
    check: str
    status: str  # "holds", "fails" or "not applicable"
    detail: str = ""  # what was wrong, or why there was nothing to check


class Check(NamedTuple):
    """One thing that a backend must do: call it with the backend and, if you like, a device.

    It returns None where the thing holds, raises ``NotApplicable`` where there is nothing to ask,
    and any other exception where it fails.
    """

    group: str
    name: str
    sentence: str
    function: Callable[["Place"], None]

    def __call__(self, backend: str | Backend, device: Any = None) -> None:
        """Run on a device given by name or as the library's object; None is the default one."""
        found = get_backend(backend) if isinstance(backend, str) else backend
        place = Place(found, found.devices()[0] if device is None else found.device(device))
        with np.errstate(all="ignore"):  # NumPy alone warns; the values are what is compared
            self.function(place)

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def run(check: Check, backend: str | Backend, device: Any = None) -> Outcome:
    """Run a check; whatever the backend raises is the detail."""
    try:
        check(backend, device)
    except NotApplicable as reason:
        return Outcome(check.group, check.name, "not applicable", str(reason))
    except Exception as error:  # a library's own kinds too: the other checks are still run
        kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
        return Outcome(check.group, check.name, "fails", f"{kind}{error}")
    return Outcome(check.group, check.name, "holds")


def checks_of(group: str, functions: Iterable[Any], *tables: Iterable[str]) -> list[Check]:
    """Return the functions' checks, for each of them one with each combination of the names.

    A function is given the names and the place; its own name and docstring are the checks'.
    """
    checks = []
    for function, *names in itertools.product(functions, *tables):
        name = ", ".join((function.__name__.strip("_").replace("_", " "), *names))
        sentence = function.__doc__.rstrip(".")
        checks.append(Check(group, name, sentence, functools.partial(function, *names)))
    return checks


def expect(holds: Any, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds; ``-O`` or not."""
    if not holds:
        raise AssertionError(message)


class Place(NamedTuple):
    """Where a check computes: the backend under test, and a device of its library's."""

    backend: Backend
    device: Any

    def put(self, *hosts: np.ndarray) -> list[Any]:
        """Return arrays of the host, in their own dtypes, on the device."""
        return [self.backend.from_host(host, device=self.device) for host in hosts]

    def others(self) -> list["Place"]:
        """Return another of the backend's devices, if there is one."""
        return [Place(self.backend, d) for d in self.backend.devices() if d != self.device][:1]

    def dtype(self, name: str) -> Any:
        """Return a dtype; NotApplicable for one not kept, but bool, int32 and float32 must be."""
        xp = self.backend.namespace()
        try:
            self.backend.require_dtype(getattr(xp, name), self.device)
        except (AttributeError, DTypeNotKeptError) as error:
            reason = f"no {name} here: {in_words(error)}"
            expect(name not in ("bool", "int32", "float32"), reason)
            raise NotApplicable(reason) from None
        return getattr(xp, name)

    def require_same(self, here: Any, there: Any, what: str = "the result") -> None:
        """Raise AssertionError unless an array, or each of a list, is here what NumPy's is."""
        if isinstance(there, list | tuple):
            for i, (one, other) in enumerate(zip(here, there, strict=True)):
                self.require_same(one, other, f"{what}[{i}]")
            return
        owned = self.backend.owns(here)
        expect(owned, f"{what} is a {type(here)}, no array of {self.backend.name}")
        where, name = device_of(here), there.dtype.name
        expect(where == self.device, f"{what} is on {where}, not on {self.device}")
        right = here.dtype == getattr(self.backend.namespace(), name)
        expect(right, f"{what} is {here.dtype}, but {name} on NumPy")
        require_values(self.backend.to_host(here), there, what)

    def require_computed(self, dtype: str, compute: Callable[..., Any], *hosts: np.ndarray) -> None:
        """Raise AssertionError unless ``compute(*arrays)`` is here what it is on NumPy.

        Floating arrays are cast to ``dtype``. Complex ones are a gradient check's, and are computed
        with in full precision, as there.
        """
        self.dtype(dtype)
        given = [_cast(host, dtype) if host.dtype.kind == "f" else host for host in hosts]
        with self.backend.full_precision() if dtype in _IMAGINARY else nullcontext():
            here = compute(*self.put(*given))
        self.require_same(here, compute(*given))


def require_values(host: np.ndarray, there: np.ndarray, what: str) -> None:
    """Raise AssertionError unless an array of the host has NumPy's shape and values.

    Booleans and integers must be equal, floating values within ``TOLERANCES`` of the largest entry,
    real and imaginary parts each for itself.
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
    for place in np.argwhere(wrong)[:1].tolist():
        found, right = host[tuple(place)], there[tuple(place)]
        rule = f"{np.sum(wrong)} of {wrong.size} differ by more than {share:g} of the largest"
        expect(False, f"{what} is {found} at {place}, but {right} on NumPy ({rule})")


def _cast(host: np.ndarray, dtype: str) -> np.ndarray:
    tiny = _IMAGINARY.get(dtype, 0.0) * (1.0 + np.arange(host.size).reshape(host.shape) % 3)
    return (host + 1j * tiny if tiny.any() else host).astype(dtype)
