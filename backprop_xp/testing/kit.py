"""What a check of the kit is, how it is run, and what comes of it."""

import unittest
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Backend, Device, get_backend


class NotApplicable(unittest.SkipTest):
    """A check that has nothing to ask of this backend or device; the message says why.

    A SkipTest, so that pytest and unittest show the reason of a skip.
    """


class Outcome(NamedTuple):
    """What came of a check: ``status`` is ``"holds"``, ``"fails"`` or ``"not applicable"``.

    ``detail`` says what was wrong, or why there was nothing to check; empty where it holds.
    """

    group: str
    check: str
    status: str
    detail: str = ""


class Check(NamedTuple):
    """One thing that a backend must do: call it with the backend and, if you like, a device.

    It returns None where the thing holds, raises ``NotApplicable`` where there is nothing to ask,
    and any other exception where it fails. ``str`` gives its group and name.
    """

    group: str
    name: str
    sentence: str
    function: Callable[[Backend, Device], None]

    def __call__(self, backend: str | Backend, device: Any = None) -> None:
        """Run on a device given by name or as the library's object; None is the default one."""
        home = get_backend(backend) if isinstance(backend, str) else backend
        if device is None:
            device = home.devices()[0]
        elif isinstance(device, str):
            device = home.device(device)
        # NumPy alone warns of an overflow; the values are what is compared.
        with np.errstate(all="ignore"):
            self.function(home, device)

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


def expect(holds: Any, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds; ``-O`` or not."""
    if not holds:
        raise AssertionError(message)
