"""dpnp on SYCL's devices: their names, their dtypes, and what makes one answer."""

import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError, DTypeNotKeptError
from tests.helpers import printed_lines, python

dpnp = pytest.importorskip("dpnp", reason="dpnp is not installed")
pytestmark = pytest.mark.dpnp


@pytest.fixture
def backend() -> Any:
    try:
        return bx.get_backend("dpnp")
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def test_a_device_goes_by_parts_of_sycls_name(backend: Any) -> None:
    first = backend.devices()[0]
    name = backend.device_name(first)
    platform, kind, number = name.split(":")
    for word in (name, platform, kind, f"{platform}:{kind}", f"{kind}:{number}", first):
        assert backend.device(word) == first
    for word in ("cuda:0", f"{platform}:{kind}:7", "", f"{kind}:{platform}", 0, 1.5):
        with pytest.raises(ValueError, match=f"unknown to the dpnp backend.*{name}"):
            backend.device(word)
    assert bx.asarray([1.0], backend="dpnp", device=kind).device == first


def test_auto_prefers_only_a_gpu(backend: Any) -> None:
    assert all(device.sycl_device.is_gpu for device in backend.accelerators())


def test_float64_on_a_gpu_that_lacks_it_is_an_error_with_the_way_out(backend: Any) -> None:
    gpu: Any = types.SimpleNamespace(
        sycl_device=types.SimpleNamespace(
            has_aspect_fp64=False, filter_string="level_zero:gpu:0", name="Arc"
        )
    )
    for dtype in (dpnp.float64, dpnp.complex128):
        with pytest.raises(DTypeNotKeptError, match=r"0 \(Arc\) has no \w+. Use dtype='float32'"):
            backend.require_dtype(dtype, gpu)
    backend.require_dtype(dpnp.float32, gpu)
    with pytest.raises(DTypeNotKeptError, match="has no float64"):
        backend.from_host(np.ones(2), None, gpu)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("constant", [-1, -2, (-1, -2)], ids=str)
def test_products_read_broadcast_arrays(backend: Any, shape: Any, constant: Any) -> None:
    """dpnp's own arrays of strides of 0 give wrong products, or none."""
    xp, part = backend.namespace(), np.random.default_rng(0).normal(size=shape)
    part = np.max(part, axis=constant, keepdims=True)
    other = np.random.default_rng(1).normal(size=(*shape[:-2], 4, 2))
    wide, same = xp.broadcast_to(backend.from_host(part), shape), np.broadcast_to(part, shape)
    np.testing.assert_allclose(bx.to_host(wide @ backend.from_host(other)), same @ other)
    both = xp.broadcast_arrays(backend.from_host(part), backend.from_host(np.ones(shape)))
    np.testing.assert_allclose(bx.to_host(both[0] @ backend.from_host(other)), same @ other)


@pytest.mark.timed
def test_operations_that_nobody_waits_for_do_not_hang() -> None:
    """With oneMKL's vector functions, this hangs after some hundred operations on a CPU."""
    program = (
        "import numpy as np\n"
        "backend = bx.get_backend('dpnp')\n"
        "xp = backend.namespace()\n"
        "x, w, bias = (backend.from_host(np.ones(s)) for s in ((8, 3), (3, 2), (3, 2)))\n"
        "rows = backend.from_host(np.array([0, 3, 2]))\n"
        "for _ in range(4000): result = xp.take(x, rows, axis=0) @ w + bias\n"
        "print(bx.to_host(result)[0, 0])\n"
    )
    assert python(f"import backprop_xp as bx\n{program}").stdout.strip() == "4.0"


def test_the_cpus_runtime_is_found_without_a_variable(backend: Any) -> None:
    calls = "os.environ.pop('OCL_ICD_FILENAMES', None)\nprint(bx.get_backend('dpnp').device('cpu'))"
    *_, name = printed_lines(calls)
    assert name.startswith("Device(")


def test_without_a_device_the_reason_says_how_to_get_one(backend: Any) -> None:
    if backend.accelerators():
        pytest.skip("a GPU answers")
    (line,) = printed_lines("bx.get_backend('dpnp')", OCL_ICD_FILENAMES="")
    assert "BackendUnavailableError" in line
    assert "cannot run here: no SYCL device answers. Try: " in line
    assert "for the CPU, or install a GPU's driver." in line
    path = re.search(r"set OCL_ICD_FILENAMES=(\S+) before for the CPU", line)
    assert path is None or Path(path[1]).exists()
