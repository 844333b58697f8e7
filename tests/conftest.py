"""One fixture for every backend: the environment says which one the suite runs on."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Backend, BackendUnavailableError, Selection, to_host

# SciPy and scikit-learn read it when they are imported; without it checks are skipped silently.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

T = TypeVar("T")

# For a tolerance in float64's roundings: how much coarser those of float32 are, 2 ** 29.
COARSER = float(np.finfo(np.float32).eps) / float(np.finfo(np.float64).eps)


FINISHED = itertools.count(1)  # tests

# A test that has none of them is the same whichever backend the suite runs on, unless it says
# something of the libraries that are installed, and is marked so.
PLACING = {"xp", "gpu", "compile_by_nvrtc"}


class XP(NamedTuple):
    """Where a test computes: the selection that the environment makes, and short ways to it."""

    selection: Selection

    @property
    def name(self) -> str:
        return self.selection.backend.name

    @property
    def namespace(self) -> ModuleType:
        return self.selection.backend.namespace()

    @property
    def dtype(self) -> str:
        """The working precision: float64, or float32 on a device that keeps no float64."""
        return "float64" if keeps_float64(self.selection) else "float32"

    @property
    def complex_dtype(self) -> str:
        return {"float64": "complex128", "float32": "complex64"}[self.dtype]

    def rounding(self, tolerance: float) -> float:
        """Return a tolerance that is so many roundings of float64, in those of ``dtype``."""
        return tolerance if self.dtype == "float64" else tolerance * COARSER

    def asarray(self, x: Any, dtype: str | None = "working") -> Any:
        """Put data there, in the working precision unless ``dtype`` says otherwise."""
        dtype = self.dtype if dtype == "working" else dtype
        return bx.asarray(
            x, backend=self.selection.backend, device=self.selection.device, dtype=dtype
        )

    def put(self, *arrays: Any, dtype: str = "working") -> list[Any]:
        """Put several there."""
        return [self.asarray(array, dtype=dtype) for array in arrays]

    def initialize(
        self, network: bx.Network, seed: int = 0, dtype: str | None = "working", **options: Any
    ) -> Any:
        """Draw theta there, in the working precision unless ``dtype`` says otherwise."""
        options["dtype"] = self.dtype if dtype == "working" else dtype
        return network.initialize(
            seed, backend=self.selection.backend, device=self.selection.device, **options
        )

    def host(self, array: Any) -> np.ndarray:
        return to_host(array)

    def assert_equal(self, actual: Any, expected: Any) -> None:
        """Hold two arrays equal to the bit, each of them there or on the host."""
        actual, expected = to_host(actual), to_host(expected)
        assert actual.shape == expected.shape
        np.testing.assert_array_equal(actual, expected)

    def assert_close(self, actual: Any, expected: Any, tolerance: float = 1e-13) -> None:
        """Hold two arrays within a tolerance, absolute and relative, in roundings of float64."""
        actual, expected, close = to_host(actual), to_host(expected), self.rounding(tolerance)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=close, atol=close)

    def in_a_thread(self, function: Callable[[], T]) -> T:
        """Call a function in another thread, where CuPy begins on its first GPU, on the suite's."""
        is_cupy = self.name == "cupy"

        def called() -> T:
            with self.selection.device if is_cupy else contextlib.nullcontext():
                return function()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(called).result()


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


@pytest.fixture(scope="session")
def gpu() -> Backend:
    """CuPy's backend; a test that needs a GPU skips where there is none, with CUDA's reason."""
    try:
        return bx.get_backend("cupy")
    except BackendUnavailableError as error:
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _forget_what_jax_compiled() -> Iterator[None]:
    """Each compiled function holds a megabyte; what is needed again is on the disk."""
    yield
    if "jax" in sys.modules and next(FINISHED) % 40 == 0:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def compile_by_nvrtc() -> Callable[[str, str], str]:
    """CUDA's compiler for run time, which needs no GPU: PTX of a source, for an architecture."""
    nvrtc = pytest.importorskip("cupy").cuda.nvrtc
    try:
        version = nvrtc.getVersion()
    except (RuntimeError, ImportError) as error:
        pytest.skip(f"CuPy finds no NVRTC: {str(error).splitlines()[0]}")

    def compiled(text: str, architecture: str) -> str:
        if version >= (13, 0) and architecture == "sm_70":
            pytest.skip("NVRTC 13 knows no sm_70")
        program = nvrtc.createProgram(text, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, (f"-arch={architecture}", "--fmad=false"))
        except nvrtc.NVRTCError:
            pytest.fail(nvrtc.getProgramLog(program))
        assert nvrtc.getCUBIN(program).startswith(b"\x7fELF")
        return str(nvrtc.getPTX(program).decode())

    return compiled


@pytest.fixture
def full_precision(xp: XP) -> Iterator[None]:
    """For complex steps by hand: a GPU's products lose tiny imaginary parts but in here."""
    with xp.selection.backend.full_precision():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that float64 is a parameter of, and those with no backend of the suite's."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        is_float64 = any(isinstance(v, str) and v == "float64" for v in parameters.values())
        if is_float64 and "xp" in fixtures:
            item.add_marker("float64")
        if not fixtures & PLACING and item.get_closest_marker("installed") is None:
            item.add_marker("once")


@pytest.fixture(autouse=True)
def float64_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    """Skip a test marked ``float64`` where the suite's device keeps none."""
    if request.node.get_closest_marker("float64") is None:
        return
    selection = request.getfixturevalue("xp").selection
    if not keeps_float64(selection):
        where = selection.backend.device_name(selection.device)
        pytest.skip(f"{selection.backend.name}'s {where} keeps no float64")


@pytest.fixture
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that make their own choices: the environment makes none, none is left behind."""
    for what in ("BACKEND", "DEVICE", "DTYPE"):
        monkeypatch.delenv(f"BACKPROP_XP_{what}", raising=False)
    yield
    bx.set_default_backend(None)


def keeps_float64(selection: Selection) -> bool:
    """Say whether arrays on the selection's device can be float64: made, since devices differ."""
    with contextlib.suppress(ValueError, TypeError):
        bx.asarray(1.0, backend=selection.backend, device=selection.device, dtype="float64")
        return True
    return False
