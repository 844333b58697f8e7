"""What a person reads when a choice cannot be had, word for word.

Each text says what came and from where, why it cannot be had (in the library's or the driver's own
words), and what to do.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import DTypeNotKeptError, registry

STRICT = "array-api-strict"
KNOWN = "auto, numpy, cupy, array-api-strict, jax, torch"
ROOT = Path(bx.__file__).parents[1]


pytestmark = pytest.mark.usefixtures("nothing_chosen")


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that makes a choice in the way that is named."""

    def by(source: str, name: str | None, **choice: str) -> Any:
        if source == "environment":
            for what, value in {"backend": name, **choice}.items():
                if value is not None:
                    monkeypatch.setenv(f"BACKPROP_XP_{what.upper()}", value)
            return bx.resolve()
        if source == "context":
            with bx.use_backend(name or "numpy", **choice) as selection:
                return selection
        if source == "default":
            return bx.set_default_backend(name, **choice)
        return bx.resolve(backend=name, **choice)

    return by


def text(kind: type[Exception], function: Callable[..., Any], *values: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        function(*values, **options)
    assert type(caught.value) is kind
    return str(caught.value)


def told(call: str, *path: Path, options: tuple[str, ...] = (), **environment: str) -> str:
    """Return the kind and text of the error of a call, or of each line of calls, in a process."""
    program = "import numpy as np, backprop_xp as bx\n" + "".join(
        f"try:\n    {line}\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        for line in call.splitlines()
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BACKPROP_XP_", "JAX_"))}
    kept["PYTHONPATH"] = os.pathsep.join(map(str, path or (ROOT, *sys.path)))
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=120,
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


# Names


SOURCES = {
    "argument": "the argument of the call",
    "context": "use_backend({name!r})",
    "default": "set_default_backend({name!r})",
    "environment": "the environment variable BACKPROP_XP_BACKEND",
}


@pytest.mark.parametrize("source", SOURCES)
def test_an_unknown_name(put: Callable[..., Any], source: str) -> None:
    plug_ins = "".join(f", {name}" for name in registry.names()[5:])
    where = SOURCES[source].format(name="numpi")
    assert text(ValueError, put, source, "numpi") == (
        f"backend 'numpi', from {where}, is unknown. Did you mean 'numpy'? "
        f"Known: {KNOWN}{plug_ins}."
    )


def test_a_name_like_no_other() -> None:
    plug_ins = "".join(f", {name}" for name in registry.names()[5:])
    assert text(ValueError, bx.get_backend, "xyz") == (
        f"backend 'xyz', from the argument of the call, is unknown. Known: {KNOWN}{plug_ins}."
    )


def test_a_part_of_a_name_or_other_capitals() -> None:
    for name, meant in {"strict": STRICT, "AUTO": "auto", "PyTorch": "torch"}.items():
        assert f"Did you mean {meant!r}?" in text(ValueError, bx.get_backend, name)


def test_what_is_no_name(put: Callable[..., Any]) -> None:
    wheres = {"argument": "the argument of the call", "context": "use_backend"}
    for source, where in {**wheres, "default": "set_default_backend"}.items():
        assert text(TypeError, put, source, 3) == (
            f"backend must be a name or a Backend, not 3 (from {where})."
        )
    assert text(TypeError, bx.use_backend(None).__enter__) == (
        "use_backend needs a name or a Backend, such as use_backend('numpy'), or a device or a "
        "dtype."
    )
    kind = type(bx.get_backend("numpy"))
    assert text(TypeError, bx.resolve, backend=kind) == (
        f"backend must be a name or a Backend, not {kind!r} (from the argument of the call)."
    )


# Backends that cannot run


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with what the library needs and nothing else: no other array library is there."""
    for package in (np, array_api_compat, bx):
        home = Path(package.__file__).parent
        (tmp_path / home.name).symlink_to(home)
        if home.with_name(f"{home.name}.libs").exists():
            (tmp_path / f"{home.name}.libs").symlink_to(home.with_name(f"{home.name}.libs"))
    return tmp_path


NOT_INSTALLED = {
    "cupy": "CuPy is not installed. Try: pip install 'backprop_xp[cuda13]' (or cuda12, after your "
    "driver).",
    STRICT: "array-api-strict is not installed. Try: pip install 'backprop_xp[strict]'.",
    "jax": "JAX is not installed. Try: pip install 'backprop_xp[jax]'.",
    "torch": "PyTorch is not installed. Try: pip install 'backprop_xp[torch]'.",
}


@pytest.mark.parametrize("name", NOT_INSTALLED)
def test_a_library_that_is_not_installed(bare: Path, name: str) -> None:
    assert told(f"bx.get_backend({name!r})", bare, options=("-S",)) == (
        f"BackendUnavailableError backend {name!r}, from the argument of the call, cannot run "
        f"here: {NOT_INSTALLED[name]}"
    )


# What CuPy does where there is no driver: it imports, and the first array raises.
NO_DRIVER = """
__version__ = "14.2.0"
class ndarray: pass
def asnumpy(array): return array
class CUDARuntimeError(RuntimeError): pass
def ones(shape):
    raise CUDARuntimeError(
        "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
    )
"""


def test_cupy_without_a_driver_says_so_in_the_drivers_words(bare: Path) -> None:
    (bare / "cupy.py").write_text(NO_DRIVER)
    chosen = told("bx.resolve()", bare, options=("-S",), BACKPROP_XP_BACKEND="cupy")
    assert chosen == (
        "BackendUnavailableError backend 'cupy', from the environment variable "
        "BACKPROP_XP_BACKEND, cannot run here: CUDARuntimeError: cudaErrorInsufficientDriver: CUDA "
        "driver version is insufficient for CUDA runtime version. Try: check that nvidia-smi lists "
        "a GPU and that its driver fits CuPy's CUDA version."
    )


# What CuPy does where its libraries are missing: a page of advice, between rulers.
NO_LIBRARIES = """
try:
    raise ImportError("libnvrtc.so.13: cannot open shared object file")
except ImportError as error:
    ruler = "=" * 64
    raise ImportError(f"\\n{ruler}\\nFailed to import CuPy.\\n\\n{error}\\n{ruler}") from error
"""


def test_cupy_without_its_libraries_names_the_one_that_is_missing(bare: Path) -> None:
    (bare / "cupy.py").write_text(NO_LIBRARIES)
    assert told("bx.get_backend('cupy')", bare, options=("-S",)) == (
        "BackendUnavailableError backend 'cupy', from the argument of the call, cannot run here: "
        "ImportError: libnvrtc.so.13: cannot open shared object file. Try: install CUDA's "
        "libraries beside CuPy: pip install 'backprop_xp[cuda13]' (or cuda12)."
    )


def test_a_library_that_complains_in_sentences_is_told_in_one_line(bare: Path) -> None:
    (bare / "torch.py").write_text('raise OSError("libtorch.so is\\n  too old.")')
    assert told("bx.get_backend('torch')", bare, options=("-S",)) == (
        "BackendUnavailableError backend 'torch', from the argument of the call, cannot run here: "
        "OSError: libtorch.so is too old. Try: reinstall torch."
    )


@pytest.mark.parametrize(
    ("name", "module"),
    [("cupy", "cupy"), (STRICT, "array_api_strict"), ("jax", "jax"), ("torch", "torch")],
)
def test_a_folder_named_like_a_library_is_not_that_library(
    bare: Path, name: str, module: str
) -> None:
    (bare / module).mkdir()  # without __init__.py, which Python imports as an empty package
    calls = f"bx.get_backend({name!r})\nprint(bx.asarray([1.0]))"
    first, last = told(calls, bare, options=("-S",)).splitlines()
    assert first.endswith(NOT_INSTALLED[name])
    assert last == "[1.]"
    assert told(
        f"bx.get_backend({name!r})\nprint(bx.asarray([1.0]))", bare, options=("-S",)
    ).endswith("[1.]")


# Devices


@pytest.mark.parametrize("source", SOURCES)
def test_a_device_of_a_gpu_on_numpy(put: Callable[..., Any], source: str) -> None:
    where = f"Device and backend came from {SOURCES[source].format(name='numpy')}"
    if source == "environment":
        where = (
            "The device came from the environment variable BACKPROP_XP_DEVICE, the backend from "
            "the environment variable BACKPROP_XP_BACKEND"
        )
    assert text(ValueError, put, source, "numpy", device="cuda:0") == (
        f"device 'cuda:0' is none of the numpy backend's devices: cpu. {where}. Choose another "
        "device, or a backend that may have it: 'cupy', 'jax' or 'torch'."
    )


def test_a_device_alone_in_the_environment_is_numpys(put: Callable[..., Any]) -> None:
    assert text(ValueError, put, "environment", None, device="device1") == (
        "device 'device1' is none of the numpy backend's devices: cpu. The device came from the "
        "environment variable BACKPROP_XP_DEVICE, the backend from the default. Choose another "
        "device, or a backend that may have it: 'array-api-strict'."
    )


def test_a_device_of_strict_on_torch() -> None:
    torch = pytest.importorskip("torch", reason="this test needs PyTorch's devices")
    devices = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
    assert text(ValueError, bx.resolve, backend="torch", device="device1") == (
        f"device 'device1' is none of the torch backend's devices: {devices}. Device and backend "
        "came from the argument of the call. Choose another device, or a backend that may have it: "
        "'array-api-strict'."
    )


def test_a_device_that_nobody_has() -> None:
    assert text(ValueError, bx.resolve, device="abacus") == (
        "device 'abacus' is none of the numpy backend's devices: cpu. The device came from the "
        "argument of the call, the backend from the default. Choose another device."
    )


def test_a_device_that_contradicts_the_arrays() -> None:
    there = bx.asarray([1.0], backend=STRICT, device="device1")
    assert text(ValueError, bx.resolve, there, device="device2") == (
        "device='device2' contradicts the arrays given, which are on device1. Move each first: x "
        "= bx.asarray(x, backend='array-api-strict', device='device2', dtype='float64'); or leave "
        "the argument out."
    )
    assert text(ValueError, bx.resolve, there, backend="numpy") == (
        "backend='numpy' contradicts the arrays given, which are array-api-strict's. Move each "
        "first: x = bx.asarray(x, backend='numpy', dtype='float64'); or leave the argument out."
    )


def test_a_device_that_the_backend_itself_may_have_elsewhere() -> None:
    assert text(ValueError, bx.resolve, backend=STRICT, device="device7").endswith(
        "Device and backend came from the argument of the call. Choose another device."
    )


# Arrays that do not fit together


def test_arrays_of_two_libraries() -> None:
    there = bx.asarray([1.0], backend=STRICT)
    assert text(ValueError, bx.resolve, np.ones(1), there) == (
        "x is array-api-strict's on CPU_DEVICE, but an array given together with it is numpy's on "
        "cpu. Move it: x = bx.asarray(x, backend='numpy', device='cpu', dtype='float64')."
    )


def test_numpy_beside_jax_which_would_mix_them() -> None:
    pytest.importorskip("jax", reason="this test needs JAX's arrays")
    there = bx.asarray([1.0], backend="jax", device="cpu:0", dtype="float32")
    assert text(ValueError, bx.resolve, there, np.ones(1)) == (
        "x is numpy's on cpu, but an array given together with it is jax's on cpu:0. Move it: x = "
        "bx.asarray(x, backend='jax', device='cpu:0', dtype='float32')."
    )
    network = bx.mlp([1, 1])
    theta = bx.asarray([1.0, 2.0], backend="jax", device="cpu:0", dtype="float32")
    assert text(ValueError, network.forward, theta, np.ones((1, 1))) == (
        "x is numpy's on cpu, but theta is jax's on cpu:0. Move it: x = bx.asarray(x, "
        "backend='jax', device='cpu:0', dtype='float32')."
    )


def test_arrays_on_two_devices() -> None:
    here = bx.asarray([1.0], backend=STRICT, dtype="float32")
    there = bx.asarray([1], backend=STRICT, device="device1")
    assert text(ValueError, bx.resolve, here, there) == (
        "x is array-api-strict's on device1, but an array given together with it is "
        "array-api-strict's on CPU_DEVICE. Move it: x = bx.asarray(x, backend='array-api-strict', "
        "device='CPU_DEVICE')."
    )


def test_arrays_of_two_precisions() -> None:
    assert text(TypeError, bx.resolve, np.ones(1), np.ones(1, np.float32)) == (
        "x is float32, but an array given together with it is float64; precisions are not mixed. "
        "Cast it: x = bx.asarray(x, backend='numpy', device='cpu', dtype='float64')."
    )
    there = bx.asarray([1.0, 2.0], backend=STRICT, device="device1", dtype="float32")
    x = bx.asarray([[1.0]], backend=STRICT, device="device1", dtype="float64")
    assert text(TypeError, bx.mlp([1, 1]).forward, there, x) == (
        "x is float64, but theta is float32; precisions are not mixed. Cast it: x = bx.asarray(x, "
        "backend='array-api-strict', device='device1', dtype='float32')."
    )


@pytest.mark.parametrize("place", [{"backend": STRICT}, {"backend": "numpy", "dtype": "float32"}])
def test_the_line_of_a_part_is_code_as_well(place: dict[str, str]) -> None:
    theta, network = np.ones(2), bx.mlp([1, 1])
    there = bx.asarray([[1.0]], **place)
    found = [
        text(
            (TypeError, ValueError)["dtype" not in place],
            lambda: network.pack([(np.ones((1, 1)), there)]),
        ),
        text(
            (TypeError, ValueError)["dtype" not in place],
            lambda: bx.check_gradient(sum, list, [theta, there]),
        ),
    ]
    for error, part in zip(found, ["parameters[0][1]", "point[1]"], strict=True):
        assert error.startswith(part)
        assert error.endswith(
            f" it: bx.asarray({part}, backend='numpy', device='cpu', dtype='float64')."
        )


# Dtypes


@pytest.mark.parametrize("source", SOURCES)
def test_an_unknown_dtype(put: Callable[..., Any], source: str) -> None:
    where = SOURCES[source].format(name="numpy").replace("_BACKEND", "_DTYPE")
    assert text(ValueError, put, source, "numpy", dtype="float23") == (
        f"dtype 'float23', from {where}, is unknown. Did you mean 'float32'? Known: float32, "
        "float64, complex64, complex128, bool, int8, int16, int32, int64, uint8, uint16, uint32, "
        "uint64."
    )


def test_a_standing_choice_of_integers(put: Callable[..., Any]) -> None:
    assert text(ValueError, put, "environment", None, dtype="int32") == (
        "dtype 'int32', from the environment variable BACKPROP_XP_DTYPE, is not real floating: as "
        "a standing choice it would truncate all data. Choose 'float32' or 'float64' there, or "
        "give dtype='int32' to the calls that want it."
    )


def test_a_dtype_that_contradicts_the_arrays() -> None:
    assert text(ValueError, bx.resolve, np.ones(1), dtype="float32") == (
        "dtype='float32' contradicts the arrays given, which are float64. Cast each first: x = "
        "bx.asarray(x, backend='numpy', device='cpu', dtype='float32'); or leave the argument out."
    )


@pytest.mark.parametrize("source", SOURCES)
def test_float64_on_a_device_without_it(put: Callable[..., Any], source: str) -> None:
    where = SOURCES[source].format(name=STRICT).replace("_BACKEND", "_DTYPE")
    assert text(DTypeNotKeptError, put, source, STRICT, device="no_float64", dtype="float64") == (
        f"dtype 'float64', from {where}, cannot be had: array-api-strict keeps no float64 on "
        "no_float64. Ask for one of half the bits, or for another device."
    )


NO_X64 = "JAX keeps no {} unless the environment sets JAX_ENABLE_X64=1 before JAX is imported."
WANTS_FLOAT64 = """\
bx.asarray(np.ones(1), backend='jax', dtype='float64')
bx.asarray(bx.asarray([1.0], backend='jax'), backend='jax', dtype='float64')
bx.resolve(backend='jax', dtype=np.float64)
bx.mlp([1, 1]).initialize(backend='jax', dtype='float64')
"""


def test_float64_on_jax_without_x64() -> None:
    pytest.importorskip("jax", reason="this test needs JAX")
    assert told(WANTS_FLOAT64).splitlines() == 4 * [
        "DTypeNotKeptError dtype 'float64', from the argument of the call, cannot be had: "
        f"{NO_X64.format('float64')} Set that, or ask for dtype='float32'."
    ]


def test_float64_on_jax_from_the_environment_without_x64() -> None:
    pytest.importorskip("jax", reason="this test needs JAX")
    chosen = told("bx.resolve()", BACKPROP_XP_BACKEND="jax", BACKPROP_XP_DTYPE="float64")
    assert chosen == (
        "DTypeNotKeptError dtype 'float64', from the environment variable BACKPROP_XP_DTYPE, "
        f"cannot be had: {NO_X64.format('float64')} Set that, or ask for dtype='float32'."
    )


WIDER = """\
bx.resolve(backend='array-api-strict', device='no_float64', dtype='float64')
bx.asarray([1j], backend='array-api-strict', device='no_float64', dtype='complex128')
"""


def test_a_dtype_that_the_device_lacks() -> None:
    assert told(WIDER).splitlines() == [
        f"DTypeNotKeptError dtype {dtype!r}, from the argument of the call, cannot be had: "
        f"array-api-strict keeps no {dtype} on no_float64. Ask for one of half the bits, or for "
        "another device."
        for dtype in ("float64", "complex128")
    ]


def test_a_dtype_that_the_device_lacks_names_its_own_source() -> None:
    environment = {"BACKEND": STRICT, "DEVICE": "no_float64", "DTYPE": "float64"}
    chosen = told("bx.resolve()", **{f"BACKPROP_XP_{k}": v for k, v in environment.items()})
    assert chosen.startswith(
        "DTypeNotKeptError dtype 'float64', from the environment variable BACKPROP_XP_DTYPE, "
        "cannot be had: array-api-strict keeps no float64 on no_float64."
    )


def test_complex_numbers_where_integers_are_asked_for() -> None:
    assert text(TypeError, bx.asarray, [1j], dtype="int32") == (
        "x is complex, but dtype int32 is asked for."
    )


INTEGERS = """\
bx.asarray(np.array([-1, 2**31]), backend='jax')
bx.asarray(np.array([2**32], np.uint64), backend='jax')
print(bx.asarray(np.array([-2**31, 2**31 - 1]), backend='jax'))
print(bx.asarray(np.zeros(0, np.int64), backend='jax'))
"""


def test_integers_that_jax_would_wrap_without_x64() -> None:
    pytest.importorskip("jax", reason="this test needs JAX")
    assert told(INTEGERS).splitlines() == [
        "DTypeNotKeptError integers from -1 to 2147483648 do not fit in int32. "
        f"{NO_X64.format('int64')} Set that, or ask for dtype='float32'.",
        "DTypeNotKeptError integers from 4294967296 to 4294967296 do not fit in uint32. "
        f"{NO_X64.format('uint64')} Set that, or ask for dtype='float32'.",
        "[-2147483648  2147483647]",
        "[]",
    ]
    assert told("print(bx.asarray([2**31], backend='jax'))", JAX_ENABLE_X64="1") == "[2147483648]"
