"""A gradient check computes with all digits, whatever precision the process has set."""

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Backend
from tests.helpers import HANGING, needing

pytestmark = [pytest.mark.core, pytest.mark.installed]

PEDANTIC_MATH = 2  # CUBLAS_PEDANTIC_MATH of cublas_api.h


class Setting(NamedTuple):
    """A backend, its library's current precision of products, and the one that keeps all digits."""

    backend: Backend
    now: Callable[[], Any]
    full: Any


def _torch_setting() -> Iterator[Setting]:
    """PyTorch in a process with TF32 and bfloat16."""
    torch = pytest.importorskip("torch")
    settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [setting.fp32_precision for setting in settings]
    for setting, low in zip(settings, ("tf32", "bf16"), strict=True):
        setting.fp32_precision = low

    def now() -> Any:
        return [setting.fp32_precision for setting in settings]

    yield Setting(bx.get_backend("torch"), now, ["ieee", "ieee"])
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


def _jax_setting() -> Iterator[Setting]:
    """JAX, whose compiled products have a precision."""
    jax = pytest.importorskip("jax")

    def now() -> Any:
        (equation,) = jax.make_jaxpr(lambda x: x @ x)(np.ones((2, 2), np.float32)).eqns
        return equation.params["precision"]

    yield Setting(bx.get_backend("jax"), now, (jax.lax.Precision.HIGHEST,) * 2)


def _cupy_setting(gpu: Backend) -> Iterator[Setting]:
    """CuPy's compute types for two matrices, and its mode for products of stacks."""
    cupy = importlib.import_module("cupy")
    core, cublas = cupy._core, cupy.cuda.cublas

    def now() -> Any:
        mode = cublas.getMathMode(cupy.cuda.get_cublas_handle())
        return [core.get_compute_type(np.float32), core.get_compute_type(np.float64), mode]

    pedantic = importlib.import_module("cupy._core._routines_linalg").COMPUTE_TYPE_PEDANTIC
    yield Setting(gpu, now, [pedantic, pedantic, PEDANTIC_MATH])


@pytest.fixture(params=[*map(needing, ("torch", "jax", "cupy"))])
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    if request.param == "cupy":
        yield from _cupy_setting(request.getfixturevalue("gpu"))
    else:
        yield from {"torch": _torch_setting, "jax": _jax_setting}[request.param]()


def test_full_precision_holds_inside_and_the_old_setting_returns(setting: Setting) -> None:
    backend, before = setting.backend, setting.now()
    assert before != setting.full
    with backend.full_precision(), backend.full_precision():
        assert setting.now() == setting.full
    assert setting.now() == before
    with pytest.raises(ZeroDivisionError), backend.full_precision():
        raise ZeroDivisionError
    assert setting.now() == before


@pytest.mark.parametrize("first", ["this thread", "the other"])
def test_overlapping_threads_have_full_precision_until_the_last_one_leaves(
    setting: Setting, first: str
) -> None:
    before = setting.now()
    is_in, may_go = threading.Event(), threading.Event()

    def other() -> Any:
        with setting.backend.full_precision():
            is_in.set()
            assert may_go.wait(timeout=HANGING)
            return setting.now()

    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as here:
        here.enter_context(setting.backend.full_precision())
        seen = pool.submit(other)
        assert is_in.wait(timeout=HANGING)
        if first == "this thread":
            here.close()
        may_go.set()
        assert seen.result() == setting.full
        assert setting.now() == (before if first == "this thread" else setting.full)
    assert setting.now() == before


def test_a_gradient_check_computes_in_full_precision(setting: Setting) -> None:
    before, seen = setting.now(), []

    def value(p: Any) -> Any:
        seen.append(setting.now())
        return (p * p * p).sum()

    def gradient(p: Any) -> Any:
        seen.append(setting.now())
        return 3.0 * p * p

    point = bx.asarray([0.5, -2.0, 3.0], backend=setting.backend, dtype="float32")
    assert bx.check_gradient(value, gradient, point, method="centered").passed
    assert len(seen) > 4
    assert all(found == setting.full for found in seen)
    assert setting.now() == before


CHECKS = {
    "network": lambda network, theta, x, y: bx.check_network(network, theta, x, y),
    "layer": lambda network, theta, x, y: bx.check_layer(network.layers[0], x),
    "loss": lambda network, theta, x, y: bx.check_loss("mean_squared_error", y, y + 1.0),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_of_our_parts_have_float64_where_jax_has_it_off(name: str, jax: Any) -> None:
    with jax.enable_x64(False):
        network = bx.mlp([2, 3, 1], hidden="tanh")
        theta = network.initialize(seed=0, backend="jax")
        x, y = (bx.asarray(v, backend="jax") for v in ([[0.5, 1.0], [2.0, 1.0]], [[1.0], [0.0]]))
        report = CHECKS[name](network, theta, x, y)
        assert (report.passed, report.method) == (True, "complex_step")
        assert report.max_relative_error < 1e-12
        assert str(theta.dtype) == str((theta + 1).dtype) == "float32"
