"""Namespaces for authors of plug-ins: with their own functions, and with ``device=``."""

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from backprop_xp.backends import device_aware, namespace_with

PLACES: list[object] = []


@contextlib.contextmanager
def entered(device: object) -> Iterator[None]:
    PLACES.append(device)
    yield


def library() -> types.ModuleType:
    """A library of which three functions make arrays, without ``device=``."""
    made = types.ModuleType("made")
    made.ones = lambda shape: np.ones(shape)  # type: ignore[attr-defined]
    made.zeros_like = lambda array: np.zeros(array.shape)  # type: ignore[attr-defined]
    made.asarray = made.exp = np.exp  # type: ignore[attr-defined]
    return made


def test_own_functions_replace_a_librarys_in_a_copy() -> None:
    original = library()
    xp: Any = namespace_with(original, exp=abs, tau=6.28)
    assert (xp.exp, xp.tau, xp.ones) == (abs, 6.28, original.ones)
    assert original.exp is np.exp
    assert not hasattr(original, "tau")


def test_functions_that_make_arrays_take_a_device_and_enter_it() -> None:
    PLACES.clear()
    xp: Any = device_aware(library(), entered)
    assert xp.ones(2, device=3).tolist() == [1.0, 1.0]
    xp.ones(2)
    xp.asarray(np.ones(2))  # its device is NumPy's
    assert PLACES == [3, None, None]
    xp.ones(2, device="gpu")
    assert PLACES.pop() == "gpu"
    there = types.SimpleNamespace(device=7, shape=(2,))
    assert xp.zeros_like(there).tolist() == [0.0, 0.0]
    assert PLACES[3:] == [7]
    assert xp.exp is library().exp


def test_without_a_way_to_enter_it_the_device_is_ignored() -> None:
    xp: Any = device_aware(library(), tau=6.28, asarray=lambda x, *, device: device)
    assert xp.ones(2, device="gpu").tolist() == [1.0, 1.0]
    assert (xp.tau, xp.asarray(1.0, device="gpu")) == (6.28, "gpu")
    assert not hasattr(xp, "zeros")
    assert not hasattr(library(), "tau")
