"""One fixture for every backend: the environment says which one the suite runs on."""

import os
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError, Selection, to_host


class XP(NamedTuple):
    """Where a test computes: the selection that the environment makes, and short ways to it."""

    selection: Selection

    @property
    def name(self) -> str:
        return self.selection.backend.name

    @property
    def namespace(self) -> ModuleType:
        return self.selection.backend.namespace()

    def asarray(self, x: Any, dtype: str | None = "float64") -> Any:
        """Put data there; floating data in ``dtype``."""
        return bx.asarray(
            x, backend=self.selection.backend, device=self.selection.device, dtype=dtype
        )

    def initialize(self, network: bx.Network, seed: int = 0, **options: Any) -> Any:
        """Draw theta there, in float64 unless ``dtype`` says otherwise."""
        options = {"dtype": "float64", **options}
        return network.initialize(
            seed, backend=self.selection.backend, device=self.selection.device, **options
        )

    def host(self, array: Any) -> np.ndarray:
        return to_host(array)


@pytest.fixture(scope="session")
def xp() -> XP:
    """The backend of BACKPROP_XP_BACKEND; a test that needs it skips where it cannot run."""
    try:
        selection = bx.resolve()
    except BackendUnavailableError as error:
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    if selection.backend.name == "array-api-strict":
        # What JAX cannot trace, strict refuses too.
        selection.backend.namespace().set_array_api_strict_flags(
            boolean_indexing=False, data_dependent_shapes=False
        )
    return XP(selection)
