"""The transfer guard: which transfers it forbids, logs and allows, and its scope."""

import asyncio
import contextlib
import functools
import importlib
import logging
import math
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Backend, owner, to_host
from backprop_xp.backends.registry import BUILT_IN, built_in
from tests.helpers import GUARDED, HANGING, guarded_array, needing, python

pytestmark = [pytest.mark.core, pytest.mark.installed]


def _put(name: str, x: Any) -> Any:
    return guarded_array(name, x, "float32")


@pytest.fixture(params=[*map(needing, GUARDED)])
def put(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A function that moves data to a device that a guard watches."""
    return functools.partial(_put, request.param)


def _xp(x: Any) -> Any:
    return bx.resolve(x).backend.namespace()


def _number(x: Any) -> Any:
    return _xp(x).sum(x)


def _branch(x: Any) -> int:
    return 1 if _number(x) > 0.0 else 0


EVERYWHERE: dict[str, Callable[[Any], Any]] = {
    "float": lambda x: float(_number(x)),
    "int": lambda x: int(_number(x)),
    "complex": lambda x: complex(_number(x)),
    "bool": lambda x: bool(_number(x)),
    "if": _branch,
    "math.sqrt": lambda x: math.sqrt(_number(x)),
    "iteration": list,
    "unpacking": lambda x: [*x],
    "in": lambda x: 2.0 in x,
    "numpy.asarray": np.asarray,
    "numpy.asarray_chkfinite": np.asarray_chkfinite,
    # The shape of their result depends on the values, so the host waits for the device.
    "nonzero": lambda x: _xp(x).nonzero(x),
    "unique": lambda x: _xp(x).unique_values(x),
    "mask": lambda x: x[x > 1.0],
}
OWN: dict[str, dict[str, Callable[[Any], Any]]] = {
    "array-api-strict": {
        "numpy.from_dlpack": np.from_dlpack,
        "numpy.atleast_1d": np.atleast_1d,
        "index": lambda x: [1, 2][bx.resolve(x).backend.namespace().argmax(x)],
    },
    "torch": {
        "numpy.from_dlpack": np.from_dlpack,
        "numpy.atleast_1d": np.atleast_1d,
        "index": lambda x: [1, 2][x.argmax()],
        "item": lambda x: x.sum().item(),
        "tolist": lambda x: x.tolist(),
        "numpy": lambda x: x.numpy(),
        "cpu": lambda x: x.cpu(),
        "equal": lambda x: x.equal(x),
        "allclose": lambda x: x.allclose(x),
        "is_nonzero": lambda x: x.sum().is_nonzero(),
        "torch.equal": lambda x: importlib.import_module("torch").equal(x, x),
        "masked_select": lambda x: x.masked_select(x > 1.0),
        "torch.masked_select": lambda x: _xp(x).masked_select(x, x > 1.0),
        "method nonzero": lambda x: x.nonzero(),
        "where": lambda x: importlib.import_module("torch").where(x > 1.0),
        "argwhere": lambda x: _xp(x).argwhere(x),
        "bincount": lambda x: (x[0] > 1.0).int().bincount(),
        "masks": lambda x: x[0, x[0] > 1.0],
        "bytes as a mask": lambda x: x[(x > 1.0).byte()],
        "written under a mask": lambda x: x.__setitem__(x > 1.0, x[0, :1]),
    },
    "dpnp": {
        "index": lambda x: [1, 2][x.argmax()],
        "item": lambda x: x.sum().item(),
        "tolist": lambda x: x.tolist(),
        "asnumpy": lambda x: x.asnumpy(),
        "dpnp.asnumpy": lambda x: bx.resolve(x).backend.namespace().asnumpy(x),
        "tobytes": lambda x: x.tobytes(),
        "argwhere": lambda x: _xp(x).argwhere(x),
        "dpnp.nonzero": lambda x: importlib.import_module("dpnp").nonzero(x),
        "method nonzero": lambda x: x.nonzero(),
    },
    "cupy": {
        "item": lambda x: x.sum().item(),
        "tolist": lambda x: x.tolist(),
        "get": lambda x: x.get(),
        "asnumpy": lambda x: bx.resolve(x).backend.namespace().asnumpy(x),
        "tobytes": lambda x: x.tobytes(),
    },
}
LEAKS = [
    pytest.param(name, leak, id=f"{name}, {way}", marks=needing(name).marks)
    for name in GUARDED
    for way, leak in {**EVERYWHERE, **OWN[name]}.items()
]


@pytest.mark.parametrize(("name", "leak"), LEAKS)
def test_an_implicit_transfer_is_an_error_inside_a_guard_and_works_after_it(
    name: str, leak: Any
) -> None:
    x = _put(name, [[1.0, 2.0]])
    with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError, match="to_host"):
        leak(x)
    assert float(_number(x)) == 3.0


def test_an_implicit_transfer_in_a_custom_layer_or_loss_is_an_error(put: Any) -> None:
    class Leaky(bx.Activate):
        def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
            return super().forward(parameters, _branch(x) * x, rng)

    def value(outputs: Any, targets: Any) -> Any:
        return huber.value(outputs, targets) / float(_number(targets))

    huber, dense = bx.losses.huber, bx.Dense(2, 1)
    x, y, theta = put([[1.0, 2.0]]), put([[1.0]]), put([0.1, 0.2, 0.3])
    for network in (
        bx.Network([Leaky("identity"), dense], huber),
        bx.Network([dense], bx.Loss(value, huber.gradient)),
    ):
        with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError):
            network.loss_and_gradient(theta, x, y)


@pytest.mark.parametrize("mode", ["disallow", "log"])
def test_explicit_transfers_and_array_arithmetic_are_allowed(
    put: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([[1.0, 2.0]])
    backend = bx.resolve(x).backend
    xp = backend.namespace()
    with bx.transfer_guard(mode):
        moved = [backend.to_host(x), to_host(x), bx.asarray(x, backend="numpy")]
        assert backend.probe().usable
        x = xp.astype(xp.asarray(x, copy=True) @ xp.matrix_transpose(x) > 0.0, x.dtype)[0, 0]
        x += 1.0
        y = xp.where(x > 0.0, x, -x)[None]
        y[0] = y[-1] + y[0]
    assert [host.tolist() for host in moved] == [[[1.0, 2.0]]] * 3
    assert float(x) == 2.0
    assert not caplog.records


def test_strict_arrays_leave_a_device_by_explicit_transfers_only() -> None:
    x = bx.asarray([1.0], backend="array-api-strict", device="device1")
    backend = bx.resolve(x).backend
    xp, host = backend.namespace(), backend.device("cpu")
    with bx.transfer_guard("disallow"):
        for move in (
            lambda: x.to_device(host),
            lambda: xp.asarray(x, device=host),
            lambda: xp.from_dlpack(x, device=host),
        ):
            with pytest.raises(bx.TransferError):
                move()
        assert x.to_device(backend.device("device2")).device != x.device
        assert bx.asarray(x, backend=backend, device="cpu").device == host
        assert xp.asarray([1.0], device=host).to_device(x.device).device == x.device
        with pytest.raises(ValueError, match="different devices"):
            x + xp.ones(1)


def test_tensors_leave_another_device_by_explicit_transfers_only(torch: Any) -> None:
    x = torch.ones(1, device="meta")  # the only device besides the CPU that needs no hardware
    with bx.transfer_guard("disallow"):
        for move in (
            lambda: x.cpu(),
            lambda: x.to("cpu"),
            lambda: x.to(device="cpu"),
            lambda: x.to(torch.device("cpu"), torch.float64),
            lambda: x.to(torch.ones(1)),
            lambda: x.to(other=torch.ones(1)),
            lambda: torch.asarray(x, device="cpu"),
        ):
            with pytest.raises(bx.TransferError, match="on meta to the host"):
                move()
        assert x.to(torch.float64).device == x.device
        assert torch.ones(1).to("meta").device == x.device
        assert torch.ones(1).to("cpu").dtype == torch.float32


def test_an_error_and_a_log_line_name_the_array_and_the_source_line(
    put: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([[1.0, 2.0]])
    name = bx.resolve(x).backend.device_name(bx.resolve(x).device)
    with bx.transfer_guard("log"):
        _, line = float(_number(x)), sys._getframe().f_lineno
    (record,) = caplog.records
    message = record.getMessage()
    assert (record.name, record.levelno) == ("backprop_xp", logging.WARNING)
    assert f"shape (), float32, on {name}" in message
    assert message.endswith(f"{__file__}:{line}.")
    # Calls through NumPy's files, and through the array library's own.
    for leak in (np.asarray_chkfinite, lambda x: 2.0 in x):
        with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError) as info:
            leak(x)
        assert f"on {name} to the host at {__file__}:" in str(info.value)


@pytest.mark.parametrize("mode", ["log", "disallow"])
@pytest.mark.parametrize("show", [repr, str, "{}".format, ascii])
def test_printing_an_array_is_logged_once_and_never_an_error(
    put: Any, show: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([0.25])
    expected = show(x)
    with bx.transfer_guard(mode):
        assert show(x) == expected
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_innermost_guard_holds_and_the_outer_one_returns(
    put: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([1.0])
    with bx.transfer_guard("disallow"):
        with bx.transfer_guard("allow"):
            float(_number(x))
            assert not caplog.records
        with bx.transfer_guard("log"):
            float(_number(x))
            assert len(caplog.records) == 1
        with pytest.raises(bx.TransferError):
            float(_number(x))
    outer, inner = bx.transfer_guard("allow"), bx.transfer_guard("disallow")
    with outer, inner, pytest.raises(bx.TransferError):
        float(_number(x))
    float(_number(x))


def test_guards_of_generators_that_end_in_any_order_leave_no_guard_behind(put: Any) -> None:
    x = _number(put([1.0]))

    def guarded() -> Iterator[None]:
        with bx.transfer_guard("disallow"):
            for _ in range(2):
                with pytest.raises(bx.TransferError):
                    float(x)
                yield

    for _ in guarded():
        pass
    first, second = guarded(), guarded()
    next(first)
    next(second)
    first.close()  # in another order than they started
    next(second)
    second.close()
    assert float(x) == 1.0


@contextlib.contextmanager
def _disallowing() -> Iterator[None]:
    with bx.transfer_guard("disallow"):
        yield


def test_a_context_managers_generator_keeps_its_guard_in_the_with_block(put: Any) -> None:
    x = _number(put([1.0]))
    with _disallowing(), pytest.raises(bx.TransferError):
        float(x)
    assert float(x) == 1.0


def test_another_thread_is_unaffected_and_may_have_its_own_guard(put: Any) -> None:
    x, outer_ended = _number(put([1.0])), threading.Event()
    inside = threading.Event()

    def other() -> float:
        value = float(x)
        with bx.transfer_guard("disallow"):
            inside.set()
            assert outer_ended.wait(timeout=HANGING)
            with pytest.raises(bx.TransferError):
                float(x)
        return value

    with ThreadPoolExecutor(1) as pool:
        with bx.transfer_guard("disallow"):
            found = pool.submit(other)
            assert inside.wait(timeout=HANGING)
        outer_ended.set()
        assert found.result() == float(x) == 1.0


def test_another_task_is_unaffected(put: Any) -> None:
    x = _number(put([1.0]))

    async def guarded() -> None:
        with bx.transfer_guard("disallow"):
            inside.set()
            await read.wait()
            with pytest.raises(bx.TransferError):
                float(x)

    async def free() -> float:
        await inside.wait()
        value = float(x)
        read.set()
        return value

    async def both() -> Any:
        return await asyncio.gather(guarded(), free())

    inside, read = asyncio.Event(), asyncio.Event()
    assert asyncio.run(both())[1] == 1.0


def test_a_librarys_classes_change_only_inside_a_guard(put: Any) -> None:
    backend = bx.resolve(put([1.0])).backend

    def patched_methods() -> list[Any]:
        return [
            vars(one.holder).get(one.name, "inherited")
            for one in backend.host_conversions()
            if hasattr(one.holder, one.name)
        ]

    before = patched_methods()
    with bx.transfer_guard("log"):
        with pytest.raises(KeyError), bx.transfer_guard("disallow"):
            raise KeyError
        assert all(now is not then for now, then in zip(patched_methods(), before, strict=True))
    assert all(now is then for now, then in zip(patched_methods(), before, strict=True))
    with bx.transfer_guard("allow"):
        assert all(now is then for now, then in zip(patched_methods(), before, strict=True))


@pytest.mark.parametrize("loading", ["bx.get_backend('array-api-strict')", "network.forward(a, x)"])
def test_a_library_first_imported_inside_a_guard_is_guarded(loading: str) -> None:
    done = python(f"""
import sys, backprop_xp as bx
network = bx.mlp([1, 1])
with bx.transfer_guard("disallow"):
    assert "array_api_strict" not in sys.modules
    import array_api_strict as xp
    a, x = xp.asarray([1.0, 2.0]), xp.asarray([[1.0]])
    {loading}
    try:
        float(a[0])
    except bx.TransferError:
        print("refused")
""")
    assert done.stdout.strip() == "refused", done.stderr


def test_cupys_class_is_patched_without_a_gpu_too() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    before = dict(vars(cupy.ndarray))
    with bx.transfer_guard("disallow"):
        changed = vars(cupy.ndarray).keys() - before.keys()
        assert {"get", "item", "__float__", "__bool__", "__iter__", "__dlpack__"} <= changed
    assert dict(vars(cupy.ndarray)) == before


def test_jax_uses_its_own_guard(xp: Any) -> None:
    if xp.name != "jax":
        pytest.skip("JAX's guard is tested where the suite runs on JAX")
    import jax

    x = xp.asarray([1.0])
    before = jax.config.jax_transfer_guard_device_to_host
    for mode in ("disallow", "log", "allow"):
        with bx.transfer_guard(mode):
            assert jax.config.jax_transfer_guard_device_to_host == mode
            assert xp.host(x).tolist() == [1.0]
    assert jax.config.jax_transfer_guard_device_to_host == before


@pytest.mark.parametrize(
    ("mode", "error", "hint"),
    [
        ("disalow", ValueError, "'disalow' is unknown. Did you mean 'disallow'?"),
        ("off", ValueError, "Known: disallow, log, allow"),
        (None, TypeError, "mode must be one of disallow, log, allow, not None"),
    ],
)
def test_an_unknown_mode_is_an_error(mode: Any, error: Any, hint: str) -> None:
    with pytest.raises(error, match=re.escape(hint)), bx.transfer_guard(mode):
        pass


def test_an_array_that_numpy_leaves_on_its_device_is_no_transfer() -> None:
    with bx.transfer_guard("disallow"):
        assert float(bx.asarray([0.5], backend="numpy")[0]) == 0.5
    x = _put("cupy", 2.0)
    with bx.transfer_guard("disallow"):
        assert type(np.atleast_1d(x)) is type(x)


@pytest.mark.parametrize("name", [*map(needing, BUILT_IN)])
def test_the_methods_that_a_backend_guards_exist(name: str) -> None:
    backend = built_in(name)
    if not backend.probe().usable:
        pytest.skip(backend.probe().reason)
    missing = {
        conversion.name
        for conversion in backend.host_conversions()
        if not hasattr(conversion.holder, conversion.name)
    }
    # Some versions lack them: CuPy's arrays are no indices, older strict arrays had no iterator.
    assert missing <= {"__index__", "__iter__"}


@pytest.mark.parametrize("method", ["host_conversions", "transfer_guard"])
def test_an_error_of_a_backend_is_raised_unchanged(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no libfoo.so")

    x = _put("array-api-strict", [1.0])
    with monkeypatch.context() as patched:
        patched.setattr(type(bx.get_backend("array-api-strict")), method, broken)
        with pytest.raises(RuntimeError, match="no libfoo"):
            bx.transfer_guard("disallow").__enter__()
    assert float(x[0]) == 1.0, "no guard is left behind"


def test_an_array_whose_transfers_nothing_shows_is_an_error_inside_a_guard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend of another package may have no ``host_conversions``."""
    x, network = _put("array-api-strict", [[1.0, 2.0]]), bx.mlp([2, 1])
    strict = bx.get_backend("array-api-strict")
    theta = network.initialize(backend=strict, device="device1", dtype="float32")
    monkeypatch.setattr(type(strict), "host_conversions", Backend.host_conversions)
    network.forward(theta, x)
    with bx.transfer_guard("disallow"):
        bx.get_backend("array-api-strict")  # without an array
        bx.mlp([1, 1]).initialize(backend="numpy")
        with pytest.raises(bx.TransferError, match="cannot watch array-api-strict's arrays"):
            network.forward(theta, x)
        with bx.transfer_guard("allow"):
            network.forward(theta, x)
    assert not caplog.records
    with bx.transfer_guard("log"):
        network.forward(theta, x)
        network.forward(theta, x)
        with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError, match="cannot watch"):
            network.forward(theta, x)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "the backend has no host_conversions()" in line
    network.forward(theta, x)


def test_a_library_without_guarded_methods_is_looked_up_once_per_guard_and_never_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []
    monkeypatch.setattr(
        type(bx.get_backend("numpy")), "host_conversions", lambda self: looks.append(1) or ()
    )
    for _ in range(5):
        assert owner(np.ones(1)) is bx.get_backend("numpy")
    assert not looks
    with bx.transfer_guard("disallow"):
        owner(np.ones(1))
        before = len(looks)
        for _ in range(5):
            owner(np.ones(1))
    assert len(looks) == before
