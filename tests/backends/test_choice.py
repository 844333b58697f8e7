"""The choice of a backend, a device and a dtype: its source, its scope and its duration.

The errors of an unavailable choice are in test_error_messages.py.

Specifies ``scopes``.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import list_backends, owner
from tests.helpers import HANGING, python

STRICT = "array-api-strict"
NOBODYS = ("numpy", "cpu", "float64")

pytestmark = pytest.mark.usefixtures("nothing_chosen")


def names_of(*arrays: Any, **arguments: Any) -> tuple[str, str, str]:
    """Return the names of a selection's backend, device and dtype."""
    selection = bx.resolve(*arrays, **arguments)
    backend = selection.backend
    dtype = "float32" if selection.dtype == backend.namespace().float32 else "float64"
    return backend.name, backend.device_name(selection.device), dtype


def name() -> str:
    return bx.get_backend().name


# Precedence


def test_each_source_of_choices_overrides_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def assert_chosen(name: str, source: str, *arrays: Any, **arguments: Any) -> None:
        selection = bx.resolve(*arrays, **arguments)
        assert (selection.backend.name, selection.source) == (name, source)
        if not arrays:
            assert bx.get_backend(arguments.get("backend")) is selection.backend

    assert_chosen("numpy", "the default")
    assert names_of() == NOBODYS
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert_chosen(STRICT, "the environment variable BACKPROP_XP_BACKEND")
    bx.set_default_backend("numpy")
    assert_chosen("numpy", "set_default_backend('numpy')")
    with bx.use_backend(STRICT):
        assert_chosen(STRICT, f"use_backend({STRICT!r})")
        assert_chosen("numpy", "the arrays given", np.ones(2))
        assert_chosen("numpy", "the argument of the call", backend="numpy")
    bx.set_default_backend(None)
    assert name() == STRICT


def test_each_source_of_devices_overrides_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert names_of()[1] == "CPU_DEVICE"
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "device1")
    assert names_of()[1] == "device1"
    bx.set_default_backend(STRICT, device="device2")
    assert names_of()[1] == "device2"
    with bx.use_backend(STRICT, device="no_x64"):
        assert names_of()[1] == "no_x64"
        there = bx.asarray([1.0], device="device1")
        assert names_of(there)[1] == "device1"
        assert names_of(there, backend=STRICT, device="device1", dtype="float64")[1] == "device1"
        assert names_of(device="no_float64")[1] == "no_float64"


def test_each_source_of_dtypes_overrides_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_DTYPE", "float32")
    assert names_of()[2] == "float32"
    bx.set_default_backend("numpy", dtype="float64")
    assert names_of()[2] == "float64"
    with bx.use_backend("numpy", dtype="float32"):
        assert names_of()[2] == "float32"
        assert names_of(np.ones(2))[2] == "float64"
        assert names_of(dtype="float64")[2] == "float64"


def test_a_device_or_dtype_that_a_source_omits_comes_from_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bx.set_default_backend(STRICT, device="device1", dtype="float32")
    with bx.use_backend(STRICT):
        assert names_of() == (STRICT, "device1", "float32")
    assert names_of(backend=STRICT) == (STRICT, "device1", "float32")
    bx.set_default_backend(None, device="cpu", dtype="float32")
    assert names_of() == ("numpy", "cpu", "float32")
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert names_of()[::2] == (STRICT, "float32")


def test_the_device_of_a_source_with_another_backend_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "device1")
    assert names_of(backend="numpy") == NOBODYS
    with bx.use_backend("numpy"):
        assert names_of() == NOBODYS
    monkeypatch.delenv("BACKPROP_XP_BACKEND")  # the device1 of no other backend
    assert names_of(backend=STRICT)[:2] == (STRICT, "CPU_DEVICE")


def test_a_librarys_dtype_object_is_accepted_and_does_not_affect_other_backends() -> None:
    strict = bx.get_backend(STRICT).namespace()
    for dtype in (np.float32, np.dtype("float32")):
        assert bx.resolve(dtype=dtype).dtype == np.float32
    assert bx.resolve(dtype="complex64").dtype == np.complex64
    assert bx.resolve(backend=STRICT, dtype=strict.float32).dtype == strict.float32
    with bx.use_backend(STRICT, dtype=strict.float32):
        assert bx.asarray([0.5]).dtype == strict.float32
        assert names_of(backend="numpy") == NOBODYS


