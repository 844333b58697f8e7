"""Replacements of reference functions by the array's backend."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import replaceable


@replaceable
def scaled(array: Any, factor: float = 2.0) -> Any:
    return array * factor


def test_a_replacement_holds_for_its_backend_only_and_may_decline_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faster(array: Any, factor: float = 2.0) -> Any:
        return NotImplemented if factor == 3.0 else "faster"

    replacements = type(bx.get_backend("numpy")).replacements
    monkeypatch.setitem(replacements, f"{__name__}.scaled", faster)
    strict = bx.asarray([1.0], backend="array-api-strict")
    assert scaled(np.ones(1)) == "faster"
    assert scaled(np.ones(1), 3.0) == 3.0
    assert float(scaled(strict)[0]) == 2.0
    assert scaled(5.0) == 10.0  # an array of no backend
