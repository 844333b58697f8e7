"""The transfer guard: what it refuses, logs and lets through, and for whom."""

import asyncio
import contextlib
import functools
import importlib
import logging
import math
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Backend, BackendUnavailableError, owner, to_host
from backprop_xp.backends.registry import loaded

# A pretended device, and PyTorch on the CPU, stand in for a GPU; "cuda" is the current one.
PLACES = {"array-api-strict": "device1", "torch": "cpu", "cupy": "cuda"}


def _put(name: str, x: Any) -> Any:
    """Return data where a guard holds; skip where that library cannot run."""
    try:
        return bx.asarray(x, backend=name, device=PLACES[name], dtype="float32")
    except BackendUnavailableError as error:
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1" and name == "cupy":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(params=PLACES)
def put(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A function that puts data where a guard holds."""
    return functools.partial(_put, request.param)


def _number(x: Any) -> Any:
    return bx.resolve(x).backend.namespace().sum(x)


def _decides(x: Any) -> int:
    return 1 if _number(x) > 0.0 else 0


EVERYWHERE: dict[str, Callable[[Any], Any]] = {
    "float": lambda x: float(_number(x)),
    "int": lambda x: int(_number(x)),
    "complex": lambda x: complex(_number(x)),
    "bool": lambda x: bool(_number(x)),
    "if": _decides,
    "math.sqrt": lambda x: math.sqrt(_number(x)),
    "iteration": list,
    "unpacking": lambda x: [*x],
    "in": lambda x: 2.0 in x,
    "numpy.asarray": np.asarray,
    "numpy.asarray_chkfinite": np.asarray_chkfinite,
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
    pytest.param(name, leak, id=f"{name}, {way}")
    for name in PLACES
    for way, leak in {**EVERYWHERE, **OWN[name]}.items()
]


@pytest.mark.parametrize(("name", "leak"), LEAKS)
def test_an_implicit_transfer_is_refused_and_then_possible_again(name: str, leak: Any) -> None:
    x = _put(name, [[1.0, 2.0]])
    with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError, match="to_host"):
        leak(x)
    assert float(_number(x)) == 3.0


@pytest.mark.parametrize(("name", "leak"), LEAKS)
def test_a_leak_in_a_layer_of_ones_own_is_refused(name: str, leak: Any) -> None:
    class Leaky(bx.Activate):
        def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
            leak(x)
            return super().forward(parameters, x, rng)

    network = bx.Network([Leaky("identity"), bx.Dense(2, 1)], "huber")
    x, y, theta = (_put(name, values) for values in ([[1.0, 2.0]], [[1.0]], [0.1, 0.2, 0.3]))
    with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError):
        network.loss_and_gradient(theta, x, y)


def test_a_leak_in_a_loss_of_ones_own_is_refused(put: Any) -> None:
    huber = bx.losses.huber

    def value(outputs: Any, targets: Any) -> Any:
        return huber.value(outputs, targets) / float(_number(targets))

    network = bx.Network([bx.Dense(2, 1)], bx.Loss(value, huber.gradient))
    x, y, theta = put([[1.0, 2.0]]), put([[1.0]]), put([0.1, 0.2, 0.3])
    with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError):
        network.loss_and_gradient(theta, x, y)


def test_an_array_made_on_the_wrong_device_does_not_mix() -> None:
    x = bx.asarray([1.0], backend="array-api-strict", device="device1")
    xp = bx.resolve(x).backend.namespace()
    with bx.transfer_guard("disallow"), pytest.raises(ValueError, match="different devices"):
        x + xp.ones(1)


@pytest.mark.parametrize("mode", ["disallow", "log"])
def test_the_explicit_ways_stay_open(put: Any, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    x = put([[1.0, 2.0]])
    backend = bx.resolve(x).backend
    with bx.transfer_guard(mode):
        moved = [backend.to_host(x), to_host(x), bx.asarray(x, backend="numpy")]
        assert backend.probe().usable
    assert [host.tolist() for host in moved] == [[[1.0, 2.0]]] * 3
    assert not caplog.records


def test_the_arithmetic_of_arrays_is_no_transfer(
    put: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([[1.0, 2.0]])
    xp = bx.resolve(x).backend.namespace()
    with bx.transfer_guard("log"):
        x = xp.astype(xp.asarray(x, copy=True) @ xp.matrix_transpose(x) > 0.0, x.dtype)[0, 0]
        x += 1.0
    assert not caplog.records
    assert float(x) == 2.0


@pytest.mark.parametrize(
    "move",
    [
        lambda x, xp, host: x.to_device(host),
        lambda x, xp, host: xp.asarray(x, device=host),
        lambda x, xp, host: xp.from_dlpack(x, device=host),
    ],
)
def test_strict_arrays_leave_a_device_for_the_hosts_by_no_other_way(move: Any) -> None:
    x = bx.asarray([1.0], backend="array-api-strict", device="device1")
    backend = bx.resolve(x).backend
    xp, host = backend.namespace(), backend.device("cpu")
    with bx.transfer_guard("disallow"):
        with pytest.raises(bx.TransferError):
            move(x, xp, host)
        assert x.to_device(backend.device("device2")).device != x.device
        assert bx.asarray(x, backend=backend, device="cpu").device == host
        assert xp.asarray([1.0], device=host).to_device(x.device).device == x.device


@pytest.mark.parametrize(
    "move",
    [
        lambda x, torch: x.cpu(),
        lambda x, torch: x.to("cpu"),
        lambda x, torch: x.to(device="cpu"),
        lambda x, torch: x.to(torch.device("cpu"), torch.float64),
        lambda x, torch: x.to(torch.ones(1)),
        lambda x, torch: x.to(other=torch.ones(1)),
        lambda x, torch: torch.asarray(x, device="cpu"),
    ],
)
def test_tensors_of_another_device_leave_for_the_cpu_by_no_other_way(move: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.ones(1, device="meta")  # the one device beside the CPU that needs no hardware
    with bx.transfer_guard("disallow"):
        with pytest.raises(bx.TransferError, match="on meta to the host"):
            move(x, torch)
        assert x.to(torch.float64).device == x.device
        assert torch.ones(1).to("meta").device == x.device
        assert torch.ones(1).to("cpu").dtype == torch.float32


def test_an_error_and_a_line_of_the_log_say_what_and_where(
    put: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([[1.0, 2.0]])
    name = bx.resolve(x).backend.device_name(bx.resolve(x).device)
    with bx.transfer_guard("log"):
        _, line = float(_number(x)), sys._getframe().f_lineno
    (record,) = caplog.records
    said = record.getMessage()
    assert (record.name, record.levelno) == ("backprop_xp", logging.WARNING)
    assert f"shape (), float32, on {name}" in said
    assert said.endswith(f"{__file__}:{line}.")
    with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError) as info:
        np.asarray_chkfinite(x)  # through NumPy's own files
    assert f"shape (1, 2), float32, on {name} to the host at {__file__}:" in str(info.value)
    with bx.transfer_guard("disallow"), pytest.raises(bx.TransferError) as info:
        2.0 in x  # noqa: B015 - through files of the array's own library
    assert f"to the host at {__file__}:" in str(info.value)


def test_a_transfer_that_leads_through_others_is_logged_once(
    put: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([1.0])
    with bx.transfer_guard("log"):
        f"{x}"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("show", [repr, str, "{}".format, ascii])
def test_showing_an_array_is_logged_and_never_refused(
    put: Any, show: Any, caplog: pytest.LogCaptureFixture
) -> None:
    x = put([0.25])
    expected = show(x)
    with bx.transfer_guard("disallow"):
        assert show(x) == expected
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_traceback_of_a_failure_inside_shows_the_failure(put: Any) -> None:
    x = put([0.25])
    with bx.transfer_guard("disallow"):
        with pytest.raises(AssertionError, match=r"0\.25"):
            assert x is None  # pytest shows the array in the message
        try:
            raise KeyError("the real error")
        except KeyError as error:
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
            text = "".join(shown.format())
    assert "the real error" in text
    assert "0.25" in text


def test_the_innermost_guard_holds_and_the_outer_one_comes_back(
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


def test_the_guard_of_a_generator_holds_in_it_and_not_for_who_iterates(put: Any) -> None:
    x = _number(put([1.0]))

    def guarded() -> Iterator[None]:
        with bx.transfer_guard("disallow"):
            for _ in range(2):
                with pytest.raises(bx.TransferError):
                    float(x)
                yield

    assert [float(x) for _ in guarded()] == [1.0, 1.0]
    first, second = guarded(), guarded()
    next(first)
    next(second)
    first.close()  # in another order than they began
    second.close()
    assert float(x) == 1.0


@contextlib.contextmanager
def _strictly() -> Iterator[None]:
    with bx.transfer_guard("disallow"):
        yield


def test_the_generator_of_a_context_manager_hands_its_guard_on(put: Any) -> None:
    x = _number(put([1.0]))
    with _strictly(), pytest.raises(bx.TransferError):
        float(x)
    assert float(x) == 1.0


def test_another_thread_is_untouched_and_may_have_a_guard_of_its_own(put: Any) -> None:
    x = _number(put([1.0]))
    inside, outer_ended = threading.Event(), threading.Event()
    seen: list[Any] = []

    def other() -> None:
        seen.append(float(x))
        with bx.transfer_guard("disallow"):
            inside.set()
            outer_ended.wait(timeout=60)
            try:
                float(x)
            except bx.TransferError as error:
                seen.append(error)

    with bx.transfer_guard("disallow"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(timeout=60)
    outer_ended.set()
    thread.join()
    assert seen[0] == 1.0
    assert isinstance(seen[1], bx.TransferError)
    assert float(x) == 1.0


def test_another_task_is_untouched(put: Any) -> None:
    x = _number(put([1.0]))

    async def guarded(inside: asyncio.Event, read: asyncio.Event) -> None:
        with bx.transfer_guard("disallow"):
            inside.set()
            await read.wait()
            with pytest.raises(bx.TransferError):
                float(x)

    async def free(inside: asyncio.Event, read: asyncio.Event) -> float:
        await inside.wait()
        value = float(x)
        read.set()
        return value

    async def both() -> Any:
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(guarded(*events), free(*events))

    assert asyncio.run(both())[1] == 1.0


def _doors(backend: Backend) -> list[Any]:
    there = [door for door in backend.doors() if hasattr(door.holder, door.name)]
    return [vars(door.holder).get(door.name, "inherited") for door in there]


def test_a_librarys_classes_are_as_before_once_the_last_guard_has_ended(put: Any) -> None:
    backend = bx.resolve(put([1.0])).backend
    before = _doors(backend)
    with bx.transfer_guard("log"):
        with pytest.raises(KeyError), bx.transfer_guard("disallow"):
            raise KeyError
        assert all(now is not then for now, then in zip(_doors(backend), before, strict=True))
    assert all(now is then for now, then in zip(_doors(backend), before, strict=True))


def test_allowing_alone_touches_no_class(put: Any) -> None:
    backend = bx.resolve(put([1.0])).backend
    before = _doors(backend)
    with bx.transfer_guard("allow"):
        assert all(now is then for now, then in zip(_doors(backend), before, strict=True))


@pytest.mark.parametrize("loading", ["bx.get_backend('array-api-strict')", "network.forward(a, x)"])
def test_a_library_first_imported_inside_a_guard_is_guarded(loading: str) -> None:
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    program = f"""
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
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BACKPROP_XP_")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "refused", done.stderr


def test_cupys_class_takes_the_doors_where_no_gpu_answers_too() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    before = dict(vars(cupy.ndarray))
    with bx.transfer_guard("disallow"):
        changed = vars(cupy.ndarray).keys() - before.keys()
        assert {"get", "item", "__float__", "__bool__", "__iter__", "__dlpack__"} <= changed
    assert dict(vars(cupy.ndarray)) == before


def test_jax_is_left_to_its_own_guard(xp: Any) -> None:
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


def test_numpys_arrays_are_on_the_host_and_move_nowhere() -> None:
    with bx.transfer_guard("disallow"):
        assert float(bx.asarray([0.5], backend="numpy")[0]) == 0.5


@pytest.mark.parametrize(
    ("mode", "error", "hint"),
    [
        ("disalow", ValueError, "'disalow' is unknown. Did you mean 'disallow'?"),
        ("off", ValueError, "Known: disallow, log, allow."),
        (None, TypeError, "mode must be one of disallow, log, allow, not None."),
    ],
)
def test_a_mode_that_does_not_exist_is_an_error(mode: Any, error: Any, hint: str) -> None:
    with pytest.raises(error) as info, bx.transfer_guard(mode):
        pass
    assert hint in str(info.value)


def test_what_numpy_leaves_on_a_gpu_is_no_transfer() -> None:
    x = _put("cupy", 2.0)
    with bx.transfer_guard("disallow"):
        assert type(np.atleast_1d(x)) is type(x)


@pytest.mark.parametrize("backend", loaded(), ids=lambda backend: backend.name)
def test_the_doors_of_a_backend_are_there(backend: Backend) -> None:
    if not backend.probe().usable:
        pytest.skip(backend.probe().reason)
    missing = {door.name for door in backend.doors() if not hasattr(door.holder, door.name)}
    # Not every version has them: CuPy's arrays are no indices, array-api-strict's had no iterator.
    assert missing <= {"__index__", "__iter__"}


@pytest.mark.parametrize("method", ["doors", "transfer_guard"])
def test_what_a_backend_raises_is_shown_as_it_is(
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


def test_a_library_without_doors_is_looked_at_once_in_a_guard_and_never_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []
    monkeypatch.setattr(type(bx.get_backend("numpy")), "doors", lambda self: looks.append(1) or ())
    for _ in range(5):
        assert owner(np.ones(1)) is bx.get_backend("numpy")
    assert not looks
    with bx.transfer_guard("disallow"):
        owner(np.ones(1))
        before = len(looks)
        for _ in range(5):
            owner(np.ones(1))
    assert len(looks) == before