def test_no_dtype_is_compared_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some libraries refuse it."""
    xp = pytest.importorskip("array_api_strict")
    kind = type(xp.float32)
    equal = kind.__eq__

    def refusing(self: Any, other: Any) -> bool:
        if other is None:
            raise TypeError("a dtype is compared with None")
        return bool(equal(self, other))

    monkeypatch.setattr(kind, "__eq__", refusing)
    strict: Any = {"backend": "array-api-strict", "device": "device1"}
    for dtype in ("float32", "float64", "bool", xp.int32):
        assert (
            bx.resolve(**strict, dtype=dtype).dtype == bx.asarray(1.0, **strict, dtype=dtype).dtype
        )
    with pytest.raises(ValueError, match="'flaot32', from the argument"):
        bx.resolve(**strict, dtype="flaot32")
    labels = bx.asarray([[0, 1, 2]], **strict)
    with pytest.raises(TypeError, match="theta is int"):
        bx.mlp([1, 1]).forward(labels[0, :2], labels)
    assert bx.resolve(labels).dtype == xp.float64
    network = bx.mlp([3, 2], loss="categorical_cross_entropy")
    theta = network.initialize(**strict)
    with bx.transfer_guard("disallow"):
        bx.fit(network, theta, labels, labels[:, 0], optimizer=bx.SGD(0.1), epochs=1)


def test_a_backend_object_is_accepted_wherever_a_name_is() -> None:
    strict = bx.get_backend(STRICT)
    assert bx.get_backend(strict) is owner(bx.asarray([1.0], backend=strict)) is strict
    with bx.use_backend(strict) as selection:
        assert selection.backend is bx.get_backend() is strict
    bx.set_default_backend(strict)
    assert bx.get_backend() is strict


def test_the_environment_is_read_at_each_call_and_an_empty_variable_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for backend in ("numpy", STRICT, "numpy"):
        monkeypatch.setenv("BACKPROP_XP_BACKEND", backend)
        assert name() == backend
    for empty in ("", " "):
        for what in ("BACKEND", "DEVICE", "DTYPE"):
            monkeypatch.setenv(f"BACKPROP_XP_{what}", empty)
        assert names_of() == NOBODYS
        assert bx.resolve().source == "the default"


def test_arrays_choose_backend_device_and_dtype_but_lists_and_numbers_do_not() -> None:
    there = bx.asarray([1.0], backend=STRICT, device="device1", dtype="float32")
    assert names_of(there, [2.0], there) == (STRICT, "device1", "float32")
    with bx.use_backend(STRICT):
        assert bx.resolve([1.0], 2.0, None).backend.name == STRICT
    integers, single, double = np.arange(3), np.ones(3, np.float32), np.ones(1, np.complex64)
    assert names_of(integers)[2] == "float64"
    for arrays in ((integers, single), (double, single, integers), (double,)):
        assert bx.resolve(*arrays).dtype == np.float32


def test_an_overridden_choice_may_be_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "cuda:0")
    monkeypatch.setenv("BACKPROP_XP_DTYPE", "double")
    for backend in ("numpy", STRICT):
        monkeypatch.setenv("BACKPROP_XP_BACKEND", backend)
        assert name() == backend  # devices and dtypes do not count
    for missing in ("cupy", "nonesuch"):
        monkeypatch.setenv("BACKPROP_XP_BACKEND", missing)
        assert bx.get_backend("numpy").name == "numpy"
        assert bx.resolve(np.ones(2)).backend.name == "numpy"
        assert bx.resolve(backend="numpy", dtype="float64").backend.name == "numpy"
        with bx.use_backend("numpy", dtype="float64"):
            assert isinstance(bx.asarray([1.0]), np.ndarray)


# use_backend


def test_use_backend_nests_and_ends_on_an_error_too() -> None:
    with bx.use_backend(STRICT, device="device1"):
        with bx.use_backend("numpy", dtype="float32"):
            assert names_of() == ("numpy", "cpu", "float32")
            with bx.use_backend(STRICT):
                assert names_of() == (STRICT, "device1", "float32")
        assert names_of() == (STRICT, "device1", "float64")
    assert names_of() == NOBODYS
    with pytest.raises(ZeroDivisionError), bx.use_backend(STRICT):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="unknown"), bx.use_backend("nonesuch"):
        raise AssertionError("the name is refused at once")
    assert names_of() == NOBODYS


def test_a_dtype_or_a_device_alone_keeps_the_backend_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bx.use_backend(dtype="float32"):
        assert names_of() == ("numpy", "cpu", "float32")
    with bx.use_backend(STRICT), bx.use_backend(device="device1"):
        with bx.use_backend(dtype="float32") as selection:
            assert selection.source == f"use_backend({STRICT!r})"
            assert names_of() == (STRICT, "device1", "float32")
            assert names_of(backend="numpy") == ("numpy", "cpu", "float32")
        assert names_of() == (STRICT, "device1", "float64")
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    with bx.use_backend(device="device2"):
        assert names_of()[:2] == (STRICT, "device2")


def test_a_use_backend_object_can_be_reused_and_nested() -> None:
    on_strict = bx.use_backend(STRICT)
    for _ in range(2):
        with on_strict:
            with on_strict:
                assert name() == STRICT
            assert name() == STRICT
        assert name() == "numpy"
    assert on_strict(name)() == STRICT


def test_use_backend_holds_for_its_own_thread_only() -> None:
    names = ["numpy", STRICT] * 4
    together = threading.Barrier(8)

    def observed(backend: str) -> set[str]:
        observed = set()
        for _ in range(20):
            with bx.use_backend(backend):
                together.wait(timeout=HANGING)  # all threads are inside
                observed.add(f"inside {name()}")
                together.wait(timeout=HANGING)
            observed.add(f"outside {name()}")
        return observed

    with bx.use_backend(STRICT), ThreadPoolExecutor(8) as pool:  # in which they begin
        found = list(pool.map(observed, names))
    assert found == [{f"inside {backend}", "outside numpy"} for backend in names]


def test_use_backend_holds_for_its_own_task_only() -> None:
    async def task(backend: str, barrier: asyncio.Barrier) -> list[str]:
        observed = []
        with bx.use_backend(backend):
            for _ in range(20):
                await barrier.wait()
                observed.append(name())
            observed.append(await asyncio.to_thread(name))
        return [*observed, name()]

    async def all_at_once(names: list[str]) -> list[list[str]]:
        barrier = asyncio.Barrier(len(names))
        return list(await asyncio.gather(*(task(name, barrier) for name in names)))

    names = ["numpy", STRICT] * 4
    assert asyncio.run(all_at_once(names)) == [[backend] * 21 + ["numpy"] for backend in names]
    assert name() == "numpy"


async def _coroutine() -> None: ...
async def _asynchronous() -> AsyncIterator[int]:
    yield 0


def _generator() -> Iterator[int]:
    yield 0


@pytest.mark.parametrize("function", [_coroutine, _asynchronous, _generator])
def test_a_context_decorates_no_function_that_runs_after_its_call(function: Any) -> None:
    for context, name in (
        (bx.use_backend(STRICT), "use_backend"),
        (bx.transfer_guard("disallow"), "transfer_guard"),
    ):
        message = rf"@{name} decorates {function.__name__}.*`with {name}\(\.\.\.\):` inside"
        with pytest.raises(TypeError, match=message):
            context(function)


def test_a_context_decorates_a_function_for_each_of_its_calls() -> None:
    @bx.use_backend(STRICT)
    @bx.transfer_guard("disallow")
    def ends(depth: int) -> str:
        if depth:
            return ends(depth - 1)
        with pytest.raises(bx.TransferError):
            float(bx.asarray(1.0))
        return bx.resolve().backend.name

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ends, [0, 2, 1, 3])) == [STRICT] * 4
    assert bx.resolve().backend.name == "numpy"
    assert float(bx.asarray(1.0, backend=STRICT)) == 1.0


# use_backend in generators


def in_strict(block: Any = None) -> Iterator[str]:
    with block or bx.use_backend(STRICT):
        yield name()
        yield name()


def test_the_block_of_a_generator_holds_until_it_ends_as_numpys_errstate_does() -> None:
    with bx.use_backend("numpy", dtype="float32"):
        observed = [(inside, names_of()[0]) for inside in in_strict()]
        assert names_of() == ("numpy", "cpu", "float32")
    assert observed == [(STRICT, STRICT)] * 2


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("block", [None, bx.use_backend(STRICT)])
def test_generators_that_end_in_any_order_leave_nothing_chosen(first: int, block: Any) -> None:
    generators = [in_strict(block), in_strict(block)]
    for generator in generators:
        next(generator)
    generators[first].close()
    assert next(generators[1 - first]) == STRICT
    generators[1 - first].close()
    assert name() == "numpy"


def test_a_generator_that_another_thread_ends_chooses_nothing_there() -> None:
    generator = in_strict()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        assert one.submit(next, generator).result() == STRICT
        assert other.submit(list, generator).result() == ["numpy"]
        assert other.submit(name).result() == "numpy"


@contextlib.contextmanager
def on_strict() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(bx.use_backend(STRICT))
        yield


def test_a_context_managers_generator_keeps_its_choice_in_the_with_block() -> None:
    with on_strict():
        assert name() == STRICT
    assert name() == "numpy"


@pytest.fixture
def strict_for_a_test() -> Iterator[None]:
    with bx.use_backend(STRICT):
        yield


@pytest.mark.usefixtures("strict_for_a_test")
def test_a_fixtures_generator_keeps_its_choice_during_the_test() -> None:
    assert name() == STRICT


# The default, the list and auto


def test_a_default_holds_in_every_thread_and_an_unavailable_one_does_not_replace_it() -> None:
    with ThreadPoolExecutor(4) as pool:
        for backend in (STRICT, "numpy", STRICT):  # the workers live through all three
            bx.set_default_backend(backend)
            assert {look.result() for look in [pool.submit(name) for _ in range(16)]} == {backend}
    for wrong in ({"name": "nonesuch"}, {"name": "numpy", "device": "device1"}):
        with pytest.raises(ValueError, match="set_default_backend"):
            bx.set_default_backend(**wrong)
    assert name() == STRICT


@pytest.mark.installed
def test_listing_backends_imports_no_library(tmp_path: Path) -> None:
    for library in ("jax", "torch"):
        stub = "__version__ = '0.0'\ndef __getattr__(n): return print"
        (tmp_path / f"{library}.py").write_text(stub)
    program = (
        "import sys, backprop_xp as bx\n"
        "rows = bx.list_backends()\n"
        "print(*sorted({'jax', 'torch', 'cupy', 'array_api_strict'} & sys.modules.keys()))\n"
        "print(*(row.name for row in rows if row.usable))\n"
    )
    imported, usable = python(program, tmp_path).stdout.splitlines()
    assert not imported
    assert {"numpy", STRICT} <= {*usable.split()}


@pytest.mark.installed
def test_auto_chooses_a_usable_backend_and_logs_exactly_one_line() -> None:
    program = (
        "import logging, backprop_xp as bx\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "print(*{bx.get_backend().name for _ in range(3)} | {bx.get_backend('auto').name})\n"
    )
    done = python(program, BACKPROP_XP_BACKEND="auto")
    status = {row.name: row for row in list_backends()}["cupy"]
    expected = "cupy" if status.usable else "numpy"
    assert done.stdout.split() == [expected]
    (line,) = [line for line in done.stderr.splitlines() if "backprop_xp" in line]
    assert f"backend 'auto' is {expected}" in line
    assert status.reason in line


@pytest.mark.installed
def test_the_owner_of_an_array_is_found_without_the_backends_of_other_libraries() -> None:
    program = (
        "import sys, backprop_xp as bx\n"
        "network = bx.mlp([2, 1])\n"
        "theta, options = network.initialize(), {'optimizer': bx.SGD(0.1), 'epochs': 1}\n"
        "bx.fit(network, theta, [[1.0, 2.0]], [[3.0]], **options)\n"
        "parts = [name.split('.') for name in sys.modules]\n"
        "print({part[3] for part in parts if part[1:3] == ['backends', 'libraries'] and part[3:]})"
    )
    assert python(program).stdout.strip() == "{'numpy'}"
