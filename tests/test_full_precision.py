"""A gradient check's products keep all digits, whatever the process has chosen for its own."""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Backend, get_backend

Setting = Callable[[], Any]

PEDANTIC_MATH = 2  # CUBLAS_PEDANTIC_MATH of cublas_api.h


@pytest.fixture
def torchs() -> Iterator[Setting]:
    """PyTorch's settings, in a process that has chosen TF32 and bfloat16."""
    torch = pytest.importorskip("torch")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    new = hasattr(torch.backends.cuda.matmul, "fp32_precision")

    def setting() -> Any:
        if not new:
            return torch.get_float32_matmul_precision()
        places = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
        return [place.fp32_precision for place in places]

    yield setting
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def jaxs() -> Setting:
    """What JAX would compile a product with."""
    jax = pytest.importorskip("jax")

    def setting() -> Any:
        (equation,) = jax.make_jaxpr(lambda x: x @ x)(np.ones((2, 2), np.float32)).eqns
        return equation.params["precision"]

    return setting


@pytest.fixture
def cupys(gpu: Backend) -> Setting:
    """CuPy's compute types for two matrices, and the mode in which stacks are multiplied."""
    cupy = importlib.import_module("cupy")
    core = cupy._core

    def setting() -> Any:
        mode = cupy.cuda.cublas.getMathMode(cupy.cuda.get_cublas_handle())
        return [core.get_compute_type(np.float32), core.get_compute_type(np.float64), mode]

    return setting


def full_of(name: str) -> Any:
    """Return the setting that keeps all digits."""
    if name == "torch":
        torch = importlib.import_module("torch")
        new = hasattr(torch.backends.cuda.matmul, "fp32_precision")
        return ["ieee", "ieee"] if new else "highest"
    if name == "jax":
        highest = importlib.import_module("jax").lax.Precision.HIGHEST
        return (highest, highest)
    linalg = importlib.import_module("cupy._core._routines_linalg")
    return [linalg.COMPUTE_TYPE_PEDANTIC, linalg.COMPUTE_TYPE_PEDANTIC, PEDANTIC_MATH]


SETTINGS = [("torch", "torchs"), ("jax", "jaxs"), ("cupy", "cupys")]


@pytest.mark.parametrize(("name", "fixture"), SETTINGS)
def test_full_precision_is_had_inside_and_given_back(
    request: pytest.FixtureRequest, name: str, fixture: str
) -> None:
    setting = request.getfixturevalue(fixture)
    backend = importlib.import_module(f"backprop_xp.backends.{name}").backend
    before = setting()
    assert before != full_of(name)
    with backend.full_precision(), backend.full_precision():
        assert setting() == full_of(name)
    assert setting() == before
    with pytest.raises(ZeroDivisionError), backend.full_precision():
        raise ZeroDivisionError
    assert setting() == before


@pytest.mark.parametrize(("name", "fixture"), SETTINGS)
@pytest.mark.parametrize("first", ["this thread", "the other"])
def test_threads_that_overlap_have_full_precision_until_the_last_is_out(
    request: pytest.FixtureRequest, name: str, fixture: str, first: str
) -> None:
    setting = request.getfixturevalue(fixture)
    backend = importlib.import_module(f"backprop_xp.backends.{name}").backend
    before = setting()
    is_in, may_go = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with backend.full_precision():
            is_in.set()
            assert may_go.wait(timeout=60)
            seen.append(setting())
        seen.append(setting())

    thread = threading.Thread(target=other)
    with contextlib.ExitStack() as here:
        here.enter_context(backend.full_precision())
        thread.start()
        assert is_in.wait(timeout=60)
        if first == "this thread":
            here.close()
        may_go.set()
        thread.join()
        assert setting() == (before if first == "this thread" else full_of(name))
    assert setting() == before
    assert seen[0] == full_of(name)


@pytest.mark.parametrize(("name", "fixture"), SETTINGS)
def test_a_gradient_check_computes_in_full_precision(
    request: pytest.FixtureRequest, name: str, fixture: str
) -> None:
    setting = request.getfixturevalue(fixture)
    before = setting()
    seen = []

    def value(p: Any) -> Any:
        seen.append(setting())
        return (p * p * p).sum()

    def gradient(p: Any) -> Any:
        seen.append(setting())
        return 3.0 * p * p

    point = bx.asarray([0.5, -2.0, 3.0], backend=get_backend(name), dtype="float32")
    assert bx.check_gradient(value, gradient, point, method="centered").passed
    assert len(seen) > 4
    assert all(found == full_of(name) for found in seen)
    assert setting() == before
