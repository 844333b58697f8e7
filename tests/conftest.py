"""The fixtures of the suite; the environment chooses the backend that they use."""

import contextlib
import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Backend, BackendUnavailableError, Selection, to_host

# SciPy and scikit-learn read it when they are imported; without it checks are skipped silently.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

T = TypeVar("T")

# The ratio of float32's rounding to float64's, 2 ** 29.
COARSER = float(np.finfo(np.float32).eps) / float(np.finfo(np.float64).eps)


FINISHED = itertools.count(1)  # tests

# The libraries without which a test skips, by its fixtures; a parameter may name one, too.
NEEDED = {"gpu": "cupy", "compile_by_nvrtc": "cupy", "jax": "jax", "torch": "torch"}


class XP(NamedTuple):
    """The backend, device and dtype that the environment chooses, with shortcuts for tests."""

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
        """Return a tolerance for float64, scaled to the rounding of ``dtype``."""
        return tolerance if self.dtype == "float64" else tolerance * COARSER

    def asarray(self, x: Any, dtype: str | None = "working") -> Any:
        """Move data to the device, by default in the working precision."""
        dtype = self.dtype if dtype == "working" else dtype
        return bx.asarray(
            x, backend=self.selection.backend, device=self.selection.device, dtype=dtype
        )

    def put(self, *arrays: Any, dtype: str = "working") -> list[Any]:
        """Move several arrays to the device."""
        return [self.asarray(array, dtype=dtype) for array in arrays]

    def initialize(
        self, network: bx.Network, seed: int = 0, dtype: str | None = "working", **options: Any
    ) -> Any:
        """Draw theta on the device, by default in the working precision."""
        options["dtype"] = self.dtype if dtype == "working" else dtype
        return network.initialize(
            seed, backend=self.selection.backend, device=self.selection.device, **options
        )

    def host(self, array: Any) -> np.ndarray:
        return to_host(array)

    def assert_equal(self, actual: Any, expected: Any) -> None:
        """Assert that two arrays, on the device or the host, are equal to the bit."""
        actual, expected = to_host(actual), to_host(expected)
        assert actual.shape == expected.shape
        np.testing.assert_array_equal(actual, expected)

    def assert_close(self, actual: Any, expected: Any, tolerance: float = 1e-13) -> None:
        """Assert that two arrays agree within a tolerance for float64, absolute and relative."""
        actual, expected, close = to_host(actual), to_host(expected), self.rounding(tolerance)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=close, atol=close)

    def in_a_thread(self, function: Callable[[], T]) -> T:
        """Call a function in another thread, on the suite's GPU: CuPy starts on its first one."""
        is_cupy = self.name == "cupy"

        def called() -> T:
            with self.selection.device if is_cupy else contextlib.nullcontext():
                return function()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(called).result()


@pytest.fixture(scope="session")
def xp() -> XP:
    """The backend of BACKPROP_XP_BACKEND; without a GPU the tests of CuPy skip, others fail."""
    try:
        selection = bx.resolve()
    except BackendUnavailableError as error:
        asked = os.environ.get("BACKPROP_XP_BACKEND")
        if asked == "cupy" and os.environ.get("BACKPROP_XP_REQUIRE_GPU") != "1":
            pytest.skip(str(error))
        pytest.fail(str(error))
    if selection.backend.name == "array-api-strict":
        # Strict then raises for operations that JAX cannot trace.
        selection.backend.namespace().set_array_api_strict_flags(
            boolean_indexing=False, data_dependent_shapes=False
        )
    if "cuda_emulator" in sys.modules:  # it has no linear algebra
        selection.backend.namespace().linalg.solve = solve_by_numpy
        selection.backend.namespace().linalg.svd = svd_by_numpy
    return XP(selection)


def solve_by_numpy(a: Any, b: Any) -> Any:
    """Return the solution of linear equations in CuPy's arrays."""
    import cupy

    with bx.transfer_guard("allow"):
        return cupy.asarray(np.linalg.solve(a.get(), b.get()))


def svd_by_numpy(a: Any, full_matrices: bool = True) -> Any:
    """Return a singular value decomposition in CuPy's arrays."""
    import cupy

    with bx.transfer_guard("allow"):
        return tuple(map(cupy.asarray, np.linalg.svd(a.get(), full_matrices=full_matrices)))


@pytest.fixture(scope="session")
def gpu() -> Backend:
    """CuPy's backend; without a GPU the test skips, with CUDA's reason."""
    try:
        return bx.get_backend("cupy")
    except BackendUnavailableError as error:
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def jax() -> ModuleType:
    """JAX, an oracle; without it the test skips."""
    return cast(ModuleType, pytest.importorskip("jax", reason="JAX is not installed"))


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, an oracle; without it the test skips."""
    return cast(ModuleType, pytest.importorskip("torch", reason="PyTorch is not installed"))


@pytest.fixture(autouse=True)
def _clear_jax_caches() -> Iterator[None]:
    """Clear JAX's caches: each compiled function holds a megabyte, and a copy is on the disk."""
    yield
    if "jax" in sys.modules and next(FINISHED) % 40 == 0:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def compile_by_nvrtc() -> Callable[[str, str], str]:
    """A function that compiles a source to PTX for an architecture by NVRTC, without a GPU."""
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
    """Full precision of products: otherwise a GPU loses the tiny parts of a complex step."""
    with xp.selection.backend.full_precision():
        yield


def pytest_configure() -> None:
    # A shell that starts the suite in the background makes its processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with a float64 parameter, that need a library, and without any backend."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        words = {value for value in parameters.values() if isinstance(value, str)}
        if "float64" in words and "xp" in fixtures:
            item.add_marker("float64")
        for library in {NEEDED[name] for name in NEEDED.keys() & fixtures}:
            item.add_marker(library)
        needs = any(item.get_closest_marker(name) for name in ("installed", *NEEDED.values()))
        if "xp" not in fixtures and not needs:
            item.add_marker("once")


def pytest_collection_finish() -> None:
    """Keep the tests and the imported libraries out of the garbage collections that follow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def skip_without_float64(request: pytest.FixtureRequest) -> None:
    """Skip a test marked ``float64`` on a device without float64."""
    if request.node.get_closest_marker("float64") is None:
        return
    selection = request.getfixturevalue("xp").selection
    if not keeps_float64(selection):
        where = selection.backend.device_name(selection.device)
        pytest.skip(f"{selection.backend.name}'s {where} keeps no float64")


@pytest.fixture
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment without a choice; the default backend is reset after the test."""
    for what in ("BACKEND", "DEVICE", "DTYPE"):
        monkeypatch.delenv(f"BACKPROP_XP_{what}", raising=False)
    yield
    bx.set_default_backend(None)


def keeps_float64(selection: Selection) -> bool:
    """Whether arrays on the selection's device can be float64; devices of a backend differ."""
    with contextlib.suppress(ValueError, TypeError):
        bx.asarray(1.0, backend=selection.backend, device=selection.device, dtype="float64")
        return True
    return False
